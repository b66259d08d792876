#include "server/http/guard.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct place {
    char host[256]; /* a literal in its canonical form, a name in lower case */
    bool literal;
    int port; /* -1: not given */
};

static bool port_parse(const char *text, int *port)
{
    size_t digits = strspn(text, "0123456789");

    *port = 0;
    if (digits == 0 || digits > 5 || text[digits])
        return false;
    for (; *text; text++)
        *port = *port * 10 + (*text - '0');
    return *port <= 65535;
}

/* Canonical text, so that [::1] and [0:0:0:0:0:0:0:1] are one host. */
static bool literal_take(struct place *place, int family)
{
    unsigned char bytes[sizeof(struct in6_addr)];

    if (inet_pton(family, place->host, bytes) != 1)
        return false;
    place->literal = true;
    return inet_ntop(family, bytes, place->host, sizeof(place->host)) != NULL;
}

static bool name_take(struct place *place)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-._";
    size_t length = strlen(place->host);

    for (size_t i = 0; i < length; i++)
        if (place->host[i] >= 'A' && place->host[i] <= 'Z')
            place->host[i] = (char)(place->host[i] + ('a' - 'A'));
    if (length == 0 || strspn(place->host, allowed) != length)
        return false;
    if (length > 1 && place->host[length - 1] == '.')
        place->host[length - 1] = '\0'; /* the root's dot */
    return true;
}

/* "host", "host:port", "[v6]" or "[v6]:port". */
static bool place_parse(const char *text, struct place *place)
{
    bool bracket = *text == '[';
    const char *start = text + (bracket ? 1 : 0);
    size_t length = strcspn(start, bracket ? "]" : ":");
    const char *rest = start + length;

    *place = (struct place){ .port = -1 };
    if (length == 0 || length >= sizeof(place->host))
        return false;
    memcpy(place->host, start, length);
    if (bracket && *rest++ != ']')
        return false;
    if (*rest && (*rest != ':' || !port_parse(rest + 1, &place->port)))
        return false;
    if (bracket)
        return literal_take(place, AF_INET6);
    return literal_take(place, AF_INET) || name_take(place);
}

static bool host_is_ours(
        const struct place *place, const char *const *names, size_t name_count)
{
    if (place->literal || strcmp(place->host, "localhost") == 0)
        return true;
    for (size_t i = 0; i < name_count; i++)
        if (strcasecmp(place->host, names[i]) == 0)
            return true;
    return false;
}

/* A proxy may end TLS before us, so https is a scheme too; the port then defaults to 443. */
static bool origin_is_host(const char *origin, const struct place *host)
{
    struct place place;
    bool tls = strncasecmp(origin, "https://", 8) == 0;
    int usual = tls ? 443 : 80;

    if (!tls && strncasecmp(origin, "http://", 7) != 0)
        return false;
    if (!place_parse(origin + (tls ? 8 : 7), &place))
        return false;
    return strcmp(place.host, host->host) == 0 &&
            (place.port < 0 ? usual : place.port) ==
            (host->port < 0 ? usual : host->port);
}

enum guard_verdict guard_check(const char *host, const char *origin,
        const char *const *names, size_t name_count)
{
    struct place place = { .port = -1 };

    if (host && !place_parse(host, &place))
        return GUARD_MALFORMED;
    if (host && !host_is_ours(&place, names, name_count))
        return GUARD_MISDIRECTED;
    if (origin && (!host || !origin_is_host(origin, &place)))
        return GUARD_FOREIGN_ORIGIN;
    return GUARD_PASS;
}

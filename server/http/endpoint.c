#include "server/http/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* Digits only: strtoul() would take signs and blanks. */
static bool port_parse(const char *text, in_port_t *port)
{
    unsigned value = 0;
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 5 || text[digits] != '\0')
        return false;
    for (; *text; text++)
        value = value * 10 + (unsigned)(*text - '0');
    *port = htons((in_port_t)value);
    return value <= 65535;
}

bool endpoint_parse(const char *text, struct endpoint *address)
{
    struct sockaddr_in *four = (struct sockaddr_in *)(void *)&address->storage;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)&address->storage;
    char host[INET6_ADDRSTRLEN];
    const char *start = *text == '[' ? text + 1 : text;
    const char *end = *text == '[' ? strchr(text, ']') : strrchr(text, ':');

    memset(address, 0, sizeof(*address));
    if (!end || (size_t)(end - start) >= sizeof(host))
        return false;
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';

    if (*text == '[') {
        six->sin6_family = AF_INET6;
        address->length = sizeof(*six);
        return end[1] == ':' && inet_pton(AF_INET6, host, &six->sin6_addr) == 1 &&
                port_parse(end + 2, &six->sin6_port);
    }
    four->sin_family = AF_INET;
    address->length = sizeof(*four);
    return inet_pton(AF_INET, host, &four->sin_addr) == 1 &&
            port_parse(end + 1, &four->sin_port);
}

bool endpoint_is_loopback(const struct endpoint *address)
{
    const struct sockaddr_in *four = (const void *)&address->storage;
    const struct sockaddr_in6 *six = (const void *)&address->storage;

    if (address->storage.ss_family == AF_INET)
        return ntohl(four->sin_addr.s_addr) >> 24 == 127;
    return address->storage.ss_family == AF_INET6 &&
            (IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) ||
                    (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr) &&
                            six->sin6_addr.s6_addr[12] == 127));
}

void endpoint_format_host(const struct sockaddr *address, char text[ENDPOINT_TEXT])
{
    const struct sockaddr_in *four = (const void *)address;
    const struct sockaddr_in6 *six = (const void *)address;
    const char *done = NULL;

    if (address && address->sa_family == AF_INET)
        done = inet_ntop(AF_INET, &four->sin_addr, text, ENDPOINT_TEXT);
    else if (address && address->sa_family == AF_INET6)
        done = inet_ntop(AF_INET6, &six->sin6_addr, text, ENDPOINT_TEXT);
    if (!done)
        memcpy(text, "?", 2);
}

void endpoint_format(const struct sockaddr *address, char text[ENDPOINT_TEXT])
{
    const struct sockaddr_in *four = (const void *)address;
    const struct sockaddr_in6 *six = (const void *)address;
    char host[ENDPOINT_TEXT];

    endpoint_format_host(address, host);
    if (address && address->sa_family == AF_INET6)
        (void)snprintf(text, ENDPOINT_TEXT, "[%.46s]:%u", host, ntohs(six->sin6_port));
    else if (address && address->sa_family == AF_INET)
        (void)snprintf(text, ENDPOINT_TEXT, "%.46s:%u", host, ntohs(four->sin_port));
    else
        memcpy(text, host, 2);
}

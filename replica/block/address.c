/* Addresses are read by hand, character by character: inet_aton(), atoi() and the URL
 * parser of libiscsi all accept spellings ("0x7f000001", "127.1", port 68796, LUN
 * 99999999999) that would let a caller name a portal other than the one that the
 * allow-list was asked about. Every spelling has one meaning here, or none. */
#include "replica/block/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/** Decimal, no sign, no blank, no leading zero, at most @largest. Moves *@text past it.
 */
static bool number_take(const char **text, unsigned largest, unsigned *number)
{
    const char *p = *text;
    unsigned value = 0;

    if (!is_digit(*p) || (p[0] == '0' && is_digit(p[1])))
        return false;
    for (; is_digit(*p); p++) {
        value = value * 10 + (unsigned)(*p - '0');
        if (value > largest)
            return false;
    }
    *text = p;
    *number = value;
    return true;
}

static void portal_set_v4(struct sockaddr_storage *portal, const void *address)
{
    struct sockaddr_in in = { .sin_family = AF_INET };

    memcpy(&in.sin_addr, address, 4);
    memset(portal, 0, sizeof(*portal));
    memcpy(portal, &in, sizeof(in));
}

static void portal_set_v6(
        struct sockaddr_storage *portal, const struct in6_addr *address)
{
    struct sockaddr_in6 in = { .sin6_family = AF_INET6, .sin6_addr = *address };

    if (IN6_IS_ADDR_V4MAPPED(address)) {
        portal_set_v4(portal, address->s6_addr + 12);
        return;
    }
    memset(portal, 0, sizeof(*portal));
    memcpy(portal, &in, sizeof(in));
}

static void portal_set_port(struct sockaddr_storage *portal, uint16_t port)
{
    /* sin_port and sin6_port lie at the same place. */
    uint16_t wire = htons(port);

    memcpy((char *)portal + offsetof(struct sockaddr_in, sin_port), &wire,
            sizeof(wire));
}

uint16_t portal_port(const struct sockaddr_storage *portal)
{
    uint16_t wire;

    memcpy(&wire, (const char *)portal + offsetof(struct sockaddr_in, sin_port),
            sizeof(wire));
    return ntohs(wire);
}

/** The address bytes of @portal and their count, 4 or 16. */
static unsigned portal_bytes(const struct sockaddr_storage *portal, uint8_t bytes[16])
{
    if (portal->ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, portal, sizeof(in));
        memcpy(bytes, &in.sin_addr, 4);
        return 4;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, portal, sizeof(in6));
    memcpy(bytes, &in6.sin6_addr, 16);
    return 16;
}

/**
 * Takes a dotted quad or a bracketed IPv6 address from *@text. inet_pton() is strict:
 * four decimal parts, no zone. It wants a string of its own, hence the copy.
 */
static bool host_take(const char **text, struct sockaddr_storage *portal, bool *mapped)
{
    char copy[INET6_ADDRSTRLEN];
    const char *from = *text, *end;
    bool v6 = *from == '[';
    size_t length;

    if (v6) {
        from++;
        end = strchr(from, ']');
    } else {
        end = from + strspn(from, "0123456789.");
    }
    if (!end || (length = (size_t)(end - from)) == 0 || length >= sizeof(copy))
        return false;
    memcpy(copy, from, length);
    copy[length] = '\0';
    if (v6) {
        struct in6_addr address;
        if (inet_pton(AF_INET6, copy, &address) != 1)
            return false;
        *mapped = IN6_IS_ADDR_V4MAPPED(&address);
        portal_set_v6(portal, &address);
    } else {
        struct in_addr address;
        if (inet_pton(AF_INET, copy, &address) != 1)
            return false;
        *mapped = false;
        portal_set_v4(portal, &address);
    }
    *text = end + v6;
    return true;
}

/** Takes "HOST[:PORT]". */
static int portal_take(const char **text, uint16_t default_port, bool any_port,
        struct sockaddr_storage *portal, struct fault *fault)
{
    unsigned port = default_port;
    bool mapped;

    if (!host_take(text, portal, &mapped))
        return fault_set(fault, -EINVAL,
                "the host is no numeric IPv4 address nor an IPv6 address in brackets");
    if (**text == ':') {
        ++*text;
        if (!number_take(text, 65535, &port))
            return fault_set(fault, -EINVAL, "the port is no number from 1 to 65535");
        if (port == 0 && !any_port)
            return fault_set(fault, -EINVAL, "port 0 cannot be connected to");
    } else if (default_port == 0) {
        return fault_set(fault, -EINVAL, "the port is missing");
    }
    portal_set_port(portal, (uint16_t)port);
    return 0;
}

int portal_parse(const char *text, uint16_t default_port, bool any_port,
        struct sockaddr_storage *portal, struct fault *fault)
{
    int result = portal_take(&text, default_port, any_port, portal, fault);

    if (result == 0 && *text)
        return fault_set(fault, -EINVAL, "there is something after the portal");
    return result;
}

void portal_format(const struct sockaddr_storage *portal, char text[BLOCK_PORTAL_TEXT])
{
    uint8_t bytes[16];
    char host[INET6_ADDRSTRLEN] = "?";
    bool v4 = portal_bytes(portal, bytes) == 4;

    (void)inet_ntop(v4 ? AF_INET : AF_INET6, bytes, host, sizeof(host));
    snprintf(text, BLOCK_PORTAL_TEXT, v4 ? "%s:%u" : "[%s]:%u", host,
            (unsigned)portal_port(portal));
}

socklen_t portal_length(const struct sockaddr_storage *portal)
{
    return portal->ss_family == AF_INET ? sizeof(struct sockaddr_in)
                                        : sizeof(struct sockaddr_in6);
}

bool portal_is_loopback(const struct sockaddr_storage *portal)
{
    uint8_t bytes[16];

    if (portal_bytes(portal, bytes) == 4)
        return bytes[0] == 127;
    return memcmp(bytes, &in6addr_loopback, 16) == 0;
}

static bool portal_is_unspecified(const struct sockaddr_storage *portal)
{
    static const uint8_t zeros[16];
    uint8_t bytes[16];
    unsigned size = portal_bytes(portal, bytes);

    return memcmp(bytes, zeros, size) == 0;
}

bool portal_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    uint8_t left[16], right[16];
    unsigned size = portal_bytes(a, left);

    return size == portal_bytes(b, right) && memcmp(left, right, size) == 0 &&
            portal_port(a) == portal_port(b);
}

int portal_rule_parse(const char *text, struct portal_rule *rule, struct fault *fault)
{
    struct sockaddr_storage host;
    bool mapped;
    unsigned bits, widest, port = 0;

    memset(rule, 0, sizeof(*rule));
    if (!host_take(&text, &host, &mapped))
        return fault_set(fault, -EINVAL,
                "the host is no numeric IPv4 address nor an IPv6 address in brackets");
    rule->family = host.ss_family;
    widest = bits = portal_bytes(&host, rule->address) * 8;
    if (*text == '/') {
        text++;
        if (!number_take(&text, mapped ? 128 : widest, &bits) || (mapped && bits < 96))
            return fault_set(
                    fault, -EINVAL, "the prefix length does not fit the address");
        if (mapped)
            bits -= 96;
    }
    if (*text == ':') {
        text++;
        if (!number_take(&text, 65535, &port) || port == 0)
            return fault_set(fault, -EINVAL, "the port is no number from 1 to 65535");
    }
    if (*text)
        return fault_set(fault, -EINVAL, "not of the form ADDR[/BITS][:PORT]");
    rule->bits = (uint8_t)bits;
    rule->port = (uint16_t)port;
    return 0;
}

bool portal_rule_allows(
        const struct portal_rule *rule, const struct sockaddr_storage *portal)
{
    struct sockaddr_storage plain = *portal;
    uint8_t bytes[16];
    unsigned size, whole = rule->bits / 8, rest = rule->bits % 8;

    if (portal->ss_family ==
            AF_INET6) { /* map it, if it did not come from our parser */
        struct sockaddr_in6 in6;
        memcpy(&in6, portal, sizeof(in6));
        portal_set_v6(&plain, &in6.sin6_addr);
    }
    size = portal_bytes(&plain, bytes);
    if (size != (rule->family == AF_INET ? 4u : 16u))
        return false;
    if (rule->port && rule->port != portal_port(portal))
        return false;
    if (memcmp(bytes, rule->address, whole) != 0)
        return false;
    return rest == 0 || ((bytes[whole] ^ rule->address[whole]) >> (8 - rest)) == 0;
}

static bool all_hex(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!is_hex(text[i]))
            return false;
    return true;
}

int iqn_parse(
        const char *text, size_t length, char name[ISCSI_NAME_MAX], struct fault *fault)
{
    memset(name, 0, ISCSI_NAME_MAX);
    if (length < 5 || length >= ISCSI_NAME_MAX)
        return fault_set(fault, -EINVAL, "an iSCSI name has 5 to 223 bytes");
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (!is_letter(c) && !is_digit(c) && c != '.' && c != '-' && c != ':' &&
                c != '_') {
            name[0] = '\0';
            return fault_set(fault, -EINVAL,
                    "an iSCSI name has letters, digits, dots, dashes and colons only");
        }
        name[i] = lower(c);
    }
    if (memcmp(name, "iqn.", 4) == 0 ||
            (memcmp(name, "eui.", 4) == 0 && length == 20 && all_hex(name + 4, 16)) ||
            (memcmp(name, "naa.", 4) == 0 && (length == 20 || length == 36) &&
                    all_hex(name + 4, length - 4)))
        return 0;
    name[0] = '\0';
    return fault_set(fault, -EINVAL,
            "an iSCSI name begins with iqn., or is eui. or naa. and hex");
}

static int lun_address_parse(
        const char *text, struct address *address, struct fault *fault)
{
    const char *slash;
    int result;

    result = portal_take(&text, ADDRESS_PORT_ISCSI, false, &address->portal, fault);
    if (result)
        return result;
    if (*text != '/')
        return fault_set(
                fault, -EINVAL, "not of the form iscsi://HOST[:PORT]/TARGET/LUN");
    if (portal_is_unspecified(&address->portal))
        return fault_set(fault, -EINVAL, "the unspecified address is no portal");
    slash = strchr(++text, '/');
    if (!slash)
        return fault_set(fault, -EINVAL, "the LUN is missing");
    result = iqn_parse(text, (size_t)(slash - text), address->target, fault);
    if (result)
        return result;
    text = slash + 1;
    if (!number_take(&text, ADDRESS_LUN_MAX, &address->lun) || *text)
        return fault_set(
                fault, -EINVAL, "the LUN is no number from 0 to %d", ADDRESS_LUN_MAX);
    return 0;
}

/** Every component is a name: not empty, not "." nor "..", no control characters. */
static bool file_name_sound(const char *name)
{
    while (true) {
        size_t length = strcspn(name, "/");
        if (length == 0 || (length == 1 && name[0] == '.') ||
                (length == 2 && name[0] == '.' && name[1] == '.'))
            return false;
        for (size_t i = 0; i < length; i++)
            if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
                return false;
        if (!name[length])
            return true;
        name += length + 1;
    }
}

static int pool_address_parse(
        const char *text, struct address *address, struct fault *fault)
{
    size_t length = strcspn(text, "/");

    if (length == 0 || length >= ADDRESS_POOL_MAX || text[0] == '.')
        return fault_set(
                fault, -EINVAL, "a pool's name has 1 to 63 bytes and no leading dot");
    for (size_t i = 0; i < length; i++)
        if (!is_letter(text[i]) && !is_digit(text[i]) && !strchr("._-", text[i]))
            return fault_set(fault, -EINVAL,
                    "a pool's name has letters, digits, dots, dashes and underscores "
                    "only");
    memcpy(address->pool, text, length);
    text += length;
    if (*text++ != '/')
        return fault_set(fault, -EINVAL, "not of the form pool:NAME/FILE");
    if (strlen(text) >= BLOCK_NAME_MAX)
        return fault_set(fault, -EINVAL, "the file's name is longer than %d bytes",
                BLOCK_NAME_MAX - 1);
    if (!file_name_sound(text))
        return fault_set(fault, -EINVAL,
                "the file's name has an empty, dotted or unprintable component");
    memcpy(address->file, text, strlen(text));
    return 0;
}

int address_parse(const char *text, struct address *address, struct fault *fault)
{
    memset(address, 0, sizeof(*address));
    if (strncmp(text, "pool:", 5) == 0) {
        address->kind = ADDRESS_POOL_FILE;
        return pool_address_parse(text + 5, address, fault);
    }
    if (strncmp(text, "iscsi://", 8) == 0) {
        address->kind = ADDRESS_ISCSI;
        return lun_address_parse(text + 8, address, fault);
    }
    return fault_set(fault, -EINVAL,
            "an address is pool:NAME/FILE or iscsi://HOST[:PORT]/TARGET/LUN");
}

void address_format(const struct address *address, char text[ADDRESS_TEXT])
{
    if (address->kind == ADDRESS_POOL_FILE) {
        snprintf(text, ADDRESS_TEXT, "pool:%s/%s", address->pool, address->file);
        return;
    }
    char portal[BLOCK_PORTAL_TEXT];
    portal_format(&address->portal, portal);
    snprintf(text, ADDRESS_TEXT, "iscsi://%s/%s/%u", portal, address->target,
            address->lun);
}

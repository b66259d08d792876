/* server/http/guard.h - who may be asked for, and from which page; pure.
 *
 * A page of a foreign site can point its own name at our address (DNS rebinding); the Host
 * header then holds that name. So names are taken only from a list.
 */
#ifndef SERVER_HTTP_GUARD_H
#define SERVER_HTTP_GUARD_H

#include <stddef.h>

enum guard_verdict {
    GUARD_PASS,
    GUARD_MALFORMED, /* no host and port at all */
    GUARD_MISDIRECTED, /* a name that is not ours */
    GUARD_FOREIGN_ORIGIN, /* a page of somebody else */
};

/**
 * @host, @origin: header values, NULL when not there. @names: what Host may hold beyond IP
 * literals and localhost. An Origin passes when its host and port are those of Host.
 */
enum guard_verdict guard_check(const char *host, const char *origin,
        const char *const *names, size_t name_count);

#endif

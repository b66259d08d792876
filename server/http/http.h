/* server/http/http.h - the HTTP listeners: bytes in, a call of api/, its outcome out.
 *
 * Knows routes, headers and HTTP numbers; never what a member of a body means. Threads:
 * one a connection (libmicrohttpd's), a reaper, one polling thread a listener.
 */
#ifndef SERVER_HTTP_HTTP_H
#define SERVER_HTTP_HTTP_H

#include <stddef.h>

#include "replica/base/fault.h"

struct http;
struct service;

/** Borrowed for http_start(). Zero means the value in brackets. */
struct http_options {
    const char *const
            *addresses; /* "ADDR:PORT", numeric, IPv6 in brackets; port 0 picks */
    size_t address_count;
    const char *health; /* the same; NULL: no listener of its own */
    const char *const *hosts; /* names that a Host header may hold, beyond localhost */
    size_t host_count;
    unsigned deadline_ms; /* for a request to arrive, for a piece to leave [30,000] */
    unsigned idle_s; /* a connection without a byte [15] */
    unsigned keep_alive_ms; /* between two comments of an event stream [15,000] */
    unsigned connections; /* served at once, all API listeners together [256] */
    unsigned waiters; /* of them in a wait or an event stream [64] */
};

/**
 * Bind every address, then serve. @service is borrowed until http_stop(). Owned by the
 * caller, http_stop(). NULL with @fault: an address is malformed or taken.
 */
struct http *http_start(struct service *service, const struct http_options *options,
        struct fault *fault);

/** "ADDR:PORT" really bound, of API listener @index; NULL past the last. Borrowed. */
const char *http_address(const struct http *http, size_t index);
/** The same of the health listener; NULL: none. */
const char *http_health_address(const struct http *http);

/** From now on each answer ends its connection and no event stream begins. */
void http_drain(struct http *http);

/**
 * Take no new API connection and wait up to @ms for the requests under way to be answered.
 * Call service_drain() before, so that none of them waits. Health goes on answering.
 */
void http_quiesce(struct http *http, unsigned ms);

/** Cut what is left and join every thread. NULL is fine. */
void http_stop(struct http *http);

#endif

/* server/http/exchange.h - one request and its answer; what the files of http/ share.
 *
 * An exchange belongs to the thread of its connection from the request line to the
 * completed notification.
 */
#ifndef SERVER_HTTP_EXCHANGE_H
#define SERVER_HTTP_EXCHANGE_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "replica/base/clock.h"
#include "server/http/endpoint.h"
#include "server/http/figures.h"
#include "server/http/guests.h"
#include "server/http/http.h"
#include "server/http/prefer.h"
#include "server/http/query.h"
#include "server/http/route.h"
#include "server/http/status.h"

enum {
    BODY_MAX = 64 * 1024, /* bytes taken */
    BODY_SWALLOW = 16 * 1024 * 1024, /* bytes read before 413; beyond: cut */
    TARGET_MAX = 4096, /* path and query */
    REQUEST_ID_MAX = 64,
};

struct listener {
    struct http *http;
    struct MHD_Daemon *daemon;
    bool health;
    bool quiet; /* its listening socket is closed */
    unsigned deadline_ms, idle_s; /* the options', or less for health */
    char address[ENDPOINT_TEXT];
};

struct http {
    /* constant from http_start() to http_stop() */
    struct service *service;
    struct http_options options; /* with the defaults filled in; texts are copies */
    struct figures *figures;
    struct listener *listeners;
    size_t listener_count;
    char **hosts;

    struct guests guests;
    bool reaping; /* guests were started */
    _Atomic unsigned waiting; /* of options.waiters */
    atomic_bool draining;

    /* API exchanges between their last byte and their completion */
    _Atomic unsigned busy;
    atomic_bool quiescing; /* somebody waits for none, under lock */
    pthread_mutex_t lock;
    pthread_cond_t idle;
};

/** Headers that count once; a second one is refused. */
enum head {
    HEAD_HOST,
    HEAD_ORIGIN,
    HEAD_AUTHORIZATION,
    HEAD_CONTENT_TYPE,
    HEAD_CONTENT_LENGTH,
    HEAD_CONTENT_ENCODING,
    HEAD_TRANSFER_ENCODING,
    HEAD_EXPECT,
    HEAD_IF_MATCH,
    HEAD_IF_NONE_MATCH,
    HEAD_IDEMPOTENCY_KEY,
    HEAD_LAST_EVENT_ID,
    HEAD_X_REQUEST_ID,
    HEAD_COUNT
};

struct exchange {
    struct listener *listener;
    struct http *http;
    struct guest *guest;
    struct MHD_Connection *connection;
    struct instant began;
    char request_id[REQUEST_ID_MAX + 1];

    char *target; /* as it came; cut at '?' when parsed */
    enum http_method method;
    const struct route *route, *family; /* see struct route_match */
    char *id; /* decoded {id}, NULL none */
    struct query query;
    const char *heads[HEAD_COUNT];
    bool accepts_json; /* Accept names application/json */
    struct prefer prefer;

    char *body;
    size_t length, room; /* bytes of @body: what it has, what it is given */
    uint64_t arrived; /* bytes of body, kept or not */

    const struct problem_page
            *refusal; /* decided; answered when the body is swallowed */
    const char *refusal_detail; /* literal */
    bool hang_up; /* the connection ends with this answer */
    bool met; /* the headers were looked at */
    bool late; /* in http.busy */
    bool waiter; /* holds one of http.waiting */
    bool streams; /* counted and logged when it ends */
    int status; /* what was answered, 0 not yet */
};

/* -- exchange.c: from the request line to the call -- */

void *exchange_begin(
        void *listener, const char *uri, struct MHD_Connection *connection);
enum MHD_Result exchange_step(void *listener, struct MHD_Connection *connection,
        const char *url, const char *method, const char *version, const char *upload,
        size_t *upload_size, void **exchange);
void exchange_end(void *listener, struct MHD_Connection *connection, void **exchange,
        enum MHD_RequestTerminationCode reason);

/** Decide that this is refused; the first decision stays. @slug: a row of problems.tbl.h. */
void exchange_refuse(struct exchange *x, const char *slug, const char *detail);

/** Take one of the waiters' places, given back by waiter_leave(). False: none is free. */
bool waiter_enter(struct http *http);
void waiter_leave(struct http *http);

/* -- head.c: what the headers say -- */

void exchange_read_heads(struct exchange *x, const char *version);

/* -- answer.c: from the outcome to bytes; each queues one response -- */

enum MHD_Result answer_outcome(struct exchange *x, struct api_outcome *outcome);
enum MHD_Result answer_refusal(struct exchange *x);
/** @bytes: taken, free()d. */
enum MHD_Result answer_bytes(
        struct exchange *x, int status, const char *type, char *bytes, size_t length);
/** Must outlive the answer: for bytes of the program itself. */
enum MHD_Result answer_static(struct exchange *x, int status, const char *type,
        const void *bytes, size_t length);
/** Adds what every answer has, queues it, gives the caller's hold of it back. */
enum MHD_Result answer_queue(
        struct exchange *x, int status, struct MHD_Response *response);
/** Count it and write the line of the access log. */
void answer_account(struct exchange *x);

/* -- call.c: a request that is a call of api/; blocks as long as api_serve() does -- */

enum MHD_Result call_serve(struct exchange *x);

/* -- the resources of our own -- */

enum MHD_Result events_serve(struct exchange *x);
enum MHD_Result health_serve(struct exchange *x);
enum MHD_Result metrics_serve(struct exchange *x);
enum MHD_Result openapi_serve(struct exchange *x);
enum MHD_Result problem_serve(struct exchange *x);

#endif

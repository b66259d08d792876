/* How a request is read. libmicrohttpd calls exchange_begin() at the request line,
 * exchange_step() once with the headers alone, then for each piece of the body, then once
 * more at its end. No response can be queued while pieces come, and one queued at the
 * headers ends the connection while the client may still be sending (it then hangs). So a
 * refusal is only noted, the body swallowed, and the answer given at the end; at once only
 * when the client waits for "100 Continue" or when the framing itself cannot be trusted.
 */
#include "server/http/exchange.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "replica/base/scope.h"
#include "server/http/body.h"

static struct guest *connection_guest(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

static void exchange_free(struct exchange *x)
{
    free(x->target);
    free(x->id);
    free(x->body);
    free(x);
}

void *exchange_begin(void *context, const char *uri, struct MHD_Connection *connection)
{
    struct listener *listener = context;
    struct exchange *x = calloc(1, sizeof(*x));

    if (!x || !(x->target = strdup(uri)) ||
            !(x->guest = connection_guest(connection))) {
        if (x)
            exchange_free(x);
        return NULL; /* exchange_step() cuts */
    }
    x->listener = listener;
    x->http = listener->http;
    x->connection = connection;
    x->began = clock_monotonic();
    x->prefer.wait_s = -1;
    guest_hasten(x->guest, listener->deadline_ms);
    return x;
}

void exchange_refuse(struct exchange *x, const char *slug, const char *detail)
{
    if (x->refusal)
        return;
    x->refusal = problem_page_find(slug);
    x->refusal_detail = detail;
}

bool waiter_enter(struct http *http)
{
    if (atomic_fetch_add(&http->waiting, 1) < http->options.waiters)
        return true;
    atomic_fetch_sub(&http->waiting, 1);
    return false;
}

void waiter_leave(struct http *http)
{
    atomic_fetch_sub(&http->waiting, 1);
}

static void route_apply(struct exchange *x, char *query)
{
    struct route_match match = route_find(x->method, x->target);
    const char *wrong;

    if (match.family && x->listener->health && !route_is_probe(match.family))
        match = (struct route_match){ .id = "" };
    x->route = match.route;
    x->family = match.family;
    if (!match.family)
        exchange_refuse(x, "not-found", "there is no such path");
    else if (!match.route)
        exchange_refuse(x, "method-not-allowed", "the path does not take this method");
    if (match.id_length > 0) {
        x->id = strndup(match.id, match.id_length);
        if (!x->id)
            exchange_refuse(x, "internal", "out of memory");
        else if (!percent_decode(x->id, false))
            exchange_refuse(
                    x, "malformed", "the path is not valid percent-encoded UTF-8");
        else if (strchr(x->id, '/'))
            exchange_refuse(x, "not-found", "there is no such path");
    }
    wrong = query_parse(query, route_is_probe(x->route) ? "exclude" : NULL, &x->query);
    if (wrong)
        exchange_refuse(x, "malformed", wrong);
}

static void target_apply(struct exchange *x)
{
    char *query = strchr(x->target, '?');

    if (strlen(x->target) > TARGET_MAX)
        exchange_refuse(x, "uri-too-long", "the path and query are too long");
    if (query)
        *query++ = '\0';
    if (x->target[0] != '/' || strchr(x->target, '#') || (query && strchr(query, '#')))
        exchange_refuse(x, "malformed", "the request target is no absolute path");
    route_apply(x, query);
}

static bool body_announced(const struct exchange *x)
{
    const char *length = x->heads[HEAD_CONTENT_LENGTH];

    return x->heads[HEAD_TRANSFER_ENCODING] ||
            (length && strspn(length, "0") != strlen(length));
}

static void media_apply(struct exchange *x)
{
    const char *type = x->heads[HEAD_CONTENT_TYPE];
    const char *coding = x->heads[HEAD_CONTENT_ENCODING];

    if (!x->route || !body_announced(x))
        return;
    if (x->route->body == BODY_NONE)
        exchange_refuse(x, "malformed", "this call takes no body");
    else if (coding && strcasecmp(coding, "identity") != 0)
        exchange_refuse(x, "unsupported-media-type", "a body is not compressed");
    else if (!type ||
            !(media_type_is(type, "application/json") ||
                    (x->route->body == BODY_PATCH &&
                            media_type_is(type, "application/merge-patch+json"))))
        exchange_refuse(
                x, "unsupported-media-type", "a body is application/json in UTF-8");
}

/* Longer than we take, by its own word. */
static void length_apply(struct exchange *x)
{
    const char *length = x->heads[HEAD_CONTENT_LENGTH];
    unsigned long long value;

    x->room = BODY_MAX;
    if (!length)
        return;
    value = strlen(length) > 18 ? BODY_SWALLOW + 1ull : strtoull(length, NULL, 10);
    if (value > BODY_MAX)
        exchange_refuse(x, "too-large", "the body is longer than 65536 bytes");
    else
        x->room = value;
    if (value > BODY_SWALLOW)
        x->hang_up = true;
}

static enum MHD_Result exchange_meet(
        struct exchange *x, const char *method, const char *version)
{
    const char *expect;

    x->met = true;
    x->method = http_method_parse(method);
    exchange_read_heads(x, version);
    if (x->guest->surplus) {
        exchange_refuse(x, "overloaded", "too many connections are open");
        x->hang_up = true;
    }
    target_apply(x);
    length_apply(x);
    media_apply(x);
    if (!x->refusal)
        return MHD_YES;
    expect = x->heads[HEAD_EXPECT];
    if (expect && strcasecmp(expect, "100-continue") == 0)
        x->hang_up =
                true; /* the body was not sent and must not be taken for a request */
    return x->hang_up ? answer_refusal(x) : MHD_YES;
}

static enum MHD_Result exchange_feed(
        struct exchange *x, const char *bytes, size_t *length)
{
    size_t n = *length;

    *length = 0;
    x->arrived += n;
    if (x->arrived > BODY_SWALLOW)
        return MHD_NO;
    if (x->arrived > BODY_MAX)
        exchange_refuse(x, "too-large", "the body is longer than 65536 bytes");
    if (x->refusal)
        return MHD_YES;
    if (!x->body && !(x->body = malloc(x->room)))
        exchange_refuse(x, "internal", "out of memory");
    else if (n > x->room - x->length)
        exchange_refuse(x, "malformed", "the body is longer than its Content-Length");
    else {
        memcpy(x->body + x->length, bytes, n);
        x->length += n;
    }
    return MHD_YES;
}

static enum MHD_Result exchange_serve(struct exchange *x)
{
    switch (x->route->serve) {
    case SERVE_CALL:
        return call_serve(x);
    case SERVE_EVENTS:
        return events_serve(x);
    case SERVE_LIVEZ:
    case SERVE_READYZ:
    case SERVE_HEALTHZ:
        return health_serve(x);
    case SERVE_METRICS:
        return metrics_serve(x);
    case SERVE_OPENAPI:
        return openapi_serve(x);
    case SERVE_PROBLEM:
        return problem_serve(x);
    }
    return MHD_NO;
}

/* All of it is here. From now on our own deadlines count, not the library's idle time: it
   would cut a connection whose handler waited longer. */
static enum MHD_Result exchange_finish(struct exchange *x)
{
    guest_disarm(x->guest);
    (void)MHD_set_connection_option(x->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    if (!x->listener->health) {
        atomic_fetch_add(&x->http->busy, 1);
        x->late = true;
    }
    return x->refusal ? answer_refusal(x) : exchange_serve(x);
}

enum MHD_Result exchange_step(void *context, struct MHD_Connection *connection,
        const char *url, const char *method, const char *version, const char *upload,
        size_t *upload_size, void **slot)
{
    struct exchange *x = *slot;

    (void)context, (void)connection, (void)url;
    if (!x)
        return MHD_NO;
    if (!x->met)
        return exchange_meet(x, method, version);
    if (*upload_size > 0)
        return exchange_feed(x, upload, upload_size);
    return exchange_finish(x);
}

void exchange_end(void *context, struct MHD_Connection *connection, void **slot,
        enum MHD_RequestTerminationCode reason)
{
    struct exchange *x = *slot;
    struct http *http;

    (void)context;
    if (!x)
        return;
    *slot = NULL;
    http = x->http;
    if (x->waiter)
        waiter_leave(http);
    if (x->streams)
        answer_account(x);
    if (x->late && atomic_fetch_sub(&http->busy, 1) == 1 &&
            atomic_load(&http->quiescing)) {
        pthread_mutex_lock(&http->lock);
        pthread_cond_broadcast(&http->idle);
        pthread_mutex_unlock(&http->lock);
    }
    if (reason == MHD_REQUEST_TERMINATED_COMPLETED_OK) {
        guest_arm(x->guest, x->listener->idle_s * 1000 + x->listener->deadline_ms);
        (void)MHD_set_connection_option(
                connection, MHD_CONNECTION_OPTION_TIMEOUT, x->listener->idle_s);
    }
    exchange_free(x);
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/log.h"
#include "server/http/exchange.h"

static const char json_type[] = "application/json";
static const char problem_type[] = "application/problem+json";

static void header(struct MHD_Response *response, const char *name, const char *value)
{
    (void)MHD_add_response_header(response, name, value);
}

static void header_number(
        struct MHD_Response *response, const char *name, unsigned value)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%u", value);
    header(response, name, text);
}

void answer_account(struct exchange *x)
{
    bool probe = route_is_probe(x->route);
    uint64_t took_ns = clock_monotonic().ns - x->began.ns;

    figures_count(x->http->figures, x->family, x->method, x->status, took_ns);
    log_event(probe ? LOG_DEBUG : LOG_INFO, "http-request",
            (struct log_about){ .request = x->request_id },
            "%s %.200s %d in %llu us from %s", http_method_name(x->method), x->target,
            x->status, (unsigned long long)(took_ns / 1000), x->guest->caller);
}

enum MHD_Result answer_queue(
        struct exchange *x, int status, struct MHD_Response *response)
{
    enum MHD_Result result;

    if (!response)
        return MHD_NO; /* out of memory: the connection is cut */
    header(response, "Cache-Control", "no-store");
    header(response, "X-Content-Type-Options", "nosniff");
    header(response, "X-Request-Id", x->request_id);
    if (x->hang_up || atomic_load(&x->http->draining))
        header(response, "Connection", "close");
    x->status = status;
    if (!x->streams) { /* before it is queued: who reads the answer finds it counted */
        answer_account(x);
        guest_arm(x->guest, x->listener->deadline_ms);
    }
    result = MHD_queue_response(x->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

static struct MHD_Response *response_of(char *bytes, size_t length, const char *type)
{
    struct MHD_Response *response =
            MHD_create_response_from_buffer(length, bytes, MHD_RESPMEM_MUST_FREE);

    if (!response)
        free(bytes);
    else if (type)
        header(response, "Content-Type", type);
    return response;
}

enum MHD_Result answer_bytes(
        struct exchange *x, int status, const char *type, char *bytes, size_t length)
{
    return answer_queue(x, status, response_of(bytes, length, type));
}

enum MHD_Result answer_static(struct exchange *x, int status, const char *type,
        const void *bytes, size_t length)
{
    /* The library's parameter lacks a const; it does not write. */
    struct MHD_Response *response = MHD_create_response_from_buffer(
            length, (void *)(uintptr_t)bytes, MHD_RESPMEM_PERSISTENT);

    if (response)
        header(response, "Content-Type", type);
    return answer_queue(x, status, response);
}

/* What a refusal needs beyond its body. */
static void refusal_headers(struct exchange *x, struct MHD_Response *response)
{
    char allow[64];

    switch (x->refusal->status) {
    case 405:
        route_allow(x->family->template, allow);
        header(response, "Allow", allow);
        break;
    case 415:
        if (x->route && x->route->body == BODY_PATCH)
            header(response, "Accept-Patch",
                    "application/json, application/merge-patch+json");
        else
            header(response, "Accept", json_type);
        break;
    case 503:
        header_number(response, "Retry-After", 1);
        break;
    default:
        break;
    }
}

enum MHD_Result answer_refusal(struct exchange *x)
{
    const struct problem_page *page = x->refusal;
    struct MHD_Response *response;
    size_t length = 0;
    char *bytes = api_problem_plain(page->slug, page->title, page->status,
            x->refusal_detail, x->request_id, &length);

    response = response_of(bytes, bytes ? length : 0, problem_type);
    if (response)
        refusal_headers(x, response);
    return answer_queue(x, page->status, response);
}

static void preference_headers(struct exchange *x, const struct api_outcome *outcome,
        struct MHD_Response *response)
{
    bool async = x->prefer.respond_async && outcome->verdict == API_STARTED;
    char text[48];

    if (outcome->waited_s >= 0) {
        (void)snprintf(text, sizeof(text), "%swait=%d", async ? "respond-async, " : "",
                outcome->waited_s);
        header(response, "Preference-Applied", text);
    } else if (async) {
        header(response, "Preference-Applied", "respond-async");
    }
}

static void outcome_headers(struct exchange *x, const struct api_outcome *outcome,
        int status, struct MHD_Response *response)
{
    unsigned retry_after = outcome->retry_after;
    char link[sizeof(outcome->next) + 16];

    if (retry_after == 0 && status == 503)
        retry_after = 1;
    if (outcome->location[0])
        header(response, "Location", outcome->location);
    if (outcome->etag[0])
        header(response, "ETag", outcome->etag);
    if (outcome->next[0]) {
        (void)snprintf(link, sizeof(link), "<%s>; rel=\"next\"", outcome->next);
        header(response, "Link", link);
    }
    if (retry_after > 0)
        header_number(response, "Retry-After", retry_after);
    if (outcome->replayed)
        header(response, "Idempotent-Replayed", "true");
    preference_headers(x, outcome, response);
}

enum MHD_Result answer_outcome(struct exchange *x, struct api_outcome *outcome)
{
    int status = status_of(outcome->verdict);
    bool problem = status >= 400;
    struct MHD_Response *response;
    size_t length = outcome->length;
    char *bytes = outcome->body;

    if (problem)
        bytes = api_problem_render(outcome, status, x->request_id, &length);
    else
        outcome->body = NULL; /* the response has it now */
    response = response_of(bytes, bytes ? length : 0,
            problem         ? problem_type
                    : bytes ? json_type
                            : NULL);
    if (response)
        outcome_headers(x, outcome, status, response);
    api_outcome_release(outcome);
    return answer_queue(x, status, response);
}

#include "server/http/exchange.h"

#include <stdlib.h>
#include <string.h>

#include "server/http/idempotency.h"

/* METHOD calls may wait for their job; nothing else does. */
static bool call_is_method(enum api_call call)
{
    static const char kinds[] = {
#define READ 'r'
#define WRITE 'w'
#define METHOD 'm'
#define CALL(symbol, method, kind) kind,
#include "api/calls.tbl.h"
#undef CALL
#undef READ
#undef WRITE
#undef METHOD
    };

    return kinds[call] == 'm';
}

/* Does the call ask to be kept waiting? Then it needs one of the waiters' places. */
static bool call_waits(const struct exchange *x)
{
    const char *wait = query_find(&x->query, "wait");

    if (x->route->call == API_JOB_GET)
        return wait && strspn(wait, "0") != strlen(wait);
    return call_is_method(x->route->call) && x->prefer.wait_s > 0;
}

enum MHD_Result call_serve(struct exchange *x)
{
    char key[IDEMPOTENCY_KEY_MAX + 1] __attribute__((uninitialized));
    const char *given = x->heads[HEAD_IDEMPOTENCY_KEY];
    struct api_outcome outcome = { .return_value = -1, .waited_s = -1 };
    struct api_request request = {
        .call = x->route->call,
        .id = x->id,
        .body = x->body,
        .length = x->length,
        .query = x->query.items,
        .query_count = x->query.count,
        .if_match = x->heads[HEAD_IF_MATCH],
        .if_none_match = x->heads[HEAD_IF_NONE_MATCH],
        .prefer_wait_s = call_is_method(x->route->call) ? x->prefer.wait_s : -1,
        .caller = x->guest->caller,
        .request_id = x->request_id,
    };

    if (given && !idempotency_key_parse(given, key)) {
        exchange_refuse(x, "malformed",
                "the Idempotency-Key is no string of 1 to 255 characters");
        return answer_refusal(x);
    }
    request.idempotency_key = given ? key : NULL;
    if (call_waits(x) && !(x->waiter = waiter_enter(x->http))) {
        exchange_refuse(x, "overloaded", "too many requests wait already");
        return answer_refusal(x);
    }
    api_serve(x->http->service, &request, &outcome);
    if (x->waiter) {
        waiter_leave(x->http);
        x->waiter = false;
    }
    return answer_outcome(x, &outcome);
}

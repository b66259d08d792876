/* One call: dispatch, the row in /results, the wait that was asked for.
 *
 * A call that changed something puts its row (and its idempotency key) in the transaction
 * of the change, by call_settle(). One that was refused changed nothing: its row is put
 * afterwards, in a transaction of its own, so that /results tells of every call that
 * reached a method.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/resource.h"
#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

enum { READER_MS = 5000, WAIT_MAX_S = 60 };

enum call_kind { KIND_READ, KIND_WRITE, KIND_METHOD };

static const struct call_row {
    const char *method;
    enum call_kind kind;
    call_handler_f *handler;
} rows[] = {
#define CALL(symbol, method, kind) { method, KIND_##kind, call_##symbol },
#include "api/calls.tbl.h"
#undef CALL
};

static enum cim_method call_method(enum api_call call)
{
    switch (call) {
    case API_REPLICA_CREATE:
        return CIM_CREATE_REPLICA;
    case API_REPLICA_ATTACH:
        return CIM_ATTACH_OR_MODIFY_REPLICA;
    case API_REPLICA_MODIFY:
    case API_REPLICA_DETACH:
        return CIM_MODIFY_SYNCHRONIZATION;
    default:
        return CIM_OTHER_METHOD;
    }
}

/* -- decoding ------------------------------------------------------------------------- */

bool call_decode(
        struct call *call, const struct body_member *members, size_t count, void *into)
{
    const struct api_request *request = call->request;
    int result = body_decode(
            request->body, request->length, members, count, into, &call->problems);

    if (result == 0 && call->problems.count == 0)
        return true;
    if (result == -EBADMSG)
        outcome_fail(call->outcome, API_MALFORMED, -1, "%s",
                call->problems.count ? call->problems.list[0].detail
                                     : "the body is no JSON object");
    else if (result == -ENOMEM)
        outcome_fail(call->outcome, API_INTERNAL, CIM_UNKNOWN, "out of memory");
    else
        call_refuse(call);
    return false;
}

struct store_reader *call_reader(struct call *call)
{
    struct store_reader *reader = store_reader_take(call->service->store, READER_MS);

    if (!reader)
        outcome_fail(call->outcome, API_OVERLOADED, -1,
                "too many calls read at once: try again");
    return reader;
}

/* -- the row in /results -------------------------------------------------------------- */

static void result_put(struct call *call, struct clerk_turn *turn)
{
    const struct api_request *request = call->request;
    struct store_result result = { .id = uuid_make(),
        .time = turn->now,
        .in = call->in ? call->in : "{}",
        .return_value = call->outcome->return_value,
        .job = call->job,
        .target = call->target,
        .source = call->source };

    (void)snprintf(
            result.method, sizeof(result.method), "%s", rows[request->call].method);
    (void)snprintf(result.caller, sizeof(result.caller), "%s",
            request->caller ? request->caller : "");
    (void)snprintf(result.request, sizeof(result.request), "%s",
            request->request_id ? request->request_id : "");
    (void)snprintf(
            result.detail, sizeof(result.detail), "%s", outcome_detail(call->outcome));
    turn_put(turn, STORE_RESULT, &result);
}

void call_settle(struct call *call, struct clerk_turn *turn)
{
    check(!call->settled);
    if (rows[call->request->call].kind == KIND_METHOD)
        result_put(call, turn);
    keys_put(call, turn);
    call->settled = true;
}

struct commit {
    struct call *call;
    clerk_work_f *work;
    void *context;
};

static bool commit_work(struct clerk_turn *turn, void *context)
{
    struct commit *commit = context;
    bool keep = commit->work(turn, commit->context);

    if (!keep || turn->error)
        commit->call->settled = false;
    return keep;
}

static bool commit_end(struct call *call, int result)
{
    bool method = rows[call->request->call].kind == KIND_METHOD;

    if (result == 0)
        return true;
    call->settled = false;
    if (result == -ESHUTDOWN)
        outcome_fail(call->outcome, API_OVERLOADED, -1, "the service is stopping");
    else if (result == -ENOSPC)
        outcome_fail(call->outcome, API_NO_SPACE, method ? CIM_FAILED : -1,
                "the disk of the data directory is full");
    else
        outcome_fail(call->outcome, API_INTERNAL, method ? CIM_UNKNOWN : -1,
                "the store failed: %s", strerrordesc_np(-result));
    return false;
}

bool call_commit(struct call *call, clerk_work_f *work, void *context)
{
    struct commit commit = { call, work, context };

    return commit_end(call, clerk_call(call->service->clerk, commit_work, &commit));
}

bool call_commit_new(struct call *call, clerk_work_f *work, void *context)
{
    struct commit commit = { call, work, context };

    return commit_end(call, clerk_add(call->service->clerk, commit_work, &commit));
}

static bool refused_work(struct clerk_turn *turn, void *context)
{
    result_put(context, turn);
    return true;
}

static void call_refused(struct call *call)
{
    int result;

    if (store_tight(call->service->store))
        return; /* refusals shall not eat what is left */
    result = clerk_call(call->service->clerk, refused_work, call);

    if (result && result != -ESHUTDOWN)
        log_event(LOG_WARN, "result-lost",
                (struct log_about){ .request = call->request->request_id },
                "a refused call left no row: %s", strerrordesc_np(-result));
}

/** InParameters name what the path names: a member at the front of the canonical body. */
static void call_name_subject(struct call *call)
{
    static const struct {
        enum api_call call;
        const char *member, *collection;
    } subjects[] = {
        { API_REPLICA_ATTACH, "TargetElement", "elements" },
        { API_REPLICA_MODIFY, "Synchronization", "replicas" },
        { API_REPLICA_DETACH, "Synchronization", "replicas" },
        { API_REPLICA_VERIFY, "Synchronization", "replicas" },
        { API_ELEMENT_DELETE, "TheElement", "elements" },
        { API_JOB_REQUEST_STATE_CHANGE, "Job", "jobs" },
    };
    struct uuid id;
    char *text;
    const char *operation = call->request->call == API_REPLICA_DETACH ? "2" : NULL;

    for (size_t i = 0; i < sizeof(subjects) / sizeof(*subjects); i++) {
        char quoted[40];
        if (subjects[i].call != call->request->call || !call->request->id ||
                !uuid_parse(call->request->id, &id) || !call->in)
            continue;
        (void)snprintf(quoted, sizeof(quoted), "\"%s\":", subjects[i].member);
        if (strstr(call->in, quoted))
            continue;
        if (asprintf(&text, "{%s\"/%s/%s\"%s%s%s%s", quoted, subjects[i].collection,
                    id.text, operation ? ",\"Operation\":" : "",
                    operation ? operation : "", strcmp(call->in, "{}") ? "," : "",
                    call->in + 1) < 0)
            return;
        free(call->in);
        call->in = text;
    }
}

/* -- waiting for the job -------------------------------------------------------------- */

/** The body is ours and ends in '}': the job's end is spliced in before it. */
static void outcome_add_job(struct api_outcome *outcome, const struct store_job *job)
{
    char *body, *state;
    int length;

    if (!outcome->body || !outcome->length)
        return;
    /* Of RequestStateChange: what it was is told at the end, in members of the same name. */
    if ((state = strstr(outcome->body, ",\"JobState\":")))
        outcome->length = (size_t)(state - outcome->body) + 1;
    length = asprintf(&body,
            "%.*s,\"JobState\":%lld,\"JobStateName\":\"%s\",\"JobReturnValue\":%lld}",
            (int)(outcome->length - 1), outcome->body, (long long)job->state,
            cim_name(CIM_JOB_STATE, job->state), (long long)job->return_value);
    if (length < 0)
        return;
    free(outcome->body);
    outcome->body = body;
    outcome->length = (size_t)length;
    outcome->verdict = API_DONE;
    outcome->retry_after = 0;
}

/** The tag is that of the state which the answer tells of: the pair's, or the job's own. */
static void call_wait_etag(struct call *call, const struct store_job *job)
{
    struct api_outcome *outcome = call->outcome;
    struct store_reader *reader;
    struct store_replica replica;

    if (!outcome->etag[0])
        return;
    outcome->etag[0] = '\0';
    if (call->request->call == API_JOB_REQUEST_STATE_CHANGE) {
        outcome_etag(outcome, job->revision);
        return;
    }
    if (!(reader = store_reader_take(call->service->store, READER_MS)))
        return;
    if (store_get(reader, STORE_REPLICA, call->target.text, &replica) == 0)
        outcome_etag(outcome, replica.revision);
    store_reader_give(call->service->store, reader);
}

static void call_wait(struct call *call)
{
    struct api_outcome *outcome = call->outcome;
    int wait = call->request->prefer_wait_s;
    struct store_job job;

    if (wait < 0)
        return;
    if (wait > WAIT_MAX_S)
        wait = WAIT_MAX_S;
    outcome->waited_s = wait;
    if (outcome->verdict != API_STARTED || uuid_is_none(&call->job))
        return;
    if (!job_wait(call->service, &call->job, (unsigned)wait, &job))
        return;
    if (job_is_over(job.state))
        outcome_add_job(outcome, &job);
    call_wait_etag(call, &job);
}

/* -- dispatch --------------------------------------------------------------------------- */

/** On a full disk the store lives on a reserve, kept for the ends of what is under way:
    nothing new is begun on it. */
static bool call_fits(struct call *call, const struct call_row *row)
{
    switch (call->request->call) {
    case API_REPLICA_CREATE:
    case API_REPLICA_ATTACH:
    case API_REPLICA_VERIFY:
    case API_ELEMENT_CREATE:
    case API_SETTING_CREATE:
    case API_PIPE_CREATE:
        break;
    default:
        return true;
    }
    if (!store_tight(call->service->store))
        return true;
    outcome_fail(call->outcome, API_NO_SPACE,
            row->kind == KIND_METHOD ? CIM_FAILED : -1,
            "the disk of the data directory is full");
    return false;
}

static void call_change(struct call *call, const struct call_row *row)
{
    const struct api_request *request = call->request;

    if (row->kind == KIND_METHOD) {
        call->in = body_canonical(request->body, request->length);
        call_name_subject(call);
    }
    if (!keys_begin(call))
        return;
    if (call_fits(call, row))
        row->handler(call);
    if (row->kind == KIND_METHOD && !call->settled && call->outcome->return_value >= 0)
        call_refused(call);
    keys_end(call);
}

void api_serve(struct service *service, const struct api_request *request,
        struct api_outcome *outcome)
{
    const struct call_row *row;
    struct call call __attribute__((uninitialized));

    check(request->call < API_CALL_COUNT);
    row = &rows[request->call];
    memset(&call, 0, offsetof(struct call, problems.list));
    call.service = service;
    call.request = request;
    call.outcome = outcome;
    call.method = call_method(request->call);
    memset(outcome, 0, sizeof(*outcome));
    outcome->return_value = -1;
    outcome->waited_s = -1;
    if (row->kind == KIND_READ)
        row->handler(&call);
    else if (service->draining)
        outcome_fail(outcome, API_OVERLOADED, -1, "the service is stopping");
    else
        call_change(&call, row);
    /* Whoever refused it: some checks are shared with methods. */
    if (row->kind != KIND_METHOD)
        outcome->return_value = -1;
    outcome_method(outcome, call.method, request->call == API_JOB_REQUEST_STATE_CHANGE);
    if (!outcome->replayed)
        call_wait(&call);
    else if (request->prefer_wait_s >= 0)
        outcome->waited_s = 0;
    free(call.in);
}

/* api/jobs.c - /jobs: what was started, how far it is, how it went. */
#include "api/jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/clock.h"

enum { WAIT_MAX_S = 60, RETRY_AFTER_S = 2, PRIORITY_MAX = 3 };

/* -- what a client may ask of it --------------------------------------------------- */

bool job_allows(const struct store_job *job, int64_t request)
{
    if (job_is_over(job->state))
        return false;
    switch (request) {
    case CIM_REQUEST_START:
        return job->state == CIM_JOB_SUSPENDED && !job->wanted;
    case CIM_REQUEST_SUSPEND:
        return job->state <= CIM_JOB_RUNNING && !job->wanted;
    case CIM_REQUEST_TERMINATE:
        return job->state <= CIM_JOB_SUSPENDED &&
                (!job->wanted || job->wanted == WANT_SUSPEND);
    case CIM_REQUEST_KILL:
        return job->wanted != WANT_KILL;
    default:
        return false;
    }
}

/* -- rendered ---------------------------------------------------------------------- */

/** Up to two numbers of OperationalStatus, then 0. */
static const int64_t *status_of(int64_t state)
{
    static const int64_t good[] = { CIM_STATUS_OK, 0 };
    static const int64_t dormant[] = { CIM_STATUS_DORMANT, 0 };
    static const int64_t stopping[] = { CIM_STATUS_STOPPING, 0 };
    static const int64_t stopped[] = { CIM_STATUS_STOPPED, 0 };
    static const int64_t completed[] = { CIM_STATUS_COMPLETED, CIM_STATUS_OK, 0 };
    static const int64_t failed[] = { CIM_STATUS_COMPLETED, CIM_STATUS_ERROR, 0 };

    switch (state) {
    case CIM_JOB_NEW:
        return dormant;
    case CIM_JOB_SHUTTING_DOWN:
        return stopping;
    case CIM_JOB_COMPLETED:
        return completed;
    case CIM_JOB_TERMINATED:
    case CIM_JOB_KILLED:
        return stopped;
    case CIM_JOB_EXCEPTION:
        return failed;
    default:
        return good;
    }
}

static void render_status(struct writer *writer, int64_t state)
{
    writer_array(writer, "OperationalStatus");
    for (const int64_t *at = status_of(state); *at; at++)
        writer_signed(writer, NULL, *at);
    writer_end(writer);
    writer_array(writer, "OperationalStatusName");
    for (const int64_t *at = status_of(state); *at; at++)
        writer_text(writer, NULL, cim_name(CIM_OPERATIONAL_STATUS, *at));
    writer_end(writer);
}

bool job_is_quiesced(struct store_reader *reader, const struct store_job *job)
{
    struct store_replica replica;

    return job->state == CIM_JOB_SUSPENDED && job->work != JOB_VERIFY &&
            store_get(reader, STORE_REPLICA, job->replica.text, &replica) == 0 &&
            replica.sync_state == CIM_SYNC_QUIESCED;
}

static void render_actions(
        struct writer *writer, struct store_reader *reader, const struct store_job *job)
{
    bool quiesced = job_is_quiesced(reader, job);

    writer_array(writer, "Actions");
    for (int64_t request = CIM_REQUEST_START; request <= CIM_REQUEST_KILL; request++)
        if (job_allows(job, request) && !(quiesced && request == CIM_REQUEST_START))
            writer_text(writer, NULL, cim_name(CIM_REQUESTED_STATE, request));
    writer_end(writer);
}

const char *job_limited_by(const struct store_job *job)
{
    if (job->state == CIM_JOB_NEW)
        return "Queue";
    if (job->state != CIM_JOB_RUNNING)
        return NULL;
    switch ((enum engine_limited)job->limited_by) {
    case ENGINE_LIMITED_SOURCE:
        return "Source";
    case ENGINE_LIMITED_TARGET:
        return "Target";
    case ENGINE_LIMITED_BANDWIDTH:
        return "Limit";
    case ENGINE_LIMITED_NONE:
        break;
    }
    return NULL;
}

bool job_stalled(const struct store_job *job)
{
    return job->stalled && !job_is_over(job->state) &&
            job->state != CIM_JOB_SUSPENDED && job->state != CIM_JOB_NEW;
}

static void render_progress(struct writer *writer, const struct store_job *job)
{
    bool moving =
            job->state == CIM_JOB_RUNNING && job->rate > 0 && job->done <= job->total;

    writer_number(writer, "BytesTotal", job->total);
    writer_number(writer, "BytesDone", job->done);
    writer_number(writer, "BytesSkipped", job->skipped);
    writer_number(writer, "BytesSkippedZero", job->skipped_zero);
    writer_number(writer, "BytesSkippedEqual", job->skipped_equal);
    writer_number(writer, "BytesWritten", job->written);
    writer_number(writer, "BytesRead", job->read);
    writer_number(writer, "BytesVerified", job->verified - job->differ_bytes);
    differences_render(writer, job);
    writer_number(
            writer, "BytesPerSecond", job->state == CIM_JOB_RUNNING ? job->rate : 0);
    if (moving)
        writer_number(
                writer, "SecondsRemaining", (job->total - job->done) / job->rate + 1);
    else
        writer_null(writer, "SecondsRemaining");
    writer_text(writer, "LimitedBy", job_limited_by(job));
    writer_time(writer, "StalledSince", job_stalled(job) ? job->stalled : 0);
    writer_text(writer, "StallReason", job_stalled(job) ? job->stall_reason : NULL);
}

/** CIM's interval: days, hours, minutes, seconds. */
static void render_interval(struct writer *writer, const char *name, int64_t ms)
{
    int64_t s = ms / 1000;
    char text[40];

    (void)snprintf(text, sizeof(text),
            "%08" PRId64 "%02" PRId64 "%02" PRId64 "%02" PRId64 ".%06" PRId64 ":000",
            s / 86400, s / 3600 % 24, s / 60 % 60, s % 60, ms % 1000 * 1000);
    writer_text(writer, name, text);
}

static const char *mode_name(int64_t mode)
{
    switch (mode) {
    case ENGINE_MODE_FULL:
        return "Full";
    case ENGINE_MODE_DELTA_DIGEST:
        return "DeltaByDigest";
    case ENGINE_MODE_DELTA_COMPARE:
        return "DeltaByComparison";
    default:
        return NULL;
    }
}

static void render_identity(struct writer *writer, const struct store_job *job)
{
    char text[64];

    writer_text(writer, "Id", job->id.text);
    writer_path(writer, "Self", "jobs", job->id.text);
    (void)snprintf(text, sizeof(text), "replicad:%s", job->id.text);
    writer_text(writer, "InstanceID", text);
    writer_text(writer, "Name", job->method);
    writer_text(writer, "MethodName", job->method);
}

void job_as_it_is(const struct service *service, struct store_job *job)
{
    if (service->recovered)
        return;
    job->rate = 0;
    if (job->wanted ||
            (job->state != CIM_JOB_STARTING && job->state != CIM_JOB_RUNNING))
        return;
    job->state = CIM_JOB_NEW;
    job->error[0] = '\0';
}

void job_render(struct call *call, struct store_reader *reader, struct writer *writer,
        const void *row)
{
    struct store_job shown = *(const struct store_job *)row;
    const struct store_job *job = &shown;

    job_as_it_is(call->service, &shown);
    render_identity(writer, job);
    writer_cim(writer, "JobState", CIM_JOB_STATE, job->state);
    writer_signed(writer, "PercentComplete", job->percent);
    render_status(writer, job->state);
    writer_time(writer, "TimeSubmitted", job->submitted);
    writer_time(writer, "StartTime", job->started);
    writer_time(writer, "TimeOfLastStateChange", job->changed);
    writer_time(writer, "EndTime", job->ended);
    writer_signed(writer, "ErrorCode", job->error_code);
    writer_text(writer, "ErrorDescription", job->error[0] ? job->error : NULL);
    writer_signed(writer, "ReturnValue", job->return_value);
    writer_text(writer, "ReturnValueName", return_name(job->method, job->return_value));
    writer_path(writer, "SourceElement", "elements", job->source.text);
    writer_path(writer, "TargetElement", "elements", job->target.text);
    writer_path(writer, "Replica", "replicas", job->replica.text);
    render_progress(writer, job);
    writer_text(writer, "Mode", mode_name(job->mode));
    writer_flag(writer, "Verify", job->verify);
    writer_number(writer, "BandwidthLimit", job->limit);
    writer_signed(writer, "Priority", job->priority);
    writer_flag(writer, "DeleteOnCompletion", job->delete_on_completion);
    render_interval(writer, "TimeBeforeRemoval", job->time_before_removal);
    writer_text(writer, "RequestId", job->request[0] ? job->request : NULL);
    render_actions(writer, reader, job);
}

/* -- GET --------------------------------------------------------------------------- */

static const struct list_member list_members[] = {
    { .name = "JobState", .column = JOB_STATE, .type = LIST_CIM, .map = CIM_JOB_STATE },
    { .name = "SourceElement",
            .column = JOB_SOURCE,
            .type = LIST_REFERENCE,
            .collection = "elements" },
    { .name = "TargetElement",
            .column = JOB_TARGET,
            .type = LIST_REFERENCE,
            .collection = "elements" },
    { .name = "Replica",
            .column = JOB_REPLICA,
            .type = LIST_REFERENCE,
            .collection = "replicas" },
    { .name = "MethodName", .column = JOB_METHOD, .type = LIST_TEXT },
};

/** What is shown as New may be stored as what it was before: all of those are looked at. */
static void states_widen(struct store_filter *filter)
{
    bool among[CIM_JOB_QUERY_PENDING + 1] = { false };

    for (unsigned i = 0; i < filter->count; i++)
        if (filter->numbers[i] >= 0 && filter->numbers[i] <= CIM_JOB_QUERY_PENDING)
            among[filter->numbers[i]] = true;
    among[CIM_JOB_STARTING] |= among[CIM_JOB_NEW];
    among[CIM_JOB_RUNNING] |= among[CIM_JOB_NEW];
    filter->count = 0;
    for (int64_t state = 0; state <= CIM_JOB_QUERY_PENDING; state++)
        if (among[state])
            filter->numbers[filter->count++] = state;
    if (filter->count == 0)
        filter->numbers[filter->count++] = 0; /* no job's */
}

static int64_t state_shown(const struct service *service, const void *row)
{
    struct store_job job = *(const struct store_job *)row;

    job_as_it_is(service, &job);
    return job.state;
}

void call_JOBS_LIST(struct call *call)
{
    struct list_member members[sizeof(list_members) / sizeof(list_members[0])];

    memcpy(members, list_members, sizeof(members));
    if (!call->service->recovered) {
        members[0].widen = states_widen;
        members[0].shown = state_shown;
    }
    list_serve(call, STORE_JOB, "/jobs", members, sizeof(members) / sizeof(members[0]),
            job_render);
}

/** ?wait=N, seconds; 0 when it is not asked. */
static bool wait_parse(struct call *call, unsigned *seconds)
{
    const struct api_request *request = call->request;
    char *end = NULL;
    unsigned long value = 0;

    *seconds = 0;
    if (request->query_count == 0)
        return true;
    if (request->query_count == 1 && strcmp(request->query[0].name, "wait") == 0) {
        const char *text = request->query[0].value;
        size_t length = strlen(text);
        if (length > 0 && length < 10 && strspn(text, "0123456789") == length)
            value = strtoul(text, &end, 10);
        if (end) {
            *seconds = value > WAIT_MAX_S ? WAIT_MAX_S : (unsigned)value;
            return true;
        }
    }
    call_malformed(call, "The only parameter is wait, in seconds");
    return false;
}

void call_JOB_GET(struct call *call)
{
    struct store_reader *reader;
    struct store_job job;
    struct uuid id;
    unsigned seconds;
    struct api_request plain = *call->request;
    const struct api_request *request = call->request;

    if (!wait_parse(call, &seconds))
        return;
    if (seconds && call->request->id && uuid_parse(call->request->id, &id))
        (void)job_wait(call->service, &id, seconds, &job);
    if (!(reader = call_reader(call)))
        return;
    if (call_find(call, reader, STORE_JOB, &job)) {
        /* Whether it may Start is its pair's to say, without a change of the row. */
        if (job.state == CIM_JOB_SUSPENDED)
            plain.if_none_match = NULL;
        call->request = &plain;
        call->outcome->retry_after = job_is_over(job.state) ? 0 : RETRY_AFTER_S;
        call_answer(call, reader, job_render, &job, job.revision);
        call->request = request;
    }
    store_reader_give(call->service->store, reader);
}

/* -- PATCH ------------------------------------------------------------------------- */

struct job_change {
    struct call *call;
    uint64_t limit, priority;
    bool remove, has_limit, has_priority, has_remove;
};

static bool change_refused(struct job_change *change, const struct store_job *job)
{
    struct api_outcome *outcome = change->call->outcome;

    if (job_is_over(job->state) && (change->has_limit || change->has_priority)) {
        outcome_fail(outcome, API_STATE, -1, "The job is over");
        return true;
    }
    return false;
}

static bool change_work(struct clerk_turn *turn, void *context)
{
    struct job_change *change = context;
    struct call *call = change->call;
    struct store_job job;

    if (!turn_find(call, turn, STORE_JOB, &job) ||
            !outcome_if_match(call, job.revision) || change_refused(change, &job))
        return false;
    if (change->has_limit)
        job.limit = change->limit;
    if (change->has_priority)
        job.priority = (int64_t)change->priority;
    if (change->has_remove)
        job.delete_on_completion = change->remove;
    turn->schedule |= change->has_priority;
    job_put(turn, &job, false);
    call_answer(call, turn->reader, job_render, &job, job.revision);
    call_settle(call, turn);
    return true;
}

/** What runs is told by the scheduler, after the commit. */
void call_JOB_PATCH(struct call *call)
{
    static const struct body_member members[] = {
        { .name = "BandwidthLimit",
                .type = BODY_NUMBER,
                .need = BODY_KEPT,
                .max = INT64_MAX,
                .offset = offsetof(struct job_change, limit),
                .given = offsetof(struct job_change, has_limit) },
        { .name = "Priority",
                .type = BODY_NUMBER,
                .need = BODY_KEPT,
                .max = PRIORITY_MAX,
                .offset = offsetof(struct job_change, priority),
                .given = offsetof(struct job_change, has_priority) },
        { .name = "DeleteOnCompletion",
                .type = BODY_FLAG,
                .need = BODY_KEPT,
                .offset = offsetof(struct job_change, remove),
                .given = offsetof(struct job_change, has_remove) },
    };
    struct job_change change = { .call = call };

    if (!call_decode(call, members, sizeof(members) / sizeof(members[0]), &change))
        return;
    (void)call_commit(call, change_work, &change);
}

/* -- DELETE ------------------------------------------------------------------------ */

static bool delete_work(struct clerk_turn *turn, void *context)
{
    struct call *call = context;
    struct store_job job;

    if (!turn_find(call, turn, STORE_JOB, &job) ||
            !outcome_if_match(call, job.revision))
        return false;
    if (!job_is_over(job.state)) {
        outcome_fail(call->outcome, API_STATE, -1, "The job is not over");
        outcome_remedy(call->outcome,
                "POST /jobs/%s/request-state-change {\"RequestedState\":\"Terminate\"}",
                job.id.text);
        return false;
    }
    turn_delete(turn, STORE_JOB, &job);
    event_row(turn, "InstDeletion", "Job", "jobs", job.id.text, NULL);
    call->outcome->verdict = API_GONE;
    call->outcome->return_value = -1;
    call_settle(call, turn);
    return true;
}

void call_JOB_DELETE(struct call *call)
{
    (void)call_commit(call, delete_work, call);
}

/* -- DeleteOnCompletion ------------------------------------------------------------ */

enum { SWEEP_PAGE = 32 };

struct sweep {
    int64_t now;
    unsigned count;
    struct uuid ids[SWEEP_PAGE];
};

static bool sweep_each(void *context, const void *row)
{
    struct sweep *sweep = context;
    const struct store_job *job = row;

    if (job_is_over(job->state) && job->ended + job->time_before_removal <= sweep->now)
        sweep->ids[sweep->count++] = job->id;
    return sweep->count < SWEEP_PAGE;
}

static bool sweep_remove(struct clerk_turn *turn, const struct sweep *sweep)
{
    struct store_job job = { 0 };

    for (unsigned i = 0; i < sweep->count; i++) {
        job.id = sweep->ids[i];
        turn_delete(turn, STORE_JOB, &job);
        event_row(turn, "InstDeletion", "Job", "jobs", job.id.text, NULL);
    }
    return turn->error == 0;
}

unsigned job_sweep(struct service *service)
{
    struct store_query query = {
        .table = STORE_JOB,
        .filter_count = 1,
        .filters = { { .column = JOB_REMOVE,
                .is_number = true,
                .count = 1,
                .numbers = { 1 } } },
        .limit = 1000,
    };
    struct clerk_turn turn = { .service = service,
        .store = service->store,
        .reader = store_own_reader(service->store),
        .now = clock_wall_ms() };
    struct sweep sweep = { .now = turn.now };

    if (store_list(turn.reader, &query, sweep_each, &sweep) < 0 || sweep.count == 0 ||
            store_begin(service->store) != 0)
        return 0;
    if (!sweep_remove(&turn, &sweep)) {
        store_rollback(service->store);
        return 0;
    }
    if (store_commit(service->store) != 0)
        return 0;
    events_wake(service);
    return sweep.count;
}

/* -- errors ------------------------------------------------------------------------ */

/** What a person can do about the cause, before the copy is asked for again. */
static const char *cause_mended(int64_t cause)
{
    switch (cause) {
    case CIM_CAUSE_STORAGE_CAPACITY:
    case CIM_CAUSE_CAPACITY:
        return "Make room";
    case CIM_CAUSE_AUTHENTICATION:
        return "Check the credentials file of the element";
    case CIM_CAUSE_CONNECTION:
    case CIM_CAUSE_TIMEOUT:
        return "Check that the portal answers";
    case CIM_CAUSE_ELEMENT_MISSING:
        return "Check that the file or logical unit is there and has its size";
    default:
        return "See ErrorDescription of the job";
    }
}

/** A Restore that failed leaves its source half written: there is nothing to resynchronise
    the replica from. */
static void recommend(
        struct writer *writer, struct store_reader *reader, const struct store_job *job)
{
    char text[160], back[REMEDY];

    if (job->probable_cause == CIM_CAUSE_SYNC_LOSS)
        (void)snprintf(text, sizeof(text),
                "Find out who wrote to either side since the last copy, then "
                "resynchronise the replica, or restore from it");
    else if (job->probable_cause == CIM_CAUSE_CORRUPT_DATA)
        (void)snprintf(text, sizeof(text),
                "Do not trust the device: what was read back is not what was written");
    else
        (void)snprintf(text, sizeof(text), "%s%s", cause_mended(job->probable_cause),
                job->work == JOB_RESTORE          ? ""
                        : job->work == JOB_VERIFY ? ", then verify again"
                                                  : ", then resynchronise the replica");
    writer_text(writer, NULL, text);
    if (job->work != JOB_RESTORE)
        return;
    restore_back(reader, &job->target, &job->source, back);
    if (back[0])
        writer_text(writer, NULL, back);
}

static void render_error(
        struct writer *writer, struct store_reader *reader, const struct store_job *job)
{
    char self[64];

    (void)snprintf(self, sizeof(self), "/jobs/%s", job->id.text);
    writer_object(writer, NULL);
    writer_cim(writer, "ErrorType", CIM_ERROR_TYPE, job->error_type);
    writer_cim(writer, "PerceivedSeverity", CIM_SEVERITY,
            job->probable_cause == CIM_CAUSE_CORRUPT_DATA ? CIM_SEVERITY_CRITICAL
                                                          : CIM_SEVERITY_MAJOR);
    writer_cim(writer, "ProbableCause", CIM_PROBABLE_CAUSE, job->probable_cause);
    writer_text(writer, "ProbableCauseDescription", job->error);
    writer_text(writer, "Message", job->error);
    writer_array(writer, "RecommendedActions");
    recommend(writer, reader, job);
    writer_end(writer);
    writer_text(writer, "ErrorSource", self);
    writer_signed(writer, "ErrorSourceFormat", 1);
    writer_text(writer, "ErrorSourceFormatName", "Other");
    writer_text(writer, "OtherErrorSourceFormat", "Path");
    writer_signed(writer, "CIMStatusCode", 1);
    writer_text(writer, "CIMStatusCodeDescription", "CIM_ERR_FAILED");
    writer_time(writer, "Time", job->ended);
    if (job->differ_ranges)
        differences_render(writer, job);
    writer_end(writer);
}

/** CIM_Error objects of a job that failed; of another there are none. */
static void errors_render(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *row)
{
    const struct store_job *job = row;

    (void)call;
    writer_array(writer, "Members");
    if (job->state == CIM_JOB_EXCEPTION)
        render_error(writer, reader, job);
    writer_end(writer);
    writer_null(writer, "Next");
}

void call_JOB_ERRORS(struct call *call)
{
    struct store_job job;

    call_get(call, STORE_JOB, &job, errors_render, &job.revision);
}

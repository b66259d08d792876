/* Jobs: made, asked to stop or go on, waited for; RequestStateChange. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/jobs.h"
#include "replica/base/check.h"

/* CIM's default of TimeBeforeRemoval. It counts for jobs with DeleteOnCompletion; the others
 * stay until they are deleted or retention drops them. */
enum { REMOVAL_MS = 5 * 60 * 1000 };

enum { READER_MS = 1000 };

int64_t job_priority_of(int64_t copy_priority)
{
    /* Not Managed (0) runs as Same (2). Lower is more urgent. */
    return copy_priority ? 4 - copy_priority : 2;
}

void job_make(struct clerk_turn *turn, struct call *call, struct store_replica *replica,
        const char *method, enum job_work work, const struct store_element *source,
        const struct store_element *target, struct store_job *job)
{
    memset(job, 0, sizeof(*job));
    job->id = uuid_make();
    (void)snprintf(job->method, sizeof(job->method), "%s", method);
    job->work = work;
    job->state = CIM_JOB_NEW;
    job->priority = job_priority_of(replica->copy_priority);
    job->source = source->id;
    job->target = target->id;
    job->replica = replica->id;
    job->submitted = turn->now;
    job->total = work == JOB_PREPARE ? 0 : source->size;
    job->limit = replica->limit;
    job->verify = replica->verify && work != JOB_PREPARE && work != JOB_VERIFY;
    job->return_value = CIM_JOB_STARTED;
    job->time_before_removal = REMOVAL_MS;
    (void)snprintf(job->request, sizeof(job->request), "%s",
            call->request->request_id ? call->request->request_id : "");
    replica->job = job->id;
    call->job = job->id;
}

void job_want(struct clerk_turn *turn, struct store_job *job, int64_t want)
{
    static const struct job_ending stopped = { .end = ENGINE_STOPPED };

    check(!job_is_over(job->state));
    if (want == 0) {
        check(job->state == CIM_JOB_SUSPENDED);
        job->state = CIM_JOB_NEW;
        job_put(turn, job, false);
        return;
    }
    job->wanted = want;
    if (job->state == CIM_JOB_NEW || job->state == CIM_JOB_SUSPENDED) {
        job_end(turn, job, &stopped);
        return;
    }
    if (want != WANT_SUSPEND)
        job->state = CIM_JOB_SHUTTING_DOWN;
    job_put(turn, job, false);
}

bool job_wait(struct service *service, const struct uuid *id, unsigned s,
        struct store_job *job)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), (uint64_t)s * 1000);
    int64_t seen = -1;
    bool there = false, more = true;

    while (more && !(there && job_is_over(job->state))) {
        more = service_wait(service, &seen, deadline); /* the first time at once */
        struct store_reader *reader = store_reader_take(service->store, READER_MS);
        if (!reader) /* whoever has them all: no longer than this after the deadline */
            continue;
        int result = store_get(reader, STORE_JOB, id->text, job);
        store_reader_give(service->store, reader);
        if (result)
            return false;
        there = true;
    }
    return there;
}

/* -- RequestStateChange ------------------------------------------------------------------- */

struct change_input {
    int64_t state;
    bool has_state;
};

static const struct body_member change_members[] = {
    { .name = "RequestedState",
            .type = BODY_CIM,
            .need = BODY_REQUIRED,
            .offset = offsetof(struct change_input, state),
            .given = offsetof(struct change_input, has_state),
            .map = CIM_REQUESTED_STATE },
};

struct change {
    struct call *call;
    int64_t state;
};

static void change_answer(struct call *call, const struct store_job *job, int value)
{
    struct api_outcome *outcome = call->outcome;
    struct writer *writer = writer_create();

    outcome->verdict = value == CIM_JOB_STARTED ? API_STARTED : API_DONE;
    outcome->return_value = value;
    outcome->retry_after = value == CIM_JOB_STARTED ? 1 : 0;
    (void)snprintf(outcome->location, sizeof(outcome->location), "%s%s",
            value == CIM_JOB_STARTED ? "/jobs/" : "",
            value == CIM_JOB_STARTED ? job->id.text : "");
    if (!writer) {
        outcome_fail(outcome, API_INTERNAL, CIM_UNKNOWN, "out of memory");
        return;
    }
    writer_signed(writer, "ReturnValue", value);
    writer_text(writer, "ReturnValueName", cim_name(CIM_REQUEST_RETURN, value));
    writer_path(writer, "Job", "jobs", job->id.text);
    writer_cim(writer, "JobState", CIM_JOB_STATE, job->state);
    outcome_etag(outcome, job->revision);
    outcome_body(outcome, &writer);
}

static bool change_done(struct change *change, struct clerk_turn *turn,
        const struct store_job *job, int value)
{
    change_answer(change->call, job, value);
    call_settle(change->call, turn);
    return true;
}

static bool change_refuse(struct change *change, const struct store_job *job)
{
    outcome_fail(change->call->outcome, API_STATE, CIM_INVALID_TRANSITION,
            "%s is not possible while the job is in state %s",
            cim_name(CIM_REQUESTED_STATE, change->state),
            cim_name(CIM_JOB_STATE, job->state));
    return false;
}

static bool change_start(
        struct change *change, struct clerk_turn *turn, struct store_job *job)
{
    if (!job->wanted && job->state >= CIM_JOB_NEW && job->state <= CIM_JOB_RUNNING)
        return change_done(change, turn, job, CIM_OK);
    if (job->state != CIM_JOB_SUSPENDED)
        return change_refuse(change, job);
    if (job_is_quiesced(turn->reader, job)) {
        (void)change_refuse(change, job);
        outcome_holder_of(change->call->outcome, "replicas", &job->replica);
        outcome_remedy(change->call->outcome,
                "POST /replicas/%s/modify {\"Operation\":\"Unquiesce\"}",
                job->replica.text);
        return false;
    }
    job_want(turn, job, 0);
    return change_done(change, turn, job, CIM_JOB_STARTED);
}

/** Suspend, Terminate, Kill. @already: the state it would go to. */
static bool change_stop(struct change *change, struct clerk_turn *turn,
        struct store_job *job, int64_t want, int64_t already)
{
    if (job->state == already)
        return change_done(change, turn, job, CIM_OK);
    if (job_is_over(job->state))
        return change_refuse(change, job);
    if (job->state == CIM_JOB_NEW || job->state == CIM_JOB_SUSPENDED) {
        job_want(turn, job, want);
        return change_done(change, turn, job, CIM_OK);
    }
    if (job->state == CIM_JOB_SHUTTING_DOWN && want == WANT_SUSPEND)
        return change_refuse(change, job);
    /* What was asked for and is stronger stays: Kill over Terminate over Suspend. */
    if (want > job->wanted)
        job_want(turn, job, want);
    return change_done(change, turn, job, CIM_JOB_STARTED);
}

static bool change_work(struct clerk_turn *turn, void *context)
{
    struct change *change = context;
    struct store_job job;

    if (!turn_find(change->call, turn, STORE_JOB, &job))
        return false;
    change->call->source = job.source;
    change->call->target = job.target;
    change->call->job = job.id;
    if (!outcome_if_match(change->call, job.revision))
        return false;
    switch (change->state) {
    case CIM_REQUEST_START:
        return change_start(change, turn, &job);
    case CIM_REQUEST_SUSPEND:
        return change_stop(change, turn, &job, WANT_SUSPEND, CIM_JOB_SUSPENDED);
    case CIM_REQUEST_TERMINATE:
        return change_stop(change, turn, &job, WANT_TERMINATE, CIM_JOB_TERMINATED);
    default:
        return change_stop(change, turn, &job, WANT_KILL, CIM_JOB_KILLED);
    }
}

void call_JOB_REQUEST_STATE_CHANGE(struct call *call)
{
    struct change_input input = { 0 };
    struct change change = { .call = call };

    if (!call_decode(call, change_members,
                sizeof(change_members) / sizeof(*change_members), &input))
        return;
    if (!cim_name(CIM_REQUESTED_STATE, input.state)) {
        outcome_fail(call->outcome, API_INVALID, CIM_INVALID_PARAMETER,
                "RequestedState is 2 Start, 3 Suspend, 4 Terminate or 5 Kill");
        outcome_pointer(call->outcome, "/RequestedState", "2, 3, 4 or 5");
        return;
    }
    change.state = input.state;
    (void)call_commit(call, change_work, &change);
}

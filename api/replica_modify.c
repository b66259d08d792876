/* ModifySynchronization: twelve operations after one table (api/cim/legality.tbl.h).
 *
 * One turn checks and changes. What has to come to rest first (a job to suspend, a scan to
 * drain) passes through 7 or 8, and the caller waits outside the turn for the end of what
 * ran to move the pair on; a second turn then answers for what it finds. A new operation
 * of the table is a row in `operations` and its function.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "api/resource.h"

enum { REST_MS = 10 * 1000, LONGEST_MS = 180 * 1000 };

struct modify {
    struct call *call;
    int64_t operation;
    int64_t operation_state; /* SyncState when it was asked */
    struct store_replica replica;
    struct uuid id;
    struct uuid job; /* the answer's; none: done */
    bool resting; /* something has to come to rest: wait, then answer */
    bool closing; /* a hold or a scan is closed: wait, whatever was answered */
    struct uuid rest; /* the job that comes to rest */
    bool detaching; /* once its scan has ended */
    struct claim claim; /* then: of the target, so that no other one starts */
};

typedef bool operation_f(struct modify *modify, struct clerk_turn *turn);

/* -- refusals -------------------------------------------------------------------------------- */

static const char *operation_name(const struct modify *modify)
{
    return cim_name(CIM_OPERATION, modify->operation);
}

static bool modify_busy(struct modify *modify)
{
    const struct store_replica *replica = &modify->replica;
    struct api_outcome *outcome = modify->call->outcome;

    outcome_fail(outcome, API_IN_USE, CIM_IN_USE, "%s has to wait: the pair is in %s%s",
            operation_name(modify), cim_name(CIM_SYNC_STATE, replica->sync_state),
            cim_state_is_transient(replica->sync_state) || uuid_is_none(&replica->job)
                    ? ""
                    : " and has a job that is not over");
    if (uuid_is_none(&replica->job)) {
        outcome_holder_of(outcome, "replicas", &replica->id);
        return false;
    }
    outcome_holder_of(outcome, "jobs", &replica->job);
    outcome_remedy(outcome, "POST /jobs/%s/request-state-change {\"RequestedState\":4}",
            replica->job.text);
    return false;
}

static bool modify_refuse(struct modify *modify, enum cim_legality legality)
{
    const struct store_replica *replica = &modify->replica;
    struct api_outcome *outcome = modify->call->outcome;

    if (legality == CIM_BUSY)
        return modify_busy(modify);
    if (legality == CIM_NO_SUCH)
        outcome_fail(outcome, API_INVALID, CIM_INVALID_PARAMETER, "%s has no %s",
                cim_name(CIM_COPY_TYPE, replica->copy_type), operation_name(modify));
    else
        outcome_fail(outcome, API_STATE, CIM_FAILED, "no %s of a pair in %s",
                operation_name(modify), cim_name(CIM_SYNC_STATE, replica->sync_state));
    outcome_pointer(outcome, "/Operation", "see Operations of the pair");
    return false;
}

static bool modify_broken(struct modify *modify, const char *why)
{
    outcome_fail(modify->call->outcome, API_INTERNAL, CIM_UNKNOWN, "%s", why);
    return false;
}

/* -- steps --------------------------------------------------------------------------------- */

/** The pair's live job. False: it has none. */
static bool live_job(
        struct modify *modify, struct clerk_turn *turn, struct store_job *job)
{
    return !uuid_is_none(&modify->replica.job) &&
            turn_get(turn, STORE_JOB, modify->replica.job.text, job) &&
            !job_is_over(job->state);
}

/** The row again, after a job's end moved it. */
static bool reload(struct modify *modify, struct clerk_turn *turn)
{
    return turn_get(turn, STORE_REPLICA, modify->id.text, &modify->replica);
}

static bool scan_runs(struct modify *modify)
{
    struct scheduler_plan_of of;

    return scheduler_find(modify->call->service, &modify->id, &of);
}

/** No scan starts any more; one that runs is drained, its slot keeps others off meanwhile. */
static void scan_stop(struct modify *modify)
{
    modify->replica.scan_due = 0;
    modify->closing |= scan_runs(modify);
}

/** A job that was suspended and that nobody will resume ends. */
static bool drop_suspended(struct modify *modify, struct clerk_turn *turn)
{
    struct store_job job;

    if (!live_job(modify, turn, &job))
        return true;
    if (job.state != CIM_JOB_SUSPENDED && job.state != CIM_JOB_NEW)
        return modify_busy(modify);
    job_want(turn, &job, WANT_TERMINATE);
    return reload(modify, turn) || modify_broken(modify, "the pair is gone");
}

static bool pair_elements(struct modify *modify, struct clerk_turn *turn,
        struct store_element *source, struct store_element *target)
{
    return (turn_get(turn, STORE_ELEMENT, modify->replica.source.text, source) &&
                   turn_get(turn, STORE_ELEMENT, modify->id.text, target)) ||
            modify_broken(modify, "an element of the pair is gone");
}

/** State @state with a new job that does @work. */
static bool start_job(struct modify *modify, struct clerk_turn *turn,
        enum job_work work, int64_t state)
{
    struct store_element source, target;
    struct store_job job;
    bool back = work == JOB_RESTORE;

    if (!pair_elements(modify, turn, &source, &target))
        return false;
    modify->replica.sync_state = state;
    modify->replica.last_error[0] = '\0';
    job_make(turn, modify->call, &modify->replica, "ModifySynchronization", work,
            back ? &target : &source, back ? &source : &target, &job);
    if (back)
        job.total = source.size;
    job_put(turn, &job, true);
    replica_put(turn, &modify->replica, false);
    modify->job = job.id;
    return true;
}

/** Steady state @state, at once. */
static bool settle_in(struct modify *modify, struct clerk_turn *turn, int64_t state)
{
    modify->replica.sync_state = state;
    (void)replica_hush(&modify->replica); /* what waited for it does not any more */
    replica_put(turn, &modify->replica, false);
    return true;
}

static bool source_stands(struct modify *modify, struct clerk_turn *turn)
{
    struct store_element source, target;

    return pair_elements(modify, turn, &source, &target) &&
            claims_source(modify->call, turn->reader, &source, &modify->id);
}

/* -- the operations ------------------------------------------------------------------------ */

/** Whose target a scan still writes is a pair: it is asked to stop first. */
static bool do_detach(struct modify *modify, struct clerk_turn *turn)
{
    struct store_element source, target;
    struct scheduler_plan_of of;

    modify->closing = scheduler_find(turn->service, &modify->id, &of);
    if (modify->closing && of.kind == SCHEDULER_SCAN && !modify->detaching) {
        if (!pair_elements(modify, turn, &source, &target))
            return false;
        claim_hold(turn->service, &modify->claim, &target);
        modify->detaching = modify->resting = true;
        return true;
    }
    if (!drop_suspended(modify, turn))
        return false;
    replica_remove(turn, &modify->replica);
    return true;
}

/** Through @transient to rest: what runs is asked to stop with @want. */
static bool bring_to_rest(struct modify *modify, struct clerk_turn *turn,
        int64_t transient, int64_t want, int64_t final)
{
    struct store_replica *replica = &modify->replica;
    struct store_job job;

    scan_stop(modify);
    if (live_job(modify, turn, &job)) {
        if (job.wanted)
            return modify_busy(modify);
        if (transient) {
            replica->sync_state = transient;
            replica_put(turn, replica, false);
        }
        modify->rest = job.id;
        job_want(turn, &job, want);
        modify->resting = !job_is_over(job.state) && job.state != CIM_JOB_SUSPENDED;
        return true;
    }
    replica->job = (struct uuid){ "" };
    modify->resting = modify->closing && transient;
    return settle_in(modify, turn, modify->resting ? transient : final);
}

/** The replica is its users' from here on, who may write it: it is compared again. */
static bool forget_bytes(struct modify *modify, struct clerk_turn *turn)
{
    int result = target_forget(turn, &modify->id);

    if (result == 0)
        return true;
    if (result != -ENOSPC) /* a file system may want room to take a name away */
        return modify_broken(modify, "the digests of the replica cannot be taken away");
    outcome_fail(modify->call->outcome, API_NO_SPACE, CIM_FAILED,
            "no space to take away the digests of the replica");
    return false;
}

static bool do_fracture(struct modify *modify, struct clerk_turn *turn)
{
    if (!forget_bytes(modify, turn))
        return false;
    return bring_to_rest(modify, turn, CIM_SYNC_FRACTURE_IN_PROGRESS, WANT_TERMINATE,
            CIM_SYNC_FRACTURED);
}

static bool do_quiesce(struct modify *modify, struct clerk_turn *turn)
{
    modify->replica.state_before = modify->replica.sync_state;
    return bring_to_rest(modify, turn, CIM_SYNC_QUIESCE_IN_PROGRESS, WANT_SUSPEND,
            CIM_SYNC_QUIESCED);
}

static bool do_stop_copy(struct modify *modify, struct clerk_turn *turn)
{
    struct store_job job;

    if (live_job(modify, turn, &job) ||
            modify->replica.copy_type != CIM_COPY_UNSYNC_UNASSOC)
        return bring_to_rest(modify, turn, 0, WANT_STOP_COPY, CIM_SYNC_INITIALIZED);
    replica_remove(turn, &modify->replica);
    return true;
}

static bool do_resync(struct modify *modify, struct clerk_turn *turn)
{
    if (!source_stands(modify, turn) || !drop_suspended(modify, turn))
        return false;
    modify->replica.scan_due = 0;
    /* Never synced: nothing to compare with. */
    return start_job(modify, turn, modify->replica.when_synced ? JOB_RESYNC : JOB_COPY,
            CIM_SYNC_RESYNC_IN_PROGRESS);
}

static bool do_start_copy(struct modify *modify, struct clerk_turn *turn)
{
    return source_stands(modify, turn) &&
            start_job(modify, turn, JOB_COPY, CIM_SYNC_COPY_IN_PROGRESS);
}

static bool do_restore(struct modify *modify, struct clerk_turn *turn)
{
    struct store_element source, target;
    struct api_outcome *outcome = modify->call->outcome;

    if (!pair_elements(modify, turn, &source, &target))
        return false;
    if (!element_complete(turn->reader, &target)) {
        outcome_fail(outcome, API_IN_USE, CIM_IN_USE,
                "the replica is not Complete: there is nothing whole to restore");
        outcome_holder_of(outcome, "elements", &target.id);
        outcome_remedy(outcome, "POST /replicas/%s/modify {\"Operation\":\"Resync\"}",
                target.id.text);
        return false;
    }
    if (target.block_size > 1 && source.size % (uint64_t)target.block_size) {
        outcome_fail(outcome, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED,
                "the source's size is no multiple of the replica's block size: its "
                "last "
                "bytes cannot be read back alone");
        return false;
    }
    if (!claims_restore(modify->call, turn->reader, &source, &modify->id) ||
            !drop_suspended(modify, turn) || !forget_bytes(modify, turn))
        return false;
    modify->replica.state_before = modify->operation_state;
    modify->replica.scan_due = 0;
    return start_job(modify, turn, JOB_RESTORE, CIM_SYNC_RESTORE_IN_PROGRESS);
}

static bool do_prepare(struct modify *modify, struct clerk_turn *turn)
{
    modify->replica.state_before = modify->replica.sync_state;
    return start_job(modify, turn, JOB_PREPARE, CIM_SYNC_PREPARE_IN_PROGRESS);
}

static bool do_unprepare(struct modify *modify, struct clerk_turn *turn)
{
    modify->closing = scan_runs(modify);
    return settle_in(modify, turn, modify->replica.state_before);
}

/** Back to where it was, with its job; a mirror without one is brought up to date. */
static bool do_unquiesce(struct modify *modify, struct clerk_turn *turn)
{
    struct store_replica *replica = &modify->replica;
    bool mirror = replica->copy_type != CIM_COPY_UNSYNC_ASSOC;
    struct store_job job;

    if (live_job(modify, turn, &job)) {
        replica->sync_state =
                mirror ? CIM_SYNC_RESYNC_IN_PROGRESS : replica->state_before;
        replica_put(turn, replica, false);
        modify->job = modify->call->job = job.id;
        if (job.state == CIM_JOB_SUSPENDED)
            job_want(turn, &job, 0);
        return true;
    }
    if (!mirror && !cim_state_is_transient(replica->state_before))
        return settle_in(modify, turn, replica->state_before);
    return source_stands(modify, turn) &&
            start_job(modify, turn, replica->when_synced ? JOB_RESYNC : JOB_COPY,
                    mirror ? CIM_SYNC_RESYNC_IN_PROGRESS : replica->state_before);
}

static bool do_reset_to_sync(struct modify *modify, struct clerk_turn *turn)
{
    (void)turn;
    return copy_type_built(modify->call, CIM_COPY_SYNC);
}

static bool do_reset_to_async(struct modify *modify, struct clerk_turn *turn)
{
    if (modify->replica.copy_type == CIM_COPY_ASYNC)
        return true;
    modify->replica.copy_type = CIM_COPY_ASYNC;
    replica_put(turn, &modify->replica, false);
    return true;
}

static operation_f *const operations[] = {
    [CIM_OP_DETACH] = do_detach,
    [CIM_OP_FRACTURE] = do_fracture,
    [CIM_OP_RESYNC] = do_resync,
    [CIM_OP_RESTORE] = do_restore,
    [CIM_OP_PREPARE] = do_prepare,
    [CIM_OP_UNPREPARE] = do_unprepare,
    [CIM_OP_QUIESCE] = do_quiesce,
    [CIM_OP_UNQUIESCE] = do_unquiesce,
    [CIM_OP_RESET_TO_SYNC] = do_reset_to_sync,
    [CIM_OP_RESET_TO_ASYNC] = do_reset_to_async,
    [CIM_OP_START_COPY] = do_start_copy,
    [CIM_OP_STOP_COPY] = do_stop_copy,
};

/* -- the turns ----------------------------------------------------------------------------- */

static bool modify_answer(struct modify *modify, struct clerk_turn *turn)
{
    struct store_replica row;
    struct uuid none = { "" };
    bool there = turn_get(turn, STORE_REPLICA, modify->id.text, &row);

    replica_answer(modify->call, there ? &modify->id : &none, &modify->job, false);
    if (there)
        outcome_etag(modify->call->outcome, row.revision);
    call_settle(modify->call, turn);
    return !modify->call->outcome->problem;
}

static bool modify_legal(struct modify *modify, struct clerk_turn *turn)
{
    const struct store_replica *replica = &modify->replica;
    struct cim_step step =
            cim_legality_of(modify->operation, replica->copy_type, replica->sync_state);
    struct store_job job;

    if (step.legality != CIM_LEGAL)
        return modify_refuse(modify, step.legality);
    if (replica_is_verified(turn->reader, replica))
        return modify_busy(modify);
    /* Initialized with a first copy that waits: it is that job's. */
    if (replica->sync_state == CIM_SYNC_INITIALIZED &&
            modify->operation != CIM_OP_RESET_TO_ASYNC && live_job(modify, turn, &job))
        return modify_busy(modify);
    return true;
}

static bool modify_work(struct clerk_turn *turn, void *context)
{
    struct modify *modify = context;

    if (!turn_find(modify->call, turn, STORE_REPLICA, &modify->replica))
        return false;
    modify->id = modify->replica.id;
    modify->call->target = modify->id;
    modify->call->source = modify->replica.source;
    modify->operation_state = modify->replica.sync_state;
    /* The scan that was waited for has changed the tag that was asked for. */
    if ((!modify->detaching &&
                !outcome_if_match(modify->call, modify->replica.revision)) ||
            !modify_legal(modify, turn) || !operations[modify->operation](modify, turn))
        return false;
    return modify->resting || modify_answer(modify, turn);
}

/** Has what was asked to rest come to rest? */
static bool rest_reached(struct modify *modify, struct store_reader *reader)
{
    struct store_replica replica;
    struct store_job job;

    if (store_get(reader, STORE_REPLICA, modify->id.text, &replica))
        return true;
    if (replica.sync_state == CIM_SYNC_FRACTURE_IN_PROGRESS ||
            replica.sync_state == CIM_SYNC_QUIESCE_IN_PROGRESS)
        return false;
    return modify->operation != CIM_OP_STOP_COPY ||
            store_get(reader, STORE_JOB, modify->rest.text, &job) ||
            job_is_over(job.state);
}

static unsigned rest_ms(const struct service *service)
{
    uint64_t ms = REST_MS + 3 * (uint64_t)service->options.io_timeout_ms;

    return ms > LONGEST_MS ? LONGEST_MS : (unsigned)ms;
}

static void rest_wait(struct modify *modify)
{
    struct service *service = modify->call->service;
    struct instant deadline = instant_add_ms(clock_monotonic(), rest_ms(service));
    int64_t seen = -1;
    bool reached = false;

    while (!reached && service_wait(service, &seen, deadline)) {
        struct store_reader *reader = store_reader_take(service->store, 1000);
        if (!reader)
            continue;
        reached = rest_reached(modify, reader);
        store_reader_give(service->store, reader);
    }
}

static int64_t rest_final(const struct modify *modify)
{
    return modify->operation == CIM_OP_FRACTURE   ? CIM_SYNC_FRACTURED
            : modify->operation == CIM_OP_QUIESCE ? CIM_SYNC_QUIESCED
                                                  : CIM_SYNC_INITIALIZED;
}

/** What it came to. */
static bool rest_work(struct clerk_turn *turn, void *context)
{
    struct modify *modify = context;
    struct api_outcome *outcome = modify->call->outcome;
    bool there = reload(modify, turn);
    int64_t state = there ? modify->replica.sync_state : 0;

    if (turn->error)
        return false;
    if (there ? state == rest_final(modify) : modify->operation == CIM_OP_STOP_COPY)
        return modify_answer(modify, turn);
    if (!rest_reached(modify, turn->reader))
        outcome_fail(outcome, API_TIMEOUT, CIM_TIMEOUT,
                "%s was asked for, but what runs has not come to rest in time: the "
                "pair "
                "is in %s",
                operation_name(modify), cim_name(CIM_SYNC_STATE, state));
    else
        outcome_fail(outcome, API_STATE, CIM_FAILED,
                "%s came too late: the pair is %s%s", operation_name(modify),
                there ? "in " : "gone", there ? cim_name(CIM_SYNC_STATE, state) : "");
    return false;
}

/** The scan has ended, or could not in time: then the pair stays, and goes on. */
static bool detach_work(struct clerk_turn *turn, void *context)
{
    struct modify *modify = context;
    struct scheduler_plan_of of;

    if (scheduler_find(turn->service, &modify->id, &of) && of.kind == SCHEDULER_SCAN) {
        outcome_fail(modify->call->outcome, API_TIMEOUT, CIM_TIMEOUT,
                "the pair's scan was asked to stop and has not ended in time: it may "
                "still write the target, and the pair stays");
        outcome_holder_of(modify->call->outcome, "replicas", &modify->id);
        outcome_remedy(modify->call->outcome, "DELETE /replicas/%s", modify->id.text);
        return false;
    }
    modify->resting = false;
    return modify_work(turn, modify);
}

static void detach_run(struct modify *modify)
{
    struct service *service = modify->call->service;

    (void)engine_stop_wait(
            service->engine, &modify->id, ENGINE_DRAIN, rest_ms(service));
    (void)call_commit(modify->call, detach_work, modify);
    claim_drop(service, &modify->claim);
}

static void modify_run(struct call *call, int64_t operation)
{
    struct modify modify = { .call = call, .operation = operation };

    if (!call_commit(call, modify_work, &modify)) {
        claim_drop(call->service, &modify.claim);
        return;
    }
    if (call->outcome->problem) {
        call->job = (struct uuid){ "" };
        return;
    }
    if (modify.detaching) {
        detach_run(&modify);
    } else if (modify.resting) {
        rest_wait(&modify);
        (void)call_commit(call, rest_work, &modify);
    } else if (modify.closing) {
        (void)engine_stop_wait(call->service->engine, &modify.id, ENGINE_DRAIN,
                rest_ms(call->service));
    }
}

/* -- the calls ----------------------------------------------------------------------------- */

struct modify_input {
    int64_t operation;
    bool has_operation;
};

static const struct body_member modify_members[] = {
    { .name = "Operation",
            .type = BODY_CIM,
            .need = BODY_REQUIRED,
            .offset = offsetof(struct modify_input, operation),
            .given = offsetof(struct modify_input, has_operation),
            .map = CIM_OPERATION },
};

void call_REPLICA_MODIFY(struct call *call)
{
    struct modify_input input = { 0 };

    if (!call_decode(call, modify_members,
                sizeof(modify_members) / sizeof(*modify_members), &input))
        return;
    if (input.operation >= CIM_OP_DETACH && input.operation <= CIM_OP_STOP_COPY) {
        modify_run(call, input.operation);
        return;
    }
    if (input.operation >= 0x8000)
        outcome_fail(call->outcome, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED,
                "Operation %lld is in the vendors' range: this service has none",
                (long long)input.operation);
    else
        outcome_fail(call->outcome, API_INVALID, CIM_INVALID_PARAMETER,
                "Operation %lld is reserved", (long long)input.operation);
    outcome_pointer(call->outcome, "/Operation", "2 to 13");
}

void call_REPLICA_DETACH(struct call *call)
{
    modify_run(call, CIM_OP_DETACH);
}

/* /replicas: the pairs themselves, as they are shown and listed, and what the two methods
 * that make them have in common.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/resource.h"

static const int64_t second_ms = 1000;

/* -- rendered ---------------------------------------------------------------------------- */

/** This build answers 1 to a mirror, and 6 to a Restore of what is not whole. */
static bool operation_stands(struct store_reader *reader,
        const struct store_replica *replica, int64_t operation)
{
    struct store_element target;

    if (operation == CIM_OP_RESET_TO_SYNC ||
            cim_legality_of(operation, replica->copy_type, replica->sync_state)
                            .legality != CIM_LEGAL)
        return false;
    return operation != CIM_OP_RESTORE ||
            (store_get(reader, STORE_ELEMENT, replica->id.text, &target) == 0 &&
                    element_complete(reader, &target));
}

/** Operations that the pair may see now. */
static void render_operations(struct store_reader *reader, struct writer *writer,
        const struct store_replica *replica)
{
    bool waiting = (replica->sync_state == CIM_SYNC_INITIALIZED &&
                           !uuid_is_none(&replica->job)) ||
            replica_is_verified(reader, replica);

    writer_array(writer, "Operations");
    for (int64_t operation = CIM_OP_DETACH; operation <= CIM_OP_STOP_COPY; operation++)
        if (!waiting && operation_stands(reader, replica, operation))
            writer_text(writer, NULL, cim_name(CIM_OPERATION, operation));
    writer_end(writer);
}

static void render_rpo(struct writer *writer, const struct store_replica *replica)
{
    if (replica->copy_type != CIM_COPY_ASYNC || !replica->when_synced)
        writer_null(writer, "RPOMet");
    else
        writer_flag(writer, "RPOMet",
                replica->sync_state == CIM_SYNC_SYNCHRONIZED &&
                        clock_wall_ms() - replica->when_synced <=
                                replica->rpo * second_ms);
}

int64_t replica_percent(
        struct store_reader *reader, const struct uuid *its_job, int64_t left)
{
    struct store_job job;

    if (uuid_is_none(its_job) || store_get(reader, STORE_JOB, its_job->text, &job) ||
            (job.work != JOB_COPY && job.work != JOB_RESYNC))
        return left;
    return job.percent;
}

static void render_times(struct writer *writer, const struct store_replica *replica)
{
    writer_time(writer, "WhenSynced", replica->when_synced);
    writer_time(writer, "WhenEstablished", replica->when_established);
}

void replica_render(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *row)
{
    const struct store_replica *replica = row;
    char self[STORE_WORD];

    (void)call;
    (void)snprintf(self, sizeof(self), "/replicas/%s", replica->id.text);
    writer_text(writer, "Id", replica->id.text);
    writer_text(writer, "Self", self);
    writer_path(writer, "SystemElement", "elements", replica->source.text);
    writer_path(writer, "SyncedElement", "elements", replica->id.text);
    writer_path(writer, "SourceElement", "elements", replica->source.text);
    writer_path(writer, "TargetElement", "elements", replica->id.text);
    writer_cim(writer, "CopyType", CIM_COPY_TYPE, replica->copy_type);
    writer_cim(writer, "SyncState", CIM_SYNC_STATE, replica->sync_state);
    writer_flag(writer, "SyncMaintained", replica->maintained);
    writer_signed(writer, "PercentSynced",
            replica_percent(reader, &replica->job, replica->percent));
    render_times(writer, replica);
    writer_cim(writer, "CopyPriority", CIM_COPY_PRIORITY, replica->copy_priority);
    writer_cim(writer, "ReplicaType", CIM_REPLICA_TYPE, replica->replica_type);
    writer_text(
            writer, "Tracking", replica->copy_type == CIM_COPY_ASYNC ? "Scan" : "None");
    /* What is read is written behind our back by whoever owns the source. */
    writer_text(writer, "Consistency", "Fuzzy");
    writer_cim(
            writer, "CopyRecoveryMode", CIM_COPY_RECOVERY_MODE, replica->recovery_mode);
    if (replica->copy_type == CIM_COPY_ASYNC)
        writer_signed(writer, "DesiredRPO", replica->rpo);
    else
        writer_null(writer, "DesiredRPO");
    render_rpo(writer, replica);
    writer_number(writer, "BandwidthLimit", replica->limit);
    writer_flag(writer, "Verify", replica->verify);
    writer_path(writer, "ReplicationPipe", "pipes", replica->pipe.text);
    writer_path(writer, "Job", "jobs", replica->job.text);
    writer_text(
            writer, "LastError", replica->last_error[0] ? replica->last_error : NULL);
    writer_json(writer, "Goal", replica->goal);
    render_operations(reader, writer, replica);
}

void call_REPLICA_GET(struct call *call)
{
    struct store_replica replica;
    struct store_reader *reader;
    const struct api_request *request = call->request;
    struct api_request plain = *request;

    if (!call_no_query(call) || !(reader = call_reader(call)))
        return;
    if (call_find(call, reader, STORE_REPLICA, &replica)) {
        /* PercentSynced and RPOMet move without a change of the row. */
        if (!uuid_is_none(&replica.job) || replica.copy_type == CIM_COPY_ASYNC)
            plain.if_none_match = NULL;
        call->request = &plain;
        call_answer(call, reader, replica_render, &replica, replica.revision);
        call->request = request;
    }
    store_reader_give(call->service->store, reader);
}

static const struct list_member list_members[] = {
    { .name = "SourceElement",
            .column = REPLICA_SOURCE,
            .type = LIST_REFERENCE,
            .collection = "elements" },
    { .name = "SystemElement",
            .column = REPLICA_SOURCE,
            .type = LIST_REFERENCE,
            .collection = "elements" },
    { .name = "CopyType",
            .column = REPLICA_COPY_TYPE,
            .type = LIST_CIM,
            .map = CIM_COPY_TYPE },
    { .name = "SyncState",
            .column = REPLICA_SYNC_STATE,
            .type = LIST_CIM,
            .map = CIM_SYNC_STATE },
    { .name = "ReplicationPipe",
            .column = REPLICA_PIPE,
            .type = LIST_REFERENCE,
            .collection = "pipes" },
};

void call_REPLICAS_LIST(struct call *call)
{
    list_serve(call, STORE_REPLICA, "/replicas", list_members,
            sizeof(list_members) / sizeof(*list_members), replica_render);
}

/* -- PATCH: CopyPriority -------------------------------------------------------------------- */

struct patch_input {
    int64_t priority;
    bool has_priority;
};

static const struct body_member patch_members[] = {
    { .name = "CopyPriority",
            .type = BODY_CIM,
            .need = BODY_KEPT,
            .offset = offsetof(struct patch_input, priority),
            .given = offsetof(struct patch_input, has_priority),
            .map = CIM_COPY_PRIORITY },
};

struct patch {
    struct call *call;
    struct patch_input input;
};

/** The running or waiting job follows. */
static void patch_job(struct clerk_turn *turn, const struct store_replica *replica)
{
    struct store_job job;

    if (uuid_is_none(&replica->job) ||
            !turn_get(turn, STORE_JOB, replica->job.text, &job) ||
            job_is_over(job.state))
        return;
    job.priority = job_priority_of(replica->copy_priority);
    job_put(turn, &job, false);
}

static bool patch_work(struct clerk_turn *turn, void *context)
{
    struct patch *patch = context;
    struct store_replica replica;

    if (!turn_find(patch->call, turn, STORE_REPLICA, &replica) ||
            !outcome_if_match(patch->call, replica.revision))
        return false;
    if (patch->input.has_priority) {
        replica.copy_priority = patch->input.priority;
        replica_put(turn, &replica, false);
        patch_job(turn, &replica);
    }
    call_answer(patch->call, turn->reader, replica_render, &replica, replica.revision);
    call_settle(patch->call, turn);
    return true;
}

void call_REPLICA_PATCH(struct call *call)
{
    struct patch patch = { .call = call };

    if (!call_decode(call, patch_members,
                sizeof(patch_members) / sizeof(*patch_members), &patch.input))
        return;
    if (patch.input.has_priority &&
            !cim_name(CIM_COPY_PRIORITY, patch.input.priority)) {
        outcome_fail(call->outcome, API_INVALID, -1, "CopyPriority is 0 to 4");
        outcome_pointer(call->outcome, "/CopyPriority", "0 to 4");
        return;
    }
    (void)call_commit(call, patch_work, &patch);
}

/* -- what the two methods share --------------------------------------------------------------- */

bool copy_type_check(struct call *call, int64_t copy_type)
{
    struct api_outcome *outcome = call->outcome;

    switch (cim_copy_type_classify(call->method, copy_type)) {
    case CIM_COPY_TYPE_KNOWN:
        return true;
    case CIM_COPY_TYPE_VENDOR:
        outcome_fail(outcome, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED,
                "CopyType %lld is in the vendors' range: this service has none",
                (long long)copy_type);
        break;
    case CIM_COPY_TYPE_RESERVED:
        outcome_fail(outcome, API_INVALID, CIM_INVALID_PARAMETER,
                "CopyType %lld is reserved", (long long)copy_type);
        break;
    case CIM_COPY_TYPE_INVALID:
        outcome_fail(outcome, API_INVALID, CIM_INVALID_PARAMETER,
                "CopyType %lld is none: 2 Async, 3 Sync, 4 UnSyncAssoc, 5 "
                "UnSyncUnAssoc",
                (long long)copy_type);
        break;
    }
    outcome_pointer(outcome, "/CopyType", "2, 3, 4 or 5");
    return false;
}

bool copy_type_built(struct call *call, int64_t copy_type)
{
    if (copy_type != CIM_COPY_SYNC)
        return true;
    outcome_fail(call->outcome, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED,
            "Sync needs a mirror in the source's write path: this build serves "
            "elements "
            "over iSCSI, and does not mirror what hosts write");
    outcome_pointer(call->outcome, "/CopyType", "2 Async is kept up by scans");
    return false;
}

/** ReplicationPriority's numbers are not CopyPriority's. */
static int64_t priority_of_goal(const struct goal *goal)
{
    if (!goal->given_replication_priority)
        return CIM_COPY_PRIORITY_SAME;
    switch (goal->replication_priority) {
    case CIM_REPLICATION_PRIORITY_NOT_MANAGED:
        return CIM_COPY_PRIORITY_NOT_MANAGED;
    case CIM_REPLICATION_PRIORITY_LOW:
        return CIM_COPY_PRIORITY_LOW;
    case CIM_REPLICATION_PRIORITY_HIGH:
        return CIM_COPY_PRIORITY_HIGH;
    default:
        return CIM_COPY_PRIORITY_SAME;
    }
}

/** What the CopyType gives no meaning to is not stored as if it had one. */
static bool goal_suits(struct call *call, int64_t copy_type, const struct goal *goal,
        const char *pointer)
{
    char detail[120];

    if (copy_type == CIM_COPY_UNSYNC_UNASSOC && goal->given_initial_synchronization &&
            goal->initial_synchronization == CIM_INITIAL_DO_NOT_START) {
        outcome_fail(call->outcome, API_INVALID, CIM_INVALID_PARAMETER,
                "InitialSynchronization Do Not Start: UnSyncUnAssoc is nothing but its "
                "copy");
        outcome_pointer(call->outcome, pointer, "InitialSynchronization 3");
        return false;
    }
    if (!goal->given_desired_rpo || copy_type == CIM_COPY_ASYNC ||
            copy_type == CIM_COPY_SYNC)
        return true;
    (void)snprintf(detail, sizeof(detail), "DesiredRPO is not supported for %s",
            cim_name(CIM_COPY_TYPE, copy_type));
    outcome_fail(call->outcome, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED,
            "%s: it is no mirror", detail);
    outcome_pointer(call->outcome, pointer, detail);
    return false;
}

bool replica_take_goal(struct call *call, struct store_replica *replica,
        const struct goal *goal, const char *pointer)
{
    char *text;
    size_t length;

    if (!goal_suits(call, replica->copy_type, goal, pointer))
        return false;
    text = goal_text(goal);
    length = text ? strlen(text) : 0;
    if (!text || length >= sizeof(replica->goal)) {
        free(text);
        outcome_fail(call->outcome, API_INTERNAL, CIM_UNKNOWN, "out of memory");
        return false;
    }
    /* Nothing asked for is no Goal. */
    memcpy(replica->goal, text, length + 1);
    if (strcmp(text, "{}") == 0)
        replica->goal[0] = '\0';
    free(text);
    replica->copy_priority = priority_of_goal(goal);
    replica->rpo = (int64_t)goal->desired_rpo;
    replica->recovery_mode = goal->given_copy_recovery_mode ? goal->copy_recovery_mode
                                                            : CIM_RECOVERY_AUTOMATIC;
    replica->limit = goal->limit;
    replica->verify = goal->verify;
    return true;
}

void replica_answer(struct call *call, const struct uuid *replica,
        const struct uuid *job, bool target)
{
    struct api_outcome *outcome = call->outcome;
    int value = uuid_is_none(job) ? CIM_OK : CIM_JOB_STARTED;
    struct writer *writer = writer_create();

    outcome->verdict = value == CIM_OK ? API_DONE : API_STARTED;
    outcome->return_value = value;
    if (value == CIM_JOB_STARTED) {
        (void)snprintf(
                outcome->location, sizeof(outcome->location), "/jobs/%s", job->text);
        outcome->retry_after = 1;
    }
    if (!writer) {
        outcome_fail(outcome, API_INTERNAL, CIM_UNKNOWN, "out of memory");
        return;
    }
    writer_signed(writer, "ReturnValue", value);
    writer_text(writer, "ReturnValueName", cim_return_name(call->method, value));
    writer_path(writer, "Job", "jobs", job->text);
    if (target)
        writer_path(writer, "TargetElement", "elements", call->target.text);
    writer_path(writer, "Replica", "replicas", replica->text);
    outcome_body(outcome, &writer);
}

bool probe_end(struct call *call, const struct engine_element *element,
        const struct store_element *row, bool writable)
{
    struct engine_found found = { 0 };
    struct fault fault = { 0 };
    const char *what = writable ? "the target" : "the source";

    if (engine_probe(call->service->engine, element, writable, &found, &fault)) {
        outcome_engine(call->outcome, &fault, what, element->address);
    } else if (found.size != row->size) {
        outcome_fail(call->outcome, API_FAR_SIDE, CIM_FAILED,
                "%s has changed: it has %llu bytes now, it was registered with %llu",
                what, (unsigned long long)found.size, (unsigned long long)row->size);
    } else if (writable && found.read_only) {
        outcome_fail(call->outcome, API_FAR_SIDE, CIM_FAILED, "%s is read-only", what);
    } else if (writable && found.identity.foreign_reservation) {
        outcome_fail(call->outcome, API_IN_USE, CIM_IN_USE,
                "%s is reserved persistently by another initiator", what);
    } else {
        return true;
    }
    outcome_pointer(
            call->outcome, writable ? "/TargetElement" : "/SourceElement", "its probe");
    outcome_holder_of(call->outcome, "elements", &row->id);
    return false;
}

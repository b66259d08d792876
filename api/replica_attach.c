/* AttachOrModifyReplica: an element that is there becomes the replica of another; or the
 * pair that it is in already is modified.
 *
 * Words, rows, both ends' own answers (the source only read, the target as it will be
 * written), then the turn, which looks again at all that could have changed.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "api/pipes.h"
#include "api/resource.h"
#include "replica/base/checked.h"

struct attach_input {
    char source[UUID_TEXT], target[UUID_TEXT], pipe[UUID_TEXT];
    int64_t copy_type;
    struct goal goal;
    bool has_source, has_target, has_pipe, has_copy_type, has_goal;
};

#define INPUT(member) offsetof(struct attach_input, member)
static const struct body_member attach_members[] = {
    { "SourceElement", BODY_REFERENCE, BODY_REQUIRED, INPUT(source), INPUT(has_source),
            0, 0, 0, "elements" },
    { "TargetElement", BODY_REFERENCE, BODY_OPTIONAL, INPUT(target), INPUT(has_target),
            0, 0, 0, "elements" },
    { "CopyType", BODY_CIM, BODY_REQUIRED, INPUT(copy_type), INPUT(has_copy_type), 0, 0,
            CIM_COPY_TYPE, NULL },
    { "Goal", BODY_GOAL, BODY_OPTIONAL, INPUT(goal), INPUT(has_goal), 0, 0, 0, NULL },
    { "ReplicationPipe", BODY_REFERENCE, BODY_OPTIONAL, INPUT(pipe), INPUT(has_pipe), 0,
            0, 0, "pipes" },
};
#undef INPUT

struct attach {
    struct call *call;
    struct attach_input input;
    struct store_element source, target;
    struct store_pipe pipe;
    struct store_replica replica; /* as it will be, or as it is */
    struct claim claim;
    bool start;
    bool written; /* a job of ours writes the target's file or LUN elsewhere */
};

static bool refuse(struct attach *attach, enum api_verdict verdict, int value,
        const char *pointer, const char *detail)
{
    outcome_fail(attach->call->outcome, verdict, value, "%s", detail);
    outcome_pointer(attach->call->outcome, pointer, detail);
    return false;
}

static bool invalid(struct attach *attach, const char *pointer, const char *detail)
{
    return refuse(attach, API_INVALID, CIM_INVALID_PARAMETER, pointer, detail);
}

static bool unknown(struct attach *attach, const char *pointer, const char *detail)
{
    return refuse(attach, API_NO_REFERENCE, CIM_INVALID_PARAMETER, pointer, detail);
}

/* -- do the two fit? --------------------------------------------------------------------------- */

static bool is_block_device(const struct store_element *element)
{
    return element->type != ELEMENT_LOGICAL_FILE;
}

static bool attach_fits(struct attach *attach)
{
    const struct store_element *source = &attach->source, *target = &attach->target;
    bool both = is_block_device(source) && is_block_device(target);
    bool mirror = attach->input.copy_type == CIM_COPY_ASYNC ||
            attach->input.copy_type == CIM_COPY_SYNC;
    uint64_t block = (uint64_t)target->block_size;
    char detail[160];

    if (element_overlap(source, target))
        return invalid(
                attach, "/TargetElement", "the target is the source, or overlaps it");
    if (target->size < source->size) {
        (void)snprintf(detail, sizeof(detail),
                "the target has %llu bytes, the source %llu: %llu are missing",
                (unsigned long long)target->size, (unsigned long long)source->size,
                (unsigned long long)(source->size - target->size));
        return invalid(attach, "/TargetElement", detail);
    }
    if (mirror && both && source->block_size != target->block_size)
        return invalid(attach, "/TargetElement",
                "a mirror needs block devices of one block size");
    if (block > 1 && is_block_device(source) && source->size % block)
        return invalid(attach, "/TargetElement",
                "the source's size is no multiple of the target's block size");
    if (block > 1 && round_up(source->size, block) > target->size)
        return invalid(attach, "/TargetElement",
                "the target has no room for the source's last block");
    return true;
}

/** 4 and 5 to a remote target are barred by the method. */
static bool attach_remote(struct attach *attach)
{
    if (!attach->target.remote ||
            (attach->input.copy_type != CIM_COPY_UNSYNC_ASSOC &&
                    attach->input.copy_type != CIM_COPY_UNSYNC_UNASSOC))
        return true;
    return refuse(attach, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED, "/CopyType",
            "UnSyncAssoc and UnSyncUnAssoc are not supported for a remote target");
}

/* -- the pipe ------------------------------------------------------------------------------- */

static bool attach_pipe(struct attach *attach, struct store_reader *reader)
{
    struct address address;

    if (!attach->input.has_pipe)
        return true;
    if (store_get(reader, STORE_PIPE, attach->input.pipe, &attach->pipe))
        return unknown(attach, "/ReplicationPipe", "there is no such pipe");
    attach->replica.pipe = attach->pipe.id;
    if (!attach->source.remote && !attach->target.remote)
        return invalid(attach, "/ReplicationPipe",
                "a pipe is for a remote pair: both elements are local");
    if (address_parse(attach->target.address, &address, NULL) ||
            address.kind != ADDRESS_ISCSI ||
            !pipe_holds(&attach->pipe, &address.portal))
        return invalid(attach, "/ReplicationPipe",
                "the pipe's TargetEndpoint does not hold the target's portal");
    return true;
}

/* -- a pair that is there --------------------------------------------------------------------- */

static bool pair_refuse(struct attach *attach, const char *pointer, const char *detail)
{
    const struct store_replica *replica = &attach->replica;

    (void)refuse(attach, API_IN_USE, CIM_IN_USE, pointer, detail);
    outcome_holder_of(attach->call->outcome, "replicas", &replica->id);
    outcome_remedy(attach->call->outcome, "DELETE /replicas/%s", replica->id.text);
    return false;
}

static bool pair_same(struct attach *attach)
{
    const struct store_replica *replica = &attach->replica;

    if (strcmp(replica->source.text, attach->input.source) != 0)
        return pair_refuse(
                attach, "/SourceElement", "the target is a replica of another source");
    if (attach->input.has_pipe && strcmp(replica->pipe.text, attach->input.pipe) != 0)
        return pair_refuse(attach, "/ReplicationPipe",
                "the pair was made with another pipe, or none");
    if (attach->input.copy_type == replica->copy_type)
        return true;
    if (attach->input.copy_type == CIM_COPY_SYNC &&
            replica->copy_type == CIM_COPY_ASYNC)
        return copy_type_built(attach->call, CIM_COPY_SYNC);
    if (attach->input.copy_type == CIM_COPY_ASYNC &&
            replica->copy_type == CIM_COPY_SYNC)
        return true;
    return pair_refuse(attach, "/CopyType",
            "the pair has another CopyType, and only Async and Sync may change");
}

/** A new Goal acts on the job that runs too. */
static void pair_job_follows(
        struct clerk_turn *turn, const struct store_replica *replica)
{
    struct store_job job;

    if (uuid_is_none(&replica->job) ||
            !turn_get(turn, STORE_JOB, replica->job.text, &job) ||
            job_is_over(job.state))
        return;
    job.priority = job_priority_of(replica->copy_priority);
    job.limit = replica->limit;
    job_put(turn, &job, false);
}

/** The target is there already: nothing is reserved for it. */
static bool attach_reserve(struct attach *attach)
{
    if (!attach->input.goal.given_thin_reserve || attach->input.goal.thin_reserve == 0)
        return true;
    return refuse(attach, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED, "/Goal",
            "ThinProvisionedInitialReserve is not supported for a target that is "
            "there");
}

static bool pair_goal(struct attach *attach, struct clerk_turn *turn, bool *changed)
{
    struct store_replica *replica = &attach->replica;
    struct goal goal;
    char before[STORE_GOAL];

    goal_init(&goal);
    memcpy(before, replica->goal, sizeof(before));
    if (before[0] &&
            goal_parse(before, strlen(before), "/Goal", &goal,
                    &attach->call->problems) != 0)
        goal_init(&goal);
    goal_merge(&goal, &attach->input.goal);
    if (!attach_reserve(attach) ||
            !replica_take_goal(attach->call, replica, &goal, "/Goal"))
        return false;
    *changed = strcmp(before, replica->goal) != 0;
    if (*changed && replica->scan_due && replica->sync_state == CIM_SYNC_SYNCHRONIZED)
        replica->scan_due = scan_next(replica, turn->now);
    return true;
}

static bool pair_work(struct clerk_turn *turn, void *context)
{
    struct attach *attach = context;
    struct store_replica *replica = &attach->replica;
    const struct uuid none = { "" }, *job = &none;
    bool changed = false;

    if (!turn_find(attach->call, turn, STORE_REPLICA, replica) ||
            !outcome_if_match(attach->call, replica->revision) || !pair_same(attach) ||
            (attach->input.has_goal && !pair_goal(attach, turn, &changed)))
        return false;
    if (replica->copy_type != attach->input.copy_type) {
        replica->copy_type = attach->input.copy_type;
        changed = true;
    }
    if (changed) {
        replica_put(turn, replica, false);
        pair_job_follows(turn, replica);
    } else if (!replica_is_verified(turn->reader, replica)) {
        job = &replica->job;
        attach->call->job = *job;
    }
    replica_answer(attach->call, &replica->id, job, false);
    outcome_etag(attach->call->outcome, replica->revision);
    call_settle(attach->call, turn);
    return !attach->call->outcome->problem;
}

/* -- a new pair ---------------------------------------------------------------------------------- */

static bool attach_claims(struct attach *attach, struct store_reader *reader)
{
    return claims_target(attach->call, reader, &attach->target, NULL) &&
            claims_source(attach->call, reader, &attach->source, NULL);
}

static bool attach_rows(struct attach *attach, struct store_reader *reader)
{
    struct uuid id;

    if (!attach->call->request->id || !uuid_parse(attach->call->request->id, &id) ||
            store_get(reader, STORE_ELEMENT, id.text, &attach->target))
        return unknown(attach, "/TargetElement", "there is no such element");
    attach->call->target = id;
    if (attach->input.has_target && strcmp(attach->input.target, id.text) != 0)
        return invalid(attach, "/TargetElement",
                "it does not agree with the element that the path names");
    if (store_get(reader, STORE_ELEMENT, attach->input.source, &attach->source))
        return unknown(attach, "/SourceElement", "there is no such element");
    attach->call->source = attach->source.id;
    return true;
}

/** *@exists: it is a pair already: pair_work() is what is left to do. */
static bool attach_check(struct attach *attach, bool *exists)
{
    struct store_reader *reader = call_reader(attach->call);
    struct store_replica *replica = &attach->replica;
    bool good;

    if (!reader)
        return false;
    good = attach_rows(attach, reader);
    *exists = good &&
            store_get(reader, STORE_REPLICA, attach->target.id.text, replica) == 0;
    if (good && !*exists) {
        memset(replica, 0, sizeof(*replica));
        good = attach_fits(attach) && attach_remote(attach) &&
                copy_type_built(attach->call, attach->input.copy_type) &&
                attach_pipe(attach, reader) && attach_claims(attach, reader);
    }
    store_reader_give(attach->call->service->store, reader);
    return good;
}

static bool attach_goal(struct attach *attach)
{
    struct store_replica *replica = &attach->replica;

    replica->id = attach->target.id;
    replica->source = attach->source.id;
    replica->copy_type = attach->input.copy_type;
    replica->replica_type = CIM_REPLICA_FULL_COPY;
    if (!attach_reserve(attach) ||
            !replica_take_goal(attach->call, replica, &attach->input.goal, "/Goal"))
        return false;
    attach->start = !(attach->input.goal.given_initial_synchronization &&
            attach->input.goal.initial_synchronization == CIM_INITIAL_DO_NOT_START);
    return true;
}

static bool written_work(struct clerk_turn *turn, void *context)
{
    struct attach *attach = context;

    attach->written = scheduler_writes(turn->service, &attach->claim.root);
    return false;
}

/**
 * From here on no job starts to write there. Whose turn came first is seen in the rows
 * again, and an extent of what a job of ours has locked is probed for what can be known.
 */
static bool attach_claim(struct attach *attach)
{
    struct store_reader *reader;
    bool good;

    if (!claim_take(attach->call, &attach->claim, &attach->target) ||
            !call_commit(attach->call, written_work, attach) ||
            !(reader = call_reader(attach->call)))
        return false;
    good = attach_claims(attach, reader);
    store_reader_give(attach->call->service->store, reader);
    return good;
}

/** Both ends as the copy will see them: the pipe's credentials are the target's. */
static bool attach_probe(struct attach *attach)
{
    struct engine_element source, target;

    element_for_engine(&attach->source, &source);
    element_for_engine(&attach->target, &target);
    if (attach->input.has_pipe && attach->pipe.credentials[0])
        (void)snprintf(target.credentials, sizeof(target.credentials), "%s",
                attach->pipe.credentials);
    return probe_end(attach->call, &source, &attach->source, false) &&
            probe_end(attach->call, &target, &attach->target, !attach->written);
}

/** Rows again, as the turn sees them. */
static bool attach_again(struct attach *attach, struct clerk_turn *turn)
{
    struct store_element source, target;

    if (!turn_get(turn, STORE_ELEMENT, attach->source.id.text, &source))
        return turn->error == 0 &&
                unknown(attach, "/SourceElement", "the source was deleted meanwhile");
    if (!turn_get(turn, STORE_ELEMENT, attach->target.id.text, &target))
        return turn->error == 0 &&
                unknown(attach, "/TargetElement", "the target was deleted meanwhile");
    if (attach->input.has_pipe &&
            !turn_get(turn, STORE_PIPE, attach->pipe.id.text, &attach->pipe))
        return turn->error == 0 &&
                unknown(attach, "/ReplicationPipe", "the pipe was deleted meanwhile");
    attach->source = source;
    attach->target = target;
    return attach_fits(attach) && attach_claims(attach, turn->reader);
}

static bool attach_work(struct clerk_turn *turn, void *context)
{
    struct attach *attach = context;
    struct store_replica *replica = &attach->replica;
    struct store_job job;
    struct uuid none = { "" };

    if (!attach_again(attach, turn))
        return false;
    replica->when_established = turn->now;
    replica->sync_state = CIM_SYNC_INITIALIZED;
    if (attach->start) {
        job_make(turn, attach->call, replica, "AttachOrModifyReplica", JOB_COPY,
                &attach->source, &attach->target, &job);
        job_put(turn, &job, true);
    }
    replica_put(turn, replica, true);
    replica_answer(attach->call, &replica->id, attach->start ? &job.id : &none, false);
    call_settle(attach->call, turn);
    claim_drop(turn->service, &attach->claim);
    return !attach->call->outcome->problem;
}

void call_REPLICA_ATTACH(struct call *call)
{
    struct attach attach = { .call = call };
    bool exists = false;

    if (!call_decode(call, attach_members,
                sizeof(attach_members) / sizeof(*attach_members), &attach.input) ||
            !copy_type_check(call, attach.input.copy_type) ||
            !attach_check(&attach, &exists))
        return;
    if (exists)
        (void)call_commit(call, pair_work, &attach);
    else if (call->request->if_match)
        outcome_fail(call->outcome, API_PRECONDITION, -1, "there is no pair yet");
    else if (attach_goal(&attach) && attach_claim(&attach) && attach_probe(&attach))
        (void)call_commit(call, attach_work, &attach);
    claim_drop(call->service, &attach.claim);
    if (call->outcome->problem)
        call->job = (struct uuid){ "" };
}

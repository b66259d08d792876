/* POST /replicas/{id}/verify: both ends of a pair are read and compared, nothing is written.
 *
 * No method of CIM; the job's MethodName, and the row in /results, say VerifyReplica. The
 * pair's SyncState stays as it is, whatever is found: a replica of CopyType 2 whose source
 * is being written differs by what no scan has brought over yet, and one of CopyType 4 by
 * what was written since its point in time. What differs is the job's to tell, and the
 * pair's LastError repeats it.
 *
 * While it is alive no other job of the pair starts, and no scan while it runs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/resource.h"

#define SET(number) (UINT64_C(1) << (number))

/* Where a replica holds a whole copy that nobody is changing. Elsewhere: a transient state has
   a job (6), in all others there is nothing to compare with (4). */
static const struct {
    uint64_t copy_types, states;
} verifiable[] = {
    { SET(CIM_COPY_ASYNC) | SET(CIM_COPY_SYNC),
            SET(CIM_SYNC_SYNCHRONIZED) | SET(CIM_SYNC_QUIESCED) | SET(CIM_SYNC_BROKEN) |
                    SET(CIM_SYNC_FRACTURED) },
    { SET(CIM_COPY_UNSYNC_ASSOC),
            SET(CIM_SYNC_QUIESCED) | SET(CIM_SYNC_IDLE) | SET(CIM_SYNC_BROKEN) |
                    SET(CIM_SYNC_FROZEN) },
};

bool replica_verifiable(int64_t copy_type, int64_t sync_state)
{
    for (size_t i = 0; i < sizeof(verifiable) / sizeof(*verifiable); i++)
        if (verifiable[i].copy_types & SET(copy_type))
            return (verifiable[i].states & SET(sync_state)) != 0;
    return false;
}

bool replica_is_verified(
        struct store_reader *reader, const struct store_replica *replica)
{
    struct store_job job;

    return !uuid_is_none(&replica->job) &&
            store_get(reader, STORE_JOB, replica->job.text, &job) == 0 &&
            job.work == JOB_VERIFY && !job_is_over(job.state);
}

/* -- what was found, in a row ------------------------------------------------------------ */

/* The end of the last range, then offset and length of the first ones: decimal, blanks
   between. */
void differences_keep(struct store_job *job, const struct differences *found)
{
    size_t at = 0;

    job->differ_bytes = found->bytes;
    job->differ_ranges = found->ranges;
    job->differences[0] = '\0';
    if (!found->ranges)
        return;
    at = (size_t)snprintf(
            job->differences, sizeof(job->differences), "%" PRIu64, found->end);
    for (unsigned i = 0; i < found->kept; i++)
        at += (size_t)snprintf(job->differences + at, sizeof(job->differences) - at,
                " %" PRIu64 " %" PRIu64, found->first[i].offset,
                found->first[i].length);
}

void differences_of(const struct store_job *job, struct differences *found)
{
    const char *from = job->differences;
    char *end;

    *found = (struct differences){ .bytes = job->differ_bytes,
        .ranges = job->differ_ranges };
    if (!*from)
        return;
    found->end = strtoull(from, &end, 10);
    for (from = end; *from && found->kept < DIFFERENCES_KEPT; from = end) {
        found->first[found->kept].offset = strtoull(from, &end, 10);
        found->first[found->kept++].length = strtoull(end, &end, 10);
    }
}

void differences_render(struct writer *writer, const struct store_job *job)
{
    struct differences found;

    differences_of(job, &found);
    writer_number(writer, "DifferentBytes", found.bytes);
    writer_number(writer, "DifferentRanges", found.ranges);
    writer_array(writer, "Differences");
    for (unsigned i = 0; i < found.kept; i++) {
        writer_object(writer, NULL);
        writer_number(writer, "Offset", found.first[i].offset);
        writer_number(writer, "Length", found.first[i].length);
        writer_end(writer);
    }
    writer_end(writer);
}

/* -- the call ----------------------------------------------------------------------------- */

struct verify {
    struct call *call;
    struct store_replica replica;
};

static bool verify_busy(struct verify *verify, const struct store_job *job)
{
    struct api_outcome *outcome = verify->call->outcome;

    outcome_fail(outcome, API_IN_USE, CIM_IN_USE,
            "the pair has a job that is not over: %s", job->method);
    outcome_holder_of(outcome, "jobs", &job->id);
    outcome_remedy(outcome, "POST /jobs/%s/request-state-change {\"RequestedState\":4}",
            job->id.text);
    return false;
}

/** May the pair be verified as it is? */
static bool verify_legal(struct verify *verify, struct clerk_turn *turn,
        const struct store_element *target)
{
    const struct store_replica *replica = &verify->replica;
    struct api_outcome *outcome = verify->call->outcome;
    struct store_job job;

    if (!uuid_is_none(&replica->job) &&
            turn_get(turn, STORE_JOB, replica->job.text, &job) &&
            !job_is_over(job.state))
        return verify_busy(verify, &job);
    if (cim_state_is_transient(replica->sync_state)) {
        outcome_fail(outcome, API_IN_USE, CIM_IN_USE,
                "a verify has to wait: the pair is in %s",
                cim_name(CIM_SYNC_STATE, replica->sync_state));
        outcome_holder_of(outcome, "replicas", &replica->id);
        return false;
    }
    if (replica_verifiable(replica->copy_type, replica->sync_state) &&
            element_complete(turn->reader, target))
        return true;
    outcome_fail(outcome, API_STATE, CIM_FAILED,
            "no verify of a pair of CopyType %s in %s%s",
            cim_name(CIM_COPY_TYPE, replica->copy_type),
            cim_name(CIM_SYNC_STATE, replica->sync_state),
            target->complete ? "" : ": its target holds no whole copy");
    return false;
}

static bool verify_start(struct verify *verify, struct clerk_turn *turn,
        const struct store_element *source, const struct store_element *target)
{
    struct call *call = verify->call;
    struct store_job job;

    job_make(turn, call, &verify->replica, "VerifyReplica", JOB_VERIFY, source, target,
            &job);
    job_put(turn, &job, true);
    replica_put(turn, &verify->replica, false);
    replica_answer(call, &verify->replica.id, &job.id, false);
    outcome_etag(call->outcome, verify->replica.revision);
    call_settle(call, turn);
    return !call->outcome->problem;
}

static bool verify_work(struct clerk_turn *turn, void *context)
{
    struct verify *verify = context;
    struct store_replica *replica = &verify->replica;
    struct store_element source, target;

    if (!turn_find(verify->call, turn, STORE_REPLICA, replica))
        return false;
    verify->call->target = replica->id;
    verify->call->source = replica->source;
    if (!outcome_if_match(verify->call, replica->revision))
        return false;
    if (!turn_get(turn, STORE_ELEMENT, replica->source.text, &source) ||
            !turn_get(turn, STORE_ELEMENT, replica->id.text, &target)) {
        outcome_fail(verify->call->outcome, API_INTERNAL, CIM_UNKNOWN,
                "an element of the pair is gone");
        return false;
    }
    return verify_legal(verify, turn, &target) &&
            claims_source(verify->call, turn->reader, &source, &replica->id) &&
            verify_start(verify, turn, &source, &target);
}

void call_REPLICA_VERIFY(struct call *call)
{
    struct verify verify = { .call = call };

    if (!call_decode(call, NULL, 0, NULL))
        return;
    if (call_commit(call, verify_work, &verify) && call->outcome->problem)
        call->job = (struct uuid){ "" };
}

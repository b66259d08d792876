/* Putting jobs and pairs: the next revision, the event that tells of it, the scheduler's
 * look. Nobody else puts these two tables.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/resource.h"
#include "api/service.h"
#include "replica/base/check.h"
#include "replica/base/log.h"

bool job_is_over(int64_t state)
{
    return state >= 0 && state < 64 && (JOB_OVER_STATES >> state & 1) != 0;
}

static void path_of(
        char path[STORE_WORD], const char *collection, const struct uuid *id)
{
    (void)snprintf(path, STORE_WORD, "/%s/%s", collection, id->text);
}

/* -- jobs ------------------------------------------------------------------------------- */

static void changed_number(
        struct writer *writer, const char *name, uint64_t old, uint64_t now)
{
    if (old != now)
        writer_number(writer, name, now);
}

/** Counters go with an event that is told anyway: they alone are none. */
static void changed_bytes(
        struct writer *writer, const struct store_job *old, const struct store_job *job)
{
    changed_number(writer, "BytesDone", old->done, job->done);
    changed_number(writer, "BytesRead", old->read, job->read);
    changed_number(writer, "BytesWritten", old->written, job->written);
    changed_number(writer, "BytesSkipped", old->skipped, job->skipped);
    changed_number(writer, "BytesSkippedZero", old->skipped_zero, job->skipped_zero);
    changed_number(writer, "BytesSkippedEqual", old->skipped_equal, job->skipped_equal);
    changed_number(writer, "BytesVerified", old->verified - old->differ_bytes,
            job->verified - job->differ_bytes);
    changed_number(writer, "DifferentBytes", old->differ_bytes, job->differ_bytes);
}

static bool texts_differ(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") != 0;
}

static bool stall_differs(const struct store_job *old, const struct store_job *job)
{
    return job_stalled(old) != job_stalled(job) ||
            (job_stalled(job) && texts_differ(old->stall_reason, job->stall_reason));
}

static void changed_stall(struct writer *writer, const struct store_job *job)
{
    bool stalled = job_stalled(job);

    writer_time(writer, "StalledSince", stalled ? job->stalled : 0);
    writer_text(writer, "StallReason", stalled ? job->stall_reason : NULL);
}

/** Is there something that events tell? What goes by every second is not. */
static bool job_differs(const struct store_job *old, const struct store_job *job)
{
    return old->state != job->state || old->percent != job->percent ||
            old->limit != job->limit || old->priority != job->priority ||
            texts_differ(old->error, job->error) || stall_differs(old, job);
}

/** What has changed since @old; one that is made is told by all it has. */
static void job_changed(struct writer *writer, const struct store_job *old,
        const struct store_job *job, bool made)
{
    if (made || old->state != job->state)
        writer_cim(writer, "JobState", CIM_JOB_STATE, job->state);
    if (made || old->percent != job->percent)
        writer_signed(writer, "PercentComplete", job->percent);
    if (!made && old->limit != job->limit)
        writer_number(writer, "BandwidthLimit", job->limit);
    if (!made && old->priority != job->priority)
        writer_signed(writer, "Priority", job->priority);
    if (!made)
        changed_bytes(writer, old, job);
    if (texts_differ(job_limited_by(old), job_limited_by(job)))
        writer_text(writer, "LimitedBy", job_limited_by(job));
    if (stall_differs(old, job))
        changed_stall(writer, job);
    if (texts_differ(old->error, job->error))
        writer_text(writer, "ErrorDescription", job->error[0] ? job->error : NULL);
    if (job_is_over(job->state) && old->state != job->state) {
        writer_signed(writer, "ReturnValue", job->return_value);
        writer_signed(writer, "ErrorCode", job->error_code);
    }
}

static void job_event(struct clerk_turn *turn, const struct store_job *old,
        const struct store_job *job, bool made)
{
    struct writer *changed;

    if (!made && !job_differs(old, job))
        return;
    changed = writer_create();
    if (changed)
        job_changed(changed, old, job, made);
    event_row(turn, made ? "InstCreation" : "InstModification", "Job", "jobs",
            job->id.text, changed);
}

void job_put(struct clerk_turn *turn, struct store_job *job, bool made)
{
    struct store_job old = { .state = -1 };

    if (!made && !turn_get(turn, STORE_JOB, job->id.text, &old))
        return;
    job->revision++;
    if (made || old.state != job->state)
        job->changed = turn->now;
    turn_put(turn, STORE_JOB, job);
    if (!made && !job_is_over(old.state) && job_is_over(job->state))
        turn_touch_over(turn, job);
    else
        turn_touch(turn, STORE_JOB, &job->id);
    job_event(turn, &old, job, made);
}

/* -- pairs ------------------------------------------------------------------------------ */

/** Is there something that events tell? @old: NULL when it is made. */
static bool replica_differs(
        const struct store_replica *old, const struct store_replica *replica)
{
    return !old || old->sync_state != replica->sync_state ||
            old->copy_type != replica->copy_type ||
            old->when_synced != replica->when_synced ||
            old->copy_priority != replica->copy_priority ||
            texts_differ(old->last_error, replica->last_error);
}

static void replica_changed(struct writer *writer, const struct store_replica *old,
        const struct store_replica *replica)
{
    if (!old || old->sync_state != replica->sync_state)
        writer_cim(writer, "SyncState", CIM_SYNC_STATE, replica->sync_state);
    if (!old || old->copy_type != replica->copy_type)
        writer_cim(writer, "CopyType", CIM_COPY_TYPE, replica->copy_type);
    if (replica->when_synced && (!old || old->when_synced != replica->when_synced))
        writer_time(writer, "WhenSynced", replica->when_synced);
    if (!old || old->copy_priority != replica->copy_priority)
        writer_cim(writer, "CopyPriority", CIM_COPY_PRIORITY, replica->copy_priority);
    if (texts_differ(old ? old->last_error : NULL, replica->last_error))
        writer_text(writer, "LastError",
                replica->last_error[0] ? replica->last_error : NULL);
}

static void replica_event(struct clerk_turn *turn, const struct store_replica *old,
        const struct store_replica *replica)
{
    struct writer *changed;

    if (!replica_differs(old, replica))
        return;
    changed = writer_create();
    if (changed)
        replica_changed(changed, old, replica);
    event_row(turn, old ? "InstModification" : "InstCreation", "Replica", "replicas",
            replica->id.text, changed);
}

void replica_put(struct clerk_turn *turn, struct store_replica *replica, bool made)
{
    struct store_replica old;

    if (!made && !turn_get(turn, STORE_REPLICA, replica->id.text, &old))
        return;
    replica->revision++;
    replica->maintained = replica->sync_state == CIM_SYNC_SYNCHRONIZED;
    turn_put(turn, STORE_REPLICA, replica);
    turn_touch(turn, STORE_REPLICA, &replica->id);
    replica_event(turn, made ? NULL : &old, replica);
    if (!made)
        return;
    element_refresh_usage(turn, &replica->source);
    element_refresh_usage(turn, &replica->id);
}

struct jobs_list {
    struct store_job jobs[16];
    unsigned count;
};

static bool jobs_take(void *context, const void *row)
{
    struct jobs_list *list = context;

    list->jobs[list->count++] = *(const struct store_job *)row;
    return true;
}

/** Jobs of a pair that is gone name none. */
static void jobs_forget(struct clerk_turn *turn, const struct uuid *replica)
{
    struct jobs_list list;
    struct store_query query = { .table = STORE_JOB,
        .filter_count = 1,
        .filters = { { .column = JOB_REPLICA,
                .count = 1,
                .texts = { replica->text } } },
        .limit = sizeof(list.jobs) / sizeof(*list.jobs) };
    int got;

    do {
        list.count = 0;
        got = store_list(turn->reader, &query, jobs_take, &list);
        if (got < 0 && !turn->error)
            turn->error = got;
        for (unsigned i = 0; i < list.count; i++) {
            list.jobs[i].replica = (struct uuid){ "" };
            job_put(turn, &list.jobs[i], false);
        }
    } while (got == (int)query.limit && !turn->error);
}

int target_forget(struct clerk_turn *turn, const struct uuid *target)
{
    struct engine *engine = turn->service->engine;
    int result = engine ? engine_pair_forget(engine, target) : 0;

    if (result < 0)
        log_event(LOG_ERROR, "digests-stay",
                (struct log_about){ .element = target->text },
                "what is known of the replica's bytes cannot be taken away: %s",
                strerrordesc_np(-result));
    return result;
}

void replica_remove(struct clerk_turn *turn, struct store_replica *replica)
{
    char about[STORE_WORD];

    (void)target_forget(turn, &replica->id); /* a first copy trusts none */
    turn_delete(turn, STORE_REPLICA, replica);
    turn_touch(turn, STORE_REPLICA, &replica->id);
    path_of(about, "replicas", &replica->id);
    event_put(turn, "InstDeletion", "Replica", about, "{}");
    jobs_forget(turn, &replica->id);
    element_refresh_usage(turn, &replica->source);
    element_refresh_usage(turn, &replica->id);
}

void replica_break(struct clerk_turn *turn, struct store_replica *replica,
        const struct fault *fault)
{
    replica->sync_state = CIM_SYNC_BROKEN;
    (void)snprintf(replica->last_error, sizeof(replica->last_error), "%s",
            fault->why[0] ? fault->why : strerrordesc_np(-fault->error));
    replica_put(turn, replica, false);
}

/* -- elements --------------------------------------------------------------------------- */

void element_event(
        struct clerk_turn *turn, const struct store_element *element, const char *kind)
{
    char about[STORE_WORD];

    path_of(about, "elements", &element->id);
    event_put(turn, kind, "Element", about,
            element->complete ? "{\"Complete\":true}" : "{\"Complete\":false}");
}

/* -- walking ---------------------------------------------------------------------------- */

struct ids {
    struct uuid *list;
    size_t count, room;
    bool lost;
};

static bool ids_take(void *context, const void *row)
{
    struct ids *ids = context;

    if (ids->count == ids->room) {
        size_t room = ids->room ? 2 * ids->room : 64;
        void *list = realloc(ids->list, room * sizeof(*ids->list));
        if (!list) {
            ids->lost = true;
            return false;
        }
        ids->list = list;
        ids->room = room;
    }
    /* Every listed table has its id first. */
    ids->list[ids->count++] = *(const struct uuid *)row;
    return true;
}

/** Ids of all rows that @query (limit and before ours) matches, before any is changed. */
static struct uuid *ids_of(
        struct clerk_turn *turn, struct store_query *query, size_t *count)
{
    struct ids ids = { 0 };
    struct uuid last;
    int got;

    query->limit = 500;
    do {
        got = store_list(turn->reader, query, ids_take, &ids);
        if (ids.lost)
            got = -ENOMEM;
        if (got < 0 && !turn->error)
            turn->error = got;
        if (got > 0) {
            last = ids.list[ids.count - 1];
            query->before = last.text;
        }
    } while (got == (int)query->limit);
    query->before = NULL;
    *count = turn->error ? 0 : ids.count;
    return ids.list;
}

void replicas_each(struct clerk_turn *turn, int64_t sync_state,
        void (*each)(struct clerk_turn *turn, struct store_replica *replica))
{
    struct store_query query = { .table = STORE_REPLICA,
        .filter_count = 1,
        .filters = { { .column = REPLICA_SYNC_STATE,
                .is_number = true,
                .count = 1,
                .numbers = { sync_state } } } };
    struct store_replica replica;
    size_t count;
    struct uuid *ids = ids_of(turn, &query, &count);

    for (size_t i = 0; i < count && !turn->error; i++)
        if (turn_get(turn, STORE_REPLICA, ids[i].text, &replica))
            each(turn, &replica);
    free(ids);
}

void jobs_each(struct clerk_turn *turn, int64_t state,
        void (*each)(struct clerk_turn *turn, struct store_job *job))
{
    struct store_query query = { .table = STORE_JOB,
        .filter_count = 1,
        .filters = { { .column = JOB_STATE,
                .is_number = true,
                .count = 1,
                .numbers = { state } } } };
    struct store_job job;
    size_t count;
    struct uuid *ids = ids_of(turn, &query, &count);

    for (size_t i = 0; i < count && !turn->error; i++)
        if (turn_get(turn, STORE_JOB, ids[i].text, &job))
            each(turn, &job);
    free(ids);
}

/* After a stop or a crash: no job is lost, no transient state is left without one, no file
 * of ours without an element. On a full disk that waits, and the service does not.
 *
 * Files: a row "making:ID" is durable before the file ID.raw is made in a pool and goes in
 * the turn that puts the element, so that the sweep removes only what this database is
 * known to have made and not promised. Sweeping whatever has the form of our names would be
 * simpler, and would eat the pool of another installation, or all of it after the database
 * was lost.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/exports.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

/* -- files being made ------------------------------------------------------------------------ */

#define MAKING "making:"
#define MAKING_END "making;" /* the next character: after all of them */

static void making_key(struct store_meta *meta, const struct uuid *id)
{
    memset(meta, 0, sizeof(*meta));
    (void)snprintf(meta->key, sizeof(meta->key), MAKING "%s", id->text);
}

struct making {
    const struct uuid *id;
    const char *pool;
};

void making_again(struct clerk_turn *turn, const struct uuid *id, const char *pool)
{
    struct store_meta meta;

    making_key(&meta, id);
    (void)snprintf(meta.value, sizeof(meta.value), "%s", pool);
    turn_put(turn, STORE_META, &meta);
}

static bool begin_work(struct clerk_turn *turn, void *context)
{
    const struct making *making = context;

    making_again(turn, making->id, making->pool);
    return true;
}

bool making_begin(struct call *call, const struct uuid *id, const char *pool)
{
    struct making making = { id, pool };

    return call_commit(call, begin_work, &making);
}

void making_done(struct clerk_turn *turn, const struct uuid *id)
{
    struct store_meta meta, found;

    making_key(&meta, id);
    if (turn_get(turn, STORE_META, meta.key, &found))
        turn_delete(turn, STORE_META, &meta);
}

static bool done_work(struct clerk_turn *turn, void *context)
{
    making_done(turn, context);
    return true;
}

/** 0 it was there, -ENOENT it was not, or what stands against it: it stays then. */
static int making_remove(
        struct service *service, const struct uuid *id, const char *pool)
{
    char name[UUID_TEXT + 4];
    struct fault fault = { 0 };
    struct uuid forget = *id;
    int result;

    (void)snprintf(name, sizeof(name), "%s.raw", id->text);
    result = engine_file_remove(service->engine, pool, name, &fault);
    if (result == 0 || result == -ENOENT)
        (void)clerk_call(service->clerk, done_work, &forget);
    else
        log_event(LOG_WARN, "orphan-left", (struct log_about){ .element = id->text },
                "its file stays in pool %s until the next start: %s", pool, fault.why);
    return result;
}

void making_undo(struct service *service, const struct uuid *id, const char *pool)
{
    (void)making_remove(service, id, pool);
}

/* -- the sweep -------------------------------------------------------------------------------- */

/** Some of the rows, the last ones first. */
struct sweep {
    struct store_meta rows[64];
    unsigned count;
};

static bool sweep_row(void *context, const void *row)
{
    struct sweep *sweep = context;

    sweep->rows[sweep->count++] = *(const struct store_meta *)row;
    return true;
}

/** False: there are none below @before, or they cannot be read now. */
static bool sweep_read(struct service *service, const char *before, struct sweep *sweep)
{
    struct store_query query = { .table = STORE_META,
        .before = before,
        .since = MAKING,
        .limit = sizeof(sweep->rows) / sizeof(*sweep->rows) };
    struct store_reader *reader = store_reader_take(service->store, 5000);

    sweep->count = 0;
    if (!reader)
        return false;
    (void)store_list(reader, &query, sweep_row, sweep);
    store_reader_give(service->store, reader);
    return sweep->count > 0;
}

static bool is_promised(struct service *service, const struct uuid *id)
{
    struct store_reader *reader = store_reader_take(service->store, 5000);
    struct store_element element;
    bool promised = true; /* nobody knows: its file stays */

    if (!reader)
        return promised;
    promised = store_get(reader, STORE_ELEMENT, id->text, &element) != -ENOENT;
    store_reader_give(service->store, reader);
    return promised;
}

static void sweep_one(struct service *service, const struct store_meta *row)
{
    struct uuid id;

    if (!uuid_parse(row->key + strlen(MAKING), &id) || is_promised(service, &id))
        return;
    if (making_remove(service, &id, row->value) == 0)
        log_event(LOG_INFO, "orphan-swept", (struct log_about){ .element = id.text },
                "a file that was made and never promised is removed from pool %s",
                row->value);
}

/* By row, not by file: one whose file was never made, or is gone already, is forgotten too. */
static void sweep_all(struct service *service)
{
    char before[STORE_WORD] = MAKING_END;
    struct sweep sweep;

    while (sweep_read(service, before, &sweep)) {
        for (unsigned i = 0; i < sweep.count; i++)
            sweep_one(service, &sweep.rows[i]);
        memcpy(before, sweep.rows[sweep.count - 1].key, sizeof(before));
    }
}

/* -- jobs and pairs --------------------------------------------------------------------------- */

/** What wrote @target when the process ended may have left writes under way. */
static void recover_target(struct clerk_turn *turn, const struct uuid *target)
{
    struct store_element element;

    if (turn_get(turn, STORE_ELEMENT, target->text, &element))
        written_loose(turn, element.address, true);
}

/** A job that was asked to stop has stopped with the process; another one waits again. */
static void recover_job(struct clerk_turn *turn, struct store_job *job)
{
    static const struct job_ending stopped = { .end = ENGINE_STOPPED };

    if (job->started && job->state != CIM_JOB_SUSPENDED && job_writes(job))
        recover_target(turn, &job->target);
    if (job->wanted) {
        job_end(turn, job, &stopped);
        return;
    }
    if (job->state == CIM_JOB_SUSPENDED)
        return;
    job->state = CIM_JOB_NEW;
    job->resumed = job->started != 0;
    job->rate = 0;
    job->error[0] = '\0';
    job_put(turn, job, false);
}

static bool pair_has_job(struct clerk_turn *turn, const struct store_replica *replica)
{
    struct store_job job;

    return !uuid_is_none(&replica->job) &&
            turn_get(turn, STORE_JOB, replica->job.text, &job) &&
            !job_is_over(job.state);
}

/** After the jobs: a transient state that still has none never gets one. */
static void recover_pair(struct clerk_turn *turn, struct store_replica *replica)
{
    struct fault fault = { .error = -ECANCELED,
        .why = "the service stopped while the state changed" };

    if (pair_has_job(turn, replica))
        return;
    replica->job = (struct uuid){ "" };
    switch (replica->sync_state) {
    case CIM_SYNC_FRACTURE_IN_PROGRESS: /* what it waited for has stopped */
        replica->sync_state = CIM_SYNC_FRACTURED;
        replica_put(turn, replica, false);
        break;
    case CIM_SYNC_QUIESCE_IN_PROGRESS:
        replica->sync_state = CIM_SYNC_QUIESCED;
        replica_put(turn, replica, false);
        break;
    default:
        replica_break(turn, replica, &fault);
        break;
    }
}

static void recover_scanned(struct clerk_turn *turn, struct store_replica *replica)
{
    if (replica->scan_started)
        recover_target(turn, &replica->id);
    if (replica_hush(replica)) /* nobody waits any more */
        replica_put(turn, replica, false);
}

/** A pair that stood still for a call that never came back scans again. */
static void recover_scan(struct clerk_turn *turn, struct store_replica *replica)
{
    if (replica->copy_type != CIM_COPY_ASYNC || replica->scan_due)
        return;
    replica->scan_due = turn->now;
    replica_put(turn, replica, false);
}

static bool recover_work(struct clerk_turn *turn, void *context)
{
    static const int64_t live[] = { CIM_JOB_NEW, CIM_JOB_STARTING, CIM_JOB_RUNNING,
        CIM_JOB_SUSPENDED, CIM_JOB_SHUTTING_DOWN };

    (void)context;
    for (size_t i = 0; i < sizeof(live) / sizeof(*live); i++)
        jobs_each(turn, live[i], recover_job);
    for (int64_t state = 0; state < 16; state++) {
        replicas_each(turn, state, recover_scanned);
        if (cim_state_is_transient(state))
            replicas_each(turn, state, recover_pair);
    }
    replicas_each(turn, CIM_SYNC_SYNCHRONIZED, recover_scan);
    return true;
}

static void recovered(struct service *service)
{
    service->recovered = true;
    clerk_wake_at(service->clerk, clock_wall_ms());
}

/* -- on a full disk ---------------------------------------------------------------------------- */

struct recovery {
    struct clerk_note note;
    struct service *service;
};

static bool recovery_run(struct clerk_turn *turn, struct clerk_note *note)
{
    (void)note;
    return recover_work(turn, NULL);
}

static void recovery_done(struct clerk_note *note, bool kept)
{
    struct recovery *recovery = container_of(note, struct recovery, note);

    if (kept)
        recovered(recovery->service);
    free(recovery);
}

/** What hosts use is served meanwhile and all can be read; no change comes before this one.
    Files that nobody was promised wait for the next start. */
static int recover_later(struct service *service, struct fault *fault)
{
    struct recovery *recovery = calloc(1, sizeof(*recovery));

    if (!recovery)
        return fault_set(fault, -ENOMEM, "out of memory");
    recovery->note = (struct clerk_note){ .run = recovery_run, .done = recovery_done };
    recovery->service = service;
    log_plain(LOG_ERROR, "recovery-waits",
            "no space is left for the database: what was under way is taken up when "
            "there is some");
    clerk_post(service->clerk, &recovery->note);
    return 0;
}

int recover(struct service *service, struct fault *fault)
{
    int result = clerk_call(service->clerk, recover_work, NULL);

    if (result == -ENOSPC) /* now the store has given up its reserve, if it had one */
        result = clerk_call(service->clerk, recover_work, NULL);
    if (result == -ENOSPC)
        return recover_later(service, fault);
    if (result)
        return fault_set(fault, result, "what was under way cannot be taken up: %s",
                strerrordesc_np(-result));
    sweep_all(service);
    recovered(service);
    return 0;
}

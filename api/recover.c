/* After a stop or a crash: no job is lost, no transient state is left without one, no file
 * of ours without an element.
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

/* -- files being made ------------------------------------------------------------------------ */

static void making_key(struct store_meta *meta, const struct uuid *id)
{
    memset(meta, 0, sizeof(*meta));
    (void)snprintf(meta->key, sizeof(meta->key), "making:%s", id->text);
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

void making_undo(struct service *service, const struct uuid *id, const char *pool)
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
}

/* -- the sweep -------------------------------------------------------------------------------- */

struct sweep {
    struct service *service;
    struct uuid found[64];
    unsigned count;
};

static bool sweep_name(void *context, const char *name)
{
    struct sweep *sweep = context;
    struct store_element element;
    struct store_meta meta;
    struct store_reader *reader;
    struct uuid id;
    char text[UUID_TEXT];

    if (strlen(name) != UUID_TEXT + 3 || strcmp(name + UUID_TEXT - 1, ".raw") != 0)
        return true;
    memcpy(text, name, UUID_TEXT - 1);
    text[UUID_TEXT - 1] = '\0';
    if (!uuid_parse(text, &id) || strcmp(id.text, text) != 0 ||
            !(reader = store_reader_take(sweep->service->store, 5000)))
        return true;
    making_key(&meta, &id);
    if (store_get(reader, STORE_META, meta.key, &meta) == 0 &&
            store_get(reader, STORE_ELEMENT, id.text, &element) == -ENOENT)
        sweep->found[sweep->count++] = id;
    store_reader_give(sweep->service->store, reader);
    return sweep->count < sizeof(sweep->found) / sizeof(*sweep->found);
}

static void sweep_pool(struct service *service, const char *pool)
{
    struct sweep sweep = { .service = service };

    if (engine_pool_each(service->engine, pool, sweep_name, &sweep) < 0)
        return;
    for (unsigned i = 0; i < sweep.count; i++) {
        log_event(LOG_INFO, "orphan-swept",
                (struct log_about){ .element = sweep.found[i].text },
                "a file that was made and never promised is removed from pool %s",
                pool);
        making_undo(service, &sweep.found[i], pool);
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

int recover(struct service *service, struct fault *fault)
{
    int result = clerk_call(service->clerk, recover_work, NULL);

    if (result)
        return fault_set(fault, result, "what was under way cannot be taken up: %s",
                strerrordesc_np(-result));
    for (size_t i = 0; i < service->options.pool_count; i++)
        sweep_pool(service, service->options.pools[i].name);
    service->recovered = true;
    clerk_wake_at(service->clerk, clock_wall_ms());
    return 0;
}

/* Which jobs run: a cap, priority then age, one writer per element.
 *
 * The rows are the queue. What is kept here are two views of them for the clerk's thread
 * alone: the jobs that wait, in the order in which they would start (scheduler_queue.c), and
 * the plans that the engine runs (scheduler_slots.c). Each batch tells which rows it put
 * (clerk_touched); scheduler_plan() brings the views up to date inside the transaction and
 * chooses what starts, so that "Starting" is durable before a byte can move;
 * scheduler_ring() does it after the commit. When the commit fails, the waiting list is read
 * again from the rows.
 *
 * Scans of Async pairs have slots of their own, as many as jobs: a long copy shall not
 * starve the objectives, nor many pairs the copies. Holds (Prepared) have no cap: they move
 * no byte.
 */
#include <errno.h>
#include <stdlib.h>

#include "api/scheduler_inside.h"

/* -- what a batch has put ---------------------------------------------------------- */

static void slot_ask(struct slot *slot, enum engine_stop how)
{
    if (slot->told && slot->how == how)
        return;
    slot->stop = true;
    slot->how = how;
}

static void slot_pace(struct slot *slot, uint64_t limit, int64_t priority)
{
    unsigned engine_priority = plan_priority(priority);

    slot->limit_changed |= limit != slot->limit;
    slot->limit = limit;
    slot->priority_changed |= engine_priority != slot->priority;
    slot->priority = engine_priority;
}

static void touched_pipe(
        struct scheduler *scheduler, struct clerk_turn *turn, const struct uuid *id)
{
    struct store_pipe pipe;

    if (uuid_is_none(id) || !turn_get(turn, STORE_PIPE, id->text, &pipe))
        return;
    for (size_t i = 0; i < scheduler->slot_count; i++) {
        struct slot *slot = &scheduler->slots[i];
        if (!uuid_equal(&slot->pipe, id))
            continue;
        slot->pipe_changed |= slot->pipe_limit != pipe.limit;
        slot->pipe_limit = pipe.limit;
    }
}

static void touched_job(
        struct scheduler *scheduler, struct clerk_turn *turn, const struct uuid *id)
{
    struct slot *slot = slot_of_job(scheduler, id);
    struct store_job job;

    if (!turn_get(turn, STORE_JOB, id->text, &job))
        return;
    queue_take(scheduler, turn, &job);
    if (!slot)
        return;
    if (job.wanted)
        slot_ask(slot, job.wanted == WANT_KILL ? ENGINE_DROP : ENGINE_DRAIN);
    slot_pace(slot, job.limit, job.priority);
}

static bool scan_stands(const struct store_replica *replica)
{
    return replica->copy_type == CIM_COPY_ASYNC && replica->scan_due != 0 &&
            (replica->sync_state == CIM_SYNC_SYNCHRONIZED ||
                    replica->sync_state == CIM_SYNC_BROKEN);
}

static bool hold_stands(const struct store_replica *replica)
{
    return replica->sync_state == CIM_SYNC_PREPARED ||
            replica->sync_state == CIM_SYNC_PREPARE_IN_PROGRESS;
}

/** A scan or a hold whose pair has moved on, or is gone, shall stop. */
static void touched_pair(
        struct scheduler *scheduler, struct clerk_turn *turn, const struct uuid *id)
{
    struct slot *slot = slot_find(scheduler, id);
    struct store_replica replica;
    bool there = turn_get(turn, STORE_REPLICA, id->text, &replica);

    if (there && replica.scan_due && replica.scan_due < scheduler->next_scan)
        scheduler->next_scan = replica.scan_due;
    if (!slot)
        return;
    if (slot->of.kind == SCHEDULER_SCAN && !(there && scan_stands(&replica)))
        slot_ask(slot, ENGINE_DRAIN);
    if (slot->of.kind == SCHEDULER_HOLD && !(there && hold_stands(&replica)))
        slot_ask(slot, ENGINE_DRAIN);
    if (there && slot->of.kind == SCHEDULER_SCAN)
        slot_pace(slot, replica.limit, job_priority_of(replica.copy_priority));
}

/** A batch was lost with what it asked of running plans: ask the rows again. */
static void slots_review(struct scheduler *scheduler, struct clerk_turn *turn)
{
    for (size_t i = 0; i < scheduler->slot_count; i++) {
        struct scheduler_plan_of of = scheduler->slots[i].of;
        if (!uuid_is_none(&of.job))
            touched_job(scheduler, turn, &of.job);
        touched_pair(scheduler, turn, &of.replica);
        touched_pipe(scheduler, turn, &scheduler->slots[i].pipe);
    }
}

/* -- starting ---------------------------------------------------------------------- */

/** Bytes of @id are about to be written: until that is done it is nobody's source. */
static void element_begin(struct clerk_turn *turn, const struct uuid *id)
{
    struct store_element element;

    if (!turn_get(turn, STORE_ELEMENT, id->text, &element) || !element.complete)
        return;
    element.complete = false;
    element.revision++;
    turn_put(turn, STORE_ELEMENT, &element);
    element_event(turn, &element, "InstModification");
}

static void job_begin(
        struct clerk_turn *turn, struct store_job *job, struct store_replica *replica)
{
    job->state = CIM_JOB_STARTING;
    job->limited_by = job->stalled = 0;
    if (!job->started)
        job->started = turn->now;
    else
        job->resumed = true;
    job_put(turn, job, false);
    if (replica->sync_state == CIM_SYNC_INITIALIZED) {
        replica->sync_state = CIM_SYNC_RESYNC_IN_PROGRESS;
        replica_put(turn, replica, false);
    }
    if (job_writes(job))
        element_begin(turn, &job->target);
}

/** Start one job: its row is Starting, its plan is kept for the ring. */
static void job_start(struct scheduler *scheduler, struct clerk_turn *turn,
        const struct waiting *waiting)
{
    struct store_job job;
    struct store_replica replica;
    struct engine_plan plan;
    struct job_ending ending = { .end = ENGINE_FAILED };
    struct scheduler_plan_of of = { .kind = SCHEDULER_JOB, .job = waiting->id };

    if (!turn_get(turn, STORE_JOB, waiting->id.text, &job))
        return;
    if (!turn_get(turn, STORE_REPLICA, job.replica.text, &replica)) {
        fault_set(&ending.fault, -ENOENT, "the pair is gone");
        job_end(turn, &job, &ending);
        return;
    }
    if (!plan_build(turn, &replica, &job, &plan, &ending.fault)) {
        job_end(turn, &job, &ending);
        return;
    }
    if (plan.work == ENGINE_HOLD)
        of.kind = SCHEDULER_HOLD;
    of.replica = replica.id;
    if (slot_add(scheduler, &plan, &of, &waiting->spans))
        job_begin(turn, &job, &replica);
    else
        turn->error = -ENOMEM;
}

static void jobs_start(struct scheduler *scheduler, struct clerk_turn *turn)
{
    unsigned cap = turn->service->options.max_jobs;
    size_t at = 0;

    while (at < scheduler->count && slots_of(scheduler, false) < cap && !turn->error) {
        struct waiting waiting = *scheduler->queue[at];
        if (!slots_allow(scheduler, &waiting.spans) ||
                slot_find(scheduler, &waiting.id) ||
                claim_is_taken(turn->service, &waiting.spans.writes.root)) {
            at++;
            continue;
        }
        waiting_remove(scheduler, scheduler->queue[at]);
        job_start(scheduler, turn, &waiting);
    }
}

static void scan_start(struct clerk_turn *turn, struct store_replica *replica)
{
    struct scheduler *scheduler = turn->service->scheduler;
    struct scheduler_plan_of of = { .kind = SCHEDULER_SCAN, .replica = replica->id };
    struct spans spans = { .writes = { .from = 0 } };
    struct engine_plan plan;
    struct job_ending ending = { .end = ENGINE_FAILED };

    if (turn->error || slot_find(scheduler, &replica->id) ||
            slots_of(scheduler, true) >= turn->service->options.max_jobs)
        return;
    (void)span_of(turn, &replica->source, &spans.reads[0]);
    (void)span_of(turn, &replica->id, &spans.writes);
    if (!slots_allow(scheduler, &spans) ||
            claim_is_taken(turn->service, &spans.writes.root))
        return;
    if (!plan_build(turn, replica, NULL, &plan, &ending.fault))
        scan_ended(turn, &replica->id, &ending);
    else if (slot_add(scheduler, &plan, &of, &spans))
        scan_begun(turn, replica);
}

/** Scans that are due; what has no slot is looked at again when one comes free. */
static void scans_start(struct scheduler *scheduler, struct clerk_turn *turn)
{
    if (scheduler->next_scan > turn->now)
        return;
    scan_due(turn, &scheduler->next_scan, scan_start);
    if (scheduler->next_scan <= turn->now)
        scheduler->next_scan = turn->now + 1000;
}

static void hold_start(struct clerk_turn *turn, struct store_replica *replica)
{
    struct scheduler *scheduler = turn->service->scheduler;
    struct scheduler_plan_of of = { .kind = SCHEDULER_HOLD, .replica = replica->id };
    struct spans spans = { .writes = { .from = 0 } };
    struct fault fault = { 0 };
    struct engine_plan plan;

    (void)span_of(turn, &replica->source, &spans.reads[0]);
    (void)span_of(turn, &replica->id, &spans.writes);
    if (!plan_build(turn, replica, NULL, &plan, &fault)) {
        replica_break(turn, replica, &fault);
        return;
    }
    plan.work = ENGINE_HOLD;
    if (!slot_add(scheduler, &plan, &of, &spans))
        turn->error = -ENOMEM;
}

/** After a restart: Prepared pairs are held again. */
static void holds_start(struct scheduler *scheduler, struct clerk_turn *turn)
{
    if (scheduler->holds_started)
        return;
    scheduler->holds_started = scheduler->holds_fresh = true;
    replicas_each(turn, CIM_SYNC_PREPARED, hold_start);
}

void scheduler_plan(struct clerk_turn *turn)
{
    struct scheduler *scheduler = turn->service->scheduler;

    if (!turn->service->recovered)
        return;
    if (scheduler->reload) {
        slots_review(scheduler, turn);
        queue_reload(scheduler, turn);
    }
    /* Starting touches rows in its turn: what it adds needs no second look. */
    for (size_t i = 0, count = turn->touched->count; i < count && !turn->error; i++) {
        struct clerk_touch touch = turn->touched->list[i];
        if (touch.table == STORE_JOB)
            touched_job(scheduler, turn, &touch.id);
        else if (touch.table == STORE_PIPE)
            touched_pipe(scheduler, turn, &touch.id);
        else
            touched_pair(scheduler, turn, &touch.id);
    }
    if (turn->service->draining || turn->error)
        return;
    holds_start(scheduler, turn);
    jobs_start(scheduler, turn);
    scans_start(scheduler, turn);
    clerk_wake_at(turn->service->clerk, scheduler->next_scan);
}

/* -- the whole --------------------------------------------------------------------- */

void scheduler_undone(struct service *service, bool all)
{
    struct scheduler *scheduler = service->scheduler;

    for (size_t i = scheduler->slot_count; i-- > 0;) {
        struct slot *slot = &scheduler->slots[i];
        if (all) {
            slot->ended = slot->stop = false;
            slot->limit_changed = slot->priority_changed = slot->pipe_changed = false;
            if (slot->held_now)
                slot->of.job = slot->held_job;
            slot->held_now = false;
        }
        if (slot->fresh)
            slot_remove(scheduler, i);
    }
    scheduler->reload = true;
    scheduler->holds_started = scheduler->holds_started && !scheduler->holds_fresh;
    scheduler->next_scan = 0;
}

void scheduler_figures(struct service *service, unsigned *running, unsigned *waiting)
{
    *running = slots_of(service->scheduler, false);
    *waiting = (unsigned)service->scheduler->count;
}

struct scheduler *scheduler_create(void)
{
    struct scheduler *scheduler = calloc(1, sizeof(*scheduler));

    if (scheduler)
        scheduler->reload = true;
    return scheduler;
}

void scheduler_destroy(struct scheduler *scheduler)
{
    if (!scheduler)
        return;
    queue_clear(scheduler);
    while (scheduler->slot_count)
        slot_remove(scheduler, scheduler->slot_count - 1);
    free(scheduler->queue);
    free(scheduler->slots);
    free(scheduler);
}

/* Which jobs run: a cap, priority then age, one writer per element.
 *
 * The rows are the queue. What is kept here are two views of them for the clerk's thread
 * alone: the jobs that wait, in the order in which they would start, and the plans that the
 * engine runs. Each batch tells which rows it put (clerk_touched); scheduler_plan() brings
 * the views up to date inside the transaction and chooses what starts, so that "Starting"
 * is durable before a byte can move; scheduler_ring() does it after the commit. When the
 * commit fails, the waiting list is read again from the rows.
 *
 * Scans of Async pairs have slots of their own, as many as jobs: a long copy shall not
 * starve the objectives, nor many pairs the copies. Holds (Prepared) have no cap: they move
 * no byte.
 */
#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/service.h"
#include "replica/base/check.h"
#include "replica/base/log.h"

/** Bytes of an element: an extent is a part of its parent. */
struct span {
    struct uuid root;
    uint64_t from, to;
};

/** What a plan touches. A verify reads both ends and writes none. */
struct spans {
    struct span reads[2], writes; /* root none: nothing */
};

/** A job that waits. */
struct waiting {
    struct uuid id;
    int64_t priority;
    struct spans spans;
};

/** A plan that the engine runs, or will once the batch is durable. */
struct slot {
    struct uuid id; /* the plan's */
    struct scheduler_plan_of of;
    struct spans spans;
    bool fresh; /* not started yet */
    bool ended; /* its end is in this batch */
    struct engine_plan *plan; /* fresh */
    bool stop; /* ring engine_stop(how) */
    bool told; /* @how was rung */
    enum engine_stop how;
    bool limit_changed, pipe_changed, priority_changed;
    uint64_t limit, pipe_limit;
    struct uuid pipe;
    unsigned priority;
    bool held_now; /* in this batch the job of a hold was done: */
    struct uuid held_job; /* that one */
};

struct scheduler {
    void *by_id; /* tsearch() over struct waiting */
    struct waiting **queue; /* by (priority, id) */
    size_t count, room;
    struct slot *slots;
    size_t slot_count, slot_room;
    int64_t next_scan; /* wall ms; 0: look now */
    bool reload;
    bool holds_started, holds_fresh; /* holds_fresh: in this batch */
};

/* -- spans ---------------------------------------------------------------------------- */

static bool span_of(struct clerk_turn *turn, const struct uuid *id, struct span *span)
{
    struct store_element element;

    if (!turn_get(turn, STORE_ELEMENT, id->text, &element))
        return false;
    span->root = uuid_is_none(&element.of) ? element.id : element.of;
    span->from = element.offset;
    span->to = uuid_is_none(&element.of) ? UINT64_MAX : element.offset + element.size;
    return true;
}

static bool span_meets(const struct span *a, const struct span *b)
{
    return uuid_equal(&a->root, &b->root) && a->from < b->to && b->from < a->to;
}

/* -- the waiting list ------------------------------------------------------------------- */

static int waiting_order(const struct waiting *a, const struct waiting *b)
{
    if (a->priority != b->priority)
        return a->priority < b->priority ? -1 : 1;
    return strcmp(a->id.text, b->id.text);
}

static int waiting_by_id(const void *a, const void *b)
{
    return strcmp(
            ((const struct waiting *)a)->id.text, ((const struct waiting *)b)->id.text);
}

/** Where @waiting stands or would stand. */
static size_t queue_place(
        const struct scheduler *scheduler, const struct waiting *waiting)
{
    size_t low = 0, high = scheduler->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (waiting_order(scheduler->queue[middle], waiting) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct waiting *waiting_find(struct scheduler *scheduler, const struct uuid *id)
{
    struct waiting key = { .id = *id };
    void *node = tfind(&key, &scheduler->by_id, waiting_by_id);

    return node ? *(struct waiting **)node : NULL;
}

static void waiting_remove(struct scheduler *scheduler, struct waiting *waiting)
{
    size_t at = queue_place(scheduler, waiting);

    check(at < scheduler->count && scheduler->queue[at] == waiting);
    scheduler->count--;
    memmove(&scheduler->queue[at], &scheduler->queue[at + 1],
            (scheduler->count - at) * sizeof(*scheduler->queue));
    (void)tdelete(waiting, &scheduler->by_id, waiting_by_id);
    free(waiting);
}

static bool waiting_add(struct scheduler *scheduler, const struct waiting *value)
{
    struct waiting *waiting;
    size_t at;

    if (scheduler->count == scheduler->room) {
        size_t room = scheduler->room ? 2 * scheduler->room : 64;
        void *queue = realloc(scheduler->queue, room * sizeof(*scheduler->queue));
        if (!queue)
            return false;
        scheduler->queue = queue;
        scheduler->room = room;
    }
    waiting = malloc(sizeof(*waiting));
    if (!waiting)
        return false;
    *waiting = *value;
    if (!tsearch(waiting, &scheduler->by_id, waiting_by_id)) {
        free(waiting);
        return false;
    }
    at = queue_place(scheduler, waiting);
    memmove(&scheduler->queue[at + 1], &scheduler->queue[at],
            (scheduler->count - at) * sizeof(*scheduler->queue));
    scheduler->queue[at] = waiting;
    scheduler->count++;
    return true;
}

static void queue_clear(struct scheduler *scheduler)
{
    while (scheduler->count)
        waiting_remove(scheduler, scheduler->queue[scheduler->count - 1]);
}

/** Bring the list up to date with a job's row. */
static void queue_take(struct scheduler *scheduler, struct clerk_turn *turn,
        const struct store_job *job)
{
    struct waiting *old = waiting_find(scheduler, &job->id);
    struct waiting value = { .id = job->id, .priority = job->priority };

    if (old)
        waiting_remove(scheduler, old);
    if (job->state != CIM_JOB_NEW)
        return;
    /* An element that is gone overlaps nothing; the start will say what is wrong. */
    (void)span_of(turn, &job->source, &value.spans.reads[0]);
    (void)span_of(turn, &job->target,
            job->work == JOB_VERIFY ? &value.spans.reads[1] : &value.spans.writes);
    if (!waiting_add(scheduler, &value) && !turn->error)
        turn->error = -ENOMEM;
}

struct loading {
    struct scheduler *scheduler;
    struct store_job jobs[32];
    unsigned count;
};

static bool load_row(void *context, const void *row)
{
    struct loading *loading = context;

    loading->jobs[loading->count++] = *(const struct store_job *)row;
    return true;
}

static void queue_reload(struct scheduler *scheduler, struct clerk_turn *turn)
{
    struct loading loading = { .scheduler = scheduler };
    struct uuid last = { "" };
    struct store_query query = { .table = STORE_JOB,
        .filter_count = 1,
        .filters = { { .column = JOB_STATE,
                .is_number = true,
                .count = 1,
                .numbers = { CIM_JOB_NEW } } },
        .limit = sizeof(loading.jobs) / sizeof(*loading.jobs) };
    int got;

    queue_clear(scheduler);
    do {
        loading.count = 0;
        query.before = uuid_is_none(&last) ? NULL : last.text;
        got = store_list(turn->reader, &query, load_row, &loading);
        if (got < 0) {
            turn->error = got;
            return;
        }
        for (unsigned i = 0; i < loading.count; i++)
            queue_take(scheduler, turn, &loading.jobs[i]);
        if (loading.count)
            last = loading.jobs[loading.count - 1].id;
    } while ((unsigned)got == query.limit && !turn->error);
    scheduler->reload = false;
}

/* -- slots ------------------------------------------------------------------------------ */

/** The slot of a plan that is not over. */
static struct slot *slot_find(struct scheduler *scheduler, const struct uuid *id)
{
    for (size_t i = 0; i < scheduler->slot_count; i++)
        if (!scheduler->slots[i].ended && uuid_equal(&scheduler->slots[i].id, id))
            return &scheduler->slots[i];
    return NULL;
}

static struct slot *slot_of_job(struct scheduler *scheduler, const struct uuid *job)
{
    for (size_t i = 0; i < scheduler->slot_count; i++)
        if (!scheduler->slots[i].ended && uuid_equal(&scheduler->slots[i].of.job, job))
            return &scheduler->slots[i];
    return NULL;
}

static void slot_remove(struct scheduler *scheduler, size_t at)
{
    free(scheduler->slots[at].plan);
    scheduler->slots[at] = scheduler->slots[--scheduler->slot_count];
}

static unsigned slots_of(const struct scheduler *scheduler, bool scans)
{
    unsigned count = 0;

    for (size_t i = 0; i < scheduler->slot_count; i++) {
        const struct slot *slot = &scheduler->slots[i];
        if (slot->ended)
            continue;
        if (scans)
            count += slot->of.kind == SCHEDULER_SCAN;
        else
            count += !uuid_is_none(&slot->of.job);
    }
    return count;
}

/** May something that reads and writes these spans run beside what runs? Writers lock the
    whole of a file, and reset the whole of a LUN: one at a time, wherever they write. */
static bool spans_allow(const struct spans *a, const struct spans *b)
{
    if (!uuid_is_none(&a->writes.root) && uuid_equal(&a->writes.root, &b->writes.root))
        return false;
    for (int i = 0; i < 2; i++)
        if (span_meets(&a->writes, &b->reads[i]) ||
                span_meets(&a->reads[i], &b->writes))
            return false;
    return true;
}

static bool slots_allow(const struct scheduler *scheduler, const struct spans *spans)
{
    for (size_t i = 0; i < scheduler->slot_count; i++) {
        const struct slot *slot = &scheduler->slots[i];
        if (!slot->ended && !spans_allow(&slot->spans, spans))
            return false;
    }
    return true;
}

static bool slot_add(struct scheduler *scheduler, const struct engine_plan *plan,
        const struct scheduler_plan_of *of, const struct spans *spans)
{
    struct slot slot = { .id = plan->id,
        .of = *of,
        .spans = *spans,
        .fresh = true,
        .limit = plan->limit,
        .pipe = plan->pipe,
        .pipe_limit = plan->pipe_limit,
        .priority = plan->priority };

    if (scheduler->slot_count == scheduler->slot_room) {
        size_t room = scheduler->slot_room ? 2 * scheduler->slot_room : 16;
        void *slots = realloc(scheduler->slots, room * sizeof(slot));
        if (!slots)
            return false;
        scheduler->slots = slots;
        scheduler->slot_room = room;
    }
    slot.plan = malloc(sizeof(*plan));
    if (!slot.plan)
        return false;
    *slot.plan = *plan;
    scheduler->slots[scheduler->slot_count++] = slot;
    return true;
}

/* -- what a batch has put ----------------------------------------------------------------- */

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

/* -- starting ----------------------------------------------------------------------------- */

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

/* -- after the commit --------------------------------------------------------------------- */

static void ring_start(struct service *service, struct slot *slot)
{
    struct engine_event event = { .kind = ENGINE_ENDED,
        .id = slot->id,
        .end = ENGINE_FAILED,
        .total = 0,
        .watermark = slot->plan->watermark,
        .verified = slot->plan->verified,
        .differences = slot->plan->differences,
        .skipped = slot->plan->skipped,
        .equal = slot->plan->equal,
        .read = slot->plan->read,
        .written = slot->plan->written };
    int result = engine_start(service->engine, slot->plan);

    slot->fresh = false;
    free(slot->plan);
    slot->plan = NULL;
    if (!result)
        return;
    fault_set(&event.fault, result, "it could not be started: %s",
            strerrordesc_np(-result));
    progress_event(service, &event);
}

static void ring_pace(struct engine *engine, struct slot *slot)
{
    if (slot->limit_changed)
        (void)engine_limit(engine, &slot->id, slot->limit);
    if (slot->priority_changed)
        (void)engine_priority(engine, &slot->id, slot->priority);
    if (slot->pipe_changed)
        engine_pipe_limit(engine, &slot->pipe, slot->pipe_limit);
    slot->limit_changed = slot->priority_changed = slot->pipe_changed = false;
}

void scheduler_ring(struct service *service)
{
    struct scheduler *scheduler = service->scheduler;

    scheduler->holds_fresh = false;
    for (size_t i = 0; i < scheduler->slot_count; i++) {
        struct slot *slot = &scheduler->slots[i];
        slot->held_now = false;
        if (slot->fresh)
            ring_start(service, slot);
        if (slot->stop) {
            (void)engine_stop(service->engine, &slot->id, slot->how);
            slot->stop = false;
            slot->told = true;
        }
        ring_pace(service->engine, slot);
    }
}

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

bool scheduler_find(
        struct service *service, const struct uuid *id, struct scheduler_plan_of *of)
{
    struct slot *slot = slot_find(service->scheduler, id);

    if (slot)
        *of = slot->of;
    return slot != NULL;
}

void scheduler_ended(struct service *service, const struct uuid *id)
{
    struct slot *slot = slot_find(service->scheduler, id);

    if (slot)
        slot->ended = true;
}

void scheduler_held(struct service *service, const struct uuid *id)
{
    struct slot *slot = slot_find(service->scheduler, id);

    if (!slot)
        return;
    slot->held_now = true;
    slot->held_job = slot->of.job;
    slot->of.job = (struct uuid){ "" };
}

void scheduler_gone(struct service *service, const struct uuid *id)
{
    struct scheduler *scheduler = service->scheduler;

    for (size_t i = 0; i < scheduler->slot_count; i++)
        if (!scheduler->slots[i].fresh && uuid_equal(&scheduler->slots[i].id, id)) {
            slot_remove(scheduler, i);
            return;
        }
}

bool scheduler_writes(struct service *service, const struct uuid *root)
{
    const struct scheduler *scheduler = service->scheduler;

    for (size_t i = 0; i < scheduler->slot_count; i++)
        if (uuid_equal(&scheduler->slots[i].spans.writes.root, root))
            return true;
    return false;
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

/* replica/runner.c - the life of one plan: open both ends, move, close, and all over again
 * while a lost device may still come back.
 *
 *      NEW -> OPENING -> READYING -> MOVING -> SEALING -> CLOSING -> LEAVING -> OVER
 *                |  \--> HOLDING -----------------------^  |
 *                \----------------------------------------+--> PAUSING -> OPENING
 *
 * A device that is lost (no answer, no session) is closed and opened anew, the target with a
 * barrier once it was open, and the copy goes on from its flushed watermark; so is a target
 * that somebody else had reset, but without a barrier where all was answered before. What the
 * device itself says (medium error, no space, reservation, another size) is final at once.
 *
 * What the target holds is kept as digests: READYING reads those of the last run, marks
 * them open before anything is written, and puts them to the test where the target cannot
 * show that somebody else wrote it; SEALING keeps those of a clean end while the target
 * is still ours, LEAVING takes away those of any other.
 */
#include "replica/runner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/fsm.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

enum { PACE_LIMIT = 1, PACE_PRIORITY = 2, PACE_NUDGE = 4 };

#define TO(state) (UINT64_C(1) << (state))
static const struct fsm_state states[RUNNER_STATE_COUNT] = {
    [RUNNER_NEW] = { "new", TO(RUNNER_OPENING) | TO(RUNNER_OVER) },
    [RUNNER_OPENING] = { "opening",
            TO(RUNNER_READYING) | TO(RUNNER_MOVING) | TO(RUNNER_HOLDING) |
                    TO(RUNNER_CLOSING) },
    [RUNNER_READYING] = { "readying", TO(RUNNER_MOVING) | TO(RUNNER_CLOSING) },
    [RUNNER_MOVING] = { "moving", TO(RUNNER_SEALING) | TO(RUNNER_CLOSING) },
    [RUNNER_HOLDING] = { "holding", TO(RUNNER_CLOSING) },
    [RUNNER_SEALING] = { "sealing", TO(RUNNER_CLOSING) },
    [RUNNER_CLOSING] = { "closing",
            TO(RUNNER_PAUSING) | TO(RUNNER_LEAVING) | TO(RUNNER_OVER) },
    [RUNNER_PAUSING] = { "pausing",
            TO(RUNNER_OPENING) | TO(RUNNER_LEAVING) | TO(RUNNER_OVER) },
    [RUNNER_LEAVING] = { "leaving", TO(RUNNER_OVER) },
    [RUNNER_OVER] = { "over", 0 },
};
#undef TO
static const struct fsm_table table = { "runner", states, RUNNER_STATE_COUNT };

static struct loop *loop_of(const struct runner *runner)
{
    return runner->lane->loop;
}

void runner_enter(struct runner *runner, enum runner_state state)
{
    fsm_move(&table, &runner->state, state);
}

/* -- the end ------------------------------------------------------------------------- */

static void runner_over(struct runner *runner)
{
    digests_finish(&runner->digests);
    loop_timer_stop(loop_of(runner), &runner->pause);
    runner_telling_end(runner);
    runner_enter(runner, RUNNER_OVER);
    if (runner->end != ENGINE_FAILED) {
        runner->fault = (struct fault){ 0 };
        runner->on_target = false;
    }
    pthread_mutex_lock(&runner->engine->lock);
    runner->over = true; /* its name is free before its last event is out */
    pthread_mutex_unlock(&runner->engine->lock);
    runner_tell(runner, ENGINE_ENDED);
    if (engine_forget(runner->engine, runner))
        free(runner);
}

static void left(struct digests *digests)
{
    runner_over(container_of(digests, struct runner, digests));
}

/* Digests that were not sealed go first. */
void runner_end(struct runner *runner)
{
    if (!digests_pending(&runner->digests)) {
        runner_over(runner);
        return;
    }
    loop_timer_stop(loop_of(runner), &runner->pause);
    runner_enter(runner, RUNNER_LEAVING);
    digests_drop(&runner->digests, loop_of(runner), left);
}

/* -- closing ------------------------------------------------------------------------- */

static void runner_closed(struct runner *runner)
{
    if (runner->retry && runner->stop)
        runner->end = ENGINE_STOPPED;
    if (runner->retry && !runner->stop)
        runner_pause(runner);
    else
        runner_end(runner);
}

static void one_closed(void *context)
{
    struct runner *runner = context;

    if (--runner->pending == 0)
        runner_closed(runner);
}

static void runner_close(struct runner *runner)
{
    struct block_device *source = runner->source, *target = runner->target;

    runner_enter(runner, RUNNER_CLOSING);
    runner->source = runner->target = NULL;
    runner->pending =
            1; /* our own, so that a close that calls back at once is no end */
    if (source) {
        runner->pending++;
        block_close(source, one_closed, runner);
    }
    if (target) {
        runner->pending++;
        block_close(target, one_closed, runner);
    }
    one_closed(runner);
}

/* -- moving -------------------------------------------------------------------------- */

static void sealed(struct digests *digests)
{
    runner_close(container_of(digests, struct runner, digests));
}

/* A clean end: all that was begun is flushed, and nobody had the target but us. */
static bool ends_clean(const struct runner *runner)
{
    return runner->digests.table && !atomic_load(&runner->forgotten) &&
            (runner->end == ENGINE_DONE ||
                    (runner->end == ENGINE_STOPPED &&
                            runner->stop == 1 + ENGINE_DRAIN));
}

static void runner_seal(struct runner *runner)
{
    if (runner->retry || !ends_clean(runner)) {
        runner_close(runner);
        return;
    }
    runner_enter(runner, RUNNER_SEALING);
    digests_seal(&runner->digests, loop_of(runner), runner->plan.watermark,
            runner->end == ENGINE_DONE, sealed);
}

static void copy_over(void *context, int result, bool on_target,
        const struct copy_figures *figures, const struct fault *fault)
{
    struct runner *runner = context;

    runner->copy = NULL;
    runner->retry = false;
    runner->target_lost |=
            runner->target->broken; /* also when the source failed first */
    runner->answered = runner->target->broken && runner->target->answered;
    runner->loose |= runner->target->broken && runner->was_open && !runner->answered;
    runner->zeroing_stuck |= figures->zeroing_stuck;
    runner_take(runner, figures);
    if (result == 0)
        runner->end = ENGINE_DONE;
    else if (result == -ECANCELED)
        runner->end = ENGINE_STOPPED;
    else
        runner_failed(runner, fault, on_target, true);
    runner_seal(runner);
}

static void copy_stop(struct runner *runner)
{
    if (runner->stop == 1 + ENGINE_DROP)
        copy_drop(runner->copy);
    else if (runner->stop)
        copy_drain(runner->copy);
}

static unsigned window_of(const struct engine_plan *plan)
{
    static const unsigned windows[] = { 8, 6, 4, 2 };
    return windows[plan->priority < 4 ? plan->priority : 3];
}

static unsigned share_of(const struct engine_plan *plan)
{
    static const unsigned shares[] = { SHARE_WHOLE, 6, 4, 2 };
    return shares[plan->priority < 4 ? plan->priority : 3];
}

static bool runner_move(struct runner *runner)
{
    static const enum copy_kind kinds[] = { [ENGINE_COPY] = COPY_FULL,
        [ENGINE_DELTA] = COPY_DELTA,
        [ENGINE_VERIFY] = COPY_VERIFY };
    const struct engine_plan *plan = &runner->plan;
    struct copy_options options = { .kind = kinds[plan->work],
        .source = runner->source,
        .target = runner->target,
        .watermark = plan->watermark,
        .verified = plan->verified,
        .differences = plan->differences,
        .skipped = plan->skipped,
        .equal = plan->equal,
        .written = plan->written,
        /* Whoever wrote before may have written ahead of the watermark. */
        .target_zero = plan->target_zero && !plan->resumed && !runner->was_open,
        .zeroing_stuck = runner->zeroing_stuck,
        .verify = runner_reads_back(runner),
        .sidecar = runner->digests.table,
        .by_digest = runner->digests.by_digest,
        .window = window_of(plan),
        .company = &runner->lane->copies,
        .share = share_of(plan),
        .limit = plan->limit,
        .meters = { runner->pipe ? &runner->pipe->meter : NULL,
                &runner->engine->meter },
        .progress = runner_moved,
        .ended = copy_over,
        .context = runner };

    runner->seen = (struct copy_figures){ .skipped = plan->skipped };
    runner->copy = copy_start(&options);
    return runner->copy;
}

/* -- holding ------------------------------------------------------------------------- */

static void runner_hold(struct runner *runner)
{
    runner->losing = false;
    runner->attempt = 0;
    runner_enter(runner, RUNNER_HOLDING);
    runner_tell(runner, ENGINE_HELD);
}

/* Nothing is under way that would fail, so the devices are asked. */
void runner_hold_look(struct runner *runner)
{
    bool on_target = runner->target->broken;
    const struct block_device *device = on_target ? runner->target : runner->source;
    struct fault fault;

    if (!device->broken)
        return;
    fault_set(&fault, -ENOTCONN, "the %s was lost while it was held open: %s",
            on_target ? "target" : "source", block_last_words(device));
    runner_failed(runner, &fault, on_target, true);
    runner_close(runner);
}

/* -- opening ------------------------------------------------------------------------- */

static bool same_bytes(const struct runner *runner)
{
    const struct end *a = &runner->source_end, *b = &runner->target_end;

    if (!a->found.identity.place[0] ||
            strcmp(a->found.identity.place, b->found.identity.place) != 0)
        return false;
    return a->element.offset < b->element.offset + b->found.size &&
            b->element.offset < a->element.offset + a->found.size;
}

/* What the devices together must be; @fault->error is 0 when they are. */
static bool pair_vet(const struct runner *runner, struct fault *fault, bool *on_target)
{
    const struct block_device *source = runner->source, *target = runner->target;
    bool writes = runner->plan.work != ENGINE_VERIFY;

    *on_target = true;
    if (same_bytes(runner))
        fault_set(fault, -EINVAL, "the source and the target are the same bytes");
    else if (round_up(source->size, target->block_size) > target->size)
        fault_set(fault, -ESTALE, "the target has %llu bytes, the source has %llu",
                (unsigned long long)target->size, (unsigned long long)source->size);
    else if (writes && runner->target_end.found.identity.foreign_reservation)
        fault_set(fault, -EBADE, "somebody else holds a reservation on the target");
    else if (writes && (target->caps & BLOCK_READ_ONLY))
        fault_set(fault, -EROFS, "the target cannot be written");
    else if (runner->plan.watermark > source->size ||
            runner->plan.verified > source->size) {
        *on_target = false;
        fault_set(fault, -ESTALE, "the source ends at byte %llu, before the watermark",
                (unsigned long long)source->size);
    }
    return fault->error == 0;
}

static bool can_digest(const struct runner *runner)
{
    return copy_can_digest(runner->source, runner->target, runner->plan.watermark);
}

static void begin_work(struct runner *runner)
{
    struct fault fault = { 0 };

    /* A target that was lost may come back as another, and so may a source. */
    if (runner->digests.table &&
            (runner->target_lost || !can_digest(runner) ||
                    runner->digests.table->size != runner->source->size))
        digests_spoil(&runner->digests);
    /* A file was let go of when the source was lost: anybody may have written it since. */
    if (runner->digests.table && runner->was_open &&
            end_shows_changes(&runner->target_end))
        digests_doubt(&runner->digests);
    runner_enter(runner, RUNNER_MOVING);
    if (!runner_move(runner)) {
        fault_set(&fault, -ENOMEM, "out of memory for the copy's buffers");
        runner_failed(runner, &fault, false, false);
        runner_close(runner);
        return;
    }
    runner->was_open |= runner->plan.work != ENGINE_VERIFY;
    runner_telling_begin(runner);
    runner_tell(runner, ENGINE_STARTED);
}

/* Before anything is begun: whatever this plan wanted, it ends here. */
static void ready_end(struct runner *runner, const struct fault *fault)
{
    runner->retry = false;
    runner->end = ENGINE_STOPPED;
    if (fault->error)
        runner_failed(runner, fault, true, false);
    runner_close(runner);
}

/* What this plan skipped below its watermark stood there when it was skipped: where that is
   not so any more, nothing is left to go on from. */
static void sampled(void *context, int result, uint64_t at)
{
    struct runner *runner = context;
    struct fault fault = { 0 };

    runner->sample = NULL;
    if (result == -EILSEQ) {
        log_event(LOG_WARN, "digests-stale",
                (struct log_about){ .job = runner->plan.id.text },
                "the target does not hold at byte %llu what was left there: it is "
                "compared",
                (unsigned long long)at);
        if (runner->plan.watermark)
            fault_set(&fault, -ESTALE,
                    "the target does not hold at byte %llu what was left there",
                    (unsigned long long)at);
    }
    if (result)
        digests_doubt(&runner->digests);
    if (runner->stop || fault.error)
        ready_end(runner, &fault);
    else
        begin_work(runner);
}

static void readied(struct digests *digests)
{
    struct runner *runner = container_of(digests, struct runner, digests);

    if (runner->stop || digests->fault.error) {
        ready_end(runner, &digests->fault);
        return;
    }
    if (digests->by_digest && !end_shows_changes(&runner->target_end))
        runner->sample = sample_start(
                runner->target, digests->table, runner->random, sampled, runner);
    if (!runner->sample)
        begin_work(runner);
}

/* A sidecar is opened once a plan, before anything is written. */
static void ready_work(struct runner *runner)
{
    if (runner->plan.work == ENGINE_VERIFY || runner->digests.opened) {
        begin_work(runner);
        return;
    }
    runner_enter(runner, RUNNER_READYING);
    digests_open(&runner->digests, loop_of(runner), &runner->plan, runner->source->size,
            &runner->target_end, can_digest(runner), readied);
}

/* Both ends have answered. */
static void runner_opened(struct runner *runner)
{
    struct fault fault = { 0 };
    bool on_target = false;

    if (runner->stop) {
        runner->retry = false;
        runner->end = ENGINE_STOPPED;
        runner_close(runner);
        return;
    }
    if (!runner->source || !runner->target) {
        /* Of two failures the one that no waiting mends is the one to tell. */
        bool source = !runner->source &&
                (runner->target ||
                        !runner_error_is_loss(runner->source_end.fault.error));
        struct end *end = source ? &runner->source_end : &runner->target_end;
        fault_set(&fault, end->fault.error, "the %s cannot be opened: %s", end->role,
                end->fault.why);
        /* It was there, or a far side that was away at first comes up now. */
        runner_failed(runner, &fault, !source,
                runner->losing ||
                        (source ? runner->source_was_open : runner->was_open));
        runner_close(runner);
        return;
    }
    runner->total = runner->source->size;
    runner->source_was_open = true;
    if (!pair_vet(runner, &fault, &on_target)) {
        runner_failed(runner, &fault, on_target, false);
        runner_close(runner);
    } else if (runner->plan.work == ENGINE_HOLD) {
        runner_hold(runner);
    } else {
        ready_work(runner);
    }
}

static void source_opened(
        struct end *end, struct block_device *device, const struct fault *fault)
{
    struct runner *runner = container_of(end, struct runner, source_end);

    (void)fault; /* stays in the end */
    runner->source = device;
    if (--runner->pending == 0)
        runner_opened(runner);
}

static void target_opened(
        struct end *end, struct block_device *device, const struct fault *fault)
{
    struct runner *runner = container_of(end, struct runner, target_end);

    (void)fault;
    runner->target = device;
    runner->loose &= !device; /* a barrier has been passed */
    if (--runner->pending == 0)
        runner_opened(runner);
}

void runner_open(struct runner *runner)
{
    const struct engine_plan *plan = &runner->plan;
    bool writes = plan->work != ENGINE_VERIFY;

    runner_enter(runner, RUNNER_OPENING);
    runner_telling_open(runner);
    runner->pending = 2;
    runner->engine->open(&runner->source_end, &plan->source, false, false);
    runner->engine->open(&runner->target_end, &plan->target, writes,
            writes && (plan->resumed || runner->was_open) && !runner->answered);
}

/* -- wishes -------------------------------------------------------------------------- */

static void apply_stop(struct runner *runner)
{
    switch ((enum runner_state)runner->state) {
    case RUNNER_OPENING:
        end_cancel(&runner->source_end);
        end_cancel(&runner->target_end);
        break;
    case RUNNER_MOVING:
        if (runner->copy)
            copy_stop(runner);
        break;
    case RUNNER_READYING:
        if (runner->sample)
            sample_stop(runner->sample);
        break;
    case RUNNER_HOLDING:
        runner->retry = false;
        runner->end = ENGINE_STOPPED;
        runner_close(runner);
        break;
    case RUNNER_NEW:
    case RUNNER_PAUSING:
        runner->end = ENGINE_STOPPED;
        runner_end(runner);
        break;
    default: /* looked at when what is under way has ended */
        break;
    }
}

/* Takes the wishes about the pace; under the engine's lock. Returns what changed. */
static unsigned take_pace(struct runner *runner)
{
    unsigned pace = (runner->limit_wanted ? PACE_LIMIT : 0u) |
            (runner->priority_wanted ? PACE_PRIORITY : 0u) |
            (runner->nudge_wanted ? PACE_NUDGE : 0u);

    if (runner->limit_wanted)
        runner->plan.limit = runner->limit;
    if (runner->priority_wanted)
        runner->plan.priority = runner->priority;
    runner->limit_wanted = runner->priority_wanted = runner->nudge_wanted = false;
    return pace;
}

static void apply_pace(struct runner *runner, unsigned pace)
{
    const struct engine_plan *plan = &runner->plan;

    if (!runner->copy)
        return;
    if (pace & PACE_LIMIT)
        copy_set_limit(runner->copy, plan->limit);
    if (pace & PACE_PRIORITY)
        copy_set_window(runner->copy, window_of(plan), share_of(plan));
    if (pace & PACE_NUDGE)
        copy_nudge(runner->copy);
}

static void runner_run(struct loop_task *task)
{
    struct runner *runner = container_of(task, struct runner, task);
    bool over;
    unsigned pace;
    int stop;

    pthread_mutex_lock(&runner->engine->lock);
    runner->queued = false;
    over = runner->over;
    stop = runner->stop_wanted;
    pace = take_pace(runner);
    pthread_mutex_unlock(&runner->engine->lock);
    if (over) { /* its end came first, and left it to us */
        free(runner);
        return;
    }
    apply_pace(runner, pace);
    if (stop > runner->stop) {
        runner->stop = stop;
        apply_stop(runner);
    } else if (runner->state == RUNNER_NEW) {
        runner_open(runner);
    }
}

void runner_ring(struct runner *runner)
{
    if (runner->queued)
        return;
    runner->queued = true;
    loop_post(runner->lane->loop, &runner->task);
}

struct runner *runner_create(
        struct engine *engine, struct lane *lane, const struct engine_plan *plan)
{
    struct runner *runner = calloc(1, sizeof *runner);

    if (!runner)
        return NULL;
    runner->engine = engine;
    runner->lane = lane;
    runner->plan = *plan;
    runner->task.run = runner_run;
    runner_losing_init(runner);
    runner_telling_init(runner);
    end_init(&runner->source_end, engine, lane->loop, "source");
    end_init(&runner->target_end, engine, lane->loop, "target");
    digests_init(&runner->digests, engine, plan);
    runner->source_end.done = source_opened;
    runner->target_end.done = target_opened;
    runner->random = runner->source_end.isid | 1;
    runner->loose = plan->resumed && plan->work != ENGINE_VERIFY;
    runner->total =
            plan->source.size > plan->watermark ? plan->source.size : plan->watermark;
    return runner;
}

/* replica/runner.c - the life of one plan: open both ends, move, close, and all over again
 * while a lost device may still come back.
 *
 *      NEW -> OPENING -> READYING -> MOVING -> SEALING -> CLOSING -> LEAVING -> OVER
 *                |  \--> HOLDING -----------------------^  |
 *                \----------------------------------------+--> PAUSING -> OPENING
 *
 * A device that is lost (no answer, no session) is closed and opened anew, the target with a
 * barrier once it was open, and the copy goes on from its flushed watermark. What the device
 * itself says (medium error, no space, reservation, another size) is final at once.
 *
 * What the target holds is kept as digests: READYING reads those of the last run and marks
 * them open before anything is written, SEALING keeps those of a clean end while the target
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

enum {
    REPORT_MS = 500, /* between two progress events of a plan */
    STALL_MS = 3000, /* without a move: the rate is told to be 0 */
    RATE_MS = 5000, /* what the rate looks back on */
    PAUSE_FIRST_MS = 100,
    PAUSE_MOST_MS = 5000
};

enum state {
    NEW,
    OPENING,
    READYING,
    MOVING,
    HOLDING,
    SEALING,
    CLOSING,
    PAUSING,
    LEAVING,
    OVER,
    STATE_COUNT
};

#define TO(state) (UINT64_C(1) << (state))
static const struct fsm_state states[STATE_COUNT] = {
    [NEW] = { "new", TO(OPENING) | TO(OVER) },
    [OPENING] = { "opening", TO(READYING) | TO(MOVING) | TO(HOLDING) | TO(CLOSING) },
    [READYING] = { "readying", TO(MOVING) | TO(CLOSING) },
    [MOVING] = { "moving", TO(SEALING) | TO(CLOSING) },
    [HOLDING] = { "holding", TO(CLOSING) },
    [SEALING] = { "sealing", TO(CLOSING) },
    [CLOSING] = { "closing", TO(PAUSING) | TO(LEAVING) | TO(OVER) },
    [PAUSING] = { "pausing", TO(OPENING) | TO(LEAVING) | TO(OVER) },
    [LEAVING] = { "leaving", TO(OVER) },
    [OVER] = { "over", 0 },
};
#undef TO
static const struct fsm_table table = { "runner", states, STATE_COUNT };

static void runner_open(struct runner *runner);

static struct loop *loop_of(const struct runner *runner)
{
    return runner->lane->loop;
}

/* -- telling ------------------------------------------------------------------------- */

static bool reads_back(const struct runner *runner)
{
    return runner->plan.verify && runner->plan.work != ENGINE_VERIFY;
}

static uint64_t done_of(const struct runner *runner)
{
    const struct engine_plan *plan = &runner->plan;

    return reads_back(runner) ? (plan->watermark + plan->verified) / 2
                              : plan->watermark;
}

static enum engine_mode mode_of(const struct runner *runner)
{
    if (runner->plan.work == ENGINE_COPY)
        return ENGINE_MODE_FULL;
    if (runner->plan.work != ENGINE_DELTA)
        return ENGINE_MODE_NONE;
    return runner->digests.by_digest ? ENGINE_MODE_DELTA_DIGEST
                                     : ENGINE_MODE_DELTA_COMPARE;
}

static void rate_note(struct rate *rate, struct instant now, uint64_t done)
{
    unsigned last;
    uint64_t ms;

    while (rate->count > 1 &&
            (rate->count == RATE_SAMPLES ||
                    instant_ms_until(rate->samples[rate->first].at, now) > RATE_MS)) {
        rate->first = (rate->first + 1) % RATE_SAMPLES;
        rate->count--;
    }
    last = (rate->first + rate->count++) % RATE_SAMPLES;
    rate->samples[last].at = now;
    rate->samples[last].done = done;
    ms = instant_ms_until(rate->samples[rate->first].at, now);
    rate->last = ms ? (done - rate->samples[rate->first].done) * 1000 / ms : 0;
}

static void tell(struct runner *runner, enum engine_event_kind kind)
{
    const struct engine *engine = runner->engine;
    const struct engine_plan *plan = &runner->plan;
    struct engine_event event = { .kind = kind,
        .id = plan->id,
        .mode = mode_of(runner),
        .total = runner->total,
        .done = done_of(runner),
        .skipped = plan->skipped,
        .written = plan->written,
        .watermark = plan->watermark,
        .verified = plan->verified,
        .rate = runner->rate.last,
        .end = runner->end,
        .on_target = runner->on_target,
        .fault = runner->fault };

    runner->reported = loop_now(loop_of(runner));
    runner->unreported = false;
    engine->event(engine->context, &event);
}

/* Now, or when the last event is old enough. */
static void report(struct runner *runner)
{
    struct instant due = instant_add_ms(runner->reported, REPORT_MS);
    struct instant now = loop_now(loop_of(runner));

    if (!instant_reached(now, due)) {
        loop_timer_start(loop_of(runner), &runner->report, instant_ms_until(now, due));
        return;
    }
    tell(runner, ENGINE_PROGRESS);
    loop_timer_start(loop_of(runner), &runner->report, STALL_MS);
}

static void report_fire(struct loop_timer *timer)
{
    struct runner *runner = container_of(timer, struct runner, report);

    if (!runner->unreported) { /* nothing moves: say so, once */
        if (!runner->rate.last)
            return;
        runner->rate = (struct rate){ 0 };
        rate_note(&runner->rate, loop_now(loop_of(runner)), done_of(runner));
    }
    report(runner);
}

static void count_moved(struct runner *runner, const struct copy_figures *figures)
{
    struct engine *engine = runner->engine;
    const struct copy_figures *seen = &runner->seen;

    atomic_fetch_add_explicit(
            &engine->read_bytes, figures->read - seen->read, memory_order_relaxed);
    atomic_fetch_add_explicit(
            &engine->written_bytes, figures->sent - seen->sent, memory_order_relaxed);
    atomic_fetch_add_explicit(&engine->skipped_bytes, figures->skipped - seen->skipped,
            memory_order_relaxed);
    runner->seen = *figures;
}

static void take_figures(struct runner *runner, const struct copy_figures *figures)
{
    struct engine_plan *plan = &runner->plan;
    bool moved =
            figures->watermark > plan->watermark || figures->verified > plan->verified;

    count_moved(runner, figures);
    plan->watermark = figures->watermark;
    plan->verified = figures->verified;
    plan->skipped = figures->skipped;
    plan->written = figures->written;
    if (!moved)
        return;
    runner->losing = false;
    runner->attempt = 0;
    runner->unreported = true;
    rate_note(&runner->rate, loop_now(loop_of(runner)), done_of(runner));
}

/* -- the end ------------------------------------------------------------------------- */

static void runner_over(struct runner *runner)
{
    digests_finish(&runner->digests);
    loop_timer_stop(loop_of(runner), &runner->pause);
    loop_timer_stop(loop_of(runner), &runner->report);
    fsm_move(&table, &runner->state, OVER);
    if (runner->end != ENGINE_FAILED) {
        runner->fault = (struct fault){ 0 };
        runner->on_target = false;
    }
    pthread_mutex_lock(&runner->engine->lock);
    runner->over = true; /* its name is free before its last event is out */
    pthread_mutex_unlock(&runner->engine->lock);
    tell(runner, ENGINE_ENDED);
    if (engine_forget(runner->engine, runner))
        free(runner);
}

static void left(struct digests *digests)
{
    runner_over(container_of(digests, struct runner, digests));
}

/* Digests that were not sealed go first. */
static void runner_end(struct runner *runner)
{
    if (!digests_pending(&runner->digests)) {
        runner_over(runner);
        return;
    }
    loop_timer_stop(loop_of(runner), &runner->pause);
    fsm_move(&table, &runner->state, LEAVING);
    digests_drop(&runner->digests, loop_of(runner), left);
}

/* -- losing and coming back ---------------------------------------------------------- */

static bool is_lost(int error)
{
    switch (-error) {
    case ENOTCONN:
    case ETIMEDOUT:
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
        return true;
    default:
        return false;
    }
}

/* A far side that has just come up knows its portal before its targets, LUNs and accounts;
   and our own lack of memory or descriptors may pass. */
static bool is_lost_again(int error)
{
    switch (-error) {
    case ENODEV:
    case ENXIO:
    case EACCES:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return true;
    default:
        return false;
    }
}

static uint64_t draw(struct runner *runner, uint64_t below)
{
    uint64_t x = runner->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    runner->random = x;
    return x % below;
}

static uint64_t pause_ms(struct runner *runner)
{
    uint64_t ms = PAUSE_FIRST_MS;

    for (unsigned i = 0; i < runner->attempt && ms < PAUSE_MOST_MS; i++)
        ms *= 2;
    runner->attempt++;
    ms = min_u64(ms, PAUSE_MOST_MS);
    return ms / 2 + draw(runner, ms / 2 + 1);
}

/* What happened, as it will be told; whether it is worth trying again is decided here. */
static void runner_failed(
        struct runner *runner, const struct fault *fault, bool on_target, bool again)
{
    struct instant now = loop_now(loop_of(runner));

    runner->end = ENGINE_FAILED;
    runner->fault = *fault;
    runner->on_target = on_target;
    runner->retry = is_lost(fault->error) || (again && is_lost_again(fault->error));
    runner->target_lost |= on_target && runner->was_open;
    if (!runner->retry)
        return;
    if (!runner->losing) {
        runner->losing = true;
        runner->lost_at = now;
        runner->first_fault = *fault;
        runner->first_on_target = on_target;
    }
    log_event(LOG_WARN, "device-lost",
            (struct log_about){ .job = runner->plan.id.text }, "%s", fault->why);
}

static void pause_fire(struct loop_timer *timer)
{
    struct runner *runner = container_of(timer, struct runner, pause);

    atomic_fetch_add_explicit(&runner->engine->reopened, 1, memory_order_relaxed);
    runner_open(runner);
}

static void runner_pause(struct runner *runner)
{
    uint64_t ms = pause_ms(runner);
    struct instant now = loop_now(loop_of(runner));
    struct instant end = instant_add_ms(runner->lost_at, runner->engine->recovery_ms);

    if (instant_reached(instant_add_ms(now, ms), end)) {
        runner->fault = runner->first_fault;
        runner->on_target = runner->first_on_target;
        runner_end(runner);
        return;
    }
    fsm_move(&table, &runner->state, PAUSING);
    runner->rate = (struct rate){ 0 };
    loop_timer_stop(loop_of(runner), &runner->report);
    loop_timer_start(loop_of(runner), &runner->pause, ms);
    tell(runner, ENGINE_WAITING);
}

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

    fsm_move(&table, &runner->state, CLOSING);
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

static void copy_moved(void *context, const struct copy_figures *figures)
{
    struct runner *runner = context;

    take_figures(runner, figures);
    if (runner->unreported)
        report(runner);
}

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
    fsm_move(&table, &runner->state, SEALING);
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
    take_figures(runner, figures);
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
        .skipped = plan->skipped,
        .written = plan->written,
        /* Whoever wrote before may have written ahead of the watermark. */
        .target_zero = plan->target_zero && !plan->resumed && !runner->was_open,
        .verify = reads_back(runner),
        .sidecar = runner->digests.table,
        .by_digest = runner->digests.by_digest,
        .window = window_of(plan),
        .limit = plan->limit,
        .progress = copy_moved,
        .ended = copy_over,
        .context = runner };

    runner->seen = (struct copy_figures){ .skipped = plan->skipped };
    runner->copy = copy_start(&options);
    return runner->copy;
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
    fsm_move(&table, &runner->state, MOVING);
    if (!runner_move(runner)) {
        fault_set(&fault, -ENOMEM, "out of memory for the copy's buffers");
        runner_failed(runner, &fault, false, false);
        runner_close(runner);
        return;
    }
    runner->was_open |= runner->plan.work != ENGINE_VERIFY;
    rate_note(&runner->rate, loop_now(loop_of(runner)), done_of(runner));
    tell(runner, ENGINE_STARTED);
}

static void readied(struct digests *digests)
{
    struct runner *runner = container_of(digests, struct runner, digests);

    if (runner->stop || digests->fault.error) {
        runner->retry = false;
        runner->end = ENGINE_STOPPED;
        if (digests->fault.error)
            runner_failed(runner, &digests->fault, true, false);
        runner_close(runner);
        return;
    }
    begin_work(runner);
}

/* A sidecar is opened once a plan, before anything is written. */
static void ready_work(struct runner *runner)
{
    if (runner->plan.work == ENGINE_VERIFY || runner->digests.opened) {
        begin_work(runner);
        return;
    }
    fsm_move(&table, &runner->state, READYING);
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
                (runner->target || !is_lost(runner->source_end.fault.error));
        struct end *end = source ? &runner->source_end : &runner->target_end;
        fault_set(&fault, end->fault.error, "the %s cannot be opened: %s", end->role,
                end->fault.why);
        runner_failed(runner, &fault, !source,
                source ? runner->source_was_open : runner->was_open);
        runner_close(runner);
        return;
    }
    runner->total = runner->source->size;
    runner->source_was_open = true;
    if (!pair_vet(runner, &fault, &on_target)) {
        runner_failed(runner, &fault, on_target, false);
        runner_close(runner);
    } else if (runner->plan.work == ENGINE_HOLD) {
        fsm_move(&table, &runner->state, HOLDING);
        tell(runner, ENGINE_HELD);
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
    if (--runner->pending == 0)
        runner_opened(runner);
}

static void runner_open(struct runner *runner)
{
    const struct engine_plan *plan = &runner->plan;
    bool writes = plan->work != ENGINE_VERIFY;

    fsm_move(&table, &runner->state, OPENING);
    runner->pending = 2;
    runner->engine->open(&runner->source_end, &plan->source, false, false);
    runner->engine->open(&runner->target_end, &plan->target, writes,
            writes && (plan->resumed || runner->was_open));
}

/* -- wishes -------------------------------------------------------------------------- */

static void apply_stop(struct runner *runner)
{
    switch ((enum state)runner->state) {
    case MOVING:
        if (runner->copy)
            copy_stop(runner);
        break;
    case HOLDING:
        runner->retry = false;
        runner->end = ENGINE_STOPPED;
        runner_close(runner);
        break;
    case NEW:
    case PAUSING:
        runner->end = ENGINE_STOPPED;
        runner_end(runner);
        break;
    default: /* looked at when what is under way has ended */
        break;
    }
}

static void runner_run(struct loop_task *task)
{
    struct runner *runner = container_of(task, struct runner, task);
    bool over, limited;
    int stop;
    uint64_t limit;

    pthread_mutex_lock(&runner->engine->lock);
    runner->queued = false;
    over = runner->over;
    stop = runner->stop_wanted;
    limited = runner->limit_wanted;
    limit = runner->limit;
    runner->limit_wanted = false;
    pthread_mutex_unlock(&runner->engine->lock);
    if (over) { /* its end came first, and left it to us */
        free(runner);
        return;
    }
    if (limited) {
        runner->plan.limit = limit;
        if (runner->copy)
            copy_set_limit(runner->copy, limit);
    }
    if (stop > runner->stop) {
        runner->stop = stop;
        apply_stop(runner);
    } else if (runner->state == NEW) {
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
    runner->pause.fire = pause_fire;
    runner->report.fire = report_fire;
    end_init(&runner->source_end, engine, lane->loop, "source");
    end_init(&runner->target_end, engine, lane->loop, "target");
    digests_init(&runner->digests, engine, plan);
    runner->source_end.done = source_opened;
    runner->target_end.done = target_opened;
    runner->random = runner->source_end.isid | 1;
    runner->total =
            plan->source.size > plan->watermark ? plan->source.size : plan->watermark;
    return runner;
}

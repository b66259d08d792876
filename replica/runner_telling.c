/* replica/runner_telling.c - what a plan tells while it runs: how far, how fast, what it
 * waits for.
 *
 * Rates and what limits are taken over the same last seconds. A plan stalls when no byte
 * has moved for a while though no limit forbade it; a watch of its own looks for that, for
 * a device that hangs calls nobody back.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "replica/base/scope.h"
#include "replica/runner.h"

enum {
    REPORT_MS = 500, /* between two progress events of a plan */
    QUIET_MS = 3000, /* without a move: the rate is told to be 0 */
    RATE_MS = 5000, /* what the rate looks back on */
    SAMPLE_MS = RATE_MS / (RATE_SAMPLES - 2), /* so that the samples reach as far */
    WATCHES = 4 /* looks in the time after which a plan stalls */
};

static struct loop *loop_of(const struct runner *runner)
{
    return runner->lane->loop;
}

bool runner_reads_back(const struct runner *runner)
{
    return runner->plan.verify && runner->plan.work != ENGINE_VERIFY;
}

static uint64_t done_of(const struct runner *runner)
{
    const struct engine_plan *plan = &runner->plan;

    uint64_t differ = plan->differences.bytes;

    if (runner_reads_back(runner))
        return (plan->watermark + plan->verified - differ) / 2;
    return plan->watermark - differ;
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

/* -- over the last seconds ------------------------------------------------------------ */

static struct rate_sample *rate_sample(struct rate *rate, unsigned at)
{
    return &rate->samples[(rate->first + at) % RATE_SAMPLES];
}

static void rate_note(struct rate *rate, struct instant now, uint64_t done,
        const struct copy_figures *figures)
{
    const struct rate_sample *first;
    uint64_t ms;

    while (rate->count > 1 &&
            (rate->count == RATE_SAMPLES ||
                    instant_ms_until(rate_sample(rate, 0)->at, now) > RATE_MS)) {
        rate->first = (rate->first + 1) % RATE_SAMPLES;
        rate->count--;
    }
    /* Of two that are close the later one stays, but the first is where it began. */
    if (rate->count > 1 &&
            instant_ms_until(rate_sample(rate, rate->count - 2)->at, now) < SAMPLE_MS)
        rate->count--;
    *rate_sample(rate, rate->count++) = (struct rate_sample){ .at = now,
        .done = done,
        .source_ns = figures->source_ns,
        .target_ns = figures->target_ns,
        .limit_ns = figures->limit_ns };
    first = rate_sample(rate, 0);
    ms = instant_ms_until(first->at, now);
    rate->last = ms ? (done - first->done) * 1000 / ms : 0;
}

static enum engine_limited limited_of(struct runner *runner)
{
    struct rate *rate = &runner->rate;
    const struct rate_sample *first = rate_sample(rate, 0);
    struct copy_figures figures;
    uint64_t ns, source, target;

    if (!runner->copy || !rate->count)
        return ENGINE_LIMITED_NONE;
    copy_figures(runner->copy, &figures);
    ns = loop_now(loop_of(runner)).ns - first->at.ns;
    source = figures.source_ns - first->source_ns;
    target = figures.target_ns - first->target_ns;
    if (ns && (figures.limit_ns - first->limit_ns) * 2 > ns)
        return ENGINE_LIMITED_BANDWIDTH;
    if (source == target)
        return ENGINE_LIMITED_NONE;
    return source > target ? ENGINE_LIMITED_SOURCE : ENGINE_LIMITED_TARGET;
}

/* -- events -------------------------------------------------------------------------- */

void runner_tell(struct runner *runner, enum engine_event_kind kind)
{
    const struct engine *engine = runner->engine;
    const struct engine_plan *plan = &runner->plan;
    struct instant now = loop_now(loop_of(runner));
    struct engine_event event = { .kind = kind,
        .id = plan->id,
        .mode = mode_of(runner),
        .total = runner->total,
        .done = done_of(runner),
        .skipped = plan->skipped,
        .equal = plan->equal,
        .read = plan->read,
        .written = plan->written,
        .watermark = plan->watermark,
        .verified = plan->verified,
        .differences = plan->differences,
        .rate = runner->rate.last,
        .limited = limited_of(runner),
        .end = runner->end,
        .on_target = runner->on_target,
        .loose = runner->loose,
        .fault = runner->fault };

    if (runner->stall[0] && kind != ENGINE_ENDED) {
        event.stalled_ms = instant_ms_until(runner->moved_at, now);
        memcpy(event.stall, runner->stall, sizeof event.stall);
    }
    runner->reported = now;
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
    runner_tell(runner, ENGINE_PROGRESS);
    loop_timer_start(loop_of(runner), &runner->report, QUIET_MS);
}

static void rate_begin(struct runner *runner)
{
    struct copy_figures figures = { 0 };

    runner->rate = (struct rate){ 0 };
    if (runner->copy)
        copy_figures(runner->copy, &figures);
    rate_note(&runner->rate, loop_now(loop_of(runner)), done_of(runner), &figures);
}

static void report_fire(struct loop_timer *timer)
{
    struct runner *runner = container_of(timer, struct runner, report);

    if (!runner->unreported) { /* nothing moves: say so, once */
        if (!runner->rate.last)
            return;
        rate_begin(runner);
    }
    report(runner);
}

/* -- figures ------------------------------------------------------------------------- */

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
    runner->plan.read += figures->read - seen->read;
    runner->sent += figures->sent - seen->sent;
    runner->seen = *figures;
}

void runner_take(struct runner *runner, const struct copy_figures *figures)
{
    struct engine_plan *plan = &runner->plan;
    bool moved =
            figures->watermark > plan->watermark || figures->verified > plan->verified;

    count_moved(runner, figures);
    plan->watermark = figures->watermark;
    plan->verified = figures->verified;
    plan->differences = figures->differences;
    plan->skipped = figures->skipped;
    plan->equal = figures->equal;
    plan->written = figures->written;
    if (!moved)
        return;
    runner->losing = false;
    runner->attempt = 0;
    runner->unreported = true;
    rate_note(&runner->rate, loop_now(loop_of(runner)), done_of(runner), &runner->seen);
}

void runner_moved(void *context, const struct copy_figures *figures)
{
    struct runner *runner = context;

    runner_take(runner, figures);
    if (runner->unreported)
        report(runner);
}

/* -- stalls -------------------------------------------------------------------------- */

/* A number that is another one when bytes have moved, whatever was lost and begun anew. */
static uint64_t moved_of(struct runner *runner)
{
    uint64_t read = runner->plan.read, sent = runner->sent;
    struct copy_figures figures;

    if (runner->copy) {
        copy_figures(runner->copy, &figures);
        read += figures.read - runner->seen.read;
        sent += figures.sent - runner->seen.sent;
        runner->done_most =
                figures.done > runner->done_most ? figures.done : runner->done_most;
    }
    return read + sent + runner->done_most;
}

static void stall_of_device(struct runner *runner, char *words, size_t room)
{
    bool on_target = runner->target->in_flight >= runner->source->in_flight;
    const struct block_device *device = on_target ? runner->target : runner->source;
    const char *last = block_last_words(device);

    (void)snprintf(words, room, "the %s does not answer: %u requests are in flight%s%s",
            on_target ? "target" : "source", device->in_flight,
            last[0] ? "; its last words: " : "", last);
}

static void stall_of(struct runner *runner, char *words, size_t room)
{
    const char *role = runner->losing ? runner->first_on_target ? "target" : "source"
            : runner->source          ? "target"
                                      : "source";

    if (runner->state == RUNNER_MOVING)
        stall_of_device(runner, words, room);
    else if (runner->losing)
        (void)snprintf(words, room, "the %s was lost and is being opened again: %s",
                role, runner->first_fault.why);
    else if (runner->state == RUNNER_OPENING)
        (void)snprintf(words, room, "the %s is being opened", role);
    else if (runner->state == RUNNER_CLOSING)
        (void)snprintf(words, room, "the devices are being closed");
    else
        (void)snprintf(words, room, "the digests of the target are being kept");
}

/* Nothing is in flight, but something could be: a limit holds it back. */
static bool is_held_back(const struct runner *runner)
{
    return runner->state == RUNNER_HOLDING ||
            (runner->state == RUNNER_MOVING && runner->source->in_flight == 0 &&
                    runner->target->in_flight == 0);
}

static void watch_look(struct runner *runner)
{
    struct instant now = loop_now(loop_of(runner));
    uint64_t moved = moved_of(runner);
    char words[sizeof runner->stall] = "";

    if (moved != runner->moved || is_held_back(runner)) {
        runner->moved = moved;
        runner->moved_at = now;
    } else if (instant_ms_until(runner->moved_at, now) >= runner->engine->stall_ms) {
        stall_of(runner, words, sizeof words);
    }
    if (strcmp(words, runner->stall) == 0)
        return;
    memcpy(runner->stall, words, sizeof words);
    runner_tell(runner, runner->losing ? ENGINE_WAITING : ENGINE_PROGRESS);
}

static void watch_fire(struct loop_timer *timer)
{
    struct runner *runner = container_of(timer, struct runner, watch);

    watch_look(runner);
    loop_timer_start(
            loop_of(runner), &runner->watch, runner->engine->stall_ms / WATCHES + 1);
    if (runner->state == RUNNER_HOLDING)
        runner_hold_look(runner);
}

/* -- life ---------------------------------------------------------------------------- */

void runner_telling_init(struct runner *runner)
{
    runner->report.fire = report_fire;
    runner->watch.fire = watch_fire;
}

void runner_telling_open(struct runner *runner)
{
    if (loop_timer_active(&runner->watch))
        return;
    runner->moved = moved_of(runner);
    runner->moved_at = loop_now(loop_of(runner));
    watch_fire(&runner->watch);
}

void runner_telling_begin(struct runner *runner)
{
    rate_begin(runner);
}

void runner_telling_pause(struct runner *runner)
{
    runner->rate = (struct rate){ 0 };
    loop_timer_stop(loop_of(runner), &runner->report);
}

void runner_telling_end(struct runner *runner)
{
    loop_timer_stop(loop_of(runner), &runner->report);
    loop_timer_stop(loop_of(runner), &runner->watch);
}

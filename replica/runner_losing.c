/* replica/runner_losing.c - what is worth trying again when a device of a plan is lost, and
 * when.
 *
 * Plans that share a LUN, here or on other hosts, disturb one another: whoever opens it anew
 * behind a barrier has it reset, which takes from the others what they have not flushed, so
 * they open it anew. They would go on so for ever, and who never gets as far as a flush
 * would fail. So one that was reset stays away for longer each time, long enough for the
 * others to flush: they take turns. What counts is how often it was reset of late, not how
 * far it got since, for who gets on is who leaves the others no time.
 */
#include <errno.h>

#include "replica/base/checked.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "replica/runner.h"

enum {
    PAUSE_FIRST_MS = 100,
    PAUSE_MOST_MS = 5000,
    TURN_FIRST_MS =
            1000, /* after the second reset; about what passes between two flushes */
    TURNS = 4 /* in the time after which it is given up, at least */
};

static struct loop *loop_of(const struct runner *runner)
{
    return runner->lane->loop;
}

bool runner_error_is_loss(int error)
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

/* It gave itself up, though nothing of it failed: a host beside us had it reset. What is
   flushed stands, and the rest is written again. */
static bool is_given_up(const struct runner *runner, bool on_target)
{
    const struct block_device *device = on_target ? runner->target : runner->source;

    return device && device->broken && device->returns;
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

static uint64_t doubled(uint64_t ms, unsigned times, uint64_t most)
{
    while (times-- > 0 && ms < most)
        ms *= 2;
    return min_u64(ms, most);
}

static uint64_t pause_ms(struct runner *runner)
{
    uint64_t ms = doubled(PAUSE_FIRST_MS, runner->attempt++, PAUSE_MOST_MS);

    if (runner->given_up && runner->resets > 1)
        ms = doubled(
                TURN_FIRST_MS, runner->resets - 2, runner->engine->recovery_ms / TURNS);
    return ms / 2 + draw(runner, ms / 2 + 1);
}

/* Another one, when the last was not long ago. */
static void reset_count(struct runner *runner, struct instant now)
{
    struct instant calm = instant_add_ms(runner->reset_at, runner->engine->recovery_ms);

    if (instant_reached(now, calm))
        runner->resets = 0;
    runner->resets++;
    runner->reset_at = now;
}

/* What happened, as it will be told; whether it is worth trying again is decided here. */
void runner_failed(
        struct runner *runner, const struct fault *fault, bool on_target, bool again)
{
    struct instant now = loop_now(loop_of(runner));

    runner->end = ENGINE_FAILED;
    runner->fault = *fault;
    runner->on_target = on_target;
    runner->given_up = is_given_up(runner, on_target);
    runner->retry = runner->given_up || runner_error_is_loss(fault->error) ||
            (again && is_lost_again(fault->error));
    runner->target_lost |= on_target && runner->was_open;
    if (!runner->retry)
        return;
    if (runner->given_up)
        reset_count(runner, now);
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

void runner_pause(struct runner *runner)
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
    runner_enter(runner, RUNNER_PAUSING);
    runner_telling_pause(runner);
    loop_timer_start(loop_of(runner), &runner->pause, ms);
    runner_tell(runner, ENGINE_WAITING);
}

void runner_losing_init(struct runner *runner)
{
    runner->pause.fire = pause_fire;
}

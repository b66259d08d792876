/* replica/runner_losing.c - what is worth trying again when a device of a plan is lost, and
 * when.
 */
#include <errno.h>

#include "replica/base/checked.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "replica/runner.h"

enum { PAUSE_FIRST_MS = 100, PAUSE_MOST_MS = 5000 };

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
void runner_failed(
        struct runner *runner, const struct fault *fault, bool on_target, bool again)
{
    struct instant now = loop_now(loop_of(runner));

    runner->end = ENGINE_FAILED;
    runner->fault = *fault;
    runner->on_target = on_target;
    runner->retry = runner_error_is_loss(fault->error) ||
            (again && is_lost_again(fault->error)) || is_given_up(runner, on_target);
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

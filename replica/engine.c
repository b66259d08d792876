/* replica/engine.c - the lanes, the plans that run on them, and the calls from outside. */
#include "replica/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/digests.h"
#include "replica/runner.h"

enum { THREADS_SHARED = 16, THREADS_PER_LOOP = 8, STALL_MS = 10000 };

/* -- threads ------------------------------------------------------------------------- */

static void *lane_main(void *argument)
{
    struct lane *lane = argument;

    loop_run(lane->loop);
    return NULL;
}

/* libuv's pool is one for the process, sized once, before its first use. Enough that one
   stuck disk, of which a device may hold four threads, does not stop the others. */
static void size_pool(unsigned loops)
{
    char text[16];

    (void)snprintf(text, sizeof text, "%u", THREADS_SHARED + THREADS_PER_LOOP * loops);
    (void)setenv("UV_THREADPOOL_SIZE", text, 0);
}

static bool lane_start(struct lane *lane, unsigned number)
{
    sigset_t all, before;
    char name[16];

    lane->loop = loop_uv_create();
    if (!lane->loop)
        return false;
    sigfillset(&all); /* signals are for main's thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    lane->running = pthread_create(&lane->thread, NULL, lane_main, lane) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!lane->running)
        return false;
    (void)snprintf(name, sizeof name, "loop-%u", number % 1000);
    (void)pthread_setname_np(lane->thread, name);
    return true;
}

static void lanes_stop(struct engine *engine)
{
    for (unsigned i = 0; i < engine->lane_count; i++) {
        struct lane *lane = &engine->lanes[i];
        if (lane->running) {
            loop_stop(lane->loop);
            (void)pthread_join(lane->thread, NULL);
        }
        loop_destroy(lane->loop);
    }
}

static void lane_shut(struct loop_task *task)
{
    ends_shut(container_of(task, struct lane, shutting));
}

static bool lanes_start(struct engine *engine)
{
    for (unsigned i = 0; i < engine->lane_count; i++) {
        engine->lanes[i].engine = engine;
        engine->lanes[i].shutting.run = lane_shut;
        if (!lane_start(&engine->lanes[i], i))
            return false;
    }
    return true;
}

struct lane *lane_take(struct engine *engine)
{
    struct lane *least = &engine->lanes[0];

    for (unsigned i = 1; i < engine->lane_count; i++)
        if (engine->lanes[i].load < least->load)
            least = &engine->lanes[i];
    least->load++;
    return least;
}

void lane_give(struct lane *lane)
{
    check(lane->load > 0);
    lane->load--;
}

/* -- life ---------------------------------------------------------------------------- */

uint64_t engine_isid(struct engine *engine)
{
    const uint64_t random_type = UINT64_C(0x80) << 40, rest = (UINT64_C(1) << 40) - 1;
    uint64_t number = atomic_fetch_add(&engine->isid_next, 1);

    return random_type | ((engine->isid_base + number) & rest);
}

static void engine_free(struct engine *engine)
{
    lanes_stop(engine);
    if (engine->credentials >= 0)
        (void)close(engine->credentials);
    if (engine->digests >= 0)
        (void)close(engine->digests);
    pthread_cond_destroy(&engine->changed);
    pthread_mutex_destroy(&engine->lock);
    engine_pools_close(engine);
    free(engine->allow);
    free(engine->lanes);
    free(engine);
}

static void locks_init(struct engine *engine)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&engine->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static int credentials_open(
        struct engine *engine, const char *path, struct fault *fault)
{
    if (!path)
        return 0;
    engine->credentials = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (engine->credentials >= 0)
        return 0;
    return fault_set(fault, -errno, "the directory of credentials cannot be opened: %s",
            strerrordesc_np(errno));
}

static int digests_open_directory(
        struct engine *engine, const char *path, struct fault *fault)
{
    scoped_fd int state = -1;

    if (!path)
        return 0;
    state = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (state >= 0 && (mkdirat(state, "digests", 0700) == 0 || errno == EEXIST))
        engine->digests = openat(
                state, "digests", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (engine->digests >= 0)
        return 0;
    return fault_set(fault, -errno, "the directory of digests cannot be opened: %s",
            strerrordesc_np(errno));
}

static int allow_copy(struct engine *engine, const struct engine_options *options,
        struct fault *fault)
{
    engine->allow = calloc(options->allow_count + 1, sizeof *engine->allow);
    if (!engine->allow)
        return fault_set(fault, -ENOMEM, "out of memory");
    if (options->allow_count)
        memcpy(engine->allow, options->allow,
                options->allow_count * sizeof *engine->allow);
    engine->allow_count = options->allow_count;
    return 0;
}

static int take_options(struct engine *engine, const struct engine_options *options,
        struct fault *fault)
{
    const char *initiator = options->initiator ? options->initiator : "";
    int result;

    engine->open = end_open;
    engine->connect_timeout_ms = options->connect_timeout_ms;
    engine->io_timeout_ms = options->io_timeout_ms;
    engine->recovery_ms = options->recovery_ms;
    engine->stall_ms = options->stall_ms ? options->stall_ms : STALL_MS;
    atomic_store(&engine->meter.limit, options->limit);
    engine->event = options->event;
    engine->context = options->context;
    if (strlen(initiator) >= sizeof engine->initiator)
        return fault_set(fault, -EINVAL, "the initiator name is too long");
    strcpy(engine->initiator, initiator);
    if (getrandom(&engine->isid_base, sizeof engine->isid_base, 0) < 0)
        return fault_set(
                fault, -errno, "no random numbers: %s", strerrordesc_np(errno));
    result = credentials_open(engine, options->credentials, fault);
    if (result == 0)
        result = digests_open_directory(engine, options->state_directory, fault);
    if (result == 0)
        result = allow_copy(engine, options, fault);
    return result ? result : engine_pools_open(engine, options, fault);
}

static unsigned lanes_wanted(const struct engine_options *options)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (options->loops)
        return options->loops;
    return cores > 0 ? (unsigned)cores : 1;
}

struct engine *engine_create(const struct engine_options *options, struct fault *fault)
{
    struct engine *engine = calloc(1, sizeof *engine);

    if (!engine) {
        fault_set(fault, -ENOMEM, "out of memory");
        return NULL;
    }
    check(options->event);
    engine->credentials = engine->digests = -1;
    locks_init(engine);
    if (take_options(engine, options, fault) < 0) {
        engine_free(engine);
        return NULL;
    }
    size_pool(lanes_wanted(options));
    engine->lanes = calloc(lanes_wanted(options), sizeof *engine->lanes);
    engine->lane_count = engine->lanes ? lanes_wanted(options) : 0;
    if (!engine->lanes || !lanes_start(engine)) {
        fault_set(fault, -EAGAIN, "the worker threads cannot be started");
        engine_free(engine);
        return NULL;
    }
    return engine;
}

static void runner_wish_stop(struct runner *runner, enum engine_stop how)
{
    if (runner->stop_wanted < 1 + (int)how)
        runner->stop_wanted = 1 + (int)how;
    runner_ring(runner);
}

void engine_shut(struct engine *engine)
{
    if (!engine)
        return;
    pthread_mutex_lock(&engine->lock);
    for (struct runner *r = engine->runners; r; r = r->next)
        if (!r->over)
            runner_wish_stop(r, ENGINE_DRAIN);
    for (unsigned i = 0; !engine->closing && i < engine->lane_count; i++)
        loop_post(engine->lanes[i].loop, &engine->lanes[i].shutting);
    engine->closing = true;
    pthread_mutex_unlock(&engine->lock);
}

bool engine_drain(struct engine *engine, unsigned ms)
{
    struct timespec deadline = deadline_in(ms);
    bool busy;
    int result = 0;

    if (!engine)
        return true;
    engine_shut(engine);
    pthread_mutex_lock(&engine->lock);
    while ((busy = engine->runners || engine->probes) && result != ETIMEDOUT)
        result = ms ? pthread_cond_timedwait(&engine->changed, &engine->lock, &deadline)
                    : pthread_cond_wait(&engine->changed, &engine->lock);
    pthread_mutex_unlock(&engine->lock);
    return !busy;
}

void engine_destroy(struct engine *engine)
{
    if (!engine)
        return;
    (void)engine_drain(engine, 0);
    engine_free(engine);
}

/* -- plans --------------------------------------------------------------------------- */

/* Under the lock. One that is over may still be on the list for a moment. */
static struct runner *find(struct engine *engine, const struct uuid *id, bool over_too)
{
    struct runner *found = NULL;

    for (struct runner *r = engine->runners; r; r = r->next) {
        if (!uuid_equal(&r->plan.id, id))
            continue;
        if (!r->over)
            return r;
        if (over_too)
            found = r;
    }
    return found;
}

struct runner *engine_find(struct engine *engine, const struct uuid *id)
{
    return find(engine, id, false);
}

int engine_start(struct engine *engine, const struct engine_plan *plan)
{
    struct lane *lane;
    struct runner *runner = NULL;
    int result = 0;

    pthread_mutex_lock(&engine->lock);
    if (engine->closing)
        result = -ESHUTDOWN;
    else if (find(engine, &plan->id, false))
        result = -EALREADY;
    if (result == 0) {
        lane = lane_take(engine);
        runner = runner_create(engine, lane, plan);
        if (runner &&
                !pipe_take(engine, &plan->pipe, plan->pipe_limit, &runner->pipe)) {
            free(runner);
            runner = NULL;
        }
        if (!runner) {
            lane_give(lane);
            result = -ENOMEM;
        }
    }
    if (runner) {
        runner->next = engine->runners;
        engine->runners = runner;
        engine->plans++;
        runner_ring(runner);
    }
    pthread_mutex_unlock(&engine->lock);
    return result;
}

bool engine_forget(struct engine *engine, struct runner *runner)
{
    struct runner **link = &engine->runners;
    bool idle;

    pthread_mutex_lock(&engine->lock);
    while (*link != runner)
        link = &(*link)->next;
    *link = runner->next;
    engine->plans--;
    lane_give(runner->lane);
    pipe_give(engine, runner->pipe);
    for (struct waiter *w = runner->waiters; w; w = w->next)
        w->done = true;
    idle = !runner->queued;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    return idle;
}

int engine_stop(struct engine *engine, const struct uuid *id, enum engine_stop how)
{
    struct runner *runner;

    pthread_mutex_lock(&engine->lock);
    runner = find(engine, id, false);
    if (runner)
        runner_wish_stop(runner, how);
    pthread_mutex_unlock(&engine->lock);
    return runner ? 0 : -ESRCH;
}

/* Under the lock; @waiter was on @runner's list and is off it afterwards. */
static int wait_for(struct engine *engine, struct runner *runner, struct waiter *waiter,
        const struct timespec *deadline)
{
    struct waiter **link;
    int result = 0;

    while (!waiter->done && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&engine->changed, &engine->lock, deadline);
    if (waiter->done) /* the runner is gone */
        return 0;
    for (link = &runner->waiters; *link != waiter; link = &(*link)->next)
        ;
    *link = waiter->next;
    return -ETIMEDOUT;
}

int engine_stop_wait(
        struct engine *engine, const struct uuid *id, enum engine_stop how, unsigned ms)
{
    struct timespec deadline = deadline_in(ms);
    struct waiter waiter = { 0 };
    struct runner *runner;
    int result = -ESRCH;

    pthread_mutex_lock(&engine->lock);
    runner = find(engine, id, true);
    if (runner) {
        if (!runner->over)
            runner_wish_stop(runner, how);
        waiter.next = runner->waiters;
        runner->waiters = &waiter;
        result = wait_for(engine, runner, &waiter, &deadline);
    }
    pthread_mutex_unlock(&engine->lock);
    return result;
}

int engine_pair_forget(struct engine *engine, const struct uuid *pair)
{
    pthread_mutex_lock(&engine->lock);
    for (struct runner *r = engine->runners; r; r = r->next)
        if (uuid_equal(&r->plan.pair, pair))
            atomic_store(&r->forgotten, true);
    pthread_mutex_unlock(&engine->lock);
    return digests_remove(engine, pair);
}

/* -- figures ------------------------------------------------------------------------- */

uint64_t engine_stalled_ms(struct engine *engine)
{
    uint64_t most = 0;

    for (unsigned i = 0; i < engine->lane_count; i++) {
        uint64_t ms = loop_stalled_ms(engine->lanes[i].loop);
        most = ms > most ? ms : most;
    }
    return most;
}

void engine_figures(struct engine *engine, struct engine_figures *figures)
{
    *figures = (struct engine_figures){ .loops = engine->lane_count,
        .read_bytes = atomic_load(&engine->read_bytes),
        .written_bytes = atomic_load(&engine->written_bytes),
        .skipped_bytes = atomic_load(&engine->skipped_bytes),
        .reopened = atomic_load(&engine->reopened) };
    pthread_mutex_lock(&engine->lock);
    figures->plans = engine->plans;
    pthread_mutex_unlock(&engine->lock);
}

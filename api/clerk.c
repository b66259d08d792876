/* The queue and the thread.
 *
 * The calls of a batch sleep on one word, those that gather meanwhile on another: a commit
 * wakes those it answers, all with one system call, and nobody else, and who wakes asks for
 * no lock. The clerk is told of work only when it sleeps.
 */
#include "api/clerk.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "api/clerk_inside.h"
#include "api/service.h"
#include "replica/base/check.h"
#include "replica/base/clock.h"
#include "replica/base/scope.h"

enum { HOUSEKEEPING_MS = 1000 }; /* at most this often, and when idle */

struct clerk {
    struct service *service;
    pthread_t thread;

    pthread_mutex_t lock; /* what follows is under it */
    pthread_cond_t work;
    struct clerk_note *first, **end;
    _Atomic uint32_t *round; /* of @rounds: where the calls of that queue sleep */
    int64_t wake_at; /* wall ms; 0: not asked */
    bool stop, busy;
    bool asleep; /* on @work, and not woken yet */
    struct instant since; /* the clerk's last turn, while there is work */

    _Atomic uint32_t rounds[2]; /* any thread: one more with each batch answered */

    /* the clerk's thread only */
    struct instant housekeeping_due;
    struct clerk_batch batch;
};

/* -- the calls of a batch, which sleep ---------------------------------------------------- */

static void round_sleep(_Atomic uint32_t *round, uint32_t seen)
{
    (void)syscall(SYS_futex, round, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void round_end(_Atomic uint32_t *round)
{
    atomic_fetch_add(round, 1);
    (void)syscall(SYS_futex, round, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void calls_answer(struct clerk_note *list, int result, _Atomic uint32_t *round)
{
    struct clerk_note *note, *next;

    if (!list)
        return;
    for (note = list; note; note = next) {
        struct clerk_call *call = container_of(note, struct clerk_call, note);
        next = note->next;
        if (result)
            call->result = result;
        atomic_store(&call->answered, true);
    }
    round_end(round);
}

/* -- the thread ------------------------------------------------------------------------- */

/** When the clerk has to look again though nobody asks; under the lock. */
static uint64_t clerk_patience(struct clerk *clerk, struct instant now)
{
    uint64_t ms = instant_ms_until(now, clerk->housekeeping_due);

    if (clerk->batch.late && instant_ms_until(now, clerk->batch.late_due) < ms)
        ms = instant_ms_until(now, clerk->batch.late_due);
    if (clerk->wake_at) {
        int64_t wall = clerk->wake_at - clock_wall_ms();
        if (wall < 0)
            wall = 0;
        if ((uint64_t)wall < ms)
            ms = (uint64_t)wall;
    }
    return ms;
}

static void clerk_sleep(struct clerk *clerk, uint64_t ms)
{
    struct instant until = instant_add_ms(clock_monotonic(), ms);
    struct timespec due = { .tv_sec = (time_t)(until.ns / 1000000000u),
        .tv_nsec = (long)(until.ns % 1000000000u) };

    clerk->asleep = true;
    (void)pthread_cond_timedwait(&clerk->work, &clerk->lock, &due);
    clerk->asleep = false;
}

/** Take what is queued, late notes first; under the lock. */
static struct clerk_note *clerk_take(struct clerk *clerk, _Atomic uint32_t **round)
{
    struct clerk_note *list = clerk->first, **end;

    *round = clerk->round;
    clerk->round = &clerk->rounds[clerk->round == clerk->rounds];
    clerk->first = NULL;
    clerk->end = &clerk->first;
    if (!clerk->batch.late)
        return list;
    for (end = &clerk->batch.late; *end; end = &(*end)->next)
        ;
    *end = list;
    list = clerk->batch.late;
    clerk->batch.late = NULL;
    return list;
}

static bool clerk_wake_due(struct clerk *clerk)
{
    if (!clerk->wake_at || clerk->wake_at > clock_wall_ms())
        return false;
    clerk->wake_at = 0;
    return true;
}

/** Wait for work; under the lock, which is held again on return. False: stop. */
static bool clerk_wait(struct clerk *clerk, bool *due)
{
    for (;;) {
        struct instant now = clock_monotonic();
        *due = clerk_wake_due(clerk);
        if (clerk->first || *due || instant_reached(now, clerk->housekeeping_due) ||
                (clerk->batch.late && instant_reached(now, clerk->batch.late_due)))
            return true;
        if (clerk->stop)
            return false;
        clerk_sleep(clerk, clerk_patience(clerk, now));
    }
}

static void clerk_keep_house(struct clerk *clerk, bool idle)
{
    struct instant now = clock_monotonic();

    if (!instant_reached(now, clerk->housekeeping_due))
        return;
    service_tick(clerk->service);
    if (clerk->batch.dirty || store_tight(clerk->batch.store))
        clerk->batch.dirty = store_checkpoint(clerk->batch.store, idle) != 0 || !idle;
    clerk->housekeeping_due = instant_add_ms(now, HOUSEKEEPING_MS);
}

static void *clerk_main(void *context)
{
    struct clerk *clerk = context;
    struct clerk_note *calls;
    _Atomic uint32_t *round;
    bool due;
    int result;

    pthread_mutex_lock(&clerk->lock);
    while (clerk_wait(clerk, &due)) {
        struct clerk_note *list = clerk_take(clerk, &round);
        clerk->busy = true;
        clerk->since = clock_monotonic();
        pthread_mutex_unlock(&clerk->lock);
        if (list || due) {
            result = clerk_batch_do(&clerk->batch, list, due, &calls);
            calls_answer(calls, result, round);
        }
        clerk_keep_house(clerk, !list);
        pthread_mutex_lock(&clerk->lock);
        clerk->busy = false;
        clerk->since = clock_monotonic();
    }
    pthread_mutex_unlock(&clerk->lock);
    return NULL;
}

/* -- the face --------------------------------------------------------------------------- */

/** Under the lock. True: the clerk sleeps, and is to be woken once the lock is free. */
static bool clerk_rouse(struct clerk *clerk)
{
    bool asleep = clerk->asleep;

    clerk->asleep = false;
    return asleep;
}

/** Under the lock; true as clerk_rouse(). */
static bool clerk_queue(struct clerk *clerk, struct clerk_note *note)
{
    note->next = NULL;
    if (!clerk->first && !clerk->busy)
        clerk->since = clock_monotonic();
    *clerk->end = note;
    clerk->end = &note->next;
    return clerk_rouse(clerk);
}

static void clerk_unlock(struct clerk *clerk, bool rouse)
{
    pthread_mutex_unlock(&clerk->lock);
    if (rouse)
        pthread_cond_signal(&clerk->work);
}

static int call_run(struct clerk *clerk, struct clerk_call *call)
{
    _Atomic uint32_t *round;

    check(!pthread_equal(pthread_self(), clerk->thread));
    pthread_mutex_lock(&clerk->lock);
    if (clerk->stop || clerk->service->draining) {
        pthread_mutex_unlock(&clerk->lock);
        return -ESHUTDOWN;
    }
    round = clerk->round;
    clerk_unlock(clerk, clerk_queue(clerk, &call->note));
    for (;;) { /* a signal may come between, or the end of the next but one */
        uint32_t seen = atomic_load(round);
        if (atomic_load(&call->answered))
            return call->result;
        round_sleep(round, seen);
    }
}

int clerk_call(struct clerk *clerk, clerk_work_f *work, void *context)
{
    struct clerk_call call = { .work = work, .context = context };

    return call_run(clerk, &call);
}

int clerk_add(struct clerk *clerk, clerk_work_f *work, void *context)
{
    struct clerk_call call = { .work = work, .context = context, .adds = true };

    return call_run(clerk, &call);
}

void clerk_post(struct clerk *clerk, struct clerk_note *note)
{
    pthread_mutex_lock(&clerk->lock);
    clerk_unlock(clerk, clerk_queue(clerk, note));
}

void clerk_wake_at(struct clerk *clerk, int64_t wall_ms)
{
    bool rouse = false;

    pthread_mutex_lock(&clerk->lock);
    if (!clerk->wake_at || wall_ms < clerk->wake_at) {
        clerk->wake_at = wall_ms > 0 ? wall_ms : 1;
        rouse = clerk_rouse(clerk);
    }
    clerk_unlock(clerk, rouse);
}

uint64_t clerk_stalled_ms(struct clerk *clerk)
{
    uint64_t ms = 0;

    pthread_mutex_lock(&clerk->lock);
    if (clerk->busy || clerk->first)
        ms = instant_ms_until(clerk->since, clock_monotonic());
    pthread_mutex_unlock(&clerk->lock);
    return ms;
}

unsigned clerk_waiting(struct clerk *clerk)
{
    unsigned count = 0;

    pthread_mutex_lock(&clerk->lock);
    for (struct clerk_note *note = clerk->first; note; note = note->next)
        count++;
    pthread_mutex_unlock(&clerk->lock);
    return count;
}

bool clerk_failing(struct clerk *clerk)
{
    return clerk->batch.failing;
}

struct clerk *clerk_create(struct service *service, struct store *store)
{
    struct clerk *clerk = calloc(1, sizeof(*clerk));
    pthread_condattr_t attributes;

    if (!clerk)
        return NULL;
    clerk->service = clerk->batch.service = service;
    clerk->batch.store = store;
    clerk->end = &clerk->first;
    clerk->round = clerk->rounds;
    pthread_mutex_init(&clerk->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&clerk->work, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&clerk->thread, NULL, clerk_main, clerk) == 0)
        return clerk;
    pthread_cond_destroy(&clerk->work);
    pthread_mutex_destroy(&clerk->lock);
    free(clerk);
    return NULL;
}

void clerk_destroy(struct clerk *clerk)
{
    if (!clerk)
        return;
    pthread_mutex_lock(&clerk->lock);
    clerk->stop = true;
    clerk_unlock(clerk, clerk_rouse(clerk));
    pthread_join(clerk->thread, NULL);
    clerk_batch_finish(&clerk->batch);
    pthread_cond_destroy(&clerk->work);
    pthread_mutex_destroy(&clerk->lock);
    free(clerk);
}

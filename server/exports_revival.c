#include "server/exports_revival.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "replica/base/clock.h"

enum {
    REVIVAL_THREADS =
            8, /* so many portals may be dead before a living one has to wait */
    STACK_BYTES = 256 << 10,
    ROUND_MS = 2000, /* between two rounds, while something is left */
    CANCEL_MS = 100
};

struct revival {
    struct service *service;
    struct revival_ops ops;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* CLOCK_MONOTONIC; all of what follows is under the lock */
    bool stopping;
    uint64_t asked; /* grows with each revival_ask() */
    unsigned running;
    pthread_t threads[REVIVAL_THREADS];
    unsigned thread_count; /* constant once started */
};

/** Under the lock. False: @until has passed. */
static bool revival_sleep(struct revival *revival, struct instant until)
{
    struct timespec due = instant_timespec(until);

    return pthread_cond_timedwait(&revival->wake, &revival->lock, &due) != ETIMEDOUT;
}

/** Until somebody asks anew, or with something @left for a while. False: it is over. */
static bool revival_wait(struct revival *revival, uint64_t *seen, bool left)
{
    struct instant until = instant_add_ms(clock_monotonic(), ROUND_MS);
    bool goes_on, waits = true;

    pthread_mutex_lock(&revival->lock);
    while (!revival->stopping && waits && revival->asked == *seen) {
        if (left)
            waits = revival_sleep(revival, until);
        else
            (void)pthread_cond_wait(&revival->wake, &revival->lock);
    }
    *seen = revival->asked;
    goes_on = !revival->stopping;
    pthread_mutex_unlock(&revival->lock);
    return goes_on;
}

static void *revival_main(void *argument)
{
    struct revival *revival = argument;
    uint64_t seen = 0;
    unsigned left;

    do {
        left = revival->ops.tidy(revival->ops.context);
        left += service_exports_resume(revival->service);
    } while (revival_wait(revival, &seen, left > 0));
    pthread_mutex_lock(&revival->lock);
    revival->running--;
    pthread_cond_broadcast(&revival->wake);
    pthread_mutex_unlock(&revival->lock);
    return NULL;
}

static void locks_init(struct revival *revival)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&revival->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&revival->wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void threads_start(struct revival *revival)
{
    pthread_attr_t attributes;
    bool started = true;

    pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_mutex_lock(&revival->lock);
    while (started && revival->thread_count < REVIVAL_THREADS) {
        started = pthread_create(&revival->threads[revival->thread_count], &attributes,
                          revival_main, revival) == 0;
        revival->thread_count += started;
    }
    revival->running = revival->thread_count;
    pthread_mutex_unlock(&revival->lock);
    pthread_attr_destroy(&attributes);
}

struct revival *revival_start(struct service *service, const struct revival_ops *ops)
{
    struct revival *revival = calloc(1, sizeof(*revival));

    if (!revival)
        return NULL;
    revival->service = service;
    revival->ops = *ops;
    locks_init(revival);
    threads_start(revival);
    if (revival->thread_count > 0) /* fewer do, more slowly */
        return revival;
    revival_stop(revival);
    return NULL;
}

void revival_ask(struct revival *revival)
{
    pthread_mutex_lock(&revival->lock);
    revival->asked++;
    pthread_cond_broadcast(&revival->wake);
    pthread_mutex_unlock(&revival->lock);
}

void revival_stop(struct revival *revival)
{
    if (!revival)
        return;
    pthread_mutex_lock(&revival->lock);
    revival->stopping = true;
    pthread_cond_broadcast(&revival->wake);
    while (revival->running > 0) {
        pthread_mutex_unlock(&revival->lock);
        revival->ops.cancel(revival->ops.context); /* again: one may just have begun */
        pthread_mutex_lock(&revival->lock);
        if (revival->running > 0)
            (void)revival_sleep(revival, instant_add_ms(clock_monotonic(), CANCEL_MS));
    }
    pthread_mutex_unlock(&revival->lock);
    for (unsigned i = 0; i < revival->thread_count; i++)
        (void)pthread_join(revival->threads[i], NULL);
    pthread_cond_destroy(&revival->wake);
    pthread_mutex_destroy(&revival->lock);
    free(revival);
}

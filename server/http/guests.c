#include "server/http/guests.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "replica/base/log.h"

enum { IDLE_MS = 60 * 1000 }; /* the reaper looks that often when nothing is due */

/* False: it has just been given more time. */
static bool guest_cut(struct guest *guest, uint64_t due)
{
    if (!atomic_compare_exchange_strong(&guest->due, &due, 0))
        return false;
    guest->guests->cut++;
    (void)shutdown(guest->fd, SHUT_RDWR);
    return true;
}

/* Cut what is due; returns when to look again. */
static uint64_t guests_sweep(struct guests *guests, struct instant now)
{
    uint64_t next = instant_add_ms(now, IDLE_MS).ns;
    struct guest *guest;

    LIST_FOREACH(guest, &guests->open, entry) {
        uint64_t due = atomic_load(&guest->due);
        if (due == 0 || (due <= now.ns && guest_cut(guest, due)))
            continue;
        if (due < next)
            next = due;
    }
    return next;
}

static void *guests_reap(void *context)
{
    struct guests *guests = context;
    uint64_t told = 0;

    pthread_mutex_lock(&guests->lock);
    while (!guests->stop) {
        struct timespec until;
        uint64_t wake;

        /* A due time set before this store is seen by the sweep, a later one signals. */
        atomic_store(&guests->wake, UINT64_MAX);
        wake = guests_sweep(guests, clock_monotonic());
        atomic_store(&guests->wake, wake);
        if (guests->cut != told) {
            uint64_t cut = guests->cut;
            pthread_mutex_unlock(&guests->lock);
            log_plain(LOG_INFO, "http-cut",
                    "%llu connections were too slow and were cut",
                    (unsigned long long)(cut - told));
            told = cut;
            pthread_mutex_lock(&guests->lock);
            continue;
        }
        until = instant_timespec((struct instant){ wake });
        (void)pthread_cond_timedwait(&guests->turn, &guests->lock, &until);
    }
    pthread_mutex_unlock(&guests->lock);
    return NULL;
}

int guests_start(struct guests *guests, unsigned limit)
{
    pthread_condattr_t attributes;
    int result;

    *guests = (struct guests){ .limit = limit };
    pthread_mutex_init(&guests->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&guests->turn, &attributes);
    pthread_condattr_destroy(&attributes);
    result = pthread_create(&guests->reaper, NULL, guests_reap, guests);
    if (result != 0) {
        pthread_cond_destroy(&guests->turn);
        pthread_mutex_destroy(&guests->lock);
    }
    return -result;
}

void guests_stop(struct guests *guests)
{
    pthread_mutex_lock(&guests->lock);
    guests->stop = true;
    pthread_cond_signal(&guests->turn);
    pthread_mutex_unlock(&guests->lock);
    pthread_join(guests->reaper, NULL);
    pthread_cond_destroy(&guests->turn);
    pthread_mutex_destroy(&guests->lock);
}

static uint64_t due_after(unsigned ms)
{
    return instant_add_ms(clock_monotonic(), ms).ns;
}

static void due_set(struct guest *guest, uint64_t due)
{
    struct guests *guests = guest->guests;

    atomic_store(&guest->due, due);
    if (due >= atomic_load(&guests->wake))
        return;
    pthread_mutex_lock(&guests->lock);
    pthread_cond_signal(&guests->turn);
    pthread_mutex_unlock(&guests->lock);
}

struct guest *guest_enter(struct guests *guests, int fd, bool counted, unsigned due_ms)
{
    struct guest *guest = calloc(1, sizeof(*guest));

    if (!guest)
        return NULL;
    guest->guests = guests;
    guest->fd = fd;
    guest->counted = counted;
    pthread_mutex_lock(&guests->lock);
    if (counted)
        guest->surplus = ++guests->counted > guests->limit;
    LIST_INSERT_HEAD(&guests->open, guest, entry);
    pthread_mutex_unlock(&guests->lock);
    due_set(guest, due_after(due_ms));
    return guest;
}

void guest_leave(struct guest *guest)
{
    struct guests *guests = guest->guests;

    pthread_mutex_lock(&guests->lock);
    if (guest->counted)
        guests->counted--;
    LIST_REMOVE(guest, entry);
    pthread_mutex_unlock(&guests->lock);
    free(guest);
}

void guest_arm(struct guest *guest, unsigned ms)
{
    due_set(guest, due_after(ms));
}

void guest_hasten(struct guest *guest, unsigned ms)
{
    uint64_t due = due_after(ms), now = atomic_load(&guest->due);

    if (now == 0 || due < now)
        due_set(guest, due);
}

void guest_disarm(struct guest *guest)
{
    atomic_store(&guest->due, 0);
}

uint64_t guests_cut(struct guests *guests)
{
    pthread_mutex_lock(&guests->lock);
    uint64_t cut = guests->cut;
    pthread_mutex_unlock(&guests->lock);
    return cut;
}

unsigned guests_counted(struct guests *guests)
{
    pthread_mutex_lock(&guests->lock);
    unsigned counted = guests->counted;
    pthread_mutex_unlock(&guests->lock);
    return counted;
}

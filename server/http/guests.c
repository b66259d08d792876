#include "server/http/guests.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "replica/base/log.h"

enum { IDLE_MS = 60 * 1000 }; /* the reaper looks that often when nothing is due */

static void guest_cut(struct guest *guest)
{
    guest->due.ns = 0;
    guest->guests->cut++;
    (void)shutdown(guest->fd, SHUT_RDWR);
}

/* Cut what is due; returns when to look again. */
static struct instant guests_sweep(struct guests *guests, struct instant now)
{
    struct instant next = instant_add_ms(now, IDLE_MS);

    for (struct guest *guest = guests->first; guest; guest = guest->next) {
        if (guest->due.ns == 0)
            continue;
        if (instant_reached(now, guest->due))
            guest_cut(guest);
        else if (guest->due.ns < next.ns)
            next = guest->due;
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

        guests->wake = guests_sweep(guests, clock_monotonic());
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
        until.tv_sec = (time_t)(guests->wake.ns / 1000000000u);
        until.tv_nsec = (long)(guests->wake.ns % 1000000000u);
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

/* Holds the lock. */
static void due_set(struct guest *guest, struct instant due)
{
    guest->due = due;
    if (due.ns != 0 && due.ns < guest->guests->wake.ns)
        pthread_cond_signal(&guest->guests->turn);
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
    guest->next = guests->first;
    if (guest->next)
        guest->next->previous = guest;
    guests->first = guest;
    due_set(guest, instant_add_ms(clock_monotonic(), due_ms));
    pthread_mutex_unlock(&guests->lock);
    return guest;
}

void guest_leave(struct guest *guest)
{
    struct guests *guests = guest->guests;

    pthread_mutex_lock(&guests->lock);
    if (guest->counted)
        guests->counted--;
    if (guest->previous)
        guest->previous->next = guest->next;
    else
        guests->first = guest->next;
    if (guest->next)
        guest->next->previous = guest->previous;
    pthread_mutex_unlock(&guests->lock);
    free(guest);
}

void guest_arm(struct guest *guest, unsigned ms)
{
    pthread_mutex_lock(&guest->guests->lock);
    due_set(guest, instant_add_ms(clock_monotonic(), ms));
    pthread_mutex_unlock(&guest->guests->lock);
}

void guest_hasten(struct guest *guest, unsigned ms)
{
    struct instant due = instant_add_ms(clock_monotonic(), ms);

    pthread_mutex_lock(&guest->guests->lock);
    if (guest->due.ns == 0 || due.ns < guest->due.ns)
        due_set(guest, due);
    pthread_mutex_unlock(&guest->guests->lock);
}

void guest_disarm(struct guest *guest)
{
    pthread_mutex_lock(&guest->guests->lock);
    guest->due.ns = 0;
    pthread_mutex_unlock(&guest->guests->lock);
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

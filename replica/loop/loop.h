/* replica/loop/loop.h - one thread's event loop: post, timer, descriptor watch, work
 * off-loop.
 *
 * Two implementations stand behind this face: libuv (loop_uv.c) and the simulated loop
 * (loop_sim.c: a fake clock and a seeded random order). Code above knows neither.
 *
 * Threads: everything here is called on the loop's own thread, but loop_post(), which
 * any thread may call. Callbacks run on the loop's thread, never from inside the call
 * that asked for them. Nothing here allocates per call: the caller embeds the structs
 * below in its own and keeps them alive until the callback, or until the stop call
 * returns.
 */
#ifndef REPLICA_LOOP_LOOP_H
#define REPLICA_LOOP_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/clock.h"

struct loop;

/** A call handed to the loop. @run is set by the caller; the rest is the loop's. */
struct loop_task {
    void (*run)(struct loop_task *);
    struct loop_task *next;
    bool queued;
};

struct loop_timer {
    void (*fire)(struct loop_timer *);
    struct instant due; /* the loop's from here on */
    uint64_t order; /* timers of one instant fire in the order of starting */
    size_t place; /* 1-based place in the heap, 0 = idle */
};

enum loop_events { LOOP_READABLE = 1, LOOP_WRITABLE = 2 };

struct loop_watch {
    void (*ready)(
            struct loop_watch *, unsigned events); /* LOOP_* bits; errors as both */
    void *handle; /* the loop's */
};

/** @work runs on a thread of the pool (it may block), then @done on the loop. */
struct loop_work {
    void (*work)(struct loop_work *);
    void (*done)(struct loop_work *);
    struct loop *loop; /* the loop's from here on */
    struct loop_work *next;
    void *handle;
};

/** Run @task on @loop soon, in posting order. A task that is queued must not be posted
 * again. */
void loop_post(struct loop *loop, struct loop_task *task);

/**
 * Run @task at the end of this turn, after what was posted and right before the loop
 * polls: for what a turn gathers, so that it goes down in one system call. In order;
 * what such a task defers in its turn still runs before the poll, a few rounds long. The
 * loop's own thread only, which needs no wake-up: cheaper than a post. The task is queued
 * as by loop_post(), once. On the simulated loop it is a post.
 */
void loop_defer(struct loop *loop, struct loop_task *task);

/**
 * For a deferred task that found more to do by itself, on the descriptor of @watch,
 * which it read without being told to: what is posted and deferred by now runs before
 * the poll, which would have said nothing new. A few rounds a turn, and more of them
 * while the polls find no other watch than this one ready. @watch is only compared.
 * The loop's own thread only. Nothing on the simulated loop.
 */
void loop_again(struct loop *loop, const struct loop_watch *watch);

/**
 * Something that the loop's users share and that ends with the loop. Embedded by whoever
 * makes it; @leave is called by loop_destroy() on the thread that destroys, may stop
 * watches and timers, and frees it.
 */
struct loop_guest {
    void (*leave)(struct loop_guest *);
    struct loop_guest *next; /* the loop's from here on */
};

void loop_guest_add(struct loop *loop, struct loop_guest *guest);

/** The guest that has this @leave, by which it is known; NULL when there is none. */
struct loop_guest *loop_guest_find(
        const struct loop *loop, void (*leave)(struct loop_guest *));

/** True on the loop's own thread: the one that runs it, before that the one that made
   it. For checks on entry. */
bool loop_is_mine(const struct loop *loop);

/** The loop's clock, as of this turn. */
struct instant loop_now(struct loop *loop);

/** (Re)start a timer: fires once after @ms. Stop is harmless when idle. */
void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t ms);
void loop_timer_stop(struct loop *loop, struct loop_timer *timer);
bool loop_timer_active(const struct loop_timer *timer);

/**
 * Watch @fd, which stays the caller's, for @events until stopped; level triggered.
 * Set again to change the events. Stop before the descriptor is closed.
 * Returns 0 or a negative errno (-ENOSYS on the simulated loop).
 */
int loop_watch_set(
        struct loop *loop, struct loop_watch *watch, int fd, unsigned events);
void loop_watch_stop(struct loop *loop, struct loop_watch *watch);

/**
 * Run blocking work on the process-wide pool. Cannot be cancelled: the struct must live
 * until @done. On the simulated loop @work runs on the same thread, at a random later
 * step.
 */
void loop_work_start(struct loop *loop, struct loop_work *work);

/* -- for the owner of a loop ------------------------------------------------------- */

/** Owned by the caller, loop_destroy(). NULL when out of memory or descriptors. */
struct loop *loop_uv_create(void);

/** Run on the calling thread until loop_stop(). Makes that thread the loop's own. */
void loop_run(struct loop *loop);

/** Any thread. What was posted before it still runs; loop_run() then returns. */
void loop_stop(struct loop *loop);

/**
 * One turn on the calling thread, which must be the loop's own: waits until something
 * is ready and runs it. False when nothing is left to wait for (the simulated loop) or
 * the loop was stopped. For callers that wait for a flag of theirs, tests above all.
 */
bool loop_turn(struct loop *loop);

/** Only after loop_run() returned, with no work under way. NULL is fine. */
void loop_destroy(struct loop *loop);

/**
 * Milliseconds since the loop last began a turn, as seen by another thread: the
 * watchdog of /livez. 0 while it sleeps in its poll.
 */
uint64_t loop_stalled_ms(const struct loop *loop);

#endif

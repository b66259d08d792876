/* replica/loop/timers.h - a binary heap of timers, the earliest on top. Private to this
 * room. */
#ifndef REPLICA_LOOP_TIMERS_H
#define REPLICA_LOOP_TIMERS_H

#include "replica/loop/loop.h"

/** Owned by a loop; init() with zeros. */
struct timer_heap {
    struct loop_timer **at; /* at[0] is the earliest */
    size_t count, room;
    uint64_t started; /* timers ever started: the order within one instant */
};

/** (Re)start @timer for @due. O(log n). Running out of memory for it fails a check: the
   heap grows by doubling, and a loop that cannot keep its deadlines is of no use. */
void timer_heap_start(
        struct timer_heap *heap, struct loop_timer *timer, struct instant due);

void timer_heap_stop(struct timer_heap *heap, struct loop_timer *timer);

/** The earliest, or NULL. It stays in the heap. */
struct loop_timer *timer_heap_first(const struct timer_heap *heap);

void timer_heap_finish(struct timer_heap *heap);

#endif

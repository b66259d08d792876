#include "replica/loop/timers.h"

#include <stdlib.h>

#include "replica/base/check.h"

static bool is_before(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->due.ns != b->due.ns ? a->due.ns < b->due.ns : a->order < b->order;
}

static void put_at(struct timer_heap *heap, size_t at, struct loop_timer *timer)
{
    heap->at[at] = timer;
    timer->place = at + 1;
}

static size_t sift_up(struct timer_heap *heap, size_t at, struct loop_timer *timer)
{
    while (at > 0 && is_before(timer, heap->at[(at - 1) / 2])) {
        put_at(heap, at, heap->at[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put_at(heap, at, timer);
    return at;
}

static void sift_down(struct timer_heap *heap, size_t at, struct loop_timer *timer)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < heap->count && is_before(heap->at[child + 1], heap->at[child]))
            child++;
        if (child >= heap->count || !is_before(heap->at[child], timer))
            break;
        put_at(heap, at, heap->at[child]);
        at = child;
    }
    put_at(heap, at, timer);
}

static void heap_reserve(struct timer_heap *heap)
{
    size_t room = heap->room ? heap->room * 2 : 64;

    if (heap->count < heap->room)
        return;
    struct loop_timer **at = realloc(heap->at, room * sizeof(struct loop_timer *));
    check(at);
    heap->at = at;
    heap->room = room;
}

void timer_heap_start(
        struct timer_heap *heap, struct loop_timer *timer, struct instant due)
{
    timer_heap_stop(heap, timer);
    heap_reserve(heap);
    timer->due = due;
    timer->order = heap->started++;
    sift_up(heap, heap->count++, timer);
}

void timer_heap_stop(struct timer_heap *heap, struct loop_timer *timer)
{
    size_t at = timer->place - 1;

    if (timer->place == 0)
        return;
    check(at < heap->count && heap->at[at] == timer);
    timer->place = 0;
    struct loop_timer *last = heap->at[--heap->count];
    if (last != timer && sift_up(heap, at, last) == at)
        sift_down(heap, at, last);
}

struct loop_timer *timer_heap_first(const struct timer_heap *heap)
{
    return heap->count ? heap->at[0] : NULL;
}

void timer_heap_finish(struct timer_heap *heap)
{
    free(heap->at);
    *heap = (struct timer_heap){ .at = NULL };
}

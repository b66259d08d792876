/* The face: checks what only our own code can break, then asks the implementation. */
#include "replica/loop/loop.h"

#include <stdatomic.h>

#include "replica/base/check.h"
#include "replica/loop/ops.h"

const void *loop_thread(void)
{
    static _Thread_local char here;
    return &here;
}

void loop_own(struct loop *loop)
{
    atomic_store_explicit(&loop->owner, loop_thread(), memory_order_relaxed);
}

bool loop_is_mine(const struct loop *loop)
{
    return atomic_load_explicit(&loop->owner, memory_order_relaxed) == loop_thread();
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    check(task->run && !task->queued);
    task->queued = true;
    loop->ops->post(loop, task);
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
    check(loop_is_mine(loop) && task->run && !task->queued);
    task->queued = true;
    loop->ops->defer(loop, task);
}

void loop_again(struct loop *loop, const struct loop_watch *watch)
{
    check(loop_is_mine(loop));
    if (loop->ops->again)
        loop->ops->again(loop, watch);
}

void loop_guest_add(struct loop *loop, struct loop_guest *guest)
{
    check(loop_is_mine(loop) && guest->leave && !loop_guest_find(loop, guest->leave));
    guest->next = loop->guests;
    loop->guests = guest;
}

struct loop_guest *loop_guest_find(
        const struct loop *loop, void (*leave)(struct loop_guest *))
{
    struct loop_guest *guest = loop->guests;

    while (guest && guest->leave != leave)
        guest = guest->next;
    return guest;
}

struct instant loop_now(struct loop *loop)
{
    return loop->ops->now(loop);
}

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t ms)
{
    check(loop_is_mine(loop) && timer->fire);
    loop->ops->timer_start(loop, timer, ms);
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
    check(loop_is_mine(loop));
    loop->ops->timer_stop(loop, timer);
}

bool loop_timer_active(const struct loop_timer *timer)
{
    return timer->place != 0;
}

int loop_watch_set(struct loop *loop, struct loop_watch *watch, int fd, unsigned events)
{
    check(loop_is_mine(loop) && watch->ready && fd >= 0);
    check(events != 0 && (events & ~(unsigned)(LOOP_READABLE | LOOP_WRITABLE)) == 0);
    return loop->ops->watch_set(loop, watch, fd, events);
}

void loop_watch_stop(struct loop *loop, struct loop_watch *watch)
{
    check(loop_is_mine(loop));
    loop->ops->watch_stop(loop, watch);
}

void loop_work_start(struct loop *loop, struct loop_work *work)
{
    check(loop_is_mine(loop) && work->work && work->done);
    work->loop = loop;
    loop->ops->work_start(loop, work);
}

bool loop_turn(struct loop *loop)
{
    check(loop_is_mine(loop));
    return loop->ops->turn(loop);
}

void loop_run(struct loop *loop)
{
    loop_own(loop);
    loop->ops->run(loop);
}

void loop_stop(struct loop *loop)
{
    loop->ops->stop(loop);
}

void loop_destroy(struct loop *loop)
{
    struct loop_guest *guest;

    if (!loop)
        return;
    loop_own(loop);
    while ((guest = loop->guests)) {
        loop->guests = guest->next;
        guest->leave(guest);
    }
    loop->ops->destroy(loop);
}

uint64_t loop_stalled_ms(const struct loop *loop)
{
    return loop->ops->stalled_ms(loop);
}

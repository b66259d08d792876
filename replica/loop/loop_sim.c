/* The simulated loop: one thread, a clock that moves only when nothing is ready, and
 * one generator that draws every order. Nothing here asks the machine for time or
 * chance, so a seed names a history. */
#include "replica/loop/sim.h"

#include <errno.h>
#include <stdlib.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/loop/ops.h"
#include "replica/loop/timers.h"

/* Work under way: first its blocking half, at some later step its other one. */
struct sim_job {
    struct loop_work *work;
    bool worked;
};

struct sim_side {
    struct loop base;
    uint64_t state; /* of the generator */
    struct instant now;
    struct loop_task *first_task, **last_task;
    struct timer_heap timers;
    struct sim_job *jobs;
    size_t job_count, job_room;
    struct loop_task stop_task;
    bool stopping, stopped;
};

static struct sim_side *side_of(struct loop *loop)
{
    return container_of(loop, struct sim_side, base);
}

/* -- chance ------------------------------------------------------------------------ */

uint64_t loop_sim_random(struct loop *loop)
{
    uint64_t z;

    check(loop_is_simulated(loop));
    z = side_of(loop)->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t loop_sim_below(struct loop *loop, uint64_t below)
{
    check(below > 0);
    return loop_sim_random(loop) % below; /* the bias is far below what tests can see */
}

/* -- what is ready ----------------------------------------------------------------- */

static void run_task(struct sim_side *side)
{
    struct loop_task *task = side->first_task;

    side->first_task = task->next;
    if (!side->first_task)
        side->last_task = &side->first_task;
    task->queued = false;
    task->run(task);
}

static void run_job(struct sim_side *side, size_t at)
{
    struct loop_work *work = side->jobs[at].work;

    if (!side->jobs[at].worked) {
        side->jobs[at].worked = true;
        work->work(work);
        return;
    }
    side->jobs[at] = side->jobs[--side->job_count];
    work->done(work);
}

static void run_timer(struct sim_side *side)
{
    struct loop_timer *timer = timer_heap_first(&side->timers);

    timer_heap_stop(&side->timers, timer);
    timer->fire(timer);
}

/* Moves the clock when nothing else is ready. False when there is no timer either. */
static bool wait_for_timer(struct sim_side *side, size_t others)
{
    struct loop_timer *timer = timer_heap_first(&side->timers);

    if (!timer || (others > 0 && !instant_reached(side->now, timer->due)))
        return false;
    if (!instant_reached(side->now, timer->due))
        side->now = timer->due;
    return true;
}

bool loop_sim_step(struct loop *loop)
{
    struct sim_side *side = side_of(loop);
    size_t tasks = side->first_task ? 1 : 0, choice;
    bool due;

    check(loop_is_simulated(loop) && loop_is_mine(loop));
    due = wait_for_timer(side, tasks + side->job_count);
    if (tasks + side->job_count + due == 0)
        return false;
    choice = loop_sim_below(loop, tasks + side->job_count + due);
    if (choice < tasks)
        run_task(side);
    else if (choice < tasks + side->job_count)
        run_job(side, choice - tasks);
    else
        run_timer(side);
    return true;
}

uint64_t loop_sim_run(struct loop *loop, uint64_t limit)
{
    uint64_t steps = 0;

    while (steps < limit && loop_sim_step(loop))
        steps++;
    return steps;
}

/* -- the face ---------------------------------------------------------------------- */

static void side_post(struct loop *loop, struct loop_task *task)
{
    struct sim_side *side = side_of(loop);

    check(loop_is_mine(loop)); /* one thread, or no history could be told again */
    task->next = NULL;
    *side->last_task = task;
    side->last_task = &task->next;
}

static struct instant side_now(struct loop *loop)
{
    return side_of(loop)->now;
}

static void side_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t ms)
{
    struct sim_side *side = side_of(loop);
    timer_heap_start(&side->timers, timer, instant_add_ms(side->now, ms));
}

static void side_timer_stop(struct loop *loop, struct loop_timer *timer)
{
    timer_heap_stop(&side_of(loop)->timers, timer);
}

static int side_watch_set(
        struct loop *loop, struct loop_watch *watch, int fd, unsigned events)
{
    (void)loop, (void)watch, (void)fd, (void)events;
    return -ENOSYS;
}

static void side_watch_stop(struct loop *loop, struct loop_watch *watch)
{
    (void)loop, (void)watch;
}

static void side_work_start(struct loop *loop, struct loop_work *work)
{
    struct sim_side *side = side_of(loop);

    if (side->job_count == side->job_room) {
        size_t room = side->job_room ? side->job_room * 2 : 16;
        struct sim_job *jobs = realloc(side->jobs, room * sizeof *jobs);
        check(jobs);
        side->jobs = jobs;
        side->job_room = room;
    }
    side->jobs[side->job_count++] = (struct sim_job){ .work = work };
}

static void on_stop(struct loop_task *task)
{
    container_of(task, struct sim_side, stop_task)->stopped = true;
}

static bool side_turn(struct loop *loop)
{
    return !side_of(loop)->stopped && loop_sim_step(loop);
}

static void side_run(struct loop *loop)
{
    struct sim_side *side = side_of(loop);

    while (side_turn(loop))
        ;
    if (side->stopped)
        side->stopped = side->stopping = false;
}

static void side_stop(struct loop *loop)
{
    struct sim_side *side = side_of(loop);

    if (side->stopping)
        return;
    side->stopping = true;
    loop_post(loop, &side->stop_task);
}

static void side_destroy(struct loop *loop)
{
    struct sim_side *side = side_of(loop);

    check(side->job_count == 0);
    timer_heap_finish(&side->timers);
    free(side->jobs);
    free(side);
}

static uint64_t side_stalled_ms(const struct loop *loop)
{
    (void)loop;
    return 0;
}

static const struct loop_ops side_ops = {
    .post = side_post,
    .defer = side_post,
    .now = side_now,
    .timer_start = side_timer_start,
    .timer_stop = side_timer_stop,
    .watch_set = side_watch_set,
    .watch_stop = side_watch_stop,
    .work_start = side_work_start,
    .turn = side_turn,
    .run = side_run,
    .stop = side_stop,
    .destroy = side_destroy,
    .stalled_ms = side_stalled_ms,
};

bool loop_is_simulated(const struct loop *loop)
{
    return loop->ops == &side_ops;
}

struct loop *loop_sim_create(uint64_t seed)
{
    struct sim_side *side = calloc(1, sizeof *side);

    if (!side)
        return NULL;
    side->base.ops = &side_ops;
    side->state = seed;
    side->now = (struct instant){ 1000000000u };
    side->last_task = &side->first_task;
    side->stop_task.run = on_stop;
    loop_own(&side->base);
    return &side->base;
}

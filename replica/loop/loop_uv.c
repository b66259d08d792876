/* The loop over libuv.
 *
 * Posts are a lock-free stack that the loop takes whole and reverses: many producers,
 * one consumer. Only the post that finds it empty wakes the loop (uv_async writes to an
 * eventfd), and a post by the loop itself never does: before it sleeps, the loop looks.
 *
 * A turn ends with the deferred tasks, which put into few system calls what the turn has
 * gathered: submissions, and sends. They are a plain list, the loop's alone. Who finds
 * more to do without a poll asks for another round of posts and deferred tasks.
 *
 * Timers are our own heap (timers.h) over one uv_timer, armed once a turn: to start and
 * stop a deadline a request costs no call into libuv.
 *
 * A turn begins when the poll returns, at the first callback of ours, and ends before
 * the next poll (prepare). Its beginning is what loop_stalled_ms() shows to other
 * threads. */
#include "replica/loop/loop.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <uv.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/loop/ops.h"
#include "replica/loop/timers.h"

/* One piece of work in libuv's hands. Recycled, so that work does not allocate. */
struct uv_job {
    uv_work_t request;
    struct loop_work *work;
    struct uv_job *next;
};

/* One watched descriptor. Outlives the caller's watch until libuv has closed the
 * handle. */
struct uv_watch {
    uv_poll_t poll;
    struct loop_watch *watch; /* NULL once stopped */
    int fd;
    unsigned events;
};

struct uv_side {
    struct loop base;

    /* any thread */
    struct loop_task *_Atomic posted; /* the latest on top */
    uv_async_t wake;
    atomic_bool stopping;
    _Atomic uint64_t turn_began_ns; /* 0: in the poll */

    /* the loop's thread */
    uv_loop_t uv;
    uv_timer_t alarm;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_idle_t busy; /* active while posts wait, so that the poll does not sleep */
    struct loop_task *deferred, **deferred_end;
    bool again; /* loop_again() was called */
    const struct loop_watch *eager; /* who called it last */
    unsigned rounds; /* that a turn may give to it */
    struct timer_heap timers;
    struct instant armed; /* what the alarm is set to, while it is active */
    struct instant now;
    struct loop_task stop_task;
    bool stopped;
    bool once; /* in loop_turn(): */
    bool ran; /*   something ran before the poll, which then does not wait */
    struct uv_job *free_jobs;
    struct loop_work *waiting; /* work for which there was no memory yet, in order */
    struct loop_work **waiting_end;
    unsigned working;
};

enum {
    SPARE_JOBS = 32,
    DEFER_ROUNDS = 4, /* of deferred tasks a turn, when they defer more: others wait */
    ROUNDS_FIRST = 8, /* of both, when somebody asks for it */
    ROUNDS_MOST = 64 /* the same, while polls bring nobody else */
};

/* The loop this thread is running right now. Ownership alone would not do to leave out
   a wake-up: a loop changes owners when loop_run() is called on another thread. */
static _Thread_local const struct uv_side *running;

static struct uv_side *side_of(struct loop *loop)
{
    return container_of(loop, struct uv_side, base);
}

static void turn_begin(struct uv_side *side)
{
    if (atomic_load_explicit(&side->turn_began_ns, memory_order_relaxed) != 0)
        return;
    side->now = clock_monotonic();
    atomic_store_explicit(&side->turn_began_ns, side->now.ns, memory_order_relaxed);
}

/* -- posts ------------------------------------------------------------------------- */

static void side_post(struct loop *loop, struct loop_task *task)
{
    struct uv_side *side = side_of(loop);
    struct loop_task *top = atomic_load_explicit(&side->posted, memory_order_relaxed);

    do
        task->next = top; /* ours until the exchange below gives it away */
    while (!atomic_compare_exchange_weak_explicit(
            &side->posted, &top, task, memory_order_release, memory_order_relaxed));
#ifndef __SANITIZE_THREAD__ /* which knows no fences, and does not look into libuv */
    /* libuv sends nothing where its plain read finds a wake under way: on processors other
       than x86 that read could come before the task is seen, and the wake be over. */
    atomic_thread_fence(memory_order_seq_cst);
#endif
    if (!top && running != side)
        check(uv_async_send(&side->wake) == 0);
}

static struct loop_task *take_posted(struct uv_side *side)
{
    struct loop_task *task =
            atomic_exchange_explicit(&side->posted, NULL, memory_order_acquire);
    struct loop_task *first = NULL;

    while (task) {
        struct loop_task *next = task->next;
        task->next = first;
        first = task;
        task = next;
    }
    return first;
}

static void run_posted(struct uv_side *side)
{
    struct loop_task *task = take_posted(side);

    while (task) {
        struct loop_task *next = task->next; /* run() may free or post it again */
        task->queued = false;
        side->ran = true;
        task->run(task);
        task = next;
    }
}

static void side_defer(struct loop *loop, struct loop_task *task)
{
    struct uv_side *side = side_of(loop);

    task->next = NULL;
    *side->deferred_end = task;
    side->deferred_end = &task->next;
}

/* A round runs what was there at its beginning. */
static void run_deferred(struct uv_side *side)
{
    for (unsigned round = 0; side->deferred && round < DEFER_ROUNDS; round++) {
        struct loop_task *task = side->deferred;
        side->deferred = NULL;
        side->deferred_end = &side->deferred;
        side->ran = true;
        while (task) {
            struct loop_task *next = task->next; /* run() may free or defer it again */
            task->queued = false;
            task->run(task);
            task = next;
        }
    }
}

static void run_rounds(struct uv_side *side)
{
    side->again = false;
    run_posted(side);
    run_deferred(side);
    for (unsigned round = 0; side->again && round < side->rounds; round++) {
        side->again = false;
        run_posted(side);
        run_deferred(side);
    }
    if (side->again && side->rounds < ROUNDS_MOST)
        side->rounds *= 2;
}

static void side_again(struct loop *loop, const struct loop_watch *watch)
{
    struct uv_side *side = side_of(loop);

    if (side->eager != watch)
        side->rounds = ROUNDS_FIRST;
    side->eager = watch;
    side->again = true;
}

static void on_wake(uv_async_t *wake)
{
    struct uv_side *side = container_of(wake, struct uv_side, wake);

    turn_begin(side);
    run_posted(side);
}

/* -- turns and timers -------------------------------------------------------------- */

static void fire_due(struct uv_side *side)
{
    uint64_t newest = side->timers.started; /* what callbacks start waits for a turn */
    struct loop_timer *timer;

    while ((timer = timer_heap_first(&side->timers)) && timer->order < newest &&
            instant_reached(side->now, timer->due)) {
        timer_heap_stop(&side->timers, timer);
        side->ran = true;
        timer->fire(timer);
    }
}

static void on_alarm(uv_timer_t *alarm)
{
    struct uv_side *side = container_of(alarm, struct uv_side, alarm);

    turn_begin(side);
    side->now = clock_monotonic();
    fire_due(side);
}

static void on_busy(uv_idle_t *busy)
{
    (void)busy; /* that it is active is all: the poll then does not wait */
}

static void arm_alarm(struct uv_side *side)
{
    struct loop_timer *first = timer_heap_first(&side->timers);

    if (!first) {
        (void)uv_timer_stop(&side->alarm);
        return;
    }
    if (uv_is_active((uv_handle_t *)&side->alarm) && side->armed.ns == first->due.ns)
        return;
    side->armed = first->due;
    uv_update_time(&side->uv);
    uint64_t ms = instant_ms_until(clock_monotonic(), first->due);
    check(uv_timer_start(&side->alarm, on_alarm, ms, 0) == 0);
}

static void on_before_poll(uv_prepare_t *prepare)
{
    struct uv_side *side = container_of(prepare, struct uv_side, before_poll);

    turn_begin(side);
    run_rounds(side);
    arm_alarm(side);
    if (atomic_load_explicit(&side->posted, memory_order_acquire) || side->deferred ||
            (side->once && side->ran))
        (void)uv_idle_start(&side->busy, on_busy);
    else
        (void)uv_idle_stop(&side->busy);
    atomic_store_explicit(&side->turn_began_ns, 0, memory_order_relaxed);
}

static void on_after_poll(uv_check_t *after)
{
    turn_begin(container_of(after, struct uv_side, after_poll));
}

/* Between turns there is no turn to read the clock for: it is read anew. */
static struct instant side_now(struct loop *loop)
{
    struct uv_side *side = side_of(loop);

    if (atomic_load_explicit(&side->turn_began_ns, memory_order_relaxed) == 0)
        side->now = clock_monotonic();
    return side->now;
}

static void side_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t ms)
{
    struct uv_side *side = side_of(loop);
    timer_heap_start(&side->timers, timer, instant_add_ms(side_now(loop), ms));
}

static void side_timer_stop(struct loop *loop, struct loop_timer *timer)
{
    timer_heap_stop(&side_of(loop)->timers, timer);
}

/* -- watches ----------------------------------------------------------------------- */

static void on_poll_closed(uv_handle_t *handle)
{
    free(container_of(handle, struct uv_watch, poll));
}

static void on_poll(uv_poll_t *poll, int status, int events);

static int poll_start(struct uv_watch *watched)
{
    int events = (watched->events & LOOP_READABLE ? UV_READABLE : 0) |
            (watched->events & LOOP_WRITABLE ? UV_WRITABLE : 0);
    return uv_poll_start(&watched->poll, events, on_poll);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct uv_watch *watched = container_of(poll, struct uv_watch, poll);
    struct uv_side *side = container_of(poll->loop, struct uv_side, uv);
    unsigned ready = (events & UV_READABLE ? LOOP_READABLE : 0u) |
            (events & UV_WRITABLE ? LOOP_WRITABLE : 0u);

    struct loop_watch *watch = watched->watch;

    turn_begin(side);
    if (!watch)
        return;
    if (watch != side->eager)
        side->rounds = ROUNDS_FIRST;
    if (status < 0)
        ready = LOOP_READABLE | LOOP_WRITABLE;
    watch->ready(watch, ready);
    /* libuv stops a handle that reports an error; ours is level triggered. */
    if (status < 0 && watched->watch && !uv_is_active((uv_handle_t *)poll))
        (void)poll_start(watched);
}

static void side_watch_stop(struct loop *loop, struct loop_watch *watch)
{
    struct uv_watch *watched = watch->handle;

    if (!watched)
        return;
    if (side_of(loop)->eager == watch)
        side_of(loop)->eager = NULL;
    watch->handle = NULL;
    watched->watch = NULL;
    uv_close((uv_handle_t *)&watched->poll, on_poll_closed);
}

static int watch_open(struct uv_side *side, struct loop_watch *watch, int fd)
{
    struct uv_watch *watched = malloc(sizeof *watched);
    int result;

    if (!watched)
        return -ENOMEM;
    result = uv_poll_init(&side->uv, &watched->poll, fd);
    if (result < 0) {
        free(watched);
        return result;
    }
    watched->watch = watch;
    watched->fd = fd;
    watch->handle = watched;
    return 0;
}

static int side_watch_set(
        struct loop *loop, struct loop_watch *watch, int fd, unsigned events)
{
    struct uv_watch *watched = watch->handle;
    int result = 0;

    if (watched && watched->fd != fd)
        side_watch_stop(loop, watch);
    else if (watched && watched->events == events &&
            uv_is_active((uv_handle_t *)&watched->poll))
        return 0;
    if (!watch->handle)
        result = watch_open(side_of(loop), watch, fd);
    if (result < 0)
        return result;
    watched = watch->handle;
    watched->events = events;
    result = poll_start(watched);
    if (result < 0)
        side_watch_stop(loop, watch);
    return result;
}

/* -- work -------------------------------------------------------------------------- */

static void on_work(uv_work_t *request)
{
    struct uv_job *job = container_of(request, struct uv_job, request);
    job->work->work(job->work);
}

static void job_start(struct uv_side *side, struct uv_job *job, struct loop_work *work);

static void on_work_done(uv_work_t *request, int status)
{
    struct uv_job *job = container_of(request, struct uv_job, request);
    struct loop_work *work = job->work;
    struct uv_side *side = side_of(work->loop);

    check(status == 0); /* nobody cancels */
    turn_begin(side);
    side->rounds = ROUNDS_FIRST;
    side->working--;
    if (side->waiting) {
        struct loop_work *next = side->waiting;
        side->waiting = next->next;
        if (!side->waiting)
            side->waiting_end = &side->waiting;
        job_start(side, job, next);
    } else {
        job->next = side->free_jobs;
        side->free_jobs = job;
    }
    work->done(work);
}

static void job_start(struct uv_side *side, struct uv_job *job, struct loop_work *work)
{
    job->work = work;
    side->working++;
    check(uv_queue_work(&side->uv, &job->request, on_work, on_work_done) == 0);
}

static void side_work_start(struct loop *loop, struct loop_work *work)
{
    struct uv_side *side = side_of(loop);
    struct uv_job *job = side->free_jobs;

    if (job)
        side->free_jobs = job->next;
    else
        job = malloc(sizeof *job);
    if (job) {
        job_start(side, job, work);
        return;
    }
    check(side->working > 0); /* the spares are out: one of them comes back */
    work->next = NULL;
    *side->waiting_end = work;
    side->waiting_end = &work->next;
}

static bool jobs_prepare(struct uv_side *side)
{
    for (unsigned i = 0; i < SPARE_JOBS; i++) {
        struct uv_job *job = malloc(sizeof *job);
        if (!job)
            return false;
        job->next = side->free_jobs;
        side->free_jobs = job;
    }
    return true;
}

static void jobs_free(struct uv_side *side)
{
    while (side->free_jobs) {
        struct uv_job *job = side->free_jobs;
        side->free_jobs = job->next;
        free(job);
    }
}

/* -- life -------------------------------------------------------------------------- */

static void on_stop(struct loop_task *task)
{
    struct uv_side *side = container_of(task, struct uv_side, stop_task);

    side->stopped = true;
    uv_stop(&side->uv);
}

static void side_spin(struct uv_side *side, uv_run_mode mode)
{
    const struct uv_side *outer = running;

    running = side;
    (void)uv_run(&side->uv, mode);
    running = outer;
}

static bool side_turn(struct loop *loop)
{
    struct uv_side *side = side_of(loop);

    side->once = true;
    side->ran = false;
    if (!side->stopped)
        side_spin(side, UV_RUN_ONCE);
    side->once = false;
    atomic_store_explicit(&side->turn_began_ns, 0, memory_order_relaxed);
    return !side->stopped;
}

static void side_run(struct loop *loop)
{
    struct uv_side *side = side_of(loop);

    while (!side->stopped)
        side_spin(side, UV_RUN_DEFAULT);
    side->stopped = false;
    atomic_store(&side->stopping, false);
    atomic_store_explicit(&side->turn_began_ns, 0, memory_order_relaxed);
}

static void side_stop(struct loop *loop)
{
    struct uv_side *side = side_of(loop);

    if (!atomic_exchange(&side->stopping, true))
        loop_post(loop, &side->stop_task);
}

static uint64_t side_stalled_ms(const struct loop *loop)
{
    const struct uv_side *side = (const struct uv_side *)(const void *)loop;
    uint64_t began = atomic_load_explicit(&side->turn_began_ns, memory_order_relaxed);

    return began ? instant_ms_until((struct instant){ began }, clock_monotonic()) : 0;
}

static void side_destroy(struct loop *loop)
{
    struct uv_side *side = side_of(loop);

    check(side->working == 0);
    uv_close((uv_handle_t *)&side->wake, NULL);
    uv_close((uv_handle_t *)&side->alarm, NULL);
    uv_close((uv_handle_t *)&side->before_poll, NULL);
    uv_close((uv_handle_t *)&side->after_poll, NULL);
    uv_close((uv_handle_t *)&side->busy, NULL);
    (void)uv_run(&side->uv, UV_RUN_NOWAIT); /* runs what closing handles left */
    check(uv_loop_close(&side->uv) == 0); /* a watch that nobody stopped */
    timer_heap_finish(&side->timers);
    jobs_free(side);
    free(side);
}

static const struct loop_ops side_ops = {
    .post = side_post,
    .defer = side_defer,
    .again = side_again,
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

/* Only these two take descriptors and can fail; the rest of the handles are plain
 * memory. */
static bool uv_open(struct uv_side *side)
{
    if (uv_loop_init(&side->uv) < 0)
        return false;
    if (uv_async_init(&side->uv, &side->wake, on_wake) < 0) {
        (void)uv_loop_close(&side->uv);
        return false;
    }
    check(uv_timer_init(&side->uv, &side->alarm) == 0);
    check(uv_prepare_init(&side->uv, &side->before_poll) == 0);
    check(uv_check_init(&side->uv, &side->after_poll) == 0);
    check(uv_idle_init(&side->uv, &side->busy) == 0);
    check(uv_prepare_start(&side->before_poll, on_before_poll) == 0);
    check(uv_check_start(&side->after_poll, on_after_poll) == 0);
    return true;
}

struct loop *loop_uv_create(void)
{
    struct uv_side *side = calloc(1, sizeof *side);

    if (!side)
        return NULL;
    side->base.ops = &side_ops;
    side->waiting_end = &side->waiting;
    side->deferred_end = &side->deferred;
    side->stop_task.run = on_stop;
    side->now = clock_monotonic();
    side->rounds = ROUNDS_FIRST;
    loop_own(&side->base);
    if (!jobs_prepare(side) || !uv_open(side)) {
        jobs_free(side);
        free(side);
        return NULL;
    }
    return &side->base;
}

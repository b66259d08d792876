/* What holds on both loops, then what only the real one can do; descriptors have a file of
 * their own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/loop/sim.h"
#include "tests/replica/loop/loop_rig.h"
#include "tests/support/drive.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

#define ON_BOTH(name)                                                                  \
    static void name(struct loop *loop);                                               \
    Test(loop, name##_uv)                                                              \
    {                                                                                  \
        name(make(UV));                                                                \
    }                                                                                  \
    Test(loop, name##_sim)                                                             \
    {                                                                                  \
        name(make(SIM));                                                               \
    }                                                                                  \
    static void name(struct loop *loop)

/* -- posts ---------------------------------------------------------------------------- */

static char story[4096];
static struct loop *story_loop;

static void tell(const char *word)
{
    strcat(story, word);
}

struct teller {
    struct loop_task task;
    struct loop_timer timer;
    const char *word;
    struct teller *then;
};

static void tell_task(struct loop_task *task)
{
    struct teller *teller = container_of(task, struct teller, task);
    tell(teller->word);
    if (teller->then)
        loop_post(story_loop, &teller->then->task);
}

static void tell_timer(struct loop_timer *timer)
{
    tell(container_of(timer, struct teller, timer)->word);
}

static struct teller teller(const char *word)
{
    return (struct teller){
        .task.run = tell_task, .timer.fire = tell_timer, .word = word
    };
}

ON_BOTH(posts_run_in_order_and_never_from_inside)
{
    struct teller a = teller("a"), b = teller("b"), c = teller("c"), d = teller("d");

    story_loop = loop;
    a.then = &d;
    loop_post(loop, &a.task);
    loop_post(loop, &b.task);
    loop_post(loop, &c.task);
    expect_str(story, "");
    expect(a.task.queued);
    loop_stop(loop);
    loop_run(loop);
    while (!strchr(story, 'd'))
        expect(loop_turn(loop));
    expect_str(story, "abcd");
    expect(!(a.task.queued));
    loop_destroy(loop);
}

/* With nothing else to come: a turn that waited on would never return. */
ON_BOTH(a_turn_that_ran_something_does_not_wait_for_more)
{
    struct teller a = teller("a"), b = teller("b");
    struct instant due;

    loop_post(loop, &a.task);
    expect(loop_turn(loop));
    expect_str(story, "a");
    loop_timer_start(loop, &b.timer, 1);
    due = instant_add_ms(clock_monotonic(), 2);
    while (!instant_reached(clock_monotonic(), due)) /* it is due before the turn */
        ;
    while (!strchr(story, 'b'))
        expect(loop_turn(loop));
    loop_destroy(loop);
}

ON_BOTH(a_task_may_be_posted_again_by_itself)
{
    struct teller a = teller("a");

    story_loop = loop;
    a.then = &a;
    loop_post(loop, &a.task);
    while (strlen(story) < 5)
        expect(loop_turn(loop));
    a.then = NULL;
    loop_destroy(loop);
}

Test(loop, posting_a_queued_task_ends_the_process, .signal = SIGABRT)
{
    struct loop *loop = make(UV);
    struct teller a = teller("a");

    loop_post(loop, &a.task);
    loop_post(loop, &a.task);
}

/* -- the end of a turn ---------------------------------------------------------------- */

static void tell_and_defer(struct loop_task *task)
{
    struct teller *teller = container_of(task, struct teller, task);
    tell(teller->word);
    if (teller->then)
        loop_defer(story_loop, &teller->then->task);
}

ON_BOTH(deferred_tasks_run_in_order_and_never_from_inside)
{
    struct teller a = teller("a"), b = teller("b"), c = teller("c");

    story_loop = loop;
    a.task.run = tell_and_defer;
    a.then = &c;
    loop_defer(loop, &a.task);
    loop_defer(loop, &b.task);
    expect_str(story, "");
    expect(a.task.queued);
    while (!strchr(story, 'c'))
        expect(loop_turn(loop));
    expect_str(story, "abc");
    expect(!a.task.queued);
    loop_destroy(loop);
}

/* A turn that gathered something sends it off before it waits, and after its posts. */
Test(loop, what_is_deferred_waits_for_the_posts_of_its_turn)
{
    struct loop *loop = make(UV);
    struct teller end = teller("e"), post = teller("p"), more = teller("m");

    story_loop = loop;
    end.task.run = tell_and_defer;
    end.then = &more;
    loop_defer(loop, &end.task);
    loop_post(loop, &post.task);
    expect(loop_turn(loop));
    expect_str(story, "pem");
    loop_destroy(loop);
}

/* @again, queued, goes on for ever: a timer has its turn beside it, and it can be ended. */
static void expect_a_timer_beside(struct loop *loop, struct teller *again)
{
    struct teller timer = teller("t");

    loop_timer_start(loop, &timer.timer, 1);
    while (!strchr(story, 't'))
        expect(loop_turn(loop));
    again->then = NULL;
    while (again->task.queued)
        expect(loop_turn(loop));
}

/* One that always defers itself leaves the turn to others, and the loop does not sleep. */
Test(loop, deferring_for_ever_does_not_hold_up_a_timer)
{
    struct loop *loop = make(UV);
    struct teller again = teller("");

    again.task.run = tell_and_defer;
    again.then = &again;
    story_loop = loop;
    loop_defer(loop, &again.task);
    expect_a_timer_beside(loop, &again);
    loop_destroy(loop);
}

static void tell_post_and_go_on(struct loop_task *task)
{
    struct teller *teller = container_of(task, struct teller, task);

    tell(teller->word);
    if (!teller->then)
        return;
    loop_post(story_loop, &teller->then->task);
    loop_again(story_loop, NULL);
}

/* What a deferred task finds by itself does not wait for a poll. */
Test(loop, another_round_runs_before_the_poll)
{
    struct loop *loop = make(UV);
    struct teller end = teller("e"), post = teller("p"), idle = teller("i");

    story_loop = loop;
    end.task.run = post.task.run = tell_post_and_go_on;
    end.then = &post;
    post.then = &idle;
    loop_defer(loop, &end.task);
    expect(loop_turn(loop));
    expect_str(story, "epi");
    loop_destroy(loop);
}

/* Rounds are few, however often somebody asks: others have their turn. */
Test(loop, going_on_for_ever_does_not_hold_up_a_timer)
{
    struct loop *loop = make(UV);
    struct teller again = teller("");

    again.task.run = tell_post_and_go_on;
    again.then = &again;
    story_loop = loop;
    loop_post(loop, &again.task);
    expect_a_timer_beside(loop, &again);
    loop_destroy(loop);
}

/* One that goes on for as long as it is let, and one that is ready when it is told. */
struct rounds {
    struct loop *loop;
    struct loop_task eager;
    struct loop_watch own, other;
    int pipe[2];
    unsigned runs, heard;
};

static void eager_rest(struct loop_task *task)
{
    (void)task;
}

static void eager_run(struct loop_task *task)
{
    struct rounds *rounds = container_of(task, struct rounds, eager);

    rounds->runs++;
    loop_post(rounds->loop, &rounds->eager);
    loop_again(rounds->loop, &rounds->own);
}

static void other_ready(struct loop_watch *watch, unsigned events)
{
    (void)events;
    container_of(watch, struct rounds, other)->heard++;
}

/* Its runs in the longest of @turns. */
static unsigned rounds_most(struct rounds *rounds, unsigned turns)
{
    unsigned most = 0;

    for (; turns > 0; turns--) {
        rounds->runs = 0;
        expect(loop_turn(rounds->loop));
        if (rounds->runs > most)
            most = rounds->runs;
    }
    return most;
}

/* Alone it gets more rounds before a poll, but that poll brings others: then few again. */
Test(loop, going_on_gets_more_rounds_while_nobody_else_is_there)
{
    struct rounds rounds = { .loop = make(UV), .eager.run = eager_run };
    unsigned alone, beside;
    char byte = 0;

    expect(pipe(rounds.pipe) == 0);
    rounds.other.ready = other_ready;
    expect(loop_watch_set(rounds.loop, &rounds.other, rounds.pipe[0], LOOP_READABLE) ==
            0);
    loop_post(rounds.loop, &rounds.eager);
    alone = rounds_most(&rounds, 20);
    expect(rounds.heard == 0 && alone > 60 && alone < 70);
    expect(write(rounds.pipe[1], &byte, 1) == 1);
    (void)rounds_most(&rounds, 1); /* its poll brings it */
    beside = rounds_most(&rounds, 20);
    expect(rounds.heard == 21 && beside < 10);
    expect(read(rounds.pipe[0], &byte, 1) == 1);
    expect(rounds_most(&rounds, 20) == alone);
    loop_watch_stop(rounds.loop, &rounds.other);
    rounds.eager.run = eager_rest;
    (void)rounds_most(&rounds, 1);
    loop_destroy(rounds.loop);
    (void)close(rounds.pipe[0]);
    (void)close(rounds.pipe[1]);
}

/* -- guests --------------------------------------------------------------------------- */

static void leave_first(struct loop_guest *guest)
{
    (void)guest;
    tell("1");
}

static void leave_second(struct loop_guest *guest)
{
    (void)guest;
    tell("2");
}

ON_BOTH(guests_are_found_by_their_leave_and_leave_with_the_loop)
{
    struct loop_guest first = { .leave = leave_first };
    struct loop_guest second = { .leave = leave_second };

    expect(!loop_guest_find(loop, leave_first));
    loop_guest_add(loop, &first);
    expect(!loop_guest_find(loop, leave_second));
    loop_guest_add(loop, &second);
    expect(loop_guest_find(loop, leave_first) == &first);
    expect(loop_guest_find(loop, leave_second) == &second);
    expect_str(story, "");
    loop_destroy(loop);
    expect_str(story, "21");
}

/* -- timers --------------------------------------------------------------------------- */

ON_BOTH(timers_fire_by_time_then_by_start)
{
    struct teller a = teller("a"), b = teller("b"), c = teller("c"), d = teller("d");
    bool never = false;

    loop_timer_start(loop, &c.timer, 20);
    loop_timer_start(loop, &d.timer, 1); /* moved behind */
    loop_timer_start(loop, &a.timer, 0);
    loop_timer_start(loop, &b.timer, 0);
    loop_timer_start(loop, &d.timer, 25);
    expect(loop_timer_active(&a.timer));
    expect_str(story, "");
    drive_until_ms(loop, &never, 40);
    expect_str(story, "abcd");
    expect(!(loop_timer_active(&a.timer)));
    loop_destroy(loop);
}

ON_BOTH(a_stopped_timer_does_not_fire)
{
    struct teller a = teller("a"), b = teller("b");
    bool never = false;

    loop_timer_stop(loop, &a.timer); /* idle: harmless */
    loop_timer_start(loop, &a.timer, 1);
    loop_timer_start(loop, &b.timer, 2);
    loop_timer_stop(loop, &a.timer);
    loop_timer_stop(loop, &a.timer);
    drive_until_ms(loop, &never, 10);
    expect_str(story, "b");
    loop_destroy(loop);
}

enum { MANY = 500 };

struct heap_timer {
    struct loop_timer timer;
    struct instant due;
    uint64_t order;
};

static struct heap_timer heap_timers[MANY];
static struct instant last_due;
static uint64_t last_order, fired, ordered = 1;

static void heap_fire(struct loop_timer *timer)
{
    struct heap_timer *mine = container_of(timer, struct heap_timer, timer);

    expect(mine->due.ns > last_due.ns ||
            (mine->due.ns == last_due.ns && mine->order > last_order));
    last_due = mine->due;
    last_order = mine->order;
    fired++;
}

Test(loop, random_starts_and_stops_keep_the_heap_in_order)
{
    uint64_t seed = seed_take("heap"), active = 0;
    struct loop *loop = loop_sim_create(seed);

    for (unsigned round = 0; round < 20000; round++) {
        struct heap_timer *t = &heap_timers[seed_below(&seed, MANY)];
        t->timer.fire = heap_fire;
        if (seed_below(&seed, 4) == 0) {
            loop_timer_stop(loop, &t->timer);
            continue;
        }
        uint64_t ms = seed_below(&seed, 200);
        loop_timer_start(loop, &t->timer, ms);
        t->due = instant_add_ms(loop_now(loop), ms);
        t->order = ordered++;
    }
    for (unsigned i = 0; i < MANY; i++)
        active += loop_timer_active(&heap_timers[i].timer);
    loop_sim_run(loop, UINT64_MAX);
    expect_eq(fired, active);
    loop_destroy(loop);
}

static void start_again(struct loop_timer *timer)
{
    tell("x");
    loop_timer_start(story_loop, timer, 0);
}

Test(loop, a_timer_of_nothing_does_not_starve_the_rest)
{
    struct loop *loop = make(UV);
    struct loop_timer endless = { .fire = start_again };
    struct teller a = teller("a");

    story_loop = loop;
    loop_timer_start(loop, &endless, 0);
    loop_post(loop, &a.task);
    for (unsigned turn = 0; turn < 50; turn++)
        loop_turn(loop);
    expect(strchr(story, 'a') && strchr(story, 'x'));
    loop_timer_stop(loop, &endless);
    loop_destroy(loop);
}

/* -- work ----------------------------------------------------------------------------- */

struct chore {
    struct loop_work work;
    struct loop *loop;
    pthread_t ran_on;
    bool worked, done;
};

static void chore_work(struct loop_work *work)
{
    struct chore *chore = container_of(work, struct chore, work);
    chore->ran_on = pthread_self();
    chore->worked = true;
}

static void chore_done(struct loop_work *work)
{
    struct chore *chore = container_of(work, struct chore, work);
    expect(chore->worked && loop_is_mine(chore->loop));
    chore->done = true;
}

ON_BOTH(work_is_done_off_the_loop_and_told_on_it)
{
    static struct chore chores[100];

    for (unsigned i = 0; i < 100; i++) {
        chores[i] = (struct chore){ .work = { .work = chore_work, .done = chore_done },
            .loop = loop };
        loop_work_start(loop, &chores[i].work);
        expect(!(chores[i].done));
    }
    for (unsigned i = 0; i < 100; i++)
        expect(drive_until(loop, &chores[i].done));
    if (!loop_is_simulated(loop))
        expect(!pthread_equal(chores[0].ran_on, pthread_self()));
    loop_destroy(loop);
}

static struct teller late;

static void chore_posts(struct loop_work *work)
{
    chore_done(work);
    loop_post(story_loop, &late.task);
}

/* The post is made inside the poll, by the loop itself, and nothing else will wake it. */
Test(loop, a_post_from_inside_the_poll_runs_without_another_event)
{
    struct loop *loop = make(UV);
    struct chore chore = { .work = { .work = chore_work, .done = chore_posts },
        .loop = loop };

    story_loop = loop;
    late = teller("a");
    loop_work_start(loop, &chore.work);
    while (!chore.done)
        expect(loop_turn(loop));
    while (!strchr(story, 'a'))
        expect(loop_turn(loop));
    loop_destroy(loop);
}

/* -- threads -------------------------------------------------------------------------- */

static void *run_loop(void *loop)
{
    loop_run(loop);
    return NULL;
}

struct stuck {
    struct loop_task task;
    pthread_mutex_t gate;
    _Atomic bool inside;
};

static void stuck_run(struct loop_task *task)
{
    struct stuck *stuck = container_of(task, struct stuck, task);

    stuck->inside = true;
    pthread_mutex_lock(&stuck->gate);
    pthread_mutex_unlock(&stuck->gate);
}

Test(loop, a_stuck_turn_shows_and_a_sleeping_loop_does_not)
{
    struct loop *loop = make(UV);
    struct stuck stuck = { .task.run = stuck_run, .gate = PTHREAD_MUTEX_INITIALIZER };
    pthread_t thread;

    pthread_mutex_lock(&stuck.gate);
    expect_eq(pthread_create(&thread, NULL, run_loop, loop), 0);
    loop_post(loop, &stuck.task);
    while (!stuck.inside || loop_stalled_ms(loop) < 2)
        usleep(200);
    expect(!(loop_is_mine(loop)));
    pthread_mutex_unlock(&stuck.gate);
    while (loop_stalled_ms(loop) != 0)
        usleep(200);
    loop_stop(loop);
    loop_stop(loop);
    expect_eq(pthread_join(thread, NULL), 0);
    expect_eq(loop_stalled_ms(loop), 0);
    loop_destroy(loop);
    loop_destroy(NULL);
}

Test(loop, what_was_posted_before_stop_still_runs)
{
    for (unsigned round = 0; round < 200; round++) {
        struct loop *loop = loop_uv_create();
        struct teller a = teller("a");
        pthread_t thread;

        story[0] = '\0';
        expect_eq(pthread_create(&thread, NULL, run_loop, loop), 0);
        loop_post(loop, &a.task);
        loop_stop(loop);
        expect_eq(pthread_join(thread, NULL), 0);
        expect_str(story, "a");
        loop_destroy(loop);
    }
}

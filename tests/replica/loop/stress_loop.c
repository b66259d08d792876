/* For ThreadSanitizer: many threads post to one loop while it works, times and watches;
 * every thread's posts arrive, in that thread's order. A plain main(): Criterion cannot
 * start under that sanitizer. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/loop/loop.h"

enum { POSTERS = 4, POSTS = 20000, BATCH = 50, CHORES = 2000 };

struct letter {
    struct loop_task task;
    unsigned from, number;
};

struct chore {
    struct loop_work work;
    struct loop_timer timer;
    unsigned input, output;
};

static struct loop *loop;
static struct letter letters[POSTERS][POSTS];
static unsigned expected[POSTERS], arrived, chores_done;
static struct chore chores[8];
static struct loop_task start_task;
static atomic_uint stalls;

static void finish_when_all(void)
{
    if (arrived == POSTERS * POSTS && chores_done == CHORES)
        loop_stop(loop);
}

static void letter_run(struct loop_task *task)
{
    struct letter *letter = container_of(task, struct letter, task);

    check(loop_is_mine(loop));
    check(letter->number == expected[letter->from]++);
    arrived++;
    finish_when_all();
}

static void *post_all(void *mine)
{
    struct letter *list = mine;

    for (unsigned i = 0; i < POSTS; i++) {
        list[i].task.run = letter_run;
        loop_post(loop, &list[i].task);
        if (i % BATCH == 0) { /* so that the loop is found asleep as well */
            atomic_fetch_add(&stalls, loop_stalled_ms(loop) > 1000);
            usleep(i % 3 * 100);
        }
    }
    return NULL;
}

static void chore_work(struct loop_work *work)
{
    struct chore *chore = container_of(work, struct chore, work);
    chore->output = chore->input * 2;
}

static void chore_again(struct loop_timer *timer)
{
    loop_work_start(loop, &container_of(timer, struct chore, timer)->work);
}

static void chore_done(struct loop_work *work)
{
    struct chore *chore = container_of(work, struct chore, work);

    check(chore->output == chore->input * 2);
    chore->input++;
    chores_done++;
    if (chores_done + sizeof chores / sizeof *chores <= CHORES)
        loop_timer_start(loop, &chore->timer, chore->input % 2);
    finish_when_all();
}

static void start(struct loop_task *task)
{
    (void)task;
    for (unsigned i = 0; i < sizeof chores / sizeof *chores; i++) {
        chores[i].work = (struct loop_work){ .work = chore_work, .done = chore_done };
        chores[i].timer.fire = chore_again;
        loop_work_start(loop, &chores[i].work);
    }
}

static void *run_loop(void *unused)
{
    (void)unused;
    loop_run(loop);
    return NULL;
}

int main(void)
{
    pthread_t owner, posters[POSTERS];

    loop = loop_uv_create();
    check(loop);
    start_task.run = start;
    loop_post(loop, &start_task);
    check(pthread_create(&owner, NULL, run_loop, NULL) == 0);
    for (unsigned i = 0; i < POSTERS; i++) {
        for (unsigned k = 0; k < POSTS; k++) {
            letters[i][k].from = i;
            letters[i][k].number = k;
        }
        check(pthread_create(&posters[i], NULL, post_all, letters[i]) == 0);
    }
    for (unsigned i = 0; i < POSTERS; i++)
        check(pthread_join(posters[i], NULL) == 0);
    check(pthread_join(owner, NULL) == 0);
    loop_destroy(loop);
    printf("%u posts, %u works\n", arrived, chores_done);
    return 0;
}

#include <criterion/criterion.h>
#include <string.h>

#include "replica/base/scope.h"
#include "replica/loop/sim.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { LENGTH = 256 };

#define EXPECTED_STORY "wBwFwCwAwDdDdBtDdCpDwEdFdEtEdApEtCpCtFpFtBpBtApA"

struct actor {
    struct loop_task task;
    struct loop_timer timer;
    struct loop_work work;
    struct loop *loop;
    char *story;
    char name;
};

static void act(struct actor *actor, char how)
{
    char words[3] = { how, actor->name, '\0' };
    strcat(actor->story, words);
}

static void act_task(struct loop_task *task)
{
    act(container_of(task, struct actor, task), 'p');
}

static void act_timer(struct loop_timer *timer)
{
    struct actor *actor = container_of(timer, struct actor, timer);
    act(actor, 't');
    loop_post(actor->loop, &actor->task);
}

static void act_work(struct loop_work *work)
{
    act(container_of(work, struct actor, work), 'w');
}

static void act_done(struct loop_work *work)
{
    struct actor *actor = container_of(work, struct actor, work);
    act(actor, 'd');
    loop_timer_start(actor->loop, &actor->timer, loop_sim_below(actor->loop, 3));
}

/* One small world of posts, works and timers that lead to one another. */
static void play(uint64_t seed, char *story)
{
    struct loop *loop = loop_sim_create(seed);
    struct actor actors[6];

    story[0] = '\0';
    for (unsigned i = 0; i < 6; i++) {
        actors[i] = (struct actor){ .task.run = act_task,
            .timer.fire = act_timer,
            .work = { .work = act_work, .done = act_done },
            .loop = loop,
            .story = story,
            .name = (char)('A' + i) };
        loop_work_start(loop, &actors[i].work);
    }
    loop_sim_run(loop, UINT64_MAX);
    expect_eq(strlen(story), 6 * 4 * 2);
    loop_destroy(loop);
}

Test(sim, the_same_seed_tells_the_same_story)
{
    uint64_t seed = seed_take("sim");
    char first[LENGTH], second[LENGTH];

    for (unsigned i = 0; i < 50; i++) {
        uint64_t one = seed_next(&seed);
        play(one, first);
        play(one, second);
        expect_str(first, second);
    }
}

Test(sim, this_seed_tells_this_story_on_every_machine)
{
    char story[LENGTH];

    play(2026, story);
    expect_str(story, EXPECTED_STORY);
}

Test(sim, other_seeds_tell_other_stories)
{
    char first[LENGTH], other[LENGTH];
    unsigned different = 0;

    play(0, first);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        play(seed, other);
        different += strcmp(first, other) != 0;
    }
    expect(different >= 19);
}

Test(sim, the_clock_moves_only_when_nothing_is_ready)
{
    struct loop *loop = loop_sim_create(1);
    char story[LENGTH] = "";
    struct actor actor = { .task.run = act_task,
        .timer.fire = act_timer,
        .loop = loop,
        .story = story,
        .name = 'A' };

    expect_eq(loop_now(loop).ns, 1000000000u);
    loop_timer_start(loop, &actor.timer, 3600000);
    loop_post(loop, &actor.task);
    expect(loop_sim_step(loop));
    expect_str(story, "pA");
    expect_eq(loop_now(loop).ns, 1000000000u);
    expect_eq(loop_sim_run(loop, 100), 2);
    expect_str(story, "pAtApA");
    expect_eq(loop_now(loop).ns, 3601000000000u);
    expect(!(loop_sim_step(loop)));
    loop_destroy(loop);
}

Test(sim, steps_stop_at_the_limit)
{
    struct loop *loop = loop_sim_create(1);
    char story[LENGTH] = "";
    struct actor actor = { .task.run = act_task,
        .timer.fire = act_timer,
        .loop = loop,
        .story = story,
        .name = 'A' };

    loop_timer_start(loop, &actor.timer, 1);
    expect_eq(loop_sim_run(loop, 1), 1);
    expect_str(story, "tA");
    expect_eq(loop_sim_run(loop, 9), 1);
    loop_destroy(loop);
}

Test(sim, drawn_numbers_stay_below_their_bound)
{
    struct loop *loop = loop_sim_create(seed_take("sim"));
    unsigned seen[7] = { 0 };

    for (unsigned i = 0; i < 2000; i++)
        seen[loop_sim_below(loop, 7)]++;
    for (unsigned i = 0; i < 7; i++)
        expect(seen[i] >= 100);
    loop_destroy(loop);
}

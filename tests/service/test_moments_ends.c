/* Copies from one LUN of a real tgtd to another, and the ends of relationships, struck at each
 * call: what was promised is done by the next life, and what was ended stays so. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/moments.h"
#include "tests/support/expect.h"

enum { CHUNK = 64 << 10, CHUNKS = 9, SIZE = CHUNKS * CHUNK, BEHIND = 3 * 4096 };

/** The answer; NULL: none came. */
static json_t *attach_ask(struct stage *stage, const char *rest)
{
    char path[WORLD_PATH], body[2 * WORLD_PATH];

    snprintf(path, sizeof path, "/replicas/%s/attach", stage->id);
    snprintf(body, sizeof body, "{\"SourceElement\":\"/elements/%s\",%s}", stage->other,
            rest);
    return stage_ask(stage, "POST", path, body);
}

/** The pair, copied once. */
static void attach(struct stage *stage, const char *rest)
{
    json_t *answer = attach_ask(stage, rest);

    expect_eq(stage->status, 202);
    job_take(stage, answer);
    job_completed(&stage->house.world, stage->job, PATIENCE_S);
    json_decref(answer);
}

/* -- between LUNs ------------------------------------------------------------------------- */

static void luns_make(struct stage *stage)
{
    struct world *world = &stage->house.world;

    world_tgt(world);
    snprintf(stage->source, sizeof stage->source, "%s/near", world->tgt->directory);
    snprintf(stage->target, sizeof stage->target, "%s/far", world->tgt->directory);
    fill_file(stage->source, SIZE, 5, true);
    garbage_file(stage->target, SIZE + BEHIND);
    make_lun(world, 1, 512, true, "near", stage->source);
    make_lun(world, 2, 4096, true, "far", stage->target);
    register_lun(world, 1, false, stage->other);
    register_lun(world, 2, false, stage->id);
}

/** Garbage where the copy will be, as on a LUN that was used before. */
static void lun_prepare(struct stage *stage)
{
    uint8_t garbage[4096];
    int fd = open(stage->target, O_WRONLY | O_CLOEXEC);

    expect(fd >= 0);
    memset(garbage, 0xa5, sizeof garbage);
    for (off_t at = 0; at < SIZE; at += (off_t)sizeof garbage)
        expect_eq(pwrite(fd, garbage, sizeof garbage, at), sizeof garbage);
    close(fd);
    stage->job[0] = '\0';
}

static void lun_act(struct stage *stage)
{
    pair_answered(stage, attach_ask(stage, "\"CopyType\":4"));
}

static void lun_judge(struct stage *stage)
{
    long status = status_of(stage, "replicas", stage->id);

    cr_assert(status == 200 || !stage->job[0], "the promise is forgotten; struck: %s",
            stage->moment->words);
    if (status == 200) {
        pair_settle(stage);
        cr_assert(same_bytes(stage->source, stage->target, SIZE), "struck: %s",
                stage->moment->words);
        file_change(stage, stage->source);
        pair_operate(stage, 4); /* by what the life before has left of digests */
        pair_settle(stage);
        cr_assert(same_bytes(stage->source, stage->target, SIZE),
                "the next one missed something; struck: %s", stage->moment->words);
        pair_remove(stage);
    } else {
        expect(still_garbage(stage->target, 0, SIZE));
    }
    expect(still_garbage(stage->target, SIZE, BEHIND));
}

static const struct scene lun_scene = { lun_prepare, lun_act, lun_judge, NULL };

static void lun_play(int error)
{
    struct stage stage;

    stage_open(&stage, "luns", NULL);
    luns_make(&stage);
    stage_play(&stage, &lun_scene, error);
    expect(stage_points(&stage, "fdatasync", ".digests") >= 3);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 3);
    stage_close(&stage);
}

Test(moments, a_copy_between_luns_that_was_promised_comes)
{
    lun_play(0);
}

Test(moments, a_copy_between_luns_without_space_here_says_so)
{
    lun_play(ENOSPC);
}

/* -- Detach --------------------------------------------------------------------------------- */

static void files_make(struct stage *stage)
{
    struct world *world = &stage->house.world;

    world_file(world, "source", SIZE, 7);
    world_file(world, "target", SIZE, 8);
    snprintf(stage->source, sizeof stage->source, "%.100s/source", world->pool);
    snprintf(stage->target, sizeof stage->target, "%.100s/target", world->pool);
    register_file(world, "source", stage->other);
    register_file(world, "target", stage->id);
}

static void detach_prepare(struct stage *stage)
{
    if (status_of(stage, "replicas", stage->id) != 200)
        attach(stage, "\"CopyType\":4");
}

static void end_act(struct stage *stage, int number)
{
    json_t *answer = pair_ask(stage, number);

    if (answer && stage->status == 409 &&
            stage->error) /* its job has met the error first */
        expect_eq(number_of(answer, "ReturnValue"), 4);
    else if (answer && stage->status != 200)
        pair_refused(stage, answer);
    json_decref(answer);
}

static void detach_act(struct stage *stage)
{
    end_act(stage, 2);
}

/** Gone for good where that was answered; the replica is whole with it and without. */
static void detach_judge(struct stage *stage)
{
    long answered = stage->status, status = status_of(stage, "replicas", stage->id);
    json_t *element;
    char path[WORLD_PATH];

    cr_assert(answered == 0 || status == (answered == 200 ? 404 : 200),
            "answered %ld, but it is %ld; struck: %s", answered, status,
            stage->moment->words);
    snprintf(path, sizeof path, "/elements/%s", stage->id);
    element = world_call(&stage->house.world, 200, "GET", path, NULL);
    expect(json_is_true(json_object_get(element, "Complete")));
    json_decref(element);
    expect(same_bytes(stage->source, stage->target, SIZE));
}

static const struct scene detach_scene = { detach_prepare, detach_act, detach_judge,
    NULL };

static void detach_play(int error)
{
    struct stage stage;

    stage_open(&stage, "detach", NULL);
    files_make(&stage);
    stage_play(&stage, &detach_scene, error);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 1);
    stage_close(&stage);
}

Test(moments, a_detached_pair_is_gone_or_was_not)
{
    detach_play(0);
}

Test(moments, a_pair_detached_without_space_is_gone_or_was_not)
{
    detach_play(ENOSPC);
}

/* -- Fracture, of a mirror that is being brought up to date ---------------------------------- */

#define FREELY "{\"BandwidthLimit\":0}"

static void job_limit(struct stage *stage, const char *body)
{
    /* Should it be over already, that is no harm. */
    json_decref(world_call(&stage->house.world, 0, "PATCH", stage->job, "%s", body));
}

/** A Resync that is slow enough to be stopped in the middle; it runs, or is over. */
static void resync_begin(struct stage *stage)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    char path[WORLD_PATH];
    json_t *answer;
    long long state;

    snprintf(path, sizeof path, "/replicas/%s/modify", stage->id);
    answer = world_call(&stage->house.world, 202, "POST", path, "{\"Operation\":4}");
    job_take(stage, answer);
    do {
        json_decref(answer);
        usleep(2000); /* between two looks; the state is what ends it */
        answer = world_call(&stage->house.world, 200, "GET", stage->job, NULL);
        state = number_of(answer, "JobState");
        cr_assert(!instant_reached(clock_monotonic(), deadline), "it does not begin");
    } while (state < 4);
    json_decref(answer);
}

static long long pair_state(struct stage *stage)
{
    json_t *pair = pair_get(stage);
    long long state = number_of(pair, "SyncState");

    json_decref(pair);
    return state;
}

static void fracture_prepare(struct stage *stage)
{
    if (status_of(stage, "replicas", stage->id) != 200)
        attach(stage,
                "\"CopyType\":2,\"Goal\":{\"BandwidthLimit\":65536,\"DesiredRPO\":"
                "86400}");
    file_change(stage, stage->source);
    resync_begin(stage);
}

static void fracture_act(struct stage *stage)
{
    end_act(stage, 3);
}

/** Fractured for good where that was answered; else the Resync comes to its end, or failed. */
static void fracture_judge(struct stage *stage)
{
    bool promised = stage->status == 200;
    long long state;

    if (pair_state(stage) == 5)
        job_limit(stage, FREELY);
    json_decref(job_end(&stage->house.world, stage->job, PATIENCE_S));
    state = pair_state(stage);
    cr_assert(promised ? state == 13
                       : state == 13 || state == 6 || (state == 12 && stage->error),
            "it is in %lld; struck: %s", state, stage->moment->words);
    if (state == 6)
        expect(same_bytes(stage->source, stage->target, SIZE));
    if (state == 13) /* its user's now, who writes it */
        file_change(stage, stage->target);
    resync_begin(stage);
    job_limit(stage, FREELY);
    job_completed(&stage->house.world, stage->job, PATIENCE_S);
    cr_assert(same_bytes(stage->source, stage->target, SIZE),
            "the Resync missed something; struck: %s", stage->moment->words);
}

static const struct scene fracture_scene = { fracture_prepare, fracture_act,
    fracture_judge, NULL };

static void fracture_play(int error)
{
    struct stage stage;

    stage_open(&stage, "fracture", NULL);
    files_make(&stage);
    stage_play(&stage, &fracture_scene, error);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 1);
    expect(stage_points(&stage, "unlinkat", ".digests") >= 1);
    stage_close(&stage);
}

Test(moments, a_fracture_that_was_answered_stays)
{
    fracture_play(0);
}

Test(moments, a_fracture_without_space_is_one_or_was_not)
{
    fracture_play(ENOSPC);
}

/* Pairs and their jobs, struck at each call: the first copy, Resync by digest, Restore, and the
 * scans of a pair that follows. A pair that says it holds its source's bytes does. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/moments.h"
#include "tests/support/expect.h"

enum { CHUNK = 64 << 10, CHUNKS = 9, SIZE = CHUNKS * CHUNK };

/* stage->other is the source, stage->id the target, and the pair. */

static void source_make(struct stage *stage)
{
    world_file(&stage->house.world, "source", SIZE, 7);
    snprintf(stage->source, sizeof stage->source, "%.100s/source",
            stage->house.world.pool);
    register_file(&stage->house.world, "source", stage->other);
}

/** A pair of @copy_type whose first copy is done. */
static void pair_make(struct stage *stage, const char *body)
{
    json_t *answer = world_call(&stage->house.world, 202, "POST", "/replicas",
            "{\"SourceElement\":\"%s\",%s}", stage->other, body);

    job_take(stage, answer);
    job_completed(&stage->house.world, stage->job, PATIENCE_S);
    pair_take(stage, answer);
    json_decref(answer);
    expect(same_bytes(stage->source, stage->target, SIZE));
}

/* -- the first copy ------------------------------------------------------------------------ */

static void copy_prepare(struct stage *stage)
{
    stage->id[0] = '\0';
    stage->job[0] = '\0';
}

static void copy_act(struct stage *stage)
{
    char body[WORLD_PATH];

    snprintf(body, sizeof body, "{\"SourceElement\":\"%s\",\"CopyType\":4}",
            stage->other);
    pair_answered(stage, stage_ask(stage, "POST", "/replicas", body));
}

static void copy_judge(struct stage *stage)
{
    json_t *list = world_call(&stage->house.world, 200, "GET", "/replicas", NULL);
    const json_t *pair = json_array_get(json_object_get(list, "Members"), 0);
    char path[WORLD_PATH];

    expect(json_array_size(json_object_get(list, "Members")) <= 1);
    cr_assert(pair || !stage->job[0], "the promise is forgotten; struck: %s",
            stage->moment->words);
    if (pair) {
        pair_take(stage, pair);
        pair_settle(stage);
        expect(same_bytes(stage->source, stage->target, SIZE));
        pair_remove(stage);
        snprintf(path, sizeof path, "/elements/%s", stage->id);
        json_decref(world_call(&stage->house.world, 200, "DELETE", path, NULL));
    }
    json_decref(list);
}

static const struct scene copy_scene = { copy_prepare, copy_act, copy_judge, NULL };

static void copy_play(int error)
{
    struct stage stage;

    stage_open(&stage, "copy", NULL);
    source_make(&stage);
    stage_play(&stage, &copy_scene, error);
    expect(stage_points(&stage, "linkat", ".raw") == 1);
    expect(stage_points(&stage, "pwritev2", ".raw") >= 2);
    expect(stage_points(&stage, "fdatasync", ".digests") >= 3);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 4);
    stage_close(&stage);
}

Test(moments, a_copy_that_was_promised_comes)
{
    copy_play(0);
}

Test(moments, a_copy_without_space_says_so)
{
    copy_play(ENOSPC);
}

/* -- Resync by digest ------------------------------------------------------------------------ */

static const char *aside(struct stage *stage, char path[2 * WORLD_PATH])
{
    snprintf(path, 2 * WORLD_PATH, "%s.aside", stage->source);
    return path;
}

/** What the replica holds, for good. */
static const char *kept(struct stage *stage, char path[2 * WORLD_PATH])
{
    snprintf(path, 2 * WORLD_PATH, "%s.kept", stage->source);
    return path;
}

static void file_copy(const char *from, const char *to)
{
    const char *copy[] = { "cp", from, to, NULL };

    expect_eq(run_program(copy), 0);
}

/** What the source held before is kept beside it. */
static void change_prepare(struct stage *stage)
{
    char path[2 * WORLD_PATH];

    stage->job[0] = '\0';
    file_copy(stage->source, aside(stage, path));
    file_change(stage, stage->source);
}

/** While nobody is there the source goes back: digests of that are on the disk, and some of its
    chunks were replaced on the target since. */
static void resync_act(struct stage *stage)
{
    char path[2 * WORLD_PATH];

    pair_operate(stage, 4);
    if (stage->status == 0)
        file_copy(aside(stage, path), stage->source);
}

/** What it was in the middle of comes to its end, and the next one finds all that is left. */
static void resync_judge(struct stage *stage)
{
    bool promised = stage->status == 202;

    pair_settle(stage);
    cr_assert(!promised || same_bytes(stage->source, stage->target, SIZE),
            "done, and different; struck: %s", stage->moment->words);
    pair_operate(stage, 4);
    pair_settle(stage);
    cr_assert(same_bytes(stage->source, stage->target, SIZE),
            "the next one missed something; struck: %s", stage->moment->words);
}

static const struct scene resync_scene = { change_prepare, resync_act, resync_judge,
    NULL };

static void resync_play(int error)
{
    struct stage stage;

    stage_open(&stage, "resync", NULL);
    source_make(&stage);
    pair_make(&stage, "\"CopyType\":4");
    stage_play(&stage, &resync_scene, error);
    expect(stage_points(&stage, "pwritev2", ".raw") >= 1);
    expect(stage_points(&stage, "fdatasync", ".digests") >= 3);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 2);
    stage_close(&stage);
}

Test(moments, a_resync_by_digest_believes_no_life_before)
{
    resync_play(0);
}

Test(moments, a_resync_without_space_for_its_digests_is_right)
{
    resync_play(ENOSPC);
}

/* -- Restore ------------------------------------------------------------------------------- */

static void restore_act(struct stage *stage)
{
    pair_operate(stage, 5);
}

/** Beside the source is what it holds when Restore is asked for. */
static void restore_prepare(struct stage *stage)
{
    char path[2 * WORLD_PATH];

    stage->job[0] = '\0';
    file_change(stage, stage->source);
    file_copy(stage->source, aside(stage, path));
}

/** Nothing of the source is written before Restore is promised, and all of it after. */
static void restore_judge(struct stage *stage)
{
    char path[2 * WORLD_PATH];
    json_t *pair = pair_get(stage);
    bool under_way = json_is_string(json_object_get(pair, "Job"));

    json_decref(pair);
    if (!under_way && !stage->job[0]) {
        cr_assert(same_bytes(stage->source, aside(stage, path), SIZE),
                "written without a promise; struck: %s", stage->moment->words);
        pair_operate(stage, 5);
    }
    pair_settle(stage);
    cr_assert(same_bytes(stage->source, stage->target, SIZE), "struck: %s",
            stage->moment->words);
}

static const struct scene restore_scene = { restore_prepare, restore_act, restore_judge,
    NULL };

static void restore_play(const struct scene *scene, int error)
{
    struct stage stage;
    char path[2 * WORLD_PATH];

    stage_open(&stage, "restore", NULL);
    source_make(&stage);
    pair_make(&stage, "\"CopyType\":4");
    file_copy(stage.target, kept(&stage, path));
    stage_play(&stage, scene, error);
    expect(stage_points(&stage, "pwritev2", "/source") >= 1);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 2);
    stage_close(&stage);
}

Test(moments, a_restore_writes_what_it_promised)
{
    restore_play(&restore_scene, 0);
}

/** @target gets what @source holds, in a relationship of @copy_type. */
static void attach(
        struct stage *stage, const char *target, const char *source, int copy_type)
{
    char path[WORLD_PATH];
    json_t *answer;

    snprintf(path, sizeof path, "/replicas/%s/attach", target);
    answer = world_call(&stage->house.world, 202, "POST", path,
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":%d}", source, copy_type);
    job_take(stage, answer);
    job_completed(&stage->house.world, stage->job, PATIENCE_S);
    json_decref(answer);
}

/** The source is half restored: nothing is taken from there. The replica is as whole as it was,
    and gives the source all of it once more, the other way round. */
static void restore_again(struct stage *stage)
{
    char path[2 * WORLD_PATH];
    json_t *answer;

    snprintf(path, sizeof path, "/replicas/%s/modify", stage->id);
    answer = world_call(&stage->house.world, 409, "POST", path, "{\"Operation\":4}");
    expect_eq(number_of(answer, "ReturnValue"), 6);
    json_decref(answer);
    expect(same_bytes(stage->target, kept(stage, path), SIZE));
    snprintf(path, sizeof path, "/replicas/%s", stage->id);
    json_decref(world_call(&stage->house.world, 200, "DELETE", path, NULL));
    attach(stage, stage->other, stage->id, 5);
    expect(same_bytes(stage->source, kept(stage, path), SIZE));
    attach(stage, stage->id, stage->other, 4);
}

static void restore_judge_failed(struct stage *stage)
{
    char path[2 * WORLD_PATH];

    if (pair_failed(stage))
        restore_again(stage);
    else
        restore_judge(stage);
    expect(same_bytes(stage->target, kept(stage, path), SIZE));
}

static const struct scene restore_failed_scene = { restore_prepare, restore_act,
    restore_judge_failed, NULL };

Test(moments, a_restore_without_space_leaves_the_replica_whole)
{
    restore_play(&restore_failed_scene, ENOSPC);
}

/* -- scans ---------------------------------------------------------------------------------- */

/** Until the pair is newer than what the source was given last, or the daemon is killed. */
static bool scan_await(struct stage *stage)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "/replicas/%s", stage->id);
    for (;;) {
        json_t *pair = stage_ask(stage, "GET", path, NULL);
        bool new;

        if (!pair)
            return false;
        expect(json_is_null(json_object_get(pair, "Job")));
        new = number_of(pair, "SyncState") == 6 &&
                strcmp(text_of(pair, "WhenSynced"), stage->since) > 0;
        cr_assert(!instant_reached(clock_monotonic(), deadline), "no scan: %s",
                json_dumps(pair, 0));
        json_decref(pair);
        if (new)
            return true;
        usleep(5000); /* between two looks; the state is what ends it */
    }
}

static void scan_prepare(struct stage *stage)
{
    file_change(stage, stage->source);
    clock_format(clock_wall_ms(), stage->since);
}

/** The source changes once more while nobody is there to see it. */
static void scan_act(struct stage *stage)
{
    if (!scan_await(stage))
        scan_prepare(stage);
}

/** As new as it says: all that was written before has come. */
static void scan_judge(struct stage *stage)
{
    expect(stage->struck);
    expect(scan_await(stage));
    cr_assert(same_bytes(stage->source, stage->target, SIZE),
            "it is not what it says; struck: %s", stage->moment->words);
}

static const struct scene scan_scene = { scan_prepare, scan_act, scan_judge, NULL };

/* A scan comes every five seconds: not at each of its calls, but in each of its parts. */
static void scan_play(const char *only, unsigned first, unsigned step, const char *call)
{
    struct stage stage;
    json_t *setting;
    char body[WORLD_PATH];

    stage_open(&stage, "scan", NULL);
    source_make(&stage);
    setting = world_call(&stage.house.world, 201, "POST", "/settings",
            "{\"ElementName\":\"often\",\"DesiredRPO\":10}");
    snprintf(body, sizeof body, "\"CopyType\":2,\"TargetSettingGoal\":\"%s\"",
            text_of(setting, "Self"));
    json_decref(setting);
    pair_make(&stage, body);
    for (unsigned i = 0; i < 3; i++)
        expect(stage_strike(&stage, &scan_scene, only, first + i * step));
    fprintf(stderr, "struck:\n%s", stage.points);
    expect(stage_points(&stage, call, only) >= 1);
    stage_close(&stage);
}

Test(moments, a_scan_cut_off_while_it_writes_is_not_told)
{
    scan_play(".raw", 1, 1, "pwritev2");
}

Test(moments, a_scan_cut_off_at_its_digests_believes_none_of_them)
{
    scan_play(".digests", 2, 2, "pwrite");
}

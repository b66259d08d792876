/* The iscsi driver against a target that misbehaves by plan (tests/support/hostile_target.py):
 * the rows of the decision table and of the library's traps that can be played cheaply. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "replica/base/digest.h"
#include "tests/replica/block/hostile_scene.h"

/** One read, one write, one flush under @rules; what they answer. */
struct outcome {
    int read, write, flush;
    bool broken;
    char words[BLOCK_WORDS_MAX];
};

static struct outcome play(const char *const arguments[], unsigned io_timeout_ms)
{
    struct scene scene;
    struct outcome outcome;

    scene_start(&scene, arguments);
    if (io_timeout_ms)
        scene.spec.io_timeout_ms = io_timeout_ms;
    scene_open(&scene);
    memset(scene.bytes, 0, LENGTH);
    outcome.read = device_read(scene.device, 0, scene.bytes, LENGTH);
    outcome.write = device_write(scene.device, 0, scene.bytes, LENGTH);
    outcome.flush = device_flush(scene.device);
    outcome.broken = scene.device->broken;
    snprintf(
            outcome.words, sizeof(outcome.words), "%s", block_last_words(scene.device));
    fprintf(stderr, "read %d, write %d, flush %d: %s\n", outcome.read, outcome.write,
            outcome.flush, outcome.words);
    scene_end(&scene);
    return outcome;
}

/* -- answers that are not what they say ----------------------------------------------- */

Test(hostile, an_honest_session)
{
    struct outcome outcome = play(RULES("--blocks", "4096"), 0);

    cr_assert(outcome.read == 0 && outcome.write == 0 && outcome.flush == 0);
}

Test(hostile, data_that_never_came_is_not_read)
{
    static const char *const ways[] = { "88:short", "88:gap", "88:nodata",
        "88:residual" };

    for (size_t i = 0; i < 4; i++) {
        struct outcome outcome = play(RULES(ways[i]), 0);
        cr_assert_eq(outcome.read, -EIO, "%s", ways[i]);
        cr_assert_eq(outcome.write, 0, "%s", ways[i]);
        cr_assert(!outcome.broken);
        cr_assert(strstr(outcome.words, "GOOD"), "%s", outcome.words);
    }
}

Test(hostile, a_write_with_a_residual_failed)
{
    struct outcome outcome = play(RULES("8a:residual"), 0);

    cr_assert(outcome.read == 0 && outcome.write == -EIO);
}

Test(hostile, more_data_than_asked_for_ends_the_session)
{
    struct outcome outcome = play(RULES("88:long"), SHORT_MS);

    cr_assert(outcome.read < 0 && outcome.broken);
}

Test(hostile, a_status_without_data_is_caught_by_the_deadline)
{
    struct outcome outcome = play(RULES("88:empty"), SHORT_MS);

    cr_assert(outcome.read == -ETIMEDOUT || outcome.read == -EIO, "%d", outcome.read);
}

Test(hostile, sense_that_is_short_is_no_sense)
{
    static const char *const ways[] = { "88:sensebytes=0", "88:sensebytes=1",
        "88:sensebytes=2", "88:sensebytes=10" };

    for (size_t i = 0; i < 4; i++) {
        struct outcome outcome = play(RULES(ways[i]), 0);
        cr_assert_eq(outcome.read, -EREMOTEIO, "%s", ways[i]);
        cr_assert_eq(outcome.write, 0, "%s", ways[i]);
    }
}

/* -- the decision table, played ------------------------------------------------------- */

Test(hostile, errors_and_their_words)
{
    static const struct {
        const char *rules[2];
        int read, write;
        const char *words;
    } rows[] = {
        { { "88:sense=3/11/0" }, -EIO, 0, "MEDIUM ERROR 03/11/00" },
        { { "88:descriptor=3/11/0" }, -EIO, 0, "MEDIUM ERROR 03/11/00" },
        { { "8a:sense=3/c/0" }, 0, -EIO, "MEDIUM ERROR 03/0C/00, write error" },
        { { "8a:sense=4/44/0" }, 0, -EIO, "HARDWARE ERROR" },
        { { "8a:sense=7/27/7" }, 0, -ENOSPC, "thin pool full" },
        { { "8a:sense=7/27/0" }, 0, -EROFS, "write protected" },
        { { "8a:status=18" }, 0, -EBADE, "RESERVATION CONFLICT" },
        { { "88:sense=2/4/3" }, -EIO, 0, "NOT READY" },
        { { "88:sense=5/24/0" }, -EREMOTEIO, 0, "ILLEGAL REQUEST" },
        { { "88:sense=5/21/0" }, -EREMOTEIO, 0, "out of range" },
        { { "88:sense=e/1d/0" }, -EREMOTEIO, 0, "MISCOMPARE" },
        /* once or thrice, and no more */
        { { "88:sense=6/38/7*1" }, 0, 0, "" },
        { { "88:sense=6/38/7*2" }, -EREMOTEIO, 0, "UNIT ATTENTION" },
        { { "88:sense=6/29/0*1" }, 0, 0, "" },
        { { "8a:sense=6/29/0*1" }, 0, 0, "" },
        { { "88:status=40*1" }, 0, 0, "" },
        { { "88:sense=b/47/3*3" }, 0, 0, "" },
        { { "88:sense=b/47/3*4" }, -EIO, 0, "ABORTED COMMAND" },
        { { "8a:sense=b/47/3*3" }, 0, 0, "" },
        /* backed off until it goes */
        { { "88:status=08*4", "8a:status=28*2" }, 0, 0, "" },
        { { "88:sense=2/4/1*3", "8a:sense=2/4/a*2" }, 0, 0, "" },
        /* looked at anew, the same */
        { { "88:sense=6/2a/9*1", "8a:sense=6/3f/3*1" }, 0, 0, "" },
        { { "88:grow*1" }, 0, 0, "" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct outcome outcome = play(
                (const char *const[]){ rows[i].rules[0], rows[i].rules[1], NULL }, 0);
        cr_assert_eq(outcome.read, rows[i].read, "%s", rows[i].rules[0]);
        cr_assert_eq(outcome.write, rows[i].write, "%s", rows[i].rules[0]);
        cr_assert_eq(outcome.flush, 0, "%s", rows[i].rules[0]);
        cr_assert(strstr(outcome.words, rows[i].words), "%s: %s", rows[i].rules[0],
                outcome.words);
    }
}

Test(hostile, an_aborted_write_gives_the_session_up)
{
    struct outcome outcome = play(RULES("8a:status=40"), 0);

    cr_assert(outcome.read == 0 && outcome.write == -EIO && outcome.broken);
    outcome = play(RULES("8a:sense=6/2f/0"), 0);
    cr_assert(outcome.write == -EIO && outcome.broken);
}

Test(hostile, a_reset_after_unflushed_writes_gives_the_session_up)
{
    struct outcome outcome = play(RULES("35:sense=6/29/0*1"), 0);

    cr_assert(outcome.write == 0 && outcome.flush == -EIO && outcome.broken);
}

/** A write that no flush covers, and three at once of which the first is told of a reset:
    what has become of the others is known when they were answered, and only then. */
static void reset_among(const char *second, const char *third, bool answered)
{
    static struct rig_batch batch;
    struct scene scene;

    memset(&batch, 0, sizeof(batch));
    scene_start(&scene, RULES("8a:good*1", "8a:sense=6/29/0*1", second, third));
    scene_open(&scene);
    memset(scene.bytes, 1, SIZE);
    cr_assert_eq(device_write(scene.device, 0, scene.bytes, LENGTH), 0);
    for (uint64_t at = LENGTH; at < 4 * LENGTH; at += LENGTH)
        rig_start(&batch, scene.device, BLOCK_WRITE, at, scene.bytes, LENGTH);
    rig_finish(&batch, scene.loop);
    cr_assert_eq(rig_count(&batch, -EIO), 3);
    cr_assert(scene.device->broken && scene.device->returns);
    cr_assert_eq(scene.device->answered, answered, "%s, %s", second, third);
    cr_assert(strstr(block_last_words(scene.device), "a reset"));
    scene_end(&scene);
}

Test(hostile, a_session_that_a_reset_ends_is_left_in_order)
{
    reset_among("8a:good*1", "8a:good*1", true);
    reset_among("8a:sense=3/c/0*1", "8a:sense=6/29/0*1", true);
    reset_among("8a:good*1", "8a:mute*1", false);
    reset_among("8a:mute*1", "8a:good*1", false);
    reset_among("8a:status=40*1", "8a:good*1", false);
    reset_among("8a:good*1", "8a:sense=6/2f/0*1", false);
}

/** A write, a flush where it is asked for, and a read that has the LUN looked at, where it is
    the look that is told of a reset. What the read answered, and a flush after it. */
static void look_tells(bool flushed, int *read, int *flush)
{
    struct scene scene;
    int written;

    scene_start(&scene, RULES("88:sense=6/2a/9*1", "00:good*1", "00:sense=6/29/0*1"));
    scene_open(&scene);
    memset(scene.bytes, 1, LENGTH);
    written = device_write(scene.device, 0, scene.bytes, LENGTH);
    if (flushed)
        written |= device_flush(scene.device);
    *read = device_read(scene.device, 0, scene.bytes, LENGTH);
    *flush = device_flush(scene.device);
    scene_end(&scene);
    cr_assert_eq(written, 0);
}

Test(hostile, a_reset_that_only_a_look_is_told_of)
{
    int read, flush;

    look_tells(false, &read, &flush);
    cr_assert_eq(read, -EIO);
    cr_assert_eq(flush, -ENOTCONN, "it would cover what may be lost: %d", flush);
    look_tells(true, &read, &flush);
    cr_assert(read == 0 && flush == 0, "%d %d", read, flush);
}

Test(hostile, a_flush_that_failed_breaks_the_device)
{
    struct outcome outcome = play(RULES("35:sense=3/c/0"), 0);

    cr_assert(outcome.flush == -EIO && outcome.broken);
}

Test(hostile, a_fua_write_is_flushed_where_the_lun_has_no_fua)
{
    struct scene scene;

    scene_start(&scene, RULES("35:good*1", "35:sense=3/c/0"));
    scene_open(&scene);
    cr_assert_eq(
            device_do(scene.device, BLOCK_WRITE, 0, scene.bytes, LENGTH, BLOCK_FUA), 0);
    cr_assert_eq(device_do(scene.device, BLOCK_WRITE, 0, scene.bytes, LENGTH, 0), 0);
    cr_assert_eq(
            device_do(scene.device, BLOCK_WRITE, 0, scene.bytes, LENGTH, BLOCK_FUA),
            -EIO);
    cr_assert(scene.device->broken);
    scene_end(&scene);
}

/** The reset came between the write and the flush that was to save it: asked once more, the
    flush finds nothing to save, and says GOOD. */
Test(hostile, a_fua_write_that_a_reset_may_have_lost_fails)
{
    struct scene scene;

    scene_start(&scene, RULES("35:sense=6/29/0*1"));
    scene_open(&scene);
    cr_assert_eq(
            device_do(scene.device, BLOCK_WRITE, 0, scene.bytes, LENGTH, BLOCK_FUA),
            -EIO);
    cr_assert(scene.device->broken && scene.device->returns);
    scene_end(&scene);
}

static struct block_extent first_extent(struct block_device *device)
{
    struct block_extent extent = { 0 };
    struct device_call call = { .request = { .op = BLOCK_EXTENTS,
                                        .length = LENGTH,
                                        .extents = &extent,
                                        .extents_max = 1 } };

    cr_assert_eq(device_call_run(device, &call), 0);
    return extent;
}

Test(hostile, extents_are_not_made_of_what_an_earlier_answer_said)
{
    static const char *const ways[] = { "9e12:nodata", "9e12:header" };

    for (int i = 0; i < 2; i++) {
        struct scene scene;
        struct block_extent extent;
        scene_start(&scene, RULES("--thin", "9e12:good*2", ways[i]));
        scene_open(&scene); /* asks once */
        extent = first_extent(scene.device);
        cr_assert(extent.kind == BLOCK_EXTENT_ZERO && extent.length == LENGTH);
        memset(scene.bytes, 1, LENGTH);
        cr_assert_eq(device_write(scene.device, 0, scene.bytes, LENGTH), 0);
        extent = first_extent(scene.device);
        cr_assert_eq(extent.kind, BLOCK_EXTENT_DATA, "%s", ways[i]);
        scene_end(&scene);
    }
}

/** Thin, and blocks that are given back read as anything: neither what is unmapped there nor
    what it gives back are zeros, though it has the commands. */
Test(hostile, without_lbprz_nothing_given_back_is_zeros)
{
    struct scene scene;
    unsigned caps;
    int zeroed;

    scene_start(&scene, RULES("--thin", "--garbage"));
    scene_open(&scene);
    caps = scene.device->caps;
    memset(scene.bytes, 1, LENGTH);
    cr_assert_eq(device_write(scene.device, 0, scene.bytes, LENGTH), 0);
    zeroed = device_do(scene.device, BLOCK_ZERO, 0, NULL, LENGTH, 0);
    cr_assert_eq(device_read(scene.device, 0, scene.bytes, LENGTH), 0);
    cr_assert(zeroed == 0 && digest_is_zero(scene.bytes, LENGTH));
    cr_assert((caps & BLOCK_THIN) && (caps & BLOCK_CAN_DISCARD));
    cr_assert(!(caps & (BLOCK_DISCARD_ZEROES | BLOCK_CAN_ZERO | BLOCK_CAN_EXTENTS)),
            "it promises zeros: %u", caps);
    scene_end(&scene);
}

Test(hostile, endless_busy_ends_with_the_deadline_and_keeps_the_session)
{
    struct outcome outcome = play(RULES("88:status=08"), SHORT_MS);

    cr_assert(outcome.read == -ETIMEDOUT && outcome.write == 0 && !outcome.broken);
    outcome = play(RULES("88:status=28"), SHORT_MS);
    cr_assert(outcome.read == -ETIMEDOUT && outcome.write == 0 && !outcome.broken);
}

Test(hostile, many_requests_at_a_busy_target_all_end)
{
    struct scene scene;
    static struct rig_batch batch;

    scene_start(&scene, RULES("88:status=08"));
    scene.spec.io_timeout_ms = SHORT_MS;
    scene_open(&scene);
    for (uint64_t i = 0; i < RIG_CALLS; i++)
        rig_start(&batch, scene.device, BLOCK_READ, i * 4096, scene.bytes + i * 4096,
                4096);
    rig_finish(&batch, scene.loop);
    cr_assert_eq(rig_count(&batch, -ETIMEDOUT), RIG_CALLS);
    scene_end(&scene);
    scene_start(&scene, RULES("88:status=28*200"));
    memset(&batch, 0, sizeof(batch));
    scene_open(&scene);
    for (uint64_t i = 0; i < RIG_CALLS; i++)
        rig_start(&batch, scene.device, BLOCK_READ, i * 4096, scene.bytes + i * 4096,
                4096);
    rig_finish(&batch, scene.loop);
    cr_assert_eq(rig_count(&batch, 0), RIG_CALLS);
    scene_end(&scene);
}

Test(hostile, a_lun_that_changed_is_stale)
{
    static const char *const ways[] = { "88:shrink", "88:vanish", "88:rename" };

    for (size_t i = 0; i < 3; i++) {
        struct outcome outcome = play(RULES(ways[i]), 0);
        cr_assert_eq(outcome.read, -ESTALE, "%s", ways[i]);
        cr_assert(outcome.broken && outcome.write < 0, "%s", ways[i]);
    }
}

/* -- sessions that end ---------------------------------------------------------------- */

Test(hostile, lost_in_every_way)
{
    static const char *const ways[] = { "88:close", "88:async", "88:stranger",
        "88:status=77" };

    for (size_t i = 0; i < 4; i++) {
        struct outcome outcome = play(RULES(ways[i]), SHORT_MS);
        cr_assert(outcome.read < 0, "%s", ways[i]);
        cr_assert(outcome.read == -ENOTCONN || outcome.read == -ETIMEDOUT ||
                        outcome.read == -EREMOTEIO,
                "%s: %d", ways[i], outcome.read);
    }
}

Test(hostile, mute_after_the_login)
{
    struct outcome outcome = play(RULES("88:mute"), SHORT_MS);

    cr_assert(outcome.read == -ETIMEDOUT && outcome.broken);
    cr_assert(outcome.write == -ENOTCONN);
}

Test(hostile, a_logout_that_is_not_answered_ends_nevertheless)
{
    struct scene scene;

    scene_start(&scene, RULES("logout:mute"));
    scene.spec.io_timeout_ms = SHORT_MS;
    scene_open(&scene);
    scene_end(&scene);
}

/* -- a storm -------------------------------------------------------------------------- */

enum { STORM_RULES = 60, STORM_BLOCKS = 256, STORM_BLOCK = 4096, STORM_BATCHES = 40 };

/** What a block may hold: the last byte that was surely written, and what may have been. */
struct may_hold {
    uint8_t bytes[32];
    unsigned count;
};

static bool holds_one_of(struct may_hold *may, const uint8_t *bytes)
{
    for (unsigned i = 1; i < STORM_BLOCK; i++)
        if (bytes[i] != bytes[0])
            return false;
    for (unsigned i = 0; i < may->count; i++)
        if (may->bytes[i] == bytes[0]) {
            *may = (struct may_hold){ { bytes[0] }, 1 };
            return true;
        }
    return false;
}

static void rules_draw(
        uint64_t *seed, char texts[STORM_RULES][32], const char **arguments)
{
    static const char *const actions[] = { "good", "good", "good", "good", "short",
        "gap", "nodata", "residual", "empty", "long", "mute", "close", "async",
        "stranger", "status=08", "status=28", "status=40", "status=18", "status=77",
        "sense=3/11/0", "sense=6/29/0", "sense=6/2a/9", "sense=6/2f/0", "sense=b/0/0",
        "sense=2/4/1", "sense=5/21/0", "descriptor=6/3f/e", "sensebytes=1", "grow" };
    static const char *const what[] = { "88", "8a", "88", "8a", "35" };

    for (int i = 0; i < STORM_RULES; i++) {
        snprintf(texts[i], 32, "%s:%s*%d", what[seed_below(seed, 5)],
                actions[seed_below(seed, sizeof(actions) / sizeof(actions[0]))],
                1 + (int)seed_below(seed, 4));
        arguments[i] = texts[i];
    }
    arguments[STORM_RULES] = NULL;
}

static void storm_batch(struct scene *scene, struct may_hold *may, uint64_t *seed)
{
    static struct rig_batch batch;
    bool used[STORM_BLOCKS] = { false };

    memset(&batch, 0, sizeof(batch));
    for (int i = 0; i < 48; i++) {
        uint64_t block = seed_below(seed, STORM_BLOCKS);
        uint8_t *bytes = scene->bytes + block * STORM_BLOCK;
        if (used[block])
            continue;
        used[block] = true;
        if (seed_below(seed, 2))
            memset(bytes, (int)seed_below(seed, 256), STORM_BLOCK);
        rig_start(&batch, scene->device, seed_below(seed, 2) ? BLOCK_READ : BLOCK_WRITE,
                block * STORM_BLOCK, bytes, STORM_BLOCK);
    }
    rig_start(&batch, scene->device, BLOCK_FLUSH, 0, NULL, 0);
    rig_finish(&batch, scene->loop);
    for (unsigned i = 0; i + 1 < batch.started; i++) {
        struct rig_call *call = &batch.calls[i];
        struct may_hold *block = &may[call->request.offset / STORM_BLOCK];
        uint8_t *bytes = call->iov.iov_base;
        if (call->request.op == BLOCK_WRITE && call->result == 0)
            *block = (struct may_hold){ { bytes[0] }, 1 };
        else if (call->request.op == BLOCK_WRITE && block->count < 32)
            block->bytes[block->count++] = bytes[0];
        else if (call->result == 0)
            cr_assert(holds_one_of(block, bytes), "block %u: bytes that nobody wrote",
                    (unsigned)(call->request.offset / STORM_BLOCK));
        else
            memset(bytes, 0, STORM_BLOCK);
    }
}

Test(hostile, a_storm_of_all_of_it_answers_once_and_never_lies)
{
    uint64_t seed = seed_take("storm");
    static char texts[STORM_RULES][32];
    const char *arguments[STORM_RULES + 1];
    static struct may_hold may[STORM_BLOCKS];
    struct scene scene;

    rules_draw(&seed, texts, arguments);
    for (int i = 0; i < STORM_BLOCKS; i++)
        may[i].count = 1;
    scene_start(&scene, arguments);
    memset(scene.bytes, 0, SIZE);
    scene.spec.io_timeout_ms = 1000;
    scene_open(&scene);
    for (int i = 0; i < STORM_BATCHES; i++) {
        storm_batch(&scene, may, &seed);
        if (!scene.device->broken)
            continue;
        cr_assert(device_close(&scene.device));
        scene.spec.barrier = true;
        scene_open(&scene);
    }
    scene_end(&scene);
}

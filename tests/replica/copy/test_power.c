/* The power of the target fails after every write: what was told is there, and going on from
 * it comes out equal. Unflushed writes survive, are lost, or are torn, as the seed draws. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>

#include "replica/loop/sim.h"
#include "tests/replica/copy/rig.h"

enum { VOLUMES = 16, LIVES = 80, SIZE = 2 << 20 };

/* Runs until the target has taken @writes writes, cuts its power, and waits for the end. */
static int run_and_cut(struct rig *rig, uint64_t writes)
{
    while (!rig->ended && memory_disk_writes(rig->target) < writes)
        cr_assert(loop_sim_step(rig->loop), "seed %" PRIu64 ": it hangs", rig->seed);
    if (!rig->ended)
        rig_cut(rig);
    return rig_run(rig);
}

static void expect_told_is_true(const struct rig *rig)
{
    cr_assert(rig_equal_until(rig) >= rig->last.watermark,
            "seed %" PRIu64 ": told %" PRIu64 ", only %" PRIu64 " survived", rig->seed,
            rig->last.watermark, rig_equal_until(rig));
    rig_expect_untouched(rig);
}

/* One volume from its seed, cut after write @at, resumed. False: it has fewer writes. */
static bool life(uint64_t seed, uint64_t at, enum copy_kind kind)
{
    struct rig rig;
    bool cut;

    rig_init(&rig, seed, SIZE);
    struct copy_options options = rig_options(kind);
    options.target_zero = rig.target_zero;
    options.limit = rig_below(&rig, 2) ? 0 : 700000; /* slow: ticks come between */
    rig_start(&rig, &options, NULL, 0, NULL, 0);
    cut = run_and_cut(&rig, at) != 0;
    if (cut) {
        cr_assert(rig.result == -ENOTCONN && rig.on_target, "%s", rig.fault.why);
        expect_told_is_true(&rig);
        options = rig_resume(&rig);
        cr_assert(rig_copy(&rig, &options) == 0, "%s", rig.fault.why);
    }
    rig_cut(&rig); /* what is done is flushed */
    rig_expect_equal(&rig);
    rig_finish(&rig);
    return cut;
}

Test(copy_power, a_cut_after_every_write_of_a_full_copy)
{
    for (unsigned i = 0; i < VOLUMES; i++)
        for (uint64_t at = 1; life(rig_seed() + 2000 + i, at, COPY_FULL); at++)
            ;
}

Test(copy_power, a_cut_after_every_write_of_a_delta)
{
    for (unsigned i = 0; i < VOLUMES; i++)
        for (uint64_t at = 1; life(rig_seed() + 3000 + i, at, COPY_DELTA); at++)
            ;
}

/* Cut again and again, at any step, until one run comes through. */
Test(copy_power, many_cuts_in_one_life)
{
    for (unsigned i = 0; i < LIVES; i++) {
        struct rig rig;
        rig_init(&rig, rig_seed() + 4000 + i, SIZE);
        struct copy_options options =
                rig_options(rig_below(&rig, 2) ? COPY_FULL : COPY_DELTA);
        options.target_zero = rig.target_zero;
        options.verify = rig_below(&rig, 2);
        options.limit = 1000000;
        for (unsigned cuts = 0; cuts < 8; cuts++) {
            uint64_t steps = rig_below(&rig, 600);
            rig_start(&rig, &options, NULL, 0, NULL, 0);
            while (!rig.ended && steps--)
                cr_assert(loop_sim_step(rig.loop));
            if (!rig.ended)
                rig_cut(&rig);
            if (rig_run(&rig) == 0)
                break;
            expect_told_is_true(&rig);
            options = rig_resume(&rig);
        }
        if (rig.result != 0) {
            options.limit = 0;
            cr_assert(rig_copy(&rig, &options) == 0, "%s", rig.fault.why);
        }
        rig_cut(&rig);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

/* The first life finds a hole where it made one that is not flushed; the second finds it
   too, writes nothing, and must flush before it tells. */
Test(copy_power, what_an_earlier_life_left_unflushed_is_flushed)
{
    for (unsigned i = 0; i < 60; i++) {
        struct rig rig;
        rig_init(&rig, rig_seed() + 5000 + i, SIZE);
        rig.target_caps |= BLOCK_CAN_EXTENTS | BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES;
        rig.source_caps |= BLOCK_CAN_EXTENTS;
        struct block_fault_plan flush_fails = { .op = BLOCK_FLUSH, .error = -EIO };
        struct copy_options options = rig_options(i % 2 ? COPY_FULL : COPY_DELTA);
        rig_start(&rig, &options, NULL, 0, &flush_fails, 1);
        cr_assert(rig_run(&rig) == -EIO && rig.on_target);
        cr_assert(rig.last.watermark == 0, "told without a flush");

        options = rig_resume(&rig);
        options.limit = 3000000;
        rig_start(&rig, &options, NULL, 0, NULL, 0);
        for (uint64_t steps = rig_below(&rig, 400); !rig.ended && steps; steps--)
            cr_assert(loop_sim_step(rig.loop));
        rig_cut(&rig); /* also when it has ended */
        rig_run(&rig);
        expect_told_is_true(&rig);
        options = rig_resume(&rig);
        options.limit = 0;
        cr_assert(rig_copy(&rig, &options) == 0);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

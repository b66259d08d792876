/* A limit is exact on the simulated clock: over every window of two seconds, wherever it begins,
 * within a twentieth; never more than one window at once; after a change from the first window
 * on. What counts is when requests leave, seen by the source. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/copy/inside.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/nemesis.h"
#include "tests/replica/copy/rig.h"

enum { MIB = 1 << 20, SAMPLES = 100000, WINDOW_MS = 2000 };

/* What left, and when. */
struct sample {
    uint64_t ms, bytes;
};

struct pace {
    struct rig rig;
    struct nemesis source, target;
    struct sample *samples;
    unsigned count;
};

static struct block_device *wrap(
        struct rig *rig, struct block_device *device, bool on_target)
{
    struct pace *pace = (struct pace *)rig;

    return nemesis_over(device, on_target ? &pace->target : &pace->source);
}

static uint64_t now_ms(struct pace *pace)
{
    return loop_now(pace->rig.loop).ns / 1000000;
}

static void pace_init(struct pace *pace, uint64_t seed, uint64_t size)
{
    memset(pace, 0, sizeof *pace);
    rig_init_plain(&pace->rig, seed, size, 512, 512, 0, BLOCK_VOLATILE);
    pace->rig.wrap = wrap;
    pace->source.random = seed;
    pace->samples = calloc(SAMPLES, sizeof *pace->samples);
    check(pace->samples);
}

static void pace_finish(struct pace *pace)
{
    free(pace->samples);
    rig_finish(&pace->rig);
}

/* One step of the loop; true while the copy runs. */
static bool step(struct pace *pace)
{
    uint64_t before = pace->source.read_bytes;

    cr_assert(loop_sim_step(pace->rig.loop));
    if (pace->source.read_bytes > before) {
        check(pace->count < SAMPLES);
        pace->samples[pace->count++] =
                (struct sample){ now_ms(pace), pace->source.read_bytes - before };
    }
    return !pace->rig.ended;
}

/* Bytes that left from sample @first on, within @ms of it. */
static uint64_t bytes_within(const struct pace *pace, unsigned first, uint64_t ms)
{
    uint64_t bytes = 0;

    for (unsigned i = first;
            i < pace->count && pace->samples[i].ms < pace->samples[first].ms + ms; i++)
        bytes += pace->samples[i].bytes;
    return bytes;
}

/* Every window of two seconds between samples @from and @to. */
static void expect_even(
        const struct pace *pace, unsigned from, unsigned to, uint64_t limit)
{
    uint64_t wanted = limit * WINDOW_MS / 1000, end = pace->samples[to - 1].ms;
    uint64_t piece = 0, room = wanted / 20, least = UINT64_MAX, most = 0;

    for (unsigned i = from; i < to; i++)
        piece = pace->samples[i].bytes > piece ? pace->samples[i].bytes : piece;
    for (unsigned i = from; i < to; i++) {
        if (pace->samples[i].ms + WINDOW_MS > end)
            break;
        uint64_t bytes = bytes_within(pace, i, WINDOW_MS);
        least = bytes < least ? bytes : least;
        most = bytes > most ? bytes : most;
        cr_assert(bytes <= wanted + room && bytes + room >= wanted,
                "seed %" PRIu64 ", limit %" PRIu64 ": %" PRIu64 " in 2 s, not %" PRIu64,
                pace->rig.seed, limit, bytes, wanted);
    }
    cr_assert(most > 0, "no window of two seconds");
    if (getenv("REPLICAD_TELL"))
        fprintf(stderr, "limit %" PRIu64 ": %.2f %% to %.2f %%, requests %.2f %%\n",
                limit, (double)least * 100 / (double)wanted,
                (double)most * 100 / (double)wanted,
                (double)piece * 100 / (double)wanted);
}

/* No instant takes more than a window of requests. */
static void expect_no_burst(const struct pace *pace)
{
    for (unsigned i = 0; i < pace->count; i++)
        cr_assert(bytes_within(pace, i, 1) <= (uint64_t)COPY_ARENA,
                "seed %" PRIu64 ": a burst", pace->rig.seed);
}

Test(limits, every_window_of_two_seconds)
{
    static const uint64_t limits[] = { 100000, 1000000, 3333333, 8 * MIB, 20 * MIB };

    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct pace pace;
        pace_init(&pace, rig_seed() + i, min_u64(limits[i] * 6, 64 * MIB) / 512 * 512);
        struct copy_options options = rig_options(COPY_FULL);
        options.limit = limits[i];
        rig_start(&pace.rig, &options, NULL, 0, NULL, 0);
        while (step(&pace))
            ;
        expect_even(&pace, 0, pace.count, limits[i]);
        expect_no_burst(&pace);
        cr_assert(rig_run(&pace.rig) == 0);
        rig_expect_equal(&pace.rig);
        pace_finish(&pace);
    }
}

/* From one limit to another and back, any number of times, at any moment. */
Test(limits, changes_while_it_runs)
{
    for (unsigned i = 0; i < 6; i++) {
        struct pace pace;
        pace_init(&pace, rig_seed() + 50 + i, 48 * MIB);
        struct copy_options options = rig_options(COPY_FULL);
        options.limit = 1000000;
        rig_start(&pace.rig, &options, NULL, 0, NULL, 0);
        for (unsigned change = 0; change < 4; change++) {
            uint64_t limit = 300000 + rig_below(&pace.rig, 4 * MIB);
            unsigned from, silent = 0;
            copy_set_limit(pace.rig.copy, limit);
            /* What was under way when it changed is paid at the new rate. */
            for (uint64_t end = now_ms(&pace) + 150 + rig_below(&pace.rig, 50);
                    now_ms(&pace) < end;)
                cr_assert(step(&pace));
            from = pace.count;
            for (uint64_t end = now_ms(&pace) + 2500; now_ms(&pace) < end;)
                cr_assert(step(&pace));
            silent += pace.count == from;
            cr_assert(!silent, "nothing in two seconds");
            expect_even(&pace, from, pace.count, limit);
        }
        expect_no_burst(&pace);
        copy_set_limit(pace.rig.copy, 0);
        cr_assert(rig_run(&pace.rig) == 0);
        rig_expect_equal(&pace.rig);
        pace_finish(&pace);
    }
}

/* Late devices, early and late timers: what was missed is not made good at once. */
Test(limits, late_devices_are_followed_by_no_burst)
{
    for (unsigned i = 0; i < 6; i++) {
        struct pace pace;
        uint64_t limit = 3 * MIB;
        pace_init(&pace, rig_seed() + 90 + i, 40 * MIB);
        pace.source.per_mille = 30;
        pace.source.budget = 4;
        pace.source.only_late = true;
        struct copy_options options = rig_options(i % 2 ? COPY_FULL : COPY_DELTA);
        options.limit = limit;
        options.window = 2; /* a late one or two stop it all */
        rig_start(&pace.rig, &options, NULL, 0, NULL, 0);
        while (step(&pace))
            ;
        cr_assert(pace.source.counts[NEMESIS_LATE] >= 2);
        for (unsigned s = 0; s < pace.count; s++) {
            uint64_t bytes = bytes_within(&pace, s, WINDOW_MS);
            cr_assert(bytes <= limit * 2 + limit / 10 + limit / 8,
                    "seed %" PRIu64 ": %" PRIu64 " in 2 s", pace.rig.seed, bytes);
            bytes = bytes_within(&pace, s, 100);
            cr_assert(bytes <= limit / 10 + (uint64_t)2 * COPY_CHUNK,
                    "seed %" PRIu64 ": %" PRIu64 " in 100 ms", pace.rig.seed, bytes);
        }
        cr_assert(rig_run(&pace.rig) == 0);
        rig_expect_equal(&pace.rig);
        pace_finish(&pace);
    }
}

/* Where nothing moves nothing is paid: holes come for nothing, in any number. */
Test(limits, holes_cost_nothing)
{
    struct pace pace;
    uint64_t begin;

    pace_init(&pace, rig_seed(), 32 * MIB);
    pace.rig.source_caps |= BLOCK_CAN_EXTENTS;
    pace.rig.target_caps |= BLOCK_CAN_ZERO;
    memset(memory_disk_bytes(pace.rig.source), 0, 31 * MIB);
    memset(pace.rig.source_shadow, 0, 31 * MIB);
    memory_disk_settle(pace.rig.source);
    struct copy_options options = rig_options(COPY_FULL);
    options.limit = MIB;
    begin = now_ms(&pace);
    rig_start(&pace.rig, &options, NULL, 0, NULL, 0);
    cr_assert(rig_run(&pace.rig) == 0);
    cr_assert(now_ms(&pace) - begin < 3000);
    rig_expect_equal(&pace.rig);
    pace_finish(&pace);
}

/* One run of blocks an answer, however short: that is not asked for block by block, and the hole
   behind it is found nevertheless. */
Test(limits, a_map_of_little_answers_holds_nobody_up)
{
    enum { STRIPES = 2 * MIB, SIZE = 76 * MIB };
    struct copy_options options = rig_options(COPY_FULL);
    struct pace pace;
    uint8_t *bytes;

    pace_init(&pace, rig_seed(), SIZE);
    pace.rig.source_caps |= BLOCK_CAN_EXTENTS;
    pace.rig.exact = true;
    pace.source.extents_most = 1;
    bytes = memory_disk_bytes(pace.rig.source);
    for (uint64_t at = 0; at < STRIPES; at += 1024)
        memset(bytes + at, 0, 512);
    memset(bytes + STRIPES, 0, SIZE - STRIPES);
    memory_disk_settle(pace.rig.source);
    memcpy(pace.rig.source_shadow, bytes, SIZE);
    cr_assert(rig_copy(&pace.rig, &options) == 0);
    cr_assert(pace.source.reads < 300, "%" PRIu64 " reads", pace.source.reads);
    cr_assert(pace.source.read_bytes < 70 * MIB, "%" PRIu64 " bytes",
            pace.source.read_bytes);
    rig_expect_equal(&pace.rig);
    pace_finish(&pace);
}

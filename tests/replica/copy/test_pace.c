/* Limits on the simulated clock, stopping, and what a copy costs in requests. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "replica/copy/inside.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/rig.h"

enum { MIB = 1 << 20 };

static uint64_t now_ms(struct rig *rig)
{
    return loop_now(rig->loop).ns / 1000000;
}

static uint64_t far(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

/* Runs for @ms of the simulated clock; returns the bytes read meanwhile. */
static uint64_t bytes_in(struct rig *rig, uint64_t ms)
{
    uint64_t end = now_ms(rig) + ms;
    struct copy_figures before, after;

    copy_figures(rig->copy, &before);
    while (!rig->ended && now_ms(rig) < end)
        cr_assert(loop_sim_step(rig->loop));
    cr_assert(!rig->ended, "the volume is too small for this test");
    copy_figures(rig->copy, &after);
    return after.read - before.read;
}

static void plain(struct rig *rig, uint64_t size)
{
    rig_init_plain(rig, rig_seed(), size, 512, 512, 0, BLOCK_VOLATILE);
}

static void start(struct rig *rig, uint64_t limit)
{
    struct copy_options options = rig_options(COPY_FULL);
    options.limit = limit;
    rig_start(rig, &options, NULL, 0, NULL, 0);
}

static void finish(struct rig *rig)
{
    if (!rig->ended)
        copy_set_limit(rig->copy, 0);
    cr_assert(rig_run(rig) == 0);
    rig_expect_equal(rig);
    rig_finish(rig);
}

Test(copy_pace, a_limit_is_kept_in_every_window)
{
    static const uint64_t limits[] = { 300000, 3000000, 10000000 };

    for (unsigned i = 0; i < 3; i++) {
        struct rig rig;
        plain(&rig, 48 * MIB);
        start(&rig, limits[i]);
        bytes_in(&rig, 500); /* in flight from the start on */
        for (unsigned window = 0; window < 2; window++) {
            uint64_t bytes = bytes_in(&rig, 2000), wanted = 2 * limits[i];
            /* One piece is an eighth of a second at most. */
            cr_assert(far(bytes, wanted) <= wanted / 20 + limits[i] / 8,
                    "limit %" PRIu64 ": %" PRIu64 " in 2 s", limits[i], bytes);
        }
        finish(&rig);
    }
}

/* A hole that a target knows only as zeros to be written: they are sent like anything else. */
Test(copy_pace, zeros_that_are_sent_keep_the_limit)
{
    static const uint64_t limits[] = { 262144, 1000000, 4000000 };

    for (unsigned i = 0; i < 3; i++) {
        struct rig rig;
        rig_init_plain(&rig, rig_seed() + i, 24 * MIB, 512, 512, BLOCK_CAN_EXTENTS,
                BLOCK_VOLATILE);
        memset(memory_disk_bytes(rig.source), 0, rig.source_size);
        memory_disk_settle(rig.source);
        memset(rig.source_shadow, 0, rig.source_size);
        start(&rig, limits[i]);
        bytes_in(&rig, 500);
        for (unsigned window = 0; window < 2; window++) {
            uint64_t before = rig.copy->sent, wanted = 2 * limits[i], sent;
            cr_assert(bytes_in(&rig, 2000) == 0, "a hole was read");
            sent = rig.copy->sent - before;
            cr_assert(far(sent, wanted) <= wanted / 20 + limits[i] / 8,
                    "limit %" PRIu64 ": %" PRIu64 " in 2 s", limits[i], sent);
        }
        finish(&rig);
    }
}

Test(copy_pace, a_limited_copy_takes_its_time_to_the_millisecond)
{
    struct rig rig;
    uint64_t begin, ms, wanted;
    plain(&rig, 20 * MIB);
    start(&rig, 4 * MIB);
    begin = now_ms(&rig);
    cr_assert(rig_run(&rig) == 0);
    ms = now_ms(&rig) - begin;
    wanted = 5000 - 125; /* the last piece is not waited for */
    cr_assert(ms >= wanted && ms < wanted + 500, "%" PRIu64 " ms", ms);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

Test(copy_pace, a_limit_changes_while_it_runs)
{
    struct rig rig;
    uint64_t bytes;
    plain(&rig, 48 * MIB);
    start(&rig, 1000); /* hours */
    bytes_in(&rig, 500); /* in the middle of the price of one piece */
    copy_set_limit(rig.copy, 2 * MIB);
    bytes_in(&rig, 200);
    bytes = bytes_in(&rig, 2000);
    cr_assert(far(bytes, 4 * MIB) <= MIB / 2, "%" PRIu64, bytes);
    copy_set_limit(rig.copy, 8 * MIB);
    bytes_in(&rig, 500);
    bytes = bytes_in(&rig, 2000);
    cr_assert(far(bytes, 16 * MIB) <= 2 * MIB, "%" PRIu64, bytes);
    copy_set_limit(rig.copy, 100000);
    bytes_in(&rig, 1000);
    bytes = bytes_in(&rig, 2000);
    cr_assert(bytes <= 230000, "%" PRIu64, bytes);
    finish(&rig);
}

/* A device that hangs is not followed by a burst of what was missed. */
Test(copy_pace, no_burst_after_a_stall)
{
    struct rig rig;
    struct block_fault_plan stall = {
        .op = BLOCK_READ, .after = 10, .times = 8, .delay_ms = 5000
    };
    struct copy_options options = rig_options(COPY_FULL);
    uint64_t most = 0;
    plain(&rig, 48 * MIB);
    options.limit = 8 * MIB;
    rig_start(&rig, &options, &stall, 1, NULL, 0);
    for (unsigned i = 0; i < 60; i++) {
        if (rig.ended)
            break;
        uint64_t end = now_ms(&rig) + 100;
        struct copy_figures before = rig.live, after;
        if (rig.copy)
            copy_figures(rig.copy, &before);
        while (!rig.ended && now_ms(&rig) < end)
            cr_assert(loop_sim_step(rig.loop));
        if (rig.ended)
            break;
        copy_figures(rig.copy, &after);
        most = after.read - before.read > most ? after.read - before.read : most;
    }
    /* All that was in flight may land at once, and a tenth of a second is caught up. */
    cr_assert(most <= 8 * MIB + 2 * MIB, "%" PRIu64, most);
    finish(&rig);
}

/* -- stopping ------------------------------------------------------------------------ */

Test(copy_stop, a_drain_tells_all_that_was_read_and_goes_on)
{
    for (unsigned i = 0; i < 150; i++) {
        struct rig rig;
        rig_init(&rig, rig_seed() + 8000 + i, 4 * MIB);
        struct copy_options options =
                rig_options(rig_below(&rig, 2) ? COPY_FULL : COPY_DELTA);
        options.verify = rig_below(&rig, 2);
        options.target_zero = rig.target_zero;
        options.limit = rig_below(&rig, 2) ? 0 : 2000000;
        rig_start(&rig, &options, NULL, 0, NULL, 0);
        for (uint64_t steps = rig_below(&rig, 300); !rig.ended && steps; steps--)
            cr_assert(loop_sim_step(rig.loop));
        if (rig.copy) {
            copy_drain(rig.copy);
            if (rig_below(&rig, 4) == 0)
                copy_drop(rig.copy);
        }
        rig_run(&rig);
        cr_assert(rig.result == 0 || rig.result == -ECANCELED);
        if (rig.result == -ECANCELED) {
            struct copy_figures told = rig.last;
            rig_cut(&rig); /* whatever was told survives */
            cr_assert(rig_equal_until(&rig) >= told.watermark);
            options = rig_resume(&rig);
            options.limit = 0;
            cr_assert(rig_copy(&rig, &options) == 0);
        }
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

/* After a drain nothing is begun, and what was read is written and told. */
Test(copy_stop, a_drain_begins_nothing)
{
    struct rig rig;
    struct copy_figures at_stop;
    plain(&rig, 40 * MIB);
    start(&rig, 8 * MIB);
    bytes_in(&rig, 1000);
    copy_figures(rig.copy, &at_stop);
    copy_drain(rig.copy);
    cr_assert(rig_run(&rig) == -ECANCELED);
    cr_assert(rig.last.read <= at_stop.read + COPY_ARENA);
    cr_assert(rig.last.watermark >= at_stop.done);
    cr_assert(rig.last.watermark == rig.last.read, "what was read was not written");
    rig_finish(&rig);
}

Test(copy_stop, a_drop_does_not_flush)
{
    struct rig rig;
    struct block_fault_plan never = { .op = BLOCK_FLUSH, .delay_ms = 1000000 };
    uint64_t begin;
    plain(&rig, 40 * MIB);
    struct copy_options options = rig_options(COPY_FULL);
    options.limit = 8 * MIB;
    rig_start(&rig, &options, NULL, 0, &never, 1);
    bytes_in(&rig, 700); /* no tick, so no flush yet */
    begin = now_ms(&rig);
    copy_drop(rig.copy);
    cr_assert(rig_run(&rig) == -ECANCELED);
    cr_assert(now_ms(&rig) - begin < 1000 && rig.last.watermark == 0);
    rig_finish(&rig);
}

Test(copy_stop, a_limit_of_hours_does_not_delay_a_stop)
{
    struct rig rig;
    uint64_t begin;
    plain(&rig, 40 * MIB);
    start(&rig, 1);
    for (unsigned i = 0; i < 100; i++)
        cr_assert(loop_sim_step(rig.loop));
    begin = now_ms(&rig);
    copy_drain(rig.copy);
    cr_assert(rig_run(&rig) == -ECANCELED);
    cr_assert(now_ms(&rig) - begin < 1000);
    rig_finish(&rig);
}

/* -- what need not move -------------------------------------------------------------- */

static void zero_half(struct rig *rig)
{
    uint64_t half = rig->source_size / 2;
    memset(memory_disk_bytes(rig->source) + half, 0, rig->source_size - half);
    memset(rig->source_shadow + half, 0, rig->source_size - half);
    memory_disk_settle(rig->source);
}

Test(copy_skip, holes_are_neither_read_nor_written_to_a_fresh_target)
{
    struct rig rig;
    rig_init_plain(
            &rig, rig_seed(), 16 * MIB, 512, 512, BLOCK_CAN_EXTENTS, BLOCK_VOLATILE);
    zero_half(&rig);
    memset(memory_disk_bytes(rig.target), 0, rig.target_size);
    memset(rig.target_shadow, 0, rig.target_size);
    memory_disk_settle(rig.target);
    struct copy_options options = rig_options(COPY_FULL);
    options.target_zero = true;
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(rig.last.read == 8 * MIB && rig.last.sent == 8 * MIB);
    cr_assert(rig.last.skipped == 8 * MIB && rig.last.written == 8 * MIB);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

Test(copy_skip, zeros_that_were_read_are_not_sent_where_they_can_be_made)
{
    static const unsigned ways[] = { BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES,
        BLOCK_CAN_ZERO };

    for (unsigned i = 0; i < 2; i++) {
        struct rig rig;
        rig_init_plain(
                &rig, rig_seed(), 16 * MIB, 512, 512, 0, BLOCK_VOLATILE | ways[i]);
        zero_half(&rig);
        struct copy_options options = rig_options(COPY_FULL);
        cr_assert(rig_copy(&rig, &options) == 0);
        cr_assert(rig.last.read == 16 * MIB && rig.last.sent == 8 * MIB);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

Test(copy_skip, a_discard_that_promises_nothing_is_not_used)
{
    struct rig rig;
    rig_init_plain(&rig, rig_seed(), 4 * MIB, 512, 512, BLOCK_CAN_EXTENTS,
            BLOCK_VOLATILE | BLOCK_CAN_DISCARD);
    zero_half(&rig);
    struct copy_options options = rig_options(COPY_FULL);
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(rig.last.read == 2 * MIB && rig.last.sent == 4 * MIB);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

Test(copy_skip, a_delta_writes_little_more_than_what_differs)
{
    struct rig rig;
    rig_init_plain(&rig, rig_seed(), 32 * MIB, 512, 512, 0, BLOCK_VOLATILE);
    memcpy(memory_disk_bytes(rig.target), memory_disk_bytes(rig.source), 32 * MIB);
    for (unsigned i = 0; i < 20; i++)
        memory_disk_bytes(rig.target)[rig_below(&rig, 512) * 65536 + 5] ^= 1;
    memory_disk_settle(rig.target);
    struct copy_options options = rig_options(COPY_DELTA);
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(rig.last.sent <= 20 * 65536 && rig.last.sent == rig.last.written);
    cr_assert(rig.last.read == 64 * MIB);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

Test(copy_skip, nothing_is_done_for_nothing)
{
    struct rig rig;
    rig_init_plain(&rig, rig_seed(), 0, 1, 512, 0, BLOCK_VOLATILE);
    struct copy_options options = rig_options(COPY_FULL);
    options.verify = true;
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(rig.last.total == 0 && rig.last.read == 0);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

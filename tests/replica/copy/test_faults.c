/* Devices that fail, are late, lie about what they can, or are lost, at every request. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "replica/copy/inside.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/rig.h"

enum { SIZE = 2 << 20, MIB = 1 << 20 };

static void check_failure(
        const struct rig *rig, int error, bool lose, bool on_target, const char *who)
{
    /* When a session is lost, what else is in flight is lost by another name. */
    cr_assert(rig->result == error || (lose && rig->result == -ENOTCONN),
            "seed %" PRIu64 ": %d, not %d", rig->seed, rig->result, error);
    cr_assert(rig->on_target == on_target && strstr(rig->fault.why, who), "%s",
            rig->fault.why);
    cr_assert(rig_equal_until(rig) >= rig->last.watermark);
    rig_expect_untouched(rig);
}

/* The n-th request of a kind fails, for every n, on either side; then it goes on. False:
   there is no n-th. */
static bool life(uint64_t seed, enum copy_kind kind, int op, unsigned after, int error,
        bool on_target, bool apply, bool lose)
{
    struct block_fault_plan plan = { .op = op,
        .after = after,
        .times = 1,
        .error = error,
        .apply = apply,
        .lose = lose };
    struct rig rig;
    bool struck;

    rig_init(&rig, seed, SIZE);
    struct copy_options options = rig_options(kind);
    options.target_zero = rig.target_zero && rig_below(&rig, 2);
    options.verify = rig_below(&rig, 2) && !lose;
    rig_start(&rig, &options, &plan, on_target ? 0 : 1, &plan, on_target ? 1 : 0);
    struck = rig_run(&rig) != 0;
    if (struck) {
        check_failure(&rig, error, lose, on_target, on_target ? "target" : "source");
        options = rig_resume(&rig);
        cr_assert(rig_copy(&rig, &options) == 0, "%s", rig.fault.why);
    }
    rig_expect_equal(&rig);
    rig_finish(&rig);
    return struck;
}

static void sweep(enum copy_kind kind, int op, int error, bool on_target, bool apply,
        bool lose, uint64_t base)
{
    for (unsigned i = 0; i < 5; i++)
        for (unsigned after = 0; after < 60; after++)
            if (!life(rig_seed() + base + i, kind, op, after, error, on_target, apply,
                        lose))
                break;
}

Test(copy_faults, every_read_of_the_source)
{
    sweep(COPY_FULL, BLOCK_READ, -EIO, false, false, false, 6000);
    sweep(COPY_DELTA, BLOCK_READ, -ETIMEDOUT, false, false, true, 6100);
}

Test(copy_faults, every_write_of_the_target)
{
    sweep(COPY_FULL, BLOCK_WRITE, -ENOSPC, true, false, false, 6200);
    sweep(COPY_FULL, BLOCK_WRITE, -EIO, true, true, false,
            6300); /* done, told failed */
    sweep(COPY_DELTA, BLOCK_WRITE, -ENOTCONN, true, true, true, 6400);
}

Test(copy_faults, every_read_and_flush_of_the_target)
{
    sweep(COPY_DELTA, BLOCK_READ, -EIO, true, false, false, 6500);
    sweep(COPY_FULL, BLOCK_FLUSH, -EIO, true, false, false, 6600);
    sweep(COPY_DELTA, BLOCK_FLUSH, -EIO, true, false, false, 6700);
}

Test(copy_faults, a_session_lost_at_any_request)
{
    sweep(COPY_FULL, -1, -ENOTCONN, true, false, true, 6800);
    sweep(COPY_FULL, -1, -ENOTCONN, false, false, true, 6900);
    sweep(COPY_DELTA, -1, -ENOTCONN, true, true, true, 7000);
}

/* A device that says it can make zeros, and cannot: plain writes do it. */
Test(copy_faults, zeros_that_are_refused_are_written)
{
    static const int errors[] = { -EOPNOTSUPP, -EREMOTEIO, -EINVAL };

    for (unsigned i = 0; i < 60; i++) {
        struct rig rig;
        struct block_fault_plan plans[] = {
            { .op = BLOCK_DISCARD, .after = i % 4, .error = errors[i % 3] },
            { .op = BLOCK_ZERO, .after = i % 3, .error = errors[i / 3 % 3] }
        };
        rig_init(&rig, rig_seed() + 7100 + i, SIZE);
        rig.target_caps |= BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES | BLOCK_CAN_ZERO;
        struct copy_options options = rig_options(i % 2 ? COPY_FULL : COPY_DELTA);
        rig_start(&rig, &options, NULL, 0, plans, 2);
        cr_assert(rig_run(&rig) == 0, "seed %" PRIu64 ": %s", rig.seed, rig.fault.why);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

/* A reservation is no lack of ability. */
Test(copy_faults, zeros_that_fail_fail_the_copy)
{
    struct rig rig;
    struct block_fault_plan plan = { .op = BLOCK_DISCARD, .error = -EBADE };
    rig_init_plain(&rig, rig_seed(), 4 * MIB, 512, 512, BLOCK_CAN_EXTENTS,
            BLOCK_VOLATILE | BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES);
    memset(memory_disk_bytes(rig.source) + MIB, 0, MIB);
    memory_disk_settle(rig.source);
    memset(rig.source_shadow + MIB, 0, MIB);
    struct copy_options options = rig_options(COPY_FULL);
    rig_start(&rig, &options, NULL, 0, &plan, 1);
    cr_assert(rig_run(&rig) == -EBADE);
    rig_finish(&rig);
}

/* Extents that cannot be had, at any question: all is data then. */
Test(copy_faults, a_map_that_fails_is_done_without)
{
    for (unsigned i = 0; i < 40; i++) {
        struct rig rig;
        struct block_fault_plan plan = { .op = BLOCK_EXTENTS,
            .error = i % 2 ? -EOPNOTSUPP : -EREMOTEIO };
        rig_init(&rig, rig_seed() + 7200 + i, SIZE);
        rig.source_caps |= BLOCK_CAN_EXTENTS;
        rig.target_caps |= BLOCK_CAN_EXTENTS;
        struct copy_options options = rig_options(i % 4 < 2 ? COPY_FULL : COPY_DELTA);
        rig_start(&rig, &options, &plan, 1, &plan, 1);
        cr_assert(rig_run(&rig) == 0, "%s", rig.fault.why);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

/* Requests that answer seconds late: order and truth do not depend on it. */
Test(copy_faults, late_answers)
{
    for (unsigned i = 0; i < 60; i++) {
        struct rig rig;
        struct block_fault_plan plans[] = {
            { .op = BLOCK_READ, .times = 1, .delay_ms = 9000 },
            { .op = BLOCK_WRITE, .after = i % 5, .times = 2, .delay_ms = 4000 },
            { .op = BLOCK_FLUSH, .times = 1, .delay_ms = 3000 }
        };
        rig_init(&rig, rig_seed() + 7300 + i, SIZE);
        struct copy_options options = rig_options(i % 2 ? COPY_FULL : COPY_DELTA);
        options.verify = i % 3 == 0;
        rig_start(&rig, &options, plans, 1, plans, 3);
        cr_assert(rig_run(&rig) == 0, "%s", rig.fault.why);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

/* -- reading back -------------------------------------------------------------------- */

static void flip_one(struct rig *rig, uint64_t at)
{
    memory_disk_bytes(rig->target)[at] ^= (uint8_t)(1u << rig_below(rig, 8));
    memory_disk_settle(rig->target);
}

/* What the disks hold, looked at by the simplest rule. */
static struct differences differences_now(struct rig *rig)
{
    const uint8_t *a = memory_disk_bytes(rig->source),
                  *b = memory_disk_bytes(rig->target);
    uint64_t block = 512, last = UINT64_MAX;
    struct differences all = { .bytes = 0 };

    if (rig->source_block > block)
        block = rig->source_block;
    if (rig->target_block > block)
        block = rig->target_block;
    for (uint64_t at = 0; at < rig->source_size; at += block) {
        uint64_t n = rig->source_size - at < block ? rig->source_size - at : block;
        if (memcmp(a + at, b + at, n) == 0)
            continue;
        all.bytes += n;
        if (at != last)
            all.ranges++;
        if (at != last && all.kept < DIFFERENCES_KEPT)
            all.first[all.kept++].offset = at;
        if (all.ranges == all.kept)
            all.first[all.kept - 1].length += n;
        last = at + n;
    }
    return all;
}

/* All of it was compared, and this is what was found. */
static void expect_differences(struct rig *rig)
{
    const struct differences all = differences_now(rig),
                             *found = &rig->last.differences;

    cr_assert(found->bytes == all.bytes && found->ranges == all.ranges,
            "seed %" PRIu64 ": %" PRIu64 " bytes in %" PRIu64 " ranges, not %" PRIu64
            " in %" PRIu64,
            rig->seed, found->bytes, found->ranges, all.bytes, all.ranges);
    cr_assert(found->kept == all.kept);
    for (unsigned i = 0; i < all.kept; i++)
        cr_assert(found->first[i].offset == all.first[i].offset &&
                        found->first[i].length == all.first[i].length,
                "seed %" PRIu64 ": range %u is %" PRIu64 " + %" PRIu64, rig->seed, i,
                found->first[i].offset, found->first[i].length);
    cr_assert(rig->last.verified == rig->source_size);
    cr_assert(rig->last.done == rig->source_size - all.bytes);
    cr_assert(rig->result == (all.ranges ? -EILSEQ : 0));
}

Test(copy_verify, one_flipped_bit_anywhere_is_found)
{
    char words[100];

    for (unsigned i = 0; i < 100; i++) {
        struct rig rig;
        rig_init_plain(&rig, rig_seed() + i, 1 + (rig_seed() * 7 + i * 77777) % SIZE, 1,
                i % 2 ? 1 : 512, BLOCK_CAN_EXTENTS, BLOCK_VOLATILE | BLOCK_CAN_EXTENTS);
        memcpy(memory_disk_bytes(rig.target), memory_disk_bytes(rig.source),
                rig.source_size);
        uint64_t at = i == 0 ? 0
                : i == 1     ? rig.source_size - 1
                             : rig_below(&rig, rig.source_size);
        flip_one(&rig, at);
        struct copy_options options = rig_options(COPY_VERIFY);
        cr_assert(rig_copy(&rig, &options) == -EILSEQ, "seed %" PRIu64, rig.seed);
        cr_assert(rig.on_target && rig.last.watermark == rig.source_size);
        expect_differences(&rig);
        snprintf(words, sizeof words, "first in bytes %" PRIu64 " to", at - at % 512);
        cr_assert(strstr(rig.fault.why, words), "%s, not %s", rig.fault.why, words);
        cr_assert(rig.last.written == 0 && memory_disk_writes(rig.target) == 0);
        rig_finish(&rig);
    }
}

Test(copy_verify, of_many_differences_the_first_is_told)
{
    for (unsigned i = 0; i < 60; i++) {
        struct rig rig;
        uint64_t first = SIZE;
        char words[100];
        rig_init_plain(&rig, rig_seed() + 500 + i, SIZE, 512, 512, 0, BLOCK_VOLATILE);
        memcpy(memory_disk_bytes(rig.target), memory_disk_bytes(rig.source), SIZE);
        for (unsigned n = 0; n < 6; n++) {
            uint64_t at = rig_below(&rig, SIZE);
            first = at < first ? at : first;
            flip_one(&rig, at);
        }
        struct copy_options options = rig_options(COPY_VERIFY);
        cr_assert(rig_copy(&rig, &options) == -EILSEQ);
        snprintf(words, sizeof words, "first in bytes %" PRIu64 " to",
                first - first % 512);
        cr_assert(strstr(rig.fault.why, words), "seed %" PRIu64 ": %s, not %s",
                rig.seed, rig.fault.why, words);
        expect_differences(&rig);
        rig_finish(&rig);
    }
}

/* Single bits, runs over the edges of requests, all of it. */
static void spoil(struct rig *rig)
{
    uint64_t count = rig_below(rig, 60);

    for (uint64_t n = 0; n < count; n++) {
        uint64_t at = rig_below(rig, rig->source_size);
        uint64_t run = rig_below(rig, 4) ? 1 : 1 + rig_below(rig, 200000);
        for (uint64_t end = at + run; at < end && at < rig->source_size; at += 500)
            memory_disk_bytes(rig->target)[at] ^= (uint8_t)(1u << rig_below(rig, 8));
    }
    memory_disk_settle(rig->target);
}

/* Reads land in any order, runs stop at any point, some of them fail: the ranges are those
   that a look at all bytes finds. */
Test(copy_verify, the_ranges_are_exact_whatever_comes_between)
{
    unsigned stops = 0, losses = 0;

    for (unsigned i = 0; i < 60; i++) {
        struct rig rig;
        struct block_fault_plan loss = { .op = BLOCK_READ, .times = 1, .error = -EIO };
        uint64_t size = 1 + (i * 99991) % (3 * SIZE);
        rig_init_plain(&rig, rig_seed() + 900 + i,
                i % 3 ? (size / 512 + 1) * 512 : size, i % 3 ? 512 : 1,
                i % 4 ? 512 : 4096, 0, BLOCK_VOLATILE);
        memcpy(memory_disk_bytes(rig.target), memory_disk_bytes(rig.source),
                rig.source_size);
        spoil(&rig);
        struct copy_options options = rig_options(COPY_VERIFY);
        do {
            loss.after = (unsigned)rig_below(&rig, 12);
            bool loses = rig_below(&rig, 3) == 0, drops = rig_below(&rig, 2);
            uint64_t steps = rig_below(&rig, 4) ? UINT64_MAX : rig_below(&rig, 40);
            bool on_source = rig_below(&rig, 2);
            rig_start(&rig, &options, &loss, loses && on_source, &loss,
                    loses && !on_source);
            while (!rig.ended && steps-- > 0 && loop_sim_step(rig.loop))
                ;
            if (!rig.ended)
                (drops ? copy_drop : copy_drain)(rig.copy);
            stops += !rig.ended;
            (void)rig_run(&rig);
            losses += rig.result == -EIO;
            options = rig_resume(&rig);
        } while (rig.result == -ECANCELED || rig.result == -EIO);
        expect_differences(&rig);
        cr_assert(rig.last.written == 0 && memory_disk_writes(rig.target) == 0);
        rig_finish(&rig);
    }
    cr_assert(stops > 3 && losses > 3, "%u stops, %u losses", stops, losses);
}

Test(copy_verify, what_was_found_ahead_of_the_watermark_is_found_again)
{
    struct rig rig;

    rig_init_plain(&rig, rig_seed() + 77, SIZE, 512, 512, 0, BLOCK_VOLATILE);
    memcpy(memory_disk_bytes(rig.target), memory_disk_bytes(rig.source), SIZE);
    flip_one(&rig, 5);
    struct copy_options options = rig_options(COPY_VERIFY);
    options.watermark = SIZE / 2;
    options.differences = (struct differences){ .bytes = 512,
        .ranges = 1,
        .kept = 1,
        .end = SIZE / 2 + 512,
        .first = { { SIZE / 2, 512 } } };
    rig_start(&rig, &options, NULL, 0, NULL, 0);
    rig.last.watermark = 0; /* the judge shall not wonder */
    cr_assert(rig_run(&rig) == -EILSEQ);
    expect_differences(&rig);
    rig_finish(&rig);
}

/* What the target gives back is compared, not what was sent. */
Test(copy_verify, a_target_that_lies_is_found_after_the_copy)
{
    for (unsigned i = 0; i < 40; i++) {
        struct rig rig;
        struct block_fault_plan lie = { .op = BLOCK_READ,
            .after = i % (SIZE / (COPY_CHUNK / 2)),
            .times = 1,
            .corrupt = true };
        rig_init_plain(&rig, rig_seed() + 600 + i, SIZE, 512, 4096, 0, BLOCK_VOLATILE);
        struct copy_options options = rig_options(COPY_FULL);
        options.verify = true;
        options.verified = i % 2 ? 0 : SIZE; /* of bytes that are not copied yet: no */
        rig_start(&rig, &options, NULL, 0, &lie, 1);
        cr_assert(rig_run(&rig) == -EILSEQ);
        cr_assert(rig.last.watermark == SIZE && rig.last.done < SIZE);
        cr_assert(rig.last.verified == SIZE && rig.last.differences.bytes > 0);
        rig_finish(&rig);
    }
}

Test(copy_verify, an_equal_pair_is_equal)
{
    struct rig rig;
    rig_init_plain(&rig, rig_seed(), SIZE + 77, 1, 512, 0, BLOCK_READ_ONLY);
    memcpy(memory_disk_bytes(rig.target), memory_disk_bytes(rig.source), SIZE + 77);
    memory_disk_settle(rig.target);
    struct copy_options options = rig_options(COPY_VERIFY);
    options.target_zero = true; /* must not be believed here */
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(rig.last.read == 2 * (SIZE + 77) - 77 + 512 || rig.last.read >= 2 * SIZE);
    rig_finish(&rig);
}

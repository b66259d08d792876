/* Targets that fetch bytes by themselves: what they fetch, and what they leave to us. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/digest.h"
#include "replica/base/scope.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/rig.h"

enum { VOLUMES = 200, SIZE = 4 << 20, RUN = 64 << 10 };

/* What becomes of a copy: all of it; some of it and a failure; the same, and a host zeroes in
   the source what was copied. Zeros are left to us. */
enum manner { FETCHES, FAILS_AT_TIMES, FAILS, FAILS_AND_IS_ZEROED };

static enum manner manner;
static unsigned fetched, looked, failed;

struct fetcher {
    struct block_device base;
    struct block_device *under;
    struct rig *rig;
};

struct fetch {
    struct block_request inner, *outer;
    struct iovec iov;
    int verdict; /* where the inner one is good */
    uint8_t kept[1 << 20]; /* what the source held */
};

static void fetch_done(struct block_request *inner, int result)
{
    struct fetch *fetch = container_of(inner, struct fetch, inner);
    struct block_request *outer = fetch->outer;
    struct fetcher *fetcher = container_of(outer->device, struct fetcher, base);

    outer->extents_count = inner->extents_count;
    fetcher->base.broken = fetcher->under->broken;
    result = result ? result : fetch->verdict;
    free(fetch);
    block_done(outer, result);
}

static bool has_zeros(const uint8_t *bytes, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += RUN)
        if (digest_is_zero(bytes + at, min_u64(RUN, length - at)))
            return true;
    return false;
}

static void fetch_fail(struct fetcher *fetcher, struct fetch *fetch)
{
    struct block_request *inner = &fetch->inner;

    failed++;
    fetch->verdict = -EIO;
    inner->length -=
            inner->length / fetcher->base.block_size / 2 * fetcher->base.block_size;
    if (manner != FAILS_AND_IS_ZEROED)
        return;
    memcpy(fetch->kept, memory_disk_bytes(fetcher->rig->source) + inner->offset,
            inner->length);
    fetch->iov.iov_base = fetch->kept;
    memset(memory_disk_bytes(fetcher->rig->source) + inner->offset, 0, inner->length);
    memset(fetcher->rig->source_shadow + inner->offset, 0, inner->length);
}

/* As a write of what the source holds, or of the first part of it. */
static void fetch_draw(struct fetcher *fetcher, struct fetch *fetch)
{
    struct block_request *inner = &fetch->inner;
    uint8_t *bytes = memory_disk_bytes(fetcher->rig->source) + inner->offset;
    bool fails = manner >= FAILS ||
            (manner == FAILS_AT_TIMES && rig_below(fetcher->rig, 8) == 0);

    fetch->iov.iov_base = bytes;
    if (fails)
        fetch_fail(fetcher, fetch);
    else
        fetched++;
    fetch->iov.iov_len = inner->length;
    inner->op = BLOCK_WRITE;
    inner->iov = &fetch->iov;
    inner->iovcnt = 1;
}

/* With FAILS the failure comes first. */
static bool left_to_us(const struct fetcher *fetcher, const struct block_request *outer)
{
    return outer->op == BLOCK_COPY && manner < FAILS &&
            has_zeros(memory_disk_bytes(fetcher->rig->source) + outer->offset,
                    outer->length);
}

static void fetcher_submit(struct block_device *base, struct block_request *outer)
{
    struct fetcher *fetcher = container_of(base, struct fetcher, base);
    struct fetch *fetch;

    if (left_to_us(fetcher, outer)) {
        looked++;
        block_done_later(outer, -ENODATA);
        return;
    }
    fetch = calloc(1, sizeof *fetch);
    check(fetch);
    fetch->outer = outer;
    fetch->inner = block_request_inner(outer, fetch_done);
    if (outer->op == BLOCK_COPY)
        fetch_draw(fetcher, fetch);
    block_submit(fetcher->under, &fetch->inner);
}

static void fetcher_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct fetcher *fetcher = container_of(base, struct fetcher, base);
    struct block_device *under = fetcher->under;

    free(fetcher);
    block_close(under, closed, context);
}

static bool fetcher_can(struct block_device *to, struct block_device *from)
{
    (void)to;
    (void)from;
    return true;
}

static const struct block_ops fetcher_ops = { .name = "fetcher",
    .submit = fetcher_submit,
    .close = fetcher_close,
    .can_copy = fetcher_can };

static struct block_device *fetcher_over(
        struct rig *rig, struct block_device *under, bool on_target)
{
    struct fetcher *fetcher = calloc(1, sizeof *fetcher);

    (void)on_target;
    check(fetcher);
    fetcher->base = *under;
    fetcher->base.ops = &fetcher_ops;
    fetcher->base.in_flight = 0;
    fetcher->under = under;
    fetcher->rig = rig;
    return &fetcher->base;
}

static void volumes_come_out_equal(enum manner how, uint64_t first_seed)
{
    manner = how;
    fetched = looked = failed = 0;
    for (unsigned i = 0; i < VOLUMES; i++) {
        struct rig rig;
        rig_init(&rig, rig_seed() + first_seed + i, SIZE);
        rig.wrap = fetcher_over;
        struct copy_options options = rig_options(COPY_FULL);
        options.target_zero = rig.target_zero && rig_below(&rig, 2);
        options.verify = rig_below(&rig, 3) == 0;
        options.window = (unsigned)rig_below(&rig, 9);
        cr_assert(rig_copy(&rig, &options) == 0, "seed %" PRIu64 ": %s", rig.seed,
                rig.fault.why);
        rig_cut(&rig); /* what is done is flushed */
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

Test(handover, random_volumes_come_out_equal)
{
    volumes_come_out_equal(FETCHES, 7000);
    cr_assert(fetched > VOLUMES && looked > 0 && failed == 0);
}

Test(handover, what_is_not_fetched_is_read_and_written)
{
    volumes_come_out_equal(FAILS_AT_TIMES, 8000);
    cr_assert(fetched > 0 && failed > 0);
}

/* One volume, full of bytes, whose target fetches in this manner. */
static struct copy_options one_volume(
        struct rig *rig, enum manner how, uint64_t size, enum copy_kind kind)
{
    manner = how;
    fetched = looked = failed = 0;
    rig_init_plain(rig, rig_seed(), size, 512, 512, 0, BLOCK_VOLATILE);
    rig->wrap = fetcher_over;
    return rig_options(kind);
}

/* A target that cannot, after all, is not asked again and again. */
Test(handover, one_that_fails_is_given_up)
{
    struct rig rig;
    struct copy_options options = one_volume(&rig, FAILS, 64 << 20, COPY_FULL);

    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(failed > 0 && failed <= 16);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

/* It passes no cache of ours: company makes it no shorter. */
Test(handover, what_is_fetched_stays_whole_in_company)
{
    struct rig rig;
    struct copy_options options = one_volume(&rig, FETCHES, 8 << 20, COPY_FULL);

    rig.company = rig.guests = 1;
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert_eq(fetched, 8);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

/* What a failure has written is not zeros any more, whatever was proven before. */
Test(handover, nothing_is_believed_zero_after_a_failure)
{
    struct rig rig;
    struct copy_options options =
            one_volume(&rig, FAILS_AND_IS_ZEROED, SIZE, COPY_FULL);

    memset(memory_disk_bytes(rig.target), 0, rig.target_size);
    memory_disk_settle(rig.target);
    memset(rig.target_shadow, 0, rig.target_size);
    options.target_zero = true;
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(failed > 0);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

/* What is told is flushed: the rest is copied again. */
Test(handover, a_cut_in_the_middle_loses_nothing_that_was_told)
{
    unsigned middle = 0;

    manner = FETCHES;
    for (unsigned i = 0; i < VOLUMES; i++) {
        struct rig rig;
        struct copy_options options = rig_options(COPY_FULL);
        struct copy_figures told;
        rig_init_plain(&rig, rig_seed() + 9000 + i, SIZE, 512, 512, 0, BLOCK_VOLATILE);
        rig.wrap = fetcher_over;
        options.limit = 2 << 20; /* so slow that it flushes on the way */
        rig_start(&rig, &options, NULL, 0, NULL, 0);
        for (uint64_t steps = rig_below(&rig, 300); steps && !rig.ended; steps--)
            cr_assert(loop_sim_step(rig.loop));
        if (!rig.ended)
            copy_drop(rig.copy);
        (void)rig_run(&rig);
        told = rig.last;
        rig_cut(&rig);
        cr_assert(rig_equal_until(&rig) >= told.watermark, "seed %" PRIu64, rig.seed);
        middle += told.watermark > 0 && told.watermark < rig.source_size;
        options = rig_resume(&rig);
        options.limit = 0;
        cr_assert(rig_copy(&rig, &options) == 0, "seed %" PRIu64, rig.seed);
        rig_cut(&rig);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
    cr_assert(middle > VOLUMES / 20, "%u went on in the middle", middle);
}

/* The limit leaves nothing under way when it is flushed in the middle: what is fetched after
   that is all there is to be flushed. */
Test(handover, what_is_fetched_after_a_flush_is_flushed_too)
{
    for (unsigned i = 0; i < 16; i++) {
        struct rig rig;
        struct copy_options options = one_volume(&rig, FETCHES, SIZE, COPY_FULL);
        options.limit = 1000003 + 50021 * i; /* a tick between two pieces, at times */
        cr_assert(rig_copy(&rig, &options) == 0);
        cr_assert(rig.reports > 1 && fetched > 0 && looked == 0);
        rig.random += i;
        rig_cut(&rig);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

/* Neither what is compared nor what has a digest may pass us by. */
Test(handover, a_delta_fetches_nothing)
{
    struct rig rig;
    struct copy_options options = one_volume(&rig, FETCHES, SIZE, COPY_DELTA);

    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(fetched == 0 && looked == 0);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

/* The figures are those of a copy through us. */
Test(handover, what_is_fetched_is_counted)
{
    struct rig rig;
    struct copy_options options = one_volume(&rig, FETCHES, SIZE, COPY_FULL);

    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(fetched > 0);
    cr_assert(rig.last.read == rig.source_size && rig.last.sent == rig.source_size);
    cr_assert(rig.last.written == rig.source_size && rig.last.skipped == 0);
    rig_finish(&rig);
}

/* The power fails after every write of small volumes, and at every step of some: both of the
 * target and of the sidecar, each keeping all, nothing, or what is drawn of what it had not
 * flushed, independently of one another. What was told is there; what is believed later is
 * true. Bounded, and exhaustive within the bounds. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/card.h"
#include "tests/replica/copy/nemesis.h"
#include "tests/replica/copy/rig.h"

enum { VOLUMES = 6, STEPPED = 4, LATE = 40, SIZE = 500000 };

enum fate { KEPT, LOST, DRAWN, FATES };

struct life {
    struct rig rig;
    struct card card;
    struct sidecar_facts facts;
    struct digest_sidecar *table;
    bool by_digest, digests;
    struct nemesis slow; /* flushes, on most targets */
};

static unsigned cuts, in_the_middle, believed;

/* -- the power --------------------------------------------------------------------------- */

static uint64_t keep(void *context)
{
    (void)context;
    return 0;
}

static uint64_t lose(void *context)
{
    (void)context;
    return 1;
}

static uint64_t draw(void *context)
{
    return rig_random(context);
}

static void cut(struct life *life, enum fate of_target, enum fate of_card)
{
    static uint64_t (*const draws[])(void *) = { keep, lose, draw };
    struct card *card = &life->card;

    cuts++;
    memory_disk_cut(life->rig.target, draws[of_target], &life->rig);
    if (of_card == DRAWN) {
        card_cut(card, &life->rig);
        return;
    }
    if (of_card == KEPT) {
        memcpy(card->stable, card->seen, CARD_ROOM);
        card->stable_size = card->seen_size;
    }
    memcpy(card->seen, card->stable, CARD_ROOM);
    card->seen_size = card->stable_size;
}

/* -- runs -------------------------------------------------------------------------------- */

static struct block_device *wrap(
        struct rig *rig, struct block_device *device, bool on_target)
{
    struct life *life = (struct life *)rig;

    return on_target ? nemesis_over(device, &life->slow) : device;
}

static void life_init(struct life *life, uint64_t seed, bool digests)
{
    memset(life, 0, sizeof *life);
    life->card = card_fresh();
    do
        rig_init(&life->rig, seed += 7777777, SIZE);
    while (life->rig.source_size < 3 * SIDECAR_CHUNK && (rig_finish(&life->rig), true));
    strcpy(life->facts.pair.text, "01890000-0000-7000-8000-000000000001");
    life->facts.size = life->rig.source_size;
    life->digests = digests;
    life->rig.wrap = wrap;
    life->slow = (struct nemesis){ .random = seed, .flush_ms = seed % 3 ? 900 : 0 };
}

static int begin(struct life *life, struct copy_options *options)
{
    struct sidecar_start start = { options->watermark, options->kind == COPY_DELTA };
    int result;

    options->sidecar = NULL;
    options->by_digest = false;
    if (!life->digests ||
            (options->watermark % SIDECAR_CHUNK &&
                    options->watermark < life->rig.source_size)) {
        life->card.seen_size = life->card.stable_size = 0; /* removed, durably */
        return 0;
    }
    life->table = sidecar_create(life->rig.source_size);
    check(life->table);
    result = sidecar_begin(
            &life->card.medium, &life->facts, &start, life->table, &life->by_digest);
    options->sidecar = life->table;
    options->by_digest = life->by_digest;
    believed += life->by_digest;
    return result;
}

static void end(struct life *life)
{
    sidecar_destroy(life->table);
    life->table = NULL;
}

static int seal(struct life *life)
{
    const struct rig *rig = &life->rig;

    if (!life->table)
        return 0;
    return sidecar_seal(&life->card.medium, &life->facts, rig->last.watermark,
            rig->result == 0, life->table);
}

static void run_whole(struct life *life, struct copy_options options)
{
    cr_assert(begin(life, &options) == 0);
    cr_assert(rig_copy(&life->rig, &options) == 0, "seed %" PRIu64 ": %s",
            life->rig.seed, life->rig.fault.why);
    cr_assert(seal(life) == 0);
    end(life);
}

static struct copy_options fresh(struct rig *rig, enum copy_kind kind)
{
    memset(&rig->last, 0, sizeof rig->last);
    return rig_options(kind);
}

static void source_changes(struct rig *rig)
{
    uint8_t *bytes = memory_disk_bytes(rig->source);

    for (unsigned i = 0; i < 3; i++) {
        uint64_t at = rig_below(rig, rig->source_size);
        uint64_t length = min_u64(1 + rig_below(rig, 100000), rig->source_size - at);
        memset(bytes + at, i == 1 ? 0 : (int)rig_below(rig, 256), length);
    }
    memory_disk_settle(rig->source);
    memcpy(rig->source_shadow, bytes, rig->source_size);
}

/* What was told is there, and nothing else was touched. */
static void expect_told(const struct life *life)
{
    const struct rig *rig = &life->rig;

    cr_assert(rig_equal_until(rig) >= rig->last.watermark,
            "seed %" PRIu64 ": told %" PRIu64 ", only %" PRIu64 " survived", rig->seed,
            rig->last.watermark, rig_equal_until(rig));
    rig_expect_untouched(rig);
}

/* After whatever happened: the job goes on from what it was told, and a resync comes after it,
   by digest when there are any that it may believe. */
static void go_on(struct life *life)
{
    struct rig *rig = &life->rig;
    struct copy_options options = rig_resume(rig);

    options.limit = 0;
    in_the_middle += options.watermark > 0 && options.watermark < rig->source_size;
    run_whole(life, options);
    rig_cut(rig);
    rig_expect_equal(rig);
    source_changes(rig);
    run_whole(life, fresh(rig, COPY_DELTA));
    rig_cut(rig);
    rig_expect_equal(rig);
}

/* -- cuts in a copy ---------------------------------------------------------------------- */

enum unit { WRITES, STEPS, REPORTS };

struct point {
    uint64_t after; /* so many of the units */
    enum unit unit;
    enum fate of_target, of_card;
    bool late; /* writes take their time to land: flushes begin in between */
};

static bool reached(const struct life *life, const struct point *point, uint64_t steps,
        uint64_t writes)
{
    const uint64_t at[] = { [WRITES] = memory_disk_writes(life->rig.target) - writes,
        [STEPS] = steps,
        [REPORTS] = life->rig.reports };

    return at[point->unit] >= point->after;
}

/* False: it ended before the point. */
static bool run_to(
        struct life *life, struct copy_options options, const struct point *point)
{
    struct rig *rig = &life->rig;
    uint64_t writes = memory_disk_writes(rig->target);

    cr_assert(begin(life, &options) == 0);
    rig_start(rig, &options, NULL, 0, NULL, 0);
    for (uint64_t steps = 0; !rig->ended && !reached(life, point, steps, writes);
            steps++)
        cr_assert(loop_sim_step(rig->loop), "seed %" PRIu64 ": it hangs", rig->seed);
    if (rig->ended) {
        rig_run(rig);
        end(life);
        return false;
    }
    cut(life, point->of_target, point->of_card);
    struct copy_figures told = rig->last;
    rig_run(rig);
    rig->last = told; /* whatever it said when all was lost, nobody heard it */
    end(life);
    return true;
}

static bool life_run(
        uint64_t seed, enum copy_kind kind, bool digests, const struct point *point)
{
    struct life life;
    struct rig *rig = &life.rig;
    bool was_cut;

    life_init(&life, seed, digests);
    if (kind == COPY_DELTA && digests) { /* a pair that was whole, and a resync */
        run_whole(&life, fresh(rig, COPY_FULL));
        cut(&life, LOST, LOST); /* which loses nothing */
        rig_expect_equal(rig);
        source_changes(rig);
    }
    struct copy_options options = fresh(rig, kind);
    options.target_zero = kind == COPY_FULL && rig->target_zero;
    options.limit = seed % 4 ? 150000 : 0; /* slow: flushes come between */
    life.slow.land_ms = point->late ? 1500 : 0;
    was_cut = run_to(&life, options, point);
    if (was_cut) {
        expect_told(&life);
        cr_assert(!digests || !life.by_digest || kind == COPY_DELTA);
        go_on(&life);
    }
    rig_finish(rig);
    return was_cut;
}

static void every_write(enum copy_kind kind, bool digests, uint64_t base)
{
    for (unsigned i = 0; i < VOLUMES; i++)
        for (uint64_t at = 1, more = 1; more; at++)
            for (unsigned fate = 0; more && fate < FATES * FATES; fate++) {
                struct point point = { at, WRITES, (enum fate)(fate % FATES),
                    (enum fate)(fate / FATES), false };
                if (!digests && point.of_card != KEPT)
                    continue;
                more = life_run(rig_seed() + base + i, kind, digests, &point);
            }
    fprintf(stderr, "cuts: %u, %u went on in the middle, %u runs by digest\n", cuts,
            in_the_middle, believed);
    cr_assert(cuts > 50 && in_the_middle > 5);
}

Test(cuts, after_every_write_of_a_full_copy)
{
    every_write(COPY_FULL, false, 300000);
}

Test(cuts, after_every_write_of_a_full_copy_with_digests)
{
    every_write(COPY_FULL, true, 310000);
}

Test(cuts, after_every_write_of_a_delta)
{
    every_write(COPY_DELTA, false, 320000);
}

Test(cuts, after_every_write_of_a_delta_by_digest)
{
    every_write(COPY_DELTA, true, 330000);
    cr_assert(believed > 50);
}

Test(cuts, at_every_step)
{
    for (unsigned i = 0; i < STEPPED * 2; i++)
        for (uint64_t at = 1;; at++) {
            struct point point = { at, STEPS, (enum fate)(at % FATES), DRAWN, false };
            if (!life_run(rig_seed() + 340000 + i, i % 2 ? COPY_DELTA : COPY_FULL,
                        i % 4 < 2, &point))
                break;
        }
    cr_assert(cuts > 100, "only %u cuts", cuts);
}

/* All that was not flushed is lost in the moment in which a position is told, while writes that
   were sent before the flush have landed after it, or not yet. */
Test(cuts, at_every_report_while_writes_land_late)
{
    unsigned reports = 0;

    for (unsigned i = 0; i < LATE; i++)
        for (uint64_t at = 1;; at++, reports++) {
            struct point point = { at, REPORTS, LOST, LOST, true };
            if (!life_run(rig_seed() + 360000 + i, i % 2 ? COPY_DELTA : COPY_FULL,
                        i % 4 < 2, &point))
                break;
        }
    cr_assert(reports > 2 * LATE && in_the_middle > LATE,
            "%u reports, %u in the middle", reports, in_the_middle);
}

/* -- cuts around a copy ------------------------------------------------------------------ */

/* The n-th call that changes the sidecar is the last before the power fails: while it is
   opened for a resync, or sealed after it. Whatever is believed then is true. */
static bool around(
        uint64_t seed, unsigned at, bool sealing, enum fate of_card, bool torn)
{
    struct life life;
    struct rig *rig = &life.rig;
    bool struck;

    life_init(&life, seed, true);
    run_whole(&life, fresh(rig, COPY_FULL));
    source_changes(rig);
    struct copy_options options = fresh(rig, COPY_DELTA);
    life.card.torn = torn;
    life.card.calls = 0;
    life.card.fail_at = sealing ? 0 : at;
    struck = begin(&life, &options) != 0;
    if (sealing) {
        cr_assert(options.by_digest);
        cr_assert(rig_copy(rig, &options) == 0);
        life.card.calls = 0;
        life.card.fail_at = at;
        struck = seal(&life) != 0;
    }
    life.card.fail_at = 0;
    cut(&life, LOST, of_card);
    end(&life);
    if (sealing)
        rig_expect_equal(rig);
    source_changes(rig);
    run_whole(&life, fresh(rig, COPY_DELTA));
    rig_cut(rig);
    rig_expect_equal(rig);
    rig_finish(rig);
    return struck;
}

Test(cuts, at_every_call_that_opens_or_seals)
{
    unsigned struck = 0;

    for (unsigned i = 0; i < 2 * 2 * FATES * 3; i++)
        for (unsigned at = 1; around(rig_seed() + 350000 + i, at, i % 2,
                     (enum fate)(i / 2 % FATES), i / 6 % 2);
                at++)
            struck++;
    cr_assert(struck > 60 && believed > 36, "%u struck, %u believed", struck, believed);
}

/* Deltas by digest: whatever happens between, the target comes out equal, or nothing claims
 * that it did. The sidecar lies on a medium in memory whose power is cut with the target's:
 * what was not synced is lost, kept or torn at 512 bytes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/card.h"
#include "tests/replica/copy/rig.h"

enum { SIZE = 3 << 20, ROOM = CARD_ROOM };

/* -- a life ---------------------------------------------------------------------------- */

/* What the engine does around a copy, on the simulated loop. */
struct life {
    struct rig rig;
    struct card card;
    struct sidecar_facts facts;
    struct digest_sidecar *table;
    bool by_digest;
};

static void life_init(struct life *life, uint64_t seed)
{
    memset(life, 0, sizeof *life);
    life->card = card_fresh();
    do
        rig_init(&life->rig, seed++, SIZE);
    while (life->rig.source_size == 0 && (rig_finish(&life->rig), true));
    strcpy(life->facts.pair.text, "01890000-0000-7000-8000-000000000001");
    life->facts.size = life->rig.source_size;
    life->facts.binding = digest_xxh3(&seed, sizeof seed);
}

static void life_finish(struct life *life)
{
    rig_finish(&life->rig);
}

/* Begin a run: false when the medium may still say that it is sealed. */
static bool life_begin(struct life *life, const struct copy_options *options)
{
    struct sidecar_start start = { options->watermark, options->kind == COPY_DELTA };

    life->table = sidecar_create(life->rig.source_size);
    check(life->table);
    return sidecar_begin(&life->card.medium, &life->facts, &start, life->table,
                   &life->by_digest) == 0;
}

static void life_end(struct life *life)
{
    sidecar_destroy(life->table);
    life->table = NULL;
}

/* One run to its end, sealed when that is clean. Returns the copy's result. */
static int life_run(struct life *life, struct copy_options options)
{
    struct rig *rig = &life->rig;
    int result;

    cr_assert(life_begin(life, &options));
    options.sidecar = life->table;
    options.by_digest = life->by_digest;
    result = rig_copy(rig, &options);
    if (result == 0)
        cr_assert(sidecar_seal(&life->card.medium, &life->facts, rig->source_size, true,
                          life->table) == 0);
    life_end(life);
    return result;
}

static struct copy_options fresh(struct rig *rig, enum copy_kind kind)
{
    memset(&rig->last, 0, sizeof rig->last);
    return rig_options(kind);
}

/* The source's owner writes. */
static void source_changes(struct rig *rig)
{
    uint8_t *bytes = memory_disk_bytes(rig->source);

    rig_scribble(rig, bytes, rig->source_size, 6, 300000);
    memory_disk_settle(rig->source);
    memcpy(rig->source_shadow, bytes, rig->source_size);
}

/* Somebody writes on the target behind our back. */
static void target_garbage(struct rig *rig)
{
    uint8_t *bytes = memory_disk_bytes(rig->target);
    uint64_t end = round_up(rig->source_size, rig->target_block);

    for (unsigned i = 0; i < 3; i++)
        bytes[rig_below(rig, end)] ^= (uint8_t)(1 + rig_below(rig, 255));
    memory_disk_settle(rig->target);
}

Test(sidecar, a_resync_goes_by_digest_and_reads_no_target)
{
    for (unsigned i = 0; i < 60; i++) {
        struct life life;
        life_init(&life, rig_seed() + 7000 + i);
        struct rig *rig = &life.rig;
        struct copy_options options = fresh(rig, i % 2 ? COPY_FULL : COPY_DELTA);
        options.target_zero = rig->target_zero && options.kind == COPY_FULL;
        cr_assert(life_run(&life, options) == 0 && !life.by_digest);
        rig_expect_equal(rig);
        for (unsigned more = 0; more < 3; more++) {
            source_changes(rig);
            options = fresh(rig, COPY_DELTA);
            options.verify = more == 1;
            cr_assert(life_run(&life, options) == 0, "%s", rig->fault.why);
            cr_assert(life.by_digest, "seed %" PRIu64, rig->seed);
            if (!options.verify)
                cr_assert(rig->last.read <= rig->source_size, "the target was read");
            rig_cut(rig);
            rig_expect_equal(rig);
        }
        options = fresh(rig, COPY_DELTA); /* nothing changed: nothing is written */
        cr_assert(life_run(&life, options) == 0 && life.by_digest);
        cr_assert(rig->last.written == 0 && rig->last.sent == 0);
        life_finish(&life);
    }
}

Test(sidecar, what_differs_is_written_and_little_else)
{
    struct life life = { .card = card_fresh() };
    struct rig *rig = &life.rig;
    rig_init_plain(rig, 5, 2 << 20, 512, 512, BLOCK_VOLATILE, BLOCK_VOLATILE);
    life.facts.size = rig->source_size;
    cr_assert(life_run(&life, fresh(rig, COPY_FULL)) == 0);
    memory_disk_bytes(rig->source)[5 * SIDECAR_CHUNK + 77] ^= 1;
    memory_disk_bytes(rig->source)[9 * SIDECAR_CHUNK] ^= 1;
    memcpy(rig->source_shadow, memory_disk_bytes(rig->source), rig->source_size);
    cr_assert(life_run(&life, fresh(rig, COPY_DELTA)) == 0 && life.by_digest);
    cr_assert(rig->last.written == 2 * SIDECAR_CHUNK);
    cr_assert(rig->last.skipped == rig->source_size - 2 * SIDECAR_CHUNK);
    rig_expect_equal(rig);
    life_finish(&life);
}

/* -- power ----------------------------------------------------------------------------- */

/* Runs until the target has taken @writes writes more, cuts both powers. False: it ended
   before, well. */
static bool run_and_cut(struct life *life, struct copy_options options, uint64_t writes)
{
    struct rig *rig = &life->rig;
    uint64_t until = memory_disk_writes(rig->target) + writes;
    int result;

    cr_assert(life_begin(life, &options));
    options.sidecar = life->table;
    options.by_digest = life->by_digest;
    rig_start(rig, &options, NULL, 0, NULL, 0);
    while (!rig->ended && memory_disk_writes(rig->target) < until)
        cr_assert(loop_sim_step(rig->loop));
    if (!rig->ended) {
        rig_cut(rig);
        card_cut(&life->card, rig);
        result = rig_run(rig);
        life_end(life);
        return result != 0;
    }
    rig_run(rig);
    if (rig_below(rig, 2)) { /* the power fails while it is sealed */
        life->card.calls = 0;
        life->card.torn = rig_below(rig, 2);
        life->card.fail_at = 1 + (unsigned)rig_below(rig, 5);
        (void)sidecar_seal(
                &life->card.medium, &life->facts, rig->source_size, true, life->table);
        life->card.fail_at = 0;
    }
    card_cut(&life->card, rig);
    rig_cut(rig);
    life_end(life);
    return false;
}

/* A pair that is whole; its source changes; the resync is cut after write @at; the
   target, when the sidecar is not sealed, is written by others too; then all again. */
static bool power_life(uint64_t seed, uint64_t at)
{
    struct life life;
    struct rig *rig = &life.rig;
    struct copy_options options;
    bool cut;

    life_init(&life, seed);
    cr_assert(life_run(&life, fresh(rig, COPY_FULL)) == 0);
    card_cut(&life.card, rig);
    source_changes(rig);
    options = fresh(rig, COPY_DELTA);
    options.limit = rig_below(rig, 2) ? 0 : 700000;
    cut = run_and_cut(&life, options, at);
    if (cut)
        target_garbage(rig);
    if (cut && rig_below(rig, 2)) { /* the resync goes on, or a new one begins */
        options = rig_resume(rig);
        for (uint64_t i = 0; i < options.watermark; i++)
            memory_disk_bytes(rig->target)[i] = memory_disk_bytes(rig->source)[i];
        memory_disk_settle(rig->target); /* no garbage in what the job holds for done */
    } else {
        options = fresh(rig, COPY_DELTA);
    }
    options.limit = 0;
    cr_assert(life_run(&life, options) == 0);
    cr_assert(!cut || !life.by_digest, "seed %" PRIu64 ": trusted after a cut", seed);
    rig_cut(rig);
    rig_expect_equal(rig);
    source_changes(rig);
    cr_assert(life_run(&life, fresh(rig, COPY_DELTA)) == 0);
    rig_cut(rig);
    rig_expect_equal(rig);
    life_finish(&life);
    return cut;
}

Test(sidecar, a_cut_after_every_write_of_a_resync)
{
    unsigned cuts = 0;

    /* How much a life writes is drawn. */
    for (unsigned i = 0; i < 14 || (cuts <= 20 && i < 100); i++)
        for (uint64_t at = 1; power_life(rig_seed() + 8000 + 50 * i, at); at++)
            cuts++;
    cr_assert(cuts > 20, "only %u cuts", cuts);
}

Test(sidecar, a_cut_at_any_step_of_many_runs)
{
    unsigned by_digest = 0;

    for (unsigned i = 0; i < 80; i++) {
        struct life life;
        struct rig *rig = &life.rig;
        life_init(&life, rig_seed() + 20000 + 50 * i);
        for (unsigned run = 0; run < 8; run++) {
            bool full = rig_below(rig, 5) == 0;
            source_changes(rig);
            struct copy_options options = fresh(rig, full ? COPY_FULL : COPY_DELTA);
            if (rig_below(rig, 2)) {
                bool cut = run_and_cut(&life, options, 1 + rig_below(rig, 30));
                by_digest += life.by_digest;
                if (cut)
                    target_garbage(rig);
                continue;
            }
            cr_assert(life_run(&life, options) == 0);
            by_digest += life.by_digest;
            rig_cut(rig);
            rig_expect_equal(rig);
        }
        life_finish(&life);
    }
    cr_assert(by_digest > 50, "%u by digest", by_digest);
}

/* -- stops and failures ---------------------------------------------------------------- */

/* Drained in the middle and kept up to there. False: it ended before, well. */
static bool run_and_drain(struct life *life, struct copy_options options)
{
    struct rig *rig = &life->rig;
    bool stopped;

    options.limit = 1000000;
    cr_assert(life_begin(life, &options));
    options.sidecar = life->table;
    options.by_digest = life->by_digest;
    rig_start(rig, &options, NULL, 0, NULL, 0);
    for (uint64_t steps = rig_below(rig, 120); !rig->ended && steps; steps--)
        cr_assert(loop_sim_step(rig->loop));
    if (!rig->ended)
        copy_drain(rig->copy);
    stopped = rig_run(rig) != 0;
    cr_assert(sidecar_seal(&life->card.medium, &life->facts, rig->last.watermark,
                      !stopped, life->table) == 0);
    life_end(life);
    return stopped;
}

/* Gone on from there by digest. */
Test(sidecar, a_stopped_resync_goes_on_by_digest)
{
    unsigned resumed = 0;

    for (unsigned i = 0; i < 60; i++) {
        struct life life;
        struct rig *rig = &life.rig;
        life_init(&life, rig_seed() + 40000 + 50 * i);
        cr_assert(life_run(&life, fresh(rig, COPY_FULL)) == 0);
        source_changes(rig);
        struct copy_options options = fresh(rig, COPY_DELTA);
        bool stopped = run_and_drain(&life, options);
        cr_assert(life.by_digest);
        if (stopped && rig_below(rig, 3) == 0) { /* another one trusts nothing of it */
            struct copy_options other = fresh(rig, COPY_DELTA);
            cr_assert(life_begin(&life, &other) && !life.by_digest);
            life_end(&life);
            target_garbage(rig);
            options = other;
        } else if (stopped) {
            resumed++;
            options = rig_resume(rig);
        } else {
            options = fresh(rig, COPY_DELTA);
        }
        options.limit = 0;
        source_changes(rig);
        uint64_t watermark = options.watermark;
        cr_assert(life_run(&life, options) == 0);
        if (watermark == 0)
            rig_expect_equal(rig);
        cr_assert(life_run(&life, fresh(rig, COPY_DELTA)) == 0 && life.by_digest);
        rig_cut(rig);
        rig_expect_equal(rig); /* what changed below the watermark too */
        life_finish(&life);
    }
    cr_assert(resumed > 5);
}

/* Below where it stopped all is known, above nothing is: it is compared, and then whole. */
Test(sidecar, a_stopped_first_run_goes_on_as_it_began)
{
    unsigned resumed = 0;

    for (unsigned i = 0; i < 60; i++) {
        struct life life;
        struct rig *rig = &life.rig;
        life_init(&life, rig_seed() + 60000 + 50 * i);
        struct copy_options options = fresh(rig, i % 2 ? COPY_FULL : COPY_DELTA);
        bool stopped = run_and_drain(&life, options);
        cr_assert(!life.by_digest);
        bool middle = stopped && rig->last.watermark > 0;
        options = stopped ? rig_resume(rig) : fresh(rig, COPY_DELTA);
        options.limit = 0;
        cr_assert(life_run(&life, options) == 0);
        cr_assert(life.by_digest == !stopped, "seed %" PRIu64, rig->seed);
        resumed += middle;
        source_changes(rig);
        cr_assert(life_run(&life, fresh(rig, COPY_DELTA)) == 0 && life.by_digest);
        rig_cut(rig);
        rig_expect_equal(rig);
        life_finish(&life);
    }
    cr_assert(resumed > 5);
}

/* The source fails: what was begun is not known, what was flushed is; a second copy goes on
   with the same table. */
Test(sidecar, a_lost_source_leaves_a_true_table)
{
    for (unsigned i = 0; i < 80; i++) {
        struct life life;
        struct rig *rig = &life.rig;
        life_init(&life, rig_seed() + 50000 + 50 * i);
        cr_assert(life_run(&life, fresh(rig, COPY_FULL)) == 0);
        source_changes(rig);
        struct copy_options options = fresh(rig, COPY_DELTA);
        /* One read, often the first: what comes after it lands without a flush. */
        struct block_fault_plan lost = { .op = BLOCK_READ,
            .error = -EIO,
            .times = 1,
            .after = (unsigned)rig_below(rig, i % 2 ? 2 : 12) };
        cr_assert(life_begin(&life, &options) && life.by_digest);
        options.sidecar = life.table;
        options.by_digest = true;
        rig_start(rig, &options, &lost, 1, NULL, 0);
        int result = rig_run(rig);
        rig_cut(rig); /* the target loses what it may lose between */
        options = result ? rig_resume(rig) : fresh(rig, COPY_DELTA);
        options.sidecar = life.table;
        options.by_digest = true;
        cr_assert(rig_copy(rig, &options) == 0, "%s", rig->fault.why);
        cr_assert(sidecar_whole(life.table, 0));
        rig_cut(rig);
        rig_expect_equal(rig);
        life_end(&life);
        life_finish(&life);
    }
}

/* -- damage ---------------------------------------------------------------------------- */

static void sealed_pair(struct life *life, uint64_t chunks)
{
    memset(life, 0, sizeof *life);
    life->card = card_fresh();
    rig_init_plain(&life->rig, 9, chunks * SIDECAR_CHUNK - 512, 512, 512,
            BLOCK_VOLATILE, BLOCK_VOLATILE);
    strcpy(life->facts.pair.text, "01890000-0000-7000-8000-000000000001");
    life->facts.size = life->rig.source_size;
    cr_assert(life_run(life, fresh(&life->rig, COPY_FULL)) == 0);
}

/* Would a resync that begins now go by digest? The card is left as it was. */
static bool is_trusted(struct life *life, const struct sidecar_facts *facts)
{
    struct card card = life->card;
    struct sidecar_facts mine = *facts;
    struct digest_sidecar *table = sidecar_create(facts->size);
    struct sidecar_start start = { 0, true };
    bool by_digest;

    cr_assert(sidecar_begin(&card.medium, &mine, &start, table, &by_digest) == 0);
    if (!by_digest)
        for (uint64_t i = 0; i < table->count; i++)
            cr_assert((table->digests[i].low | table->digests[i].high) == 0);
    sidecar_destroy(table);
    return by_digest;
}

Test(sidecar, one_flipped_bit_anywhere_and_it_is_not_trusted)
{
    struct life life;
    sealed_pair(&life, 300); /* two pages, the second not full */
    cr_assert(life.card.seen_size == 3 * SIDECAR_PAGE);
    cr_assert(is_trusted(&life, &life.facts));
    for (uint64_t at = 0; at < life.card.seen_size; at++) {
        life.card.seen[at] ^= (uint8_t)(1u << at % 8);
        cr_assert(!is_trusted(&life, &life.facts), "byte %" PRIu64, at);
        life.card.seen[at] ^= (uint8_t)(1u << at % 8);
    }
    cr_assert(is_trusted(&life, &life.facts));
    life_finish(&life);
}

Test(sidecar, any_other_length_is_not_trusted)
{
    struct life life;
    uint64_t size;
    sealed_pair(&life, 300);
    size = life.card.seen_size;
    for (uint64_t at = 0; at <= ROOM; at += 512) {
        life.card.seen_size = at;
        cr_assert(is_trusted(&life, &life.facts) == (at == size), "%" PRIu64, at);
    }
    life_finish(&life);
}

/* A sector of zeros, or of the life before, in place of any: whole or not at all. */
Test(sidecar, a_stale_sector_is_not_trusted)
{
    struct life life;
    sealed_pair(&life, 300);
    struct card before = life.card;
    source_changes(&life.rig);
    for (unsigned i = 0; i < 300; i++) /* every chunk, so that every page changes */
        memory_disk_bytes(life.rig.source)[(uint64_t)i * SIDECAR_CHUNK] ^= 1;
    memcpy(life.rig.source_shadow, memory_disk_bytes(life.rig.source),
            life.rig.source_size);
    cr_assert(life_run(&life, fresh(&life.rig, COPY_DELTA)) == 0);
    struct card after = life.card;
    for (uint64_t at = 0; at < after.seen_size; at += 512) {
        bool differs = memcmp(before.seen + at, after.seen + at, 512) != 0;
        memcpy(life.card.seen + at, before.seen + at, 512);
        cr_assert(is_trusted(&life, &life.facts) == !differs, "byte %" PRIu64, at);
        memcpy(life.card.seen + at, after.seen + at, 512);
    }
    for (uint64_t at = 0; at < after.seen_size; at += SIDECAR_PAGE) { /* whole pages */
        memcpy(life.card.seen + at, before.seen + at, SIDECAR_PAGE);
        cr_assert(!is_trusted(&life, &life.facts), "page at %" PRIu64, at);
        memcpy(life.card.seen + at, after.seen + at, SIDECAR_PAGE);
    }
    life_finish(&life);
}

Test(sidecar, of_another_pair_place_size_or_time_is_not_trusted)
{
    struct life life;
    struct sidecar_facts facts;
    sealed_pair(&life, 20);
    cr_assert(is_trusted(&life, &life.facts));
    facts = life.facts;
    facts.pair.text[35] = '2';
    cr_assert(!is_trusted(&life, &facts));
    facts = life.facts;
    facts.binding.high ^= 1;
    cr_assert(!is_trusted(&life, &facts));
    facts = life.facts;
    facts.stamp.low ^= 1;
    cr_assert(!is_trusted(&life, &facts));
    facts = life.facts;
    facts.size -= 512;
    cr_assert(!is_trusted(&life, &facts));
    life_finish(&life);
}

/* Every call of the medium may be the last: what is there then is not trusted, unless the
   seal itself is what failed to be told. */
Test(sidecar, a_medium_that_fails_is_not_trusted)
{
    for (unsigned fail = 1; fail <= 3; fail++)
        for (unsigned torn = 0; torn < 2; torn++) {
            struct life life;
            struct sidecar_start start = { 0, true };
            bool by_digest;
            sealed_pair(&life, 300);
            life.card.calls = 0;
            life.card.fail_at = fail;
            life.card.torn = torn;
            struct digest_sidecar *table = sidecar_create(life.facts.size);
            cr_assert(sidecar_begin(&life.card.medium, &life.facts, &start, table,
                              &by_digest) == -EIO,
                    "call %u", fail);
            sidecar_destroy(table);
            life_finish(&life);
        }
    for (unsigned fail = 1; fail <= 4; fail++) {
        struct life life;
        struct sidecar_start start = { 0, true };
        bool by_digest;
        sealed_pair(&life, 300);
        struct digest_sidecar *table = sidecar_create(life.facts.size);
        cr_assert(sidecar_begin(&life.card.medium, &life.facts, &start, table,
                          &by_digest) == 0 &&
                by_digest);
        life.card.calls = 0;
        life.card.fail_at = fail;
        cr_assert(sidecar_seal(&life.card.medium, &life.facts, life.facts.size, true,
                          table) == -EIO);
        life.card.fail_at = 0;
        memcpy(life.card.seen, life.card.stable,
                ROOM); /* all that is not synced goes */
        cr_assert(!is_trusted(&life, &life.facts));
        sidecar_destroy(table);
        life_finish(&life);
    }
}

Test(sidecar, sizes_that_have_none)
{
    cr_assert(!sidecar_fits(0) && sidecar_fits(1));
    cr_assert(sidecar_fits((uint64_t)256 << 30));
    cr_assert(!sidecar_fits(((uint64_t)256 << 30) + 1));
}

/* Whole jobs in bad weather: random volumes in every mode, on devices that fail, answer short,
 * late, in another order, or are lost; the process crashes, with or without the power, and what
 * was persisted last goes on. In the end the target is right, or what it ended with says why
 * not. Each kind of trouble is counted: a storm that did not blow is a failed test. */
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

enum { VOLUMES = 200, SIZE = 3 << 20, LARGE = 12 << 20, LIVES = 16, REPORTS = 64 };

enum work { FULL, COMPARE, DIGEST, VERIFY, WORKS };

/* A job, and what its owner keeps of it over crashes. */
struct job {
    struct rig rig;
    struct nemesis on_source, on_target;
    struct card card;
    struct sidecar_facts facts;
    bool keeps_digests;
    enum work work;
    bool differs; /* VERIFY: there is something to be found */
    struct copy_options options; /* of the next run */
    struct copy_figures told[REPORTS]; /* in this run, what may have been persisted */
    unsigned told_count;
    unsigned crash_at; /* this report; 0: no crash */
    bool crashed;
};

static struct {
    uint64_t nemesis[NEMESIS_KINDS];
    unsigned works[WORKS], by_digest, crashes, power_cuts, stops, drops, resumed,
            failed, verified, with_digests;
} seen;

static struct job *job_of(struct rig *rig)
{
    return (struct job *)rig;
}

static struct block_device *wrap(
        struct rig *rig, struct block_device *device, bool on_target)
{
    struct job *job = job_of(rig);

    return nemesis_over(device, on_target ? &job->on_target : &job->on_source);
}

/* -- before the job ---------------------------------------------------------------------- */

static void change_source(struct rig *rig)
{
    uint8_t *bytes = memory_disk_bytes(rig->source);

    for (uint64_t i = 1 + rig_below(rig, 5); i > 0; i--) {
        uint64_t at = rig_below(rig, rig->source_size);
        uint64_t length = min_u64(1 + rig_below(rig, 200000), rig->source_size - at);
        memset(bytes + at, rig_below(rig, 2) ? 0 : (int)rig_below(rig, 256), length);
    }
    memory_disk_settle(rig->source);
    memcpy(rig->source_shadow, bytes, rig->source_size);
}

/* A target that is equal, padding too, but perhaps for one bit. */
static void prepare_verify(struct job *job)
{
    struct rig *rig = &job->rig;
    uint8_t *bytes = memory_disk_bytes(rig->target);

    memcpy(bytes, memory_disk_bytes(rig->source), rig->source_size);
    job->differs = rig->source_size && rig_below(rig, 2);
    if (job->differs)
        bytes[rig_below(rig, rig->source_size)] ^= (uint8_t)(1u << rig_below(rig, 8));
    memory_disk_settle(rig->target);
    memcpy(rig->target_shadow, bytes, rig->target_size);
}

static void calm(struct job *job)
{
    job->on_source.per_mille = job->on_target.per_mille = 0;
    job->crash_at = 0;
}

/* Kept digests of a whole copy: what a resync begins with. */
static void first_copy(struct job *job)
{
    struct rig *rig = &job->rig;
    struct sidecar_start start = { 0, false };
    struct digest_sidecar *table = sidecar_create(rig->source_size);
    struct copy_options options = rig_options(COPY_FULL);
    bool by_digest;

    cr_assert(sidecar_begin(
                      &job->card.medium, &job->facts, &start, table, &by_digest) == 0);
    options.sidecar = table;
    cr_assert(rig_copy(rig, &options) == 0);
    cr_assert(sidecar_seal(&job->card.medium, &job->facts, rig->source_size, true,
                      table) == 0);
    sidecar_destroy(table);
    memset(&rig->last, 0, sizeof rig->last);
    change_source(rig);
}

static void job_init(struct job *job, uint64_t seed, uint64_t most)
{
    static const uint64_t limits[] = { 0, 300000, 2000000, 20000000 };
    struct rig *rig = &job->rig;

    memset(job, 0, sizeof *job);
    rig_init(rig, seed, most);
    rig->wrap = wrap;
    job->on_source.random = rig_random(rig);
    job->on_target.random = rig_random(rig);
    job->card = card_fresh();
    strcpy(job->facts.pair.text, "01890000-0000-7000-8000-000000000001");
    job->facts.size = rig->source_size;
    job->work = (enum work)rig_below(rig, WORKS);
    job->keeps_digests = rig->source_size && job->work != VERIFY && rig_below(rig, 2);
    if (job->work == DIGEST)
        job->keeps_digests = rig->source_size > 0;
    if (job->work == DIGEST && job->keeps_digests)
        first_copy(job);
    else if (job->work == VERIFY)
        prepare_verify(job);
    job->options = rig_options(job->work == FULL ? COPY_FULL
                    : job->work == VERIFY        ? COPY_VERIFY
                                                 : COPY_DELTA);
    job->options.target_zero =
            job->work == FULL && rig->target_zero && rig_below(rig, 2);
    job->options.verify = job->work != VERIFY && rig_below(rig, 3) == 0;
    job->options.window = (unsigned)rig_below(rig, 9);
    job->options.limit = limits[rig_below(rig, 4)];
    seen.works[job->work]++;
    seen.with_digests += job->keeps_digests;
}

/* -- one run ----------------------------------------------------------------------------- */

static void on_report(struct rig *rig)
{
    struct job *job = job_of(rig);

    if (job->told_count < REPORTS)
        job->told[job->told_count++] = rig->last;
}

/* As the engine does before a copy; NULL: none is kept. */
static struct digest_sidecar *table_begin(struct job *job)
{
    const struct copy_options *options = &job->options;
    struct sidecar_start start = { options->watermark, options->kind == COPY_DELTA };
    struct digest_sidecar *table;
    bool by_digest;

    job->options.sidecar = NULL;
    job->options.by_digest = false;
    if (!job->keeps_digests ||
            (options->watermark % SIDECAR_CHUNK &&
                    options->watermark < job->rig.source_size))
        return NULL;
    table = sidecar_create(job->rig.source_size);
    check(table);
    cr_assert(sidecar_begin(
                      &job->card.medium, &job->facts, &start, table, &by_digest) == 0);
    job->options.sidecar = table;
    job->options.by_digest = by_digest;
    seen.by_digest += by_digest;
    return table;
}

/* As the engine does after it: sealed at a clean end, else gone. */
static void table_end(struct job *job, struct digest_sidecar *table, bool drained)
{
    struct rig *rig = &job->rig;
    bool clean = rig->result == 0 || (rig->result == -ECANCELED && drained);

    if (!table)
        return;
    if (!job->crashed && clean)
        cr_assert(sidecar_seal(&job->card.medium, &job->facts, rig->last.watermark,
                          rig->result == 0, table) == 0);
    else if (!job->crashed)
        job->card.seen_size = job->card.stable_size = 0;
    sidecar_destroy(table);
}

/* The process is gone; the power perhaps too. What is in flight may still land. */
static void crash(struct job *job)
{
    struct rig *rig = &job->rig;

    job->crashed = true;
    seen.crashes++;
    nemesis_lose(rig->source_device);
    nemesis_lose(rig->target_device);
    if (rig_below(rig, 2)) {
        seen.power_cuts++;
        rig_cut(rig);
        card_cut(&job->card, rig);
    }
}

static void check_end(const struct job *job)
{
    const struct rig *rig = &job->rig;
    const struct nemesis *side = rig->on_target ? &job->on_target : &job->on_source;
    const struct block_device *device =
            rig->on_target ? rig->target_device : rig->source_device;

    if (rig->result == -EILSEQ)
        cr_assert(job->differs && rig->on_target, "seed %" PRIu64, rig->seed);
    else if (rig->result && rig->result != -ECANCELED)
        cr_assert(nemesis_answered(side, rig->result) ||
                        (device->broken && rig->result == -ENOTCONN),
                "seed %" PRIu64 ": %d: %s", rig->seed, rig->result, rig->fault.why);
    if (job->differs)
        cr_assert(rig->result != 0, "seed %" PRIu64 ": not found", rig->seed);
    else
        cr_assert(rig_equal_until(rig) >= rig->last.watermark,
                "seed %" PRIu64 ": told %" PRIu64 ", holds %" PRIu64, rig->seed,
                rig->last.watermark, rig_equal_until(rig));
    rig_expect_untouched(rig);
    if (job->work == VERIFY)
        cr_assert(memory_disk_writes(rig->target) == 0);
}

static void finish_run(struct job *job)
{
    struct rig *rig = &job->rig;

    while (!rig->ended)
        cr_assert(loop_sim_step(rig->loop), "seed %" PRIu64 ": it hangs", rig->seed);
    check_end(job);
    rig_run(rig); /* closes */
}

/* What the next run goes on from: the clean end, or the last that was persisted, or, when that
   was late, one before. */
static void take_figures(struct job *job)
{
    struct rig *rig = &job->rig;
    struct copy_figures from = rig->last;

    if (job->crashed && job->told_count == 0)
        return; /* as this run began */
    if (job->crashed)
        from = job->told[job->told_count - 1 -
                (rig_below(rig, 4) ? 0 : rig_below(rig, job->told_count))];
    rig->last = from;
    job->options.watermark = from.watermark;
    job->options.verified = from.verified;
    job->options.differences = from.differences;
    job->options.skipped = from.skipped;
    job->options.equal = from.equal;
    job->options.written = from.written;
}

static struct copy_figures figures_of(const struct job *job)
{
    const struct copy_options *options = &job->options;
    struct copy_figures figures = { .total = job->rig.source_size,
        .watermark = options->watermark,
        .verified = options->verified,
        .differences = options->differences,
        .skipped = options->skipped,
        .equal = options->equal,
        .written = options->written,
        .done = options->watermark - options->differences.bytes };

    if (options->verify)
        figures.done =
                (options->watermark + options->verified - options->differences.bytes) /
                2;
    return figures;
}

/* Limits and shares change while it runs. */
static void change_wishes(struct job *job)
{
    struct rig *rig = &job->rig;

    if (rig_below(rig, 2))
        copy_set_limit(rig->copy, rig_below(rig, 2) ? 0 : 500000 << rig_below(rig, 6));
    else
        copy_set_window(rig->copy, (unsigned)rig_below(rig, 9),
                1 + (unsigned)rig_below(rig, SHARE_WHOLE));
}

/* Steps; crashes, drains or drops where it was drawn. True: it was drained. */
static bool weather(struct job *job, uint64_t steps, unsigned stop)
{
    struct rig *rig = &job->rig;

    while (!rig->ended) {
        if (job->crash_at && job->told_count >= job->crash_at) {
            crash(job);
            return false;
        }
        cr_assert(loop_sim_step(rig->loop), "seed %" PRIu64 ": it hangs", rig->seed);
        rig_watch(rig);
        if (rig->copy && job->on_target.per_mille && rig_below(rig, 30) == 0)
            change_wishes(job);
        if (stop == 0 || rig->ended || steps-- > 0)
            continue;
        if (stop == 1) {
            crash(job);
            return false;
        }
        if (stop % 2 == 0) {
            seen.stops++;
            copy_drain(rig->copy);
            return true;
        }
        seen.drops++;
        copy_drop(rig->copy);
        return false;
    }
    return false;
}

/* One run from the options. @stop, after @steps: 1 crash, 2 and 4 drain, 3 and 5 drop. */
static void run(struct job *job, uint64_t steps, unsigned stop)
{
    struct rig *rig = &job->rig;
    struct digest_sidecar *table = table_begin(job);
    bool drained;

    if (!job->options.sidecar)
        job->card.seen_size = job->card.stable_size = 0;
    job->crashed = false;
    job->told_count = 0;
    job->on_source.errors = job->on_target.errors = 0;
    rig->reported = on_report;
    rig->last = figures_of(job);
    seen.resumed += job->options.watermark > 0;
    rig_start(rig, &job->options, NULL, 0, NULL, 0);
    drained = weather(job, steps, stop);
    finish_run(job);
    table_end(job, table, drained);
    if (rig->result && !job->crashed && rig->result != -ECANCELED)
        seen.failed++;
    take_figures(job);
    job->options.target_zero = false; /* somebody wrote ahead of the watermark */
}

static bool is_over(const struct job *job)
{
    return !job->crashed && (job->rig.result == 0 || job->rig.result == -EILSEQ);
}

static void expect_right(struct job *job)
{
    struct rig *rig = &job->rig;

    cr_assert(rig->result == (job->differs ? -EILSEQ : 0), "seed %" PRIu64 ": %d: %s",
            rig->seed, rig->result, rig->fault.why);
    seen.verified += job->options.verify;
    if (job->work == VERIFY)
        return;
    rig_cut(rig); /* what is done is flushed */
    rig_expect_equal(rig);
}

static void job_finish(struct job *job)
{
    for (unsigned i = 0; i < NEMESIS_KINDS; i++)
        seen.nemesis[i] += job->on_source.counts[i] + job->on_target.counts[i];
    rig_finish(&job->rig);
}

/* -- storms ------------------------------------------------------------------------------ */

static void draw_weather(struct job *job)
{
    struct rig *rig = &job->rig;
    unsigned heavy = rig_below(rig, 3) ? 10 : 60;

    job->on_source.per_mille = rig_below(rig, 3) ? 0 : heavy;
    job->on_target.per_mille = rig_below(rig, 4) ? 2 * heavy : 0;
    job->on_target.flush_ms = rig_below(rig, 2) ? 0 : 2000;
    job->on_source.budget = job->on_target.budget = 2 + (unsigned)rig_below(rig, 8);
    job->crash_at = rig_below(rig, 3) ? 0 : 1 + (unsigned)rig_below(rig, 4);
}

static void storm(uint64_t seed, uint64_t most)
{
    static struct job job;
    unsigned life;

    job_init(&job, seed, most);
    for (life = 0; life < LIVES; life++) {
        draw_weather(&job);
        run(&job, rig_below(&job.rig, rig_below(&job.rig, 3) ? 40 : 400),
                (unsigned)rig_below(&job.rig, 6));
        if (is_over(&job))
            break;
    }
    if (life == LIVES) {
        calm(&job);
        job.options.limit = 0;
        run(&job, 0, 0);
    }
    expect_right(&job);
    job_finish(&job);
}

static const char *const names[] = { "failed", "short reads", "short writes",
    "half told", "failed flushes", "late", "lost", "ghosts", "reordered" };

static void expect_all_seen(void)
{
    for (unsigned i = 0; i < NEMESIS_KINDS; i++) {
        fprintf(stderr, "storm: %" PRIu64 " %s\n", seen.nemesis[i], names[i]);
        cr_assert(
                seen.nemesis[i] >= 5, "only %" PRIu64 " %s", seen.nemesis[i], names[i]);
    }
    fprintf(stderr,
            "storm: %u full, %u compared, %u by digest, %u verified; %u runs by "
            "digest, "
            "%u volumes with digests, %u crashes (%u with the power), %u drained, "
            "%u dropped, %u failed, %u resumed in the middle, %u read back\n",
            seen.works[FULL], seen.works[COMPARE], seen.works[DIGEST],
            seen.works[VERIFY], seen.by_digest, seen.with_digests, seen.crashes,
            seen.power_cuts, seen.stops, seen.drops, seen.failed, seen.resumed,
            seen.verified);
    for (unsigned i = 0; i < WORKS; i++)
        cr_assert(seen.works[i] >= 20);
    cr_assert(seen.by_digest >= 10 && seen.crashes >= 20 && seen.power_cuts >= 10);
    cr_assert(seen.stops >= 5 && seen.drops >= 5 && seen.failed >= 10);
    cr_assert(seen.resumed >= 20 && seen.verified >= 10);
}

Test(storm, two_hundred_volumes)
{
    for (unsigned i = 0; i < VOLUMES; i++)
        storm(rig_seed() + 100000 + i, i % 20 ? SIZE : LARGE);
    expect_all_seen();
}

/* Gone at the very moment at which a position is persisted, at each of them. */
Test(storm, a_crash_at_every_persisted_point)
{
    static struct job job;
    unsigned middle = 0;

    for (unsigned i = 0; i < VOLUMES; i++)
        for (unsigned at = 1;; at++) {
            job_init(&job, rig_seed() + 200000 + i, 1 << 20);
            job.options.limit = 250000 + i % 4 * 100000;
            job.crash_at = at;
            run(&job, 0, 0);
            bool crashed = job.crashed;
            middle += crashed && job.options.watermark > 0;
            if (crashed) {
                calm(&job);
                job.options.limit = 0;
                run(&job, 0, 0);
            }
            expect_right(&job);
            job_finish(&job);
            if (!crashed)
                break;
        }
    fprintf(stderr, "storm: %u crashes in the middle\n", middle);
    cr_assert(middle > 100 && seen.crashes > VOLUMES);
}

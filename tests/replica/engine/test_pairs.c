/* Twenty random volumes through every pair of real ends: files, extents of files, LUNs of a real
 * tgtd (thick and thin, blocks of 512 and 4096, whole and windows of them), fresh elements of a
 * pool. Targets are full of garbage; what is outside the window stays as it was. Copies, deltas
 * by digest and by comparison, and verifying, which finds one bit. All is judged on the files
 * behind, byte by byte. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "tests/replica/engine/bench.h"
#include "tests/support/seed.h"
#include "tests/support/tgt.h"

enum { VOLUMES = 20, MIB = 1 << 20, MOST = 1 << 20, LARGE = 5 << 20, GARBAGE = 0xa5 };

enum kind { FILE_WHOLE, FILE_EXTENT, THICK_512, THIN_512, THICK_4K, THIN_4K, FRESH };
enum { SOURCES = FRESH, TARGETS = FRESH + 1 };

#define NAME "iqn.2026-11.example:pairs"

/* One end: a file behind it, a window of that file. */
struct place {
    enum kind kind;
    int lun; /* 0: a pool's file */
    char name[16], path[200];
    uint64_t offset, size; /* of the window */
    uint64_t file_size;
};

struct job {
    struct place *source, *target;
    struct engine_plan plan;
    struct bench_record record;
};

static struct bench bench;
static struct tgt *tgt;
static struct portal_rule loopback;
static uint64_t state;
static uint8_t *content; /* of the volume, zeros behind it */
static uint64_t length; /* bytes of it */
static struct place sources[SOURCES], targets[TARGETS];
static unsigned copies, resyncs, by_digest, verifies, flips;

static void tune(struct engine_options *options)
{
    check(portal_rule_parse("127.0.0.0/8", &loopback, NULL) == 0);
    options->allow = &loopback;
    options->allow_count = 1;
    options->io_timeout_ms = 30000;
    options->connect_timeout_ms = 30000;
    options->state_directory = bench.directory;
}

static uint64_t draw(uint64_t below)
{
    return seed_below(&state, below);
}

static uint64_t block_of(enum kind kind)
{
    if (kind == THICK_4K || kind == THIN_4K)
        return 4096;
    return kind == THICK_512 || kind == THIN_512 ? 512 : 1;
}

/* -- files behind ------------------------------------------------------------------------ */

static void put(
        const struct place *place, uint64_t offset, const void *bytes, uint64_t count)
{
    scoped_fd int fd = open(place->path, O_WRONLY | O_CREAT, 0600);

    check(fd >= 0 && pwrite(fd, bytes, count, (off_t)offset) == (ssize_t)count);
}

static uint8_t *get(const struct place *place)
{
    uint8_t *bytes = malloc(place->file_size + 1);
    scoped_fd int fd = open(place->path, O_RDONLY);

    check(bytes && fd >= 0);
    check(pread(fd, bytes, place->file_size, 0) == (ssize_t)place->file_size);
    return bytes;
}

static void size_file(const struct place *place)
{
    scoped_fd int fd = open(place->path, O_WRONLY | O_CREAT, 0600);

    check(fd >= 0 && ftruncate(fd, (off_t)place->file_size) == 0);
}

/* All garbage, allocated. */
static void fill_garbage(const struct place *place)
{
    uint8_t *bytes = malloc(place->file_size + 1);

    check(bytes);
    memset(bytes, GARBAGE, place->file_size);
    put(place, 0, bytes, place->file_size);
    free(bytes);
}

/* The volume, with holes where it has zeros; around it garbage. */
static void fill_source(const struct place *place)
{
    enum { PIECE = 4096 };

    fill_garbage(place);
    scoped_fd int fd = open(place->path, O_WRONLY);
    check(fd >= 0);
    check(place->size == 0 ||
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    (off_t)place->offset, (off_t)place->size) == 0);
    for (uint64_t at = 0; at < length; at += PIECE) {
        uint64_t some = min_u64(PIECE, length - at);
        bool zero = true;
        for (uint64_t i = 0; i < some && zero; i++)
            zero = content[at + i] == 0;
        if (zero && draw(8))
            continue; /* most stay holes, some are zeros that are written */
        check(pwrite(fd, content + at, some, (off_t)(place->offset + at)) ==
                (ssize_t)some);
    }
}

/* -- volumes ----------------------------------------------------------------------------- */

static void content_draw(unsigned volume)
{
    uint64_t most = volume % 10 == 9 ? LARGE : volume % 5 == 0 ? 70000 : MOST;

    length = 1 + draw(most);
    memset(content, 0, LARGE + MIB);
    for (uint64_t at = 0; at < length;) {
        uint64_t run = min_u64(1 + draw(draw(3) ? 50000 : 400000), length - at);
        if (draw(2))
            run = min_u64(round_up(run, 65536), length - at);
        if (draw(2))
            seed_fill(&state, content + at, run);
        at += run;
    }
}

static void content_change(void)
{
    for (uint64_t i = 1 + draw(4); i > 0; i--) {
        uint64_t at = draw(length), run = min_u64(1 + draw(70000), length - at);
        if (draw(3) == 0)
            memset(content + at, 0, run);
        else if (draw(2))
            content[at] ^= (uint8_t)(1u << draw(8));
        else
            seed_fill(&state, content + at, run);
    }
}

static bool is_windowed(const struct place *place, unsigned volume)
{
    return place->kind == FILE_EXTENT || (place->lun && volume % 2);
}

/* Where in its file a source of this volume lies. */
static void source_place(struct place *place, unsigned volume)
{
    uint64_t block = block_of(place->kind);
    bool windowed = is_windowed(place, volume);

    place->size = round_up(length, block);
    place->offset = windowed ? draw(200000) / block * block : 0;
    place->file_size = place->offset + place->size + (windowed ? 5 * block : 0);
    if (place->kind == FILE_EXTENT)
        place->file_size += draw(100000);
    size_file(place);
    fill_source(place);
}

/* A target takes the largest source of this volume. */
static void target_place(struct place *place, unsigned volume)
{
    uint64_t block = block_of(place->kind);
    bool windowed = is_windowed(place, volume);

    place->size = round_up(length, 4096) + (windowed ? 0 : draw(3) * 4096);
    place->offset = windowed ? draw(200000) / block * block : 0;
    place->file_size = place->offset + place->size + (windowed ? 7 * block : 0);
    size_file(place);
}

static void luns_reload(struct place *places, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (places[i].lun)
            tgt_reload_lun(tgt, 1, places[i].lun, places[i].path);
}

static void volume_make(unsigned volume)
{
    content_draw(volume);
    for (unsigned i = 0; i < SOURCES; i++)
        source_place(&sources[i], volume);
    for (unsigned i = 0; i < FRESH; i++)
        target_place(&targets[i], volume);
    luns_reload(sources, SOURCES);
    luns_reload(targets, FRESH);
}

/* -- ends -------------------------------------------------------------------------------- */

static struct engine_element element_of(const struct place *place)
{
    struct engine_element element = { .block_size = 1 };

    if (place->lun)
        snprintf(element.address, sizeof element.address, "iscsi://127.0.0.1:%u/%s/%d",
                tgt->port, NAME, place->lun);
    else
        snprintf(element.address, sizeof element.address, "pool:p/%s", place->name);
    element.offset = place->offset;
    element.size = place->size;
    element.whole = place->file_size;
    return element;
}

static void place_init(struct place *place, enum kind kind, char role, int lun)
{
    struct tgt_lun what = { .path = place->path,
        .block_size = (unsigned)block_of(kind),
        .thin = kind == THIN_512 || kind == THIN_4K };
    char path[128];

    *place = (struct place){ .kind = kind };
    snprintf(place->name, sizeof place->name, "%c%d", role, (int)kind);
    if (kind < THICK_512 || kind == FRESH) {
        snprintf(place->path, sizeof place->path, "%s/pool/%s", bench.directory,
                place->name);
        return;
    }
    place->lun = lun;
    tgt_make_file(tgt, place->name, MIB, path);
    snprintf(place->path, sizeof place->path, "%s", path);
    tgt_add_lun(tgt, 1, lun, &what);
}

static void setup(void)
{
    tgt = tgt_start();
    tgt_add_target(tgt, 1, NAME);
    bench_init(&bench, tune);
    state = seed_take("pairs");
    content = malloc(LARGE + MIB);
    check(content);
    for (int i = 0; i < SOURCES; i++)
        place_init(&sources[i], (enum kind)i, 's', 1 + i);
    for (int i = 0; i < TARGETS; i++)
        place_init(&targets[i], (enum kind)i, 't', 20 + i);
}

static void teardown(void)
{
    free(content);
    bench_finish(&bench);
    tgt_stop(tgt);
}

TestSuite(pairs, .init = setup, .fini = teardown);

/* -- rounds ------------------------------------------------------------------------------ */

/* All seven targets at once, each from another source. */
static void round_run(struct job jobs[TARGETS])
{
    bench.count = 0;
    for (unsigned i = 0; i < TARGETS; i++) {
        jobs[i].plan.id = uuid_make();
        cr_assert(engine_start(bench.engine, &jobs[i].plan) == 0);
    }
    for (unsigned i = 0; i < TARGETS; i++)
        cr_assert(
                bench_wait(&bench, &jobs[i].plan.id, bench_has_ended, &jobs[i].record));
}

static void expect_done(const struct job *job)
{
    const struct bench_record *record = &job->record;
    const struct engine_event *last = &record->last;

    cr_assert(record->ended == 1 && !record->late && !record->fell);
    cr_assert(last->end == ENGINE_DONE, "%s to %s: %s", job->source->name,
            job->target->name, last->fault.why);
    cr_assert(last->done == job->source->size && last->watermark == job->source->size);
    if (job->plan.work != ENGINE_VERIFY)
        cr_assert(last->skipped + last->written == last->watermark);
}

/* The window holds the volume, padded with zeros; all around is as it was. */
static void expect_equal(const struct job *job)
{
    const struct place *target = job->target;
    uint64_t padded = round_up(job->source->size, block_of(target->kind));
    uint8_t *bytes = get(target);

    for (uint64_t at = 0; at < target->file_size; at++) {
        bool inside = at >= target->offset && at < target->offset + padded;
        uint8_t wanted = inside ? content[at - target->offset] : GARBAGE;
        if (bytes[at] != wanted)
            cr_assert(false, "%s to %s, %" PRIu64 " bytes: byte %" PRIu64 " %s",
                    job->source->name, job->target->name, length, at - target->offset,
                    inside ? "differs" : "was touched");
    }
    free(bytes);
}

static void target_prepare(struct place *target, const struct place *source)
{
    struct fault fault;

    if (target->kind != FRESH) {
        fill_garbage(target);
        return;
    }
    (void)engine_file_remove(bench.engine, "p", target->name, &fault);
    target->size = target->file_size = source->size;
    cr_assert(engine_file_create(bench.engine, "p", target->name, target->size, false,
                      &fault) == 0,
            "%s", fault.why);
}

static void copy_round(struct job jobs[TARGETS], unsigned turn)
{
    for (unsigned i = 0; i < TARGETS; i++) {
        struct job *job = &jobs[i];
        *job = (struct job){ .source = &sources[(i + turn) % SOURCES],
            .target = &targets[i] };
        target_prepare(job->target, job->source);
        job->plan = (struct engine_plan){ .pair = uuid_make(),
            .work = draw(3) ? ENGINE_COPY : ENGINE_DELTA,
            .source = element_of(job->source),
            .target = element_of(job->target),
            .target_zero = job->target->kind == FRESH,
            .verify = draw(4) == 0 };
    }
    round_run(jobs);
    for (unsigned i = 0; i < TARGETS; i++) {
        expect_done(&jobs[i]);
        expect_equal(&jobs[i]);
        copies++;
    }
}

/* The sources change; a resync writes the difference, by digest where it is not told to
   forget. */
static void resync_round(struct job jobs[TARGETS])
{
    content_change();
    for (unsigned i = 0; i < SOURCES; i++)
        fill_source(&sources[i]);
    for (unsigned i = 0; i < TARGETS; i++) {
        jobs[i].plan.work = ENGINE_DELTA;
        jobs[i].plan.forget = draw(3) == 0;
        jobs[i].plan.verify = draw(4) == 0;
        jobs[i].plan.target_zero = false;
    }
    round_run(jobs);
    for (unsigned i = 0; i < TARGETS; i++) {
        bool digest = jobs[i].record.last.mode == ENGINE_MODE_DELTA_DIGEST;
        expect_done(&jobs[i]);
        expect_equal(&jobs[i]);
        cr_assert(digest == !jobs[i].plan.forget, "%s to %s", jobs[i].source->name,
                jobs[i].target->name);
        resyncs++;
        by_digest += digest;
    }
}

/* Verify all: equal; then with one bit flipped on each target. */
static void verify_round(struct job jobs[TARGETS])
{
    uint64_t at[TARGETS];

    for (unsigned i = 0; i < TARGETS; i++) {
        jobs[i].plan.work = ENGINE_VERIFY;
        jobs[i].plan.verify = false;
    }
    round_run(jobs);
    for (unsigned i = 0; i < TARGETS; i++, verifies++)
        expect_done(&jobs[i]);
    for (unsigned i = 0; i < TARGETS; i++) {
        at[i] = draw(4) == 0 ? 0 : draw(4) == 0 ? length - 1 : draw(length);
        uint8_t byte = content[at[i]] ^ (uint8_t)(1u << draw(8));
        put(jobs[i].target, jobs[i].target->offset + at[i], &byte, 1);
    }
    round_run(jobs);
    for (unsigned i = 0; i < TARGETS; i++, flips++) {
        const struct engine_event *last = &jobs[i].record.last;
        cr_assert(last->end == ENGINE_FAILED && last->fault.error == -EILSEQ &&
                        last->on_target,
                "%s to %s: byte %" PRIu64 ": %s", jobs[i].source->name,
                jobs[i].target->name, at[i], last->fault.why);
        cr_assert(last->done < last->total);
    }
}

/* One block too few: nothing is written, and the job says why. */
static void too_small_round(struct job jobs[TARGETS])
{
    unsigned failed = 0;

    for (unsigned i = 0; i < TARGETS; i++) {
        struct job *job = &jobs[i];
        uint64_t block = block_of(job->target->kind);
        uint64_t least = round_up(job->source->size, block);
        job->plan.work = ENGINE_COPY;
        job->plan.target.size = least > block ? least - block : least;
        if (job->target->kind != FRESH)
            fill_garbage(job->target);
    }
    round_run(jobs);
    for (unsigned i = 0; i < TARGETS; i++) {
        struct job *job = &jobs[i];
        const struct engine_event *last = &job->record.last;
        bool small = job->plan.target.size < job->source->size;
        failed += small;
        if (small)
            cr_assert(last->end == ENGINE_FAILED && last->fault.error == -ESTALE &&
                            last->on_target && last->done == 0,
                    "%d: %s", last->fault.error, last->fault.why);
        else
            expect_done(job);
        if (!small || job->target->kind == FRESH)
            continue;
        uint8_t *bytes = get(job->target);
        for (uint64_t at = 0; at < job->target->file_size; at++)
            cr_assert(bytes[at] == GARBAGE, "it was written nevertheless");
        free(bytes);
    }
    cr_assert(failed > 0 || length <= 4096);
}

Test(pairs, twenty_volumes_through_every_pair)
{
    struct job jobs[TARGETS];

    for (unsigned volume = 0; volume < VOLUMES; volume++) {
        volume_make(volume);
        for (unsigned turn = 0; turn < SOURCES; turn++) {
            copy_round(jobs, turn);
            if ((volume + turn) % 2 == 0)
                resync_round(jobs);
            if ((volume + turn) % 3 == 0)
                verify_round(jobs);
        }
        too_small_round(jobs);
    }
    fprintf(stderr,
            "pairs: %u copies, %u resyncs (%u by digest), %u verified equal, %u flips "
            "found\n",
            copies, resyncs, by_digest, verifies, flips);
    cr_assert(copies == VOLUMES * SOURCES * TARGETS && by_digest > 100 && flips > 100);
}

/* -- maps of many questions -------------------------------------------------------------- */

/* More than one stretch of a map, and more extents than one answer takes. */
static void sparse_make(struct place *place, uint8_t byte, uint64_t size)
{
    uint8_t bytes[4096];

    place->file_size = size;
    (void)unlink(place->path);
    size_file(place);
    memset(bytes, byte, sizeof bytes);
    for (uint64_t i = 0; i < 1300;
            i++) /* with holes between that are worth a way round */
        put(place, i * 3 * 65536 / 2 / 4096 * 4096, bytes, sizeof bytes);
    for (uint64_t i = 0; i < 64; i++) /* over the end of the first stretch */
        put(place, ((uint64_t)1 << 30) - 32 * 8192 + i * 8192 + byte, bytes, 4096);
    put(place, size - 5, bytes, 5);
}

Test(pairs, a_map_of_many_questions)
{
    uint64_t size = ((uint64_t)1 << 30) + 3 * MIB + 77;

    for (unsigned i = 0; i < 2; i++) {
        sparse_make(&sources[FILE_WHOLE], 0x11, size);
        sparse_make(&targets[FILE_WHOLE], 0x77, size);
        put(&targets[FILE_WHOLE], size / 2 + 3, "garbage", 7);
        struct engine_plan plan =
                bench_plan(i ? ENGINE_DELTA : ENGINE_COPY, "s0", "t0");
        struct bench_record record = bench_run(&bench, &plan);
        cr_assert(record.last.end == ENGINE_DONE, "%s", record.last.fault.why);
        cr_assert(record.last.done == size);
        cr_assert(bench_equal(&bench, "s0", "t0", size));
        cr_assert(record.last.written < 300 * MIB, "holes were sent");
    }
}

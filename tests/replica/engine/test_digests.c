/* Deltas by digest through the engine, on real files. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/scope.h"
#include "tests/replica/engine/bench.h"

enum {
    MIB = 1 << 20,
    CHUNK = 64 << 10,
    SLOWLY = MIB / 2 /* bytes a second: not through before it is stopped */
};
#define SIZE ((uint64_t)16 * MIB + 1000)

static struct bench bench;
static struct uuid pair;

static void keeps_digests(struct engine_options *options)
{
    options->state_directory = bench.directory;
}

/* A copied pair, whose digests are kept. */
static void setup(void)
{
    bench_init(&bench, keeps_digests);
    pair = uuid_make();
    bench_file(&bench, "a", SIZE, 1);
    bench_file(&bench, "b", SIZE + CHUNK, 2);
}

static void teardown(void)
{
    bench_finish(&bench);
}

TestSuite(digests, .init = setup, .fini = teardown);

static struct engine_plan plan_of(enum engine_work work)
{
    struct engine_plan plan = bench_plan(work, "a", "b");

    plan.pair = pair;
    return plan;
}

static const char *sidecar_path(void)
{
    static char path[300];

    snprintf(path, sizeof path, "%s/digests/%s.digests", bench.directory, pair.text);
    return path;
}

static bool sidecar_there(void)
{
    return access(sidecar_path(), F_OK) == 0;
}

static void poke(const char *path, uint64_t at)
{
    scoped_fd int fd = open(path, O_RDWR);
    uint8_t byte;

    cr_assert(fd >= 0 && pread(fd, &byte, 1, (off_t)at) == 1);
    byte ^= 1;
    cr_assert(pwrite(fd, &byte, 1, (off_t)at) == 1);
}

static void expect_done(const struct bench_record *record, enum engine_mode mode)
{
    cr_assert(record->ended == 1 && !record->late && !record->fell);
    cr_assert(record->last.end == ENGINE_DONE, "it ended %d: %s", record->last.end,
            record->last.fault.why);
    cr_assert(record->last.mode == mode, "mode %d", record->last.mode);
    cr_assert(record->last.skipped + record->last.written == SIZE);
    cr_assert(bench_equal(&bench, "a", "b", SIZE));
}

static struct bench_record run(enum engine_work work, enum engine_mode mode)
{
    struct engine_plan plan = plan_of(work);
    struct bench_record record = bench_run(&bench, &plan);

    expect_done(&record, mode);
    return record;
}

static uint64_t bytes_read(void)
{
    struct engine_figures figures;

    engine_figures(bench.engine, &figures);
    return figures.read_bytes;
}

Test(digests, a_resync_reads_the_source_alone)
{
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    cr_assert(sidecar_there());
    uint64_t before = bytes_read();
    struct bench_record record = run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
    cr_assert(record.last.written == 0 && bytes_read() - before <= SIZE);

    poke(bench_path(&bench, "a"), 7 * MIB);
    poke(bench_path(&bench, "a"), SIZE - 1);
    before = bytes_read();
    record = run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
    cr_assert(record.last.written == CHUNK + SIZE % CHUNK);
    cr_assert(bytes_read() - before <= SIZE);
}

Test(digests, over_a_restart)
{
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    bench_engine_stop(&bench);
    bench_engine_start(&bench, keeps_digests);
    poke(bench_path(&bench, "a"), 3 * MIB);
    struct bench_record record = run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
    cr_assert(record.last.written == CHUNK);
}

Test(digests, a_comparison_makes_them_anew)
{
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
    cr_assert(unlink(sidecar_path()) == 0);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
}

Test(digests, a_target_that_others_wrote_is_compared)
{
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    bench_later(&bench, "b");
    poke(bench_path(&bench, "b"), 5 * MIB + 3);
    struct bench_record record = run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
    cr_assert(record.last.written <= CHUNK); /* none when the source has a hole there */
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
}

Test(digests, a_file_in_place_of_the_target_is_compared)
{
    char command[300];
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    snprintf(command, sizeof command, "cd %s/pool && cp -p b c && mv c b",
            bench.directory);
    cr_assert(system(command) == 0);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
}

Test(digests, of_another_source_or_window_are_not_trusted)
{
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    bench_file(&bench, "other", SIZE, 3);
    struct engine_plan plan = plan_of(ENGINE_DELTA);
    plan.source = bench_element("other", 1);
    struct bench_record record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_DONE &&
            record.last.mode == ENGINE_MODE_DELTA_COMPARE);
    cr_assert(bench_equal(&bench, "other", "b", SIZE));

    plan.id = uuid_make();
    plan.target.size = SIZE; /* was: all of it */
    record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_DONE &&
            record.last.mode == ENGINE_MODE_DELTA_COMPARE);
    plan.id = uuid_make();
    record = bench_run(&bench, &plan);
    cr_assert(record.last.mode == ENGINE_MODE_DELTA_DIGEST);

    plan.id = uuid_make();
    plan.target.offset = CHUNK;
    record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_DONE &&
            record.last.mode == ENGINE_MODE_DELTA_COMPARE);
    plan.id = uuid_make();
    plan.work = ENGINE_VERIFY;
    record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_DONE, "%s", record.last.fault.why);
}

/* 1 MiB of its file is never written while it is told to be kept; after it, it is not. */
Test(digests, while_it_runs_they_are_open)
{
    struct bench_record record;
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    poke(bench_path(&bench, "a"), 2 * MIB);
    struct engine_plan plan = plan_of(ENGINE_DELTA);
    plan.limit = SLOWLY;
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    char command[700];
    snprintf(
            command, sizeof command, "cp %s %s/taken", sidecar_path(), bench.directory);
    cr_assert(system(command) == 0);
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DROP, 20000) == 0);
    cr_assert(!sidecar_there(), "a killed run leaves none");

    /* As if the process had died there. */
    snprintf(
            command, sizeof command, "cp %s/taken %s", bench.directory, sidecar_path());
    cr_assert(system(command) == 0);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
}

Test(digests, a_stopped_resync_goes_on_by_digest)
{
    struct bench_record record;
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    poke(bench_path(&bench, "a"), 100);
    poke(bench_path(&bench, "a"), 15 * MIB);
    struct engine_plan plan = plan_of(ENGINE_DELTA);
    plan.limit = SLOWLY;
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DRAIN, 20000) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(record.last.end == ENGINE_STOPPED &&
            record.last.mode == ENGINE_MODE_DELTA_DIGEST);

    struct engine_plan again = bench_resume(&plan, &record);
    again.limit = 0;
    record = bench_run(&bench, &again);
    expect_done(&record, ENGINE_MODE_DELTA_DIGEST);
    cr_assert(record.last.written == 2 * CHUNK);
}

Test(digests, a_stopped_run_serves_no_new_one)
{
    struct bench_record record;
    struct engine_plan plan = plan_of(ENGINE_COPY);
    plan.limit = SLOWLY;
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DRAIN, 20000) == 0);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
}

Test(digests, verify_still_reads_both)
{
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    struct engine_plan plan = plan_of(ENGINE_DELTA);
    plan.verify = true;
    uint64_t before = bytes_read();
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record, ENGINE_MODE_DELTA_DIGEST);
    cr_assert(record.last.verified == SIZE && bytes_read() - before >= 2 * SIZE);

    plan = plan_of(ENGINE_VERIFY); /* and touches nothing */
    record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_DONE && record.last.mode == ENGINE_MODE_NONE);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
}

Test(digests, what_was_forgotten_is_compared)
{
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    cr_assert(engine_pair_forget(bench.engine, &pair) == 0 && !sidecar_there());
    cr_assert(engine_pair_forget(bench.engine, &pair) == 0);
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);

    struct engine_plan plan = plan_of(ENGINE_DELTA);
    plan.forget = true;
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record, ENGINE_MODE_DELTA_COMPARE);
    cr_assert(!sidecar_there());
}

/* Forgotten while it runs: neither this run nor the next one keeps or trusts anything. */
Test(digests, forgotten_under_way)
{
    struct bench_record record;
    struct engine_plan plan = plan_of(ENGINE_COPY);
    plan.limit = SLOWLY;
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    cr_assert(engine_pair_forget(bench.engine, &pair) == 0);
    cr_assert(engine_limit(bench.engine, &plan.id, 0) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    expect_done(&record, ENGINE_MODE_FULL);
    cr_assert(!sidecar_there());
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
}

/* Before it has begun to look for any: then there is no name to take away yet. */
Test(digests, forgotten_before_it_looks)
{
    for (unsigned i = 0; i < 20; i++) {
        struct bench_record record;
        struct engine_plan plan = plan_of(ENGINE_COPY);
        cr_assert(engine_start(bench.engine, &plan) == 0);
        cr_assert(engine_pair_forget(bench.engine, &pair) == 0);
        cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
        expect_done(&record, ENGINE_MODE_FULL);
        cr_assert(!sidecar_there());
    }
}

Test(digests, a_damaged_file_is_compared)
{
    struct stat status;
    run(ENGINE_COPY, ENGINE_MODE_FULL);
    cr_assert(stat(sidecar_path(), &status) == 0);
    for (off_t at = 0; at < status.st_size; at += 512) {
        poke(bench_path(&bench, "a"), (uint64_t)at * 1000 % SIZE);
        poke(sidecar_path(), (uint64_t)at + 77);
        run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
        cr_assert(truncate(sidecar_path(), at) == 0);
        run(ENGINE_DELTA, ENGINE_MODE_DELTA_COMPARE);
    }
    run(ENGINE_DELTA, ENGINE_MODE_DELTA_DIGEST);
}

/* A directory by the file's name can be neither opened nor removed: nothing is written. */
Test(digests, what_cannot_be_set_aside_stops_the_copy)
{
    cr_assert(mkdir(sidecar_path(), 0700) == 0);
    struct engine_plan plan = plan_of(ENGINE_COPY);
    struct bench_record record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_FAILED && record.last.written == 0);
    cr_assert(strstr(record.last.fault.why, "digests"), "%s", record.last.fault.why);
    cr_assert(rmdir(sidecar_path()) == 0);
    plan.id = uuid_make();
    record = bench_run(&bench, &plan);
    expect_done(&record, ENGINE_MODE_FULL);
}

Test(digests, none_without_a_pair_or_for_nothing)
{
    char command[200];
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record, ENGINE_MODE_FULL);
    bench_file(&bench, "empty", 0, 1);
    plan = plan_of(ENGINE_DELTA);
    plan.source = bench_element("empty", 1);
    record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_DONE);
    snprintf(command, sizeof command, "test -z \"$(ls %s/digests)\"", bench.directory);
    cr_assert(system(command) == 0);
}

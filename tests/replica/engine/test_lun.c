/* LUNs of a real tgtd through the engine: to files, from files, to LUNs; killed, restarted,
 * frozen, shrunk on the way. Equality is judged by cmp and by tgtd's own backing files. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "tests/replica/engine/bench.h"
#include "tests/support/seed.h"
#include "tests/support/tgt.h"

enum { MIB = 1 << 20 };

#define NAME "iqn.2026-11.example:t1"

static struct bench bench;
static struct tgt *tgt;
static struct portal_rule loopback;

static void tune(struct engine_options *options)
{
    check(portal_rule_parse("127.0.0.0/8", &loopback, NULL) == 0);
    options->allow = &loopback;
    options->allow_count = 1;
    options->recovery_ms = 60000;
    options->connect_timeout_ms = 30000;
    options->io_timeout_ms = 30000;
}

/* Where deadlines are to pass; what fails for them is tried again. */
static void tune_short(struct engine_options *options)
{
    tune(options);
    options->connect_timeout_ms = 2000;
    options->io_timeout_ms = 3000;
}

static void be_short(void)
{
    bench_engine_stop(&bench);
    bench_engine_start(&bench, tune_short);
}

static void keeps_digests(struct engine_options *options)
{
    tune(options);
    options->state_directory = bench.directory;
}

static void setup(void)
{
    tgt = tgt_start();
    bench_init(&bench, tune);
}

static void teardown(void)
{
    bench_finish(&bench);
    tgt_stop(tgt);
}

TestSuite(lun, .init = setup, .fini = teardown);

/* -- the far side -------------------------------------------------------------------- */

struct lun {
    const char *file;
    int number;
    uint64_t size;
    unsigned block_size;
    bool thin;
    uint64_t seed; /* of the contents; 0: a hole */
};

/* A backing file in the far side's directory, filled as the pool's files are. */
static void lun_fill(const struct lun *lun)
{
    char path[128], command[400];

    tgt_make_file(tgt, lun->file, lun->size, path);
    if (!lun->seed)
        return;
    bench_file(&bench, "filling", lun->size, lun->seed);
    snprintf(command, sizeof command, "cp --sparse=always %s %s",
            bench_path(&bench, "filling"), path);
    check(system(command) == 0);
}

static void lun_add(const struct lun *lun)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", tgt->directory, lun->file);
    tgt_add_lun(tgt, 1, lun->number,
            &(struct tgt_lun){
                    .path = path, .block_size = lun->block_size, .thin = lun->thin });
}

static void far_side(const struct lun *luns, unsigned count)
{
    tgt_add_target(tgt, 1, NAME);
    for (unsigned i = 0; i < count; i++) {
        lun_fill(&luns[i]);
        lun_add(&luns[i]);
    }
}

static struct engine_element lun_element(int number)
{
    struct engine_element element = { 0 };

    snprintf(element.address, sizeof element.address, "iscsi://127.0.0.1:%u/%s/%d",
            tgt->port, NAME, number);
    return element;
}

/* Compares @length bytes of two files, each of the far side ("@name") or of the pool. */
static bool equal(const char *a, const char *b, uint64_t length)
{
    char command[800], paths[2][300];
    const char *names[2] = { a, b };

    for (unsigned i = 0; i < 2; i++)
        if (names[i][0] == '@')
            snprintf(paths[i], sizeof paths[i], "%s/%s", tgt->directory, names[i] + 1);
        else
            snprintf(paths[i], sizeof paths[i], "%s", bench_path(&bench, names[i]));
    snprintf(command, sizeof command, "cmp -n %llu %s %s", (unsigned long long)length,
            paths[0], paths[1]);
    return system(command) == 0;
}

static void expect_done(const struct bench_record *record, uint64_t size)
{
    cr_assert(record->ended == 1 && !record->late && !record->fell);
    cr_assert(record->last.end == ENGINE_DONE, "%s", record->last.fault.why);
    cr_assert(record->last.done == size && record->last.watermark == size);
}

static struct engine_plan plan_of(enum engine_work work, struct engine_element source,
        struct engine_element target)
{
    return (struct engine_plan){
        .id = uuid_make(), .work = work, .source = source, .target = target
    };
}

/* -- copies -------------------------------------------------------------------------- */

Test(lun, lun_to_lun_in_every_pair_of_blocks_thick_and_thin)
{
    static const struct lun luns[] = {
        { "s512", 1, 17 * MIB + 512 * 8, 512, false, 1 },
        { "s4096", 2, 17 * MIB + 4096 * 3, 4096, true, 2 },
        { "d512", 3, 18 * MIB, 512, false, 3 },
        { "d4096", 4, 18 * MIB, 4096, false, 4 },
        { "thin512", 5, 18 * MIB, 512, true, 5 },
        { "thin4096", 6, 18 * MIB, 4096, true, 6 },
    };
    far_side(luns, 6);
    for (unsigned s = 0; s < 2; s++)
        for (unsigned t = 2; t < 6; t++) {
            char from[20], to[20];
            struct engine_plan plan = plan_of(t % 2 ? ENGINE_DELTA : ENGINE_COPY,
                    lun_element(luns[s].number), lun_element(luns[t].number));
            plan.verify = s != t % 2;
            struct bench_record record = bench_run(&bench, &plan);
            expect_done(&record, luns[s].size);
            snprintf(from, sizeof from, "@%s", luns[s].file);
            snprintf(to, sizeof to, "@%s", luns[t].file);
            cr_assert(equal(from, to, luns[s].size), "%s to %s", from, to);
        }
}

Test(lun, file_to_lun_and_back)
{
    static const struct lun luns[] = { { "l", 1, 12 * MIB, 512, false, 7 } };
    uint64_t size = 11 * MIB + 777;
    far_side(luns, 1);
    bench_file(&bench, "a", size, 8);
    bench_file(&bench, "b", luns[0].size, 9);
    struct engine_plan plan =
            plan_of(ENGINE_COPY, bench_element("a", 1), lun_element(1));
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record, size);
    cr_assert(equal("a", "@l", size));

    plan = plan_of(ENGINE_COPY, lun_element(1), bench_element("b", 512));
    plan.source.whole = luns[0].size;
    record = bench_run(&bench, &plan);
    expect_done(&record, luns[0].size);
    cr_assert(equal("b", "@l", luns[0].size));
}

Test(lun, a_thin_target_stays_thin)
{
    static const struct lun luns[] = { { "s", 1, 64 * MIB, 512, true, 0 },
        { "d", 2, 64 * MIB, 512, true, 10 } };
    char path[200];
    struct stat st;
    far_side(luns, 2);
    struct engine_plan plan = plan_of(ENGINE_COPY, lun_element(1), lun_element(2));
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record, luns[0].size);
    cr_assert(equal("@s", "@d", luns[0].size));
    cr_assert(record.last.skipped == luns[0].size && record.last.written == 0);
    snprintf(path, sizeof path, "%s/d", tgt->directory);
    cr_assert(stat(path, &st) == 0 && st.st_blocks * 512 < 4 * MIB);
}

/* A file of @length bytes, whole grains of 64 KiB: data, and after it @times as many zeros,
   as bytes, or, @holes, not written. */
static void fill(
        const char *path, uint64_t length, uint64_t seed, unsigned times, bool holes)
{
    static uint64_t grain[8192];
    scoped_fd int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    uint64_t data = 0, zeros = 0;

    cr_assert(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
    for (uint64_t at = 0; at < length; at += sizeof grain) {
        if (!data && !zeros)
            zeros = times * (data = 1 + seed_next(&seed) % 6);
        for (unsigned i = 0; i < 8192; i++)
            grain[i] = data ? seed_next(&seed) | 1 : 0;
        if (data || !holes)
            cr_assert(pwrite(fd, grain, sizeof grain, (off_t)at) == sizeof grain);
        *(data ? &data : &zeros) -= 1;
    }
}

/* It has WRITE SAME, and keeps its blocks: which way the zeros go there is found out, and
   either way they are there, over garbage, and nothing past the end is touched. */
Test(lun, zeros_over_the_garbage_of_a_thick_one)
{
    static const struct lun luns[] = { { "l", 1, 65 * MIB, 512, false, 0 } };
    uint64_t seed = seed_take("zeros"), size = 64 * MIB;
    char path[128], command[500];
    far_side(luns, 1);
    snprintf(path, sizeof path, "%s/l", tgt->directory);
    fill(bench_path(&bench, "garbage"), luns[0].size, seed, 0, false);
    for (unsigned holes = 0; holes < 2; holes++) {
        snprintf(command, sizeof command,
                "dd status=none bs=1M conv=notrunc if=%s of=%s",
                bench_path(&bench, "garbage"), path);
        cr_assert(system(command) == 0 && equal("garbage", "@l", luns[0].size));
        fill(bench_path(&bench, "f"), size, seed + 1 + holes, 9, holes);
        struct engine_plan plan =
                plan_of(ENGINE_COPY, bench_element("f", 512), lun_element(1));
        struct bench_record record = bench_run(&bench, &plan);
        expect_done(&record, size);
        cr_assert(record.last.skipped + record.last.written == size);
        cr_assert(record.last.skipped, "zeros were never made there");
        cr_assert(equal("f", "@l", size));
        snprintf(command, sizeof command, "cmp -i %llu %s %s", (unsigned long long)size,
                bench_path(&bench, "garbage"), path);
        cr_assert(system(command) == 0, "past the end");
    }
}

/* Nothing in a LUN shows that somebody else wrote it: digests alone would call it equal. */
Test(lun, one_that_was_emptied_behind_us_is_compared)
{
    static const struct lun luns[] = { { "s", 1, 24 * MIB, 512, false, 11 },
        { "d", 2, 24 * MIB, 512, false, 12 } };
    char path[200];
    struct uuid pair = uuid_make();
    struct engine_plan plan;
    struct bench_record record;
    far_side(luns, 2);
    bench_engine_stop(&bench);
    bench_engine_start(&bench, keeps_digests);
    plan = plan_of(ENGINE_COPY, lun_element(1), lun_element(2));
    plan.pair = pair;
    record = bench_run(&bench, &plan);
    expect_done(&record, luns[0].size);

    plan.id = uuid_make();
    plan.work = ENGINE_DELTA;
    record = bench_run(&bench, &plan);
    expect_done(&record, luns[0].size);
    cr_assert(record.last.mode == ENGINE_MODE_DELTA_DIGEST && record.last.written == 0);

    snprintf(path, sizeof path, "%s/d", tgt->directory);
    cr_assert(truncate(path, 0) == 0 && truncate(path, (off_t)luns[1].size) == 0);
    plan.id = uuid_make();
    record = bench_run(&bench, &plan);
    expect_done(&record, luns[0].size);
    cr_assert(record.last.mode == ENGINE_MODE_DELTA_COMPARE && record.last.written > 0);
    cr_assert(equal("@s", "@d", luns[0].size));

    plan.id = uuid_make(); /* and what was found is known again */
    record = bench_run(&bench, &plan);
    expect_done(&record, luns[0].size);
    cr_assert(record.last.mode == ENGINE_MODE_DELTA_DIGEST && record.last.written == 0);

    /* One that goes on in the middle has nothing left to go on from. */
    plan.limit = 4 * MIB;
    plan.id = uuid_make();
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DRAIN, 30000) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(truncate(path, 0) == 0 && truncate(path, (off_t)luns[1].size) == 0);
    plan = bench_resume(&plan, &record);
    cr_assert(plan.watermark > 0);
    record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_FAILED && record.last.fault.error == -ESTALE,
            "%d %s", record.last.end, record.last.fault.why);
    plan = plan_of(ENGINE_DELTA, plan.source, plan.target);
    plan.pair = pair;
    record = bench_run(&bench, &plan);
    expect_done(&record, luns[0].size);
    cr_assert(record.last.mode == ENGINE_MODE_DELTA_COMPARE);
    cr_assert(equal("@s", "@d", luns[0].size));
}

/* -- trouble ------------------------------------------------------------------------- */

static void restart(const struct lun *luns, unsigned count)
{
    tgt_revive(tgt);
    tgt_add_target(tgt, 1, NAME);
    for (unsigned i = 0; i < count; i++)
        lun_add(&luns[i]);
}

static void kill_in_the_middle(bool lun_is_target)
{
    static const struct lun luns[] = { { "l", 1, 32 * MIB, 512, false, 11 } };
    struct bench_record record;
    far_side(luns, 1);
    bench_file(&bench, "f", luns[0].size, 12);
    struct engine_plan plan =
            plan_of(ENGINE_COPY, lun_element(1), bench_element("f", 512));
    if (lun_is_target)
        plan = plan_of(ENGINE_COPY, bench_element("f", 512), lun_element(1));
    plan.limit = 2 * MIB; /* a quarter of a minute */
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    tgt_kill(tgt);
    cr_assert(bench_wait(&bench, &plan.id, bench_is_waiting, &record));
    cr_assert(record.last.on_target == lun_is_target);
    restart(luns, 1);
    cr_assert(engine_limit(bench.engine, &plan.id, 0) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    expect_done(&record, luns[0].size);
    cr_assert(record.started >= 2);
    cr_assert(equal("f", "@l", luns[0].size));
}

Test(lun, a_source_killed_and_restarted)
{
    kill_in_the_middle(false);
}

Test(lun, a_target_killed_and_restarted)
{
    kill_in_the_middle(true);
}

/* Frozen for longer than the I/O deadline, then thawed: late writes meet the barrier. */
Test(lun, a_frozen_target_that_thaws)
{
    static const struct lun luns[] = { { "l", 1, 32 * MIB, 512, false, 13 } };
    struct bench_record record, other;
    be_short();
    far_side(luns, 1);
    bench_file(&bench, "f", luns[0].size, 14);
    bench_file(&bench, "g", 4 * MIB, 15);
    bench_file(&bench, "h", 4 * MIB, 16);
    struct engine_plan plan =
            plan_of(ENGINE_COPY, bench_element("f", 512), lun_element(1));
    plan.limit = 2 * MIB; /* a quarter of a minute */
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    tgt_freeze(tgt);
    struct engine_plan files =
            plan_of(ENGINE_COPY, bench_element("g", 512), bench_element("h", 512));
    other = bench_run(&bench, &files); /* nobody else is held up */
    expect_done(&other, 4 * MIB);
    cr_assert(bench_wait(&bench, &plan.id, bench_is_waiting, &record));
    cr_assert(record.last.fault.error == -ETIMEDOUT ||
                    record.last.fault.error == -ENOTCONN,
            "%s", record.last.fault.why);
    tgt_thaw(tgt);
    cr_assert(engine_limit(bench.engine, &plan.id, 0) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    expect_done(&record, luns[0].size);
    cr_assert(equal("f", "@l", luns[0].size));
}

/* Another size after it came back: it is not what the copy began with. */
/* Two windows of one LUN: who goes on there after a crash has it reset, which takes from the
   other what it has not flushed, and what it has in flight. */
Test(lun, a_reset_for_the_sake_of_another_copy)
{
    const struct lun luns[] = { { "lun1", 1, 32 * MIB, 512, false, 9 } };
    struct engine_plan one = bench_plan(ENGINE_COPY, "a", ""), two = one;
    struct bench_record record;

    far_side(luns, 1);
    bench_file(&bench, "a", 16 * MIB, 3);
    one.target = two.target = lun_element(1);
    one.target.size = two.target.size = two.target.offset = 16 * MIB;
    one.limit = 8 * MIB;
    two.id = uuid_make();
    two.resumed = true;
    cr_assert(engine_start(bench.engine, &one) == 0);
    cr_assert(bench_wait(&bench, &one.id, bench_has_moved, &record));
    for (unsigned i = 0; i < 3; i++) {
        two.id = uuid_make();
        record = bench_run(&bench, &two);
        expect_done(&record, 16 * MIB);
    }
    (void)engine_limit(bench.engine, &one.id, 0);
    cr_assert(bench_wait(&bench, &one.id, bench_has_ended, &record));
    expect_done(&record, 16 * MIB);
    cr_assert(record.started >= 2, "nothing of it was lost");
    cr_assert(equal("a", "@lun1", 16 * MIB));
}

Test(lun, a_source_that_shrank_while_away)
{
    static const struct lun luns[] = { { "l", 1, 32 * MIB, 512, false, 17 } };
    static const struct lun smaller[] = { { "l", 1, 16 * MIB, 512, false, 0 } };
    struct bench_record record;
    far_side(luns, 1);
    bench_file(&bench, "f", luns[0].size, 18);
    struct engine_plan plan =
            plan_of(ENGINE_COPY, lun_element(1), bench_element("f", 512));
    plan.source.whole = luns[0].size;
    plan.limit = 2 * MIB; /* a quarter of a minute */
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    tgt_kill(tgt);
    lun_fill(&smaller[0]);
    restart(smaller, 1);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(record.last.end == ENGINE_FAILED && record.last.fault.error == -ESTALE,
            "%d: %s", record.last.fault.error, record.last.fault.why);
    cr_assert(!record.last.on_target);
}

Test(lun, a_probe_of_a_lun)
{
    static const struct lun luns[] = { { "l", 1, 3 * MIB, 4096, true, 19 } };
    struct engine_element lun = lun_element(1);
    struct engine_found found;
    struct fault fault;
    far_side(luns, 1);
    cr_assert(engine_probe(bench.engine, &lun, true, &found, &fault) == 0, "%s",
            fault.why);
    cr_assert(found.size == 3 * MIB && found.block_size == 4096 && found.thin);
    cr_assert(strncmp(found.identity.place, "lun:", 4) == 0);
    lun = lun_element(2);
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == -ENXIO, "%s",
            fault.why);
    strcpy(strrchr(lun.address, ':'), ":none/1");
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == -ENODEV, "%s",
            fault.why);
    tgt_freeze(tgt);
    be_short();
    lun = lun_element(1);
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == -ETIMEDOUT,
            "%s", fault.why);
    tgt_thaw(tgt);
}

Test(lun, a_login_with_a_secret)
{
    static const struct lun luns[] = { { "l", 1, 2 * MIB, 512, false, 20 } };
    struct engine_element lun = lun_element(1);
    struct engine_found found;
    struct fault fault;
    char path[200];
    far_side(luns, 1);
    tgt_add_account(tgt, 1, "user", "canary-secret", false);
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == -EACCES, "%s",
            fault.why);
    snprintf(path, sizeof path, "%s/keys/key", bench.directory);
    {
        scoped_fd int fd = open(path, O_WRONLY | O_CREAT, 0600);
        cr_assert(write(fd, "user:canary-secret\n", 19) == 19);
    }
    strcpy(lun.credentials, "key");
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == 0, "%s",
            fault.why);
    {
        scoped_fd int fd = open(path, O_WRONLY | O_TRUNC);
        cr_assert(write(fd, "user:canary-secrex\n", 19) == 19);
    }
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == -EACCES);
    cr_assert(!strstr(fault.why, "canary"));
}

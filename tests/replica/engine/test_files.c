/* Real files through the engine. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/scope.h"
#include "tests/replica/engine/bench.h"

enum { MIB = 1 << 20 };

static struct bench bench;

static void setup(void)
{
    bench_init(&bench, NULL);
}

static void teardown(void)
{
    bench_finish(&bench);
}

TestSuite(engine, .init = setup, .fini = teardown);

static void expect_done(const struct bench_record *record, uint64_t size)
{
    cr_assert(record->ended == 1 && !record->late && !record->fell);
    cr_assert(record->last.end == ENGINE_DONE, "it ended %d: %s", record->last.end,
            record->last.fault.why);
    cr_assert(record->last.done == size && record->last.total == size &&
            record->last.watermark == size);
    cr_assert(record->last.fault.error == 0 && !record->last.on_target);
}

static void expect_failed(
        const struct bench_record *record, int error, bool on_target, const char *words)
{
    cr_assert(record->ended == 1 && record->last.end == ENGINE_FAILED);
    cr_assert(record->last.fault.error == error, "it failed %d, not %d: %s",
            record->last.fault.error, error, record->last.fault.why);
    cr_assert(record->last.on_target == on_target, "%s", record->last.fault.why);
    cr_assert(strstr(record->last.fault.why, words), "\"%s\" lacks \"%s\"",
            record->last.fault.why, words);
}

Test(engine, a_file_is_copied)
{
    uint64_t size = 20 * MIB + 12345;
    bench_file(&bench, "a", size, 1);
    bench_file(&bench, "b", size, 2);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    struct bench_record record = bench_run(&bench, &plan);

    expect_done(&record, size);
    cr_assert(record.started == 1 && record.last.mode == ENGINE_MODE_FULL);
    cr_assert(record.last.skipped + record.last.written == size);
    cr_assert(record.last.skipped > 0, "the holes of the source were sent");
    cr_assert(bench_equal(&bench, "a", "b", size));
}

Test(engine, a_fresh_target_stays_thin)
{
    uint64_t size = 64 * MIB;
    struct stat a, b;
    struct fault fault;
    bench_file(&bench, "a", size, 3);
    cr_assert(engine_file_create(bench.engine, "p", "b", size, false, &fault) == 0);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    plan.target_zero = true;
    plan.verify = true;
    struct bench_record record = bench_run(&bench, &plan);

    expect_done(&record, size);
    cr_assert(record.last.verified == size);
    cr_assert(bench_equal(&bench, "a", "b", size));
    cr_assert(stat(bench_path(&bench, "a"), &a) == 0);
    cr_assert(stat(bench_path(&bench, "b"), &b) == 0);
    cr_assert(b.st_blocks <= a.st_blocks + 64);
}

Test(engine, a_tail_is_padded_for_blocks)
{
    uint64_t size = 3 * MIB + 100;
    bench_file(&bench, "a", size, 4);
    bench_file(&bench, "b", 4 * MIB, 5);
    bench_file(&bench, "guard", 4 * MIB, 5);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    plan.target.block_size = 512;
    struct bench_record record = bench_run(&bench, &plan);
    uint8_t b[4096], guard[4096];

    expect_done(&record, size);
    cr_assert(bench_equal(&bench, "a", "b", size));
    scoped_fd int fd = open(bench_path(&bench, "b"), O_RDONLY);
    scoped_fd int old = open(bench_path(&bench, "guard"), O_RDONLY);
    cr_assert(pread(fd, b, 4096, 3 * MIB) == 4096);
    cr_assert(pread(old, guard, 4096, 3 * MIB) == 4096);
    for (unsigned i = 100; i < 512; i++)
        cr_assert(b[i] == 0);
    cr_assert(memcmp(b + 512, guard + 512, 4096 - 512) == 0);
}

Test(engine, an_extent_is_copied_into_a_window)
{
    bench_file(&bench, "a", 8 * MIB, 6);
    bench_file(&bench, "b", 8 * MIB, 7);
    bench_file(&bench, "old", 8 * MIB, 7);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    plan.source = bench_element("a", 512);
    plan.target = bench_element("b", 512);
    plan.source.offset = MIB;
    plan.source.size = 2 * MIB;
    plan.target.offset = 3 * MIB;
    plan.target.size = 4 * MIB;
    struct bench_record record = bench_run(&bench, &plan);
    char command[1500];

    expect_done(&record, 2 * MIB);
    snprintf(command, sizeof command,
            "cd %s/pool && cmp -n %d -i %d:%d a b && cmp -n %d old b && cmp -i %d old "
            "b",
            bench.directory, 2 * MIB, MIB, 3 * MIB, 3 * MIB, 5 * MIB);
    cr_assert(system(command) == 0);
}

Test(engine, a_delta_writes_the_difference)
{
    uint64_t size = 16 * MIB;
    bench_file(&bench, "a", size, 8);
    bench_file(&bench, "b", size, 8);
    scoped_fd int fd = open(bench_path(&bench, "b"), O_RDWR);
    cr_assert(pwrite(fd, "changed", 7, 5 * MIB + 3) == 7);
    struct engine_plan plan = bench_plan(ENGINE_DELTA, "a", "b");
    struct bench_record record = bench_run(&bench, &plan);

    expect_done(&record, size);
    cr_assert(record.last.mode == ENGINE_MODE_DELTA_COMPARE);
    cr_assert(record.last.written + record.last.skipped == size);
    cr_assert(record.last.written <= 65536);
    cr_assert(bench_equal(&bench, "a", "b", size));
}

Test(engine, verify_tells_the_first_difference)
{
    uint64_t size = 16 * MIB;
    bench_file(&bench, "a", size, 9);
    bench_file(&bench, "b", size, 9);
    struct engine_plan plan = bench_plan(ENGINE_VERIFY, "a", "b");
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record, size);
    cr_assert(record.last.mode == ENGINE_MODE_NONE);

    scoped_fd int fd = open(bench_path(&bench, "b"), O_RDWR);
    cr_assert(pwrite(fd, "changed", 7, 9 * MIB + 1024) == 7);
    cr_assert(pwrite(fd, "changed", 7, 12 * MIB) == 7);
    plan.id = uuid_make();
    record = bench_run(&bench, &plan);
    expect_failed(&record, -EILSEQ, true, "bytes 9438208 to 9438719");
    cr_assert(record.last.done == size - 1024 && record.last.watermark == size);
    const struct differences *found = &record.last.differences;
    cr_assert(found->bytes == 1024 && found->ranges == 2 && found->kept == 2);
    cr_assert(
            found->first[0].offset == 9 * MIB + 1024 && found->first[0].length == 512);
    cr_assert(found->first[1].offset == 12 * MIB && found->first[1].length == 512);
}

/* Bytes that this process has had read from a disk. */
static uint64_t disk_bytes(void)
{
    FILE *file = fopen("/proc/self/io", "r");
    unsigned long long bytes = 0;
    char line[80];

    cr_assert(file != NULL);
    while (fgets(line, sizeof line, file))
        (void)sscanf(line, "read_bytes: %llu", &bytes);
    fclose(file);
    return bytes;
}

/* Bytes that come from the disk when all of a file is read anew; 0 where that is not counted:
   some file systems are all in memory. */
static uint64_t disk_holds(const char *path, uint64_t size)
{
    scoped_fd int fd = open(path, O_RDWR);
    scoped_free uint8_t *bytes = malloc(size);
    uint64_t before = disk_bytes();

    cr_assert(fd >= 0 && bytes && fsync(fd) == 0);
    cr_assert(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    cr_assert(pread(fd, bytes, size, 0) == (ssize_t)size);
    return disk_bytes() - before;
}

Test(engine, what_is_verified_is_read_from_the_disk)
{
    uint64_t size = 16 * MIB, held, before;
    bench_file(&bench, "a", size, 12);
    bench_file(&bench, "b", size, 13);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record, size);
    held = disk_holds(bench_path(&bench, "b"), size);
    if (!held || !disk_holds(bench_path(&bench, "a"), size))
        cr_skip_test("what is read from this file system is not counted");

    plan.id = uuid_make();
    plan.verify = true;
    before = disk_bytes();
    record = bench_run(&bench, &plan);
    expect_done(&record, size);
    cr_assert(record.last.verified == size);
    cr_assert(disk_bytes() - before >= held, "%llu bytes of the target were read",
            (unsigned long long)(disk_bytes() - before));

    held = disk_holds(bench_path(&bench, "a"), size) +
            disk_holds(bench_path(&bench, "b"), size); /* both are in memory now */
    plan = bench_plan(ENGINE_VERIFY, "a", "b");
    before = disk_bytes();
    record = bench_run(&bench, &plan);
    expect_done(&record, size);
    cr_assert(disk_bytes() - before >= held, "%llu bytes of both were read",
            (unsigned long long)(disk_bytes() - before));
}

Test(engine, a_stopped_copy_goes_on_from_its_watermark)
{
    uint64_t size = 24 * MIB;
    struct bench_record record;
    bench_file(&bench, "a", size, 10);
    bench_file(&bench, "b", size, 11);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    plan.limit = MIB; /* it is not through when it is stopped, however late that is */
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(engine_start(bench.engine, &plan) == -EALREADY);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DRAIN, 20000) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(record.last.end == ENGINE_STOPPED && record.last.watermark < size);
    cr_assert(record.last.watermark > 0 && !record.fell);
    cr_assert(record.last.skipped + record.last.written == record.last.watermark);
    cr_assert(engine_stop(bench.engine, &plan.id, ENGINE_DRAIN) == -ESRCH);
    cr_assert(engine_limit(bench.engine, &plan.id, 1) == -ESRCH);

    struct engine_plan again = bench_resume(&plan, &record);
    again.limit = 0;
    record = bench_run(&bench, &again);
    expect_done(&record, size);
    cr_assert(record.last.skipped + record.last.written == size);
    cr_assert(bench_equal(&bench, "a", "b", size));
}

Test(engine, a_drop_ends_and_the_limit_can_be_lifted)
{
    uint64_t size = 24 * MIB;
    struct bench_record record;
    bench_file(&bench, "a", size, 12);
    bench_file(&bench, "b", size, 13);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    plan.limit = 1000; /* hours */
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_started, &record));
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DROP, 20000) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(record.last.end == ENGINE_STOPPED);

    struct engine_plan again = bench_resume(&plan, &record);
    cr_assert(engine_start(bench.engine, &again) == 0);
    cr_assert(bench_wait(&bench, &again.id, bench_has_started, &record));
    cr_assert(engine_limit(bench.engine, &again.id, 0) == 0);
    cr_assert(bench_wait(&bench, &again.id, bench_has_ended, &record));
    expect_done(&record, size);
    cr_assert(bench_equal(&bench, "a", "b", size));
}

Test(engine, holding_keeps_the_target_locked)
{
    struct bench_record record;
    struct engine_found found;
    struct fault fault;
    bench_file(&bench, "a", MIB, 14);
    bench_file(&bench, "b", MIB, 15);
    struct engine_plan plan = bench_plan(ENGINE_HOLD, "a", "b");
    struct engine_element b = bench_element("b", 1), a = bench_element("a", 1);
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_is_held, &record));
    cr_assert(engine_probe(bench.engine, &b, true, &found, &fault) == -EBUSY);
    cr_assert(engine_probe(bench.engine, &a, false, &found, &fault) == 0);
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DRAIN, 20000) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(record.last.end == ENGINE_STOPPED && record.ended == 1);
    cr_assert(
            engine_probe(bench.engine, &b, true, &found, &fault) == 0, "%s", fault.why);
}

Test(engine, a_probe_tells_what_is_there)
{
    struct engine_found found;
    struct fault fault;
    struct engine_element a = bench_element("a", 512);
    bench_file(&bench, "a", 3 * MIB, 16);
    cr_assert(
            engine_probe(bench.engine, &a, true, &found, &fault) == 0, "%s", fault.why);
    cr_assert(
            found.size == 3 * MIB && found.whole == 3 * MIB && found.block_size == 512);
    cr_assert(!found.read_only && strncmp(found.identity.place, "file:", 5) == 0);
    a.offset = MIB;
    a.size = 512;
    cr_assert(engine_probe(bench.engine, &a, false, &found, &fault) == 0, "%s",
            fault.why);
    cr_assert(found.size == 512 && found.whole == 3 * MIB);
    a.size = 0;
    cr_assert(engine_probe(bench.engine, &a, false, &found, &fault) == 0, "%s",
            fault.why);
    cr_assert(found.size == 2 * MIB);
}

static int probe(const char *address, bool writable, struct fault *fault)
{
    struct engine_element element = { .block_size = 512 };
    struct engine_found found;

    snprintf(element.address, sizeof element.address, "%s", address);
    return engine_probe(bench.engine, &element, writable, &found, fault);
}

Test(engine, a_probe_that_fails_says_why)
{
    struct engine_element a = bench_element("a", 512);
    struct engine_found found;
    struct fault fault;
    bench_file(&bench, "a", MIB, 17);
    cr_assert(probe("pool:p/none", false, &fault) == -ENOENT);
    cr_assert(probe("pool:q/a", false, &fault) == -ENXIO);
    cr_assert(strstr(fault.why, "\"q\""));
    cr_assert(probe("file:///etc/passwd", false, &fault) == -EINVAL);
    cr_assert(probe("pool:p/../../etc/passwd", false, &fault) < 0);
    cr_assert(symlink("/etc/passwd", bench_path(&bench, "link")) == 0);
    cr_assert(probe("pool:p/link", false, &fault) < 0);
    cr_assert(probe("iscsi://127.0.0.1:1/iqn.2026-11.example:x/1", false, &fault) ==
            -EPERM);

    a.whole = 2 * MIB;
    cr_assert(engine_probe(bench.engine, &a, false, &found, &fault) == -ESTALE);
    cr_assert(strstr(fault.why, "changed its size"));
    a.whole = 0;
    a.offset = MIB;
    a.size = 512;
    cr_assert(engine_probe(bench.engine, &a, false, &found, &fault) == -ESTALE);
    a.offset = 100;
    cr_assert(engine_probe(bench.engine, &a, false, &found, &fault) == -EINVAL);
    a.offset = UINT64_MAX - 511;
    a.size = 1024;
    cr_assert(engine_probe(bench.engine, &a, false, &found, &fault) == -ESTALE);
}

Test(engine, what_cannot_be_opened_fails_the_plan)
{
    bench_file(&bench, "a", 2 * MIB, 18);
    bench_file(&bench, "b", MIB, 19);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "none", "b");
    struct bench_record record = bench_run(&bench, &plan);
    expect_failed(&record, -ENOENT, false, "source");

    plan = bench_plan(ENGINE_COPY, "a", "none");
    record = bench_run(&bench, &plan);
    expect_failed(&record, -ENOENT, true, "target");

    plan = bench_plan(ENGINE_COPY, "a", "b"); /* too small */
    record = bench_run(&bench, &plan);
    expect_failed(&record, -ESTALE, true, "1048576");

    plan = bench_plan(ENGINE_COPY, "a", "a");
    record = bench_run(&bench, &plan);
    expect_failed(&record, -EINVAL, true, "same bytes");

    plan = bench_plan(ENGINE_COPY, "b", "a");
    plan.source.whole = 2 * MIB;
    record = bench_run(&bench, &plan);
    expect_failed(&record, -ESTALE, false, "source has changed its size");

    plan = bench_plan(ENGINE_COPY, "b", "a");
    plan.watermark = 2 * MIB;
    record = bench_run(&bench, &plan);
    expect_failed(&record, -ESTALE, false, "watermark");
}

Test(engine, destroying_drains_what_runs)
{
    uint64_t size = 16 * MIB;
    struct bench_record records[4];
    struct engine_plan plans[4];
    char name[8];

    bench_file(&bench, "a", size, 20);
    for (unsigned i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "t%u", i);
        bench_file(&bench, name, size, 30 + i);
        plans[i] = bench_plan(ENGINE_COPY, "a", name);
        plans[i].limit = MIB / 2; /* half a minute */
        plans[i].priority = i;
        cr_assert(engine_start(bench.engine, &plans[i]) == 0);
    }
    for (unsigned i = 0; i < 4; i++)
        cr_assert(bench_wait(&bench, &plans[i].id, bench_has_moved, &records[i]));
    bench_engine_stop(&bench);
    bench_engine_start(&bench, NULL);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert(bench_wait(&bench, &plans[i].id, bench_has_ended, &records[i]));
        cr_assert(records[i].ended == 1 && records[i].last.end == ENGINE_STOPPED);
        plans[i] = bench_resume(&plans[i], &records[i]);
        plans[i].limit = 0;
        struct bench_record record = bench_run(&bench, &plans[i]);
        expect_done(&record, size);
        snprintf(name, sizeof name, "t%u", i);
        cr_assert(bench_equal(&bench, "a", name, size));
    }
}

/* -- credentials ---------------------------------------------------------------------- */

static struct portal_rule loopback;

static void allow_loopback(struct engine_options *options)
{
    cr_assert(portal_rule_parse("127.0.0.0/8", &loopback, NULL) == 0);
    options->allow = &loopback;
    options->allow_count = 1;
}

/* The portal is a closed port: what is refused before is refused without a connection. */
static int probe_with_key(const char *text, mode_t mode, struct fault *fault)
{
    struct engine_element lun = {
        .address = "iscsi://127.0.0.1:1/iqn.2026-11.example:x/1", .credentials = "key"
    };
    struct engine_found found;
    char path[200];

    snprintf(path, sizeof path, "%s/keys/key", bench.directory);
    (void)unlink(path);
    if (text) {
        scoped_fd int fd = open(path, O_WRONLY | O_CREAT, 0600);
        cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
        cr_assert(fchmod(fd, mode) == 0);
    }
    return engine_probe(bench.engine, &lun, false, &found, fault);
}

Test(engine, credentials_are_read_with_suspicion)
{
    struct fault fault;
    char key[200], link_path[200];

    bench_engine_stop(&bench);
    bench_engine_start(&bench, allow_loopback);
    cr_assert(probe_with_key(NULL, 0, &fault) == -ENOKEY);
    cr_assert(probe_with_key("user:secret12345", 0640, &fault) == -ENOKEY);
    cr_assert(strstr(fault.why, "0640"));
    cr_assert(probe_with_key("user:secret12345", 04600, &fault) == -ENOKEY);
    cr_assert(probe_with_key("nocolon-canary", 0600, &fault) == -ENOKEY);
    cr_assert(!strstr(fault.why, "canary"));
    cr_assert(probe_with_key(":canary", 0600, &fault) == -ENOKEY);
    cr_assert(probe_with_key("user:", 0600, &fault) == -ENOKEY);
    cr_assert(probe_with_key("user:secret\nmutual", 0600, &fault) == -ENOKEY);
    cr_assert(probe_with_key("", 0600, &fault) == -ENOKEY);
    cr_assert(probe_with_key("user:secret12345\r\nmutual:other1234567\n", 0600,
                      &fault) == -ECONNREFUSED,
            "%s", fault.why);
    snprintf(key, sizeof key, "%s/keys/key", bench.directory);
    snprintf(link_path, sizeof link_path, "%s/keys/hard", bench.directory);
    cr_assert(probe_with_key("user:secret12345", 0600, &fault) == -ECONNREFUSED);
    cr_assert(link(key, link_path) == 0);
    struct engine_element lun = {
        .address = "iscsi://127.0.0.1:1/iqn.2026-11.example:x/1", .credentials = "key"
    };
    struct engine_found found;
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == -ENOKEY);
    cr_assert(unlink(key) == 0 && symlink(link_path, key) == 0);
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == -ENOKEY);
    cr_assert(strstr(fault.why, "link"));
    strcpy(lun.credentials, "../keys/hard");
    cr_assert(engine_probe(bench.engine, &lun, false, &found, &fault) == -ENOKEY);
}

Test(engine, a_portal_that_never_answers_is_given_up)
{
    struct bench_record record;
    bench_engine_stop(&bench);
    bench_engine_start(&bench, allow_loopback);
    bench_file(&bench, "b", MIB, 23);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    strcpy(plan.source.address, "iscsi://127.0.0.1:1/iqn.2026-11.example:x/1");
    record = bench_run(&bench, &plan);
    expect_failed(&record, -ECONNREFUSED, false, "source");
    cr_assert(record.waiting > 0 && record.started == 0);

    /* Stopped while it waits. */
    plan.id = uuid_make();
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_is_waiting, &record));
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DROP, 20000) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(record.last.end == ENGINE_STOPPED && record.ended == 1);
}

Test(engine, figures_count_what_moved)
{
    struct engine_figures figures;
    bench_file(&bench, "a", 4 * MIB, 21);
    bench_file(&bench, "b", 4 * MIB, 22);
    struct engine_plan plan = bench_plan(ENGINE_COPY, "a", "b");
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record, 4 * MIB);
    engine_figures(bench.engine, &figures);
    cr_assert(figures.loops == 2);
    cr_assert(figures.written_bytes == record.last.written);
    cr_assert(figures.skipped_bytes == record.last.skipped);
    cr_assert(figures.read_bytes >= record.last.written);
    (void)engine_stalled_ms(bench.engine);
}

/* Its name is free when its last event is out, though the event is still being taken. */
static struct engine_plan again;
static int again_result;

static void start_again(struct bench *of, const struct engine_event *event)
{
    if (event->kind != ENGINE_ENDED)
        return;
    of->hook = NULL;
    again_result = engine_start(of->engine, &again);
}

static bool has_ended_twice(const struct bench_record *record)
{
    return record->ended == 2;
}

Test(engine, the_name_of_an_ended_plan_is_free)
{
    struct bench_record record;
    bench_file(&bench, "a", MIB, 24);
    bench_file(&bench, "b", MIB, 25);
    again = bench_plan(ENGINE_COPY, "a", "b");
    again_result = 1;
    bench.hook = start_again;
    cr_assert(engine_start(bench.engine, &again) == 0);
    cr_assert(bench_wait(&bench, &again.id, has_ended_twice, &record));
    cr_assert(again_result == 0 && record.last.end == ENGINE_DONE);
}

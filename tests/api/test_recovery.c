/* A stop, a crash, and rows as a crash may leave them: what a start makes of it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/api/pairs.h"

static struct rig rig;
static char source[37], target[37];

enum { SIZE = 8 * PAIRS_MIB };

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
    rig_element(&rig, "StorageVolume", SIZE, source);
    rig_element(&rig, "StorageVolume", SIZE, target);
    pair_noise(&rig, source, SIZE, 31);
    pair_noise(&rig, target, SIZE, 32);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(recovery, .init = begin, .fini = end);

static void restart(void)
{
    rig_stop(&rig);
    rig_start(&rig);
}

enum { SLOW = 64 << 10 }; /* bytes a second: the whole would take two minutes */

/** Wait until something of the job is flushed on the target. */
static void job_under_way(struct rig *at, const char *job)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    int64_t seen = -1;

    while (job_row(at, job).watermark == 0)
        expect(service_wait(at->service, &seen, deadline));
}

/** Run @live, which never returns, in a process of its own until it has told its job; kill it. */
static void life_killed(void (*live)(int told), char job[37])
{
    int pipes[2], status;
    pid_t child;

    rig_stop(&rig);
    expect_eq(pipe(pipes), 0);
    if ((child = fork()) == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(pipes[0]);
        rig_start(&rig);
        live(pipes[1]);
        for (;;)
            (void)pause();
    }
    (void)close(pipes[1]);
    expect(read(pipes[0], job, 37) == 37);
    (void)kill(child, SIGKILL);
    expect_eq(waitpid(child, &status, 0), child);
    (void)close(pipes[0]);
    rig_start(&rig);
}

Test(recovery, a_stopped_service_goes_on_from_the_watermark)
{
    struct store_job before, after;
    char job[37];

    pair_attach(&rig, source, target, 4, SLOW, job);
    job_under_way(&rig, job);
    rig_stop(&rig);
    rig_start(&rig);
    before = job_row(&rig, job);
    expect(before.watermark > 0 && before.resumed);
    job_unlimit(&rig, job);
    after = job_finish(&rig, job);
    expect_eq(after.state, CIM_JOB_COMPLETED);
    expect_eq(after.started, before.started);
    expect(after.watermark >= before.watermark && after.percent == 100);
    expect(pair_equal(&rig, source, target, SIZE));
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
}

static void live_slowly(int told)
{
    char job[37];

    pair_attach(&rig, source, target, 2, SLOW, job);
    job_under_way(&rig, job);
    (void)!write(told, job, sizeof(job));
}

Test(recovery, a_killed_service_goes_on_from_the_watermark)
{
    char job[37] = "";

    life_killed(live_slowly, job);
    job_unlimit(&rig, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(job_row(&rig, job).resumed);
    expect(pair_equal(&rig, source, target, SIZE));
    pair_reach(&rig, target, CIM_SYNC_SYNCHRONIZED);
}

/* A copy that has just been asked for, runs, or has just ended while the service stops. */
Test(recovery, a_stop_at_any_moment_loses_no_end)
{
    uint64_t seed = seed_take("a_stop_at_any_moment");
    char small[37], jobs[24][3][37];

    rig_element(&rig, "StorageVolume", 65536, small);
    for (int round = 0; round < 24; round++) {
        for (int i = 0; i < 3; i++) {
            struct answer answer =
                    rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
                            "{\"SourceElement\":\"%s\",\"CopyType\":5}", small);
            job_started(&answer, jobs[round][i]);
        }
        for (uint64_t spin = seed_below(&seed, 2000); spin; spin--)
            sched_yield();
        restart();
    }
    for (int n = 0; n < 24 * 3; n++)
        expect_eq(job_finish(&rig, jobs[n / 3][n % 3]).state, CIM_JOB_COMPLETED);
}

/* -- planted -------------------------------------------------------------------------------- */

static void plant_pair(int64_t type, int64_t state, const struct store_job *job)
{
    struct store_replica replica = { .id = uuid_of(target),
        .source = uuid_of(source),
        .copy_type = type,
        .sync_state = state,
        .state_before = CIM_SYNC_FROZEN,
        .copy_priority = 2,
        .replica_type = 2,
        .when_established = clock_wall_ms(),
        .when_synced = clock_wall_ms(),
        .rpo = 300,
        .recovery_mode = 2 };

    if (job)
        replica.job = job->id;
    plant(&rig, STORE_REPLICA, &replica);
}

static struct store_job plant_job(int64_t state, int64_t wanted)
{
    struct store_job job = { .id = uuid_make(),
        .method = "ModifySynchronization",
        .work = JOB_COPY,
        .state = state,
        .wanted = wanted,
        .priority = 2,
        .source = uuid_of(source),
        .target = uuid_of(target),
        .replica = uuid_of(target),
        .submitted = clock_wall_ms(),
        .started = clock_wall_ms(),
        .total = SIZE,
        .return_value = 4096 };

    if (state == CIM_JOB_RUNNING) /* it was telling why it does not move */
        snprintf(job.error, sizeof(job.error), "waiting for the target: it is gone");
    plant(&rig, STORE_JOB, &job);
    return job;
}

/** A job as a crash left it; what a start makes of it and its pair. */
static void taken_up(int64_t type, int64_t pair, int64_t state, int64_t wanted,
        int64_t job_after, int64_t pair_after)
{
    struct store_job job = plant_job(state, wanted), after;
    struct store_replica replica;

    plant_pair(type, pair, &job);
    restart();
    after = job_reach(&rig, job.id.text, job_after);
    expect(!strstr(after.error, "waiting"));
    pair_reach(&rig, target, pair_after);
    uproot(&rig, STORE_JOB, &job);
    if (replica_row(&rig, target, &replica))
        uproot(&rig, STORE_REPLICA, &replica);
}

Test(recovery, what_was_wanted_is_done)
{
    taken_up(4, 5, CIM_JOB_SHUTTING_DOWN, WANT_TERMINATE, CIM_JOB_TERMINATED, 12);
    taken_up(4, 5, CIM_JOB_SHUTTING_DOWN, WANT_KILL, CIM_JOB_KILLED, 12);
    taken_up(2, 7, CIM_JOB_SHUTTING_DOWN, WANT_TERMINATE, CIM_JOB_TERMINATED, 13);
    taken_up(4, 15, CIM_JOB_SHUTTING_DOWN, WANT_STOP_COPY, CIM_JOB_TERMINATED, 2);
    taken_up(5, 5, CIM_JOB_SHUTTING_DOWN, WANT_STOP_COPY, CIM_JOB_TERMINATED, 0);
    taken_up(4, 5, CIM_JOB_RUNNING, WANT_SUSPEND, CIM_JOB_SUSPENDED, 5);
    taken_up(4, 8, CIM_JOB_RUNNING, WANT_SUSPEND, CIM_JOB_SUSPENDED, 9);
    taken_up(4, 5, CIM_JOB_SUSPENDED, 0, CIM_JOB_SUSPENDED, 5);
}

Test(recovery, what_ran_or_waited_runs)
{
    taken_up(4, 5, CIM_JOB_RUNNING, 0, CIM_JOB_COMPLETED, 14);
    taken_up(4, 5, CIM_JOB_STARTING, 0, CIM_JOB_COMPLETED, 14);
    taken_up(5, 2, CIM_JOB_NEW, 0, CIM_JOB_COMPLETED, 0);
    taken_up(2, 5, CIM_JOB_RUNNING, 0, CIM_JOB_COMPLETED, 6);
    expect(pair_equal(&rig, source, target, SIZE));
}

Test(recovery, no_transient_state_is_left_without_a_job)
{
    static const struct {
        int64_t type, state, after;
    } rows[] = { { 2, 3, 12 }, { 2, 5, 12 }, { 2, 7, 13 }, { 2, 8, 9 }, { 2, 10, 12 },
        { 4, 3, 12 }, { 4, 5, 12 }, { 4, 8, 9 }, { 4, 10, 12 }, { 4, 15, 12 },
        { 5, 5, 12 } };
    struct store_replica replica;

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        plant_pair(rows[i].type, rows[i].state, NULL);
        restart();
        expect(replica_row(&rig, target, &replica));
        cr_assert(replica.sync_state == rows[i].after, "CopyType %d in %d: %d, not %d",
                (int)rows[i].type, (int)rows[i].state, (int)replica.sync_state,
                (int)rows[i].after);
        expect((replica.last_error[0] != '\0') == (rows[i].after == 12));
        uproot(&rig, STORE_REPLICA, &replica);
    }
}

/* Asks only: whoever takes a lock to find out is in the way of the one who shall have it. */
static bool somebody_holds(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    expect_eq(fcntl(fd, F_OFD_GETLK, &lock), 0);
    return lock.l_type != F_UNLCK;
}

Test(recovery, a_prepared_pair_is_held_again)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    struct store_replica replica;
    char path[PAIRS_PATH];
    int fd;

    plant_pair(4, CIM_SYNC_PREPARED, NULL);
    restart();
    element_path(&rig, target, path);
    fd = open(path, O_RDWR);
    expect(fd >= 0);
    while (!somebody_holds(fd)) { /* being held again is no event */
        expect(!instant_reached(clock_monotonic(), deadline));
        usleep(1000);
    }
    expect(replica_row(&rig, target, &replica));
    cr_assert(replica.sync_state == CIM_SYNC_PREPARED, "%d %s", (int)replica.sync_state,
            replica.last_error);
    close(fd);
    /* What cannot be held is broken, and says so. */
    rig_stop(&rig);
    expect_eq(unlink(path), 0);
    rig_start(&rig);
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
}

Test(recovery, a_mirror_that_stood_still_scans_again)
{
    struct store_replica replica;

    plant_pair(2, CIM_SYNC_SYNCHRONIZED, NULL);
    expect(replica_row(&rig, target, &replica));
    restart();
    replica = scan_finish(&rig, target, replica.when_synced);
    expect_eq(replica.sync_state, CIM_SYNC_SYNCHRONIZED);
    expect(pair_equal(&rig, source, target, SIZE));
}

Test(recovery, a_scan_that_fails_breaks_and_heals)
{
    struct store_replica replica;
    char path[PAIRS_PATH], aside[PAIRS_PATH + 20];
    int64_t before = clock_wall_ms();

    plant_pair(2, CIM_SYNC_SYNCHRONIZED, NULL);
    rig_stop(&rig);
    element_path(&rig, source, path);
    snprintf(aside, sizeof(aside), "%s.aside", path);
    expect_eq(rename(path, aside), 0);
    rig_start(&rig);
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    expect(replica_row(&rig, target, &replica));
    expect(replica.scan_due >= before + 5000 && replica.last_error[0]);
    expect(!replica.maintained);
    expect_eq(rename(aside, path), 0);
    plant_due(&rig, &replica);
    pair_reach(&rig, target, CIM_SYNC_SYNCHRONIZED);
    /* Manual: once broken it stays so. */
    expect(replica_row(&rig, target, &replica));
    replica.recovery_mode = CIM_RECOVERY_MANUAL;
    expect_eq(rename(path, aside), 0);
    plant_due(&rig, &replica);
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    expect(replica_row(&rig, target, &replica));
    expect_eq(replica.scan_due, 0);
}

/* -- files --------------------------------------------------------------------------------------- */

static void file_make(const struct uuid *id, char path[PAIRS_PATH])
{
    FILE *file;

    element_path(&rig, id->text, path);
    file = fopen(path, "w");
    expect(file != NULL);
    fclose(file);
}

Test(recovery, only_what_was_made_and_never_promised_is_swept)
{
    struct uuid orphan = uuid_make(), foreign = uuid_make(), kept = uuid_of(target);
    struct store_meta meta = { .value = "default" }, found;
    struct store_reader *reader;
    char path[3][PAIRS_PATH];

    file_make(&orphan, path[0]);
    file_make(&foreign, path[1]);
    element_path(&rig, target, path[2]);
    snprintf(meta.key, sizeof(meta.key), "making:%s", orphan.text);
    plant(&rig, STORE_META, &meta);
    snprintf(meta.key, sizeof(meta.key), "making:%s", kept.text);
    plant(&rig, STORE_META, &meta);
    restart();
    expect(access(path[0], F_OK) != 0);
    expect(access(path[1], F_OK) == 0);
    expect(access(path[2], F_OK) == 0);
    snprintf(meta.key, sizeof(meta.key), "making:%s", orphan.text);
    reader = store_reader_take(rig.service->store, PAIRS_PATIENCE_MS);
    expect(reader != NULL);
    expect(store_get(reader, STORE_META, meta.key, &found) == -ENOENT);
    store_reader_give(rig.service->store, reader);
}

static struct answer attach_by_key(void)
{
    return rig_callf(&rig, API_REPLICA_ATTACH,
            (struct asked){ .id = target, .key = "k" },
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
}

static void live_by_key(int told)
{
    struct answer answer = attach_by_key();
    char job[37];

    answer_id(&answer, "Job", job);
    (void)!write(told, job, sizeof(job));
}

Test(recovery, a_key_repeated_after_a_crash_makes_no_second_job)
{
    struct answer answer;
    char job[37];

    life_killed(live_by_key, job);
    answer = attach_by_key();
    expect_answer(&answer, STARTED, 4096);
    expect(answer.outcome.replayed);
    expect(strstr(answer_text(&answer, "Job"), job));
    answer_release(&answer);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(pair_equal(&rig, source, target, SIZE));
}

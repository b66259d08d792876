/* A stop, a crash, and rows as a crash may leave them: what a start makes of it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
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

TestSuite(recovery, .init = begin, .fini = end, .timeout = 90);

static void restart(void)
{
    rig_stop(&rig);
    rig_start(&rig);
}

static void attach(int type, const char *goal, char job[37])
{
    struct answer answer =
            rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                    "{\"SourceElement\":\"%s\",\"CopyType\":%d,\"Goal\":{%s}}", source,
                    type, goal);

    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
}

static void unlimited(const char *job)
{
    struct answer answer = rig_call(
            &rig, API_JOB_PATCH, (struct asked){ .id = job }, "{\"BandwidthLimit\":0}");

    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
}

/** Wait until something of the job is flushed on the target. */
static void job_under_way(struct rig *at, const char *job)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 30000);
    int64_t seen = -1;

    while (job_row(at, job).watermark == 0)
        expect(service_wait(at->service, &seen, deadline));
}

Test(recovery, a_stopped_service_goes_on_from_the_watermark)
{
    struct store_job before, after;
    char job[37];

    attach(4, "\"BandwidthLimit\":1048576", job);
    job_under_way(&rig, job);
    rig_stop(&rig);
    rig_start(&rig);
    before = job_row(&rig, job);
    expect(before.watermark > 0 && before.resumed);
    unlimited(job);
    after = job_finish(&rig, job);
    expect_eq(after.state, CIM_JOB_COMPLETED);
    expect_eq(after.started, before.started);
    expect(after.watermark >= before.watermark && after.percent == 100);
    expect(pair_equal(&rig, source, target, SIZE));
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
}

Test(recovery, a_killed_service_goes_on_from_the_watermark)
{
    char job[37] = "";
    int pipes[2], status;
    pid_t child;

    rig_stop(&rig);
    expect_eq(pipe(pipes), 0);
    if ((child = fork()) == 0) {
        rig_start(&rig);
        attach(2, "\"BandwidthLimit\":1048576", job);
        job_under_way(&rig, job);
        (void)!write(pipes[1], job, sizeof(job));
        pause();
    }
    close(pipes[1]);
    expect(read(pipes[0], job, sizeof(job)) == sizeof(job));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    rig_start(&rig);
    unlimited(job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(job_row(&rig, job).resumed);
    expect(pair_equal(&rig, source, target, SIZE));
    pair_reach(&rig, target, CIM_SYNC_SYNCHRONIZED);
    close(pipes[0]);
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
            expect_answer(&answer, STARTED, 4096);
            answer_id(&answer, "Job", jobs[round][i]);
            answer_release(&answer);
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

    plant(&rig, STORE_JOB, &job);
    return job;
}

/** A job as a crash left it; what a start makes of it and its pair. */
static void taken_up(int64_t type, int64_t pair, int64_t state, int64_t wanted,
        int64_t job_after, int64_t pair_after)
{
    struct store_job job = plant_job(state, wanted);
    struct store_replica replica;

    plant_pair(type, pair, &job);
    restart();
    (void)job_reach(&rig, job.id.text, job_after);
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
    struct instant deadline = instant_add_ms(clock_monotonic(), 20000);
    struct store_replica replica;
    char path[700];
    bool held = false;
    int fd;

    plant_pair(4, CIM_SYNC_PREPARED, NULL);
    restart();
    snprintf(path, sizeof(path), "%s/%s.raw", rig.pool, target);
    fd = open(path, O_RDWR);
    expect(fd >= 0);
    while (!held && !instant_reached(clock_monotonic(), deadline)) {
        held = somebody_holds(fd);
        sched_yield();
    }
    expect(held);
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
    restart();
    do
        expect(replica_row(&rig, target, &replica));
    while (replica.scan_due <= clock_wall_ms() && replica.sync_state == 6);
    expect_eq(replica.sync_state, CIM_SYNC_SYNCHRONIZED);
    expect(pair_equal(&rig, source, target, SIZE));
}

Test(recovery, a_scan_that_fails_breaks_and_heals)
{
    struct store_replica replica;
    char path[700], aside[720];

    plant_pair(2, CIM_SYNC_SYNCHRONIZED, NULL);
    rig_stop(&rig);
    snprintf(path, sizeof(path), "%s/%s.raw", rig.pool, source);
    snprintf(aside, sizeof(aside), "%s.aside", path);
    expect_eq(rename(path, aside), 0);
    rig_start(&rig);
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    expect(replica_row(&rig, target, &replica));
    expect(replica.scan_due > clock_wall_ms() && replica.last_error[0]);
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

static void file_make(const struct uuid *id, char path[700])
{
    FILE *file;

    snprintf(path, 700, "%s/%s.raw", rig.pool, id->text);
    file = fopen(path, "w");
    expect(file != NULL);
    fclose(file);
}

Test(recovery, only_what_was_made_and_never_promised_is_swept)
{
    struct uuid orphan = uuid_make(), foreign = uuid_make(), kept = uuid_of(target);
    struct store_meta meta = { .value = "default" }, found;
    struct store_reader *reader;
    char path[3][700];

    file_make(&orphan, path[0]);
    file_make(&foreign, path[1]);
    snprintf(path[2], sizeof(path[2]), "%s/%s.raw", rig.pool, target);
    snprintf(meta.key, sizeof(meta.key), "making:%s", orphan.text);
    plant(&rig, STORE_META, &meta);
    snprintf(meta.key, sizeof(meta.key), "making:%s", kept.text);
    plant(&rig, STORE_META, &meta);
    restart();
    expect(access(path[0], F_OK) != 0);
    expect(access(path[1], F_OK) == 0);
    expect(access(path[2], F_OK) == 0);
    snprintf(meta.key, sizeof(meta.key), "making:%s", orphan.text);
    reader = store_reader_take(rig.service->store, 1000);
    expect(store_get(reader, STORE_META, meta.key, &found) == -ENOENT);
    store_reader_give(rig.service->store, reader);
}

Test(recovery, a_key_repeated_after_a_crash_makes_no_second_job)
{
    struct asked asked = { .id = target, .key = "k" };
    struct answer answer;
    char job[37], body[200];
    int pipes[2], status;
    pid_t child;

    snprintf(body, sizeof(body), "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    rig_stop(&rig);
    expect_eq(pipe(pipes), 0);
    if ((child = fork()) == 0) {
        rig_start(&rig);
        answer = rig_call(&rig, API_REPLICA_ATTACH, asked, body);
        answer_id(&answer, "Job", job);
        (void)!write(pipes[1], job, sizeof(job));
        pause();
    }
    expect(read(pipes[0], job, sizeof(job)) == sizeof(job));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    rig_start(&rig);
    answer = rig_call(&rig, API_REPLICA_ATTACH, asked, body);
    expect_answer(&answer, STARTED, 4096);
    expect(answer.outcome.replayed);
    expect(strstr(answer_text(&answer, "Job"), job));
    answer_release(&answer);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(pair_equal(&rig, source, target, SIZE));
}

/* The data directory's disk is full, or fails: each call is answered, nothing is told that is
 * not so, and what the engine told meanwhile is not lost.
 */
#include <sqlite3.h>

#include "tests/api/pairs.h"
#include "tests/store/disk.h"

static struct rig rig;
static char source[37], target[37];

enum { SIZE = 256 * 1024 };

static void begin(void)
{
    disk_install();
    rig_make(&rig);
    rig_start(&rig);
    rig_element(&rig, "StorageVolume", SIZE, source);
    rig_element(&rig, "StorageVolume", SIZE, target);
    pair_noise(&rig, source, SIZE, 51);
}

static void end(void)
{
    memset(disk_plans, 0, sizeof(disk_plans));
    rig_remove(&rig);
}

TestSuite(full, .init = begin, .fini = end);

static void disk_fails(enum disk_call call, int code, unsigned times)
{
    disk_plans[call] = (struct disk_plan){ .after = 1, .times = times, .code = code };
}

static void disk_works(void)
{
    memset(disk_plans, 0, sizeof(disk_plans));
}

static unsigned files(void)
{
    char command[700];
    unsigned count = 0;
    FILE *list;

    snprintf(command, sizeof(command), "ls %s | wc -l", rig.pool);
    list = popen(command, "r");
    expect(list && fscanf(list, "%u", &count) == 1);
    pclose(list);
    return count;
}

static struct answer create(int copy_type)
{
    return rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"%s\",\"CopyType\":%d}", source, copy_type);
}

Test(full, a_create_on_a_full_disk_leaves_nothing)
{
    unsigned before = files();
    struct answer answer;

    disk_fails(DISK_WRITE, SQLITE_FULL, UINT32_MAX);
    answer = create(5);
    expect_answer(&answer, NO_SPACE, 4);
    answer_release(&answer);
    expect_eq(files(), before);
    disk_works();
    answer = rig_call(&rig, API_JOBS_LIST, (struct asked){ 0 }, NULL);
    expect_eq(json_array_size(json_object_get(answer.json, "Members")), 0);
    answer_release(&answer);
}

Test(full, a_create_on_a_sick_disk_says_so)
{
    struct answer answer;
    struct api_check checks[8];
    unsigned count;

    disk_fails(DISK_SYNC, SQLITE_IOERR_FSYNC, UINT32_MAX);
    answer = create(5);
    expect_answer(&answer, INTERNAL, 2);
    answer_release(&answer);
    count = api_ready(rig.service, checks, 8);
    for (unsigned i = 0; i < count; i++)
        if (strcmp(checks[i].name, "store") == 0)
            expect(!checks[i].ok);
    disk_works();
}

Test(full, the_end_of_a_job_is_not_lost)
{
    char job[37];
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    struct engine_figures figures;
    struct answer answer;
    struct uuid id;

    pair_attach(&rig, source, target, 4, PAIRS_CRAWL, job);
    id = uuid_of(job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    /* The copy ends while nothing can be written down: only the engine knows. */
    disk_fails(DISK_WRITE, SQLITE_FULL, UINT32_MAX);
    answer = rig_call(
            &rig, API_JOB_PATCH, (struct asked){ .id = job }, "{\"BandwidthLimit\":0}");
    expect_eq(answer.outcome.verdict, API_NO_SPACE);
    answer_release(&answer);
    expect_eq(engine_limit(rig.service->engine, &id, 0), 0);
    do {
        expect(!instant_reached(clock_monotonic(), deadline));
        usleep(1000);
        engine_figures(rig.service->engine, &figures);
    } while (figures.plans);
    expect_eq(job_row(&rig, job).state, CIM_JOB_RUNNING);
    disk_works();
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
    expect(pair_equal(&rig, source, target, SIZE));
}

/** One create whose @k-th write fails. True: it came to that write. */
static bool create_failing_at(unsigned k)
{
    unsigned before = files();
    struct answer answer;
    char job[37];
    bool failed;

    disk_plans[DISK_WRITE] =
            (struct disk_plan){ .after = k, .times = 1, .code = SQLITE_FULL };
    answer = create(5);
    if (answer.outcome.return_value == 4096) {
        answer_id(&answer, "Job", job);
        expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
        expect_eq(files(), before + 1);
    } else {
        cr_assert(answer.outcome.return_value == 4, "write %u: %s %d: %s", k,
                verdict_name(answer.outcome.verdict), answer.outcome.return_value,
                answer_detail(&answer));
    }
    failed = disk_plans[DISK_WRITE].failed > 0;
    if (answer.outcome.return_value == 4) {
        disk_works();
        rig_stop(&rig); /* a start sweeps, and finds that there is space */
        rig_start(&rig);
        expect_eq(files(), before);
    }
    disk_works();
    answer_release(&answer);
    return failed;
}

Test(full, whichever_write_fails_the_answer_is_true)
{
    unsigned k = 1;

    while (create_failing_at(k))
        expect(++k < 500);
    expect(k > 5);
}

static bool metrics_say(const char *line)
{
    size_t length;
    char *text = api_metrics(rig.service, &length);
    bool found = text && strstr(text, line);

    free(text);
    return found;
}

/** How many jobs are in the list, and how many of a page for one. */
static size_t jobs_listed(const char *query, bool *next)
{
    struct answer answer =
            rig_call(&rig, API_JOBS_LIST, (struct asked){ .query = query }, NULL);
    size_t count;

    expect_answer(&answer, DONE, -1);
    count = json_array_size(json_object_get(answer.json, "Members"));
    if (next)
        *next = json_is_string(json_object_get(answer.json, "Next"));
    answer_release(&answer);
    return count;
}

/** As they are shown, so they are filtered. */
static void lists_say_new(void)
{
    bool next;

    expect_eq(jobs_listed("JobState=Running", NULL), 0);
    expect_eq(jobs_listed("JobState=Starting,Running,Completed", NULL), 0);
    expect_eq(jobs_listed("JobState=New", NULL), 1);
    expect_eq(jobs_listed("JobState=2,99,Suspended&limit=1", &next), 1);
    expect(!next);
    expect_eq(jobs_listed("JobState=99", NULL), 0);
    expect_eq(jobs_listed("MethodName=AttachOrModifyReplica", NULL), 1);
}

Test(full, what_waits_for_recovery_does_not_run)
{
    static const char *const lines[] = {
        "replicad_jobs{state=\"New\",type=\"AttachOrModifyReplica\"} 1\n",
        "replicad_jobs{state=\"Running\",type=\"AttachOrModifyReplica\"} 1\n"
    };
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 4, PAIRS_CRAWL, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    rig_stop(&rig);
    disk_fails(DISK_WRITE, SQLITE_FULL, UINT32_MAX);
    rig_start(&rig);
    expect_eq(job_row(&rig, job).state, CIM_JOB_RUNNING); /* as it was left */
    answer = rig_call(&rig, API_JOB_GET, (struct asked){ .id = job }, NULL);
    expect_answer(&answer, DONE, -1);
    expect_eq(answer_number(&answer, "JobState"), CIM_JOB_NEW);
    expect_eq(answer_number(&answer, "BytesPerSecond"), 0);
    expect_str(answer_text(&answer, "LimitedBy"), "Queue");
    answer_release(&answer);
    expect(metrics_say(lines[0]) && !metrics_say(lines[1]));
    lists_say_new();
    disk_works();
    while (!rig.service->recovered) {
        expect(!instant_reached(clock_monotonic(), deadline));
        usleep(1000);
    }
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    answer = rig_call(&rig, API_JOB_GET, (struct asked){ .id = job }, NULL);
    expect_eq(answer_number(&answer, "JobState"), CIM_JOB_RUNNING);
    answer_release(&answer);
    expect_eq(jobs_listed("JobState=Running", NULL), 1);
    expect_eq(jobs_listed("JobState=New", NULL), 0);
    expect(metrics_say(lines[1]));
}

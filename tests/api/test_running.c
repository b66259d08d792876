/* Plans that run: what is told of them, and what they are told. */
#include <semaphore.h>

#include "tests/api/small_pair.h"

TestSuite(running, .init = small_pair_begin, .fini = small_pair_end);

Test(running, a_hundred_percent_is_for_the_end)
{
    struct engine_event event = {
        .kind = ENGINE_PROGRESS, .total = SIZE, .done = SIZE
    };
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    struct store_job row;
    char job[37];
    int64_t seen = -1;

    pair_attach(&rig, source, target, 4, PAIRS_CRAWL, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    event.id = uuid_of(job);
    progress_event(rig.service, &event);
    while ((row = job_row(&rig, job)).percent < 99)
        expect(service_wait(rig.service, &seen, deadline));
    expect_eq(row.percent, 99);
    expect_eq(row.state, CIM_JOB_RUNNING);
}

/* The event of @job that has @member; NULL within the deadline: none has come. */
struct wanted_event {
    const char *job, *member;
    json_t *changed; /* owned */
};

static bool event_each(void *context, const struct api_event *event)
{
    struct wanted_event *wanted = context;
    json_t *data = json_loads(event->data, 0, NULL);
    json_t *changed = json_object_get(data, "Changed");

    if (strstr(event->data, wanted->job) && json_object_get(changed, wanted->member)) {
        json_decref(wanted->changed);
        wanted->changed = json_incref(changed);
    }
    json_decref(data);
    return true;
}

static json_t *event_of(const char *job, const char *member)
{
    struct wanted_event wanted = { .job = job, .member = member };
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    bool reset;

    while (!wanted.changed) {
        expect(api_events(rig.service, 0, 1000, &reset, event_each, &wanted) >= 0);
        expect(!instant_reached(clock_monotonic(), deadline));
    }
    return wanted.changed;
}

/* "": it does not stall. */
static struct store_job stall_reach(const char *job, const char *reason)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    struct store_job row;

    while (strcmp((row = job_row(&rig, job)).stall_reason, reason) != 0) {
        expect(!instant_reached(clock_monotonic(), deadline));
        usleep(10000);
    }
    return row;
}

/* The engine's only loop stands still, so that nothing is told but what a test tells. */
static struct {
    struct loop_task task;
    sem_t stands, go_on;
} hold;

static void hold_run(struct loop_task *task)
{
    (void)task;
    sem_post(&hold.stands);
    sem_wait(&hold.go_on);
}

static void engine_hold(void)
{
    sem_init(&hold.stands, 0, 0);
    sem_init(&hold.go_on, 0, 0);
    hold.task.run = hold_run;
    loop_post(engine_loop(rig.service->engine, 0), &hold.task);
    sem_wait(&hold.stands);
}

Test(running, a_stall_is_told_and_taken_back)
{
    struct engine_event event = { .kind = ENGINE_PROGRESS,
        .total = SIZE,
        .skipped = 9,
        .equal = 5,
        .read = 77,
        .verified = 0,
        .stalled_ms = 12000,
        .stall = "the target does not answer" };
    int64_t before, since;
    struct store_job row;
    json_t *changed;
    char job[37];

    pair_attach(&rig, source, target, 4, PAIRS_CRAWL, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    engine_hold();
    event.id = uuid_of(job);
    before = clock_wall_ms();
    progress_event(rig.service, &event);
    row = stall_reach(job, "the target does not answer");
    since = row.stalled;
    expect(since >= before - 12000 && since <= clock_wall_ms() - 12000);
    expect_eq(row.skipped_zero, 4);
    expect_eq(row.skipped_equal, 5);
    changed = event_of(job, "StallReason");
    expect_str(json_string_value(json_object_get(changed, "StallReason")),
            "the target does not answer");
    expect(json_is_string(json_object_get(changed, "StalledSince")));
    json_decref(changed);
    event.stalled_ms = 20000; /* since then: not since another time */
    snprintf(event.stall, sizeof(event.stall), "the target is being opened");
    progress_event(rig.service, &event);
    expect_eq(stall_reach(job, event.stall).stalled, since);
    event.stalled_ms = 0;
    event.stall[0] = '\0';
    progress_event(rig.service, &event);
    expect_eq(stall_reach(job, "").stalled, 0);
    sem_post(&hold.go_on);
}

static struct answer patch(enum api_call call, const char *id, const char *body)
{
    return rig_call(&rig, call, (struct asked){ .id = id }, body);
}

/* The start of a scan is no event. */
static void scan_reach(struct store_replica *replica)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    struct engine_figures figures;

    for (;;) {
        expect(replica_row(&rig, target, replica));
        engine_figures(rig.service->engine, &figures);
        if (replica->scan_started && figures.plans > 0)
            return;
        expect(!instant_reached(clock_monotonic(), deadline));
        usleep(1000);
    }
}

/* A pipe so narrow that the scan would take more than an hour. */
Test(running, a_pipe_that_is_widened_lets_a_running_scan_go_on)
{
    struct store_pipe pipe = {
        .id = uuid_make(), .revision = 1, .name = "p", .limit = PAIRS_CRAWL
    };
    struct store_replica replica;
    struct answer answer;
    char job[37];
    int64_t synced;

    pair_attach(&rig, source, target, 2, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    plant(&rig, STORE_PIPE, &pipe);
    expect(replica_row(&rig, target, &replica));
    replica.pipe = pipe.id;
    pair_noise(&rig, source, SIZE, 63);
    plant_due(&rig, &replica);
    synced = replica.when_synced;
    scan_reach(&replica);
    answer = patch(API_PIPE_PATCH, pipe.id.text, "{\"BandwidthLimit\":0}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    (void)scan_finish(&rig, target, synced);
    expect(pair_equal(&rig, source, target, SIZE));
}

Test(running, a_priority_is_the_running_jobs_too)
{
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 4, PAIRS_CRAWL, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    answer = patch(API_REPLICA_PATCH, target, "{\"CopyPriority\":4}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    expect_eq(job_row(&rig, job).priority, 0);
    job_unlimit(&rig, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
}

/* Bytes are counted where they are moved: all of them, by reason. */
Test(running, bytes_by_reason)
{
    struct store_job row;
    struct answer answer;
    char job[37];

    answer = rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
            "{\"SourceElement\":\"%s\",\"CopyType\":4,\"Goal\":{\"Verify\":true}}",
            source);
    job_started(&answer, job);
    row = job_finish(&rig, job);
    expect_eq(row.read, 3 * SIZE);
    expect_eq(row.written, SIZE);
    expect_eq(row.verified, SIZE);
    expect_eq(row.skipped, 0);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Resync\"}");
    job_started(&answer, job);
    row = job_finish(&rig, job);
    expect_eq(row.written, 0);
    expect_eq(row.skipped, SIZE);
    expect_eq(row.skipped_equal, SIZE);
    expect_eq(row.skipped_zero, 0);
    expect_eq(row.verified, SIZE);
}

static void rests_when_answered(const char *operation, int64_t final)
{
    struct store_replica replica;
    struct engine_figures figures;
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 2, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(replica_row(&rig, target, &replica));
    replica.limit = PAIRS_CRAWL;
    pair_noise(&rig, source, SIZE, 62);
    plant_due(&rig, &replica);
    scan_reach(&replica);
    answer = rig_callf(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"%s\"}", operation);
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    /* Its end was told; who took the pair away has seen the engine let go, too. */
    engine_figures(rig.service->engine, &figures);
    expect(replica_row(&rig, target, &replica) ? !replica.scan_started
                                               : figures.plans == 0);
    pair_reach(&rig, target, final);
}

Test(running, a_scan_has_ended_when_quiesce_answers)
{
    rests_when_answered("Quiesce", CIM_SYNC_QUIESCED);
}

Test(running, a_scan_has_ended_when_fracture_answers)
{
    rests_when_answered("Fracture", CIM_SYNC_FRACTURED);
}

Test(running, a_scan_has_ended_when_detach_answers)
{
    rests_when_answered("Detach", 0);
}

/* Plans that run: what is told of them, and what they are told. */
#include "tests/api/pairs.h"

static struct rig rig;
static char source[37], target[37];

enum { SIZE = 256 * 1024 };

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
    rig_element(&rig, "StorageVolume", SIZE, source);
    rig_element(&rig, "StorageVolume", 2 * SIZE, target);
    pair_noise(&rig, source, SIZE, 61);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(running, .init = begin, .fini = end);

Test(running, a_hundred_percent_is_for_the_end)
{
    struct engine_event event = {
        .kind = ENGINE_PROGRESS, .total = SIZE, .done = SIZE
    };
    struct store_job row;
    char job[37];
    int64_t seen = -1;

    pair_attach(&rig, source, target, 4, 8192, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    event.id = uuid_of(job);
    progress_event(rig.service, &event);
    while ((row = job_row(&rig, job)).percent < 99)
        expect(service_wait(
                rig.service, &seen, instant_add_ms(clock_monotonic(), 10000)));
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
    struct instant deadline = instant_add_ms(clock_monotonic(), 30000);
    bool reset;

    while (!wanted.changed) {
        expect(api_events(rig.service, 0, 1000, &reset, event_each, &wanted) >= 0);
        expect(!instant_reached(clock_monotonic(), deadline));
    }
    return wanted.changed;
}

static struct store_job stall_reach(const char *job, bool stalled)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 30000);
    struct store_job row;

    while ((row = job_row(&rig, job)).stalled ? !stalled : stalled) {
        expect(!instant_reached(clock_monotonic(), deadline));
        usleep(10000);
    }
    return row;
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
    int64_t before = clock_wall_ms(), since;
    struct store_job row;
    json_t *changed;
    char job[37];

    pair_attach(&rig, source, target, 4, 1, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    event.id = uuid_of(job);
    progress_event(rig.service, &event);
    row = stall_reach(job, true);
    since = row.stalled;
    expect(since >= before - 12000 && since <= clock_wall_ms() - 12000);
    expect_str(row.stall_reason, "the target does not answer");
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
    while (strcmp((row = job_row(&rig, job)).stall_reason, event.stall) != 0)
        usleep(10000);
    expect_eq(row.stalled, since);
    event.stalled_ms = 0;
    event.stall[0] = '\0';
    progress_event(rig.service, &event);
    row = stall_reach(job, false);
    expect_str(row.stall_reason, "");
}

static struct answer patch(enum api_call call, const char *id, const char *body)
{
    return rig_call(&rig, call, (struct asked){ .id = id }, body);
}

/* A pipe so narrow that the scan would take half a minute. */
Test(running, a_pipe_that_is_widened_lets_a_running_scan_go_on)
{
    struct store_pipe pipe = {
        .id = uuid_make(), .revision = 1, .name = "p", .limit = 8192
    };
    struct store_replica replica;
    struct engine_figures figures;
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 2, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    plant(&rig, STORE_PIPE, &pipe);
    expect(replica_row(&rig, target, &replica));
    replica.pipe = pipe.id;
    pair_noise(&rig, source, SIZE, 63);
    plant_due(&rig, &replica);
    do {
        expect(replica_row(&rig, target, &replica));
        engine_figures(rig.service->engine, &figures);
        usleep(1000);
    } while (!replica.scan_started || figures.plans == 0);
    answer = patch(API_PIPE_PATCH, pipe.id.text, "{\"BandwidthLimit\":0}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    while (replica.scan_started) {
        expect(replica_row(&rig, target, &replica));
        usleep(1000);
    }
    expect(pair_equal(&rig, source, target, SIZE));
}

Test(running, a_priority_is_the_running_jobs_too)
{
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 4, 8192, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    answer = patch(API_REPLICA_PATCH, target, "{\"CopyPriority\":4}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    expect_eq(job_row(&rig, job).priority, 0);
    answer = patch(API_JOB_PATCH, job, "{\"BandwidthLimit\":0}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
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
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
    row = job_finish(&rig, job);
    expect_eq(row.read, 3 * SIZE);
    expect_eq(row.written, SIZE);
    expect_eq(row.verified, SIZE);
    expect_eq(row.skipped, 0);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Resync\"}");
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
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
    struct instant deadline = instant_add_ms(clock_monotonic(), 20000);
    char job[37];

    pair_attach(&rig, source, target, 2, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(replica_row(&rig, target, &replica));
    replica.limit = 8192;
    pair_noise(&rig, source, SIZE, 62);
    plant_due(&rig, &replica);
    /* The start of a scan is no event. */
    do {
        expect(replica_row(&rig, target, &replica));
        engine_figures(rig.service->engine, &figures);
        expect(!instant_reached(clock_monotonic(), deadline));
    } while (!replica.scan_started || figures.plans == 0);
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

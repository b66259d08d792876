/* What the engine is told, and what its words become: plans from rows, ends from events. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

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

TestSuite(plans, .init = begin, .fini = end, .timeout = 60);

static struct uuid id_of(const char *text)
{
    struct uuid id;

    expect(uuid_parse(text, &id));
    return id;
}

static struct store_replica pair_of(int64_t type, int64_t state)
{
    return (struct store_replica){ .id = id_of(target),
        .source = id_of(source),
        .copy_type = type,
        .sync_state = state,
        .state_before = CIM_SYNC_FROZEN,
        .copy_priority = CIM_COPY_PRIORITY_HIGH,
        .replica_type = 2,
        .when_established = 1000,
        .when_synced = 2000,
        .rpo = 300,
        .limit = 77,
        .recovery_mode = 2 };
}

static struct store_job job_of(enum job_work work, int64_t state)
{
    bool back = work == JOB_RESTORE;

    return (struct store_job){ .id = uuid_make(),
        .method = "CreateReplica",
        .work = work,
        .state = state,
        .priority = 1,
        .source = id_of(back ? target : source),
        .target = id_of(back ? source : target),
        .replica = id_of(target),
        .submitted = 1000,
        .started = 3000,
        .total = SIZE,
        .done = 4096,
        .limit = 88,
        .return_value = 4096 };
}

/* -- plans -------------------------------------------------------------------------------- */

struct building {
    const struct store_replica *replica;
    const struct store_job *job;
    struct engine_plan plan;
    struct fault fault;
    bool built;
};

static bool build_work(struct clerk_turn *turn, void *context)
{
    struct building *building = context;

    building->built = plan_build(
            turn, building->replica, building->job, &building->plan, &building->fault);
    return false;
}

static struct building built(
        const struct store_replica *replica, const struct store_job *job)
{
    struct building building = { .replica = replica, .job = job };

    expect_eq(clerk_call(rig.service->clerk, build_work, &building), 0);
    return building;
}

Test(plans, a_first_run_trusts_its_fresh_target_a_second_does_not)
{
    struct store_replica replica = pair_of(4, 2);
    struct store_job job = job_of(JOB_COPY, CIM_JOB_NEW);
    struct building first, second;

    job.started = 0;
    job.target_zero = true;
    job.verify = true;
    first = built(&replica, &job);
    expect(first.built && first.plan.target_zero && !first.plan.resumed);
    expect(first.plan.verify && first.plan.work == ENGINE_COPY);
    expect_eq(first.plan.watermark, 0);
    expect_eq(first.plan.limit, 88);
    expect_eq(first.plan.priority, 1);
    expect(uuid_equal(&first.plan.id, &job.id));
    expect_eq(first.plan.source.size, SIZE);
    expect_eq(first.plan.target.size, 2 * SIZE);
    job.started = 1;
    job.watermark = 65536;
    job.verified = 4096;
    job.skipped_equal = 2;
    job.read = 7;
    job.skipped = 4096;
    job.written = 61440;
    second = built(&replica, &job);
    expect(second.built && !second.plan.target_zero && second.plan.resumed);
    expect_eq(second.plan.watermark, 65536);
    expect_eq(second.plan.skipped, 4096);
    expect_eq(second.plan.written, 61440);
    expect_eq(second.plan.verified, 4096);
    expect_eq(second.plan.equal, 2);
    expect_eq(second.plan.read, 7);
}

Test(plans, restore_runs_back_over_no_more_than_the_source)
{
    struct store_replica replica = pair_of(4, 10);
    struct store_job job = job_of(JOB_RESTORE, CIM_JOB_NEW);
    struct building back = built(&replica, &job);

    expect(back.built && back.plan.work == ENGINE_DELTA);
    expect(strstr(back.plan.source.address, target));
    expect(strstr(back.plan.target.address, source));
    expect_eq(back.plan.source.size, SIZE);
    expect_eq(back.plan.source.whole, 2 * SIZE);
}

Test(plans, a_scan_is_fenced_only_after_one_that_never_ended)
{
    struct store_replica replica = pair_of(2, 6);
    struct building scan = built(&replica, NULL);

    expect(scan.built && scan.plan.work == ENGINE_DELTA && !scan.plan.resumed);
    expect(uuid_equal(&scan.plan.id, &replica.id));
    expect_eq(scan.plan.limit, 77);
    expect_eq(scan.plan.priority, 1);
    replica.scan_started = 5;
    scan = built(&replica, NULL);
    expect(scan.plan.resumed);
}

Test(plans, a_hold_bears_the_pairs_name)
{
    struct store_replica replica = pair_of(4, 3);
    struct store_job job = job_of(JOB_PREPARE, CIM_JOB_NEW);
    struct building hold = built(&replica, &job);

    expect(hold.built && hold.plan.work == ENGINE_HOLD);
    expect(uuid_equal(&hold.plan.id, &replica.id));
}

Test(plans, what_is_not_complete_is_not_read)
{
    struct store_replica replica = pair_of(4, 2);
    struct store_job job = job_of(JOB_COPY, CIM_JOB_NEW);
    struct store_element element = element_row(&rig, source);
    struct building building;

    element.complete = false;
    plant(&rig, STORE_ELEMENT, &element);
    building = built(&replica, &job);
    expect(!building.built && building.fault.error == -EBUSY);
    uproot(&rig, STORE_ELEMENT, &element);
    building = built(&replica, &job);
    expect(!building.built && building.fault.error == -ENOENT);
}

Test(plans, a_pipes_credentials_are_the_targets)
{
    struct store_pipe pipe = {
        .id = uuid_make(), .name = "p", .credentials = "array-b", .limit = 99
    };
    struct store_replica replica = pair_of(2, 5);
    struct store_job job = job_of(JOB_RESYNC, CIM_JOB_NEW);
    struct building building;

    plant(&rig, STORE_PIPE, &pipe);
    replica.pipe = pipe.id;
    building = built(&replica, &job);
    expect_str(building.plan.target.credentials, "array-b");
    expect_str(building.plan.source.credentials, "");
    expect(uuid_equal(&building.plan.pipe, &pipe.id));
    expect_eq(building.plan.pipe_limit, 99);
    expect_eq(building.plan.limit, 88);
    job = job_of(JOB_RESTORE, CIM_JOB_NEW);
    building = built(&replica, &job);
    expect_str(building.plan.source.credentials, "array-b");
}

/* -- ends ---------------------------------------------------------------------------------- */

struct ending_of {
    struct store_job *job;
    struct job_ending ending;
};

static bool end_work(struct clerk_turn *turn, void *context)
{
    struct ending_of *of = context;

    job_end(turn, of->job, &of->ending);
    return true;
}

struct end_row {
    int64_t type, pair;
    enum job_work work;
    int64_t wanted;
    enum engine_end end;
    int64_t job_after, pair_after; /* pair 0: gone */
    int value;
};

static const struct end_row ends[] = {
    { 2, 5, JOB_COPY, 0, ENGINE_DONE, 7, 6, 0 },
    { 4, 5, JOB_COPY, 0, ENGINE_DONE, 7, 14, 0 },
    { 5, 5, JOB_COPY, 0, ENGINE_DONE, 7, 0, 0 },
    { 4, 15, JOB_COPY, 0, ENGINE_DONE, 7, 14, 0 },
    { 4, 5, JOB_RESYNC, 0, ENGINE_DONE, 7, 14, 0 },
    { 2, 7, JOB_RESYNC, WANT_TERMINATE, ENGINE_DONE, 7, 13, 0 },
    { 2, 8, JOB_RESYNC, WANT_SUSPEND, ENGINE_DONE, 7, 9, 0 },
    { 2, 10, JOB_RESTORE, 0, ENGINE_DONE, 7, 13, 0 },
    { 4, 10, JOB_RESTORE, 0, ENGINE_DONE, 7, 14, 0 },
    { 4, 3, JOB_PREPARE, 0, ENGINE_DONE, 7, 4, 0 },
    { 4, 5, JOB_COPY, WANT_SUSPEND, ENGINE_STOPPED, 5, 5, 4096 },
    { 4, 8, JOB_COPY, WANT_SUSPEND, ENGINE_STOPPED, 5, 9, 4096 },
    { 4, 5, JOB_COPY, WANT_TERMINATE, ENGINE_STOPPED, 8, 12, 4 },
    { 5, 5, JOB_COPY, WANT_TERMINATE, ENGINE_STOPPED, 8, 12, 4 },
    { 4, 5, JOB_COPY, WANT_KILL, ENGINE_STOPPED, 9, 12, 4 },
    { 4, 15, JOB_COPY, WANT_STOP_COPY, ENGINE_STOPPED, 8, 2, 4 },
    { 5, 5, JOB_COPY, WANT_STOP_COPY, ENGINE_STOPPED, 8, 0, 4 },
    { 2, 7, JOB_COPY, WANT_TERMINATE, ENGINE_STOPPED, 8, 13, 4 },
    { 2, 7, JOB_COPY, WANT_TERMINATE, ENGINE_FAILED, 8, 13, 4 },
    { 4, 5, JOB_COPY, WANT_KILL, ENGINE_FAILED, 9, 12, 4 },
    { 4, 5, JOB_COPY, 0, ENGINE_FAILED, 10, 12, 3 },
    { 4, 5, JOB_COPY, WANT_SUSPEND, ENGINE_FAILED, 10, 12, 3 },
    { 4, 8, JOB_COPY, WANT_SUSPEND, ENGINE_FAILED, 10, 12, 3 },
    { 4, 3, JOB_PREPARE, 0, ENGINE_FAILED, 10, 12, 3 },
};

static void end_check(size_t n, const struct end_row *row)
{
    struct store_replica replica = pair_of(row->type, row->pair);
    struct store_job job = job_of(
            row->work, row->wanted > 5 ? CIM_JOB_SHUTTING_DOWN : CIM_JOB_RUNNING);
    struct ending_of of = { .job = &job, .ending = { .end = row->end } };
    bool there;

    job.wanted = row->wanted;
    replica.job = job.id;
    plant(&rig, STORE_JOB, &job);
    plant(&rig, STORE_REPLICA, &replica);
    if (row->end == ENGINE_FAILED)
        fault_set(&of.ending.fault, -ETIMEDOUT, "no answer");
    expect_eq(clerk_call(rig.service->clerk, end_work, &of), 0);
    job = job_row(&rig, job.id.text);
    there = replica_row(&rig, target, &replica);
    cr_assert(job.state == row->job_after && job.return_value == row->value,
            "row %zu: job %d, value %d", n, (int)job.state, (int)job.return_value);
    cr_assert((there ? replica.sync_state : 0) == row->pair_after, "row %zu: pair %d",
            n, there ? (int)replica.sync_state : 0);
    expect_eq(job.wanted, 0);
    expect((job.ended != 0) == job_is_over(job.state));
    expect((job.percent == 100) == (job.state == CIM_JOB_COMPLETED));
    if (row->end == ENGINE_FAILED && job.state == CIM_JOB_EXCEPTION) {
        expect_eq(job.error_code, 3);
        expect_eq(job.error_type, CIM_ERROR_COMMUNICATIONS);
        expect_eq(job.probable_cause, CIM_CAUSE_TIMEOUT);
        expect(strstr(job.error, "no answer"));
    }
    if (!there)
        return;
    expect(uuid_is_none(&replica.job) == job_is_over(job.state));
    expect((replica.last_error[0] != '\0') == (replica.sync_state == CIM_SYNC_BROKEN));
    /* The time that a whole copy stands for is its start. */
    if (row->end == ENGINE_DONE && (row->work == JOB_COPY || row->work == JOB_RESYNC))
        expect_eq(replica.when_synced, 3000);
    else
        expect_eq(replica.when_synced, 2000);
    if (row->pair_after == CIM_SYNC_QUIESCED && row->end == ENGINE_DONE)
        expect_eq(replica.state_before, CIM_SYNC_SYNCHRONIZED);
    uproot(&rig, STORE_REPLICA, &replica);
}

Test(plans, every_end_of_a_job)
{
    for (size_t n = 0; n < sizeof(ends) / sizeof(*ends); n++)
        end_check(n, &ends[n]);
}

static bool scan_work(struct clerk_turn *turn, void *context)
{
    struct job_ending ending = { .end = ENGINE_DONE };

    scan_ended(turn, context, &ending);
    return true;
}

Test(plans, a_whole_scan_stands_for_its_start)
{
    struct store_replica replica = pair_of(2, CIM_SYNC_SYNCHRONIZED);

    replica.scan_started = clock_wall_ms() - 10000;
    replica.scan_due = 1;
    plant(&rig, STORE_REPLICA, &replica);
    expect_eq(clerk_call(rig.service->clerk, scan_work, &replica.id), 0);
    int64_t started = replica.scan_started;
    expect(replica_row(&rig, target, &replica));
    expect_eq(replica.when_synced, started);
    expect_eq(replica.scan_due, started + 150000);
    expect_eq(replica.scan_started, 0);
}

/* -- with plans that run ------------------------------------------------------------------- */

static void attach(int type, int limit, char job[37])
{
    struct answer answer =
            rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                    "{\"SourceElement\":\"%s\",\"CopyType\":%d,\"Goal\":{"
                    "\"BandwidthLimit\":%d}}",
                    source, type, limit);

    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
}

Test(plans, a_hundred_percent_is_for_the_end)
{
    struct engine_event event = {
        .kind = ENGINE_PROGRESS, .total = SIZE, .done = SIZE
    };
    struct store_job row;
    char job[37];
    int64_t seen = -1;

    attach(4, 8192, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    event.id = id_of(job);
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

Test(plans, a_stall_is_told_and_taken_back)
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

    attach(4, 1, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    event.id = id_of(job);
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
Test(plans, a_pipe_that_is_widened_lets_a_running_scan_go_on)
{
    struct store_pipe pipe = {
        .id = uuid_make(), .revision = 1, .name = "p", .limit = 8192
    };
    struct store_replica replica;
    struct engine_figures figures;
    struct answer answer;
    char job[37];

    attach(2, 0, job);
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

Test(plans, a_priority_is_the_running_jobs_too)
{
    struct answer answer;
    char job[37];

    attach(4, 8192, job);
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
Test(plans, bytes_by_reason)
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

Test(plans, nothing_starts_to_write_what_is_being_probed)
{
    struct api_outcome outcome = { 0 };
    struct call call = { .service = rig.service, .outcome = &outcome };
    struct claim claim = { 0 };
    struct store_element element = element_row(&rig, target);
    struct answer answer;
    char job[37];

    attach(4, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(claim_take(&call, &claim, &element));
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Resync\"}");
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
    expect_eq(job_row(&rig, job).state, CIM_JOB_NEW);
    claim_drop(rig.service, &claim);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
}

static void rests_when_answered(const char *operation, int64_t final)
{
    struct store_replica replica;
    struct engine_figures figures;
    struct answer answer;
    struct instant deadline = instant_add_ms(clock_monotonic(), 20000);
    char job[37];

    attach(2, 0, job);
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

Test(plans, a_scan_has_ended_when_quiesce_answers)
{
    rests_when_answered("Quiesce", CIM_SYNC_QUIESCED);
}

Test(plans, a_scan_has_ended_when_fracture_answers)
{
    rests_when_answered("Fracture", CIM_SYNC_FRACTURED);
}

Test(plans, a_scan_has_ended_when_detach_answers)
{
    rests_when_answered("Detach", 0);
}

Test(plans, what_is_half_copied_is_not_restored)
{
    struct answer answer;
    char job[37];

    attach(2, 8192, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Quiesce\"}");
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Restore\"}");
    expect_answer(&answer, IN_USE, 6);
    expect(strstr(answer_text(&answer, "Remedy"), "Resync"));
    answer_release(&answer);
}

/* -- what only the turn can see -------------------------------------------------------------- */

struct racer {
    pthread_t thread;
    pthread_barrier_t *start;
    enum api_call call;
    const char *id;
    char body[200];
    int value;
    char job[37];
};

static void *race(void *context)
{
    struct racer *racer = context;
    struct answer answer;

    pthread_barrier_wait(racer->start);
    answer =
            rig_call(&rig, racer->call, (struct asked){ .id = racer->id }, racer->body);
    racer->value = answer.outcome.return_value;
    if (racer->value == 4096)
        answer_id(&answer, "Job", racer->job);
    answer_release(&answer);
    return NULL;
}

static void race_two(struct racer racers[2])
{
    pthread_barrier_t start;

    pthread_barrier_init(&start, NULL, 2);
    for (int i = 0; i < 2; i++) {
        racers[i].start = &start;
        expect_eq(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        expect_eq(pthread_join(racers[i].thread, NULL), 0);
    pthread_barrier_destroy(&start);
    for (int i = 0; i < 2; i++)
        if (racers[i].value == 4096)
            expect_eq(job_finish(&rig, racers[i].job).state, CIM_JOB_COMPLETED);
}

Test(plans, two_that_would_copy_over_each_other)
{
    char a[37], b[37];

    for (int round = 0; round < 20; round++) {
        struct racer racers[2] = { { .call = API_REPLICA_ATTACH, .id = a },
            { .call = API_REPLICA_ATTACH, .id = b } };
        rig_element(&rig, "StorageVolume", 65536, a);
        rig_element(&rig, "StorageVolume", 65536, b);
        for (int i = 0; i < 2; i++)
            snprintf(racers[i].body, sizeof(racers[i].body),
                    "{\"SourceElement\":\"%s\",\"CopyType\":4}", i ? a : b);
        race_two(racers);
        cr_assert((racers[0].value == 4096) + (racers[1].value == 4096) == 1,
                "%d and %d", racers[0].value, racers[1].value);
        expect(racers[0].value == 6 || racers[1].value == 6);
    }
}

Test(plans, a_source_that_becomes_a_target_meanwhile)
{
    char a[37], b[37];

    rig_element(&rig, "StorageVolume", 65536, b);
    for (int round = 0; round < 20; round++) {
        struct racer racers[2] = { { .call = API_REPLICA_CREATE },
            { .call = API_REPLICA_ATTACH, .id = a } };
        rig_element(&rig, "StorageVolume", 65536, a);
        snprintf(racers[0].body, sizeof(racers[0].body),
                "{\"SourceElement\":\"%s\",\"CopyType\":4}", a);
        snprintf(racers[1].body, sizeof(racers[1].body),
                "{\"SourceElement\":\"%s\",\"CopyType\":4,\"Goal\":{"
                "\"BandwidthLimit\":1048576}}",
                b);
        race_two(racers);
        /* Either the source was one when its copy was promised, or the copy came after. */
        cr_assert((racers[0].value == 4096 || racers[0].value == 6) &&
                        (racers[1].value == 4096 || racers[1].value == 6),
                "%d and %d", racers[0].value, racers[1].value);
        expect(racers[0].value == 4096 || racers[1].value == 4096);
    }
}

/* -- who else ----------------------------------------------------------------------------------- */

static struct answer operate(const char *id, const char *operation)
{
    return rig_callf(&rig, API_REPLICA_MODIFY, (struct asked){ .id = id },
            "{\"Operation\":\"%s\"}", operation);
}

Test(plans, what_is_another_pairs_target_is_not_restored)
{
    struct answer answer;
    char third[37], job[37];

    attach(4, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    /* third -> source -> target */
    rig_element(&rig, "StorageVolume", SIZE, third);
    struct store_replica replica = pair_of(4, CIM_SYNC_FROZEN);
    replica.id = id_of(source);
    replica.source = id_of(third);
    plant(&rig, STORE_REPLICA, &replica);
    answer = operate(target, "Restore");
    expect_answer(&answer, IN_USE, 6);
    answer_release(&answer);
    /* And nobody's source while it is restored over. */
    uproot(&rig, STORE_REPLICA, &replica);
    replica = pair_of(4, CIM_SYNC_RESTORE_IN_PROGRESS);
    plant(&rig, STORE_REPLICA, &replica);
    answer = rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    expect_answer(&answer, IN_USE, 6);
    expect(strstr(answer_text(&answer, "Remedy"), "DELETE"));
    answer_release(&answer);
}

Test(plans, a_first_copy_that_waits_keeps_its_pair)
{
    char others[2][37], jobs[2][37], job[37];
    static const char *const operations[] = { "Detach", "Resync", "Prepare",
        "Start Copy" };
    struct answer answer;

    for (int i = 0; i < 2; i++) {
        rig_element(&rig, "StorageVolume", SIZE, others[i]);
        answer = rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = others[i] },
                "{\"SourceElement\":\"%s\",\"CopyType\":4,\"Goal\":{"
                "\"BandwidthLimit\":8192}}",
                source);
        answer_id(&answer, "Job", jobs[i]);
        answer_release(&answer);
        (void)job_reach(&rig, jobs[i], CIM_JOB_RUNNING);
    }
    attach(4, 0, job);
    pair_reach(&rig, target, CIM_SYNC_INITIALIZED);
    for (int i = 0; i < 4; i++) {
        answer = operate(target, operations[i]);
        expect_answer(&answer, IN_USE, 6);
        answer_release(&answer);
    }
    /* It never ran: suspended and terminated at once. */
    for (int state = 3; state <= 4; state++) {
        answer = rig_callf(&rig, API_JOB_REQUEST_STATE_CHANGE,
                (struct asked){ .id = job }, "{\"RequestedState\":%d}", state);
        expect_answer(&answer, DONE, 0);
        answer_release(&answer);
    }
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    expect(element_row(&rig, target).complete); /* not a byte of it was written */
}

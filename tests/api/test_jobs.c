/* Jobs as they are shown, waited for, changed, removed. The rows are put by hand: what runs
 * them has tests of its own. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "api/jobs.h"
#include "api/service.h"
#include "replica/base/clock.h"
#include "tests/api/rig.h"

static struct rig rig;

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(jobs, .init = begin, .fini = end);

static struct store_job sample(int64_t state)
{
    struct store_job job = {
        .id = uuid_make(),
        .method = "CreateReplica",
        .work = JOB_COPY,
        .state = state,
        .priority = 2,
        .submitted = clock_wall_ms(),
        .total = 1000,
        .return_value = CIM_JOB_STARTED,
        .time_before_removal = 300000,
    };

    job.source = uuid_make();
    job.target = uuid_make();
    job.replica = job.target;
    if (job_is_over(state)) {
        job.ended = clock_wall_ms();
        job.return_value = state == CIM_JOB_COMPLETED ? 0 : 4;
        job.replica = (struct uuid){ "" };
    }
    return job;
}

static bool put_work(struct clerk_turn *turn, void *context)
{
    turn_put(turn, STORE_JOB, context);
    return true;
}

static void put(struct store_job *job)
{
    expect_eq(clerk_call(rig.service->clerk, put_work, job), 0);
}

static struct answer get(const struct store_job *job)
{
    return rig_call(&rig, API_JOB_GET, (struct asked){ .id = job->id.text }, NULL);
}

static bool has_action(const struct answer *answer, const char *action)
{
    json_t *actions = json_object_get(answer->json, "Actions"), *value;
    size_t i;

    json_array_foreach(actions, i,
            value) if (strcmp(json_string_value(value), action) == 0) return true;
    return false;
}

Test(jobs, one_has_the_shape_of_the_contract)
{
    struct store_job job = sample(CIM_JOB_SUSPENDED);
    struct answer answer;
    char text[80];

    job.done = 370;
    job.percent = 37;
    put(&job);
    answer = get(&job);
    expect_answer(&answer, DONE, -1);
    expect_str(answer_text(&answer, "Id"), job.id.text);
    snprintf(text, sizeof(text), "replicad:%s", job.id.text);
    expect_str(answer_text(&answer, "InstanceID"), text);
    expect_str(answer_text(&answer, "Name"), "CreateReplica");
    expect_str(answer_text(&answer, "MethodName"), "CreateReplica");
    expect_eq(answer_number(&answer, "JobState"), 5);
    expect_str(answer_text(&answer, "JobStateName"), "Suspended");
    expect_eq(answer_number(&answer, "PercentComplete"), 37);
    expect_eq(answer_number(&answer, "ReturnValue"), 4096);
    snprintf(text, sizeof(text), "/elements/%s", job.source.text);
    expect_str(answer_text(&answer, "SourceElement"), text);
    snprintf(text, sizeof(text), "/replicas/%s", job.replica.text);
    expect_str(answer_text(&answer, "Replica"), text);
    expect_eq(answer_number(&answer, "BytesDone"), 370);
    expect(json_is_null(json_object_get(answer.json, "EndTime")));
    expect(json_is_null(json_object_get(answer.json, "ErrorDescription")));
    expect(json_is_null(json_object_get(answer.json, "SecondsRemaining")));
    expect_str(answer_text(&answer, "TimeBeforeRemoval"), "00000000000500.000000:000");
    expect_eq(answer.outcome.retry_after, 2);
    expect(has_action(&answer, "Start") && has_action(&answer, "Terminate"));
    expect(!has_action(&answer, "Suspend"));
    answer_release(&answer);
}

static void tag_of(const struct store_job *job, char *tag, size_t room)
{
    struct answer answer = get(job);

    snprintf(tag, room, "%s", answer.outcome.etag);
    answer_release(&answer);
}

/* Its pair says whether it may Start, and has a tag of its own. */
Test(jobs, a_suspended_one_is_told_anew)
{
    struct store_job job = sample(CIM_JOB_SUSPENDED);
    struct answer answer;
    char tag[64];

    put(&job);
    tag_of(&job, tag, sizeof(tag));
    answer = rig_call(&rig, API_JOB_GET,
            (struct asked){ .id = job.id.text, .if_none_match = tag }, NULL);
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
}

Test(jobs, one_that_is_over_has_no_actions_and_no_pair)
{
    struct store_job job = sample(CIM_JOB_COMPLETED);
    struct answer answer;

    put(&job);
    answer = get(&job);
    expect_eq(json_array_size(json_object_get(answer.json, "Actions")), 0);
    expect(json_is_null(json_object_get(answer.json, "Replica")));
    expect_eq(answer.outcome.retry_after, 0);
    answer_release(&answer);
}

Test(jobs, actions_follow_the_state)
{
    /* state, wanted, Start Suspend Terminate Kill */
    static const int rows[][6] = {
        { 2, 0, 0, 1, 1, 1 },
        { 3, 0, 0, 1, 1, 1 },
        { 4, 0, 0, 1, 1, 1 },
        { 4, 5, 0, 0, 1, 1 },
        { 4, 8, 0, 0, 0, 1 },
        { 4, 9, 0, 0, 0, 0 },
        { 5, 0, 1, 0, 1, 1 },
        { 6, 8, 0, 0, 0, 1 },
        { 7, 0, 0, 0, 0, 0 },
        { 8, 0, 0, 0, 0, 0 },
        { 9, 0, 0, 0, 0, 0 },
        { 10, 0, 0, 0, 0, 0 },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct store_job job = { .state = rows[i][0], .wanted = rows[i][1] };
        for (int request = 2; request <= 5; request++)
            cr_assert(job_allows(&job, request) == (rows[i][request] != 0),
                    "state %d, wanted %d, request %d", rows[i][0], rows[i][1], request);
    }
}

Test(jobs, wait_takes_seconds_and_nothing_else)
{
    static const char *const bad[] = { "wait=x", "wait=", "wait=-1", "wait=1.5",
        "Wait=1", "wait=1&limit=2" };
    struct store_job job = sample(CIM_JOB_COMPLETED);
    struct answer answer;

    put(&job);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        answer = rig_call(&rig, API_JOB_GET,
                (struct asked){ .id = job.id.text, .query = bad[i] }, NULL);
        cr_assert(answer.outcome.verdict == API_MALFORMED, "%s", bad[i]);
        answer_release(&answer);
    }
    answer = rig_call(&rig, API_JOB_GET,
            (struct asked){ .id = job.id.text, .query = "wait=60" }, NULL);
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
}

static bool end_work(struct clerk_turn *turn, void *context)
{
    struct store_job job;

    expect(turn_get(turn, STORE_JOB, context, &job));
    job.state = CIM_JOB_TERMINATED;
    job.ended = turn->now;
    job_put(turn, &job, false);
    return true;
}

static void *ender(void *context)
{
    (void)clerk_call(rig.service->clerk, end_work, context);
    return NULL;
}

Test(jobs, wait_returns_at_the_end)
{
    struct store_job job = sample(CIM_JOB_SUSPENDED);
    struct answer answer;
    pthread_t thread;

    put(&job);
    expect_eq(pthread_create(&thread, NULL, ender, job.id.text), 0);
    answer = rig_call(&rig, API_JOB_GET,
            (struct asked){ .id = job.id.text, .query = "wait=60" }, NULL);
    pthread_join(thread, NULL);
    expect_eq(answer_number(&answer, "JobState"), 8);
    answer_release(&answer);
}

Test(jobs, patch_changes_the_limit_and_the_flag)
{
    struct store_job job = sample(CIM_JOB_SUSPENDED);
    struct answer answer;
    char tag[64];

    put(&job);
    tag_of(&job, tag, sizeof(tag));
    answer = rig_call(&rig, API_JOB_PATCH,
            (struct asked){ .id = job.id.text, .if_match = tag },
            "{\"BandwidthLimit\":104857600,\"DeleteOnCompletion\":true,\"Priority\":"
            "0}");
    expect_answer(&answer, DONE, -1);
    expect_eq(answer_number(&answer, "BandwidthLimit"), 104857600);
    expect_eq(answer_number(&answer, "Priority"), 0);
    expect(json_is_true(json_object_get(answer.json, "DeleteOnCompletion")));
    answer_release(&answer);
    answer = rig_call(&rig, API_JOB_PATCH,
            (struct asked){ .id = job.id.text, .if_match = tag },
            "{\"BandwidthLimit\":1}");
    expect_answer(&answer, PRECONDITION, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_JOB_PATCH, (struct asked){ .id = job.id.text },
            "{\"Priority\":4,\"BandwidthLimit\":-1,\"JobState\":7}");
    expect_answer(&answer, INVALID, -1);
    expect_eq(json_array_size(json_object_get(answer.json, "Errors")), 3);
    answer_release(&answer);
    answer = rig_call(&rig, API_JOB_PATCH, (struct asked){ .id = job.id.text },
            "{\"Priority\":null,\"BandwidthLimit\":null,\"DeleteOnCompletion\":null}");
    expect_answer(&answer, INVALID, -1); /* a null removes, and these always are */
    expect_eq(json_array_size(json_object_get(answer.json, "Errors")), 3);
    answer_release(&answer);
}

Test(jobs, one_that_is_over_takes_no_limit)
{
    struct store_job job = sample(CIM_JOB_COMPLETED);
    struct answer answer;

    put(&job);
    answer = rig_call(&rig, API_JOB_PATCH, (struct asked){ .id = job.id.text },
            "{\"BandwidthLimit\":1}");
    expect_answer(&answer, STATE, -1);
    answer_release(&answer);
}

Test(jobs, delete_takes_only_what_is_over)
{
    struct store_job live = sample(CIM_JOB_SUSPENDED), over = sample(CIM_JOB_EXCEPTION);
    struct answer answer;

    put(&live);
    put(&over);
    answer = rig_call(&rig, API_JOB_DELETE, (struct asked){ .id = live.id.text }, NULL);
    expect_answer(&answer, STATE, -1);
    expect(strstr(answer_text(&answer, "Remedy"), "request-state-change") != NULL);
    answer_release(&answer);
    answer = rig_call(&rig, API_JOB_DELETE, (struct asked){ .id = over.id.text }, NULL);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    answer = get(&over);
    expect_answer(&answer, NOT_FOUND, -1);
    answer_release(&answer);
}

Test(jobs, errors_are_there_for_one_that_failed)
{
    struct store_job job = sample(CIM_JOB_EXCEPTION), good = sample(CIM_JOB_COMPLETED);
    struct answer answer;
    json_t *error;

    job.error_type = CIM_ERROR_HARDWARE;
    job.probable_cause = CIM_CAUSE_IO_DEVICE;
    snprintf(job.error, sizeof(job.error), "MEDIUM ERROR on the source");
    put(&job);
    put(&good);
    answer = rig_call(&rig, API_JOB_ERRORS, (struct asked){ .id = job.id.text }, NULL);
    expect_answer(&answer, DONE, -1);
    error = json_array_get(json_object_get(answer.json, "Members"), 0);
    expect_eq(json_integer_value(json_object_get(error, "ErrorType")), 5);
    expect_eq(json_integer_value(json_object_get(error, "ProbableCause")), 24);
    expect_str(json_string_value(json_object_get(error, "ProbableCauseName")),
            "I/O Device Error");
    expect_str(json_string_value(json_object_get(error, "Message")),
            "MEDIUM ERROR on the source");
    answer_release(&answer);
    answer = rig_call(&rig, API_JOB_ERRORS, (struct asked){ .id = good.id.text }, NULL);
    expect_answer(&answer, DONE, -1);
    expect_eq(json_array_size(json_object_get(answer.json, "Members")), 0);
    answer_release(&answer);
}

Test(jobs, who_lost_a_restore_is_not_told_to_resynchronise)
{
    struct store_job job = sample(CIM_JOB_EXCEPTION);
    char source[37], target[37], way[200];
    struct answer answer;
    json_t *advice;

    rig_element(&rig, "StorageVolume", 1 << 20, source);
    rig_element(&rig, "StorageVolume", 1 << 20, target);
    job.work = JOB_RESTORE; /* it read the pair's target */
    expect(uuid_parse(target, &job.source) && uuid_parse(source, &job.target));
    job.probable_cause = CIM_CAUSE_CONNECTION;
    put(&job);
    answer = rig_call(&rig, API_JOB_ERRORS, (struct asked){ .id = job.id.text }, NULL);
    expect_answer(&answer, DONE, -1);
    advice = json_object_get(json_array_get(json_object_get(answer.json, "Members"), 0),
            "RecommendedActions");
    expect_str(json_string_value(json_array_get(advice, 0)),
            "Check that the portal answers");
    snprintf(way, sizeof(way),
            "DELETE /replicas/%s, then POST /replicas/%s/attach "
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":5}",
            target, source, target);
    expect_str(json_string_value(json_array_get(advice, 1)), way);
    answer_release(&answer);
}

Test(jobs, the_sweep_takes_what_asked_for_it_and_is_old_enough)
{
    struct store_job old = sample(CIM_JOB_COMPLETED), young = sample(CIM_JOB_COMPLETED),
                     kept = sample(CIM_JOB_COMPLETED), live = sample(CIM_JOB_SUSPENDED);
    struct instant deadline = instant_add_ms(clock_monotonic(), 60000);
    struct answer answer;
    unsigned count;
    int64_t seen = -1;

    old.delete_on_completion = young.delete_on_completion = live.delete_on_completion =
            true;
    old.ended = kept.ended = clock_wall_ms() - 400000;
    put(&young);
    put(&kept);
    put(&live);
    put(&old);
    do { /* the clerk sweeps once a second */
        (void)service_wait(
                rig.service, &seen, instant_add_ms(clock_monotonic(), 60000));
        answer = get(&old);
        count = answer.outcome.verdict == API_NOT_FOUND;
        answer_release(&answer);
    } while (!count && !instant_reached(clock_monotonic(), deadline));
    answer = get(&old);
    expect_answer(&answer, NOT_FOUND, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_JOBS_LIST, (struct asked){ .id = NULL }, NULL);
    expect_eq(json_array_size(json_object_get(answer.json, "Members")), 3);
    answer_release(&answer);
}

Test(jobs, lists_filter_by_state_number_or_name)
{
    struct store_job a = sample(CIM_JOB_COMPLETED), b = sample(CIM_JOB_SUSPENDED),
                     c = sample(CIM_JOB_EXCEPTION);
    struct answer answer;
    char query[120];

    put(&a);
    put(&b);
    put(&c);
    answer = rig_call(&rig, API_JOBS_LIST,
            (struct asked){ .query = "JobState=Suspended,10&MethodName=CreateReplica" },
            NULL);
    expect_eq(json_array_size(json_object_get(answer.json, "Members")), 2);
    answer_release(&answer);
    snprintf(query, sizeof(query), "SourceElement=/elements/%s", b.source.text);
    answer = rig_call(&rig, API_JOBS_LIST, (struct asked){ .query = query }, NULL);
    expect_eq(json_array_size(json_object_get(answer.json, "Members")), 1);
    answer_release(&answer);
}

/** A copy that its limit would keep running for an hour: its job. */
static void slow_copy(char job[37])
{
    struct answer answer;
    char source[37];

    rig_file(&rig, "full", 8 << 20, 'x');
    answer = rig_call(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/full\"}");
    snprintf(source, sizeof(source), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = rig_call(&rig, API_SETTING_CREATE, (struct asked){ 0 },
            "{\"BandwidthLimit\":2048,\"DesiredCopyMethodology\":3}");
    snprintf(job, 37, "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":4,"
            "\"TargetSettingGoal\":\"/settings/%s\"}",
            source, job);
    expect_answer(&answer, STARTED, 4096);
    snprintf(job, 37, "%s", answer_text(&answer, "Job") + strlen("/jobs/"));
    answer_release(&answer);
}

/* Waits until what limits the job is @word. */
static void limited_by(const char *job, const char *word)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 60000);
    bool is = false;

    while (!is) {
        struct answer answer =
                rig_call(&rig, API_JOB_GET, (struct asked){ .id = job }, NULL);
        const char *text = json_string_value(json_object_get(answer.json, "LimitedBy"));
        is = text && strcmp(text, word) == 0;
        answer_release(&answer);
        expect(is || !instant_reached(clock_monotonic(), deadline));
        if (!is)
            usleep(20000);
    }
}

Test(jobs, a_limit_that_is_lifted_takes_effect_while_it_runs)
{
    struct answer answer;
    struct instant deadline = instant_add_ms(clock_monotonic(), 60000);
    char job[37];
    int64_t seen = -1;
    long long state = 0;

    slow_copy(job);
    while (state != CIM_JOB_RUNNING) {
        expect(service_wait(rig.service, &seen, deadline));
        answer = rig_call(&rig, API_JOB_GET, (struct asked){ .id = job }, NULL);
        state = answer_number(&answer, "JobState");
        answer_release(&answer);
        expect(state < CIM_JOB_COMPLETED);
    }
    answer = rig_call(
            &rig, API_JOB_PATCH, (struct asked){ .id = job }, "{\"Priority\":0}");
    expect_answer(&answer, DONE, -1);
    expect_eq(answer_number(&answer, "Priority"), 0);
    answer_release(&answer);
    limited_by(job, "Limit");
    answer = rig_call(
            &rig, API_JOB_PATCH, (struct asked){ .id = job }, "{\"BandwidthLimit\":0}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    answer = rig_call(
            &rig, API_JOB_GET, (struct asked){ .id = job, .query = "wait=60" }, NULL);
    expect_eq(answer_number(&answer, "JobState"), CIM_JOB_COMPLETED);
    expect_eq(answer_number(&answer, "PercentComplete"), 100);
    expect_eq(answer_number(&answer, "ReturnValue"), 0);
    expect_eq(answer_number(&answer, "BytesDone"), 8 << 20);
    expect_str(answer_text(&answer, "Mode"), "Full");
    expect_eq(answer_number(&answer, "BytesRead"), 8 << 20);
    expect_eq(answer_number(&answer, "BytesWritten"), 8 << 20);
    expect_eq(answer_number(&answer, "BytesSkipped"), 0);
    expect(json_is_null(json_object_get(answer.json, "LimitedBy")));
    expect(json_is_null(json_object_get(answer.json, "StalledSince")));
    answer_release(&answer);
}

/* The member is this text, or null. */
static bool member_is(const struct answer *answer, const char *name, const char *text)
{
    const json_t *member = json_object_get(answer->json, name);

    return text ? json_is_string(member) && strcmp(json_string_value(member), text) == 0
                : json_is_null(member);
}

/* A planted job that is New would be taken up by the scheduler: those are test_clerk.c's. */
Test(jobs, what_a_job_waits_for)
{
    static const struct {
        int64_t state, limited_by;
        const char *word;
        bool stalled;
    } rows[] = { { CIM_JOB_STARTING, ENGINE_LIMITED_TARGET, NULL, true },
        { CIM_JOB_RUNNING, ENGINE_LIMITED_NONE, NULL, true },
        { CIM_JOB_RUNNING, ENGINE_LIMITED_SOURCE, "Source", true },
        { CIM_JOB_RUNNING, ENGINE_LIMITED_TARGET, "Target", true },
        { CIM_JOB_RUNNING, ENGINE_LIMITED_BANDWIDTH, "Limit", true },
        { CIM_JOB_SUSPENDED, ENGINE_LIMITED_TARGET, NULL, false },
        { CIM_JOB_COMPLETED, ENGINE_LIMITED_TARGET, NULL, false } };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct store_job job = sample(rows[i].state);
        struct answer answer;

        job.limited_by = rows[i].limited_by;
        job.stalled = 1790000000000;
        snprintf(job.stall_reason, sizeof(job.stall_reason), "no \"answer\"");
        job.skipped = 300;
        job.skipped_zero = 100;
        job.skipped_equal = 200;
        job.read = 700;
        job.verified = 50;
        put(&job);
        answer = get(&job);
        expect(member_is(&answer, "LimitedBy", rows[i].word));
        expect(member_is(&answer, "StalledSince",
                rows[i].stalled ? "2026-09-21T14:13:20.000Z" : NULL));
        expect(member_is(
                &answer, "StallReason", rows[i].stalled ? "no \"answer\"" : NULL));
        expect_eq(answer_number(&answer, "BytesSkipped"), 300);
        expect_eq(answer_number(&answer, "BytesSkippedZero"), 100);
        expect_eq(answer_number(&answer, "BytesSkippedEqual"), 200);
        expect_eq(answer_number(&answer, "BytesRead"), 700);
        expect_eq(answer_number(&answer, "BytesVerified"), 50);
        answer_release(&answer);
    }
}

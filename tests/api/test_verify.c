/* Verify of a pair that exists: both ends are read, nothing is written, no state moves. */
#include <criterion/criterion.h>
#include <fcntl.h>

#include "tests/api/pairs.h"

enum { SIZE = 6 * PAIRS_MIB + 512 };

struct pair {
    struct rig rig;
    char source[37], target[37], job[37];
    uint64_t seed;
};

static void pair_open(struct pair *pair, int copy_type)
{
    pair->seed = seed_take("verify");
    rig_make(&pair->rig);
    rig_start(&pair->rig);
    rig_element(&pair->rig, "StorageVolume", SIZE, pair->source);
    rig_element(&pair->rig, "StorageVolume", SIZE, pair->target);
    pair_noise(&pair->rig, pair->source, SIZE, pair->seed);
    pair_attach(&pair->rig, pair->source, pair->target, copy_type, 0, pair->job);
    expect_eq(job_finish(&pair->rig, pair->job).state, CIM_JOB_COMPLETED);
}

static void pair_close(struct pair *pair)
{
    rig_stop(&pair->rig);
    rig_remove(&pair->rig);
}

static void verify(struct pair *pair)
{
    struct answer answer = rig_call(
            &pair->rig, API_REPLICA_VERIFY, (struct asked){ .id = pair->target }, NULL);

    expect_answer(&answer, STARTED, 4096);
    expect(strcmp(answer.outcome.location, answer_text(&answer, "Job")) == 0);
    answer_id(&answer, "Job", pair->job);
    answer_release(&answer);
}

/* Bit by bit behind everybody's back. */
static void flip(struct pair *pair, const char *element, uint64_t at)
{
    char path[PAIRS_PATH];
    uint8_t byte;

    element_path(&pair->rig, element, path);
    int fd = open(path, O_RDWR);
    expect(fd >= 0 && pread(fd, &byte, 1, (off_t)at) == 1);
    byte ^= (uint8_t)(1u << at % 8);
    expect(pwrite(fd, &byte, 1, (off_t)at) == 1);
    close(fd);
}

static int64_t state_of(struct pair *pair)
{
    struct store_replica replica;

    expect(replica_row(&pair->rig, pair->target, &replica));
    return replica.sync_state;
}

static void expect_difference(
        const json_t *list, size_t at, long long offset, long long length)
{
    const json_t *one = json_array_get(list, at);

    expect_eq(json_integer_value(json_object_get(one, "Offset")), offset);
    expect_eq(json_integer_value(json_object_get(one, "Length")), length);
}

Test(verify, an_equal_pair_is_equal_and_nothing_has_moved)
{
    static const int types[] = { 2, 4 };

    for (unsigned i = 0; i < 2; i++) {
        struct pair pair;
        struct store_job job;
        struct answer answer;
        pair_open(&pair, types[i]);
        int64_t state = state_of(&pair);
        verify(&pair);
        job = job_finish(&pair.rig, pair.job);
        expect_eq(job.state, CIM_JOB_COMPLETED);
        cr_assert(job.percent == 100 && job.done == SIZE && job.written == 0);
        cr_assert(job.return_value == 0 && strcmp(job.method, "VerifyReplica") == 0);
        expect_eq(state_of(&pair), state);
        expect(element_row(&pair.rig, pair.target).complete);
        answer = rig_call(
                &pair.rig, API_JOB_GET, (struct asked){ .id = pair.job }, NULL);
        expect_eq(json_array_size(json_object_get(answer.json, "Differences")), 0);
        expect_eq(answer_number(&answer, "BytesVerified"), SIZE);
        answer_release(&answer);
        answer = rig_call(
                &pair.rig, API_REPLICA_GET, (struct asked){ .id = pair.target }, NULL);
        expect(json_is_null(json_object_get(answer.json, "Job")));
        expect(json_is_null(json_object_get(answer.json, "LastError")));
        answer_release(&answer);
        pair_close(&pair);
    }
}

Test(verify, what_differs_is_told_by_job_errors_and_pair)
{
    struct pair pair;
    struct answer answer;
    const json_t *error;

    pair_open(&pair, 4);
    flip(&pair, pair.target, SIZE - 1);
    flip(&pair, pair.target, 3 * PAIRS_MIB);
    flip(&pair, pair.source, 3 * PAIRS_MIB + 700);
    verify(&pair);
    expect_eq(job_finish(&pair.rig, pair.job).state, CIM_JOB_EXCEPTION);
    expect_eq(state_of(&pair), CIM_SYNC_FROZEN);
    answer = rig_call(&pair.rig, API_JOB_GET, (struct asked){ .id = pair.job }, NULL);
    expect_eq(answer_number(&answer, "ErrorCode"), 4);
    expect_eq(answer_number(&answer, "ReturnValue"), 4);
    expect_eq(answer_number(&answer, "DifferentBytes"), 1536);
    expect_eq(answer_number(&answer, "DifferentRanges"), 2);
    expect(answer_number(&answer, "PercentComplete") < 100);
    expect(strstr(answer_text(&answer, "ErrorDescription"),
            "1536 bytes in 2 ranges; the first: 3145728+1024, 6291456+512"));
    expect_eq(json_array_size(json_object_get(answer.json, "Differences")), 2);
    expect_difference(
            json_object_get(answer.json, "Differences"), 0, 3 * PAIRS_MIB, 1024);
    expect_difference(
            json_object_get(answer.json, "Differences"), 1, 6 * PAIRS_MIB, 512);
    answer_release(&answer);
    answer =
            rig_call(&pair.rig, API_JOB_ERRORS, (struct asked){ .id = pair.job }, NULL);
    error = json_array_get(json_object_get(answer.json, "Members"), 0);
    expect_eq(json_integer_value(json_object_get(error, "ProbableCause")), 81);
    expect_difference(json_object_get(error, "Differences"), 0, 3 * PAIRS_MIB, 1024);
    answer_release(&answer);
    answer = rig_call(
            &pair.rig, API_REPLICA_GET, (struct asked){ .id = pair.target }, NULL);
    expect(strstr(answer_text(&answer, "LastError"), "1536 bytes in 2 ranges"));
    answer_release(&answer);
    flip(&pair, pair.target, SIZE - 1);
    flip(&pair, pair.target, 3 * PAIRS_MIB);
    flip(&pair, pair.source, 3 * PAIRS_MIB + 700);
    verify(&pair);
    expect_eq(job_finish(&pair.rig, pair.job).state, CIM_JOB_COMPLETED);
    pair_close(&pair);
}

static void expect_busy(struct pair *pair, enum api_call call, const char *body)
{
    struct answer answer =
            rig_call(&pair->rig, call, (struct asked){ .id = pair->target }, body);

    expect_answer(&answer, IN_USE, 6);
    const char *holder = json_string_value(
            json_array_get(json_object_get(answer.json, "Holders"), 0));
    cr_assert(holder && strstr(holder, pair->job), "%s", holder);
    answer_release(&answer);
}

static void request(struct pair *pair, const char *state)
{
    struct answer answer = rig_callf(&pair->rig, API_JOB_REQUEST_STATE_CHANGE,
            (struct asked){ .id = pair->job }, "{\"RequestedState\":\"%s\"}", state);

    expect(answer.outcome.return_value == 0 || answer.outcome.return_value == 4096);
    answer_release(&answer);
}

/* A verify that cannot come far: New when it is made, it is limited before it starts or soon
   after. */
static void verify_slowly(struct pair *pair)
{
    struct answer answer = rig_callf(&pair->rig, API_REPLICA_ATTACH,
            (struct asked){ .id = pair->target },
            "{\"SourceElement\":\"%s\",\"CopyType\":2,\"Goal\":{\"BandwidthLimit\":"
            "20000}}",
            pair->source);

    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    verify(pair);
    job_reach(&pair->rig, pair->job, CIM_JOB_RUNNING);
}

Test(verify, it_is_a_job_like_others)
{
    struct pair pair;
    struct store_job job;

    pair_open(&pair, 2);
    for (uint64_t at = 0; at < 40; at++)
        flip(&pair, pair.source, at * 100000);
    flip(&pair, pair.source, 1);
    flip(&pair, pair.source, 511);
    verify_slowly(&pair);
    expect_busy(&pair, API_REPLICA_VERIFY, "{}");
    expect_busy(&pair, API_REPLICA_MODIFY, "{\"Operation\":4}");
    expect_busy(&pair, API_REPLICA_MODIFY, "{\"Operation\":3}");
    expect_busy(&pair, API_REPLICA_DETACH, NULL);
    request(&pair, "Suspend");
    job_reach(&pair.rig, pair.job, CIM_JOB_SUSPENDED);
    expect_busy(&pair, API_REPLICA_VERIFY, NULL);
    expect_eq(state_of(&pair), CIM_SYNC_SYNCHRONIZED);
    rig_stop(&pair.rig);
    rig_start(&pair.rig);
    job_reach(&pair.rig, pair.job, CIM_JOB_SUSPENDED);
    request(&pair, "Start");
    job_reach(&pair.rig, pair.job, CIM_JOB_RUNNING);
    rig_stop(&pair.rig);
    rig_start(&pair.rig);
    job_reach(&pair.rig, pair.job, CIM_JOB_RUNNING);
    job_unlimit(&pair.rig, pair.job);
    job = job_finish(&pair.rig, pair.job);
    expect_eq(job.state, CIM_JOB_EXCEPTION);
    cr_assert(job.differ_ranges == 40 && job.differ_bytes == 40 * 512, "%d ranges",
            (int)job.differ_ranges);
    expect_eq(job.written, 0);
    pair_close(&pair);
}

/* A scan that is due while it runs begins after its end. */
Test(verify, a_scan_waits_for_it)
{
    struct pair pair;
    struct store_replica replica;
    struct store_job job;
    int64_t synced, began;

    pair_open(&pair, 2);
    verify_slowly(&pair);
    expect(replica_row(&pair.rig, pair.target, &replica));
    synced = replica.when_synced;
    replica.limit = 0; /* that of its next jobs and scans */
    plant_due(&pair.rig, &replica);
    job_unlimit(&pair.rig, pair.job);
    job = job_finish(&pair.rig, pair.job);
    expect_eq(job.state, CIM_JOB_COMPLETED);
    /* The pair is synced then to when the scan began. */
    began = scan_finish(&pair.rig, pair.target, synced).when_synced;
    cr_assert(began >= job.ended, "a scan began before the verify ended");
    pair_close(&pair);
}

Test(verify, terminated_it_leaves_the_pair_as_it_is)
{
    static const char *const ends[] = { "Terminate", "Kill" };
    struct pair pair;
    struct answer answer;

    pair_open(&pair, 2);
    for (unsigned i = 0; i < 2; i++) {
        verify_slowly(&pair);
        request(&pair, ends[i]);
        expect(job_finish(&pair.rig, pair.job).state >= CIM_JOB_TERMINATED);
        expect_eq(state_of(&pair), CIM_SYNC_SYNCHRONIZED);
        answer = rig_callf(&pair.rig, API_REPLICA_ATTACH,
                (struct asked){ .id = pair.target },
                "{\"SourceElement\":\"%s\",\"CopyType\":2,\"Goal\":{}}", pair.source);
        answer_release(&answer);
    }
    pair_close(&pair);
}

Test(verify, refused_where_there_is_nothing_whole)
{
    struct pair pair;
    struct answer answer;
    char other[37];

    pair_open(&pair, 4);
    rig_element(&pair.rig, "StorageVolume", SIZE, other);
    answer = rig_callf(&pair.rig, API_REPLICA_ATTACH, (struct asked){ .id = other },
            "{\"SourceElement\":\"%s\",\"CopyType\":4,\"Goal\":{"
            "\"InitialSynchronization\":"
            "3}}",
            pair.source);
    answer_release(&answer);
    answer = rig_call(
            &pair.rig, API_REPLICA_VERIFY, (struct asked){ .id = other }, NULL);
    expect_answer(&answer, STATE, 4);
    answer_release(&answer);
    answer = rig_call(
            &pair.rig, API_REPLICA_VERIFY, (struct asked){ .id = pair.source }, NULL);
    expect_answer(&answer, NO_REFERENCE, 5);
    answer_release(&answer);
    answer = rig_call(&pair.rig, API_REPLICA_VERIFY,
            (struct asked){ .id = pair.target }, "{\"Nope\":1}");
    expect_answer(&answer, INVALID, 5);
    answer_release(&answer);
    pair_close(&pair);
}

Test(verify, the_same_key_starts_one_job)
{
    struct pair pair;
    struct answer first, again;

    pair_open(&pair, 4);
    first = rig_call(&pair.rig, API_REPLICA_VERIFY,
            (struct asked){ .id = pair.target, .key = "k" }, "{}");
    again = rig_call(&pair.rig, API_REPLICA_VERIFY,
            (struct asked){ .id = pair.target, .key = "k" }, "{}");
    expect_answer(&first, STARTED, 4096);
    expect(again.outcome.replayed);
    expect(strcmp(answer_text(&first, "Job"), answer_text(&again, "Job")) == 0);
    answer_id(&first, "Job", pair.job);
    answer_release(&first);
    answer_release(&again);
    job_finish(&pair.rig, pair.job);
    pair_close(&pair);
}

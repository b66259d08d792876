/* CreateReplica, from the body to equal bytes, and each code it can answer over files. */
#include <sys/statvfs.h>

#include "tests/api/pairs.h"

static struct rig rig;
static char source[37];

enum { SIZE = 3 * PAIRS_MIB + 512 };

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
    rig_element(&rig, "StorageVolume", SIZE, source);
    pair_noise(&rig, source, SIZE, 7);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(create, .init = begin, .fini = end);

static struct answer create(int copy_type, const char *element)
{
    return rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":%d}", element, copy_type);
}

static void refused(
        const char *body, const char *verdict, int value, const char *pointer)
{
    struct answer answer =
            rig_call(&rig, API_REPLICA_CREATE, (struct asked){ 0 }, body);

    cr_assert(strcmp(verdict_name(answer.outcome.verdict), verdict) == 0 &&
                    answer.outcome.return_value == value,
            "%s: %s %d: %s", body, verdict_name(answer.outcome.verdict),
            answer.outcome.return_value, answer_detail(&answer));
    if (pointer)
        expect_pointer(&answer, pointer);
    answer_release(&answer);
}

Test(create, an_unassociated_copy_ends_with_equal_bytes_and_no_pair)
{
    struct answer answer = create(5, source);
    char job[37], target[37];
    struct store_replica replica;
    struct store_job row;

    expect_answer(&answer, STARTED, 4096);
    expect_str(answer_text(&answer, "ReturnValueName"),
            "Method Parameters Checked - Job Started");
    answer_id(&answer, "Job", job);
    answer_id(&answer, "TargetElement", target);
    expect(strncmp(answer.outcome.location, "/jobs/", 6) == 0);
    expect(answer.outcome.retry_after > 0);
    answer_release(&answer);
    row = job_finish(&rig, job);
    cr_assert(row.state == CIM_JOB_COMPLETED, "%d %s", (int)row.state, row.error);
    expect_eq(row.percent, 100);
    expect_eq(row.done, SIZE);
    expect_eq(row.return_value, 0);
    expect(row.ended >= row.started && row.started >= row.submitted);
    expect(pair_equal(&rig, source, target, SIZE));
    expect(!replica_row(&rig, target, &replica));
    row = job_row(&rig, job);
    expect(uuid_is_none(&row.replica));
    expect(element_row(&rig, target).complete);
    expect_eq(element_row(&rig, target).type, ELEMENT_STORAGE_VOLUME);
    expect_eq(element_row(&rig, source).usage, CIM_USAGE_UNRESTRICTED);
    expect_eq(results_count(&rig, "CreateReplica", 4096), 1);
}

Test(create, an_associated_copy_is_frozen_at_its_start)
{
    struct answer answer = create(4, source);
    char job[37], target[37];
    struct store_job row;

    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_id(&answer, "Replica", target);
    answer_release(&answer);
    row = job_finish(&rig, job);
    expect_eq(row.state, CIM_JOB_COMPLETED);
    answer = rig_call(&rig, API_REPLICA_GET, (struct asked){ .id = target }, NULL);
    expect_answer(&answer, DONE, -1);
    expect_eq(answer_number(&answer, "SyncState"), 14);
    expect_str(answer_text(&answer, "SyncStateName"), "Frozen");
    expect_eq(answer_number(&answer, "PercentSynced"), 100);
    expect_str(answer_text(&answer, "Consistency"), "Fuzzy");
    expect(json_is_false(json_object_get(answer.json, "SyncMaintained")));
    expect(json_is_string(json_object_get(answer.json, "WhenSynced")));
    answer_release(&answer);
    expect(pair_equal(&rig, source, target, SIZE));
    expect_eq(element_row(&rig, source).usage, CIM_USAGE_LOCAL_SOURCE);
    expect_eq(element_row(&rig, target).usage, CIM_USAGE_LOCAL_TARGET);
}

Test(create, a_copy_of_a_file_keeps_its_type_and_odd_length)
{
    struct answer answer;
    char file[37], target[37], job[37];

    rig_file(&rig, "odd.img", 123457, 0x5a);
    answer = rig_call(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/odd.img\"}");
    expect_answer(&answer, MADE, 0);
    snprintf(file, sizeof(file), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = create(5, file);
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_id(&answer, "TargetElement", target);
    answer_release(&answer);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect_eq(element_row(&rig, target).size, 123457);
    expect_eq(element_row(&rig, target).type, ELEMENT_LOGICAL_FILE);
}

Test(create, an_extent_becomes_a_volume)
{
    struct answer answer = rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"StorageExtent\",\"Of\":\"%s\",\"Offset\":512,\"Size\":"
            "1048576}",
            source);
    char extent[37], target[37], job[37];

    expect_answer(&answer, MADE, 0);
    snprintf(extent, sizeof(extent), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = create(5, extent);
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_id(&answer, "TargetElement", target);
    answer_release(&answer);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect_eq(element_row(&rig, target).type, ELEMENT_STORAGE_VOLUME);
    expect_eq(element_row(&rig, target).size, 1048576);
}

Test(create, what_was_asked_wait_tells_how_it_ended)
{
    struct answer answer =
            rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ .wait_s = 30 },
                    "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);

    expect_answer(&answer, DONE, 4096);
    expect_eq(answer_number(&answer, "ReturnValue"), 4096);
    expect_eq(answer_number(&answer, "JobState"), 7);
    expect_eq(answer_number(&answer, "JobReturnValue"), 0);
    expect_eq(answer.outcome.waited_s, 30);
    answer_release(&answer);
}

Test(create, do_not_start_makes_an_initialized_pair_without_a_job)
{
    struct answer answer = rig_call(&rig, API_SETTING_CREATE, (struct asked){ 0 },
            "{\"ElementName\":\"later\",\"InitialSynchronization\":3}");
    char setting[37], target[37];
    struct store_replica replica;

    expect_eq(answer.outcome.verdict, API_MADE);
    snprintf(setting, sizeof(setting), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"%s\",\"CopyType\":2,\"TargetSettingGoal\":\"%s\"}",
            source, setting);
    expect_answer(&answer, MADE, 0);
    expect(json_is_null(json_object_get(answer.json, "Job")));
    answer_id(&answer, "Replica", target);
    answer_release(&answer);
    expect(replica_row(&rig, target, &replica));
    expect_eq(replica.sync_state, CIM_SYNC_INITIALIZED);
    expect(!element_row(&rig, target).complete);
    answer = rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"%s\",\"CopyType\":5,\"TargetSettingGoal\":\"%s\"}",
            source, setting);
    expect_answer(&answer, INVALID, 5);
    expect_pointer(&answer, "/TargetSettingGoal");
    answer_release(&answer);
    /* What is not complete is nobody's source. */
    answer = create(5, target);
    expect_answer(&answer, IN_USE, 6);
    expect_pointer(&answer, "/SourceElement");
    answer_release(&answer);
}

Test(create, each_wrong_word_has_its_code_and_its_row)
{
    char body[300];

    refused("{\"CopyType\":5}", "INVALID", 5, "/SourceElement");
    refused("{\"SourceElement\":\"0193\",\"CopyType\":5}", "INVALID", 5,
            "/SourceElement");
    snprintf(body, sizeof(body), "{\"SourceElement\":\"/elements/%s\",\"CopyType\":5}",
            "01931234-0000-7000-8000-000000000000");
    refused(body, "NO_REFERENCE", 5, "/SourceElement");
    snprintf(body, sizeof(body), "{\"SourceElement\":\"%s\"}", source);
    refused(body, "INVALID", 5, "/CopyType");
    snprintf(body, sizeof(body),
            "{\"SourceElement\":\"%s\",\"CopyType\":5,\"TargetElement\":\"%s\"}",
            source, source);
    refused(body, "INVALID", 5, "/TargetElement");
    snprintf(body, sizeof(body),
            "{\"SourceElement\":\"%s\",\"CopyType\":5,\"TargetPool\":\"none\"}",
            source);
    refused(body, "NO_REFERENCE", 5, "/TargetPool");
    snprintf(body, sizeof(body),
            "{\"SourceElement\":\"%s\",\"CopyType\":5,\"TargetSettingGoal\":\"%s\"}",
            source, source);
    refused(body, "NO_REFERENCE", 5, "/TargetSettingGoal");
    snprintf(body, sizeof(body), "{\"SourceElement\":\"%s\",\"CopyType\":3}", source);
    refused(body, "NOT_SUPPORTED", 1, "/CopyType");
    refused("{\"a\":1,\"a\":2}", "MALFORMED", -1, NULL);
    expect_eq(results_count(&rig, "CreateReplica", 1), 1);
    expect_eq(results_count(&rig, "CreateReplica", 5), 7);
}

Test(create, copy_type_at_the_edges_of_its_ranges)
{
    static const struct {
        const char *text, *verdict;
        int value;
    } edges[] = { { "0", "INVALID", 5 }, { "1", "INVALID", 5 }, { "6", "INVALID", 5 },
        { "4096", "INVALID", 5 }, { "32767", "INVALID", 5 },
        { "32768", "NOT_SUPPORTED", 1 }, { "65535", "NOT_SUPPORTED", 1 },
        { "65536", "INVALID", 5 }, { "-1", "INVALID", 5 }, { "5.0", "INVALID", 5 },
        { "\"5\"", "INVALID", 5 }, { "null", "INVALID", 5 } };
    char body[200];

    for (size_t i = 0; i < sizeof(edges) / sizeof(*edges); i++) {
        snprintf(body, sizeof(body), "{\"SourceElement\":\"%s\",\"CopyType\":%s}",
                source, edges[i].text);
        refused(body, edges[i].verdict, edges[i].value, "/CopyType");
    }
}

Test(create, a_full_pool_says_what_is_missing)
{
    struct statvfs space;
    struct answer answer;
    char huge[37];

    expect_eq(statvfs(rig.pool, &space), 0);
    unsigned long long size =
            ((unsigned long long)space.f_bavail * space.f_frsize + (1ull << 40)) &
            ~511ull;
    rig_element(&rig, "StorageVolume", size, huge);
    answer = create(5, huge);
    expect_answer(&answer, NO_SPACE, 4);
    expect_pointer(&answer, "/TargetPool");
    cr_assert(strstr(answer_detail(&answer), "lacks"), "%s", answer_detail(&answer));
    answer_release(&answer);
    /* Nothing was left behind: one file an element. */
    answer = rig_call(&rig, API_ELEMENTS_LIST, (struct asked){ 0 }, NULL);
    expect_eq(json_array_size(json_object_get(answer.json, "Members")), 2);
    answer_release(&answer);
}

Test(create, a_source_that_is_gone_or_changed_is_the_far_sides_fault)
{
    struct answer answer;
    char path[700], file[37];

    rig_file(&rig, "gone.img", 4096, 1);
    answer = rig_call(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/gone.img\"}");
    expect_answer(&answer, MADE, 0);
    snprintf(file, sizeof(file), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    snprintf(path, sizeof(path), "%s/gone.img", rig.pool);
    expect_eq(truncate(path, 8192), 0);
    answer = create(5, file);
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
    expect_eq(unlink(path), 0);
    answer = create(5, file);
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
    expect_eq(results_count(&rig, "CreateReplica", 4), 2);
}

Test(create, the_same_key_makes_one_replica)
{
    struct asked asked = { .key = "once" };
    struct answer first, again;

    first = rig_callf(&rig, API_REPLICA_CREATE, asked,
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    expect_answer(&first, STARTED, 4096);
    again = rig_callf(&rig, API_REPLICA_CREATE, asked,
            "{\"CopyType\":5, \"SourceElement\":\"%s\"}", source);
    expect_answer(&again, STARTED, 4096);
    expect(again.outcome.replayed && !first.outcome.replayed);
    expect_str(answer_text(&again, "Job"), answer_text(&first, "Job"));
    answer_release(&again);
    again = rig_callf(&rig, API_REPLICA_CREATE, asked,
            "{\"SourceElement\":\"%s\",\"CopyType\":4}", source);
    expect_eq(again.outcome.verdict, API_KEY_REUSED);
    answer_release(&again);
    answer_release(&first);
    expect_eq(results_count(&rig, "CreateReplica", 4096), 1);
}

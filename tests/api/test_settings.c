/* Settings, pipes, pools, capabilities, figures. */
#include <stdio.h>
#include <string.h>

#include "api/pipes.h"
#include "api/service.h"
#include "tests/api/rig.h"

static struct rig rig;
static const struct asked nothing;

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(settings, .init = begin, .fini = end);
TestSuite(pipes, .init = begin, .fini = end);
TestSuite(pools, .init = begin, .fini = end);
TestSuite(capabilities, .init = begin, .fini = end);
TestSuite(figures, .init = begin, .fini = end);

Test(settings, one_is_made_read_changed_and_removed)
{
    struct answer answer = rig_call(&rig, API_SETTING_CREATE, nothing,
            "{\"ElementName\":\"gold\",\"ReplicationPriority\":\"High\",\"DesiredRPO\":"
            "60,"
            "\"BandwidthLimit\":1000}");
    char id[37];

    expect_answer(&answer, MADE, -1);
    snprintf(id, sizeof(id), "%s", answer_text(&answer, "Id"));
    expect_str(answer_text(&answer, "ElementName"), "gold");
    expect_eq(answer_number(&answer, "ReplicationPriority"), 4);
    expect_str(answer_text(&answer, "ReplicationPriorityName"), "High");
    expect_eq(answer_number(&answer, "DesiredRPO"), 60);
    answer_release(&answer);
    answer = rig_call(&rig, API_SETTING_PATCH, (struct asked){ .id = id },
            "{\"DesiredRPO\":null,\"Verify\":true}");
    expect_answer(&answer, DONE, -1);
    expect(json_object_get(answer.json, "DesiredRPO") == NULL);
    expect(json_is_true(json_object_get(answer.json, "Verify")));
    expect_eq(answer_number(&answer, "BandwidthLimit"), 1000);
    expect_str(answer_text(&answer, "ElementName"), "gold");
    answer_release(&answer);
    answer = rig_call(&rig, API_SETTING_GET, (struct asked){ .id = id }, NULL);
    expect_eq(answer_number(&answer, "BandwidthLimit"), 1000);
    expect(json_object_get(answer.json, "DesiredRPO") == NULL);
    answer_release(&answer);
    answer = rig_call(&rig, API_SETTING_DELETE, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_SETTING_GET, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, NOT_FOUND, -1);
    answer_release(&answer);
}

Test(settings, what_is_wrong_and_what_is_not_supported_are_told_apart)
{
    static const struct {
        const char *body, *pointer;
        enum api_verdict verdict;
    } rows[] = {
        { "{\"Colour\":1}", "/Colour", API_INVALID },
        { "{\"DesiredRPO\":9}", "/DesiredRPO", API_INVALID },
        { "{\"DesiredRPO\":\"60\"}", "/DesiredRPO", API_INVALID },
        { "{\"ReplicationPriority\":5}", "/ReplicationPriority", API_INVALID },
        { "{\"ElementName\":\"\"}", "/ElementName", API_INVALID },
        { "{\"FailedCopyStopsHostIO\":true}", "/FailedCopyStopsHostIO",
                API_NOT_SUPPORTED },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct answer answer =
                rig_call(&rig, API_SETTING_CREATE, nothing, rows[i].body);
        cr_assert(answer.outcome.verdict == rows[i].verdict, "%s: %s", rows[i].body,
                verdict_name(answer.outcome.verdict));
        expect_pointer(&answer, rows[i].pointer);
        answer_release(&answer);
    }
}

Test(settings, a_name_is_made_and_cannot_be_removed)
{
    struct answer answer = rig_call(&rig, API_SETTING_CREATE, nothing, NULL);
    char id[37];

    expect_answer(&answer, MADE, -1);
    snprintf(id, sizeof(id), "%s", answer_text(&answer, "Id"));
    expect(strlen(answer_text(&answer, "ElementName")) > 8);
    answer_release(&answer);
    answer = rig_call(&rig, API_SETTING_PATCH, (struct asked){ .id = id },
            "{\"ElementName\":null}");
    expect_answer(&answer, INVALID, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_SETTING_PATCH,
            (struct asked){ .id = id, .if_match = "\"r7\"" }, "{\"Verify\":true}");
    expect_answer(&answer, PRECONDITION, -1);
    answer_release(&answer);
}

Test(pipes, one_is_made_with_canonical_portals)
{
    struct answer answer = rig_call(&rig, API_PIPE_CREATE, nothing,
            "{\"ElementName\":\"to b\",\"SourceSystem\":\"a\",\"TargetSystem\":\"b\","
            "\"TargetEndpoint\":[\"127.0.0.1\",\"[::1]:3261\"],\"BandwidthLimit\":5}");
    json_t *endpoints = json_object_get(answer.json, "TargetEndpoint");

    expect_answer(&answer, MADE, -1);
    expect_eq(json_array_size(endpoints), 2);
    expect_str(json_string_value(json_array_get(endpoints, 0)), "127.0.0.1:3260");
    expect_str(json_string_value(json_array_get(endpoints, 1)), "[::1]:3261");
    expect_eq(answer_number(&answer, "BandwidthLimit"), 5);
    answer_release(&answer);
}

Test(pipes, portals_that_are_none_or_not_allowed_are_refused)
{
    static const struct {
        const char *body, *pointer;
    } rows[] = {
        { "{}", "/TargetEndpoint" },
        { "{\"TargetEndpoint\":[]}", "/TargetEndpoint" },
        { "{\"TargetEndpoint\":[\"127.0.0.1:1\",\"localhost:1\"]}",
                "/TargetEndpoint/1" },
        { "{\"TargetEndpoint\":[\"192.0.2.1:3260\"]}", "/TargetEndpoint/0" },
        { "{\"TargetEndpoint\":[\"127.0.0.1:0\"]}", "/TargetEndpoint/0" },
        { "{\"TargetEndpoint\":[\"127.0.0.1\"],\"Credentials\":\"a/b\"}",
                "/Credentials" },
        { "{\"TargetEndpoint\":[\"127.0.0.1\"],\"Colour\":1}", "/Colour" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct answer answer = rig_call(&rig, API_PIPE_CREATE, nothing, rows[i].body);
        cr_assert(answer.outcome.verdict == API_INVALID, "%s: %s", rows[i].body,
                verdict_name(answer.outcome.verdict));
        expect_pointer(&answer, rows[i].pointer);
        answer_release(&answer);
    }
}

static bool put_pair(struct clerk_turn *turn, void *context)
{
    turn_put(turn, STORE_REPLICA, context);
    return true;
}

Test(pipes, one_that_is_used_keeps_its_way_but_not_its_name)
{
    struct answer answer = rig_call(&rig, API_PIPE_CREATE, nothing,
            "{\"TargetEndpoint\":[\"127.0.0.1:3261\"]}");
    struct store_replica pair = { .copy_type = 2, .sync_state = 13 };
    struct asked asked = { .id = pair.pipe.text };
    char holder[80];

    expect(uuid_parse(answer_text(&answer, "Id"), &pair.pipe));
    answer_release(&answer);
    answer = rig_call(
            &rig, API_PIPE_PATCH, asked, "{\"TargetEndpoint\":[\"127.0.0.1:3262\"]}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    pair.id = uuid_make();
    pair.source = uuid_make();
    expect_eq(clerk_call(rig.service->clerk, put_pair, &pair), 0);
    answer = rig_call(
            &rig, API_PIPE_PATCH, asked, "{\"TargetEndpoint\":[\"127.0.0.1:3261\"]}");
    expect_answer(&answer, IN_USE, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_PIPE_PATCH, asked, "{\"BandwidthLimit\":4096}");
    expect_answer(&answer, DONE, -1);
    expect_eq(answer_number(&answer, "BandwidthLimit"), 4096);
    answer_release(&answer);
    answer = rig_call(&rig, API_PIPE_PATCH, asked, "{\"ElementName\":\"x\"}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_PIPE_DELETE, asked, NULL);
    expect_answer(&answer, IN_USE, -1);
    snprintf(holder, sizeof(holder), "/replicas/%s", pair.id.text);
    expect_str(json_string_value(
                       json_array_get(json_object_get(answer.json, "Holders"), 0)),
            holder);
    answer_release(&answer);
}

/* RFC 7396: a null removes. What is not removed is refused, not passed over. */
Test(pipes, a_null_takes_away_what_may_be_missing)
{
    struct answer answer = rig_call(&rig, API_PIPE_CREATE, nothing,
            "{\"ElementName\":null,\"SourceSystem\":\"a\",\"TargetSystem\":\"b\","
            "\"Credentials\":\"c\",\"BandwidthLimit\":5,"
            "\"TargetEndpoint\":[\"127.0.0.1\"]}");
    static const char *const kept[] = { "ElementName", "TargetEndpoint" };
    char id[64], body[64];
    struct asked asked = { .id = id };

    expect_answer(&answer, MADE, -1);
    snprintf(id, sizeof(id), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
        snprintf(body, sizeof(body), "{\"%s\":null}", kept[i]);
        answer = rig_call(&rig, API_PIPE_PATCH, asked, body);
        expect_answer(&answer, INVALID, -1);
        expect(strstr(answer_detail(&answer), "cannot be removed"));
        answer_release(&answer);
    }
    answer = rig_call(&rig, API_PIPE_PATCH, asked,
            "{\"SourceSystem\":null,\"TargetSystem\":null,\"Credentials\":null,"
            "\"BandwidthLimit\":null}");
    expect_answer(&answer, DONE, -1);
    expect(json_is_null(json_object_get(answer.json, "SourceSystem")));
    expect(json_is_null(json_object_get(answer.json, "TargetSystem")));
    expect(json_is_null(json_object_get(answer.json, "Credentials")));
    expect_eq(answer_number(&answer, "BandwidthLimit"), 0);
    expect_eq(json_array_size(json_object_get(answer.json, "TargetEndpoint")), 1);
    answer_release(&answer);
}

Test(pipes, a_pipe_holds_whole_portals_only)
{
    struct store_pipe pipe = { .endpoints = "[\"127.0.0.1:3260\",\"[::1]:32601\"]" };
    struct sockaddr_storage portal;

    expect(portal_parse("127.0.0.1:3260", 0, false, &portal, NULL) == 0);
    expect(pipe_holds(&pipe, &portal));
    expect(portal_parse("[::1]:3260", 0, false, &portal, NULL) == 0);
    expect(!pipe_holds(&pipe, &portal));
    expect(portal_parse("27.0.0.1:3260", 0, false, &portal, NULL) == 0);
    expect(!pipe_holds(&pipe, &portal));
}

Test(pools, one_says_what_is_free)
{
    struct answer answer =
            rig_call(&rig, API_POOL_GET, (struct asked){ .id = "default" }, NULL);

    expect_answer(&answer, DONE, -1);
    expect_str(answer_text(&answer, "Self"), "/pools/default");
    expect(answer_number(&answer, "TotalManagedSpace") > 0);
    expect(answer_number(&answer, "TotalManagedSpace") >=
            answer_number(&answer, "RemainingManagedSpace"));
    expect(json_is_boolean(json_object_get(answer.json, "CanClone")));
    expect(json_is_true(json_object_get(answer.json, "Default")));
    expect(answer.outcome.etag[0] == '"');
    answer_release(&answer);
    answer = rig_call(&rig, API_POOL_GET, (struct asked){ .id = "nowhere" }, NULL);
    expect_answer(&answer, NOT_FOUND, -1);
    answer_release(&answer);
}

Test(capabilities, they_are_told_per_copy_type)
{
    struct answer answer = rig_call(&rig, API_CAPABILITIES_GET, nothing, NULL);
    json_t *list = json_object_get(answer.json, "StorageReplicationCapabilities");
    json_t *sync = json_array_get(list, 1), *unassoc = json_array_get(list, 3);
    json_t *operations;
    char tag[64];

    expect_answer(&answer, DONE, -1);
    expect_eq(json_array_size(json_object_get(answer.json, "SupportedCopyTypes")), 3);
    expect_eq(json_array_size(list), 4);
    expect(json_is_false(json_object_get(sync, "Supported")));
    expect(strstr(json_string_value(json_object_get(sync, "Reason")), "write path"));
    expect_eq(json_array_size(json_object_get(sync, "SupportedModifyOperations")), 0);
    expect_eq(json_integer_value(
                      json_object_get(unassoc, "SupportedSynchronizationType")),
            6);
    operations = json_object_get(unassoc, "SupportedModifyOperationsName");
    expect_eq(json_array_size(operations), 3);
    expect_str(json_string_value(json_array_get(operations, 0)), "Detach");
    expect_str(json_string_value(json_array_get(operations, 1)), "Resync");
    expect_str(json_string_value(json_array_get(operations, 2)), "Stop Copy");
    expect(strncmp(answer_text(&answer, "InitiatorName"), "iqn.", 4) == 0);
    operations = json_object_get(json_array_get(list, 0), "SupportedModifyOperations");
    expect_eq(json_array_size(operations), 9);
    for (size_t i = 0; i < json_array_size(operations); i++) {
        /* Detach .. Unquiesce, Reset To Async; Reset To Sync is not supported. */
        static const int wanted[] = { 2, 3, 4, 5, 6, 7, 8, 9, 11 };
        expect_eq(json_integer_value(json_array_get(operations, i)), wanted[i]);
    }
    snprintf(tag, sizeof(tag), "%s", answer.outcome.etag);
    answer_release(&answer);
    answer = rig_call(
            &rig, API_CAPABILITIES_GET, (struct asked){ .if_none_match = tag }, NULL);
    expect_answer(&answer, NOT_MODIFIED, -1);
    answer_release(&answer);
}

/** The figures through promtool; its exit code. */
static int promtool(const char *text, size_t length)
{
    FILE *pipe = popen("promtool check metrics", "w");

    expect(pipe != NULL);
    expect(fwrite(text, 1, length, pipe) == length);
    return pclose(pipe);
}

static void figure(const char *text, const char *line)
{
    cr_assert(strstr(text, line) != NULL, "no \"%s\" in\n%s", line, text);
}

Test(figures, promtool_takes_them)
{
    struct store_replica pair = {
        .copy_type = 2, .sync_state = 6, .percent = 50, .when_synced = 1000, .rpo = 60
    };
    struct store_job ended = { .method = "CreateReplica",
        .state = 10,
        .return_value = 4,
        .submitted = 1000,
        .started = 2000,
        .ended = 9000 };
    struct metric_end counted;
    char id[37], line[200];
    size_t length;
    char *text;

    rig_element(&rig, "StorageVolume", 4096, id);
    pair.id = uuid_make();
    pair.source = uuid_make();
    expect_eq(clerk_call(rig.service->clerk, put_pair, &pair), 0);
    counted = metrics_end_of(&ended);
    metrics_job_ended(&rig.service->metrics, &counted);
    text = api_metrics(rig.service, &length);
    expect(text != NULL);
    expect_eq(promtool(text, length), 0);
    figure(text, "\nreplicad_elements 1\n");
    snprintf(line, sizeof(line),
            "replicad_relationship_state{relationship=\"%s\",state=\"Synchronized\"} 1",
            pair.id.text);
    figure(text, line);
    snprintf(line, sizeof(line),
            "replicad_relationship_sync_ratio{relationship=\"%s\"} 0.500",
            pair.id.text);
    figure(text, line);
    figure(text,
            "replicad_jobs_finished_total{type=\"CreateReplica\",result=\"Exception\","
            "return_value=\"4\"} 1");
    figure(text, "replicad_job_duration_seconds_bucket{le=\"5\"} 0");
    figure(text, "replicad_job_duration_seconds_bucket{le=\"15\"} 1");
    figure(text, "replicad_job_duration_seconds_sum 7.000");
    figure(text, "replicad_job_queue_wait_seconds_bucket{le=\"1\"} 1");
    free(text);
}

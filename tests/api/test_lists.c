/* Lists: limit, cursor, Since, filters, Next; what is unknown or wrong is malformed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/service.h"
#include "replica/base/clock.h"
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

TestSuite(lists, .init = begin, .fini = end);

struct settings {
    unsigned first, count;
    char ids[256][37];
};

static bool put_settings(struct clerk_turn *turn, void *context)
{
    struct settings *made = context;

    for (unsigned i = 0; i < made->count; i++) {
        struct store_setting row = { .id = uuid_make(), .revision = 1, .body = "{}" };
        snprintf(row.name, sizeof(row.name), "name%u", made->first + i);
        memcpy(made->ids[i], row.id.text, 37);
        turn_put(turn, STORE_SETTING, &row);
    }
    return true;
}

static void make_settings(struct settings *made, unsigned first, unsigned count)
{
    made->first = first;
    made->count = count;
    expect_eq(clerk_call(rig.service->clerk, put_settings, made), 0);
}

static struct answer list(enum api_call call, const char *query)
{
    return rig_call(&rig, call, (struct asked){ .query = query }, NULL);
}

static size_t members_of(const struct answer *answer)
{
    return json_array_size(json_object_get(answer->json, "Members"));
}

static const char *member_id(const struct answer *answer, size_t n)
{
    return json_string_value(json_object_get(
            json_array_get(json_object_get(answer->json, "Members"), n), "Id"));
}

Test(lists, every_one_of_them_answers)
{
    static const enum api_call calls[] = { API_ELEMENTS_LIST, API_JOBS_LIST,
        API_REPLICAS_LIST, API_RESULTS_LIST, API_SETTINGS_LIST, API_PIPES_LIST,
        API_POOLS_LIST };

    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        struct answer answer = list(calls[i], NULL);
        expect_answer(&answer, DONE, -1);
        expect(json_is_array(json_object_get(answer.json, "Members")));
        expect(json_is_null(json_object_get(answer.json, "Next")));
        expect_str(answer.outcome.next, "");
        answer_release(&answer);
    }
}

Test(lists, pages_hold_every_member_once_newest_first)
{
    struct settings made;
    char query[600] = "limit=7";
    unsigned seen = 0;

    make_settings(&made, 0, 30);
    for (unsigned pages = 1;; pages++) {
        struct answer answer = list(API_SETTINGS_LIST, query);
        const char *next = json_string_value(json_object_get(answer.json, "Next"));
        expect_answer(&answer, DONE, -1);
        for (size_t i = 0; i < members_of(&answer); i++, seen++)
            expect_str(member_id(&answer, i), made.ids[29 - seen]);
        expect_str(answer.outcome.next, next ? next : "");
        if (!next) {
            expect_eq(pages, 5);
            answer_release(&answer);
            break;
        }
        expect_eq(members_of(&answer), 7);
        expect(strncmp(next, "/settings?", 10) == 0);
        snprintf(query, sizeof(query), "%s", next + 10);
        answer_release(&answer);
    }
    expect_eq(seen, 30);
}

Test(lists, a_last_page_that_is_full_has_no_next)
{
    struct settings made;
    struct answer answer;

    make_settings(&made, 0, 3);
    answer = list(API_SETTINGS_LIST, "limit=3");
    expect_eq(members_of(&answer), 3);
    expect(json_is_null(json_object_get(answer.json, "Next")));
    answer_release(&answer);
}

Test(lists, what_is_made_meanwhile_shifts_nothing)
{
    struct settings made, later;
    struct answer answer;
    char query[600];

    make_settings(&made, 0, 4);
    answer = list(API_SETTINGS_LIST, "limit=2");
    snprintf(query, sizeof(query), "%s", answer_text(&answer, "Next") + 10);
    answer_release(&answer);
    make_settings(&later, 100, 5);
    answer = list(API_SETTINGS_LIST, query);
    expect_eq(members_of(&answer), 2);
    expect_str(member_id(&answer, 0), made.ids[1]);
    answer_release(&answer);
}

Test(lists, the_default_is_50_members)
{
    struct settings made;
    struct answer answer;

    make_settings(&made, 0, 60);
    answer = list(API_SETTINGS_LIST, NULL);
    expect_eq(members_of(&answer), 50);
    answer_release(&answer);
    answer = list(API_SETTINGS_LIST, "limit=500");
    expect_eq(members_of(&answer), 60);
    answer_release(&answer);
}

Test(lists, next_keeps_the_filters_escaped)
{
    struct settings made;
    struct answer answer;

    make_settings(&made, 0, 2);
    for (int i = 0; i < 2; i++) {
        answer = rig_call(
                &rig, API_SETTING_CREATE, nothing, "{\"ElementName\":\"a b&c\"}");
        answer_release(&answer);
    }
    {
        const struct api_parameter query[] = { { "ElementName", "a b&c" },
            { "limit", "1" } };
        struct api_request request = { .call = API_SETTINGS_LIST,
            .query = query,
            .query_count = 2,
            .prefer_wait_s = -1 };
        api_serve(rig.service, &request, &answer.outcome);
    }
    expect(strstr(answer.outcome.next, "&ElementName=a%20b%26c&limit=1") != NULL);
    api_outcome_release(&answer.outcome);
}

Test(lists, what_is_unknown_or_wrong_is_malformed)
{
    static const struct {
        enum api_call call;
        const char *query;
    } rows[] = {
        { API_SETTINGS_LIST, "limit=0" },
        { API_SETTINGS_LIST, "limit=501" },
        { API_SETTINGS_LIST, "limit=" },
        { API_SETTINGS_LIST, "limit=1x" },
        { API_SETTINGS_LIST, "limit=99999999999999999999" },
        { API_SETTINGS_LIST, "limit=1&limit=1" },
        { API_SETTINGS_LIST, "cursor=abc" },
        { API_SETTINGS_LIST, "cursor=6f1d3c1e-2d57-4f0e-9a6b-0d6f5a3c1b2a" },
        { API_SETTINGS_LIST, "Since=yesterday" },
        { API_SETTINGS_LIST, "Since=2026-01-01" },
        { API_SETTINGS_LIST, "elementname=x" },
        { API_SETTINGS_LIST, "JobState=4" },
        { API_SETTINGS_LIST, "ElementName=" },
        { API_SETTINGS_LIST, "ElementName=a,,b" },
        { API_SETTINGS_LIST, "ElementName=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q" },
        { API_JOBS_LIST, "JobState=Walking" },
        { API_JOBS_LIST, "JobState=-1" },
        { API_JOBS_LIST, "JobState=65536" },
        { API_JOBS_LIST, "SourceElement=x" },
        { API_JOBS_LIST, "SourceElement=/jobs/01900000-0000-7000-8000-000000000000" },
        { API_ELEMENTS_LIST, "Remote=1" },
        { API_ELEMENTS_LIST, "Type=Disk" },
        { API_ELEMENTS_LIST, "Pool=/elements/default" },
        { API_POOLS_LIST, "Colour=red" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct answer answer = list(rows[i].call, rows[i].query);
        cr_assert(answer.outcome.verdict == API_MALFORMED &&
                        answer.outcome.return_value == -1,
                "%s: %s", rows[i].query, verdict_name(answer.outcome.verdict));
        answer_release(&answer);
    }
}

static size_t found(enum api_call call, const char *query)
{
    struct answer answer = list(call, query);
    size_t count = members_of(&answer);

    cr_assert(answer.outcome.verdict == API_DONE, "%s: %s", query,
            answer_detail(&answer));
    answer_release(&answer);
    return count;
}

Test(lists, comma_is_or_and_members_are_and)
{
    struct settings made;

    make_settings(&made, 0, 10);
    expect_eq(found(API_SETTINGS_LIST, "ElementName=name3"), 1);
    expect_eq(found(API_SETTINGS_LIST, "ElementName=name3,name4,nobody"), 2);
    expect_eq(found(API_SETTINGS_LIST, "ElementName=name3,name3"), 1);
    expect_eq(found(API_SETTINGS_LIST, "ElementName=nobody"), 0);
}

Test(lists, elements_by_type_pool_and_parent)
{
    char volume[37], file[37], query[100];
    struct answer answer;

    rig_element(&rig, "StorageVolume", 4096, volume);
    rig_element(&rig, "LogicalFile", 100, file);
    answer = rig_callf(&rig, API_ELEMENT_CREATE, nothing,
            "{\"Type\":\"StorageExtent\",\"Of\":\"%s\",\"Size\":512,\"ElementName\":"
            "\"part\"}",
            volume);
    expect_answer(&answer, MADE, 0);
    answer_release(&answer);
    expect_eq(found(API_ELEMENTS_LIST, "Type=StorageVolume"), 1);
    expect_eq(found(API_ELEMENTS_LIST, "Type=StorageVolume,LogicalFile"), 2);
    expect_eq(found(API_ELEMENTS_LIST, "Pool=default"), 2);
    expect_eq(found(API_ELEMENTS_LIST, "Pool=/pools/default&Type=LogicalFile"), 1);
    expect_eq(found(API_ELEMENTS_LIST, "Pool=alpha"), 0);
    expect_eq(found(API_ELEMENTS_LIST, "Remote=false"), 3);
    expect_eq(found(API_ELEMENTS_LIST, "Remote=true"), 0);
    expect_eq(found(API_ELEMENTS_LIST, "Usage=2"), 3);
    expect_eq(found(API_ELEMENTS_LIST, "Usage=Unrestricted&ElementName=part"), 1);
    snprintf(query, sizeof(query), "Of=/elements/%s", volume);
    expect_eq(found(API_ELEMENTS_LIST, query), 1);
}

Test(lists, since_is_a_time)
{
    struct settings made;
    char now[CLOCK_TEXT], query[100];

    make_settings(&made, 0, 3);
    clock_format(clock_wall_ms() + 3600 * 1000, now);
    snprintf(query, sizeof(query), "Since=%s", now);
    expect_eq(found(API_SETTINGS_LIST, query), 0);
    expect_eq(found(API_SETTINGS_LIST, "Since=2026-01-01T00:00:00Z"), 3);
}

Test(lists, pools_come_in_the_order_of_the_options)
{
    struct answer answer = list(API_POOLS_LIST, NULL);

    expect_eq(members_of(&answer), 2);
    expect_str(member_id(&answer, 0), "default");
    expect_str(member_id(&answer, 1), "alpha");
    expect(json_is_null(json_object_get(answer.json, "Next")));
    answer_release(&answer);
}

Test(lists, pools_have_pages_as_every_list)
{
    static const char *const bad[] = { "limit=0", "limit=501", "limit=x",
        "limit=", "cursor=0", "cursor=2", "cursor=alpha", "cursor=-1",
        "Since=2026-01-01", "x=1" };
    struct answer answer = list(API_POOLS_LIST, "limit=1");

    expect_eq(members_of(&answer), 1);
    expect_str(member_id(&answer, 0), "default");
    expect_str(answer_text(&answer, "Next"), "/pools?cursor=1&limit=1");
    answer_release(&answer);
    answer = list(API_POOLS_LIST, "cursor=1&limit=1");
    expect_eq(members_of(&answer), 1);
    expect_str(member_id(&answer, 0), "alpha");
    expect(json_is_null(json_object_get(answer.json, "Next")));
    answer_release(&answer);
    expect_eq(found(API_POOLS_LIST, "limit=2"), 2);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        answer = list(API_POOLS_LIST, bad[i]);
        expect_answer(&answer, MALFORMED, -1);
        answer_release(&answer);
    }
}

Test(lists, results_tell_of_every_call_of_a_method)
{
    struct answer answer;
    char id[37];

    rig_element(&rig, "StorageVolume", 4096, id);
    answer = rig_call(&rig, API_ELEMENT_CREATE, nothing, "{\"Type\":\"FileSystem\"}");
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_CREATE, nothing, "{\"Type\":");
    expect_answer(&answer, MALFORMED, -1);
    answer_release(&answer);
    expect_eq(found(API_RESULTS_LIST, NULL), 2);
    expect_eq(found(API_RESULTS_LIST, "ReturnValue=1"), 1);
    expect_eq(found(API_RESULTS_LIST, "ReturnValue=0,1,5"), 2);
    expect_eq(
            found(API_RESULTS_LIST, "MethodName=CreateOrModifyElementFromStoragePool"),
            2);
    expect_eq(found(API_RESULTS_LIST, "Caller=127.0.0.1"), 2);
    answer = list(API_RESULTS_LIST, "ReturnValue=0");
    {
        json_t *row = json_array_get(json_object_get(answer.json, "Members"), 0);
        char path[80];
        snprintf(path, sizeof(path), "/elements/%s", id);
        expect_str(json_string_value(json_object_get(row, "TargetElement")), path);
        expect_eq(json_integer_value(json_object_get(
                          json_object_get(row, "InParameters"), "Size")),
                4096);
        expect_str(json_string_value(json_object_get(row, "Caller")), "127.0.0.1");
        expect_str(json_string_value(json_object_get(row, "RequestId")), "test");
        snprintf(path, sizeof(path), "%s",
                json_string_value(json_object_get(row, "Id")));
        answer_release(&answer);
        answer = rig_call(&rig, API_RESULT_GET, (struct asked){ .id = path }, NULL);
        expect_answer(&answer, DONE, -1);
        expect_eq(answer_number(&answer, "ReturnValue"), 0);
    }
    answer_release(&answer);
}

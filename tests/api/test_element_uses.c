/* What an element is a part of: extents and their parents, pairs, jobs. What holds it, and
 * what its Usage and Complete say of that. */
#include <stdio.h>
#include <string.h>

#include "api/elements.h"
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

TestSuite(element_uses, .init = begin, .fini = end);

/* -- extents ----------------------------------------------------------------------- */

/** An extent of @of, and its verdict. */
static struct answer extent(
        const char *of, unsigned long long offset, unsigned long long size)
{
    return rig_callf(&rig, API_ELEMENT_CREATE, nothing,
            "{\"Type\":\"StorageExtent\",\"Of\":\"/elements/%s\",\"Offset\":%llu,"
            "\"Size\":%llu}",
            of, offset, size);
}

Test(element_uses, an_extent_lies_inside_its_parent_in_whole_blocks)
{
    static const struct {
        unsigned long long offset, size;
        bool good;
        const char *pointer;
    } rows[] = {
        { 0, 1048576, true, NULL },
        { 512, 512, true, NULL },
        { 1048064, 512, true, NULL },
        { 1048576, 512, false, "/Offset" },
        { 1048064, 1024, false, "/Size" },
        { 513, 512, false, "/Offset" },
        { 512, 513, false, "/Size" },
        { 9223372036854775296ull, 9223372036854775296ull, false, "/Offset" },
    };
    struct answer answer;
    char id[37], part[37];

    rig_element(&rig, "StorageVolume", 1048576, id);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        answer = extent(id, rows[i].offset, rows[i].size);
        if (rows[i].good) {
            expect_answer(&answer, MADE, 0);
            expect_eq(answer_number(&answer, "Offset"), rows[i].offset);
            expect_eq(answer_number(&answer, "Size"), rows[i].size);
            snprintf(part, sizeof(part), "%s", answer_text(&answer, "Id"));
        } else {
            expect_answer(&answer, INVALID, 5);
            expect_pointer(&answer, rows[i].pointer);
        }
        answer_release(&answer);
    }
    answer = extent(part, 0, 512);
    expect_answer(&answer, INVALID, 5);
    expect_pointer(&answer, "/Of");
    answer_release(&answer);
}

Test(element_uses, an_extent_holds_its_parent)
{
    struct answer answer;
    char id[37], part[37], holder[80];

    rig_element(&rig, "StorageVolume", 4096, id);
    answer = extent(id, 0, 512);
    snprintf(part, sizeof(part), "%s", answer_text(&answer, "Id"));
    snprintf(holder, sizeof(holder), "%s", answer.outcome.location);
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, IN_USE, 6);
    expect_str(json_string_value(
                       json_array_get(json_object_get(answer.json, "Holders"), 0)),
            holder);
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = part }, NULL);
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
}

/* -- pairs and jobs ---------------------------------------------------------------- */

/* Rows that the two methods would put. */
static bool put_pair(struct clerk_turn *turn, void *context)
{
    turn_put(turn, STORE_REPLICA, context);
    return true;
}

static bool refresh(struct clerk_turn *turn, void *context)
{
    element_refresh_usage(turn, context);
    return true;
}

static long long usage_of(const struct uuid *id)
{
    struct answer answer;
    long long usage;

    expect_eq(clerk_call(rig.service->clerk, refresh, (void *)(uintptr_t)id), 0);
    answer = rig_call(&rig, API_ELEMENT_GET, (struct asked){ .id = id->text }, NULL);
    usage = answer_number(&answer, "Usage");
    answer_release(&answer);
    return usage;
}

Test(element_uses, a_pair_holds_both_ends_and_shows_in_usage)
{
    struct store_replica pair = { .copy_type = 4, .sync_state = 14 };
    struct store_replica next = { .copy_type = 4, .sync_state = 14 };
    struct uuid a, b, c;
    struct answer answer;

    rig_element(&rig, "StorageVolume", 4096, a.text);
    rig_element(&rig, "StorageVolume", 4096, b.text);
    rig_element(&rig, "StorageVolume", 4096, c.text);
    pair.id = b;
    pair.source = a;
    expect_eq(clerk_call(rig.service->clerk, put_pair, &pair), 0);
    expect_eq(usage_of(&a), 6);
    expect_eq(usage_of(&b), 8);
    expect_eq(usage_of(&c), 2);
    next.id = c;
    next.source = b;
    expect_eq(clerk_call(rig.service->clerk, put_pair, &next), 0);
    expect_eq(usage_of(&b), 10);
    for (int i = 0; i < 3; i++) {
        const char *id = i == 0 ? a.text : i == 1 ? b.text : c.text;
        answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
        expect_answer(&answer, IN_USE, 6);
        answer_release(&answer);
    }
}

static bool mark_remote(struct clerk_turn *turn, void *context)
{
    struct store_element row;

    expect(turn_get(turn, STORE_ELEMENT, context, &row));
    row.remote = true;
    turn_put(turn, STORE_ELEMENT, &row);
    return true;
}

Test(element_uses, usage_tells_remote_pairs_from_local_ones)
{
    struct store_replica pair = { .copy_type = 2, .sync_state = 13 };
    struct uuid a, b;

    rig_element(&rig, "StorageVolume", 4096, a.text);
    rig_element(&rig, "StorageVolume", 4096, b.text);
    expect_eq(clerk_call(rig.service->clerk, mark_remote, b.text), 0);
    pair.id = b;
    pair.source = a;
    expect_eq(clerk_call(rig.service->clerk, put_pair, &pair), 0);
    expect_eq(usage_of(&a), 7);
    expect_eq(usage_of(&b), 9);
}

static bool put_job(struct clerk_turn *turn, void *context)
{
    turn_put(turn, STORE_JOB, context);
    return true;
}

Test(element_uses, a_live_job_holds_both_ends_and_one_that_is_over_none)
{
    struct store_job job = {
        .id = uuid_make(), .method = "CreateReplica", .state = CIM_JOB_SUSPENDED
    };
    struct answer answer;

    rig_element(&rig, "StorageVolume", 4096, job.source.text);
    rig_element(&rig, "StorageVolume", 4096, job.target.text);
    expect_eq(clerk_call(rig.service->clerk, put_job, &job), 0);
    for (int over = 0; over < 2; over++) {
        for (int end = 0; end < 2; end++) {
            const char *id = end ? job.target.text : job.source.text;
            answer = rig_call(
                    &rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
            if (over)
                expect_answer(&answer, DONE, 0);
            else
                expect_answer(&answer, IN_USE, 6);
            answer_release(&answer);
        }
        job.state = CIM_JOB_COMPLETED;
        expect_eq(clerk_call(rig.service->clerk, put_job, &job), 0);
    }
}

/* -- complete ---------------------------------------------------------------------- */

static bool mark_incomplete(struct clerk_turn *turn, void *context)
{
    struct store_element row;

    expect(turn_get(turn, STORE_ELEMENT, context, &row));
    row.complete = false;
    row.revision++;
    turn_put(turn, STORE_ELEMENT, &row);
    return true;
}

static bool is_complete(const char *id)
{
    struct answer answer =
            rig_call(&rig, API_ELEMENT_GET, (struct asked){ .id = id }, NULL);
    bool complete = json_is_true(json_object_get(answer.json, "Complete"));

    answer_release(&answer);
    return complete;
}

Test(element_uses, complete_is_said_of_all_the_bytes)
{
    struct answer answer;
    char id[37], low[37], high[37], across[37];

    rig_element(&rig, "StorageVolume", 4096, id);
    answer = extent(id, 0, 1024);
    snprintf(low, sizeof(low), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = extent(id, 1024, 1024);
    snprintf(high, sizeof(high), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = extent(id, 512, 1024);
    snprintf(across, sizeof(across), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    expect(is_complete(id) && is_complete(low) && is_complete(high) &&
            is_complete(across));
    expect_eq(clerk_call(rig.service->clerk, mark_incomplete, low), 0);
    expect(!is_complete(id) && !is_complete(low) && !is_complete(across));
    expect(is_complete(high));
}

Test(element_uses, neighbours_do_not_overlap)
{
    struct answer answer;
    char id[37], parts[3][37], tag[64];

    rig_element(&rig, "StorageVolume", 4096, id);
    for (int i = 0; i < 3; i++) {
        answer = extent(id, 1024 * (unsigned)i, 1024);
        snprintf(parts[i], sizeof(parts[i]), "%s", answer_text(&answer, "Id"));
        answer_release(&answer);
    }
    answer = rig_call(&rig, API_ELEMENT_GET, (struct asked){ .id = id }, NULL);
    snprintf(tag, sizeof(tag), "%s", answer.outcome.etag);
    answer_release(&answer);
    expect_eq(clerk_call(rig.service->clerk, mark_incomplete, parts[1]), 0);
    expect(is_complete(parts[0]) && !is_complete(parts[1]) && is_complete(parts[2]));
    answer = rig_call(&rig, API_ELEMENT_GET, (struct asked){ .id = id }, NULL);
    expect(strcmp(answer.outcome.etag, tag) !=
            0); /* it shows Complete, of its parts too */
    answer_release(&answer);
}

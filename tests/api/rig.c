#include "tests/api/rig.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rig_make(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    expect(directory_make(&rig->directory));
    snprintf(rig->data, sizeof(rig->data), "%s/data", rig->directory.path);
    snprintf(rig->pool, sizeof(rig->pool), "%s/pool", rig->directory.path);
    snprintf(rig->other, sizeof(rig->other), "%s/other", rig->directory.path);
    snprintf(rig->credentials, sizeof(rig->credentials), "%s/credentials",
            rig->directory.path);
    expect(mkdir(rig->data, 0700) == 0);
    expect(mkdir(rig->credentials, 0700) == 0);
    rig->pools[0] = (struct api_pool){ "default", rig->pool };
    rig->pools[1] = (struct api_pool){ "alpha", rig->other };
    rig->options = (struct api_options){
        .data_directory = rig->data,
        .pools = rig->pools,
        .pool_count = 2,
        .credentials = rig->credentials,
        .iqn_prefix = "iqn.2026-11.example",
        .connect_timeout_ms = 20000,
        .io_timeout_ms = 20000,
        .workers = 1,
        .max_jobs = 2,
    };
}

void rig_start(struct rig *rig)
{
    struct fault fault = { 0 };

    rig->service = service_create(&rig->options, &fault);
    cr_assert(rig->service != NULL, "service: %s", fault.why);
}

void rig_stop(struct rig *rig)
{
    service_drain(rig->service);
    service_destroy(rig->service);
    rig->service = NULL;
}

void rig_remove(struct rig *rig)
{
    if (rig->service)
        rig_stop(rig);
    directory_remove(&rig->directory);
}

static size_t query_take(char *text, struct api_parameter *list, size_t room)
{
    size_t count = 0;

    for (char *at = text, *one; at && *at && count < room;) {
        one = strsep(&at, "&");
        list[count].name = strsep(&one, "=");
        list[count++].value = one ? one : "";
    }
    return count;
}

enum call_kind { READ, WRITE, METHOD };

static const enum call_kind kinds[] = {
#define CALL(symbol, method, kind) [API_##symbol] = kind,
#include "api/calls.tbl.h"
#undef CALL
};

struct answer rig_call(
        struct rig *rig, enum api_call call, struct asked asked, const char *body)
{
    struct api_parameter query[16];
    char *text = asked.query ? strdup(asked.query) : NULL;
    struct api_request request = {
        .call = call,
        .id = asked.id,
        .body = body,
        .length = body ? strlen(body) : 0,
        .query = query,
        .query_count = text ? query_take(text, query, 16) : 0,
        .if_match = asked.if_match,
        .if_none_match = asked.if_none_match,
        .idempotency_key = asked.key,
        .prefer_wait_s = asked.wait_s ? asked.wait_s : -1,
        .caller = "127.0.0.1",
        .request_id = "test",
    };
    struct answer answer = { 0 };
    size_t length;
    char *problem;

    api_serve(rig->service, &request, &answer.outcome);
    free(text);
    cr_assert(kinds[call] == METHOD || answer.outcome.return_value == -1,
            "call %d is no method, and its answer has ReturnValue %d", (int)call,
            answer.outcome.return_value);
    if (answer.outcome.body) {
        answer.json = json_loadb(answer.outcome.body, answer.outcome.length,
                JSON_REJECT_DUPLICATES, NULL);
        cr_assert(answer.json != NULL, "no JSON: %s", answer.outcome.body);
    } else if (answer.outcome.problem) {
        problem = api_problem_render(&answer.outcome, 400, "test", &length);
        answer.json = json_loadb(problem, length, JSON_REJECT_DUPLICATES, NULL);
        free(problem);
    }
    return answer;
}

struct answer rig_callf(struct rig *rig, enum api_call call, struct asked asked,
        const char *format, ...)
{
    struct answer answer;
    va_list arguments;
    char *body;

    va_start(arguments, format);
    expect(vasprintf(&body, format, arguments) >= 0);
    va_end(arguments);
    answer = rig_call(rig, call, asked, body);
    free(body);
    return answer;
}

void answer_release(struct answer *answer)
{
    json_decref(answer->json);
    answer->json = NULL;
    api_outcome_release(&answer->outcome);
}

const char *answer_text(const struct answer *answer, const char *member)
{
    const char *text = json_string_value(json_object_get(answer->json, member));

    return text ? text : "(none)";
}

long long answer_number(const struct answer *answer, const char *member)
{
    json_t *value = json_object_get(answer->json, member);

    cr_assert(json_is_integer(value), "%s is no number", member);
    return json_integer_value(value);
}

const char *answer_detail(const struct answer *answer)
{
    return answer_text(answer, "detail");
}

const char *verdict_name(enum api_verdict verdict)
{
    static const char *const names[] = {
#define VERDICT(symbol, slug, title) #symbol,
#include "api/verdicts.tbl.h"
#undef VERDICT
    };

    return verdict < API_VERDICT_COUNT ? names[verdict] : "?";
}

void expect_pointer(const struct answer *answer, const char *pointer)
{
    json_t *errors = json_object_get(answer->json, "Errors");
    const char *first =
            json_string_value(json_object_get(json_array_get(errors, 0), "Pointer"));

    cr_assert(first && strcmp(first, pointer) == 0, "pointer %s, not %s: %s",
            first ? first : "(none)", pointer, answer_detail(answer));
}

void rig_element(
        struct rig *rig, const char *type, unsigned long long size, char id[37])
{
    struct answer answer = rig_callf(rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"%s\",\"Pool\":\"default\",\"Size\":%llu}", type, size);

    expect_answer(&answer, MADE, 0);
    snprintf(id, 37, "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
}

void rig_file(struct rig *rig, const char *name, size_t size, int value)
{
    char path[600], block[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", rig->pool, name);
    memset(block, value, sizeof(block));
    file = fopen(path, "w");
    expect(file != NULL);
    for (size_t left = size; left;) {
        size_t n = left < sizeof(block) ? left : sizeof(block);
        expect(fwrite(block, 1, n, file) == n);
        left -= n;
    }
    expect(fclose(file) == 0);
}

/* Every allocation failed once: an answer, never a lie, a crash or a leak.
 *
 * The linker (--wrap) sends ours here, and jansson's, which api/json leads to malloc() itself.
 * A sweep ends when a run needed fewer allocations than the one that was to fail. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "api/json/body.h"
#include "api/json/writer.h"

static long until = -1; /* allocations that still succeed; -1: all */
static bool failed;

static bool fails(void)
{
    if (until < 0)
        return false;
    failed = failed || until == 0;
    return until-- == 0;
}

void *__real_malloc(size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_calloc(size_t count, size_t size);
char *__real_strndup(const char *text, size_t length);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_calloc(size_t count, size_t size);
char *__wrap_strndup(const char *text, size_t length);
char *__wrap_strdup(const char *text);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

char *__wrap_strndup(const char *text, size_t length)
{
    return fails() ? NULL : __real_strndup(text, length);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

struct call {
    int64_t copy_type;
    char name[65];
    struct goal goal;
    struct body_texts texts;
    bool given[4];
};

static const struct body_member members[] = {
    { "CopyType", BODY_CIM, true, offsetof(struct call, copy_type),
            offsetof(struct call, given), 0, 0, CIM_COPY_TYPE, NULL },
    { "ElementName", BODY_TEXT, false, offsetof(struct call, name),
            offsetof(struct call, given) + 1, 1, 64, CIM_MAP_COUNT, NULL },
    { "Goal", BODY_GOAL, false, offsetof(struct call, goal),
            offsetof(struct call, given) + 2, 0, 0, CIM_MAP_COUNT, NULL },
    { "Texts", BODY_TEXTS, false, offsetof(struct call, texts),
            offsetof(struct call, given) + 3, 0, 0, CIM_MAP_COUNT, NULL },
};

static const char with_json[] =
        "{\"CopyType\":4,\"ElementName\":\"a long enough name for the heap\",\"Goal\":"
        "\"{\\\"DesiredRPO\\\":60,\\\"Verify\\\":true}\",\"Texts\":[\"a\",\"b\"]}";
static const char with_mof[] =
        "{\"CopyType\":4,\"Goal\":\"instance of CIM_SettingData { DesiredRPO = 60; "
        "ElementName = \\\"x\\\"; Verify = TRUE; };\"}";
static const char with_faults[] =
        "{\"CopyType\":99999999999999999999,\"Nope\":1,\"Goal\":{\"AutoDelete\":true}}";

/* One run with the @k-th allocation failing; true when there was such a one. */
static bool decode_once(long k, const char *text, int good)
{
    struct body_problems problems;
    struct call call = { 0 };
    int result;

    failed = false;
    until = k;
    result = body_decode(text, strlen(text), members, 4, &call, &problems);
    until = -1;
    cr_assert(result == good || (failed && result == -ENOMEM), "%ld: %d", k, result);
    cr_assert(result != 0 || (call.copy_type == 4 && call.goal.desired_rpo == 60),
            "%ld", k);
    cr_assert(result != -EINVAL || problems.count > 0);
    cr_assert(failed || result == good);
    return failed;
}

static void sweep(const char *text, int good)
{
    long k = 0;

    while (decode_once(k, text, good))
        k++;
    cr_assert(k > 10, "%ld allocations only", k);
}

Test(memory, a_body_with_json_text)
{
    sweep(with_json, 0);
}

Test(memory, a_body_with_mof_text)
{
    sweep(with_mof, 0);
}

Test(memory, a_body_with_faults)
{
    sweep(with_faults, -EINVAL);
}

static char *answer(void)
{
    struct writer *writer = writer_create();

    if (!writer)
        return NULL;
    writer_array(writer, "Members");
    for (int i = 0; i < 30; i++) { /* it must grow */
        writer_object(writer, NULL);
        writer_cim(writer, "CopyType", CIM_COPY_TYPE, 4);
        writer_text(writer, "Bad", "\xff");
        writer_json(
                writer, "Goal", "{\"DesiredRPO\":60,\"More\":[1,\"x\",{\"y\":null}]}");
        writer_array(writer, "Inner");
        writer_path(writer, NULL, "jobs", "1");
        writer_end(writer);
        writer_end(writer);
    }
    writer_end(writer);
    writer_time(writer, "Time", 1);
    return writer_finish(&writer, NULL);
}

Test(memory, an_answer_is_whole_or_none)
{
    char *whole = answer();

    cr_assert(whole);
    for (long k = 0;; k++) {
        failed = false;
        until = k;
        char *text = answer();
        until = -1;
        cr_assert(!text || strcmp(text, whole) == 0, "%ld: %s", k, text);
        cr_assert(text || failed, "%ld", k);
        free(text);
        if (!failed) {
            cr_assert(k > 30, "%ld", k);
            break;
        }
    }
    free(whole);
}

static char *canonical(void)
{
    static const char text[] = "{\"b\":[1,{\"c\":99999999999999999999}],\"a\":\"x\"}";

    return body_canonical(text, strlen(text));
}

static char *patched(void)
{
    static const char patch[] = "{\"a\":\"x\",\"b\":{\"c\":null,\"d\":{}}}";

    return body_patch("{\"b\":{\"c\":1}}", patch, strlen(patch));
}

static char *goal(void)
{
    struct goal value;

    goal_init(&value);
    value.given_desired_rpo = value.given_verify = true;
    return goal_text(&value);
}

Test(memory, texts_are_whole_or_none)
{
    static char *(*const makers[])(void) = { canonical, patched, goal };

    for (int i = 0; i < 3; i++) {
        char *whole = makers[i]();
        cr_assert(whole, "%d", i);
        for (long k = 0;; k++) {
            failed = false;
            until = k;
            char *text = makers[i]();
            until = -1;
            cr_assert(!text || strcmp(text, whole) == 0, "%d, %ld: %s", i, k, text);
            cr_assert(text || failed, "%ld", k);
            free(text);
            if (!failed)
                break;
        }
        free(whole);
    }
}

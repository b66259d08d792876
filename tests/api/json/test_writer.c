/* Answers: what the writer prints, and that our own decoder and a stranger's rules read it;
 * random ones are what jansson prints of the same tree. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "api/json/body.h"
#include "api/json/writer.h"
#include "tests/support/seed.h"

static void prints(struct writer *writer, const char *want)
{
    size_t length = 0;
    char *text = writer_finish(&writer, &length), *again;

    cr_assert(text && strcmp(text, want) == 0, "%s\nnot\n%s", text, want);
    cr_assert(length == strlen(want));
    cr_assert(writer == NULL);
    again = body_canonical(text, length); /* JSON, no key twice, no bad UTF-8 */
    cr_assert(again);
    free(again);
    free(text);
}

Test(writer, nothing_is_an_empty_object)
{
    prints(writer_create(), "{}");
}

Test(writer, members_keep_their_order)
{
    struct writer *writer = writer_create();

    writer_text(writer, "Zeta", "z");
    writer_number(writer, "Alpha", 1);
    writer_signed(writer, "Minus", -1);
    writer_flag(writer, "Yes", true);
    writer_flag(writer, "No", false);
    writer_null(writer, "None");
    writer_text(writer, "Void", NULL);
    prints(writer,
            "{\"Zeta\":\"z\",\"Alpha\":1,\"Minus\":-1,\"Yes\":true,\"No\":false,"
            "\"None\":null,\"Void\":null}");
}

Test(writer, sizes_beyond_63_bits_are_capped)
{
    struct writer *writer = writer_create();

    writer_number(writer, "A", 9223372036854775807u);
    writer_number(writer, "B", 9223372036854775808u);
    writer_number(writer, "C", UINT64_MAX);
    writer_signed(writer, "D", INT64_MIN);
    prints(writer,
            "{\"A\":9223372036854775807,\"B\":9223372036854775807,"
            "\"C\":9223372036854775807,\"D\":-9223372036854775808}");
}

Test(writer, words_of_cim_have_their_name_beside_them)
{
    struct writer *writer = writer_create();

    writer_cim(writer, "CopyType", CIM_COPY_TYPE, 4);
    writer_cim(writer, "SyncState", CIM_SYNC_STATE, 1);
    writer_array(writer, "OperationalStatus");
    writer_cim(writer, NULL, CIM_OPERATIONAL_STATUS, 17);
    writer_cim(writer, NULL, CIM_OPERATIONAL_STATUS, 2);
    writer_end(writer);
    prints(writer,
            "{\"CopyType\":4,\"CopyTypeName\":\"UnSyncAssoc\",\"SyncState\":1,"
            "\"SyncStateName\":null,\"OperationalStatus\":[17,2]}");
}

Test(writer, paths_and_times)
{
    struct writer *writer = writer_create();

    writer_path(writer, "Job", "jobs", "0193");
    writer_path(writer, "Replica", "replicas", "");
    writer_path(writer, "Pool", "pools", NULL);
    writer_time(writer, "When", 1700000000123);
    writer_time(writer, "Never", 0);
    prints(writer,
            "{\"Job\":\"/jobs/0193\",\"Replica\":null,\"Pool\":null,"
            "\"When\":\"2023-11-14T22:13:20.123Z\",\"Never\":null}");
}

Test(writer, objects_arrays_and_text_taken_as_it_is)
{
    struct writer *writer = writer_create();

    writer_array(writer, "Members");
    writer_object(writer, NULL);
    writer_json(writer, "Goal", "{\"Verify\":true,\"DesiredRPO\":60}");
    writer_json(writer, "Warnings", "[\"a\"]");
    writer_json(writer, "Empty", "");
    writer_json(writer, "Null", NULL);
    writer_json(writer, "Bare", "7");
    writer_end(writer);
    writer_text(writer, NULL, "x");
    writer_array(writer, NULL);
    writer_end(writer);
    writer_null(writer, NULL);
    writer_end(writer);
    writer_text(writer, "Next", NULL);
    prints(writer,
            "{\"Members\":[{\"Goal\":{\"Verify\":true,\"DesiredRPO\":60},"
            "\"Warnings\":[\"a\"],\"Empty\":null,\"Null\":null,\"Bare\":7},\"x\",[],"
            "null],\"Next\":null}");
}

Test(writer, text_is_ascii_and_harmless)
{
    struct writer *writer = writer_create();

    writer_text(writer, "A", "\"\\\n\t\x01 \x7f");
    writer_text(writer, "B", "\xc3\xa9 \xf0\x9f\x92\xbe");
    writer_text(writer, "k\"e\ny", "</script>");
    prints(writer,
            "{\"A\":\"\\\"\\\\\\n\\t\\u0001 \x7f\",\"B\":\"\\u00E9 \\uD83D\\uDCBE\","
            "\"k\\\"e\\ny\":\"</script>\"}");
}

Test(writer, a_far_sides_bytes_are_repaired)
{
    struct writer *writer = writer_create();

    writer_text(writer, "A", "vendor \xff\xfe!");
    writer_text(writer, "B", "\xc3");
    writer_text(writer, "C", "\xed\xa0\x80");
    prints(writer,
            "{\"A\":\"vendor \\uFFFD\\uFFFD!\",\"B\":\"\\uFFFD\","
            "\"C\":\"\\uFFFD\\uFFFD\\uFFFD\"}");
}

Test(writer, fifteen_levels)
{
    struct writer *writer = writer_create();
    size_t length;
    char *text;

    for (int i = 0; i < 15; i++)
        writer_object(writer, "x");
    for (int i = 0; i < 15; i++)
        writer_end(writer);
    text = writer_finish(&writer, &length);
    cr_assert(text && length == 15 * 6 + 2);
    free(text);
}

Test(writer, destroyed_in_the_middle)
{
    struct writer *writer = writer_create();

    writer_array(writer, "Members");
    writer_object(writer, NULL);
    writer_destroy(writer);
    writer_destroy(NULL);
}

Test(writer, our_own_mistakes_end_the_process, .signal = 6)
{
    struct writer *writer = writer_create();

    writer_text(writer, "A", "1");
    writer_text(writer, "A", "2");
}

Test(writer, an_object_left_open_is_our_mistake, .signal = 6)
{
    struct writer *writer = writer_create();
    size_t length;

    writer_object(writer, "A");
    (void)writer_finish(&writer, &length);
}

Test(writer, text_that_is_no_json_is_our_mistake, .signal = 6)
{
    struct writer *writer = writer_create();

    writer_json(writer, "A", "{");
}

/* -- against jansson ------------------------------------------------------------------ */

struct twin {
    uint64_t seed;
    struct writer *writer;
    unsigned made; /* names, so that none comes twice */
};

/* A character of any kind, also those that must be escaped; bytes written. */
static size_t draw_point(uint64_t *seed, char *to)
{
    static const uint32_t tops[] = { 0x20, 0x80, 0x80, 0x800, 0x10000, 0x110000 };
    uint32_t point = (uint32_t)seed_below(seed, tops[seed_below(seed, 6)]);

    if (point == 0 || (point >= 0xd800 && point < 0xe000))
        point = '"';
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    size_t more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    for (size_t i = more; i > 0; i--, point >>= 6)
        to[i] = (char)(0x80 | (point & 0x3f));
    to[0] = (char)((more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0) | point);
    return more + 1;
}

static void draw_text(uint64_t *seed, char text[256])
{
    size_t length = 0, want = seed_below(seed, 6) ? seed_below(seed, 20) : 250;

    while (length < want)
        length += draw_point(seed, text + length);
    text[length] = '\0';
}

static json_t *draw_scalar(struct twin *twin, const char *name)
{
    char text[256];
    uint64_t number = seed_next(&twin->seed) >> seed_below(&twin->seed, 64);

    switch (seed_below(&twin->seed, 5)) {
    case 0:
        draw_text(&twin->seed, text);
        writer_text(twin->writer, name, text);
        return json_string(text);
    case 1:
        writer_number(twin->writer, name, number);
        return json_integer(number > INT64_MAX ? INT64_MAX : (json_int_t)number);
    case 2:
        writer_signed(twin->writer, name, (int64_t)~number);
        return json_integer((json_int_t)~number);
    case 3:
        writer_flag(twin->writer, name, number & 1);
        return json_boolean(number & 1);
    default:
        writer_null(twin->writer, name);
        return json_null();
    }
}

static void draw_inside(struct twin *twin, json_t *tree, unsigned depth)
{
    char name[300];
    uint64_t count = seed_below(&twin->seed, depth < 2 ? 40 : 8);

    for (uint64_t i = 0; i < count; i++) {
        const char *as = NULL;
        json_t *value;
        if (json_is_object(tree)) {
            draw_text(&twin->seed, name);
            snprintf(name + strlen(name), 12, "%u", twin->made++);
            as = name;
        }
        if (depth < 13 && seed_below(&twin->seed, 5) == 0) {
            bool object = seed_below(&twin->seed, 2);
            value = object ? json_object() : json_array();
            (object ? writer_object : writer_array)(twin->writer, as);
            draw_inside(twin, value, depth + 1);
            writer_end(twin->writer);
        } else {
            value = draw_scalar(twin, as);
        }
        cr_assert((as ? json_object_set_new(tree, as, value)
                      : json_array_append_new(tree, value)) == 0);
    }
}

Test(writer, prints_what_jansson_prints)
{
    struct twin twin = { .seed = seed_take("writer") };

    for (int i = 0; i < 300; i++) {
        json_t *tree = json_object(), *again;
        size_t length;
        twin.writer = writer_create();
        draw_inside(&twin, tree, 0);
        char *text = writer_finish(&twin.writer, &length);
        char *want = json_dumps(tree, JSON_COMPACT | JSON_ENSURE_ASCII);
        cr_assert(strcmp(text, want) == 0, "%d: %s\nnot\n%s", i, text, want);
        cr_assert(length == strlen(text));
        again = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        cr_assert(json_equal(again, tree), "%d: %s", i, text);
        json_decref(again);
        json_decref(tree);
        free(want);
        free(text);
    }
}

Test(writer, json_text_is_taken_in_order)
{
    struct writer *writer = writer_create();

    writer_json(writer, "A", " { \"z\" : [ 1 , -2, 1.5 ] , \"a\" : \"\xc3\xa9\" } ");
    prints(writer, "{\"A\":{\"z\":[1,-2,1.5],\"a\":\"\\u00E9\"}}");
}

Test(writer, a_name_may_come_again_in_another_object)
{
    struct writer *writer = writer_create();

    writer_object(writer, "A");
    writer_text(writer, "Same", "1");
    writer_end(writer);
    writer_object(writer, "B");
    writer_text(writer, "Same", "2");
    writer_end(writer);
    writer_text(writer, "Same", "3");
    prints(writer, "{\"A\":{\"Same\":\"1\"},\"B\":{\"Same\":\"2\"},\"Same\":\"3\"}");
}

Test(writer, a_name_twice_around_an_object_is_our_mistake, .signal = 6)
{
    struct writer *writer = writer_create();

    writer_text(writer, "State", "1");
    writer_object(writer, "A");
    writer_text(writer, "B", "1");
    writer_end(writer);
    writer_cim(writer, "B", CIM_JOB_STATE, 4);
    writer_text(writer, "BName", "2");
}

/* Answers: what the writer prints, and that our own decoder and a stranger's rules read it. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "api/json/body.h"
#include "api/json/writer.h"

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

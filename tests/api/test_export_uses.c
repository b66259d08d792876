/* Exports: what stands against them and they against, and what hosts have kept. */
#include <errno.h>

#include "tests/api/exports_rig.h"

TestSuite(export_uses, .init = exports_begin, .fini = exports_end);

/* -- who stands against whom --------------------------------------------------------------- */

static struct answer attach(const char *to, const char *from)
{
    return rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = to },
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":4}", from);
}

Test(export_uses, what_hosts_write_is_no_target)
{
    struct answer answer;
    char extent[37], job[37];

    exported(volume, "{\"Initiators\":[\"*\"]}");
    answer = attach(volume, other);
    expect_answer(&answer, IN_USE, 6);
    holder_is(&answer, volume);
    answer_release(&answer);
    answer = rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"StorageExtent\",\"Of\":\"/elements/%s\",\"Offset\":0,"
            "\"Size\":65536}",
            volume);
    expect_answer(&answer, MADE, 0);
    strcpy(extent, answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = attach(extent, other);
    expect(answer.outcome.return_value == 5 || answer.outcome.return_value == 6);
    answer_release(&answer);

    answer = attach(other, volume); /* but it may be copied while they write */
    job_started(&answer, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    answer = get(API_REPLICA_GET, other);
    expect_str(answer_text(&answer, "Consistency"), "Fuzzy");
    answer_release(&answer);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = other },
            "{\"Operation\":\"Restore\"}");
    expect_answer(&answer, IN_USE, 6);
    holder_is(&answer, volume);
    answer_release(&answer);
}

Test(export_uses, the_same_bytes_are_written_through_one_export)
{
    struct answer answer;
    char extent[37];

    answer = rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"StorageExtent\",\"Of\":\"/elements/%s\",\"Offset\":0,"
            "\"Size\":65536}",
            volume);
    expect_answer(&answer, MADE, 0);
    strcpy(extent, answer_text(&answer, "Id"));
    answer_release(&answer);
    exported(volume, "{\"Initiators\":[\"*\"]}");
    answer = put(extent, "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, IN_USE, -1);
    holder_is(&answer, volume);
    answer_release(&answer);
    exported(extent, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    answer = put(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    expect_answer(&answer, DONE, -1); /* itself is in nobody's way */
    answer_release(&answer);
}

Test(export_uses, what_a_pair_writes_is_exported_read_only)
{
    struct answer answer = attach(volume, other);
    char job[37];

    job_started(&answer, job);
    (void)job_finish(&rig, job);
    answer = put(volume, "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, IN_USE, -1);
    answer_release(&answer);
    expect_eq(fake.publishes, 0);
    exported(volume, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    exported(other, "{\"Initiators\":[\"*\"]}");
}

Test(export_uses, what_is_exported_is_not_deleted)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    answer = get(API_ELEMENT_DELETE, volume);
    expect_answer(&answer, IN_USE, 6);
    holder_is(&answer, volume);
    answer_release(&answer);
}

Test(export_uses, an_export_of_our_own_is_no_new_element)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    answer = rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"StorageVolume\",\"Address\":\"iscsi://127.0.0.1:3260/"
            "iqn.2026-11.example:%s/0\"}",
            volume);
    expect_answer(&answer, IN_USE, 6);
    holder_is(&answer, volume);
    answer_release(&answer);
}

/* -- reservations -------------------------------------------------------------------- */

Test(export_uses, reservations_are_kept_until_they_are_forgotten)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    keep("first");
    keep("\x01second");
    exports_restart();
    expect(fake.kept_length == 7 && memcmp(fake.kept, "\x01second", 7) == 0);
    keep("");
    exports_restart();
    expect(fake.count == 1 && fake.kept_length == 0);
    keep("third");
    answer = get(API_EXPORT_DELETE, volume);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    exported(volume, "{\"Initiators\":[\"*\"]}");
    expect_eq(fake.kept_length, 0);
}

Test(export_uses, what_is_kept_while_it_ends_is_kept_or_gone_with_it)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    keep("first");
    fake.late = "the last word";
    changed(volume, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    expect(fake.kept_length == 13 && memcmp(fake.kept, "the last word", 13) == 0);
    fake.late = "in vain";
    answer = get(API_EXPORT_DELETE, volume);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    fake.late = NULL;
    exported(volume, "{\"Initiators\":[\"*\"]}");
    expect_eq(fake.kept_length, 0);
}

Test(export_uses, nothing_is_kept_of_what_is_not_exported)
{
    struct answer answer;

    expect(keep_try("before") < 0);
    expect_eq(keep_try(""), 0); /* nothing is left to keep */
    exported(volume, "{\"Initiators\":[\"*\"]}");
    expect_eq(fake.kept_length, 0);
    answer = get(API_EXPORT_DELETE, volume);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    expect(keep_try("after") < 0);
    exported(volume, "{\"Initiators\":[\"*\"]}");
    expect_eq(fake.kept_length, 0);
}

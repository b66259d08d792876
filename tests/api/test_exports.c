/* Exports: what is served and by whom, changed, taken away and served again. */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>

#include "tests/api/exports_rig.h"
#include "tests/store/disk.h"

TestSuite(exports, .init = exports_begin, .fini = exports_end);

/* -- made, changed, taken away ------------------------------------------------------------- */

Test(exports, without_a_target_it_is_not_supported)
{
    struct answer answer;

    service_export_by(rig.service, NULL);
    answer = put(volume, "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, NOT_SUPPORTED, -1);
    answer_release(&answer);
    answer = get(API_EXPORT_GET, volume);
    expect_answer(&answer, NOT_FOUND, -1);
    answer_release(&answer);
    answer = put("nothing", "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, NOT_FOUND, -1);
    answer_release(&answer);
}

Test(exports, one_has_the_shape_of_the_contract)
{
    struct answer answer = put(volume,
            "{\"Initiators\":[\"iqn.1993-08.org.Debian:01:ABC\",\"naa.3001\"],"
            "\"ReadOnly\":true}");
    json_t *session, *export;
    char wanted[100];

    expect_answer(&answer, MADE, -1);
    snprintf(wanted, sizeof(wanted), "/elements/%s/export", volume);
    expect_str(answer.outcome.location, wanted);
    expect_str(answer_text(&answer, "Self"), wanted);
    snprintf(wanted, sizeof(wanted), "iqn.2026-11.example:%s", volume);
    expect_str(answer_text(&answer, "TargetName"), wanted);
    expect_eq(answer_number(&answer, "LUN"), 0);
    expect_str(fake.names, "iqn.1993-08.org.debian:01:abc;naa.3001;");
    expect(fake.read_only && fake.kept_length == 0);
    snprintf(wanted, sizeof(wanted), "pool:default/%s.raw", volume);
    expect_str(fake.address, wanted);
    answer_release(&answer);

    answer = get(API_ELEMENT_GET, volume);
    expect_answer(&answer, DONE, -1);
    export = json_object_get(answer.json, "Export");
    expect_eq(json_array_size(json_object_get(export, "Initiators")), 2);
    expect(json_is_true(json_object_get(export, "Serving")));
    session = json_array_get(json_object_get(export, "Sessions"), 0);
    expect_str(json_string_value(json_object_get(session, "Initiator")),
            "iqn.2026-11.example:host");
    expect_eq(json_integer_value(json_object_get(session, "QueueDepth")), 3);
    expect_str(json_string_value(json_array_get(json_object_get(export, "Portals"), 0)),
            "127.0.0.1:3260");
    answer_release(&answer);
}

Test(exports, a_change_is_served_and_a_wrong_tag_is_not)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    answer = rig_call(&rig, API_EXPORT_PUT,
            (struct asked){ .id = volume, .if_match = "\"r7\"" },
            "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, PRECONDITION, -1);
    answer_release(&answer);
    expect_eq(fake.publishes, 1);
    answer = put(volume, "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    expect_str(fake.names, "*;");
    expect(fake.count == 1 && fake.publishes == 1 && fake.withdraws == 0);
}

static void secret_write(const char *name, const char *line)
{
    char path[400];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", rig.credentials, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line));
    close(fd);
}

Test(exports, new_names_and_secrets_reopen_nothing)
{
    secret_write("one", "alice:alice-has-a-secret\n");
    secret_write("two", "bob:bob-has-another-one\n");
    exported(volume, "{\"Initiators\":[\"*\"],\"Credentials\":\"one\"}");
    changed(volume, "{\"Initiators\":[\"*\"],\"Credentials\":\"two\"}");
    expect_str(fake.user, "bob");
    secret_write("two", "bob:bob-has-changed-his\n");
    changed(volume, "{\"Initiators\":[\"*\"],\"Credentials\":\"two\"}");
    expect_str(fake.secret, "bob-has-changed-his"); /* the same name, read anew */
    changed(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    expect_str(fake.names, "iqn.2026-11.example:a;");
    expect_str(fake.user, "");
    expect(fake.changes == 3 && fake.settles == 3);
    expect(fake.publishes == 1 && fake.withdraws == 0);
}

Test(exports, who_may_write_is_served_anew)
{
    exported(volume, "{\"Initiators\":[\"*\"]}");
    changed(volume, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    expect(fake.read_only && fake.publishes == 2 && fake.withdraws == 1);
    changed(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"],\"ReadOnly\":true}");
    expect(fake.read_only && fake.publishes == 2 && fake.withdraws == 1);
    changed(volume, "{\"Initiators\":[\"*\"]}");
    expect(!fake.read_only && fake.publishes == 3 && fake.withdraws == 2);
}

Test(exports, the_answer_shows_whom_a_change_has_left)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    answer = put(volume, "{\"Initiators\":[\"iqn.2026-11.example:host\"]}");
    expect_answer(&answer, DONE, -1);
    expect_eq(json_array_size(json_object_get(answer.json, "Sessions")), 1);
    answer_release(&answer);
    answer = put(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    expect_answer(&answer, DONE, -1);
    expect_eq(json_array_size(json_object_get(answer.json, "Sessions")), 0);
    answer_release(&answer);
}

Test(exports, a_change_without_its_secret_leaves_what_is_served)
{
    static const char *const bodies[] = {
        "{\"Initiators\":[\"*\"],\"Credentials\":\"absent\"}",
        "{\"Initiators\":[\"*\"],\"Credentials\":\"absent\",\"ReadOnly\":true}",
    };

    exported(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    for (unsigned i = 0; i < 2; i++) {
        struct answer answer = put(volume, bodies[i]);
        cr_assert(answer.outcome.verdict == API_INVALID, "%s", answer_detail(&answer));
        expect_pointer(&answer, "/Credentials");
        answer_release(&answer);
    }
    expect_str(fake.names, "iqn.2026-11.example:a;");
    expect(fake.publishes == 1 && fake.withdraws == 0 && !fake.is_ready);
}

/* Whatever the database writes. */
static void disk_full(bool full)
{
    disk_plans[DISK_WRITE] = full
            ? (struct disk_plan){ .after = 1, .times = UINT32_MAX, .code = SQLITE_FULL }
            : (struct disk_plan){ 0 };
}

Test(exports, a_change_that_is_not_durable_was_never_made)
{
    static const char *const bodies[] = { "{\"Initiators\":[\"*\"]}",
        "{\"Initiators\":[\"*\"],\"ReadOnly\":true}" };
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    for (unsigned i = 0; i < 2; i++) {
        disk_full(true);
        answer = put(volume, bodies[i]);
        expect_answer(&answer, NO_SPACE, -1);
        answer_release(&answer);
        disk_full(false);
        expect_str(fake.names, "iqn.2026-11.example:a;");
        expect(!fake.read_only && fake.count == 1 && !fake.is_ready);
        if (i == 0) /* nobody has noticed */
            expect(fake.changes == 1 && fake.publishes == 1 && fake.withdraws == 0);
        answer = get(API_EXPORT_GET, volume);
        expect_answer(&answer, DONE, -1);
        expect_str(json_string_value(json_array_get(
                           json_object_get(answer.json, "Initiators"), 0)),
                "iqn.2026-11.example:a");
        answer_release(&answer);
    }
}

Test(exports, taken_away_it_is_served_no_more)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    answer = get(API_EXPORT_DELETE, volume);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    expect_eq(fake.count, 0);
    answer = get(API_EXPORT_DELETE, volume);
    expect_answer(&answer, NOT_FOUND, -1);
    answer_release(&answer);
    answer = get(API_ELEMENT_GET, volume);
    expect(json_is_null(json_object_get(answer.json, "Export")));
    answer_release(&answer);
}

Test(exports, what_does_not_end_is_not_deleted)
{
    static const char *const bodies[] = { NULL,
        "{\"Initiators\":[\"*\"],\"ReadOnly\":true}" };
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    fake.stuck = true;
    for (unsigned i = 0; i < 2; i++) {
        answer = bodies[i] ? put(volume, bodies[i]) : get(API_EXPORT_DELETE, volume);
        expect_answer(&answer, OVERLOADED, -1);
        expect(answer.outcome.retry_after > 0);
        answer_release(&answer);
        answer = get(API_ELEMENT_DELETE, volume);
        expect_answer(&answer, IN_USE, 6);
        answer_release(&answer);
        answer = get(API_EXPORT_GET, volume);
        expect_answer(&answer, DONE, -1);
        expect(json_is_false(json_object_get(answer.json, "ReadOnly")));
        answer_release(&answer);
    }
    fake.stuck = false;
    answer = get(API_EXPORT_DELETE, volume);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    answer = get(API_ELEMENT_DELETE, volume);
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
}

Test(exports, a_deletion_that_is_not_durable_leaves_it_served)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    answer = rig_call(&rig, API_EXPORT_DELETE,
            (struct asked){ .id = volume, .if_match = "\"r7\"" }, NULL);
    expect_answer(&answer, PRECONDITION, -1);
    answer_release(&answer);
    expect(fake.withdraws == 0 && fake.count == 1);
    disk_full(true);
    answer = get(API_EXPORT_DELETE, volume);
    expect_answer(&answer, NO_SPACE, -1);
    answer_release(&answer);
    disk_full(false);
    expect_eq(fake.count, 1);
    answer = get(API_EXPORT_GET, volume);
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
}

Test(exports, wrong_members_are_named_and_nothing_is_served)
{
    static const struct {
        const char *body, *pointer;
    } rows[] = {
        { "{}", "/Initiators" },
        { "{\"Initiators\":[]}", "/Initiators" },
        { "{\"Initiators\":[\"host\"]}", "/Initiators/0" },
        { "{\"Initiators\":[\"iqn.\"]}", "/Initiators/0" },
        { "{\"Initiators\":[\"iqn.2026-11.example:a b\"]}", "/Initiators/0" },
        { "{\"Initiators\":[\"iqn.2026-11.example:a\",\"*\"]}", "/Initiators/1" },
        { "{\"Initiators\":[\"*\"],\"Credentials\":\"../x\"}", "/Credentials" },
        { "{\"Initiators\":[\"*\"],\"Credentials\":\"absent\"}", "/Credentials" },
        { "{\"Initiators\":[\"*\"],\"ReadOnly\":1}", "/ReadOnly" },
        { "{\"Initiators\":[\"*\"],\"Lun\":1}", "/Lun" },
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct answer answer = put(volume, rows[i].body);
        cr_assert(answer.outcome.verdict == API_INVALID, "%s: %s", rows[i].body,
                answer_detail(&answer));
        expect_pointer(&answer, rows[i].pointer);
        answer_release(&answer);
    }
    expect_eq(fake.publishes, 0);
}

/* -- what cannot be served ----------------------------------------------------------------- */

Test(exports, what_is_refused_leaves_no_row)
{
    static const struct {
        int error;
        enum api_verdict verdict;
    } rows[] = { { -EBUSY, API_IN_USE }, { -ETIMEDOUT, API_TIMEOUT },
        { -ECONNREFUSED, API_FAR_SIDE }, { -ENODEV, API_FAR_SIDE },
        { -EINVAL, API_INVALID }, { -EIO, API_FAILED }, { -ENOSPC, API_NO_SPACE },
        { -ENOMEM, API_INTERNAL }, { -ECANCELED, API_OVERLOADED } };
    struct answer answer;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fake.refuse = rows[i].error;
        answer = put(volume, "{\"Initiators\":[\"*\"]}");
        cr_assert(answer.outcome.verdict == rows[i].verdict, "%d: %s", rows[i].error,
                verdict_name(answer.outcome.verdict));
        answer_release(&answer);
        answer = get(API_EXPORT_GET, volume);
        expect_answer(&answer, NOT_FOUND, -1);
        answer_release(&answer);
    }
}

/* What the target does not take, when all members were well formed. */
Test(exports, the_member_that_is_not_taken_is_named)
{
    static const struct {
        const char *why, *body, *pointer;
    } rows[] = {
        { "a secret has at least 12 bytes",
                "{\"Initiators\":[\"*\"],\"Credentials\":\"one\"}", "/Credentials" },
        { "eui.1 is no iSCSI name", "{\"Initiators\":[\"eui.12\",\"eui.1\"]}",
                "/Initiators/1" },
        { "the element cannot be shown as blocks", "{\"Initiators\":[\"*\"]}", NULL },
    };

    secret_write("one", "alice:alice-has-a-secret\n");
    fake.refuse = -EINVAL;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct answer answer;
        fake.why = rows[i].why;
        answer = put(volume, rows[i].body);
        expect_answer(&answer, INVALID, -1);
        if (rows[i].pointer)
            expect_pointer(&answer, rows[i].pointer);
        else
            expect_eq(json_array_size(json_object_get(answer.json, "Errors")), 0);
        answer_release(&answer);
    }
}

Test(exports, a_change_that_is_refused_leaves_the_row)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    fake.refuse = -ECONNREFUSED;
    answer = put(volume, "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, FAR_SIDE, -1);
    answer_release(&answer);
    fake.refuse = 0;
    expect_eq(service_exports_resume(rig.service), 0);
    expect_str(fake.names, "iqn.2026-11.example:a;");
}

Test(exports, they_are_served_again_after_a_restart)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    exported(other, "{\"Initiators\":[\"iqn.2026-11.example:b\"],\"ReadOnly\":true}");
    rig_stop(&rig);
    fake = (struct fake){ .refuse = -ECONNREFUSED };
    rig_start(&rig);
    service_export_by(rig.service, &exporter);
    expect_eq(service_exports_resume(rig.service), 2);
    answer = get(API_EXPORT_GET, volume);
    expect_answer(&answer, DONE, -1);
    expect(json_is_false(json_object_get(answer.json, "Serving")));
    answer_release(&answer);
    fake.refuse = 0;
    expect_eq(service_exports_resume(rig.service), 0);
    expect_eq(fake.count, 2);
}

static void *resume_main(void *left)
{
    *(unsigned *)left = service_exports_resume(rig.service);
    return NULL;
}

Test(exports, who_is_being_opened_keeps_nobody_waiting)
{
    struct answer answer;
    pthread_t thread;
    unsigned left;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    exported(other, "{\"Initiators\":[\"*\"]}");
    rig_stop(&rig);
    fake = (struct fake){ 0 };
    rig_start(&rig);
    service_export_by(rig.service, &exporter);
    expect(uuid_parse(volume, &opening.of));
    expect_eq(pthread_create(&thread, NULL, resume_main, &left), 0);
    expect(opening_await(&opening.begun));
    expect_eq(service_exports_resume(rig.service), 1); /* the other one is served */
    changed(other, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    answer = get(API_EXPORT_DELETE, other);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    expect(!opening.cancelled);
    answer = get(API_EXPORT_DELETE, volume); /* its own is not waited for */
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    expect(opening.cancelled);
    expect_eq(pthread_join(thread, NULL), 0);
    expect_eq(left, 1);
    opening.of = (struct uuid){ "" };
    expect_eq(service_exports_resume(rig.service), 0);
    exported(volume, "{\"Initiators\":[\"*\"]}");
}

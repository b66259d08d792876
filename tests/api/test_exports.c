/* Exports: what is served and by whom, what stands against them and they against; with an
 * exporter of the test's own in the target's place. */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>

#include "tests/api/pairs.h"
#include "tests/store/disk.h"

static struct rig rig;
static char volume[37], other[37];

enum { SIZE = PAIRS_MIB, SERVED_MAX = 8 };

/* -- an exporter that remembers ------------------------------------------------------------ */

static struct fake {
    struct uuid served[SERVED_MAX];
    bool opened_to_read[SERVED_MAX];
    unsigned count, publishes, withdraws, changes, settles;
    int refuse; /* a negative errno: publish() and change() answer it */
    bool stuck; /* withdraw(): commands of hosts do not end */
    const char *late; /* withdraw(): a host has this kept before its session ends */
    char names[256], user[64], secret[64], address[512]; /* in force */
    bool is_ready;
    char ready_names[256], ready_user[64], ready_secret[64];
    bool read_only;
    size_t kept_length;
    uint8_t kept[64];
} fake;

static int fake_find(const struct uuid *id)
{
    for (unsigned i = 0; i < fake.count; i++)
        if (uuid_equal(&fake.served[i], id))
            return (int)i;
    return -1;
}

static void fake_terms(const struct api_export *export, char names[256], char user[64],
        char secret[64])
{
    names[0] = '\0';
    for (size_t i = 0; i < export->initiator_count; i++) {
        strcat(names, export->initiators[i]);
        strcat(names, ";");
    }
    strcpy(user, export->chap ? export->chap->user : "");
    strcpy(secret, export->chap ? export->chap->secret : "");
}

/* One that does not open before it is cancelled. */
static struct opening {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct uuid of; /* none: all open at once */
    bool begun, cancelled;
} opening = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static bool opening_await(const bool *what)
{
    struct timespec due;
    int result = 0;

    clock_gettime(CLOCK_MONOTONIC, &due);
    due.tv_sec += 60;
    pthread_mutex_lock(&opening.lock);
    while (!*what && result == 0)
        result = pthread_cond_clockwait(
                &opening.changed, &opening.lock, CLOCK_MONOTONIC, &due);
    pthread_mutex_unlock(&opening.lock);
    return result == 0;
}

static int opening_wait(struct fault *fault)
{
    pthread_mutex_lock(&opening.lock);
    opening.begun = true;
    pthread_cond_broadcast(&opening.changed);
    pthread_mutex_unlock(&opening.lock);
    if (opening_await(&opening.cancelled))
        return fault_set(fault, -ECANCELED, "it is not wanted any more");
    return fault_set(fault, -ETIMEDOUT, "nobody cancels it");
}

static int fake_publish(
        void *context, const struct api_export *export, struct fault *fault)
{
    expect_eq(context, &fake);
    fake.publishes++;
    if (uuid_equal(&export->id, &opening.of))
        return opening_wait(fault);
    if (fake.refuse)
        return fault_set(fault, fake.refuse, "the fake refuses");
    expect(fake_find(&export->id) < 0 && fake.count < SERVED_MAX);
    fake.opened_to_read[fake.count] = export->read_only;
    fake.served[fake.count++] = export->id;
    fake_terms(export, fake.names, fake.user, fake.secret);
    strcpy(fake.address, export->element->address);
    fake.read_only = export->read_only;
    fake.kept_length = export->kept_length;
    expect(export->kept_length <= sizeof(fake.kept));
    memcpy(fake.kept, export->kept, export->kept_length);
    return 0;
}

static void keep(const char *bytes);

static int fake_withdraw(void *context, const struct uuid *id)
{
    int at = fake_find(id);

    expect_eq(context, &fake);
    fake.withdraws++;
    if (at < 0)
        return -ENOENT;
    if (fake.stuck)
        return -ETIMEDOUT;
    if (fake.late)
        keep(fake.late);
    fake.served[at] = fake.served[--fake.count];
    fake.opened_to_read[at] = fake.opened_to_read[fake.count];
    return 0;
}

static int fake_change(
        void *context, const struct api_export *export, struct fault *fault)
{
    expect_eq(context, &fake);
    fake.changes++;
    if (fake.refuse)
        return fault_set(fault, fake.refuse, "the fake refuses");
    expect(fake_find(&export->id) >= 0 && !fake.is_ready);
    expect_eq(export->read_only, fake.opened_to_read[fake_find(&export->id)]);
    fake_terms(export, fake.ready_names, fake.ready_user, fake.ready_secret);
    fake.is_ready = true;
    return 0;
}

static void fake_settle(void *context, const struct uuid *id, bool keep)
{
    expect_eq(context, &fake);
    expect(fake_find(id) >= 0 && fake.is_ready);
    fake.settles++;
    fake.is_ready = false;
    if (!keep)
        return;
    strcpy(fake.names, fake.ready_names);
    strcpy(fake.user, fake.ready_user);
    strcpy(fake.secret, fake.ready_secret);
}

static bool fake_serves(void *context, const struct uuid *id)
{
    expect_eq(context, &fake);
    return fake_find(id) >= 0;
}

static size_t fake_sessions(void *context, const struct uuid *id,
        struct api_export_session *sessions, size_t room)
{
    expect_eq(context, &fake);
    if (fake_find(id) < 0 || room == 0 ||
            (!strstr(fake.names, "iqn.2026-11.example:host;") &&
                    !strstr(fake.names, "*;") && !strstr(fake.names, "naa.3001;")))
        return 0;
    sessions[0] = (struct api_export_session){ .initiator = "iqn.2026-11.example:host",
        .address = "192.0.2.1:40000",
        .since_ms = 1,
        .queue_depth = 3,
        .read_bytes = 4096,
        .written_bytes = 512 };
    return 1;
}

static bool fake_portal(void *context, unsigned index, char *text, size_t room)
{
    expect_eq(context, &fake);
    snprintf(text, room, "127.0.0.1:3260");
    return index == 0;
}

static void fake_figures(void *context, struct api_export_figures *figures)
{
    expect_eq(context, &fake);
    *figures = (struct api_export_figures){ 1, 2, 3, 4, 5, 6, 7, 8 };
}

static void fake_cancel(void *context, const struct uuid *id)
{
    expect_eq(context, &fake);
    pthread_mutex_lock(&opening.lock);
    opening.cancelled |= uuid_equal(id, &opening.of);
    pthread_cond_broadcast(&opening.changed);
    pthread_mutex_unlock(&opening.lock);
}

static const struct api_exporter exporter = { &fake, fake_publish, fake_withdraw,
    fake_change, fake_settle, fake_serves, fake_sessions, fake_portal, fake_figures,
    fake_cancel };

static void begin(void)
{
    fake = (struct fake){ 0 };
    disk_install();
    rig_make(&rig);
    rig_start(&rig);
    service_export_by(rig.service, &exporter);
    rig_element(&rig, "StorageVolume", SIZE, volume);
    rig_element(&rig, "StorageVolume", SIZE, other);
}

static void end(void)
{
    memset(disk_plans, 0, sizeof(disk_plans));
    rig_remove(&rig);
}

TestSuite(exports, .init = begin, .fini = end);

static struct answer put(const char *id, const char *body)
{
    return rig_call(&rig, API_EXPORT_PUT, (struct asked){ .id = id }, body);
}

static struct answer get(enum api_call call, const char *id)
{
    return rig_call(&rig, call, (struct asked){ .id = id }, NULL);
}

static void exported(const char *id, const char *body)
{
    struct answer answer = put(id, body);

    expect_answer(&answer, MADE, -1);
    answer_release(&answer);
}

static void holder_is(const struct answer *answer, const char *id)
{
    const char *holder = json_string_value(
            json_array_get(json_object_get(answer->json, "Holders"), 0));
    char wanted[80], remedy[100];

    snprintf(wanted, sizeof(wanted), "/elements/%s/export", id);
    snprintf(remedy, sizeof(remedy), "DELETE %s", wanted);
    cr_assert(holder && strcmp(holder, wanted) == 0, "holder %s", holder);
    expect_str(answer_text(answer, "Remedy"), remedy);
}

/* -- made, changed, taken away ------------------------------------------------------------------ */

Test(exports, without_a_target_the_answer_is_1)
{
    struct answer answer;

    service_export_by(rig.service, NULL);
    answer = put(volume, "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, NOT_SUPPORTED, 1);
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

static void changed(const char *id, const char *body)
{
    struct answer answer = put(id, body);

    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
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

Test(exports, wrong_members_are_5_and_nothing_is_served)
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

/* -- what cannot be served ------------------------------------------------------------------------- */

Test(exports, what_is_refused_leaves_no_row)
{
    static const struct {
        int error, value;
        enum api_verdict verdict;
    } rows[] = { { -EBUSY, 6, API_IN_USE }, { -ETIMEDOUT, 3, API_TIMEOUT },
        { -ECONNREFUSED, 4, API_FAR_SIDE }, { -EINVAL, 5, API_INVALID } };
    struct answer answer;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fake.refuse = rows[i].error;
        answer = put(volume, "{\"Initiators\":[\"*\"]}");
        cr_assert(answer.outcome.verdict == rows[i].verdict &&
                        answer.outcome.return_value == rows[i].value,
                "%d: %s %d", rows[i].error, verdict_name(answer.outcome.verdict),
                answer.outcome.return_value);
        answer_release(&answer);
        answer = get(API_EXPORT_GET, volume);
        expect_answer(&answer, NOT_FOUND, -1);
        answer_release(&answer);
    }
}

Test(exports, a_change_that_is_refused_leaves_the_row)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    fake.refuse = -ECONNREFUSED;
    answer = put(volume, "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, FAR_SIDE, 4);
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

/* -- who stands against whom ----------------------------------------------------------------------- */

static struct answer attach(const char *to, const char *from)
{
    return rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = to },
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":4}", from);
}

Test(exports, what_hosts_write_is_no_target)
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
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
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

Test(exports, the_same_bytes_are_written_through_one_export)
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
    expect_answer(&answer, IN_USE, 6);
    holder_is(&answer, volume);
    answer_release(&answer);
    exported(extent, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    answer = put(volume, "{\"Initiators\":[\"iqn.2026-11.example:a\"]}");
    expect_answer(&answer, DONE, -1); /* itself is in nobody's way */
    answer_release(&answer);
}

Test(exports, what_a_pair_writes_is_exported_read_only)
{
    struct answer answer = attach(volume, other);
    char job[37];

    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
    (void)job_finish(&rig, job);
    answer = put(volume, "{\"Initiators\":[\"*\"]}");
    expect_answer(&answer, IN_USE, 6);
    answer_release(&answer);
    expect_eq(fake.publishes, 0);
    exported(volume, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    exported(other, "{\"Initiators\":[\"*\"]}");
}

Test(exports, what_is_exported_is_not_deleted)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    answer = get(API_ELEMENT_DELETE, volume);
    expect_answer(&answer, IN_USE, 6);
    holder_is(&answer, volume);
    answer_release(&answer);
}

Test(exports, an_export_of_our_own_is_no_new_element)
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

/* -- reservations ---------------------------------------------------------------------------------------- */

static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t kept_come = PTHREAD_COND_INITIALIZER;
static int kept_result;

static void kept(void *context, int result)
{
    expect_eq(context, &fake);
    pthread_mutex_lock(&kept_lock);
    kept_result = result;
    pthread_cond_broadcast(&kept_come);
    pthread_mutex_unlock(&kept_lock);
}

/** What came of it. */
static int keep_try(const char *bytes)
{
    struct timespec due;
    struct uuid id;
    int result = 0;

    expect(uuid_parse(volume, &id));
    kept_result = 1;
    expect_eq(service_keep(rig.service, &id, (const uint8_t *)bytes, strlen(bytes),
                      kept, &fake),
            0);
    clock_gettime(CLOCK_MONOTONIC, &due);
    due.tv_sec += 60;
    pthread_mutex_lock(&kept_lock);
    while (kept_result == 1 && result == 0)
        result = pthread_cond_clockwait(&kept_come, &kept_lock, CLOCK_MONOTONIC, &due);
    result = kept_result;
    pthread_mutex_unlock(&kept_lock);
    return result;
}

static void keep(const char *bytes)
{
    expect_eq(keep_try(bytes), 0);
}

static void restart(void)
{
    rig_stop(&rig);
    fake = (struct fake){ 0 };
    rig_start(&rig);
    service_export_by(rig.service, &exporter);
    expect_eq(service_exports_resume(rig.service), 0);
}

Test(exports, reservations_are_kept_until_they_are_forgotten)
{
    struct answer answer;

    exported(volume, "{\"Initiators\":[\"*\"]}");
    keep("first");
    keep("\x01second");
    restart();
    expect(fake.kept_length == 7 && memcmp(fake.kept, "\x01second", 7) == 0);
    keep("");
    restart();
    expect(fake.count == 1 && fake.kept_length == 0);
    keep("third");
    answer = get(API_EXPORT_DELETE, volume);
    expect_answer(&answer, GONE, -1);
    answer_release(&answer);
    exported(volume, "{\"Initiators\":[\"*\"]}");
    expect_eq(fake.kept_length, 0);
}

Test(exports, what_is_kept_while_it_ends_is_kept_or_gone_with_it)
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

Test(exports, nothing_is_kept_of_what_is_not_exported)
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

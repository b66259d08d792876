#include "tests/api/exports_rig.h"

#include <errno.h>

#include "tests/store/disk.h"

struct rig rig;
char volume[37], other[37];
struct fake fake;

int fake_find(const struct uuid *id)
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

struct opening opening = { .lock = PTHREAD_MUTEX_INITIALIZER,
    .changed = PTHREAD_COND_INITIALIZER };

bool opening_await(const bool *what)
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
        return fault_set(
                fault, fake.refuse, "%s", fake.why ? fake.why : "the fake refuses");
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
        return fault_set(
                fault, fake.refuse, "%s", fake.why ? fake.why : "the fake refuses");
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

const struct api_exporter exporter = { &fake, fake_publish, fake_withdraw, fake_change,
    fake_settle, fake_serves, fake_sessions, fake_portal, fake_figures, fake_cancel };

void exports_begin(void)
{
    fake = (struct fake){ 0 };
    disk_install();
    rig_make(&rig);
    rig_start(&rig);
    service_export_by(rig.service, &exporter);
    rig_element(&rig, "StorageVolume", SIZE, volume);
    rig_element(&rig, "StorageVolume", SIZE, other);
}

void exports_end(void)
{
    memset(disk_plans, 0, sizeof(disk_plans));
    rig_remove(&rig);
}

struct answer put(const char *id, const char *body)
{
    return rig_call(&rig, API_EXPORT_PUT, (struct asked){ .id = id }, body);
}

struct answer get(enum api_call call, const char *id)
{
    return rig_call(&rig, call, (struct asked){ .id = id }, NULL);
}

void exported(const char *id, const char *body)
{
    struct answer answer = put(id, body);

    expect_answer(&answer, MADE, -1);
    answer_release(&answer);
}

void changed(const char *id, const char *body)
{
    struct answer answer = put(id, body);

    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
}

void holder_is(const struct answer *answer, const char *id)
{
    const char *holder = json_string_value(
            json_array_get(json_object_get(answer->json, "Holders"), 0));
    char wanted[80], remedy[100];

    snprintf(wanted, sizeof(wanted), "/elements/%s/export", id);
    snprintf(remedy, sizeof(remedy), "DELETE %s", wanted);
    cr_assert(holder && strcmp(holder, wanted) == 0, "holder %s", holder);
    expect_str(answer_text(answer, "Remedy"), remedy);
}

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

int keep_try(const char *bytes)
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

void keep(const char *bytes)
{
    expect_eq(keep_try(bytes), 0);
}

void exports_restart(void)
{
    rig_stop(&rig);
    fake = (struct fake){ 0 };
    rig_start(&rig);
    service_export_by(rig.service, &exporter);
    expect_eq(service_exports_resume(rig.service), 0);
}

/* The api's exports on the iSCSI target. */
#include "server/exports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "replica/engine.h"
#include "server/exports_revival.h"
#include "server/iscsi/target.h"

enum {
    SLACK_MS = 10 * 1000, /* beyond what opening takes: it fails for its own reasons */
    WITHDRAW_MS = 30 * 1000,
    LEAVE_MS = 2000, /* for sessions to log out when we stop */
    ISCSI_PORT = 3260
};

/** One export that is served, or of which something is still in use: one an element. */
struct served {
    struct served *next;
    struct exports *exports;
    struct uuid id;
    unsigned at; /* index of its loop */
    enum {
        SERVED_OPENING, /* whoever publishes it waits */
        SERVED_OPEN,
        SERVED_ENDING /* it did not end in time, and does when it can */
    } state; /* under the lock */
    bool cancelled; /* under the lock: nobody wants what is opening */
    bool was_open; /* under the lock: hosts may have written */
    bool resumed; /* constant */
    struct engine_handle *handle;
    struct scsi_backing backing;
    struct scsi_opening *opening; /* under way, on the handle's loop */

    /* a keep() under way; one at a time */
    void (*kept)(void *unit, int result);
    void *kept_unit;
    int kept_result;
    struct loop *loop;
    struct loop_task kept_task;
};

struct exports {
    struct service *service;
    struct iscsi_target *target;
    struct api_exporter exporter;
    struct revival *revival; /* constant once calls are served */
    pthread_mutex_t lock;
    bool stopping; /* under the lock */
    struct served *list; /* under the lock */
};

/* -- what the target needs of an element ------------------------------------------------- */

static void served_opened(
        void *context, struct block_device *device, const struct fault *fault)
{
    struct served *served = context;
    struct scsi_opening *opening = served->opening;

    served->opening = NULL;
    opening->opened(opening, device, fault);
}

static void served_open(void *context, struct scsi_opening *opening, bool again)
{
    struct served *served = context;

    check(!served->opening);
    served->opening = opening;
    /* A life before this one, or an opening that was given up, may have left writes. */
    engine_handle_open(served->handle, again || served->resumed, served_opened, served);
}

static void kept_run(struct loop_task *task)
{
    struct served *served = container_of(task, struct served, kept_task);
    void (*kept)(void *, int) = served->kept;

    served->kept = NULL;
    kept(served->kept_unit, served->kept_result);
}

/* The clerk's thread, or the loop itself when it could not be asked. */
static void kept_come(void *context, int result)
{
    struct served *served = context;

    served->kept_result = result;
    loop_post(served->loop, &served->kept_task);
}

static void served_keep(void *context, const uint8_t *bytes, size_t length,
        void (*kept)(void *unit, int result), void *unit)
{
    struct served *served = context;
    int result;

    check(!served->kept);
    served->kept = kept;
    served->kept_unit = unit;
    result = service_keep(
            served->exports->service, &served->id, bytes, length, kept_come, served);
    if (result)
        kept_come(served, result);
}

static struct served *served_make(
        struct exports *exports, const struct api_export *export, struct fault *fault)
{
    struct served *served = calloc(1, sizeof(*served));

    if (served)
        served->handle = engine_handle_create(service_engine(exports->service),
                export->element, !export->read_only, &served->at);
    if (!served || !served->handle) {
        free(served);
        (void)fault_set(fault, -ENOMEM, "out of memory");
        return NULL;
    }
    served->exports = exports;
    served->id = export->id;
    served->resumed = export->resumed;
    served->loop = engine_loop(service_engine(exports->service), served->at);
    served->kept_task.run = kept_run;
    served->backing = (struct scsi_backing){
        .context = served, .open = served_open, .keep = served_keep
    };
    return served;
}

static void served_free(struct served *served)
{
    engine_handle_destroy(served->handle);
    free(served);
}

/** Under the lock. What is ending too. */
static struct served **served_find(struct exports *exports, const struct uuid *id)
{
    struct served **at = &exports->list;

    while (*at && !uuid_equal(&(*at)->id, id))
        at = &(*at)->next;
    return at;
}

/** Under the lock: let go of those that have ended at last. Returns how many have not. */
static unsigned served_reap(struct exports *exports)
{
    struct served **at = &exports->list, *served;
    unsigned left = 0;

    while ((served = *at)) {
        bool ends = served->state == SERVED_ENDING;
        if (ends &&
                iscsi_target_withdraw(exports->target, &served->id, 0) != -ETIMEDOUT) {
            *at = served->next;
            served_free(served);
            continue;
        }
        left += ends;
        at = &served->next;
    }
    return left;
}

/* -- what the api asks ---------------------------------------------------------------------- */

static void text_take(char *to, size_t room, const char *from)
{
    (void)snprintf(to, room, "%s", from);
}

static void chap_take(struct login_chap *to, const struct block_chap *from)
{
    text_take(to->user, sizeof(to->user), from->user);
    text_take(to->secret, sizeof(to->secret), from->secret);
    text_take(to->mutual_user, sizeof(to->mutual_user), from->mutual_user);
    text_take(to->mutual_secret, sizeof(to->mutual_secret), from->mutual_secret);
}

/** For the target; wiped by the caller. */
static struct iscsi_export served_terms(
        const struct served *served, const struct api_export *export)
{
    struct iscsi_export what = { .id = export->id,
        .initiators = export->initiators,
        .initiator_count = export->initiator_count,
        .has_chap = export->chap != NULL,
        .read_only = export->read_only,
        .loop = served->at,
        .backing = &served->backing,
        .kept = export->kept,
        .kept_length = export->kept_length };

    if (export->chap)
        chap_take(&what.chap, export->chap);
    return what;
}

static int served_publish(struct exports *exports, struct served *served,
        const struct api_export *export, struct fault *fault)
{
    struct iscsi_export what = served_terms(served, export);
    unsigned ms = service_opening_ms(exports->service) + SLACK_MS;
    int result = iscsi_target_publish(exports->target, &what, ms, fault);

    explicit_bzero(&what.chap, sizeof(what.chap));
    return result;
}

/** It is the only one of its element from here on. 0, -EINPROGRESS, -ECANCELED. */
static int served_enter(struct served *served, struct fault *fault)
{
    struct exports *exports = served->exports;
    int result = 0;

    pthread_mutex_lock(&exports->lock);
    (void)served_reap(exports);
    if (exports->stopping)
        result = fault_set(fault, -ECANCELED, "the service is stopping");
    else if (*served_find(exports, &served->id))
        result = fault_set(fault, -EINPROGRESS, "what was served has not ended yet");
    if (result == 0) {
        served->next = exports->list;
        exports->list = served;
    }
    pthread_mutex_unlock(&exports->lock);
    return result;
}

/** It has come of opening it what @result says; what is left of a failure is let go of when it
    can be. */
static int served_settle(struct served *served, int result, struct fault *fault)
{
    struct exports *exports = served->exports;

    pthread_mutex_lock(&exports->lock);
    served->was_open = result == 0;
    if (served->cancelled)
        result = fault_set(fault, -ECANCELED, "it is not wanted any more");
    served->state = result ? SERVED_ENDING : SERVED_OPEN;
    (void)served_reap(exports);
    pthread_mutex_unlock(&exports->lock);
    return result;
}

static int on_publish(
        void *context, const struct api_export *export, struct fault *fault)
{
    struct exports *exports = context;
    struct served *served = served_make(exports, export, fault);
    int result;

    if (!served)
        return -ENOMEM;
    result = served_enter(served, fault);
    if (result) {
        served_free(served);
        return result;
    }
    result = served_publish(exports, served, export, fault);
    return served_settle(served, result, fault);
}

/** Under the lock. */
static void served_cancel(struct exports *exports, struct served *served)
{
    if (served->state != SERVED_OPENING)
        return;
    served->cancelled = true;
    (void)iscsi_target_withdraw(exports->target, &served->id, 0);
}

static void on_cancel(void *context, const struct uuid *id)
{
    struct exports *exports = context;
    struct served *served;

    pthread_mutex_lock(&exports->lock);
    served = *served_find(exports, id);
    if (served)
        served_cancel(exports, served);
    pthread_mutex_unlock(&exports->lock);
}

/** What was never open is nothing to wait for: no host has written it. */
static bool served_is_due(struct exports *exports, const struct uuid *id)
{
    const struct served *served;
    bool due;

    pthread_mutex_lock(&exports->lock);
    (void)served_reap(exports);
    served = *served_find(exports, id);
    due = served && served->was_open;
    pthread_mutex_unlock(&exports->lock);
    return due;
}

static int on_withdraw(void *context, const struct uuid *id)
{
    struct exports *exports = context;
    struct served **at, *served;
    int result;

    if (!served_is_due(exports, id))
        return -ENOENT;
    result = iscsi_target_withdraw(exports->target, id, WITHDRAW_MS);
    pthread_mutex_lock(&exports->lock);
    at = served_find(exports, id);
    served = *at; /* NULL: reaped meanwhile, it was ending before */
    if (served && result == -ETIMEDOUT) {
        served->state = SERVED_ENDING;
    } else if (served) {
        *at = served->next;
        served_free(served);
    }
    pthread_mutex_unlock(&exports->lock);
    revival_ask(exports->revival);
    return result == -ETIMEDOUT ? result : 0;
}

static int on_change(
        void *context, const struct api_export *export, struct fault *fault)
{
    struct exports *exports = context;
    struct iscsi_export what;
    struct served *served;
    int result;

    pthread_mutex_lock(&exports->lock);
    served = *served_find(exports, &export->id);
    if (served && served->state != SERVED_OPEN)
        served = NULL;
    pthread_mutex_unlock(&exports->lock);
    if (!served)
        return fault_set(fault, -ENOENT, "it is not served");
    what = served_terms(served, export);
    result = iscsi_target_change(exports->target, &what, fault);
    explicit_bzero(&what.chap, sizeof(what.chap));
    return result;
}

static void on_settle(void *context, const struct uuid *id, bool kept)
{
    struct exports *exports = context;

    if (iscsi_target_settle(exports->target, id, kept, WITHDRAW_MS) == -ETIMEDOUT)
        log_event(LOG_WARN, "export-lingers", (struct log_about){ .element = id->text },
                "commands of a host that may not use it any more have not ended yet");
}

static bool on_serves(void *context, const struct uuid *id)
{
    struct exports *exports = context;
    const struct served *served;
    bool serves;

    pthread_mutex_lock(&exports->lock);
    served = *served_find(exports, id);
    serves = served && served->state == SERVED_OPEN;
    pthread_mutex_unlock(&exports->lock);
    return serves;
}

static size_t on_sessions(void *context, const struct uuid *id,
        struct api_export_session *sessions, size_t room)
{
    struct exports *exports = context;
    scoped_free struct iscsi_session *found = calloc(room, sizeof(*found));
    int count = found ? iscsi_target_sessions(exports->target, id, found, room) : 0;

    for (size_t i = 0; i < room && (int)i < count; i++) {
        sessions[i] = (struct api_export_session){ .since_ms = found[i].since_ms,
            .queue_depth = found[i].queue_depth,
            .read_bytes = found[i].read_bytes,
            .written_bytes = found[i].written_bytes };
        text_take(sessions[i].initiator, sizeof(sessions[i].initiator),
                found[i].initiator);
        text_take(sessions[i].address, sizeof(sessions[i].address), found[i].address);
    }
    return count > 0 ? (size_t)count : 0;
}

bool exports_address(struct exports *exports, unsigned index, char *text, size_t room)
{
    struct sockaddr_storage address;
    char portal[BLOCK_PORTAL_TEXT];

    if (!iscsi_target_portal(exports->target, index, &address))
        return false;
    portal_format(&address, portal);
    text_take(text, room, portal);
    return true;
}

static bool on_portal(void *context, unsigned index, char *text, size_t room)
{
    return exports_address(context, index, text, room);
}

static void on_figures(void *context, struct api_export_figures *figures)
{
    struct exports *exports = context;
    struct iscsi_figures found;

    iscsi_target_figures(exports->target, &found);
    *figures = (struct api_export_figures){ .exports = found.exports,
        .sessions = found.sessions,
        .connections = found.connections,
        .commands = found.commands,
        .read_bytes = found.read_bytes,
        .written_bytes = found.written_bytes,
        .logins_refused = found.logins_refused,
        .connections_dropped = found.connections_dropped };
}

/* -- the revival --------------------------------------------------------------------------- */

static unsigned revival_tidy(void *context)
{
    struct exports *exports = context;
    unsigned left;

    pthread_mutex_lock(&exports->lock);
    left = served_reap(exports);
    pthread_mutex_unlock(&exports->lock);
    return left;
}

static void revival_cancel(void *context)
{
    struct exports *exports = context;

    pthread_mutex_lock(&exports->lock);
    for (struct served *served = exports->list; served; served = served->next)
        served_cancel(exports, served);
    pthread_mutex_unlock(&exports->lock);
}

/* -- life ---------------------------------------------------------------------------------- */

static int portals_parse(const char *const *addresses, size_t count,
        struct sockaddr_storage *portals, struct fault *fault)
{
    struct fault why = { 0 };

    for (size_t i = 0; i < count; i++)
        if (portal_parse(addresses[i], ISCSI_PORT, true, &portals[i], &why) != 0)
            return fault_set(
                    fault, -EINVAL, "--iscsi %.60s: %.80s", addresses[i], why.why);
    return 0;
}

static int target_start(struct exports *exports, const char *const *addresses,
        size_t count, const char *prefix, struct fault *fault)
{
    struct engine *engine = service_engine(exports->service);
    scoped_free struct sockaddr_storage *portals = calloc(count, sizeof(*portals));
    struct loop *loops[64];
    size_t loop_count = 0;

    while (loop_count < 64 &&
            (loops[loop_count] = engine_loop(engine, (unsigned)loop_count)))
        loop_count++;
    if (!portals)
        return fault_set(fault, -ENOMEM, "out of memory");
    if (portals_parse(addresses, count, portals, fault) != 0)
        return fault->error;
    exports->target =
            iscsi_target_create(&(struct iscsi_target_options){ .loops = loops,
                                        .loop_count = loop_count,
                                        .portals = portals,
                                        .portal_count = count,
                                        .prefix = prefix },
                    fault);
    return exports->target ? 0 : fault->error;
}

struct exports *exports_start(struct service *service, const char *const *addresses,
        size_t count, const char *prefix, struct fault *fault)
{
    struct exports *exports = calloc(1, sizeof(*exports));

    if (!exports) {
        (void)fault_set(fault, -ENOMEM, "out of memory");
        return NULL;
    }
    exports->service = service;
    exports->exporter =
            (struct api_exporter){ exports, on_publish, on_withdraw, on_change,
                on_settle, on_serves, on_sessions, on_portal, on_figures, on_cancel };
    pthread_mutex_init(&exports->lock, NULL);
    if (target_start(exports, addresses, count, prefix, fault) == 0) {
        service_export_by(service, &exports->exporter);
        exports->revival = revival_start(service,
                &(struct revival_ops){ exports, revival_tidy, revival_cancel });
        if (exports->revival)
            return exports;
        (void)fault_set(fault, -EAGAIN, "no thread");
    }
    (void)exports_stop(exports);
    return NULL;
}

bool exports_stop(struct exports *exports)
{
    if (!exports)
        return true;
    pthread_mutex_lock(&exports->lock);
    exports->stopping = true;
    pthread_mutex_unlock(&exports->lock);
    revival_stop(exports->revival);
    service_export_by(exports->service, NULL);
    if (!iscsi_target_destroy(exports->target, LEAVE_MS)) {
        log_plain(LOG_ERROR, "exports-left",
                "what is exported does not close: it is left as it is");
        return false;
    }
    while (exports->list) {
        struct served *served = exports->list;
        exports->list = served->next;
        served_free(served);
    }
    pthread_mutex_destroy(&exports->lock);
    free(exports);
    return true;
}

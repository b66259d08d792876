/* The face: called by any thread but a loop; all it does to a loop is posting. */

#include "server/iscsi/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "replica/base/check.h"
#include "replica/base/clock.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/export.h"
#include "server/iscsi/grant.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/portal.h"
#include "server/iscsi/roster.h"
#include "server/iscsi/target_inside.h"
#include "server/iscsi/text.h"

enum {
    BUFFER_BYTES = 128 << 20,
    HALL_BYTES = 32 << 20, /* of a loop at least */
    PING_MS = 15 * 1000,
    GRACE_MS = 1000, /* for sessions to log out when their export ends, at most */
    STOP_MS = 60 * 1000, /* devices end within their own deadlines */
};

void iscsi_target_name(
        const char *prefix, const struct uuid *id, char name[SCSI_NAME_MAX])
{
    (void)snprintf(name, SCSI_NAME_MAX, "%.180s:%s", prefix, id->text);
}

/* -- waiting ------------------------------------------------------------------------------- */

bool target_wait(struct iscsi_target *target, const struct timespec *deadline)
{
    return pthread_cond_timedwait(&target->changed, &target->lock, deadline) !=
            ETIMEDOUT;
}

/* -- life ---------------------------------------------------------------------------------- */

static void target_free(struct iscsi_target *target)
{
    portals_close(target);
    for (size_t i = 0; i < target->hall_count; i++)
        hall_finish(&target->halls[i]);
    free(target->halls);
    pthread_cond_destroy(&target->changed);
    pthread_mutex_destroy(&target->lock);
    free(target);
}

/* Of many loops each still has room for what a few sessions can have under way. */
static size_t hall_bytes(const struct iscsi_target_options *options)
{
    size_t bytes = BUFFER_BYTES / options->loop_count;

    if (options->buffer_bytes)
        return options->buffer_bytes / options->loop_count;
    return bytes > HALL_BYTES ? bytes : HALL_BYTES;
}

static struct iscsi_target *target_allocate(const struct iscsi_target_options *options)
{
    struct iscsi_target *target = calloc(1, sizeof *target);
    pthread_condattr_t attributes;

    if (!target)
        return NULL;
    (void)snprintf(target->prefix, sizeof target->prefix, "%s", options->prefix);
    target->stuck_ms = options->stuck_ms ? options->stuck_ms : STUCK_MS;
    target->ping_ms = options->ping_ms ? options->ping_ms : PING_MS;
    pthread_mutex_init(&target->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&target->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    target->halls = calloc(options->loop_count, sizeof *target->halls);
    while (target->halls && target->hall_count < options->loop_count) {
        struct hall *hall = &target->halls[target->hall_count];
        if (!hall_start(hall, target, options->loops[target->hall_count],
                    hall_bytes(options)))
            break;
        target->hall_count++;
    }
    if (target->hall_count == options->loop_count)
        return target;
    target_free(target);
    return NULL;
}

static void on_start(struct loop_task *post)
{
    struct iscsi_target *target = container_of(post, struct iscsi_target, start);
    int result = portals_watch(target);

    if (result < 0)
        portals_unwatch(target);
    pthread_mutex_lock(&target->lock);
    target->start_result = result;
    target->started = true;
    pthread_cond_broadcast(&target->changed);
    pthread_mutex_unlock(&target->lock);
}

/* The loops run: this one answers soon, or the process is beyond help. */
static int target_listen(struct iscsi_target *target)
{
    target->start.run = on_start;
    loop_post(target->halls[0].loop, &target->start);
    pthread_mutex_lock(&target->lock);
    while (!target->started)
        pthread_cond_wait(&target->changed, &target->lock);
    pthread_mutex_unlock(&target->lock);
    return target->start_result;
}

struct iscsi_target *iscsi_target_create(
        const struct iscsi_target_options *options, struct fault *fault)
{
    struct iscsi_target *target;
    int result = 0;

    check(options->loop_count > 0);
    if (options->portal_count > PORTALS_MAX) {
        fault_set(fault, -EINVAL, "more than %d portals", PORTALS_MAX);
        return NULL;
    }
    target = target_allocate(options);
    if (!target) {
        fault_set(fault, -ENOMEM, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < options->portal_count && result == 0; i++)
        result = portal_open(target, &options->portals[i], fault);
    if (result == 0 && (result = target_listen(target)) < 0)
        fault_set(fault, result, "cannot watch a portal: %s", strerrordesc_np(-result));
    if (result < 0) {
        target_free(target);
        return NULL;
    }
    target->halls_running = target->hall_count;
    return target;
}

bool iscsi_target_destroy(struct iscsi_target *target, unsigned ms)
{
    struct timespec deadline = deadline_in(ms + STOP_MS);
    bool ended = true;

    if (!target)
        return true;
    pthread_mutex_lock(&target->lock);
    target->grace_ms = ms;
    for (struct export *export = target->exports; export; export = export->next)
        if (export->state == EXPORT_SERVING || export->state == EXPORT_OPENING)
            export_end(export, ms);
    pthread_mutex_unlock(&target->lock);
    for (size_t i = 0; i < target->hall_count; i++)
        loop_post(target->halls[i].loop, &target->halls[i].stop);
    pthread_mutex_lock(&target->lock);
    while (target->halls_running > 0 && ended)
        ended = target_wait(target, &deadline);
    pthread_mutex_unlock(&target->lock);
    if (ended)
        target_free(target);
    else /* a device that never ends still points to it */
        log_plain(LOG_ERROR, "iscsi-target-left", "the iSCSI target does not end");
    return ended;
}

bool iscsi_target_portal(const struct iscsi_target *target, unsigned index,
        struct sockaddr_storage *address)
{
    if (index >= target->portal_count)
        return false;
    *address = target->portals[index].address;
    return true;
}

/* -- exports ------------------------------------------------------------------------------- */

static bool kept_copy(struct export *export, const struct iscsi_export *what)
{
    if (what->kept_length == 0)
        return true;
    export->kept = malloc(what->kept_length);
    if (!export->kept)
        return false;
    memcpy(export->kept, what->kept, what->kept_length);
    export->kept_length = what->kept_length;
    return true;
}

static struct export *export_make(struct iscsi_target *target,
        const struct iscsi_export *what, int *result, struct fault *fault)
{
    struct export *export = calloc(1, sizeof *export);
    char normal[SCSI_NAME_MAX];

    if (!export || !kept_copy(export, what)) {
        *result = fault_set(fault, -ENOMEM, "out of memory");
        free(export);
        return NULL;
    }
    export->target = target;
    export->hall = &target->halls[what->loop];
    export->id = what->id;
    export->read_only = what->read_only;
    export->backing = what->backing;
    export->state = EXPORT_OPENING;
    iscsi_target_name(target->prefix, &what->id, export->name);
    if (!text_name(export->name, normal))
        *result = fault_set(fault, -EINVAL, "%.100s is no iSCSI name", export->name);
    else
        *result = grant_make(what, &export->ready, fault);
    if (*result == 0)
        return export;
    export_free(export);
    return NULL;
}

struct export *export_still(
        struct iscsi_target *target, const struct uuid *id, uint64_t serial)
{
    struct export *export = export_find_id(target, id);
    return export && export->serial == serial ? export : NULL;
}

static int publish_wait(struct iscsi_target *target, const struct uuid *id,
        uint64_t serial, unsigned ms, struct fault *fault)
{
    struct timespec deadline = deadline_in(ms);
    struct export *export = export_still(target, id, serial);
    bool waits = true;
    int result = 0;

    while (export && export->state == EXPORT_OPENING && waits) {
        waits = target_wait(target, &deadline);
        export = export_still(target, id, serial);
    }
    if (!export || export->state == EXPORT_ENDING)
        return fault_set(fault, -ENOENT, "it was withdrawn meanwhile");
    if (export->state == EXPORT_OPENING) {
        export_end(export, 0);
        return fault_set(fault, -ETIMEDOUT, "the element does not open in time");
    }
    if (export->state == EXPORT_FAILED) {
        result = export->fault.error;
        if (fault)
            *fault = export->fault;
        export_unlink(export);
        export_free(export);
    }
    return result;
}

int iscsi_target_publish(struct iscsi_target *target, const struct iscsi_export *what,
        unsigned ms, struct fault *fault)
{
    struct export *export;
    int result = 0;

    check(what->loop < target->hall_count);
    export = export_make(target, what, &result, fault);
    if (!export)
        return result;
    pthread_mutex_lock(&target->lock);
    if (export_find_id(target, &what->id)) {
        pthread_mutex_unlock(&target->lock);
        export_free(export);
        return fault_set(fault, -EEXIST, "it is exported already");
    }
    grant_take(export, &export->ready);
    export->next = target->exports;
    target->exports = export;
    export->serial = ++target->exports_made;
    export_open(export);
    result = publish_wait(target, &what->id, export->serial, ms, fault);
    pthread_mutex_unlock(&target->lock);
    return result;
}

int iscsi_target_withdraw(
        struct iscsi_target *target, const struct uuid *id, unsigned ms)
{
    struct timespec deadline = deadline_in(ms);
    struct export *export;
    uint64_t serial = 0;
    bool waits = true;
    int result = 0;

    pthread_mutex_lock(&target->lock);
    export = export_find_id(target, id);
    if (!export)
        result = -ENOENT;
    else
        serial = export->serial;
    if (export &&
            (export->state == EXPORT_SERVING || export->state == EXPORT_OPENING)) {
        export_end(export, ms / 2 < GRACE_MS ? ms / 2 : GRACE_MS);
        pthread_cond_broadcast(&target->changed); /* its publisher waits in vain */
    }
    while (export_still(target, id, serial) && waits)
        waits = target_wait(target, &deadline);
    if (export_still(target, id, serial))
        result = -ETIMEDOUT;
    pthread_mutex_unlock(&target->lock);
    return result;
}

/* -- figures ------------------------------------------------------------------------------- */

static void session_show(
        const struct roster_entry *entry, struct iscsi_session *session)
{
    memcpy(session->initiator, entry->initiator, sizeof session->initiator);
    memcpy(session->address, entry->address, sizeof session->address);
    session->since_ms = entry->since_ms;
    session->queue_depth = atomic_load_explicit(&entry->queued, memory_order_relaxed);
    session->read_bytes =
            atomic_load_explicit(&entry->read_bytes, memory_order_relaxed);
    session->written_bytes =
            atomic_load_explicit(&entry->written_bytes, memory_order_relaxed);
}

int iscsi_target_sessions(struct iscsi_target *target, const struct uuid *id,
        struct iscsi_session *sessions, size_t room)
{
    const struct export *export;
    int count = 0;

    pthread_mutex_lock(&target->lock);
    export = export_find_id(target, id);
    if (export && export->state != EXPORT_SERVING)
        export = NULL;
    for (unsigned i = 0; export && i < ROSTER; i++) {
        const struct roster_entry *entry = &target->roster[i];
        if (!entry->taken || entry->export != export)
            continue;
        if ((size_t)count < room)
            session_show(entry, &sessions[count]);
        count++;
    }
    pthread_mutex_unlock(&target->lock);
    return export ? count : -ENOENT;
}

void iscsi_target_figures(struct iscsi_target *target, struct iscsi_figures *figures)
{
    *figures = (struct iscsi_figures){
        .connections = atomic_load_explicit(&target->connections, memory_order_relaxed),
        .logins_refused =
                atomic_load_explicit(&target->logins_refused, memory_order_relaxed),
        .connections_dropped = atomic_load_explicit(
                &target->connections_dropped, memory_order_relaxed),
    };
    for (size_t i = 0; i < target->hall_count; i++) {
        const struct hall *hall = &target->halls[i];
        figures->commands +=
                atomic_load_explicit(&hall->commands, memory_order_relaxed);
        figures->read_bytes +=
                atomic_load_explicit(&hall->read_bytes, memory_order_relaxed);
        figures->written_bytes +=
                atomic_load_explicit(&hall->written_bytes, memory_order_relaxed);
    }
    pthread_mutex_lock(&target->lock);
    for (unsigned i = 0; i < ROSTER; i++)
        figures->sessions += target->roster[i].taken;
    for (const struct export *export = target->exports; export; export = export->next)
        figures->exports += export->state == EXPORT_SERVING;
    pthread_mutex_unlock(&target->lock);
}

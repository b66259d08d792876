/* Who may come in, and the way from the login to the loop of an export.
 *
 * The order of trust: names and limits are only looked up until the login is over; then the
 * session is entered in the roster and its connection posted to the loop of its export, where
 * an older session of the same nexus (initiator name and ISID) ends first, commands and all,
 * before the new one hears that it is in (RFC 7143 6.3.5). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/inside.h"

enum {
    STATUS_RESOURCES = 0x0302,
    STATUS_UNAVAILABLE = 0x0301,
    STATUS_FORBIDDEN = 0x0202,
    STATUS_NOT_FOUND = 0x0203
};

/* -- names --------------------------------------------------------------------------------- */

static enum login_access normal_access(struct connection *connection,
        const char *initiator, const char *name, struct login_chap *chap)
{
    struct export *export = export_find_name(connection->target, name);

    if (!export)
        return LOGIN_UNKNOWN_TARGET;
    if (!export_allows(export, initiator))
        return LOGIN_FORBIDDEN;
    connection->entry->credentials = export->credentials;
    if (!export->grant->has_chap)
        return LOGIN_OPEN;
    *chap = export->grant->chap;
    return LOGIN_WITH_CHAP;
}

/* Whoever may use an export without CHAP may ask for those without; one who may use some only
   with CHAP shows first who it is. One who may use none hears of none. */
static enum login_access discovery_access(
        struct iscsi_target *target, const char *initiator, struct login_chap *chap)
{
    enum login_access access = LOGIN_OPEN;

    for (struct export *export = target->exports; export; export = export->next) {
        if (export->state != EXPORT_SERVING || !export_allows(export, initiator))
            continue;
        if (!export->grant->has_chap)
            return LOGIN_OPEN;
        *chap = export->grant->chap;
        access = LOGIN_WITH_CHAP;
    }
    return access;
}

enum login_access admission_access(void *context, const char *initiator,
        const char *target_name, struct login_chap *chap)
{
    struct connection *connection = context;
    struct iscsi_target *target = connection->target;
    enum login_access access;

    pthread_mutex_lock(&target->lock);
    access = target_name[0] ? normal_access(connection, initiator, target_name, chap)
                            : discovery_access(target, initiator, chap);
    pthread_mutex_unlock(&target->lock);
    return access;
}

bool admission_user(
        void *context, const char *initiator, const char *user, struct login_chap *chap)
{
    struct connection *connection = context;
    struct iscsi_target *target = connection->target;
    bool found = false;

    pthread_mutex_lock(&target->lock);
    for (struct export *export = target->exports; export && !found;
            export = export->next) {
        found = export->state == EXPORT_SERVING && export->grant->has_chap &&
                export_allows(export, initiator) &&
                strcmp(export->grant->chap.user, user) == 0;
        if (found)
            *chap = export->grant->chap;
    }
    pthread_mutex_unlock(&target->lock);
    return found;
}

static bool may_see(const struct export *export, const struct login_result *who)
{
    if (export->state != EXPORT_SERVING || !export_allows(export, who->initiator))
        return false;
    if (who->session == LOGIN_NORMAL)
        return strcmp(export->name, who->target) == 0;
    return !export->grant->has_chap || strcmp(export->grant->chap.user, who->user) == 0;
}

bool admission_list(
        void *context, unsigned index, char name[SCSI_NAME_MAX], char portal[64])
{
    struct session *session = context;
    struct iscsi_target *target = session->connection->target;
    const struct export *export;

    pthread_mutex_lock(&target->lock);
    for (export = target->exports; export; export = export->next)
        if (may_see(export, &session->terms) && index-- == 0)
            break;
    if (export)
        memcpy(name, export->name, SCSI_NAME_MAX);
    pthread_mutex_unlock(&target->lock);
    (void)snprintf(portal, 64, "%.60s,1", session->connection->portal);
    return export != NULL;
}

/* -- failures ------------------------------------------------------------------------------ */

/* Whoever guessed at credentials that are not in force any more begins anew: new ones of an
   export that it may use are a fresh start, or their honest owner would wait for what it did
   with the old. */
static bool is_forgiven(struct iscsi_target *target, const struct failure *failure)
{
    bool forgiven = false;

    pthread_mutex_lock(&target->lock);
    for (const struct export *export = target->exports; export && !forgiven;
            export = export->next)
        forgiven = export->state == EXPORT_SERVING && export->grant->has_chap &&
                export->credentials > failure->credentials &&
                export_allows(export, failure->initiator);
    pthread_mutex_unlock(&target->lock);
    return forgiven;
}

static uint64_t credentials_now(struct iscsi_target *target)
{
    uint64_t made;

    pthread_mutex_lock(&target->lock);
    made = target->credentials_made;
    pthread_mutex_unlock(&target->lock);
    return made;
}

static struct failure *failure_find(struct iscsi_target *target,
        const struct connection *connection, const char *initiator)
{
    struct instant now = loop_now(connection->hall->loop);

    for (unsigned i = 0; i < FAILURES; i++) {
        struct failure *failure = &target->failures[i];
        if (failure->count > 0 && strcmp(failure->initiator, initiator) == 0 &&
                strcmp(failure->address, connection->host) == 0 &&
                instant_ms_until(failure->first, now) < FAILURE_MS &&
                !is_forgiven(target, failure))
            return failure;
    }
    return NULL;
}

bool admission_throttled(void *context, const char *initiator)
{
    struct connection *connection = context;
    const struct failure *failure =
            failure_find(connection->target, connection, initiator);

    connection->entry->throttled = failure && failure->count >= FAILURES_MAX;
    return connection->entry->throttled;
}

void admission_failed(void *context, const char *initiator)
{
    struct connection *connection = context;
    struct iscsi_target *target = connection->target;
    struct failure *failure = failure_find(target, connection, initiator);
    struct failure *oldest = &target->failures[0];

    if (failure) {
        failure->count++;
        return;
    }
    for (unsigned i = 1; i < FAILURES; i++)
        if (instant_reached(oldest->first, target->failures[i].first))
            oldest = &target->failures[i];
    oldest->first = loop_now(connection->hall->loop);
    oldest->count = 1;
    oldest->credentials = credentials_now(target);
    (void)snprintf(oldest->initiator, sizeof oldest->initiator, "%s", initiator);
    (void)snprintf(oldest->address, sizeof oldest->address, "%s", connection->host);
}

/* -- the roster ---------------------------------------------------------------------------- */

static bool tsih_used(const struct iscsi_target *target, uint16_t tsih)
{
    for (unsigned i = 0; i < ROSTER; i++)
        if (target->roster[i].taken && target->roster[i].tsih == tsih)
            return true;
    return false;
}

uint16_t admission_tsih(struct iscsi_target *target)
{
    pthread_mutex_lock(&target->lock);
    do
        target->last_tsih++;
    while (target->last_tsih == 0 || tsih_used(target, target->last_tsih));
    pthread_mutex_unlock(&target->lock);
    return target->last_tsih;
}

static bool same_nexus(const struct roster_entry *entry, const struct export *export,
        const struct login_result *who)
{
    return entry->export == export && strcmp(entry->initiator, who->initiator) == 0 &&
            memcmp(entry->isid, who->isid, sizeof entry->isid) == 0;
}

/* Is there a place? One that replaces an older session of its own takes that one's. */
static struct roster_entry *roster_place(struct iscsi_target *target,
        const struct export *export, const struct login_result *who)
{
    unsigned all = 0, of_target = 0, of_initiator = 0;
    struct roster_entry *place = NULL;

    for (unsigned i = 0; i < ROSTER; i++) {
        struct roster_entry *entry = &target->roster[i];
        if (!entry->taken) {
            place = entry;
            continue;
        }
        if (export && same_nexus(entry, export, who))
            continue;
        all++;
        of_target += export && entry->export == export;
        of_initiator += strcmp(entry->initiator, who->initiator) == 0;
    }
    if (all >= SESSIONS_MAX || of_target >= SESSIONS_TARGET_MAX ||
            of_initiator >= SESSIONS_INITIATOR_MAX)
        return NULL;
    return place;
}

static void roster_enter(struct roster_entry *entry, struct session *session)
{
    const struct login_result *who = &session->terms;

    entry->taken = true;
    entry->tsih = session->connection->entry->tsih;
    entry->export = session->export;
    memcpy(entry->initiator, who->initiator, sizeof entry->initiator);
    entry->proven = who->user[0];
    memcpy(entry->address, session->connection->address, sizeof entry->address);
    memcpy(entry->isid, who->isid, sizeof entry->isid);
    entry->since_ms = clock_wall_ms();
    atomic_store_explicit(&entry->read_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->written_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->queued, 0, memory_order_relaxed);
    session->entry = entry;
    if (session->export)
        session->export->sessions++;
}

/* Under the lock: whatever was true when the names were looked up may have changed. */
static uint16_t roster_try(struct session *session)
{
    struct iscsi_target *target = session->connection->target;
    const struct login_result *who = &session->terms;
    struct roster_entry *place;

    if (who->session == LOGIN_NORMAL) {
        session->export = export_find_name(target, who->target);
        if (!session->export || !export_allows(session->export, who->initiator))
            return STATUS_NOT_FOUND;
        /* What it has shown is worth nothing under credentials that came meanwhile. */
        if (session->connection->entry->credentials != session->export->credentials)
            return STATUS_UNAVAILABLE;
    }
    place = roster_place(target, session->export, who);
    if (!place)
        return STATUS_RESOURCES;
    roster_enter(place, session);
    return 0;
}

void admission_leave(struct session *session)
{
    struct iscsi_target *target = session->connection->target;
    struct export *export = session->export;

    if (!session->entry)
        return;
    pthread_mutex_lock(&target->lock);
    session->entry->taken = false;
    if (export)
        export->sessions--;
    pthread_cond_broadcast(&target->changed);
    pthread_mutex_unlock(&target->lock);
    session->entry = NULL;
}

/* -- the way ------------------------------------------------------------------------------- */

static bool older_is_there(const struct connection *connection)
{
    const struct session *mine = connection->session;
    bool found = false;

    for (struct connection *other = connection->hall->connections, *next; other;
            other = next) {
        const struct session *session = other->session;
        next = other->next;
        if (other == connection || !session || session->export != mine->export ||
                strcmp(session->terms.initiator, mine->terms.initiator) != 0 ||
                memcmp(session->terms.isid, mine->terms.isid, 6) != 0 ||
                session->order > mine->order)
            continue;
        found = true;
        connection_drop(other, "its initiator has logged in anew");
    }
    return found;
}

/* Terms that changed while it was on its way did not find it on this loop. */
static bool still_allowed(const struct session *session)
{
    struct iscsi_target *target = session->connection->target;
    bool allowed;

    pthread_mutex_lock(&target->lock);
    allowed = export_keeps(
            session->export, session->terms.initiator, session->terms.user[0]);
    pthread_mutex_unlock(&target->lock);
    return allowed;
}

static void try_to_open(struct connection *connection)
{
    struct export *export = connection->session->export;

    if (export->ending || !still_allowed(connection->session)) {
        entry_refuse(
                connection, export->ending ? STATUS_UNAVAILABLE : STATUS_FORBIDDEN);
        return;
    }
    if (older_is_there(connection))
        return; /* admission_retry() when it is gone */
    session_begin(connection->session);
    entry_accept(connection);
}

static void on_arrival(struct loop_task *post)
{
    struct connection *connection = container_of(post, struct connection, move);
    struct export *export = connection->session->export;

    connection->session->order = ++export->arrivals;
    connection_arrive(connection, export->hall);
    try_to_open(connection);
}

void admission_retry(struct export *export)
{
    struct connection *connection = export->hall->connections, *next;

    for (; connection; connection = next) {
        next = connection->next;
        if (connection->state == CONNECTION_WAITING && !connection->out.blocked &&
                connection->session->export == export &&
                !connection->session->nexus_open)
            try_to_open(connection);
    }
}

uint16_t admission_enter(struct connection *connection)
{
    struct iscsi_target *target = connection->target;
    struct session *session = session_create(connection, &connection->entry->result);
    uint16_t status;

    if (!session)
        return STATUS_RESOURCES;
    pthread_mutex_lock(&target->lock);
    status = roster_try(session);
    pthread_mutex_unlock(&target->lock);
    if (status) {
        free(session);
        return status;
    }
    connection->session = session;
    entry_leave(connection);
    if (!session->export) { /* discovery stays where it is */
        entry_accept(connection);
        return 0;
    }
    connection_move(connection);
    connection->move.run = on_arrival;
    loop_post(session->export->hall->loop, &connection->move);
    return 0;
}

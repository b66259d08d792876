/* Who may come in, and the way from the login to the loop of an export.
 *
 * The order of trust: names and limits are only looked up until the login is over; then the
 * session is entered in the roster and its connection posted to the loop of its export, where
 * an older session of the same nexus (initiator name and ISID) ends first, commands and all,
 * before the new one hears that it is in (RFC 7143 6.3.5). */
#include "server/iscsi/admission.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/discovery.h"
#include "server/iscsi/entry.h"
#include "server/iscsi/export.h"
#include "server/iscsi/grant.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/roster.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

enum {
    STATUS_RESOURCES = 0x0302,
    STATUS_UNAVAILABLE = 0x0301,
    STATUS_FORBIDDEN = 0x0202,
    STATUS_NOT_FOUND = 0x0203
};

enum { FAILURES_MAX = 5, FAILURE_MS = 60 * 1000 };

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

/* -- the way ------------------------------------------------------------------------------- */

/* Under the lock: whatever was true when the names were looked up may have changed. */
static uint16_t roster_try(struct session *session)
{
    struct iscsi_target *target = session->connection->target;
    struct entry *entry = session->connection->entry;
    const struct login_result *who = &session->terms;

    session->export = export_find_name(target, who->target);
    if (!session->export || !export_allows(session->export, who->initiator))
        return STATUS_NOT_FOUND;
    /* What it has shown is worth nothing under credentials that came meanwhile. */
    if (entry->credentials != session->export->credentials)
        return STATUS_UNAVAILABLE;
    return roster_enter(session, entry->why) ? 0 : STATUS_RESOURCES;
}

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

/* It stays where it is. */
static void discovery_enter(struct session *session)
{
    struct connection *connection = session->connection;

    discovery_make_room(connection);
    session->began = loop_now(connection->hall->loop);
    connection->session = session;
    entry_leave(connection);
    entry_accept(connection);
}

static uint16_t normal_enter(struct session *session)
{
    struct connection *connection = session->connection;
    struct iscsi_target *target = connection->target;
    uint16_t status;

    pthread_mutex_lock(&target->lock);
    status = roster_try(session);
    pthread_mutex_unlock(&target->lock);
    if (status)
        return status;
    connection->session = session;
    entry_leave(connection);
    connection_move(connection);
    connection->move.run = on_arrival;
    loop_post(session->export->hall->loop, &connection->move);
    return 0;
}

uint16_t admission_enter(struct connection *connection)
{
    struct session *session = session_create(connection, &connection->entry->result);
    uint16_t status = 0;

    if (!session)
        return STATUS_RESOURCES;
    if (session->terms.session == LOGIN_DISCOVERY)
        discovery_enter(session);
    else
        status = normal_enter(session);
    if (status)
        free(session);
    return status;
}

/* Exports: made and unmade on their loop, looked up under the target's lock.
 *
 *   OPENING --unit made--> SERVING --withdrawn--> ENDING --no session, unit gone--> freed
 *      \--not made---> FAILED (its publisher reads why, and frees it)
 *
 * A publisher that gave up waiting leaves the export ENDING: it is unmade when it is made. */
#include "server/iscsi/export.h"

#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/grant.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

/* -- under the lock ------------------------------------------------------------------------ */

bool export_allows(const struct export *export, const char *initiator)
{
    const struct grant *grant = export->grant;

    for (size_t i = 0; i < grant->initiator_count; i++)
        if (strcmp(grant->initiators[i], "*") == 0 ||
                strcmp(grant->initiators[i], initiator) == 0)
            return true;
    return false;
}

bool export_keeps(const struct export *export, const char *initiator, bool proven)
{
    return export_allows(export, initiator) && (proven || !export->grant->has_chap);
}

struct export *export_find_name(struct iscsi_target *target, const char *name)
{
    struct export *export = target->exports;

    while (export &&
            (export->state != EXPORT_SERVING || strcmp(export->name, name) != 0))
        export = export->next;
    return export;
}

struct export *export_find_id(struct iscsi_target *target, const struct uuid *id)
{
    struct export *export = target->exports;

    while (export && !uuid_equal(&export->id, id))
        export = export->next;
    return export;
}

void export_unlink(struct export *export)
{
    struct export **link = &export->target->exports;

    while (*link != export)
        link = &(*link)->next;
    *link = export->next;
}

void export_free(struct export *export)
{
    grant_destroy(export->grant);
    grant_destroy(export->ready);
    free(export->kept);
    free(export);
}

/* -- on its loop ------------------------------------------------------------------------- */

/* Who waits for it sees that it is not in the list any more. */
static void export_gone(struct export *export)
{
    struct iscsi_target *target = export->target;
    struct hall *hall = export->hall;

    hall->endings--;
    pthread_mutex_lock(&target->lock);
    export_unlink(export);
    pthread_cond_broadcast(&target->changed);
    pthread_mutex_unlock(&target->lock);
    export_free(export);
    hall_connection_gone(hall);
}

static void on_unit_gone(void *context)
{
    struct export *export = context;

    export->busy = false;
    export->unit = NULL;
    export_left(export);
}

static bool is_deserted(struct export *export)
{
    bool deserted;

    pthread_mutex_lock(&export->target->lock);
    deserted = export->sessions == 0 && !export->changing;
    pthread_mutex_unlock(&export->target->lock);
    return deserted;
}

void export_left(struct export *export)
{
    if (!export->ending || export->busy || !is_deserted(export))
        return;
    if (export->unit) {
        export->busy = true;
        scsi_unit_destroy(export->unit, on_unit_gone, export);
    } else {
        export_gone(export);
    }
}

static void sessions_ask(struct export *export)
{
    struct connection *connection = export->hall->connections;

    for (; connection; connection = connection->next)
        if (connection->state == CONNECTION_OPEN &&
                connection->session->export == export)
            session_ask_logout(connection->session, export->grace_ms);
}

static void ending_start(struct export *export)
{
    export->ending = true;
    export->hall->endings++;
    export->patience = instant_add_ms(loop_now(export->hall->loop), export->grace_ms);
    hall_tick_start(export->hall);
    sessions_ask(export);
    export_left(export);
}

static void on_end(struct loop_task *post)
{
    ending_start(container_of(post, struct export, end));
}

void export_end(struct export *export, unsigned grace_ms)
{
    bool open = export->state == EXPORT_SERVING;

    export->state = EXPORT_ENDING;
    export->grace_ms = grace_ms;
    if (open) /* else it ends when it has opened */
        loop_post(export->hall->loop, &export->end);
}

/* Nobody but its publisher knows of an export that could not be made. */
static void on_made(void *context, struct scsi_unit *unit, const struct fault *fault)
{
    struct export *export = context;
    struct iscsi_target *target = export->target;
    bool wanted;

    export->busy = false;
    export->unit = unit;
    pthread_mutex_lock(&target->lock);
    wanted = export->state == EXPORT_OPENING;
    if (wanted && !unit)
        export->fault = *fault;
    if (wanted)
        export->state = unit ? EXPORT_SERVING : EXPORT_FAILED;
    pthread_cond_broadcast(&target->changed);
    pthread_mutex_unlock(&target->lock);
    if (!wanted)
        ending_start(export);
}

static void on_open(struct loop_task *post)
{
    struct export *export = container_of(post, struct export, opening);
    struct scsi_unit_options options = {
        .loop = export->hall->loop,
        .buffers = export->hall->buffers,
        .id = export->id,
        .name = export->name,
        .read_only = export->read_only,
        .backing = export->backing,
        .kept = export->kept,
        .kept_length = export->kept_length,
    };

    export->busy = true;
    scsi_unit_create(&options, on_made, export);
    free(export->kept); /* read */
    export->kept = NULL;
}

static void on_change(struct loop_task *post)
{
    struct export *export = container_of(post, struct export, change);
    struct connection *connection = export->hall->connections;
    bool stays;

    /* Before the walk: a grant that changes during it has another one. */
    pthread_mutex_lock(&export->target->lock);
    export->changing = false;
    pthread_mutex_unlock(&export->target->lock);
    for (; connection; connection = connection->next) {
        if (!connection->session || connection->session->export != export)
            continue;
        pthread_mutex_lock(&export->target->lock);
        stays = export_keeps(export, connection->session->terms.initiator,
                connection->session->terms.user[0]);
        pthread_mutex_unlock(&export->target->lock);
        if (!stays)
            connection_drop(connection, "it may not use this any more");
    }
    export_left(export);
}

void export_open(struct export *export)
{
    /* One each: its loop may read this while we, tired of waiting, have it end. */
    export->opening.run = on_open;
    export->end.run = on_end;
    export->change.run = on_change;
    loop_post(export->hall->loop, &export->opening);
}

void export_recheck(struct export *export)
{
    if (export->changing)
        return;
    export->changing = true;
    loop_post(export->hall->loop, &export->change);
}

void exports_tick(struct hall *hall, struct instant now)
{
    struct connection *connection = hall->connections, *next;

    for (; connection && hall->endings > 0; connection = next) {
        struct export *export =
                connection->session ? connection->session->export : NULL;
        next = connection->next;
        if (export && export->ending && instant_reached(now, export->patience))
            connection_drop(connection, NULL);
    }
}

/* What a loop has of the target: its buffers, its connections, and one timer that looks at
 * every deadline of them. Coarse on purpose: no command starts or stops a timer. */
#include "server/iscsi/hall.h"

#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/command.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/discovery.h"
#include "server/iscsi/entry.h"
#include "server/iscsi/export.h"
#include "server/iscsi/portal.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

enum {
    FULL_MS = 1000, /* an immediate command waits for a buffer, then TASK SET FULL */
    BODY_RATE = 64 << 10 /* bytes a second of a PDU's data, after the first second */
};

/* -- one connection ------------------------------------------------------------------------ */

/* Silence: a NOP-In after ping_ms, the end after as much again. */
static void silence_tick(struct connection *connection, struct instant now)
{
    unsigned ping_ms = connection->target->ping_ms;

    if (connection->in.paused ||
            connection->out.blocked) /* we do not listen, or speak */
        return;
    if (instant_ms_until(connection->heard, now) < ping_ms)
        return;
    if (instant_reached(connection->heard, connection->pinged)) {
        connection->pinged = now;
        session_ping(connection->session);
    } else if (instant_ms_until(connection->pinged, now) >= ping_ms) {
        connection_drop(connection, "it does not answer");
    }
}

/* A PDU's data comes at 64 KiB a second or more, a header within half a minute. */
static void progress_tick(struct connection *connection, struct instant now)
{
    const struct receive *in = &connection->in;
    uint64_t ms = instant_ms_until(in->since, now);

    if (in->state == RECEIVE_DATA && ms > 1000 && !in->paused) {
        uint64_t due = (ms - 1000) * BODY_RATE / 1000;
        if (in->length - in->left < due)
            connection_drop(connection, "a PDU comes too slowly");
    } else if (in->end > in->begin && !in->paused &&
            instant_ms_until(connection->heard, now) >= connection->target->stuck_ms) {
        connection_drop(connection, "a PDU breaks off");
    }
}

static void room_tick(struct connection *connection, struct instant now)
{
    struct receive *in = &connection->in;
    uint64_t ms = instant_ms_until(in->since, now);

    if (in->state != RECEIVE_BUFFER_WAIT || !in->task)
        return;
    if (in->began == in->task && in->task->opcode == PDU_SCSI_COMMAND && ms >= FULL_MS)
        command_refuse_full(connection);
    else if (ms >= connection->target->stuck_ms)
        connection_drop(connection, "no buffer for what it sends");
}

static void output_tick(struct connection *connection, struct instant now)
{
    if (connection->out.blocked &&
            instant_ms_until(connection->out.stuck, now) >=
                    connection->target->stuck_ms)
        connection_drop(connection, "it does not take its answers");
}

static void open_tick(struct connection *connection, struct instant now)
{
    static void (*const ticks[])(struct connection *, struct instant) = { silence_tick,
        progress_tick, room_tick, output_tick, discovery_tick };

    for (unsigned i = 0; i < sizeof ticks / sizeof ticks[0] && connection->fd >= 0; i++)
        ticks[i](connection, now);
    if (connection->fd >= 0)
        session_tick(connection->session, now);
}

static void connection_tick(struct connection *connection, struct instant now)
{
    switch (connection->state) {
    case CONNECTION_LOGIN:
    case CONNECTION_WAITING:
        entry_tick(connection, now);
        break;
    case CONNECTION_OPEN:
    case CONNECTION_ASKED:
        open_tick(connection, now);
        break;
    case CONNECTION_LEAVING:
    case CONNECTION_LAST_WORDS:
    case CONNECTION_LINGERING:
        if (instant_reached(now, connection->closing))
            connection_drop(connection, NULL);
        break;
    default:
        break;
    }
}

/* -- all of them --------------------------------------------------------------------------- */

static unsigned tick_ms(const struct hall *hall)
{
    unsigned ms = hall->target->ping_ms / 4;

    return ms < 10 ? 10 : ms < TICK_MS ? ms : TICK_MS;
}

static void on_tick(struct loop_timer *timer)
{
    struct hall *hall = container_of(timer, struct hall, tick);
    struct instant now = loop_now(hall->loop);
    struct connection *connection = hall->connections, *next;

    for (; connection; connection = next) {
        next = connection->next; /* what a tick drops is freed by a post */
        connection_tick(connection, now);
        if (hall->stopping && instant_reached(now, hall->patience))
            connection_drop(connection, NULL);
    }
    exports_tick(hall, now);
    if (hall->connections || hall->stopping)
        loop_timer_start(hall->loop, timer, tick_ms(hall));
}

void hall_tick_start(struct hall *hall)
{
    if (!loop_timer_active(&hall->tick))
        loop_timer_start(hall->loop, &hall->tick, tick_ms(hall));
}

/* -- the end ------------------------------------------------------------------------------- */

static bool hall_is_empty(struct hall *hall)
{
    struct iscsi_target *target = hall->target;
    bool empty = !hall->connections;

    pthread_mutex_lock(&target->lock);
    for (struct export *export = target->exports; export; export = export->next)
        empty &= export->hall != hall;
    pthread_mutex_unlock(&target->lock);
    return empty;
}

void hall_connection_gone(struct hall *hall)
{
    struct iscsi_target *target = hall->target;

    if (!hall->stopping || hall->stopped || !hall_is_empty(hall))
        return;
    hall->stopped = true;
    loop_timer_stop(hall->loop, &hall->tick);
    pthread_mutex_lock(&target->lock);
    target->halls_running--;
    pthread_cond_broadcast(&target->changed);
    pthread_mutex_unlock(&target->lock);
}

/* Its exports are ending already; discovery and logins end here. */
static void on_stop(struct loop_task *post)
{
    struct hall *hall = container_of(post, struct hall, stop);
    struct connection *connection = hall->connections, *next;

    hall->stopping = true;
    hall->patience = instant_add_ms(loop_now(hall->loop), hall->target->grace_ms);
    if (hall == &hall->target->halls[0])
        portals_unwatch(hall->target);
    for (; connection; connection = next) {
        next = connection->next;
        if (!connection->session || !connection->session->export)
            connection_drop(connection, NULL);
    }
    hall_tick_start(hall);
    hall_connection_gone(hall);
}

bool hall_start(struct hall *hall, struct iscsi_target *target, struct loop *loop,
        size_t buffer_bytes)
{
    hall->target = target;
    hall->loop = loop;
    hall->tick.fire = on_tick;
    hall->stop.run = on_stop;
    hall->buffers = buffer_pool_create(buffer_bytes);
    return hall->buffers != NULL;
}

void hall_finish(struct hall *hall)
{
    buffer_pool_destroy(hall->buffers);
}

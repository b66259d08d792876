/* A connection: its life, and what comes in.
 *
 * One recv() a readiness, into a large buffer out of which headers and small data are parsed;
 * the rest of a large data segment is received straight to where it belongs, in the same
 * call. Parsing goes on until the bytes are used up or there is no room for what they say:
 * then nothing more is read until there is, which is all the flow control a peer gets.
 *
 * A connection ends in steps: what waits to be sent is let go, every task is aborted and
 * waited for, then the session leaves the unit and the roster, and the struct is freed. */
#include "server/iscsi/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "replica/base/check.h"
#include "replica/base/digest.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/admission.h"
#include "server/iscsi/dataout.h"
#include "server/iscsi/entry.h"
#include "server/iscsi/export.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/request.h"
#include "server/iscsi/send.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

enum { LINGER_MS = 2000 }; /* for a peer to hear our last words */

enum { MISSES = 6 }; /* in a row that count: 2^6 - 1 flushes it is left alone at most */

#define BIT(state) (UINT64_C(1) << CONNECTION_##state)
static const struct fsm_state connection_states[CONNECTION_STATES] = {
    [CONNECTION_LOGIN] = { "login",
            BIT(MOVING) | BIT(OPEN) | BIT(LAST_WORDS) | BIT(CLOSED) },
    [CONNECTION_MOVING] = { "moving", BIT(WAITING) | BIT(LAST_WORDS) | BIT(CLOSED) },
    [CONNECTION_WAITING] = { "waiting", BIT(OPEN) | BIT(LAST_WORDS) | BIT(CLOSED) },
    [CONNECTION_OPEN] = { "open",
            BIT(ASKED) | BIT(LEAVING) | BIT(LAST_WORDS) | BIT(CLOSED) },
    [CONNECTION_ASKED] = { "asked", BIT(LEAVING) | BIT(LAST_WORDS) | BIT(CLOSED) },
    [CONNECTION_LEAVING] = { "leaving", BIT(LAST_WORDS) | BIT(CLOSED) },
    [CONNECTION_LAST_WORDS] = { "last words", BIT(LINGERING) | BIT(CLOSED) },
    [CONNECTION_LINGERING] = { "lingering", BIT(CLOSED) },
    [CONNECTION_CLOSED] = { "closed", 0 },
};
#undef BIT
const struct fsm_table connection_table = { "connection", connection_states,
    CONNECTION_STATES };

static void state_set(struct connection *connection, enum connection_state state)
{
    fsm_move(&connection_table, &connection->state, state);
}

static bool talks(const struct connection *connection)
{
    return connection->state == CONNECTION_OPEN ||
            connection->state == CONNECTION_ASKED;
}

/* -- the watch ----------------------------------------------------------------------------- */

static bool wants_bytes(const struct connection *connection)
{
    switch (connection->state) {
    case CONNECTION_LOGIN:
    case CONNECTION_OPEN:
    case CONNECTION_ASKED:
        return !connection->in.paused;
    case CONNECTION_LINGERING:
        return true; /* for its end */
    default:
        return false;
    }
}

void connection_watch(struct connection *connection)
{
    unsigned events = (wants_bytes(connection) ? (unsigned)LOOP_READABLE : 0u) |
            (connection->out.blocked ? (unsigned)LOOP_WRITABLE : 0u);

    if (connection->fd < 0 || events == connection->watched)
        return;
    connection->watched = events;
    if (events == 0)
        loop_watch_stop(connection->hall->loop, &connection->watch);
    else if (loop_watch_set(connection->hall->loop, &connection->watch, connection->fd,
                     events) < 0)
        connection_drop(connection, "no descriptor can be watched");
}

static void linger_read(struct connection *connection)
{
    uint8_t sink[4096];
    ssize_t n = recv(connection->fd, sink, sizeof sink, MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        connection_drop(connection, NULL);
}

static void on_ready(struct loop_watch *watch, unsigned events)
{
    struct connection *connection = container_of(watch, struct connection, watch);

    if (connection->state == CONNECTION_LOGIN ||
            connection->state == CONNECTION_WAITING) {
        if (events & LOOP_WRITABLE && connection->out.blocked)
            entry_send(connection);
        if (events & LOOP_READABLE && connection->state == CONNECTION_LOGIN &&
                connection->fd >= 0)
            entry_read(connection);
        return;
    }
    if (events & LOOP_WRITABLE && connection->out.blocked)
        send_flush(connection);
    if (!(events & LOOP_READABLE) || connection->fd < 0)
        return;
    if (connection->state == CONNECTION_LINGERING)
        linger_read(connection);
    else if (talks(connection) && !connection->in.paused)
        connection_read(connection);
}

/* -- receive ------------------------------------------------------------------------------- */

static size_t header_size(const struct connection *connection)
{
    return PDU_HEADER + (connection->header_digest ? (size_t)PDU_DIGEST : 0);
}

static size_t tail_size(const struct connection *connection)
{
    uint32_t length = connection->in.length;
    return (-length & 3) +
            (connection->data_digest && length > 0 ? (size_t)PDU_DIGEST : 0);
}

static uint32_t le32_get(const uint8_t *at)
{
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

/* Where the next data byte goes, NULL: nowhere. Asked anew each time: the buffer of a task
   may be another one by now, or the task gone. */
static uint8_t *data_place(const struct receive *in)
{
    const struct task *task = in->task;

    if (!task || in->sink || !task->in)
        return NULL;
    return task->in->bytes + (in->offset - task->in_at);
}

static void data_account(
        struct connection *connection, const uint8_t *at, size_t length)
{
    struct receive *in = &connection->in;

    if (connection->data_digest)
        in->crc = digest_crc32c_more(in->crc, at, length);
    in->left -= (uint32_t)length;
    in->offset += (uint32_t)length;
}

static bool parse_data(struct connection *connection)
{
    struct receive *in = &connection->in;
    size_t length = in->end - in->begin;
    uint8_t *place = data_place(in);

    length = length < in->left ? length : in->left;
    if (place)
        memcpy(place, in->bytes + in->begin, length);
    data_account(connection, in->bytes + in->begin, length);
    in->begin += length;
    if (in->left > 0)
        return false;
    in->state = RECEIVE_TAIL;
    return true;
}

static bool parse_tail(struct connection *connection)
{
    struct receive *in = &connection->in;
    size_t length = tail_size(connection);
    bool damaged = false;

    if (in->end - in->begin < length)
        return false;
    if (connection->data_digest && in->length > 0) {
        const uint8_t *tail = in->bytes + in->begin;
        uint32_t padding = -in->length & 3;
        uint32_t crc = digest_crc32c_more(in->crc, tail, padding);
        damaged = crc != le32_get(tail + padding);
    }
    in->begin += length;
    in->state = RECEIVE_HEADER;
    session_payload(connection, damaged);
    return true;
}

static void pause_begin(struct connection *connection)
{
    connection->in.paused = true;
    connection->in.paused_at = loop_now(connection->hall->loop);
    connection_watch(connection);
}

static void pause_end(struct connection *connection)
{
    struct receive *in = &connection->in;

    in->paused = false;
    in->deaf_ms += instant_ms_until(in->paused_at, loop_now(connection->hall->loop));
}

/* The header is in @in->header: what shall become of its data? */
static bool parse_purpose(struct connection *connection)
{
    struct receive *in = &connection->in;

    in->task = NULL;
    in->sink = false;
    in->crc = 0;
    in->offset = 0;
    in->pdus++;
    in->length = in->left = pdu_data_length(in->header);
    in->since = loop_now(connection->hall->loop);
    in->state = RECEIVE_DATA; /* the handler may say that it waits */
    switch (session_header(connection)) {
    case TAKE:
        return true;
    case LATER:
        if (in->state == RECEIVE_DATA)
            in->state = RECEIVE_ROOM;
        pause_begin(connection);
        return false;
    default:
        if (connection->fd >= 0 && talks(connection))
            connection_finish(connection, in->fault);
        return false;
    }
}

static bool parse_header(struct connection *connection)
{
    struct receive *in = &connection->in;
    size_t length = header_size(connection);
    const uint8_t *at = in->bytes + in->begin;

    if (in->end - in->begin < length)
        return false;
    if (connection->header_digest &&
            digest_crc32c(at, PDU_HEADER) != le32_get(at + PDU_HEADER)) {
        connection_drop(connection, "header digest");
        return false;
    }
    memcpy(in->header, at, PDU_HEADER);
    in->begin += length;
    return parse_purpose(connection);
}

static void parse(struct connection *connection)
{
    struct receive *in = &connection->in;
    bool more = true;

    while (more && talks(connection)) {
        switch (in->state) {
        case RECEIVE_HEADER:
            more = parse_header(connection);
            break;
        case RECEIVE_DATA:
            more = parse_data(connection);
            break;
        case RECEIVE_TAIL:
            more = parse_tail(connection);
            break;
        default:
            more = false;
        }
    }
    if (in->begin == in->end)
        in->begin = in->end = 0;
}

void connection_resume(struct connection *connection)
{
    struct receive *in = &connection->in;

    if (!talks(connection) || !in->paused)
        return;
    pause_end(connection);
    if (in->state == RECEIVE_ROOM) {
        if (!parse_purpose(connection))
            return;
    } else if (in->state == RECEIVE_BUFFER_WAIT) {
        in->state = RECEIVE_DATA;
        in->since = loop_now(connection->hall->loop);
    }
    parse(connection);
    connection_watch(connection);
}

/* Is what comes waited for no more: is there a place for it, or is none needed? */
static bool has_place(const struct receive *in)
{
    return !in->task || in->sink || in->task->in;
}

/* A buffer has come, or a spare one for what a task has; or no buffer is wanted any more. */
static void on_resume(struct loop_task *post)
{
    struct connection *connection = container_of(post, struct connection, in.resume);
    struct session *session = connection->session;

    for (unsigned i = 0; i < TASKS; i++)
        if (session->tasks[i].spare)
            dataout_check(&session->tasks[i]);
    if (connection->in.state == RECEIVE_BUFFER_WAIT && has_place(&connection->in))
        connection_resume(connection);
    connection_try_free(connection);
}

void connection_resume_later(struct connection *connection)
{
    if (!connection->in.resume.queued)
        loop_post(connection->hall->loop, &connection->in.resume);
}

/* What is left of a part of a PDU moves to the front when the room behind it gets short. */
static void room_make(struct receive *in)
{
    if (in->begin > 0 && RECEIVE_BUFFER - in->end < RECEIVE_BUFFER / 2) {
        memmove(in->bytes, in->bytes + in->begin, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
    }
}

static ssize_t read_into(int fd, const struct iovec *iov, int count)
{
    return count == 1 ? recv(fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT)
                      : readv(fd, iov, count);
}

bool connection_read(struct connection *connection)
{
    struct receive *in = &connection->in;
    struct iovec iov[2];
    int count = 0;
    size_t direct = 0;
    ssize_t got;

    room_make(in);
    if (in->state == RECEIVE_DATA && in->begin == in->end && data_place(in)) {
        direct = in->left;
        iov[count++] = (struct iovec){ data_place(in), direct };
    }
    iov[count++] =
            (struct iovec){ in->bytes + in->end, (size_t)RECEIVE_BUFFER - in->end };
    got = read_into(connection->fd, iov, count);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0) {
        connection_drop(connection, got == 0 ? NULL : "the peer is gone");
        return false;
    }
    in->pdus = 0;
    connection->heard = loop_now(connection->hall->loop);
    connection->moved += (size_t)got;
    if (direct > (size_t)got)
        direct = (size_t)got;
    if (direct > 0)
        data_account(connection, iov[0].iov_base, direct);
    if (in->state == RECEIVE_DATA && in->left == 0)
        in->state = RECEIVE_TAIL;
    in->end += (size_t)got - direct;
    parse(connection);
    return true;
}

/* On a busy CPU the peer may run as soon as it has our answer, before we go on. When it asks
   one thing at a time, the next is then here, and a poll would only say so. In vain it costs
   a system call, so after some in a row it is left alone, twice as long each time; on a CPU of
   its own a peer is never that fast. One that asks for more at once is not read early, or its
   batches, and our sends, would become smaller. */
void connection_read_on(struct connection *connection)
{
    struct receive *in = &connection->in;

    if (!talks(connection) || in->paused || in->pdus != 1 ||
            connection->session->busy > 0 || connection->out.blocked)
        return;
    if (in->left_alone > 0) {
        in->left_alone--;
    } else if (connection_read(connection)) {
        in->misses = 0;
        loop_again(connection->hall->loop, &connection->watch);
    } else {
        in->left_alone = (1u << in->misses) - 1;
        in->misses += in->misses < MISSES;
    }
}

/* -- life ---------------------------------------------------------------------------------- */

static void log_end(const struct connection *connection, const char *why)
{
    const char *who = connection->session ? connection->session->terms.initiator
            : connection->entry           ? login_initiator(connection->entry->login)
                                          : "";

    log_plain(LOG_WARN, "iscsi-connection-dropped", "%s of %.64s: %s",
            connection->address, who, why);
    atomic_fetch_add_explicit(
            &connection->target->connections_dropped, 1, memory_order_relaxed);
}

struct connection *connection_create(struct hall *hall, int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);

    if (!connection)
        return NULL;
    connection->target = hall->target;
    connection->state = CONNECTION_LOGIN;
    connection->fd = fd;
    connection->watch.ready = on_ready;
    connection->in.resume.run = on_resume;
    connection->in.bytes = malloc(RECEIVE_BUFFER);
    if (!connection->in.bytes || !send_start(connection)) {
        free(connection->in.bytes);
        free(connection->out.frames);
        free(connection);
        return NULL;
    }
    connection->heard = connection->pinged = loop_now(hall->loop);
    connection_enter_hall(connection, hall);
    atomic_fetch_add_explicit(&hall->target->connections, 1, memory_order_relaxed);
    return connection;
}

void connection_enter_hall(struct connection *connection, struct hall *hall)
{
    connection->hall = hall;
    connection->next = hall->connections;
    connection->link = &hall->connections;
    if (connection->next)
        connection->next->link = &connection->next;
    hall->connections = connection;
    hall_tick_start(hall);
}

void connection_leave_hall(struct connection *connection)
{
    loop_watch_stop(connection->hall->loop, &connection->watch);
    connection->watched = 0;
    *connection->link = connection->next;
    if (connection->next)
        connection->next->link = connection->link;
    connection->next = NULL;
    connection->link = NULL;
}

void connection_open(struct connection *connection)
{
    const struct login_terms *terms = &connection->session->terms.terms;

    state_set(connection, CONNECTION_OPEN);
    connection->header_digest = terms->header_digest;
    connection->data_digest = terms->data_digest;
    connection->heard = loop_now(connection->hall->loop);
    buffer_share_open(&connection->session->share, connection->hall->buffers);
    connection_watch(connection);
    parse(connection); /* what came behind the last login PDU */
}

void connection_drop(struct connection *connection, const char *why)
{
    struct hall *hall = connection->hall;

    if (connection->state == CONNECTION_CLOSED)
        return;
    if (why)
        log_end(connection, why);
    state_set(connection, CONNECTION_CLOSED);
    loop_watch_stop(hall->loop, &connection->watch);
    connection->watched = 0;
    (void)close(connection->fd);
    connection->fd = -1;
    connection->out.blocked = false;
    connection->in.task = connection->in.began = NULL;
    send_abandon(connection);
    if (connection->session)
        session_end_tasks(connection->session);
    if (!connection->out.flush.queued) /* frees it, off this stack */
        loop_defer(hall->loop, &connection->out.flush);
}

void connection_finish(struct connection *connection, const char *why)
{
    if (connection->state >= CONNECTION_LAST_WORDS)
        return;
    if (why)
        log_end(connection, why);
    state_set(connection, CONNECTION_LAST_WORDS);
    connection->closing = instant_add_ms(loop_now(connection->hall->loop), LINGER_MS);
    connection->in.task = connection->in.began = NULL;
    if (connection->session)
        session_end_tasks(connection->session);
    connection_watch(connection);
    send_schedule(connection);
}

/* All is sent that there is: a pause for want of slots may be over, and so may we. */
void connection_flushed(struct connection *connection)
{
    if (connection->state == CONNECTION_LAST_WORDS && send_idle(connection)) {
        state_set(connection, CONNECTION_LINGERING);
        (void)shutdown(connection->fd, SHUT_WR);
        connection_watch(connection);
    } else if (connection->in.paused && connection->in.state == RECEIVE_ROOM) {
        connection_resume(connection);
    }
}

void connection_leave(struct connection *connection)
{
    state_set(connection, CONNECTION_LEAVING);
    connection->closing = instant_add_ms(
            loop_now(connection->hall->loop), connection->target->stuck_ms);
    connection_watch(connection);
}

void connection_ask(struct connection *connection)
{
    state_set(connection, CONNECTION_ASKED);
}

void connection_refuse(struct connection *connection)
{
    state_set(connection, CONNECTION_LAST_WORDS);
    connection->closing = instant_add_ms(loop_now(connection->hall->loop), LINGER_MS);
    connection_watch(connection);
    connection_flushed(connection); /* nothing is queued */
}

void connection_move(struct connection *connection)
{
    state_set(connection, CONNECTION_MOVING);
    connection_leave_hall(connection);
}

void connection_arrive(struct connection *connection, struct hall *hall)
{
    connection_enter_hall(connection, hall);
    state_set(connection, CONNECTION_WAITING);
}

void connection_try_free(struct connection *connection)
{
    struct hall *hall = connection->hall;
    struct export *export = connection->session ? connection->session->export : NULL;

    if (connection->state != CONNECTION_CLOSED || connection->out.flush.queued ||
            connection->in.resume.queued)
        return;
    if (connection->session && connection->session->busy > 0)
        return;
    if (connection->session)
        session_destroy(connection->session);
    entry_finish(connection);
    connection_leave_hall(connection);
    atomic_fetch_sub_explicit(
            &connection->target->connections, 1, memory_order_relaxed);
    free(connection->in.bytes);
    free(connection->out.frames);
    free(connection);
    if (export) {
        admission_retry(export);
        export_left(
                export); /* the hall is not empty before it is gone, and maybe gone then */
    } else {
        hall_connection_gone(hall);
    }
}

/* The login of a connection: login.h has the protocol, here are its bytes and deadlines.
 *
 * One request, one answer: nothing is read while an answer waits to be sent. */
#include "server/iscsi/entry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/admission.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/roster.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

enum {
    LOGIN_MS = 10 * 1000, /* a whole login */
    LOGIN_PDU_MS = 3 * 1000
};

static void random_fill(uint8_t *bytes, size_t length)
{
    check(getrandom(bytes, length, 0) == (ssize_t)length); /* 32 bytes come whole */
}

bool entry_start(struct connection *connection)
{
    struct entry *entry = calloc(1, sizeof *entry);

    if (!entry)
        return false;
    connection->entry = entry;
    entry->asker = (struct login_asker){
        .context = connection,
        .access = admission_access,
        .user = admission_user,
        .portal_group = 1,
        .throttled = admission_throttled,
        .failed = admission_failed,
        .random = random_fill,
    };
    entry->tsih = roster_tsih(connection->target);
    entry->began = entry->pdu_began = loop_now(connection->hall->loop);
    entry->login = login_create(&entry->asker);
    return entry->login != NULL;
}

/* It does not count among the logins any more. On the first loop. */
void entry_leave(struct connection *connection)
{
    struct entry *entry = connection->entry;

    if (entry->counted)
        connection->target->logins--;
    entry->counted = false;
}

void entry_finish(struct connection *connection)
{
    struct entry *entry = connection->entry;

    if (!entry)
        return;
    entry_leave(connection);
    login_destroy(entry->login);
    explicit_bzero(entry, sizeof *entry);
    free(entry);
    connection->entry = NULL;
}

/* -- the answer ---------------------------------------------------------------------------- */

static void answer_prepare(struct entry *entry)
{
    size_t length = PDU_HEADER + pdu_data_length(entry->answer);

    while (length & 3)
        entry->answer[length++] = 0;
    entry->length = length;
    entry->sent = 0;
}

/* The last answer was good, but there is no place: RFC 7143 11.13.5. */
static void answer_refuse(struct entry *entry, uint16_t status)
{
    entry->answer[1] &= 0x0c; /* our stage; no transit */
    be24_put(entry->answer + 5, 0);
    be16_put(entry->answer + 14, 0);
    be16_put(entry->answer + 36, status);
    entry->next = LOGIN_REFUSED;
    answer_prepare(entry);
}

static void log_login(const struct connection *connection)
{
    const struct login_result *who = &connection->session->terms;

    log_plain(LOG_INFO, "iscsi-login", "%.64s from %s, %s%s", who->initiator,
            connection->address, who->target[0] ? who->target : "discovery",
            who->chap_algorithm == 5 ? " (CHAP with MD5: weak)" : "");
}

static void entry_sent(struct connection *connection)
{
    struct entry *entry = connection->entry;

    connection->out.blocked = false;
    switch (entry->next) {
    case LOGIN_FULL_FEATURE:
        log_login(connection);
        entry_finish(connection);
        connection_open(connection);
        return;
    case LOGIN_REFUSED:
        atomic_fetch_add_explicit(
                &connection->target->logins_refused, 1, memory_order_relaxed);
        if (entry->throttled)
            (void)snprintf(
                    entry->why, sizeof entry->why, "throttled: too many failed before");
        log_plain(LOG_WARN, "iscsi-login-refused", "%.64s from %s: status %04x%s%s",
                login_initiator(entry->login), connection->address,
                be16_get(entry->answer + 36), entry->why[0] ? ", " : "", entry->why);
        connection_refuse(connection);
        return;
    default:
        entry->length = 0;
        entry->pdu_began = loop_now(connection->hall->loop);
        connection_watch(connection);
        entry_read_on(connection);
    }
}

void entry_send(struct connection *connection)
{
    struct entry *entry = connection->entry;
    ssize_t sent = send(connection->fd, entry->answer + entry->sent,
            entry->length - entry->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        connection_drop(connection, "the peer is gone");
        return;
    }
    if (sent > 0)
        entry->sent += (size_t)sent;
    if (entry->sent == entry->length) {
        entry_sent(connection);
        return;
    }
    connection->out.blocked = true;
    connection_watch(connection);
}

void entry_refuse(struct connection *connection, uint16_t status)
{
    answer_refuse(connection->entry, status);
    entry_send(connection);
}

void entry_accept(struct connection *connection)
{
    struct entry *entry = connection->entry;
    struct session *session = connection->session;

    be32_put(entry->answer + 32, session_maxcmdsn(session));
    answer_prepare(entry);
    entry_send(connection);
}

/* -- the request --------------------------------------------------------------------------- */

static void request_take(
        struct connection *connection, const uint8_t *header, size_t length)
{
    struct entry *entry = connection->entry;
    enum login_next next = login_step(entry->login, header, header + PDU_HEADER, length,
            entry->tsih, entry->answer, entry->answer + PDU_HEADER, &entry->result);

    entry->next = next;
    if (next == LOGIN_DROP) {
        connection_drop(connection, "no login");
        return;
    }
    if (next == LOGIN_FULL_FEATURE) {
        uint16_t status = admission_enter(connection);
        if (status == 0)
            return; /* it goes its way */
        answer_refuse(entry, status);
    } else {
        answer_prepare(entry);
    }
    entry_send(connection);
}

/* One PDU of what is in the buffer, when it is there whole. */
void entry_read_on(struct connection *connection)
{
    struct receive *in = &connection->in;
    const uint8_t *header = in->bytes + in->begin;
    size_t have = in->end - in->begin, length;

    if (have < PDU_HEADER || connection->state != CONNECTION_LOGIN ||
            connection->out.blocked)
        return;
    if (pdu_ahs_length(header) > 0 || pdu_data_length(header) > LOGIN_DATA_MAX) {
        in->begin = in->end;
        request_take(connection, header, 0); /* which refuses it */
        return;
    }
    length = PDU_HEADER + (size_t)pdu_data_padded(header);
    if (have < length)
        return;
    in->begin += length;
    request_take(connection, header, pdu_data_length(header));
}

void entry_read(struct connection *connection)
{
    struct receive *in = &connection->in;
    ssize_t got;

    if (in->begin > 0) {
        memmove(in->bytes, in->bytes + in->begin, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
    }
    got = recv(connection->fd, in->bytes + in->end, RECEIVE_BUFFER - in->end,
            MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        connection_drop(connection, "closed during its login");
        return;
    }
    in->end += (size_t)got;
    entry_read_on(connection);
}

void entry_tick(struct connection *connection, struct instant now)
{
    struct entry *entry = connection->entry;

    if (instant_ms_until(entry->began, now) >= LOGIN_MS)
        connection_drop(connection, "its login takes too long");
    else if (connection->state == CONNECTION_LOGIN &&
            instant_ms_until(entry->pdu_began, now) >= LOGIN_PDU_MS)
        connection_drop(connection, "a login PDU takes too long");
}

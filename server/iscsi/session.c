/* A session: command numbers, tasks, and the PDUs that are no SCSI (RFC 7143 4.2.2, 11).
 *
 * Every PDU that is to be answered takes one of the session's tasks: 32 by the command
 * window, 8 more for immediate ones. So whatever a peer sends, what we hold of it is bounded,
 * and the window is the flow control. MaxCmdSN never goes back; numbers outside of the window
 * are ignored silently, numbers that jump wait for the hole to be filled. */
#include "server/iscsi/session.h"

#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/command.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/dataout.h"
#include "server/iscsi/export.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/management.h"
#include "server/iscsi/question.h"
#include "server/iscsi/roster.h"
#include "server/iscsi/send.h"
#include "server/iscsi/target_inside.h"

#define BIT(state) (UINT64_C(1) << TASK_##state)
static const struct fsm_state task_states[TASK_STATES] = {
    [TASK_FREE] = { "free", BIT(LOADING) },
    [TASK_LOADING] = { "loading",
            BIT(HELD) | BIT(RUNNING) | BIT(ANSWERING) | BIT(OVER) | BIT(FREE) },
    [TASK_HELD] = { "held", BIT(RUNNING) | BIT(ANSWERING) | BIT(OVER) | BIT(FREE) },
    [TASK_RUNNING] = { "running",
            BIT(WANTING) | BIT(FEEDING) | BIT(OVER) | BIT(ANSWERING) | BIT(FREE) },
    [TASK_WANTING] = { "wanting",
            BIT(RUNNING) | BIT(OVER) | BIT(ANSWERING) | BIT(FREE) },
    [TASK_FEEDING] = { "feeding", BIT(RUNNING) },
    [TASK_OVER] = { "over", BIT(ANSWERING) | BIT(FREE) },
    [TASK_ANSWERING] = { "answering", BIT(FREE) },
};
#undef BIT
const struct fsm_table task_table = { "task", task_states, TASK_STATES };

void task_state_set(struct task *task, enum task_state state)
{
    fsm_step(&task_table, &task->state, state);
}

/* -- tasks --------------------------------------------------------------------------------- */

struct task *task_find(struct session *session, uint32_t itt)
{
    if (session->busy == 0)
        return NULL;
    for (unsigned i = 0; i < TASKS; i++)
        if (session->itt[i] == itt)
            return &session->tasks[i];
    return NULL;
}

static void task_clear(struct task *task)
{
    task->jobs = 0;
    task->out = task->in = task->spare = NULL;
    task->out_length = task->out_at = task->sent = task->pdus = 0;
    task->in_at = task->in_length = task->want_at = task->want_length = 0;
    task->unsolicited = task->damaged = task->quiet = task->is_wrong_lun = false;
    task->unsolicited_datasn = task->unsolicited_at = task->asked_to = 0;
    task->r2ts = 0;
    task->asked = false;
    task->aborter = NULL;
    task->function = task->response = 0;
}

/** A task for the PDU; NULL: all are taken. */
struct task *session_task(struct session *session, const uint8_t *header)
{
    struct task *task = session->free;

    if (!task)
        return NULL;
    session->free = task->free_next;
    task_clear(task);
    task_state_set(task, TASK_LOADING);
    task->opcode = pdu_opcode(header);
    task->immediate = pdu_immediate(header);
    task->itt = pdu_itt(header);
    task->cmdsn = pdu_cmdsn(header);
    task->lun = be64_get(header + 8);
    session->itt[task->slot] = task->itt;
    session->busy++;
    if (task->immediate)
        session->immediates++;
    else
        session->unanswered++;
    return task;
}

static void task_answered(struct task *task)
{
    if (!task->immediate && task->state != TASK_ANSWERING)
        task->session->unanswered--;
}

void task_free(struct task *task)
{
    struct session *session = task->session;
    struct connection *connection = session->connection;

    if (task->aborter) /* who waits for its end must hear of it */
        management_task_over(task);
    task_answered(task);
    if (session_window_is_stale(session))
        send_schedule(connection);
    send_forget(task);
    dataout_forget(task);
    if (task->out)
        buffer_give(task->out);
    task->out = NULL;
    if (connection->in.task == task)
        connection->in.task = NULL;
    if (task->immediate)
        session->immediates--;
    session->itt[task->slot] = PDU_NO_TAG;
    task_state_set(task, TASK_FREE);
    task->free_next = session->free;
    session->free = task;
    session->busy--;
    session_settle(session);
}

void task_answer(struct task *task)
{
    task_answered(task);
    task_state_set(task, TASK_ANSWERING);
    if (task->session->connection->fd < 0)
        task_sent(task);
    else
        send_queue(task, JOB_ANSWER);
}

void task_sent(struct task *task)
{
    if (task->opcode == PDU_TEXT)
        question_answered(task->session);
    task_free(task);
}

/* -- numbers ------------------------------------------------------------------------------- */

uint32_t session_maxcmdsn(struct session *session)
{
    uint32_t most = session->expcmdsn + (CREDITS - session->unanswered) - 1;

    if (serial_compare(most, session->maxcmdsn) > 0)
        session->maxcmdsn = most;
    return session->maxcmdsn;
}

/* The window was shut when the peer last heard of it, so it sends nothing that would be
   answered; and since then commands ended without an answer, by a reset of somebody else. */
bool session_window_is_stale(const struct session *session)
{
    unsigned state = session->connection->state;

    return serial_compare(session->maxcmdsn, session->expcmdsn) < 0 &&
            session->unanswered < CREDITS &&
            (state == CONNECTION_OPEN || state == CONNECTION_ASKED);
}

/* RFC 7143 11.19: a NOP-In that asks for nothing carries the numbers. */
void session_window_tell(struct session *session)
{
    struct notice *notice = send_notice(session->connection);

    if (!notice)
        return; /* what is queued tells */
    pdu_start(notice->header, PDU_NOP_IN, true);
    be32_put(notice->header + 16, PDU_NO_TAG);
    be32_put(notice->header + 20, PDU_NO_TAG);
}

/* True: the number is new and in the window. */
bool session_number_fits(struct session *session, uint32_t cmdsn)
{
    uint32_t ahead = cmdsn - session->expcmdsn;

    if (serial_compare(cmdsn, session->expcmdsn) < 0 ||
            serial_compare(cmdsn, session->maxcmdsn) > 0)
        return false;
    return !(session->arrived >> ahead & 1);
}

static struct task *held_find(struct session *session, uint32_t cmdsn)
{
    for (unsigned i = 0; i < TASKS; i++) {
        struct task *task = &session->tasks[i];
        if (task->state == TASK_HELD && task->cmdsn == cmdsn)
            return task;
    }
    return NULL;
}

/* @cmdsn is here, with or without a task: what it and those behind it may begin with. */
void session_number_arrived(struct session *session, uint32_t cmdsn, struct task *task)
{
    uint32_t ahead = cmdsn - session->expcmdsn;

    if (ahead > 0) {
        if (session->arrived == 0)
            session->hole = loop_now(session->connection->hall->loop);
        session->arrived |= UINT64_C(1) << ahead;
        if (task)
            task_state_set(task, TASK_HELD);
        return;
    }
    session->expcmdsn++;
    session->arrived >>= 1;
    if (task)
        request_start(task);
    while (session->arrived & 1) {
        task = held_find(session, session->expcmdsn);
        session->expcmdsn++;
        session->arrived >>= 1;
        session->hole = loop_now(session->connection->hall->loop);
        if (task)
            request_start(task);
    }
}

bool session_number_skip(struct session *session, uint32_t cmdsn, uint32_t before)
{
    if (!session_number_fits(session, cmdsn) || serial_compare(cmdsn, before) >= 0)
        return false;
    session_number_arrived(session, cmdsn, NULL);
    return true;
}

/* -- PDUs that are no SCSI ----------------------------------------------------------------- */

void session_reject(
        struct connection *connection, const uint8_t *header, enum pdu_reject reason)
{
    struct notice *notice = send_notice(connection);

    if (!notice)
        return; /* the caller saw to it that there is one, or drops the connection */
    pdu_start(notice->header, PDU_REJECT, true);
    notice->header[2] = (uint8_t)reason;
    be32_put(notice->header + 16, PDU_NO_TAG);
    memcpy(notice->data, header, PDU_HEADER);
    notice->length = PDU_HEADER;
}

void session_ping(struct session *session)
{
    struct notice *notice = send_notice(session->connection);

    if (!notice)
        return;
    session->ping = ++session->pings & 0x7fffffff;
    pdu_start(notice->header, PDU_NOP_IN, true);
    be32_put(notice->header + 16, PDU_NO_TAG);
    be32_put(notice->header + 20, session->ping);
}

void session_ask_logout(struct session *session, unsigned ms)
{
    struct notice *notice = send_notice(session->connection);

    if (!notice)
        return;
    pdu_start(notice->header, PDU_ASYNC_MESSAGE, true);
    be32_put(notice->header + 16, PDU_NO_TAG);
    notice->header[36] = 1; /* RFC 7143 11.9.1: target requests Logout */
    be16_put(notice->header + 42, (uint16_t)((ms + 999) / 1000));
    connection_ask(session->connection);
}

static void logout_answer(struct session *session)
{
    struct task *task = session->leaving;

    session->leaving = NULL;
    task_answer(task);
    connection_finish(session->connection, NULL);
}

/* RFC 7143 11.14: the commands end first, then it is answered. */
static void logout_start(struct task *task)
{
    struct session *session = task->session;

    if (task->function == 2) { /* to recover the connection: we do not */
        task->response = 2;
        task_answer(task);
        return;
    }
    if (task->function == 1 && task->want_at != session->terms.cid) {
        task->response = 1;
        task_answer(task);
        return;
    }
    session->leaving = task;
    connection_leave(session->connection);
    session_end_tasks(session);
    session_settle(session);
}

/* In the order of command numbers, or at once for immediate ones. */
void request_start(struct task *task)
{
    struct session *session = task->session;

    if (task->quiet || session->connection->fd < 0) {
        task_free(task);
        return;
    }
    switch (task->opcode) {
    case PDU_SCSI_COMMAND:
        command_start(task);
        break;
    case PDU_TASK_MANAGEMENT:
        task_state_set(task, TASK_RUNNING);
        management_start(task);
        break;
    case PDU_TEXT:
        task_state_set(task, TASK_RUNNING);
        question_start(task);
        break;
    case PDU_LOGOUT:
        task_state_set(task, TASK_RUNNING);
        logout_start(task);
        break;
    default: /* NOP-Out: the data comes back as it came, as much as the peer takes */
        task->out = task->in;
        task->out_length = task->in_length;
        task->in = NULL;
        if (task->out_length > (session->terms.terms.send_max & ~UINT32_C(3)))
            task->out_length = session->terms.terms.send_max & ~UINT32_C(3);
        task_answer(task);
    }
}

/* -- life ---------------------------------------------------------------------------------- */

struct session *session_create(
        struct connection *connection, const struct login_result *result)
{
    struct session *session = calloc(1, sizeof *session);

    if (!session)
        return NULL;
    session->connection = connection;
    session->terms = *result;
    session->expcmdsn = result->cmdsn;
    session->maxcmdsn = result->cmdsn + CREDITS - 1;
    session->statsn = result->statsn;
    session->ping = session->question.ttt = PDU_NO_TAG;
    memset(session->late, 0xff, sizeof session->late);
    memset(session->gone, 0xff, sizeof session->gone);
    for (unsigned i = TASKS; i-- > 0;) {
        struct task *task = &session->tasks[i];
        session->itt[i] = PDU_NO_TAG;
        task->session = session;
        task->slot = (uint8_t)i;
        task->scsi.ops = &task_ops;
        task->scsi.nexus = &session->nexus;
        task->free_next = session->free;
        session->free = task;
    }
    return session;
}

void session_begin(struct session *session)
{
    if (!session->export)
        return;
    session->nexus.share = &session->share;
    memcpy(session->nexus.initiator, session->terms.initiator, SCSI_NAME_MAX);
    memcpy(session->nexus.isid, session->terms.isid, sizeof session->nexus.isid);
    scsi_nexus_open(session->export->unit, &session->nexus);
    session->nexus_open = true;
}

/* Somebody will end it: the unit, the socket, or the last of the others. A task without one
   would keep its session, its connection and its place in the roster for ever. */
static bool task_ends(const struct task *task)
{
    switch ((enum task_state)task->state) {
    case TASK_FREE:
        return true;
    case TASK_RUNNING: /* a command and a reset are the unit's, an abort is its victim's */
        return task->opcode == PDU_SCSI_COMMAND ||
                task->opcode == PDU_TASK_MANAGEMENT || task == task->session->leaving;
    case TASK_WANTING:
    case TASK_FEEDING:
        return task->opcode == PDU_SCSI_COMMAND;
    case TASK_ANSWERING:
        return task->session->connection->fd >= 0;
    default:
        return false;
    }
}

static void task_end(struct task *task)
{
    struct session *session = task->session;

    if (task == session->leaving && session->connection->state == CONNECTION_CLOSED)
        session->leaving = NULL; /* nobody hears its answer */
    if (task->opcode == PDU_SCSI_COMMAND && task->state != TASK_FREE)
        command_abort(task);
    else if (!task_ends(task))
        task_free(task);
    check(task_ends(task));
}

/* Each task is on its way to its end; session_settle() hears when they are there. */
void session_end_tasks(struct session *session)
{
    for (unsigned i = 0; i < TASKS; i++)
        task_end(&session->tasks[i]);
}

void session_settle(struct session *session)
{
    struct connection *connection = session->connection;

    if (session->leaving && session->busy == 1 &&
            connection->state == CONNECTION_LEAVING)
        logout_answer(session);
    if (connection->state == CONNECTION_CLOSED && session->busy == 0 &&
            !connection->out.flush.queued)
        loop_defer(connection->hall->loop, &connection->out.flush);
}

void session_destroy(struct session *session)
{
    check(session->busy == 0);
    question_forget(session);
    buffer_share_close(&session->share);
    if (session->nexus_open)
        scsi_nexus_close(&session->nexus);
    roster_leave(session);
    free(session);
}

void session_tick(struct session *session, struct instant now)
{
    struct connection *connection = session->connection;

    if (session->arrived &&
            instant_ms_until(session->hole, now) >= connection->target->stuck_ms) {
        connection_drop(connection, "a hole in the command numbers");
        return;
    }
    for (unsigned i = 0; i < TASKS && connection->fd >= 0; i++)
        if (session->tasks[i].state != TASK_FREE)
            dataout_tick(&session->tasks[i], now);
}

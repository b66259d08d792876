/* PDUs as they come in full feature phase: may it be, whose is it, where does its data go.
 *
 * Each header is judged by itself (pdu_judge()), then by the session: its command number, its
 * tag, what it may bring. What is wrong with a PDU alone is answered with Reject and let go;
 * where framing or trust is lost the connection ends. */
#include "server/iscsi/request.h"

#include "server/iscsi/command.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/dataout.h"
#include "server/iscsi/question.h"
#include "server/iscsi/session.h"

/* What of a PDU beside SCSI must be kept until it begins. */
static enum verdict plain_header(struct connection *connection, struct task *task)
{
    const uint8_t *header = connection->in.header;

    task->function = header[1] & 0x7f;
    if (task->opcode == PDU_LOGOUT)
        task->want_at = be16_get(header + 20); /* the CID */
    if (task->opcode == PDU_TASK_MANAGEMENT) {
        task->want_at = be32_get(header + 20); /* referenced task tag */
        task->want_length = be32_get(header + 32); /* RefCmdSN */
    }
    if (connection->in.length == 0)
        return TAKE;
    connection->in.task = task;
    return dataout_room(connection, task, 0, connection->in.length);
}

static enum verdict refuse(struct connection *connection, enum pdu_reject reason)
{
    session_reject(connection, connection->in.header, reason);
    return TAKE; /* its data goes nowhere */
}

static enum verdict give_up(
        struct connection *connection, enum pdu_reject reason, const char *why)
{
    session_reject(connection, connection->in.header, reason);
    connection->in.fault = why;
    return DROP;
}

/* What cannot be a command: no task begins. */
static bool command_fails(struct connection *connection, enum verdict *verdict)
{
    const uint8_t *header = connection->in.header;
    const char *why = command_judge(connection->session, header);

    if (why)
        *verdict = give_up(connection, PDU_REJECT_PROTOCOL, why);
    else if (command_is_bidirectional(header))
        *verdict = refuse(connection, PDU_REJECT_NOT_SUPPORTED);
    else
        return false;
    return true;
}

/* NOP-Out without a tag answers our ping, or just shows that the peer is there. */
static enum verdict pong_header(struct connection *connection)
{
    struct session *session = connection->session;
    uint32_t ttt = pdu_ttt(connection->in.header);

    if (!pdu_immediate(connection->in.header))
        return give_up(connection, PDU_REJECT_PROTOCOL, "a NOP-Out without a tag");
    if (ttt != PDU_NO_TAG && ttt == session->ping)
        session->ping = PDU_NO_TAG;
    return TAKE;
}

/* A PDU with a command number (or an immediate one) that asks for an answer. */
static enum verdict request_header(struct connection *connection)
{
    struct session *session = connection->session;
    const uint8_t *header = connection->in.header;
    bool immediate = pdu_immediate(header);
    uint32_t cmdsn = pdu_cmdsn(header);
    enum pdu_reject reason;
    enum verdict verdict;
    struct task *task;

    if (!immediate && !session_number_fits(session, cmdsn)) {
        connection->in.number = false;
        return TAKE; /* silently: RFC 7143 4.2.2.1 */
    }
    connection->in.number = !immediate;
    if (immediate && session->immediates >= IMMEDIATES)
        return refuse(connection, PDU_REJECT_IMMEDIATE);
    if (!session->free) /* so one has been answered at least, and is being sent */
        return LATER;
    if (pdu_itt(header) == PDU_NO_TAG)
        return refuse(connection, PDU_REJECT_INVALID_FIELD);
    if (task_find(session, pdu_itt(header)))
        return refuse(connection, PDU_REJECT_TASK_IN_PROGRESS);
    if (pdu_opcode(header) == PDU_TEXT && question_fails(connection, &reason))
        return refuse(connection, reason);
    if (pdu_opcode(header) == PDU_SCSI_COMMAND && command_fails(connection, &verdict))
        return verdict;
    if (pdu_opcode(header) == PDU_TEXT)
        question_begin(session, header);
    task = session_task(session, header);
    connection->in.began = task;
    if (task->opcode != PDU_SCSI_COMMAND)
        return plain_header(connection, task);
    return command_header(connection, task);
}

/* A request that is rejected has used its number up all the same. */
static bool has_number(const uint8_t *header)
{
    switch (pdu_opcode(header)) {
    case PDU_NOP_OUT:
    case PDU_SCSI_COMMAND:
    case PDU_TASK_MANAGEMENT:
    case PDU_TEXT:
    case PDU_LOGOUT:
        return !pdu_immediate(header);
    default:
        return false;
    }
}

enum verdict session_header(struct connection *connection)
{
    struct session *session = connection->session;
    const uint8_t *header = connection->in.header;
    struct pdu_limits limits = { .data_max = session->terms.terms.receive_max,
        .discovery = session->terms.session == LOGIN_DISCOVERY };
    enum pdu_reject reason = PDU_REJECT_PROTOCOL;

    if (connection->out.notice_count == NOTICES)
        return LATER;
    connection->in.began = NULL;
    connection->in.number = false;
    switch (pdu_judge(header, &limits, &reason)) {
    case PDU_FINE:
        break;
    case PDU_ANSWER_REJECT:
        connection->in.number =
                has_number(header) && session_number_fits(session, pdu_cmdsn(header));
        return refuse(connection, reason);
    default:
        return give_up(connection, reason, "a PDU that cannot be");
    }
    if (pdu_opcode(header) == PDU_DATA_OUT)
        return dataout_header(connection);
    if (pdu_opcode(header) == PDU_SNACK) /* there is none at recovery level 0 */
        return refuse(connection, PDU_REJECT_SNACK);
    if (pdu_opcode(header) == PDU_NOP_OUT && pdu_itt(header) == PDU_NO_TAG)
        return pong_header(connection);
    return request_header(connection);
}

void session_payload(struct connection *connection, bool damaged)
{
    struct session *session = connection->session;
    struct receive *in = &connection->in;
    struct task *task = in->began;

    if (damaged)
        session_reject(connection, in->header, PDU_REJECT_DATA_DIGEST);
    if (pdu_opcode(in->header) == PDU_DATA_OUT) {
        dataout_payload(connection, damaged);
    } else if (task && task->opcode != PDU_SCSI_COMMAND) {
        task->in_length = in->length;
        task->quiet = damaged; /* as if it had not come: RFC 7143 7.8 */
        if (damaged && task->opcode == PDU_TEXT)
            session->question.busy = false;
    } else if (task) {
        dataout_first(task, in->length, damaged);
    }
    in->began = NULL;
    in->task = NULL;
    if (in->number)
        session_number_arrived(session, pdu_cmdsn(in->header), task);
    else if (task)
        request_start(task);
}

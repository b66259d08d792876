/* PDUs of ours, each made in a frame: header, where its data lies, padding and digests. Its
 * numbers (StatSN, DataSN, the command window) are spent with that. RFC 7143 11. */
#include "server/iscsi/send.h"

#include <assert.h>
#include <string.h>

#include "replica/base/digest.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/dataout.h"
#include "server/iscsi/session.h"

/* -- frames ----------------------------------------------------------------------------- */

static bool frames_full(const struct send *out)
{
    return out->count == FRAMES;
}

struct frame *frame_at(struct send *out, unsigned index)
{
    return &out->frames[(out->first + index) % FRAMES];
}

static struct frame *frame_start(
        struct session *session, enum pdu_opcode opcode, struct task *task)
{
    struct send *out = &session->connection->out;
    struct frame *frame = frame_at(out, out->count++);

    pdu_start(frame->header, opcode, true);
    frame->header_length = PDU_HEADER;
    frame->tail_length = 0;
    frame->end = FRAME_NOTHING;
    frame->data = NULL;
    frame->length = 0;
    frame->led = false;
    frame->task = task;
    return frame;
}

static void frame_numbers(struct frame *frame, struct session *session, bool status)
{
    be32_put(frame->header + 24, session->statsn);
    if (status)
        session->statsn++;
    be32_put(frame->header + 28, session->expcmdsn);
    be32_put(frame->header + 32, session_maxcmdsn(session));
}

static void frame_data(struct frame *frame, const uint8_t *data, uint32_t length)
{
    be24_put(frame->header + 5, length);
    frame->data = data;
    frame->length = length;
}

/* Padding and the digests: the frame is ready. */
static void frame_close(struct frame *frame, const struct connection *connection)
{
    uint32_t padding = -frame->length & 3;

    if (connection->header_digest) {
        uint32_t crc = digest_crc32c(frame->header, PDU_HEADER);
        memcpy(frame->header + PDU_HEADER,
                &(uint8_t[4]){ (uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16),
                        (uint8_t)(crc >> 24) },
                4);
        frame->header_length += PDU_DIGEST;
    }
    memset(frame->tail, 0, sizeof frame->tail);
    frame->tail_length = (uint8_t)padding;
    if (connection->data_digest && frame->length > 0) {
        uint32_t crc = digest_crc32c_more(
                digest_crc32c(frame->data, frame->length), frame->tail, padding);
        uint8_t *at = frame->tail + padding;
        at[0] = (uint8_t)crc;
        at[1] = (uint8_t)(crc >> 8);
        at[2] = (uint8_t)(crc >> 16);
        at[3] = (uint8_t)(crc >> 24);
        frame->tail_length = (uint8_t)(padding + PDU_DIGEST);
    }
}

/* -- PDUs of tasks ---------------------------------------------------------------------- */

enum { RESIDUAL_OVERFLOW = 0x04, RESIDUAL_UNDERFLOW = 0x02, DATA_STATUS = 0x01 };

/* RFC 7143 11.4.5.1: what was left of, or lacked in, the Expected Data Transfer Length. */
static uint8_t residual_of(const struct scsi_task *scsi, uint32_t *residual)
{
    uint64_t moved = scsi->writes ? scsi->transfer : scsi->sent;

    *residual = 0;
    if (scsi->transfer > scsi->expected && scsi->status == SCSI_GOOD) {
        uint64_t over = scsi->transfer - scsi->expected;
        *residual = over > UINT32_MAX ? UINT32_MAX : (uint32_t)over;
        return RESIDUAL_OVERFLOW;
    }
    if (scsi->writes && scsi->status != SCSI_GOOD)
        moved = 0;
    if (moved >= scsi->expected)
        return 0;
    *residual = scsi->expected - (uint32_t)moved;
    return RESIDUAL_UNDERFLOW;
}

static_assert((int)BUFFER_ROOM >= (int)PDU_HEADER + (int)PDU_DIGEST, "a header's room");

/* The kernel takes one piece faster than two: to it the copy of a header is nothing. */
static void frame_lead(struct frame *frame, const struct buffer *buffer)
{
    if (frame->data != buffer->bytes || buffer->size != BUFFER_SMALL)
        return;
    memcpy(buffer->bytes - frame->header_length, frame->header, frame->header_length);
    frame->led = true;
}

/* One Data-In PDU of what the task has; true when it was the last of @task->out. */
static bool make_data_in(struct task *task)
{
    struct session *session = task->session;
    const struct login_terms *terms = &session->terms.terms;
    uint32_t left = task->out_length - task->out_at;
    uint32_t offset = task->sent + task->out_at; /* in the command's data-in */
    uint32_t burst = terms->max_burst - offset % terms->max_burst;
    uint32_t piece = terms->send_max & ~UINT32_C(3), residual;
    struct frame *frame = frame_start(session, PDU_DATA_IN, task);
    bool last, status;

    piece = piece < left ? piece : left;
    piece = piece < burst ? piece : burst;
    last = piece == left;
    status = last && (task->jobs & JOB_ANSWER) && task->scsi.sense_length == 0 &&
            task->scsi.status == SCSI_GOOD;
    /* a sequence ends with the burst, and with the data */
    if (piece != burst && !(last && (task->jobs & JOB_ANSWER)))
        frame->header[1] = 0;
    frame_numbers(frame, session, status);
    if (status) {
        frame->header[1] |= DATA_STATUS | residual_of(&task->scsi, &residual);
        frame->header[3] = (uint8_t)task->scsi.status;
        be32_put(frame->header + 44, residual);
        task->jobs &= (uint8_t)~JOB_ANSWER;
    } else {
        be32_put(frame->header + 24, 0);
    }
    be32_put(frame->header + 16, task->itt);
    be32_put(frame->header + 20, PDU_NO_TAG);
    be32_put(frame->header + 36, task->pdus++);
    be32_put(frame->header + 40, offset);
    frame_data(frame, task->out->bytes + task->out_at, piece);
    task->out_at += piece;
    if (last)
        frame->end = status ? FRAME_ANSWER : FRAME_DATA;
    frame_close(frame, session->connection);
    frame_lead(frame, task->out);
    return last;
}

static void make_r2t(struct task *task)
{
    struct session *session = task->session;
    uint32_t end = task->want_at + task->want_length;
    uint32_t length = end - task->asked_to;
    struct r2t *r2t = &task->r2t[task->r2ts++];
    struct frame *frame = frame_start(session, PDU_R2T, task);

    if (length > session->terms.terms.max_burst)
        length = session->terms.terms.max_burst;
    session->tags = (session->tags + 1) & 0xffffff;
    *r2t = (struct r2t){ .ttt = session->tags << 8 | task->slot,
        .offset = task->asked_to,
        .length = length };
    task->asked_to += length;
    if (!task->asked)
        dataout_owed(task);
    task->asked = true;
    frame_numbers(frame, session, false);
    be64_put(frame->header + 8, task->lun);
    be32_put(frame->header + 16, task->itt);
    be32_put(frame->header + 20, r2t->ttt);
    be32_put(frame->header + 36, task->pdus++);
    be32_put(frame->header + 40, r2t->offset);
    be32_put(frame->header + 44, r2t->length);
    frame_close(frame, session->connection);
}

static bool r2t_due(const struct task *task)
{
    unsigned most = task->session->terms.terms.max_outstanding_r2t;

    return task->r2ts < (most < R2TS ? most : R2TS) &&
            task->asked_to < task->want_at + task->want_length;
}

static void make_scsi_response(struct task *task, struct frame *frame)
{
    const struct scsi_task *scsi = &task->scsi;
    uint32_t residual;

    frame->header[1] |= residual_of(scsi, &residual);
    frame->header[3] = (uint8_t)scsi->status;
    be32_put(frame->header + 36, task->pdus);
    be32_put(frame->header + 44, residual);
    if (scsi->sense_length > 0) {
        be16_put(task->sense, scsi->sense_length);
        memcpy(task->sense + 2, scsi->sense, scsi->sense_length);
        frame_data(frame, task->sense, 2u + scsi->sense_length);
    }
}

/* As much as the peer takes at once: RFC 7143 11.11.1, 11.11.2. */
static void make_text_response(struct session *session, struct frame *frame)
{
    struct question *question = &session->question;
    uint32_t most = session->terms.terms.send_max & ~UINT32_C(3);
    uint32_t length = question->length - question->at;

    be32_put(frame->header + 20, question->ttt);
    if (question->ttt != PDU_NO_TAG)
        frame->header[1] = question->goes_on ? PDU_CONTINUE : 0;
    if (length > most)
        length = most;
    frame_data(frame, question->buffer->bytes + question->at, length);
    question->at += length;
}

static enum pdu_opcode answer_opcode(const struct task *task)
{
    switch (task->opcode) {
    case PDU_NOP_OUT:
        return PDU_NOP_IN;
    case PDU_TASK_MANAGEMENT:
        return PDU_TASK_MANAGEMENT_RESPONSE;
    case PDU_TEXT:
        return PDU_TEXT_RESPONSE;
    case PDU_LOGOUT:
        return PDU_LOGOUT_RESPONSE;
    default:
        return PDU_SCSI_RESPONSE;
    }
}

static void make_answer(struct task *task)
{
    struct session *session = task->session;
    struct frame *frame = frame_start(session, answer_opcode(task), task);

    frame_numbers(frame, session, true);
    be32_put(frame->header + 16, task->itt);
    frame->header[2] = task->response;
    switch (task->opcode) {
    case PDU_SCSI_COMMAND:
        make_scsi_response(task, frame);
        break;
    case PDU_TEXT:
        make_text_response(session, frame);
        break;
    case PDU_NOP_OUT:
        be32_put(frame->header + 20, PDU_NO_TAG);
        if (task->out)
            frame_data(frame, task->out->bytes, task->out_length);
        break;
    default:
        break;
    }
    frame->end = FRAME_ANSWER;
    task->jobs &= (uint8_t)~JOB_ANSWER;
    frame_close(frame, session->connection);
}

/* Makes PDUs of @task while there is room. True: it has no more to say for now. */
static bool task_speak(struct task *task, struct send *out)
{
    while (!frames_full(out)) {
        if (task->jobs & JOB_R2T) {
            if (r2t_due(task))
                make_r2t(task);
            else
                task->jobs &= (uint8_t)~JOB_R2T;
        } else if (task->jobs & JOB_DATA) {
            if (make_data_in(task))
                task->jobs &= (uint8_t)~JOB_DATA;
        } else if (task->jobs & JOB_ANSWER) {
            make_answer(task);
        } else {
            return true;
        }
    }
    return task->jobs == 0;
}

/* Numbers of what answers no task are given when it is made, as all others. */
static void make_notice(struct connection *connection, struct notice *notice)
{
    struct session *session = connection->session;
    struct frame *frame = frame_start(session, pdu_opcode(notice->header), NULL);
    enum pdu_opcode opcode = pdu_opcode(notice->header);

    memcpy(frame->header, notice->header, PDU_HEADER);
    frame_numbers(frame, session, opcode != PDU_NOP_IN);
    if (notice->length > 0)
        frame_data(frame, notice->data, notice->length);
    frame_close(frame, connection);
}

void frames_make(struct connection *connection)
{
    struct send *out = &connection->out;
    struct task *task;

    while (out->notice_made < out->notice_count && !frames_full(out)) {
        unsigned at = (out->notice_first + out->notice_made++) % NOTICES;
        make_notice(connection, &out->notices[at]);
    }
    while ((task = STAILQ_FIRST(&out->jobs)) && !frames_full(out)) {
        if (!task_speak(task, out))
            return;
        STAILQ_REMOVE_HEAD(&out->jobs, in_jobs);
        task->queued = false;
    }
    if (send_idle(connection) && session_window_is_stale(connection->session))
        session_window_tell(connection->session);
}

/* Data-out: what comes with the command, what follows it unasked, and what R2T asks for
 * (RFC 7143 4.2.5.2, 11.7, 11.8).
 *
 * A task has one buffer at a time, of what the unit wants or will want. R2T is sent when the
 * buffer is there, so that data which was asked for always has a place. At error recovery
 * level 0 data comes in order: each PDU must name the bytes that are exactly next, or the
 * connection ends. A wrong digest or data number costs the task alone: it fails when all of
 * its data has come (RFC 7143 7.8, 7.9). */
#include "server/iscsi/dataout.h"

#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "server/iscsi/command.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/request.h"
#include "server/iscsi/send.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

enum {
    MOVED_MOST = 16 << 20 /* bytes that may come or leave before data that is owed */
};

/* -- buffers ------------------------------------------------------------------------------- */

static struct connection *connection_of(const struct task *task)
{
    return task->session->connection;
}

/* The connection stands still until this comes; it goes on from its own post, for the
   buffer is handed to us in the middle of somebody's giving it back. */
static void on_room(struct buffer_wait *wait, struct buffer *buffer)
{
    struct task *task = container_of(wait, struct task, wait);

    task->in = buffer;
    connection_resume_later(connection_of(task));
}

/* A task stands in line once at most, and holds nothing while it does. */
static void spare_forget(struct task *task)
{
    if (task->wait.share)
        buffer_wait_cancel(&task->wait);
    if (task->spare)
        buffer_give(task->spare);
    task->spare = NULL;
}

enum verdict dataout_room(struct connection *connection, struct task *task,
        uint32_t offset, uint32_t size)
{
    struct buffer_share *share = &connection->session->share;

    if (size > BUFFER_LARGE)
        size = BUFFER_LARGE;
    spare_forget(task); /* what comes now may be more than the unit wants */
    task->in_at = offset;
    task->in_length = 0;
    task->in = buffer_take(share, size);
    if (task->in)
        return TAKE;
    connection->in.state = RECEIVE_BUFFER_WAIT;
    task->wait.ready = on_room;
    buffer_wait_start(share, &task->wait, size);
    return LATER;
}

static void late_add(struct session *session, uint32_t ttt)
{
    session->late[session->late_next++ % LATE] = ttt;
}

static void gone_add(struct session *session, uint32_t itt)
{
    session->gone[session->gone_next++ % TASKS] = itt;
}

static bool tag_is_in(const uint32_t *tags, unsigned count, uint32_t tag)
{
    for (unsigned i = 0; tag != PDU_NO_TAG && i < count; i++)
        if (tags[i] == tag)
            return true;
    return false;
}

/* Of a command that was aborted? Who aborted it may go on sending, or not. RFC 7143 4.2.3.3 has
   a target wait for what it asked for before it answers a function that aborts several; but
   the initiator of Linux, as it is set up by default (FastAbort), sends none of it any more,
   and would take the silence for a dead target. What the waiting is for, that late data meets
   no other command, holds without it: no transfer tag of a session comes twice. */
static bool is_late(const struct session *session, const uint8_t *header)
{
    uint32_t ttt = pdu_ttt(header);

    return ttt == PDU_NO_TAG ? tag_is_in(session->gone, TASKS, pdu_itt(header))
                             : tag_is_in(session->late, LATE, ttt);
}

/* The connection may stand still for a buffer that nobody wants any more. */
static void room_forget(struct task *task)
{
    struct connection *connection = connection_of(task);
    struct receive *in = &connection->in;

    if (in->task != task || in->state != RECEIVE_BUFFER_WAIT)
        return;
    in->sink = true;
    connection_resume_later(connection);
}

void dataout_forget(struct task *task)
{
    room_forget(task);
    spare_forget(task);
    if (task->in)
        buffer_give(task->in);
    task->in = NULL;
    for (unsigned i = 0; i < task->r2ts; i++)
        late_add(task->session, task->r2t[i].ttt);
    if (task->unsolicited && task->quiet)
        gone_add(task->session, task->itt);
    task->unsolicited &= !task->quiet;
    task->r2ts = 0;
    task->jobs &= (uint8_t)~JOB_R2T;
    task->want_length = 0;
}

/* -- what the unit wants ------------------------------------------------------------------- */

static void on_wanted(struct buffer_wait *wait, struct buffer *buffer)
{
    struct task *task = container_of(wait, struct task, wait);

    task->spare = buffer;
    connection_resume_later(connection_of(task));
}

/* A buffer of @size bytes, now or by a later call of dataout_check(). */
static struct buffer *spare_take(struct task *task, uint32_t size)
{
    struct buffer_share *share = &task->session->share;
    struct buffer *buffer = task->spare;

    task->spare = NULL;
    if (buffer || task->wait.share)
        return buffer;
    buffer = buffer_take(share, size);
    if (!buffer) {
        task->wait.ready = on_wanted;
        buffer_wait_start(share, &task->wait, size);
    }
    return buffer;
}

/* The bytes that are there of what is wanted. What lies before them was written already. */
static uint32_t rest_of(const struct task *task)
{
    uint32_t end = task->in_at + task->in_length;

    check(task->want_at >= task->in_at && task->want_at <= end); /* in order, no gaps */
    return end - task->want_at;
}

static void deliver(struct task *task, struct buffer *buffer)
{
    task_state_set(task, TASK_RUNNING);
    task->want_length = 0;
    scsi_data_arrived(&task->scsi, buffer);
}

/* The first burst may hold more than is wanted now: the rest stays where it is, and so do we
   keep the buffer. One who holds a buffer never needs another one, or all might wait. */
static void deliver_part(struct task *task)
{
    uint32_t skip = task->want_at - task->in_at;

    task->loan = (struct buffer){ .bytes = task->in->bytes + skip,
        .size = task->in->size - skip };
    deliver(task, &task->loan);
}

static void deliver_all(struct task *task)
{
    struct buffer *buffer = task->in;

    task->in = NULL;
    task->in_at += task->in_length;
    task->in_length = 0;
    deliver(task, buffer);
}

/* Has @task->in room for what is wanted, behind what is of no use any more? */
static bool room_make(struct task *task)
{
    uint32_t rest = rest_of(task), skip = task->want_at - task->in_at;

    if (rest == 0 || task->in->size - skip < task->want_length) {
        memmove(task->in->bytes, task->in->bytes + skip, rest);
        task->in_at = task->want_at;
        task->in_length = rest;
    }
    return task->in->size >= task->want_length;
}

static bool buffer_prepare(struct task *task)
{
    struct buffer *buffer;

    if (task->in && room_make(task))
        return true;
    buffer = spare_take(task, task->want_length);
    if (!buffer)
        return false;
    if (task->in) {
        memcpy(buffer->bytes, task->in->bytes, task->in_length);
        buffer_give(task->in);
    } else {
        task->in_at = task->want_at;
        task->in_length = 0;
    }
    task->in = buffer;
    return true;
}

void dataout_check(struct task *task)
{
    if (task->state != TASK_WANTING || connection_of(task)->in.task == task)
        return; /* or in the middle of a PDU for it: asked again at its end */
    if (task->damaged) {
        if (!task->unsolicited && task->r2ts == 0)
            deliver(task, NULL);
        return;
    }
    if (!buffer_prepare(task))
        return;
    if (task->in_length == task->want_length && task->in_at == task->want_at) {
        deliver_all(task);
    } else if (rest_of(task) >= task->want_length) {
        deliver_part(task);
    } else if (!task->unsolicited) {
        if (task->r2ts == 0)
            task->asked_to = task->in_at + task->in_length;
        if (task->asked_to < task->want_at + task->want_length)
            send_queue(task, JOB_R2T);
    }
}

void dataout_want(struct task *task, uint32_t offset, uint32_t length)
{
    check(length > 0 && length <= BUFFER_LARGE);
    check((uint64_t)offset + length <= task->scsi.expected);
    task_state_set(task, TASK_WANTING);
    task->want_at = offset;
    task->want_length = length;
    task->asked = false;
    dataout_check(task);
}

/* -- what comes ---------------------------------------------------------------------------- */

void dataout_first(struct task *task, uint32_t length, bool damaged)
{
    task->damaged |= damaged;
    task->unsolicited_at = length;
    if (task->in)
        task->in_length = length;
}

static const char *judge_solicited(const struct task *task, const uint8_t *header)
{
    const struct r2t *r2t = &task->r2t[0];
    uint32_t length = pdu_data_length(header), left = r2t->length - r2t->received;

    if (be64_get(header + 8) != task->lun)
        return "data for another unit than was asked";
    if (be32_get(header + 40) != r2t->offset + r2t->received)
        return "data at another place than was asked";
    if (length > left)
        return "more data than was asked";
    if (pdu_final(header) && length < left)
        return "less data than was asked";
    return NULL;
}

static const char *judge_unsolicited(const struct task *task, const uint8_t *header)
{
    const struct login_terms *terms = &task->session->terms.terms;
    uint32_t length = pdu_data_length(header);
    uint32_t most = command_unsolicited_max(terms, task->scsi.expected);

    if (be32_get(header + 40) != task->unsolicited_at)
        return "unsolicited data out of place";
    if (length > most - task->unsolicited_at)
        return "more unsolicited data than the first burst";
    return NULL;
}

static enum verdict strange(struct connection *connection)
{
    if (!is_late(connection->session, connection->in.header))
        session_reject(connection, connection->in.header, PDU_REJECT_INVALID_FIELD);
    return TAKE; /* and its data goes nowhere */
}

enum verdict dataout_header(struct connection *connection)
{
    struct receive *in = &connection->in;
    struct task *task = task_find(connection->session, pdu_itt(in->header));
    uint32_t ttt = pdu_ttt(in->header);
    bool solicited = ttt != PDU_NO_TAG;

    if (!task || task->opcode != PDU_SCSI_COMMAND || pdu_itt(in->header) == PDU_NO_TAG)
        return strange(connection);
    if (solicited ? task->r2ts == 0 || task->r2t[0].ttt != ttt : !task->unsolicited)
        return strange(connection);
    in->fault = solicited ? judge_solicited(task, in->header)
                          : judge_unsolicited(task, in->header);
    if (in->fault) {
        session_reject(connection, in->header, PDU_REJECT_PROTOCOL);
        return DROP;
    }
    task->damaged |= be32_get(in->header + 36) !=
            (solicited ? task->r2t[0].datasn : task->unsolicited_datasn);
    in->offset = be32_get(in->header + 40);
    in->task = task;
    in->sink = task->state == TASK_OVER || task->damaged || in->length == 0;
    if (in->sink || task->in)
        return TAKE;
    return dataout_room(connection, task, in->offset, task->scsi.expected - in->offset);
}

static void r2t_account(struct task *task, uint32_t length)
{
    struct r2t *r2t = &task->r2t[0];

    r2t->received += length;
    r2t->datasn++;
    if (r2t->received < r2t->length)
        return;
    task->r2ts--;
    memmove(task->r2t, task->r2t + 1, task->r2ts * sizeof *task->r2t);
}

void dataout_payload(struct connection *connection, bool damaged)
{
    struct receive *in = &connection->in;
    struct task *task = in->task;

    if (!task)
        return;
    if (!in->sink && task->in)
        task->in_length += in->length;
    if (pdu_ttt(in->header) != PDU_NO_TAG) {
        if (task->r2ts > 0) /* a task that was aborted meanwhile has none */
            r2t_account(task, in->length);
    } else {
        task->unsolicited_datasn++;
        task->unsolicited_at += in->length;
        task->unsolicited = !pdu_final(in->header);
    }
    task->damaged |= damaged;
    in->task = NULL;
    if (task->state == TASK_OVER && !task->unsolicited)
        command_over(task);
    else
        dataout_check(task);
}

void dataout_owed(struct task *task)
{
    struct connection *connection = connection_of(task);

    task->owed = loop_now(connection->hall->loop);
    task->owed_moved = connection->moved;
    task->owed_deaf = connection->in.deaf_ms;
}

/* What else moves on the connection may stand before it, on a slow link for long; but no more
   than all the data that a session can have under way, in both directions. While we do not
   listen nothing can come. */
void dataout_tick(struct task *task, struct instant now)
{
    struct connection *connection = connection_of(task);
    uint64_t moved = min_u64(connection->moved - task->owed_moved, MOVED_MOST);
    uint64_t deaf = connection->in.deaf_ms - task->owed_deaf;
    uint64_t patience = connection->target->stuck_ms + moved * 1000 / MOVE_RATE + deaf;

    if ((task->unsolicited || task->r2ts > 0) && !connection->in.paused &&
            instant_ms_until(task->owed, now) >= patience)
        connection_drop(connection, "data that is owed does not come");
}

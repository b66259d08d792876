/* What goes out: tasks with something to say queue up, PDUs are made of them when there is
 * room for the frames, and one sendmsg() carries all that a turn of the loop has gathered.
 *
 * A frame is a PDU that was made: its numbers (StatSN, DataSN, the command window) are spent,
 * so it is sent as it is. Its data stays where it lies, in the task's buffer, until the last
 * byte is the kernel's. The flush is posted once a turn: a send per response costs a fifth of
 * the speed, header and data apart another fifth. */
#include "server/iscsi/send.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "server/iscsi/command.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/session.h"

enum { IOVECS = FRAMES * 3 };

/* -- the queue -------------------------------------------------------------------------- */

void send_schedule(struct connection *connection)
{
    if (!connection->out.flush.queued && !connection->out.blocked)
        loop_defer(connection->hall->loop, &connection->out.flush);
}

void send_queue(struct task *task, enum task_job job)
{
    struct connection *connection = task->session->connection;
    struct send *out = &connection->out;

    task->jobs |= (uint8_t)job;
    if (!task->queued) {
        task->queued = true;
        STAILQ_INSERT_TAIL(&out->jobs, task, in_jobs);
    }
    send_schedule(connection);
}

void send_forget(struct task *task)
{
    struct send *out = &task->session->connection->out;

    task->jobs = 0;
    if (!task->queued)
        return;
    STAILQ_REMOVE(&out->jobs, task, task, in_jobs);
    task->queued = false;
}

struct notice *send_notice(struct connection *connection)
{
    struct send *out = &connection->out;
    struct notice *notice;

    if (out->notice_count == NOTICES)
        return NULL;
    notice = &out->notices[(out->notice_first + out->notice_count++) % NOTICES];
    memset(notice, 0, sizeof *notice);
    send_schedule(connection);
    return notice;
}

bool send_idle(const struct connection *connection)
{
    const struct send *out = &connection->out;
    return out->count == 0 && STAILQ_EMPTY(&out->jobs) &&
            out->notice_made == out->notice_count;
}

/* -- the socket ------------------------------------------------------------------------- */

static int iovec_add(struct iovec *iov, int count, const void *bytes, size_t length)
{
    if (length == 0)
        return count;
    iov[count].iov_base = (void *)(uintptr_t)bytes;
    iov[count].iov_len = length;
    return count + 1;
}

static int iovecs_fill(struct send *out, struct iovec *iov)
{
    size_t done = out->done;
    int count = 0, first = 0;

    for (unsigned i = 0; i < out->count; i++) {
        const struct frame *frame = frame_at(out, i);
        if (frame->led) {
            count = iovec_add(iov, count, frame->data - frame->header_length,
                    frame->header_length + frame->length);
        } else {
            count = iovec_add(iov, count, frame->header, frame->header_length);
            count = iovec_add(iov, count, frame->data, frame->length);
        }
        count = iovec_add(iov, count, frame->tail, frame->tail_length);
    }
    while (done > 0 && done >= iov[first].iov_len)
        done -= iov[first++].iov_len;
    if (first > 0)
        memmove(iov, iov + first, (size_t)(count - first) * sizeof *iov);
    if (count > first) {
        iov[0].iov_base = (char *)iov[0].iov_base + done;
        iov[0].iov_len -= done;
    }
    return count - first;
}

static size_t frame_size(const struct frame *frame)
{
    return (size_t)frame->header_length + frame->length + frame->tail_length;
}

static void frame_over(struct connection *connection, struct frame *frame)
{
    struct send *out = &connection->out;
    struct task *task = frame->task;
    enum frame_end end = frame->end;

    if (!task && out->notice_made > 0) {
        out->notice_first = (out->notice_first + 1) % NOTICES;
        out->notice_made--;
        out->notice_count--;
    }
    out->first = (out->first + 1) % FRAMES;
    out->count--;
    if (end == FRAME_DATA)
        command_sent(task);
    else if (end == FRAME_ANSWER)
        task_sent(task);
}

static void frames_sent(struct connection *connection, size_t bytes)
{
    struct send *out = &connection->out;

    out->done += bytes;
    while (out->count > 0 && out->done >= frame_size(frame_at(out, 0))) {
        out->done -= frame_size(frame_at(out, 0));
        frame_over(connection, frame_at(out, 0));
    }
}

static size_t iovecs_length(const struct iovec *iov, int count)
{
    size_t length = 0;

    for (int i = 0; i < count; i++)
        length += iov[i].iov_len;
    return length;
}

static void send_block(struct connection *connection)
{
    if (!connection->out.blocked)
        connection->out.stuck = loop_now(connection->hall->loop);
    connection->out.blocked = true;
    connection_watch(connection);
}

static void send_unblock(struct connection *connection)
{
    if (!connection->out.blocked)
        return;
    connection->out.blocked = false;
    connection_watch(connection);
}

/* Who takes a byte now and then keeps its answers, and others' buffers, for ever: time is
   given for the bytes that it takes. */
static void patience_renew(struct connection *connection, size_t sent)
{
    struct instant now = loop_now(connection->hall->loop);
    struct instant *stuck = &connection->out.stuck;

    *stuck = instant_add_ms(*stuck, sent * 1000 / MOVE_RATE);
    if (instant_reached(*stuck, now))
        *stuck = now;
}

/* send() for the one piece that most turns of a single command have: the kernel need not
   fetch what a message is made of. */
static ssize_t iovecs_send(int fd, struct iovec *iov, int count)
{
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = (size_t)count };

    return count == 1
            ? send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
            : sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Sends what the ring has. False: the socket is full, or the connection is lost. */
static bool frames_send(struct connection *connection)
{
    struct iovec iov[IOVECS] __attribute__((uninitialized)); /* else 3 KiB of zeros */
    int count = iovecs_fill(&connection->out, iov);
    ssize_t sent;

    sent = iovecs_send(connection->fd, iov, count);
    if (sent < 0 && errno == EINTR)
        return true;
    if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) {
        connection_drop(connection, "the peer is gone");
        return false;
    }
    if (sent > 0) {
        bool whole = (size_t)sent == iovecs_length(iov, count);
        connection->moved += (size_t)sent;
        if (connection->out.blocked)
            patience_renew(connection, (size_t)sent);
        frames_sent(connection, (size_t)sent);
        if (whole)
            return true;
    }
    send_block(connection);
    return false;
}

void send_flush(struct connection *connection)
{
    struct send *out = &connection->out;

    for (;;) {
        frames_make(connection);
        if (out->count == 0)
            break;
        if (!frames_send(connection))
            break;
    }
    if (connection->fd < 0)
        return;
    if (out->count == 0)
        send_unblock(connection);
    connection_flushed(connection);
}

static void on_flush(struct loop_task *post)
{
    struct connection *connection = container_of(post, struct connection, out.flush);

    if (connection->fd >= 0) {
        send_flush(connection);
        connection_read_on(connection);
    } else {
        send_abandon(connection); /* what the unit still gave */
    }
    connection_try_free(connection);
}

void send_abandon(struct connection *connection)
{
    struct send *out = &connection->out;
    struct task *task;

    out->done = 0;
    while (out->count > 0)
        frame_over(connection, frame_at(out, 0));
    while ((task = STAILQ_FIRST(&out->jobs))) {
        uint8_t jobs = task->jobs;
        send_forget(task);
        if (jobs & JOB_ANSWER)
            task_sent(task);
        else if (jobs & JOB_DATA)
            command_sent(task);
    }
    out->notice_count = out->notice_made = 0;
}

bool send_start(struct connection *connection)
{
    struct send *out = &connection->out;

    out->frames = calloc(FRAMES, sizeof *out->frames);
    STAILQ_INIT(&out->jobs);
    out->flush.run = on_flush;
    return out->frames != NULL;
}

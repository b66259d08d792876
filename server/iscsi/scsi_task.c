/* What a task can wait for, and how it ends. Every wait names its state, so that an abort
 * knows what to undo, and its resume, so that a command reads as a chain of steps. */
#include <errno.h>

#include "server/iscsi/scsi_inside.h"

/* -- lines --------------------------------------------------------------------------- */

void line_init(struct scsi_line *line)
{
    line->first = NULL;
    line->last = &line->first;
}

void line_join(struct scsi_line *line, struct scsi_task *task,
        void (*resume)(struct scsi_task *))
{
    task->state = TASK_IN_LINE;
    task->resume = resume;
    task->line = line;
    task->line_next = NULL;
    *line->last = task;
    line->last = &task->line_next;
}

void line_leave(struct scsi_task *task)
{
    struct scsi_line *line = task->line;

    if (!line) /* it waits for a lock: task_unlock() */
        return;
    for (struct scsi_task **at = &line->first; *at; at = &(*at)->line_next)
        if (*at == task) {
            *at = task->line_next;
            if (!*at)
                line->last = at;
            break;
        }
    task->line = NULL;
}

bool line_wake(struct scsi_line *line)
{
    struct scsi_task *task = line->first;

    if (!task)
        return false;
    line_leave(task);
    task_post(task, task->resume);
    return true;
}

/* -- going on ------------------------------------------------------------------------ */

static void task_finish(struct scsi_task *task);

static void task_end_aborted(struct scsi_task *task)
{
    task_drop_buffer(task);
    task->aborted = true;
    task->status = SCSI_TASK_ABORTED;
    task->sense_length = 0;
    task->data = NULL;
    task->data_length = 0;
    task_finish(task);
}

void task_resume(struct scsi_task *task)
{
    task->state = TASK_RUNNING;
    if (task->abort_asked)
        task_end_aborted(task);
    else
        task->resume(task);
}

static void later_run(struct loop_task *later)
{
    task_resume(container_of(later, struct scsi_task, later));
}

void task_post(struct scsi_task *task, void (*resume)(struct scsi_task *))
{
    task->state = TASK_POSTED;
    task->resume = resume;
    task->later.run = later_run;
    loop_post(task_unit(task)->loop, &task->later);
}

void scsi_abort(struct scsi_task *task)
{
    if (task->abort_asked)
        return;
    task->abort_asked = true;
    switch ((enum task_state)task->state) {
    case TASK_BUFFER:
        buffer_wait_cancel(&task->wait);
        break;
    case TASK_IN_LINE:
        line_leave(task);
        break;
    case TASK_BLOCKED:
    case TASK_WANT:
        break;
    default: /* what it waits for comes by itself */
        return;
    }
    task_post(task, task->resume);
}

/* -- buffers and data ---------------------------------------------------------------- */

static void buffer_ready(struct buffer_wait *wait, struct buffer *buffer)
{
    struct scsi_task *task = container_of(wait, struct scsi_task, wait);

    task->buffer = buffer;
    task_post(task, task->resume);
}

void task_take(struct scsi_task *task, size_t size, void (*resume)(struct scsi_task *))
{
    struct buffer_share *share = task->nexus->share;

    check(!task->buffer);
    if (!share)
        share = buffer_common(task_unit(task)->buffers);
    task->resume = resume;
    task->buffer = buffer_take(share, size);
    if (task->buffer) {
        resume(task);
        return;
    }
    task->state = TASK_BUFFER;
    task->wait.ready = buffer_ready;
    buffer_wait_start(share, &task->wait, size);
}

void task_drop_buffer(struct scsi_task *task)
{
    struct buffer *buffer = task->buffer;

    task->buffer = NULL;
    if (buffer)
        buffer_give(buffer);
}

void task_want(struct scsi_task *task, uint64_t offset, uint32_t length,
        void (*resume)(struct scsi_task *))
{
    check(!task->buffer && offset + length <= task->expected);
    task->state = TASK_WANT;
    task->resume = resume;
    task->piece = length;
    task->ops->want(task, (uint32_t)offset, length);
}

void scsi_data_arrived(struct scsi_task *task, struct buffer *buffer)
{
    if (task->abort_asked) { /* its end is posted */
        if (buffer)
            buffer_give(buffer);
        return;
    }
    check(task->state == TASK_WANT);
    if (!buffer) {
        task->state = TASK_RUNNING;
        task_fail(task, KEY_ABORTED_COMMAND, SENSE_DATA_CRC);
        return;
    }
    check(buffer->size >= task->piece);
    task->buffer = buffer;
    task_resume(task);
}

void task_send(
        struct scsi_task *task, uint32_t length, void (*resume)(struct scsi_task *))
{
    struct buffer *buffer = task->buffer;

    task->state = TASK_SENDING;
    task->resume = resume;
    task->buffer = NULL;
    task->sent += length;
    task->ops->data(task, buffer, length);
}

void scsi_data_sent(struct scsi_task *task)
{
    check(task->state == TASK_SENDING);
    task_resume(task);
}

/* -- the scratch buffer -------------------------------------------------------------- */

void task_scratch(struct scsi_task *task, void (*resume)(struct scsi_task *))
{
    struct scsi_unit *unit = task_unit(task);

    if (task->scratch || !unit->scratch_taken) {
        task->scratch = unit->scratch_taken = true;
        task->resume = resume;
        resume(task);
        return;
    }
    line_join(&unit->scratch_line, task, resume);
}

/* It is handed over while it is taken, so that nobody comes between. */
static void scratch_pass(struct scsi_unit *unit)
{
    struct scsi_task *next = unit->scratch_line.first;

    unit->scratch_taken = next != NULL;
    if (next) {
        next->scratch = true;
        line_wake(&unit->scratch_line);
    }
}

void task_scratch_give(struct scsi_task *task)
{
    if (task->scratch) {
        task->scratch = false;
        scratch_pass(task_unit(task));
    }
}

/* -- the end ------------------------------------------------------------------------- */

static void task_finish(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    bool purged = task->purged;

    task_unlock(task);
    task_scratch_give(task);
    if (unit->registering == task)
        reserve_task_over(task);
    task->state = TASK_OVER;
    set_remove(task);
    task->ops->done(task);
    if (purged)
        reserve_task_purged(unit);
    set_pump(unit);
}

void task_status(struct scsi_task *task, enum scsi_status status)
{
    task_drop_buffer(task);
    task->status = status;
    task_finish(task);
}

static void loose_flushed(struct scsi_task *task)
{
    if (task->result < 0)
        task_fail_device(task);
    else
        task_status(task, SCSI_GOOD);
}

/* The write cache may have been switched off while it was written. */
void task_good(struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);

    if (task->loose > unit->flushed && unit->write_through)
        task_device(task, BLOCK_FLUSH, 0, NULL, 0, 0, loose_flushed);
    else
        task_status(task, SCSI_GOOD);
}

void task_good_data(struct scsi_task *task, uint32_t length)
{
    task->data = task->buffer;
    task->data_length = length;
    task->buffer = NULL;
    task->sent += length;
    task->status = SCSI_GOOD;
    if (length == 0) {
        buffer_give(task->data);
        task->data = NULL;
    }
    task_finish(task);
}

static void fail_with(struct scsi_task *task, enum sense_key key, enum sense_code code,
        const uint64_t *information)
{
    bool out = task->opcode && task->opcode->direction == DATA_OUT;

    if (code != SENSE_INVALID_INFORMATION_UNIT) /* what really moved */
        task->transfer = min_u64(task->transfer, out ? task->at : task->sent);
    task->sense_length = sense_build(
            task->sense, task_unit(task)->descriptor_sense, key, code, information);
    task_status(task, SCSI_CHECK_CONDITION);
}

void task_fail(struct scsi_task *task, enum sense_key key, enum sense_code code)
{
    fail_with(task, key, code, NULL);
}

void task_fail_information(struct scsi_task *task, enum sense_key key,
        enum sense_code code, uint64_t information)
{
    fail_with(task, key, code, &information);
}

void task_fail_field(struct scsi_task *task)
{
    task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_INVALID_FIELD_IN_CDB);
}

void task_fail_parameter(struct scsi_task *task)
{
    task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_INVALID_PARAMETER);
}

void task_fail_device(struct scsi_task *task)
{
    bool read = task->request.op == BLOCK_READ || task->request.op == BLOCK_EXTENTS;

    switch (task->result) {
    case -ENOSPC:
    case -EDQUOT:
        task_fail(task, KEY_DATA_PROTECT, SENSE_SPACE_ALLOCATION_FAILED);
        return;
    case -EROFS:
        task_fail(task, KEY_DATA_PROTECT, SENSE_WRITE_PROTECTED);
        return;
    case -ETIMEDOUT:
        task_fail(task, KEY_ABORTED_COMMAND, SENSE_COMMAND_TIMEOUT);
        return;
    case -ENOTCONN:
    case -ESTALE:
        task_fail(task, KEY_NOT_READY, SENSE_BECOMING_READY);
        return;
    case -ENOMEM:
        task_fail(task, KEY_ABORTED_COMMAND, SENSE_INTERNAL_FAILURE);
        return;
    case -EBADE:
    case -EREMOTEIO:
    case -EOPNOTSUPP:
        task_fail(task, KEY_HARDWARE_ERROR, SENSE_INTERNAL_FAILURE);
        return;
    default:
        task_fail(task, KEY_MEDIUM_ERROR, read ? SENSE_READ_ERROR : SENSE_WRITE_ERROR);
    }
}

/* -- answers that are built ---------------------------------------------------------- */

static void reply_build(struct scsi_task *task)
{
    reply_f *build = task->reply;
    uint8_t *bytes = task->buffer->bytes;
    size_t room = task->buffer->size;
    int64_t length;

    memset(bytes, 0, room);
    length = build(task, bytes, room);
    if (length < 0)
        return;
    task->transfer = min_u64((uint64_t)length, task->end);
    task_good_data(task, (uint32_t)min_u64(task->transfer, task->expected));
}

void task_reply(
        struct scsi_task *task, uint32_t allocation, size_t room, reply_f *build)
{
    task->end = allocation;
    task->reply = build;
    task_take(task, room, reply_build);
}

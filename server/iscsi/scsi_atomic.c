/* COMPARE AND WRITE, ORWRITE: read and write as one step, under a lock of the range that no
 * other command of any session gets through (SBC-3 5.2, 5.8). */
#include "server/iscsi/scsi_inside.h"

static uint64_t task_offset(const struct scsi_task *task)
{
    return (task->lba << task_unit(task)->shift) + task->at;
}

/* -- COMPARE AND WRITE --------------------------------------------------------------- */

static uint64_t half(const struct scsi_task *task)
{
    return task->blocks << task_unit(task)->shift;
}

static void compare_written(struct scsi_task *task)
{
    if (task->result < 0)
        task_fail_device(task);
    else
        task_good(task);
}

static void compare_read(struct scsi_task *task)
{
    const uint8_t *found = task_unit(task)->scratch, *wanted = task->buffer->bytes;
    uint64_t length = half(task), at = 0;

    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    if (memcmp(found, wanted, length) != 0) {
        while (found[at] == wanted[at])
            at++;
        task->at = length * 2; /* the data-out came */
        task_fail_information(task, KEY_MISCOMPARE, SENSE_MISCOMPARE, at);
        return;
    }
    task_scratch_give(task);
    task_device(task, BLOCK_WRITE, task_offset(task), task->buffer->bytes + length,
            length, task_write_flags(task), compare_written);
}

static void compare_submit(struct scsi_task *task)
{
    task_device(task, BLOCK_READ, task_offset(task), task_unit(task)->scratch,
            half(task), 0, compare_read);
}

static void compare_locked(struct scsi_task *task)
{
    task_scratch(task, compare_submit);
}

static void compare_data(struct scsi_task *task)
{
    task_lock(task, task_offset(task), half(task), compare_locked);
}

void scsi_compare_and_write(struct scsi_task *task)
{
    task->lba = be64_get(task->cdb + 2);
    task->blocks = task->cdb[13];
    if (!task_medium_range(task))
        return;
    if (task->blocks > compare_most(task_unit(task))) {
        task_fail_field(task);
        return;
    }
    task->transfer = half(task) * 2;
    if (task->expected != task->transfer) /* which half is which? */
        task_fail_field(task);
    else if (task->blocks == 0)
        task_good(task);
    else
        task_want(task, 0, (uint32_t)task->transfer, compare_data);
}

/* -- ORWRITE ------------------------------------------------------------------------- */

static void or_piece(struct scsi_task *task);

static void or_written(struct scsi_task *task)
{
    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    task_unlock(task);
    task_drop_buffer(task);
    task->at += task->piece;
    or_piece(task);
}

static void or_read(struct scsi_task *task)
{
    const uint8_t *found = task_unit(task)->scratch;
    uint8_t *bytes = task->buffer->bytes;

    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    for (uint32_t i = 0; i < task->piece; i++)
        bytes[i] |= found[i];
    task_scratch_give(task);
    task_device(task, BLOCK_WRITE, task_offset(task), bytes, task->piece,
            task_write_flags(task), or_written);
}

static void or_submit(struct scsi_task *task)
{
    task_device(task, BLOCK_READ, task_offset(task), task_unit(task)->scratch,
            task->piece, 0, or_read);
}

static void or_locked(struct scsi_task *task)
{
    task_scratch(task, or_submit);
}

static void or_data(struct scsi_task *task)
{
    task_lock(task, task_offset(task), task->piece, or_locked);
}

static void or_piece(struct scsi_task *task)
{
    uint64_t left = task->end - task->at;

    if (left == 0)
        task_good(task);
    else
        task_want(task, task->at, (uint32_t)min_u64(left, task_unit(task)->piece_most),
                or_data);
}

void scsi_orwrite(struct scsi_task *task)
{
    uint64_t given;

    task->transfer = task->blocks << task_unit(task)->shift;
    given = min_u64(task->transfer, task->expected);
    task->end = given - given % task_unit(task)->block_size;
    or_piece(task);
}

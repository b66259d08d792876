/* READ, WRITE, VERIFY and their like: a command of any length goes in pieces of at most one
 * buffer; a piece's data-in is sent before the next is read, and its data-out is on the
 * device before the next is asked for. What the initiator expects less than the CDB says is
 * not moved (RFC 7143 11.4.5); blocks that it would give only in part are not written. */
#include "server/iscsi/scsi_inside.h"

static uint64_t task_offset(const struct scsi_task *task)
{
    return (task->lba << task_unit(task)->shift) + task->at;
}

static uint64_t range_bytes(const struct scsi_task *task)
{
    return task->blocks << task_unit(task)->shift;
}

static uint32_t piece_next(const struct scsi_task *task)
{
    return (uint32_t)min_u64(task->end - task->at, task_unit(task)->piece_most);
}

static uint32_t whole(const struct scsi_unit *unit, uint64_t bytes)
{
    return (uint32_t)round_up(bytes, unit->block_size);
}

/* The bytes of data-out that make whole blocks. */
static uint64_t given_bytes(const struct scsi_task *task)
{
    uint64_t given = min_u64(task->transfer, task->expected);

    return given - given % task_unit(task)->block_size;
}

/* -- READ ---------------------------------------------------------------------------- */

static void read_piece(struct scsi_task *task);

static void read_done(struct scsi_task *task)
{
    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    task->at += task->piece;
    if (task->at == task->end)
        task_good_data(task, task->piece);
    else
        task_send(task, task->piece, read_piece);
}

static void read_submit(struct scsi_task *task)
{
    task_device(task, BLOCK_READ, task_offset(task), task->buffer->bytes,
            whole(task_unit(task), task->piece), 0, read_done);
}

static void read_piece(struct scsi_task *task)
{
    task->piece = piece_next(task);
    task_take(task, whole(task_unit(task), task->piece), read_submit);
}

static void read_flushed(struct scsi_task *task)
{
    if (task->result < 0)
        task_fail_device(task);
    else
        read_piece(task);
}

/* FUA: what is read is on the medium, so what the cache holds goes there first. */
void scsi_read(struct scsi_task *task)
{
    bool fua = task->cdb[0] != 0x08 && (task->cdb[1] & 0x08);

    task->transfer = range_bytes(task);
    task->end = min_u64(task->transfer, task->expected);
    if (task->end == 0)
        task_good(task);
    else if (fua && unit_dirty(task_unit(task)))
        task_device(task, BLOCK_FLUSH, 0, NULL, 0, 0, read_flushed);
    else
        read_piece(task);
}

/* -- WRITE --------------------------------------------------------------------------- */

static void write_piece(struct scsi_task *task);

static void write_done(struct scsi_task *task)
{
    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    task_drop_buffer(task);
    task->at += task->piece;
    write_piece(task);
}

static void write_submit(struct scsi_task *task)
{
    task_device(task, BLOCK_WRITE, task_offset(task), task->buffer->bytes, task->piece,
            task_write_flags(task), write_done);
}

static void write_piece(struct scsi_task *task)
{
    if (task->at == task->end)
        task_good(task);
    else
        task_want(task, task->at, piece_next(task), write_submit);
}

void scsi_write(struct scsi_task *task)
{
    task->transfer = range_bytes(task);
    task->end = given_bytes(task);
    write_piece(task);
}

/* -- VERIFY -------------------------------------------------------------------------- */

enum { BYTCHK_NONE, BYTCHK_COMPARE, BYTCHK_RESERVED, BYTCHK_ONE_BLOCK };

static unsigned bytchk(const struct scsi_task *task)
{
    return task->cdb[1] >> 1 & 3;
}

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t length)
{
    size_t at = 0;

    while (at < length && a[at] == b[at])
        at++;
    return at;
}

static void miscompare(struct scsi_task *task, uint64_t at)
{
    task_fail_information(task, KEY_MISCOMPARE, SENSE_MISCOMPARE, at);
}

static void verify_piece(struct scsi_task *task);

/* The scratch is compared with the data-out, of which ONE_BLOCK repeats a single block. */
static bool verify_equal(struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);
    uint32_t step = bytchk(task) == BYTCHK_ONE_BLOCK ? unit->block_size : task->piece;

    for (uint32_t at = 0; at < task->piece; at += step) {
        if (memcmp(unit->scratch + at, task->buffer->bytes, step) == 0)
            continue;
        miscompare(task,
                (bytchk(task) == BYTCHK_ONE_BLOCK ? 0 : task->at) +
                        first_difference(
                                unit->scratch + at, task->buffer->bytes, step));
        return false;
    }
    return true;
}

static void verify_read(struct scsi_task *task)
{
    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    if (bytchk(task) != BYTCHK_NONE && !verify_equal(task))
        return;
    if (bytchk(task) == BYTCHK_COMPARE)
        task_drop_buffer(task);
    task_scratch_give(task);
    task_unlock(task);
    task->at += task->piece;
    verify_piece(task);
}

static void verify_submit(struct scsi_task *task)
{
    task_device(task, BLOCK_READ, task_offset(task), task_unit(task)->scratch,
            task->piece, 0, verify_read);
}

static void verify_scratch(struct scsi_task *task)
{
    task_scratch(task, verify_submit);
}

static void verify_lock(struct scsi_task *task)
{
    task_lock(task, task_offset(task), task->piece, verify_scratch);
}

static void verify_piece(struct scsi_task *task)
{
    if (task->at == task->end) {
        task_good(task);
        return;
    }
    if (bytchk(task) == BYTCHK_COMPARE) {
        task_want(task, task->at, piece_next(task), verify_lock);
        return;
    }
    task->piece = piece_next(task);
    verify_lock(task);
}

static void verify_one_block(struct scsi_task *task)
{
    task->piece = 0;
    verify_piece(task);
}

void scsi_verify(struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);

    task->end = range_bytes(task);
    switch (bytchk(task)) {
    case BYTCHK_NONE:
        verify_piece(task);
        break;
    case BYTCHK_COMPARE:
        task->transfer = task->end;
        task->end = given_bytes(task);
        verify_piece(task);
        break;
    case BYTCHK_ONE_BLOCK:
        task->transfer = task->end ? unit->block_size : 0;
        if (task->end == 0 || task->expected < unit->block_size)
            task_good(task); /* nothing to compare with: nothing is claimed of it */
        else
            task_want(task, 0, unit->block_size, verify_one_block);
        break;
    default:
        task_fail_field(task);
    }
}

/* -- WRITE AND VERIFY ---------------------------------------------------------------- */

static void write_verify_piece(struct scsi_task *task);

static void write_verify_read(struct scsi_task *task)
{
    size_t at;

    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    at = first_difference(task_unit(task)->scratch, task->buffer->bytes, task->piece);
    if (at < task->piece) {
        miscompare(task, task->at + at);
        return;
    }
    task_scratch_give(task);
    task_unlock(task);
    task_drop_buffer(task);
    task->at += task->piece;
    write_verify_piece(task);
}

static void write_verify_submit_read(struct scsi_task *task)
{
    task_device(task, BLOCK_READ, task_offset(task), task_unit(task)->scratch,
            task->piece, 0, write_verify_read);
}

static void write_verify_written(struct scsi_task *task)
{
    if (task->result < 0)
        task_fail_device(task);
    else
        task_scratch(task, write_verify_submit_read);
}

/* What is verified is on the medium (SBC-3 5.47). */
static void write_verify_submit(struct scsi_task *task)
{
    task_device(task, BLOCK_WRITE, task_offset(task), task->buffer->bytes, task->piece,
            BLOCK_FUA, write_verify_written);
}

static void write_verify_lock(struct scsi_task *task)
{
    task_lock(task, task_offset(task), task->piece, write_verify_submit);
}

static void write_verify_piece(struct scsi_task *task)
{
    if (task->at == task->end)
        task_good(task);
    else
        task_want(task, task->at, piece_next(task), write_verify_lock);
}

void scsi_write_verify(struct scsi_task *task)
{
    if (bytchk(task) > BYTCHK_COMPARE) {
        task_fail_field(task);
        return;
    }
    task->transfer = range_bytes(task);
    task->end = given_bytes(task);
    write_verify_piece(task);
}

/* -- caches -------------------------------------------------------------------------- */

static void flush_done(struct scsi_task *task)
{
    if (task->result < 0)
        task_fail_device(task);
    else
        task_good(task);
}

/* The whole device is flushed, whatever the range. IMMED is answered when it is done too: a
   GOOD before that would promise nothing. */
void scsi_synchronize_cache(struct scsi_task *task)
{
    task_device(task, BLOCK_FLUSH, 0, NULL, 0, 0, flush_done);
}

/* There is no cache of ours to fetch into: GOOD, not CONDITION MET, says that not all of it
   is there (SBC-3 5.9). */
void scsi_prefetch(struct scsi_task *task)
{
    task_good(task);
}

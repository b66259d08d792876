/* UNMAP, WRITE SAME, GET LBA STATUS: what has no bytes of its own.
 *
 * Where LBPRZ is told (BLOCK_DISCARD_ZEROES), a discarded range reads as zeros. A device that
 * answers "not supported" for a range after all gets zeros written, so that this stays true.
 */
#include <errno.h>

#include "replica/base/digest.h"
#include "server/iscsi/scsi_inside.h"

static unsigned through_flags(const struct scsi_unit *unit)
{
    return unit->write_through ? BLOCK_FUA : 0;
}

/* A discard knows no FUA: written through means flushed behind it. */
static void flushed(struct scsi_task *task)
{
    if (task->result < 0)
        task_fail_device(task);
    else
        task_good(task);
}

static void discards_over(struct scsi_task *task)
{
    if (task_unit(task)->write_through)
        task_device(task, BLOCK_FLUSH, 0, NULL, 0, 0, flushed);
    else
        task_good(task);
}

/* One discard of at most zero_most bytes at task->lba. */
static void discard_submit(struct scsi_task *task, void (*resume)(struct scsi_task *))
{
    const struct scsi_unit *unit = task_unit(task);
    uint64_t bytes = min_u64(task->blocks << unit->shift, unit->zero_most);

    task_device(task, BLOCK_DISCARD, task->lba << unit->shift, NULL, bytes, 0, resume);
}

/* The same range, as far as one write of zeros goes. */
static void zero_submit(struct scsi_task *task, void (*resume)(struct scsi_task *))
{
    const struct scsi_unit *unit = task_unit(task);
    uint64_t bytes = zero_piece(unit, task->blocks << unit->shift);

    task_zero(task, task->lba << unit->shift, bytes, through_flags(unit), resume);
}

static void range_advance(struct scsi_task *task)
{
    uint64_t blocks = task->request.length >> task_unit(task)->shift;

    task->lba += blocks;
    task->blocks -= blocks;
}

/* -- UNMAP --------------------------------------------------------------------------- */

enum { UNMAP_HEADER = 8, UNMAP_DESCRIPTOR = 16 };

static void unmap_next(struct scsi_task *task);

static void unmap_done(struct scsi_task *task)
{
    bool discard = task->request.op == BLOCK_DISCARD;

    if (task->result == -EOPNOTSUPP && discard) {
        if (task_unit(task)->caps & BLOCK_DISCARD_ZEROES) {
            zero_submit(task, unmap_done);
            return;
        }
        task->result = 0; /* it was a hint */
    }
    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    range_advance(task);
    unmap_next(task);
}

static const uint8_t *unmap_descriptor(const struct scsi_task *task, uint64_t index)
{
    return task->buffer->bytes + UNMAP_HEADER + index * UNMAP_DESCRIPTOR;
}

static void unmap_next(struct scsi_task *task)
{
    uint64_t *index = &task->room.words[0], count = task->room.words[1];

    while (task->blocks == 0 && *index < count) {
        const uint8_t *descriptor = unmap_descriptor(task, (*index)++);
        task->lba = be64_get(descriptor);
        task->blocks = be32_get(descriptor + 8);
    }
    if (task->blocks == 0)
        discards_over(task);
    else
        discard_submit(task, unmap_done);
}

/* All of it is checked before anything is done. */
static enum sense_code unmap_check(const struct scsi_task *task, uint64_t count)
{
    const struct scsi_unit *unit = task_unit(task);
    uint64_t sum = 0;

    if (count > UNMAP_RANGES)
        return SENSE_INVALID_PARAMETER;
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *descriptor = unmap_descriptor(task, i);
        uint32_t blocks = be32_get(descriptor + 8);
        sum += blocks;
        if (!range_inside(be64_get(descriptor), blocks, unit->blocks))
            return SENSE_LBA_OUT_OF_RANGE;
    }
    return sum > UNMAP_MOST ? SENSE_INVALID_PARAMETER : SENSE_NONE;
}

static void unmap_list(struct scsi_task *task)
{
    const uint8_t *bytes = task->buffer->bytes;
    uint32_t length = task->piece, listed = be16_get(bytes + 2);
    enum sense_code code = SENSE_PARAMETER_LIST_LENGTH;

    task->at = length;
    task->room.words[0] = 0;
    task->room.words[1] = listed / UNMAP_DESCRIPTOR;
    if (listed <= length - UNMAP_HEADER && be16_get(bytes) + 2u <= length)
        code = unmap_check(task, task->room.words[1]);
    if (code != SENSE_NONE) {
        task_fail(task, KEY_ILLEGAL_REQUEST, code);
        return;
    }
    task->blocks = 0;
    unmap_next(task);
}

void scsi_unmap(struct scsi_task *task)
{
    uint32_t length = be16_get(task->cdb + 7);

    task->transfer = length;
    if (task->cdb[1] & 0x01) /* ANCHOR: ANC_SUP is 0 */
        task_fail_field(task);
    else if (length == 0)
        task_good(task);
    else if (length < UNMAP_HEADER || task->expected < length)
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_PARAMETER_LIST_LENGTH);
    else
        task_want(task, 0, length, unmap_list);
}

/* -- WRITE SAME ---------------------------------------------------------------------- */

enum {
    SAME_NDOB = 0x01,
    SAME_LBDATA = 0x02,
    SAME_PBDATA = 0x04,
    SAME_UNMAP = 0x08,
    SAME_ANCHOR = 0x10
};

static void same_zero_next(struct scsi_task *task);
static void same_discard_next(struct scsi_task *task);
static void same_pattern_next(struct scsi_task *task);

static void same_zero_done(struct scsi_task *task)
{
    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    range_advance(task);
    same_zero_next(task);
}

static void same_zero_next(struct scsi_task *task)
{
    if (task->blocks == 0)
        task_good(task);
    else
        zero_submit(task, same_zero_done);
}

static void same_discard_done(struct scsi_task *task)
{
    if (task->result == -EOPNOTSUPP) {
        same_zero_next(task);
        return;
    }
    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    range_advance(task);
    same_discard_next(task);
}

static void same_discard_next(struct scsi_task *task)
{
    if (task->blocks == 0)
        discards_over(task);
    else
        discard_submit(task, same_discard_done);
}

static void same_pattern_done(struct scsi_task *task)
{
    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    range_advance(task);
    same_pattern_next(task);
}

/* The buffer is named again and again, so that one write carries much of it. */
static void same_pattern_next(struct scsi_task *task)
{
    enum { IOV = sizeof task->room.iov / sizeof *task->room.iov };
    const struct scsi_unit *unit = task_unit(task);
    uint64_t left = min_u64(task->blocks << unit->shift, unit->piece_most);
    uint64_t length = 0;
    int count = 0;

    if (task->blocks == 0) {
        task_good(task);
        return;
    }
    while (length < left && count < IOV) {
        uint64_t more = min_u64(left - length, task->end);
        task->room.iov[count++] = (struct iovec){ task->buffer->bytes, more };
        length += more;
    }
    task_device_iov(task, BLOCK_WRITE, task->lba << unit->shift, task->room.iov, count,
            length, through_flags(unit), same_pattern_done);
}

/* The block is repeated over its whole buffer. */
static void same_pattern_fill(struct scsi_task *task)
{
    uint32_t block = task_unit(task)->block_size;
    uint64_t most = task->buffer->size - task->buffer->size % block;
    uint8_t *bytes = task->buffer->bytes;

    task->end = most;
    for (uint64_t filled = block; filled < most;) {
        uint64_t more = min_u64(filled, most - filled);
        memcpy(bytes + filled, bytes, more);
        filled += more;
    }
    same_pattern_next(task);
}

static void same_zeros(struct scsi_task *task)
{
    bool discard = (task->cdb[1] & SAME_UNMAP) &&
            (task_unit(task)->caps & BLOCK_DISCARD_ZEROES);

    if (discard)
        same_discard_next(task);
    else
        same_zero_next(task);
}

static void same_data(struct scsi_task *task)
{
    task->at = task->piece;
    if (digest_is_zero(task->buffer->bytes, task->piece))
        same_zeros(task);
    else
        same_pattern_fill(task);
}

static bool same_field_fits(const struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);
    uint8_t flags = task->cdb[1];

    if (flags & (SAME_LBDATA | SAME_PBDATA | SAME_ANCHOR))
        return false;
    if ((flags & SAME_UNMAP) && !(unit->caps & BLOCK_CAN_DISCARD))
        return false;
    if ((flags & SAME_NDOB) && task->cdb[0] != 0x93)
        return false;
    return task->blocks <= (uint64_t)ZERO_MOST >> unit->shift;
}

void scsi_write_same(struct scsi_task *task)
{
    uint32_t block = task_unit(task)->block_size;
    bool no_data = task->cdb[1] & SAME_NDOB;

    if (task->blocks == 0) { /* WSNZ is 0: to the end of the medium */
        task->blocks = task_unit(task)->blocks - task->lba;
        if (task->blocks == 0) {
            task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_LBA_OUT_OF_RANGE);
            return;
        }
    }
    if (!same_field_fits(task)) {
        task_fail_field(task);
        return;
    }
    task->transfer = no_data ? 0 : block;
    if (no_data)
        same_zeros(task);
    else if (task->expected != block) /* one of them is wrong about what is meant */
        task_fail_field(task);
    else
        task_want(task, 0, block, same_data);
}

/* -- GET LBA STATUS ------------------------------------------------------------------ */

enum { STATUS_HEADER = 8, STATUS_DESCRIPTOR = 16, MAPPED = 0, DEALLOCATED = 1 };

#define STATUS_MOST (UINT64_C(64) << 30) /* bytes that one call looks at */

/* Descriptors being written; neighbours of one kind become one. */
struct status_list {
    uint8_t *bytes;
    unsigned count;
    uint64_t at; /* the next block to tell of */
};

static void status_add(struct status_list *list, uint64_t end, uint8_t kind)
{
    uint8_t *last = list->bytes + STATUS_HEADER + (list->count - 1) * STATUS_DESCRIPTOR;
    uint32_t blocks = (uint32_t)(end - list->at);

    if (list->count > 0 && last[12] == kind) {
        be32_put(last + 8, be32_get(last + 8) + blocks);
    } else {
        last = list->bytes + STATUS_HEADER + list->count++ * STATUS_DESCRIPTOR;
        be64_put(last, list->at);
        be32_put(last + 8, blocks);
        last[12] = kind;
    }
    list->at = end;
}

/* A block counts as deallocated only if all of it is. */
static void status_extent(struct status_list *list, const struct scsi_unit *unit,
        const struct block_extent *extent)
{
    bool zero = extent->kind == BLOCK_EXTENT_ZERO;
    uint64_t end = extent->offset + extent->length;

    end = (zero ? end : round_up(end, unit->block_size)) >> unit->shift;
    if (end > list->at)
        status_add(list, end, zero ? DEALLOCATED : MAPPED);
}

static void status_answer(struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);
    const struct block_request *request = &task->request;
    struct status_list list = { .bytes = task->buffer->bytes, .at = task->lba };
    uint64_t length;

    memset(list.bytes, 0, task->buffer->size);
    for (unsigned i = 0; task->result == 0 && i < request->extents_count; i++)
        status_extent(&list, unit, &task->room.extents[i]);
    if (list.count == 0) /* nothing is known */
        status_add(&list, task->lba + task->blocks, MAPPED);
    length = STATUS_HEADER + list.count * STATUS_DESCRIPTOR;
    be32_put(list.bytes, (uint32_t)(length - 4));
    task->transfer = min_u64(length, task->end);
    task_good_data(task, (uint32_t)min_u64(task->transfer, task->expected));
}

static void status_known(struct scsi_task *task)
{
    if (task->result < 0 && task->result != -EOPNOTSUPP)
        task_fail_device(task);
    else
        status_answer(task);
}

static void status_ask(struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);
    enum { EXTENTS = sizeof task->room.extents / sizeof *task->room.extents };

    task->request.extents_count = 0;
    task->result = 0;
    if (!(unit->caps & BLOCK_CAN_EXTENTS) || !(unit->caps & BLOCK_CAN_DISCARD)) {
        status_answer(task);
        return;
    }
    task->request.extents = task->room.extents;
    task->request.extents_max = EXTENTS;
    task_device(task, BLOCK_EXTENTS, task->lba << unit->shift, NULL,
            task->blocks << unit->shift, 0, status_known);
}

void scsi_get_lba_status(struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);

    task->lba = be64_get(task->cdb + 2);
    task->blocks = 1;
    if (!task_medium_range(task))
        return;
    task->blocks = min_u64(
            unit->blocks - task->lba, min_u64(STATUS_MOST >> unit->shift, UINT32_MAX));
    task->end = be32_get(task->cdb + 10);
    task_take(task, BUFFER_SMALL, status_ask);
}

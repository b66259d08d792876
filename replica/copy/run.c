/* replica/copy/run.c - a range of a piece that is written in one way, request by request.
 */
#include <errno.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/copy/inside.h"

enum {
    ZEROS = 1 << 20 /* bytes of zeros to write from */
};

static const uint64_t ZERO_MOST = (uint64_t)256 << 20; /* bytes of one discard */

/* Only read. Not const, so that it takes no room in the executable. */
static uint8_t zeros[ZEROS] __attribute__((aligned(4096)));

static void run_submit(struct run *run);

uint64_t slot_zero_max(const struct copy *copy)
{
    uint64_t most = ZERO_MOST;

    if (copy->zero_way == ZERO_BY_WRITE)
        most = min_u64(copy->piece_max, ZEROS);
    else if (copy->target->max_zero)
        most = min_u64(most, copy->target->max_zero);
    most -= most % copy->step;
    return most ? most : copy->step; /* run_submit() cuts what is too long even then */
}

/* It cannot do this, or not here; it may still take plain writes, which tell the truth.
 */
static bool way_lacks(int result)
{
    return result == -EOPNOTSUPP || result == -EREMOTEIO || result == -EINVAL;
}

static void way_give_up(struct copy *copy, enum zero_way way)
{
    if (copy->zero_way != way) /* another run has said so already */
        return;
    if (way == ZERO_BY_DISCARD && (copy->target->caps & BLOCK_CAN_ZERO))
        copy->zero_way = ZERO_BY_ZERO;
    else
        copy->zero_way = ZERO_BY_WRITE;
}

void run_account(struct run *run)
{
    struct slot *slot = run->slot;
    uint64_t from = run->request.offset, length = run->request.length;
    uint64_t end = slot->piece.offset + slot->piece.length;

    run->offset += length;
    slot->copy->unflushed += length;
    if (run->request.op != BLOCK_WRITE && run->request.op != BLOCK_COPY)
        return;
    slot->written += min_u64(from + length, end) - from; /* without the padding */
    slot->copy->sent += length;
}

static void run_done(struct block_request *request, int result)
{
    struct run *run = container_of(request, struct run, request);
    struct slot *slot = run->slot;
    struct copy *copy = slot->copy;

    if (result && request->op != BLOCK_WRITE && way_lacks(result) &&
            !copy->target->broken) {
        way_give_up(copy, run->way);
    } else if (result) {
        slot->failed = true;
        copy_fail(copy, result, true, "written", request->offset);
    } else {
        run_account(run);
    }
    if (!slot->failed && run->offset < run->end && copy->stop != COPY_DROP) {
        run_submit(run);
        return;
    }
    if (run->offset < run->end)
        slot->failed = true;
    if (--slot->pending == 0)
        slot_end(slot);
}

/* How much of a run one request takes. */
static uint64_t run_step(const struct copy *copy, const struct run *run)
{
    uint64_t left = run->end - run->offset, most = left;

    if (run->zero && run->way == ZERO_BY_WRITE)
        most = min_u64(ZEROS, copy->piece_max);
    else if (run->zero && copy->target->max_zero)
        most = copy->target->max_zero;
    if (most >= left)
        return left;
    most -= most % copy->target->block_size;
    return most ? most : copy->target->block_size;
}

static void run_submit(struct run *run)
{
    static const enum block_op ops[] = { BLOCK_DISCARD, BLOCK_ZERO, BLOCK_WRITE };
    struct slot *slot = run->slot;
    struct copy *copy = slot->copy;
    uint64_t step;

    run->way = copy->zero_way;
    step = run_step(copy, run);
    run->iov.iov_base =
            run->zero ? zeros : slot->source_bytes + (run->offset - slot->piece.offset);
    run->iov.iov_len = step;
    run->request =
            (struct block_request){ .op = run->zero ? ops[run->way] : BLOCK_WRITE,
                .offset = run->offset,
                .length = step,
                .done = run_done };
    if (run->request.op == BLOCK_WRITE) {
        run->request.iov = &run->iov;
        run->request.iovcnt = 1;
    }
    copy->dirty = true;
    block_submit(copy->target, &run->request);
}

void slot_write(struct slot *slot, unsigned count)
{
    slot->pending = count;
    if (count == 0) {
        slot_end(slot);
        return;
    }
    slot_move(slot, PLACE_TARGET);
    for (unsigned i = 0; i < count; i++)
        run_submit(&slot->runs[i]);
}

void run_init(struct slot *slot, unsigned at, uint64_t from, uint64_t end, bool zero)
{
    struct run *run = &slot->runs[at];

    check(at < COPY_GRAINS);
    run->slot = slot;
    run->zero = zero;
    run->offset = from;
    run->end = end;
}

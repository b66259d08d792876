/* replica/copy/run.c - a range of a piece that is written in one way, request by request.
 */
#include <errno.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/copy/inside.h"

enum {
    ZEROS = 1 << 20, /* bytes of zeros to write from */
    SAMPLE_MS = 3000, /* a sample is not waited for any longer, */
    LINE_MS = 10000 /* nor is the first of the line, while nothing moves */
};

static const uint64_t ZERO_MOST = (uint64_t)256 << 20; /* bytes of one discard */

/* Only read. Not const, so that it takes no room in the executable. */
static uint8_t zeros[ZEROS] __attribute__((aligned(4096)));

static void line_put(struct run *run, bool first);
static void line_move(struct copy *copy);

uint64_t slot_zero_max(const struct copy *copy)
{
    uint64_t most = ZERO_MOST;

    if (copy->zeros.now == ZERO_BY_WRITE)
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

static void run_refused(struct run *run)
{
    struct copy *copy = run->slot->copy;

    zero_choice_give_up(&copy->zeros,
            run->request.op == BLOCK_ZERO ? ZERO_BY_ZERO : ZERO_BY_DISCARD);
    run->way = copy->zeros.now;
}

void run_account(struct run *run)
{
    struct slot *slot = run->slot;
    uint64_t from = run->request.offset, length = run->request.length;
    uint64_t end = slot->piece.offset + slot->piece.length;

    run->offset += length;
    slot->copy->unflushed += length;
    zero_choice_moved(&slot->copy->zeros, length);
    if (run->request.op != BLOCK_WRITE && run->request.op != BLOCK_COPY)
        return;
    slot->written += min_u64(from + length, end) - from; /* without the padding */
    slot->copy->sent += length;
}

/* It is not in flight any more. True when it was the sample. */
static bool run_left(struct run *run, int result)
{
    struct copy *copy = run->slot->copy;
    struct instant now = loop_now(copy->loop);
    enum zero_way way = run->request.op == BLOCK_ZERO ? ZERO_BY_ZERO : ZERO_BY_WRITE;
    bool sample = run == copy->sample;

    copy->line_moved = now;
    if (!run->late)
        copy->writing--;
    run->late = false;
    if (!sample)
        return false;
    copy->sample = NULL;
    if (result == 0)
        zero_choice_note(&copy->zeros, way, now.ns - run->began.ns, now);
    return true;
}

/* Finished or given up. */
static void run_over(struct run *run)
{
    struct slot *slot = run->slot;

    if (run->offset < run->end)
        slot->failed = true;
    if (--slot->pending == 0)
        slot_end(slot);
}

static void run_done(struct block_request *request, int result)
{
    struct run *run = container_of(request, struct run, request);
    struct slot *slot = run->slot;
    struct copy *copy = slot->copy;
    bool sample = run_left(run, result);

    if (result && request->op != BLOCK_WRITE && way_lacks(result) &&
            !copy->target->broken) {
        run_refused(run);
    } else if (result) {
        slot->failed = true;
        copy_fail(copy, result, true, "written", request->offset);
    } else {
        run_account(run);
    }
    if (!slot->failed && run->offset < run->end && copy->stop != COPY_DROP) {
        line_put(run, sample);
        line_move(copy);
        return;
    }
    line_move(copy);
    run_over(run);
}

/* Zeros of the source that nobody had to read count for the limit when they are sent. */
static void run_pay(const struct run *run, uint64_t bytes)
{
    const struct slot *slot = run->slot;
    struct copy *copy = slot->copy;

    if (slot->piece.source_zero && !copy_compares(copy))
        throttle_spend(&copy->throttle, bytes, loop_now(copy->loop));
}

/* How much of a run one request takes. */
static uint64_t run_step(
        const struct copy *copy, const struct run *run, enum zero_way way)
{
    uint64_t left = run->end - run->offset, most = left;

    if (run == copy->sample)
        most = copy->zeros.sample;
    else if (run->zero && way == ZERO_BY_WRITE)
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
    enum zero_way way = run == copy->sample ? zero_choice_next(&copy->zeros) : run->way;
    uint64_t step = run_step(copy, run, way);

    run->iov.iov_base =
            run->zero ? zeros : slot->source_bytes + (run->offset - slot->piece.offset);
    run->iov.iov_len = step;
    run->request = (struct block_request){ .op = run->zero ? ops[way] : BLOCK_WRITE,
        .offset = run->offset,
        .length = step,
        .done = run_done };
    if (run->request.op == BLOCK_WRITE) {
        run->request.iov = &run->iov;
        run->request.iovcnt = 1;
        run_pay(run, step);
    }
    copy->dirty = true;
    copy->writing++;
    copy->line_moved = run->began = loop_now(copy->loop);
    block_submit(copy->target, &run->request);
}

/* -- the line before the target ------------------------------------------------------ */

/* What a request costs is not told by those that wait for one another at the target, so a
   sample has it to itself, as far as this copy goes. It waits until all that is in flight
   has ended, and all others wait in line for it, in their slots. There are few samples,
   and the reading goes on meanwhile. Nobody waits for one that hangs. */
static void line_put(struct run *run, bool first)
{
    struct copy *copy = run->slot->copy;

    if (!first || !copy->line) {
        run->next = NULL;
        *copy->line_end = run;
        copy->line_end = &run->next;
        return;
    }
    run->next = copy->line;
    copy->line = run;
}

static bool run_may_tell(const struct run *run)
{
    const struct zero_choice *choice = &run->slot->copy->zeros;

    return run->zero && choice->asking && run->end - run->offset >= choice->sample;
}

static void line_move(struct copy *copy)
{
    struct run *run;

    while (!copy->sample && (run = copy->line)) {
        if (run_may_tell(run)) {
            if (copy->writing)
                return;
            copy->sample = run;
        }
        copy->line = run->next;
        if (!copy->line)
            copy->line_end = &copy->line;
        if (copy->stop != COPY_DROP) {
            run_submit(run);
            continue;
        }
        copy->sample = NULL;
        run_over(run);
    }
}

void slots_tick(struct copy *copy)
{
    struct instant now = loop_now(copy->loop);
    struct run *run = copy->sample;
    uint64_t most = run ? SAMPLE_MS : LINE_MS;

    if (!run && !copy->line)
        return;
    if (!instant_reached(now, instant_add_ms(copy->line_moved, most)))
        return;
    if (run) {
        run->late = true;
        copy->writing--;
        copy->sample = NULL;
        zero_choice_hang(&copy->zeros,
                run->request.op == BLOCK_ZERO ? ZERO_BY_ZERO : ZERO_BY_WRITE,
                now.ns - run->began.ns, now);
    } else {
        zero_choice_rest(&copy->zeros, now);
    }
    line_move(copy);
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
        line_put(&slot->runs[i], false);
    line_move(slot->copy);
}

void run_init(struct slot *slot, unsigned at, uint64_t from, uint64_t end, bool zero)
{
    struct run *run = &slot->runs[at];

    check(at < COPY_GRAINS);
    run->slot = slot;
    run->zero = zero;
    run->way = slot->copy->zeros.now; /* kept: it may be long, and not sent for that */
    run->late = false;
    run->offset = from;
    run->end = end;
}

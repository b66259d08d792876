/* replica/copy/slot.c - the life of one piece: read it, look at it, write what must be.
 *
 * After the read the piece is looked at in grains. Equal grains, and zeros that the
 * target already has, are left out; other zeros go the cheapest safe way; the rest is
 * written from the very buffer it was read into. Neighbouring grains of one fate are
 * one run.
 */
#include <errno.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/digest.h"
#include "replica/base/scope.h"
#include "replica/copy/inside.h"

enum {
    ZERO_SHORT = 256 << 10 /* bytes: WRITE SAME of less costs more than sending it */
};

/* What becomes of a grain. SKIP: zeros that the target has; EQUAL: the target has it. */
enum fate { FATE_SKIP, FATE_EQUAL, FATE_ZERO, FATE_WRITE };

static uint64_t target_end(const struct copy *copy, uint64_t end)
{
    return round_up(end, copy->target->block_size);
}

/* What the target holds now, as far as it is flushed one day: see copy_finish(). */
static void slot_note(const struct slot *slot)
{
    struct digest_sidecar *sidecar = slot->copy->sidecar;
    uint64_t offset = slot->piece.offset, length = slot->piece.length;

    if (!sidecar)
        return;
    if (slot->piece.source_zero) {
        sidecar_put_zeros(sidecar, offset, offset + length);
        return;
    }
    for (uint64_t at = 0; at < length; at += COPY_GRAIN)
        sidecar_put(sidecar, offset + at, slot->digests[at / COPY_GRAIN]);
}

/* The piece may have waited for samples: its time says nothing of the way. */
static bool slot_sampled(const struct slot *slot)
{
    const struct zero_choice *zeros = &slot->copy->zeros;

    return slot->began.ns < zeros->since.ns ||
            (zeros->asking &&
                    (slot->copy->sample || zeros->costs[ZERO_BY_WRITE].count));
}

void slot_end(struct slot *slot)
{
    struct copy *copy = slot->copy;

    if (!slot->failed) {
        slot_note(slot);
        if (!slot->piece.source_zero && slot->piece.length == copy->piece_max &&
                !slot_sampled(slot))
            flow_note(&copy->flow, loop_now(copy->loop).ns - slot->began.ns);
        ledger_finish(&copy->ledger, slot->entry, slot->piece.length - slot->written,
                slot->equal, slot->written);
    }
    slot_move(slot, PLACE_NONE);
    slot_give(slot);
    copy_pump(copy);
}

/* -- looking ----------------------------------------------------------------------- */

/* The target holds these bytes of the source: it was read, or the sidecar knows. */
static bool grain_equal(const struct slot *slot, uint64_t at, uint64_t length)
{
    const struct copy *copy = slot->copy;

    if (copy->by_digest)
        return sidecar_holds(
                copy->sidecar, slot->piece.offset + at, slot->digests[at / COPY_GRAIN]);
    return copy->pass == COPY_DELTA && !slot->piece.target_zero &&
            memcmp(slot->source_bytes + at, slot->target_bytes + at, length) == 0;
}

/* Of @length bytes (padding included) @at bytes into the piece. */
static enum fate grain_fate(const struct slot *slot, uint64_t at, uint64_t length)
{
    const struct copy *copy = slot->copy;
    const struct piece *piece = &slot->piece;

    if (piece->source_zero)
        return digest_is_zero(slot->target_bytes + at, length) ? FATE_EQUAL : FATE_ZERO;
    if (grain_equal(slot, at, length))
        return FATE_EQUAL;
    if (!piece->target_zero && copy->zeros.now == ZERO_BY_WRITE && !copy->zeros.asking)
        return FATE_WRITE;
    if (!digest_is_zero(slot->source_bytes + at, length))
        return FATE_WRITE;
    return piece->target_zero ? FATE_SKIP : FATE_ZERO;
}

/* A short run of zeros between bytes that are sent anyway is sent with them. */
static void fates_smooth(struct slot *slot, enum fate *fates, unsigned count)
{
    struct copy *copy = slot->copy;
    unsigned end;

    if ((copy->zeros.now != ZERO_BY_ZERO && !copy->zeros.asking) ||
            slot->piece.source_zero)
        return;
    for (unsigned i = 0; i < count; i = end) {
        for (end = i + 1; end < count && fates[end] == fates[i]; end++)
            ;
        if (fates[i] != FATE_ZERO || (end - i) * copy->grain >= ZERO_SHORT)
            continue;
        for (unsigned at = i; at < end; at++)
            fates[at] = FATE_WRITE;
        if (copy->zeros.asking)
            zero_choice_miss(
                    &copy->zeros, (end - i) * copy->grain, loop_now(copy->loop));
    }
}

static unsigned runs_build(struct slot *slot, const enum fate *fates, unsigned count)
{
    const struct copy *copy = slot->copy;
    uint64_t from = slot->piece.offset, end = from + slot->piece.length;
    unsigned runs = 0, next;

    for (unsigned i = 0; i < count; i = next) {
        for (next = i + 1; next < count && fates[next] == fates[i]; next++)
            ;
        if (fates[i] >= FATE_ZERO)
            run_init(slot, runs++, from + i * copy->grain,
                    target_end(copy, min_u64(from + next * copy->grain, end)),
                    fates[i] == FATE_ZERO);
    }
    return runs;
}

/* The last block of a target with larger blocks than the source's bytes fill. */
static void slot_pad(struct slot *slot)
{
    const struct piece *piece = &slot->piece;
    uint64_t end = piece->offset + piece->length;

    memset(slot->source_bytes + piece->length, 0, target_end(slot->copy, end) - end);
}

/* Of the source's bytes alone: padding follows from them. */
static void slot_digest(struct slot *slot)
{
    uint64_t length = slot->piece.length;

    for (uint64_t at = 0; at < length; at += COPY_GRAIN)
        slot->digests[at / COPY_GRAIN] =
                digest_xxh3(slot->source_bytes + at, min_u64(COPY_GRAIN, length - at));
}

static void slot_copy(struct slot *slot)
{
    const struct copy *copy = slot->copy;
    const struct piece *piece = &slot->piece;
    uint64_t length = target_end(copy, piece->offset + piece->length) - piece->offset;
    enum fate fates[COPY_GRAINS];
    unsigned count = 0;

    if (!piece->source_zero)
        slot_pad(slot);
    if (!piece->source_zero && copy->sidecar)
        slot_digest(slot);
    for (uint64_t at = 0; at < length; at += copy->grain) {
        fates[count] = grain_fate(slot, at, min_u64(copy->grain, length - at));
        if (fates[count++] == FATE_EQUAL)
            slot->equal += min_u64(copy->grain, piece->length - at);
    }
    fates_smooth(slot, fates, count);
    slot_write(slot, runs_build(slot, fates, count));
}

/* -- comparing --------------------------------------------------------------------- */

/* What differs is looked at in the order of the bytes, so that neighbouring ranges are one
   and the first are the first: a piece that differs waits in its slot for those before. */
static void differing_end(struct slot *slot)
{
    slot->differs = false;
    slot->copy->differing--;
    slot_end(slot);
}

static void slot_differs(struct slot *slot)
{
    struct copy *copy = slot->copy;
    const struct piece *piece = &slot->piece;
    uint64_t block = copy->unit > COPY_BLOCK ? copy->unit : COPY_BLOCK;

    differences_find(&copy->found, slot->source_bytes, slot->target_bytes,
            piece->offset, piece->length, block);
    differing_end(slot);
}

static struct slot *differing_slot(struct copy *copy, bool any)
{
    for (unsigned i = 0; i < COPY_SLOTS; i++)
        if (copy->slots[i].differs &&
                (any || copy->slots[i].entry == copy->ledger.first))
            return &copy->slots[i];
    return NULL;
}

void slots_compare(struct copy *copy)
{
    struct slot *slot;

    if (copy->comparing || !copy->differing)
        return;
    copy->comparing = true; /* an end comes back here */
    while ((slot = differing_slot(copy, false)))
        slot_differs(slot);
    /* One before them has failed: their turn never comes. */
    while (copy->differing && copy->busy == copy->differing) {
        slot = differing_slot(copy, true);
        slot->failed = true;
        differing_end(slot);
    }
    copy->comparing = false;
}

static void slot_verify(struct slot *slot)
{
    struct copy *copy = slot->copy;

    slot->equal = slot->piece.length;
    if (memcmp(slot->source_bytes, slot->target_bytes, slot->piece.length) == 0) {
        slot_end(slot);
        return;
    }
    slot->differs = true;
    copy->differing++;
    copy_pump(copy);
}

/* -- reading ----------------------------------------------------------------------- */

/* All reads of the piece are done. */
static void slot_landed(struct slot *slot)
{
    struct copy *copy = slot->copy;

    if (copy->pass == COPY_VERIFY && !slot->failed) {
        slot_verify(slot);
        return;
    }
    /* A drain writes what was read, and so does a copy whose source has failed elsewhere:
       a source that is lost again and again must get there too. */
    if (slot->failed || (copy->result && copy->on_target) || copy->stop == COPY_DROP) {
        slot->failed = true;
        slot_end(slot);
        return;
    }
    slot_copy(slot);
}

static void read_done(struct slot *slot, const struct block_request *request,
        int result, bool on_target)
{
    if (result) {
        slot->failed = true;
        copy_fail(slot->copy, result, on_target, "read", request->offset);
    } else {
        slot->copy->read += request->length;
    }
    if (--slot->pending == 0)
        slot_landed(slot);
    else
        slot_move(slot, on_target ? PLACE_SOURCE : PLACE_TARGET);
}

static void source_read_done(struct block_request *request, int result)
{
    read_done(container_of(request, struct slot, source_read), request, result, false);
}

static void target_read_done(struct block_request *request, int result)
{
    read_done(container_of(request, struct slot, target_read), request, result, true);
}

static void read_submit(struct block_device *device, struct block_request *request,
        struct iovec *iov, uint64_t offset, uint64_t end)
{
    iov->iov_len = end - offset;
    request->op = BLOCK_READ;
    request->flags = 0;
    request->offset = offset;
    request->length = end - offset;
    request->iov = iov;
    request->iovcnt = 1;
    block_submit(device, request);
}

static void slot_read(struct slot *slot)
{
    struct copy *copy = slot->copy;
    const struct piece *piece = &slot->piece;
    uint64_t offset = piece->offset, end = offset + piece->length;
    bool read_source = !piece->source_zero;
    bool read_target = copy_compares(copy) && !piece->target_zero;

    if (!read_source && !read_target) {
        run_init(slot, 0, offset, target_end(copy, end), true);
        slot_write(slot, 1);
        return;
    }
    slot->pending = (unsigned)read_source + (unsigned)read_target;
    if (slot->pending == 1)
        slot_move(slot, read_source ? PLACE_SOURCE : PLACE_TARGET);
    slot->source_iov.iov_base = slot->source_bytes;
    slot->target_iov.iov_base = slot->target_bytes;
    slot->source_read.done = source_read_done;
    slot->target_read.done = target_read_done;
    if (read_source)
        read_submit(copy->source, &slot->source_read, &slot->source_iov, offset, end);
    if (read_target)
        read_submit(copy->target, &slot->target_read, &slot->target_iov, offset,
                target_end(copy, end));
}

/* -- handing over ------------------------------------------------------------------ */

/* Whatever goes wrong here is found again, and told, by reading and writing. */
static void hand_done(struct block_request *request, int result)
{
    struct run *run = container_of(request, struct run, request);
    struct slot *slot = run->slot;
    struct copy *copy = slot->copy;

    if (result == 0) {
        copy->read += request->length;
        run_account(run);
        slot_end(slot);
        return;
    }
    if (result != -ENODATA) {
        copy->hands_over = false;
        slot->piece.target_zero = false; /* a part of it may be written */
    }
    if (copy->stop != COPY_DROP) {
        slot_read(slot);
        return;
    }
    slot->failed = true;
    slot_end(slot);
}

static bool slot_hand(struct slot *slot)
{
    struct copy *copy = slot->copy;
    uint64_t offset = slot->piece.offset, end = offset + slot->piece.length;
    struct run *run = &slot->runs[0];

    if (!copy->hands_over || slot->piece.source_zero || target_end(copy, end) != end)
        return false;
    run_init(slot, 0, offset, end, false);
    run->request = (struct block_request){ .op = BLOCK_COPY,
        .offset = offset,
        .length = end - offset,
        .from = copy->source,
        .done = hand_done };
    slot_move(slot, PLACE_TARGET);
    copy->dirty = true;
    block_submit(copy->target, &run->request);
    return true;
}

void slot_start(struct slot *slot, const struct piece *piece, unsigned entry)
{
    struct copy *copy = slot->copy;

    slot->piece = *piece;
    slot->entry = entry;
    slot->began = loop_now(copy->loop);
    slot->failed = false;
    slot->written = slot->equal = 0;
    if (!slot_hand(slot))
        slot_read(slot);
}

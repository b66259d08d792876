/* A window of another device. The caller's request stays as it was; an inner one with a
 * moved offset goes down. Inner requests are recycled: the first rounds allocate, then
 * nothing does. */
#include <errno.h>
#include <stdlib.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/wrappers.h"

struct slice_slot {
    struct block_request inner;
    struct block_request *outer;
    struct slice_slot *next;
};

struct slice_device {
    struct block_device base;
    struct block_device *under;
    uint64_t offset;
    struct slice_slot *free_slots;
};

static struct slice_device *slice_of(struct block_device *base)
{
    return container_of(base, struct slice_device, base);
}

/* The driver below saw its own offsets, and may have told more than was asked. */
static void extents_return(struct slice_device *slice, struct slice_slot *slot)
{
    struct block_request *outer = slot->outer;
    uint64_t end = outer->offset + outer->length, at = outer->offset;
    unsigned count = 0;

    for (unsigned i = 0; i < slot->inner.extents_count && at < end; i++) {
        struct block_extent *extent = &outer->extents[i];
        extent->offset -= slice->offset;
        check(extent->offset == at);
        extent->length = min_u64(extent->length, end - at);
        at += extent->length;
        count++;
    }
    outer->extents_count = count;
}

static void slice_done(struct block_request *inner, int result)
{
    struct slice_slot *slot = container_of(inner, struct slice_slot, inner);
    struct block_request *outer = slot->outer;
    struct slice_device *slice = slice_of(outer->device);

    if (result == 0 && outer->op == BLOCK_EXTENTS)
        extents_return(slice, slot);
    if (result < 0)
        block_set_words(&slice->base, "%s", block_last_words(slice->under));
    slice->base.broken = slice->under->broken;
    slice->base.returns = slice->under->returns;
    slice->base.answered = slice->under->answered;
    slot->next = slice->free_slots;
    slice->free_slots = slot;
    block_done(outer, result);
}

static void slice_submit(struct block_device *base, struct block_request *outer)
{
    struct slice_device *slice = slice_of(base);
    struct slice_slot *slot = slice->free_slots;

    if (slot)
        slice->free_slots = slot->next;
    else if (!(slot = malloc(sizeof *slot))) {
        block_done_later(outer, -ENOMEM);
        return;
    }
    slot->outer = outer;
    slot->inner = block_request_inner(outer, slice_done);
    slot->inner.offset += slice->offset; /* nobody looks at a flush's */
    block_submit(slice->under, &slot->inner);
}

static void slice_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct slice_device *slice = slice_of(base);
    struct block_device *under = slice->under;

    while (slice->free_slots) {
        struct slice_slot *slot = slice->free_slots;
        slice->free_slots = slot->next;
        free(slot);
    }
    free(slice);
    block_close(under, closed, context);
}

static const struct block_ops slice_ops = {
    .name = "slice",
    .submit = slice_submit,
    .close = slice_close,
};

struct block_device *block_slice(
        struct block_device **under, uint64_t offset, uint64_t size)
{
    uint32_t block_size = (*under)->block_size;
    struct slice_device *slice;

    if (!range_inside(offset, size, (*under)->size) || offset % block_size != 0 ||
            size % block_size != 0)
        return NULL;
    slice = malloc(sizeof *slice);
    if (!slice)
        return NULL;
    *slice = (struct slice_device){ .base = **under, .under = *under };
    slice->base.ops = &slice_ops;
    slice->base.size = size;
    slice->base.in_flight = 0;
    slice->offset = offset;
    *under = NULL;
    return &slice->base;
}

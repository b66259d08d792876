/* replica/copy/window.c - how long a piece is, and how many of them are under way.
 */
#include <stdlib.h>

#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/copy/inside.h"

enum { ALIGNMENT = 4096 }; /* of buffers: direct I/O */

/* Largest request that both devices take, in whole units. */
static uint64_t transfer_max(const struct copy *copy)
{
    uint64_t most = COPY_CHUNK;

    if (copy->source->max_transfer)
        most = min_u64(most, copy->source->max_transfer);
    if (copy->target->max_transfer)
        most = min_u64(most, copy->target->max_transfer);
    return most;
}

/* Largest request of this pass: it also fits the slot's buffer, that the two sides share
   when both are read. */
void window_pass(struct copy *copy)
{
    bool one_side = copy->pass == COPY_FULL || copy->by_digest;
    uint64_t most =
            min_u64(transfer_max(copy), one_side ? copy->stride : copy->stride / 2);

    most -= most % copy->step;
    copy->piece_max = most ? most : copy->step;
}

static unsigned window_choose(const struct copy *copy, unsigned window)
{
    unsigned useful = (unsigned)copy->source->depth + copy->target->depth;

    if (window)
        useful = window;
    if (useful < 2)
        return 2; /* one reads while the other writes */
    return useful < COPY_WINDOW ? useful : COPY_WINDOW;
}

/* Shares of what is limited by the way alone stay what the windows make them. */
void window_set(struct copy *copy, unsigned window)
{
    copy->window = window_choose(copy, window);
    flow_set(&copy->flow, copy->window, copy->window * copy->slot_count / COPY_WINDOW);
}

bool slots_init(struct copy *copy)
{
    const struct copy_options *options = &copy->options;
    bool one_side = options->kind == COPY_FULL && !options->verify;

    /* No block is longer than a chunk of the sidecar. */
    copy->stride = min_u64(COPY_CHUNK, (one_side ? 1 : 2) * transfer_max(copy));
    if (copy->stride < 2 * SIDECAR_CHUNK)
        copy->stride = 2 * SIDECAR_CHUNK;
    copy->stride = round_up(copy->stride, 2 * ALIGNMENT);
    /* Room for any window that is asked for later: what is not used is not there. */
    copy->slot_count = COPY_WINDOW;
    while (copy->slot_count < COPY_SLOTS &&
            (copy->slot_count + 1) * copy->stride <= COPY_ARENA)
        copy->slot_count++;
    window_set(copy, options->window);
    copy->arena = aligned_alloc(ALIGNMENT, (size_t)copy->slot_count * copy->stride);
    if (!copy->arena)
        return false;
    copy->at[PLACE_NONE] = copy->slot_count;
    for (unsigned i = copy->slot_count; i-- > 0;) { /* the first are used first */
        struct slot *slot = &copy->slots[i];
        slot->copy = copy;
        slot->source_bytes = copy->arena + (size_t)i * copy->stride;
        slot->target_bytes = slot->source_bytes + copy->stride / 2;
        slot->next_idle = copy->idle;
        copy->idle = slot;
    }
    return true;
}

/* replica/copy/window.c - how long a piece is, and how many of them are under way.
 *
 * A copy alone has long pieces, few of them: what a command costs either far side counts,
 * and there are turns between three processes to bridge. Copies that share a loop bridge
 * one another's turns, and what they have under way together leaves the caches before it
 * is sent on. So they move short pieces, and half the bytes at once (all of them where the
 * way is long): measured with two copies on each of two loops, 1.05 to 1.2 x the speed at
 * 0.8 of the CPU; two whole pieces each, which are as many bytes, gain a third of that, and
 * pieces of 512 KiB no more. The price is that what a loop gets of the processors shows more:
 * the slowest copy takes 1.1 to 1.3 x as long as the fastest, where it was 1.05. How many
 * pieces are under way does not change that: 8 on the loop that is ahead and 24 on the one
 * behind left it as it was.
 *
 * The idle slot that comes first is used first: what is not used is not touched, and what
 * is used is warm.
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

/* How many of the pieces may be under way. Shares of what is limited by the way alone stay
   what the windows make them. */
static void flow_apply(struct copy *copy)
{
    unsigned shorter = (unsigned)(copy->whole_max / copy->piece_max);
    unsigned fit = (unsigned)min_u64(COPY_ARENA / copy->stride, 2 * COPY_WINDOW);

    if (shorter > 1)
        flow_set(&copy->flow, copy->window * shorter / 2, copy->window * shorter);
    else
        flow_set(&copy->flow, copy->window, copy->window * fit / COPY_WINDOW);
}

/* What the target fetches by itself passes no cache of ours. */
static uint64_t piece_choose(const struct copy *copy)
{
    uint64_t brief = round_up(COPY_SHORT, copy->step);
    bool alone = !copy->options.company || *copy->options.company < 2;

    return alone || copy->hands_over ? copy->whole_max
                                     : min_u64(copy->whole_max, brief);
}

void window_look(struct copy *copy)
{
    uint64_t most = piece_choose(copy);

    if (most == copy->piece_max)
        return;
    copy->piece_max = most;
    copy->flow.fastest_ns = 0; /* of pieces of another length */
    flow_apply(copy);
}

/* The largest request of the pass also fits the slot's buffer, that the two sides share
   when both are read. */
void window_pass(struct copy *copy)
{
    bool one_side = copy->pass == COPY_FULL || copy->by_digest;
    uint64_t most =
            min_u64(transfer_max(copy), one_side ? copy->stride : copy->stride / 2);

    most -= most % copy->step;
    copy->whole_max = most ? most : copy->step;
    copy->piece_max = piece_choose(copy);
    flow_apply(copy);
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

void window_set(struct copy *copy, unsigned window)
{
    copy->window = window_choose(copy, window);
    flow_apply(copy);
}

struct slot *slot_take(struct copy *copy)
{
    unsigned first = (unsigned)__builtin_ctz(copy->idle);

    copy->idle &= ~(1u << first);
    copy->busy++;
    return &copy->slots[first];
}

void slot_give(struct slot *slot)
{
    struct copy *copy = slot->copy;

    copy->idle |= 1u << (slot - copy->slots);
    copy->busy--;
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
    copy->window = window_choose(copy, options->window);
    /* Room for any window that is asked for later: what is not used is not there. */
    copy->arena = aligned_alloc(ALIGNMENT, COPY_SLOTS * copy->stride);
    if (!copy->arena)
        return false;
    copy->idle = UINT32_MAX >> (32 - COPY_SLOTS);
    copy->at[PLACE_NONE] = COPY_SLOTS;
    for (unsigned i = 0; i < COPY_SLOTS; i++) {
        struct slot *slot = &copy->slots[i];
        slot->copy = copy;
        slot->source_bytes = copy->arena + (size_t)i * copy->stride;
        slot->target_bytes = slot->source_bytes + copy->stride / 2;
    }
    return true;
}

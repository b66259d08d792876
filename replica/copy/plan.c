/* replica/copy/plan.c - what comes next: how long a piece is, and what of it need not move.
 */
#include "replica/base/checked.h"
#include "replica/copy/inside.h"

/* Zeros of the source: where the sidecar knows them on the target, and where not. */
static void plan_zero_by_digest(struct copy *copy, struct piece *piece)
{
    uint64_t end = piece->offset + piece->length;
    uint64_t zeros = sidecar_zeros(copy->sidecar, piece->offset, end);

    if (zeros) {
        piece->target_zero = true;
        piece->length = zeros;
        return;
    }
    piece->length = min_u64(
            slot_zero_max(copy), sidecar_others(copy->sidecar, piece->offset, end));
}

static void plan_zero(struct copy *copy, struct piece *piece)
{
    uint64_t run, end = piece->offset + piece->length;

    if (piece->target_zero)
        return;
    if (copy->by_digest) {
        plan_zero_by_digest(copy, piece);
        return;
    }
    run = map_zero_run(&copy->target_map, piece->offset, end);
    if (run >= min_u64(MAP_HOLE_MIN, piece->length)) {
        piece->target_zero = true;
        piece->length = run;
        return;
    }
    piece->length = map_data_run(&copy->target_map, piece->offset, piece->length);
    piece->length = min_u64(piece->length,
            copy->pass == COPY_FULL ? slot_zero_max(copy) : copy->piece_max);
}

bool copy_compares(const struct copy *copy)
{
    return copy->pass != COPY_FULL && !copy->by_digest;
}

/* Bytes that the limit counts: those that must be moved. What of the other zeros is sent
   counts when it is. */
uint64_t piece_cost(const struct copy *copy, const struct piece *piece)
{
    return piece->source_zero && !copy_compares(copy) ? 0 : piece->length;
}

/* As ordinary pieces are cut. */
static void zeros_consider(struct copy *copy, uint64_t most)
{
    uint64_t sample = min_u64(ZERO_SAMPLE, most);

    if (copy->target->max_zero)
        sample = min_u64(sample, copy->target->max_zero);
    sample -= sample % copy->target->block_size;
    zero_choice_consider(&copy->zeros, sample, loop_now(copy->loop));
}

void piece_plan(struct copy *copy, struct piece *piece)
{
    uint64_t rest = copy->total - copy->cursor, zero;
    uint64_t most = throttle_piece(&copy->throttle, copy->step, copy->piece_max);

    zeros_consider(copy, most);
    *piece = (struct piece){ .offset = copy->cursor,
        .target_zero = copy->options.target_zero && copy->pass != COPY_VERIFY &&
                !copy->by_digest };
    zero = map_zero_run(&copy->source_map, copy->cursor, copy->total);
    if (zero && zero >= min_u64(MAP_HOLE_MIN, rest)) {
        piece->source_zero = true;
        piece->length = zero;
        plan_zero(copy, piece);
        if (!piece->target_zero &&
                (copy_compares(copy) || copy->zeros.now == ZERO_BY_WRITE))
            piece->length = min_u64(piece->length, most);
        return;
    }
    piece->length = map_data_run(&copy->source_map, copy->cursor, min_u64(most, rest));
    if (!piece->target_zero)
        piece->target_zero = map_zero_run(&copy->target_map, copy->cursor,
                                     copy->cursor + piece->length) == piece->length;
}

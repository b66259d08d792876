/* replica/copy/copy.c - the life of a copy: passes, pieces, flushes, the end.
 *
 * What may be told is what is flushed. A flush covers the writes that were done before
 * it, so the position is taken when it begins and told when it is good. The very first
 * one is never left out, even if this copy wrote nothing: an earlier one may have
 * written what this one finds equal, or finds to be a hole, and the power may still
 * take that back.
 */
#include "replica/copy/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/base/trace.h"
#include "replica/copy/inside.h"

enum {
    TICK_MS = 1000, /* a flush is this late at most, when something moved */
    FLUSH_BYTES = 96 << 20 /* what is copied again after a crash, at most about twice */
};

/* -- where the time goes ------------------------------------------------------------ */

/* Somebody is about to wait for another, or somebody asks. */
static void spent_note(struct copy *copy)
{
    struct instant now = loop_now(copy->loop);
    uint64_t ns = now.ns - copy->spent_until.ns;

    if (!ns)
        return;
    copy->spent_ns[PLACE_SOURCE] += ns * copy->at[PLACE_SOURCE];
    copy->spent_ns[PLACE_TARGET] += ns * copy->at[PLACE_TARGET];
    if (copy->flush_active)
        copy->spent_ns[PLACE_TARGET] += ns;
    if (copy->pacing)
        copy->paced_ns += ns;
    copy->spent_until = now;
}

void slot_move(struct slot *slot, enum place place)
{
    struct copy *copy = slot->copy;

    spent_note(copy);
    copy->at[slot->place]--;
    copy->at[place]++;
    slot->place = place;
}

/* -- what is told ------------------------------------------------------------------ */

static void figures_fill(const struct copy *copy, const struct tally *tally,
        uint64_t verified, const struct differences *differences,
        struct copy_figures *figures)
{
    bool second = copy->options.verify && copy->options.kind != COPY_VERIFY;

    if (copy->options.kind == COPY_VERIFY)
        verified = tally->position;
    *figures = (struct copy_figures){ .total = copy->total,
        .done = second ? (tally->position + verified - differences->bytes) / 2
                       : tally->position - differences->bytes,
        .skipped = tally->skipped,
        .equal = tally->equal,
        .written = tally->written,
        .watermark = copy->flushed.position,
        .verified = verified,
        .differences = *differences,
        .read = copy->read,
        .sent = copy->sent,
        .source_ns = copy->spent_ns[PLACE_SOURCE],
        .target_ns = copy->spent_ns[PLACE_TARGET],
        .limit_ns = copy->paced_ns,
        .at_source = copy->at[PLACE_SOURCE],
        .at_target = copy->at[PLACE_TARGET],
        .zeroing_stuck = copy->zeros.stuck };
}

void copy_figures(struct copy *copy, struct copy_figures *figures)
{
    bool second = copy->pass != copy->options.kind;

    spent_note(copy);
    figures_fill(copy, second ? &copy->flushed : &copy->ledger.low,
            second ? copy->ledger.low.position : copy->verified, &copy->found, figures);
}

static void progress_tell(struct copy *copy)
{
    struct copy_figures figures;

    spent_note(copy);
    figures_fill(copy, &copy->flushed, copy->verified, &copy->told, &figures);
    if (copy->options.progress)
        copy->options.progress(copy->options.context, &figures);
}

/* All below @tally is flushed (or, in the second pass, read back). */
static void advance(struct copy *copy, const struct tally *tally)
{
    if (copy->pass != copy->options.kind)
        copy->verified = tally->position;
    else
        copy->flushed = *tally;
    copy->told = copy->found; /* told at once in a pass that compares, else unchanged */
    progress_tell(copy);
}

static uint64_t told(const struct copy *copy)
{
    return copy->pass != copy->options.kind ? copy->verified : copy->flushed.position;
}

/* -- the end ----------------------------------------------------------------------- */

void copy_fail(struct copy *copy, int result, bool on_target, const char *verb,
        uint64_t offset)
{
    const struct block_device *device = on_target ? copy->target : copy->source;
    const char *words = block_last_words(device);

    if (copy->result)
        return;
    trace("copy_fail", (uint64_t)-result, offset);
    copy->result = result;
    copy->on_target = on_target;
    fault_set(&copy->fault, result, "the %s could not be %s at byte %llu: %s",
            on_target ? "target" : "source", verb, (unsigned long long)offset,
            words[0] ? words : strerrordesc_np(-result));
}

/* Go on from a callback of the loop, not from inside the caller's call. */
static void kick(struct copy *copy)
{
    if (copy->kicked)
        return;
    copy->kicked = true;
    loop_post(copy->loop, &copy->kick);
}

/* The caller will close the devices, and free what it likes: not from deep inside the
   completion of one of their requests, but from a task of its own. */
static void copy_end(struct copy *copy, int result)
{
    loop_timer_stop(copy->loop, &copy->tick);
    loop_timer_stop(copy->loop, &copy->pace);
    copy->ending = true;
    copy->end_result = result;
    kick(copy);
}

static void copy_finish(struct copy *copy)
{
    int result = copy->end_result;
    struct copy_figures figures;

    if (result == -ECANCELED)
        fault_set(&copy->fault, result, "stopped");
    figures_fill(copy, &copy->flushed, copy->verified, &copy->told, &figures);
    /* What was begun and is not flushed may be there or not. */
    if (copy->sidecar && result)
        sidecar_forget(copy->sidecar, copy->flushed.position, copy->cursor);
    if (copy->options.company)
        (*copy->options.company)--;
    copy->options.ended(
            copy->options.context, result, copy->on_target, &figures, &copy->fault);
    free(copy->arena);
    free(copy);
}

/* -- flushing ---------------------------------------------------------------------- */

static void flush_done(struct block_request *request, int result)
{
    struct copy *copy = container_of(request, struct copy, flush);

    spent_note(copy);
    copy->flush_active = false;
    if (result == 0) {
        advance(copy, &copy->flushing);
    } else {
        copy->flush_broken = true;
        copy_fail(copy, result, true, "flushed", copy->flushing.position);
    }
    copy_pump(copy);
}

static void flush_start(struct copy *copy)
{
    spent_note(copy);
    copy->flush_active = true;
    copy->flushing = copy->ledger.low;
    copy->unflushed = 0;
    /* Writes under way are not covered by it; what they leave behind is. */
    copy->dirty = copy->busy > 0;
    copy->flush = (struct block_request){ .op = BLOCK_FLUSH, .done = flush_done };
    block_submit(copy->target, &copy->flush);
}

/* Tell how far it is when that is due, by a flush where one is needed. */
static void flush_consider(struct copy *copy, bool now)
{
    const struct tally low = copy->ledger.low;
    bool moved = low.position > told(copy);

    /* After a failed flush nobody knows what is stable; a second one may lie. */
    if (copy->flush_active || copy->flush_broken || !moved)
        return;
    if (!now && !copy->tick_due && copy->unflushed < FLUSH_BYTES)
        return;
    copy->tick_due = false;
    if (!copy->dirty || copy->pass == COPY_VERIFY)
        advance(copy, &low);
    else if (!copy->target->broken)
        flush_start(copy);
}

/* -- pieces ------------------------------------------------------------------------ */

static void piece_start(struct copy *copy)
{
    struct piece piece;
    unsigned entry;

    piece_plan(copy, &piece);
    check(piece.length > 0 && piece.length <= copy->total - copy->cursor);
    copy->cursor += piece.length;
    entry = ledger_begin(&copy->ledger, copy->cursor);
    if (piece.source_zero && piece.target_zero) {
        if (copy->sidecar)
            sidecar_put_zeros(copy->sidecar, piece.offset, copy->cursor);
        ledger_finish(&copy->ledger, entry, piece.length, 0, 0);
        return;
    }
    throttle_spend(&copy->throttle, piece_cost(copy, &piece), loop_now(copy->loop));
    slot_start(slot_take(copy), &piece, entry);
}

static bool maps_ready(struct copy *copy)
{
    bool source = map_ready(&copy->source_map, copy->cursor, copy->total);
    uint64_t end = round_up(copy->total, copy->target->block_size);
    bool target = map_ready(&copy->target_map, copy->cursor, end);

    return source && target;
}

static bool paced(struct copy *copy)
{
    uint64_t ms = throttle_wait_ms(&copy->throttle, loop_now(copy->loop));

    if (copy->pacing != (ms > 0)) {
        spent_note(copy);
        copy->pacing = ms > 0;
    }
    if (ms)
        loop_timer_start(copy->loop, &copy->pace, ms);
    return ms == 0;
}

static bool may_start(const struct copy *copy)
{
    return copy->result == 0 && copy->forgetting == 0 && copy->stop == COPY_GO_ON &&
            copy->cursor < copy->total && copy->idle && copy->busy < copy->flow.now &&
            !ledger_full(&copy->ledger);
}

/* -- passes ------------------------------------------------------------------------ */

/* What this host has in memory would compare well, whatever the disk holds. */
static void side_forgotten(struct copy *copy, int result, bool on_target)
{
    copy->forgetting--;
    if (result)
        copy_fail(copy, result, on_target, "read anew", 0);
    copy_pump(copy);
}

static void source_forgotten(struct block_request *request, int result)
{
    side_forgotten(container_of(request, struct copy, source_forget), result, false);
}

static void target_forgotten(struct block_request *request, int result)
{
    side_forgotten(container_of(request, struct copy, target_forget), result, true);
}

static void forget(struct copy *copy, struct block_device *device,
        struct block_request *request, void (*done)(struct block_request *, int))
{
    if (!(device->caps & BLOCK_CAN_FORGET) || device->size == 0)
        return;
    copy->forgetting++;
    *request = (struct block_request){
        .op = BLOCK_FORGET, .length = device->size, .done = done
    };
    block_submit(device, request);
}

static void map_answered(struct copy *copy, int result, bool on_target)
{
    const struct block_device *device = on_target ? copy->target : copy->source;

    /* A device that cannot tell is all data; one that is lost is lost. */
    if (result && (device->broken || result == -ESTALE))
        copy_fail(copy, result, on_target, "asked for its holes", copy->cursor);
    copy_pump(copy);
}

static void source_map_answered(struct map *map, int result)
{
    map_answered(container_of(map, struct copy, source_map), result, false);
}

static void target_map_answered(struct map *map, int result)
{
    map_answered(container_of(map, struct copy, target_map), result, true);
}

static void pass_begin(struct copy *copy, enum copy_kind pass, struct tally start)
{
    bool reads_holes = pass != COPY_VERIFY; /* reading back trusts no map */

    copy->pass = pass;
    copy->sidecar = pass == COPY_VERIFY ? NULL : copy->options.sidecar;
    copy->by_digest = copy->sidecar && copy->options.by_digest && pass == COPY_DELTA;
    copy->step = copy->sidecar ? SIDECAR_CHUNK : copy->unit;
    copy->hands_over = pass == COPY_FULL && !copy->sidecar &&
            block_can_copy(copy->target, copy->source);
    copy->cursor = start.position;
    window_pass(copy);
    ledger_init(&copy->ledger, start);
    map_init(&copy->source_map, copy->source, reads_holes, copy->step,
            source_map_answered);
    map_init(&copy->target_map, copy->target,
            reads_holes && !copy->options.target_zero && !copy->by_digest, copy->step,
            target_map_answered);
    if (pass != COPY_VERIFY)
        return;
    forget(copy, copy->target, &copy->target_forget, target_forgotten);
    if (copy->options.kind == COPY_VERIFY)
        forget(copy, copy->source, &copy->source_forget, source_forgotten);
}

/* All was compared, and this was found. */
static int differences_fault(struct copy *copy)
{
    const struct differences *found = &copy->found;

    if (!found->ranges)
        return 0;
    copy->on_target = true;
    return fault_set(&copy->fault, -EILSEQ,
            "the target differs from the source in %llu bytes, first in bytes %llu to "
            "%llu",
            (unsigned long long)found->bytes,
            (unsigned long long)found->first[0].offset,
            (unsigned long long)(found->first[0].offset + found->first[0].length - 1));
}

/* The pass is over and told: the next one, or the end. */
static void pass_end(struct copy *copy)
{
    if (copy->options.verify && copy->pass != COPY_VERIFY) {
        if (copy->stop != COPY_GO_ON) {
            copy_end(copy, -ECANCELED);
            return;
        }
        pass_begin(copy, COPY_VERIFY, (struct tally){ .position = copy->verified });
        copy_pump(copy);
        return;
    }
    copy_end(copy, differences_fault(copy));
}

/* Nothing is in flight but perhaps a flush, and nothing more may begin. */
static void settle(struct copy *copy)
{
    uint64_t low = copy->ledger.low.position;
    bool done = copy->result == 0 && low == copy->total;

    if (copy->flush_active)
        return;
    /* What landed before a failure is worth a flush, once. */
    if (copy->stop != COPY_DROP && !copy->flush_last) {
        copy->flush_last = copy->result != 0;
        flush_consider(copy, true);
        if (copy->flush_active)
            return;
    }
    if (done && copy->dirty && copy->pass != COPY_VERIFY && copy->stop != COPY_DROP) {
        flush_start(copy); /* nothing moved, but see the top of this file */
        return;
    }
    if (copy->result)
        copy_end(copy, copy->result);
    else if (done && told(copy) == copy->total)
        pass_end(copy);
    else
        copy_end(copy, -ECANCELED);
}

void copy_pump(struct copy *copy)
{
    if (copy->ending)
        return;
    slots_compare(copy);
    if (copy->ending) /* that was the last of it */
        return;
    window_look(copy);
    while (may_start(copy) && maps_ready(copy) && paced(copy))
        piece_start(copy);
    if (copy->busy || copy->forgetting || copy->source_map.asking ||
            copy->target_map.asking ||
            (copy->result == 0 && copy->stop == COPY_GO_ON &&
                    copy->cursor < copy->total))
        flush_consider(copy, false);
    else
        settle(copy);
}

/* -- from outside ------------------------------------------------------------------ */

static void kick_run(struct loop_task *task)
{
    struct copy *copy = container_of(task, struct copy, kick);

    copy->kicked = false;
    if (copy->ending)
        copy_finish(copy);
    else
        copy_pump(copy);
}

static void tick_fire(struct loop_timer *timer)
{
    struct copy *copy = container_of(timer, struct copy, tick);

    loop_timer_start(copy->loop, &copy->tick, TICK_MS);
    copy->tick_due = true;
    slots_tick(copy);
    copy_pump(copy);
}

static void pace_fire(struct loop_timer *timer)
{
    copy_pump(container_of(timer, struct copy, pace));
}

void copy_drain(struct copy *copy)
{
    if (copy->stop == COPY_GO_ON)
        copy->stop = COPY_DRAIN;
    kick(copy);
}

void copy_drop(struct copy *copy)
{
    copy->stop = COPY_DROP;
    kick(copy);
}

void copy_nudge(struct copy *copy)
{
    kick(copy);
}

void copy_set_window(struct copy *copy, unsigned window, unsigned share)
{
    window_set(copy, window);
    copy->throttle.share = share ? share : SHARE_WHOLE;
    kick(copy);
}

void copy_set_limit(struct copy *copy, uint64_t limit)
{
    throttle_set(&copy->throttle, limit, loop_now(copy->loop));
    kick(copy);
}

static void copy_init(struct copy *copy, const struct copy_options *options)
{
    uint64_t a = options->source->block_size, b = options->target->block_size;

    copy->options = *options;
    copy->source = options->source;
    copy->target = options->target;
    copy->loop = options->source->loop;
    copy->total = options->source->size;
    copy->unit = a > b ? a : b;
    copy->grain = round_up(COPY_GRAIN, copy->unit);
    copy->spent_until = loop_now(copy->loop);
    zero_choice_init(&copy->zeros, copy->target->caps, !options->zeroing_stuck,
            copy->spent_until);
    copy->line_end = &copy->line;
    copy->dirty = true;
    copy->tick.fire = tick_fire;
    copy->pace.fire = pace_fire;
    copy->kick.run = kick_run;
}

/* What the runs before found, if it was found below where this one goes on; else all is
   compared again. */
static void differences_place(struct copy *copy)
{
    const struct differences *found = &copy->options.differences;
    bool only = copy->options.kind == COPY_VERIFY;

    if (found->end <= (only ? copy->flushed.position : copy->verified))
        copy->found = *found;
    else if (only)
        copy->flushed = (struct tally){ 0 };
    else
        copy->verified = 0;
    copy->told = copy->found;
}

static void copy_place(struct copy *copy)
{
    const struct copy_options *options = &copy->options;
    uint64_t watermark = options->watermark;

    if (watermark < copy->total)
        watermark -= watermark % copy->unit;
    copy->flushed = (struct tally){ .position = watermark,
        .skipped = options->skipped,
        .equal = options->equal,
        .written = options->written };
    copy->verified = watermark == copy->total ? options->verified : 0;
    if (copy->verified < copy->total)
        copy->verified -= copy->verified % copy->unit;
    differences_place(copy);
    pass_begin(copy, options->kind, copy->flushed);
    throttle_init(
            &copy->throttle, options->limit, (uint64_t)copy->window * copy->whole_max);
    memcpy(copy->throttle.shared, options->meters, sizeof copy->throttle.shared);
    copy->throttle.share = options->share ? options->share : SHARE_WHOLE;
}

bool copy_can_digest(const struct block_device *source,
        const struct block_device *target, uint64_t watermark)
{
    uint64_t a = source->max_transfer, b = target->max_transfer;

    return sidecar_fits(source->size) && (!a || a >= SIDECAR_CHUNK) &&
            (!b || b >= SIDECAR_CHUNK) &&
            (watermark % SIDECAR_CHUNK == 0 || watermark == source->size);
}

struct copy *copy_start(const struct copy_options *options)
{
    const struct block_device *source = options->source, *target = options->target;
    struct copy *copy;

    check(source->loop == target->loop && loop_is_mine(source->loop));
    check(round_up(source->size, target->block_size) <= target->size);
    check(source->block_size <= COPY_GRAIN && target->block_size <= COPY_GRAIN);
    check(options->watermark <= source->size && options->verified <= source->size);
    check(options->ended);
    check(!options->sidecar ||
            (options->sidecar->size == source->size &&
                    copy_can_digest(source, target, options->watermark)));

    copy = calloc(1, sizeof(*copy));
    if (!copy)
        return NULL;
    copy_init(copy, options);
    if (!slots_init(copy)) {
        free(copy);
        return NULL;
    }
    if (options->company)
        (*options->company)++;
    copy_place(copy);
    loop_timer_start(copy->loop, &copy->tick, TICK_MS);
    kick(copy);
    return copy;
}

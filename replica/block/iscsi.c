/* The iscsi driver: a LUN of an iSCSI target as a block device.
 *
 *   connecting -> (resetting) -> probing -> ready <-> looking
 *        |             |            |         |          |
 *        +-------------+------------+----> gone <--------+ ----> closing -> freed
 *
 * A request takes one of SLOTS slots, which holds its SCSI command until the request is
 * done; what finds no slot waits in order. A command's deadline runs from its first sending;
 * when it passes with the command still out, the whole session is given up, because a
 * single command cannot be taken back (libiscsi's cancel is local, and a late WRITE may still
 * be executed): every request is answered and the device is broken until it is opened anew,
 * behind the barrier when it was written.
 *
 * Nothing that is answered GOOD is believed by itself: a residual, or bytes that never came,
 * are failures: the wire counts what comes and where it goes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/base/trace.h"
#include "replica/block/address.h"
#include "replica/block/drivers.h"
#include "replica/block/iscsi_command.h"
#include "replica/block/iscsi_initiator.h"
#include "replica/block/iscsi_probe.h"
#include "replica/block/iscsi_sense.h"

enum {
    SLOTS = 32, /* commands on their way at once, at most */
    DEPTH = 8, /* requests in flight that are useful */
    MAX_TRANSFER = 1 << 20,
    MAX_ZERO = 256 << 20,
    REST_FIRST_MS = 10,
    REST_MAX_MS = 500,
    GROW_AFTER = 16, /* good answers before the window opens by one */
    LOOKS_MAX = 3, /* times one command may have the LUN looked at */
    LOGOUT_MS = 1000
};

enum lun_phase { CONNECTING, RESETTING, PROBING, READY, LOOKING, GONE, CLOSING };

enum slot_state {
    SLOT_FREE,
    SLOT_FLYING, /* its command is out */
    SLOT_RESTING, /* sent again at @again */
    SLOT_HELD, /* until the LUN has been looked at */
    SLOT_LOST /* the session went away under it */
};

struct slot {
    struct initiator_command command;
    struct lun *lun;
    struct slot *next; /* in the free list */
    struct block_request *request;
    enum slot_state state;
    struct instant deadline, again;
    unsigned rest_ms, retries, looks;
    bool syncing; /* the second command of a FUA request: SYNCHRONIZE CACHE */
    int look_error; /* answered after a look that finds the same unit; 0: send again */
    int end_error; /* answered when the session ends; 0: as everybody */
    uint64_t flush_covers; /* lun->changes when the flush was sent */
    struct command_room room;
};

struct lun {
    struct block_device base;
    struct initiator initiator;
    struct probe probe;
    struct lun_facts facts;
    enum lun_phase phase;
    struct instant phase_due; /* of every phase but READY and GONE */
    struct loop_timer alarm;
    struct instant alarm_due;
    unsigned io_timeout_ms;
    uint64_t random;
    int dead_error; /* positive errno of requests once GONE */

    struct slot slots[SLOTS], *free;
    unsigned used, window; /* slots in use, slots that may be */
    unsigned good_run; /* good answers since the window last changed */
    struct instant last_good;
    struct block_request *pending, **pending_end;
    uint8_t *status; /* COMMAND_STATUS bytes, with BLOCK_CAN_EXTENTS */
    struct slot *status_owner; /* whose answer goes there */
    uint64_t changes, flushed; /* writes answered good, and how many a flush covered */

    struct block_opening *opening; /* until it is answered */
    const struct block_spec *spec; /* likewise */
    struct block_identity identity;
    void (*closed)(void *context);
    void *closed_context;
    struct loop_task bury;
};

static struct lun *lun_of(struct block_device *device)
{
    return container_of(device, struct lun, base);
}

static uint64_t lun_random(struct lun *lun)
{
    uint64_t z = lun->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/** Have the alarm go off at @due, or earlier. */
static void lun_arm(struct lun *lun, struct instant due)
{
    if (loop_timer_active(&lun->alarm) && lun->alarm_due.ns <= due.ns)
        return;
    lun->alarm_due = due;
    loop_timer_start(lun->base.loop, &lun->alarm,
            instant_ms_until(loop_now(lun->base.loop), due));
}

static void lun_enter(struct lun *lun, enum lun_phase phase, uint64_t deadline_ms)
{
    trace("iscsi-phase", lun->phase, phase);
    lun->phase = phase;
    lun->phase_due = instant_add_ms(loop_now(lun->base.loop), deadline_ms);
    if (phase != READY && phase != GONE)
        lun_arm(lun, lun->phase_due);
}

static bool changes_bytes(const struct block_request *request)
{
    return request->op == BLOCK_WRITE || request->op == BLOCK_ZERO ||
            request->op == BLOCK_DISCARD;
}

/* -- slots ---------------------------------------------------------------------------- */

static void lun_pump(struct lun *lun);
static void lun_break(struct lun *lun, int error, const char *why);

static void slot_send(struct slot *slot)
{
    slot->state = SLOT_FLYING;
    initiator_send(&slot->lun->initiator, &slot->command);
}

static void slot_release(struct slot *slot)
{
    struct lun *lun = slot->lun;

    if (lun->status_owner == slot)
        lun->status_owner = NULL;
    slot->state = SLOT_FREE;
    slot->request = NULL;
    slot->next = lun->free;
    lun->free = slot;
    lun->used--;
}

/** The request is over. The caller may submit or close from in here. */
static void slot_finish(struct slot *slot, int result)
{
    struct block_request *request = slot->request;

    slot_release(slot);
    block_done(request, result);
}

static void lun_good(struct lun *lun)
{
    lun->last_good = loop_now(lun->base.loop);
    if (lun->window < SLOTS && ++lun->good_run >= GROW_AFTER) {
        lun->window++;
        lun->good_run = 0;
    }
}

/** A flush that failed is never asked again: what it should have saved may be gone. */
static void slot_flush_failed(struct slot *slot, int error)
{
    struct lun *lun = slot->lun;

    slot->end_error = error;
    slot->state = SLOT_LOST;
    lun_break(lun, EIO, lun->base.words);
}

static void slot_fail(struct slot *slot, int error)
{
    struct lun *lun = slot->lun;
    bool flush = slot->syncing || slot->request->op == BLOCK_FLUSH;

    if (flush && error == EOPNOTSUPP && !lun->facts.volatile_cache)
        slot_finish(slot, 0); /* there is no cache, hence no command for it */
    else if (flush)
        slot_flush_failed(slot, error);
    else
        slot_finish(slot, -error);
}

static void slot_good(struct slot *slot)
{
    struct lun *lun = slot->lun;
    struct block_request *request = slot->request;

    lun_good(lun);
    if (changes_bytes(request) && !(request->flags & BLOCK_FUA))
        lun->changes++;
    if (!slot->syncing && changes_bytes(request) && (request->flags & BLOCK_FUA) &&
            lun->facts.volatile_cache &&
            !(slot->command.cdb[0] == 0x8a && lun->facts.fua)) {
        slot->syncing = true;
        slot->flush_covers = lun->changes;
        block_iscsi_command_flush(&slot->command);
        slot_send(slot);
        return;
    }
    if ((request->op == BLOCK_FLUSH || slot->syncing) &&
            slot->flush_covers > lun->flushed)
        lun->flushed = slot->flush_covers;
    slot_finish(slot, 0);
}

/** The bytes of a GOOD answer, judged. */
static void slot_taken(struct slot *slot)
{
    struct lun *lun = slot->lun;
    struct block_request *request = slot->request;
    int64_t residual = slot->command.answer.residual;

    if (request->op == BLOCK_EXTENTS) {
        request->extents_count = facts_extents(&lun->facts, lun->status,
                slot->command.moved, request->offset, request->length, request->extents,
                request->extents_max);
        slot_good(slot);
    } else if (residual != 0) {
        block_set_words(
                &lun->base, "GOOD with a residual of %lld bytes", (long long)residual);
        slot_fail(slot, EIO);
    } else if (slot->command.moved != slot->command.length) {
        block_set_words(&lun->base,
                request->op == BLOCK_READ
                        ? "GOOD, but some of the data never came"
                        : "GOOD, but some of the data was never asked for");
        slot_fail(slot, EIO);
    } else {
        slot_good(slot);
    }
}

static void slot_rest(struct slot *slot)
{
    struct lun *lun = slot->lun;
    uint64_t rest = slot->rest_ms / 2 + lun_random(lun) % (slot->rest_ms + 1);

    lun->window = (unsigned)(lun->window > 2 ? lun->window / 2 : 1);
    lun->good_run = 0;
    rest = rest < REST_FIRST_MS ? REST_FIRST_MS : min_u64(rest, REST_MAX_MS);
    slot->rest_ms = (unsigned)min_u64(slot->rest_ms * 2u, REST_MAX_MS);
    slot->state = SLOT_RESTING;
    slot->again = instant_add_ms(loop_now(lun->base.loop), rest);
    lun_arm(lun, slot->again.ns < slot->deadline.ns ? slot->again : slot->deadline);
}

static void lun_look(struct lun *lun)
{
    if (lun->phase == LOOKING)
        return;
    lun_enter(lun, LOOKING, lun->io_timeout_ms);
    probe_start(&lun->probe, lun->base.loop, &lun->initiator, PROBE_AGAIN);
}

static void slot_hold(struct slot *slot, int error)
{
    slot->look_error = error;
    slot->state = SLOT_HELD;
}

static void slot_again(struct slot *slot)
{
    if (slot->lun->phase == LOOKING)
        slot_hold(slot, 0);
    else
        slot_send(slot);
}

static void slot_look(struct slot *slot, int error)
{
    struct lun *lun = slot->lun;

    if (slot->looks++ >= LOOKS_MAX) {
        slot_fail(slot, error ? error : EREMOTEIO);
        return;
    }
    slot_hold(slot, error);
    lun_look(lun);
}

/** One more of @limit tries, or the end. */
static void slot_retry(struct slot *slot, unsigned limit, int error)
{
    if (slot->retries++ < limit)
        slot_again(slot);
    else
        slot_fail(slot, error);
}

/** The decision table acted on. */
static void slot_decide(struct slot *slot)
{
    struct lun *lun = slot->lun;
    bool write = changes_bytes(slot->request) || slot->request->op == BLOCK_FLUSH;
    struct sense_decision decision = sense_decide(&slot->command.answer, write);

    if (decision.action != SENSE_OK)
        sense_words(&slot->command.answer, lun->base.words, sizeof(lun->base.words));
    switch (decision.action) {
    case SENSE_OK:
        slot_taken(slot);
        break;
    case SENSE_FAIL:
        slot_fail(slot, decision.error);
        break;
    case SENSE_BACK_OFF:
        slot_rest(slot);
        break;
    case SENSE_RETRY_ONCE:
        slot_retry(slot, 1, decision.error);
        break;
    case SENSE_RETRY_THRICE:
        slot_retry(slot, 3, decision.error);
        break;
    case SENSE_RETRY_RESET:
        if (lun->facts.volatile_cache && lun->changes != lun->flushed)
            lun_break(
                    lun, EIO, "a reset may have lost writes that were not yet flushed");
        else
            slot_retry(slot, 1, decision.error);
        break;
    case SENSE_GIVE_UP:
        lun_break(lun, decision.error, lun->base.words);
        break;
    case SENSE_LOOK_RETRY:
        slot_look(slot, 0);
        break;
    case SENSE_LOOK_FAIL:
        slot_look(slot, decision.error);
        break;
    }
}

static void slot_done(struct initiator_command *command)
{
    struct slot *slot = container_of(command, struct slot, command);
    struct lun *lun = slot->lun;

    if (command->answer.lost || !lun->initiator.context) {
        slot->state = SLOT_LOST; /* answered by lun_break() */
        return;
    }
    slot_decide(slot);
    lun_pump(lun);
}

static void slot_start(struct lun *lun, struct block_request *request)
{
    struct slot *slot = lun->free;
    int result;

    lun->free = slot->next;
    lun->used++;
    slot->lun = lun;
    slot->request = request;
    slot->rest_ms = REST_FIRST_MS;
    slot->retries = slot->looks = 0;
    slot->syncing = false;
    slot->look_error = slot->end_error = 0;
    slot->command.done = slot_done;
    slot->deadline = instant_add_ms(loop_now(lun->base.loop), lun->io_timeout_ms);
    slot->flush_covers = lun->changes;
    if (request->op == BLOCK_EXTENTS)
        lun->status_owner = slot;
    result = block_iscsi_command(
            &slot->command, &slot->room, &lun->base, &lun->facts, request, lun->status);
    if (result) {
        slot_release(slot);
        block_done_later(request, result);
        return;
    }
    lun_arm(lun, slot->deadline);
    slot_send(slot);
}

/* -- the device ----------------------------------------------------------------------- */

static void pending_add(struct lun *lun, struct block_request *request)
{
    request->next = NULL;
    *lun->pending_end = request;
    lun->pending_end = &request->next;
}

static struct block_request *pending_take(struct lun *lun)
{
    struct block_request *request = lun->pending;

    lun->pending = request->next;
    if (!lun->pending)
        lun->pending_end = &lun->pending;
    request->next = NULL;
    return request;
}

static void lun_pump(struct lun *lun)
{
    while (lun->phase == READY && lun->pending && lun->free &&
            lun->used < lun->window) {
        if (lun->pending->op == BLOCK_EXTENTS && lun->status_owner)
            return; /* one buffer for all of them; they are rare */
        slot_start(lun, pending_take(lun));
    }
}

static void pending_fail(struct lun *lun, int error)
{
    struct block_request *request = lun->pending, *next;

    lun->pending = NULL; /* what done() submits is not failed with these */
    lun->pending_end = &lun->pending;
    for (; request; request = next) {
        next = request->next;
        block_done(request, -error);
    }
}

/**
 * No more of this session: drops it and answers every request, with @error, or with the
 * error its slot was marked with. From callbacks of the loop only.
 */
static void lun_break(struct lun *lun, int error, const char *why)
{
    if (lun->phase == GONE || lun->phase == CLOSING)
        return;
    if (why != lun->base.words)
        block_set_words(&lun->base, "%s", why);
    trace("iscsi-break", lun->phase, (uint64_t)error);
    probe_stop(&lun->probe);
    lun_enter(lun, GONE, 0);
    lun->base.broken = true;
    lun->dead_error = error;
    initiator_drop(&lun->initiator);
    loop_timer_stop(lun->base.loop, &lun->alarm);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &lun->slots[i];
        if (slot->state != SLOT_FREE)
            slot_finish(slot, slot->end_error ? -slot->end_error : -error);
    }
    pending_fail(lun, error);
}

static void lun_submit(struct block_device *device, struct block_request *request)
{
    struct lun *lun = lun_of(device);

    if (lun->phase != READY && lun->phase != LOOKING) {
        block_done_later(request, -lun->dead_error);
        return;
    }
    pending_add(lun, request);
    lun_pump(lun);
}

static void lun_bury(struct loop_task *task)
{
    struct lun *lun = container_of(task, struct lun, bury);
    void (*closed)(void *) = lun->closed;
    void *context = lun->closed_context;

    check(!lun->initiator.context && lun->used == 0 && !lun->pending);
    probe_stop(&lun->probe);
    loop_timer_stop(lun->base.loop, &lun->alarm);
    for (unsigned i = 0; i < SLOTS; i++)
        command_room_free(&lun->slots[i].room);
    free(lun->status);
    free(lun);
    if (closed)
        closed(context);
}

/** Posted, so that it comes after the flush of the initiator that may still be queued. */
static void lun_bury_later(struct lun *lun)
{
    lun->phase = GONE;
    if (!lun->bury.queued)
        loop_post(lun->base.loop, &lun->bury);
}

static void lun_close(
        struct block_device *device, void (*closed)(void *context), void *context)
{
    struct lun *lun = lun_of(device);

    lun->closed = closed;
    lun->closed_context = context;
    probe_stop(&lun->probe);
    if (lun->phase == GONE || initiator_logout(&lun->initiator) != 0) {
        initiator_drop(&lun->initiator);
        lun_bury_later(lun);
        return;
    }
    lun_enter(lun, CLOSING, min_u64(LOGOUT_MS, lun->io_timeout_ms));
}

static const struct block_ops lun_ops = { "iscsi", lun_submit, lun_close };

/* -- opening -------------------------------------------------------------------------- */

static void opening_fail(struct lun *lun, const struct fault *fault)
{
    struct block_opening *opening = lun->opening;

    lun->opening = NULL;
    probe_stop(&lun->probe);
    initiator_drop(&lun->initiator);
    block_opening_fail(opening, fault->error, "%s", fault->why);
    lun_bury_later(lun);
}

static void opening_fail_words(struct lun *lun, int error, const char *why)
{
    struct fault fault;

    fault_set(&fault, error, "%s", why);
    opening_fail(lun, &fault);
}

static unsigned lun_caps(const struct lun_facts *facts, bool writable)
{
    unsigned caps = 0;

    if (!writable)
        caps |= BLOCK_READ_ONLY;
    if (facts->volatile_cache)
        caps |= BLOCK_VOLATILE;
    if (facts->thin)
        caps |= BLOCK_THIN;
    if (facts->can_extents)
        caps |= BLOCK_CAN_EXTENTS;
    /* WRITE SAME without UNMAP is a write of zeros done there, block by block with some
       targets: slower than sending them. Hence only where it gives the blocks back. */
    if (facts->thin && facts->reads_zeros && facts->can_write_same_unmap)
        caps |= BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES;
    else if (facts->thin && facts->can_unmap)
        caps |= BLOCK_CAN_DISCARD;
    return caps;
}

/** The smaller of two limits in blocks, as bytes; 0 means none. */
static uint32_t limit_bytes(uint64_t blocks, uint32_t block_size, uint32_t most)
{
    uint64_t bytes;

    if (blocks == 0 || !checked_mul(blocks, block_size, &bytes) || bytes > most)
        return most;
    return (uint32_t)bytes;
}

static void lun_describe(struct lun *lun)
{
    const struct lun_facts *facts = &lun->facts;
    struct block_device *base = &lun->base;

    base->size = facts->blocks * facts->block_size;
    base->block_size = facts->block_size;
    base->depth = DEPTH;
    base->burst = TERMS_SEGMENT;
    base->caps = lun_caps(facts, lun->spec->writable);
    base->max_transfer =
            limit_bytes(facts->max_transfer, facts->block_size, MAX_TRANSFER);
    if (base->caps & BLOCK_DISCARD_ZEROES)
        base->max_zero =
                limit_bytes(facts->max_write_same, facts->block_size, MAX_ZERO);
    else
        base->max_zero = limit_bytes(facts->max_unmap, facts->block_size, MAX_ZERO);
}

static void lun_identify(struct lun *lun)
{
    char portal[BLOCK_PORTAL_TEXT];

    portal_format(&lun->spec->portal, portal);
    snprintf(lun->identity.place, sizeof(lun->identity.place), "lun:%s,%s,%u", portal,
            lun->spec->target, lun->spec->lun);
    facts_identity(&lun->facts, &lun->identity);
    lun->identity.foreign_reservation = lun->spec->writable && lun->facts.reserved;
}

/** Known and good: the device is the caller's. */
static void opening_good(struct lun *lun)
{
    static const struct fault none;
    struct block_opening *opening = lun->opening;

    lun_enter(lun, READY, 0);
    lun->opening = NULL;
    lun->spec = NULL;
    opening->done(opening, &lun->base, &lun->identity, &none);
}

static void opening_probed(struct lun *lun)
{
    lun->facts = lun->probe.facts;
    lun_describe(lun);
    lun_identify(lun);
    if (lun->spec->expect_world[0] &&
            strcmp(lun->spec->expect_world, lun->identity.world) != 0)
        opening_fail_words(
                lun, -ESTALE, "the logical unit is another one than was registered");
    else if (lun->spec->expect_size && lun->spec->expect_size != lun->base.size)
        opening_fail_words(
                lun, -ESTALE, "the logical unit has another size than before");
    else if (lun->spec->writable && lun->facts.write_protected)
        opening_fail_words(lun, -EROFS, "the logical unit is write protected");
    else if ((lun->base.caps & BLOCK_CAN_EXTENTS) &&
            !(lun->status = malloc(COMMAND_STATUS)))
        opening_fail_words(lun, -ENOMEM, "no memory for a device");
    else
        opening_good(lun);
}

/** After a look: go on with the same unit, or with none. */
static void looked(struct lun *lun)
{
    const struct lun_facts *now = &lun->probe.facts, *then = &lun->facts;

    if (!facts_same_unit(now, then) || now->blocks < then->blocks) {
        lun_break(lun, ESTALE, "the logical unit is not the one that was opened");
        return;
    }
    lun_enter(lun, READY, 0);
    for (unsigned i = 0; i < SLOTS && lun->phase == READY; i++) {
        struct slot *slot = &lun->slots[i];
        if (slot->state != SLOT_HELD)
            continue;
        if (slot->look_error) {
            slot_fail(slot, slot->look_error);
            continue;
        }
        slot->deadline = instant_add_ms(loop_now(lun->base.loop), lun->io_timeout_ms);
        lun_arm(lun, slot->deadline);
        slot_send(slot);
    }
    lun_pump(lun);
}

static void probe_done(struct probe *probe, const struct fault *fault)
{
    struct lun *lun = container_of(probe, struct lun, probe);

    if (lun->phase == PROBING && fault->error)
        opening_fail(lun, fault);
    else if (lun->phase == PROBING)
        opening_probed(lun);
    else if (lun->phase == LOOKING && fault->error)
        lun_break(lun, fault->error == -ETIMEDOUT ? ETIMEDOUT : ESTALE, fault->why);
    else if (lun->phase == LOOKING)
        looked(lun);
}

static void probe_begin(struct lun *lun)
{
    lun_enter(lun, PROBING, 2ull * lun->io_timeout_ms);
    probe_start(&lun->probe, lun->base.loop, &lun->initiator,
            lun->spec->writable ? PROBE_WRITABLE : PROBE_WHOLE);
}

static void initiator_up(struct initiator *initiator, const struct fault *fault)
{
    struct lun *lun = container_of(initiator, struct lun, initiator);

    if (fault->error) {
        opening_fail(lun, fault);
    } else if (lun->spec->barrier && lun->spec->writable) {
        lun_enter(lun, RESETTING, lun->io_timeout_ms);
        initiator_reset(initiator);
    } else {
        probe_begin(lun);
    }
}

static void initiator_was_reset(struct initiator *initiator, int result)
{
    struct lun *lun = container_of(initiator, struct lun, initiator);

    if (lun->phase != RESETTING)
        return;
    if (result) /* without it, late writes of the lost session cannot be ruled out */
        opening_fail_words(lun, -EIO, "the target refused a logical unit reset");
    else
        probe_begin(lun);
}

static void initiator_down(struct initiator *initiator, const char *why)
{
    struct lun *lun = container_of(initiator, struct lun, initiator);

    if (lun->phase == CLOSING)
        lun_bury_later(lun);
    else if (lun->opening)
        opening_fail_words(
                lun, -EIO, "the target ended the session while it was opened");
    else
        lun_break(lun, ENOTCONN, why);
}

static void initiator_logged_out(struct initiator *initiator)
{
    struct lun *lun = container_of(initiator, struct lun, initiator);

    if (lun->phase != CLOSING)
        return;
    initiator_drop(initiator);
    lun_bury_later(lun);
}

/* -- time ----------------------------------------------------------------------------- */

static void phase_over(struct lun *lun)
{
    switch (lun->phase) {
    case CONNECTING:
        opening_fail_words(lun, -ETIMEDOUT, "the portal did not answer in time");
        break;
    case RESETTING:
        opening_fail_words(lun, -ETIMEDOUT, "the logical unit was not reset in time");
        break;
    case PROBING:
        opening_fail_words(lun, -ETIMEDOUT, "the logical unit did not answer in time");
        break;
    case LOOKING:
        lun_break(lun, ETIMEDOUT, "the logical unit did not answer in time");
        break;
    case CLOSING:
        initiator_drop(&lun->initiator);
        lun_bury_later(lun);
        break;
    case READY:
    case GONE:
        break;
    }
}

/** A command that waits for its next try is on nobody's wire: it can end alone. */
static void slot_rested(struct slot *slot, struct instant now)
{
    struct lun *lun = slot->lun;

    if (!instant_reached(now, slot->deadline)) {
        slot_again(slot);
        return;
    }
    slot_fail(slot, ETIMEDOUT);
    /* What waits behind it has no better chance, unless something went well meanwhile. */
    if (lun->phase == READY &&
            instant_reached(now, instant_add_ms(lun->last_good, lun->io_timeout_ms)))
        pending_fail(lun, ETIMEDOUT);
}

static struct instant slot_due(const struct slot *slot)
{
    if (slot->state == SLOT_RESTING && slot->again.ns < slot->deadline.ns)
        return slot->again;
    return slot->deadline;
}

/** The command's time is over with the command still out: the session goes with it. */
static void slot_expired(struct slot *slot)
{
    slot->end_error = ETIMEDOUT;
    lun_break(slot->lun, ENOTCONN, "a command was not answered in time");
}

static void alarm_slots(struct lun *lun, struct instant now)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &lun->slots[i];
        if (lun->phase != READY && lun->phase != LOOKING)
            return;
        if ((slot->state != SLOT_FLYING && slot->state != SLOT_RESTING) ||
                !instant_reached(now, slot_due(slot)))
            continue;
        if (slot->state == SLOT_RESTING)
            slot_rested(slot, now);
        else
            slot_expired(slot);
    }
}

static void alarm_rearm(struct lun *lun)
{
    if (lun->phase != READY && lun->phase != GONE)
        lun_arm(lun, lun->phase_due);
    for (unsigned i = 0; i < SLOTS; i++)
        if (lun->slots[i].state == SLOT_FLYING || lun->slots[i].state == SLOT_RESTING)
            lun_arm(lun, slot_due(&lun->slots[i]));
}

static void alarm_fire(struct loop_timer *timer)
{
    struct lun *lun = container_of(timer, struct lun, alarm);
    struct instant now = loop_now(lun->base.loop);

    if (lun->phase != READY && lun->phase != GONE &&
            instant_reached(now, lun->phase_due))
        phase_over(lun);
    alarm_slots(lun, now);
    if (lun->phase != GONE) {
        lun_pump(lun);
        alarm_rearm(lun);
    }
}

/* -- the driver ----------------------------------------------------------------------- */

static struct lun *lun_create(struct loop *loop, const struct block_spec *spec)
{
    struct lun *lun = calloc(1, sizeof(*lun));

    if (!lun)
        return NULL;
    lun->base.ops = &lun_ops;
    lun->base.loop = loop;
    lun->alarm.fire = alarm_fire;
    lun->bury.run = lun_bury;
    lun->probe.done = probe_done;
    lun->initiator.loop = loop;
    lun->initiator.up = initiator_up;
    lun->initiator.down = initiator_down;
    lun->initiator.was_reset = initiator_was_reset;
    lun->initiator.logged_out = initiator_logged_out;
    lun->io_timeout_ms = spec->io_timeout_ms;
    lun->pending_end = &lun->pending;
    lun->window = SLOTS;
    lun->dead_error = ENOTCONN;
    lun->spec = spec;
    if (getrandom(&lun->random, sizeof(lun->random), GRND_NONBLOCK) < 0)
        lun->random = (uint64_t)(uintptr_t)lun ^ clock_monotonic().ns;
    for (unsigned i = SLOTS; i-- > 0;) {
        lun->slots[i].lun = lun;
        lun->slots[i].next = lun->free;
        lun->free = &lun->slots[i];
    }
    return lun;
}

void block_iscsi_open(
        struct loop *loop, const struct block_spec *spec, struct block_opening *opening)
{
    struct fault fault = { 0 };
    struct lun *lun;

    if (!spec->initiator[0] || !spec->target[0] || spec->lun > ADDRESS_LUN_MAX ||
            spec->connect_timeout_ms == 0 || spec->io_timeout_ms == 0) {
        block_opening_fail(opening, -EINVAL, "an incomplete address of a logical unit");
        return;
    }
    lun = lun_create(loop, spec);
    if (!lun) {
        block_opening_fail(opening, -ENOMEM, "no memory for a device");
        return;
    }
    lun->opening = opening;
    if (initiator_connect(&lun->initiator, spec, &fault) != 0) {
        opening_fail(lun, &fault);
        return;
    }
    lun_enter(lun, CONNECTING, spec->connect_timeout_ms);
}

/* The requests of a LUN: a request takes one of SLOTS slots, which holds its SCSI command
 * until the request is done; what finds no slot waits in order. A command's deadline runs
 * from its first sending, and anew while the target lets us hear that it gets on: slow is
 * not stuck. When it passes with the command still out, the whole session is given up,
 * because a single command cannot be taken back (libiscsi's cancel is local, and a late
 * WRITE may still be executed): every request is answered and the device is broken until it
 * is opened anew, behind the barrier when it was written.
 *
 * Nothing that is answered GOOD is believed by itself: a residual, or bytes that never came,
 * are failures: the wire counts what comes and where it goes.
 */
#include <errno.h>
#include <sys/random.h>

#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/iscsi_inside.h"
#include "replica/block/iscsi_sense.h"

enum {
    REST_FIRST_MS = 10,
    REST_MAX_MS = 500,
    GROW_AFTER = 16, /* good answers before the window opens by one */
    LOOKS_MAX = 3, /* times one command may have the LUN looked at */
    PARTS = 8 /* of the I/O timeout: how often is seen what has moved */
};

static uint64_t lun_random(struct lun *lun)
{
    uint64_t z = lun->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* -- a command --------------------------------------------------------------------- */

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

/* -- its answer -------------------------------------------------------------------- */

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
    if (block_op_writes(request->op) && !(request->flags & BLOCK_FUA))
        lun->changes++;
    if (!slot->syncing && block_op_writes(request->op) &&
            (request->flags & BLOCK_FUA) && lun->facts.volatile_cache &&
            !(slot->command.cdb[0] == 0x8a && lun->facts.fua)) {
        slot->syncing = true;
        slot->flush_covers = ++lun->changes; /* a reset may lose it until then */
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
    bool write = block_op_writes(slot->request->op) || slot->request->op == BLOCK_FLUSH;
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
        if (!lun_was_reset(lun))
            slot_retry(slot, 1, decision.error);
        break;
    case SENSE_GIVE_UP:
        lun->base.returns = true;
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

/* A LUN that is being left: after its last answer nothing of ours comes late there. */
static void slot_left(struct slot *slot)
{
    struct lun *lun = slot->lun;
    struct block_request *request = slot->request;

    slot_release(slot);
    if (lun->used == 0) {
        lun->base.answered = !lun->doubtful;
        lun_break(lun, lun->dead_error, lun->base.words);
    }
    block_done(request, -lun->dead_error);
}

static void slot_answered_leaving(struct slot *slot)
{
    if (sense_decide(&slot->command.answer, true).action == SENSE_GIVE_UP)
        slot->lun->doubtful = true;
    slot_left(slot);
}

static void slot_done(struct initiator_command *command)
{
    struct slot *slot = container_of(command, struct slot, command);
    struct lun *lun = slot->lun;

    if (command->answer.lost || !lun->initiator.context) {
        slot->state = SLOT_LOST; /* answered by lun_break() */
        return;
    }
    if (lun->phase == LEAVING) {
        slot_answered_leaving(slot);
        return;
    }
    slot->state = SLOT_HELD; /* not out any more, until it is sent again */
    slot_decide(slot);
    lun_slots_pump(lun);
}

/* -- how long ---------------------------------------------------------------------- */

static struct instant earlier(struct instant a, struct instant b)
{
    return a.ns < b.ns ? a : b;
}

static uint64_t part_ms(const struct lun *lun)
{
    return lun->io_timeout_ms / PARTS + 1;
}

/** Its time begins, and the looking at what moves. */
static void slot_time(struct slot *slot)
{
    struct lun *lun = slot->lun;
    struct instant now = loop_now(lun->base.loop);

    slot->deadline = instant_add_ms(now, lun->io_timeout_ms);
    slot->end = lun_end(lun, now);
    if (lun->used == 1) /* nobody has looked for long: what moved until now is old */
        (void)initiator_heard(&lun->initiator);
    lun_arm(lun, instant_add_ms(now, part_ms(lun)));
}

/**
 * Bytes moved for @command, or for one that it may be waiting for. A target serves what it
 * has in any order it likes; but a command that SLOTS later ones have overtaken is forgotten
 * there, however busy the session is.
 */
static bool moves(const struct initiator_command *command, uint64_t heard)
{
    return heard != UINT64_MAX && heard <= command->order + SLOTS;
}

void lun_slots_look(struct lun *lun, struct instant now, uint64_t late_ms)
{
    struct instant due = instant_add_ms(now, lun->io_timeout_ms);
    uint64_t heard = initiator_heard(&lun->initiator);

    if (late_ms < part_ms(lun))
        late_ms = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &lun->slots[i];
        if (slot->state != SLOT_FLYING) /* what the target puts off ends as it would */
            continue;
        slot->deadline = moves(&slot->command, heard)
                ? due
                : instant_add_ms(slot->deadline, late_ms);
        slot->deadline = earlier(slot->deadline, slot->end);
    }
    if (lun->phase == LOOKING && moves(&lun->probe.command, heard))
        lun->phase_due = earlier(due, lun->look_end);
}

/* -- what waits -------------------------------------------------------------------- */

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
    slot_time(slot);
    slot_send(slot);
}

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

void lun_slots_pump(struct lun *lun)
{
    while (lun->phase == READY && lun->pending && lun->free &&
            lun->used < lun->window) {
        if (lun->pending->op == BLOCK_EXTENTS && lun->status_owner)
            return; /* one buffer for all of them; they are rare */
        slot_start(lun, pending_take(lun));
    }
}

void lun_slots_add(struct lun *lun, struct block_request *request)
{
    pending_add(lun, request);
    lun_slots_pump(lun);
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

void lun_slots_fail(struct lun *lun, int error)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &lun->slots[i];
        if (slot->state != SLOT_FREE)
            slot_finish(slot, slot->end_error ? -slot->end_error : -error);
    }
    pending_fail(lun, error);
}

void lun_slots_leave(struct lun *lun)
{
    pending_fail(lun, lun->dead_error); /* somebody is out, or is answered below */
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &lun->slots[i];
        if (slot->state == SLOT_RESTING || slot->state == SLOT_HELD)
            slot_left(slot);
    }
}

void lun_slots_resume(struct lun *lun)
{
    for (unsigned i = 0; i < SLOTS && lun->phase == READY; i++) {
        struct slot *slot = &lun->slots[i];
        if (slot->state != SLOT_HELD)
            continue;
        if (slot->look_error) {
            slot_fail(slot, slot->look_error);
            continue;
        }
        slot_time(slot);
        slot_send(slot);
    }
    lun_slots_pump(lun);
}

/* -- time -------------------------------------------------------------------------- */

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

void lun_slots_expire(struct lun *lun, struct instant now)
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

void lun_slots_arm(struct lun *lun)
{
    struct instant next = instant_add_ms(loop_now(lun->base.loop), part_ms(lun));

    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &lun->slots[i];
        if (slot->state == SLOT_FLYING)
            lun_arm(lun, earlier(slot_due(slot), next));
        else if (slot->state == SLOT_RESTING)
            lun_arm(lun, slot_due(slot));
    }
}

/* -- life -------------------------------------------------------------------------- */

void lun_slots_init(struct lun *lun)
{
    lun->pending_end = &lun->pending;
    lun->window = SLOTS;
    if (getrandom(&lun->random, sizeof(lun->random), GRND_NONBLOCK) < 0)
        lun->random = (uint64_t)(uintptr_t)lun ^ clock_monotonic().ns;
    for (unsigned i = SLOTS; i-- > 0;) {
        lun->slots[i].lun = lun;
        lun->slots[i].next = lun->free;
        lun->free = &lun->slots[i];
    }
}

void lun_slots_free(struct lun *lun)
{
    for (unsigned i = 0; i < SLOTS; i++)
        command_room_free(&lun->slots[i].room);
}

/* The iscsi driver: a LUN of an iSCSI target as a block device.
 *
 *   connecting -> (resetting) -> probing -> (offering) -> ready <-> looking
 *        |             |            |            |          |          |
 *        |             |            |            |          +- leaving -+
 *        |             |            |            |          |          |
 *        +-------------+------------+------------+------> gone <-------+ -> closing -> freed
 *
 * A session is left in order where nothing of it failed: after a reset by another what is out
 * is waited for, for a while. Who opens such a LUN anew need not have it reset for what might
 * come late, which would take from the others there what they have not flushed.
 *
 * The requests are iscsi_slots.c's, the way from connecting to ready iscsi_opening.c's.
 */
#include <errno.h>
#include <stdlib.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/base/trace.h"
#include "replica/block/address.h"
#include "replica/block/drivers.h"
#include "replica/block/iscsi_inside.h"

enum {
    LOGOUT_MS = 1000,
    LEAVE_MS = 2000, /* some targets never answer what a reset took from us */
    ENDS_AFTER = 20 /* I/O timeouts, whatever moves */
};

static struct lun *lun_of(struct block_device *device)
{
    return container_of(device, struct lun, base);
}

void lun_arm(struct lun *lun, struct instant due)
{
    if (loop_timer_active(&lun->alarm) && lun->alarm_due.ns <= due.ns)
        return;
    lun->alarm_due = due;
    loop_timer_start(lun->base.loop, &lun->alarm,
            instant_ms_until(loop_now(lun->base.loop), due));
}

void lun_enter(struct lun *lun, enum lun_phase phase, uint64_t deadline_ms)
{
    trace("iscsi-phase", lun->phase, phase);
    lun->phase = phase;
    lun->phase_due = instant_add_ms(loop_now(lun->base.loop), deadline_ms);
    if (lun->opening && lun->opening_end.ns < lun->phase_due.ns)
        lun->phase_due = lun->opening_end;
    if (phase != READY && phase != GONE)
        lun_arm(lun, lun->phase_due);
}

struct instant lun_end(const struct lun *lun, struct instant now)
{
    return instant_add_ms(now, (uint64_t)ENDS_AFTER * lun->io_timeout_ms);
}

void lun_look(struct lun *lun)
{
    if (lun->phase == LOOKING)
        return;
    lun->look_end = lun_end(lun, loop_now(lun->base.loop));
    lun_enter(lun, LOOKING, lun->io_timeout_ms);
    probe_start(&lun->probe, lun->base.loop, &lun->initiator, PROBE_AGAIN);
}

void lun_break(struct lun *lun, int error, const char *why)
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
    lun_slots_fail(lun, error);
}

static void lun_leave(struct lun *lun, int error, const char *why)
{
    if (lun->phase != READY && lun->phase != LOOKING)
        return;
    block_set_words(&lun->base, "%s", why);
    trace("iscsi-leave", lun->phase, (uint64_t)error);
    lun_enter(lun, LEAVING, min_u64(lun->io_timeout_ms, LEAVE_MS));
    lun->base.broken = lun->base.returns = true;
    lun->dead_error = error;
    lun_slots_leave(lun);
}

bool lun_was_reset(struct lun *lun)
{
    if (!lun->facts.volatile_cache || lun->changes == lun->flushed)
        return false;
    lun_leave(lun, EIO, "a reset may have lost writes that were not yet flushed");
    return true;
}

void lun_bury_later(struct lun *lun)
{
    lun->phase = GONE;
    if (!lun->bury.queued)
        loop_post(lun->base.loop, &lun->bury);
}

/* -- the device -------------------------------------------------------------------- */

static void lun_submit(struct block_device *device, struct block_request *request)
{
    struct lun *lun = lun_of(device);

    if (lun->phase != READY && lun->phase != LOOKING) {
        block_done_later(request, -lun->dead_error);
        return;
    }
    lun_slots_add(lun, request);
}

static void lun_bury(struct loop_task *task)
{
    struct lun *lun = container_of(task, struct lun, bury);
    void (*closed)(void *) = lun->closed;
    void *context = lun->closed_context;

    check(!lun->initiator.context && lun->used == 0 && !lun->pending);
    probe_stop(&lun->probe);
    loop_timer_stop(lun->base.loop, &lun->alarm);
    lun_slots_free(lun);
    free(lun->status);
    free(lun);
    if (closed)
        closed(context);
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

static const struct block_ops lun_ops = {
    .name = "iscsi", .submit = lun_submit, .close = lun_close
};

/* -- what the session brings ------------------------------------------------------- */

/** After a look: go on with the same unit, or with none. */
static void looked(struct lun *lun)
{
    const struct lun_facts *now = &lun->probe.facts, *then = &lun->facts;

    if (!facts_same_unit(now, then) || now->blocks < then->blocks) {
        lun_break(lun, ESTALE, "the logical unit is not the one that was opened");
        return;
    }
    /* Told to the look, it is not told to the commands that caused it. */
    if (lun->probe.was_reset && lun_was_reset(lun))
        return;
    lun_enter(lun, READY, 0);
    lun_slots_resume(lun);
}

static void probe_done(struct probe *probe, const struct fault *fault)
{
    struct lun *lun = container_of(probe, struct lun, probe);

    if (lun->phase == PROBING && fault->error)
        opening_fail(lun, fault);
    else if (lun->phase == PROBING)
        opening_probed(lun);
    else if (lun->phase == OFFERING)
        opening_good(lun);
    else if (lun->phase == LOOKING && fault->error)
        lun_break(lun, fault->error == -ETIMEDOUT ? ETIMEDOUT : ESTALE, fault->why);
    else if (lun->phase == LOOKING)
        looked(lun);
}

static void initiator_down(struct initiator *initiator, const char *why)
{
    struct lun *lun = container_of(initiator, struct lun, initiator);

    if (lun->phase == CLOSING)
        lun_bury_later(lun);
    else if (lun->opening)
        opening_ended(lun, -EIO, "the target ended the session while it was opened");
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

/* -- time -------------------------------------------------------------------------- */

static void phase_over(struct lun *lun)
{
    switch (lun->phase) {
    case CONNECTING:
        opening_ended(lun, -ETIMEDOUT, "the portal did not answer in time");
        break;
    case RESETTING:
        opening_ended(lun, -ETIMEDOUT, "the logical unit was not reset in time");
        break;
    case PROBING:
    case OFFERING:
        opening_ended(lun, -ETIMEDOUT, "the logical unit did not answer in time");
        break;
    case LOOKING:
        lun_break(lun, ETIMEDOUT, "the logical unit did not answer in time");
        break;
    case LEAVING: /* a write may come late */
        lun_break(lun, lun->dead_error, lun->base.words);
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

static void alarm_rearm(struct lun *lun)
{
    if (lun->phase != READY && lun->phase != GONE)
        lun_arm(lun, lun->phase_due);
    if (lun->phase != LEAVING)
        lun_slots_arm(lun);
}

static void alarm_fire(struct loop_timer *timer)
{
    struct lun *lun = container_of(timer, struct lun, alarm);
    struct instant now = loop_now(lun->base.loop);

    if (lun->phase == READY || lun->phase == LOOKING)
        lun_slots_look(lun, now, instant_ms_until(lun->alarm_due, now));
    if (lun->phase != READY && lun->phase != GONE &&
            instant_reached(now, lun->phase_due))
        phase_over(lun);
    lun_slots_expire(lun, now);
    if (lun->phase != GONE) {
        lun_slots_pump(lun);
        alarm_rearm(lun);
    }
}

/* -- the driver -------------------------------------------------------------------- */

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
    lun->initiator.up = opening_up;
    lun->initiator.down = initiator_down;
    lun->initiator.was_reset = opening_was_reset;
    lun->initiator.logged_out = initiator_logged_out;
    lun->io_timeout_ms = spec->io_timeout_ms;
    lun->dead_error = ENOTCONN;
    lun->spec = spec;
    lun_slots_init(lun);
    return lun;
}

void lun_open(struct loop *loop, const struct block_spec *spec,
        struct block_opening *opening, struct instant end, bool no_offer)
{
    struct fault fault = { 0 };
    struct lun *lun = lun_create(loop, spec);

    if (!lun) {
        block_opening_fail(opening, -ENOMEM, "no memory for a device");
        return;
    }
    lun->opening = opening;
    lun->opening_end = end;
    lun->no_offer = no_offer;
    opening->private = lun;
    opening->cancel = opening_cancel;
    if (initiator_connect(&lun->initiator, spec, &fault) != 0) {
        opening_fail(lun, &fault);
        return;
    }
    lun_enter(lun, CONNECTING, spec->connect_timeout_ms);
}

void block_iscsi_open(
        struct loop *loop, const struct block_spec *spec, struct block_opening *opening)
{
    uint64_t ms = spec->connect_timeout_ms + 3ull * spec->io_timeout_ms;

    if (!spec->initiator[0] || !spec->target[0] || spec->lun > ADDRESS_LUN_MAX ||
            spec->connect_timeout_ms == 0 || spec->io_timeout_ms == 0)
        block_opening_fail(opening, -EINVAL, "an incomplete address of a logical unit");
    else
        lun_open(loop, spec, opening, instant_add_ms(loop_now(loop), ms), false);
}

/* How a LUN comes up: the login, the barrier when it was written before, the probe, what is
 * made of its facts, and the offer of room. A target may end the session at that offer, or
 * keep silent: then all begins anew without it, the barrier too, for whatever became of the
 * session that is gone is not known. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/address.h"
#include "replica/block/drivers.h"
#include "replica/block/iscsi_inside.h"

enum {
    DEPTH = 8, /* requests in flight that are useful */
    MAX_TRANSFER = 1 << 20,
    MAX_ZERO = 256 << 20,
    MAX_SAME = 16 << 20 /* bytes: what is written there takes its time there */
};

/** The device goes; the opening, which is returned, does not yet. */
static struct block_opening *opening_part(struct lun *lun)
{
    struct block_opening *opening = lun->opening;

    lun->opening = NULL;
    opening->cancel = NULL;
    probe_stop(&lun->probe);
    initiator_drop(&lun->initiator);
    lun_bury_later(lun);
    return opening;
}

void opening_fail(struct lun *lun, const struct fault *fault)
{
    block_opening_fail(opening_part(lun), fault->error, "%s", fault->why);
}

void opening_fail_words(struct lun *lun, int error, const char *why)
{
    struct fault fault;

    fault_set(&fault, error, "%s", why);
    opening_fail(lun, &fault);
}

void opening_ended(struct lun *lun, int error, const char *why)
{
    if (lun->phase == OFFERING)
        lun_open(lun->base.loop, lun->spec, opening_part(lun), lun->opening_end, true);
    else
        opening_fail_words(lun, error, why);
}

/* With a TCP reset, in whatever phase: of what was sent nothing writes. */
void opening_cancel(struct block_opening *opening)
{
    opening_fail_words(
            opening->private, -ECANCELED, "the opening was given up on request");
}

/* -- what is known ----------------------------------------------------------------- */

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
    if (facts->thin && facts->reads_zeros && facts->can_write_same_unmap)
        return caps | BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES;
    if (facts->thin && facts->can_unmap)
        caps |= BLOCK_CAN_DISCARD;
    /* WRITE SAME that gives nothing back is a write of zeros done there, block by block
       with some targets: slower than sending them. And nothing tells who has it at all. */
    return caps | BLOCK_MAY_ZERO;
}

/** The smaller of two limits in blocks, as bytes; 0 means none. */
static uint32_t limit_bytes(uint64_t blocks, uint32_t block_size, uint32_t most)
{
    uint64_t bytes;

    if (blocks == 0 || !checked_mul(blocks, block_size, &bytes) || bytes > most)
        return most;
    return (uint32_t)bytes;
}

/* Of one ZERO or DISCARD, whichever takes less. */
static uint32_t zero_limit(const struct lun_facts *facts, unsigned caps)
{
    uint32_t most = caps & BLOCK_MAY_ZERO ? MAX_SAME : MAX_ZERO;

    most = limit_bytes(facts->max_write_same, facts->block_size, most);
    if ((caps & BLOCK_CAN_DISCARD) && !(caps & BLOCK_DISCARD_ZEROES))
        most = limit_bytes(facts->max_unmap, facts->block_size, most);
    return most;
}

static void lun_describe(struct lun *lun)
{
    const struct lun_facts *facts = &lun->facts;
    struct block_device *base = &lun->base;

    base->size = facts->blocks * facts->block_size;
    base->block_size = facts->block_size;
    base->depth = DEPTH;
    base->caps = lun_caps(facts, lun->spec->writable);
    base->max_transfer =
            limit_bytes(facts->max_transfer, facts->block_size, MAX_TRANSFER);
    base->max_zero = zero_limit(facts, base->caps);
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
void opening_good(struct lun *lun)
{
    static const struct fault none;
    struct block_opening *opening = lun->opening;

    lun_enter(lun, READY, 0);
    lun->opening = NULL;
    opening->cancel = NULL;
    lun->spec = NULL;
    opening->done(opening, &lun->base, &lun->identity, &none);
}

/** Of what is left one half at most: it must do for another session. */
static void offer_begin(struct lun *lun)
{
    uint64_t left = instant_ms_until(loop_now(lun->base.loop), lun->opening_end);

    lun_enter(lun, OFFERING, min_u64(lun->io_timeout_ms, left / 2));
    probe_offer_room(&lun->probe);
}

void opening_probed(struct lun *lun)
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
    else if (!lun->no_offer && probe_takes_room(&lun->probe))
        offer_begin(lun);
    else
        opening_good(lun);
}

/* -- the session ------------------------------------------------------------------- */

static void probe_begin(struct lun *lun)
{
    lun_enter(lun, PROBING, 2ull * lun->io_timeout_ms);
    probe_start(&lun->probe, lun->base.loop, &lun->initiator,
            lun->spec->writable ? PROBE_WRITABLE : PROBE_WHOLE);
}

void opening_up(struct initiator *initiator, const struct fault *fault)
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

void opening_was_reset(struct initiator *initiator, int result)
{
    struct lun *lun = container_of(initiator, struct lun, initiator);

    if (lun->phase != RESETTING)
        return;
    if (result) /* without it, late writes of the lost session cannot be ruled out */
        opening_fail_words(lun, -EIO, "the target refused a logical unit reset");
    else
        probe_begin(lun);
}

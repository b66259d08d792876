/* replica/block/iscsi_inside.h - what the parts of the iscsi driver share: iscsi.c (the
 * life of the device), iscsi_opening.c (from the login to what is known of the unit),
 * iscsi_slots.c (requests). Private to these. The thread of the device's loop only.
 */
#ifndef REPLICA_BLOCK_ISCSI_INSIDE_H
#define REPLICA_BLOCK_ISCSI_INSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/base/clock.h"
#include "replica/base/fault.h"
#include "replica/block/device.h"
#include "replica/block/iscsi_command.h"
#include "replica/block/iscsi_facts.h"
#include "replica/block/iscsi_initiator.h"
#include "replica/block/iscsi_probe.h"
#include "replica/block/open.h"
#include "replica/loop/loop.h"

enum { SLOTS = 32 }; /* commands on their way at once, at most */

enum lun_phase {
    CONNECTING,
    RESETTING,
    PROBING,
    OFFERING,
    READY,
    LOOKING,
    LEAVING,
    GONE,
    CLOSING
};

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
    struct instant deadline; /* moved on while the session moves, up to @end */
    struct instant end, again;
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
    struct instant look_end; /* of LOOKING, however much moves */
    struct loop_timer alarm;
    struct instant alarm_due;
    unsigned io_timeout_ms;
    uint64_t random;
    int dead_error; /* positive errno of requests once LEAVING or GONE */
    bool doubtful; /* LEAVING: an answer said that a write may come late */

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
    struct instant opening_end; /* likewise: no phase goes beyond it */
    bool no_offer; /* the opening began anew without the question of OFFERING */
    struct block_identity identity;
    void (*closed)(void *context);
    void *closed_context;
    struct loop_task bury;
};

/* -- iscsi.c ----------------------------------------------------------------------- */

/** Have the alarm go off at @due, or earlier. */
void lun_arm(struct lun *lun, struct instant due);

/** The next phase, which is over in @deadline_ms, but for READY and GONE; one of an opening
    with the opening at the latest. */
void lun_enter(struct lun *lun, enum lun_phase phase, uint64_t deadline_ms);

/** Up to when a command, or a look, may go on that began at @now. */
struct instant lun_end(const struct lun *lun, struct instant now);

/** Ask the unit again who it is, when that is not being done; then lun_slots_resume(), or
    the end. */
void lun_look(struct lun *lun);

/**
 * No more of this session: drops it and answers every request, with @error (a positive
 * errno), or with the error its slot was marked with. From callbacks of the loop only.
 */
void lun_break(struct lun *lun, int error, const char *why);

/** A power on or a reset was told of: a volatile cache may be gone. True when writes were in it
    that no flush covered: then the session is being given up, or has been. */
bool lun_was_reset(struct lun *lun);

/** A new device for @opening, which ends by @end. */
void lun_open(struct loop *loop, const struct block_spec *spec,
        struct block_opening *opening, struct instant end, bool no_offer);

/** Frees the device, in a later callback: the flush of the initiator may still be queued. */
void lun_bury_later(struct lun *lun);

/* -- iscsi_opening.c --------------------------------------------------------------- */

/** As initiator.up, and as initiator.was_reset. */
void opening_up(struct initiator *initiator, const struct fault *fault);
void opening_was_reset(struct initiator *initiator, int result);

/** lun->probe.facts are known: on to OFFERING, or the opening is answered. */
void opening_probed(struct lun *lun);

/** It is answered well. */
void opening_good(struct lun *lun);

/** The session was lost, or its phase is over (@error: negative errno): the opening begins
    anew, where that may help, or is answered. */
void opening_ended(struct lun *lun, int error, const char *why);

/** Answers the opening with a fault (@error: negative errno); the device goes. */
void opening_fail(struct lun *lun, const struct fault *fault);
void opening_fail_words(struct lun *lun, int error, const char *why);

/** As block_opening.cancel: nobody waits for it any more. */
void opening_cancel(struct block_opening *opening);

/* -- iscsi_slots.c ----------------------------------------------------------------- */

void lun_slots_init(struct lun *lun);

/** None is in use. */
void lun_slots_free(struct lun *lun);

/** Takes a request, READY or LOOKING. */
void lun_slots_add(struct lun *lun, struct block_request *request);

/** Start what waits and may be started. */
void lun_slots_pump(struct lun *lun);

/** Arms the alarm for what is due next. */
void lun_slots_arm(struct lun *lun);

/**
 * Move on the deadlines of those for which bytes have moved since the last look. @late_ms:
 * how long this loop stood still, which is nobody's fault over there.
 */
void lun_slots_look(struct lun *lun, struct instant now, uint64_t late_ms);

/* Of the last three only: requests are answered from inside. */

/** The look found the same unit, READY: go on with what was held for it. */
void lun_slots_resume(struct lun *lun);

/** What is due at @now: sends again, answers, or breaks the session. After
    lun_slots_look(). */
void lun_slots_expire(struct lun *lun, struct instant now);

/** LEAVING: answers with dead_error what is not out. What is out is answered so when the
    target has answered it; after the last of them the device is GONE. */
void lun_slots_leave(struct lun *lun);

/** Broken: answers every request with @error, a positive errno, or its slot's own. */
void lun_slots_fail(struct lun *lun, int error);

#endif

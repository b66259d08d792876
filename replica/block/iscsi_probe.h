/* replica/block/iscsi_probe.h - asking a LUN what it is, one command after the other.
 *
 * Private to the driver. Asked once when a session is opened and, in short, whenever the
 * target says that something about the LUN has changed. One loop's thread. It keeps no
 * deadline: its owner does, and ends it with probe_stop() and initiator_drop().
 */
#ifndef REPLICA_BLOCK_ISCSI_PROBE_H
#define REPLICA_BLOCK_ISCSI_PROBE_H

#include "replica/base/fault.h"
#include "replica/block/iscsi_facts.h"
#include "replica/block/iscsi_initiator.h"
#include "replica/loop/loop.h"

enum { PROBE_BUFFER = 1024 }; /* bytes asked for, at most */

enum probe_depth {
    PROBE_WHOLE, /* all that is worth knowing */
    PROBE_WRITABLE, /* and who has reserved it */
    PROBE_AGAIN /* is it the same unit, and how large */
};

/** Embedded by the owner, alive until @done or probe_stop(). */
struct probe {
    /** @fault->error 0: @facts are known. On the loop, never from inside probe_start(). Not
        called when the session is lost meanwhile. */
    void (*done)(struct probe *, const struct fault *fault);
    struct lun_facts facts;

    struct initiator *initiator;
    struct loop *loop;
    struct loop_timer rest;
    struct initiator_command command;
    struct iovec iov;
    enum probe_depth depth;
    unsigned step, attentions, aborts, rest_ms;
    bool was_reset; /* the unit told of a power on or a reset meanwhile, and tells once */
    uint8_t buffer[PROBE_BUFFER];
};

/** @done must be set. The session must be up; other commands may be on their way. */
void probe_start(struct probe *probe, struct loop *loop, struct initiator *initiator,
        enum probe_depth depth);

/** Would a unit of these facts be asked the question that probe_offer_room() asks? */
bool probe_takes_room(const struct probe *probe);

/**
 * After @done: have the target make room for the largest pieces by a question that may be
 * answered at length. Not every target stands it: one may end the session, or never answer.
 * @done is called again, without a fault, whatever else it says; facts stay as they are.
 */
void probe_offer_room(struct probe *probe);

/** Stops the timer; a command on its way is forgotten. Harmless when idle. */
void probe_stop(struct probe *probe);

#endif

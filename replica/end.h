/* replica/end.h - one end of a plan: from an element to an open device. Inside replica/. */
#ifndef REPLICA_END_H
#define REPLICA_END_H

#include "replica/base/digest.h"
#include "replica/block/address.h"
#include "replica/engine_inside.h"

/** Embedded by its owner, alive until @done; on one loop. May be opened again after it. */
struct end {
    struct engine *engine;
    struct loop *loop;
    const char *role; /* for the words of faults */
    uint64_t isid; /* the same over all openings of this end */
    /** @device: owned by the owner, block_close(); NULL when @fault says why. @found is
        filled when there is a device. On the loop, never from inside end_open(). */
    void (*done)(struct end *, struct block_device *device, const struct fault *fault);
    struct engine_found found;

    /* one opening's */
    struct engine_element element;
    struct block_spec spec;
    struct block_chap chap;
    struct end *next; /* among the lane's openings, */
    bool opening_now; /*   while it is one of them */
    bool cancelled;
    struct block_opening opening;
    struct loop_work reading;
    struct block_identity identity;
    struct loop_task answering;
    struct block_device *device;
    struct fault fault;
};

void end_init(
        struct end *end, struct engine *engine, struct loop *loop, const char *role);

/**
 * Open @element. @barrier: an earlier handle may have writes under way. Faults as
 * block_open(), and -EPERM (portal not allowed), -ENOKEY, -ENXIO (no such pool), -EINVAL
 * (the address), -ESTALE (what is addressed is not as large as the element says).
 * Nothing is sent to a portal that is not allowed.
 */
void end_open(struct end *end, const struct engine_element *element, bool writable,
        bool barrier);

/** It is not wanted any more: it ends soon, with -ECANCELED, where it waits for a far side.
    Harmless when nothing is being opened. On the loop; @done is never called from inside. */
void end_cancel(struct end *end);

/** All that is being opened on the lane, and all that will be. The lane's thread. */
void ends_shut(struct lane *lane);

/**
 * What shows whether somebody else wrote the open end between two openings of ours: how it
 * was found, and, before it is closed, how we leave it. Of a file its inode and the times
 * of its last change; of a LUN only who it is, for it keeps no such time.
 */
struct digest128 end_stamp_found(const struct end *end);

/** The stamp would show it. */
bool end_shows_changes(const struct end *end);

/** Blocks for a file: not on a loop. 0 or a negative errno. */
int end_stamp_left(const struct end *end, struct digest128 *stamp);

#endif

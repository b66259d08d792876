/* api/clerk_inside.h - what the clerk's thread does with what it took from the queue: one batch,
 * one transaction. For clerk.c, which has the queue and the thread, and clerk_batch.c; not for
 * anyone else. */
#ifndef API_CLERK_INSIDE_H
#define API_CLERK_INSIDE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "api/clerk.h"
#include "replica/base/clock.h"

struct clerk_call {
    struct clerk_note note; /* @run NULL: that is how the clerk knows a call */
    clerk_work_f *work;
    void *context;
    bool adds; /* clerk_add() */
    int result;
    atomic_bool answered; /* from then on it may be gone */
};

/** The clerk's thread only, but where said. */
struct clerk_batch {
    struct service *service; /* constant */
    struct store *store; /* constant */
    struct clerk_note *late; /* notes that the store refused, oldest first */
    struct instant late_due;
    struct clerk_touched touched;
    bool dirty; /* a batch since the last idle checkpoint */
    _Atomic bool failing; /* any thread: the store refused the last batch. Said once */
};

/**
 * Run @list in one transaction, and give its notes back but those that are late now.
 * @schedule: look at the job queue. @calls: out, the calls of @list in order, for the caller to
 * answer. 0, or what the store said: then no call of them is done.
 */
int clerk_batch_do(struct clerk_batch *batch, struct clerk_note *list, bool schedule,
        struct clerk_note **calls);

/** What the store refused to the last: the rows stay as they were, recovery finds them. The
    thread has ended. */
void clerk_batch_finish(struct clerk_batch *batch);

#endif

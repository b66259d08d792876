/* replica/loop/ops.h - what an implementation of the loop provides. Private to this
 * room. */
#ifndef REPLICA_LOOP_OPS_H
#define REPLICA_LOOP_OPS_H

#include "replica/loop/loop.h"

/** One function a call of loop.h; the contract stands there. */
struct loop_ops {
    void (*post)(struct loop *, struct loop_task *);
    void (*defer)(struct loop *, struct loop_task *);
    void (*again)(
            struct loop *, const struct loop_watch *); /* NULL: it means nothing here */
    struct instant (*now)(struct loop *);
    void (*timer_start)(struct loop *, struct loop_timer *, uint64_t ms);
    void (*timer_stop)(struct loop *, struct loop_timer *);
    int (*watch_set)(struct loop *, struct loop_watch *, int fd, unsigned events);
    void (*watch_stop)(struct loop *, struct loop_watch *);
    void (*work_start)(struct loop *, struct loop_work *);
    bool (*turn)(struct loop *);
    void (*run)(struct loop *);
    void (*stop)(struct loop *);
    void (*destroy)(struct loop *);
    uint64_t (*stalled_ms)(const struct loop *);
};

/** First member of each implementation's own struct. */
struct loop {
    const struct loop_ops *ops;
    const void *_Atomic owner; /* loop_thread() of the thread that runs it */
    struct loop_guest *guests; /* the latest first */
};

/** A value that names the calling thread among those alive. */
const void *loop_thread(void);

/** Make the calling thread @loop's own. */
void loop_own(struct loop *loop);

#endif

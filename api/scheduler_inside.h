/* api/scheduler_inside.h - what the parts of the scheduler share: scheduler.c (what starts,
 * and what a batch changes), scheduler_queue.c (the jobs that wait), scheduler_slots.c (the
 * plans that the engine runs). Private to these. The clerk's thread only; nothing blocks.
 */
#ifndef API_SCHEDULER_INSIDE_H
#define API_SCHEDULER_INSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/service.h"

/** Bytes of an element: an extent is a part of its parent. */
struct span {
    struct uuid root;
    uint64_t from, to;
};

/** What a plan touches. A verify reads both ends and writes none. */
struct spans {
    struct span reads[2], writes; /* root none: nothing */
};

/** A job that waits. */
struct waiting {
    struct uuid id;
    int64_t priority;
    struct spans spans;
};

/** A plan that the engine runs, or will once the batch is durable. */
struct slot {
    struct uuid id; /* the plan's */
    struct scheduler_plan_of of;
    struct spans spans;
    bool fresh; /* not started yet */
    bool ended; /* its end is in this batch */
    struct engine_plan *plan; /* fresh */
    bool stop; /* ring engine_stop(how) */
    bool told; /* @how was rung */
    enum engine_stop how;
    bool limit_changed, pipe_changed, priority_changed;
    uint64_t limit, pipe_limit;
    struct uuid pipe;
    unsigned priority;
    bool held_now; /* in this batch the job of a hold was done: */
    struct uuid held_job; /* that one */
};

struct scheduler {
    void *by_id; /* tsearch() over struct waiting */
    struct waiting **queue; /* by (priority, id) */
    size_t count, room;
    struct slot *slots;
    size_t slot_count, slot_room;
    int64_t next_scan; /* wall ms; 0: look now */
    bool reload;
    bool holds_started, holds_fresh; /* holds_fresh: in this batch */
};

/* -- scheduler_queue.c ------------------------------------------------------------- */

/** Bring the list up to date with a job's row. -ENOMEM in turn->error. */
void queue_take(struct scheduler *scheduler, struct clerk_turn *turn,
        const struct store_job *job);

/** Read the list again from the rows. Errors in turn->error. */
void queue_reload(struct scheduler *scheduler, struct clerk_turn *turn);

void queue_clear(struct scheduler *scheduler);

/** Off the list, and freed. */
void waiting_remove(struct scheduler *scheduler, struct waiting *waiting);

/* -- scheduler_slots.c ------------------------------------------------------------- */

/** The bytes of an element; false, and @span as it was, when there is no such element. */
bool span_of(struct clerk_turn *turn, const struct uuid *id, struct span *span);

/** The slot of a plan, or of a job's plan, that is not over. NULL: none. Borrowed until
    the next slot_add() or slot_remove(). */
struct slot *slot_find(struct scheduler *scheduler, const struct uuid *id);
struct slot *slot_of_job(struct scheduler *scheduler, const struct uuid *job);

/** How many run: @scans, or jobs. */
unsigned slots_of(const struct scheduler *scheduler, bool scans);

/** May something with these spans run beside what runs? */
bool slots_allow(const struct scheduler *scheduler, const struct spans *spans);

/** Keeps a copy of @plan for the ring. False: no memory. */
bool slot_add(struct scheduler *scheduler, const struct engine_plan *plan,
        const struct scheduler_plan_of *of, const struct spans *spans);

void slot_remove(struct scheduler *scheduler, size_t at);

#endif

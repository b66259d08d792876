/* replica/runner.h - the life of one plan. Inside replica/. */
#ifndef REPLICA_RUNNER_H
#define REPLICA_RUNNER_H

#include "replica/copy/copy.h"
#include "replica/digests.h"
#include "replica/end.h"

enum { RATE_SAMPLES = 16 };

/** How far it was, and when: the rate is taken over the last few seconds. */
struct rate {
    struct {
        struct instant at;
        uint64_t done;
    } samples[RATE_SAMPLES];
    unsigned first, count;
    uint64_t last; /* bytes a second */
};

/** Somebody in engine_stop_wait(), on its stack. Under the engine's lock. */
struct waiter {
    struct waiter *next;
    bool done;
};

struct runner {
    struct engine *engine;
    struct lane *lane;
    struct loop_task task; /* the only way in from other threads */

    /* under the engine's lock */
    struct runner *next;
    bool queued; /* @task is in the loop's queue */
    bool over; /* its last event is out, or about to be */
    int stop_wanted; /* 0 no, else 1 + enum engine_stop */
    bool limit_wanted;
    uint64_t limit;
    struct waiter *waiters;

    _Atomic bool forgotten; /* any thread: what is known of the target is not kept */

    /* the lane's thread */
    struct engine_plan plan; /* watermark, verified and counters move as it goes */
    unsigned state;
    struct end source_end, target_end;
    struct block_device *source, *target;
    struct copy *copy;
    struct digests digests;
    int stop; /* as stop_wanted */
    unsigned pending; /* openings, or closings */
    bool was_open; /* the target was open for writing: fence it from now on */
    bool source_was_open;
    bool target_lost; /* after it was written: what it holds is not known any more */
    struct loop_timer pause, report;

    uint64_t total;
    struct copy_figures seen; /* of this copy, for the metrics */
    bool unreported; /* the watermark moved since the last event */
    struct instant reported;
    struct rate rate;

    enum engine_end end;
    bool retry; /* lost, not failed */
    struct fault fault; /* of the latest failure */
    bool on_target;
    bool losing; /* between a loss and the next move of the watermark */
    struct instant lost_at;
    struct fault first_fault; /* what it fails with when recovery takes too long */
    bool first_on_target;
    unsigned attempt;
    uint64_t random;
};

/** Owned by the engine until its end. NULL when out of memory. */
struct runner *runner_create(
        struct engine *engine, struct lane *lane, const struct engine_plan *plan);

/** Let it look at its wishes. Under the engine's lock. */
void runner_ring(struct runner *runner);

/** Take it off the lists, wake who waits; true: free it now. In engine.c; loop's thread. */
bool engine_forget(struct engine *engine, struct runner *runner);

#endif

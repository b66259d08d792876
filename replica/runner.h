/* replica/runner.h - the life of one plan. Inside replica/. */
#ifndef REPLICA_RUNNER_H
#define REPLICA_RUNNER_H

#include "replica/copy/copy.h"
#include "replica/copy/sample.h"
#include "replica/digests.h"
#include "replica/end.h"

enum { RATE_SAMPLES = 16 };

/** See runner.c. */
enum runner_state {
    RUNNER_NEW,
    RUNNER_OPENING,
    RUNNER_READYING,
    RUNNER_MOVING,
    RUNNER_HOLDING,
    RUNNER_SEALING,
    RUNNER_CLOSING,
    RUNNER_PAUSING,
    RUNNER_LEAVING,
    RUNNER_OVER,
    RUNNER_STATE_COUNT
};

/** How far it was, and when: the rate is taken over the last few seconds. */
struct rate_sample {
    struct instant at;
    uint64_t done;
    uint64_t source_ns, target_ns, limit_ns; /* as in copy_figures */
};

struct rate {
    struct rate_sample samples[RATE_SAMPLES];
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
    bool limit_wanted, priority_wanted, nudge_wanted;
    uint64_t limit;
    unsigned priority;
    struct waiter *waiters;

    struct engine_pipe *pipe; /* constant; NULL: none */
    _Atomic bool forgotten; /* any thread: what is known of the target is not kept */

    /* the lane's thread */
    struct engine_plan plan; /* watermark, verified and counters move as it goes */
    unsigned state;
    struct end source_end, target_end;
    struct block_device *source, *target;
    struct copy *copy;
    struct digests digests;
    struct sample *sample; /* READYING: the digests are put to the test */
    int stop; /* as stop_wanted */
    unsigned pending; /* openings, or closings */
    bool was_open; /* the target was open for writing: fence it from now on */
    bool source_was_open;
    bool target_lost; /* after it was written: what it holds is not known any more */
    bool loose; /* as it is told at the end; the next opening of the target is a barrier */
    bool answered; /* the target that was given up last had answered all: nothing comes late */
    bool zeroing_stuck; /* the target hung when it was to make zeros */
    struct loop_timer pause, report;

    uint64_t total;
    struct copy_figures seen; /* of this copy, for the metrics */
    bool unreported; /* the watermark moved since the last event */
    struct instant reported;
    struct rate rate;
    struct loop_timer watch; /* for stalls */
    uint64_t sent, done_most;
    uint64_t moved; /* changes when a byte does */
    struct instant moved_at;
    char stall[sizeof((struct engine_event){ 0 }.stall)]; /* as told; "" none */

    enum engine_end end;
    bool retry; /* lost, not failed */
    struct fault fault; /* of the latest failure */
    bool on_target;
    bool losing; /* between a loss and the next move of the watermark */
    struct instant lost_at;
    struct fault first_fault; /* what it fails with when recovery takes too long */
    bool first_on_target;
    unsigned attempt;
    bool given_up; /* the latest loss: somebody else had it reset */
    unsigned resets; /* of late, the last of them at @reset_at */
    struct instant reset_at;
    uint64_t random;
};

/** Owned by the engine until its end. NULL when out of memory. */
struct runner *runner_create(
        struct engine *engine, struct lane *lane, const struct engine_plan *plan);

/** Let it look at its wishes. Under the engine's lock. */
void runner_ring(struct runner *runner);

/** Take it off the lists, wake who waits; true: free it now. In engine.c; loop's thread. */
bool engine_forget(struct engine *engine, struct runner *runner);

/* Its life, in runner.c; the loop's thread. */

void runner_enter(struct runner *runner, enum runner_state state);
void runner_open(struct runner *runner);
void runner_end(struct runner *runner);
void runner_hold_look(struct runner *runner); /* HOLDING; may be its end */

/* When it has lost something, in runner_losing.c; the loop's thread. */

void runner_losing_init(struct runner *runner);

/** No answer, or no session: negative errno. */
bool runner_error_is_loss(int error);

/** What happened, as it will be told, and whether it is worth trying again. @again: what is
    not there had been there. The devices are still known. */
void runner_failed(
        struct runner *runner, const struct fault *fault, bool on_target, bool again);

/** Both ends are closed: opens them anew after a while, or ends when that takes too long. */
void runner_pause(struct runner *runner);

/* What it tells, in runner_telling.c; the loop's thread. */

void runner_telling_init(struct runner *runner);
/** Both ends are opened, the first time or again; bytes move from now on; a device was lost,
    and nothing moves; the end. */
void runner_telling_open(struct runner *runner);
void runner_telling_begin(struct runner *runner);
void runner_telling_pause(struct runner *runner);
void runner_telling_end(struct runner *runner);

/** Send an event, with all that is known. */
void runner_tell(struct runner *runner, enum engine_event_kind kind);

/** The copy's figures are the plan's; copy_options.progress, which also tells them in time. */
void runner_take(struct runner *runner, const struct copy_figures *figures);
void runner_moved(void *context, const struct copy_figures *figures);

/** The plan reads back what it copied. */
bool runner_reads_back(const struct runner *runner);

#endif

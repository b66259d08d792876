/* api/clerk.h - one thread through which every change goes: the order of truth.
 *
 * Calls and notes queue up; the clerk takes all that is queued, runs each in a savepoint of
 * one transaction, commits once (the group commit), then rings whom the changes concern and
 * answers. It never waits for a device. Private to api/.
 */
#ifndef API_CLERK_H
#define API_CLERK_H

#include <stdbool.h>
#include <stdint.h>

#include "api/metrics.h"
#include "store/store.h"

struct clerk;
struct service;

/** Jobs and pairs that a batch has put: the scheduler looks at each before the commit. */
struct clerk_touched {
    struct clerk_touch {
        enum store_table table; /* STORE_JOB, STORE_REPLICA, STORE_PIPE */
        struct uuid id;
        bool over; /* a job that has come to its end with this: counted when it is durable */
        struct metric_end end;
    } * list;
    size_t count, room;
};

/** What a piece of work sees. On the clerk's thread, inside the transaction. */
struct clerk_turn {
    struct service *service;
    struct store *store;
    struct store_reader *reader; /* sees what this transaction has changed so far */
    int64_t now; /* wall clock, ms, one for the whole batch */
    int error; /* the first failure of turn_put() and kin; undone then */
    unsigned rows; /* put or deleted by this piece of work */
    bool schedule; /* set: look at the job queue, and for scans that are due */
    struct clerk_touched *touched; /* by turn_touch() */
};

/** Return true to keep what was changed, false to take it back. */
typedef bool clerk_work_f(struct clerk_turn *turn, void *context);

/**
 * Run @work and wait until it is durable. 0: done, kept or taken back as it chose;
 * -ENOSPC, -EIO, -ENOMEM...: nothing of it was kept; -ESHUTDOWN. Any thread but the
 * clerk's and the loops'.
 */
int clerk_call(struct clerk *clerk, clerk_work_f *work, void *context);

/**
 * The same for @work that takes nothing back once it has put a row, and needs no savepoint
 * so. Should the store refuse a further row of it, the whole batch is refused.
 */
int clerk_add(struct clerk *clerk, clerk_work_f *work, void *context);

/**
 * For those who cannot wait (the loops). @run on the clerk's thread, soon, also in a drain;
 * again and again until what it changed is durable (unless @once), so it must only change
 * rows. Then @done, once, which may free the note; @kept: it was committed.
 */
struct clerk_note {
    bool (*run)(struct clerk_turn *turn, struct clerk_note *note);
    void (*done)(struct clerk_note *note, bool kept);
    bool once; /* may be lost when the store fails */
    struct clerk_note *next; /* the clerk's, as is @failed */
    int failed;
};
/** Never blocks on I/O. Any thread. */
void clerk_post(struct clerk *clerk, struct clerk_note *note);

/** Put or delete a row; the first error sticks to the turn and undoes its work. */
void turn_put(struct clerk_turn *turn, enum store_table table, const void *row);
void turn_delete(struct clerk_turn *turn, enum store_table table, const void *row);

/** store_get() through the turn: true when it is there. An error other than -ENOENT sticks. */
bool turn_get(
        struct clerk_turn *turn, enum store_table table, const char *key, void *row);

/** The scheduler shall look at this row before the commit. job_put() and replica_put() do it. */
void turn_touch(struct clerk_turn *turn, enum store_table table, const struct uuid *id);

/** The same for a job that has come to its end, which is counted once that is durable. */
void turn_touch_over(struct clerk_turn *turn, const struct store_job *job);

struct clerk *clerk_create(struct service *service, struct store *store);
/** Finishes what is queued, then ends the thread. The engine must be gone. NULL is fine. */
void clerk_destroy(struct clerk *clerk);
/** Calls and notes in the queue. */
unsigned clerk_waiting(struct clerk *clerk);
/** Milliseconds since the clerk last turned with work waiting; 0: idle. For /livez. */
uint64_t clerk_stalled_ms(struct clerk *clerk);

/** The store refused the last batch. For /readyz. */
bool clerk_failing(struct clerk *clerk);

/** Look for what falls due (scans) on the clerk's thread at @wall_ms or before. */
void clerk_wake_at(struct clerk *clerk, int64_t wall_ms);

#endif

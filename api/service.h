/* api/service.h - what the files of api/ share. Private to api/. */
#ifndef API_SERVICE_H
#define API_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "api/cim/cim.h"
#include "api/clerk.h"
#include "api/json/body.h"
#include "api/json/goal.h"
#include "api/json/writer.h"
#include "api/metrics.h"
#include "replica/base/clock.h"
#include "replica/engine.h"
#include "store/store.h"

enum {
    ELEMENT_STORAGE_VOLUME = 1,
    ELEMENT_STORAGE_EXTENT,
    ELEMENT_LOGICAL_FILE,
    ELEMENT_FILE_SYSTEM,
    ELEMENT_COMMON_DATABASE
};

struct service {
    struct api_options options; /* constant from create to destroy, texts copied */
    struct store *store;
    struct clerk *clerk;
    struct engine *engine;
    char initiator[224];
    _Atomic bool draining, recovered;
    _Atomic uint64_t limit; /* bytes a second of all copies together; 0 none */
    bool quarantined; /* the database was corrupt and moved aside at this start */
    struct instant expire_due; /* service_tick(): the clerk's thread */

    /* events.c: waiters are woken after each commit that put an event */
    pthread_mutex_t wake_lock;
    pthread_cond_t wake; /* broadcast: events and jobs' ends, and the drain */
    int64_t last_event; /* under wake_lock */

    /* claims.c: elements whose target end a call is probing */
    pthread_mutex_t claims_lock;
    pthread_cond_t claims_free;
    struct claim *claims; /* under claims_lock; few */

    /* exports_hand.c: who changes what is served; under claims_lock */
    struct export_hand *export_hands;
    const struct api_exporter
            *exporter; /* constant once calls are served; NULL: nobody */

    struct keys *keys; /* keys.c: idempotency keys under way */
    struct metrics metrics; /* metrics.c: counted as it happens */
    struct scheduler *scheduler; /* scheduler.c: the clerk's thread only */
};

/* -- one call (call.c) ---------------------------------------------------------------- */

/** A call that reached its handler. */
struct call {
    struct service *service;
    const struct api_request *request;
    struct api_outcome *outcome;
    enum cim_method method;
    char *in; /* InParameters, canonical JSON; NULL for READ */
    struct uuid source, target, job; /* for the row in /results, as far as known */
    bool settled; /* the row (and the key) were put with the change */
    struct key *key; /* keys.c: the idempotency key under way, NULL: none */
    struct body_problems problems; /* 5 KiB, of which api_serve() clears the count */
};

typedef void call_handler_f(struct call *call);

/** Handlers, one a row of calls.tbl.h: call_REPLICA_CREATE(), ... */
#define CALL(symbol, method, kind) call_handler_f call_##symbol;
#include "api/calls.tbl.h"
#undef CALL

/**
 * Decode the body by @members. False: the outcome says why (MALFORMED, INVALID or
 * NOT_SUPPORTED with all problems) and the handler just returns.
 */
bool call_decode(
        struct call *call, const struct body_member *members, size_t count, void *into);

/**
 * In the turn that makes the change, after the outcome is complete (verdict, return value,
 * body, location): put the row of /results (METHOD) and the idempotency key's outcome.
 * Refused METHOD calls need nothing: the row is put when the handler has returned.
 */
void call_settle(struct call *call, struct clerk_turn *turn);

/** clerk_call() and the outcome for a store that failed (NO_SPACE, INTERNAL). True when kept or
    taken back as chosen; false when the store failed. */
bool call_commit(struct call *call, clerk_work_f *work, void *context);
/** The same by clerk_add(). */
bool call_commit_new(struct call *call, clerk_work_f *work, void *context);

/** Take a reader for this call; NULL: the outcome is OVERLOADED. store_reader_give() it. */
struct store_reader *call_reader(struct call *call);

/* -- outcomes (outcome.c) -------------------------------------------------------------- */

/** An error. @return_value -1 where no method answers. Replaces what the outcome held. */
void outcome_fail(struct api_outcome *outcome, enum api_verdict verdict,
        int return_value, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
/** More about the error: a pointer with its detail; a holder's path; the call that frees it. */
void outcome_pointer(
        struct api_outcome *outcome, const char *pointer, const char *detail);
void outcome_holder(struct api_outcome *outcome, const char *path);
void outcome_holder_of(
        struct api_outcome *outcome, const char *collection, const struct uuid *id);
enum { REMEDY = 512 }; /* bytes of the text, its end included */
void outcome_remedy(struct api_outcome *outcome, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
/** 3, 4 (502, 507, 409...), 2 from what the engine answered of what is at @address, of the form
    that elements have; words of @fault. */
void outcome_engine(struct api_outcome *outcome, const struct fault *fault,
        const char *what, const char *address);
/** The CIM return value of an engine's errno (negative). */
int engine_return_value(int error);
/** How the error's ReturnValueName is spelled; @change: RequestStateChange's own map. */
void outcome_method(struct api_outcome *outcome, enum cim_method method, bool change);
/** The error's sentence, "" when there is none. */
const char *outcome_detail(const struct api_outcome *outcome);
/** Takes the writer as the body. */
void outcome_body(struct api_outcome *outcome, struct writer **writer);
/** "\"r42\"" into outcome->etag. */
void outcome_etag(struct api_outcome *outcome, int64_t revision);
/** True: go on. False: the outcome is PRECONDITION. Lists of tags and * are understood. */
bool outcome_if_match(struct call *call, int64_t revision);
/** True: the outcome is NOT_MODIFIED. */
bool outcome_if_none_match(struct call *call, int64_t revision);

/* -- lists (lists.c) -------------------------------------------------------------------- */

/** A member lists may be filtered by. */
struct list_member {
    const char *name;
    enum store_column column;
    enum {
        LIST_TEXT,
        LIST_CIM,
        LIST_NUMBER,
        LIST_FLAG,
        LIST_REFERENCE,
        LIST_NAMED, /* "/collection/NAME" or "NAME" */
        LIST_PARSED /* a word of our own: @parse */
    } type;
    enum cim_map map;
    const char *collection; /* REFERENCE, NAMED */
    bool (*parse)(const char *text, int64_t *value); /* PARSED */
    /* The value that is shown is not always the one stored, NULL: it is. @widen: what may be
       stored where that is asked for. Of one member at most. */
    void (*widen)(struct store_filter *filter);
    int64_t (*shown)(const struct service *service, const void *row);
};

/**
 * Serve a list: parse limit, cursor, Since and the filters (unknown: MALFORMED), query,
 * render each row by @render (which writes the members of an open object), Members, Next.
 */
void list_serve(struct call *call, enum store_table table, const char *path,
        const struct list_member *members, size_t count,
        void (*render)(struct call *call, struct store_reader *reader,
                struct writer *writer, const void *row));

/* -- rows rendered (one function a resource; members of an object that is open) -------- */

void element_render(
        struct call *, struct store_reader *, struct writer *, const void *row);
void replica_render(
        struct call *, struct store_reader *, struct writer *, const void *row);
void job_render(struct call *, struct store_reader *, struct writer *, const void *row);

/* -- elements (elements.c) --------------------------------------------------------------- */

/** The row as the engine takes it (an extent: the parent's address and the window). */
void element_for_engine(
        const struct store_element *row, struct engine_element *element);

/** What overlaps @element's bytes: itself, its parent, its extents. @each until false. */
void element_overlaps(struct store_reader *reader, const struct store_element *element,
        bool (*each)(void *context, const struct store_element *other), void *context);

/** Complete, and so is all that shares bytes with it: its parent, its extents. What may be a
    source asks this, not the row alone. */
bool element_complete(struct store_reader *reader, const struct store_element *row);

/** Is anything holding it (relationship, live job, extent, export)? Fills holders and the
    remedy of @outcome and returns true. */
bool element_held(struct store_reader *reader, const struct uuid *id,
        struct api_outcome *outcome);

/** Usage of an element from the relationships it is in; puts the row when it changed. */
void element_refresh_usage(struct clerk_turn *turn, const struct uuid *id);

/** A pool's options by name, or NULL. Default: the first. */
const struct api_pool *pool_find(const struct service *service, const char *name);

/* -- events (events.c) -------------------------------------------------------------------- */

/** Put an event row; @changed: JSON object text of the members that changed. */
void event_put(struct clerk_turn *turn, const char *kind, const char *type,
        const char *about, const char *changed);
/** After the commit, on the clerk's thread: wake those who wait. */
void events_wake(struct service *service);

/* -- jobs and pairs (jobs.c, scheduler.c, progress.c, scan.c, recover.c) ------------------- */

enum job_work {
    JOB_COPY = 1, /* first full copy (create, attach, start copy) */
    JOB_RESYNC, /* delta source -> target */
    JOB_RESTORE, /* delta target -> source */
    JOB_PREPARE, /* open and hold both ends */
    JOB_VERIFY, /* read both ends, compare */
};

/** Does it write its target? */
static inline bool job_writes(const struct store_job *job)
{
    return job->work != JOB_PREPARE && job->work != JOB_VERIFY;
}

/** Is a job in @state over? (7, 8, 9, 10) */
bool job_is_over(int64_t state);
#define JOB_OVER_STATES                                                                \
    (UINT64_C(1) << 7 | UINT64_C(1) << 8 | UINT64_C(1) << 9 | UINT64_C(1) << 10)

/** What its time goes into, in a word; NULL: nothing is known. (jobs.c) */
const char *job_limited_by(const struct store_job *job);
/** No byte has moved for a while. (jobs.c) */
bool job_stalled(const struct store_job *job);

/** Put a job or a pair and the event that tells of it, with the next revision. */
void job_put(struct clerk_turn *turn, struct store_job *job, bool made);
void replica_put(struct clerk_turn *turn, struct store_replica *replica, bool made);
void replica_remove(struct clerk_turn *turn, struct store_replica *replica);

/** What the engine knows of the bytes of @target, an element that some pair's copies wrote,
    is not to be trusted any more. At once and durable: also when the turn fails, which
    costs a comparison. 0, or why it could not be taken away. */
int target_forget(struct clerk_turn *turn, const struct uuid *target);

/** What store_job.wanted holds while it is under way: a JobState, or one of our own. */
enum job_wanted {
    WANT_SUSPEND = 5,
    WANT_TERMINATE = 8,
    WANT_KILL = 9,
    WANT_STOP_COPY = 108 /* as terminate, but the pair goes where Stop Copy says */
};

/**
 * Ask a live job to stop (an enum job_wanted), or WANT 0: to go on after a suspend. What does
 * not run ends at once; else `wanted` is set and the engine is rung after the commit. Puts
 * the job and what follows of the pair.
 */
void job_want(struct clerk_turn *turn, struct store_job *job, int64_t want);

/** How a job went, as progress.c or recovery knows it. */
struct job_ending {
    enum engine_end end;
    bool on_target;
    struct fault fault;
    bool *logged; /* where it is kept that it was, for one that may come again; or NULL */
};
/** Whether it is to be logged, which is so once: what a commit that failed takes back comes
    again. */
bool job_ending_is_news(const struct job_ending *ending);

/** End (or suspend) a job whose plan runs no more, and move its pair on. Puts both. */
void job_end(struct clerk_turn *turn, struct store_job *job,
        const struct job_ending *ending);

/** PercentSynced: of the copy that @its_job is, if any; else what the last one left. */
int64_t replica_percent(
        struct store_reader *reader, const struct uuid *its_job, int64_t left);

/* Verify (replica_verify.c): may a pair in @sync_state be verified, when its target is
   Complete; has it a verify that is not over; what was found, into a row and out of it. */
bool replica_verifiable(int64_t copy_type, int64_t sync_state);
bool replica_is_verified(
        struct store_reader *reader, const struct store_replica *replica);
void differences_keep(struct store_job *job, const struct differences *found);
void differences_of(const struct store_job *job, struct differences *found);
void differences_render(struct writer *writer, const struct store_job *job);

/** A new job of @replica (whose `job` it becomes; not put), state New; put. */
void job_make(struct clerk_turn *turn, struct call *call, struct store_replica *replica,
        const char *method, enum job_work work, const struct store_element *source,
        const struct store_element *target, struct store_job *job);

/** Wait until the job is over, up to @s seconds; fills @job. False: no such job. */
bool job_wait(struct service *service, const struct uuid *id, unsigned s,
        struct store_job *job);

/**
 * Wait for the next change of anything. Start with *@seen -1, look at the rows, wait, look
 * again. False: @deadline has passed or the service stops.
 */
bool service_wait(struct service *service, int64_t *seen, struct instant deadline);

/* What the clerk asks of the scheduler (scheduler.c). The clerk's thread only. */

struct scheduler *scheduler_create(void);
void scheduler_destroy(struct scheduler *scheduler);
/** Inside the batch's transaction, last: choose what starts (cap, priority, one writer). */
void scheduler_plan(struct clerk_turn *turn);
/** The batch is durable: start and stop plans. */
void scheduler_ring(struct service *service);
/** What scheduler_plan() chose was undone; @all: with the whole batch. */
void scheduler_undone(struct service *service, bool all);

/** What a running plan is for. */
enum scheduler_kind { SCHEDULER_JOB, SCHEDULER_HOLD, SCHEDULER_SCAN };
struct scheduler_plan_of {
    enum scheduler_kind kind;
    struct uuid job; /* none: a hold whose job is done, a scan */
    struct uuid replica;
    char written[STORE_ADDRESS]; /* the address of its target; "": it writes none */
};
/** The plan that runs under @id; false: none. */
bool scheduler_find(
        struct service *service, const struct uuid *id, struct scheduler_plan_of *of);
/** It has ended (until scheduler_undone()); it has been held, its job is done. */
void scheduler_ended(struct service *service, const struct uuid *id);
void scheduler_held(struct service *service, const struct uuid *id);
/** After the commit of what scheduler_ended() told. */
void scheduler_gone(struct service *service, const struct uuid *id);
/** Plans that run now, and jobs that wait. */
void scheduler_figures(struct service *service, unsigned *running, unsigned *waiting);

/** The pair cannot go on: 12, with why. Puts it. */
void replica_break(struct clerk_turn *turn, struct store_replica *replica,
        const struct fault *fault);
/** Every pair in @sync_state as its own copy; @each may put or remove it. */
void replicas_each(struct clerk_turn *turn, int64_t sync_state,
        void (*each)(struct clerk_turn *turn, struct store_replica *replica));
/** The same for jobs in @state. */
void jobs_each(struct clerk_turn *turn, int64_t state,
        void (*each)(struct clerk_turn *turn, struct store_job *job));
/** Tell of an element that was put. */
void element_event(
        struct clerk_turn *turn, const struct store_element *element, const char *kind);

/** Build the engine's plan for a job or a pair's scan or hold from the rows. False: a row it
    needs is gone, or the source is not complete; @fault says so. */
bool plan_build(struct clerk_turn *turn, const struct store_replica *replica,
        const struct store_job *job, struct engine_plan *plan, struct fault *fault);

/** The engine's priority of a job's. */
unsigned plan_priority(int64_t priority);

/** What runs for a pair waits for a device, stalls, or goes on: LastError says so. Puts the pair
    when that is news. */
void replica_told(struct clerk_turn *turn, const struct uuid *replica,
        const struct engine_event *event);
/** Nothing waits any more. False: LastError did not say so. Not put. */
bool replica_hush(struct store_replica *replica);

/** Async by scan: rows of pairs whose scan is due; *@next: the next one. */
void scan_due(struct clerk_turn *turn, int64_t *next,
        void (*each)(struct clerk_turn *turn, struct store_replica *replica));
/** A scan has begun, or ended. Puts the pair. */
void scan_begun(struct clerk_turn *turn, struct store_replica *replica);
void scan_ended(struct clerk_turn *turn, const struct uuid *replica,
        const struct job_ending *ending);
/** When the next scan of a pair that is in 6 is due, wall ms. */
int64_t scan_next(const struct store_replica *replica, int64_t now);

/** Housekeeping between batches: a step of retention. The clerk's thread. */
void service_tick(struct service *service);

/** engine_event_f: copies the event into a note for the clerk. Loops' threads. */
void progress_event(void *context, const struct engine_event *event);

/** At start: queue every live job again, end or queue every transient state, sweep orphans. */
int recover(struct service *service, struct fault *fault);

/* Files made before the promise is durable (recover.c). */

/**
 * Remember durably that "@id.raw" is about to be made in @pool, so that a crash before the
 * element's row is committed leaves no orphan. False: the outcome says why.
 */
bool making_begin(struct call *call, const struct uuid *id, const char *pool);
/** In the turn that puts the element: it is no orphan. */
void making_done(struct clerk_turn *turn, const struct uuid *id);
/** In the turn that deletes an element of a pool: its file is an orphan until it is gone. */
void making_again(struct clerk_turn *turn, const struct uuid *id, const char *pool);
/** The turn did not come, or making_again() was committed: remove the file and forget. */
void making_undo(struct service *service, const struct uuid *id, const char *pool);

/* -- who holds what (claims.c) ------------------------------------------------------------ */

/** True when no pair and no job stands against @element becoming a target; @but: the pair
    that is asked about (none: any). Else the outcome is 6 with its holders. */
bool claims_target(struct call *call, struct store_reader *reader,
        const struct store_element *element, const struct uuid *but);
/** The same for a source: it is Complete, and nothing writes it now. */
bool claims_source(struct call *call, struct store_reader *reader,
        const struct store_element *element, const struct uuid *but);
/** The calls that bring @source back after a Restore from @target that did not end: the pair
    is let go, and a copy goes the other way. "" when an element is gone. */
void restore_back(struct store_reader *reader, const struct uuid *source,
        const struct uuid *target, char text[REMEDY]);
/** For Restore: nothing else may use what is written. */
bool claims_restore(struct call *call, struct store_reader *reader,
        const struct store_element *element, const struct uuid *but);
/** True when no read-write export stands against @element being written. Else 6. */
bool claims_export(struct call *call, struct store_reader *reader,
        const struct store_element *element, const char *pointer);
/** For an export that hosts write: no pair may write the same bytes. */
bool claims_served(struct call *call, struct store_reader *reader,
        const struct store_element *element);
/**
 * While a call probes a target as it will be written, it takes the locks that a job takes:
 * neither shall meet the other. On the call's stack; by the element, or what it is part of.
 */
struct claim {
    struct claim *next;
    struct uuid root;
    bool taken;
    bool shared; /* claim_hold() */
};
/** Waits for who has it. False: the outcome is 6. */
bool claim_take(
        struct call *call, struct claim *claim, const struct store_element *element);
/** Nothing starts to write @element, or what it is part of, while it is read as a whole or its
    scan ends. Others may hold it, and one may take it, at the same time. Never waits; what
    writes already goes on: scheduler_writes(). */
void claim_hold(struct service *service, struct claim *claim,
        const struct store_element *element);
/** The scheduler may start what writes there. Twice is fine; the clerk's thread too. */
void claim_drop(struct service *service, struct claim *claim);
/** Is @root claimed? The scheduler asks. */
bool claim_is_taken(struct service *service, const struct uuid *root);
/** Does a plan of ours write @root (or hold it for writing) now? The clerk's thread. */
bool scheduler_writes(struct service *service, const struct uuid *root);

/** At the service's end. (exports_hand.c) */
void export_hands_free(struct service *service);

/** Do the bytes of two elements overlap? */
bool element_overlap(const struct store_element *a, const struct store_element *b);

/* -- the two methods' common steps (replicas.c, pair.c) ------------------------------------ */

/** Sync 1, reserved 5, vendor 1: false when the outcome says so. */
bool copy_type_check(struct call *call, int64_t copy_type);
/** CopyType 3 is not: 1, with what is missing. */
bool copy_type_built(struct call *call, int64_t copy_type);
/** 0 or 4096 with its job, as both methods and ModifySynchronization answer. @job may be none. */
void replica_answer(struct call *call, const struct uuid *replica,
        const struct uuid *job, bool target);
/** Copy what a Goal asks for into the pair; false: the outcome is 5 or 1. */
bool replica_take_goal(struct call *call, struct store_replica *replica,
        const struct goal *goal, const char *pointer);
/** Probe one end and compare with its row. False: the outcome says why. */
bool probe_end(struct call *call, const struct engine_element *element,
        const struct store_element *row, bool writable);
/** Jobs' priority of a CopyPriority. */
int64_t job_priority_of(int64_t copy_priority);

/* -- idempotency (keys.c) ------------------------------------------------------------------ */

struct keys *keys_create(void);
void keys_destroy(struct keys *keys);
/** Before the handler. True: go on (and keys_end() afterwards); false: the outcome is the
    replayed one, KEY_REUSED or KEY_BUSY. No key in the request: true. */
bool keys_begin(struct call *call);
void keys_put(struct call *call, struct clerk_turn *turn); /* by call_settle() */
void keys_end(struct call *call);

#endif

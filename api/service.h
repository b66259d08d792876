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

    /* events.c: waiters are woken after each commit that put an event */
    pthread_mutex_t wake_lock;
    pthread_cond_t wake; /* broadcast: events and jobs' ends, and the drain */
    int64_t last_event;  /* under wake_lock */

    struct keys *keys;           /* keys.c: idempotency keys under way */
    struct scheduler *scheduler; /* scheduler.c: the clerk's thread only */
};

/* -- one call (call.c) ---------------------------------------------------------------- */

/** A call that reached its handler. */
struct call {
    struct service *service;
    const struct api_request *request;
    struct api_outcome *outcome;
    enum cim_method method;
    char *in;      /* InParameters, canonical JSON; NULL for READ */
    struct uuid source, target, job; /* for the row in /results, as far as known */
    bool settled;  /* the row (and the key) were put with the change */
    struct body_problems problems;
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
bool call_decode(struct call *call, const struct body_member *members, size_t count, void *into);

/**
 * In the turn that makes the change, after the outcome is complete (verdict, return value,
 * body, location): put the row of /results (METHOD) and the idempotency key's outcome.
 * Refused METHOD calls need nothing: the row is put when the handler has returned.
 */
void call_settle(struct call *call, struct clerk_turn *turn);

/** clerk_call() and the outcome for a store that failed (NO_SPACE, INTERNAL). True when kept or
    taken back as chosen; false when the store failed. */
bool call_commit(struct call *call, clerk_work_f *work, void *context);

/** Take a reader for this call; NULL: the outcome is OVERLOADED. store_reader_give() it. */
struct store_reader *call_reader(struct call *call);

/* -- outcomes (outcome.c) -------------------------------------------------------------- */

/** An error. @return_value -1 where no method answers. Replaces what the outcome held. */
void outcome_fail(struct api_outcome *outcome, enum api_verdict verdict, int return_value,
        const char *format, ...) __attribute__((format(printf, 4, 5)));
/** More about the error: a pointer with its detail; a holder's path; the call that frees it. */
void outcome_pointer(struct api_outcome *outcome, const char *pointer, const char *detail);
void outcome_holder(struct api_outcome *outcome, const char *path);
void outcome_remedy(struct api_outcome *outcome, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
/** 3, 4 (502, 507, 409...), 2 from what the engine answered; words of @fault. */
void outcome_engine(struct api_outcome *outcome, const struct fault *fault, const char *what);
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
    enum { LIST_TEXT, LIST_CIM, LIST_NUMBER, LIST_FLAG, LIST_REFERENCE } type;
    enum cim_map map;
    const char *collection; /* REFERENCE */
};

/**
 * Serve a list: parse limit, cursor, Since and the filters (unknown: MALFORMED), query,
 * render each row by @render (which writes the members of an open object), Members, Next.
 */
void list_serve(struct call *call, enum store_table table, const char *path,
        const struct list_member *members, size_t count,
        void (*render)(struct call *call, struct store_reader *reader, struct writer *writer,
                const void *row));

/* -- rows rendered (one function a resource; members of an object that is open) -------- */

void element_render(struct call *, struct store_reader *, struct writer *, const void *row);
void replica_render(struct call *, struct store_reader *, struct writer *, const void *row);
void job_render(struct call *, struct store_reader *, struct writer *, const void *row);

/* -- elements (elements.c) --------------------------------------------------------------- */

/** The row as the engine takes it (an extent: the parent's address and the window). */
void element_for_engine(const struct store_element *row, struct engine_element *element);

/** What overlaps @element's bytes: itself, its parent, its extents. @each until false. */
void element_overlaps(struct store_reader *reader, const struct store_element *element,
        bool (*each)(void *context, const struct store_element *other), void *context);

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
    JOB_COPY = 1,    /* first full copy (create, attach, start copy) */
    JOB_RESYNC,      /* delta source -> target */
    JOB_RESTORE,     /* delta target -> source */
    JOB_PREPARE,     /* open and hold both ends */
};

/** Is a job in @state over? (7, 8, 9, 10) */
bool job_is_over(int64_t state);
#define JOB_OVER_STATES (1u << 7 | 1u << 8 | 1u << 9 | 1u << 10)

/** Put a job or a pair and the event that tells of it, with the next revision. */
void job_put(struct clerk_turn *turn, struct store_job *job, bool made);
void replica_put(struct clerk_turn *turn, struct store_replica *replica, bool made);
void replica_remove(struct clerk_turn *turn, struct store_replica *replica);

/** Look at the queue: start what may run (cap, priority, one writer per target). On the
    clerk's thread after a commit. */
void scheduler_run(struct service *service);
/** Things that fall due: scans, retention, checkpoints. Own transactions. */
void service_tick(struct service *service, int64_t now);
/** engine_event_f: copies the event into a note for the clerk. Loops' threads. */
void progress_event(void *context, const struct engine_event *event);
/** At start: queue every live job again, end or queue every transient state, sweep orphans. */
int recover(struct service *service, struct fault *fault);
/** RequestStateChange and ModifySynchronization share these: ask a live job to stop; its row
    gets `wanted`; the engine is rung after the commit. */
void job_want(struct clerk_turn *turn, struct store_job *job, int64_t state);

/** Wait until the job is over, up to @s seconds; fills @job. False: no such job. */
bool job_wait(struct service *service, const struct uuid *id, unsigned s, struct store_job *job);

/* -- idempotency (keys.c) ------------------------------------------------------------------ */

struct keys *keys_create(void);
void keys_destroy(struct keys *keys);
/** Before the handler. True: go on (and keys_end() afterwards); false: the outcome is the
    replayed one, KEY_REUSED or KEY_BUSY. No key in the request: true. */
bool keys_begin(struct call *call);
void keys_put(struct call *call, struct clerk_turn *turn); /* by call_settle() */
void keys_end(struct call *call);

#endif

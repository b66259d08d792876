/* api/api.h - the face of api/: a call comes in as bytes, its outcome goes out.
 *
 * Knows no HTTP number and no socket. Every function may be called from any thread; those
 * that wait have a deadline and end when the service stops.
 */
#ifndef API_API_H
#define API_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/fault.h"
#include "replica/base/uuid.h"

struct service;

struct api_pool {
    const char *name, *path;
};

/** Borrowed for service_create() but texts, which must outlive the service. */
struct api_options {
    const char *data_directory; /* the database, sidecars, the initiator's name */
    const struct api_pool *pools; /* the first is the default */
    size_t pool_count;
    const char *const
            *allow_portals; /* "ADDR[/BITS][:PORT]"; on top of loopback's default
                                         only when none is given */
    size_t allow_count;
    const char *credentials; /* directory; NULL: none */
    const char *initiator_name; /* NULL: made once and kept */
    const char *iqn_prefix; /* of exports' target names */
    unsigned connect_timeout_ms, io_timeout_ms;
    unsigned workers; /* loops; 0: one per core */
    unsigned max_jobs; /* running at once; 0: the default, 4 */
    uint64_t bandwidth_limit; /* bytes a second of all copies together; 0: none */
    unsigned retention_days; /* 0: 30 */
    uint64_t retention_rows; /* 0: 100,000 */
};

/**
 * Open the store, start the engine and the clerk, recover: every job that is not over is
 * queued again, no transient state is left without one. Owned by the caller,
 * service_destroy(). NULL with @fault.
 */
struct service *service_create(const struct api_options *options, struct fault *fault);

/** Wake everybody who waits here and let no new call wait; readiness fails from now on. */
void service_drain(struct service *service);

/** A new bandwidth limit of all copies together, from now on. Any thread. */
void service_limit(struct service *service, uint64_t limit);

/**
 * Wait for what copies have under way to end, behind service_drain(), which it calls. False:
 * some device has not ended it in the I/O timeout and half a minute; service_destroy() would
 * wait for it, however long that takes. NULL is fine.
 */
bool service_settle(struct service *service);

/** After service_drain() and when no call is under way. Jobs keep their watermarks. */
void service_destroy(struct service *service);

/** One row a call: CALL(symbol, method name, kind). */
enum api_call {
#define CALL(symbol, method, kind) API_##symbol,
#include "api/calls.tbl.h"
#undef CALL
    API_CALL_COUNT
};

/** How it went; server/http/status.c turns it into a number. One row a verdict. */
enum api_verdict {
#define VERDICT(symbol, slug, title) API_##symbol,
#include "api/verdicts.tbl.h"
#undef VERDICT
    API_VERDICT_COUNT
};

struct api_parameter {
    const char *name, *value; /* decoded, NUL-terminated, valid UTF-8 */
};

/** Borrowed for the call. NULL: not there. */
struct api_request {
    enum api_call call;
    const char *id; /* {id} of the path, as it came */
    const char *body; /* bytes, not NUL-terminated */
    size_t length;
    const struct api_parameter *query;
    size_t query_count;
    const char *if_match, *if_none_match; /* header values */
    const char *idempotency_key;
    int prefer_wait_s; /* -1: not asked; capped at 60 */
    const char *caller, *request_id;
};

struct api_problem; /* an error in words; rendered by api_problem_render() */

/** Filled by api_serve(); api_outcome_release() when done with it. */
struct api_outcome {
    enum api_verdict verdict;
    int return_value; /* -1: the method was not reached or it is no method */
    char *body; /* JSON text; NULL when @problem is set or there is none */
    size_t length;
    struct api_problem *problem;
    char location[80]; /* path, "" none */
    char etag[64]; /* with quotes, "" none */
    char next[512]; /* path of the next page, "" none */
    unsigned retry_after; /* seconds, 0 none */
    int waited_s; /* what of prefer_wait_s was honoured; -1: not asked */
    bool replayed; /* Idempotent-Replayed */
};

/** Serve one call: may block on the clerk, on a probe, or on a wait asked for. */
void api_serve(struct service *service, const struct api_request *request,
        struct api_outcome *outcome);

void api_outcome_release(struct api_outcome *outcome);

/**
 * The body of an error as application/problem+json (RFC 9457). @status is the caller's
 * number, written as it is. Owned by the caller, free(). NULL: out of memory.
 */
char *api_problem_render(const struct api_outcome *outcome, int status,
        const char *request_id, size_t *length);

/** The same for an error that never reached a call. @slug, @title: short words. */
char *api_problem_plain(const char *slug, const char *title, int status,
        const char *detail, const char *request_id, size_t *length);

/* -- exports: what is served over iSCSI, by whom ------------------------------------------ */

struct engine;
struct engine_element;
struct block_chap;

/** What is to be served. Borrowed for the call. */
struct api_export {
    struct uuid id; /* of the element */
    const struct engine_element *element;
    const char *const *initiators; /* iSCSI names, lower case; "*": all */
    size_t initiator_count;
    const struct block_chap *chap; /* NULL: no login is asked for */
    bool read_only;
    bool resumed; /* hosts wrote it before: some of that may still be under way */
    const uint8_t *kept; /* what service_keep() got before */
    size_t kept_length;
};

struct api_export_session {
    char initiator[224], address[64];
    int64_t since_ms; /* wall clock */
    unsigned queue_depth;
    uint64_t read_bytes, written_bytes;
};

/** Counters since it started; the first three are of now. */
struct api_export_figures {
    unsigned exports, sessions, connections;
    uint64_t commands, read_bytes, written_bytes, logins_refused, connections_dropped;
};

/**
 * Who serves. Filled by main; any thread but loops and the clerk's; may wait as long as opening
 * the element takes, but serves(), sessions(), portal() and figures(), which every thread may
 * ask.
 */
struct api_exporter {
    void *context;
    /** 0, or a negative errno with @fault: as engine_probe(), and -EINVAL (names, secrets),
        -EINPROGRESS (what was served has not ended yet), -ECANCELED. */
    int (*publish)(void *context, const struct api_export *export, struct fault *fault);
    /** 0, -ENOENT, -ETIMEDOUT. */
    int (*withdraw)(void *context, const struct uuid *id);
    /** Who may use what is served, with which credentials; all else is as it was published, and
        @element and @kept are not looked at. Held ready, in force with settle(); nothing changes
        yet. 0; -EINVAL (names, secrets), -ENOMEM, -ENOENT. */
    int (*change)(void *context, const struct api_export *export, struct fault *fault);
    /** What change() holds ready is in force, or forgotten (not @kept). Sessions of who still may
        go on; those of others have ended, commands first, when it returns, or it is logged. */
    void (*settle)(void *context, const struct uuid *id, bool kept);
    bool (*serves)(void *context, const struct uuid *id);
    /** Copies up to @room; returns how many there are. */
    size_t (*sessions)(void *context, const struct uuid *id,
            struct api_export_session *sessions, size_t room);
    /** The address of portal @index; false: no more. */
    bool (*portal)(void *context, unsigned index, char *text, size_t room);
    void (*figures)(void *context, struct api_export_figures *figures);
    /** A publish() of it that is under way on another thread gives up soon: -ECANCELED. Never
        waits. May be NULL. */
    void (*cancel)(void *context, const struct uuid *id);
};

/** Before the first call is served; NULL: nobody. Borrowed until service_destroy(). */
void service_export_by(struct service *service, const struct api_exporter *exporter);

/** Publish what the rows say and nobody serves. Returns how many still are not: ask again. Several
    threads may ask: each takes what no other has in hand. Ends early when the service stops, and
    exporter->cancel() ends what it waits for. */
unsigned service_exports_resume(struct service *service);

/** Keep @length bytes (at most 16 KiB, 0: forget) for the exporter of @element, durable when
    @kept comes with 0, on another thread; it comes with a negative errno when nothing was kept,
    as of an element that has no export. Never blocks on I/O. 0, -ENOMEM, -E2BIG: @kept does not
    come. Any thread. */
int service_keep(struct service *service, const struct uuid *element,
        const uint8_t *bytes, size_t length, void (*kept)(void *context, int result),
        void *context);

/** The longest that opening an element takes by its own deadlines, milliseconds. Constant. */
unsigned service_opening_ms(const struct service *service);

/** The service's engine: loops and handles for who serves. */
struct engine *service_engine(struct service *service);

/* -- events -------------------------------------------------------------------------- */

struct api_event {
    int64_t number;
    const char *kind, *type; /* "InstCreation", "Job" */
    const char *data; /* one line of JSON */
};

/** Return false to stop. Borrowed for the call. */
typedef bool api_event_f(void *context, const struct api_event *event);

/**
 * Events after @after, waiting up to @ms for the first. *@reset: what was asked to replay is
 * gone (or from the future): nothing is delivered, go on from api_events_last(). Returns
 * events delivered, 0 on timeout, -ESHUTDOWN when the
 * service stops, -EIO.
 */
int api_events(struct service *service, int64_t after, unsigned ms, bool *reset,
        api_event_f *each, void *context);

/** Is it a Type that events have ("Job")? Case counts. */
bool api_event_type(const char *type, size_t length);

/** The newest event's number: where a stream without Last-Event-ID begins. */
int64_t api_events_last(struct service *service);

/* -- health and figures --------------------------------------------------------------- */

struct api_check {
    const char *name; /* "store", "clerk", "engine", "recovery", "draining" */
    bool ok;
};

/** Is the process able to move (clerk and loops turn)? No disk, no lock of long hold. */
unsigned api_live(struct service *service, struct api_check *checks, unsigned room);
/** Can it serve (store writable, recovery finished, not draining)? The same cost. */
unsigned api_ready(struct service *service, struct api_check *checks, unsigned room);

/** Figures as Prometheus text families, all but those of HTTP and the process. Owned by the
    caller, free(). NULL: out of memory or no reader in time. */
char *api_metrics(struct service *service, size_t *length);

#endif

/* replica/engine.h - the face of replica/: probe, make, clone, copy. What api/ sees.
 *
 * The engine runs what it is told and remembers nothing over a restart: its caller keeps
 * the facts (watermarks among them) and hands them back. It knows no CIM number, no JSON,
 * no SQL, and never who asked.
 *
 * Threads: every function here may be called from any thread unless it says otherwise.
 * Events arrive on the engine's loops, one callback for all of them: it must only queue.
 */
#ifndef REPLICA_ENGINE_H
#define REPLICA_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/fault.h"
#include "replica/base/uuid.h"
#include "replica/block/address.h"
#include "replica/block/open.h"
#include "replica/copy/differences.h"

struct engine;
struct engine_event;

typedef void engine_event_f(void *context, const struct engine_event *event);

struct engine_pool {
    const char *name;
    const char *
            path; /* the engine opens it once, at its creation, and makes it if missing */
};

/** Borrowed for engine_create(). */
struct engine_options {
    unsigned loops; /* worker threads; 0: one per core */
    const struct engine_pool *pools;
    size_t pool_count;
    const struct portal_rule *allow; /* portals that may be spoken to */
    size_t allow_count;
    const char *credentials; /* path of the directory of credential files; NULL: none */
    const char *state_directory; /* path where digest sidecars live, in the directory
                                    "digests", made if missing; NULL: none are kept */
    const char *initiator; /* our iSCSI name */
    unsigned connect_timeout_ms, io_timeout_ms;
    unsigned
            recovery_ms; /* how long a lost device is tried again before its copy fails */
    unsigned stall_ms; /* without a byte moved, that a plan is told to stall; 0: 10 s */
    uint64_t limit; /* bytes a second of all plans together; 0: none */
    engine_event_f *event;
    void *context;
};

/** Owned by the caller, engine_destroy(). NULL with @fault when threads or memory lack. */
struct engine *engine_create(const struct engine_options *options, struct fault *fault);

/** Nothing starts any more (-ESHUTDOWN), running copies begin to drain, and what is being opened
    is given up where it waits for a far side, as is what would be opened later
    (-ECANCELED): the half of engine_drain() that does not wait, for who has callers of
    engine_probe() to wait for first. NULL is fine. */
void engine_shut(struct engine *engine);

/** engine_shut(), then drains running copies to their next watermark and sends their last
    events, for @ms at most; 0: however long it takes. False: some device still has not ended
    what is under way, which for a LUN is bounded by the I/O timeout, and for a file by nothing.
    What asks for files and figures goes on, for who has the last events to write down. NULL is
    fine. */
bool engine_drain(struct engine *engine, unsigned ms);

/** engine_drain(), however long it takes, then ends the threads. NULL is fine. */
void engine_destroy(struct engine *engine);

/** An element as the engine sees it. A value. */
struct engine_element {
    char address[512]; /* canonical: "pool:NAME/FILE" or "iscsi://..." */
    char credentials[65]; /* name of a credentials file, "" none */
    uint64_t offset; /* a window of what is addressed: an extent; else 0 */
    uint64_t size; /* bytes; 0: all of it, whatever it is found to be */
    uint64_t whole; /* bytes of all that is addressed; 0: unknown. Another: -ESTALE */
    uint32_t block_size; /* files: 1 or 512; LUNs: ignored, they say it themselves */
    char world[BLOCK_IDENTITY_MAX]; /* LUNs: who it was; "" unknown. Another: -ESTALE */
};

struct engine_found {
    uint64_t size; /* bytes of the element (of the window, when it has one) */
    uint64_t whole; /* bytes of all that is addressed */
    uint32_t block_size;
    bool thin, read_only;
    struct block_identity identity;
};

/**
 * Open the element, learn what it is, close it. @writable: as a copy's target, so a lock or
 * a foreign reservation shows (-EBUSY; -EBADE). Blocks up to connect timeout + 3 x I/O
 * timeout; not on a loop. Faults as block_open(), and -EPERM: the portal is not allowed,
 * -ENOKEY: the credentials file is missing or its mode is not 0600.
 */
int engine_probe(struct engine *engine, const struct engine_element *element,
        bool writable, struct engine_found *found, struct fault *fault);

enum engine_work {
    ENGINE_COPY, /* every block; zeros may be skipped where the target is proven zero */
    ENGINE_DELTA, /* compare, by digests where they can be trusted; write what differs */
    ENGINE_VERIFY, /* read both, write nothing; ends -EILSEQ when not all is equal */
    ENGINE_HOLD, /* open both ends, check them, keep them open until engine_stop() */
};

/** What to do. A value; the caller keeps it and gives it again after a stop or a crash. */
struct engine_plan {
    struct uuid id; /* the caller's name for it; at most one running plan a name */
    struct uuid pair; /* names the digest sidecar of @target; none: no sidecar */
    bool forget; /* no digests are kept: the pair's sidecar is only removed */
    enum engine_work work;
    struct engine_element source, target;
    bool target_zero; /* the target is fresh: nothing but zeros was ever there */
    bool resumed; /* writes of a run before, or of others, may be under way: fence the
                     target */
    bool verify; /* read back and compare after the copy */
    uint64_t watermark; /* start here; bytes, as the last event said */
    uint64_t verified; /* the reading back goes on here, as the last event said; or 0 */
    struct differences differences; /* found below, as the last event said */
    uint64_t skipped, equal, written, read; /* counters carried on */
    uint64_t limit; /* bytes a second; 0: none */
    struct uuid pipe; /* plans of one name share its limit; none: no pipe */
    uint64_t pipe_limit; /* bytes a second; 0: none. The latest plan's is the pipe's */
    unsigned priority; /* 0 most urgent .. 3; shares of a loop, and of shared limits */
};

/** Ring: start it. Answers by events only. 0, or -EALREADY (that id runs), -EMFILE, -ENOMEM,
    -ESHUTDOWN. */
int engine_start(struct engine *engine, const struct engine_plan *plan);

enum engine_stop {
    ENGINE_DRAIN, /* finish what is in flight, flush, keep the watermark */
    ENGINE_DROP /* as soon as it can be: what is in flight is abandoned; watermark as flushed */
};

/** Its ENDED event says STOPPED, or how it ended before. -ESRCH when no such plan runs. */
int engine_stop(struct engine *engine, const struct uuid *id, enum engine_stop how);

/** As engine_stop(), and waits up to @ms for the end. 0, -ESRCH or -ETIMEDOUT. */
int engine_stop_wait(struct engine *engine, const struct uuid *id, enum engine_stop how,
        unsigned ms);

/** New limit in bytes a second, 0 none; takes effect within one window. -ESRCH. */
int engine_limit(struct engine *engine, const struct uuid *id, uint64_t limit);

/** The same of a pipe, for all plans that run over it; and of all plans together. No plan need
    run. */
void engine_pipe_limit(struct engine *engine, const struct uuid *pipe, uint64_t limit);
void engine_whole_limit(struct engine *engine, uint64_t limit);

/** New priority of a plan, as engine_limit(). */
int engine_priority(struct engine *engine, const struct uuid *id, unsigned priority);

/** What a plan's time goes into: reading, writing, or waiting for a limit to allow more. */
enum engine_limited {
    ENGINE_LIMITED_NONE, /* not known yet, or nothing moves */
    ENGINE_LIMITED_SOURCE,
    ENGINE_LIMITED_TARGET,
    ENGINE_LIMITED_BANDWIDTH
};

enum engine_mode {
    ENGINE_MODE_NONE,
    ENGINE_MODE_FULL,
    ENGINE_MODE_DELTA_DIGEST,
    ENGINE_MODE_DELTA_COMPARE
};

enum engine_event_kind {
    ENGINE_STARTED, /* both ends are open, checked, and bytes move; after WAITING again */
    ENGINE_PROGRESS, /* at most twice a second a plan; @watermark is flushed */
    ENGINE_WAITING, /* a device was lost; it is tried again until recovery_ms ran out */
    ENGINE_HELD, /* HOLD: both ends are open */
    ENGINE_ENDED /* exactly one a started plan, the last */
};

enum engine_end { ENGINE_DONE, ENGINE_STOPPED, ENGINE_FAILED };

struct engine_event {
    enum engine_event_kind kind;
    struct uuid id;
    enum engine_mode mode;
    uint64_t total; /* bytes of the source */
    uint64_t done; /* bytes dealt with, skipped ones too; <= total; only grows. With
                           @verify a byte is half done until it is read back */
    uint64_t skipped; /* of these not written: zero or equal */
    uint64_t equal; /* of the skipped: found equal, by comparing or by digest */
    uint64_t read; /* from both ends, by this plan and those it carries on */
    uint64_t written; /* bytes sent to the target by write */
    uint64_t watermark; /* all below is flushed on the target; VERIFY: is compared */
    uint64_t verified; /* all below was read back and compared */
    struct differences differences; /* found below that */
    uint64_t rate; /* bytes a second over the last seconds */
    enum engine_limited limited; /* over the same seconds */
    uint64_t
            stalled_ms; /* since a byte moved, if that is longer than stall_ms; else 0 */
    char stall[256]; /* why, in words; "" when it does not stall */
    enum engine_end end; /* ENDED */
    bool on_target; /* ENDED failed: the target was at fault, else the source */
    bool loose; /* ENDED: writes that were given up may still be carried out on the target,
                   until somebody fences it: the next plan that writes it is @resumed */
    struct fault fault; /* ENDED failed, WAITING: why; words of the device */
};

/** What is known of the pair's target is not true any more: somebody else may write it, or the
    pair is gone. Durable when it returns; a plan that runs keeps nothing. Blocks as a
    commit does; not on a loop. 0 or a negative errno. */
int engine_pair_forget(struct engine *engine, const struct uuid *pair);

/* -- elements kept open for somebody else than a copy -------------------------------- */

struct engine_handle;

/** @device: the caller's, to use and block_close() on the handle's loop; NULL with @fault. */
typedef void engine_opened_f(
        void *context, struct block_device *device, const struct fault *fault);

/** A loop of the engine; NULL: @index is too large. It runs until engine_destroy(). */
struct loop *engine_loop(struct engine *engine, unsigned index);

/**
 * A handle on the loop with the least to do, whose number is *@loop. Owned by the caller;
 * engine_destroy() waits for engine_handle_destroy(), before which the device is closed. NULL:
 * no memory.
 */
struct engine_handle *engine_handle_create(struct engine *engine,
        const struct engine_element *element, bool writable, unsigned *loop);
void engine_handle_destroy(struct engine_handle *handle);

/** Open it, at most one opening at a time, on the handle's loop; faults as engine_probe().
    @again: an earlier opening was lost, and may have writes under way. @opened comes on the
    loop, never from inside. */
void engine_handle_open(struct engine_handle *handle, bool again,
        engine_opened_f *opened, void *context);

/** What the credentials file @name holds; the caller wipes it. Blocks for a file. 0 or -ENOKEY. */
int engine_credentials(struct engine *engine, const char *name, struct block_chap *chap,
        struct fault *fault);

/** Watchdog for /livez: the longest that a loop has not turned, in milliseconds. */
uint64_t engine_stalled_ms(struct engine *engine);

/** Loops, running plans, bytes read and written since start. For /metrics. */
struct engine_figures {
    unsigned loops, plans;
    uint64_t read_bytes, written_bytes, skipped_bytes, reopened;
};
void engine_figures(struct engine *engine, struct engine_figures *figures);

/** Pool files, blocking, off the loops; named by pool and file as in an address. -ENXIO: no
    such pool. See block/pool.h for the rest. */
int engine_file_create(struct engine *engine, const char *pool, const char *name,
        uint64_t size, bool reserve, struct fault *fault);
int engine_file_clone(struct engine *engine, const char *source_address,
        const char *pool, const char *name, uint64_t size, struct fault *fault);
int engine_file_remove(
        struct engine *engine, const char *pool, const char *name, struct fault *fault);

struct engine_pool_figures {
    uint64_t total, remaining; /* bytes of the file system, and free for us */
    bool can_clone; /* by reflink, tried once at start */
};
int engine_pool_figures(
        struct engine *engine, const char *pool, struct engine_pool_figures *figures);

#endif

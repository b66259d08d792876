/* replica/engine_inside.h - what the files of the engine share; nobody else includes it.
 *
 * Threads: a lane is a loop and its thread. A runner (one plan's life) belongs to its lane
 * from engine_start() to the end; other threads only leave wishes in the fields under the
 * engine's lock and post the runner's task. The lock is never held over a callback.
 */
#ifndef REPLICA_ENGINE_INSIDE_H
#define REPLICA_ENGINE_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "replica/copy/throttle.h"
#include "replica/engine.h"
#include "replica/loop/loop.h"

struct runner;
struct end;

/** Opens one end; end_open(), but for tests of the runner. */
typedef void end_open_f(struct end *end, const struct engine_element *element,
        bool writable, bool barrier);

struct lane {
    struct engine *engine;
    struct loop *loop;
    pthread_t thread;
    bool running;
    unsigned load; /* under the lock: plans and probes placed here */
    struct loop_task shutting; /* runs ends_shut(), once */
    struct end *openings; /* the lane's thread */
    bool shut; /* likewise: nothing is opened any more */
    unsigned copies; /* likewise: that are under way */
};

struct pool {
    char *name;
    int directory;
    bool can_clone;
};

/** A limit that running plans share. In engine_limits.c. */
struct engine_pipe {
    struct engine_pipe *next;
    struct uuid id;
    unsigned users;
    struct meter meter;
};

struct engine {
    /* constant */
    unsigned connect_timeout_ms, io_timeout_ms, recovery_ms, stall_ms;
    engine_event_f *event;
    void *context;
    char initiator[ISCSI_NAME_MAX];
    int credentials; /* directory; -1: none */
    int digests; /* directory of the sidecars; -1: none */
    struct pool *pools;
    size_t pool_count;
    struct portal_rule *allow;
    size_t allow_count;
    end_open_f *open;
    struct lane *lanes;
    unsigned lane_count;
    uint64_t isid_base;

    struct meter meter; /* of all plans together; set under the lock */
    _Atomic uint64_t isid_next;
    _Atomic uint64_t read_bytes, written_bytes, skipped_bytes, reopened;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a runner or a probe ended; CLOCK_MONOTONIC */
    struct runner *runners; /* under the lock */
    struct engine_pipe *pipes; /* under the lock; those that running plans use */
    unsigned plans, probes; /* under the lock */
    bool closing; /* under the lock: nothing new starts */
};

/** The lane with the least to do, its load raised by one. Under the lock. In engine.c. */
struct lane *lane_take(struct engine *engine);
void lane_give(struct lane *lane);

/** A session id that no live handle of this process has. Any thread. */
uint64_t engine_isid(struct engine *engine);

/** NULL when no pool has that name. */
const struct pool *engine_pool_find(const struct engine *engine, const char *name);

/** Opens and copies what @options name; engine_pools_close() undoes it, half done too. In
    engine_files.c. */
int engine_pools_open(struct engine *engine, const struct engine_options *options,
        struct fault *fault);
void engine_pools_close(struct engine *engine);

/** The pipe's meter, held until pipe_give(); *@pipe NULL when @id is none. Under the lock.
    False: no memory. In engine_limits.c. */
bool pipe_take(struct engine *engine, const struct uuid *id, uint64_t limit,
        struct engine_pipe **pipe);
void pipe_give(struct engine *engine, struct engine_pipe *pipe);

/** The plan of that name that is not over. Under the lock. In engine.c. */
struct runner *engine_find(struct engine *engine, const struct uuid *id);

#endif

/* replica/engine_limits.c - how fast plans may go, and which first: changed while they run.
 *
 * A meter is read by the copies without the lock; who sets it holds it, and wakes those that
 * wait for what was.
 */
#include <errno.h>
#include <stdlib.h>

#include "replica/base/check.h"
#include "replica/runner.h"

/* -- pipes --------------------------------------------------------------------------- */

static struct engine_pipe *pipe_find(struct engine *engine, const struct uuid *id)
{
    struct engine_pipe *pipe = engine->pipes;

    while (pipe && !uuid_equal(&pipe->id, id))
        pipe = pipe->next;
    return pipe;
}

static void runners_nudge(struct engine *engine, const struct engine_pipe *pipe)
{
    for (struct runner *r = engine->runners; r; r = r->next)
        if (!r->over && (!pipe || r->pipe == pipe)) {
            r->nudge_wanted = true;
            runner_ring(r);
        }
}

static void pipe_set(struct engine *engine, struct engine_pipe *pipe, uint64_t limit)
{
    if (limit == atomic_load(&pipe->meter.limit))
        return;
    meter_set(&pipe->meter, limit, clock_monotonic());
    runners_nudge(engine, pipe);
}

bool pipe_take(struct engine *engine, const struct uuid *id, uint64_t limit,
        struct engine_pipe **taken)
{
    struct engine_pipe *pipe;

    *taken = NULL;
    if (uuid_is_none(id))
        return true;
    pipe = pipe_find(engine, id);
    if (!pipe) {
        pipe = calloc(1, sizeof *pipe);
        if (!pipe)
            return false;
        pipe->id = *id;
        pipe->next = engine->pipes;
        engine->pipes = pipe;
    }
    pipe->users++;
    pipe_set(engine, pipe, limit);
    *taken = pipe;
    return true;
}

void pipe_give(struct engine *engine, struct engine_pipe *pipe)
{
    struct engine_pipe **link = &engine->pipes;

    if (!pipe || --pipe->users)
        return;
    while (*link != pipe)
        link = &(*link)->next;
    *link = pipe->next;
    free(pipe);
}

void engine_pipe_limit(struct engine *engine, const struct uuid *id, uint64_t limit)
{
    struct engine_pipe *pipe;

    pthread_mutex_lock(&engine->lock);
    pipe = pipe_find(engine, id);
    if (pipe)
        pipe_set(engine, pipe, limit);
    pthread_mutex_unlock(&engine->lock);
}

/* -- all, and one -------------------------------------------------------------------- */

void engine_whole_limit(struct engine *engine, uint64_t limit)
{
    pthread_mutex_lock(&engine->lock);
    meter_set(&engine->meter, limit, clock_monotonic());
    runners_nudge(engine, NULL);
    pthread_mutex_unlock(&engine->lock);
}

int engine_limit(struct engine *engine, const struct uuid *id, uint64_t limit)
{
    struct runner *runner;

    pthread_mutex_lock(&engine->lock);
    runner = engine_find(engine, id);
    if (runner) {
        runner->limit = limit;
        runner->limit_wanted = true;
        runner_ring(runner);
    }
    pthread_mutex_unlock(&engine->lock);
    return runner ? 0 : -ESRCH;
}

int engine_priority(struct engine *engine, const struct uuid *id, unsigned priority)
{
    struct runner *runner;

    pthread_mutex_lock(&engine->lock);
    runner = engine_find(engine, id);
    if (runner) {
        runner->priority = priority;
        runner->priority_wanted = true;
        runner_ring(runner);
    }
    pthread_mutex_unlock(&engine->lock);
    return runner ? 0 : -ESRCH;
}

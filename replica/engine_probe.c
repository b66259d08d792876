/* replica/engine_probe.c - open an element on a lane, learn what it is, close it, for a
 * thread that waits, and may give up waiting: then the probe ends by itself. */
#include <errno.h>
#include <stdlib.h>

#include "replica/base/scope.h"
#include "replica/end.h"

enum { GRACE_MS = 1000 }; /* to close, on top of the device's own deadlines */

struct probe {
    struct engine *engine;
    struct lane *lane;
    struct loop_task task;
    struct engine_element element;
    bool writable;
    struct end end;

    /* under the engine's lock */
    bool finished, abandoned;
    struct fault fault;
    struct engine_found found;
};

static void probe_finish(struct probe *probe)
{
    struct engine *engine = probe->engine;
    bool abandoned;

    pthread_mutex_lock(&engine->lock);
    probe->fault = probe->end.fault;
    probe->found = probe->end.found;
    probe->finished = true;
    abandoned = probe->abandoned;
    lane_give(probe->lane);
    if (abandoned)
        engine->probes--;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    if (abandoned)
        free(probe);
}

static void probe_closed(void *context)
{
    probe_finish(context);
}

static void probe_opened(
        struct end *end, struct block_device *device, const struct fault *fault)
{
    struct probe *probe = container_of(end, struct probe, end);

    (void)fault; /* stays in the end */
    if (!device) {
        probe_finish(probe);
        return;
    }
    if (probe->writable && end->found.identity.foreign_reservation)
        fault_set(&end->fault, -EBADE, "somebody else holds a reservation on it");
    block_close(device, probe_closed, probe);
}

static void probe_run(struct loop_task *task)
{
    struct probe *probe = container_of(task, struct probe, task);

    probe->engine->open(&probe->end, &probe->element, probe->writable, false);
}

static struct probe *probe_create(
        struct engine *engine, const struct engine_element *element, bool writable)
{
    struct probe *probe = calloc(1, sizeof *probe);

    if (!probe)
        return NULL;
    probe->engine = engine;
    probe->element = *element;
    probe->writable = writable;
    probe->task.run = probe_run;
    return probe;
}

static struct timespec deadline_of(const struct engine *engine)
{
    uint64_t ms = (uint64_t)engine->connect_timeout_ms +
            3 * (uint64_t)engine->io_timeout_ms + GRACE_MS;

    return deadline_in(ms);
}

/* Under the lock. False: it was given up. */
static bool probe_wait(struct probe *probe)
{
    struct timespec deadline = deadline_of(probe->engine);
    int result = 0;

    while (!probe->finished && result != ETIMEDOUT)
        result = pthread_cond_timedwait(
                &probe->engine->changed, &probe->engine->lock, &deadline);
    return probe->finished;
}

int engine_probe(struct engine *engine, const struct engine_element *element,
        bool writable, struct engine_found *found, struct fault *fault)
{
    struct probe *probe = probe_create(engine, element, writable);

    if (!probe)
        return fault_set(fault, -ENOMEM, "out of memory");
    pthread_mutex_lock(&engine->lock);
    engine->probes++;
    probe->lane = lane_take(engine);
    end_init(&probe->end, engine, probe->lane->loop, "element");
    probe->end.done = probe_opened;
    loop_post(probe->lane->loop, &probe->task);
    if (!probe_wait(probe)) {
        probe->abandoned = true;
        pthread_mutex_unlock(&engine->lock);
        return fault_set(fault, -ETIMEDOUT, "it did not answer in time");
    }
    engine->probes--;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);

    int result = probe->fault.error;
    *found = probe->found;
    if (fault)
        *fault = probe->fault;
    free(probe);
    return result;
}

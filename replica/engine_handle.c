/* replica/engine_handle.c - an element kept open for somebody else than a copy: what the
 * iSCSI target serves. Its loop is chosen once; all openings happen there. */
#include <errno.h>
#include <stdlib.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/credentials.h"
#include "replica/end.h"

struct engine_handle {
    struct lane *lane;
    struct engine_element element;
    bool writable, opening;
    struct end end;
    engine_opened_f *opened;
    void *context;
};

struct loop *engine_loop(struct engine *engine, unsigned index)
{
    return index < engine->lane_count ? engine->lanes[index].loop : NULL;
}

static void handle_opened(
        struct end *end, struct block_device *device, const struct fault *fault)
{
    struct engine_handle *handle = container_of(end, struct engine_handle, end);

    handle->opening = false;
    handle->opened(handle->context, device, device ? NULL : fault);
}

struct engine_handle *engine_handle_create(struct engine *engine,
        const struct engine_element *element, bool writable, unsigned *loop)
{
    struct engine_handle *handle = calloc(1, sizeof(*handle));

    if (!handle)
        return NULL;
    pthread_mutex_lock(&engine->lock);
    handle->lane = lane_take(engine);
    engine->probes++;
    pthread_mutex_unlock(&engine->lock);
    handle->element = *element;
    handle->writable = writable;
    end_init(&handle->end, engine, handle->lane->loop, "element");
    handle->end.done = handle_opened;
    *loop = (unsigned)(handle->lane - engine->lanes);
    return handle;
}

void engine_handle_open(struct engine_handle *handle, bool again,
        engine_opened_f *opened, void *context)
{
    check(loop_is_mine(handle->lane->loop) && !handle->opening);
    handle->opening = true;
    handle->opened = opened;
    handle->context = context;
    handle->lane->engine->open(&handle->end, &handle->element, handle->writable,
            again && handle->writable);
}

void engine_handle_destroy(struct engine_handle *handle)
{
    struct engine *engine;

    if (!handle)
        return;
    check(!handle->opening);
    engine = handle->lane->engine;
    pthread_mutex_lock(&engine->lock);
    lane_give(handle->lane);
    engine->probes--;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    free(handle);
}

int engine_credentials(struct engine *engine, const char *name, struct block_chap *chap,
        struct fault *fault)
{
    return credentials_read(engine->credentials, name, chap, fault);
}

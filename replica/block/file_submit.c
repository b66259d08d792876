/* The file driver's queues, and the way that each request goes. */
#include <errno.h>
#include <string.h>

#include "replica/base/scope.h"
#include "replica/block/file_inside.h"

enum {
    NOW_MAX = 128 << 10, /* bytes of a request that is done at once, out of a cache */
    NOW_TURN = 4 << 20, /* bytes done at once in one turn of the loop: under a ms */
};

/* -- queues ------------------------------------------------------------------------ */

static void queue_add(struct file_queue *queue, struct block_request *request)
{
    request->next = NULL;
    *queue->end = request;
    queue->end = &request->next;
}

static struct block_request *queue_take(struct file_queue *queue)
{
    struct block_request *request = queue->first;

    if (!request)
        return NULL;
    queue->first = request->next;
    if (!queue->first)
        queue->end = &queue->first;
    request->next = NULL;
    return request;
}

/* -- answers ----------------------------------------------------------------------- */

static int answer_of(int error)
{
    switch (error) {
    case -EDQUOT:
    case -EFBIG:
        return -ENOSPC;
    case -ENOMEM:
    case -EAGAIN:
        return -EIO;
    default:
        return error;
    }
}

/* What the end of a call means for the device. Returns what its requests are told. */
static int call_over(const struct file_call *call)
{
    struct file_device *file = call->device;

    if (call->error < 0 && call->error != -ENODATA) /* no fault: block_can_copy() */
        block_set_words(
                &file->base, "%s: %s", call->what, strerrordesc_np(-call->error));
    if (call->stabilises)
        file->sync_running = false;
    if (call->lost) {
        file->base.broken = true;
        file->lost_error = answer_of(call->error);
    }
    return answer_of(call->error);
}

/* -- at once ----------------------------------------------------------------------- */

/* What this thread has copied in this turn of its loop, over all its devices. */
static bool turn_has_room(struct loop *loop, uint64_t length)
{
    static _Thread_local struct {
        const struct loop *loop;
        struct instant began;
        uint64_t copied;
    } turn;
    struct instant now = loop_now(loop);

    if (turn.loop != loop || turn.began.ns != now.ns) {
        turn.loop = loop;
        turn.began = now;
        turn.copied = 0;
    }
    if (turn.copied + length > NOW_TURN)
        return false;
    turn.copied += length;
    return true;
}

static bool may_ask(const struct file_device *file, const struct block_request *request)
{
    return (request->op == BLOCK_READ && file->read_nowait) ||
            (request->op == BLOCK_WRITE && file->write_nowait);
}

/* The size is looked at once a turn: whoever shortens the file does it beside us, at any
   moment, anyway. */
bool file_shrank(struct file_call *call)
{
    struct file_device *file = call->device;
    struct instant now = loop_now(file->base.loop);

    if (file->measured.ns == now.ns)
        return false;
    if (file_call_shrank(call))
        return true;
    file->measured = now;
    return false;
}

/* False when it has yet to be done. */
static bool call_at_once(struct file_call *call)
{
    const struct file_device *file = call->device;
    enum block_op op = call->request->op;

    if (op != BLOCK_READ && op != BLOCK_FLUSH && file_shrank(call))
        return file->in_memory;
    call->measured = true;
    if (!file->in_memory)
        return file_call_now(call);
    file_call_run(call);
    return true;
}

/* Does the request where it does not wait for a disk: all of it, or nothing that counts. */
static bool done_at_once(
        struct file_device *file, struct block_request *request, bool syncs)
{
    struct file_call call = { .device = file, .request = request, .stabilises = syncs };

    if (request->op == BLOCK_EXTENTS)
        return false;
    if (!file->in_memory &&
            (syncs || request->length > NOW_MAX || !may_ask(file, request)))
        return false;
    if (syncs && (file->sync_running || file->syncing.first))
        return false; /* one at a time, in order */
    if (!turn_has_room(file->base.loop, request->length))
        return false;
    if (!call_at_once(&call))
        return false;
    block_done_later(request, call_over(&call));
    return true;
}

/* -- lanes ------------------------------------------------------------------------- */

static void device_pump(struct file_device *file);

/* A flush holds all the requests that it served, linked by next. */
void file_lane_finish(struct file_lane *lane)
{
    struct file_device *file = lane->call.device;
    struct block_request *request = lane->call.request;
    int result = call_over(&lane->call);

    (*(lane->pooled ? &file->pool_running : &file->ring_running))--;
    lane->next = file->free_lanes;
    file->free_lanes = lane;
    device_pump(file); /* first: the kernel works while the answers are heard */
    while (request) {
        struct block_request *next = request->next;
        request->next = NULL;
        block_done(request, result); /* may ask to close, which is never at once */
        request = next;
    }
}

static void lane_work(struct loop_work *work)
{
    file_call_run(&container_of(work, struct file_lane, work)->call);
}

static void lane_done(struct loop_work *work)
{
    file_lane_finish(container_of(work, struct file_lane, work));
}

static void pool_start(struct file_lane *lane)
{
    lane->pooled = true;
    lane->call.device->pool_running++;
    loop_work_start(lane->call.device->base.loop, &lane->work);
}

void file_lane_pool(struct file_lane *lane)
{
    lane->call.error = 0;
    lane->call.device->ring_running--;
    pool_start(lane);
}

static void ring_start(struct file_lane *lane)
{
    lane->call.device->ring_running++;
    file_ring_start(lane);
}

static struct file_lane *lane_take(
        struct file_device *file, struct block_request *request, bool stabilises)
{
    struct file_lane *lane = file->free_lanes;

    file->free_lanes = lane->next;
    lane->call = (struct file_call){
        .device = file, .request = request, .stabilises = stabilises
    };
    lane->other_way = lane->pooled = false;
    file->sync_running |= stabilises;
    return lane;
}

/* The next request that stabilises, and behind a flush all the flushes that follow it. */
static struct block_request *sync_take(struct file_device *file)
{
    struct block_request *first = queue_take(&file->syncing), *last = first;

    while (first->op == BLOCK_FLUSH && file->syncing.first &&
            file->syncing.first->op == BLOCK_FLUSH)
        last = last->next = queue_take(&file->syncing);
    return first;
}

/* What waits on a device that broke is told so without asking the kernel again. What asks
   for stable bytes is told what befell them: -ENOTCONN would say that another try may do,
   which the kernel would then answer with success for what it has lost. */
static void device_give_up(struct file_device *file)
{
    struct block_request *request;

    while ((request = queue_take(&file->syncing)))
        block_done_later(request, file->lost_error);
    while ((request = queue_take(&file->ringed)) ||
            (request = queue_take(&file->pooled)))
        block_done_later(request, -ENOTCONN);
}

static bool pool_has_room(const struct file_device *file)
{
    return file->pool_running < POOL_LANES && file->free_lanes;
}

static bool ring_has_room(const struct file_device *file)
{
    return file->ring_running < RING_LANES && file->free_lanes;
}

static void sync_pump(struct file_device *file)
{
    if (file->sync_running || !file->syncing.first)
        return;
    if (file->ring && ring_has_room(file))
        ring_start(lane_take(file, sync_take(file), true));
    else if (!file->ring && pool_has_room(file))
        pool_start(lane_take(file, sync_take(file), true));
}

static void device_pump(struct file_device *file)
{
    if (file->base.broken)
        device_give_up(file);
    sync_pump(file);
    while (file->ringed.first && ring_has_room(file))
        ring_start(lane_take(file, queue_take(&file->ringed), false));
    while (file->pooled.first && pool_has_room(file))
        pool_start(lane_take(file, queue_take(&file->pooled), false));
}

static bool ring_knows(enum block_op op)
{
    return op != BLOCK_EXTENTS && op != BLOCK_FORGET;
}

static struct file_queue *queue_for(
        struct file_device *file, const struct block_request *request, bool syncs)
{
    if (syncs)
        return &file->syncing;
    return file->ring && ring_knows(request->op) ? &file->ringed : &file->pooled;
}

void file_submit(struct block_device *base, struct block_request *request)
{
    struct file_device *file = container_of(base, struct file_device, base);
    bool syncs = request->op == BLOCK_FLUSH ||
            ((request->flags & BLOCK_FUA) &&
                    (request->op == BLOCK_WRITE || request->op == BLOCK_ZERO));

    if (done_at_once(file, request, syncs))
        return;
    queue_add(queue_for(file, request, syncs), request);
    device_pump(file);
}

void file_lanes_init(struct file_device *file)
{
    file->syncing.end = &file->syncing.first;
    file->ringed.end = &file->ringed.first;
    file->pooled.end = &file->pooled.first;
    for (unsigned i = 0; i < sizeof file->lanes / sizeof *file->lanes; i++) {
        struct file_lane *lane = &file->lanes[i];
        lane->work = (struct loop_work){ .work = lane_work, .done = lane_done };
        lane->answer.done = file_ring_answer;
        lane->next = file->free_lanes;
        file->free_lanes = lane;
    }
}

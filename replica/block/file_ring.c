/* The file driver's calls by io_uring. The same steps as in file_calls.c, but each begins
 * where the answer to the last one is heard. */
#include <errno.h>
#include <limits.h>

#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/file_inside.h"

/* Longer copies are made by the kernel's threads: on the loop they would hold up
   whatever else it has to do, and use one core where there may be two. */
enum { APART_FROM = 128 << 10 };

static bool transfer(struct file_lane *lane)
{
    struct file_call *call = &lane->call;
    const struct block_request *request = call->request;
    struct uring_transfer what = { .fd = call->device->fd,
        .write = request->op == BLOCK_WRITE,
        .stable = call->stabilises,
        .apart = request->length > APART_FROM,
        .iov = request->iov,
        .iovcnt = request->iovcnt < IOV_MAX ? request->iovcnt : IOV_MAX,
        .offset = request->offset + call->done };

    if (call->done > 0) {
        what.iov = lane->window;
        what.iovcnt = file_call_window(call, lane->window, LANE_WINDOW);
    }
    return uring_transfer(call->device->ring, &lane->answer, &what);
}

static bool allocate(struct file_lane *lane)
{
    const struct block_request *request = lane->call.request;

    return uring_allocate(lane->call.device->ring, &lane->answer, lane->call.device->fd,
            file_call_mode(&lane->call, lane->other_way), request->offset,
            request->length);
}

static bool sync_file(struct file_lane *lane)
{
    return uring_sync(lane->call.device->ring, &lane->answer, lane->call.device->fd);
}

static bool next_step(struct file_lane *lane)
{
    const struct file_call *call = &lane->call;

    switch (call->request->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return transfer(lane);
    case BLOCK_FLUSH:
        return sync_file(lane);
    default: /* zero or discard, and then it is made stable where that is asked */
        return call->done == 0 ? allocate(lane) : sync_file(lane);
    }
}

static void go_on(struct file_lane *lane)
{
    if (!next_step(lane))
        file_lane_pool(lane);
}

void file_ring_start(struct file_lane *lane)
{
    /* A file that shrank is for the pool to find: an answer must not come from here. */
    if (lane->call.request->op != BLOCK_READ && lane->call.request->op != BLOCK_FLUSH &&
            file_shrank(&lane->call))
        file_lane_pool(lane);
    else
        go_on(lane);
}

/* Not the file's answer but io_uring's own: it could not begin, or was disturbed. */
static bool is_disturbance(int result)
{
    return result == -EINTR || result == -EAGAIN || result == -ECANCELED;
}

/* True when there is more to do. */
static bool hear_transfer(struct file_call *call, int result)
{
    bool write = call->request->op == BLOCK_WRITE;

    if (result > 0) {
        call->done += (unsigned)result;
        return call->done < call->request->length;
    }
    if (result == 0 && !write) /* the end, which was further on at open */
        file_call_fail(call, "the file is shorter than it was", -ESTALE);
    else
        file_call_fail(call, write ? "write" : "read", result ? result : -EIO);
    call->lost = call->stabilises;
    return false;
}

static bool hear_zero(struct file_lane *lane, int result)
{
    struct file_call *call = &lane->call;

    if (result == -EOPNOTSUPP && call->request->op == BLOCK_ZERO && !lane->other_way)
        return lane->other_way = true;
    if (result < 0)
        return file_call_fail(call, "fallocate", result) == 0;
    call->done = call->request->length;
    return call->stabilises;
}

static bool hear_sync(struct file_call *call, int result)
{
    if (result < 0)
        file_call_fail(call, "fdatasync", result);
    call->lost = result < 0;
    return false;
}

static bool hear(struct file_lane *lane, int result)
{
    struct file_call *call = &lane->call;

    switch (call->request->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return hear_transfer(call, result);
    case BLOCK_FLUSH:
        return hear_sync(call, result);
    default:
        return call->done == 0 ? hear_zero(lane, result) : hear_sync(call, result);
    }
}

void file_ring_answer(struct uring_call *answer, int result)
{
    struct file_lane *lane = container_of(answer, struct file_lane, answer);

    if (is_disturbance(result))
        file_lane_pool(lane);
    else if (hear(lane, result))
        go_on(lane);
    else
        file_lane_finish(lane);
}

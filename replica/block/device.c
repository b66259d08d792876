/* What every device has in common: the checks before a driver is called, the account of
 * what is in flight, and the words for a failure. */
#include "replica/block/device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"

/* One of them is needed. */
static const unsigned needed_caps[BLOCK_OP_COUNT] = {
    [BLOCK_ZERO] = BLOCK_CAN_ZERO | BLOCK_MAY_ZERO,
    [BLOCK_DISCARD] = BLOCK_CAN_DISCARD,
    [BLOCK_FORGET] = BLOCK_CAN_FORGET,
    [BLOCK_EXTENTS] = BLOCK_CAN_EXTENTS,
};

bool block_op_writes(enum block_op op)
{
    return op == BLOCK_WRITE || op == BLOCK_COPY || op == BLOCK_ZERO ||
            op == BLOCK_DISCARD;
}

static bool iov_sums_to(const struct block_request *request)
{
    uint64_t sum = 0;

    for (int i = 0; i < request->iovcnt; i++)
        if (!checked_add(sum, request->iov[i].iov_len, &sum))
            return false;
    return sum == request->length;
}

static void check_range(
        struct block_device *device, const struct block_request *request)
{
    check(range_inside(request->offset, request->length, device->size));
    check(request->offset % device->block_size == 0);
    check(request->length % device->block_size == 0);
    if (request->op == BLOCK_READ || request->op == BLOCK_WRITE)
        check(iov_sums_to(request));
    if (request->op == BLOCK_ZERO || request->op == BLOCK_DISCARD)
        check(device->max_zero == 0 || request->length <= device->max_zero);
    if (request->op == BLOCK_COPY)
        check(block_can_copy(device, request->from) &&
                range_inside(request->offset, request->length, request->from->size));
    if (request->op == BLOCK_EXTENTS)
        check(request->length > 0 && request->extents && request->extents_max > 0);
}

/* The answer that needs no driver, or 1. */
static int early_answer(
        const struct block_device *device, const struct block_request *request)
{
    unsigned needed = needed_caps[request->op];

    if (block_op_writes(request->op) && (device->caps & BLOCK_READ_ONLY))
        return -EROFS;
    if (needed && !(device->caps & needed))
        return -EOPNOTSUPP;
    if (device->broken)
        return -ENOTCONN;
    if (request->op != BLOCK_FLUSH && request->length == 0)
        return 0;
    return 1;
}

void block_submit(struct block_device *device, struct block_request *request)
{
    int answer;

    check(loop_is_mine(device->loop));
    check((unsigned)request->op < BLOCK_OP_COUNT && request->done);
    if (request->op != BLOCK_FLUSH)
        check_range(device, request);
    request->device = device;
    request->next = NULL;
    request->task.queued = false;
    request->slot = NULL;
    request->extents_count = 0;
    device->in_flight++;
    answer = early_answer(device, request);
    if (answer == 1)
        device->ops->submit(device, request);
    else
        block_done_later(request, answer);
}

bool block_can_copy(struct block_device *to, struct block_device *from)
{
    return to->loop == from->loop && to->ops == from->ops && to->ops->can_copy &&
            to->ops->can_copy(to, from);
}

void block_done(struct block_request *request, int result)
{
    struct block_device *device = request->device;

    check(result <= 0 && device->in_flight > 0 && loop_is_mine(device->loop));
    device->in_flight--;
    request->done(request, result);
}

static void run_done(struct loop_task *task)
{
    struct block_request *request = container_of(task, struct block_request, task);
    block_done(request, request->result);
}

void block_done_later(struct block_request *request, int result)
{
    request->result = result;
    request->task.run = run_done;
    loop_post(request->device->loop, &request->task);
}

struct block_request block_request_inner(const struct block_request *outer,
        void (*done)(struct block_request *inner, int result))
{
    return (struct block_request){
        .op = outer->op,
        .flags = outer->flags,
        .offset = outer->offset,
        .length = outer->length,
        .iov = outer->iov,
        .iovcnt = outer->iovcnt,
        .from = outer->from,
        .extents = outer->extents,
        .extents_max = outer->extents_max,
        .done = done,
    };
}

void block_close(
        struct block_device *device, void (*closed)(void *context), void *context)
{
    check(loop_is_mine(device->loop) && device->in_flight == 0);
    device->ops->close(device, closed, context);
}

const char *block_last_words(const struct block_device *device)
{
    return device->words;
}

void block_set_words(struct block_device *device, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(device->words, sizeof device->words, format, arguments);
    va_end(arguments);
}

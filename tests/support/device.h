/* tests/support/device.h - devices driven one request at a time, and opened and closed. */
#ifndef TESTS_SUPPORT_DEVICE_H
#define TESTS_SUPPORT_DEVICE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "replica/block/open.h"
#include "tests/support/drive.h"

/* A result that no device gives: the deadline passed. */
enum { DEVICE_NO_ANSWER = 1 };

struct device_call {
    struct block_request request;
    struct iovec iov; /* of device_call_start() */
    bool done;
    int result;
};

static inline void device_call_done(struct block_request *request, int result)
{
    struct device_call *call = container_of(request, struct device_call, request);
    call->done = true;
    call->result = result;
}

/** Submits what @call->request says, and turns the loop until its answer. */
static inline int device_call_run(struct block_device *device, struct device_call *call)
{
    call->done = false;
    call->request.done = device_call_done;
    block_submit(device, &call->request);
    if (call->done) {
        fprintf(stderr, "done() came from inside submit\n");
        abort();
    }
    return drive_until(device->loop, &call->done) ? call->result : DEVICE_NO_ANSWER;
}

/** Submits a request of one piece, which stays under way until @call->done. */
static inline void device_call_start(struct device_call *call,
        struct block_device *device, enum block_op op, uint64_t offset, void *bytes,
        uint64_t length)
{
    *call = (struct device_call){ .iov = { bytes, length },
        .request = { .op = op,
                .offset = offset,
                .length = length,
                .iov = &call->iov,
                .iovcnt = 1,
                .done = device_call_done } };
    block_submit(device, &call->request);
}

static inline int device_do(struct block_device *device, enum block_op op,
        uint64_t offset, void *bytes, uint64_t length, unsigned flags)
{
    struct iovec iov = { bytes, length };
    struct device_call call = { .request = { .op = op,
                                        .flags = flags,
                                        .offset = offset,
                                        .length = length,
                                        .iov = &iov,
                                        .iovcnt = 1 } };

    return device_call_run(device, &call);
}

static inline int device_read(
        struct block_device *device, uint64_t offset, void *to, uint64_t length)
{
    return device_do(device, BLOCK_READ, offset, to, length, 0);
}

static inline int device_write(
        struct block_device *device, uint64_t offset, void *from, uint64_t length)
{
    return device_do(device, BLOCK_WRITE, offset, from, length, 0);
}

static inline int device_flush(struct block_device *device)
{
    return device_do(device, BLOCK_FLUSH, 0, NULL, 0, 0);
}

static inline void device_set_flag(void *flag)
{
    *(bool *)flag = true;
}

/** Closes *@device and nulls it. False when the callback did not come. */
static inline bool device_close(struct block_device **device)
{
    struct loop *loop = (*device)->loop;
    bool closed = false;

    block_close(*device, device_set_flag, &closed);
    *device = NULL;
    return drive_until(loop, &closed);
}

struct device_opening {
    struct block_opening opening;
    struct block_device *device;
    struct block_identity identity;
    struct fault fault;
    bool done;
};

static inline void device_opened(struct block_opening *opening,
        struct block_device *device, const struct block_identity *identity,
        const struct fault *fault)
{
    struct device_opening *mine = container_of(opening, struct device_opening, opening);
    mine->device = device;
    mine->identity = *identity;
    mine->fault = *fault;
    mine->done = true;
}

/** Opens @spec and waits. NULL with @out->fault when it failed; @out may be NULL. */
static inline struct block_device *device_open(
        struct loop *loop, const struct block_spec *spec, struct device_opening *out)
{
    struct device_opening here;
    struct device_opening *mine = out ? out : &here;

    *mine = (struct device_opening){ .opening.done = device_opened };
    block_open(loop, spec, &mine->opening);
    if (mine->done) {
        fprintf(stderr, "done() came from inside block_open\n");
        abort();
    }
    if (!drive_until(loop, &mine->done))
        mine->fault.error = -ETIMEDOUT;
    return mine->device;
}

#endif

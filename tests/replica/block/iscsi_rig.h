/* tests/replica/block/iscsi_rig.h - LUNs opened and driven in tests of the iscsi driver. */
#ifndef TESTS_REPLICA_BLOCK_ISCSI_RIG_H
#define TESTS_REPLICA_BLOCK_ISCSI_RIG_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "replica/block/address.h"
#include "tests/support/device.h"
#include "tests/support/seed.h"
#include "tests/support/tgt.h"

#define RIG_TARGET "iqn.2026-11.test:a"

enum { RIG_KIB = 1024, RIG_MIB = 1 << 20, RIG_CALLS = 96 };

/** Of the LUN behind 127.0.0.1:@port, to be written; */
static inline struct block_spec rig_spec(uint16_t port, unsigned lun)
{
    struct block_spec spec = { .driver = BLOCK_DRIVER_iscsi,
        .writable = true,
        .lun = lun,
        .isid = 0x800000000001,
        /* far beyond what a loaded machine needs */
        .connect_timeout_ms = 30000,
        .io_timeout_ms = 60000 };
    char portal[BLOCK_PORTAL_TEXT];

    snprintf(portal, sizeof(portal), "127.0.0.1:%u", port);
    cr_assert(portal_parse(portal, 0, false, &spec.portal, NULL) == 0);
    strcpy(spec.target, RIG_TARGET);
    strcpy(spec.initiator, "iqn.2026-11.org.replicad:test");
    return spec;
}

static inline struct loop *rig_loop(void)
{
    struct loop *loop = loop_uv_create();

    cr_assert(loop);
    return loop;
}

/** Opens, or ends the test with the driver's words. */
static inline struct block_device *rig_open(
        struct loop *loop, const struct block_spec *spec)
{
    struct device_opening opening;
    struct block_device *device = device_open(loop, spec, &opening);

    cr_assert(device, "%d: %s", opening.fault.error, opening.fault.why);
    return device;
}

/** The same with a short deadline, which a loaded machine may miss: until one is met. */
static inline struct block_device *rig_open_in_time(
        struct loop *loop, const struct block_spec *spec)
{
    struct instant due = instant_add_ms(clock_monotonic(), 30000);
    struct device_opening opening;
    struct block_device *device;

    do
        device = device_open(loop, spec, &opening);
    while (!device && opening.fault.error == -ETIMEDOUT &&
            !instant_reached(clock_monotonic(), due));
    cr_assert(device, "%d: %s", opening.fault.error, opening.fault.why);
    return device;
}

/** Opens what must not open; returns the error. */
static inline int rig_refused(struct loop *loop, const struct block_spec *spec)
{
    struct device_opening opening;
    struct block_device *device = device_open(loop, spec, &opening);

    cr_assert(!device, "opened");
    cr_assert(opening.fault.why[0], "no words for %d", opening.fault.error);
    fprintf(stderr, "refused: %d, %s\n", opening.fault.error, opening.fault.why);
    return opening.fault.error;
}

/** Many requests at once, answered in any order. */
struct rig_batch {
    struct rig_call {
        struct block_request request;
        struct iovec iov;
        struct rig_batch *batch;
        int result;
        unsigned answers;
    } calls[RIG_CALLS];
    unsigned started, ended;
    bool done;
};

static inline void rig_call_done(struct block_request *request, int result)
{
    struct rig_call *call = container_of(request, struct rig_call, request);

    call->result = result;
    call->answers++;
    if (++call->batch->ended == call->batch->started)
        call->batch->done = true;
}

static inline void rig_start(struct rig_batch *batch, struct block_device *device,
        enum block_op op, uint64_t offset, void *bytes, uint64_t length)
{
    struct rig_call *call = &batch->calls[batch->started++];

    cr_assert(batch->started <= RIG_CALLS);
    batch->done = false;
    *call = (struct rig_call){ .batch = batch, .iov = { bytes, length } };
    call->request = (struct block_request){ .op = op,
        .offset = offset,
        .length = length,
        .iov = &call->iov,
        .iovcnt = 1,
        .done = rig_call_done };
    block_submit(device, &call->request);
}

/** Until all are answered; each exactly once. */
static inline void rig_finish(struct rig_batch *batch, struct loop *loop)
{
    cr_assert(drive_until(loop, &batch->done), "%u of %u answered", batch->ended,
            batch->started);
    for (unsigned i = 0; i < batch->started; i++)
        cr_assert(batch->calls[i].answers == 1);
}

static inline unsigned rig_count(const struct rig_batch *batch, int result)
{
    unsigned count = 0;

    for (unsigned i = 0; i < batch->started; i++)
        count += batch->calls[i].result == result;
    return count;
}

#endif

/* Over a memory device. The requests of others are passed on as our own. */
#include "tests/server/iscsi/gate_device.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "replica/base/scope.h"
#include "replica/block/memory.h"
#include "tests/support/allocations.h"
#include "tests/support/must.h"

enum { HELD_MAX = 256, HELD_MS = 60000 };

struct gate {
    struct block_device base;
    struct block_device *under;
    struct memory_disk *disk;
    struct scsi_backing backing;
    struct scsi_opening *asked;
    struct loop *loop;
    uint32_t max_transfer;
    struct loop_task opening, keeping, letting;
    void (*kept)(void *unit, int result);
    void *unit;
    void (*closed)(void *context);
    void *closed_context;
    struct block_request *held;
    struct gate_slot {
        struct block_request request;
        struct block_request *outer;
        struct gate_slot *next;
    } slots[HELD_MAX], *free;
    _Atomic bool holds;
    _Atomic unsigned count; /* held now */
};

static void slot_done(struct block_request *request, int result)
{
    struct gate_slot *slot = container_of(request, struct gate_slot, request);
    struct block_request *outer = slot->outer;
    struct gate *gate = container_of(outer->device, struct gate, base);

    outer->extents_count = request->extents_count;
    slot->next = gate->free;
    gate->free = slot;
    block_done(outer, result);
}

static void gate_pass(struct gate *gate, struct block_request *outer)
{
    struct gate_slot *slot = gate->free;

    must(slot); /* no test asks for more at a time */
    gate->free = slot->next;
    slot->outer = outer;
    slot->request = block_request_inner(outer, slot_done);
    /* A disk in memory remembers what was written: that is not the target's affair. */
    allocations_watch(false);
    block_submit(gate->under, &slot->request);
    allocations_watch(true);
}

static void gate_submit(struct block_device *base, struct block_request *request)
{
    struct gate *gate = container_of(base, struct gate, base);

    if (!atomic_load(&gate->holds)) {
        gate_pass(gate, request);
        return;
    }
    request->next = gate->held;
    gate->held = request;
    atomic_fetch_add(&gate->count, 1);
}

static void gate_let(struct loop_task *task)
{
    struct gate *gate = container_of(task, struct gate, letting);

    while (gate->held) {
        struct block_request *request = gate->held;
        gate->held = request->next;
        atomic_fetch_sub(&gate->count, 1);
        gate_pass(gate, request);
    }
}

static void under_closed(void *context)
{
    struct gate *gate = context;
    gate->closed(gate->closed_context);
}

static void gate_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct gate *gate = container_of(base, struct gate, base);

    gate->closed = closed;
    gate->closed_context = context;
    block_close(gate->under, under_closed, gate);
}

static const struct block_ops gate_ops = {
    .name = "gate", .submit = gate_submit, .close = gate_close
};

static void device_opened(struct loop_task *task)
{
    struct gate *gate = container_of(task, struct gate, opening);
    unsigned caps = BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD | BLOCK_CAN_EXTENTS |
            BLOCK_DISCARD_ZEROES | BLOCK_THIN;

    gate->under = memory_disk_open(gate->disk, gate->loop, caps);
    gate->base = *gate->under;
    gate->base.ops = &gate_ops;
    gate->base.in_flight = 0;
    if (gate->max_transfer)
        gate->base.max_transfer = gate->max_transfer;
    gate->free = NULL;
    for (unsigned i = 0; i < HELD_MAX; i++) {
        gate->slots[i].next = gate->free;
        gate->free = &gate->slots[i];
    }
    gate->asked->opened(gate->asked, &gate->base, &(struct fault){ 0 });
}

static void device_open(void *context, struct scsi_opening *opening, bool again)
{
    struct gate *gate = context;

    (void)again;
    gate->asked = opening;
    gate->opening.run = device_opened;
    loop_post(gate->loop, &gate->opening);
}

static void device_kept(struct loop_task *task)
{
    struct gate *gate = container_of(task, struct gate, keeping);
    gate->kept(gate->unit, 0);
}

static void device_keep(void *context, const uint8_t *bytes, size_t length,
        void (*kept)(void *unit, int result), void *unit)
{
    struct gate *gate = context;

    (void)bytes, (void)length;
    gate->kept = kept;
    gate->unit = unit;
    gate->keeping.run = device_kept;
    loop_post(gate->loop, &gate->keeping);
}

struct gate *gate_create(struct loop *loop, uint64_t size, uint32_t max_transfer)
{
    struct gate *gate = calloc(1, sizeof *gate);

    must(gate && (gate->disk = memory_disk_create(size, 512)));
    gate->loop = loop;
    gate->max_transfer = max_transfer;
    gate->letting.run = gate_let;
    gate->backing = (struct scsi_backing){ gate, device_open, device_keep };
    return gate;
}

void gate_destroy(struct gate *gate)
{
    memory_disk_destroy(gate->disk);
    free(gate);
}

const struct scsi_backing *gate_backing(const struct gate *gate)
{
    return &gate->backing;
}

uint8_t *gate_bytes(struct gate *gate)
{
    return memory_disk_bytes(gate->disk);
}

void gate_shut(struct gate *gate)
{
    atomic_store(&gate->holds, true);
}

void gate_open(struct gate *gate)
{
    atomic_store(&gate->holds, false);
    if (!gate->letting.queued)
        loop_post(gate->loop, &gate->letting);
}

bool gate_wait_held(struct gate *gate, unsigned wanted)
{
    for (unsigned i = 0; i < HELD_MS; i++) {
        if (atomic_load(&gate->count) >= wanted)
            return true;
        (void)usleep(1000);
    }
    return false;
}

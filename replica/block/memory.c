/* The memory device, and the disk behind it.
 *
 * A disk has two images. @bytes is what a reader sees; @stable is what a power cut leaves
 * for sure. Between them lies the log of writes that no flush has covered, in the order
 * in which they were applied, each with a copy of its data. A flush replays the log onto
 * @stable and empties it. A cut replays it too, but draws for each write whether it
 * survives whole, not at all, or sector by sector. FUA writes, and every write of a
 * device without BLOCK_VOLATILE, are entered as sure: replayed always, in their place in
 * the order, so that an older write can never surface over them.
 *
 * On the simulated loop a request takes effect either when it is submitted or when it is
 * answered, and is answered after a random time: both are what a real disk may do with
 * requests that are in flight together. Requests in flight at a cut are drawn like
 * unflushed writes.
 *
 * What was never written is a hole. A granule counts as one only if it also reads as
 * zeros: tests fill memory_disk_bytes() behind our back. */
#include "replica/block/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/digest.h"
#include "replica/base/scope.h"
#include "replica/block/drivers.h"
#include "replica/loop/sim.h"

enum {
    GRANULE = 4096, /* bytes of one hole or run of data */
    SECTOR = 512, /* what no disk tears */
    GARBAGE = 0xdb, /* what a discarded range reads as, where zeros are not promised */
    MAX_TRANSFER = 1 << 20,
    DEPTH = 64,
};

struct memory_write {
    struct memory_write *next;
    uint64_t offset, length;
    bool sure;
    uint8_t bytes[];
};

struct memory_disk {
    uint8_t *bytes, *stable;
    uint64_t size;
    uint32_t block_size;
    uint64_t granule; /* GRANULE or the block size, whichever is larger */
    bool *touched; /* one a granule */
    uint64_t writes, cuts;
    struct memory_write *log, **log_end;
    LIST_HEAD(, memory_device) devices;
};

/* One request in flight on the simulated loop. */
struct memory_slot {
    struct loop_timer timer;
    struct memory_device *device;
    struct block_request *request;
    bool applied;
    int result;
    LIST_ENTRY(memory_slot) entry; /* of those in flight, or free */
};

struct memory_device {
    struct block_device base;
    struct memory_disk *disk;
    bool owns_disk;
    uint64_t cuts; /* of the disk when it was opened */
    LIST_HEAD(, memory_slot) in_flight, free_slots;
    LIST_ENTRY(memory_device) entry; /* of the disk's */
    struct loop_task closing;
    void (*closed)(void *context);
    void *context;
};

/* -- the disk ------------------------------------------------------------------------- */

static uint64_t granules_of(const struct memory_disk *disk)
{
    return round_up(disk->size, disk->granule) / disk->granule;
}

struct memory_disk *memory_disk_create(uint64_t size, uint32_t block_size)
{
    struct memory_disk *disk = calloc(1, sizeof *disk);

    check(block_size > 0 && size % block_size == 0);
    if (!disk)
        return NULL;
    disk->size = size;
    disk->block_size = block_size;
    disk->granule = block_size > GRANULE ? block_size : GRANULE;
    disk->log_end = &disk->log;
    disk->bytes = calloc(1, size ? size : 1);
    disk->stable = calloc(1, size ? size : 1);
    disk->touched = calloc(granules_of(disk) + 1, sizeof *disk->touched);
    if (!disk->bytes || !disk->stable || !disk->touched) {
        memory_disk_destroy(disk);
        return NULL;
    }
    return disk;
}

static void log_forget(struct memory_disk *disk)
{
    while (disk->log) {
        struct memory_write *write = disk->log;
        disk->log = write->next;
        free(write);
    }
    disk->log_end = &disk->log;
}

void memory_disk_destroy(struct memory_disk *disk)
{
    if (!disk)
        return;
    check(LIST_EMPTY(&disk->devices));
    log_forget(disk);
    free(disk->bytes);
    free(disk->stable);
    free(disk->touched);
    free(disk);
}

uint8_t *memory_disk_bytes(struct memory_disk *disk)
{
    return disk->bytes;
}

uint64_t memory_disk_writes(const struct memory_disk *disk)
{
    return disk->writes;
}

static bool granule_is_zero(const struct memory_disk *disk, uint64_t granule)
{
    uint64_t start = granule * disk->granule;
    return digest_is_zero(
            disk->bytes + start, min_u64(disk->granule, disk->size - start));
}

void memory_disk_settle(struct memory_disk *disk)
{
    log_forget(disk);
    memcpy(disk->stable, disk->bytes, disk->size);
    for (uint64_t i = 0; i < granules_of(disk); i++)
        disk->touched[i] = !granule_is_zero(disk, i);
}

static void log_flush(struct memory_disk *disk)
{
    for (struct memory_write *w = disk->log; w; w = w->next)
        memcpy(disk->stable + w->offset, w->bytes, w->length);
    log_forget(disk);
}

static void fill_from(const struct block_request *request, unsigned caps, uint8_t *to)
{
    if (request->op == BLOCK_WRITE) {
        for (int i = 0; i < request->iovcnt; i++) {
            memcpy(to, request->iov[i].iov_base, request->iov[i].iov_len);
            to += request->iov[i].iov_len;
        }
        return;
    }
    bool zeros = request->op == BLOCK_ZERO || (caps & BLOCK_DISCARD_ZEROES);
    memset(to, zeros ? 0 : GARBAGE, request->length);
}

static bool log_add(struct memory_disk *disk, const struct block_request *request,
        unsigned caps, bool sure)
{
    struct memory_write *write = malloc(sizeof *write + request->length);

    if (!write)
        return false;
    write->next = NULL;
    write->offset = request->offset;
    write->length = request->length;
    write->sure = sure;
    fill_from(request, caps, write->bytes);
    *disk->log_end = write;
    disk->log_end = &write->next;
    return true;
}

static void touch(struct memory_disk *disk, const struct block_request *request)
{
    uint64_t first = request->offset / disk->granule;
    uint64_t end = round_up(request->offset + request->length, disk->granule);

    for (uint64_t i = first; i < end / disk->granule; i++)
        disk->touched[i] = request->op == BLOCK_WRITE || !granule_is_zero(disk, i);
}

static int disk_change(
        struct memory_disk *disk, const struct block_request *request, unsigned caps)
{
    bool sure = !(caps & BLOCK_VOLATILE) || (request->flags & BLOCK_FUA);

    if (sure && !disk->log)
        fill_from(request, caps, disk->stable + request->offset);
    else if (!log_add(disk, request, caps, sure))
        return -ENOMEM;
    fill_from(request, caps, disk->bytes + request->offset);
    touch(disk, request);
    return 0;
}

static void disk_read(struct memory_disk *disk, const struct block_request *request)
{
    const uint8_t *from = disk->bytes + request->offset;

    for (int i = 0; i < request->iovcnt; i++) {
        memcpy(request->iov[i].iov_base, from, request->iov[i].iov_len);
        from += request->iov[i].iov_len;
    }
}

static enum block_extent_kind kind_at(const struct memory_disk *disk, uint64_t offset)
{
    uint64_t granule = offset / disk->granule;
    bool hole = !disk->touched[granule] && granule_is_zero(disk, granule);
    return hole ? BLOCK_EXTENT_ZERO : BLOCK_EXTENT_DATA;
}

static void disk_extents(const struct memory_disk *disk, struct block_request *request)
{
    uint64_t at = request->offset, end = request->offset + request->length;

    request->extents_count = 0;
    while (at < end && request->extents_count < request->extents_max) {
        struct block_extent *extent = &request->extents[request->extents_count++];
        extent->kind = kind_at(disk, at);
        extent->offset = at;
        do
            at = min_u64(end, (at / disk->granule + 1) * disk->granule);
        while (at < end && kind_at(disk, at) == extent->kind);
        extent->length = at - extent->offset;
    }
}

static int disk_apply(
        struct memory_disk *disk, struct block_request *request, unsigned caps)
{
    switch (request->op) {
    case BLOCK_READ:
        disk_read(disk, request);
        return 0;
    case BLOCK_FLUSH:
        log_flush(disk);
        return 0;
    case BLOCK_EXTENTS:
        disk_extents(disk, request);
        return 0;
    default:
        return disk_change(disk, request, caps);
    }
}

/* -- the power ------------------------------------------------------------------------ */

static void write_survives(struct memory_disk *disk, const struct memory_write *write,
        uint64_t (*random)(void *context), void *context)
{
    enum { WHOLE, LOST, TORN, FATES };
    unsigned fate = write->sure ? WHOLE : (unsigned)(random(context) % FATES);

    for (uint64_t at = 0; at < write->length && fate != LOST;) {
        uint64_t sector_end = ((write->offset + at) / SECTOR + 1) * SECTOR;
        uint64_t n = min_u64(sector_end - (write->offset + at), write->length - at);
        if (fate == WHOLE || random(context) % 2)
            memcpy(disk->stable + write->offset + at, write->bytes + at, n);
        at += n;
    }
}

/* What is in flight may have reached the medium, or not: it joins the draw. */
static void cut_in_flight(struct memory_device *device)
{
    struct memory_slot *slot;

    LIST_FOREACH(slot, &device->in_flight, entry) {
        if (!slot->applied && block_op_writes(slot->request->op))
            (void)log_add(device->disk, slot->request, device->base.caps, false);
        slot->applied = true;
        slot->result = -ENOTCONN;
    }
    device->base.broken = true;
    block_set_words(&device->base, "the power was cut");
}

void memory_disk_cut(
        struct memory_disk *disk, uint64_t (*random)(void *context), void *context)
{
    struct memory_device *device;

    LIST_FOREACH(device, &disk->devices, entry)
        cut_in_flight(device);
    for (struct memory_write *write = disk->log; write; write = write->next)
        write_survives(disk, write, random, context);
    log_forget(disk);
    memcpy(disk->bytes, disk->stable, disk->size);
    for (uint64_t i = 0; i < granules_of(disk); i++)
        disk->touched[i] = disk->touched[i] || !granule_is_zero(disk, i);
    disk->cuts++;
}

/* -- the device ----------------------------------------------------------------------- */

static void slot_fire(struct loop_timer *timer)
{
    struct memory_slot *slot = container_of(timer, struct memory_slot, timer);
    struct memory_device *device = slot->device;

    if (!slot->applied)
        slot->result = disk_apply(device->disk, slot->request, device->base.caps);
    LIST_REMOVE(slot, entry);
    LIST_INSERT_HEAD(&device->free_slots, slot, entry);
    block_done(slot->request, slot->result);
}

/* Mostly quick, sometimes late: what is late is overtaken by all that comes after it. */
static uint64_t draw_delay_ms(struct loop *loop)
{
    return loop_sim_below(loop, loop_sim_below(loop, 8) ? 4 : 100);
}

static void submit_simulated(
        struct memory_device *device, struct block_request *request)
{
    struct memory_slot *slot = LIST_FIRST(&device->free_slots);

    if (slot)
        LIST_REMOVE(slot, entry);
    else if (!(slot = calloc(1, sizeof *slot))) {
        block_done_later(request, -ENOMEM);
        return;
    }
    slot->timer.fire = slot_fire;
    slot->device = device;
    slot->request = request;
    slot->applied = loop_sim_below(device->base.loop, 2);
    if (slot->applied)
        slot->result = disk_apply(device->disk, request, device->base.caps);
    LIST_INSERT_HEAD(&device->in_flight, slot, entry);
    loop_timer_start(device->base.loop, &slot->timer, draw_delay_ms(device->base.loop));
}

static void memory_submit(struct block_device *base, struct block_request *request)
{
    struct memory_device *device = container_of(base, struct memory_device, base);

    if (block_op_writes(request->op))
        device->disk->writes++;
    if (loop_is_simulated(base->loop))
        submit_simulated(device, request);
    else
        block_done_later(request, disk_apply(device->disk, request, base->caps));
}

static void run_closing(struct loop_task *task)
{
    struct memory_device *device = container_of(task, struct memory_device, closing);
    void (*closed)(void *context) = device->closed;
    void *context = device->context;
    struct memory_slot *slot;

    LIST_REMOVE(device, entry);
    if (device->owns_disk)
        memory_disk_destroy(device->disk);
    while ((slot = LIST_FIRST(&device->free_slots))) {
        LIST_REMOVE(slot, entry);
        free(slot);
    }
    free(device);
    closed(context);
}

static void memory_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct memory_device *device = container_of(base, struct memory_device, base);

    device->closing.run = run_closing;
    device->closed = closed;
    device->context = context;
    loop_post(base->loop, &device->closing);
}

static const struct block_ops memory_ops = {
    .name = "memory",
    .submit = memory_submit,
    .close = memory_close,
};

struct block_device *memory_disk_open(
        struct memory_disk *disk, struct loop *loop, unsigned caps)
{
    struct memory_device *device = calloc(1, sizeof *device);

    if (!device)
        return NULL;
    device->base = (struct block_device){
        .ops = &memory_ops,
        .loop = loop,
        .size = disk->size,
        .block_size = disk->block_size,
        .max_transfer = MAX_TRANSFER,
        .depth = DEPTH,
        .caps = caps,
    };
    device->disk = disk;
    LIST_INSERT_HEAD(&disk->devices, device, entry);
    return &device->base;
}

/* -- the driver's row ----------------------------------------------------------------- */

enum {
    ROW_CAPS = BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD | BLOCK_CAN_EXTENTS |
            BLOCK_DISCARD_ZEROES | BLOCK_THIN,
};

static void run_opened(struct loop_task *task)
{
    struct block_opening *opening = container_of(task, struct block_opening, task);
    struct block_device *device = opening->private;
    struct block_identity identity = {
        .place = ""
    }; /* like no other, and gone at close */
    struct fault none = { 0 };

    opening->done(opening, device, &identity, &none);
}

void block_memory_open(
        struct loop *loop, const struct block_spec *spec, struct block_opening *opening)
{
    uint32_t block_size = spec->block_size ? spec->block_size : SECTOR;
    unsigned caps = ROW_CAPS | (spec->writable ? 0u : (unsigned)BLOCK_READ_ONLY);

    if (spec->expect_size % block_size != 0) {
        block_opening_fail(opening, -EINVAL, "the size is no whole number of blocks");
        return;
    }
    struct memory_disk *disk = memory_disk_create(spec->expect_size, block_size);
    struct block_device *device = disk ? memory_disk_open(disk, loop, caps) : NULL;
    if (!device) {
        memory_disk_destroy(disk);
        block_opening_fail(opening, -ENOMEM, "out of memory");
        return;
    }
    container_of(device, struct memory_device, base)->owns_disk = true;
    opening->private = device;
    opening->task.run = run_opened;
    loop_post(loop, &opening->task);
}

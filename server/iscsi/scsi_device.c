/* Requests to the device: range locks before them, and a device that broke.
 *
 * Range locks. COMPARE AND WRITE and its like ask for a lock; it is held as soon as no
 * request in flight and no older lock overlaps it. While it is asked for or held,
 * overlapping requests of other tasks stand in line. Without locks a request pays one test.
 * The order is lock, then scratch, then device; who has the scratch has a lock, waits for
 * nothing but the device, and so always goes on.
 *
 * A device that broke (device.h: @broken) is closed when nothing is in flight and opened
 * anew through the backing, with back-off. Requests stand in line meanwhile, at most
 * PATIENCE_MS, then their commands end NOT READY. What was written and not flushed may be
 * lost with it, so every session hears 29h/00h, as after a power failure of a real disk.
 */
#include <errno.h>

#include "replica/base/log.h"
#include "server/iscsi/scsi_inside.h"

enum {
    PATIENCE_MS = 10000,
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MOST_MS = 5000,
    ZEROS = BUFFER_LARGE
};

/* Only read. Not const, so that it takes no room in the executable. */
static uint8_t zeros[ZEROS] __attribute__((aligned(4096)));

static void device_go(struct scsi_task *task);

bool unit_read_only(const struct scsi_unit *unit)
{
    return unit->read_only || unit->write_protect || (unit->caps & BLOCK_READ_ONLY);
}

/* -- range locks --------------------------------------------------------------------- */

static bool overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

static bool request_overlaps(
        const struct block_request *request, const struct scsi_lock *lock)
{
    return request->op != BLOCK_FLUSH &&
            overlap(request->offset, request->length, lock->offset, lock->length);
}

/* Is a lock in the way of this request? Not asked of a task that holds one itself. */
static bool locked_out(const struct scsi_unit *unit, const struct scsi_task *task)
{
    for (const struct scsi_lock *lock = unit->locks; lock; lock = lock->next)
        if (request_overlaps(&task->request, lock))
            return true;
    return false;
}

static bool lock_free(const struct scsi_unit *unit, const struct scsi_lock *mine)
{
    const struct scsi_task *task;

    for (const struct scsi_lock *lock = unit->locks; lock != mine; lock = lock->next)
        if (overlap(lock->offset, lock->length, mine->offset, mine->length))
            return false;
    TAILQ_FOREACH(task, &unit->set, in_set)
        if (task->state == TASK_DEVICE && request_overlaps(&task->request, mine))
            return false;
    return true;
}

static void locks_grant(struct scsi_unit *unit)
{
    for (struct scsi_lock *lock = unit->locks; lock; lock = lock->next) {
        struct scsi_task *task = container_of(lock, struct scsi_task, lock);
        if (lock->held || task->state != TASK_IN_LINE) /* aborted: it will leave */
            continue;
        if (!lock_free(unit, lock))
            continue;
        lock->held = true;
        task_post(task, task->resume);
    }
}

void task_lock(struct scsi_task *task, uint64_t offset, uint64_t length,
        void (*resume)(struct scsi_task *))
{
    struct scsi_unit *unit = task_unit(task);
    struct scsi_lock **at = &unit->locks;

    check(!task->lock.asked);
    task->lock =
            (struct scsi_lock){ .offset = offset, .length = length, .asked = true };
    while (*at)
        at = &(*at)->next;
    *at = &task->lock;
    if (lock_free(unit, &task->lock)) {
        task->lock.held = true;
        task->resume = resume;
        resume(task);
        return;
    }
    task->state = TASK_IN_LINE;
    task->line = NULL;
    task->resume = resume;
}

void task_unlock(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    struct scsi_lock **at = &unit->locks;

    if (!task->lock.asked)
        return;
    while (*at != &task->lock)
        at = &(*at)->next;
    *at = task->lock.next;
    task->lock.asked = task->lock.held = false;
    locks_grant(unit);
    while (line_wake(&unit->lock_line))
        ;
}

/* -- requests ------------------------------------------------------------------------ */

static bool device_ready(const struct scsi_unit *unit)
{
    return unit->device && !unit->lost;
}

static void patience_start(struct scsi_unit *unit)
{
    const struct scsi_task *task = unit->parked.first;
    struct instant due;

    if (!task)
        return;
    due = instant_add_ms(task->since, PATIENCE_MS);
    loop_timer_start(
            unit->loop, &unit->patience, instant_ms_until(loop_now(unit->loop), due));
}

static void device_park(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    bool first = !unit->parked.first;

    task->since = loop_now(unit->loop);
    line_join(&unit->parked, task, device_go);
    if (first)
        patience_start(unit);
}

static void patience_over(struct loop_timer *timer)
{
    struct scsi_unit *unit = container_of(timer, struct scsi_unit, patience);
    struct scsi_task *task;

    while ((task = unit->parked.first) &&
            instant_reached(
                    loop_now(unit->loop), instant_add_ms(task->since, PATIENCE_MS))) {
        line_leave(task);
        task_fail(task, KEY_NOT_READY, SENSE_BECOMING_READY);
    }
    patience_start(unit);
}

static void device_lost(struct scsi_unit *unit);

static bool result_is_loss(const struct scsi_unit *unit, int result)
{
    return unit->device->broken || result == -ENOTCONN || result == -ESTALE;
}

static bool is_change(const struct block_request *request)
{
    return request->op != BLOCK_READ && request->op != BLOCK_EXTENTS &&
            request->op != BLOCK_FLUSH;
}

bool unit_dirty(const struct scsi_unit *unit)
{
    return unit->changes != unit->flushed;
}

/* Did it break because bytes could not be made stable? Then what else was in its cache may be
   gone too, which a way to it that was lost says not. */
static bool loses_cache(const struct scsi_task *task)
{
    bool flush = task->request.op == BLOCK_FLUSH;

    if (!task_unit(task)->device->broken ||
            !(flush || (task->request.flags & BLOCK_FUA)))
        return false;
    switch (task->result) {
    case 0:
    case -ENOTCONN:
    case -ESTALE:
    case -ETIMEDOUT:
        return false;
    case -ENOSPC:
        return flush; /* a write that has no room wrote nothing */
    default:
        return true;
    }
}

/* A change counts when it ends (it was not promised before), in vain or not: some of it may be
   there. A flush covers those that had ended when it was submitted, once it has ended well. */
static void note_end(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    if (is_change(&task->request)) {
        unit->changes++;
        if (!(task->request.flags & BLOCK_FUA))
            task->loose = unit->changes;
    } else if (task->request.op == BLOCK_FLUSH && task->result < 0) {
        unit->flush_failed = true;
    } else if (task->request.op == BLOCK_FLUSH && task->covers > unit->flushed) {
        unit->flushed = task->covers;
    }
    unit->cache_lost |= loses_cache(task);
}

static void request_account(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    const struct block_request *request = &task->request;

    if (request->op == BLOCK_READ) {
        unit->figures.read_bytes += request->length;
        task->nexus->figures.read_bytes += request->length;
    } else if (request->op == BLOCK_WRITE) {
        unit->figures.written_bytes += request->length;
        task->nexus->figures.written_bytes += request->length;
    }
}

static void device_done(struct block_request *request, int result)
{
    struct scsi_task *task = container_of(request, struct scsi_task, request);
    struct scsi_unit *unit = task_unit(task);

    task->result = result;
    note_end(task);
    if (result == 0)
        request_account(task);
    task->state = TASK_RUNNING;
    if (unit->locks)
        locks_grant(unit);
    if (unit->lost || (result < 0 && result_is_loss(unit, result)))
        device_lost(unit);
    task_resume(task);
}

static void device_go(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    if (!device_ready(unit)) {
        device_park(task);
        return;
    }
    if (task->geometry != unit->geometry) { /* its blocks are others now */
        task_fail(task, KEY_UNIT_ATTENTION, SENSE_CAPACITY_CHANGED);
        return;
    }
    if (unit->locks && !task->lock.held && locked_out(unit, task)) {
        line_join(&unit->lock_line, task, device_go);
        return;
    }
    task->state = TASK_DEVICE;
    task->resume = task->then;
    task->covers = unit->changes;
    block_submit(unit->device, &task->request);
}

void task_device_iov(struct scsi_task *task, enum block_op op, uint64_t offset,
        const struct iovec *iov, int iovcnt, uint64_t length, unsigned flags,
        void (*resume)(struct scsi_task *))
{
    task->request.op = op;
    task->request.flags = flags;
    task->request.offset = offset;
    task->request.length = length;
    task->request.iov = iov;
    task->request.iovcnt = iovcnt;
    task->request.done = device_done;
    task->then = resume;
    device_go(task);
}

void task_device(struct scsi_task *task, enum block_op op, uint64_t offset, void *bytes,
        uint64_t length, unsigned flags, void (*resume)(struct scsi_task *))
{
    task->iov = (struct iovec){ bytes, length };
    task_device_iov(task, op, offset, &task->iov, 1, length, flags, resume);
}

unsigned task_write_flags(const struct scsi_task *task)
{
    bool fua = task->cdb[0] != 0x0a && (task->cdb[1] & 0x08);

    return fua || task_unit(task)->write_through ? BLOCK_FUA : 0;
}

/* -- zeros --------------------------------------------------------------------------- */

uint64_t zero_piece(const struct scsi_unit *unit, uint64_t length)
{
    uint64_t most = unit->caps & BLOCK_CAN_ZERO ? unit->zero_most : unit->piece_most;

    return min_u64(length, most);
}

void task_zero(struct scsi_task *task, uint64_t offset, uint64_t length, unsigned flags,
        void (*resume)(struct scsi_task *))
{
    if (task_unit(task)->caps & BLOCK_CAN_ZERO)
        task_device(task, BLOCK_ZERO, offset, NULL, length, flags, resume);
    else
        task_device(task, BLOCK_WRITE, offset, zeros, length, flags, resume);
}

/* -- a device comes and goes --------------------------------------------------------- */

static void tell(const struct scsi_unit *unit, enum log_level level, const char *event,
        const char *words)
{
    log_event(
            level, event, (struct log_about){ .element = unit->id.text }, "%s", words);
}

static uint32_t shift_of(uint32_t block_size)
{
    return (uint32_t)__builtin_ctz(block_size);
}

static uint64_t whole_blocks(uint64_t bytes, uint64_t most, uint32_t block_size)
{
    uint64_t least = bytes && bytes < most ? bytes : most;

    least -= least % block_size;
    return least ? least : block_size;
}

/* True when blocks or their size are others than before. */
static bool device_adopt(struct scsi_unit *unit, struct block_device *device)
{
    uint32_t size =
            device->block_size < BLOCK_SMALLEST ? BLOCK_SMALLEST : device->block_size;
    uint64_t blocks = device->size / size;
    bool changed = blocks != unit->blocks || size != unit->block_size;

    unit->device = device;
    unit->lost = false;
    unit->blocks = blocks;
    unit->block_size = size;
    unit->shift = shift_of(size);
    unit->caps = device->caps;
    unit->piece_most = (uint32_t)whole_blocks(device->max_transfer, BUFFER_LARGE, size);
    unit->zero_most = whole_blocks(device->max_zero, ZERO_MOST, size);
    return changed;
}

static bool device_fits(const struct block_device *device)
{
    return device->size >= BLOCK_SMALLEST && device->size >= device->block_size &&
            device->block_size <= BUFFER_LARGE &&
            (device->block_size == 1 || device->block_size >= BLOCK_SMALLEST) &&
            (device->block_size & (device->block_size - 1)) == 0;
}

/* Flushes that waited came before anybody could hear that what they cover may be gone: a
   flush of the new device would say that it is there. */
static void parked_flushes_fail(struct scsi_unit *unit)
{
    for (struct scsi_task *task = unit->parked.first; task; task = task->line_next)
        if (task->request.op == BLOCK_FLUSH) {
            task->result = -EIO;
            task->resume = task->then;
        }
}

static void device_back(struct scsi_unit *unit, struct block_device *device)
{
    bool changed = device_adopt(unit, device);

    unit->backoff_ms = BACKOFF_FIRST_MS;
    tell(unit, LOG_INFO, "export-device-back", "it is open again");
    if (unit_dirty(unit) || unit->flush_failed)
        unit_attention(unit, NULL, SENSE_POWER_ON);
    unit->flushed = unit->changes;
    unit->flush_failed = false;
    loop_timer_stop(unit->loop, &unit->patience);
    if (changed) {
        unit->geometry++;
        unit_attention(unit, NULL, SENSE_CAPACITY_CHANGED);
    }
    if (unit->cache_lost)
        parked_flushes_fail(unit);
    unit->cache_lost = false;
    while (line_wake(&unit->parked))
        ;
}

static void retry_later(struct scsi_unit *unit)
{
    if (unit->ending) {
        unit_maybe_gone(unit);
        return;
    }
    loop_timer_start(unit->loop, &unit->retry, unit->backoff_ms);
    unit->backoff_ms *= 2;
    if (unit->backoff_ms > BACKOFF_MOST_MS)
        unit->backoff_ms = BACKOFF_MOST_MS;
}

static void unusable_closed(void *context)
{
    struct scsi_unit *unit = context;

    unit->closing_now = false;
    retry_later(unit);
}

static void device_reopened(struct scsi_opening *opening, struct block_device *device,
        const struct fault *fault)
{
    struct scsi_unit *unit = container_of(opening, struct scsi_unit, opening);

    unit->opening_now = false;
    if (device && (unit->ending || !device_fits(device))) {
        unit->closing_now = true;
        block_close(device, unusable_closed, unit);
        return;
    }
    if (device) {
        device_back(unit, device);
        return;
    }
    if (unit->backoff_ms == BACKOFF_FIRST_MS)
        tell(unit, LOG_WARN, "export-device-away",
                fault && fault->error ? fault->why : "it does not open");
    retry_later(unit);
}

static void device_closed(void *context)
{
    struct scsi_unit *unit = context;

    unit->closing_now = false;
    retry_later(unit);
}

void unit_close(struct scsi_unit *unit)
{
    struct block_device *device = unit->device;

    unit->device = NULL;
    unit->closing_now = true;
    block_close(device, device_closed, unit);
}

/* Called again when the last of its requests ended. A device that gave itself up for what a
   reset may have taken from its cache says so to whichever request came next, a read too. */
static void device_lost(struct scsi_unit *unit)
{
    unit->cache_lost |= unit->device->returns && unit_dirty(unit);
    if (!unit->lost) {
        unit->lost = true;
        tell(unit, LOG_WARN, "export-device-lost", block_last_words(unit->device));
    }
    if (unit->device->in_flight == 0)
        unit_close(unit);
}

static void retry_now(struct loop_timer *timer)
{
    unit_open(container_of(timer, struct scsi_unit, retry), true);
}

/* -- the first time ------------------------------------------------------------------ */

static void device_opened(struct scsi_opening *opening, struct block_device *device,
        const struct fault *fault)
{
    struct scsi_unit *unit = container_of(opening, struct scsi_unit, opening);

    unit->opening_now = false;
    if (device && device_fits(device))
        (void)device_adopt(unit, device);
    unit_first_opened(unit, device, fault);
}

void unit_open(struct scsi_unit *unit, bool again)
{
    unit->opening.opened = again ? device_reopened : device_opened;
    unit->opening_now = true;
    unit->backing->open(unit->backing->context, &unit->opening, again);
}

void unit_device_init(struct scsi_unit *unit)
{
    unit->backoff_ms = BACKOFF_FIRST_MS;
    unit->retry.fire = retry_now;
    unit->patience.fire = patience_over;
    line_init(&unit->parked);
    line_init(&unit->lock_line);
    line_init(&unit->scratch_line);
    line_init(&unit->register_line);
}

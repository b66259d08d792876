/* A regular file as a device: pread and pwrite on the process-wide pool of threads.
 *
 * One device has at most LANES calls in the pool, so that a stuck disk leaves the threads
 * to the others; what is more waits in the device, in order. A lane is a struct embedded
 * in the device: no request allocates.
 *
 * Whatever makes bytes stable (flush, FUA) goes through one lane at a time, and flushes
 * that wait together are one fdatasync. This is not thrift alone. The kernel reports a
 * lost write to the first call on the descriptor that asks, and to no other: of two
 * running together one may report success for what the other was told is lost. For the
 * same reason a failed one breaks the device for good: pages may have been dropped, and a
 * second call would claim success.
 *
 * The size is fixed at open. A file found shorter answers -ESTALE; nothing is filled with
 * zeros, and a write never makes it longer than it was. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/beneath.h"
#include "replica/block/drivers.h"

enum {
    LANES = 4, /* calls of one device in the pool (design: at most 4) */
    DEPTH = 16, /* requests in flight that are useful: lanes, and a queue */
    MAX_TRANSFER = 1 << 20, /* bytes */
    IOV_WINDOW = 64, /* entries handed to the kernel in one call */
    STAT_BLOCK = 512, /* unit of st_blocks */
};

struct file_queue {
    struct block_request *first, **end;
};

struct file_lane {
    struct loop_work work;
    struct file_device *device;
    struct block_request *request; /* for a flush: the first of those it serves */
    bool stabilises; /* holds the one right to sync */
    bool lost; /* making bytes stable failed */
    int error; /* of the call that failed, 0 or negative */
    const char *call; /* its name */
    struct file_lane *next;
};

struct file_device {
    struct block_device base;
    int fd;
    bool thick; /* all of it is allocated: zeros keep it so */
    struct file_queue plain, syncing;
    bool sync_running;
    struct file_lane lanes[LANES], *free_lanes;
    struct loop_work closing;
    void (*closed)(void *context);
    void *context;
};

static struct file_device *file_of(struct block_device *base)
{
    return container_of(base, struct file_device, base);
}

/* -- queues --------------------------------------------------------------------------- */

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

/* -- in the pool: one request against the kernel -------------------------------------- */

static int lane_fail(struct file_lane *lane, const char *call, int error)
{
    lane->call = call;
    return lane->error = error;
}

/* Fills @window with what is left of the request after @done bytes. */
static int window_set(
        const struct block_request *request, uint64_t done, struct iovec *window)
{
    int count = 0;

    for (int i = 0; i < request->iovcnt && count < IOV_WINDOW; i++) {
        const struct iovec *iov = &request->iov[i];
        if (done >= iov->iov_len) {
            done -= iov->iov_len;
            continue;
        }
        window[count].iov_base = (char *)iov->iov_base + done;
        window[count++].iov_len = iov->iov_len - done;
        done = 0;
    }
    return count;
}

static bool file_shrank(struct file_lane *lane)
{
    struct stat status;

    if (fstat(lane->device->fd, &status) < 0)
        return lane_fail(lane, "fstat", -errno) < 0;
    if ((uint64_t)status.st_size >= lane->device->base.size)
        return false;
    return lane_fail(lane, "the file is shorter than it was", -ESTALE) < 0;
}

static void run_read(struct file_lane *lane)
{
    const struct block_request *request = lane->request;
    struct iovec window[IOV_WINDOW];
    uint64_t done = 0;

    while (done < request->length) {
        int count = window_set(request, done, window);
        ssize_t n = preadv(
                lane->device->fd, window, count, (off_t)(request->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            lane_fail(lane, "read", -errno);
            return;
        }
        if (n == 0) { /* the end, which was further on at open */
            lane_fail(lane, "the file is shorter than it was", -ESTALE);
            return;
        }
        done += (uint64_t)n;
    }
}

static void run_write(struct file_lane *lane)
{
    const struct block_request *request = lane->request;
    struct iovec window[IOV_WINDOW];
    uint64_t done = 0;

    if (file_shrank(lane))
        return;
    while (done < request->length) {
        int count = window_set(request, done, window);
        ssize_t n = pwritev2(lane->device->fd, window, count,
                (off_t)(request->offset + done), lane->stabilises ? RWF_DSYNC : 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            lane_fail(lane, "write", n < 0 ? -errno : -EIO);
            lane->lost = lane->stabilises;
            return;
        }
        done += (uint64_t)n;
    }
}

static void run_sync(struct file_lane *lane)
{
    int result;

    do
        result = fdatasync(lane->device->fd);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        lane_fail(lane, "fdatasync", -errno);
    lane->lost = result < 0;
}

static int allocate(struct file_lane *lane, int mode)
{
    const struct block_request *request = lane->request;
    int result;

    do
        result = fallocate(lane->device->fd, mode | FALLOC_FL_KEEP_SIZE,
                (off_t)request->offset, (off_t)request->length);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/* A file that was reserved in full keeps its blocks; any other gives them back. */
static void run_zero(struct file_lane *lane)
{
    bool thick = lane->device->thick && lane->request->op == BLOCK_ZERO;
    int first = thick ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;
    int second = thick ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    int result;

    if (file_shrank(lane))
        return;
    result = allocate(lane, first);
    if (result == -EOPNOTSUPP && lane->request->op == BLOCK_ZERO)
        result = allocate(lane, second);
    if (result < 0)
        lane_fail(lane, "fallocate", result);
    else if (lane->stabilises)
        run_sync(lane);
}

/* Adds [at, end) to the answer, joined to the last extent when it is of the same kind.
   False when there is no room. */
static bool extent_add(struct block_request *request, uint64_t at, uint64_t end,
        enum block_extent_kind kind)
{
    struct block_extent *last = request->extents + request->extents_count - 1;

    if (at == end)
        return true;
    if (request->extents_count > 0 && last->kind == kind) {
        last->length = end - last->offset;
        return true;
    }
    if (request->extents_count == request->extents_max)
        return false;
    request->extents[request->extents_count++] =
            (struct block_extent){ .offset = at, .length = end - at, .kind = kind };
    return true;
}

/* Where @whence (SEEK_DATA, SEEK_HOLE) next leads from @at, at most @end. */
static int seek_next(
        struct file_lane *lane, uint64_t at, uint64_t end, int whence, uint64_t *found)
{
    off_t offset = lseek(lane->device->fd, (off_t)at, whence);

    if (offset < 0 && errno != ENXIO) /* ENXIO: no more of it before the end */
        return lane_fail(lane, "lseek", -errno);
    *found = offset < 0 ? end : min_u64((uint64_t)offset, end);
    return 0;
}

/* The file system's blocks may be smaller than the device's: a hole counts where it
   covers whole ones. */
static void run_extents(struct file_lane *lane)
{
    struct block_request *request = lane->request;
    uint64_t at = request->offset, end = at + request->length;
    uint64_t data = 0, hole = 0;
    uint32_t unit = lane->device->base.block_size;

    while (at < end) {
        if (seek_next(lane, at, end, SEEK_DATA, &data) < 0)
            return;
        data = data == end ? end : data - data % unit;
        if (data < at)
            data = at;
        if (!extent_add(request, at, data, BLOCK_EXTENT_ZERO))
            break;
        if (data == end)
            break;
        if (seek_next(lane, data, end, SEEK_HOLE, &hole) < 0)
            return;
        hole = min_u64(round_up(hole, unit), end);
        if (hole <= data) /* it changed between the two calls: data is never wrong */
            hole = data + unit;
        if (!extent_add(request, data, hole, BLOCK_EXTENT_DATA))
            break;
        at = hole;
    }
    (void)file_shrank(lane); /* beyond a new end all would look like a hole */
}

static void lane_work(struct loop_work *work)
{
    struct file_lane *lane = container_of(work, struct file_lane, work);

    lane->error = 0;
    lane->lost = false;
    switch (lane->request->op) {
    case BLOCK_READ:
        run_read(lane);
        break;
    case BLOCK_WRITE:
        run_write(lane);
        break;
    case BLOCK_FLUSH:
        run_sync(lane);
        break;
    case BLOCK_EXTENTS:
        run_extents(lane);
        break;
    default:
        run_zero(lane);
    }
}

/* -- on the loop ---------------------------------------------------------------------- */

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

static void device_pump(struct file_device *file);

/* A flush holds all the requests that it served, linked by next. */
static void lane_done(struct loop_work *work)
{
    struct file_lane *lane = container_of(work, struct file_lane, work);
    struct file_device *file = lane->device;
    struct block_request *request = lane->request;
    int error = lane->error;

    if (error < 0)
        block_set_words(&file->base, "%s: %s", lane->call, strerrordesc_np(-error));
    if (lane->stabilises)
        file->sync_running = false;
    if (lane->lost)
        file->base.broken = true;
    lane->next = file->free_lanes;
    file->free_lanes = lane;
    device_pump(file); /* first: the kernel works while the answers are heard */
    while (request) {
        struct block_request *next = request->next;
        request->next = NULL;
        block_done(request,
                answer_of(error)); /* may ask to close, which is never at once */
        request = next;
    }
}

static void lane_start(
        struct file_device *file, struct block_request *request, bool stabilises)
{
    struct file_lane *lane = file->free_lanes;

    file->free_lanes = lane->next;
    lane->request = request;
    lane->stabilises = stabilises;
    file->sync_running |= stabilises;
    loop_work_start(file->base.loop, &lane->work);
}

/* The next request of the sync lane, and behind a flush all the flushes that follow it. */
static struct block_request *sync_take(struct file_device *file)
{
    struct block_request *first = queue_take(&file->syncing), *last = first;

    while (first->op == BLOCK_FLUSH && file->syncing.first &&
            file->syncing.first->op == BLOCK_FLUSH)
        last = last->next = queue_take(&file->syncing);
    return first;
}

/* What waits on a device that broke is told so without asking the kernel again. */
static void device_give_up(struct file_device *file)
{
    struct block_request *request;

    while ((request = queue_take(&file->syncing)) ||
            (request = queue_take(&file->plain)))
        block_done_later(request, -ENOTCONN);
}

static void device_pump(struct file_device *file)
{
    if (file->base.broken)
        device_give_up(file);
    if (file->free_lanes && !file->sync_running && file->syncing.first)
        lane_start(file, sync_take(file), true);
    while (file->free_lanes && file->plain.first)
        lane_start(file, queue_take(&file->plain), false);
}

static void file_submit(struct block_device *base, struct block_request *request)
{
    struct file_device *file = file_of(base);
    bool syncs = request->op == BLOCK_FLUSH ||
            ((request->flags & BLOCK_FUA) &&
                    (request->op == BLOCK_WRITE || request->op == BLOCK_ZERO));

    queue_add(syncs ? &file->syncing : &file->plain, request);
    device_pump(file);
}

static void close_work(struct loop_work *work)
{
    (void)close(container_of(work, struct file_device, closing)->fd);
}

static void close_done(struct loop_work *work)
{
    struct file_device *file = container_of(work, struct file_device, closing);
    void (*closed)(void *context) = file->closed;
    void *context = file->context;

    free(file);
    closed(context);
}

static void file_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct file_device *file = file_of(base);

    file->closed = closed;
    file->context = context;
    file->closing.work = close_work;
    file->closing.done = close_done;
    loop_work_start(base->loop, &file->closing);
}

static const struct block_ops file_ops = {
    .name = "file",
    .submit = file_submit,
    .close = file_close,
};

/* -- opening -------------------------------------------------------------------------- */

struct file_opening {
    struct loop_work work;
    const struct block_spec *spec;
    struct block_opening *opening;
    struct file_device *file;
    struct block_identity identity;
};

/* Beyond the end, where there is nothing to harm: does this file system punch holes? */
static bool can_punch(int fd, uint64_t size)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(fd, mode, (off_t)round_up(size, 4096), 4096) == 0;
}

static unsigned caps_of(
        const struct block_spec *spec, int fd, const struct stat *status)
{
    uint64_t size = (uint64_t)status->st_size;
    unsigned caps = BLOCK_VOLATILE | BLOCK_CAN_EXTENTS;

    if ((uint64_t)status->st_blocks * STAT_BLOCK < size)
        caps |= BLOCK_THIN;
    if (!spec->writable)
        caps |= BLOCK_READ_ONLY;
    else if (can_punch(fd, size))
        caps |= BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES;
    return caps;
}

static int size_fits(
        const struct block_spec *spec, const struct stat *status, struct fault *fault)
{
    uint64_t size = (uint64_t)status->st_size;

    if (spec->expect_size && size != spec->expect_size)
        return fault_set(fault, -ESTALE,
                "the file has %llu bytes where %llu were expected",
                (unsigned long long)size, (unsigned long long)spec->expect_size);
    if (size % spec->block_size != 0)
        return fault_set(fault, -EINVAL,
                "the file's %llu bytes are no whole number of blocks",
                (unsigned long long)size);
    return 0;
}

/* Both kinds that Linux has, for neither sees the other: the lock of the open file
 * description (qemu, lockf) and that of flock(). Another process has it, or another
 * handle of ours. */
static int lock_for_writing(int fd, struct fault *fault)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return fault_set(fault, -EBUSY, "the file is locked by another writer");
    return fault_set(
            fault, -errno, "the file cannot be locked: %s", strerrordesc_np(errno));
}

static int open_words(struct fault *fault, int error)
{
    const char *why = strerrordesc_np(-error);

    if (error == -ELOOP)
        why = "its name is a link";
    else if (error == -EXDEV)
        why = "its name leads out of the directory";
    else if (error == -EINVAL)
        why = "it is no regular file";
    return fault_set(fault, error, "the file cannot be opened: %s", why);
}

/* Every writer moves both; so does punching, even where nothing is. */
static void changed_format(const struct stat *status, char changed[BLOCK_CHANGED_MAX])
{
    (void)snprintf(changed, BLOCK_CHANGED_MAX, "%lld.%09ld %lld.%09ld",
            (long long)status->st_mtim.tv_sec, status->st_mtim.tv_nsec,
            (long long)status->st_ctim.tv_sec, status->st_ctim.tv_nsec);
}

int block_changed(const struct block_spec *spec, char changed[BLOCK_CHANGED_MAX])
{
    struct stat status;

    changed[0] = '\0';
    if (spec->driver != BLOCK_DRIVER_file)
        return 0;
    if (fstatat(spec->directory, spec->name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    changed_format(&status, changed);
    return 0;
}

static int file_inspect(struct file_opening *opening, struct fault *fault)
{
    struct file_device *file = opening->file;
    const struct block_spec *spec = opening->spec;
    struct stat status;
    int result = spec->writable ? lock_for_writing(file->fd, fault) : 0;

    if (result < 0)
        return result;
    if (fstat(file->fd, &status) < 0)
        return open_words(fault, -errno);
    result = size_fits(spec, &status, fault);
    if (result < 0)
        return result;
    file->base.size = (uint64_t)status.st_size;
    file->base.caps = caps_of(spec, file->fd, &status);
    file->thick = !(file->base.caps & BLOCK_THIN);
    (void)snprintf(opening->identity.place, sizeof opening->identity.place,
            "file:%u:%u:%llu", major(status.st_dev), minor(status.st_dev),
            (unsigned long long)status.st_ino);
    changed_format(&status, opening->identity.changed);
    return 0;
}

static void open_work(struct loop_work *work)
{
    struct file_opening *opening = container_of(work, struct file_opening, work);
    const struct block_spec *spec = opening->spec;
    struct fault *fault = &opening->opening->fault;
    int fd = beneath_open_file(
            spec->directory, spec->name, spec->writable ? O_RDWR : O_RDONLY);

    opening->file->fd = fd;
    if (fd < 0) {
        open_words(fault, fd);
        return;
    }
    if (file_inspect(opening, fault) < 0)
        (void)close(fd);
}

static void open_done(struct loop_work *work)
{
    struct file_opening *inner = container_of(work, struct file_opening, work);
    struct block_opening *opening = inner->opening;
    struct file_device *file = inner->file;
    struct block_identity identity = inner->identity;

    free(inner);
    if (opening->fault.error) {
        free(file);
        file = NULL;
    }
    opening->done(opening, file ? &file->base : NULL, &identity, &opening->fault);
}

static struct file_device *file_create(struct loop *loop, uint32_t block_size)
{
    struct file_device *file = calloc(1, sizeof *file);

    if (!file)
        return NULL;
    file->base = (struct block_device){
        .ops = &file_ops,
        .loop = loop,
        .block_size = block_size,
        .max_transfer = MAX_TRANSFER,
        .depth = DEPTH,
    };
    file->plain.end = &file->plain.first;
    file->syncing.end = &file->syncing.first;
    for (unsigned i = 0; i < LANES; i++) {
        struct file_lane *lane = &file->lanes[i];
        lane->device = file;
        lane->work = (struct loop_work){ .work = lane_work, .done = lane_done };
        lane->next = file->free_lanes;
        file->free_lanes = lane;
    }
    return file;
}

void block_file_open(
        struct loop *loop, const struct block_spec *spec, struct block_opening *opening)
{
    uint32_t unit = spec->block_size;
    struct file_opening *inner = calloc(1, sizeof *inner);
    struct file_device *file = inner ? file_create(loop, unit) : NULL;

    check(unit == 1 || (unit >= 512 && (unit & (unit - 1)) == 0));
    if (!file) {
        free(inner);
        block_opening_fail(opening, -ENOMEM, "out of memory");
        return;
    }
    inner->spec = spec;
    inner->opening = opening;
    inner->file = file;
    inner->work = (struct loop_work){ .work = open_work, .done = open_done };
    loop_work_start(loop, &inner->work);
}

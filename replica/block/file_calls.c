/* The file driver's calls that block: run in the pool, or on the loop where the file
 * system is memory and they do not. Thread-safe but for the file_call itself. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/file_inside.h"

enum {
    IOV_WINDOW = 64, /* entries handed to the kernel in one call */
    GRAIN = 64 << 10, /* bytes: zeros are looked for in these */
    HEAD = 64 /* bytes of them that are looked at */
};

int file_call_fail(struct file_call *call, const char *what, int error)
{
    call->what = what;
    return call->error = error;
}

int file_call_window(const struct file_call *call, struct iovec *window, int room)
{
    const struct block_request *request = call->request;
    uint64_t done = call->done;
    int count = 0;

    for (int i = 0; i < request->iovcnt && count < room; i++) {
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

bool file_call_shrank(struct file_call *call)
{
    struct stat status;

    if (fstat(call->device->fd, &status) < 0)
        return file_call_fail(call, "fstat", -errno) < 0;
    if ((uint64_t)status.st_size >= call->device->base.size)
        return false;
    return file_call_fail(call, "the file is shorter than it was", -ESTALE) < 0;
}

static void run_read(struct file_call *call)
{
    const struct block_request *request = call->request;
    struct iovec window[IOV_WINDOW];

    while (call->done < request->length) {
        int count = file_call_window(call, window, IOV_WINDOW);
        ssize_t n = preadv(
                call->device->fd, window, count, (off_t)(request->offset + call->done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            file_call_fail(call, "read", -errno);
            return;
        }
        if (n == 0) { /* the end, which was further on at open */
            file_call_fail(call, "the file is shorter than it was", -ESTALE);
            return;
        }
        call->done += (uint64_t)n;
    }
}

/* Short counts are rare and left to the blocking way, which begins anew; so are errors,
   which it finds for itself. */
bool file_call_now(struct file_call *call)
{
    const struct block_request *request = call->request;
    struct file_device *file = call->device;
    bool write = request->op == BLOCK_WRITE;
    off_t at = (off_t)request->offset;
    ssize_t n;

    if (request->iovcnt > IOV_WINDOW)
        return false;
    n = write ? pwritev2(file->fd, request->iov, request->iovcnt, at, RWF_NOWAIT)
              : preadv2(file->fd, request->iov, request->iovcnt, at, RWF_NOWAIT);
    if (n < 0 && errno == EOPNOTSUPP)
        *(write ? &file->write_nowait : &file->read_nowait) = false;
    return n == (ssize_t)request->length;
}

static void run_write(struct file_call *call)
{
    const struct block_request *request = call->request;
    struct iovec window[IOV_WINDOW];

    if (!call->measured && file_call_shrank(call))
        return;
    while (call->done < request->length) {
        int count = file_call_window(call, window, IOV_WINDOW);
        ssize_t n = pwritev2(call->device->fd, window, count,
                (off_t)(request->offset + call->done),
                call->stabilises ? RWF_DSYNC : 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            file_call_fail(call, "write", n < 0 ? -errno : -EIO);
            call->lost = call->stabilises;
            return;
        }
        call->done += (uint64_t)n;
    }
}

/* Nothing but zeros at the head of a grain, so that the rest may be zeros, too. */
static bool head_is_zero(int fd, uint64_t at, uint64_t end)
{
    static const uint8_t zeros[HEAD];
    uint8_t head[HEAD];
    ssize_t n = pread(fd, head, (size_t)min_u64(HEAD, end - at), (off_t)at);

    return n <= 0 || memcmp(head, zeros, (size_t)n) == 0;
}

static bool may_hold_zeros(const struct file_call *call, int from)
{
    uint64_t at = call->request->offset, end = at + call->request->length;

    while (at < end && !head_is_zero(from, at, end))
        at += GRAIN;
    return at < end;
}

static void run_copy(struct file_call *call)
{
    const struct block_request *request = call->request;
    const struct file_device *from =
            container_of(request->from, struct file_device, base);

    if (may_hold_zeros(call, from->fd)) {
        file_call_fail(call, "copy", -ENODATA);
        return;
    }
    if (!call->measured && file_call_shrank(call))
        return;
    while (call->done < request->length) {
        off_t there = (off_t)(request->offset + call->done), here = there;
        ssize_t n = copy_file_range(from->fd, &there, call->device->fd, &here,
                (size_t)(request->length - call->done), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            file_call_fail(call, "copy", n < 0 ? -errno : -ESTALE);
            return;
        }
        call->done += (uint64_t)n;
    }
}

static void run_sync(struct file_call *call)
{
    int result;

    do
        result = fdatasync(call->device->fd);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        file_call_fail(call, "fdatasync", -errno);
    call->lost = result < 0;
}

static int allocate(struct file_call *call, int mode)
{
    const struct block_request *request = call->request;
    int result;

    do
        result = fallocate(
                call->device->fd, mode, (off_t)request->offset, (off_t)request->length);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/* A file that was reserved in full keeps its blocks; any other gives them back. */
int file_call_mode(const struct file_call *call, bool other)
{
    bool keep = call->device->thick && call->request->op == BLOCK_ZERO;
    int kind = keep != other ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;

    return kind | FALLOC_FL_KEEP_SIZE;
}

static void run_zero(struct file_call *call)
{
    int result;

    if (!call->measured && file_call_shrank(call))
        return;
    result = allocate(call, file_call_mode(call, false));
    if (result == -EOPNOTSUPP && call->request->op == BLOCK_ZERO)
        result = allocate(call, file_call_mode(call, true));
    if (result < 0)
        file_call_fail(call, "fallocate", result);
    else if (call->stabilises)
        run_sync(call);
}

/* What is not on the disk yet stays where it is: it goes there first. */
static void run_forget(struct file_call *call)
{
    const struct block_request *request = call->request;
    int error;

    run_sync(call);
    if (call->error)
        return;
    error = posix_fadvise(call->device->fd, (off_t)request->offset,
            (off_t)request->length, POSIX_FADV_DONTNEED);
    if (error)
        file_call_fail(call, "posix_fadvise", -error);
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
        struct file_call *call, uint64_t at, uint64_t end, int whence, uint64_t *found)
{
    off_t offset = lseek(call->device->fd, (off_t)at, whence);

    if (offset < 0 && errno != ENXIO) /* ENXIO: no more of it before the end */
        return file_call_fail(call, "lseek", -errno);
    *found = offset < 0 ? end : min_u64((uint64_t)offset, end);
    return 0;
}

/* The file system's blocks may be smaller than the device's: a hole counts where it
   covers whole ones. */
static void run_extents(struct file_call *call)
{
    struct block_request *request = call->request;
    uint64_t at = request->offset, end = at + request->length;
    uint64_t data = 0, hole = 0;
    uint32_t unit = call->device->base.block_size;

    while (at < end) {
        if (seek_next(call, at, end, SEEK_DATA, &data) < 0)
            return;
        data = data == end ? end : data - data % unit;
        if (data < at)
            data = at;
        if (!extent_add(request, at, data, BLOCK_EXTENT_ZERO))
            break;
        if (data == end)
            break;
        if (seek_next(call, data, end, SEEK_HOLE, &hole) < 0)
            return;
        hole = min_u64(round_up(hole, unit), end);
        if (hole <= data) /* it changed between the two calls: data is never wrong */
            hole = data + unit;
        if (!extent_add(request, data, hole, BLOCK_EXTENT_DATA))
            break;
        at = hole;
    }
    (void)file_call_shrank(call); /* beyond a new end all would look like a hole */
}

void file_call_run(struct file_call *call)
{
    switch (call->request->op) {
    case BLOCK_READ:
        run_read(call);
        break;
    case BLOCK_WRITE:
        run_write(call);
        break;
    case BLOCK_FLUSH:
        run_sync(call);
        break;
    case BLOCK_COPY:
        run_copy(call);
        break;
    case BLOCK_FORGET:
        run_forget(call);
        break;
    case BLOCK_EXTENTS:
        run_extents(call);
        break;
    default:
        run_zero(call);
    }
}

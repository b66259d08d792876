/* A regular file as a device.
 *
 * Each request goes one of three ways. What does not wait for a disk (anything on tmpfs; a
 * small read that is cached) is done at once by the loop itself, within bounds that keep
 * the turn short: handed to a thread, a copy of 512 KiB costs half as much again, in two
 * wake-ups and cold caches. The rest goes by io_uring, on a local file system and where
 * the kernel allows it. Else, and on file systems over a network, which may be stuck in
 * any call, preadv and pwritev run on the process-wide pool of threads.
 *
 * One device has at most POOL_LANES calls in the pool and RING_LANES in the kernel's
 * hands, so that a stuck disk leaves threads to the others; what is more waits in the
 * device, in order. A lane is a struct embedded in the device: no request allocates.
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
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/beneath.h"
#include "replica/block/drivers.h"
#include "replica/block/file_inside.h"
#include "replica/loop/sim.h"

enum {
    DEPTH = 16, /* requests in flight that are useful: lanes, and a queue */
    MAX_TRANSFER = 1 << 20, /* bytes */
    MAX_AT_ONCE =
            512 << 10, /* bytes: where all is done at once, others on the loop wait */
    STAT_BLOCK = 512, /* unit of st_blocks */
    TICK_TRIES = 25 /* ms, more than a tick takes */
};

static struct file_device *file_of(struct block_device *base)
{
    return container_of(base, struct file_device, base);
}

/* -- closing -------------------------------------------------------------------------- */

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

/* In memory the kernel copies from page to page: once, where read and write do it twice.
   Not elsewhere: a disk decides there, and where blocks can be shared they would be, which
   takes from the source what it has reserved. */
static bool file_can_copy(struct block_device *to, struct block_device *from)
{
    const struct file_device *a = file_of(to), *b = file_of(from);

    return a->in_memory && b->in_memory && a->file_system == b->file_system;
}

static const struct block_ops file_ops = {
    .name = "file",
    .submit = file_submit,
    .close = file_close,
    .can_copy = file_can_copy,
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
        why = "its name leads out of the directory, or over a mount";
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

static bool is_later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* Times are those of the kernel's tick, of some ms: a change in the same one would not show.
   A clock that was set back is not waited for: it does not come to the same time again soon. */
static void tick_pass(const struct stat *status)
{
    static const struct timespec pause = { .tv_nsec = 1000000 };
    struct timespec now;

    for (unsigned tries = 0; tries < TICK_TRIES; tries++) {
        (void)clock_gettime(CLOCK_REALTIME_COARSE, &now);
        if (is_later(&now, &status->st_mtim) && is_later(&now, &status->st_ctim))
            return;
        (void)nanosleep(&pause, NULL);
    }
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
    tick_pass(&status);
    return 0;
}

/* Which ways the file system leaves open of those that @file has. */
static void ways_choose(struct file_device *file)
{
    struct statfs status;
    bool local = false;

    if (fstatfs(file->fd, &status) < 0)
        status.f_type = 0;
    switch (status.f_type) {
    case TMPFS_MAGIC:
    case RAMFS_MAGIC:
        break;
    case EXT4_SUPER_MAGIC: /* and ext2, ext3 */
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
        local = true;
        __attribute__((fallthrough));
    default:
        file->in_memory = false;
    }
    if (!local)
        file->ring = NULL;
    if (!local ||
            file->ring) /* the ring finds out by itself what can be done at once */
        file->read_nowait = file->write_nowait = false;
    if (file->in_memory)
        file->base.max_transfer = MAX_AT_ONCE;
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
    file->file_system = status.st_dev;
    ways_choose(file);
    if (!file->in_memory)
        file->base.caps |= BLOCK_CAN_FORGET;
    /* Of a sync that failed the kernel may keep the pages as if they were clean: what is
       compared shall come from the disk, not from them. */
    if (spec->writable)
        (void)posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
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

/* REPLICAD_FILES=pool, or uring, or inline: for measurements and in need, that way and
   the pool alone. Read once. */
static unsigned avoided(void)
{
    static atomic_int read_once = -1;
    int avoid = atomic_load(&read_once);

    if (avoid < 0) {
        const char *only = getenv("REPLICAD_FILES");
        avoid = 0;
        if (only && strcmp(only, "inline") != 0)
            avoid |= BLOCK_AVOID_INLINE;
        if (only && strcmp(only, "uring") != 0)
            avoid |= BLOCK_AVOID_URING;
        atomic_store(&read_once, avoid);
    }
    return (unsigned)avoid;
}

/* Those that are wanted and that this process has. */
static void ways_offer(struct file_device *file, struct loop *loop, unsigned avoid)
{
    bool now = !(avoid & BLOCK_AVOID_INLINE) && !loop_is_simulated(loop);

    file->in_memory = file->read_nowait = file->write_nowait = now;
    file->ring = avoid & BLOCK_AVOID_URING ? NULL : uring_of(loop);
}

static struct file_device *file_create(struct loop *loop, const struct block_spec *spec)
{
    struct file_device *file = calloc(1, sizeof *file);

    if (!file)
        return NULL;
    file->base = (struct block_device){
        .ops = &file_ops,
        .loop = loop,
        .block_size = spec->block_size,
        .max_transfer = MAX_TRANSFER,
        .depth = DEPTH,
    };
    file_lanes_init(file);
    ways_offer(file, loop, spec->avoid | avoided());
    return file;
}

void block_file_open(
        struct loop *loop, const struct block_spec *spec, struct block_opening *opening)
{
    uint32_t unit = spec->block_size;
    struct file_opening *inner = calloc(1, sizeof *inner);
    struct file_device *file = inner ? file_create(loop, spec) : NULL;

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

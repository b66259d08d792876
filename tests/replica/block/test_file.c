/* The file driver: what it opens, and what it does in its pool of threads when the kernel
 * fails, is short or is stuck. The calls of the driver are wrapped by the linker (--wrap),
 * see CMakeLists.txt. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/block/open.h"
#include "tests/replica/block/shrunk.h"
#include "tests/support/device.h"
#include "tests/support/directory.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { SIZE = 65536 };

static struct directory directory;
static struct loop *loop;
static struct device_opening opening;
static uint8_t bytes[SIZE];

static void path_of(const char *name, char *path, size_t room)
{
    snprintf(path, room, "%s/%s", directory.path, name);
}

static void make_file(const char *name, uint64_t size)
{
    int fd = openat(directory.fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    expect(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    close(fd);
}

/* What is in memory is done at once, by the loop: wrapped like the rest. */
static bool at_once;

#define BOTH_WAYS(name)                                                                \
    static void name(void);                                                            \
    Test(file, name)                                                                   \
    {                                                                                  \
        name();                                                                        \
    }                                                                                  \
    Test(file, name##_at_once)                                                         \
    {                                                                                  \
        at_once = true;                                                                \
        name();                                                                        \
    }                                                                                  \
    static void name(void)

static void set(void)
{
    if (at_once)
        setenv("REPLICAD_TEST_DIR", "/dev/shm", 1);
    expect(directory_make(&directory));
    loop = loop_uv_create();
    make_file("disk", SIZE);
}

static void strike(void)
{
    loop_destroy(loop);
    directory_remove(&directory);
}

static struct block_device *open_as(
        const char *name, bool writable, uint32_t block_size, uint64_t expected)
{
    struct block_spec spec = { .driver = BLOCK_DRIVER_file,
        .writable = writable,
        .block_size = block_size,
        .expect_size = expected,
        .directory = directory.fd,
        .avoid = BLOCK_AVOID_URING | (at_once ? 0u : (unsigned)BLOCK_AVOID_INLINE) };

    snprintf(spec.name, sizeof spec.name, "%s", name);
    return device_open(loop, &spec, &opening);
}

static struct block_device *open_disk(bool writable)
{
    struct block_device *device = open_as("disk", writable, 512, 0);
    cr_assert(device != NULL, "%s", opening.fault.why);
    return device;
}

/* -- the kernel, as it may behave ----------------------------------------------------- */

static atomic_int sync_errors, write_errors; /* errnos to answer, once each; 0: none */
static atomic_uint syncs, dsync_writes, running, most_running;
static atomic_uint own_reads; /* by the loop itself */
static atomic_bool shorten;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* held: reads are stuck */

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
ssize_t __real_preadv64(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __real_pwritev64v2(
        int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t __wrap_pwritev64v2(
        int fd, const struct iovec *iov, int count, off_t offset, int flags);

int __wrap_fdatasync(int fd)
{
    int error = atomic_exchange(&sync_errors, 0);

    atomic_fetch_add(&syncs, 1);
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    if (error) {
        errno = error;
        return -1;
    }
    return __real_fdatasync(fd);
}

/* A third of the first buffer, as a signal or a slow file system may leave it. */
static bool shorter(const struct iovec *iov, struct iovec *one)
{
    if (!shorten || iov->iov_len < 3)
        return false;
    *one = (struct iovec){ iov->iov_base, iov->iov_len / 3 };
    return true;
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t offset)
{
    unsigned now = atomic_fetch_add(&running, 1) + 1, most = most_running;
    struct iovec one;

    while (now > most && !atomic_compare_exchange_weak(&most_running, &most, now))
        ;
    own_reads += loop_is_mine(loop);
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    atomic_fetch_sub(&running, 1);
    if (shorter(iov, &one))
        return __real_preadv64(fd, &one, 1, offset);
    return __real_preadv64(fd, iov, count, offset);
}

ssize_t __wrap_pwritev64v2(
        int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    int error = atomic_exchange(&write_errors, 0);
    struct iovec one;

    atomic_fetch_add(&dsync_writes, (flags & RWF_DSYNC) != 0);
    if (error) {
        errno = error;
        return -1;
    }
    if (shorter(iov, &one))
        return __real_pwritev64v2(fd, &one, 1, offset, flags);
    return __real_pwritev64v2(fd, iov, count, offset, flags);
}

/* -- opening -------------------------------------------------------------------------- */

static void expect_fault(const char *name, bool writable, int error)
{
    struct block_device *device = open_as(name, writable, 512, 0);

    cr_assert(!device, "%s was opened", name);
    cr_assert(opening.fault.error == error, "%s: %d (%s), not %d", name,
            opening.fault.error, opening.fault.why, error);
    expect(opening.fault.why[0] && !strstr(opening.fault.why, directory.path));
}

Test(file, names_that_lead_out_are_refused)
{
    char path[300];

    set();
    expect_eq(mkdirat(directory.fd, "inside", 0700), 0);
    make_file("inside/file", 512);
    path_of("disk", path, sizeof path);
    expect_eq(symlinkat("disk", directory.fd, "link"), 0);
    expect_eq(symlinkat("inside", directory.fd, "linkdir"), 0);
    expect_eq(symlinkat("/etc/passwd", directory.fd, "out"), 0);
    expect_eq(symlinkat("..", directory.fd, "up"), 0);
    expect_fault("..", false, -EXDEV);
    expect_fault("../x", false, -EXDEV);
    expect_fault("inside/../../x", false, -EXDEV);
    expect_fault(path, false, -EXDEV);
    expect_fault("/etc/passwd", false, -EXDEV);
    expect_fault("link", false, -ELOOP);
    expect_fault("linkdir/file", false, -ELOOP);
    expect_fault("out", false, -ELOOP);
    expect_fault("up/x", false, -ELOOP);
    struct block_device *device = open_as("inside/../inside/file", false, 512, 0);
    expect(device && device_close(&device)); /* dots that stay inside are a name */
    strike();
}

Test(file, only_regular_files_are_opened_and_nothing_is_waited_for)
{
    set();
    expect_eq(mkfifoat(directory.fd, "fifo", 0600), 0);
    expect_eq(mkdirat(directory.fd, "inside", 0700), 0);
    expect_fault("fifo", false, -EINVAL);
    expect_fault("fifo", true, -EINVAL);
    expect_fault("inside", false, -EINVAL);
    expect_fault("inside", true, -EINVAL);
    expect_fault("nothing", false, -ENOENT);
    expect_fault("nothing", true, -ENOENT);
    expect_fault("", false, -ENOENT);
    strike();
}

Test(file, the_size_is_what_was_expected_and_whole_blocks)
{
    set();
    make_file("odd", 1000);
    struct block_device *device = open_as("odd", true, 1, 1000);
    expect(device && device->size == 1000 && device_close(&device));
    expect(!open_as("odd", true, 512, 0));
    expect_eq(opening.fault.error, -EINVAL);
    expect(!open_as("disk", true, 512, SIZE + 512));
    expect_eq(opening.fault.error, -ESTALE);
    make_file("empty", 0);
    device = open_as("empty", true, 1, 0);
    expect(device && device->size == 0 && device_close(&device));
    strike();
}

Test(file, one_writer_at_a_time_and_readers_beside_it)
{
    set();
    struct block_device *writer = open_disk(true);
    expect(!open_as("disk", true, 512, 0));
    expect_eq(opening.fault.error, -EBUSY);
    struct block_device *reader = open_disk(false);
    expect(device_close(&writer));
    writer = open_disk(true);
    expect(device_close(&writer));
    expect(device_close(&reader));

    int fd = openat(directory.fd, "disk", O_RDWR | O_CLOEXEC);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    expect_eq(fcntl(fd, F_OFD_SETLK, &lock), 0); /* somebody else's */
    expect(!open_as("disk", true, 512, 0));
    expect_eq(opening.fault.error, -EBUSY);
    close(fd);
    strike();
}

/* flock() and fcntl() do not see each other's locks: both keep a writer out. */
Test(file, a_lock_of_flock_keeps_a_writer_out_too)
{
    static const int kinds[] = { LOCK_EX, LOCK_SH };

    set();
    int fd = openat(directory.fd, "disk", O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; i < 2; i++) {
        expect_eq(flock(fd, kinds[i]), 0);
        expect(!open_as("disk", true, 512, 0));
        expect_eq(opening.fault.error, -EBUSY);
        struct block_device *reader = open_disk(false);
        expect(device_close(&reader));
    }
    expect_eq(flock(fd, LOCK_UN), 0);
    struct block_device *writer = open_disk(true);
    expect_eq(flock(fd, LOCK_EX | LOCK_NB), -1);
    expect(device_close(&writer));
    expect_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
    close(fd);
    strike();
}

Test(file, the_identity_names_device_and_inode)
{
    struct stat status;
    char wanted[64];

    set();
    expect_eq(fstatat(directory.fd, "disk", &status, 0), 0);
    struct block_device *device = open_disk(false);
    snprintf(wanted, sizeof wanted, "file:%u:%u:%llu", (unsigned)(status.st_dev >> 8),
            (unsigned)(status.st_dev & 0xff), (unsigned long long)status.st_ino);
    expect_str(opening.identity.place, wanted);
    expect_str(opening.identity.world, "");
    expect(device_close(&device));
    strike();
}

Test(file, a_failed_opening_leaves_no_descriptor)
{
    set();
    expect_fault("nothing", true, -ENOENT);
    int before = dup(0);
    close(before);
    for (unsigned i = 0; i < 50; i++)
        expect(!open_as("disk", true, 512, SIZE * 2));
    struct block_device *writer = open_disk(true);
    for (unsigned i = 0; i < 50; i++)
        expect(!open_as("disk", true, 512, 0));
    expect(device_close(&writer));
    int after = dup(0);
    close(after);
    expect_eq(after, before);
    strike();
}

/* -- holes ---------------------------------------------------------------------------- */

enum { LARGE = 4 << 20, PIECE = 1 << 20 }; /* larger than any file system's block */

static unsigned list_extents(
        struct block_device *device, uint64_t offset, struct block_extent *extents)
{
    struct device_call call = { .request = { .op = BLOCK_EXTENTS,
                                        .offset = offset,
                                        .length = device->size - offset,
                                        .extents = extents,
                                        .extents_max = 8 } };

    expect_eq(device_call_run(device, &call), 0);
    return call.request.extents_count;
}

static void expect_extent(const struct block_extent *extent, uint64_t offset,
        uint64_t length, enum block_extent_kind kind)
{
    expect_eq(extent->offset, offset);
    expect_eq(extent->length, length);
    expect_eq(extent->kind, kind);
}

BOTH_WAYS(holes_are_found_where_they_are_and_made_where_zeros_are_asked)
{
    struct block_extent extents[8];
    uint8_t *piece = malloc(PIECE);

    set();
    make_file("large", LARGE);
    struct block_device *device = open_as("large", true, 512, 0);
    expect(device && (device->caps & BLOCK_THIN));
    expect_eq(list_extents(device, 0, extents), 1);
    expect_extent(&extents[0], 0, LARGE, BLOCK_EXTENT_ZERO);

    expect_eq(device_write(device, PIECE, memset(piece, 1, PIECE), PIECE), 0);
    expect_eq(list_extents(device, 0, extents), 3);
    expect_extent(&extents[0], 0, PIECE, BLOCK_EXTENT_ZERO);
    expect_extent(&extents[1], PIECE, PIECE, BLOCK_EXTENT_DATA);
    expect_extent(&extents[2], 2 * PIECE, 2 * PIECE, BLOCK_EXTENT_ZERO);
    expect_eq(list_extents(device, PIECE + 512, extents), 2);
    expect_extent(&extents[0], PIECE + 512, PIECE - 512, BLOCK_EXTENT_DATA);

    if (device->caps & BLOCK_CAN_ZERO) {
        expect_eq(device_do(device, BLOCK_ZERO, PIECE, NULL, PIECE, 0), 0);
        expect_eq(list_extents(device, 0, extents), 1);
        expect_extent(&extents[0], 0, LARGE, BLOCK_EXTENT_ZERO);
    }
    expect(device_close(&device));
    free(piece);
    strike();
}

BOTH_WAYS(a_reserved_file_keeps_its_blocks_when_it_is_zeroed)
{
    struct stat before, after;

    set();
    int fd = openat(directory.fd, "thick", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    expect(fd >= 0 && posix_fallocate(fd, 0, LARGE) == 0 && fstat(fd, &before) == 0);
    struct block_device *device = open_as("thick", true, 512, 0);
    expect(device && !(device->caps & BLOCK_THIN));
    int result = device_do(device, BLOCK_ZERO, PIECE, NULL, PIECE, 0);
    expect(result == 0 || result == -EOPNOTSUPP);
    /* tmpfs has no other way to zero than to give the blocks back */
    bool can_keep =
            fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0;
    expect(fstat(fd, &after) == 0);
    expect(!can_keep || after.st_blocks >= before.st_blocks);
    expect(device_close(&device));
    close(fd);
    strike();
}

/* -- a file that changes under us ----------------------------------------------------- */

BOTH_WAYS(a_file_that_shrank_is_stale_and_is_not_made_whole)
{
    char path[300];

    set();
    struct block_device *device = open_disk(true);
    path_of("disk", path, sizeof path);
    expect_stale_when_shrunk(device, path);
    expect(device_close(&device));
    strike();
}

/* -- a kernel that does less than it was asked ---------------------------------------- */

BOTH_WAYS(short_reads_and_writes_are_carried_on)
{
    uint64_t seed = seed_take("short");
    uint8_t *back = malloc(SIZE);

    set();
    struct block_device *device = open_disk(true);
    shorten = true;
    seed_fill(&seed, bytes, SIZE);
    expect_eq(device_write(device, 0, bytes, SIZE), 0);
    expect_eq(device_read(device, 0, back, SIZE), 0);
    shorten = false;
    expect(memcmp(back, bytes, SIZE) == 0);
    expect_eq(device_read(device, 0, back, SIZE), 0);
    expect(memcmp(back, bytes, SIZE) == 0);
    expect(device_close(&device));
    free(back);
    strike();
}

BOTH_WAYS(a_full_disk_is_told_and_passes)
{
    set();
    struct block_device *device = open_disk(true);
    write_errors = ENOSPC;
    expect_eq(device_write(device, 0, bytes, 512), -ENOSPC);
    expect_str(block_last_words(device), "write: No space left on device");
    write_errors = EDQUOT;
    expect_eq(device_write(device, 0, bytes, 512), -ENOSPC);
    expect_eq(device_write(device, 0, bytes, 512), 0);
    expect(!device->broken);
    expect(device_close(&device));
    strike();
}

BOTH_WAYS(a_failed_flush_breaks_the_device_for_good)
{
    set();
    struct block_device *device = open_disk(true);
    expect_eq(device_write(device, 0, bytes, 512), 0);
    sync_errors = EIO;
    expect_eq(device_flush(device), -EIO);
    expect(device->broken);
    expect_str(block_last_words(device), "fdatasync: Input/output error");
    unsigned before = syncs;
    expect_eq(device_flush(device), -ENOTCONN);
    expect_eq(device_write(device, 0, bytes, 512), -ENOTCONN);
    expect_eq(device_read(device, 0, bytes, 512), -ENOTCONN);
    expect_eq(syncs, before);
    expect(device_close(&device));
    strike();
}

BOTH_WAYS(a_failed_stable_write_breaks_it_too)
{
    set();
    struct block_device *device = open_disk(true);
    write_errors = EIO;
    expect_eq(device_do(device, BLOCK_WRITE, 0, bytes, 512, BLOCK_FUA), -EIO);
    expect_eq(dsync_writes, 1);
    expect_eq(device_flush(device), -ENOTCONN);
    expect(device_close(&device));
    strike();
}

enum {
    MANY = 100, /* of SIZE each, or more: more than one turn may copy */
    LONGEST = 1 << 20
};

static struct device_call flight[MANY];
static struct iovec whole[MANY];
static struct block_device *burst_device;
static uint32_t burst_length;
static uint8_t longest[LONGEST];

static void burst(struct loop_task *task)
{
    (void)task;
    for (unsigned i = 0; i < MANY; i++) {
        whole[i] = (struct iovec){ longest, burst_length };
        flight[i] = (struct device_call){ .request = { .op = BLOCK_READ,
                                                  .length = burst_length,
                                                  .iov = &whole[i],
                                                  .iovcnt = 1,
                                                  .done = device_call_done } };
        block_submit(burst_device, &flight[i].request);
        expect(!flight[i].done);
    }
}

/* The rest is for the pool. */
static void burst_of(uint32_t length)
{
    struct loop_task task = { .run = burst };

    burst_length = length;
    own_reads = 0;
    memset(flight, 0, sizeof flight);
    loop_post(loop, &task);
    for (unsigned i = 0; i < MANY; i++) {
        expect(drive_until(loop, &flight[i].done));
        expect_eq(flight[i].result, 0);
    }
    expect_eq(own_reads, (4 << 20) / length);
}

Test(file, what_one_turn_copies_at_once_is_bounded)
{
    at_once = true;
    set();
    make_file("large", LONGEST);
    burst_device = open_as("large", true, 512, 0);
    expect(burst_device);
    burst_of(SIZE);
    burst_of(LONGEST);
    expect(device_close(&burst_device));
    strike();
}

/* -- from file to file -------------------------------------------------------------- */

enum { COPIED = 4 * SIZE };

static uint8_t there[COPIED], here[COPIED];

static struct block_device *open_filled(const char *name, uint8_t *content)
{
    struct block_device *device;

    make_file(name, COPIED);
    device = open_as(name, true, 512, 0);
    expect(device);
    expect_eq(device_write(device, 0, content, COPIED), 0);
    return device;
}

static int copy_all(struct block_device *to, struct block_device *from)
{
    struct device_call call = { .request = { .op = BLOCK_COPY,
                                        .length = COPIED,
                                        .from = from,
                                        .done = device_call_done } };

    block_submit(to, &call.request);
    expect(!call.done);
    expect(drive_until(loop, &call.done));
    return call.result;
}

Test(file, in_memory_the_kernel_copies_what_is_not_zero)
{
    struct block_device *from, *to;

    at_once = true;
    set();
    for (unsigned i = 0; i < COPIED; i++)
        there[i] = (uint8_t)(i % 251 + 1);
    from = open_filled("from", there);
    to = open_filled("to", here);
    expect(block_can_copy(to, from));

    expect_eq(copy_all(to, from), 0);
    expect_eq(device_read(to, 0, here, COPIED), 0);
    expect(memcmp(here, there, COPIED) == 0);

    memset(there + COPIED - SIZE, 0, SIZE); /* the last run, and no other */
    expect_eq(device_write(from, 0, there, COPIED), 0);
    expect_eq(copy_all(to, from), -ENODATA);
    expect(device_close(&from));
    expect(device_close(&to));
    strike();
}

static void shorten_file(const char *name)
{
    char path[300];

    path_of(name, path, sizeof path);
    expect_eq(truncate(path, SIZE), 0);
}

Test(file, the_kernel_copies_neither_from_nor_to_beyond_a_new_end)
{
    struct block_device *from, *to;
    struct stat status;
    char path[300];

    at_once = true;
    set();
    memset(there, 1, sizeof there);
    from = open_filled("from", there);
    to = open_filled("to", here);
    shorten_file("to");
    expect_eq(copy_all(to, from), -ESTALE);
    path_of("to", path, sizeof path);
    expect_eq(stat(path, &status), 0);
    expect_eq(status.st_size, SIZE);
    shorten_file("from"); /* what is not there may be zeros: to be looked at */
    expect(copy_all(to, from) < 0);
    expect(device_close(&from));
    expect(device_close(&to));
    strike();
}

Test(file, files_on_disks_are_read_and_written)
{
    struct block_device *from, *to;

    set(); /* as if on a disk */
    from = open_filled("from", there);
    to = open_filled("to", here);
    expect(!block_can_copy(to, from));
    expect(device_close(&from));
    expect(device_close(&to));
    strike();
}

/* -- a disk that is stuck ------------------------------------------------------------- */

enum { CALLS = 24 };

static struct device_call calls[CALLS];
static struct iovec iovs[CALLS];

static void start(struct block_device *device, unsigned at, enum block_op op)
{
    iovs[at] = (struct iovec){ bytes + at * 512, 512 };
    calls[at] = (struct device_call){ .request = { .op = op,
                                              .offset = at * 512,
                                              .length = 512,
                                              .iov = &iovs[at],
                                              .iovcnt = 1,
                                              .done = device_call_done } };
    block_submit(device, &calls[at].request);
}

static void land_all(int wanted)
{
    for (unsigned i = 0; i < CALLS; i++) {
        expect(drive_until(loop, &calls[i].done));
        expect_eq(calls[i].result, wanted);
    }
}

Test(file, a_stuck_disk_holds_four_threads_and_no_more)
{
    bool never = false;

    setenv("UV_THREADPOOL_SIZE", "24", 1);
    set();
    struct block_device *device = open_disk(true);
    pthread_mutex_lock(&gate);
    for (unsigned i = 0; i < CALLS; i++)
        start(device, i, BLOCK_READ);
    while (running < 4)
        drive_until_ms(loop, &never, 1);
    drive_until_ms(loop, &never, 20);
    expect_eq(most_running, 4);

    make_file("other", SIZE); /* meanwhile another device goes on */
    struct block_device *other = open_as("other", true, 512, 0);
    expect(other);
    expect_eq(device_write(other, 0, bytes, 512), 0);
    pthread_mutex_unlock(&gate);
    land_all(0);
    expect(device_close(&other));
    expect(device_close(&device));
    strike();
}

Test(file, flushes_that_wait_together_are_one)
{
    bool never = false;

    set();
    struct block_device *device = open_disk(true);
    pthread_mutex_lock(&gate);
    for (unsigned i = 0; i < CALLS; i++)
        start(device, i, BLOCK_FLUSH);
    while (syncs < 1)
        drive_until_ms(loop, &never, 1);
    pthread_mutex_unlock(&gate);
    land_all(0);
    expect_eq(syncs, 2); /* the first alone, then all that came meanwhile */
    expect(device_close(&device));
    strike();
}

Test(file, what_waits_behind_a_failed_flush_fails_without_another_try)
{
    bool never = false;

    set();
    struct block_device *device = open_disk(true);
    sync_errors = EIO;
    pthread_mutex_lock(&gate);
    for (unsigned i = 0; i < CALLS; i++)
        start(device, i, BLOCK_FLUSH);
    while (syncs < 1)
        drive_until_ms(loop, &never, 1);
    pthread_mutex_unlock(&gate);
    expect(drive_until(loop, &calls[0].done));
    expect_eq(calls[0].result, -EIO);
    for (unsigned i = 1; i < CALLS; i++) {
        expect(drive_until(loop, &calls[i].done));
        expect_eq(calls[i].result, -ENOTCONN);
    }
    expect_eq(syncs, 1);
    expect(device_close(&device));
    strike();
}

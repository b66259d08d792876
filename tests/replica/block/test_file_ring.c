/* The file driver by io_uring: what it does when the ring is short, full, disturbed, fails
 * or is stuck. The ring's three calls are wrapped by the linker, see CMakeLists.txt. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/block/open.h"
#include "replica/block/uring.h"
#include "tests/replica/block/shrunk.h"
#include "tests/support/device.h"
#include "tests/support/directory.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { SIZE = 1 << 20, CALLS = 48 };

static struct directory directory;
static struct loop *loop;
static struct block_device *device;
static uint8_t bytes[SIZE], back[SIZE];

/* -- the ring, as it may behave ------------------------------------------------------- */

static int errors[8]; /* to answer instead of the kernel, in order; 0 ends */
static unsigned errors_at, transfers, stable_transfers, syncs, allocations;
static bool shorten, full, stuck;

static struct held {
    struct loop_task task;
    struct uring_call *call;
    int result;
} held[CALLS];

static void held_tell(struct loop_task *task)
{
    struct held *one = container_of(task, struct held, task);
    struct uring_call *call = one->call;

    one->call = NULL;
    call->done(call, one->result);
}

static struct held *hold(struct uring_call *call, int result)
{
    unsigned at = 0;

    while (at < CALLS && held[at].call)
        at++;
    expect(at < CALLS);
    held[at] = (struct held){ .task.run = held_tell, .call = call, .result = result };
    return &held[at];
}

static unsigned held_count(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < CALLS; i++)
        count += held[i].call != NULL;
    return count;
}

/* Ends all that is stuck, as if it were done. */
static void release(void)
{
    stuck = false;
    for (unsigned i = 0; i < CALLS; i++)
        if (held[i].call)
            loop_post(loop, &held[i].task);
}

/* True when the kernel is not to be asked. */
static bool answered(struct uring_call *call, int result)
{
    if (errors[errors_at])
        loop_post(loop, &hold(call, errors[errors_at++])->task);
    else if (stuck)
        hold(call, result);
    else
        return false;
    return true;
}

bool __real_uring_transfer(
        struct uring *, struct uring_call *, const struct uring_transfer *);
bool __wrap_uring_transfer(
        struct uring *, struct uring_call *, const struct uring_transfer *);
bool __real_uring_sync(struct uring *, struct uring_call *, int);
bool __wrap_uring_sync(struct uring *, struct uring_call *, int);
bool __real_uring_allocate(
        struct uring *, struct uring_call *, int, int, uint64_t, uint64_t);
bool __wrap_uring_allocate(
        struct uring *, struct uring_call *, int, int, uint64_t, uint64_t);

bool __wrap_uring_transfer(struct uring *ring, struct uring_call *call,
        const struct uring_transfer *transfer)
{
    static struct iovec third;
    struct uring_transfer less = *transfer;
    uint64_t length = 0;

    for (int i = 0; i < transfer->iovcnt; i++)
        length += transfer->iov[i].iov_len;
    transfers++;
    stable_transfers += transfer->stable;
    if (full)
        return false;
    if (answered(call, (int)length))
        return true;
    if (!shorten || transfer->iov->iov_len < 3)
        return __real_uring_transfer(ring, call, transfer);
    third = (struct iovec){ transfer->iov->iov_base, transfer->iov->iov_len / 3 };
    less.iov = &third;
    less.iovcnt = 1;
    return __real_uring_transfer(ring, call, &less);
}

bool __wrap_uring_sync(struct uring *ring, struct uring_call *call, int fd)
{
    syncs++;
    return !full && (answered(call, 0) || __real_uring_sync(ring, call, fd));
}

bool __wrap_uring_allocate(struct uring *ring, struct uring_call *call, int fd,
        int mode, uint64_t offset, uint64_t length)
{
    allocations++;
    return !full &&
            (answered(call, 0) ||
                    __real_uring_allocate(ring, call, fd, mode, offset, length));
}

/* -- the scene ------------------------------------------------------------------------ */

static void strike(void)
{
    expect(device_close(&device));
    loop_destroy(loop);
    directory_remove(&directory);
}

/* The test is skipped where this kernel or file system has no ring for us. */
static void set(void)
{
    struct block_spec spec = { .driver = BLOCK_DRIVER_file,
        .writable = true,
        .block_size = 512,
        .name = "disk",
        .avoid = BLOCK_AVOID_INLINE };
    uint64_t seed = seed_take("ring");
    int fd;

    expect(directory_make(&directory));
    loop = loop_uv_create();
    fd = openat(directory.fd, "disk", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    expect(fd >= 0 && ftruncate(fd, SIZE) == 0);
    close(fd);
    spec.directory = directory.fd;
    device = device_open(loop, &spec, NULL);
    expect(device);
    seed_fill(&seed, bytes, SIZE);
    expect_eq(device_read(device, 0, back, 512), 0);
    if (transfers == 0) {
        strike();
        cr_skip_test("no io_uring here, or not for this file system");
    }
    transfers = 0;
}

static void expect_disk(uint64_t offset, uint64_t length)
{
    int fd = openat(directory.fd, "disk", O_RDONLY | O_CLOEXEC);

    expect_eq(pread(fd, back, length, (off_t)offset), length);
    expect(memcmp(back, bytes + offset, length) == 0);
    close(fd);
}

Test(file_ring, short_answers_are_carried_on)
{
    set();
    shorten = true;
    expect_eq(device_write(device, 0, bytes, 65536), 0);
    expect(transfers > 10);
    expect_disk(0, 65536);
    memset(back, 0, sizeof back);
    expect_eq(device_read(device, 0, back, 65536), 0);
    expect(memcmp(back, bytes, 65536) == 0);
    strike();
}

Test(file_ring, what_it_does_not_take_goes_to_the_pool)
{
    set();
    full = true;
    expect_eq(device_write(device, 4096, bytes + 4096, 8192), 0);
    expect_eq(device_flush(device), 0);
    expect_disk(4096, 8192);
    if (device->caps & BLOCK_CAN_ZERO) {
        expect_eq(device_do(device, BLOCK_ZERO, 4096, NULL, 4096, BLOCK_FUA), 0);
        memset(bytes + 4096, 0, 4096);
    }
    expect_eq(device_read(device, 4096, back, 8192), 0);
    expect(memcmp(back, bytes + 4096, 8192) == 0);
    strike();
}

Test(file_ring, a_disturbed_call_is_made_again_and_from_where_it_was)
{
    static const int disturbances[] = { -EINTR, -EAGAIN, -ECANCELED };

    set();
    for (unsigned i = 0; i < 3; i++) {
        errors[0] = disturbances[i];
        errors_at = 0;
        expect_eq(device_do(device, BLOCK_WRITE, i * 4096, bytes + i * 4096, 4096,
                          i == 1 ? BLOCK_FUA : 0),
                0);
        expect_eq(errors_at, 1);
        errors_at = 0;
        expect_eq(device_flush(device), 0);
        expect_eq(errors_at, 1);
    }
    expect_disk(0, 3 * 4096);
    expect(!device->broken);
    strike();
}

Test(file_ring, a_full_disk_is_told_and_passes)
{
    set();
    errors[0] = -ENOSPC;
    errors[1] = -EDQUOT;
    errors[2] = -EIO;
    expect_eq(device_write(device, 0, bytes, 512), -ENOSPC);
    expect_str(block_last_words(device), "write: No space left on device");
    expect_eq(device_write(device, 0, bytes, 512), -ENOSPC);
    expect_eq(device_read(device, 0, back, 512), -EIO);
    expect_str(block_last_words(device), "read: Input/output error");
    expect_eq(device_write(device, 0, bytes, 512), 0);
    expect(!device->broken);
    strike();
}

Test(file_ring, a_failed_flush_breaks_the_device_for_good)
{
    set();
    errors[0] = -EIO;
    expect_eq(device_flush(device), -EIO);
    expect(device->broken);
    expect_str(block_last_words(device), "fdatasync: Input/output error");
    expect_eq(device_flush(device), -ENOTCONN);
    expect_eq(device_write(device, 0, bytes, 512), -ENOTCONN);
    expect_eq(syncs, 1);
    strike();
}

Test(file_ring, a_failed_stable_write_breaks_it_too)
{
    set();
    errors[0] = -EIO;
    expect_eq(device_do(device, BLOCK_WRITE, 0, bytes, 512, BLOCK_FUA), -EIO);
    expect_eq(stable_transfers, 1);
    expect_eq(device_flush(device), -ENOTCONN);
    strike();
}

Test(file_ring, zeros_take_the_other_way_and_are_made_stable)
{
    set();
    if (!(device->caps & BLOCK_CAN_ZERO)) {
        strike();
        cr_skip_test("no holes here");
    }
    expect_eq(device_write(device, 0, bytes, 16384), 0);
    errors[0] = -EOPNOTSUPP;
    errors[1] = -EOPNOTSUPP;
    expect_eq(device_do(device, BLOCK_ZERO, 0, NULL, 4096, 0), -EOPNOTSUPP);
    expect_eq(allocations, 2);
    expect_eq(device_do(device, BLOCK_ZERO, 4096, NULL, 4096, BLOCK_FUA), 0);
    expect_eq(allocations, 3);
    expect_eq(syncs, 1);
    memset(bytes + 4096, 0, 4096);
    expect_disk(0, 16384);
    errors_at = 0;
    errors[1] = 0; /* a discard has no other way */
    expect_eq(device_do(device, BLOCK_DISCARD, 0, NULL, 4096, 0), -EOPNOTSUPP);
    expect_eq(allocations, 4);
    strike();
}

Test(file_ring, a_file_that_shrank_is_stale_and_is_not_made_whole)
{
    char path[300];

    set();
    snprintf(path, sizeof path, "%s/disk", directory.path);
    expect_stale_when_shrunk(device, path);
    strike();
}

/* -- a disk that is stuck ------------------------------------------------------------- */

static struct device_call calls[CALLS];

static void start(unsigned at, enum block_op op)
{
    device_call_start(&calls[at], device, op, at * 512, bytes + at * 512, 512);
}

static void land_all(void)
{
    for (unsigned i = 0; i < CALLS; i++) {
        expect(drive_until(loop, &calls[i].done));
        expect_eq(calls[i].result, 0);
    }
    expect_eq(device->in_flight, 0);
}

Test(file_ring, flushes_that_wait_together_are_one)
{
    set();
    stuck = true;
    for (unsigned i = 0; i < CALLS; i++)
        start(i, BLOCK_FLUSH);
    expect_eq(syncs, 1);
    release();
    land_all();
    expect_eq(syncs, 2);
    strike();
}

Test(file_ring, what_is_under_way_is_bounded)
{
    set();
    stuck = true;
    for (unsigned i = 0; i < CALLS; i++)
        start(i, BLOCK_WRITE);
    expect_eq(held_count(), 32);
    release();
    land_all();
    strike();
}

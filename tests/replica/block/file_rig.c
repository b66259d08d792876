#include "tests/replica/block/file_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "tests/support/expect.h"

#define MEMORY "/dev/shm"

struct file_rig file_rig;
struct file_kernel file_kernel = { .gate = PTHREAD_MUTEX_INITIALIZER };

/* -- the scene ------------------------------------------------------------------------ */

void file_path(const char *name, char *path, size_t room)
{
    snprintf(path, room, "%s/%s", file_rig.directory.path, name);
}

void file_make(const char *name, uint64_t size)
{
    int fd = openat(file_rig.directory.fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    expect(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    close(fd);
}

void file_set(void)
{
    struct statfs status;

    if (file_rig.at_once) {
        if (statfs(MEMORY, &status) != 0 || status.f_type != TMPFS_MAGIC)
            cr_skip_test("no file system in memory at " MEMORY);
        setenv("REPLICAD_TEST_DIR", MEMORY, 1);
    }
    expect(directory_make(&file_rig.directory));
    file_rig.loop = loop_uv_create();
    file_make("disk", FILE_SIZE);
}

void file_strike(void)
{
    loop_destroy(file_rig.loop);
    directory_remove(&file_rig.directory);
}

struct block_device *file_open_as(
        const char *name, bool writable, uint32_t block_size, uint64_t expected)
{
    unsigned other = file_rig.at_once ? 0u : (unsigned)BLOCK_AVOID_INLINE;
    struct block_spec spec = { .driver = BLOCK_DRIVER_file,
        .writable = writable,
        .block_size = block_size,
        .expect_size = expected,
        .directory = file_rig.directory.fd,
        .avoid = BLOCK_AVOID_URING | other };

    snprintf(spec.name, sizeof spec.name, "%s", name);
    return device_open(file_rig.loop, &spec, &file_rig.opening);
}

struct block_device *file_open_disk(bool writable)
{
    struct block_device *device = file_open_as("disk", writable, 512, 0);
    cr_assert(device != NULL, "%s", file_rig.opening.fault.why);
    return device;
}

void file_await(const atomic_uint *count, unsigned wanted)
{
    struct instant due = instant_add_ms(clock_monotonic(), 30000);
    bool never = false;

    while (*count < wanted) {
        cr_assert(
                !instant_reached(clock_monotonic(), due), "%u, not %u", *count, wanted);
        drive_until_ms(file_rig.loop, &never, 1);
    }
}

/* -- the kernel, as it may behave ----------------------------------------------------- */

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
    int error = atomic_exchange(&file_kernel.sync_errors, 0);

    atomic_fetch_add(&file_kernel.syncs, 1);
    pthread_mutex_lock(&file_kernel.gate);
    pthread_mutex_unlock(&file_kernel.gate);
    if (error) {
        errno = error;
        return -1;
    }
    return __real_fdatasync(fd);
}

/* A third of the first buffer, as a signal or a slow file system may leave it. */
static bool shorter(const struct iovec *iov, struct iovec *one)
{
    if (!file_kernel.shorten || iov->iov_len < 3)
        return false;
    *one = (struct iovec){ iov->iov_base, iov->iov_len / 3 };
    return true;
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t offset)
{
    struct file_kernel *kernel = &file_kernel;
    unsigned now = atomic_fetch_add(&kernel->running, 1) + 1;
    unsigned most = kernel->most_running;
    struct iovec one;

    while (now > most &&
            !atomic_compare_exchange_weak(&kernel->most_running, &most, now))
        ;
    kernel->own_reads += loop_is_mine(file_rig.loop);
    pthread_mutex_lock(&kernel->gate);
    pthread_mutex_unlock(&kernel->gate);
    atomic_fetch_sub(&kernel->running, 1);
    if (shorter(iov, &one))
        return __real_preadv64(fd, &one, 1, offset);
    return __real_preadv64(fd, iov, count, offset);
}

ssize_t __wrap_pwritev64v2(
        int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    int error = atomic_exchange(&file_kernel.write_errors, 0);
    struct iovec one;

    atomic_fetch_add(&file_kernel.dsync_writes, (flags & RWF_DSYNC) != 0);
    if (error) {
        errno = error;
        return -1;
    }
    if (shorter(iov, &one))
        return __real_pwritev64v2(fd, &one, 1, offset, flags);
    return __real_pwritev64v2(fd, iov, count, offset, flags);
}

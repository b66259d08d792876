/* The file driver: what it opens, and what it does in its pool of threads when the kernel
 * fails or is short. A disk that is stuck has a file of its own, and so have copies. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "replica/block/open.h"
#include "tests/replica/block/file_rig.h"
#include "tests/replica/block/shrunk.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { SIZE = FILE_SIZE };

static uint8_t bytes[SIZE];

/* What is in memory is done at once, by the loop: wrapped like the rest. */
#define BOTH_WAYS(name)                                                                \
    static void name(void);                                                            \
    Test(file, name)                                                                   \
    {                                                                                  \
        name();                                                                        \
    }                                                                                  \
    Test(file, name##_at_once)                                                         \
    {                                                                                  \
        file_rig.at_once = true;                                                       \
        name();                                                                        \
    }                                                                                  \
    static void name(void)

/* -- opening -------------------------------------------------------------------------- */

static void expect_fault(const char *name, bool writable, int error)
{
    struct block_device *device = file_open_as(name, writable, 512, 0);

    cr_assert(!device, "%s was opened", name);
    cr_assert(file_rig.opening.fault.error == error, "%s: %d (%s), not %d", name,
            file_rig.opening.fault.error, file_rig.opening.fault.why, error);
    expect(file_rig.opening.fault.why[0] &&
            !strstr(file_rig.opening.fault.why, file_rig.directory.path));
}

Test(file, names_that_lead_out_are_refused)
{
    char path[300];

    file_set();
    expect_eq(mkdirat(file_rig.directory.fd, "inside", 0700), 0);
    file_make("inside/file", 512);
    file_path("disk", path, sizeof path);
    expect_eq(symlinkat("disk", file_rig.directory.fd, "link"), 0);
    expect_eq(symlinkat("inside", file_rig.directory.fd, "linkdir"), 0);
    expect_eq(symlinkat("/etc/passwd", file_rig.directory.fd, "out"), 0);
    expect_eq(symlinkat("..", file_rig.directory.fd, "up"), 0);
    expect_fault("..", false, -EXDEV);
    expect_fault("../x", false, -EXDEV);
    expect_fault("inside/../../x", false, -EXDEV);
    expect_fault(path, false, -EXDEV);
    expect_fault("/etc/passwd", false, -EXDEV);
    expect_fault("link", false, -ELOOP);
    expect_fault("linkdir/file", false, -ELOOP);
    expect_fault("out", false, -ELOOP);
    expect_fault("up/x", false, -ELOOP);
    struct block_device *device = file_open_as("inside/../inside/file", false, 512, 0);
    expect(device && device_close(&device)); /* dots that stay inside are a name */
    file_strike();
}

Test(file, only_regular_files_are_opened_and_nothing_is_waited_for)
{
    file_set();
    expect_eq(mkfifoat(file_rig.directory.fd, "fifo", 0600), 0);
    expect_eq(mkdirat(file_rig.directory.fd, "inside", 0700), 0);
    expect_fault("fifo", false, -EINVAL);
    expect_fault("fifo", true, -EINVAL);
    expect_fault("inside", false, -EINVAL);
    expect_fault("inside", true, -EINVAL);
    expect_fault("nothing", false, -ENOENT);
    expect_fault("nothing", true, -ENOENT);
    expect_fault("", false, -ENOENT);
    file_strike();
}

Test(file, the_size_is_what_was_expected_and_whole_blocks)
{
    file_set();
    file_make("odd", 1000);
    struct block_device *device = file_open_as("odd", true, 1, 1000);
    expect(device && device->size == 1000 && device_close(&device));
    expect(!file_open_as("odd", true, 512, 0));
    expect_eq(file_rig.opening.fault.error, -EINVAL);
    expect(!file_open_as("disk", true, 512, SIZE + 512));
    expect_eq(file_rig.opening.fault.error, -ESTALE);
    file_make("empty", 0);
    device = file_open_as("empty", true, 1, 0);
    expect(device && device->size == 0 && device_close(&device));
    file_strike();
}

Test(file, one_writer_at_a_time_and_readers_beside_it)
{
    file_set();
    struct block_device *writer = file_open_disk(true);
    expect(!file_open_as("disk", true, 512, 0));
    expect_eq(file_rig.opening.fault.error, -EBUSY);
    struct block_device *reader = file_open_disk(false);
    expect(device_close(&writer));
    writer = file_open_disk(true);
    expect(device_close(&writer));
    expect(device_close(&reader));

    int fd = openat(file_rig.directory.fd, "disk", O_RDWR | O_CLOEXEC);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    expect_eq(fcntl(fd, F_OFD_SETLK, &lock), 0); /* somebody else's */
    expect(!file_open_as("disk", true, 512, 0));
    expect_eq(file_rig.opening.fault.error, -EBUSY);
    close(fd);
    file_strike();
}

/* flock() and fcntl() do not see each other's locks: both keep a writer out. */
Test(file, a_lock_of_flock_keeps_a_writer_out_too)
{
    static const int kinds[] = { LOCK_EX, LOCK_SH };

    file_set();
    int fd = openat(file_rig.directory.fd, "disk", O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; i < 2; i++) {
        expect_eq(flock(fd, kinds[i]), 0);
        expect(!file_open_as("disk", true, 512, 0));
        expect_eq(file_rig.opening.fault.error, -EBUSY);
        struct block_device *reader = file_open_disk(false);
        expect(device_close(&reader));
    }
    expect_eq(flock(fd, LOCK_UN), 0);
    struct block_device *writer = file_open_disk(true);
    expect_eq(flock(fd, LOCK_EX | LOCK_NB), -1);
    expect(device_close(&writer));
    expect_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
    close(fd);
    file_strike();
}

Test(file, what_is_mounted_below_is_not_of_the_directory)
{
    char path[200];

    if (unshare(CLONE_NEWNS) != 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("nothing may be mounted here");
    file_set();
    file_path("other", path, sizeof path);
    expect_eq(mkdir(path, 0700), 0);
    expect_eq(mount("tmpfs", path, "tmpfs", 0, "size=64k"), 0);
    file_make("other/disk", 4096);
    expect_fault("other/disk", false, -EXDEV);
    expect_eq(umount(path), 0);
    expect_eq(rmdir(path), 0);
    file_strike();
}

Test(file, the_identity_names_device_and_inode)
{
    struct stat status;
    char wanted[64];

    file_set();
    expect_eq(fstatat(file_rig.directory.fd, "disk", &status, 0), 0);
    struct block_device *device = file_open_disk(false);
    snprintf(wanted, sizeof wanted, "file:%u:%u:%llu", major(status.st_dev),
            minor(status.st_dev), (unsigned long long)status.st_ino);
    expect_str(file_rig.opening.identity.place, wanted);
    expect_str(file_rig.opening.identity.world, "");
    expect(device_close(&device));
    file_strike();
}

/* Times move by ticks: one that is told in the tick of the last change would be that of a next
   one, too. */
Test(file, who_writes_after_it_was_looked_at_shows)
{
    struct block_spec spec = { .driver = BLOCK_DRIVER_file };
    char before[BLOCK_CHANGED_MAX], after[BLOCK_CHANGED_MAX];
    struct timespec now;
    struct stat status;

    file_set();
    spec.directory = file_rig.directory.fd;
    strcpy(spec.name, "disk");
    int fd = openat(spec.directory, "disk", O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; i < 10; i++) {
        expect_eq(pwrite(fd, "a", 1, 0), 1);
        expect_eq(block_changed(&spec, before), 0);
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
        expect_eq(fstat(fd, &status), 0);
        expect(now.tv_sec > status.st_ctim.tv_sec ||
                (now.tv_sec == status.st_ctim.tv_sec &&
                        now.tv_nsec > status.st_ctim.tv_nsec));
        expect_eq(pwrite(fd, "b", 1, 0), 1);
        expect_eq(block_changed(&spec, after), 0);
        expect(strcmp(before, after) != 0);
    }
    close(fd);
    file_strike();
}

Test(file, a_failed_opening_leaves_no_descriptor)
{
    file_set();
    expect_fault("nothing", true, -ENOENT);
    int before = dup(0);
    close(before);
    for (unsigned i = 0; i < 50; i++)
        expect(!file_open_as("disk", true, 512, SIZE * 2));
    struct block_device *writer = file_open_disk(true);
    for (unsigned i = 0; i < 50; i++)
        expect(!file_open_as("disk", true, 512, 0));
    expect(device_close(&writer));
    int after = dup(0);
    close(after);
    expect_eq(after, before);
    file_strike();
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

    file_set();
    file_make("large", LARGE);
    struct block_device *device = file_open_as("large", true, 512, 0);
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
    file_strike();
}

BOTH_WAYS(a_reserved_file_keeps_its_blocks_when_it_is_zeroed)
{
    struct stat before, after;

    file_set();
    int fd = openat(file_rig.directory.fd, "thick", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    expect(fd >= 0 && posix_fallocate(fd, 0, LARGE) == 0 && fstat(fd, &before) == 0);
    struct block_device *device = file_open_as("thick", true, 512, 0);
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
    file_strike();
}

/* -- a file that changes under us ----------------------------------------------------- */

BOTH_WAYS(a_file_that_shrank_is_stale_and_is_not_made_whole)
{
    char path[300];

    file_set();
    struct block_device *device = file_open_disk(true);
    file_path("disk", path, sizeof path);
    expect_stale_when_shrunk(device, path);
    expect(device_close(&device));
    file_strike();
}

/* -- a kernel that does less than it was asked ---------------------------------------- */

BOTH_WAYS(short_reads_and_writes_are_carried_on)
{
    uint64_t seed = seed_take("short");
    uint8_t *back = malloc(SIZE);

    file_set();
    struct block_device *device = file_open_disk(true);
    file_kernel.shorten = true;
    seed_fill(&seed, bytes, SIZE);
    expect_eq(device_write(device, 0, bytes, SIZE), 0);
    expect_eq(device_read(device, 0, back, SIZE), 0);
    file_kernel.shorten = false;
    expect(memcmp(back, bytes, SIZE) == 0);
    expect_eq(device_read(device, 0, back, SIZE), 0);
    expect(memcmp(back, bytes, SIZE) == 0);
    expect(device_close(&device));
    free(back);
    file_strike();
}

BOTH_WAYS(a_full_disk_is_told_and_passes)
{
    file_set();
    struct block_device *device = file_open_disk(true);
    file_kernel.write_errors = ENOSPC;
    expect_eq(device_write(device, 0, bytes, 512), -ENOSPC);
    expect_str(block_last_words(device), "write: No space left on device");
    file_kernel.write_errors = EDQUOT;
    expect_eq(device_write(device, 0, bytes, 512), -ENOSPC);
    expect_eq(device_write(device, 0, bytes, 512), 0);
    expect(!device->broken);
    expect(device_close(&device));
    file_strike();
}

BOTH_WAYS(a_failed_flush_breaks_the_device_for_good)
{
    file_set();
    struct block_device *device = file_open_disk(true);
    expect_eq(device_write(device, 0, bytes, 512), 0);
    file_kernel.sync_errors = EIO;
    expect_eq(device_flush(device), -EIO);
    expect(device->broken);
    expect_str(block_last_words(device), "fdatasync: Input/output error");
    unsigned before = file_kernel.syncs;
    expect_eq(device_flush(device), -ENOTCONN);
    expect_eq(device_write(device, 0, bytes, 512), -ENOTCONN);
    expect_eq(device_read(device, 0, bytes, 512), -ENOTCONN);
    expect_eq(file_kernel.syncs, before);
    expect(device_close(&device));
    file_strike();
}

BOTH_WAYS(a_failed_stable_write_breaks_it_too)
{
    file_set();
    struct block_device *device = file_open_disk(true);
    file_kernel.write_errors = EIO;
    expect_eq(device_do(device, BLOCK_WRITE, 0, bytes, 512, BLOCK_FUA), -EIO);
    expect_eq(file_kernel.dsync_writes, 1);
    expect_eq(device_flush(device), -ENOTCONN);
    expect(device_close(&device));
    file_strike();
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
    file_kernel.own_reads = 0;
    memset(flight, 0, sizeof flight);
    loop_post(file_rig.loop, &task);
    for (unsigned i = 0; i < MANY; i++) {
        expect(drive_until(file_rig.loop, &flight[i].done));
        expect_eq(flight[i].result, 0);
    }
    expect_eq(file_kernel.own_reads, (4 << 20) / length);
}

Test(file, what_one_turn_copies_at_once_is_bounded)
{
    file_rig.at_once = true;
    file_set();
    file_make("large", LONGEST);
    burst_device = file_open_as("large", true, 512, 0);
    expect(burst_device);
    burst_of(SIZE);
    burst_of(LONGEST);
    expect(device_close(&burst_device));
    file_strike();
}

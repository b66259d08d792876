/* The file driver: what this host has in memory of a file is let go when that is asked. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/replica/block/file_rig.h"
#include "tests/support/expect.h"

/* Pages of "disk" that are in memory. */
static unsigned resident(void)
{
    unsigned char pages[FILE_SIZE / 4096];
    unsigned count = 0;
    char path[200];
    void *map;
    int fd;

    file_path("disk", path, sizeof path);
    fd = open(path, O_RDONLY);
    map = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
    expect(fd >= 0 && map != MAP_FAILED);
    expect_eq(mincore(map, FILE_SIZE, pages), 0);
    for (unsigned i = 0; i < sizeof pages; i++)
        count += pages[i] & 1;
    munmap(map, FILE_SIZE);
    close(fd);
    return count;
}

/* As the kernel itself does it here: some file systems keep nothing, or let nothing go. */
static bool can_be_seen(void)
{
    char path[200];
    bool seen;
    int fd;

    file_path("disk", path, sizeof path);
    fd = open(path, O_RDWR);
    expect(fd >= 0);
    expect_eq(pwrite(fd, path, sizeof path, 0), sizeof path);
    seen = resident() > 0;
    expect_eq(fsync(fd), 0);
    expect_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
    return seen && resident() == 0;
}

Test(file_forget, what_is_written_is_let_go, .init = file_set, .fini = file_strike)
{
    uint8_t bytes[FILE_SIZE], back[FILE_SIZE];
    struct block_device *device;

    if (!can_be_seen()) {
        file_strike(); /* a test that is skipped has no end */
        cr_skip_test("this file system does not show what it keeps in memory");
    }
    for (unsigned i = 0; i < 2; i++) {
        memset(bytes, 7 + (int)i, sizeof bytes);
        device = file_open_disk(true);
        expect_eq(device_do(device, BLOCK_WRITE, 0, bytes, sizeof bytes, 0), 0);
        if (i) /* it is on the disk, and memory */
            expect_eq(device_do(device, BLOCK_FLUSH, 0, NULL, 0, 0), 0);
        expect(resident() > 0);
        expect_eq(device_do(device, BLOCK_FORGET, 0, NULL, FILE_SIZE, 0), 0);
        expect_eq(resident(), 0);
        expect_eq(device_read(device, 0, back, sizeof back), 0);
        expect(memcmp(bytes, back, sizeof back) == 0);
        expect(device_close(&device));
        device = file_open_disk(false); /* one that may only be read, too */
        expect(resident() > 0);
        expect_eq(device_do(device, BLOCK_FORGET, 0, NULL, FILE_SIZE, 0), 0);
        expect_eq(resident(), 0);
        expect(device_close(&device));
    }
}

Test(file_forget, a_sync_that_fails_is_told, .init = file_set, .fini = file_strike)
{
    struct block_device *device = file_open_disk(true);

    if (!(device->caps & BLOCK_CAN_FORGET)) {
        expect(device_close(&device));
        file_strike();
        cr_skip_test("files are in memory here");
    }
    atomic_store(&file_kernel.sync_errors, EIO);
    expect_eq(device_do(device, BLOCK_FORGET, 0, NULL, FILE_SIZE, 0), -EIO);
    expect(device->broken);
    expect(device_close(&device));
}

static void set_in_memory(void)
{
    file_rig.at_once = true;
    file_set();
}

Test(file_forget, what_is_only_in_memory_stays, .init = set_in_memory,
        .fini = file_strike)
{
    struct block_device *device = file_open_disk(true);

    expect_eq(device_do(device, BLOCK_FORGET, 0, NULL, FILE_SIZE, 0), -EOPNOTSUPP);
    expect(device_close(&device));
}

/* tests/replica/block/shrunk.h - a file that becomes shorter under its device. */
#ifndef TESTS_REPLICA_BLOCK_SHRUNK_H
#define TESTS_REPLICA_BLOCK_SHRUNK_H

#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/device.h"
#include "tests/support/expect.h"

/**
 * Cuts the file at @path, which is @device's, to half. Whatever reaches past its end fails
 * as stale, and nothing makes the file whole again.
 */
static inline void expect_stale_when_shrunk(
        struct block_device *device, const char *path)
{
    uint64_t size = device->size, last = size - 512;
    struct block_extent extents[4];
    struct device_call call = { .request = { .op = BLOCK_EXTENTS,
                                        .length = size,
                                        .extents = extents,
                                        .extents_max = 4 } };
    uint8_t bytes[1024] = { 1 };
    struct stat status;

    expect_eq(truncate(path, (off_t)(size / 2)), 0);
    expect_eq(device_read(device, last, bytes, 512), -ESTALE);
    expect_eq(device_read(device, size / 2 - 512, bytes, 1024), -ESTALE);
    expect_eq(device_write(device, last, bytes, 512), -ESTALE);
    expect_eq(device_do(device, BLOCK_WRITE, last, bytes, 512, BLOCK_FUA), -ESTALE);
    if (device->caps & BLOCK_CAN_ZERO)
        expect_eq(device_do(device, BLOCK_ZERO, last, NULL, 512, 0), -ESTALE);
    expect_eq(device_call_run(device, &call), -ESTALE);
    expect(strstr(block_last_words(device), "shorter"));
    expect_eq(stat(path, &status), 0);
    expect_eq(status.st_size, size / 2);
}

#endif

/* The file driver in its pool of threads, over a disk that is stuck. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/replica/block/file_rig.h"
#include "tests/support/expect.h"

enum { CALLS = 24 };

static uint8_t bytes[CALLS * 512];

static struct device_call calls[CALLS];

static void start(struct block_device *device, unsigned at, enum block_op op)
{
    device_call_start(&calls[at], device, op, at * 512, bytes + at * 512, 512);
}

static void land_all(int wanted)
{
    for (unsigned i = 0; i < CALLS; i++) {
        expect(drive_until(file_rig.loop, &calls[i].done));
        expect_eq(calls[i].result, wanted);
    }
}

Test(file, a_stuck_disk_holds_four_threads_and_no_more)
{
    bool never = false;

    setenv("UV_THREADPOOL_SIZE", "24", 1);
    file_set();
    struct block_device *device = file_open_disk(true);
    pthread_mutex_lock(&file_kernel.gate);
    for (unsigned i = 0; i < CALLS; i++)
        start(device, i, BLOCK_READ);
    file_await(&file_kernel.running, 4);
    drive_until_ms(file_rig.loop, &never, 20);
    expect_eq(file_kernel.most_running, 4);

    file_make("other", FILE_SIZE); /* meanwhile another device goes on */
    struct block_device *other = file_open_as("other", true, 512, 0);
    expect(other);
    expect_eq(device_write(other, 0, bytes, 512), 0);
    pthread_mutex_unlock(&file_kernel.gate);
    land_all(0);
    expect(device_close(&other));
    expect(device_close(&device));
    file_strike();
}

Test(file, flushes_that_wait_together_are_one)
{
    file_set();
    struct block_device *device = file_open_disk(true);
    pthread_mutex_lock(&file_kernel.gate);
    for (unsigned i = 0; i < CALLS; i++)
        start(device, i, BLOCK_FLUSH);
    file_await(&file_kernel.syncs, 1);
    pthread_mutex_unlock(&file_kernel.gate);
    land_all(0);
    expect_eq(file_kernel.syncs, 2); /* the first alone, then all that came meanwhile */
    expect(device_close(&device));
    file_strike();
}

/* A write that is stable when it is done waits in the line of the flushes: none is done with
   it, and it is done with none. */
Test(file, a_stable_write_in_the_line_of_the_flushes_is_written)
{
    static const uint8_t wanted[2 * 512] = { [0] = 1, [512] = 2 };
    uint8_t found[2 * 512];

    file_set();
    struct block_device *device = file_open_disk(true);
    memcpy(bytes, wanted, sizeof wanted);
    pthread_mutex_lock(&file_kernel.gate);
    for (unsigned i = 0; i < 6; i++) {
        bool write = i == 2 || i == 4; /* a flush runs, one waits, then in turn */
        uint64_t at = (uint64_t)(i / 4) * 512;
        calls[i] = (struct device_call){ .iov = { bytes + at, 512 },
            .request = { .op = write ? BLOCK_WRITE : BLOCK_FLUSH,
                    .flags = write ? BLOCK_FUA : 0,
                    .offset = write ? at : 0,
                    .length = write ? 512 : 0,
                    .iov = &calls[i].iov,
                    .iovcnt = 1,
                    .done = device_call_done } };
        block_submit(device, &calls[i].request);
    }
    file_await(&file_kernel.syncs, 1);
    pthread_mutex_unlock(&file_kernel.gate);
    for (unsigned i = 0; i < 6; i++) {
        expect(drive_until(file_rig.loop, &calls[i].done));
        expect_eq(calls[i].result, 0);
    }
    expect_eq(file_kernel.dsync_writes, 2);
    expect_eq(file_kernel.syncs, 4);
    expect_eq(device_read(device, 0, found, sizeof found), 0);
    expect(memcmp(found, wanted, sizeof found) == 0);
    expect(device_close(&device));
    file_strike();
}

Test(file, what_waits_behind_a_failed_flush_fails_without_another_try)
{
    file_set();
    struct block_device *device = file_open_disk(true);
    file_kernel.sync_errors = EIO;
    pthread_mutex_lock(&file_kernel.gate);
    for (unsigned i = 0; i < CALLS; i++)
        start(device, i, BLOCK_FLUSH);
    file_await(&file_kernel.syncs, 1);
    pthread_mutex_unlock(&file_kernel.gate);
    land_all(-EIO); /* each may have waited for bytes that are lost */
    expect_eq(file_kernel.syncs, 1);
    expect(device_close(&device));
    file_strike();
}

/* What block_submit() refuses, slices and planned faults. */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include "replica/block/memory.h"
#include "replica/block/wrappers.h"
#include "replica/loop/sim.h"
#include "tests/support/device.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum {
    SIZE = 65536,
    CAPS = BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD | BLOCK_CAN_EXTENTS |
            BLOCK_DISCARD_ZEROES | BLOCK_VOLATILE
};

static struct memory_disk *disk;
static struct loop *loop;
static struct block_device *device;
static uint8_t bytes[SIZE];

static void set(void)
{
    loop = loop_sim_create(seed_take("wrappers"));
    disk = memory_disk_create(SIZE, 512);
    device = memory_disk_open(disk, loop, CAPS);
}

static void strike(void)
{
    expect(device_close(&device));
    memory_disk_destroy(disk);
    loop_destroy(loop);
}

/* -- our own bugs end the process ----------------------------------------------------- */

static void submit(enum block_op op, uint64_t offset, uint64_t length, uint64_t in_iov)
{
    struct iovec iov = { bytes, in_iov };
    struct device_call call = { .request = { .op = op,
                                        .offset = offset,
                                        .length = length,
                                        .iov = &iov,
                                        .iovcnt = 1 } };
    set();
    device->max_zero = 1024;
    (void)device_call_run(device, &call);
}

Test(submit, past_the_end, .signal = SIGABRT)
{
    submit(BLOCK_READ, SIZE - 512, 1024, 1024);
}

Test(submit, an_offset_that_wraps, .signal = SIGABRT)
{
    submit(BLOCK_READ, UINT64_MAX - 511, 512, 512);
}

Test(submit, an_offset_inside_a_block, .signal = SIGABRT)
{
    submit(BLOCK_READ, 256, 512, 512);
}

Test(submit, a_length_of_half_a_block, .signal = SIGABRT)
{
    submit(BLOCK_WRITE, 0, 256, 256);
}

Test(submit, buffers_shorter_than_the_length, .signal = SIGABRT)
{
    submit(BLOCK_WRITE, 0, 1024, 512);
}

Test(submit, buffers_longer_than_the_length, .signal = SIGABRT)
{
    submit(BLOCK_READ, 0, 512, 1024);
}

Test(submit, more_zeros_than_the_device_takes, .signal = SIGABRT)
{
    submit(BLOCK_ZERO, 0, 2048, 0);
}

Test(submit, extents_without_room, .signal = SIGABRT)
{
    submit(BLOCK_EXTENTS, 0, 512, 0);
}

Test(submit, closing_with_a_request_in_flight, .signal = SIGABRT)
{
    struct device_call call = { .request = {
                                        .op = BLOCK_FLUSH, .done = device_call_done } };
    bool closed;

    set();
    block_submit(device, &call.request);
    block_close(device, device_set_flag, &closed);
}

/* -- slices --------------------------------------------------------------------------- */

Test(slice, what_does_not_fit_is_refused_and_the_device_kept)
{
    set();
    expect(!block_slice(&device, 512, SIZE));
    expect(!block_slice(&device, SIZE + 512, 0));
    expect(!block_slice(&device, UINT64_MAX - 511, 1024));
    expect(!block_slice(&device, 100, 512));
    expect(!block_slice(&device, 512, 100));
    expect(device);
    strike();
}

Test(slice, a_slice_of_a_slice_adds_its_offset)
{
    struct block_device *outer;

    set();
    for (unsigned i = 0; i < SIZE; i++)
        memory_disk_bytes(disk)[i] = (uint8_t)(i / 512);
    outer = block_slice(&device, 4096, 16384);
    expect(outer && !device);
    device = block_slice(&outer, 1024, 2048);
    expect(device && !outer && device->size == 2048);
    expect_eq(device_read(device, 512, bytes, 512), 0);
    expect_eq(bytes[0], (4096 + 1024 + 512) / 512);
    strike();
}

Test(slice, the_callers_request_stays_as_it_was)
{
    struct iovec iov = { bytes, 512 };
    struct device_call call = { .request = { .op = BLOCK_READ,
                                        .offset = 1024,
                                        .length = 512,
                                        .iov = &iov,
                                        .iovcnt = 1 } };
    set();
    device = block_slice(&(struct block_device *){ device }, 4096, 16384);
    expect_eq(device_call_run(device, &call), 0);
    expect_eq(call.request.offset, 1024);
    expect_eq(call.request.length, 512);
    expect(call.request.iov == &iov && call.request.done == device_call_done);
    strike();
}

/* -- planned faults ------------------------------------------------------------------- */

static void plan(const struct block_fault_plan *plans, unsigned count)
{
    struct block_device *under;

    set();
    under = device;
    device = block_faulty(&under, plans, count);
    expect(device && !under);
}

static int put(uint64_t offset, uint8_t byte)
{
    return device_write(device, offset, memset(bytes, byte, 512), 512);
}

Test(faulty, strikes_after_so_many_and_so_often)
{
    static const struct block_fault_plan plans[] = {
        { .op = BLOCK_WRITE, .after = 2, .times = 2, .error = -EIO },
    };
    static const int wanted[] = { 0, 0, -EIO, -EIO, 0, 0 };

    plan(plans, 1);
    for (unsigned i = 0; i < 6; i++) {
        expect_eq(put(i * 512, 7), wanted[i]);
        expect_eq(device_read(device, i * 512, bytes, 512), 0);
        expect_eq(bytes[0], wanted[i] ? 0 : 7);
    }
    struct block_faulty_counts counts = block_faulty_counts(device);
    expect_eq(counts.seen[BLOCK_WRITE], 6);
    expect_eq(counts.seen[BLOCK_READ], 6);
    expect_eq(counts.bytes[BLOCK_WRITE], 6 * 512);
    expect_eq(counts.struck, 2);
    expect_eq(memory_disk_writes(disk), 4);
    expect_str(block_last_words(device), "a planned fault");
    strike();
}

Test(faulty, strikes_for_ever_and_only_in_its_range)
{
    static const struct block_fault_plan plans[] = {
        { .op = -1, .offset = 1024, .length = 512, .error = -ENOSPC },
    };

    plan(plans, 1);
    for (unsigned i = 0; i < 3; i++) {
        expect_eq(put(512, 1), 0);
        expect_eq(put(1024, 1), -ENOSPC);
        expect_eq(put(1536, 1), 0);
        expect_eq(device_write(device, 512, bytes, 1024), -ENOSPC);
    }
    expect_eq(device_flush(device), 0);
    strike();
}

Test(faulty, a_write_half_told_was_done_nevertheless)
{
    static const struct block_fault_plan plans[] = {
        { .op = BLOCK_WRITE, .times = 1, .error = -ETIMEDOUT, .apply = true },
    };

    plan(plans, 1);
    expect_eq(put(0, 3), -ETIMEDOUT);
    expect_eq(device_read(device, 0, bytes, 512), 0);
    expect_eq(bytes[511], 3);
    strike();
}

Test(faulty, a_corrupt_read_differs_in_one_bit)
{
    static const struct block_fault_plan plans[] = {
        { .op = BLOCK_READ, .times = 1, .corrupt = true },
    };
    unsigned different = 0;

    plan(plans, 1);
    expect_eq(device_read(device, 0, bytes, 1024), 0);
    for (unsigned i = 0; i < 1024; i++)
        different += (unsigned)__builtin_popcount(bytes[i]);
    expect_eq(different, 1);
    expect_eq(device_read(device, 0, bytes, 1024), 0);
    for (unsigned i = 0; i < 1024; i++)
        expect_eq(bytes[i], 0);
    strike();
}

Test(faulty, a_delay_is_kept)
{
    static const struct block_fault_plan plans[] = {
        { .op = BLOCK_WRITE, .times = 1, .delay_ms = 5000 },
        { .op = BLOCK_WRITE, .times = 1, .error = -EIO, .delay_ms = 7000 },
    };

    plan(plans, 2);
    struct instant before = loop_now(loop);
    expect_eq(put(0, 1), 0);
    expect(instant_ms_until(before, loop_now(loop)) >= 5000);
    before = loop_now(loop);
    expect_eq(put(0, 2), -EIO);
    expect(instant_ms_until(before, loop_now(loop)) >= 7000);
    strike();
}

Test(faulty, a_lost_session_stays_lost_for_all)
{
    static const struct block_fault_plan plans[] = {
        { .op = BLOCK_WRITE, .after = 1, .times = 1, .lose = true },
    };
    struct device_call read = { .request = {
                                        .op = BLOCK_FLUSH, .done = device_call_done } };

    plan(plans, 1);
    expect_eq(put(0, 1), 0);
    block_submit(device, &read.request); /* in flight when it is lost */
    expect_eq(put(0, 2), -ENOTCONN);
    expect(drive_until(loop, &read.done));
    expect_eq(read.result, -ENOTCONN);
    expect(device->broken);
    expect_eq(device_read(device, 0, bytes, 512), -ENOTCONN);
    expect_eq(device_flush(device), -ENOTCONN);
    expect_eq(memory_disk_bytes(disk)[0], 1);
    strike();
}

Test(faulty, a_slice_over_it_passes_its_words_and_its_end_on)
{
    static const struct block_fault_plan plans[] = {
        { .op = BLOCK_READ, .times = 1, .error = -EIO, .lose = true },
    };
    struct block_device *under;

    plan(plans, 1);
    under = device;
    device = block_slice(&under, 512, 1024);
    expect_eq(device_read(device, 0, bytes, 512), -EIO);
    expect_str(block_last_words(device), "a planned fault");
    expect(device->broken);
    strike();
}

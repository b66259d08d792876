/* The power that can be cut, and the order of the simulation. */
#include <criterion/criterion.h>
#include <string.h>

#include "replica/block/memory.h"
#include "replica/block/open.h"
#include "replica/loop/sim.h"
#include "tests/support/device.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { SIZE = 65536, UNIT = 4096 };

static uint64_t draw(void *state)
{
    return seed_next(state);
}

/* Fates by number: 0 whole, 1 lost, 2 torn (then a draw a sector, odd: it survives). */
static uint64_t always(void *fate)
{
    return *(uint64_t *)fate;
}

static struct memory_disk *disk;
static struct loop *loop;
static struct block_device *device;
static uint8_t bytes[SIZE];

/* Each life of a test draws anew, whatever the seed: a hundred rounds are no one round. */
static void set(unsigned caps)
{
    static uint64_t seed, lives;

    if (lives++ == 0)
        seed = seed_take("memory");
    loop = loop_sim_create(seed + lives);
    disk = memory_disk_create(SIZE, 512);
    device = memory_disk_open(disk, loop, caps);
}

static void strike(void)
{
    if (device)
        expect(device_close(&device));
    memory_disk_destroy(disk);
    loop_destroy(loop);
}

static int put(uint8_t byte, unsigned flags)
{
    return device_do(device, BLOCK_WRITE, 0, memset(bytes, byte, UNIT), UNIT, flags);
}

static uint8_t left_after_cut(uint64_t fate)
{
    memory_disk_cut(disk, always, &fate);
    return memory_disk_bytes(disk)[0];
}

Test(memory, an_unflushed_write_may_be_lost)
{
    set(BLOCK_VOLATILE);
    expect_eq(put(1, 0), 0);
    expect_eq(memory_disk_bytes(disk)[0], 1);
    expect_eq(left_after_cut(1), 0);
    strike();
}

Test(memory, an_unflushed_write_may_survive)
{
    set(BLOCK_VOLATILE);
    expect_eq(put(1, 0), 0);
    expect_eq(left_after_cut(0), 1);
    strike();
}

Test(memory, a_flushed_write_is_never_lost)
{
    set(BLOCK_VOLATILE);
    expect_eq(put(1, 0), 0);
    expect_eq(device_flush(device), 0);
    expect_eq(left_after_cut(1), 1);
    strike();
}

Test(memory, a_write_with_fua_is_never_lost_nor_overtaken_by_an_older_one)
{
    set(BLOCK_VOLATILE);
    expect_eq(put(1, 0), 0);
    expect_eq(put(2, BLOCK_FUA), 0);
    expect_eq(left_after_cut(0), 2);
    strike();
}

Test(memory, without_volatile_every_write_is_stable)
{
    set(0);
    expect_eq(put(1, 0), 0);
    expect_eq(left_after_cut(1), 1);
    strike();
}

Test(memory, a_write_is_torn_at_512_bytes_and_nowhere_else)
{
    uint64_t seed = seed_take("torn");
    unsigned torn = 0;

    for (unsigned round = 0; round < 200; round++) {
        set(BLOCK_VOLATILE);
        expect_eq(put(9, 0), 0);
        memory_disk_cut(disk, draw, &seed);
        const uint8_t *left = memory_disk_bytes(disk);
        unsigned survived = 0;
        for (unsigned sector = 0; sector < UNIT / 512; sector++) {
            for (unsigned i = 1; i < 512; i++)
                expect_eq(left[sector * 512 + i], left[sector * 512]);
            survived += left[sector * 512] == 9;
        }
        torn += survived > 0 && survived < UNIT / 512;
        strike();
    }
    expect(torn > 20);
}

Test(memory, after_the_cut_old_handles_are_dead_and_new_ones_live)
{
    uint64_t lost = 1;

    set(BLOCK_VOLATILE);
    memory_disk_cut(disk, always, &lost);
    expect_eq(put(1, 0), -ENOTCONN);
    expect_eq(device_flush(device), -ENOTCONN);
    expect(device->broken && block_last_words(device)[0]);
    expect(device_close(&device));
    device = memory_disk_open(disk, loop, BLOCK_VOLATILE);
    expect_eq(put(1, 0), 0);
    strike();
}

Test(memory, what_is_in_flight_at_the_cut_is_answered_with_an_error)
{
    unsigned survived = 0;

    for (unsigned round = 0; round < 100; round++) {
        uint64_t seed = round;
        struct iovec iov = { memset(bytes, 5, UNIT), UNIT };
        struct device_call call = { .request = { .op = BLOCK_WRITE,
                                            .length = UNIT,
                                            .iov = &iov,
                                            .iovcnt = 1,
                                            .done = device_call_done } };
        set(0); /* stable once answered, and it was not */
        block_submit(device, &call.request);
        memory_disk_cut(disk, draw, &seed);
        expect(drive_until(loop, &call.done));
        expect_eq(call.result, -ENOTCONN);
        survived += memory_disk_bytes(disk)[0] == 5;
        strike();
    }
    expect(survived > 10 && survived < 90);
}

Test(memory, what_is_in_flight_at_the_cut_may_have_been_done)
{
    for (unsigned round = 0; round < 50; round++) {
        struct iovec iov = { memset(bytes, 5, UNIT), UNIT };
        struct device_call call = { .request = { .op = BLOCK_WRITE,
                                            .length = UNIT,
                                            .iov = &iov,
                                            .iovcnt = 1,
                                            .done = device_call_done } };
        set(BLOCK_VOLATILE);
        block_submit(device, &call.request);
        expect_eq(left_after_cut(round % 2), round % 2 ? 0 : 5);
        expect(drive_until(loop, &call.done));
        strike();
    }
}

Test(memory, bytes_put_there_by_hand_are_never_called_a_hole)
{
    struct block_extent extents[8];
    struct device_call call = { .request = { .op = BLOCK_EXTENTS,
                                        .length = SIZE,
                                        .extents = extents,
                                        .extents_max = 8 } };

    set(BLOCK_CAN_EXTENTS);
    memory_disk_bytes(disk)[2 * UNIT + 7] = 1; /* nobody told the disk */
    expect_eq(device_call_run(device, &call), 0);
    expect_eq(call.request.extents_count, 3);
    expect_eq(extents[1].offset, 2 * UNIT);
    expect_eq(extents[1].length, UNIT);
    expect_eq(extents[1].kind, BLOCK_EXTENT_DATA);
    memory_disk_bytes(disk)[2 * UNIT + 7] = 0;
    expect_eq(device_write(device, 4 * UNIT, memset(bytes, 0, UNIT), UNIT), 0);
    expect_eq(device_call_run(device, &call), 0);
    expect_eq(call.request.extents_count, 3); /* written zeros are data */
    expect_eq(extents[1].offset, 4 * UNIT);
    strike();
}

/* Any set of writes between flushes, any cut: each sector is old, or one of the new. */
Test(memory, random_histories_keep_what_was_flushed)
{
    uint64_t seed = seed_take("cuts");

    for (unsigned round = 0; round < 300; round++) {
        uint8_t newest[16] = { 0 };
        uint32_t possible[16];
        set(BLOCK_VOLATILE);
        for (unsigned i = 0; i < 16; i++)
            possible[i] = 1;
        for (unsigned step = 1; step < 30; step++) {
            uint64_t at = seed_below(&seed, 16), flags = seed_below(&seed, 6);
            if (seed_below(&seed, 8) == 0) {
                expect_eq(device_flush(device), 0);
                for (unsigned i = 0; i < 16; i++)
                    possible[i] = 1u << newest[i];
                continue;
            }
            memset(bytes, (int)step, UNIT);
            expect_eq(device_do(device, BLOCK_WRITE, at * UNIT, bytes, UNIT,
                              flags == 0 ? BLOCK_FUA : 0),
                    0);
            newest[at] = (uint8_t)step;
            possible[at] = flags == 0 ? 1u << step : possible[at] | 1u << step;
        }
        memory_disk_cut(disk, draw, &seed);
        for (unsigned sector = 0; sector < SIZE / 512; sector++) {
            uint8_t left = memory_disk_bytes(disk)[sector * 512];
            expect(possible[sector / 8] >> left & 1);
        }
        strike();
    }
}

Test(memory, writes_are_counted_when_they_are_submitted)
{
    set(BLOCK_VOLATILE | BLOCK_CAN_ZERO);
    expect_eq(memory_disk_writes(disk), 0);
    expect_eq(put(1, 0), 0);
    expect_eq(device_do(device, BLOCK_ZERO, 0, NULL, UNIT, 0), 0);
    expect_eq(device_read(device, 0, bytes, UNIT), 0);
    expect_eq(memory_disk_writes(disk), 2);
    strike();
}

/* -- order ---------------------------------------------------------------------------- */

struct letter {
    struct block_request request;
    struct iovec iov;
    char *story;
    char name;
    uint8_t bytes[512];
};

static void letter_done(struct block_request *request, int result)
{
    struct letter *letter = container_of(request, struct letter, request);
    char word[2] = { letter->name, '\0' };

    expect_eq(result, 0);
    strcat(letter->story, word);
}

static void play(uint64_t seed, char *story)
{
    struct letter letters[16];

    story[0] = '\0';
    loop = loop_sim_create(seed);
    disk = memory_disk_create(SIZE, 512);
    device = memory_disk_open(disk, loop, 0);
    for (unsigned i = 0; i < 16; i++) {
        struct letter *letter = &letters[i];
        *letter = (struct letter){ .story = story, .name = (char)('a' + i) };
        letter->iov = (struct iovec){ letter->bytes, 512 };
        letter->request =
                (struct block_request){ .op = i % 2 ? BLOCK_READ : BLOCK_WRITE,
                    .offset = i * 512,
                    .length = 512,
                    .iov = &letter->iov,
                    .iovcnt = 1,
                    .done = letter_done };
        block_submit(device, &letter->request);
    }
    loop_sim_run(loop, UINT64_MAX);
    expect_eq(strlen(story), 16);
    strike();
}

Test(memory, answers_come_in_an_order_that_the_seed_alone_decides)
{
    uint64_t seed = seed_take("order");
    char first[32], again[32], other[32];

    play(seed, first);
    play(seed, again);
    play(seed + 1, other);
    expect_str(first, again);
    expect(strcmp(first, other) != 0);
    expect(strcmp(first, "abcdefghijklmnop") != 0);
}

/* -- the driver's row ----------------------------------------------------------------- */

Test(memory, the_row_opens_a_fresh_disk_of_its_own)
{
    struct block_spec spec = { .driver = BLOCK_DRIVER_memory,
        .writable = true,
        .block_size = 512,
        .expect_size = SIZE };
    struct device_opening opening;

    loop = loop_uv_create();
    device = device_open(loop, &spec, &opening);
    expect(device && device->size == SIZE);
    expect_eq(opening.fault.error, 0);
    expect_str(opening.identity.place, "");
    memset(bytes, 1, SIZE);
    expect_eq(device_read(device, 0, bytes, SIZE), 0);
    for (unsigned i = 0; i < SIZE; i++)
        expect_eq(bytes[i], 0);
    expect(device_close(&device));
    spec.expect_size = 1000;
    expect(!device_open(loop, &spec, &opening));
    expect_eq(opening.fault.error, -EINVAL);
    loop_destroy(loop);
    expect_str(block_driver_name(BLOCK_DRIVER_memory), "memory");
    expect_str(block_driver_name(BLOCK_DRIVER_file), "file");
    expect_str(block_driver_name(BLOCK_DRIVER_iscsi), "iscsi");
}

/* SCSI commands as bytes, and nonces over vectors cut anywhere. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "replica/block/iscsi_command.h"
#include "tests/support/seed.h"

static struct initiator_command command;
static struct command_room room;
static struct block_device base = { .block_size = 512 };
static struct lun_facts facts = { .block_size = 512 };

static int make(enum block_op op, uint64_t offset, uint64_t length, unsigned flags)
{
    static uint8_t bytes[4096], status[COMMAND_STATUS];
    struct iovec iov = { bytes, length };
    struct block_request request = { .op = op,
        .offset = offset,
        .length = length,
        .flags = flags,
        .iov = &iov,
        .iovcnt = 1 };

    return block_iscsi_command(&command, &room, &base, &facts, &request, status);
}

static void cdb_is(const uint8_t *wanted, unsigned size)
{
    cr_assert_eq(command.cdb_size, size);
    for (unsigned i = 0; i < size; i++)
        cr_assert_eq(command.cdb[i], wanted[i], "byte %u is %02x", i, command.cdb[i]);
}

Test(command, bytes_on_the_wire)
{
    uint64_t far = 0x0102030405060708u / 512 * 512; /* LBA 81018202028303h */

    cr_assert(make(BLOCK_READ, far, 4096, 0) == 0);
    cdb_is((const uint8_t[]){ 0x88, 0, 0, 0, 0x81, 0x01, 0x82, 0x02, 0x83, 0x03, 0, 0,
                   0, 8, 0, 0 },
            16);
    cr_assert(command.direction == INITIATOR_IN && command.length == 4096);
    cr_assert(make(BLOCK_WRITE, 512, 1024, BLOCK_FUA) == 0);
    cdb_is((const uint8_t[]){ 0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0 }, 16);
    facts.fua = true;
    cr_assert(make(BLOCK_WRITE, 512, 1024, BLOCK_FUA) == 0);
    cr_assert_eq(command.cdb[1], 0x08);
    cr_assert(make(BLOCK_WRITE, 512, 1024, 0) == 0);
    cr_assert_eq(command.cdb[1], 0);
    cr_assert(make(BLOCK_FLUSH, 0, 0, 0) == 0);
    cdb_is((const uint8_t[]){ 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 10);
    cr_assert(command.direction == INITIATOR_NONE && command.iovcnt == 0);
    cr_assert(make(BLOCK_ZERO, 512, 1024, 0) == 0);
    cdb_is((const uint8_t[]){ 0x93, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0 }, 16);
    cr_assert(command.direction == INITIATOR_OUT && command.length == 512);
    cr_assert(make(BLOCK_EXTENTS, 512, 1024, 0) == 0);
    cdb_is((const uint8_t[]){ 0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0 },
            16);
    cr_assert(make(BLOCK_READ, 0, (uint64_t)COMMAND_REQUEST_MAX + 512, 0) < 0);
}

Test(command, a_discard_that_need_not_zero_is_an_unmap)
{
    static const uint8_t list[24] = { 0, 22, 0, 16, [15] = 3, [19] = 2 };

    cr_assert(make(BLOCK_DISCARD, 1536, 1024, 0) == 0);
    cdb_is((const uint8_t[]){ 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0 }, 10);
    cr_assert(memcmp(command.iov[0].iov_base, list, 24) == 0);
    base.caps = BLOCK_DISCARD_ZEROES;
    cr_assert(make(BLOCK_DISCARD, 1536, 1024, 0) == 0);
    cr_assert_eq(command.cdb[0], 0x93);
}

/** Cuts @length bytes anywhere, single bytes and empty pieces too. */
static int cut(
        uint64_t *seed, struct iovec *iov, int most, uint8_t *bytes, size_t length)
{
    int count = 0;

    while (length && count < most - 1) {
        size_t n = seed_below(seed, 4) ? seed_below(seed, 40) : seed_below(seed, 3000);
        n = n < length ? n : length;
        iov[count++] = (struct iovec){ bytes, n };
        bytes += n;
        length -= n;
    }
    iov[count++] = (struct iovec){ bytes, length };
    return count;
}

static void nonces_play(uint64_t *seed, uint32_t block_size)
{
    size_t blocks = 1 + seed_below(seed, 6), length = blocks * block_size;
    uint8_t *bytes = malloc(length), *before = malloc(length);
    struct iovec iov[200];
    struct block_request request = { .op = BLOCK_READ, .length = length, .iov = iov };
    uint64_t random[2] = { seed_next(seed), seed_next(seed) };

    seed_fill(seed, bytes, length);
    memcpy(before, bytes, length);
    base.block_size = block_size;
    request.iovcnt = cut(seed, iov, 200, bytes, length);
    cr_assert(block_iscsi_command(&command, &room, &base, &facts, &request, NULL) == 0);
    block_iscsi_nonces_write(&command, &room, block_size, random);
    for (size_t i = 0; i < length; i++)
        if (i % block_size < block_size - COMMAND_NONCE)
            cr_assert(bytes[i] == before[i], "byte %zu is no nonce's", i);
    for (size_t b = 0; b < blocks; b++)
        cr_assert(memcmp(bytes + (b + 1) * block_size - COMMAND_NONCE, random,
                          COMMAND_NONCE) == 0);
    for (size_t b = 0; b < blocks; b++) { /* each block that comes is needed */
        cr_assert(!block_iscsi_nonces_gone(&command, &room, block_size));
        memcpy(bytes + b * block_size, before + b * block_size, block_size);
    }
    cr_assert(block_iscsi_nonces_gone(&command, &room, block_size));
    free(bytes);
    free(before);
}

Test(command, nonces_stand_at_the_end_of_every_block_however_it_is_cut)
{
    uint64_t seed = seed_take("nonces");

    for (int i = 0; i < 5000; i++)
        nonces_play(&seed, i % 2 ? 512 : 4096);
    command_room_free(&room);
}

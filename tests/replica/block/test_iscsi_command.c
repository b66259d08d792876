/* SCSI commands as bytes. */
#include <criterion/criterion.h>
#include <string.h>

#include "replica/block/iscsi_command.h"

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
    cdb_is((const uint8_t[]){ 0x93, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0 }, 16);
    cr_assert(command.direction == INITIATOR_OUT && command.length == 512);
    base.caps = BLOCK_DISCARD_ZEROES; /* then blocks are given back */
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

/* READ, WRITE, VERIFY and what makes bytes stable: bytes, borders and residuals. */
#include <string.h>

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/server/iscsi/scsi_rig.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { BLOCK = 512 };

static struct rig rig;
static uint32_t sense;
static uint8_t big[33 << 20], other[33 << 20];

struct shape {
    uint8_t read, write, verify;
    unsigned length;
};

static const struct shape shapes[] = { { 0x08, 0x0a, 0, 6 }, { 0x28, 0x2a, 0x2f, 10 },
    { 0xa8, 0xaa, 0xaf, 12 }, { 0x88, 0x8a, 0x8f, 16 } };

static void shape_cdb(uint8_t cdb[16], const struct shape *shape, uint8_t opcode,
        uint64_t lba, uint32_t blocks)
{
    memset(cdb, 0, 16);
    cdb[0] = opcode;
    switch (shape->length) {
    case 6:
        be24_put(cdb + 1, (uint32_t)lba);
        cdb[4] = (uint8_t)blocks;
        break;
    case 10:
        be32_put(cdb + 2, (uint32_t)lba);
        be16_put(cdb + 7, (uint16_t)blocks);
        break;
    case 12:
        be32_put(cdb + 2, (uint32_t)lba);
        be32_put(cdb + 6, blocks);
        break;
    default:
        be64_put(cdb + 2, lba);
        be32_put(cdb + 10, blocks);
    }
}

Test(scsi_io, every_size_of_read_and_write_moves_the_bytes)
{
    static const uint32_t counts[] = { 1, 2, 15, 16, 17, 255, 512, 513, 4096, 65536 };
    uint8_t cdb[16];

    rig_make_large(&rig, RIG_THIN);
    for (unsigned s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (unsigned c = 0; c < sizeof counts / sizeof *counts; c++) {
            uint32_t blocks = counts[c], bytes = blocks * BLOCK, received;
            if (blocks > (shapes[s].length == 6                   ? 255
                                         : shapes[s].length == 10 ? 65535
                                                                  : 65536))
                continue;
            rig_fill(big, bytes, s * 100 + c);
            shape_cdb(cdb, &shapes[s], shapes[s].write, 7, blocks);
            expect_eq(rig_put(&rig, 0, &sense, big, bytes, cdb, 16), SCSI_GOOD);
            expect(memcmp(rig_disk_at(&rig, 7), big, bytes) == 0);
            memset(other, 0, bytes);
            shape_cdb(cdb, &shapes[s], shapes[s].read, 7, blocks);
            expect_eq(rig_get(&rig, 0, &sense, other, bytes, &received, cdb, 16),
                    SCSI_GOOD);
            expect_eq(received, bytes);
            expect(memcmp(other, big, bytes) == 0);
        }
    rig_release(&rig);
}

Test(scsi_io, zero_blocks_of_six_bytes_are_256)
{
    uint32_t received;

    rig_make_large(&rig, RIG_THIN);
    rig_fill(rig_disk_at(&rig, 0), 256 * BLOCK, 5);
    expect_eq(rig_get(&rig, 0, &sense, big, 256 * BLOCK, &received,
                      CDB(0x08, 0, 0, 0, 0, 0)),
            SCSI_GOOD);
    expect_eq(received, 256 * BLOCK);
    expect(memcmp(big, rig_disk_at(&rig, 0), received) == 0);
    rig_release(&rig);
}

Test(scsi_io, borders)
{
    static const struct {
        uint64_t lba;
        uint32_t blocks;
        uint32_t sense; /* 0: GOOD */
    } rows[] = {
        { 0, 0, 0 },
        { 131071, 1, 0 },
        { 131072, 0, 0 },
        { 131073, 0, SENSE(5, 0x2100) },
        { 131072, 1, SENSE(5, 0x2100) },
        { 131071, 2, SENSE(5, 0x2100) },
        { UINT64_MAX, 0, SENSE(5, 0x2100) },
        { UINT64_MAX, 1, SENSE(5, 0x2100) },
        { UINT64_MAX - 1, 2, SENSE(5, 0x2100) },
        { UINT64_C(1) << 63, 1, SENSE(5, 0x2100) },
        { UINT64_C(1) << 55, 1, SENSE(5, 0x2100) }, /* wraps as bytes */
        { 0, 65536, 0 },
        { 0, 65537, SENSE(5, 0x2400) }, /* longer than VPD B0h allows */
        { 0, UINT32_MAX, SENSE(5, 0x2100) },
    };
    static const uint8_t opcodes[] = { 0x88, 0x8a, 0x8f, 0x8e, 0x8b };
    uint8_t cdb[16];

    rig_make_large(&rig, RIG_THIN);
    for (unsigned o = 0; o < sizeof opcodes; o++)
        for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
            uint32_t bytes = rows[i].sense ? 65536 : rows[i].blocks * BLOCK;
            rig_lba16(cdb, opcodes[o], rows[i].lba, rows[i].blocks);
            if (opcodes[o] == 0x88)
                rig_get(&rig, 0, &sense, big, bytes, NULL, cdb, 16);
            else
                rig_put(&rig, 0, &sense, big, bytes, cdb, 16);
            cr_assert(sense == rows[i].sense, "opcode %02x row %u: %x", opcodes[o], i,
                    sense);
        }
    rig_release(&rig);
}

Test(scsi_io, residuals_move_the_smaller_and_report_the_cdb)
{
    struct rig_task task;

    rig_make_large(&rig, RIG_THIN);
    rig_fill(rig_disk_at(&rig, 0), 4 * BLOCK, 3);
    for (uint32_t expected = 0; expected < 4 * BLOCK; expected += 300) {
        memset(big, 0, sizeof big);
        rig_command(&rig, &task, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0));
        rig_in(&task, big, expected);
        expect_eq(rig_run(&task), SCSI_GOOD);
        expect_eq(task.task.transfer, 2 * BLOCK);
        expect_eq(task.received, expected < 2 * BLOCK ? expected : 2 * BLOCK);
        expect(memcmp(big, rig_disk_at(&rig, 0), task.received) == 0);
    }
    rig_release(&rig);
}

Test(scsi_io, a_write_of_less_than_the_cdb_writes_whole_blocks_only)
{
    struct rig_task task;

    rig_make_large(&rig, RIG_THIN);
    for (uint32_t expected = 0; expected <= 4 * BLOCK; expected += 200) {
        uint32_t wanted = expected < 2 * BLOCK ? expected : 2 * BLOCK;
        memset(rig_disk_at(&rig, 0), 'a', 4 * BLOCK);
        memset(big, 'b', 4 * BLOCK);
        rig_command(&rig, &task, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0));
        rig_out(&task, big, expected);
        expect_eq(rig_run(&task), SCSI_GOOD);
        expect_eq(task.task.transfer, 2 * BLOCK);
        wanted -= wanted % BLOCK;
        expect(memcmp(rig_disk_at(&rig, 0), big, wanted) == 0);
        for (uint32_t i = wanted; i < 4 * BLOCK; i++)
            expect_eq(rig_disk_at(&rig, 0)[i], 'a');
    }
    rig_release(&rig);
}

Test(scsi_io, the_wrong_direction_is_refused)
{
    struct rig_task task;

    rig_make_large(&rig, RIG_THIN);
    rig_command(&rig, &task, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0));
    rig_out(&task, big, 1024);
    expect_eq(rig_run(&task), SCSI_GOOD); /* no data was asked for, and none moved */
    expect_eq(task.task.transfer, 0);
    expect_eq(task.wants, 0);
    rig_command(&rig, &task, 0, CDB(0x28, 0, 0, 8, 0, 0, 0, 0, 2, 0));
    rig_out(&task, big, 1024);
    expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&task), SENSE(5, 0x2100));
    rig_command(&rig, &task, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0));
    rig_in(&task, big, 1024);
    expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&task), SENSE(5, 0x0e03));
    rig_command(&rig, &task, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0));
    rig_out(&task, big, 1024);
    task.task.reads = true;
    expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
    expect_eq(memory_disk_writes(rig.disk), 0);
    rig_release(&rig);
}

Test(scsi_io, protection_bits_and_naca_are_refused)
{
    static const uint8_t opcodes[] = { 0x28, 0x2a, 0x2e, 0x2f, 0x88, 0x8a, 0x8e, 0x8f,
        0x89, 0x8b, 0xa8, 0xaa, 0xae, 0xaf, 0x41, 0x93 };
    static const uint8_t lengths[] = { 10, 10, 10, 10, 16, 16, 16, 16, 16, 16, 12, 12,
        12, 12, 10, 16 };
    uint8_t cdb[16];

    rig_make_large(&rig, RIG_THIN);
    for (unsigned i = 0; i < sizeof opcodes; i++)
        for (unsigned bits = 1; bits < 8; bits++) {
            memset(cdb, 0, sizeof cdb);
            cdb[0] = opcodes[i];
            cdb[1] = (uint8_t)(bits << 5);
            rig_simple(&rig, 0, &sense, cdb, 16);
            cr_assert(sense == SENSE(5, 0x2400), "%02x %u", opcodes[i], bits);
            cdb[1] = 0;
            cdb[lengths[i] - 1] = 0x04;
            rig_simple(&rig, 0, &sense, cdb, 16);
            cr_assert(sense == SENSE(5, 0x2400), "%02x naca", opcodes[i]);
        }
    rig_release(&rig);
}

static struct block_faulty_counts counts(void)
{
    return block_faulty_counts(rig.device);
}

Test(scsi_io, fua_survives_a_power_cut_and_flush_covers_the_rest)
{
    uint64_t chance = 1;
    struct rig_task task;

    rig_make_large(&rig, RIG_THIN);
    memset(big, 'f', BLOCK);
    rig_command(&rig, &task, 0, CDB(0x2a, 0x08, 0, 0, 0, 1, 0, 0, 1, 0));
    rig_out(&task, big, BLOCK);
    expect_eq(rig_run(&task), SCSI_GOOD);
    expect_eq(rig_write(&rig, 0, 5, 1, big), SCSI_GOOD);
    expect_eq(rig_simple(&rig, 0, &sense, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
            SCSI_GOOD);
    memory_disk_cut(rig.disk, (uint64_t(*)(void *))seed_next, &chance);
    expect(memcmp(rig_disk_at(&rig, 1), big, BLOCK) == 0);
    expect(memcmp(rig_disk_at(&rig, 5), big, BLOCK) == 0);
    rig_release(&rig);
}

Test(scsi_io, a_read_with_fua_flushes_what_is_in_the_cache)
{
    struct rig_task task;

    rig_make_large(&rig, RIG_THIN);
    expect_eq(rig_write(&rig, 0, 5, 1, big), SCSI_GOOD);
    for (unsigned i = 0; i < 2; i++) {
        rig_command(&rig, &task, 0, CDB(0x28, 0x08, 0, 0, 0, 1, 0, 0, 1, 0));
        rig_in(&task, big, BLOCK);
        expect_eq(rig_run(&task), SCSI_GOOD);
    }
    expect_eq(counts().seen[BLOCK_FLUSH], 1); /* nothing was dirty the second time */
    rig_release(&rig);
}

Test(scsi_io, synchronize_cache_checks_its_range)
{
    uint8_t cdb[16];

    rig_make_large(&rig, RIG_THIN);
    rig_lba16(cdb, 0x91, 131066, 6);
    expect_eq(rig_simple(&rig, 0, &sense, cdb, 16), SCSI_GOOD);
    rig_lba16(cdb, 0x91, 131066, 7);
    expect_eq(rig_simple(&rig, 0, &sense, cdb, 16), SCSI_CHECK_CONDITION);
    expect_eq(sense, SENSE(5, 0x2100));
    expect_eq(counts().seen[BLOCK_FLUSH], 1);
    rig_release(&rig);
}

Test(scsi_io, verify_compares_reads_and_repeats)
{
    uint8_t cdb[16], one[BLOCK];
    struct rig_task task;
    static const uint32_t blocks = 1200; /* three pieces */

    rig_make_large(&rig, RIG_THIN);
    for (unsigned s = 1; s < 4; s++) {
        rig_fill(big, blocks * BLOCK, s);
        memcpy(rig_disk_at(&rig, 9), big, blocks * BLOCK);
        shape_cdb(cdb, &shapes[s], shapes[s].verify, 9, blocks);
        expect_eq(rig_simple(&rig, 0, &sense, cdb, 16), SCSI_GOOD);
        cdb[1] = 0x02;
        expect_eq(rig_put(&rig, 0, &sense, big, blocks * BLOCK, cdb, 16), SCSI_GOOD);
        big[700 * BLOCK + 33] ^= 1;
        rig_command(&rig, &task, 0, cdb, 16);
        rig_out(&task, big, blocks * BLOCK);
        expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
        expect_eq(rig_sense(&task), SENSE(0xe, 0x1d00));
        expect_eq(task.task.sense[0], 0xf0);
        expect_eq(be32_get(task.task.sense + 3), 700 * BLOCK + 33);
        cdb[1] = 0x04;
        rig_put(&rig, 0, &sense, big, BLOCK, cdb, 16);
        expect_eq(sense, SENSE(5, 0x2400));
        cdb[1] = 0x06; /* one block, repeated */
        memset(one, 'x', BLOCK);
        for (unsigned i = 0; i < blocks; i++)
            memcpy(rig_disk_at(&rig, 9 + i), one, BLOCK);
        expect_eq(rig_put(&rig, 0, &sense, one, BLOCK, cdb, 16), SCSI_GOOD);
        rig_disk_at(&rig, 9 + blocks - 1)[17] = 'y';
        expect_eq(rig_put(&rig, 0, &sense, one, BLOCK, cdb, 16), SCSI_CHECK_CONDITION);
        expect_eq(sense, SENSE(0xe, 0x1d00));
    }
    rig_release(&rig);
}

Test(scsi_io, write_and_verify_writes_through_and_reads_back)
{
    uint8_t cdb[16];

    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .size = 32 << 20,
                    .plan_count = 1,
                    .plans = { { .op = BLOCK_READ, .corrupt = true, .after = 3 } } });
    rig_fill(big, 1200 * BLOCK, 4);
    rig_lba16(cdb, 0x8e, 3, 1200);
    cdb[1] = 0x02;
    expect_eq(rig_put(&rig, 0, &sense, big, 1200 * BLOCK, cdb, 16), SCSI_GOOD);
    expect(memcmp(rig_disk_at(&rig, 3), big, 1200 * BLOCK) == 0);
    expect_eq(counts().seen[BLOCK_READ], 3);
    rig_put(&rig, 0, &sense, big, 1200 * BLOCK, cdb, 16);
    expect_eq(sense, SENSE(0xe, 0x1d00)); /* the medium lies, and that is seen */
    rig_release(&rig);
}

Test(scsi_io, what_was_verified_is_on_the_medium)
{
    uint64_t chance = 1;
    uint8_t cdb[16];

    rig_make_large(&rig, RIG_THIN);
    rig_fill(big, 4 * BLOCK, 4);
    for (uint8_t check = 0; check < 2; check++) {
        rig_lba16(cdb, 0x8e, 8u * check, 4);
        cdb[1] = (uint8_t)(check << 1);
        expect_eq(rig_put(&rig, 0, &sense, big, 4 * BLOCK, cdb, 16), SCSI_GOOD);
    }
    memory_disk_cut(rig.disk, (uint64_t(*)(void *))seed_next, &chance);
    expect(memcmp(rig_disk_at(&rig, 0), big, 4 * BLOCK) == 0);
    expect(memcmp(rig_disk_at(&rig, 8), big, 4 * BLOCK) == 0);
    rig_release(&rig);
}

Test(scsi_io, prefetch_is_checked_and_claims_nothing)
{
    uint8_t cdb[16];

    rig_make_large(&rig, RIG_THIN);
    rig_lba16(cdb, 0x90, 10, 100);
    expect_eq(rig_simple(&rig, 0, &sense, cdb, 16), SCSI_GOOD);
    rig_lba16(cdb, 0x90, 131072, 1);
    rig_simple(&rig, 0, &sense, cdb, 16);
    expect_eq(sense, SENSE(5, 0x2100));
    rig_release(&rig);
}

/* -- single bytes -------------------------------------------------------------------- */

Test(scsi_io, a_device_of_bytes_is_shown_in_blocks)
{
    uint8_t answer[32];

    rig_make(&rig,
            &(struct rig_options){
                    .seed = 1, .size = 100 * 512 + 77, .block_size = 1 });
    expect_eq(rig_get(&rig, 0, &sense, answer, 8, NULL,
                      CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
            SCSI_GOOD);
    expect_eq(be32_get(answer), 99); /* the tail is no block */
    expect_eq(be32_get(answer + 4), 512);
    memset(big, 'z', 512);
    expect_eq(rig_put(&rig, 0, &sense, big, 512, CDB(0x2a, 0, 0, 0, 0, 99, 0, 0, 1, 0)),
            SCSI_GOOD);
    expect_eq(memory_disk_bytes(rig.disk)[99 * 512 + 511], 'z');
    expect_eq(memory_disk_bytes(rig.disk)[99 * 512 + 512], 0);
    rig_put(&rig, 0, &sense, big, 512, CDB(0x2a, 0, 0, 0, 0, 100, 0, 0, 1, 0));
    expect_eq(sense, SENSE(5, 0x2100));
    rig_release(&rig);
}

/* READ, WRITE, VERIFY, UNMAP, WRITE SAME, COMPARE AND WRITE, ORWRITE: bytes, borders and
 * residuals, and all of it at random against a model. */
#include <errno.h>
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

static void make(unsigned caps)
{
    rig_make(&rig, &(struct rig_options){ .seed = 1, .caps = caps, .size = 64 << 20 });
}

static void end(void)
{
    rig_release(&rig);
}

static uint8_t *disk_at(uint64_t lba)
{
    return memory_disk_bytes(rig.disk) + lba * rig.options.block_size;
}

static void fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    seed_fill(&seed, bytes, length);
}

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

    make(RIG_THIN);
    for (unsigned s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (unsigned c = 0; c < sizeof counts / sizeof *counts; c++) {
            uint32_t blocks = counts[c], bytes = blocks * BLOCK, received;
            if (blocks > (shapes[s].length == 6                   ? 255
                                         : shapes[s].length == 10 ? 65535
                                                                  : 65536))
                continue;
            fill(big, bytes, s * 100 + c);
            shape_cdb(cdb, &shapes[s], shapes[s].write, 7, blocks);
            expect_eq(rig_put(&rig, 0, &sense, big, bytes, cdb, 16), SCSI_GOOD);
            expect(memcmp(disk_at(7), big, bytes) == 0);
            memset(other, 0, bytes);
            shape_cdb(cdb, &shapes[s], shapes[s].read, 7, blocks);
            expect_eq(rig_get(&rig, 0, &sense, other, bytes, &received, cdb, 16),
                    SCSI_GOOD);
            expect_eq(received, bytes);
            expect(memcmp(other, big, bytes) == 0);
        }
    end();
}

Test(scsi_io, zero_blocks_of_six_bytes_are_256)
{
    uint32_t received;

    make(RIG_THIN);
    fill(disk_at(0), 256 * BLOCK, 5);
    expect_eq(rig_get(&rig, 0, &sense, big, 256 * BLOCK, &received,
                      CDB(0x08, 0, 0, 0, 0, 0)),
            SCSI_GOOD);
    expect_eq(received, 256 * BLOCK);
    expect(memcmp(big, disk_at(0), received) == 0);
    end();
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

    make(RIG_THIN);
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
    end();
}

Test(scsi_io, residuals_move_the_smaller_and_report_the_cdb)
{
    struct rig_task task;

    make(RIG_THIN);
    fill(disk_at(0), 4 * BLOCK, 3);
    for (uint32_t expected = 0; expected < 4 * BLOCK; expected += 300) {
        memset(big, 0, sizeof big);
        rig_command(&rig, &task, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0));
        rig_in(&task, big, expected);
        expect_eq(rig_run(&task), SCSI_GOOD);
        expect_eq(task.task.transfer, 2 * BLOCK);
        expect_eq(task.received, expected < 2 * BLOCK ? expected : 2 * BLOCK);
        expect(memcmp(big, disk_at(0), task.received) == 0);
    }
    end();
}

Test(scsi_io, a_write_of_less_than_the_cdb_writes_whole_blocks_only)
{
    struct rig_task task;

    make(RIG_THIN);
    for (uint32_t expected = 0; expected <= 4 * BLOCK; expected += 200) {
        uint32_t wanted = expected < 2 * BLOCK ? expected : 2 * BLOCK;
        memset(disk_at(0), 'a', 4 * BLOCK);
        memset(big, 'b', 4 * BLOCK);
        rig_command(&rig, &task, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0));
        rig_out(&task, big, expected);
        expect_eq(rig_run(&task), SCSI_GOOD);
        expect_eq(task.task.transfer, 2 * BLOCK);
        wanted -= wanted % BLOCK;
        expect(memcmp(disk_at(0), big, wanted) == 0);
        for (uint32_t i = wanted; i < 4 * BLOCK; i++)
            expect_eq(disk_at(0)[i], 'a');
    }
    end();
}

Test(scsi_io, the_wrong_direction_is_refused)
{
    struct rig_task task;

    make(RIG_THIN);
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
    end();
}

Test(scsi_io, protection_bits_and_naca_are_refused)
{
    static const uint8_t opcodes[] = { 0x28, 0x2a, 0x2e, 0x2f, 0x88, 0x8a, 0x8e, 0x8f,
        0x89, 0x8b, 0xa8, 0xaa, 0xae, 0xaf, 0x41, 0x93 };
    static const uint8_t lengths[] = { 10, 10, 10, 10, 16, 16, 16, 16, 16, 16, 12, 12,
        12, 12, 10, 16 };
    uint8_t cdb[16];

    make(RIG_THIN);
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
    end();
}

static struct block_faulty_counts counts(void)
{
    return block_faulty_counts(rig.device);
}

Test(scsi_io, fua_survives_a_power_cut_and_flush_covers_the_rest)
{
    uint64_t chance = 1;
    struct rig_task task;

    make(RIG_THIN);
    memset(big, 'f', BLOCK);
    rig_command(&rig, &task, 0, CDB(0x2a, 0x08, 0, 0, 0, 1, 0, 0, 1, 0));
    rig_out(&task, big, BLOCK);
    expect_eq(rig_run(&task), SCSI_GOOD);
    expect_eq(rig_write(&rig, 0, 5, 1, big), SCSI_GOOD);
    expect_eq(rig_simple(&rig, 0, &sense, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
            SCSI_GOOD);
    memory_disk_cut(rig.disk, (uint64_t(*)(void *))seed_next, &chance);
    expect(memcmp(disk_at(1), big, BLOCK) == 0);
    expect(memcmp(disk_at(5), big, BLOCK) == 0);
    end();
}

Test(scsi_io, a_read_with_fua_flushes_what_is_in_the_cache)
{
    struct rig_task task;

    make(RIG_THIN);
    expect_eq(rig_write(&rig, 0, 5, 1, big), SCSI_GOOD);
    for (unsigned i = 0; i < 2; i++) {
        rig_command(&rig, &task, 0, CDB(0x28, 0x08, 0, 0, 0, 1, 0, 0, 1, 0));
        rig_in(&task, big, BLOCK);
        expect_eq(rig_run(&task), SCSI_GOOD);
    }
    expect_eq(counts().seen[BLOCK_FLUSH], 1); /* nothing was dirty the second time */
    end();
}

Test(scsi_io, synchronize_cache_checks_its_range)
{
    uint8_t cdb[16];

    make(RIG_THIN);
    rig_lba16(cdb, 0x91, 131066, 6);
    expect_eq(rig_simple(&rig, 0, &sense, cdb, 16), SCSI_GOOD);
    rig_lba16(cdb, 0x91, 131066, 7);
    expect_eq(rig_simple(&rig, 0, &sense, cdb, 16), SCSI_CHECK_CONDITION);
    expect_eq(sense, SENSE(5, 0x2100));
    expect_eq(counts().seen[BLOCK_FLUSH], 1);
    end();
}

Test(scsi_io, verify_compares_reads_and_repeats)
{
    uint8_t cdb[16], one[BLOCK];
    struct rig_task task;
    static const uint32_t blocks = 1200; /* three pieces */

    make(RIG_THIN);
    for (unsigned s = 1; s < 4; s++) {
        fill(big, blocks * BLOCK, s);
        memcpy(disk_at(9), big, blocks * BLOCK);
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
            memcpy(disk_at(9 + i), one, BLOCK);
        expect_eq(rig_put(&rig, 0, &sense, one, BLOCK, cdb, 16), SCSI_GOOD);
        disk_at(9 + blocks - 1)[17] = 'y';
        expect_eq(rig_put(&rig, 0, &sense, one, BLOCK, cdb, 16), SCSI_CHECK_CONDITION);
        expect_eq(sense, SENSE(0xe, 0x1d00));
    }
    end();
}

Test(scsi_io, write_and_verify_writes_through_and_reads_back)
{
    uint8_t cdb[16];

    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .size = 32 << 20,
                    .plan_count = 1,
                    .plans = { { .op = BLOCK_READ, .corrupt = true, .after = 3 } } });
    fill(big, 1200 * BLOCK, 4);
    rig_lba16(cdb, 0x8e, 3, 1200);
    cdb[1] = 0x02;
    expect_eq(rig_put(&rig, 0, &sense, big, 1200 * BLOCK, cdb, 16), SCSI_GOOD);
    expect(memcmp(disk_at(3), big, 1200 * BLOCK) == 0);
    expect_eq(counts().seen[BLOCK_READ], 3);
    rig_put(&rig, 0, &sense, big, 1200 * BLOCK, cdb, 16);
    expect_eq(sense, SENSE(0xe, 0x1d00)); /* the medium lies, and that is seen */
    end();
}

Test(scsi_io, what_was_verified_is_on_the_medium)
{
    uint64_t chance = 1;
    uint8_t cdb[16];

    make(RIG_THIN);
    fill(big, 4 * BLOCK, 4);
    for (uint8_t check = 0; check < 2; check++) {
        rig_lba16(cdb, 0x8e, 8u * check, 4);
        cdb[1] = (uint8_t)(check << 1);
        expect_eq(rig_put(&rig, 0, &sense, big, 4 * BLOCK, cdb, 16), SCSI_GOOD);
    }
    memory_disk_cut(rig.disk, (uint64_t(*)(void *))seed_next, &chance);
    expect(memcmp(disk_at(0), big, 4 * BLOCK) == 0);
    expect(memcmp(disk_at(8), big, 4 * BLOCK) == 0);
    end();
}

Test(scsi_io, prefetch_is_checked_and_claims_nothing)
{
    uint8_t cdb[16];

    make(RIG_THIN);
    rig_lba16(cdb, 0x90, 10, 100);
    expect_eq(rig_simple(&rig, 0, &sense, cdb, 16), SCSI_GOOD);
    rig_lba16(cdb, 0x90, 131072, 1);
    rig_simple(&rig, 0, &sense, cdb, 16);
    expect_eq(sense, SENSE(5, 0x2100));
    end();
}

/* -- unmap, write same --------------------------------------------------------------- */

static size_t unmap_list(uint8_t *list, unsigned count, const uint64_t (*ranges)[2])
{
    size_t length = 8 + count * 16u;

    memset(list, 0, length);
    be16_put(list, (uint16_t)(length - 2));
    be16_put(list + 2, (uint16_t)(count * 16));
    for (unsigned i = 0; i < count; i++) {
        be64_put(list + 8 + i * 16, ranges[i][0]);
        be32_put(list + 16 + i * 16, (uint32_t)ranges[i][1]);
    }
    return length;
}

static void unmap(const uint8_t *list, size_t length)
{
    uint8_t cdb[10] = { 0x42 };

    be16_put(cdb + 7, (uint16_t)length);
    rig_put(&rig, 0, &sense, list, (uint32_t)length, cdb, sizeof cdb);
}

Test(scsi_io, unmap_reads_as_zeros_and_only_there)
{
    static const uint64_t ranges[][2] = { { 3, 5 }, { 100, 0 }, { 131036, 36 },
        { 200, 3000 } };
    uint8_t list[256];
    size_t length = unmap_list(list, 4, ranges);

    make(RIG_THIN);
    memset(disk_at(0), 'a', 64 << 20);
    unmap(list, length);
    expect_eq(sense, 0);
    for (uint64_t lba = 0; lba < 131072; lba++) {
        bool gone =
                (lba >= 3 && lba < 8) || lba >= 131036 || (lba >= 200 && lba < 3200);
        expect_eq(*disk_at(lba), gone ? 0 : 'a');
    }
    expect(counts().seen[BLOCK_DISCARD] == 3);
    end();
}

Test(scsi_io, unmap_checks_all_before_it_does_any)
{
    static const uint64_t bad[][2] = { { 3, 5 }, { 131066, 7 } };
    static uint8_t list[8 + 300 * 16];
    static uint64_t many[300][2];
    size_t length;

    make(RIG_THIN);
    memset(disk_at(0), 'a', BLOCK * 8);
    length = unmap_list(list, 2, bad);
    unmap(list, length);
    expect_eq(sense, SENSE(5, 0x2100));
    unmap(list, length - 1); /* the list is cut */
    expect_eq(sense, SENSE(5, 0x1a00));
    unmap(list, 7);
    expect_eq(sense, SENSE(5, 0x1a00));
    unmap(list, 0);
    expect_eq(sense, 0);
    be16_put(list + 2, 64); /* more descriptors than bytes */
    unmap(list, length);
    expect_eq(sense, SENSE(5, 0x1a00));
    length = unmap_list(list, 257, (const uint64_t(*)[2])many);
    unmap(list, length);
    expect_eq(sense, SENSE(5, 0x2600));
    length = unmap_list(list, 256, (const uint64_t(*)[2])many);
    unmap(list, length);
    expect_eq(sense, 0);
    rig_put(&rig, 0, &sense, list, 24, CDB(0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0));
    expect_eq(sense, SENSE(5, 0x2400)); /* ANCHOR */
    expect_eq(*disk_at(3), 'a');
    expect_eq(counts().seen[BLOCK_DISCARD], 0);
    end();
}

Test(scsi_io, unmap_of_too_much_is_refused)
{
    static uint64_t whole[9][2];
    static uint8_t list[256];

    make(RIG_THIN);
    for (unsigned i = 0; i < 9; i++)
        whole[i][1] = 131072;
    unmap(list, unmap_list(list, 9, (const uint64_t(*)[2])whole));
    expect_eq(sense, SENSE(5, 0x2600));
    unmap(list, unmap_list(list, 8, (const uint64_t(*)[2])whole));
    expect_eq(sense, 0);
    end();
}

Test(scsi_io, written_through_means_flushed_behind_a_discard)
{
    static const uint64_t range[][2] = { { 3, 5 } };
    uint8_t list[24], zeros[BLOCK] = { 0 };

    make(RIG_THIN);
    rig.unit->write_through = true;
    unmap(list, unmap_list(list, 1, range));
    expect_eq(counts().seen[BLOCK_FLUSH], 1);
    rig_put(&rig, 0, &sense, zeros, BLOCK, CDB(0x41, 0x08, 0, 0, 0, 9, 0, 0, 4, 0));
    expect_eq(sense, 0);
    expect_eq(counts().seen[BLOCK_FLUSH], 2);
    end();
}

Test(scsi_io, zeros_are_written_where_a_discard_leaves_garbage)
{
    uint8_t zeros[BLOCK] = { 0 };

    make(BLOCK_VOLATILE | BLOCK_CAN_DISCARD);
    memset(disk_at(0), 'a', 8 * BLOCK);
    rig_put(&rig, 0, &sense, zeros, BLOCK, CDB(0x41, 0x08, 0, 0, 0, 2, 0, 0, 4, 0));
    expect_eq(sense, 0);
    for (unsigned i = 2; i < 6; i++)
        expect(memcmp(disk_at(i), zeros, BLOCK) == 0);
    expect_eq(*disk_at(6), 'a');
    end();
}

Test(scsi_io, a_thick_unit_does_not_know_unmap)
{
    uint8_t list[24] = { 0 };

    make(RIG_THICK);
    unmap(list, 24);
    expect_eq(sense, SENSE(5, 0x2000));
    rig_put(&rig, 0, &sense, list, BLOCK, CDB(0x41, 0x08, 0, 0, 0, 0, 0, 0, 1, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    end();
}

Test(scsi_io, a_discard_that_is_not_possible_after_all_becomes_zeros)
{
    static const uint64_t ranges[][2] = { { 3, 5000 } };
    uint8_t list[24];

    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .size = 32 << 20,
                    .plan_count = 1,
                    .plans = { { .op = BLOCK_DISCARD, .error = -EOPNOTSUPP } } });
    memset(disk_at(0), 'a', 6000 * BLOCK);
    unmap(list, unmap_list(list, 1, ranges));
    expect_eq(sense, 0);
    for (uint64_t lba = 0; lba < 6000; lba++)
        expect_eq(*disk_at(lba), lba >= 3 && lba < 5003 ? 0 : 'a');
    end();
}

static void write_same(unsigned opcode, uint8_t flags, uint64_t lba, uint32_t blocks,
        const uint8_t *data)
{
    uint8_t cdb[16];

    shape_cdb(cdb, &shapes[opcode == 0x41 ? 1 : 3], (uint8_t)opcode, lba, blocks);
    cdb[1] = flags;
    rig_put(&rig, 0, &sense, data, data ? BLOCK : 0, cdb, 16);
}

Test(scsi_io, write_same_repeats_one_block)
{
    uint8_t pattern[BLOCK], zeros[BLOCK] = { 0 };

    for (unsigned thin = 0; thin < 2; thin++)
        for (unsigned opcode = 0x41; opcode <= 0x93; opcode += 0x52) {
            make(thin ? RIG_THIN : RIG_THICK);
            memset(disk_at(0), 'a', 5000 * BLOCK);
            fill(pattern, BLOCK, 6);
            write_same(opcode, 0, 3, 3000, pattern);
            expect_eq(sense, 0);
            expect_eq(*disk_at(2), 'a');
            expect_eq(*disk_at(3003), 'a');
            for (unsigned i = 3; i < 3003; i++)
                expect(memcmp(disk_at(i), pattern, BLOCK) == 0);
            write_same(opcode, 0, 5, 2000, zeros);
            expect_eq(sense, 0);
            expect(memcmp(disk_at(4), pattern, BLOCK) == 0);
            expect(memcmp(disk_at(2005), pattern, BLOCK) == 0);
            for (unsigned i = 5; i < 2005; i++)
                expect(memcmp(disk_at(i), zeros, BLOCK) == 0);
            if (thin) {
                write_same(opcode, 0x08, 2100, 100, zeros);
                expect_eq(sense, 0);
                expect_eq(counts().seen[BLOCK_DISCARD], 1);
                expect(memcmp(disk_at(2199), zeros, BLOCK) == 0);
                expect(memcmp(disk_at(2200), pattern, BLOCK) == 0);
                write_same(opcode, 0x08, 2300, 100, pattern); /* not zeros: written */
                expect_eq(sense, 0);
                expect(memcmp(disk_at(2399), pattern, BLOCK) == 0);
            }
            end();
        }
}

Test(scsi_io, write_same_refuses_what_it_does_not_do)
{
    uint8_t block[BLOCK] = { 1 };

    rig_make(&rig, &(struct rig_options){ .seed = 1, .size = 300 << 20 });
    write_same(0x93, 0x01, 4, 9, NULL); /* NDOB */
    expect_eq(sense, 0);
    expect_eq(*disk_at(4), 0);
    write_same(0x41, 0x01, 4, 9, block);
    expect_eq(sense, SENSE(5, 0x2400));
    write_same(0x93, 0x18, 4, 9, block); /* ANCHOR */
    expect_eq(sense, SENSE(5, 0x2400));
    write_same(0x93, 0x04, 4, 9, block); /* PBDATA */
    expect_eq(sense, SENSE(5, 0x2400));
    write_same(0x93, 0x02, 4, 9, block); /* LBDATA */
    expect_eq(sense, SENSE(5, 0x2400));
    write_same(0x93, 0, 0, 0, block); /* to the end is too far */
    expect_eq(sense, SENSE(5, 0x2400));
    write_same(0x93, 0, 614398, 0, block); /* and now it is not */
    expect_eq(sense, 0);
    expect_eq(*disk_at(614399), 1);
    expect_eq(*disk_at(614397), 0);
    write_same(0x93, 0, 614400, 0, block);
    expect_eq(sense, SENSE(5, 0x2100));
    write_same(0x93, 0, 0, (128 << 11) + 1, block);
    expect_eq(sense, SENSE(5, 0x2400));
    write_same(0x93, 0, 614399, 2, block);
    expect_eq(sense, SENSE(5, 0x2100));
    write_same(0x93, 0, 4, 9, NULL); /* no data came */
    expect_eq(sense, SENSE(5, 0x2400));
    rig_put(&rig, 0, &sense, big, 2 * BLOCK, CDB(0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    expect_eq(sense, SENSE(5, 0x2400)); /* too much data */
    write_same(0x93, 0x01, 1, 128 << 11, NULL); /* the most */
    expect_eq(sense, 0);
    end();
}

/* -- compare and write, orwrite ------------------------------------------------------ */

Test(scsi_io, compare_and_write_is_all_or_nothing)
{
    uint8_t cdb[16] = { 0x89 };
    struct rig_task task;
    static const uint8_t counts_of[] = { 1, 2, 16, 255 };

    make(RIG_THIN);
    for (unsigned i = 0; i < sizeof counts_of; i++) {
        uint32_t half = counts_of[i] * BLOCK;
        fill(disk_at(100), half, i);
        memcpy(big, disk_at(100), half);
        fill(big + half, half, i + 50);
        be64_put(cdb + 2, 100);
        cdb[13] = counts_of[i];
        big[half - 27] ^= 1;
        memcpy(other, disk_at(100), half);
        rig_command(&rig, &task, 0, cdb, 16);
        rig_out(&task, big, half * 2);
        expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
        expect_eq(rig_sense(&task), SENSE(0xe, 0x1d00));
        expect_eq(be32_get(task.task.sense + 3), half - 27);
        expect(memcmp(disk_at(100), other, half) == 0);
        big[half - 27] ^= 1;
        expect_eq(rig_put(&rig, 0, &sense, big, half * 2, cdb, 16), SCSI_GOOD);
        expect(memcmp(disk_at(100), big + half, half) == 0);
    }
    cdb[13] = 2;
    rig_put(&rig, 0, &sense, big, 3 * BLOCK, cdb, 16); /* a block is missing */
    expect_eq(sense, SENSE(5, 0x2400));
    rig_put(&rig, 0, &sense, big, 5 * BLOCK, cdb, 16); /* one too many */
    expect_eq(sense, SENSE(5, 0x2400));
    be64_put(cdb + 2, 131071);
    rig_put(&rig, 0, &sense, big, 4 * BLOCK, cdb, 16);
    expect_eq(sense, SENSE(5, 0x2100));
    cdb[13] = 0;
    rig_put(&rig, 0, &sense, big, 512 * BLOCK, cdb, 16); /* 256 blocks do not fit */
    expect_eq(sense, SENSE(5, 0x2400));
    be64_put(cdb + 2, 0);
    expect_eq(rig_simple(&rig, 0, &sense, cdb, 16), SCSI_GOOD);
    end();
}

Test(scsi_io, big_blocks_compare_fewer)
{
    uint8_t cdb[16] = { 0x89 };

    rig_make(&rig, &(struct rig_options){ .seed = 1, .block_size = 4096 });
    cdb[13] = 33;
    rig_put(&rig, 0, &sense, big, 33 * 8192, cdb, 16);
    expect_eq(sense, SENSE(5, 0x2400));
    cdb[13] = 32;
    memset(big, 0, 32 * 8192);
    expect_eq(rig_put(&rig, 0, &sense, big, 32 * 8192, cdb, 16), SCSI_GOOD);
    end();
}

/* Many sessions increment one counter by COMPARE AND WRITE: no increment is lost. */
struct counter {
    struct rig_task task;
    uint8_t data[2 * BLOCK];
    unsigned left, tries;
};

static void counter_go(struct counter *one, unsigned nexus, uint64_t known)
{
    uint8_t cdb[16] = { 0x89 };

    cdb[9] = 77;
    cdb[13] = 1;
    memset(one->data, 0, sizeof one->data);
    be64_put(one->data, known);
    be64_put(one->data + BLOCK, known + 1);
    rig_command(&rig, &one->task, nexus, cdb, 16);
    rig_out(&one->task, one->data, sizeof one->data);
    rig_submit(&one->task);
}

Test(scsi_io, compare_and_write_loses_no_increment)
{
    enum { COUNTERS = 12, EACH = 40 };
    static struct counter counters[COUNTERS];
    uint64_t seed = seed_take("compare_and_write"), known = 0;
    unsigned left = COUNTERS * EACH;

    rig_make(&rig, &(struct rig_options){ .seed = seed });
    for (unsigned i = 0; i < COUNTERS; i++) {
        counters[i].left = EACH;
        counter_go(&counters[i], i % RIG_NEXUSES, known);
    }
    while (left > 0) {
        expect(loop_turn(rig.loop));
        for (unsigned i = 0; i < COUNTERS; i++) {
            struct counter *one = &counters[i];
            if (!one->task.done || one->left == 0)
                continue;
            if (one->task.task.status == SCSI_GOOD) {
                known = be64_get(one->data + BLOCK);
                one->left--;
                left--;
            } else {
                expect_eq(rig_sense(&one->task), SENSE(0xe, 0x1d00));
                one->tries++;
            }
            if (one->left > 0)
                counter_go(one, i % RIG_NEXUSES, be64_get(disk_at(77)));
        }
    }
    expect_eq(be64_get(disk_at(77)), COUNTERS * EACH);
    end();
}

Test(scsi_io, orwrite_ors)
{
    uint8_t cdb[16];

    make(RIG_THIN);
    fill(disk_at(3), 1100 * BLOCK, 1);
    memcpy(other, disk_at(3), 1100 * BLOCK);
    fill(big, 1100 * BLOCK, 2);
    rig_lba16(cdb, 0x8b, 3, 1100);
    expect_eq(rig_put(&rig, 0, &sense, big, 1100 * BLOCK, cdb, 16), SCSI_GOOD);
    for (unsigned i = 0; i < 1100 * BLOCK; i++)
        expect_eq(disk_at(3)[i], big[i] | other[i]);
    end();
}

/* -- status of blocks ---------------------------------------------------------------- */

static uint32_t status_get(uint64_t lba, uint8_t *answer, uint32_t room)
{
    uint8_t cdb[16];
    uint32_t received = 0;

    rig_lba16(cdb, 0x9e, lba, room);
    cdb[1] = 0x12;
    rig_get(&rig, 0, &sense, answer, room, &received, cdb, 16);
    return received;
}

Test(scsi_io, get_lba_status_tells_holes)
{
    uint8_t answer[256];

    make(RIG_THIN);
    memset(big, 'a', 1 << 20);
    expect_eq(rig_write(&rig, 0, 64, 64, big), SCSI_GOOD);
    expect_eq(status_get(10, answer, sizeof answer), 8 + 3 * 16);
    expect_eq(be32_get(answer), 4 + 3 * 16);
    expect_eq(be64_get(answer + 8), 10);
    expect_eq(be32_get(answer + 16), 54);
    expect_eq(answer[20], 1);
    expect_eq(be64_get(answer + 24), 64);
    expect_eq(be32_get(answer + 32), 64);
    expect_eq(answer[36], 0);
    expect_eq(be64_get(answer + 40), 128);
    expect_eq(be32_get(answer + 48), 131072 - 128);
    expect_eq(answer[52], 1);
    expect_eq(status_get(131071, answer, 24), 24);
    expect_eq(be32_get(answer + 16), 1);
    expect_eq(status_get(131072, answer, 24), 0);
    expect_eq(sense, SENSE(5, 0x2100));
    end();
    make(RIG_THICK);
    expect_eq(status_get(10, answer, sizeof answer), 24);
    expect_eq(answer[20], 0);
    expect_eq(be32_get(answer + 16), 131062);
    end();
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
    end();
}

/* -- all of it at random ------------------------------------------------------------- */

enum { MODEL_BLOCKS = 4096, LIVE = 16, STEPS = 6000 };

static uint8_t model[MODEL_BLOCKS * 512];
static bool busy[MODEL_BLOCKS]; /* a writer is there: readers and writers keep away */

struct actor {
    struct rig_task task;
    uint8_t bytes[64 * 512 * 2], wanted[64 * 512];
    uint8_t list[24];
    uint64_t lba;
    uint32_t blocks;
    bool live, reads, writes;
};

static bool actor_claim(struct actor *actor, uint64_t *seed)
{
    actor->blocks = (uint32_t)(1 + seed_below(seed, 64));
    actor->lba = seed_below(seed, MODEL_BLOCKS - actor->blocks + 1);
    for (uint32_t i = 0; i < actor->blocks; i++)
        if (busy[actor->lba + i])
            return false;
    for (uint32_t i = 0; i < actor->blocks; i++)
        busy[actor->lba + i] = true;
    return true;
}

static void actor_start(struct actor *actor, uint64_t *seed)
{
    uint8_t cdb[16], *at = model + actor->lba * BLOCK;
    uint32_t bytes = actor->blocks * BLOCK;
    unsigned what = (unsigned)seed_below(seed, 7), nexus;
    uint32_t out = bytes;

    nexus = (unsigned)seed_below(seed, RIG_NEXUSES);
    actor->live = true;
    actor->reads = what == 0;
    seed_fill(seed, actor->bytes, bytes);
    memcpy(actor->wanted, at, bytes);
    rig_lba16(cdb, 0x88, actor->lba, actor->blocks);
    switch (what) {
    case 0:
        break;
    case 1:
    case 2:
        cdb[0] = 0x8a;
        cdb[1] = seed_below(seed, 2) ? 0x08 : 0;
        memcpy(actor->wanted, actor->bytes, bytes);
        break;
    case 3:
        cdb[0] = 0x93;
        out = BLOCK;
        for (uint32_t i = 0; i < actor->blocks; i++)
            memcpy(actor->wanted + i * BLOCK, actor->bytes, BLOCK);
        break;
    case 4: /* unmap, or zeros where there is no unmap */
        memset(actor->wanted, 0, bytes);
        if (rig.options.caps & BLOCK_CAN_DISCARD) {
            uint64_t range[1][2] = { { actor->lba, actor->blocks } };
            out = (uint32_t)unmap_list(actor->list, 1, (const uint64_t(*)[2])range);
            memset(cdb, 0, sizeof cdb);
            cdb[0] = 0x42;
            cdb[8] = 24;
        } else {
            cdb[0] = 0x93;
            cdb[1] = 0x01;
            out = 0;
        }
        break;
    case 5:
        cdb[0] = 0x8b;
        for (uint32_t i = 0; i < bytes; i++)
            actor->wanted[i] = at[i] | actor->bytes[i];
        break;
    default: /* compare and write, half of them in vain */
        memset(cdb + 10, 0, 6);
        cdb[0] = 0x89;
        cdb[13] = (uint8_t)actor->blocks;
        memcpy(actor->bytes + bytes, actor->bytes, bytes);
        memcpy(actor->bytes, at, bytes);
        if (seed_below(seed, 2))
            memcpy(actor->wanted, actor->bytes + bytes, bytes);
        else
            actor->bytes[seed_below(seed, bytes)] ^= 0x40;
        out = bytes * 2;
    }
    rig_command(&rig, &actor->task, nexus, cdb, 16);
    if (what == 0)
        rig_in(&actor->task, actor->bytes, bytes);
    else
        rig_out(&actor->task, cdb[0] == 0x42 ? actor->list : actor->bytes, out);
    actor->task.task.attribute = seed_below(seed, 20) ? SCSI_SIMPLE : SCSI_ORDERED;
    rig_submit(&actor->task);
}

static void actor_finish(struct actor *actor)
{
    uint32_t bytes = actor->blocks * BLOCK, got = rig_sense(&actor->task);

    expect(got == 0 || got == SENSE(0xe, 0x1d00));
    memcpy(model + actor->lba * BLOCK, actor->wanted, bytes);
    if (actor->reads)
        expect(memcmp(actor->bytes, actor->wanted, bytes) == 0);
    expect(memcmp(disk_at(actor->lba), actor->wanted, bytes) == 0);
    for (uint32_t i = 0; i < actor->blocks; i++)
        busy[actor->lba + i] = false;
    actor->live = false;
}

static void model_run(unsigned caps)
{
    static struct actor actors[LIVE];
    uint64_t seed = seed_take("scsi model");
    unsigned started = 0, live = 0;

    memset(model, 0, sizeof model);
    rig_make(&rig,
            &(struct rig_options){ .seed = seed,
                    .caps = caps,
                    .size = MODEL_BLOCKS * BLOCK,
                    .buffers = 2 << 20 });
    while (started < STEPS || live > 0) {
        struct actor *actor = &actors[seed_below(&seed, LIVE)];
        if (!actor->live && started < STEPS && actor_claim(actor, &seed)) {
            actor_start(actor, &seed);
            started++;
            live++;
        }
        if (seed_below(&seed, 3))
            (void)loop_turn(rig.loop);
        if (actor->live && actor->task.done) {
            actor_finish(actor);
            live--;
        }
    }
    expect(memcmp(memory_disk_bytes(rig.disk), model, sizeof model) == 0);
    end();
}

Test(scsi_io, at_random_against_a_model_thin)
{
    model_run(RIG_THIN);
}

Test(scsi_io, at_random_against_a_model_thick)
{
    model_run(RIG_THICK);
}

/* UNMAP and WRITE SAME, and the status of blocks: what is gone, what is zero, what is refused. */
#include <errno.h>
#include <string.h>

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/server/iscsi/scsi_rig.h"
#include "tests/support/expect.h"

enum { BLOCK = 512 };

static struct rig rig;
static uint32_t sense;
static uint8_t big[1 << 20];

static struct block_faulty_counts counts(void)
{
    return block_faulty_counts(rig.device);
}

/* -- UNMAP --------------------------------------------------------------------------- */

static void unmap(const uint8_t *list, size_t length)
{
    uint8_t cdb[10] = { 0x42 };

    be16_put(cdb + 7, (uint16_t)length);
    rig_put(&rig, 0, &sense, list, (uint32_t)length, cdb, sizeof cdb);
}

Test(scsi_zero, unmap_reads_as_zeros_and_only_there)
{
    static const uint64_t ranges[][2] = { { 3, 5 }, { 100, 0 }, { 131036, 36 },
        { 200, 3000 } };
    uint8_t list[256];
    size_t length = rig_unmap_list(list, 4, ranges);

    rig_make_large(&rig, RIG_THIN);
    memset(rig_disk_at(&rig, 0), 'a', 64 << 20);
    unmap(list, length);
    expect_eq(sense, 0);
    for (uint64_t lba = 0; lba < 131072; lba++) {
        bool gone =
                (lba >= 3 && lba < 8) || lba >= 131036 || (lba >= 200 && lba < 3200);
        expect_eq(*rig_disk_at(&rig, lba), gone ? 0 : 'a');
    }
    expect(counts().seen[BLOCK_DISCARD] == 3);
    rig_release(&rig);
}

Test(scsi_zero, unmap_checks_all_before_it_does_any)
{
    static const uint64_t bad[][2] = { { 3, 5 }, { 131066, 7 } };
    static uint8_t list[8 + 300 * 16];
    static uint64_t many[300][2];
    size_t length;

    rig_make_large(&rig, RIG_THIN);
    memset(rig_disk_at(&rig, 0), 'a', BLOCK * 8);
    length = rig_unmap_list(list, 2, bad);
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
    length = rig_unmap_list(list, 257, (const uint64_t(*)[2])many);
    unmap(list, length);
    expect_eq(sense, SENSE(5, 0x2600));
    length = rig_unmap_list(list, 256, (const uint64_t(*)[2])many);
    unmap(list, length);
    expect_eq(sense, 0);
    rig_put(&rig, 0, &sense, list, 24, CDB(0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0));
    expect_eq(sense, SENSE(5, 0x2400)); /* ANCHOR */
    expect_eq(*rig_disk_at(&rig, 3), 'a');
    expect_eq(counts().seen[BLOCK_DISCARD], 0);
    rig_release(&rig);
}

Test(scsi_zero, unmap_of_too_much_is_refused)
{
    static uint64_t whole[9][2];
    static uint8_t list[256];

    rig_make_large(&rig, RIG_THIN);
    for (unsigned i = 0; i < 9; i++)
        whole[i][1] = 131072;
    unmap(list, rig_unmap_list(list, 9, (const uint64_t(*)[2])whole));
    expect_eq(sense, SENSE(5, 0x2600));
    unmap(list, rig_unmap_list(list, 8, (const uint64_t(*)[2])whole));
    expect_eq(sense, 0);
    rig_release(&rig);
}

Test(scsi_zero, written_through_means_flushed_behind_a_discard)
{
    static const uint64_t range[][2] = { { 3, 5 } };
    uint8_t list[24], zeros[BLOCK] = { 0 };

    rig_make_large(&rig, RIG_THIN);
    rig.unit->write_through = true;
    unmap(list, rig_unmap_list(list, 1, range));
    expect_eq(counts().seen[BLOCK_FLUSH], 1);
    rig_put(&rig, 0, &sense, zeros, BLOCK, CDB(0x41, 0x08, 0, 0, 0, 9, 0, 0, 4, 0));
    expect_eq(sense, 0);
    expect_eq(counts().seen[BLOCK_FLUSH], 2);
    rig_release(&rig);
}

Test(scsi_zero, zeros_are_written_where_a_discard_leaves_garbage)
{
    uint8_t zeros[BLOCK] = { 0 };

    rig_make_large(&rig, BLOCK_VOLATILE | BLOCK_CAN_DISCARD);
    memset(rig_disk_at(&rig, 0), 'a', 8 * BLOCK);
    rig_put(&rig, 0, &sense, zeros, BLOCK, CDB(0x41, 0x08, 0, 0, 0, 2, 0, 0, 4, 0));
    expect_eq(sense, 0);
    for (unsigned i = 2; i < 6; i++)
        expect(memcmp(rig_disk_at(&rig, i), zeros, BLOCK) == 0);
    expect_eq(*rig_disk_at(&rig, 6), 'a');
    rig_release(&rig);
}

Test(scsi_zero, a_thick_unit_does_not_know_unmap)
{
    uint8_t list[24] = { 0 };

    rig_make_large(&rig, RIG_THICK);
    unmap(list, 24);
    expect_eq(sense, SENSE(5, 0x2000));
    rig_put(&rig, 0, &sense, list, BLOCK, CDB(0x41, 0x08, 0, 0, 0, 0, 0, 0, 1, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    rig_release(&rig);
}

Test(scsi_zero, a_discard_that_is_not_possible_after_all_becomes_zeros)
{
    static const uint64_t ranges[][2] = { { 3, 5000 } };
    uint8_t list[24];

    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .size = 32 << 20,
                    .plan_count = 1,
                    .plans = { { .op = BLOCK_DISCARD, .error = -EOPNOTSUPP } } });
    memset(rig_disk_at(&rig, 0), 'a', 6000 * BLOCK);
    unmap(list, rig_unmap_list(list, 1, ranges));
    expect_eq(sense, 0);
    for (uint64_t lba = 0; lba < 6000; lba++)
        expect_eq(*rig_disk_at(&rig, lba), lba >= 3 && lba < 5003 ? 0 : 'a');
    rig_release(&rig);
}

/* -- WRITE SAME ---------------------------------------------------------------------- */

static void write_same(unsigned opcode, uint8_t flags, uint64_t lba, uint32_t blocks,
        const uint8_t *data)
{
    uint8_t cdb[16];

    if (opcode == 0x41)
        rig_lba10(cdb, 0x41, lba, blocks);
    else
        rig_lba16(cdb, 0x93, lba, blocks);
    cdb[1] = flags;
    rig_put(&rig, 0, &sense, data, data ? BLOCK : 0, cdb, 16);
}

Test(scsi_zero, write_same_repeats_one_block)
{
    uint8_t pattern[BLOCK], zeros[BLOCK] = { 0 };

    for (unsigned thin = 0; thin < 2; thin++)
        for (unsigned opcode = 0x41; opcode <= 0x93; opcode += 0x52) {
            rig_make_large(&rig, thin ? RIG_THIN : RIG_THICK);
            memset(rig_disk_at(&rig, 0), 'a', 5000 * BLOCK);
            rig_fill(pattern, BLOCK, 6);
            write_same(opcode, 0, 3, 3000, pattern);
            expect_eq(sense, 0);
            expect_eq(*rig_disk_at(&rig, 2), 'a');
            expect_eq(*rig_disk_at(&rig, 3003), 'a');
            for (unsigned i = 3; i < 3003; i++)
                expect(memcmp(rig_disk_at(&rig, i), pattern, BLOCK) == 0);
            write_same(opcode, 0, 5, 2000, zeros);
            expect_eq(sense, 0);
            expect(memcmp(rig_disk_at(&rig, 4), pattern, BLOCK) == 0);
            expect(memcmp(rig_disk_at(&rig, 2005), pattern, BLOCK) == 0);
            for (unsigned i = 5; i < 2005; i++)
                expect(memcmp(rig_disk_at(&rig, i), zeros, BLOCK) == 0);
            if (thin) {
                write_same(opcode, 0x08, 2100, 100, zeros);
                expect_eq(sense, 0);
                expect_eq(counts().seen[BLOCK_DISCARD], 1);
                expect(memcmp(rig_disk_at(&rig, 2199), zeros, BLOCK) == 0);
                expect(memcmp(rig_disk_at(&rig, 2200), pattern, BLOCK) == 0);
                write_same(opcode, 0x08, 2300, 100, pattern); /* not zeros: written */
                expect_eq(sense, 0);
                expect(memcmp(rig_disk_at(&rig, 2399), pattern, BLOCK) == 0);
            }
            rig_release(&rig);
        }
}

Test(scsi_zero, write_same_refuses_what_it_does_not_do)
{
    uint8_t block[BLOCK] = { 1 };

    rig_make(&rig, &(struct rig_options){ .seed = 1, .size = 300 << 20 });
    write_same(0x93, 0x01, 4, 9, NULL); /* NDOB */
    expect_eq(sense, 0);
    expect_eq(*rig_disk_at(&rig, 4), 0);
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
    expect_eq(*rig_disk_at(&rig, 614399), 1);
    expect_eq(*rig_disk_at(&rig, 614397), 0);
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
    rig_release(&rig);
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

Test(scsi_zero, get_lba_status_tells_holes)
{
    uint8_t answer[256];

    rig_make_large(&rig, RIG_THIN);
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
    rig_release(&rig);
    rig_make_large(&rig, RIG_THICK);
    expect_eq(status_get(10, answer, sizeof answer), 24);
    expect_eq(answer[20], 0);
    expect_eq(be32_get(answer + 16), 131062);
    rig_release(&rig);
}

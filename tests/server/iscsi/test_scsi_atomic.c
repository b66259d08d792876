/* COMPARE AND WRITE, ORWRITE: all or nothing, and nothing in between. */
#include <string.h>

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/server/iscsi/scsi_rig.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { BLOCK = 512 };

static struct rig rig;
static uint32_t sense;
static uint8_t big[1 << 20], other[1 << 20];

Test(scsi_atomic, compare_and_write_is_all_or_nothing)
{
    uint8_t cdb[16] = { 0x89 };
    struct rig_task task;
    static const uint8_t counts_of[] = { 1, 2, 16, 255 };

    rig_make_large(&rig, RIG_THIN);
    for (unsigned i = 0; i < sizeof counts_of; i++) {
        uint32_t half = counts_of[i] * BLOCK;
        rig_fill(rig_disk_at(&rig, 100), half, i);
        memcpy(big, rig_disk_at(&rig, 100), half);
        rig_fill(big + half, half, i + 50);
        be64_put(cdb + 2, 100);
        cdb[13] = counts_of[i];
        big[half - 27] ^= 1;
        memcpy(other, rig_disk_at(&rig, 100), half);
        rig_command(&rig, &task, 0, cdb, 16);
        rig_out(&task, big, half * 2);
        expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
        expect_eq(rig_sense(&task), SENSE(0xe, 0x1d00));
        expect_eq(be32_get(task.task.sense + 3), half - 27);
        expect(memcmp(rig_disk_at(&rig, 100), other, half) == 0);
        big[half - 27] ^= 1;
        expect_eq(rig_put(&rig, 0, &sense, big, half * 2, cdb, 16), SCSI_GOOD);
        expect(memcmp(rig_disk_at(&rig, 100), big + half, half) == 0);
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
    rig_release(&rig);
}

Test(scsi_atomic, big_blocks_compare_fewer)
{
    uint8_t cdb[16] = { 0x89 };

    rig_make(&rig, &(struct rig_options){ .seed = 1, .block_size = 4096 });
    cdb[13] = 33;
    rig_put(&rig, 0, &sense, big, 33 * 8192, cdb, 16);
    expect_eq(sense, SENSE(5, 0x2400));
    cdb[13] = 32;
    memset(big, 0, 32 * 8192);
    expect_eq(rig_put(&rig, 0, &sense, big, 32 * 8192, cdb, 16), SCSI_GOOD);
    rig_release(&rig);
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

Test(scsi_atomic, compare_and_write_loses_no_increment)
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
                counter_go(one, i % RIG_NEXUSES, be64_get(rig_disk_at(&rig, 77)));
        }
    }
    expect_eq(be64_get(rig_disk_at(&rig, 77)), COUNTERS * EACH);
    rig_release(&rig);
}

Test(scsi_atomic, orwrite_ors)
{
    uint8_t cdb[16];

    rig_make_large(&rig, RIG_THIN);
    rig_fill(rig_disk_at(&rig, 3), 1100 * BLOCK, 1);
    memcpy(other, rig_disk_at(&rig, 3), 1100 * BLOCK);
    rig_fill(big, 1100 * BLOCK, 2);
    rig_lba16(cdb, 0x8b, 3, 1100);
    expect_eq(rig_put(&rig, 0, &sense, big, 1100 * BLOCK, cdb, 16), SCSI_GOOD);
    for (unsigned i = 0; i < 1100 * BLOCK; i++)
        expect_eq(rig_disk_at(&rig, 3)[i], big[i] | other[i]);
    rig_release(&rig);
}

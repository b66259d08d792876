/* INQUIRY and its pages, capacities, mode pages, reports, sense, a LUN that is not there. */
#include <errno.h>
#include <string.h>

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/server/iscsi/scsi_rig.h"
#include "tests/support/expect.h"

static struct rig rig;
static uint32_t sense, received;
static uint8_t answer[8192];

static void make(unsigned caps)
{
    rig_make(&rig, &(struct rig_options){ .seed = 1, .caps = caps });
}

static void end(void)
{
    rig_release(&rig);
}

static enum scsi_status get(const uint8_t *cdb, size_t length)
{
    memset(answer, 0xee, sizeof answer);
    return rig_get(&rig, 0, &sense, answer, sizeof answer, &received, cdb, length);
}

static void page(uint8_t code)
{
    expect_eq(get(CDB(0x12, 1, code, 0x10, 0, 0)), SCSI_GOOD);
    expect_eq(answer[1], code);
    expect_eq(received, 4 + be16_get(answer + 2));
}

/* -- INQUIRY ------------------------------------------------------------------------- */

Test(scsi_commands, inquiry_tells_a_disk)
{
    make(RIG_THIN);
    expect_eq(get(CDB(0x12, 0, 0, 0x10, 0, 0)), SCSI_GOOD);
    expect_eq(received, 96);
    expect_eq(answer[0], 0);
    expect_eq(answer[2], 6);
    expect_eq(answer[3] & 0x0f, 2);
    expect_eq(answer[4], 91);
    expect(memcmp(answer + 8, "REPLICADVIRTUAL-DISK    ", 24) == 0);
    end();
}

Test(scsi_commands, an_allocation_length_truncates_and_changes_nothing)
{
    struct rig_task task;

    make(RIG_THIN);
    for (unsigned allocation = 0; allocation < 120; allocation++) {
        rig_command(&rig, &task, 0, CDB(0x12, 0, 0, 0, (uint8_t)allocation, 0));
        memset(answer, 0xee, sizeof answer);
        rig_in(&task, answer, 100);
        expect_eq(rig_run(&task), SCSI_GOOD);
        expect_eq(task.task.transfer, allocation < 96 ? allocation : 96);
        expect_eq(task.received, task.task.transfer);
        if (allocation > 4)
            expect_eq(answer[4], 91);
        expect_eq(answer[task.received], 0xee);
    }
    end();
}

Test(scsi_commands, inquiry_refuses_what_it_has_not)
{
    make(RIG_THIN);
    get(CDB(0x12, 0, 0x80, 0, 255, 0)); /* a page without EVPD */
    expect_eq(sense, SENSE(5, 0x2400));
    get(CDB(0x12, 2, 0, 0, 255, 0)); /* CMDDT */
    expect_eq(sense, SENSE(5, 0x2400));
    for (unsigned code = 0; code < 256; code++) {
        bool there = code == 0 || code == 0x80 || code == 0x83 ||
                (code >= 0xb0 && code <= 0xb2);
        get(CDB(0x12, 1, (uint8_t)code, 0, 255, 0));
        expect_eq(sense, there ? 0 : SENSE(5, 0x2400));
    }
    end();
}

Test(scsi_commands, vital_pages_say_who_it_is)
{
    static const uint8_t list[] = { 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
    static const char id[] = "0193a5f0-1111-7222-8333-444455556666";
    static const uint8_t kinds[] = { 0x03, 0x01, 0x94, 0x95, 0x98, 0xa8 };
    unsigned at = 4, kind = 0;

    make(RIG_THIN);
    page(0x00);
    expect_eq(received, 4 + sizeof list);
    expect(memcmp(answer + 4, list, sizeof list) == 0);
    page(0x80);
    expect_eq(received, 4 + 36);
    expect(memcmp(answer + 4, id, 36) == 0);
    page(0x83);
    expect_eq(answer[8] >> 4, 3); /* NAA 3, binary, first */
    for (; at < received; at += 4 + answer[at + 3], kind++) {
        expect(kind < sizeof kinds);
        expect_eq(answer[at + 1], kinds[kind]);
        if (kinds[kind] == 0x03)
            expect_eq(answer[at + 3], 8);
        if (kinds[kind] == 0x01)
            expect(memcmp(answer + at + 4, "REPLICAD", 8) == 0);
        if (kinds[kind] >= 0x98) {
            expect_eq(answer[at + 3] % 4, 0);
            expect(memcmp(answer + at + 4, "iqn.2026-11.org.replicad:", 25) == 0);
            expect_eq(answer[at + 3 + answer[at + 3]], 0);
        }
    }
    expect_eq(at, received);
    expect_eq(kind, sizeof kinds);
    end();
}

Test(scsi_commands, pages_tell_limits_and_provisioning_truly)
{
    make(RIG_THIN);
    page(0xb0);
    expect_eq(received, 64);
    expect_eq(answer[4], 0); /* WSNZ */
    expect_eq(answer[5], 255);
    expect_eq(be32_get(answer + 8), 65536);
    expect_eq(be32_get(answer + 20), 1 << 20);
    expect_eq(be32_get(answer + 24), 256);
    expect_eq(be64_get(answer + 36), 262144);
    page(0xb1);
    expect_eq(be16_get(answer + 4), 1);
    page(0xb2);
    expect_eq(answer[5], 0xe4);
    expect_eq(answer[6], 2);
    end();
    make(RIG_THICK);
    page(0xb0);
    expect_eq(be32_get(answer + 20), 0);
    expect_eq(be32_get(answer + 24), 0);
    page(0xb2);
    expect_eq(answer[5], 0);
    expect_eq(answer[6], 0);
    end();
    make(BLOCK_CAN_DISCARD); /* not thin, and garbage behind it */
    page(0xb2);
    expect_eq(answer[5], 0xe0);
    expect_eq(answer[6], 1);
    end();
}

/* -- READ CAPACITY ------------------------------------------------------------------- */

Test(scsi_commands, capacities)
{
    make(RIG_THIN);
    expect_eq(get(CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0)), SCSI_GOOD);
    expect_eq(received, 8);
    expect_eq(be32_get(answer), 16383);
    expect_eq(be32_get(answer + 4), 512);
    get(CDB(0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    get(CDB(0x25, 0, 0, 0, 0, 1, 0, 0, 1, 0)); /* PMI */
    expect_eq(sense, 0);
    get(CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0));
    expect_eq(received, 32);
    expect_eq(be64_get(answer), 16383);
    expect_eq(be32_get(answer + 8), 512);
    expect_eq(answer[13], 0);
    expect_eq(answer[14], 0xc0);
    get(CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0));
    expect_eq(received, 13);
    get(CDB(0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    end();
    make(RIG_THICK);
    get(CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0));
    expect_eq(answer[14], 0);
    end();
}

/* -- mode pages ---------------------------------------------------------------------- */

Test(scsi_commands, mode_sense_shows_the_pages)
{
    make(RIG_THIN);
    expect_eq(get(CDB(0x1a, 0, 0x3f, 0, 255, 0)), SCSI_GOOD);
    expect_eq(received, 4 + 8 + 12 + 20 + 12 + 12);
    expect_eq(answer[0], received - 1);
    expect_eq(answer[2], 0x10); /* DPOFUA, writable */
    expect_eq(answer[3], 8);
    expect_eq(be32_get(answer + 4), 16384);
    expect_eq(be24_get(answer + 9), 512);
    expect_eq(answer[12], 0x01);
    expect_eq(answer[24], 0x08);
    expect_eq(answer[26], 0x04); /* WCE */
    expect_eq(answer[44], 0x0a);
    expect_eq(answer[56], 0x1c);
    get(CDB(0x1a, 8, 0x08, 0, 255, 0));
    expect_eq(received, 24);
    expect_eq(answer[3], 0);
    get(CDB(0x5a, 0x10, 0x08, 0, 0, 0, 0, 1, 0, 0)); /* LLBAA */
    expect_eq(received, 8 + 16 + 20);
    expect_eq(be16_get(answer), received - 2);
    expect_eq(answer[4], 1);
    expect_eq(be16_get(answer + 6), 16);
    expect_eq(be64_get(answer + 8), 16384);
    expect_eq(be32_get(answer + 20), 512);
    get(CDB(0x1a, 8, 0x48, 0, 255, 0)); /* changeable */
    expect_eq(answer[4], 0x08);
    expect_eq(answer[6], 0x04);
    get(CDB(0x1a, 8, 0xc8, 0, 255, 0)); /* saved */
    expect_eq(sense, SENSE(5, 0x3900));
    get(CDB(0x1a, 8, 0x02, 0, 255, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    get(CDB(0x1a, 8, 0x08, 1, 255, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    get(CDB(0x1a, 8, 0x3f, 0xff, 255, 0));
    expect_eq(sense, 0);
    end();
    make(BLOCK_CAN_ZERO); /* nothing volatile */
    get(CDB(0x1a, 8, 0x08, 0, 255, 0));
    expect_eq(answer[6], 0);
    get(CDB(0x1a, 8, 0x48, 0, 255, 0));
    expect_eq(answer[6], 0);
    end();
}

/* Asks for a page, changes a byte of it, sends it back. */
static void mode_set(uint8_t code, unsigned offset, uint8_t value)
{
    uint8_t list[64];

    expect_eq(get(CDB(0x1a, 8, code, 0, 255, 0)), SCSI_GOOD);
    memcpy(list, answer, received);
    list[0] = 0;
    list[4 + offset] = value;
    rig_put(&rig, 0, &sense, list, received,
            CDB(0x15, 0x10, 0, 0, (uint8_t)received, 0));
}

static struct rig_task last;

static enum scsi_status write_one(void)
{
    static uint8_t bytes[512];

    rig_command(&rig, &last, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    rig_out(&last, bytes, 512);
    return rig_run(&last);
}

Test(scsi_commands, mode_select_changes_what_it_says)
{
    make(RIG_THIN);
    mode_set(0x0a, 2, 0x04); /* D_SENSE */
    expect_eq(sense, 0);
    for (unsigned other = 1; other < RIG_NEXUSES; other++) {
        rig_simple(&rig, other, &sense, CDB(0, 0, 0, 0, 0, 0));
        expect_eq(sense, SENSE(6, 0x2a01));
    }
    rig_simple(&rig, 0, &sense, CDB(0x99, 0, 0, 0, 0, 0));
    expect_eq(sense, SENSE(5, 0x2000));
    rig_command(&rig, &last, 0, CDB(0x99, 0, 0, 0, 0, 0));
    expect_eq(rig_run(&last), SCSI_CHECK_CONDITION);
    expect_eq(last.task.sense[0], 0x72);
    mode_set(0x0a, 4, 0x08); /* SWP */
    expect_eq(sense, 0);
    expect_eq(write_one(), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&last), SENSE(7, 0x2700));
    get(CDB(0x1a, 8, 0x0a, 0, 255, 0));
    expect_eq(answer[2], 0x90); /* WP */
    mode_set(0x0a, 4, 0);
    expect_eq(write_one(), SCSI_GOOD);
    end();
}

Test(scsi_commands, without_a_write_cache_every_write_is_stable)
{
    make(RIG_THIN);
    expect_eq(write_one(), SCSI_GOOD);
    expect_eq(last.task.request.flags, 0);
    mode_set(0x08, 2, 0); /* WCE off: flushes what was cached */
    expect_eq(sense, 0);
    expect_eq(block_faulty_counts(rig.device).seen[BLOCK_FLUSH], 1);
    expect_eq(write_one(), SCSI_GOOD);
    expect_eq(last.task.request.flags, BLOCK_FUA);
    get(CDB(0x1a, 8, 0x08, 0, 255, 0));
    expect_eq(answer[6], 0);
    end();
}

/* -- the write cache is switched off while something happens -------------------------------- */

static uint64_t flushes(void)
{
    return block_faulty_counts(rig.device).seen[BLOCK_FLUSH];
}

static bool cache_is_shown(void)
{
    expect_eq(get(CDB(0x1a, 8, 0x08, 0, 255, 0)), SCSI_GOOD);
    return answer[6] & 0x04;
}

static const struct block_fault_plan no_more = { .op = BLOCK_DISCARD };

static void make_planned(struct block_fault_plan first, struct block_fault_plan second)
{
    rig_make(&rig,
            &(struct rig_options){
                    .seed = 1, .plan_count = 2, .plans = { first, second } });
}

static void write_start(struct rig_task *task, unsigned nexus)
{
    static uint8_t bytes[512];

    rig_command(&rig, task, nexus, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    rig_out(task, bytes, 512);
    rig_submit(task);
}

Test(scsi_commands, a_write_under_way_is_stable_when_the_cache_is_off)
{
    struct rig_task slow;

    make_planned(
            (struct block_fault_plan){ .op = BLOCK_WRITE, .delay_ms = 1000 }, no_more);
    write_start(&slow, 1);
    mode_set(0x08, 2, 0);
    expect_eq(sense, 0);
    expect(!slow.done);
    expect_eq(flushes(), 1);
    expect(rig_wait(&slow));
    expect_eq(slow.task.status, SCSI_GOOD);
    expect_eq(flushes(), 2); /* the first one began before it was there */
    expect_eq(write_one(), SCSI_GOOD);
    expect_eq(flushes(), 2);
    end();
}

Test(scsi_commands, a_write_under_way_that_cannot_be_made_stable_is_not_good)
{
    struct rig_task slow;

    make_planned((struct block_fault_plan){ .op = BLOCK_WRITE, .delay_ms = 1000 },
            (struct block_fault_plan){
                    .op = BLOCK_FLUSH, .after = 1, .times = 1, .error = -EIO });
    write_start(&slow, 1);
    mode_set(0x08, 2, 0);
    expect_eq(sense, 0);
    expect(rig_wait(&slow));
    expect_eq(rig_sense(&slow), SENSE(3, 0x0c00));
    end();
}

Test(scsi_commands, the_cache_is_off_only_when_it_was_flushed)
{
    make_planned(
            (struct block_fault_plan){ .op = BLOCK_FLUSH, .times = 1, .error = -EIO },
            no_more);
    expect_eq(write_one(), SCSI_GOOD);
    mode_set(0x08, 2, 0);
    expect_eq(sense, SENSE(3, 0x0c00));
    expect(cache_is_shown());
    mode_set(0x08, 2, 0); /* again: it is not believed to be off */
    expect_eq(sense, 0);
    expect_eq(flushes(), 2);
    expect(!cache_is_shown());
    expect_eq(rig_attention(&rig, 1), SENSE(6, 0x2a01));
    mode_set(0x08, 2, 0x04);
    expect_eq(sense, 0);
    expect(cache_is_shown());
    end();
}

Test(scsi_commands, nobody_hears_that_the_cache_is_off_before_it_is)
{
    static uint8_t list[24] = { 0, 0, 0, 0, 0x08, 18 };
    struct rig_task select;

    make_planned(
            (struct block_fault_plan){ .op = BLOCK_FLUSH, .delay_ms = 1000 }, no_more);
    expect_eq(write_one(), SCSI_GOOD);
    rig_command(&rig, &select, 1, CDB(0x15, 0x10, 0, 0, 24, 0));
    rig_out(&select, list, sizeof list);
    rig_submit(&select);
    rig_settle(&rig);
    expect(!select.done);
    expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2a01));
    expect(cache_is_shown());
    mode_set(0x08, 2, 0); /* another's waits for a flush as well */
    expect_eq(sense, 0);
    expect_eq(flushes(), 2);
    expect(rig_wait(&select));
    expect_eq(select.task.status, SCSI_GOOD);
    expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2a01));
    expect(!cache_is_shown());
    end();
}

Test(scsi_commands, mode_select_refuses_and_then_changes_nothing)
{
    uint8_t list[24] = { 0, 0, 0, 0, 0x08, 18 };

    make(RIG_THIN);
    mode_set(0x08, 3, 0x11); /* not changeable */
    expect_eq(sense, SENSE(5, 0x2600));
    mode_set(0x0a, 1, 0x0b); /* page length */
    expect_eq(sense, SENSE(5, 0x2600));
    rig_put(&rig, 0, &sense, list, 24, CDB(0x15, 0x11, 0, 0, 24, 0)); /* SP */
    expect_eq(sense, SENSE(5, 0x2400));
    rig_put(&rig, 0, &sense, list, 24, CDB(0x15, 0, 0, 0, 24, 0)); /* no PF */
    expect_eq(sense, SENSE(5, 0x2400));
    rig_put(&rig, 0, &sense, list, 23, CDB(0x15, 0x10, 0, 0, 23, 0));
    expect_eq(sense, SENSE(5, 0x1a00));
    rig_put(&rig, 0, &sense, list, 3, CDB(0x15, 0x10, 0, 0, 3, 0));
    expect_eq(sense, SENSE(5, 0x1a00));
    list[3] = 8; /* a descriptor of another block size */
    rig_put(&rig, 0, &sense, list, 24, CDB(0x15, 0x10, 0, 0, 24, 0));
    expect_eq(sense, SENSE(5, 0x2600));
    rig_put(&rig, 0, &sense, NULL, 0, CDB(0x15, 0x10, 0, 0, 0, 0));
    expect_eq(sense, 0);
    rig_simple(&rig, 1, &sense, CDB(0, 0, 0, 0, 0, 0));
    expect_eq(sense, 0); /* nobody heard of a change */
    end();
}

Test(scsi_commands, a_read_only_export_says_so)
{
    static const uint8_t writers[] = { 0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x41,
        0x93, 0x42, 0x89, 0x8b };
    uint8_t cdb[16];

    rig_make(&rig, &(struct rig_options){ .seed = 1, .read_only = true });
    for (unsigned i = 0; i < sizeof writers; i++) {
        memset(cdb, 0, sizeof cdb);
        cdb[0] = writers[i];
        rig_simple(&rig, 0, &sense, cdb, 16);
        expect_eq(sense, SENSE(7, 0x2700));
    }
    get(CDB(0x1a, 8, 0x08, 0, 255, 0));
    expect_eq(answer[2], 0x90);
    expect_eq(rig_read(&rig, 0, 0, 1, answer), SCSI_GOOD);
    end();
}

/* -- reports ------------------------------------------------------------------------- */

Test(scsi_commands, every_row_is_reported_and_every_report_is_true)
{
    uint8_t cdb[16];
    unsigned rows;

    make(RIG_THIN);
    expect_eq(get(CDB(0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0x20, 0, 0, 0)), SCSI_GOOD);
    rows = be32_get(answer) / 20;
    expect_eq(be32_get(answer) % 20, 0);
    expect_eq(received, 4 + rows * 20);
    expect_eq(rows, scsi_opcode_count);
    for (unsigned i = 0; i < scsi_opcode_count; i++) {
        const struct scsi_opcode *row = &scsi_opcodes[i];
        bool acts = row->action >= 0;
        memset(cdb, 0, sizeof cdb);
        cdb[0] = 0xa3;
        cdb[1] = 0x0c;
        cdb[2] = (uint8_t)(0x80 | (acts ? 2 : 1));
        cdb[3] = row->opcode;
        cdb[5] = (uint8_t)(acts ? row->action : 0);
        cdb[8] = 0x20;
        expect_eq(get(cdb, 12), SCSI_GOOD);
        expect_eq(answer[1], 0x83);
        expect_eq(be16_get(answer + 2), row->length);
        expect_eq(answer[4], row->opcode);
        expect_eq(received, 4 + row->length + 12);
        expect_eq(be32_get(answer + 4 + row->length + 8), row->seconds);
        if (acts)
            expect_eq(answer[5] & 0x1f, row->action);
        cdb[2] = (uint8_t)(acts ? 1 : 2);
        get(cdb, 12);
        expect_eq(sense, SENSE(5, 0x2400));
        cdb[2] = 3;
        expect_eq(get(cdb, 12), SCSI_GOOD);
        expect_eq(answer[1], 3);
        /* and it is what the unit really knows */
        memset(cdb, 0, sizeof cdb);
        cdb[0] = row->opcode;
        cdb[1] = (uint8_t)(acts ? row->action : 0);
        rig_simple(&rig, 0, &sense, cdb, 16);
        expect(sense != SENSE(5, 0x2000));
    }
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        bool known = false;
        for (unsigned i = 0; i < scsi_opcode_count; i++)
            known = known || scsi_opcodes[i].opcode == opcode;
        if (known)
            continue;
        expect_eq(get(CDB(0xa3, 0x0c, 1, (uint8_t)opcode, 0, 0, 0, 0, 0x20, 0, 0, 0)),
                SCSI_GOOD);
        expect_eq(answer[1], 1);
        rig_simple(&rig, 0, &sense, CDB((uint8_t)opcode, 0, 0, 0, 0, 0));
        expect_eq(sense, SENSE(5, 0x2000));
    }
    get(CDB(0xa3, 0x0c, 4, 0, 0, 0, 0, 0, 0x20, 0, 0, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    get(CDB(0xa3, 0x0b, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    end();
    make(RIG_THICK);
    get(CDB(0xa3, 0x0c, 1, 0x42, 0, 0, 0, 0, 0x20, 0, 0, 0));
    expect_eq(answer[1], 1);
    get(CDB(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0));
    expect_eq(be32_get(answer), (scsi_opcode_count - 1) * 8);
    end();
}

Test(scsi_commands, what_stays_out_is_unknown)
{
    static const uint8_t out[] = { 0x83, 0x84, 0x48, 0x04, 0x3b, 0x9c, 0x3c, 0x1d };

    make(RIG_THIN);
    for (unsigned i = 0; i < sizeof out; i++) {
        rig_simple(&rig, 0, &sense, CDB(out[i], 0, 0, 0, 0, 0, 0, 0, 0, 0));
        expect_eq(sense, SENSE(5, 0x2000));
    }
    end();
}

Test(scsi_commands, luns_sense_functions_start)
{
    make(RIG_THIN);
    get(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0));
    expect_eq(received, 16);
    expect_eq(be32_get(answer), 8);
    expect_eq(be64_get(answer + 8), 0);
    get(CDB(0xa0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0));
    expect_eq(received, 8);
    get(CDB(0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    get(CDB(0x03, 0, 0, 0, 252, 0));
    expect_eq(received, 18);
    expect_eq(answer[0], 0x70);
    expect_eq(answer[2], 0);
    get(CDB(0x03, 1, 0, 0, 252, 0));
    expect_eq(received, 8);
    expect_eq(answer[0], 0x72);
    get(CDB(0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0));
    expect_eq(received, 4);
    expect_eq(answer[0], 0xda);
    get(CDB(0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 255, 0, 0));
    expect_eq(received, 16);
    get(CDB(0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    rig_simple(&rig, 0, &sense, CDB(0x1b, 0, 0, 0, 1, 0));
    expect_eq(sense, 0);
    for (unsigned bits = 0; bits < 256; bits++) {
        if (bits == 1 || bits == 5 || bits == 9 || bits == 13)
            continue;
        rig_simple(&rig, 0, &sense, CDB(0x1b, 0, 0, 0, (uint8_t)bits, 0));
        expect_eq(sense, SENSE(5, 0x2400));
    }
    end();
}

Test(scsi_commands, an_attention_comes_once_and_first)
{
    rig_make(&rig, &(struct rig_options){ .seed = 1, .keeps_attention = true });
    get(CDB(0x12, 0, 0, 0, 36, 0)); /* INQUIRY and REPORT LUNS do not mind */
    expect_eq(sense, 0);
    get(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0));
    expect_eq(sense, 0);
    rig_simple(&rig, 0, &sense, CDB(0x99, 0, 0, 0, 0, 0));
    expect_eq(sense, SENSE(6, 0x2900));
    rig_simple(&rig, 0, &sense, CDB(0x99, 0, 0, 0, 0, 0));
    expect_eq(sense, SENSE(5, 0x2000));
    rig_get(&rig, 1, &sense, answer, 252, &received, CDB(0x03, 0, 0, 0, 252, 0));
    expect_eq(sense, 0);
    expect_eq(answer[2], 6);
    expect_eq(be16_get(answer + 12), 0x2900); /* REQUEST SENSE takes it */
    rig_simple(&rig, 1, &sense, CDB(0, 0, 0, 0, 0, 0));
    expect_eq(sense, 0);
    end();
}

Test(scsi_commands, too_many_attentions_are_one)
{
    enum sense_code code;

    make(RIG_THIN);
    for (unsigned i = 0; i < SCSI_UA_MAX; i++)
        nexus_attention(&rig.nexus[0], (enum sense_code)(0x2a00 + i));
    nexus_attention(&rig.nexus[0], (enum sense_code)0x2a03); /* known already */
    expect_eq(rig.nexus[0].attentions, SCSI_UA_MAX);
    nexus_attention(&rig.nexus[0], (enum sense_code)0x3f0e);
    expect(nexus_attention_take(&rig.nexus[0], &code));
    expect_eq(code, 0x2900);
    expect(!nexus_attention_take(&rig.nexus[0], &code));
    end();
}

/* -- a LUN that is not there --------------------------------------------------------- */

static void wrong(const uint8_t *cdb, size_t length)
{
    memset(answer, 0xee, sizeof answer);
    rig_command(&rig, &last, 0, cdb, length);
    rig_in(&last, answer, 255);
    scsi_submit_wrong_lun(&last.task);
    expect(rig_wait(&last));
}

Test(scsi_commands, a_lun_that_is_not_there_says_so)
{
    rig_make(&rig, &(struct rig_options){ .seed = 1, .keeps_attention = true });
    wrong(CDB(0x12, 0, 0, 0, 96, 0));
    expect_eq(last.received, 96);
    expect_eq(answer[0], 0x7f);
    wrong(CDB(0x12, 1, 0x83, 0, 96, 0));
    expect_eq(rig_sense(&last), SENSE(5, 0x2400));
    wrong(CDB(0x03, 0, 0, 0, 96, 0));
    expect_eq(answer[2], 5);
    expect_eq(be16_get(answer + 12), 0x2500);
    wrong(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0));
    expect_eq(last.received, 16);
    wrong(CDB(0, 0, 0, 0, 0, 0));
    expect_eq(rig_sense(&last), SENSE(5, 0x2500));
    wrong(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    expect_eq(rig_sense(&last), SENSE(5, 0x2500));
    end();
}

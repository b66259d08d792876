/* Reservations: who may do what under which type, and who hears of what. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/server/iscsi/reserve_rig.h"
#include "tests/support/expect.h"

/* -- registrations ------------------------------------------------------------------- */

Test(scsi_reserve, register_asks_for_the_present_key)
{
    reserve_make();
    expect_eq(reserve_out(0, REGISTER, 0, 77, 5), SCSI_RESERVATION_CONFLICT);
    expect_eq(reserve_out(0, REGISTER, 0, 0, 0), SCSI_GOOD);
    expect_eq(reserve_generation(), 0);
    expect_eq(reserve_out(0, REGISTER, 0, 0, 5), SCSI_GOOD);
    expect_eq(reserve_generation(), 1);
    expect_eq(reserve_out(0, REGISTER, 0, 0, 6), SCSI_RESERVATION_CONFLICT);
    expect_eq(reserve_out(0, REGISTER, 0, 5, 6), SCSI_GOOD);
    expect_eq(reserve_out(0, IGNORE, 0, 99, 7), SCSI_GOOD);
    expect_eq(reserve_generation(), 3);
    expect_eq(reserve_key_count(), 1);
    expect_eq(be64_get(reserve_answer + 8), 7);
    expect_eq(reserve_out(1, IGNORE, 0, 0, 7), SCSI_GOOD); /* keys may be equal */
    expect_eq(reserve_key_count(), 2);
    expect_eq(reserve_out(0, REGISTER, 0, 7, 0), SCSI_GOOD);
    expect_eq(reserve_out(1, IGNORE, 0, 0, 0), SCSI_GOOD);
    expect_eq(reserve_key_count(), 0);
    expect_eq(reserve_rig.keeps, 0);
    reserve_end();
}

Test(scsi_reserve, what_is_not_served_is_refused)
{
    uint8_t list[24] = { 0 };

    reserve_make();
    reserve_join(0);
    for (unsigned action = 7; action < 32; action++) {
        reserve_out(0, action, 1, reserve_keys[0], 0);
        expect_eq(reserve_sense, SENSE(5, 0x2400));
    }
    for (unsigned action = 4; action < 32; action++) {
        rig_get(&reserve_rig, 0, &reserve_sense, reserve_answer, 255, NULL,
                CDB(0x5e, (uint8_t)action, 0, 0, 0, 0, 0, 0, 255, 0));
        expect_eq(reserve_sense, SENSE(5, 0x2400));
    }
    for (unsigned type = 0; type < 256; type++) {
        bool good = memchr(reserve_types, (int)type, sizeof reserve_types) != NULL;
        if (good)
            continue;
        reserve_out(0, RESERVE, type, reserve_keys[0], 0);
        expect_eq(reserve_sense, SENSE(5, 0x2400));
    }
    list[20] = 0x08; /* SPEC_I_PT */
    be64_put(list, reserve_keys[0]);
    rig_put(&reserve_rig, 0, &reserve_sense, list, 24,
            CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0));
    expect_eq(reserve_sense, SENSE(5, 0x2600));
    rig_put(&reserve_rig, 0, &reserve_sense, list, 23,
            CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0));
    expect_eq(reserve_sense, SENSE(5, 0x1a00));
    rig_put(&reserve_rig, 0, &reserve_sense, list, 24,
            CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 25, 0));
    expect_eq(reserve_sense, SENSE(5, 0x1a00));
    expect_eq(reserve_key_count(), 1);
    reserve_end();
}

Test(scsi_reserve, the_table_of_registrants_is_finite)
{
    reserve_make();
    for (unsigned i = 0; i < REGISTRANTS_MOST; i++) {
        snprintf(reserve_rig.nexus[0].initiator, SCSI_NAME_MAX,
                "iqn.2026-11.test:%0200u", i);
        expect_eq(reserve_out(0, IGNORE, 0, 0, i + 1), SCSI_GOOD);
    }
    reserve_out(1, REGISTER, 0, 0, 5);
    expect_eq(reserve_sense, SENSE(5, 0x5504));
    expect_eq(reserve_key_count(), REGISTRANTS_MOST);
    reserve_in(0, 3);
    expect(reserve_received > 16384); /* all of it fits its buffer */
    expect_eq(reserve_received, 8 + be32_get(reserve_answer + 4));
    reserve_end();
}

/* -- who may do what ----------------------------------------------------------------- */

/* SPC-4 table 69 and SBC-3 table 13: what a session may that is in the way of a reservation.
   Written again from the standards, not taken from the product's table. */
static const struct {
    uint8_t opcode, action;
    char who; /* A everybody, R readers, W nobody, O its own rules */
} accesses[] = {
    { 0x00, 0, 'A' },
    { 0x03, 0, 'A' },
    { 0x08, 0, 'R' },
    { 0x0a, 0, 'W' },
    { 0x12, 0, 'A' },
    { 0x15, 0, 'W' },
    { 0x16, 0, 'O' },
    { 0x17, 0, 'O' },
    { 0x1a, 0, 'A' },
    { 0x1b, 0, 'A' },
    { 0x25, 0, 'A' },
    { 0x28, 0, 'R' },
    { 0x2a, 0, 'W' },
    { 0x2e, 0, 'W' },
    { 0x2f, 0, 'R' },
    { 0x34, 0, 'R' },
    { 0x35, 0, 'W' },
    { 0x41, 0, 'W' },
    { 0x42, 0, 'W' },
    { 0x55, 0, 'W' },
    { 0x5a, 0, 'A' },
    { 0x5e, 0, 'A' },
    { 0x5e, 1, 'A' },
    { 0x5e, 2, 'A' },
    { 0x5e, 3, 'A' },
    { 0x88, 0, 'R' },
    { 0x89, 0, 'W' },
    { 0x8a, 0, 'W' },
    { 0x8b, 0, 'W' },
    { 0x8e, 0, 'W' },
    { 0x8f, 0, 'R' },
    { 0x90, 0, 'R' },
    { 0x91, 0, 'W' },
    { 0x93, 0, 'W' },
    { 0x9e, 0x10, 'A' },
    { 0x9e, 0x12, 'R' },
    { 0xa0, 0, 'A' },
    { 0xa3, 0x0c, 'A' },
    { 0xa3, 0x0d, 'A' },
    { 0xa8, 0, 'R' },
    { 0xaa, 0, 'W' },
    { 0xae, 0, 'W' },
    { 0xaf, 0, 'R' },
};

enum { ACCESSES = sizeof accesses / sizeof *accesses };

static bool conflicts(unsigned nexus, unsigned row)
{
    uint8_t cdb[16] = { accesses[row].opcode, accesses[row].action };

    return rig_simple(&reserve_rig, nexus, &reserve_sense, cdb, sizeof cdb) ==
            SCSI_RESERVATION_CONFLICT;
}

Test(scsi_reserve, every_type_lets_in_whom_it_should)
{
    unsigned rows = 0;

    for (unsigned i = 0; i < scsi_opcode_count; i++)
        rows += scsi_opcodes[i].opcode != 0x5f;
    expect_eq(rows, ACCESSES); /* no command is left out */
    for (unsigned t = 0; t < sizeof reserve_types; t++) {
        bool reads =
                reserve_types[t] == 1 || reserve_types[t] == 5 || reserve_types[t] == 7;
        bool shares = reserve_types[t] >= 5;
        reserve_make();
        reserve_join(HOLDER);
        reserve_join(REGISTRANT);
        expect_eq(
                reserve_out(HOLDER, RESERVE, reserve_types[t], reserve_keys[HOLDER], 0),
                SCSI_GOOD);
        for (unsigned row = 0; row < ACCESSES; row++) {
            char who = accesses[row].who;
            bool closed = who == 'W' || (who == 'R' && !reads);
            if (who == 'O') {
                for (unsigned n = 0; n < 3; n++)
                    expect(conflicts(n, row)); /* beside registrations */
                continue;
            }
            cr_assert(!conflicts(HOLDER, row), "type %u %02x holder", reserve_types[t],
                    accesses[row].opcode);
            cr_assert(conflicts(REGISTRANT, row) == (closed && !shares),
                    "type %u %02x registrant", reserve_types[t], accesses[row].opcode);
            cr_assert(conflicts(STRANGER, row) == closed, "type %u %02x stranger",
                    reserve_types[t], accesses[row].opcode);
        }
        reserve_end();
    }
}

Test(scsi_reserve, the_type_and_key_are_told)
{
    uint64_t key = 0;

    for (unsigned t = 0; t < sizeof reserve_types; t++) {
        reserve_make();
        reserve_join(0);
        reserve_join(1);
        expect_eq(reserve_held(&key), 0);
        expect_eq(reserve_out(0, RESERVE, reserve_types[t], reserve_keys[0], 0),
                SCSI_GOOD);
        expect_eq(reserve_held(&key), reserve_types[t]);
        expect_eq(key, reserve_types[t] >= 7 ? 0 : reserve_keys[0]);
        expect_eq(reserve_out(0, RESERVE, reserve_types[t], reserve_keys[0], 0),
                SCSI_GOOD); /* again */
        expect_eq(reserve_out(0, RESERVE, reserve_types[t], 99, 0),
                SCSI_RESERVATION_CONFLICT);
        expect_eq(reserve_out(1, RESERVE, reserve_types[t], reserve_keys[1], 0),
                reserve_types[t] >= 7 ? SCSI_GOOD : SCSI_RESERVATION_CONFLICT);
        expect_eq(reserve_out(0, RESERVE, reserve_types[t] == 1 ? 3 : 1,
                          reserve_keys[0], 0),
                SCSI_RESERVATION_CONFLICT);
        expect_eq(reserve_out(2, RESERVE, reserve_types[t], 0, 0),
                SCSI_RESERVATION_CONFLICT);
        expect_eq(reserve_generation(), 2); /* RESERVE does not count */
        reserve_end();
    }
}

Test(scsi_reserve, release_is_for_the_holder_and_heard_by_those_who_shared)
{
    uint64_t key;

    for (unsigned t = 0; t < sizeof reserve_types; t++) {
        reserve_make();
        reserve_join(0);
        reserve_join(1);
        reserve_out(0, RESERVE, reserve_types[t], reserve_keys[0], 0);
        expect_eq(reserve_out(2, RELEASE, reserve_types[t], 0, 0),
                SCSI_RESERVATION_CONFLICT);
        expect_eq(reserve_out(0, RELEASE, reserve_types[t], 99, 0),
                SCSI_RESERVATION_CONFLICT);
        reserve_out(0, RELEASE, reserve_types[t] == 1 ? 3 : 1, reserve_keys[0], 0);
        expect_eq(reserve_sense, SENSE(5, 0x2604));
        if (reserve_types[t] < 7) { /* not the holder: nothing happens */
            expect_eq(reserve_out(1, RELEASE, reserve_types[t], reserve_keys[1], 0),
                    SCSI_GOOD);
            expect_eq(reserve_held(&key), reserve_types[t]);
        }
        expect_eq(reserve_out(0, RELEASE, reserve_types[t], reserve_keys[0], 0),
                SCSI_GOOD);
        expect_eq(reserve_held(&key), 0);
        expect_eq(rig_attention(&reserve_rig, 0), 0);
        expect_eq(rig_attention(&reserve_rig, 1),
                reserve_types[t] >= 5 ? SENSE(6, 0x2a04) : 0);
        expect_eq(rig_attention(&reserve_rig, 2), 0);
        expect_eq(reserve_out(0, RELEASE, reserve_types[t], reserve_keys[0], 0),
                SCSI_GOOD);
        reserve_end();
    }
}

Test(scsi_reserve, who_leaves_takes_the_reservation_along)
{
    uint64_t key;

    reserve_asker = 2;
    for (unsigned t = 0; t < sizeof reserve_types; t++) {
        bool all = reserve_types[t] >= 7;
        reserve_make();
        reserve_join(1); /* the holder is not the first of the list */
        reserve_join(0);
        reserve_out(0, RESERVE, reserve_types[t], reserve_keys[0], 0);
        expect_eq(reserve_out(1, REGISTER, 0, reserve_keys[1], 0),
                SCSI_GOOD); /* a bystander goes */
        expect_eq(reserve_held(&key), reserve_types[t]);
        if (!all)
            expect_eq(key, reserve_keys[0]);
        reserve_join(1);
        expect_eq(reserve_out(0, REGISTER, 0, reserve_keys[0], 0), SCSI_GOOD);
        expect_eq(reserve_held(&key), all ? reserve_types[t] : 0);
        expect_eq(rig_attention(&reserve_rig, 1),
                reserve_types[t] == 5 || reserve_types[t] == 6 ? SENSE(6, 0x2a04) : 0);
        reserve_out(1, REGISTER, 0, reserve_keys[1], 0);
        expect_eq(reserve_held(&key), 0);
        reserve_end();
    }
}

Test(scsi_reserve, clear_ends_all_and_tells_the_others)
{
    uint64_t key;

    reserve_make();
    reserve_asker = 1;
    reserve_join(0);
    reserve_join(1);
    reserve_out(0, RESERVE, 1, reserve_keys[0], 0);
    expect_eq(reserve_out(2, CLEAR, 0, 0, 0), SCSI_RESERVATION_CONFLICT);
    expect_eq(reserve_out(1, CLEAR, 0, reserve_keys[1], 0), SCSI_GOOD);
    expect_eq(reserve_held(&key), 0);
    expect_eq(reserve_key_count(), 0);
    expect_eq(reserve_generation(), 3);
    expect_eq(rig_attention(&reserve_rig, 0), SENSE(6, 0x2a03));
    expect_eq(rig_attention(&reserve_rig, 1), 0);
    expect_eq(rig_attention(&reserve_rig, 2), 0);
    reserve_end();
}

/* -- PREEMPT ------------------------------------------------------------------------- */

Test(scsi_reserve, preempt_takes_the_reservation_over)
{
    uint64_t key;

    for (unsigned t = 0; t < 4; t++) { /* those with one holder */
        reserve_make();
        reserve_asker = 1;
        reserve_join(0);
        reserve_join(1);
        reserve_join(2);
        reserve_out(0, RESERVE, reserve_types[t], reserve_keys[0], 0);
        expect_eq(reserve_out(1, PREEMPT, 3, reserve_keys[1], reserve_keys[0]),
                SCSI_GOOD);
        expect_eq(reserve_held(&key), 3);
        expect_eq(key, reserve_keys[1]);
        expect_eq(reserve_key_count(), 2);
        expect_eq(rig_attention(&reserve_rig, 0), SENSE(6, 0x2a05));
        expect_eq(rig_attention(&reserve_rig, 1), 0);
        expect_eq(rig_attention(&reserve_rig, 2),
                reserve_types[t] >= 5 ? SENSE(6, 0x2a04) : 0);
        expect_eq(reserve_out(0, RESERVE, 3, reserve_keys[0], 0),
                SCSI_RESERVATION_CONFLICT);
        expect_eq(reserve_generation(), 4);
        reserve_end();
    }
}

Test(scsi_reserve, preempt_of_others_only_unregisters_them)
{
    uint64_t key;

    reserve_make();
    reserve_asker = 1;
    reserve_join(0);
    reserve_join(1);
    reserve_join(2);
    reserve_out(0, RESERVE, 5, reserve_keys[0], 0);
    expect_eq(reserve_out(1, PREEMPT, 3, reserve_keys[1], reserve_keys[2]), SCSI_GOOD);
    expect_eq(reserve_held(&key), 5);
    expect_eq(key, reserve_keys[0]);
    expect_eq(reserve_key_count(), 2);
    expect_eq(rig_attention(&reserve_rig, 2), SENSE(6, 0x2a05));
    expect_eq(rig_attention(&reserve_rig, 0), 0);
    expect_eq(reserve_out(1, PREEMPT, 3, reserve_keys[1], 0x9999),
            SCSI_RESERVATION_CONFLICT);
    reserve_out(1, PREEMPT, 3, reserve_keys[1], 0);
    expect_eq(reserve_sense, SENSE(5, 0x2600));
    expect_eq(reserve_out(1, PREEMPT, 3, 0x9999, reserve_keys[0]),
            SCSI_RESERVATION_CONFLICT);
    reserve_out(1, PREEMPT, 2, reserve_keys[1], reserve_keys[0]); /* no such type */
    expect_eq(reserve_sense, SENSE(5, 0x2400));
    expect_eq(reserve_generation(), 4);
    reserve_end();
}

Test(scsi_reserve, preempt_of_an_all_registrants_type)
{
    uint64_t key;

    for (unsigned type = 7; type <= 8; type++) {
        reserve_make();
        reserve_asker = 1;
        reserve_join(0);
        reserve_join(1);
        reserve_join(2);
        reserve_out(0, RESERVE, type, reserve_keys[0], 0);
        expect_eq(reserve_out(1, PREEMPT, 1, reserve_keys[1], reserve_keys[2]),
                SCSI_GOOD);
        expect_eq(reserve_held(&key), type); /* only unregistered */
        expect_eq(rig_attention(&reserve_rig, 2), SENSE(6, 0x2a05));
        expect_eq(reserve_out(1, PREEMPT, 1, reserve_keys[1], 0), SCSI_GOOD);
        expect_eq(reserve_held(&key), 1);
        expect_eq(key, reserve_keys[1]);
        expect_eq(reserve_key_count(), 1);
        expect_eq(rig_attention(&reserve_rig, 0), SENSE(6, 0x2a05));
        reserve_end();
    }
}

Test(scsi_reserve, the_last_registrant_may_put_himself_out)
{
    uint64_t key;

    reserve_make();
    reserve_asker = 2;
    reserve_out(0, IGNORE, 0, 0, 0x77);
    reserve_out(1, IGNORE, 0, 0, 0x77);
    reserve_out(0, RESERVE, 7, 0x77, 0);
    expect_eq(reserve_out(0, PREEMPT, 7, 0x77, 0x77), SCSI_GOOD);
    expect_eq(reserve_held(&key), 0);
    expect_eq(reserve_key_count(), 0);
    expect_eq(rig_attention(&reserve_rig, 0), 0);
    expect_eq(rig_attention(&reserve_rig, 1), SENSE(6, 0x2a05));
    reserve_end();
}

Test(scsi_reserve, preempt_and_abort_ends_the_commands_first)
{
    struct rig_task victim, bystander, own, preempt;
    uint8_t list[24], data[512] = { 0 };
    const uint8_t write[10] = { 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0 };

    reserve_make();
    reserve_join(0);
    reserve_join(1);
    reserve_join(2);
    reserve_out(0, RESERVE, 5, reserve_keys[0], 0);
    struct rig_task *tasks[] = { &victim, &bystander, &own };
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned nexus[] = { 0, 2, 1 };
        rig_command(&reserve_rig, tasks[i], nexus[i], write, 10);
        rig_out(tasks[i], data, 512);
        tasks[i]->hold_want = true;
        rig_submit(tasks[i]);
    }
    reserve_out_task(
            &preempt, list, 1, PREEMPT_ABORT, 5, reserve_keys[1], reserve_keys[0], 0);
    expect_eq(rig_run(&preempt), SCSI_GOOD);
    expect(victim.done && victim.task.aborted);
    expect(!bystander.done && !own.done);
    rig_answer_want(&bystander);
    rig_answer_want(&own);
    expect(rig_wait(&bystander) && rig_wait(&own));
    expect_eq(bystander.task.status, SCSI_GOOD);
    expect_eq(rig_attention(&reserve_rig, 0), SENSE(6, 0x2a05));
    reserve_end();
}

/* -- status and capabilities --------------------------------------------------------- */

Test(scsi_reserve, full_status_names_every_registrant)
{
    static const char name[] = "iqn.2026-11.test:host0,i,0x800000000000";
    unsigned at = 8, holders = 0, count = 0;

    reserve_make();
    reserve_join(0);
    reserve_join(1);
    reserve_out(0, RESERVE, 6, reserve_keys[0], 0);
    reserve_in(2, 3);
    expect_eq(reserve_received, 8 + be32_get(reserve_answer + 4));
    expect(memcmp(reserve_answer + 8 + 24 + 4, name, sizeof name) == 0);
    for (; at < reserve_received;
            at += 24 + be32_get(reserve_answer + at + 20), count++) {
        expect_eq(be64_get(reserve_answer + at), reserve_keys[count]);
        expect_eq(be16_get(reserve_answer + at + 18), 1);
        expect_eq(reserve_answer[at + 24], 0x45);
        expect_eq(be16_get(reserve_answer + at + 26) % 4, 0);
        holders += reserve_answer[at + 12] & 1;
        expect_eq(reserve_answer[at + 13], reserve_answer[at + 12] & 1 ? 6 : 0);
    }
    expect_eq(count, 2);
    expect_eq(holders, 1);
    reserve_in(0, 2);
    expect_eq(reserve_received, 8);
    expect_eq(be16_get(reserve_answer), 8);
    expect_eq(reserve_answer[2], 0x05);
    expect_eq(reserve_answer[3], 0x80);
    expect_eq(be16_get(reserve_answer + 4), 0xea01);
    reserve_end();
}

/* -- RESERVE(6) ---------------------------------------------------------------------- */

static enum scsi_status six(unsigned nexus, uint8_t opcode)
{
    return rig_simple(&reserve_rig, nexus, &reserve_sense, CDB(opcode, 0, 0, 0, 0, 0));
}

Test(scsi_reserve, reserve_6_keeps_the_others_out)
{
    static const uint8_t free_ones[] = { 0x03, 0x12, 0x17, 0x1b, 0x25, 0xa0 };

    reserve_make();
    expect_eq(six(0, 0x16), SCSI_GOOD);
    expect_eq(six(0, 0x16), SCSI_GOOD);
    for (unsigned row = 0; row < ACCESSES; row++) {
        bool open = memchr(free_ones, accesses[row].opcode, sizeof free_ones) ||
                (accesses[row].opcode == 0x9e && accesses[row].action == 0x10);
        cr_assert(conflicts(1, row) == !open, "%02x", accesses[row].opcode);
        if (accesses[row].opcode != 0x17 && accesses[row].opcode != 0x5e)
            cr_assert(!conflicts(0, row), "%02x", accesses[row].opcode);
    }
    expect_eq(reserve_out(0, REGISTER, 0, 0, 5), SCSI_RESERVATION_CONFLICT);
    expect_eq(six(1, 0x17), SCSI_GOOD); /* not his to release */
    expect_eq(six(1, 0x16), SCSI_RESERVATION_CONFLICT);
    expect_eq(six(0, 0x17), SCSI_GOOD);
    expect_eq(six(1, 0x16), SCSI_GOOD);
    rig_simple(&reserve_rig, 1, &reserve_sense, CDB(0x16, 0x10, 0, 0, 0, 0));
    expect_eq(reserve_sense, SENSE(5, 0x2400));
    reserve_end();
}

Test(scsi_reserve, reserve_6_goes_with_its_session_or_a_reset)
{
    reserve_make();
    six(0, 0x16);
    scsi_nexus_close(&reserve_rig.nexus[0]);
    expect_eq(six(1, 0x16), SCSI_GOOD);
    rig_reset(&reserve_rig, 2, SCSI_LOGICAL_UNIT_RESET);
    expect_eq(rig_attention(&reserve_rig, 1), SENSE(6, 0x2903));
    expect_eq(rig_attention(&reserve_rig, 2), SENSE(6, 0x2903));
    expect_eq(six(2, 0x16), SCSI_GOOD);
    reserve_end();
}

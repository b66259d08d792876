/* Reservations: who may do what under which type, who hears of what, and what outlives a
 * restart. Session 0 holds, 1 is registered, 2 is a stranger. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/server/iscsi/scsi_rig.h"
#include "tests/support/expect.h"

enum { HOLDER, REGISTRANT, STRANGER };
enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_ABORT, IGNORE };

static const uint64_t keys[] = { 0x1000, 0x2000, 0x3000 };
static const uint8_t types[] = { 1, 3, 5, 6, 7, 8 };

static struct rig rig;
static uint32_t sense, received;
static unsigned asker; /* whose PERSISTENT RESERVE IN it is: one without attentions */
static uint8_t answer[BUFFER_LARGE];

static void make(void)
{
    rig_make(&rig, &(struct rig_options){ .seed = 1 });
}

static void end(void)
{
    rig_release(&rig);
}

static void out_task(struct rig_task *task, uint8_t list[24], unsigned nexus,
        unsigned action, unsigned type, uint64_t key, uint64_t action_key,
        uint8_t flags)
{
    uint8_t cdb[10] = { 0x5f, (uint8_t)action, (uint8_t)type, 0, 0, 0, 0, 0, 24, 0 };

    memset(list, 0, 24);
    be64_put(list, key);
    be64_put(list + 8, action_key);
    list[20] = flags;
    rig_command(&rig, task, nexus, cdb, sizeof cdb);
    rig_out(task, list, 24);
}

static enum scsi_status out(unsigned nexus, unsigned action, unsigned type,
        uint64_t key, uint64_t action_key)
{
    struct rig_task task;
    uint8_t list[24];
    enum scsi_status status;

    out_task(&task, list, nexus, action, type, key, action_key, 0);
    status = rig_run(&task);
    sense = rig_sense(&task);
    return status;
}

static enum scsi_status join(unsigned nexus)
{
    return out(nexus, REGISTER, 0, 0, keys[nexus]);
}

static void in(unsigned nexus, unsigned action)
{
    memset(answer, 0xee, sizeof answer);
    expect_eq(rig_get(&rig, nexus, &sense, answer, 0xffff, &received,
                      CDB(0x5e, (uint8_t)action, 0, 0, 0, 0, 0, 0xff, 0xff, 0)),
            SCSI_GOOD);
}

static uint32_t generation(void)
{
    in(asker, 0);
    return be32_get(answer);
}

static unsigned key_count(void)
{
    in(asker, 0);
    expect_eq(received, 8 + be32_get(answer + 4));
    return be32_get(answer + 4) / 8;
}

/* The type that is held, 0 none; @key as it is told. */
static unsigned held(uint64_t *key)
{
    in(asker, 1);
    if (be32_get(answer + 4) == 0)
        return 0;
    expect_eq(be32_get(answer + 4), 16);
    *key = be64_get(answer + 8);
    return answer[21];
}

/* -- registrations ------------------------------------------------------------------- */

Test(scsi_reserve, register_asks_for_the_present_key)
{
    make();
    expect_eq(out(0, REGISTER, 0, 77, 5), SCSI_RESERVATION_CONFLICT);
    expect_eq(out(0, REGISTER, 0, 0, 0), SCSI_GOOD);
    expect_eq(generation(), 0);
    expect_eq(out(0, REGISTER, 0, 0, 5), SCSI_GOOD);
    expect_eq(generation(), 1);
    expect_eq(out(0, REGISTER, 0, 0, 6), SCSI_RESERVATION_CONFLICT);
    expect_eq(out(0, REGISTER, 0, 5, 6), SCSI_GOOD);
    expect_eq(out(0, IGNORE, 0, 99, 7), SCSI_GOOD);
    expect_eq(generation(), 3);
    expect_eq(key_count(), 1);
    expect_eq(be64_get(answer + 8), 7);
    expect_eq(out(1, IGNORE, 0, 0, 7), SCSI_GOOD); /* keys may be equal */
    expect_eq(key_count(), 2);
    expect_eq(out(0, REGISTER, 0, 7, 0), SCSI_GOOD);
    expect_eq(out(1, IGNORE, 0, 0, 0), SCSI_GOOD);
    expect_eq(key_count(), 0);
    expect_eq(rig.keeps, 0);
    end();
}

Test(scsi_reserve, what_is_not_served_is_refused)
{
    uint8_t list[24] = { 0 };

    make();
    join(0);
    for (unsigned action = 7; action < 32; action++) {
        out(0, action, 1, keys[0], 0);
        expect_eq(sense, SENSE(5, 0x2400));
    }
    for (unsigned action = 4; action < 32; action++) {
        rig_get(&rig, 0, &sense, answer, 255, NULL,
                CDB(0x5e, (uint8_t)action, 0, 0, 0, 0, 0, 0, 255, 0));
        expect_eq(sense, SENSE(5, 0x2400));
    }
    for (unsigned type = 0; type < 256; type++) {
        bool good = memchr(types, (int)type, sizeof types) != NULL;
        if (good)
            continue;
        out(0, RESERVE, type, keys[0], 0);
        expect_eq(sense, SENSE(5, 0x2400));
    }
    list[20] = 0x08; /* SPEC_I_PT */
    be64_put(list, keys[0]);
    rig_put(&rig, 0, &sense, list, 24, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0));
    expect_eq(sense, SENSE(5, 0x2600));
    rig_put(&rig, 0, &sense, list, 23, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0));
    expect_eq(sense, SENSE(5, 0x1a00));
    rig_put(&rig, 0, &sense, list, 24, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 25, 0));
    expect_eq(sense, SENSE(5, 0x1a00));
    expect_eq(key_count(), 1);
    end();
}

Test(scsi_reserve, the_table_of_registrants_is_finite)
{
    make();
    for (unsigned i = 0; i < REGISTRANTS_MOST; i++) {
        snprintf(rig.nexus[0].initiator, SCSI_NAME_MAX, "iqn.2026-11.test:%0200u", i);
        expect_eq(out(0, IGNORE, 0, 0, i + 1), SCSI_GOOD);
    }
    out(1, REGISTER, 0, 0, 5);
    expect_eq(sense, SENSE(5, 0x5504));
    expect_eq(key_count(), REGISTRANTS_MOST);
    in(0, 3);
    expect(received > 16384); /* all of it fits its buffer */
    expect_eq(received, 8 + be32_get(answer + 4));
    end();
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

    return rig_simple(&rig, nexus, &sense, cdb, sizeof cdb) ==
            SCSI_RESERVATION_CONFLICT;
}

Test(scsi_reserve, every_type_lets_in_whom_it_should)
{
    unsigned rows = 0;

    for (unsigned i = 0; i < scsi_opcode_count; i++)
        rows += scsi_opcodes[i].opcode != 0x5f;
    expect_eq(rows, ACCESSES); /* no command is left out */
    for (unsigned t = 0; t < sizeof types; t++) {
        bool reads = types[t] == 1 || types[t] == 5 || types[t] == 7;
        bool shares = types[t] >= 5;
        make();
        join(HOLDER);
        join(REGISTRANT);
        expect_eq(out(HOLDER, RESERVE, types[t], keys[HOLDER], 0), SCSI_GOOD);
        for (unsigned row = 0; row < ACCESSES; row++) {
            char who = accesses[row].who;
            bool closed = who == 'W' || (who == 'R' && !reads);
            if (who == 'O') {
                for (unsigned n = 0; n < 3; n++)
                    expect(conflicts(n, row)); /* beside registrations */
                continue;
            }
            cr_assert(!conflicts(HOLDER, row), "type %u %02x holder", types[t],
                    accesses[row].opcode);
            cr_assert(conflicts(REGISTRANT, row) == (closed && !shares),
                    "type %u %02x registrant", types[t], accesses[row].opcode);
            cr_assert(conflicts(STRANGER, row) == closed, "type %u %02x stranger",
                    types[t], accesses[row].opcode);
        }
        end();
    }
}

Test(scsi_reserve, the_type_and_key_are_told)
{
    uint64_t key = 0;

    for (unsigned t = 0; t < sizeof types; t++) {
        make();
        join(0);
        join(1);
        expect_eq(held(&key), 0);
        expect_eq(out(0, RESERVE, types[t], keys[0], 0), SCSI_GOOD);
        expect_eq(held(&key), types[t]);
        expect_eq(key, types[t] >= 7 ? 0 : keys[0]);
        expect_eq(out(0, RESERVE, types[t], keys[0], 0), SCSI_GOOD); /* again */
        expect_eq(out(0, RESERVE, types[t], 99, 0), SCSI_RESERVATION_CONFLICT);
        expect_eq(out(1, RESERVE, types[t], keys[1], 0),
                types[t] >= 7 ? SCSI_GOOD : SCSI_RESERVATION_CONFLICT);
        expect_eq(out(0, RESERVE, types[t] == 1 ? 3 : 1, keys[0], 0),
                SCSI_RESERVATION_CONFLICT);
        expect_eq(out(2, RESERVE, types[t], 0, 0), SCSI_RESERVATION_CONFLICT);
        expect_eq(generation(), 2); /* RESERVE does not count */
        end();
    }
}

Test(scsi_reserve, release_is_for_the_holder_and_heard_by_those_who_shared)
{
    uint64_t key;

    for (unsigned t = 0; t < sizeof types; t++) {
        make();
        join(0);
        join(1);
        out(0, RESERVE, types[t], keys[0], 0);
        expect_eq(out(2, RELEASE, types[t], 0, 0), SCSI_RESERVATION_CONFLICT);
        expect_eq(out(0, RELEASE, types[t], 99, 0), SCSI_RESERVATION_CONFLICT);
        out(0, RELEASE, types[t] == 1 ? 3 : 1, keys[0], 0);
        expect_eq(sense, SENSE(5, 0x2604));
        if (types[t] < 7) { /* not the holder: nothing happens */
            expect_eq(out(1, RELEASE, types[t], keys[1], 0), SCSI_GOOD);
            expect_eq(held(&key), types[t]);
        }
        expect_eq(out(0, RELEASE, types[t], keys[0], 0), SCSI_GOOD);
        expect_eq(held(&key), 0);
        expect_eq(rig_attention(&rig, 0), 0);
        expect_eq(rig_attention(&rig, 1), types[t] >= 5 ? SENSE(6, 0x2a04) : 0);
        expect_eq(rig_attention(&rig, 2), 0);
        expect_eq(out(0, RELEASE, types[t], keys[0], 0), SCSI_GOOD);
        end();
    }
}

Test(scsi_reserve, who_leaves_takes_the_reservation_along)
{
    uint64_t key;

    asker = 2;
    for (unsigned t = 0; t < sizeof types; t++) {
        bool all = types[t] >= 7;
        make();
        join(1); /* the holder is not the first of the list */
        join(0);
        out(0, RESERVE, types[t], keys[0], 0);
        expect_eq(out(1, REGISTER, 0, keys[1], 0), SCSI_GOOD); /* a bystander goes */
        expect_eq(held(&key), types[t]);
        if (!all)
            expect_eq(key, keys[0]);
        join(1);
        expect_eq(out(0, REGISTER, 0, keys[0], 0), SCSI_GOOD);
        expect_eq(held(&key), all ? types[t] : 0);
        expect_eq(rig_attention(&rig, 1),
                types[t] == 5 || types[t] == 6 ? SENSE(6, 0x2a04) : 0);
        out(1, REGISTER, 0, keys[1], 0);
        expect_eq(held(&key), 0);
        end();
    }
}

Test(scsi_reserve, clear_ends_all_and_tells_the_others)
{
    uint64_t key;

    make();
    asker = 1;
    join(0);
    join(1);
    out(0, RESERVE, 1, keys[0], 0);
    expect_eq(out(2, CLEAR, 0, 0, 0), SCSI_RESERVATION_CONFLICT);
    expect_eq(out(1, CLEAR, 0, keys[1], 0), SCSI_GOOD);
    expect_eq(held(&key), 0);
    expect_eq(key_count(), 0);
    expect_eq(generation(), 3);
    expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2a03));
    expect_eq(rig_attention(&rig, 1), 0);
    expect_eq(rig_attention(&rig, 2), 0);
    end();
}

/* -- PREEMPT ------------------------------------------------------------------------- */

Test(scsi_reserve, preempt_takes_the_reservation_over)
{
    uint64_t key;

    for (unsigned t = 0; t < 4; t++) { /* those with one holder */
        make();
        asker = 1;
        join(0);
        join(1);
        join(2);
        out(0, RESERVE, types[t], keys[0], 0);
        expect_eq(out(1, PREEMPT, 3, keys[1], keys[0]), SCSI_GOOD);
        expect_eq(held(&key), 3);
        expect_eq(key, keys[1]);
        expect_eq(key_count(), 2);
        expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2a05));
        expect_eq(rig_attention(&rig, 1), 0);
        expect_eq(rig_attention(&rig, 2), types[t] >= 5 ? SENSE(6, 0x2a04) : 0);
        expect_eq(out(0, RESERVE, 3, keys[0], 0), SCSI_RESERVATION_CONFLICT);
        expect_eq(generation(), 4);
        end();
    }
}

Test(scsi_reserve, preempt_of_others_only_unregisters_them)
{
    uint64_t key;

    make();
    asker = 1;
    join(0);
    join(1);
    join(2);
    out(0, RESERVE, 5, keys[0], 0);
    expect_eq(out(1, PREEMPT, 3, keys[1], keys[2]), SCSI_GOOD);
    expect_eq(held(&key), 5);
    expect_eq(key, keys[0]);
    expect_eq(key_count(), 2);
    expect_eq(rig_attention(&rig, 2), SENSE(6, 0x2a05));
    expect_eq(rig_attention(&rig, 0), 0);
    expect_eq(out(1, PREEMPT, 3, keys[1], 0x9999), SCSI_RESERVATION_CONFLICT);
    out(1, PREEMPT, 3, keys[1], 0);
    expect_eq(sense, SENSE(5, 0x2600));
    expect_eq(out(1, PREEMPT, 3, 0x9999, keys[0]), SCSI_RESERVATION_CONFLICT);
    out(1, PREEMPT, 2, keys[1], keys[0]); /* no such type */
    expect_eq(sense, SENSE(5, 0x2400));
    expect_eq(generation(), 4);
    end();
}

Test(scsi_reserve, preempt_of_an_all_registrants_type)
{
    uint64_t key;

    for (unsigned type = 7; type <= 8; type++) {
        make();
        asker = 1;
        join(0);
        join(1);
        join(2);
        out(0, RESERVE, type, keys[0], 0);
        expect_eq(out(1, PREEMPT, 1, keys[1], keys[2]), SCSI_GOOD);
        expect_eq(held(&key), type); /* only unregistered */
        expect_eq(rig_attention(&rig, 2), SENSE(6, 0x2a05));
        expect_eq(out(1, PREEMPT, 1, keys[1], 0), SCSI_GOOD);
        expect_eq(held(&key), 1);
        expect_eq(key, keys[1]);
        expect_eq(key_count(), 1);
        expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2a05));
        end();
    }
}

Test(scsi_reserve, the_last_registrant_may_put_himself_out)
{
    uint64_t key;

    make();
    asker = 2;
    out(0, IGNORE, 0, 0, 0x77);
    out(1, IGNORE, 0, 0, 0x77);
    out(0, RESERVE, 7, 0x77, 0);
    expect_eq(out(0, PREEMPT, 7, 0x77, 0x77), SCSI_GOOD);
    expect_eq(held(&key), 0);
    expect_eq(key_count(), 0);
    expect_eq(rig_attention(&rig, 0), 0);
    expect_eq(rig_attention(&rig, 1), SENSE(6, 0x2a05));
    end();
}

Test(scsi_reserve, preempt_and_abort_ends_the_commands_first)
{
    struct rig_task victim, bystander, own, preempt;
    uint8_t list[24], data[512] = { 0 };
    const uint8_t write[10] = { 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0 };

    make();
    join(0);
    join(1);
    join(2);
    out(0, RESERVE, 5, keys[0], 0);
    struct rig_task *tasks[] = { &victim, &bystander, &own };
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned nexus[] = { 0, 2, 1 };
        rig_command(&rig, tasks[i], nexus[i], write, 10);
        rig_out(tasks[i], data, 512);
        tasks[i]->hold_want = true;
        rig_submit(tasks[i]);
    }
    out_task(&preempt, list, 1, PREEMPT_ABORT, 5, keys[1], keys[0], 0);
    expect_eq(rig_run(&preempt), SCSI_GOOD);
    expect(victim.done && victim.task.aborted);
    expect(!bystander.done && !own.done);
    rig_answer_want(&bystander);
    rig_answer_want(&own);
    expect(rig_wait(&bystander) && rig_wait(&own));
    expect_eq(bystander.task.status, SCSI_GOOD);
    expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2a05));
    end();
}

/* -- status and capabilities --------------------------------------------------------- */

Test(scsi_reserve, full_status_names_every_registrant)
{
    static const char name[] = "iqn.2026-11.test:host0,i,0x800000000000";
    unsigned at = 8, holders = 0, count = 0;

    make();
    join(0);
    join(1);
    out(0, RESERVE, 6, keys[0], 0);
    in(2, 3);
    expect_eq(received, 8 + be32_get(answer + 4));
    expect(memcmp(answer + 8 + 24 + 4, name, sizeof name) == 0);
    for (; at < received; at += 24 + be32_get(answer + at + 20), count++) {
        expect_eq(be64_get(answer + at), keys[count]);
        expect_eq(be16_get(answer + at + 18), 1);
        expect_eq(answer[at + 24], 0x45);
        expect_eq(be16_get(answer + at + 26) % 4, 0);
        holders += answer[at + 12] & 1;
        expect_eq(answer[at + 13], answer[at + 12] & 1 ? 6 : 0);
    }
    expect_eq(count, 2);
    expect_eq(holders, 1);
    in(0, 2);
    expect_eq(received, 8);
    expect_eq(be16_get(answer), 8);
    expect_eq(answer[2], 0x05);
    expect_eq(answer[3], 0x80);
    expect_eq(be16_get(answer + 4), 0xea01);
    end();
}

/* -- RESERVE(6) ---------------------------------------------------------------------- */

static enum scsi_status six(unsigned nexus, uint8_t opcode)
{
    return rig_simple(&rig, nexus, &sense, CDB(opcode, 0, 0, 0, 0, 0));
}

Test(scsi_reserve, reserve_6_keeps_the_others_out)
{
    static const uint8_t free_ones[] = { 0x03, 0x12, 0x17, 0x1b, 0x25, 0xa0 };

    make();
    expect_eq(six(0, 0x16), SCSI_GOOD);
    expect_eq(six(0, 0x16), SCSI_GOOD);
    for (unsigned row = 0; row < ACCESSES; row++) {
        bool open = memchr(free_ones, accesses[row].opcode, sizeof free_ones) ||
                (accesses[row].opcode == 0x9e && accesses[row].action == 0x10);
        cr_assert(conflicts(1, row) == !open, "%02x", accesses[row].opcode);
        if (accesses[row].opcode != 0x17 && accesses[row].opcode != 0x5e)
            cr_assert(!conflicts(0, row), "%02x", accesses[row].opcode);
    }
    expect_eq(out(0, REGISTER, 0, 0, 5), SCSI_RESERVATION_CONFLICT);
    expect_eq(six(1, 0x17), SCSI_GOOD); /* not his to release */
    expect_eq(six(1, 0x16), SCSI_RESERVATION_CONFLICT);
    expect_eq(six(0, 0x17), SCSI_GOOD);
    expect_eq(six(1, 0x16), SCSI_GOOD);
    rig_simple(&rig, 1, &sense, CDB(0x16, 0x10, 0, 0, 0, 0));
    expect_eq(sense, SENSE(5, 0x2400));
    end();
}

Test(scsi_reserve, reserve_6_goes_with_its_session_or_a_reset)
{
    make();
    six(0, 0x16);
    scsi_nexus_close(&rig.nexus[0]);
    expect_eq(six(1, 0x16), SCSI_GOOD);
    rig_reset(&rig, 2, SCSI_LOGICAL_UNIT_RESET);
    expect_eq(rig_attention(&rig, 1), SENSE(6, 0x2903));
    expect_eq(rig_attention(&rig, 2), SENSE(6, 0x2903));
    expect_eq(six(2, 0x16), SCSI_GOOD);
    end();
}

/* -- over a restart ------------------------------------------------------------------ */

static enum scsi_status register_kept(unsigned nexus, uint64_t key)
{
    struct rig_task task;
    uint8_t list[24];

    out_task(&task, list, nexus, IGNORE, 0, 0, key, 0x01);
    return rig_run(&task);
}

Test(scsi_reserve, what_is_kept_comes_back)
{
    static uint8_t kept[SCSI_KEPT_MAX];
    size_t length;
    uint64_t key;

    for (unsigned t = 0; t < sizeof types; t++) {
        make();
        expect_eq(register_kept(1, keys[1]), SCSI_GOOD);
        expect_eq(register_kept(0, keys[0]), SCSI_GOOD);
        out(0, RESERVE, types[t], keys[0], 0);
        expect_eq(rig.keeps, 3);
        length = rig.kept_length;
        memcpy(kept, rig.kept, length);
        end();
        rig_make(&rig,
                &(struct rig_options){
                        .seed = 2, .kept = kept, .kept_length = length });
        expect_eq(held(&key), types[t]);
        expect_eq(key, types[t] >= 7 ? 0 : keys[0]);
        expect_eq(key_count(), 2);
        expect_eq(conflicts(0, 12), false); /* WRITE(10) */
        expect_eq(conflicts(1, 12), types[t] < 5);
        expect_eq(conflicts(2, 12), true);
        in(0, 2);
        expect_eq(answer[3], 0x81); /* PTPL_A */
        expect_eq(out(0, RELEASE, types[t], keys[0], 0), SCSI_GOOD);
        expect_eq(rig.keeps, 1);
        expect_eq(out(0, REGISTER, 0, keys[0], 0), SCSI_GOOD); /* APTPL 0 now */
        expect_eq(rig.kept_length, 0);
        end();
    }
}

Test(scsi_reserve, good_only_after_it_is_durable)
{
    struct rig_task task, second, reader;
    uint8_t list[24], list2[24];

    make();
    rig.keep_held = true;
    out_task(&task, list, 0, REGISTER, 0, 0, keys[0], 0x01);
    rig_submit(&task);
    out_task(&second, list2, 1, REGISTER, 0, 0, keys[1], 0x01);
    rig_submit(&second);
    rig_settle(&rig);
    expect(!task.done && !second.done);
    expect_eq(rig.keeps, 1);
    expect_eq(key_count(), 0); /* not yet */
    rig_command(&rig, &reader, 2, CDB(0, 0, 0, 0, 0, 0));
    expect_eq(rig_run(&reader), SCSI_GOOD); /* the others go on */
    rig_keep_answer(&rig);
    expect(rig_wait(&task));
    rig_settle(&rig);
    expect_eq(key_count(), 1);
    expect(!second.done);
    expect_eq(rig.keeps, 2);
    rig_keep_answer(&rig);
    expect(rig_wait(&second));
    expect_eq(key_count(), 2);
    end();
}

Test(scsi_reserve, what_cannot_be_kept_is_not_granted)
{
    make();
    rig.keep_result = -EIO;
    expect_eq(register_kept(0, keys[0]), SCSI_CHECK_CONDITION);
    expect_eq(key_count(), 0);
    expect_eq(generation(), 0);
    rig.keep_result = 0;
    expect_eq(register_kept(0, keys[0]), SCSI_GOOD);
    expect_eq(key_count(), 1);
    end();
}

Test(scsi_reserve, an_abort_while_it_is_kept_leaves_it_kept)
{
    struct rig_task task;
    uint8_t list[24];

    make();
    rig.keep_held = true;
    out_task(&task, list, 0, REGISTER, 0, 0, keys[0], 0x01);
    rig_submit(&task);
    rig_settle(&rig);
    scsi_abort(&task.task);
    rig_settle(&rig);
    expect(!task.done); /* the write is under way */
    rig_keep_answer(&rig);
    expect(rig_wait(&task));
    expect(task.task.aborted);
    expect_eq(key_count(), 1); /* as it will be after a restart */
    rig.keep_held = false;
    expect_eq(register_kept(1, keys[1]), SCSI_GOOD); /* and the next may */
    end();
}

Test(scsi_reserve, an_abort_of_whose_turn_it_is_hands_the_turn_on)
{
    struct rig_task tasks[3], *next, *last;
    uint8_t lists[3][24];

    make();
    rig.keep_held = true;
    for (unsigned i = 0; i < 3; i++) {
        out_task(&tasks[i], lists[i], i, REGISTER, 0, 0, keys[i], 0x01);
        rig_submit(&tasks[i]);
    }
    rig_settle(&rig);
    rig_keep_answer(&rig);
    expect(rig_wait(&tasks[0]));
    next = &tasks[tasks[1].task.line ? 2 : 1];
    last = &tasks[tasks[1].task.line ? 1 : 2];
    expect(!next->task.line && !next->done && last->task.line);
    scsi_abort(&next->task);
    rig.keep_held = false;
    expect(rig_wait(next) && rig_wait(last));
    expect(next->task.aborted);
    expect_eq(last->task.status, SCSI_GOOD);
    expect_eq(key_count(), 2);
    end();
}

Test(scsi_reserve, damaged_state_is_not_guessed)
{
    static uint8_t kept[SCSI_KEPT_MAX];
    size_t length;

    make();
    register_kept(0, keys[0]);
    register_kept(1, keys[1]);
    out(0, RESERVE, 5, keys[0], 0);
    length = rig.kept_length;
    memcpy(kept, rig.kept, length);
    end();
    for (size_t at = 0; at < length; at++) {
        kept[at] ^= 0x20;
        rig_make(&rig,
                &(struct rig_options){
                        .seed = 2, .kept = kept, .kept_length = length });
        expect(!rig.unit);
        expect_eq(rig.fault.error, -EILSEQ);
        end();
        kept[at] ^= 0x20;
        rig_make(&rig,
                &(struct rig_options){ .seed = 2, .kept = kept, .kept_length = at });
        expect(at == 0 ? rig.unit != NULL : !rig.unit);
        end();
    }
}

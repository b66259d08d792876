/* A device that fails, breaks, and comes back. */
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
static uint8_t bytes[2 << 20];

static void end(void)
{
    rig_release(&rig);
}

static void fail_once(int op, int error)
{
    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .plan_count = 1,
                    .plans = { { .op = op, .error = error, .times = 1 } } });
}

Test(scsi_failures, device_errors_become_sense)
{
    static const struct {
        int error;
        uint32_t read, write;
    } rows[] = {
        { -EIO, SENSE(3, 0x1100), SENSE(3, 0x0c00) },
        { -ENOSPC, SENSE(7, 0x2707), SENSE(7, 0x2707) },
        { -EROFS, SENSE(7, 0x2700), SENSE(7, 0x2700) },
        { -ETIMEDOUT, SENSE(0xb, 0x2e01), SENSE(0xb, 0x2e01) },
        { -ENOMEM, SENSE(0xb, 0x4400), SENSE(0xb, 0x4400) },
        { -EREMOTEIO, SENSE(4, 0x4400), SENSE(4, 0x4400) },
        { -EBADE, SENSE(4, 0x4400), SENSE(4, 0x4400) },
    };
    struct rig_task task;

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        fail_once(BLOCK_READ, rows[i].error);
        rig_read_task(&rig, &task, 0, 0, 4, bytes);
        expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
        expect_eq(rig_sense(&task), rows[i].read);
        expect_eq(task.task.transfer, 0);
        expect_eq(rig_read(&rig, 0, 0, 4, bytes), SCSI_GOOD);
        end();
        fail_once(BLOCK_WRITE, rows[i].error);
        rig_write_task(&rig, &task, 0, 0, 4, bytes);
        expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
        expect_eq(rig_sense(&task), rows[i].write);
        expect_eq(rig_write(&rig, 0, 0, 4, bytes), SCSI_GOOD);
        end();
    }
}

/* Every command at every request of it that may fail: an error, never GOOD, never a hang. */
Test(scsi_failures, no_failure_is_swallowed)
{
    static const struct {
        uint8_t cdb[16];
        uint32_t in, out;
    } rows[] = {
        { { 0x88, 0x08, [12] = 8 }, 2048 * BLOCK, 0 },
        { { 0x8a, 0, [12] = 8 }, 0, 2048 * BLOCK },
        { { 0x8e, 2, [12] = 8 }, 0, 2048 * BLOCK },
        { { 0x8f, 2, [12] = 8 }, 0, 2048 * BLOCK },
        { { 0x8f, 0, [12] = 8 }, 0, 0 },
        { { 0x8b, 0, [12] = 8 }, 0, 2048 * BLOCK },
        { { 0x89, 0, [13] = 8 }, 0, 16 * BLOCK },
        { { 0x93, 0, [12] = 8 }, 0, BLOCK },
        { { 0x93, 9, [12] = 8 }, 0, 0 },
        { { 0x42, 0, [8] = 24 }, 0, 24 },
        { { 0x91 }, 0, 0 },
        { { 0x9e, 0x12, [13] = 200 }, 200, 0 },
    };
    struct rig_task task;

    for (unsigned r = 0; r < sizeof rows / sizeof *rows; r++)
        for (unsigned after = 0;; after++) {
            rig_make(&rig,
                    &(struct rig_options){ .seed = after,
                            .plan_count = 1,
                            .plans = { { .op = -1,
                                    .error = -EIO,
                                    .after = after + 1,
                                    .times = 1 } } });
            expect_eq(rig_write(&rig, 0, 0, 1, bytes), SCSI_GOOD); /* makes it dirty */
            memset(bytes, 0, BLOCK);
            memset(memory_disk_bytes(rig.disk), 0, 2048 * BLOCK);
            memset(bytes, 0, sizeof bytes);
            if (rows[r].cdb[0] == 0x93)
                bytes[0] = 1;
            if (rows[r].cdb[0] == 0x42) {
                bytes[1] = 22;
                bytes[3] = 16;
                bytes[19] = 9;
            }
            rig_command(&rig, &task, 0, rows[r].cdb, 16);
            if (rows[r].in)
                rig_in(&task, bytes, rows[r].in);
            else
                rig_out(&task, bytes, rows[r].out);
            enum scsi_status status = rig_run(&task);
            bool struck = block_faulty_counts(rig.device).struck > 0;
            cr_assert((status == SCSI_CHECK_CONDITION) == struck, "row %u after %u", r,
                    after);
            end();
            if (!struck) {
                expect(after > 0);
                break;
            }
        }
}

/* -- a device that breaks ------------------------------------------------------------ */

static void lose_once(int op)
{
    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .plan_count = 1,
                    .plans = { { .op = op, .lose = true, .times = 1 } } });
}

Test(scsi_failures, a_lost_device_is_opened_anew_and_commands_wait)
{
    struct rig_task lost, waits;
    static uint8_t data[BLOCK];

    lose_once(BLOCK_READ);
    rig.opens_fail = 3;
    memset(bytes, 'k', BLOCK);
    expect_eq(rig_write(&rig, 0, 3, 1, bytes), SCSI_GOOD);
    rig_read_task(&rig, &lost, 0, 3, 1, data);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&lost), SENSE(2, 0x0401));
    rig_read_task(&rig, &waits, 1, 3, 1, data);
    rig_submit(&waits);
    expect_eq(rig_attention(&rig, 2),
            SENSE(2, 0x0401)); /* TEST UNIT READY does not wait */
    expect(rig_wait(&waits));
    expect_eq(waits.task.status, SCSI_GOOD);
    expect_eq(data[0], 'k');
    expect_eq(rig.opens, 5);
    for (unsigned i = 0; i < RIG_NEXUSES; i++)
        expect_eq(rig_attention(&rig, i),
                SENSE(6, 0x2900)); /* what was not flushed may be gone */
    end();
}

Test(scsi_failures, a_clean_device_comes_back_without_a_word)
{
    static uint8_t data[BLOCK];
    struct rig_task lost;

    lose_once(BLOCK_READ);
    rig_read_task(&rig, &lost, 0, 3, 1, data);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    expect_eq(rig_read(&rig, 0, 3, 1, data), SCSI_GOOD);
    for (unsigned i = 0; i < RIG_NEXUSES; i++)
        expect_eq(rig_attention(&rig, i), 0);
    end();
}

Test(scsi_failures, patience_ends_after_ten_seconds)
{
    struct rig_task lost, waits, later;
    struct instant start;
    uint64_t ms;

    lose_once(BLOCK_READ);
    rig.opens_fail = 1000;
    rig_read_task(&rig, &lost, 0, 3, 1, bytes);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    start = loop_now(rig.loop);
    rig_read_task(&rig, &waits, 1, 3, 1, bytes);
    rig_submit(&waits);
    rig_write_task(&rig, &later, 1, 3, 1, bytes);
    rig_submit(&later);
    expect(rig_wait(&waits) && rig_wait(&later));
    ms = instant_ms_until(start, loop_now(rig.loop)); /* of the simulated clock */
    expect(ms >= 10000 && ms < 10100);
    expect_eq(rig_sense(&waits), SENSE(2, 0x0401));
    expect_eq(rig_sense(&later), SENSE(2, 0x0401));
    rig.opens_fail = 0;
    expect_eq(rig_read(&rig, 0, 3, 1, bytes), SCSI_GOOD);
    end();
}

/* The first flush fails, and what was in the cache of the device is gone. */
static void rig_make_flush_lost(void)
{
    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .plan_count = 1,
                    .plans = { { .op = BLOCK_FLUSH,
                            .error = -EIO,
                            .lose = true,
                            .times = 1 } } });
}

Test(scsi_failures, a_flush_that_failed_is_told_to_all)
{
    rig_make_flush_lost();
    rig_simple(&rig, 0, &sense, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect_eq(sense, SENSE(3, 0x0c00));
    expect_eq(rig_read(&rig, 0, 0, 1, bytes), SCSI_GOOD);
    expect_eq(rig.opens, 2);
    for (unsigned i = 0; i < RIG_NEXUSES; i++)
        expect_eq(rig_attention(&rig, i), SENSE(6, 0x2900));
    end();
}

Test(scsi_failures, a_flush_that_waited_does_not_cover_what_one_before_it_lost)
{
    struct rig_task waits;

    rig_make_flush_lost();
    rig.opens_fail = 3;
    expect_eq(rig_write(&rig, 1, 0, 1, bytes), SCSI_GOOD);
    rig_simple(&rig, 0, &sense, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect_eq(sense, SENSE(3, 0x0c00));
    rig_command(&rig, &waits, 1, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    rig_submit(&waits);
    expect(rig_wait(&waits));
    expect_eq(rig.opens, 5);
    expect_eq(rig_sense(&waits), SENSE(3, 0x0c00));
    expect_eq(rig_attention(&rig, 1), SENSE(6, 0x2900));
    expect_eq(rig_write(&rig, 1, 0, 1, bytes), SCSI_GOOD);
    expect_eq(rig_simple(&rig, 1, &sense, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
            SCSI_GOOD);
    end();
}

Test(scsi_failures, a_flush_waits_for_a_device_that_lost_nothing)
{
    struct rig_task lost, waits;

    lose_once(BLOCK_READ);
    rig.opens_fail = 3;
    expect_eq(rig_write(&rig, 1, 0, 1, bytes), SCSI_GOOD);
    rig_read_task(&rig, &lost, 0, 3, 1, bytes);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    rig_command(&rig, &waits, 1, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect_eq(rig_run(&waits), SCSI_GOOD);
    end();
}

/* A read that hears of a reset of the device, or a write, gives it up for all that was cached:
   told to no flush, it is lost nevertheless. */
Test(scsi_failures, a_flush_that_waited_does_not_cover_what_a_reset_took)
{
    for (unsigned dirty = 0; dirty < 2; dirty++) {
        struct rig_task lost, waits;
        rig_make(&rig,
                &(struct rig_options){ .seed = 1,
                        .plan_count = 1,
                        .plans = { { .op = BLOCK_READ,
                                .error = -EIO,
                                .lose = true,
                                .returns = true,
                                .times = 1 } } });
        rig.opens_fail = 3;
        if (dirty)
            expect_eq(rig_write(&rig, 1, 0, 1, bytes), SCSI_GOOD);
        rig_read_task(&rig, &lost, 0, 3, 1, bytes);
        expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
        rig_command(&rig, &waits, 1, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0));
        expect_eq(rig_run(&waits), dirty ? SCSI_CHECK_CONDITION : SCSI_GOOD);
        if (dirty) {
            expect_eq(rig_sense(&waits), SENSE(3, 0x0c00));
            expect_eq(rig_attention(&rig, 1), SENSE(6, 0x2900));
        }
        end();
    }
}

Test(scsi_failures, a_device_of_another_size_is_not_written_blindly)
{
    struct rig_task lost, waits;
    uint8_t capacity[8];

    lose_once(BLOCK_READ);
    rig.reopen_size = 4 << 20;
    rig_read_task(&rig, &lost, 0, 3, 1, bytes);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    rig_write_task(&rig, &waits, 1, 16000, 1, bytes); /* beyond the new end */
    rig_submit(&waits);
    expect(rig_wait(&waits));
    expect_eq(rig_sense(&waits), SENSE(6, 0x2a09));
    expect_eq(rig_attention(&rig, 2), SENSE(6, 0x2a09));
    expect_eq(rig_get(&rig, 2, &sense, capacity, 8, NULL,
                      CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
            SCSI_GOOD);
    expect_eq(be32_get(capacity), 8191);
    end();
}

Test(scsi_failures, a_command_under_way_ends_with_another_size)
{
    struct rig_task lost, waits, under_way;

    lose_once(BLOCK_READ);
    rig.reopen_size = 4 << 20;
    rig_write_task(&rig, &under_way, 1, 16000, 1, bytes); /* beyond the new end */
    under_way.hold_want = true;
    rig_submit(&under_way);
    expect(under_way.wanting);
    rig_read_task(&rig, &lost, 0, 3, 1, bytes);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    rig_read_task(&rig, &waits, 2, 3, 1, bytes);
    expect_eq(rig_run(&waits), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&waits), SENSE(6, 0x2a09));
    rig_answer_want(&under_way);
    expect(rig_wait(&under_way));
    expect_eq(rig_sense(&under_way), SENSE(6, 0x2a09));
    expect_eq(rig_attention(&rig, 1), SENSE(6, 0x2a09));
    end();
}

Test(scsi_failures, aborts_and_the_end_while_the_device_is_away)
{
    struct rig_task lost, waits;

    lose_once(BLOCK_READ);
    rig.opens_fail = 1000;
    rig_read_task(&rig, &lost, 0, 3, 1, bytes);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    rig_write_task(&rig, &waits, 1, 3, 1, bytes);
    rig_submit(&waits);
    rig_settle(&rig);
    scsi_abort(&waits.task);
    rig_settle(&rig);
    expect(waits.done && waits.task.aborted);
    end(); /* while it is being opened again */
}

Test(scsi_failures, many_in_flight_when_the_device_breaks)
{
    static struct rig_task tasks[32];
    static uint8_t data[32][BLOCK];
    uint64_t seed = seed_take("breaks");
    unsigned good = 0;

    for (unsigned round = 0; round < 100; round++) {
        rig_make(&rig,
                &(struct rig_options){ .seed = seed + round,
                        .plan_count = 1,
                        .plans = { { .op = -1,
                                .lose = true,
                                .after = (unsigned)seed_below(&seed, 30),
                                .times = 1 } } });
        rig.opens_fail = (unsigned)seed_below(&seed, 4);
        for (unsigned i = 0; i < 32; i++) {
            if (i % 2)
                rig_write_task(&rig, &tasks[i], i % 3, i, 1, bytes);
            else
                rig_read_task(&rig, &tasks[i], i % 3, i, 1, data[i]);
            rig_submit(&tasks[i]);
            if (seed_below(&seed, 2))
                (void)loop_turn(rig.loop);
        }
        for (unsigned i = 0; i < 32; i++) {
            expect(tasks[i].done || rig_wait(&tasks[i]));
            good += tasks[i].task.status == SCSI_GOOD;
        }
        end();
    }
    expect(good > 0 && good < 3200);
}

Test(scsi_failures, what_does_not_open_is_told)
{
    rig = (struct rig){ 0 };
    rig_make(&rig, &(struct rig_options){ .seed = 1, .opens_fail = 1 });
    expect(!rig.unit);
    expect_eq(rig.fault.error, -EIO);
    end();
    rig_make(&rig, &(struct rig_options){ .seed = 1, .size = 511, .block_size = 1 });
    expect(!rig.unit); /* not one block */
    expect_eq(rig.fault.error, -EINVAL);
    end();
}

/* -- a flush beside a write ---------------------------------------------------------- */

static const uint8_t flush_cdb[10] = { 0x35 };

/* A write is answered after a flush that it came before; the device breaks when it is read
   (@after reads). */
static void write_beside_flush(struct rig_task *write, bool flush_is_slow)
{
    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .plan_count = 3,
                    .plans = { { .op = BLOCK_WRITE, .delay_ms = 500, .times = 1 },
                            { .op = BLOCK_FLUSH,
                                    .delay_ms = flush_is_slow ? 5000 : 0,
                                    .times = 1 },
                            { .op = BLOCK_READ, .lose = true, .times = 1 } } });
    rig_write_task(&rig, write, 0, 3, 1, bytes);
    rig_submit(write);
    rig_settle(&rig);
    expect_eq(rig_write(&rig, 1, 20, 1, bytes), SCSI_GOOD); /* one that is covered */
    expect(!write->done);
}

static void break_and_return(void)
{
    static uint8_t data[BLOCK];
    struct rig_task lost;

    rig_read_task(&rig, &lost, 0, 9, 1, data);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    expect_eq(rig_read(&rig, 0, 9, 1, data), SCSI_GOOD);
}

/* The write ends after the flush, or before it. */
static void not_covered(bool flush_is_slow)
{
    struct rig_task write, flush;

    write_beside_flush(&write, flush_is_slow);
    rig_command(&rig, &flush, 1, flush_cdb, sizeof flush_cdb);
    rig_out(&flush, bytes, 0);
    rig_submit(&flush);
    expect(rig_wait(flush_is_slow ? &write : &flush));
    expect(!(flush_is_slow ? &flush : &write)->done);
    expect(rig_wait(&write) && rig_wait(&flush));
    expect_eq(write.task.status, SCSI_GOOD);
    expect_eq(flush.task.status, SCSI_GOOD);
    break_and_return();
    expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2900));
    end();
}

Test(scsi_failures, a_flush_does_not_cover_a_write_beside_it)
{
    not_covered(false);
    not_covered(true);
}

Test(scsi_failures, a_flush_covers_a_write_before_it)
{
    struct rig_task write;

    write_beside_flush(&write, false);
    expect(rig_wait(&write));
    rig_simple(&rig, 1, &sense, flush_cdb, sizeof flush_cdb);
    expect_eq(sense, 0);
    break_and_return();
    expect_eq(rig_attention(&rig, 0), 0);
    end();
}

/* Until a flush has ended, nothing is stable: READ with FUA brings one of its own. */
Test(scsi_failures, fua_does_not_trust_a_flush_in_flight)
{
    static uint8_t data[BLOCK];
    struct rig_task write, flush, read;
    uint64_t before;

    write_beside_flush(&write, true);
    expect(rig_wait(&write));
    rig_command(&rig, &flush, 1, flush_cdb, sizeof flush_cdb);
    rig_out(&flush, bytes, 0);
    rig_submit(&flush);
    rig_settle(&rig);
    before = block_faulty_counts(rig.device).seen[BLOCK_FLUSH];
    rig_read_task(&rig, &read, 0, 3, 1, data);
    read.task.cdb[1] |= 0x08;
    rig_submit(&read);
    rig_settle(&rig);
    expect(!flush.done);
    expect_eq(block_faulty_counts(rig.device).seen[BLOCK_FLUSH], before + 1);
    expect(rig_wait(&flush));
    (void)rig_wait(&read);
    end();
}

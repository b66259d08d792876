/* The task set: order, abort and reset with commands in flight, buffers that are short, and a
 * device that fails, breaks and comes back. */
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

static void make(void)
{
    rig_make(&rig, &(struct rig_options){ .seed = 1 });
}

static void end(void)
{
    rig_release(&rig);
}

static void write_task(
        struct rig_task *task, unsigned nexus, uint64_t lba, uint32_t blocks)
{
    uint8_t cdb[16];

    rig_lba16(cdb, 0x8a, lba, blocks);
    rig_command(&rig, task, nexus, cdb, 16);
    rig_out(task, bytes, blocks * BLOCK);
}

static void read_task(struct rig_task *task, unsigned nexus, uint64_t lba,
        uint32_t blocks, uint8_t *to)
{
    uint8_t cdb[16];

    rig_lba16(cdb, 0x88, lba, blocks);
    rig_command(&rig, task, nexus, cdb, 16);
    rig_in(task, to, blocks * BLOCK);
}

static void ready_task(struct rig_task *task, unsigned nexus, enum scsi_attribute how)
{
    rig_command(&rig, task, nexus, CDB(0, 0, 0, 0, 0, 0));
    task->task.attribute = how;
}

static uint32_t attention(unsigned nexus)
{
    rig_simple(&rig, nexus, &sense, CDB(0, 0, 0, 0, 0, 0));
    return sense;
}

/* -- order --------------------------------------------------------------------------- */

Test(scsi_tasks, ordered_waits_for_the_older_and_holds_the_younger)
{
    struct rig_task first, second, ordered, third, head;

    make();
    write_task(&first, 0, 0, 1);
    first.hold_want = true;
    rig_submit(&first);
    write_task(&second, 1, 1, 1);
    second.hold_want = true;
    rig_submit(&second);
    ready_task(&ordered, 0, SCSI_ORDERED);
    rig_submit(&ordered);
    ready_task(&third, 1, SCSI_SIMPLE);
    rig_submit(&third);
    ready_task(&head, 2, SCSI_HEAD_OF_QUEUE);
    rig_submit(&head);
    rig_settle(&rig);
    expect(head.done && !ordered.done && !third.done);
    expect(first.wanting && second.wanting);
    rig_answer_want(&first);
    rig_settle(&rig);
    expect(first.done && !ordered.done && !third.done);
    rig_answer_want(&second);
    rig_settle(&rig);
    expect(ordered.done && third.done);
    end();
}

Test(scsi_tasks, a_head_of_queue_task_holds_the_younger)
{
    struct rig_task head, simple, untagged;

    make();
    write_task(&head, 0, 0, 1);
    head.task.attribute = SCSI_HEAD_OF_QUEUE;
    head.hold_want = true;
    rig_submit(&head);
    ready_task(&simple, 1, SCSI_SIMPLE);
    rig_submit(&simple);
    ready_task(&untagged, 2, SCSI_UNTAGGED);
    rig_submit(&untagged);
    rig_settle(&rig);
    expect(!simple.done && !untagged.done);
    rig_answer_want(&head);
    expect(rig_wait(&simple) && rig_wait(&untagged));
    end();
}

Test(scsi_tasks, an_aborted_ordered_task_lets_the_others_go)
{
    struct rig_task first, ordered, simple;

    make();
    write_task(&first, 0, 0, 1);
    first.hold_want = true;
    rig_submit(&first);
    ready_task(&ordered, 0, SCSI_ORDERED);
    rig_submit(&ordered);
    ready_task(&simple, 1, SCSI_SIMPLE);
    rig_submit(&simple);
    scsi_abort(&ordered.task);
    expect(!ordered.done); /* never from inside */
    rig_settle(&rig);
    expect(ordered.task.aborted && simple.done && !first.done);
    rig_answer_want(&first);
    expect(rig_wait(&first));
    end();
}

Test(scsi_tasks, aca_is_refused)
{
    struct rig_task task;

    make();
    ready_task(&task, 0, SCSI_ACA);
    expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&task), SENSE(5, 0x4900));
    end();
}

/* -- abort --------------------------------------------------------------------------- */

Test(scsi_tasks, an_abort_ends_a_wait_for_data)
{
    struct rig_task task;

    make();
    write_task(&task, 0, 0, 1);
    task.hold_want = true;
    rig_submit(&task);
    expect(task.wanting);
    scsi_abort(&task.task);
    scsi_abort(&task.task);
    expect(rig_wait(&task));
    expect(task.task.aborted);
    expect_eq(memory_disk_writes(rig.disk), 0);
    end();
}

Test(scsi_tasks, data_that_comes_after_an_abort_is_given_back)
{
    struct rig_task task;

    make();
    write_task(&task, 0, 0, 1);
    task.hold_want = true;
    rig_submit(&task);
    scsi_abort(&task.task);
    rig_answer_want(&task);
    expect(rig_wait(&task));
    expect_eq(memory_disk_writes(rig.disk), 0);
    end();
}

Test(scsi_tasks, data_that_never_comes_ends_the_command)
{
    struct rig_task task;

    make();
    write_task(&task, 0, 0, 1);
    task.lose_want = true;
    expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&task), SENSE(0xb, 0x4705));
    end();
}

Test(scsi_tasks, an_abort_waits_for_what_is_being_sent)
{
    struct rig_task task;

    make();
    read_task(&task, 0, 0, 1024, bytes);
    task.hold_data = true;
    rig_submit(&task);
    rig_settle(&rig);
    expect(task.sending);
    scsi_abort(&task.task);
    rig_settle(&rig);
    expect(!task.done);
    rig_answer_data(&task);
    expect(rig_wait(&task));
    expect(task.task.aborted);
    end();
}

Test(scsi_tasks, an_abort_waits_for_the_device)
{
    struct rig_task task;

    make();
    write_task(&task, 0, 0, 1);
    rig_submit(&task);
    while (!rig.device->in_flight)
        expect(loop_turn(rig.loop));
    scsi_abort(&task.task);
    expect(!task.done);
    expect(rig_wait(&task));
    expect_eq(rig.device->in_flight, 0);
    expect(task.task.aborted);
    end();
}

Test(scsi_tasks, an_abort_ends_a_wait_for_a_buffer)
{
    struct rig_task first, second, third;

    rig_make(&rig, &(struct rig_options){ .seed = 1, .buffers = BUFFER_LARGE });
    read_task(&first, 0, 0, 1024, bytes);
    first.hold_data = true;
    rig_submit(&first);
    rig_settle(&rig);
    read_task(&second, 1, 0, 512, bytes);
    rig_submit(&second);
    read_task(&third, 1, 0, 16, bytes);
    rig_submit(&third);
    rig_settle(&rig);
    expect(!second.done && !third.done);
    scsi_abort(&second.task);
    expect(rig_wait(&second));
    expect(!third.done);
    first.hold_data = false;
    rig_answer_data(&first);
    expect(rig_wait(&first) && rig_wait(&third));
    expect_eq(third.task.status, SCSI_GOOD);
    end();
}

/* Whatever is aborted at whatever step: each ends once, nothing is kept. */
Test(scsi_tasks, aborts_at_every_step)
{
    static const uint8_t opcodes[] = { 0x88, 0x8a, 0x8e, 0x8f, 0x89, 0x8b, 0x93, 0x42,
        0x91, 0x5f, 0x9e };
    uint64_t seed = seed_take("aborts");
    static struct rig_task tasks[24];
    static uint8_t data[24][256 * BLOCK * 2];

    for (unsigned round = 0; round < 300; round++) {
        rig_make(&rig,
                &(struct rig_options){ .seed = seed + round, .buffers = 1 << 20 });
        for (unsigned i = 0; i < 24; i++) {
            uint8_t cdb[16], opcode = opcodes[seed_below(&seed, sizeof opcodes)];
            uint32_t blocks = (uint32_t)(1 + seed_below(&seed, 200));
            uint32_t length = blocks * BLOCK;
            rig_lba16(cdb, opcode, seed_below(&seed, 100), blocks);
            if (opcode == 0x8e || opcode == 0x8f)
                cdb[1] = 0x02;
            if (opcode == 0x89) {
                cdb[13] = (uint8_t)blocks;
                length *= 2;
            }
            if (opcode == 0x93)
                length = BLOCK;
            if (opcode == 0x42 || opcode == 0x5f) {
                memset(cdb + 1, 0, 15);
                memset(data[i], 0, 24);
                cdb[1] = opcode == 0x5f ? 6 : 0;
                cdb[8] = length = 24;
                data[i][1] = 22;
                data[i][3] = 16;
                data[i][19] = 200;
                data[i][15] = opcode == 0x5f;
            }
            if (opcode == 0x9e)
                cdb[1] = 0x12;
            rig_command(&rig, &tasks[i], i % RIG_NEXUSES, cdb, 16);
            if (opcode == 0x88 || opcode == 0x9e)
                rig_in(&tasks[i], data[i], length);
            else if (opcode != 0x91)
                rig_out(&tasks[i], data[i], length);
            tasks[i].task.attribute = seed_below(&seed, 8) ? SCSI_SIMPLE : SCSI_ORDERED;
            rig_submit(&tasks[i]);
            for (uint64_t n = seed_below(&seed, 4); n > 0; n--)
                (void)loop_turn(rig.loop);
            if (seed_below(&seed, 3) == 0) {
                struct rig_task *victim = &tasks[seed_below(&seed, i + 1)];
                if (!victim->done)
                    scsi_abort(&victim->task);
            }
        }
        if (round % 3 == 0)
            rig_reset(&rig, round % RIG_NEXUSES, (enum scsi_reset)(round % 4));
        for (unsigned i = 0; i < 24; i++) {
            expect(tasks[i].done || rig_wait(&tasks[i]));
            expect_eq(tasks[i].dones, 1);
        }
        expect_eq(rig.unit->figures.queued, 0);
        expect_eq(rig.unit->ordered + rig.unit->heads + rig.unit->blocked, 0);
        expect(!rig.unit->locks && !rig.unit->scratch_taken && !rig.unit->registering);
        end();
    }
}

/* -- resets -------------------------------------------------------------------------- */

static void held_writes(struct rig_task tasks[RIG_NEXUSES])
{
    for (unsigned i = 0; i < RIG_NEXUSES; i++) {
        write_task(&tasks[i], i, i, 1);
        tasks[i].hold_want = true;
        rig_submit(&tasks[i]);
    }
}

Test(scsi_tasks, resets_end_whom_they_should_and_tell_the_others)
{
    static const struct {
        enum scsi_reset what;
        bool others;
        uint32_t hear;
    } rows[] = {
        { SCSI_ABORT_TASK_SET, false, 0 },
        { SCSI_CLEAR_TASK_SET, true, SENSE(6, 0x2f00) },
        { SCSI_LOGICAL_UNIT_RESET, true, SENSE(6, 0x2903) },
        { SCSI_TARGET_WARM_RESET, true, SENSE(6, 0x2902) },
    };
    struct rig_task tasks[RIG_NEXUSES];

    for (unsigned r = 0; r < sizeof rows / sizeof *rows; r++) {
        make();
        held_writes(tasks);
        rig_reset(&rig, 1, rows[r].what);
        for (unsigned i = 0; i < RIG_NEXUSES; i++) {
            bool ended = i == 1 || rows[r].others;
            expect_eq(tasks[i].done, ended);
            if (!ended) {
                rig_answer_want(&tasks[i]);
                expect(rig_wait(&tasks[i]));
                expect_eq(tasks[i].task.status, SCSI_GOOD);
            } else {
                expect(tasks[i].task.aborted);
            }
        }
        for (unsigned i = 0; i < RIG_NEXUSES; i++)
            expect_eq(attention(i), i == 1 && r < 2 ? 0 : rows[r].hear);
        end();
    }
}

Test(scsi_tasks, a_clear_tells_only_those_who_lost_something)
{
    struct rig_task task;

    make();
    write_task(&task, 0, 0, 1);
    task.hold_want = true;
    rig_submit(&task);
    rig_reset(&rig, 1, SCSI_CLEAR_TASK_SET);
    expect(task.done);
    expect_eq(attention(0), SENSE(6, 0x2f00));
    expect_eq(attention(2), 0);
    end();
}

static void finished_nothing(struct scsi_reset_wait *wait)
{
    (void)wait;
}

Test(scsi_tasks, a_reset_waits_for_the_device_and_not_for_later_commands)
{
    struct rig_task old, young;
    struct scsi_reset_wait wait = { .finished = finished_nothing };

    make();
    write_task(&old, 0, 0, 1);
    rig_submit(&old);
    while (!rig.device->in_flight)
        expect(loop_turn(rig.loop));
    scsi_reset(&rig.nexus[1], SCSI_LOGICAL_UNIT_RESET, &wait);
    expect(rig.unit->resets == &wait);
    rig.nexus[1].attentions = 0; /* of the reset: not what this is about */
    write_task(&young, 1, 0, 1);
    young.hold_want = true;
    rig_submit(&young);
    expect(rig_wait(&old));
    expect(!rig.unit->resets); /* though the young one is there */
    rig_answer_want(&young);
    expect(rig_wait(&young));
    expect_eq(young.task.status, SCSI_GOOD);
    end();
}

Test(scsi_tasks, a_reset_undoes_mode_select)
{
    make();
    rig.unit->descriptor_sense = rig.unit->write_protect = rig.unit->write_through =
            true;
    rig_reset(&rig, 0, SCSI_LOGICAL_UNIT_RESET);
    expect_eq(attention(0), SENSE(6, 0x2903));
    expect_eq(rig_write(&rig, 0, 0, 1, bytes), SCSI_GOOD);
    end();
}

/* -- atomicity ----------------------------------------------------------------------- */

Test(scsi_tasks, nothing_overlaps_a_locked_range)
{
    struct rig_task compare, reader, writer, far;
    static uint8_t data[4 * BLOCK], first[4 * BLOCK], second[BLOCK];
    uint8_t cdb[16] = { 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 2 };

    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .plan_count = 1,
                    .plans = { { .op = BLOCK_READ, .delay_ms = 1000, .times = 1 } } });
    memset(data + 2 * BLOCK, 'n', 2 * BLOCK);
    rig_command(&rig, &compare, 0, cdb, 16);
    rig_out(&compare, data, sizeof data);
    rig_submit(&compare);
    rig_settle(&rig); /* its read is under way for a second */
    read_task(&reader, 1, 9, 2, first);
    rig_submit(&reader);
    write_task(&writer, 2, 11, 1);
    rig_submit(&writer);
    read_task(&far, 1, 12, 1, second);
    rig_submit(&far);
    rig_settle(&rig);
    expect(far.done && !compare.done && !reader.done && !writer.done);
    scsi_abort(&writer.task);
    rig_settle(&rig);
    expect(writer.done && writer.task.aborted);
    expect(rig_wait(&compare) && rig_wait(&reader));
    expect_eq(compare.task.status, SCSI_GOOD);
    expect_eq(first[BLOCK], 'n');
    end();
}

Test(scsi_tasks, a_lock_waits_for_what_is_under_way)
{
    struct rig_task writer, compare;
    static uint8_t data[2 * BLOCK];
    uint8_t cdb[16] = { 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 1 };

    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .plan_count = 1,
                    .plans = { { .op = BLOCK_WRITE, .delay_ms = 1000, .times = 1 } } });
    write_task(&writer, 0, 8, 4);
    rig_submit(&writer);
    while (!rig.device->in_flight)
        expect(loop_turn(rig.loop));
    rig_command(&rig, &compare, 1, cdb, 16);
    rig_out(&compare, data, sizeof data);
    rig_submit(&compare);
    rig_settle(&rig);
    expect(!writer.done);
    expect_eq(block_faulty_counts(rig.device).seen[BLOCK_READ], 0);
    expect(rig_wait(&compare));
    expect(writer.done);
    end();
}

/* -- failures ------------------------------------------------------------------------ */

static void fail_once(int op, int error)
{
    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .plan_count = 1,
                    .plans = { { .op = op, .error = error, .times = 1 } } });
}

Test(scsi_tasks, device_errors_become_sense)
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
        read_task(&task, 0, 0, 4, bytes);
        expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
        expect_eq(rig_sense(&task), rows[i].read);
        expect_eq(task.task.transfer, 0);
        expect_eq(rig_read(&rig, 0, 0, 4, bytes), SCSI_GOOD);
        end();
        fail_once(BLOCK_WRITE, rows[i].error);
        write_task(&task, 0, 0, 4);
        expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
        expect_eq(rig_sense(&task), rows[i].write);
        expect_eq(rig_write(&rig, 0, 0, 4, bytes), SCSI_GOOD);
        end();
    }
}

/* Every command at every request of it that may fail: an error, never GOOD, never a hang. */
Test(scsi_tasks, no_failure_is_swallowed)
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

Test(scsi_tasks, a_lost_device_is_opened_anew_and_commands_wait)
{
    struct rig_task lost, waits;
    static uint8_t data[BLOCK];

    lose_once(BLOCK_READ);
    rig.opens_fail = 3;
    memset(bytes, 'k', BLOCK);
    expect_eq(rig_write(&rig, 0, 3, 1, bytes), SCSI_GOOD);
    read_task(&lost, 0, 3, 1, data);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&lost), SENSE(2, 0x0401));
    read_task(&waits, 1, 3, 1, data);
    rig_submit(&waits);
    expect_eq(attention(2), SENSE(2, 0x0401)); /* TEST UNIT READY does not wait */
    expect(rig_wait(&waits));
    expect_eq(waits.task.status, SCSI_GOOD);
    expect_eq(data[0], 'k');
    expect_eq(rig.opens, 5);
    for (unsigned i = 0; i < RIG_NEXUSES; i++)
        expect_eq(
                attention(i), SENSE(6, 0x2900)); /* what was not flushed may be gone */
    end();
}

Test(scsi_tasks, a_clean_device_comes_back_without_a_word)
{
    static uint8_t data[BLOCK];
    struct rig_task lost;

    lose_once(BLOCK_READ);
    read_task(&lost, 0, 3, 1, data);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    expect_eq(rig_read(&rig, 0, 3, 1, data), SCSI_GOOD);
    for (unsigned i = 0; i < RIG_NEXUSES; i++)
        expect_eq(attention(i), 0);
    end();
}

Test(scsi_tasks, patience_ends_after_ten_seconds)
{
    struct rig_task lost, waits, later;
    struct instant start;
    uint64_t ms;

    lose_once(BLOCK_READ);
    rig.opens_fail = 1000;
    read_task(&lost, 0, 3, 1, bytes);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    start = loop_now(rig.loop);
    read_task(&waits, 1, 3, 1, bytes);
    rig_submit(&waits);
    write_task(&later, 1, 3, 1);
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

Test(scsi_tasks, a_flush_that_failed_is_told_to_all)
{
    rig_make(&rig,
            &(struct rig_options){ .seed = 1,
                    .plan_count = 1,
                    .plans = { { .op = BLOCK_FLUSH,
                            .error = -EIO,
                            .lose = true,
                            .times = 1 } } });
    rig_simple(&rig, 0, &sense, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect_eq(sense, SENSE(3, 0x0c00));
    expect_eq(rig_read(&rig, 0, 0, 1, bytes), SCSI_GOOD);
    expect_eq(rig.opens, 2);
    for (unsigned i = 0; i < RIG_NEXUSES; i++)
        expect_eq(attention(i), SENSE(6, 0x2900));
    end();
}

Test(scsi_tasks, a_device_of_another_size_is_not_written_blindly)
{
    struct rig_task lost, waits;
    uint8_t capacity[8];

    lose_once(BLOCK_READ);
    rig.reopen_size = 4 << 20;
    read_task(&lost, 0, 3, 1, bytes);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    write_task(&waits, 1, 16000, 1); /* beyond the new end */
    rig_submit(&waits);
    expect(rig_wait(&waits));
    expect_eq(rig_sense(&waits), SENSE(6, 0x2a09));
    expect_eq(attention(2), SENSE(6, 0x2a09));
    expect_eq(rig_get(&rig, 2, &sense, capacity, 8, NULL,
                      CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
            SCSI_GOOD);
    expect_eq(be32_get(capacity), 8191);
    end();
}

Test(scsi_tasks, aborts_and_the_end_while_the_device_is_away)
{
    struct rig_task lost, waits;

    lose_once(BLOCK_READ);
    rig.opens_fail = 1000;
    read_task(&lost, 0, 3, 1, bytes);
    expect_eq(rig_run(&lost), SCSI_CHECK_CONDITION);
    write_task(&waits, 1, 3, 1);
    rig_submit(&waits);
    rig_settle(&rig);
    scsi_abort(&waits.task);
    rig_settle(&rig);
    expect(waits.done && waits.task.aborted);
    end(); /* while it is being opened again */
}

Test(scsi_tasks, many_in_flight_when_the_device_breaks)
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
                write_task(&tasks[i], i % 3, i, 1);
            else
                read_task(&tasks[i], i % 3, i, 1, data[i]);
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

Test(scsi_tasks, what_does_not_open_is_told)
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

/* -- figures ------------------------------------------------------------------------- */

Test(scsi_tasks, figures_count)
{
    struct scsi_unit_figures unit, nexus;

    make();
    expect_eq(rig_write(&rig, 0, 0, 8, bytes), SCSI_GOOD);
    expect_eq(rig_read(&rig, 1, 0, 4, bytes), SCSI_GOOD);
    scsi_unit_figures(rig.unit, &unit);
    expect_eq(unit.written_bytes, 8 * BLOCK);
    expect_eq(unit.read_bytes, 4 * BLOCK);
    expect_eq(unit.queued, 0);
    scsi_nexus_figures(&rig.nexus[0], &nexus);
    expect_eq(nexus.written_bytes, 8 * BLOCK);
    expect_eq(nexus.read_bytes, 0);
    expect_eq(nexus.commands, 2);
    end();
}

/* The task set: order, abort and reset with commands in flight, locks, buffers that are
 * short. */
#include <string.h>

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/server/iscsi/scsi_rig.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { BLOCK = 512 };

static struct rig rig;
static uint8_t bytes[2 << 20];

static void make(void)
{
    rig_make(&rig, &(struct rig_options){ .seed = 1 });
}

static void end(void)
{
    rig_release(&rig);
}

static void ready_task(struct rig_task *task, unsigned nexus, enum scsi_attribute how)
{
    rig_command(&rig, task, nexus, CDB(0, 0, 0, 0, 0, 0));
    task->task.attribute = how;
}

/* -- order --------------------------------------------------------------------------- */

Test(scsi_tasks, ordered_waits_for_the_older_and_holds_the_younger)
{
    struct rig_task first, second, ordered, third, head;

    make();
    rig_write_task(&rig, &first, 0, 0, 1, bytes);
    first.hold_want = true;
    rig_submit(&first);
    rig_write_task(&rig, &second, 1, 1, 1, bytes);
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
    rig_write_task(&rig, &head, 0, 0, 1, bytes);
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
    rig_write_task(&rig, &first, 0, 0, 1, bytes);
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
    rig_write_task(&rig, &task, 0, 0, 1, bytes);
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
    rig_write_task(&rig, &task, 0, 0, 1, bytes);
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
    rig_write_task(&rig, &task, 0, 0, 1, bytes);
    task.lose_want = true;
    expect_eq(rig_run(&task), SCSI_CHECK_CONDITION);
    expect_eq(rig_sense(&task), SENSE(0xb, 0x4705));
    end();
}

Test(scsi_tasks, an_abort_waits_for_what_is_being_sent)
{
    struct rig_task task;

    make();
    rig_read_task(&rig, &task, 0, 0, 1024, bytes);
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
    rig_write_task(&rig, &task, 0, 0, 1, bytes);
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
    rig_read_task(&rig, &first, 0, 0, 1024, bytes);
    first.hold_data = true;
    rig_submit(&first);
    rig_settle(&rig);
    rig_read_task(&rig, &second, 1, 0, 512, bytes);
    rig_submit(&second);
    rig_read_task(&rig, &third, 1, 0, 16, bytes);
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
        rig_write_task(&rig, &tasks[i], i, i, 1, bytes);
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
            expect_eq(rig_attention(&rig, i), i == 1 && r < 2 ? 0 : rows[r].hear);
        end();
    }
}

Test(scsi_tasks, a_clear_tells_only_those_who_lost_something)
{
    struct rig_task task;

    make();
    rig_write_task(&rig, &task, 0, 0, 1, bytes);
    task.hold_want = true;
    rig_submit(&task);
    rig_reset(&rig, 1, SCSI_CLEAR_TASK_SET);
    expect(task.done);
    expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2f00));
    expect_eq(rig_attention(&rig, 2), 0);
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
    rig_write_task(&rig, &old, 0, 0, 1, bytes);
    rig_submit(&old);
    while (!rig.device->in_flight)
        expect(loop_turn(rig.loop));
    scsi_reset(&rig.nexus[1], SCSI_LOGICAL_UNIT_RESET, &wait);
    expect(rig.unit->resets == &wait);
    rig.nexus[1].attentions = 0; /* of the reset: not what this is about */
    rig_write_task(&rig, &young, 1, 0, 1, bytes);
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
    expect_eq(rig_attention(&rig, 0), SENSE(6, 0x2903));
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
    rig_read_task(&rig, &reader, 1, 9, 2, first);
    rig_submit(&reader);
    rig_write_task(&rig, &writer, 2, 11, 1, bytes);
    rig_submit(&writer);
    rig_read_task(&rig, &far, 1, 12, 1, second);
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
    rig_write_task(&rig, &writer, 0, 8, 4, bytes);
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

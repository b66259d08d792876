/* Reservations that were made with APTPL outlive a restart, and are GOOD once that is so. */
#include <errno.h>
#include <string.h>

#include "tests/server/iscsi/reserve_rig.h"
#include "tests/support/expect.h"

static bool write_conflicts(unsigned nexus)
{
    uint8_t cdb[16] = { 0x2a };

    return rig_simple(&reserve_rig, nexus, &reserve_sense, cdb, sizeof cdb) ==
            SCSI_RESERVATION_CONFLICT;
}

static enum scsi_status register_kept(unsigned nexus, uint64_t key)
{
    struct rig_task task;
    uint8_t list[24];

    reserve_out_task(&task, list, nexus, IGNORE, 0, 0, key, 0x01);
    return rig_run(&task);
}

Test(scsi_reserve_kept, what_is_kept_comes_back)
{
    static uint8_t kept[SCSI_KEPT_MAX];
    size_t length;
    uint64_t key;

    for (unsigned t = 0; t < sizeof reserve_types; t++) {
        reserve_make();
        expect_eq(register_kept(1, reserve_keys[1]), SCSI_GOOD);
        expect_eq(register_kept(0, reserve_keys[0]), SCSI_GOOD);
        reserve_out(0, RESERVE, reserve_types[t], reserve_keys[0], 0);
        expect_eq(reserve_rig.keeps, 3);
        length = reserve_rig.kept_length;
        memcpy(kept, reserve_rig.kept, length);
        reserve_end();
        rig_make(&reserve_rig,
                &(struct rig_options){
                        .seed = 2, .kept = kept, .kept_length = length });
        expect_eq(reserve_held(&key), reserve_types[t]);
        expect_eq(key, reserve_types[t] >= 7 ? 0 : reserve_keys[0]);
        expect_eq(reserve_key_count(), 2);
        expect_eq(write_conflicts(0), false);
        expect_eq(write_conflicts(1), reserve_types[t] < 5);
        expect_eq(write_conflicts(2), true);
        reserve_in(0, 2);
        expect_eq(reserve_answer[3], 0x81); /* PTPL_A */
        expect_eq(reserve_out(0, RELEASE, reserve_types[t], reserve_keys[0], 0),
                SCSI_GOOD);
        expect_eq(reserve_rig.keeps, 1);
        expect_eq(reserve_out(0, REGISTER, 0, reserve_keys[0], 0),
                SCSI_GOOD); /* APTPL 0 now */
        expect_eq(reserve_rig.kept_length, 0);
        reserve_end();
    }
}

Test(scsi_reserve_kept, good_only_after_it_is_durable)
{
    struct rig_task task, second, reader;
    uint8_t list[24], list2[24];

    reserve_make();
    reserve_rig.keep_held = true;
    reserve_out_task(&task, list, 0, REGISTER, 0, 0, reserve_keys[0], 0x01);
    rig_submit(&task);
    reserve_out_task(&second, list2, 1, REGISTER, 0, 0, reserve_keys[1], 0x01);
    rig_submit(&second);
    rig_settle(&reserve_rig);
    expect(!task.done && !second.done);
    expect_eq(reserve_rig.keeps, 1);
    expect_eq(reserve_key_count(), 0); /* not yet */
    rig_command(&reserve_rig, &reader, 2, CDB(0, 0, 0, 0, 0, 0));
    expect_eq(rig_run(&reader), SCSI_GOOD); /* the others go on */
    rig_keep_answer(&reserve_rig);
    expect(rig_wait(&task));
    rig_settle(&reserve_rig);
    expect_eq(reserve_key_count(), 1);
    expect(!second.done);
    expect_eq(reserve_rig.keeps, 2);
    rig_keep_answer(&reserve_rig);
    expect(rig_wait(&second));
    expect_eq(reserve_key_count(), 2);
    reserve_end();
}

Test(scsi_reserve_kept, what_cannot_be_kept_is_not_granted)
{
    reserve_make();
    reserve_rig.keep_result = -EIO;
    expect_eq(register_kept(0, reserve_keys[0]), SCSI_CHECK_CONDITION);
    expect_eq(reserve_key_count(), 0);
    expect_eq(reserve_generation(), 0);
    reserve_rig.keep_result = 0;
    expect_eq(register_kept(0, reserve_keys[0]), SCSI_GOOD);
    expect_eq(reserve_key_count(), 1);
    reserve_end();
}

Test(scsi_reserve_kept, an_abort_while_it_is_kept_leaves_it_kept)
{
    struct rig_task task;
    uint8_t list[24];

    reserve_make();
    reserve_rig.keep_held = true;
    reserve_out_task(&task, list, 0, REGISTER, 0, 0, reserve_keys[0], 0x01);
    rig_submit(&task);
    rig_settle(&reserve_rig);
    scsi_abort(&task.task);
    rig_settle(&reserve_rig);
    expect(!task.done); /* the write is under way */
    rig_keep_answer(&reserve_rig);
    expect(rig_wait(&task));
    expect(task.task.aborted);
    expect_eq(reserve_key_count(), 1); /* as it will be after a restart */
    reserve_rig.keep_held = false;
    expect_eq(register_kept(1, reserve_keys[1]), SCSI_GOOD); /* and the next may */
    reserve_end();
}

Test(scsi_reserve_kept, an_abort_of_whose_turn_it_is_hands_the_turn_on)
{
    struct rig_task tasks[3], *next, *last;
    uint8_t lists[3][24];

    reserve_make();
    reserve_rig.keep_held = true;
    for (unsigned i = 0; i < 3; i++) {
        reserve_out_task(&tasks[i], lists[i], i, REGISTER, 0, 0, reserve_keys[i], 0x01);
        rig_submit(&tasks[i]);
    }
    rig_settle(&reserve_rig);
    rig_keep_answer(&reserve_rig);
    expect(rig_wait(&tasks[0]));
    next = &tasks[tasks[1].task.line ? 2 : 1];
    last = &tasks[tasks[1].task.line ? 1 : 2];
    expect(!next->task.line && !next->done && last->task.line);
    scsi_abort(&next->task);
    reserve_rig.keep_held = false;
    expect(rig_wait(next) && rig_wait(last));
    expect(next->task.aborted);
    expect_eq(last->task.status, SCSI_GOOD);
    expect_eq(reserve_key_count(), 2);
    reserve_end();
}

Test(scsi_reserve_kept, damaged_state_is_not_guessed)
{
    static uint8_t kept[SCSI_KEPT_MAX];
    size_t length;

    reserve_make();
    register_kept(0, reserve_keys[0]);
    register_kept(1, reserve_keys[1]);
    reserve_out(0, RESERVE, 5, reserve_keys[0], 0);
    length = reserve_rig.kept_length;
    memcpy(kept, reserve_rig.kept, length);
    reserve_end();
    for (size_t at = 0; at < length; at++) {
        kept[at] ^= 0x20;
        rig_make(&reserve_rig,
                &(struct rig_options){
                        .seed = 2, .kept = kept, .kept_length = length });
        expect(!reserve_rig.unit);
        expect_eq(reserve_rig.fault.error, -EILSEQ);
        reserve_end();
        kept[at] ^= 0x20;
        rig_make(&reserve_rig,
                &(struct rig_options){ .seed = 2, .kept = kept, .kept_length = at });
        expect(at == 0 ? reserve_rig.unit != NULL : !reserve_rig.unit);
        reserve_end();
    }
}

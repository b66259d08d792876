/* The runner's life, with ends that a test opens: devices are lost, come back, or do not. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/block/memory.h"
#include "replica/block/wrappers.h"
#include "replica/end.h"
#include "tests/replica/engine/bench.h"

enum {
    MIB = 1 << 20,
    SIZE = 24 << 20,
    OPENINGS = 64,
    COMEBACK_MS = 2000,
    LIFE_MS = 400
};

/* What one opening answers, and what its device then does. */
struct turn {
    int error; /* of the opening */
    struct block_fault_plan faults[2];
    unsigned fault_count;
    bool hangs; /* its first write is not answered until hung_release() */
    void (*before)(void); /* called when it is opened */
    bool is_file; /* it tells when it was last changed */
};

/* One end of the far side: a disk that outlives its sessions, and a script. The last turn
   is repeated. */
struct side {
    struct memory_disk *disk;
    unsigned caps;
    struct turn turns[8];
    unsigned turn_count;

    unsigned opened;
    bool barrier[OPENINGS], writable[OPENINGS];
    uint64_t isid[OPENINGS];
    bool reserved;
    struct block_device *device; /* of the latest opening */
    struct loop_task breaking;
};

static struct bench bench;
static struct side source, target;

static void tune(struct engine_options *options)
{
    options->loops = 1; /* the disks are one thread's */
    options->recovery_ms = 30000;
    options->state_directory = bench.directory;
}

static void answer(struct loop_task *task)
{
    struct end *end = container_of(task, struct end, answering);
    end->done(end, end->device, &end->fault);
}

/* The write that hangs. The loop's. */
static struct {
    struct block_ops ops;
    const struct block_ops *real;
    struct block_device *device;
    struct block_request *request;
    struct loop_task release;
    bool over;
} hung;

static void hung_submit(struct block_device *device, struct block_request *request)
{
    if (request->op == BLOCK_WRITE && !hung.over && !hung.request)
        hung.request = request;
    else
        hung.real->submit(device, request);
}

static void hang(struct block_device *device)
{
    hung.device = device;
    hung.real = device->ops;
    hung.ops = *device->ops;
    hung.ops.submit = hung_submit;
    device->ops = &hung.ops;
}

static void hung_go_on(struct loop_task *task)
{
    (void)task;
    hung.over = true;
    if (hung.request)
        hung.real->submit(hung.device, hung.request);
}

/* From the test's thread. */
static void hung_release(void)
{
    hung.release.run = hung_go_on;
    loop_post(hung.device->loop, &hung.release);
}

static void open_scripted(struct end *end, const struct engine_element *element,
        bool writable, bool barrier)
{
    struct side *side = strcmp(element->address, "source") == 0 ? &source : &target;
    unsigned number = side->opened++;
    const struct turn *turn =
            &side->turns[number < side->turn_count ? number : side->turn_count - 1];

    check(number < OPENINGS);
    side->barrier[number] = barrier;
    side->writable[number] = writable;
    side->isid[number] = end->isid;
    if (turn->before)
        turn->before();
    end->element = *element;
    end->spec.driver = BLOCK_DRIVER_memory;
    end->fault = (struct fault){ 0 };
    end->device = NULL;
    if (turn->error) {
        fault_set(&end->fault, turn->error, "the script says no");
    } else {
        end->device = memory_disk_open(side->disk, end->loop,
                side->caps | (writable ? 0u : (unsigned)BLOCK_READ_ONLY));
        check(end->device);
        side->device = end->device;
        if (turn->fault_count)
            end->device = block_faulty(&end->device, turn->faults, turn->fault_count);
        if (turn->hangs)
            hang(end->device);
        end->found = (struct engine_found){ .size = end->device->size };
        end->found.identity.foreign_reservation = side->reserved;
        if (turn->is_file)
            (void)snprintf(end->found.identity.changed,
                    sizeof end->found.identity.changed, "just now");
    }
    end->answering.run = answer;
    loop_post(end->loop, &end->answering);
}

static void side_break_now(struct loop_task *task)
{
    container_of(task, struct side, breaking)->device->broken = true;
}

/* From the test's thread, of one that is open: its session is lost while it is idle. */
static void side_break(struct side *side)
{
    side->breaking.run = side_break_now;
    loop_post(side->device->loop, &side->breaking);
}

static void side_init(struct side *side, uint64_t seed)
{
    *side = (struct side){ .caps = BLOCK_VOLATILE, .turn_count = 1 };
    side->disk = memory_disk_create(SIZE, 512);
    check(side->disk);
    for (uint64_t i = 0; i < SIZE; i++)
        memory_disk_bytes(side->disk)[i] = (uint8_t)((i * seed) >> 7 | 1);
    memory_disk_settle(side->disk);
}

static void setup(void)
{
    bench_init(&bench, tune);
    bench.engine->open = open_scripted;
    side_init(&source, 31);
    side_init(&target, 77);
}

static void teardown(void)
{
    bench_finish(&bench);
    memory_disk_destroy(source.disk);
    memory_disk_destroy(target.disk);
}

TestSuite(recovery, .init = setup, .fini = teardown);

static struct engine_plan plan_of(enum engine_work work)
{
    struct engine_plan plan = { .id = uuid_make(), .work = work };

    strcpy(plan.source.address, "source");
    strcpy(plan.target.address, "target");
    return plan;
}

static void expect_equal(void)
{
    cr_assert(memcmp(memory_disk_bytes(source.disk), memory_disk_bytes(target.disk),
                      SIZE) == 0);
}

static struct turn turn_lost(int op, unsigned after, int error)
{
    return (struct turn){ .fault_count = 1,
        .faults = { { .op = op, .after = after, .error = error, .lose = true } } };
}

static void expect_done(const struct bench_record *record)
{
    cr_assert(record->ended == 1 && !record->late && !record->fell);
    cr_assert(record->last.end == ENGINE_DONE, "%s", record->last.fault.why);
    cr_assert(record->last.done == SIZE && record->last.watermark == SIZE);
    expect_equal();
}

Test(recovery, a_target_that_is_lost_and_comes_back)
{
    struct bench_record record;
    target.turn_count = 4;
    target.turns[0] = turn_lost(BLOCK_WRITE, 7, -ENOTCONN);
    target.turns[1] = (struct turn){ .error = -ECONNREFUSED };
    target.turns[2] = turn_lost(BLOCK_WRITE, 3, -ETIMEDOUT);
    struct engine_plan plan = plan_of(ENGINE_COPY);
    record = bench_run(&bench, &plan);

    expect_done(&record);
    cr_assert(record.waiting == 3 && record.started == 3);
    cr_assert(target.opened == 4 && source.opened == 4);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert(target.writable[i] && target.barrier[i] == (i > 0));
        cr_assert(!source.writable[i] && !source.barrier[i]);
        cr_assert(target.isid[i] == target.isid[0] && source.isid[i] == source.isid[0]);
    }
    cr_assert(target.isid[0] != source.isid[0]);
    cr_assert(target.isid[0] >> 40 == 0x80 && source.isid[0] >> 40 == 0x80);
}

Test(recovery, a_source_that_is_lost_and_comes_back)
{
    struct bench_record record;
    source.turn_count = 2;
    source.turns[0] = turn_lost(BLOCK_READ, 9, -ETIMEDOUT);
    struct engine_plan plan = plan_of(ENGINE_DELTA);
    plan.verify = true;
    record = bench_run(&bench, &plan);
    expect_done(&record);
    cr_assert(record.waiting == 1 && record.last.verified == SIZE);
    cr_assert(target.barrier[1], "writes may be under way on a healthy session too");
}

Test(recovery, the_reading_back_goes_on_where_it_was)
{
    struct bench_record record;
    struct engine_figures figures;
    target.turn_count = 2;
    target.turns[0] = turn_lost(BLOCK_READ, 30, -ENOTCONN);
    struct engine_plan plan = plan_of(ENGINE_COPY);
    plan.verify = true;
    record = bench_run(&bench, &plan);
    expect_done(&record);
    cr_assert(record.waiting == 1);
    /* Once to copy, twice to compare, and what was in flight at the loss. */
    engine_figures(bench.engine, &figures);
    cr_assert(figures.read_bytes >= 3ull * SIZE);
    cr_assert(figures.read_bytes <= 3ull * SIZE + 12 * MIB);
}

/* The portal is up before the target, the target before its LUN and its accounts. */
Test(recovery, a_far_side_that_comes_up_slowly)
{
    struct bench_record record;
    target.turn_count = 5;
    target.turns[0] = turn_lost(BLOCK_WRITE, 7, -ENOTCONN);
    target.turns[1] = (struct turn){ .error = -ENODEV };
    target.turns[2] = (struct turn){ .error = -ENXIO };
    target.turns[3] = (struct turn){ .error = -EACCES };
    struct engine_plan plan = plan_of(ENGINE_COPY);
    record = bench_run(&bench, &plan);
    expect_done(&record);
    cr_assert(record.waiting == 4);
}

/* The same, but away from the first: nothing of it was ever open. */
Test(recovery, a_far_side_that_is_away_at_first_comes_up_slowly)
{
    for (int i = 0; i < 2; i++) {
        struct side *away = i ? &target : &source;
        away->opened = 0;
        away->turn_count = 5;
        away->turns[0] = (struct turn){ .error = -ECONNREFUSED };
        away->turns[1] = (struct turn){ .error = -ENODEV };
        away->turns[2] = (struct turn){ .error = -ENXIO };
        away->turns[3] = (struct turn){ .error = -EACCES };
        away->turns[4] = (struct turn){ 0 };
        struct engine_plan plan = plan_of(ENGINE_COPY);
        struct bench_record record = bench_run(&bench, &plan);
        expect_done(&record);
        cr_assert(record.waiting == 4);
        away->turn_count = 1;
        away->turns[0] = (struct turn){ 0 };
    }
}

static void expect_failed(const struct bench_record *record, int error, bool on_target)
{
    cr_assert(record->ended == 1 && record->last.end == ENGINE_FAILED && !record->late);
    cr_assert(record->last.fault.error == error, "%d: %s", record->last.fault.error,
            record->last.fault.why);
    cr_assert(record->last.on_target == on_target);
}

Test(recovery, what_is_not_there_at_first_is_not_waited_for)
{
    static const int errors[] = { -ENODEV, -ENXIO, -EACCES, -ESTALE, -EBUSY, -EPERM };

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        target.turns[0] = (struct turn){ .error = errors[i] };
        struct engine_plan plan = plan_of(ENGINE_COPY);
        struct bench_record record = bench_run(&bench, &plan);
        expect_failed(&record, errors[i], true);
        cr_assert(record.waiting == 0 && record.started == 0);
        cr_assert(strstr(record.last.fault.why, "the target cannot be opened"));
    }
}

Test(recovery, what_a_device_says_itself_is_final)
{
    static const int errors[] = { -EIO, -ENOSPC, -EBADE, -ESTALE, -EREMOTEIO };

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        target.turns[0] = (struct turn){ .fault_count = 1,
            .faults = { { .op = BLOCK_WRITE, .after = 5, .error = errors[i] } } };
        struct engine_plan plan = plan_of(ENGINE_COPY);
        struct bench_record record = bench_run(&bench, &plan);
        expect_failed(&record, errors[i], true);
        cr_assert(record.waiting == 0 && record.started == 1);
    }
}

Test(recovery, two_failed_openings_tell_the_one_that_waiting_does_not_mend)
{
    source.turns[0] = (struct turn){ .error = -ECONNREFUSED };
    target.turns[0] = (struct turn){ .error = -EBUSY };
    struct engine_plan plan = plan_of(ENGINE_COPY);
    struct bench_record record = bench_run(&bench, &plan);
    expect_failed(&record, -EBUSY, true);
}

Test(recovery, a_foreign_reservation_is_respected)
{
    target.reserved = true;
    struct engine_plan plan = plan_of(ENGINE_COPY);
    struct bench_record record = bench_run(&bench, &plan);
    expect_failed(&record, -EBADE, true);
    cr_assert(memory_disk_writes(target.disk) == 0);
    plan = plan_of(ENGINE_VERIFY); /* writes nothing */
    record = bench_run(&bench, &plan);
    expect_failed(&record, -EILSEQ, true);
    cr_assert(!target.writable[1] && !target.barrier[1]);
}

Test(recovery, one_that_ran_before_is_fenced_from_the_first)
{
    struct engine_plan plan = plan_of(ENGINE_COPY);
    plan.resumed = true;
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record);
    cr_assert(target.barrier[0] && !source.barrier[0]);
}

/* What was given up is told until a later opening, which is a barrier, has come through. */
Test(recovery, writes_that_were_given_up_are_told)
{
    struct engine_plan plan = plan_of(ENGINE_COPY);
    struct bench_record record;

    target.turns[0] = turn_lost(BLOCK_WRITE, 7, -ENOTCONN);
    target.turns[1] = (struct turn){ .error = -EIO };
    target.turn_count = 2;
    record = bench_run(&bench, &plan);
    expect_failed(&record, -EIO, true);
    cr_assert(record.last.loose);

    target.opened = 0;
    plan.id = uuid_make();
    target.turns[0] = target.turns[1];
    plan.resumed = true;
    record = bench_run(&bench, &plan);
    expect_failed(&record, -EIO, true);
    cr_assert(record.last.loose, "it was not fenced");

    target.opened = 0;
    plan.id = uuid_make();
    target.turns[0] = (struct turn){ .fault_count = 0 };
    target.turns[1] = turn_lost(BLOCK_WRITE, 7, -ENOTCONN);
    target.turn_count = 1;
    record = bench_run(&bench, &plan);
    expect_done(&record);
    cr_assert(!record.last.loose);

    target.opened = 0;
    plan.id = uuid_make();
    target.turns[0] = turn_lost(BLOCK_WRITE, 7, -EIO);
    plan.resumed = false;
    record = bench_run(&bench, &plan);
    expect_failed(&record, -EIO, true);
    cr_assert(record.last.loose, "a session that was given up for another reason");
}

/* It fails with what was first seen, when nothing moved for so long. */
static void tune_short(struct engine_options *options)
{
    tune(options);
    options->recovery_ms = COMEBACK_MS;
}

Test(recovery, a_device_that_stays_away_is_given_up)
{
    bench_engine_stop(&bench);
    bench_engine_start(&bench, tune_short);
    bench.engine->open = open_scripted;
    target.turn_count = 2;
    target.turns[0] = turn_lost(BLOCK_WRITE, 7, -ETIMEDOUT);
    target.turns[1] = (struct turn){ .error = -ECONNREFUSED };
    struct engine_plan plan = plan_of(ENGINE_COPY);
    struct bench_record record = bench_run(&bench, &plan);
    expect_failed(&record, -ETIMEDOUT, true);
    cr_assert(record.waiting > 0);
}

/* Moving now and then is not staying away, however long it takes in all. */
static unsigned comebacks;

static void count_comeback(void)
{
    comebacks++;
}

/* What was read before the loss is written and flushed: every life gets further. */
Test(recovery, a_device_that_comes_and_goes_gets_there)
{
    bench_engine_stop(&bench);
    bench_engine_start(&bench, tune_short);
    bench.engine->open = open_scripted;
    target.turns[0].before = count_comeback;
    target.turns[0].faults[0] = (struct block_fault_plan){
        .op = BLOCK_WRITE, .times = 1, .delay_ms = LIFE_MS
    };
    target.turns[0].fault_count = 1;
    source.turns[0] = turn_lost(BLOCK_READ, 3, -ENOTCONN);
    struct engine_plan plan = plan_of(ENGINE_COPY);
    plan.priority = 3; /* a small window, so many lives */
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record);
    cr_assert(comebacks >= 8 && record.waiting + 1 == comebacks);
    cr_assert((comebacks - 1) * LIFE_MS > COMEBACK_MS, "it was no long life");
    cr_assert(record.last.written == SIZE, "bytes are counted twice");
}

/* A fresh target is not fresh any more once it was written. */
static void zero_source(void)
{
    memset(memory_disk_bytes(source.disk), 0, SIZE);
}

Test(recovery, zeros_are_not_believed_after_a_loss)
{
    memset(memory_disk_bytes(target.disk), 0, SIZE);
    memory_disk_settle(target.disk);
    target.turn_count = 2;
    target.turns[0] = turn_lost(BLOCK_WRITE, 12, -ENOTCONN);
    target.turns[1].before = zero_source;
    struct engine_plan plan = plan_of(ENGINE_COPY);
    plan.target_zero = true;
    struct bench_record record = bench_run(&bench, &plan);
    expect_done(&record);
}

Test(recovery, a_stop_ends_the_waiting)
{
    struct bench_record record;
    target.turn_count = 2;
    target.turns[0] = turn_lost(BLOCK_WRITE, 7, -ENOTCONN);
    target.turns[1] = (struct turn){ .error = -ECONNREFUSED };
    struct engine_plan plan = plan_of(ENGINE_COPY);
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_is_waiting, &record));
    cr_assert(record.last.fault.error == -ENOTCONN && record.last.on_target);
    cr_assert(engine_stop_wait(bench.engine, &plan.id, ENGINE_DRAIN, 20000) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(record.last.end == ENGINE_STOPPED && record.ended == 1);
}

/* One hangs, the other one on the same loop goes on. */
Test(recovery, a_hanging_device_stops_only_its_own_plan)
{
    struct bench_record record, hanging;
    target.turn_count = 2;
    target.turns[0] = (struct turn){ .hangs = true };
    struct engine_plan first = plan_of(ENGINE_COPY), second = plan_of(ENGINE_COPY);
    cr_assert(engine_start(bench.engine, &first) == 0);
    cr_assert(bench_wait(&bench, &first.id, bench_has_started, &hanging));
    record = bench_run(&bench, &second);
    expect_done(&record);
    bench_wait(&bench, &first.id, bench_has_started, &hanging);
    cr_assert(hanging.ended == 0, "it did not hang, so nothing is shown");
    cr_assert(engine_stop_wait(bench.engine, &first.id, ENGINE_DROP, 1) == -ETIMEDOUT);
    hung_release();
    cr_assert(bench_wait(&bench, &first.id, bench_has_ended, &hanging));
    cr_assert(hanging.last.end == ENGINE_STOPPED);
}

Test(recovery, a_drain_does_not_wait_for_ever)
{
    struct bench_record record;
    struct engine_plan first = plan_of(ENGINE_COPY), second = plan_of(ENGINE_COPY);

    target.turn_count = 2;
    target.turns[0] = (struct turn){ .hangs = true };
    cr_assert(engine_start(bench.engine, &first) == 0);
    cr_assert(bench_wait(&bench, &first.id, bench_has_started, &record));
    record = bench_run(&bench, &second); /* by its end the first one hangs */
    expect_done(&record);
    cr_assert(!engine_drain(bench.engine, 1));
    second.id = uuid_make();
    cr_assert(engine_start(bench.engine, &second) == -ESHUTDOWN);
    hung_release();
    cr_assert(engine_drain(bench.engine, BENCH_WAIT_MS));
    cr_assert(bench_wait(&bench, &first.id, bench_has_ended, &record));
}

/* -- what is known of the target ------------------------------------------------------- */

/* A pair that was copied whole, and whose source has changed in a few places. */
static struct engine_plan changed_pair(void)
{
    struct engine_plan plan = plan_of(ENGINE_COPY);
    struct bench_record record;

    plan.pair = uuid_make();
    record = bench_run(&bench, &plan);
    expect_done(&record);
    for (uint64_t at = 0; at < SIZE; at += SIZE / 40)
        memory_disk_bytes(source.disk)[at] ^= 1;
    memory_disk_settle(source.disk);
    plan.id = uuid_make();
    plan.work = ENGINE_DELTA;
    return plan;
}

static void expect_next(struct engine_plan *plan, enum engine_mode mode)
{
    struct bench_record record;

    plan->id = uuid_make();
    record = bench_run(&bench, plan);
    expect_done(&record);
    cr_assert(record.last.mode == mode, "mode %d", record.last.mode);
}

/* A resync in which @side is lost at its @op, once: it waits, and ends well in @mode. The
   next one goes by @mode, too. */
static struct engine_plan lost_in_resync(
        struct side *side, enum block_op op, enum engine_mode mode)
{
    struct engine_plan plan = changed_pair();
    struct bench_record record;

    side->turn_count = 3;
    side->turns[1] = turn_lost(op, 9, -ENOTCONN);
    record = bench_run(&bench, &plan);
    expect_done(&record);
    cr_assert(record.waiting == 1 && record.last.mode == mode);
    expect_next(&plan, mode);
    return plan;
}

/* What came back may be anything: the rest is compared, and this run keeps no digests. */
Test(recovery, a_target_lost_in_a_resync_is_compared)
{
    struct engine_plan plan =
            lost_in_resync(&target, BLOCK_WRITE, ENGINE_MODE_DELTA_COMPARE);

    expect_next(&plan, ENGINE_MODE_DELTA_DIGEST);
}

Test(recovery, a_source_lost_in_a_resync_changes_nothing)
{
    (void)lost_in_resync(&source, BLOCK_READ, ENGINE_MODE_DELTA_DIGEST);
}

static void target_written(void)
{
    memory_disk_bytes(target.disk)[SIZE - 100000] ^= 1;
}

/* While nobody holds its lock somebody writes the target, ahead of the watermark. */
Test(recovery, a_file_that_was_let_go_of_is_compared)
{
    target.turn_count = 3;
    target.turns[1] = (struct turn){ 0 };
    target.turns[2] = (struct turn){ .before = target_written, .is_file = true };
    (void)lost_in_resync(&source, BLOCK_READ, ENGINE_MODE_DELTA_COMPARE);
}

/* The source is what failed; that the target is gone too shows when what was written shall be
   flushed. */
Test(recovery, a_target_lost_behind_its_source_is_compared)
{
    target.turn_count = 3;
    target.turns[1] = turn_lost(BLOCK_FLUSH, 0, -ENOTCONN);
    (void)lost_in_resync(&source, BLOCK_READ, ENGINE_MODE_DELTA_COMPARE);
}

/* It ends for good: it went by digest, and that is what is told; the next one compares. */
Test(recovery, a_resync_that_failed_is_not_trusted)
{
    struct engine_plan plan = changed_pair();
    struct bench_record record;
    target.turn_count = 3;
    target.turns[1] = (struct turn){ .fault_count = 1,
        .faults = { { .op = BLOCK_WRITE, .after = 9, .error = -EIO } } };
    record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_FAILED && record.last.fault.error == -EIO);
    cr_assert(record.last.mode == ENGINE_MODE_DELTA_DIGEST);
    expect_next(&plan, ENGINE_MODE_DELTA_COMPARE);
}

/* The power of the target fails at its flush: a flush that failed vouches for nothing. */
Test(recovery, a_failed_flush_seals_nothing)
{
    struct engine_plan plan = changed_pair();
    struct bench_record record;
    target.turn_count = 3;
    target.turns[1] = (struct turn){ .fault_count = 1,
        .faults = { { .op = BLOCK_FLUSH, .error = -EIO } } };
    record = bench_run(&bench, &plan);
    cr_assert(record.last.end == ENGINE_FAILED && record.last.watermark == 0);
    expect_next(&plan, ENGINE_MODE_DELTA_COMPARE);
}

static bool is_held_again(const struct bench_record *record)
{
    return record->held == 2;
}

/* It is idle, so nothing fails: it is seen nevertheless, and opened again. */
Test(recovery, a_device_that_is_lost_while_it_is_held)
{
    for (int i = 0; i < 2; i++) {
        struct engine_plan plan = plan_of(ENGINE_HOLD);
        struct bench_record record;
        struct side *away = i ? &target : &source;
        away->opened = 0;
        away->turn_count = 3;
        away->turns[1] = (struct turn){ .error = -ECONNREFUSED };
        cr_assert(engine_start(bench.engine, &plan) == 0);
        cr_assert(bench_wait(&bench, &plan.id, bench_is_held, &record));
        side_break(away);
        cr_assert(bench_wait(&bench, &plan.id, bench_is_waiting, &record));
        cr_assert(record.last.on_target == (i == 1));
        cr_assert(bench_wait(&bench, &plan.id, is_held_again, &record));
        cr_assert(away->opened == 3 && !away->barrier[2]);
        cr_assert(engine_stop(bench.engine, &plan.id, ENGINE_DRAIN) == 0);
        cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
        cr_assert(record.last.end == ENGINE_STOPPED && !record.late);
    }
}

/* Away for too long: whoever held it is told. */
Test(recovery, a_device_that_is_held_and_stays_away_is_given_up)
{
    struct engine_plan plan = plan_of(ENGINE_HOLD);
    struct bench_record record;
    bench.engine->recovery_ms = 500;
    target.turn_count = 2;
    target.turns[1] = (struct turn){ .error = -ECONNREFUSED };
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_is_held, &record));
    side_break(&target);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    expect_failed(&record, -ENOTCONN, true);
    cr_assert(strstr(record.last.fault.why, "while it was held open"));
}

/* How a plan behaves beside others and what it says of itself: shared limits, pauses, stalls.
 * Ends are memory disks whose answers may be late, or not come for a while. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/block/memory.h"
#include "replica/block/wrappers.h"
#include "replica/end.h"
#include "tests/replica/engine/bench.h"

enum { MIB = 1 << 20, SIZE = 24 << 20, DISKS = 6, STALL_MS = 500, WINDOW = 8 };

/* A disk that outlives its sessions; its address is its number. */
static struct disk {
    struct memory_disk *store;
    struct block_fault_plan faults[2]; /* of every opening */
    unsigned fault_count;
    unsigned refuse; /* so many openings after the first fail */
    unsigned opened;
    struct block_ops ops;
    const struct block_ops *real;
    _Atomic uint64_t seen[BLOCK_OP_COUNT];
} disks[DISKS];

static struct bench bench;

/* What was said of stalls. Under the bench's lock once a plan has ended. */
static struct {
    atomic_uint told, cleared;
    char words[8192]; /* all that was told: a busy machine may stall for itself too */
    struct uuid only; /* of this plan; none: of any */
    uint64_t ms;
    atomic_uint by_limit;
} heard;

static void hear(struct bench *b, const struct engine_event *event)
{
    (void)b;
    if (event->limited == ENGINE_LIMITED_BANDWIDTH)
        heard.by_limit++;
    if (!uuid_is_none(&heard.only) && !uuid_equal(&heard.only, &event->id))
        return;
    if (event->stall[0]) {
        size_t length = strlen(heard.words);
        snprintf(heard.words + length, sizeof(heard.words) - length, "%s\n",
                event->stall);
        heard.ms = event->stalled_ms;
        heard.told++;
    } else if (heard.told && event->kind != ENGINE_ENDED) {
        heard.cleared++;
    }
}

/* -- disks --------------------------------------------------------------------------- */

static void count_submit(struct block_device *device, struct block_request *request)
{
    for (unsigned i = 0; i < DISKS; i++)
        if (device->ops == &disks[i].ops) {
            disks[i].seen[request->op]++;
            disks[i].real->submit(device, request);
            return;
        }
    check(false);
}

static void answer(struct loop_task *task)
{
    struct end *end = container_of(task, struct end, answering);
    end->done(end, end->device, &end->fault);
}

static struct block_device *disk_open(struct disk *disk, struct loop *loop)
{
    struct block_device *device = memory_disk_open(disk->store, loop, BLOCK_VOLATILE);

    check(device);
    if (disk->fault_count && disk->opened == 0)
        device = block_faulty(&device, disk->faults, disk->fault_count);
    disk->real = device->ops;
    disk->ops = *device->ops;
    disk->ops.submit = count_submit;
    device->ops = &disk->ops;
    return device;
}

static void open_disk(struct end *end, const struct engine_element *element,
        bool writable, bool barrier)
{
    struct disk *disk = &disks[element->address[0] - '0'];

    (void)writable, (void)barrier;
    end->element = *element;
    end->spec.driver = BLOCK_DRIVER_memory;
    end->fault = (struct fault){ 0 };
    end->device = NULL;
    if (disk->opened && disk->opened <= disk->refuse)
        fault_set(&end->fault, -ECONNREFUSED, "nobody is there");
    else
        end->device = disk_open(disk, end->loop);
    if (end->device)
        end->found = (struct engine_found){ .size = end->device->size };
    disk->opened++;
    end->answering.run = answer;
    loop_post(end->loop, &end->answering);
}

static void tune(struct engine_options *options)
{
    options->loops = 1; /* the disks are one thread's */
    options->recovery_ms = 60000;
    options->stall_ms = STALL_MS;
}

static void setup(void)
{
    bench_init(&bench, tune);
    bench.hook = hear;
    bench.engine->open = open_disk;
    for (unsigned i = 0; i < DISKS; i++) {
        disks[i].store = memory_disk_create(SIZE, 512);
        check(disks[i].store);
        for (uint64_t at = 0; at < SIZE; at += 8)
            memory_disk_bytes(disks[i].store)[at] = (uint8_t)(i + (at >> 9) % 251 + 1);
        memory_disk_settle(disks[i].store);
    }
}

static void teardown(void)
{
    bench_finish(&bench);
    for (unsigned i = 0; i < DISKS; i++)
        memory_disk_destroy(disks[i].store);
}

TestSuite(manners, .init = setup, .fini = teardown);

static struct engine_plan plan_of(unsigned source, unsigned target)
{
    struct engine_plan plan = { .id = uuid_make(), .work = ENGINE_COPY };

    plan.source.address[0] = (char)('0' + source);
    plan.target.address[0] = (char)('0' + target);
    return plan;
}

static void expect_done(const struct bench_record *record)
{
    cr_assert(record->ended == 1 && !record->late && !record->fell);
    cr_assert(record->last.end == ENGINE_DONE, "%s", record->last.fault.why);
}

static void expect_equal(unsigned source, unsigned target)
{
    cr_assert(memcmp(memory_disk_bytes(disks[source].store),
                      memory_disk_bytes(disks[target].store), SIZE) == 0);
}

/* -- stalls -------------------------------------------------------------------------- */

/* The disk answers a window of requests a good while late. */
static void hang(unsigned disk, int op)
{
    disks[disk].faults[0] = (struct block_fault_plan){
        .op = op, .after = 6, .times = WINDOW, .delay_ms = 6 * STALL_MS
    };
    disks[disk].fault_count = 1;
}

static void hangs(unsigned disk, int op, const char *words)
{
    struct engine_plan plan = plan_of(0, 1);
    struct bench_record record;

    hang(disk, op);
    plan.limit = 12 * MIB; /* so that it is seen to go on before it is done */
    record = bench_run(&bench, &plan);
    expect_done(&record);
    expect_equal(0, 1);
    cr_assert(heard.told > 0 && strstr(heard.words, words), "%s", heard.words);
    cr_assert(heard.ms >= STALL_MS);
    cr_assert(heard.cleared > 0, "it went on and did not say so");
    cr_assert(record.last.stall[0] == '\0' && record.last.stalled_ms == 0);
}

Test(manners, a_source_that_hangs_is_named)
{
    hangs(0, BLOCK_READ, "the source does not answer");
}

Test(manners, a_target_that_hangs_is_named)
{
    hangs(1, BLOCK_WRITE, "the target does not answer");
}

Test(manners, a_target_that_stays_away_is_named_with_its_last_words)
{
    struct engine_plan plan = plan_of(0, 1);
    struct bench_record record;

    disks[1].faults[0] = (struct block_fault_plan){
        .op = BLOCK_WRITE, .after = 6, .error = -ENOTCONN, .lose = true
    };
    plan.limit = 12 * MIB;
    disks[1].fault_count = 1;
    disks[1].refuse = 6; /* three seconds at least */
    record = bench_run(&bench, &plan);
    expect_done(&record);
    expect_equal(0, 1);
    cr_assert(record.waiting > 0);
    cr_assert(heard.told > 0 && heard.cleared > 0);
    cr_assert(strstr(heard.words, "the target was lost and is being opened again: ") &&
                    strstr(heard.words, "a planned fault"),
            "%s", heard.words);
}

static bool by_limit(const struct bench_record *record)
{
    (void)record;
    return heard.by_limit > 0;
}

static bool later(const struct bench_record *record)
{
    static struct instant end;

    (void)record;
    if (!end.ns)
        end = instant_add_ms(clock_monotonic(), 4 * STALL_MS);
    return instant_reached(clock_monotonic(), end);
}

/* A limit of hours a piece is no stall. */
Test(manners, what_a_limit_holds_back_does_not_stall)
{
    struct engine_plan plan = plan_of(0, 1), other = plan_of(2, 3);
    struct bench_record record;

    plan.limit = 1;
    heard.only = plan.id;
    cr_assert(engine_start(bench.engine, &plan) == 0);
    other.limit = 40 * MIB; /* whose events wake the wait */
    while (!later(NULL)) {
        other.id = uuid_make();
        record = bench_run(&bench, &other);
        expect_done(&record);
    }
    cr_assert(heard.told == 0, "%s", heard.words);
    cr_assert(engine_limit(bench.engine, &plan.id, 0) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    expect_done(&record);
}

/* -- limits that are shared ------------------------------------------------------------- */

static void start_two(
        struct engine_plan plans[2], const struct uuid *pipe, uint64_t limit)
{
    for (unsigned i = 0; i < 2; i++) {
        plans[i] = plan_of(2 * i, 2 * i + 1);
        plans[i].pipe = *pipe;
        plans[i].pipe_limit = limit;
        cr_assert(engine_start(bench.engine, &plans[i]) == 0);
    }
}

static void expect_two(const struct engine_plan plans[2])
{
    struct bench_record record;

    for (unsigned i = 0; i < 2; i++) {
        cr_assert(bench_wait(&bench, &plans[i].id, bench_has_ended, &record));
        expect_done(&record);
        expect_equal(2 * i, 2 * i + 1);
    }
}

Test(manners, a_pipe_is_widened_for_all_that_go_over_it)
{
    struct engine_plan plans[2];
    struct uuid pipe = uuid_make(), unknown = uuid_make();
    struct bench_record record;

    start_two(plans, &pipe, 1000); /* hours for both */
    cr_assert(bench_wait(&bench, &plans[0].id, bench_has_started, &record));
    cr_assert(bench_wait(&bench, &plans[1].id, bench_has_started, &record));
    engine_pipe_limit(bench.engine, &unknown, 1);
    cr_assert(bench_wait(&bench, &plans[0].id, by_limit, &record));
    engine_pipe_limit(bench.engine, &pipe, 0);
    expect_two(plans);
    /* The name is free again, and its limit is the next plan's. */
    start_two(plans, &pipe, 0);
    expect_two(plans);
}

/* The same two, by the daemon's limit; and what is narrowed holds what runs. */
Test(manners, the_limit_of_all_holds_and_lets_go)
{
    struct engine_plan plans[2];
    struct uuid none = { "" };
    struct bench_record record;

    engine_whole_limit(bench.engine, 1000);
    start_two(plans, &none, 0);
    cr_assert(bench_wait(&bench, &plans[0].id, by_limit, &record));
    cr_assert(record.ended == 0);
    engine_whole_limit(bench.engine, 0);
    expect_two(plans);
}

Test(manners, a_priority_of_what_runs)
{
    struct engine_plan plan = plan_of(0, 1);
    struct bench_record record;

    cr_assert(engine_priority(bench.engine, &plan.id, 0) == -ESRCH);
    plan.limit = 100000;
    plan.priority = 3;
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_started, &record));
    for (unsigned priority = 0; priority < 4; priority++)
        cr_assert(engine_priority(bench.engine, &plan.id, priority) == 0);
    cr_assert(engine_limit(bench.engine, &plan.id, 0) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    expect_done(&record);
    expect_equal(0, 1);
}

/* -- pauses -------------------------------------------------------------------------- */

static uint64_t seen(unsigned disk, enum block_op op)
{
    return disks[disk].seen[op];
}

Test(manners, a_suspend_is_one_within_a_window_and_goes_on_there)
{
    struct engine_plan plan = plan_of(0, 1), rest;
    struct bench_record record;
    uint64_t reads, writes, read;

    plan.limit = 8192; /* two pieces a second: four seconds from the look to the stop */
    cr_assert(engine_start(bench.engine, &plan) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_moved, &record));
    reads = seen(0, BLOCK_READ);
    writes = seen(1, BLOCK_WRITE);
    cr_assert(engine_stop(bench.engine, &plan.id, ENGINE_DRAIN) == 0);
    cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
    cr_assert(record.last.end == ENGINE_STOPPED);
    cr_assert(seen(0, BLOCK_READ) <= reads + WINDOW);
    cr_assert(seen(1, BLOCK_WRITE) <= writes + WINDOW);
    cr_assert(record.last.watermark == record.last.read, "all that was read is kept");
    cr_assert(record.last.watermark > 0 && record.last.watermark < SIZE);
    rest = bench_resume(&plan, &record);
    rest.limit = 0;
    read = record.last.read;
    record = bench_run(&bench, &rest);
    expect_done(&record);
    expect_equal(0, 1);
    cr_assert(rest.read == read && record.last.read == SIZE, "nothing is read twice");
}

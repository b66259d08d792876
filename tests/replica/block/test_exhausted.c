/* Memory and descriptors that run out, swept: fail the first allocation, the second ...
 * until nothing failed. malloc and calloc of our own code are wrapped by the linker. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replica/block/memory.h"
#include "replica/block/open.h"
#include "replica/block/pool.h"
#include "replica/block/wrappers.h"
#include "replica/loop/sim.h"
#include "tests/support/device.h"
#include "tests/support/directory.h"
#include "tests/support/expect.h"

enum { SIZE = 65536 };

static unsigned fail_at; /* the so-manyth allocation from now fails; 0: none */
static bool fail_all, failed;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

static bool must_fail(void)
{
    if (!fail_all && (fail_at == 0 || --fail_at != 0))
        return false;
    failed = true;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : __real_calloc(count, size);
}

/* Runs the block that follows with the 1st, 2nd ... allocation failing. */
#define SWEEP                                                                          \
    for (unsigned round = 1, more = 1;                                                 \
            more && (fail_at = round, failed = false, true);                           \
            more = failed, round++, fail_at = 0)

static uint8_t bytes[SIZE];

static void sweep_open(const struct block_spec *spec)
{
    struct loop *loop = loop_uv_create();
    struct device_opening opening;
    unsigned failures = 0;

    SWEEP
    {
        struct block_device *device = device_open(loop, spec, &opening);
        fail_at = 0;
        expect((device == NULL) == failed);
        expect_eq(opening.fault.error, failed ? -ENOMEM : 0);
        failures += failed;
        expect(!device || device_close(&device));
    }
    expect(failures >= 2);
    loop_destroy(loop);
}

Test(exhausted, opening_a_file)
{
    struct directory directory;

    expect(directory_make(&directory));
    expect_eq(pool_create(directory.fd, "disk", SIZE, false, NULL), 0);
    struct block_spec spec = { .driver = BLOCK_DRIVER_file,
        .writable = true,
        .block_size = 512,
        .directory = directory.fd,
        .name = "disk",
        .avoid = BLOCK_AVOID_URING };
    sweep_open(&spec);
    directory_remove(&directory);
}

/* A ring for which there is no memory is done without. */
Test(exhausted, opening_the_first_file_of_a_loop)
{
    struct directory directory;
    struct device_opening opening;
    unsigned failures = 0;

    expect(directory_make(&directory));
    expect_eq(pool_create(directory.fd, "disk", SIZE, false, NULL), 0);
    struct block_spec spec = { .driver = BLOCK_DRIVER_file,
        .writable = true,
        .block_size = 512,
        .directory = directory.fd,
        .name = "disk" };
    SWEEP
    {
        unsigned armed = fail_at;
        fail_at = 0;
        struct loop *loop = loop_uv_create();
        fail_at = armed;
        struct block_device *device = device_open(loop, &spec, &opening);
        fail_at = 0;
        failures += failed;
        expect_eq(opening.fault.error, device ? 0 : -ENOMEM);
        if (device) {
            expect_eq(device_write(device, 0, bytes, 512), 0);
            expect_eq(device_flush(device), 0);
            expect(device_close(&device));
        }
        loop_destroy(loop);
    }
    expect(failures >= 2);
    directory_remove(&directory);
}

Test(exhausted, opening_a_memory_disk)
{
    struct block_spec spec = { .driver = BLOCK_DRIVER_memory,
        .writable = true,
        .block_size = 512,
        .expect_size = SIZE };
    sweep_open(&spec);
}

/* Wrappers over a memory disk on the simulated loop: each request may need a slot. */
Test(exhausted, wrapping_and_asking)
{
    static const struct block_fault_plan none[] = { { .op = -1, .after = 1000000 } };
    unsigned failures = 0;

    SWEEP
    {
        unsigned armed = fail_at;
        fail_at = 0;
        struct loop *loop = loop_sim_create(round);
        struct memory_disk *disk = memory_disk_create(SIZE, 512);
        struct block_device *device = memory_disk_open(disk, loop, BLOCK_VOLATILE);
        fail_at = armed;
        struct block_device *slice = block_slice(&device, 512, 4096);
        struct block_device *top = slice ? slice : device;
        struct block_device *faulty = block_faulty(&top, none, 1);
        expect((slice == NULL) == (device != NULL));
        expect((faulty == NULL) == (top != NULL));
        top = faulty ? faulty : top;
        for (unsigned i = 0; i < 3; i++) {
            int result = device_write(top, 0, bytes, 512);
            expect(result == 0 || (failed && result == -ENOMEM));
        }
        fail_at = 0;
        expect_eq(device_write(top, 0, bytes, 512), 0);
        failures += failed;
        expect(device_close(&top));
        memory_disk_destroy(disk);
        loop_destroy(loop);
    }
    expect(failures >= 5);
}

Test(exhausted, making_loops)
{
    SWEEP
    {
        struct loop *loop = loop_uv_create();
        fail_at = 0;
        expect((loop == NULL) == failed);
        loop_destroy(loop);
    }
    SWEEP
    {
        struct loop *loop = loop_sim_create(1);
        fail_at = 0;
        expect((loop == NULL) == failed);
        loop_destroy(loop);
    }
}

Test(exhausted, a_loop_needs_descriptors)
{
    struct rlimit limit, enough;
    int first;

    loop_destroy(loop_uv_create()); /* libuv's own pipe: without it, it aborts */
    first = dup(0);
    close(first);
    expect_eq(getrlimit(RLIMIT_NOFILE, &enough), 0);
    for (unsigned spare = 0; spare < 2; spare++) {
        limit = enough;
        limit.rlim_cur = (rlim_t)first + spare;
        expect_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        expect(!loop_uv_create());
    }
    expect_eq(setrlimit(RLIMIT_NOFILE, &enough), 0);
    struct loop *loop = loop_uv_create();
    expect(loop);
    loop_destroy(loop);
}

struct chore {
    struct loop_work work;
    unsigned order;
    bool done;
};

static void chore_work(struct loop_work *work)
{
    (void)work;
}

static void chore_done(struct loop_work *work)
{
    container_of(work, struct chore, work)->done = true;
}

static void unready(struct loop_watch *watch, unsigned events)
{
    (void)watch, (void)events;
}

Test(exhausted, work_waits_for_memory_and_is_all_done)
{
    static struct chore chores[200];
    struct loop *loop = loop_uv_create();

    fail_all = true;
    for (unsigned i = 0; i < 200; i++) {
        chores[i].work = (struct loop_work){ .work = chore_work, .done = chore_done };
        loop_work_start(loop, &chores[i].work);
    }
    expect(failed);
    for (unsigned i = 0; i < 200; i++)
        expect(drive_until(loop, &chores[i].done));
    fail_all = false;
    loop_destroy(loop);
}

Test(exhausted, a_watch_needs_memory)
{
    struct loop *loop = loop_uv_create();
    struct loop_watch watch = { .ready = unready };
    int pair[2];

    expect_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    fail_all = true;
    expect_eq(loop_watch_set(loop, &watch, pair[0], LOOP_READABLE), -ENOMEM);
    fail_all = false;
    expect(!watch.handle);
    expect_eq(loop_watch_set(loop, &watch, pair[0], LOOP_READABLE), 0);
    loop_watch_stop(loop, &watch);
    close(pair[0]);
    close(pair[1]);
    loop_destroy(loop);
}

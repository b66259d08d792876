/* A copy in steady state allocates nothing: not for a request, not for a flush, whatever its
 * kind. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/block/memory.h"
#include "replica/copy/inside.h"
#include "tests/support/allocations.h"
#include "tests/support/device.h"
#include "tests/support/directory.h"

enum { MIB = 1 << 20, SIZE = 64 * MIB, PIECES = SIZE / COPY_CHUNK };

/* -- one copy, looked at in its middle ------------------------------------------------- */

/* The source's own submit, with a look at the counter: at the first requests all is still
   being built, and at the last ones taken down. */
static struct {
    const struct block_ops *real;
    struct block_ops ops;
    unsigned requests, first, last;
    uint64_t before, between; /* allocations */
} watch;

static void watch_submit(struct block_device *device, struct block_request *request)
{
    watch.requests++;
    if (watch.requests == watch.first)
        watch.before = allocations_take();
    if (watch.requests == watch.last)
        watch.between = allocations_take();
    watch.real->submit(device, request);
}

static void watch_begin(struct block_device *source, unsigned first, unsigned last)
{
    watch.real = source->ops;
    watch.ops = *source->ops;
    watch.ops.submit = watch_submit;
    watch.requests = 0;
    watch.first = first;
    watch.last = last;
    source->ops = &watch.ops;
    allocations_watch_all(true);
}

static void watch_end(struct block_device *source)
{
    allocations_watch_all(false);
    source->ops = watch.real;
    cr_assert(watch.requests >= watch.last, "only %u requests", watch.requests);
    cr_assert(watch.between == 0, "%" PRIu64 " allocations in %u requests",
            watch.between, watch.last - watch.first);
    cr_assert(!allocations_are_counted || watch.before > 0, "nothing is counted");
}

static void ended(void *context, int result, bool on_target,
        const struct copy_figures *figures, const struct fault *fault)
{
    (void)on_target, (void)figures;
    cr_assert(result == 0, "%s", fault->why);
    *(bool *)context = true;
}

static void expect_none(struct loop *loop, struct block_device *source,
        struct block_device *target, struct copy_options options)
{
    bool over = false;

    options.source = source;
    options.target = target;
    options.ended = ended;
    options.context = &over;
    watch_begin(source, PIECES / 4, PIECES * 7 / 8);
    cr_assert(copy_start(&options));
    cr_assert(drive_until(loop, &over));
    watch_end(source);
}

/* -- memory to memory ------------------------------------------------------------------ */

static void memory_to_memory(struct loop *loop)
{
    struct memory_disk *from = memory_disk_create(SIZE, 512),
                       *to = memory_disk_create(SIZE, 512);
    struct block_device *source, *target;
    static const enum copy_kind kinds[] = { COPY_FULL, COPY_DELTA, COPY_VERIFY };
    struct meter meter = { 0 };

    check(from && to);
    memset(memory_disk_bytes(from), 0x77, SIZE);
    meter_set(&meter, UINT64_C(1) << 40, loop_now(loop));
    for (unsigned i = 0; i < 3; i++) {
        source = memory_disk_open(from, loop, 0);
        target = memory_disk_open(to, loop, 0);
        check(source && target);
        expect_none(loop, source, target,
                (struct copy_options){ .kind = kinds[i],
                        .limit = UINT64_C(1) << 40,
                        .meters = { &meter } });
        cr_assert(device_close(&source) && device_close(&target));
    }
    memory_disk_destroy(from);
    memory_disk_destroy(to);
}

Test(allocations, none_from_memory_to_memory)
{
    struct loop *loop = loop_uv_create();

    check(loop);
    memory_to_memory(loop);
    loop_destroy(loop);
}

/* -- file to file ---------------------------------------------------------------------- */

static struct block_device *file_open(
        struct loop *loop, int directory, const char *name, bool writable)
{
    struct device_opening opening;
    struct block_spec spec = { .driver = BLOCK_DRIVER_file,
        .writable = writable,
        .block_size = 512,
        .directory = directory };

    snprintf(spec.name, sizeof(spec.name), "%s", name);
    cr_assert(device_open(loop, &spec, &opening) && opening.device, "%s",
            opening.fault.why);
    return opening.device;
}

static void file_fill(int directory, const char *name)
{
    static uint8_t bytes[MIB];
    int fd = openat(directory, name, O_CREAT | O_RDWR, 0600);

    check(fd >= 0);
    memset(bytes, 0x66, sizeof(bytes));
    for (unsigned i = 0; i < SIZE / MIB; i++)
        check(write(fd, bytes, MIB) == MIB);
    check(close(fd) == 0);
}

Test(allocations, none_from_file_to_file)
{
    struct directory directory;
    struct loop *loop = loop_uv_create();
    struct block_device *source, *target;

    check(loop && directory_make(&directory));
    file_fill(directory.fd, "from");
    file_fill(directory.fd, "to");
    source = file_open(loop, directory.fd, "from", false);
    target = file_open(loop, directory.fd, "to", true);
    expect_none(loop, source, target, (struct copy_options){ .kind = COPY_FULL });
    cr_assert(device_close(&source) && device_close(&target));
    loop_destroy(loop);
    directory_remove(&directory);
}

/* pump - what one request costs the engine: a copy from memory to memory.
 *
 * usage: pump PIECES [BYTES]; copies PIECES pieces of BYTES (4096), each a read and a
 * write. Prints the CPU nanoseconds and the allocations of the copy. Run twice under
 * callgrind with different PIECES: the difference is what a piece costs, exactly.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "replica/base/check.h"
#include "replica/block/device.h"
#include "replica/copy/copy.h"
#include "replica/loop/loop.h"

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

static unsigned long allocations;

void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    allocations++;
    return __libc_realloc(old, size);
}

enum { DEPTH = 8, IMAGE_MAX = 1 << 20 };

static uint8_t
        image[2][IMAGE_MAX]; /* every piece lies at its start: it stays in the cache */

static void memory_submit(struct block_device *device, struct block_request *request)
{
    void *bytes = image[(device->caps & BLOCK_READ_ONLY) == 0];

    if (request->op == BLOCK_READ)
        memcpy(request->iov->iov_base, bytes, request->length);
    else if (request->op == BLOCK_WRITE)
        memcpy(bytes, request->iov->iov_base, request->length);
    block_done_later(request, 0);
}

static const struct block_ops memory_ops = { .name = "memory",
    .submit = memory_submit };

static bool over;

static void ended(void *context, int result, bool on_target,
        const struct copy_figures *figures, const struct fault *fault)
{
    (void)context;
    (void)on_target;
    (void)fault;
    check(result == 0 && figures->watermark == figures->total);
    over = true;
}

static uint64_t cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
    uint64_t pieces = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    uint32_t bytes = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 4096;
    struct loop *loop = loop_uv_create();
    struct block_device source, target;
    unsigned long before;
    uint64_t began;

    check(loop && pieces > 0 && bytes >= 512 && bytes <= IMAGE_MAX);
    memset(image[0], 'x', IMAGE_MAX);
    source = (struct block_device){ .ops = &memory_ops,
        .loop = loop,
        .size = pieces * bytes,
        .block_size = 512,
        .max_transfer = bytes,
        .depth = DEPTH };
    target = source;
    source.caps = BLOCK_READ_ONLY;
    target.caps = BLOCK_VOLATILE;
    struct copy_options options = { .kind = COPY_FULL,
        .source = &source,
        .target = &target,
        .window = DEPTH,
        .ended = ended };
    before = allocations;
    began = cpu_ns();
    check(copy_start(&options));
    while (!over)
        check(loop_turn(loop));
    printf("%llu %lu\n", (unsigned long long)(cpu_ns() - began), allocations - before);
    loop_destroy(loop);
    return 0;
}

/* What a request of a file device costs: random reads or writes through block_submit() on
 * a loop, all their bytes cached. As a test it is only run; no time is asserted.
 * usage: file_cost DIRECTORY auto|uring|pool|inline read|write BYTES DEPTH REQUESTS
 * Prints requests a second, and a second of CPU: all threads, the kernel's for us too. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/block/open.h"
#include "replica/block/pool.h"
#include "tests/support/device.h"

enum { SIZE = 64 << 20, PIECE = 1 << 20, MOST = 256 };

static const char NAME[] = "file-cost";

struct one {
    struct block_request request;
    struct iovec iov;
};

static struct block_device *device;
static struct one ones[MOST];
static uint64_t wanted, started, over, unit, state = 1;
static bool all_over;

static uint64_t draw(uint64_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
}

static void start(struct one *one)
{
    started++;
    one->request.offset = draw(SIZE / unit) * unit;
    block_submit(device, &one->request);
}

static void done(struct block_request *request, int result)
{
    check(result == 0);
    if (++over == wanted)
        all_over = true;
    if (started < wanted)
        start(container_of(request, struct one, request));
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double process_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
            (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void make_file(int directory)
{
    uint8_t *fill = malloc(PIECE);
    int fd;

    (void)unlinkat(directory, NAME, 0);
    check(fill && pool_create(directory, NAME, SIZE, true, NULL) == 0);
    fd = openat(directory, NAME, O_RDWR | O_CLOEXEC);
    memset(fill, 0x5a, PIECE);
    for (off_t at = 0; at < SIZE; at += PIECE)
        check(pwrite(fd, fill, PIECE, at) == PIECE);
    check(fsync(fd) == 0 && close(fd) == 0);
    free(fill);
}

static void ones_set(unsigned depth, enum block_op op)
{
    for (unsigned i = 0; i < depth; i++) {
        ones[i].iov = (struct iovec){ aligned_alloc(4096, unit), unit };
        check(ones[i].iov.iov_base);
        memset(ones[i].iov.iov_base, 0x5a, unit);
        ones[i].request = (struct block_request){
            .op = op, .length = unit, .iov = &ones[i].iov, .iovcnt = 1, .done = done
        };
    }
}

static void drive(struct loop *loop, unsigned depth)
{
    for (unsigned i = 0; i < depth && i < wanted; i++)
        start(&ones[i]);
    while (!all_over)
        check(loop_turn(loop));
    for (unsigned i = 0; i < depth; i++)
        free(ones[i].iov.iov_base);
}

int main(int count, char **words)
{
    check(count == 7);
    int directory = open(words[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    enum block_op op = strcmp(words[3], "write") == 0 ? BLOCK_WRITE : BLOCK_READ;
    unsigned depth = (unsigned)atoi(words[5]);
    struct block_spec spec = { .driver = BLOCK_DRIVER_file,
        .writable = true,
        .block_size = 512,
        .directory = directory,
        .name = "file-cost" };
    struct loop *loop;
    double wall, cpu;

    (void)setenv("UV_THREADPOOL_SIZE", "24", 1);
    if (strcmp(words[2], "auto") != 0)
        (void)setenv("REPLICAD_FILES", words[2], 1);
    loop = loop_uv_create();
    unit = (uint64_t)atoll(words[4]);
    wanted = (uint64_t)atoll(words[6]);
    check(directory >= 0 && loop && depth > 0 && depth <= MOST);
    check(unit > 0 && unit % 4096 == 0 && unit <= PIECE);
    make_file(directory);
    device = device_open(loop, &spec, NULL);
    check(device);
    ones_set(depth, op);
    wall = seconds(CLOCK_MONOTONIC);
    cpu = process_seconds();
    drive(loop, depth);
    wall = seconds(CLOCK_MONOTONIC) - wall;
    cpu = process_seconds() - cpu;
    printf("%-6s %-5s %7llu B, depth %3u: %8.0f a second, %8.0f a second of CPU\n",
            words[2], words[3], (unsigned long long)unit, depth, (double)wanted / wall,
            (double)wanted / cpu);
    check(device_close(&device));
    loop_destroy(loop);
    (void)unlinkat(directory, NAME, 0);
    (void)close(directory);
    return 0;
}

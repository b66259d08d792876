#include "tests/replica/block/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/block/memory.h"
#include "replica/block/open.h"
#include "replica/block/pool.h"
#include "replica/block/wrappers.h"
#include "tests/support/device.h"
#include "tests/support/directory.h"

/* -- memory --------------------------------------------------------------------------- */

enum {
    ALL_CAPS = BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD | BLOCK_CAN_EXTENTS |
            BLOCK_DISCARD_ZEROES | BLOCK_VOLATILE,
    FEW_CAPS = BLOCK_CAN_DISCARD, /* discarded ranges hold garbage */
};

static bool memory_make(struct fixture_store *store, const uint8_t *bytes)
{
    struct memory_disk *disk = memory_disk_create(store->size, store->block_size);

    if (!disk)
        return false;
    memcpy(memory_disk_bytes(disk), bytes, store->size);
    memory_disk_settle(disk);
    store->own = disk;
    return true;
}

static struct block_device *memory_open_with(
        struct fixture_store *store, struct loop *loop, unsigned caps, bool writable)
{
    return memory_disk_open(
            store->own, loop, caps | (writable ? 0u : (unsigned)BLOCK_READ_ONLY));
}

static struct block_device *memory_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    return memory_open_with(store, loop, ALL_CAPS, writable);
}

static struct block_device *memory_poor_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    return memory_open_with(store, loop, FEW_CAPS, writable);
}

static void memory_peek(
        struct fixture_store *store, uint64_t offset, void *to, uint64_t length)
{
    memcpy(to, memory_disk_bytes(store->own) + offset, length);
}

static void memory_destroy(struct fixture_store *store)
{
    memory_disk_destroy(store->own);
}

#define MEMORY(...)                                                                    \
    .make = memory_make, .open = memory_open, .peek = memory_peek,                     \
    .destroy = memory_destroy, __VA_ARGS__

static const struct fixture memory_uv = { MEMORY(.name = "memory", .block_size = 512) };
static const struct fixture memory_sim = { MEMORY(.name = "memory-sim",
        .block_size = 512, .simulated = true) };
static const struct fixture memory_sim_4096 = { MEMORY(.name = "memory-sim-4096",
        .block_size = 4096, .simulated = true) };
static const struct fixture memory_poor = {
    .name = "memory-poor",
    .block_size = 512,
    .simulated = true,
    .make = memory_make,
    .open = memory_poor_open,
    .peek = memory_peek,
    .destroy = memory_destroy,
};

/* -- files ---------------------------------------------------------------------------- */

struct file_store {
    struct directory directory;
    int fd; /* the oracle's own */
};

static bool file_make_with(
        struct fixture_store *store, const uint8_t *bytes, bool reserve)
{
    struct file_store *own = calloc(1, sizeof *own);

    check(own && directory_make(&own->directory));
    store->own = own;
    if (pool_create(own->directory.fd, "disk.raw", store->size, reserve, NULL) < 0)
        return false;
    own->fd = openat(own->directory.fd, "disk.raw", O_RDWR | O_CLOEXEC);
    for (uint64_t at = 0; at < store->size;) { /* holes stay holes */
        uint64_t n = store->size - at < 4096 ? store->size - at : 4096;
        static const uint8_t zeros[4096];
        if (memcmp(bytes + at, zeros, n) != 0 &&
                pwrite(own->fd, bytes + at, n, (off_t)at) != (ssize_t)n)
            return false;
        at += n;
    }
    return true;
}

static bool file_make(struct fixture_store *store, const uint8_t *bytes)
{
    return file_make_with(store, bytes, false);
}

static bool file_thick_make(struct fixture_store *store, const uint8_t *bytes)
{
    return file_make_with(store, bytes, true);
}

static struct block_device *file_open_without(
        struct fixture_store *store, struct loop *loop, bool writable, unsigned avoid)
{
    struct file_store *own = store->own;
    struct block_spec spec = { .driver = BLOCK_DRIVER_file,
        .writable = writable,
        .block_size = store->block_size,
        .expect_size = store->size,
        .directory = own->directory.fd,
        .name = "disk.raw",
        .avoid = avoid };

    return device_open(loop, &spec, NULL);
}

static struct block_device *file_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    return file_open_without(store, loop, writable, 0);
}

static struct block_device *file_pool_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    return file_open_without(
            store, loop, writable, BLOCK_AVOID_URING | BLOCK_AVOID_INLINE);
}

static struct block_device *file_inline_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    return file_open_without(store, loop, writable, BLOCK_AVOID_URING);
}

static struct block_device *file_uring_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    return file_open_without(store, loop, writable, BLOCK_AVOID_INLINE);
}

static void file_peek(
        struct fixture_store *store, uint64_t offset, void *to, uint64_t length)
{
    struct file_store *own = store->own;
    check(pread(own->fd, to, length, (off_t)offset) == (ssize_t)length);
}

static void file_destroy(struct fixture_store *store)
{
    struct file_store *own = store->own;

    (void)close(own->fd);
    directory_remove(&own->directory);
    free(own);
}

#define FILE_ROW(...)                                                                  \
    .open = file_open, .peek = file_peek, .destroy = file_destroy, __VA_ARGS__

static const struct fixture file_1 = { FILE_ROW(.name = "file-1", .block_size = 1,
        .make = file_make) };
static const struct fixture file_512 = { FILE_ROW(.name = "file-512", .block_size = 512,
        .make = file_make) };
static const struct fixture file_4096 = { FILE_ROW(.name = "file-4096",
        .block_size = 4096, .make = file_make) };
static const struct fixture file_thick = { FILE_ROW(.name = "file-thick",
        .block_size = 512, .make = file_thick_make) };

/* The ways it calls the kernel, one a row; the rows above take the best there is. */
#define FILE_WAY(...)                                                                  \
    .block_size = 512, .make = file_make, .peek = file_peek, .destroy = file_destroy,  \
    __VA_ARGS__

static const struct fixture file_pool = { FILE_WAY(.name = "file-pool",
        .open = file_pool_open) };
static const struct fixture file_inline = { FILE_WAY(.name = "file-inline",
        .open = file_inline_open) };
static const struct fixture file_uring = { FILE_WAY(.name = "file-uring",
        .open = file_uring_open) };

/* -- wrappers ------------------------------------------------------------------------- */

/* A window in the middle of something larger, whose margins must never change. */
enum { MARGIN = 12288, MARGIN_BYTE = 0x77 };

struct slice_store {
    struct fixture_store under;
    const struct fixture *fixture;
};

static bool slice_make_over(const struct fixture *fixture, struct fixture_store *store,
        const uint8_t *bytes)
{
    struct slice_store *own = calloc(1, sizeof *own);
    uint8_t *whole = malloc(store->size + 2 * MARGIN);
    bool made;

    check(own && whole);
    store->own = own;
    own->fixture = fixture;
    own->under.size = store->size + 2 * MARGIN;
    own->under.block_size = store->block_size;
    memset(whole, MARGIN_BYTE, own->under.size);
    memcpy(whole + MARGIN, bytes, store->size);
    made = fixture->make(&own->under, whole);
    free(whole);
    return made;
}

static bool slice_memory_make(struct fixture_store *store, const uint8_t *bytes)
{
    return slice_make_over(&memory_sim, store, bytes);
}

static bool slice_file_make(struct fixture_store *store, const uint8_t *bytes)
{
    return slice_make_over(&file_512, store, bytes);
}

static struct block_device *slice_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    struct slice_store *own = store->own;
    struct block_device *under = own->fixture->open(&own->under, loop, writable);

    return under ? block_slice(&under, MARGIN, store->size) : NULL;
}

static void slice_peek(
        struct fixture_store *store, uint64_t offset, void *to, uint64_t length)
{
    struct slice_store *own = store->own;
    own->fixture->peek(&own->under, MARGIN + offset, to, length);
}

static void slice_destroy(struct fixture_store *store)
{
    struct slice_store *own = store->own;
    uint8_t margin[MARGIN];

    for (unsigned side = 0; side < 2; side++) {
        own->fixture->peek(
                &own->under, side ? MARGIN + store->size : 0, margin, MARGIN);
        for (unsigned i = 0; i < MARGIN; i++)
            check(margin[i] == MARGIN_BYTE); /* somebody wrote outside the window */
    }
    own->fixture->destroy(&own->under);
    free(own);
}

static const struct fixture slice_memory = {
    .name = "slice-over-memory",
    .block_size = 512,
    .simulated = true,
    .make = slice_memory_make,
    .open = slice_open,
    .peek = slice_peek,
    .destroy = slice_destroy,
};
static const struct fixture slice_file = {
    .name = "slice-over-file",
    .block_size = 512,
    .make = slice_file_make,
    .open = slice_open,
    .peek = slice_peek,
    .destroy = slice_destroy,
};

/* Delays alone must not change what a device is. */
static struct block_device *faulty_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    static const struct block_fault_plan late[] = {
        { .op = -1, .after = 3, .times = 20, .delay_ms = 3 },
    };
    struct block_device *under = memory_open(store, loop, writable);

    return under ? block_faulty(&under, late, 1) : NULL;
}

static const struct fixture faulty_memory = {
    .name = "faulty-over-memory",
    .block_size = 512,
    .simulated = true,
    .make = memory_make,
    .open = faulty_open,
    .peek = memory_peek,
    .destroy = memory_destroy,
};

const struct fixture *const fixtures[] = {
    &memory_uv,
    &memory_sim,
    &memory_sim_4096,
    &memory_poor,
    &file_1,
    &file_512,
    &file_4096,
    &file_thick,
    &file_pool,
    &file_inline,
    &file_uring,
    &slice_memory,
    &slice_file,
    &faulty_memory,
    &fixture_iscsi_512,
    &fixture_iscsi_4096,
    &fixture_iscsi_512_thick,
    &fixture_iscsi_4096_thin,
    NULL,
};

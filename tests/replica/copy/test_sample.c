/* The look at a target before a run by digests: what was emptied is found, what is as it was
 * is not doubted, and few chunks are read. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/digest.h"
#include "replica/block/memory.h"
#include "replica/block/wrappers.h"
#include "replica/copy/sample.h"
#include "replica/loop/sim.h"
#include "tests/support/seed.h"

enum { CHUNK = SIDECAR_CHUNK };

static struct loop *loop;
static struct memory_disk *disk;
static struct block_device *device;
static struct digest_sidecar *table;
static uint64_t chunks;
static struct {
    unsigned ends;
    int result;
    uint64_t at;
} said;

static uint64_t seed(void)
{
    static uint64_t taken;

    return taken ? taken : (taken = seed_take("sample"));
}

static void done(void *context, int result, uint64_t at)
{
    cr_assert(context == &said && device->in_flight == 0);
    said.ends++;
    said.result = result;
    said.at = at;
}

static uint8_t *chunk(uint64_t i)
{
    return memory_disk_bytes(disk) + i * CHUNK;
}

/* A disk of @count chunks, every @data-th with data; known, with half a chunk behind. */
static void make(uint64_t count, uint64_t data, const struct block_fault_plan *fault)
{
    uint64_t size = count * CHUNK + CHUNK / 2;

    chunks = count;
    loop = loop_sim_create(seed());
    disk = memory_disk_create(size, 512);
    table = sidecar_create(size);
    check(loop && disk && table);
    memset(memory_disk_bytes(disk), 0, size);
    sidecar_put_zeros(table, 0, size);
    for (uint64_t i = 0; i < count; i += data) {
        memset(chunk(i), 1 + (int)(i % 255), CHUNK);
        sidecar_put(table, i * CHUNK, digest_xxh3(chunk(i), CHUNK));
    }
    memory_disk_settle(disk);
    device = memory_disk_open(disk, loop, 0);
    device = block_faulty(&device, fault, fault ? 1 : 0);
    check(device);
    memset(&said, 0, sizeof said);
}

static uint64_t chunks_read(void)
{
    return block_faulty_counts(device).seen[BLOCK_READ];
}

static void look(uint64_t seed, bool stops)
{
    struct sample *sample;

    said.ends = 0;
    sample = sample_start(device, table, seed, done, &said);
    check(sample);
    cr_assert(said.ends == 0, "it ended inside");
    if (stops) {
        for (int i = 0; i < 3; i++)
            cr_assert(loop_sim_step(loop));
        sample_stop(sample);
    }
    while (loop_sim_step(loop))
        ;
    cr_assert(said.ends == 1);
}

static void closed(void *context)
{
    *(bool *)context = true;
}

static void unmake(void)
{
    bool gone = false;

    block_close(device, closed, &gone);
    while (loop_sim_step(loop))
        ;
    cr_assert(gone);
    sidecar_destroy(table);
    memory_disk_destroy(disk);
    loop_destroy(loop);
}

Test(sample, what_is_as_it_was_is_not_doubted)
{
    static const uint64_t counts[] = { 0, 1, 2, 63, 64, 65, 500 };

    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        make(counts[i], 1, NULL);
        look(seed() + i, false);
        cr_assert(said.result == 0);
        cr_assert(chunks_read() == (chunks < SAMPLE_LEAST ? chunks : SAMPLE_LEAST));
        unmake();
    }
}

/* However little of it was data. */
Test(sample, what_was_emptied_is_found)
{
    for (unsigned i = 0; i < 40; i++) {
        make(700, i % 2 ? 1 : 699, NULL);
        memset(memory_disk_bytes(disk), 0, chunks * CHUNK);
        look(seed() + i, false);
        cr_assert(said.result == -EILSEQ && said.at % CHUNK == 0);
        cr_assert(chunks_read() <= 2 * SAMPLE_LEAST);
        unmake();
    }
}

/* Every chunk may be drawn. */
Test(sample, in_time_one_flipped_bit_is_found_anywhere)
{
    for (uint64_t at = 0; at < 96; at++) {
        unsigned looks = 0;
        make(96, 2, NULL);
        chunk(at)[at] ^= 1;
        do
            look(seed() + 1000 * at + looks, false);
        while (said.result == 0 && ++looks < 500);
        cr_assert(said.result == -EILSEQ && said.at == at * CHUNK,
                "chunk %" PRIu64 " was not looked at", at);
        unmake();
    }
}

Test(sample, what_is_not_known_is_passed_over)
{
    make(300, 1, NULL);
    sidecar_forget(table, 0, 200 * (uint64_t)CHUNK);
    memset(memory_disk_bytes(disk), 0xff, 200 * (size_t)CHUNK);
    look(seed(), false);
    cr_assert(said.result == 0 && chunks_read() < SAMPLE_LEAST);
    sidecar_forget(table, 0, table->size);
    look(seed(), false);
    cr_assert(said.result == 0);
    unmake();
}

Test(sample, a_device_that_fails_is_told)
{
    struct block_fault_plan fault = { .op = BLOCK_READ, .after = 20, .error = -EIO };

    make(300, 1, &fault);
    look(seed(), false);
    cr_assert(said.result == -EIO && chunks_read() < 21 + 2 * SAMPLE_WIDTH);
    unmake();
}

Test(sample, a_stop_begins_nothing_more)
{
    make(300, 1, NULL);
    look(seed(), true);
    cr_assert(said.result == -ECANCELED && chunks_read() < SAMPLE_LEAST / 2);
    unmake();
}

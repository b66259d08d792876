/* One flipped bit is found wherever it is and whenever it happened before its place was read: at
 * both ends, on both sides of every request's and grain's edge, by verifying alone and by the
 * reading back after a copy, also when it flips while that runs. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "replica/base/checked.h"
#include "replica/copy/inside.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/rig.h"

enum { SIZE = (2 << 20) + 4096 + 77, LONG = 2 * SIZE, WINDOW = 2, RUNNING = 40 };

static const uint32_t blocks[] = { 1, 512, 4096 };

static void pair(struct rig *rig, unsigned i, uint64_t size)
{
    size = round_up(size, blocks[i % 3]);

    rig_init_plain(rig, rig_seed() + 400000 + i, size, blocks[i % 3], blocks[i / 3 % 3],
            BLOCK_CAN_EXTENTS, BLOCK_VOLATILE | BLOCK_CAN_EXTENTS | BLOCK_CAN_ZERO);
    memset(memory_disk_bytes(rig->source) + size / 2, 0, size / 4);
    memory_disk_settle(rig->source);
    memcpy(rig->source_shadow, memory_disk_bytes(rig->source), size);
    memcpy(memory_disk_bytes(rig->target), memory_disk_bytes(rig->source), size);
    memory_disk_settle(rig->target);
}

static void flip(struct rig *rig, uint64_t at)
{
    memory_disk_bytes(rig->target)[at] ^= (uint8_t)(1u << rig_below(rig, 8));
}

static void expect_found(const struct rig *rig, int result, uint64_t at)
{
    cr_assert(result == -EILSEQ && rig->on_target,
            "seed %" PRIu64 ": byte %" PRIu64 ": %d", rig->seed, at, result);
    cr_assert(rig->last.done < rig->source_size);
}

/* Both sides of every edge, and both ends. */
static uint64_t edge(const struct rig *rig, unsigned n)
{
    uint64_t at = n / 2 * COPY_GRAIN;

    if (n % 2)
        return min_u64(at, rig->source_size - 1);
    return at ? at - 1 : rig->source_size - 1;
}

Test(flips, at_every_edge)
{
    for (unsigned n = 0; n < 2 * (SIZE / COPY_GRAIN + 1); n++) {
        struct rig rig;
        pair(&rig, n, SIZE);
        flip(&rig, edge(&rig, n));
        struct copy_options options = rig_options(COPY_VERIFY);
        expect_found(&rig, rig_copy(&rig, &options), edge(&rig, n));
        rig_finish(&rig);
    }
}

/* Runs until so much was read back, told or not. False: it has ended. */
static bool run_until(struct rig *rig, uint64_t read)
{
    while (!rig->ended && rig->live.read < read) {
        cr_assert(loop_sim_step(rig->loop));
        rig_watch(rig);
    }
    return !rig->ended;
}

/* Behind all that can be under way: it is found. In what was read: by the next one. */
Test(flips, while_verifying)
{
    for (unsigned i = 0; i < RUNNING; i++) {
        struct rig rig;
        pair(&rig, i, LONG);
        struct copy_options options = rig_options(COPY_VERIFY);
        options.window = WINDOW;
        rig_start(&rig, &options, NULL, 0, NULL, 0);
        cr_assert(run_until(&rig, 1 + rig_below(&rig, LONG / 2)));
        bool behind = i % 4 != 3;
        uint64_t from = rig.live.read / 2 + (uint64_t)WINDOW * COPY_CHUNK;
        uint64_t at = behind ? from + rig_below(&rig, rig.source_size - from)
                             : rig_below(&rig, rig.live.done + 1);
        flip(&rig, at);
        int result = rig_run(&rig);
        if (behind)
            expect_found(&rig, result, at);
        memset(&rig.last, 0, sizeof rig.last);
        options = rig_options(COPY_VERIFY);
        expect_found(&rig, rig_copy(&rig, &options), at);
        rig_finish(&rig);
    }
}

/* The same of the reading back after a copy, whatever was sent. */
Test(flips, while_reading_back)
{
    unsigned found = 0;

    for (unsigned i = 0; i < RUNNING; i++) {
        struct rig rig;
        pair(&rig, i, LONG);
        struct copy_options options = rig_options(i % 2 ? COPY_FULL : COPY_DELTA);
        options.verify = true;
        options.window = WINDOW;
        rig_start(&rig, &options, NULL, 0, NULL, 0);
        while (rig.last.watermark < rig.source_size)
            cr_assert(loop_sim_step(rig.loop) && !rig.ended);
        /* All is flushed and told: what follows reads it back. */
        uint64_t at = i % 5 == 0 ? rig.source_size - 1
                                 : (uint64_t)WINDOW * COPY_CHUNK +
                        rig_below(
                                &rig, rig.source_size - (uint64_t)WINDOW * COPY_CHUNK);
        flip(&rig, at);
        expect_found(&rig, rig_run(&rig), at);
        cr_assert(rig.last.watermark == rig.source_size);
        found++;
        rig_finish(&rig);
    }
    cr_assert(found == RUNNING);
}

/* One bit of the source, on both sides of every chunk's edge: what is known of the target says
   so, and that chunk alone is sent. */
Test(flips, a_resync_by_digest_repairs_any)
{
    for (unsigned n = 0; n < 2 * (SIZE / COPY_GRAIN + 1); n++) {
        struct rig rig;
        pair(&rig, n, SIZE);
        struct digest_sidecar *table = sidecar_create(rig.source_size);
        struct copy_options options = rig_options(COPY_FULL);
        options.sidecar = table;
        cr_assert(rig_copy(&rig, &options) == 0 && sidecar_whole(table, 0));
        uint64_t at = edge(&rig, n);
        memory_disk_bytes(rig.source)[at] ^= (uint8_t)(1u << rig_below(&rig, 8));
        rig.source_shadow[at] = memory_disk_bytes(rig.source)[at];
        memory_disk_settle(rig.source);
        memset(&rig.last, 0, sizeof rig.last);
        options = rig_options(COPY_DELTA);
        options.sidecar = table;
        options.by_digest = true;
        cr_assert(rig_copy(&rig, &options) == 0);
        rig_expect_equal(&rig);
        cr_assert(rig.last.written > 0 && rig.last.written <= COPY_GRAIN);
        sidecar_destroy(table);
        rig_finish(&rig);
    }
}

/* Random volumes: whatever their sizes, blocks, contents and abilities, equal at the end. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tests/replica/copy/rig.h"

enum { VOLUMES = 200, SIZE = 4 << 20 };

static const uint64_t LIMITS[] = { 0, 0, 5000000, 100000000 };

static struct copy_options draw_options(struct rig *rig, enum copy_kind kind)
{
    struct copy_options options = rig_options(kind);

    options.target_zero = rig->target_zero && rig_below(rig, 2);
    options.verify = rig_below(rig, 3) == 0;
    options.window = (unsigned)rig_below(rig, 9);
    options.limit = LIMITS[rig_below(rig, 4)];
    return options;
}

Test(copy, random_volumes_come_out_equal)
{
    for (unsigned i = 0; i < VOLUMES; i++) {
        struct rig rig;
        rig_init(&rig, rig_seed() + i, SIZE);
        struct copy_options options = draw_options(&rig, COPY_FULL);
        cr_assert(rig_copy(&rig, &options) == 0, "seed %" PRIu64 ": %s", rig.seed,
                rig.fault.why);
        rig_cut(&rig); /* what is done is flushed */
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

Test(copy, random_deltas_come_out_equal)
{
    for (unsigned i = 0; i < VOLUMES; i++) {
        struct rig rig;
        rig_init(&rig, rig_seed() + 1000 + i, SIZE);
        struct copy_options options = draw_options(&rig, COPY_DELTA);
        cr_assert(rig_copy(&rig, &options) == 0, "seed %" PRIu64 ": %s", rig.seed,
                rig.fault.why);
        rig_cut(&rig); /* what is done is flushed */
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

/* One bit, at the edges of grains and blocks above all, is found and repaired alone. */
Test(copy, a_delta_repairs_any_single_bit)
{
    static const uint64_t edges[] = { 0, 1, 511, 512, 65535, 65536, 131071, 524287,
        524288 };
    enum { EDGES = sizeof edges / sizeof *edges, ALL = 60 };

    for (unsigned i = 0; i < ALL; i++) {
        struct rig rig;
        rig_init_plain(&rig, rig_seed() + i, (1 << 20) + 4096 + i % 3, 1, 1, 0,
                BLOCK_VOLATILE);
        memcpy(memory_disk_bytes(rig.target), memory_disk_bytes(rig.source),
                rig.source_size);
        uint64_t at = i < EDGES ? edges[i]
                : i == EDGES    ? rig.source_size - 1
                                : rig_below(&rig, rig.source_size);
        memory_disk_bytes(rig.target)[at] ^= (uint8_t)(1u << i % 8);
        memory_disk_settle(rig.target);
        struct copy_options options = rig_options(COPY_DELTA);
        cr_assert(rig_copy(&rig, &options) == 0);
        cr_assert(rig.last.sent > 0 && rig.last.sent <= 65536);
        rig_expect_equal(&rig);
        rig_finish(&rig);
    }
}

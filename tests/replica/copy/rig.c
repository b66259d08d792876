#include "tests/replica/copy/rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/digest.h"
#include "replica/base/scope.h"
#include "replica/loop/sim.h"

uint64_t rig_seed(void)
{
    static uint64_t seed;
    const char *text = getenv("REPLICAD_SEED");

    if (!seed) {
        seed = text ? strtoull(text, NULL, 0) : 20261121;
        fprintf(stderr, "REPLICAD_SEED=%" PRIu64 "\n", seed);
    }
    return seed;
}

uint64_t rig_random(struct rig *rig)
{
    uint64_t z = rig->random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t rig_below(struct rig *rig, uint64_t below)
{
    return rig_random(rig) % below;
}

/* -- contents ------------------------------------------------------------------------ */

static void fill_random(struct rig *rig, uint8_t *bytes, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += sizeof(uint64_t)) {
        uint64_t word = rig_random(rig);
        memcpy(bytes + at, &word, min_u64(sizeof word, length - at));
    }
}

/* Runs of data and of zeros, some short, some longer than any chunk. */
static void fill_runs(struct rig *rig, uint8_t *bytes, uint64_t size)
{
    for (uint64_t at = 0; at < size;) {
        uint64_t most = rig_below(rig, 3) ? 100000 : 3 << 20;
        uint64_t length = min_u64(1 + rig_below(rig, most), size - at);
        if (rig_below(rig, 4) == 0)
            length = min_u64(round_up(length, 65536), size - at);
        if (rig_below(rig, 2))
            fill_random(rig, bytes + at, length);
        at += length;
    }
}

/* Every other block is zeros: more extents than one answer takes. */
static void fill_stripes(struct rig *rig, uint8_t *bytes, uint64_t size)
{
    uint64_t block = rig->source_block > 1 ? rig->source_block : 512;

    for (uint64_t at = 0; at < size; at += 2 * block)
        fill_random(rig, bytes + at, min_u64(block, size - at));
}

void rig_scribble(
        struct rig *rig, uint8_t *bytes, uint64_t size, unsigned places, uint64_t most)
{
    for (uint64_t i = rig_below(rig, places); i > 0 && size; i--) {
        uint64_t at = rig_below(rig, size);
        uint64_t length = min_u64(1 + rig_below(rig, most), size - at);
        switch (rig_below(rig, 3)) {
        case 0:
            bytes[at] ^= (uint8_t)(1u << rig_below(rig, 8));
            break;
        case 1:
            memset(bytes + at, 0, length);
            break;
        default:
            fill_random(rig, bytes + at, length);
        }
    }
}

/* The target of a delta: mostly equal. */
static void fill_similar(
        struct rig *rig, const uint8_t *from, uint8_t *bytes, uint64_t size)
{
    memcpy(bytes, from, size);
    rig_scribble(rig, bytes, size, 12, 200000);
}

static void shadow(struct rig *rig)
{
    memory_disk_settle(rig->source);
    memory_disk_settle(rig->target);
    rig->source_shadow = malloc(rig->source_size + 1);
    rig->target_shadow = malloc(rig->target_size + 1);
    check(rig->source_shadow && rig->target_shadow);
    memcpy(rig->source_shadow, memory_disk_bytes(rig->source), rig->source_size);
    memcpy(rig->target_shadow, memory_disk_bytes(rig->target), rig->target_size);
}

static void disks_create(struct rig *rig, uint64_t seed)
{
    rig->seed = seed;
    rig->loop = loop_sim_create(seed);
    rig->source = memory_disk_create(rig->source_size, rig->source_block);
    rig->target = memory_disk_create(rig->target_size, rig->target_block);
    check(rig->loop && rig->source && rig->target);
}

static unsigned draw_caps(struct rig *rig)
{
    static const unsigned all[] = { BLOCK_CAN_ZERO, BLOCK_CAN_DISCARD,
        BLOCK_CAN_EXTENTS, BLOCK_DISCARD_ZEROES };
    unsigned caps = BLOCK_VOLATILE;

    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (rig_below(rig, 2))
            caps |= all[i];
    return caps;
}

void rig_init(struct rig *rig, uint64_t seed, uint64_t most)
{
    static const uint32_t blocks[] = { 1, 512, 4096 };
    uint64_t size;

    *rig = (struct rig){ .random = seed, .crowded = true };
    rig->source_block = blocks[rig_below(rig, 3)];
    rig->target_block = blocks[rig_below(rig, 3)];
    size = rig_below(rig, rig_below(rig, 4) ? most : 70000);
    rig->source_size = round_up(size, rig->source_block);
    rig->target_size = round_up(rig->source_size, rig->target_block) +
            rig_below(rig, 20) * rig->target_block;
    rig->source_caps = draw_caps(rig) | BLOCK_READ_ONLY;
    rig->target_caps = draw_caps(rig);
    rig->exact = rig_below(rig, 2);
    disks_create(rig, seed);
    if (rig_below(rig, 16))
        fill_runs(rig, memory_disk_bytes(rig->source), rig->source_size);
    else
        fill_stripes(rig, memory_disk_bytes(rig->source), rig->source_size);
    rig->target_zero = rig_below(rig, 4) == 0;
    if (!rig->target_zero && rig_below(rig, 2))
        fill_random(rig, memory_disk_bytes(rig->target), rig->target_size);
    else if (!rig->target_zero)
        fill_similar(rig, memory_disk_bytes(rig->source),
                memory_disk_bytes(rig->target), rig->source_size);
    shadow(rig);
}

void rig_init_plain(struct rig *rig, uint64_t seed, uint64_t size,
        uint32_t source_block, uint32_t target_block, unsigned source_caps,
        unsigned target_caps)
{
    *rig = (struct rig){ .random = seed,
        .source_block = source_block,
        .target_block = target_block,
        .source_size = size,
        .target_size = round_up(size, target_block) + 3 * target_block,
        .source_caps = source_caps | BLOCK_READ_ONLY,
        .target_caps = target_caps };
    disks_create(rig, seed);
    fill_random(rig, memory_disk_bytes(rig->source), rig->source_size);
    fill_random(rig, memory_disk_bytes(rig->target), rig->target_size);
    shadow(rig);
}

void rig_finish(struct rig *rig)
{
    memory_disk_destroy(rig->source);
    memory_disk_destroy(rig->target);
    loop_destroy(rig->loop);
    free(rig->source_shadow);
    free(rig->target_shadow);
}

/* -- one run ------------------------------------------------------------------------- */

static void judge(struct rig *rig, const struct copy_figures *now)
{
    const struct copy_figures *last = &rig->last;

    cr_assert(now->total == rig->source_size, "seed %" PRIu64, rig->seed);
    cr_assert(now->done >= rig->floor_done && now->done >= last->done,
            "seed %" PRIu64 ": progress falls from %" PRIu64 " to %" PRIu64, rig->seed,
            last->done, now->done);
    cr_assert(now->done <= now->total && now->watermark <= now->total);
    cr_assert(now->watermark >= last->watermark && now->verified >= last->verified);
    cr_assert(now->skipped >= last->skipped && now->written >= last->written);
    cr_assert(now->equal >= last->equal && now->equal <= now->skipped);
    if (rig->options.kind != COPY_VERIFY)
        cr_assert(now->skipped + now->written == now->watermark,
                "seed %" PRIu64 ": %" PRIu64 " + %" PRIu64 " is not %" PRIu64,
                rig->seed, now->skipped, now->written, now->watermark);
    else
        cr_assert(now->written == 0 && now->sent == 0 && now->done <= now->verified);
    if (!rig->options.verify && rig->options.kind != COPY_VERIFY)
        cr_assert(now->done == now->watermark);
    /* What is told as written was sent, in this run or in one before. */
    cr_assert(now->written - rig->floor_written <= now->sent);
    rig->last = *now;
}

static void guests_draw(struct rig *rig)
{
    unsigned guests = (unsigned)rig_below(rig, 2);

    rig->company += guests - rig->guests;
    rig->guests = guests;
}

void rig_watch(struct rig *rig)
{
    const struct copy_figures before = rig->live, *now = &rig->live;

    if (!rig->copy)
        return;
    if (rig->crowded)
        guests_draw(rig);
    copy_figures(rig->copy, &rig->live);
    cr_assert(now->done >= before.done && now->done >= rig->last.done &&
                    now->done <= now->total,
            "seed %" PRIu64 ": live progress falls", rig->seed);
    cr_assert(now->read >= before.read && now->sent >= before.sent &&
            now->skipped >= before.skipped && now->written >= before.written);
    cr_assert(now->watermark == rig->last.watermark, "a watermark nobody was told of");
    cr_assert(now->skipped + now->written <= now->total && now->equal <= now->skipped);
    cr_assert(now->source_ns >= before.source_ns &&
            now->target_ns >= before.target_ns && now->limit_ns >= before.limit_ns);
}

static void on_progress(void *context, const struct copy_figures *figures)
{
    struct rig *rig = context;

    judge(rig, figures);
    rig_watch(rig);
    rig->reports++;
    if (rig->reported)
        rig->reported(rig);
}

static void on_ended(void *context, int result, bool on_target,
        const struct copy_figures *figures, const struct fault *fault)
{
    struct rig *rig = context;

    cr_assert(!rig->ended, "it ends once");
    judge(rig, figures);
    cr_assert((result == 0) == (fault->error == 0) && fault->error == result);
    cr_assert((result == 0) == (fault->why[0] == '\0'));
    /* One that died between telling the last byte and its end may fail when it comes back. */
    if (rig->floor_done < figures->total || result == 0)
        cr_assert((result == 0) == (figures->done == figures->total),
                "seed %" PRIu64 ": all is done, exactly when it is", rig->seed);
    rig->ended = true;
    rig->result = result;
    rig->on_target = on_target;
    rig->fault = *fault;
    rig->copy = NULL;
    cr_assert(rig->company == rig->guests, "it does not count itself any more");
}

struct copy_options rig_options(enum copy_kind kind)
{
    return (struct copy_options){ .kind = kind };
}

/* -- a device that knows its holes to the block --------------------------------------- */

/* The memory device's extents have a granule that no block size of ours is larger than;
   real file systems and LUNs tell finer. */
struct exact {
    struct block_device base;
    struct block_device *under;
    struct memory_disk *disk;
};

struct exact_slot {
    struct block_request inner, *outer;
};

static bool block_is_zero(const struct exact *exact, uint64_t offset)
{
    return digest_is_zero(
            memory_disk_bytes(exact->disk) + offset, exact->base.block_size);
}

static void exact_extents(const struct exact *exact, struct block_request *request)
{
    uint64_t at = request->offset, end = at + request->length;

    request->extents_count = 0;
    while (at < end && request->extents_count < request->extents_max) {
        struct block_extent *extent = &request->extents[request->extents_count++];
        bool zero = block_is_zero(exact, at);
        *extent = (struct block_extent){ .offset = at,
            .kind = zero ? BLOCK_EXTENT_ZERO : BLOCK_EXTENT_DATA };
        do
            at += exact->base.block_size;
        while (at < end && block_is_zero(exact, at) == zero);
        extent->length = at - extent->offset;
    }
}

static void exact_done(struct block_request *inner, int result)
{
    struct exact_slot *slot = container_of(inner, struct exact_slot, inner);
    struct block_request *outer = slot->outer;
    struct exact *exact = container_of(outer->device, struct exact, base);

    exact->base.broken = exact->under->broken;
    free(slot);
    block_done(outer, result);
}

static void exact_submit(struct block_device *base, struct block_request *outer)
{
    struct exact *exact = container_of(base, struct exact, base);
    struct exact_slot *slot = malloc(sizeof *slot);

    check(slot);
    if (outer->op == BLOCK_EXTENTS) {
        free(slot);
        exact_extents(exact, outer);
        block_done_later(outer, exact->under->broken ? -ENOTCONN : 0);
        return;
    }
    slot->outer = outer;
    slot->inner = block_request_inner(outer, exact_done);
    block_submit(exact->under, &slot->inner);
}

static void exact_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct exact *exact = container_of(base, struct exact, base);
    struct block_device *under = exact->under;

    free(exact);
    block_close(under, closed, context);
}

static const struct block_ops exact_ops = {
    .name = "exact", .submit = exact_submit, .close = exact_close
};

static struct block_device *exact_over(
        struct block_device *under, struct memory_disk *disk)
{
    struct exact *exact = calloc(1, sizeof *exact);

    check(exact);
    exact->base = *under;
    exact->base.ops = &exact_ops;
    exact->base.in_flight = 0;
    exact->under = under;
    exact->disk = disk;
    return &exact->base;
}

static struct block_device *open_disk(struct rig *rig, struct memory_disk *disk,
        unsigned caps, const struct block_fault_plan *plans, unsigned count)
{
    struct block_device *device = memory_disk_open(disk, rig->loop, caps);

    check(device);
    if (rig->exact && (caps & BLOCK_CAN_EXTENTS))
        device = exact_over(device, disk);
    if (rig->wrap)
        device = rig->wrap(rig, device, disk == rig->target);
    return count ? block_faulty(&device, plans, count) : device;
}

void rig_start(struct rig *rig, const struct copy_options *options,
        const struct block_fault_plan *on_source, unsigned source_faults,
        const struct block_fault_plan *on_target, unsigned target_faults)
{
    rig->options = *options;
    rig->source_device =
            open_disk(rig, rig->source, rig->source_caps, on_source, source_faults);
    rig->target_device =
            open_disk(rig, rig->target, rig->target_caps, on_target, target_faults);
    rig->options.source = rig->source_device;
    rig->options.target = rig->target_device;
    rig->options.progress = on_progress;
    rig->options.ended = on_ended;
    rig->options.context = rig;
    rig->options.company = &rig->company;
    rig->ended = false;
    rig->reports = 0;
    rig->floor_done = rig->last.done;
    rig->floor_written = rig->options.written;
    rig->last.read = rig->last.sent = 0;
    rig->live = (struct copy_figures){ .done = rig->last.done };
    rig->last.watermark = rig->options.watermark;
    rig->copy = copy_start(&rig->options);
    check(rig->copy);
}

static void on_closed(void *context)
{
    ++*(unsigned *)context;
}

int rig_run(struct rig *rig)
{
    unsigned closed = 0;

    for (unsigned steps = 0; !rig->ended; steps++) {
        cr_assert(loop_sim_step(rig->loop), "seed %" PRIu64 ": it hangs", rig->seed);
        if (steps % 16 == 0 || rig->ended)
            rig_watch(rig);
    }
    cr_assert(rig->source_device->in_flight == 0 && rig->target_device->in_flight == 0);
    block_close(rig->source_device, on_closed, &closed);
    block_close(rig->target_device, on_closed, &closed);
    while (loop_sim_step(rig->loop))
        ;
    cr_assert(closed == 2);
    return rig->result;
}

int rig_copy(struct rig *rig, const struct copy_options *options)
{
    rig_start(rig, options, NULL, 0, NULL, 0);
    return rig_run(rig);
}

struct copy_options rig_resume(const struct rig *rig)
{
    struct copy_options options = rig->options;

    options.watermark = rig->last.watermark;
    options.verified = rig->last.verified;
    options.differences = rig->last.differences;
    options.skipped = rig->last.skipped;
    options.equal = rig->last.equal;
    options.written = rig->last.written;
    options.target_zero = false;
    return options;
}

static uint64_t draw(void *context)
{
    return rig_random(context);
}

void rig_cut(struct rig *rig)
{
    memory_disk_cut(rig->target, draw, rig);
}

/* -- the judge's last word ----------------------------------------------------------- */

uint64_t rig_equal_until(const struct rig *rig)
{
    const uint8_t *a = memory_disk_bytes(rig->source),
                  *b = memory_disk_bytes(rig->target);
    uint64_t at = 0;

    if (memcmp(a, b, rig->source_size) == 0)
        return rig->source_size;
    while (a[at] == b[at])
        at++;
    return at;
}

void rig_expect_untouched(const struct rig *rig)
{
    uint64_t end = round_up(rig->source_size, rig->target_block);

    cr_assert(memcmp(memory_disk_bytes(rig->source), rig->source_shadow,
                      rig->source_size) == 0,
            "seed %" PRIu64 ": the source was written", rig->seed);
    cr_assert(memcmp(memory_disk_bytes(rig->target) + end, rig->target_shadow + end,
                      rig->target_size - end) == 0,
            "seed %" PRIu64 ": written past the end", rig->seed);
}

void rig_expect_equal(const struct rig *rig)
{
    uint64_t equal = rig_equal_until(rig);
    uint64_t end = round_up(rig->source_size, rig->target_block);

    cr_assert(equal == rig->source_size,
            "seed %" PRIu64 ": differs at %" PRIu64 " of %" PRIu64, rig->seed, equal,
            rig->source_size);
    for (uint64_t at = rig->source_size; at < end; at++)
        cr_assert(memory_disk_bytes(rig->target)[at] == 0,
                "seed %" PRIu64 ": padding at %" PRIu64, rig->seed, at);
    rig_expect_untouched(rig);
}

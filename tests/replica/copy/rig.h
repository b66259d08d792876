/* tests/replica/copy/rig.h - two memory disks, a copy between them, and a judge.
 *
 * Everything is drawn from one seed, on the simulated loop. The judge watches every report:
 * progress only grows, never passes the end, and counts each byte once; at the end the
 * disks are compared byte by byte, and what must not be touched is compared with a shadow.
 */
#ifndef TESTS_REPLICA_COPY_RIG_H
#define TESTS_REPLICA_COPY_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/block/memory.h"
#include "replica/block/wrappers.h"
#include "replica/copy/copy.h"

struct rig {
    uint64_t seed, random;
    struct loop *loop;
    struct memory_disk *source, *target;
    uint64_t source_size, target_size;
    uint32_t source_block, target_block;
    unsigned source_caps, target_caps;
    uint8_t *source_shadow, *target_shadow; /* as they were before the copy */
    bool exact; /* extents are told to the block */
    bool target_zero; /* every byte of it, at the start */
    bool crowded; /* others share the loop now and then, see rig_watch() */
    unsigned guests, company; /* those others; all that share it */

    /* one run */
    struct copy_options options;
    struct copy *copy;
    struct block_device *source_device, *target_device;
    unsigned reports;
    bool ended, on_target, any_report;
    int result;
    struct fault fault;
    struct copy_figures last, live;
    uint64_t floor_done; /* progress of the runs before */
    uint64_t floor_written; /* of the runs before */
    void (*reported)(struct rig *); /* called in every report, may be NULL */
    /** Called for each device that is opened; returns the one to use. May be NULL. */
    struct block_device *(*wrap)(struct rig *, struct block_device *, bool on_target);
};

/** REPLICAD_SEED, or a fixed one; printed once a process. */
uint64_t rig_seed(void);

uint64_t rig_random(struct rig *rig);
uint64_t rig_below(struct rig *rig, uint64_t below);

/** Changes some bits, some runs, some runs to zeros: less than @places, each of at most
    @most bytes. */
void rig_scribble(
        struct rig *rig, uint8_t *bytes, uint64_t size, unsigned places, uint64_t most);

/** Random sizes, blocks, contents, abilities. At most about @most bytes. */
void rig_init(struct rig *rig, uint64_t seed, uint64_t most);

/** Chosen ones: source of @size random bytes, target of garbage. */
void rig_init_plain(struct rig *rig, uint64_t seed, uint64_t size,
        uint32_t source_block, uint32_t target_block, unsigned source_caps,
        unsigned target_caps);
void rig_finish(struct rig *rig);

/** What a second life may start from, after rig_init() drew it: a full copy of all. */
struct copy_options rig_options(enum copy_kind kind);

/** Open both disks (with @faults on either, count 0: none) and start. */
void rig_start(struct rig *rig, const struct copy_options *options,
        const struct block_fault_plan *on_source, unsigned source_faults,
        const struct block_fault_plan *on_target, unsigned target_faults);

/** Looks at the copy from outside, between two steps: what it tells only grows. Where the
    rig is crowded another joins it on its loop, or leaves, at times. */
void rig_watch(struct rig *rig);

/** Step until the copy has ended, then close both. Returns its result. */
int rig_run(struct rig *rig);

/** Start without faults and run. */
int rig_copy(struct rig *rig, const struct copy_options *options);

/** Start from what the last run left: watermark and counters; the target is not fresh. */
struct copy_options rig_resume(const struct rig *rig);

/** Cut the target's power as the rig's generator draws. */
void rig_cut(struct rig *rig);

/** Bytes of the target from 0 that equal the source's, padding not counted. */
uint64_t rig_equal_until(const struct rig *rig);

/** All is equal, padded with zeros, and nothing else was touched. */
void rig_expect_equal(const struct rig *rig);

/** The source is as it was, and the target past the source's last block. */
void rig_expect_untouched(const struct rig *rig);

#endif

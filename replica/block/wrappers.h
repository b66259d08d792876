/* replica/block/wrappers.h - devices over devices. Each takes the device under it and closes it. */
#ifndef REPLICA_BLOCK_WRAPPERS_H
#define REPLICA_BLOCK_WRAPPERS_H

#include <stdint.h>

#include "replica/block/device.h"

/**
 * A window of @under: [offset, offset+size), whole blocks. Nothing outside it is reachable.
 * Takes *@under and nulls it. NULL (and *@under kept) when out of memory or out of range.
 */
struct block_device *block_slice(
        struct block_device **under, uint64_t offset, uint64_t size);

/**
 * One planned fault. Matches requests of @op (or all, -1) that touch [offset, offset+length)
 * (length 0: anywhere); skips the first @after of them, then strikes @times (0: for ever).
 */
struct block_fault_plan {
    int op;
    uint64_t offset, length;
    unsigned after, times;
    int error; /* negative errno to answer; 0: only delay or corrupt */
    unsigned delay_ms; /* answer that much later */
    bool apply; /* with an error: do it nevertheless (a late or half-told write) */
    bool corrupt; /* read: flip one bit of the answer */
    bool lose; /* the device is broken from here on (a lost session) */
    bool returns; /* with @lose: block_device.returns */
};

/** Fault injection. Takes *@under. @plans are copied. NULL when out of memory. */
struct block_device *block_faulty(struct block_device **under,
        const struct block_fault_plan *plans, unsigned count);

/** What passed a faulty device since it was made. */
struct block_faulty_counts {
    uint64_t seen[BLOCK_OP_COUNT]; /* requests, struck ones too */
    uint64_t bytes[BLOCK_OP_COUNT]; /* their lengths */
    uint64_t struck;
};

/** @device must be of block_faulty(), and the outermost. */
struct block_faulty_counts block_faulty_counts(const struct block_device *device);

#endif

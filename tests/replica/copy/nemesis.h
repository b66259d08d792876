/* tests/replica/copy/nemesis.h - a device over a device that goes wrong as a generator draws.
 *
 * Every buffer is its own: what the caller does with a buffer after the answer, or before,
 * shows. A lost session answers all that is in flight at once, while writes may still land
 * (ghosts); closing waits for them, as a barrier does. Simulated loop only.
 */
#ifndef TESTS_REPLICA_COPY_NEMESIS_H
#define TESTS_REPLICA_COPY_NEMESIS_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/block/device.h"

enum nemesis_kind {
    NEMESIS_FAILED, /* an errno, nothing done */
    NEMESIS_SHORT_READ, /* the first blocks arrive, then an errno */
    NEMESIS_SHORT_WRITE, /* the first blocks are written or zeroed, then an errno */
    NEMESIS_HALF_TOLD, /* done, and told as failed */
    NEMESIS_FLUSH_FAILED, /* an errno of a flush */
    NEMESIS_LATE, /* answered seconds later */
    NEMESIS_LOST, /* the session: broken from here on */
    NEMESIS_GHOST, /* counted, not drawn: a write in flight at a loss */
    NEMESIS_REORDERED, /* counted, not drawn: answered before one that is older */
    NEMESIS_KINDS
};

/** Outlives its devices. Set @random, @per_mille and @budget; the rest is counted. */
struct nemesis {
    uint64_t random;
    unsigned per_mille; /* of the reads are struck, and six times that of the others */
    unsigned budget; /* strikes that are left */
    bool only_late; /* nothing worse */
    unsigned flush_ms; /* flushes take up to so long: writes go on meanwhile */
    unsigned land_ms; /* what changes bytes takes up to so long to get there at all */
    unsigned extents_most; /* that one answer tells; 0: any number */
    uint64_t counts[NEMESIS_KINDS];
    uint64_t reads, read_bytes; /* submitted */
    uint64_t errors; /* bits 1 << errno % 64 that were answered since it was cleared */
};

/** Takes @under. */
struct block_device *nemesis_over(struct block_device *under, struct nemesis *nemesis);

/** The session is lost now, as in a crash: all in flight is answered -ENOTCONN. */
void nemesis_lose(struct block_device *device);

/** @error was answered by one of @nemesis's devices. */
bool nemesis_answered(const struct nemesis *nemesis, int error);

#endif

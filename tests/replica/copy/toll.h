/* tests/replica/copy/toll.h - a target that takes one request after another, each for a price.
 *
 * In time of the simulated clock, so that what a copy measures there is exact. The bytes are
 * the rig's target disk, changed when the request is answered.
 */
#ifndef TESTS_REPLICA_COPY_TOLL_H
#define TESTS_REPLICA_COPY_TOLL_H

#include "tests/replica/copy/rig.h"

enum { TOLL_UNIT = 256 << 10 }; /* bytes: prices are for these, or less */

/** Outlives its devices. First member a rig, for the hook. */
struct toll {
    struct rig rig;
    unsigned read_ms, write_ms; /* milliseconds of a unit */
    unsigned zero_ms; /* of a unit */
    /** The @index-th BLOCK_ZERO since the start: its price, and its answer in *@result; lost
        with it when that is -ENOTCONN. NULL: @zero_ms and 0. */
    unsigned (*zero_price)(struct toll *, unsigned index, int *result);
    unsigned hang_ms; /* one BLOCK_WRITE hangs so long, and others overtake it */
    uint64_t hang_after; /* BLOCK_WRITEs before that one */

    uint64_t zeros, zero_bytes, writes, write_bytes; /* answered well */
    unsigned beside; /* requests in flight with the first BLOCK_ZERO, at most */
};

/** Zeros as BLOCK_MAY_ZERO; source without caps unless @source_caps; random bytes in both. */
void toll_init(struct toll *toll, uint64_t seed, uint64_t size, unsigned source_caps);

/** The source's bytes [from, end) are zeros. */
void toll_clear(struct toll *toll, uint64_t from, uint64_t end);

#endif

/* replica/copy/zero_way.h - how zeros get to the target, chosen by what it costs there.
 *
 * A discard that reads as zeros, and zeros that the target makes by itself for nothing, are
 * taken where they are offered. Where it may make zeros, and nobody knows at what price
 * (BLOCK_MAY_ZERO: an array does it in no time, a target in software writes block by block),
 * both ways are tried on the first zeros, in turn and in requests of one size, and the
 * cheaper one is kept for a while. Sending them is what is always true, so the other has
 * to be clearly cheaper.
 *
 * Pure: the caller measures. One loop's thread.
 */
#ifndef REPLICA_COPY_ZERO_WAY_H
#define REPLICA_COPY_ZERO_WAY_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/base/clock.h"

/** The cheapest first, where nothing has to be measured. */
enum zero_way { ZERO_BY_DISCARD, ZERO_BY_ZERO, ZERO_BY_WRITE, ZERO_WAYS };

enum {
    ZERO_SAMPLE = 256 << 10, /* bytes of one request that is measured, at most */
    ZERO_SAMPLES = 4, /* of either way; half of them where it is plain to see */
    ZERO_MISS = 16 << 20, /* bytes of zeros in which no sample was found: given up */
    ZERO_AGAIN_MS = 60000, /* asked again after this time, or after ZERO_AGAIN bytes, */
    ZERO_SHARE = 100 /* but not before so many times as long as the samples took */
};

static const uint64_t ZERO_AGAIN = (uint64_t)4 << 30;

struct zero_cost {
    unsigned count;
    uint64_t sum_ns, worst_ns;
};

struct zero_choice {
    enum zero_way now; /* of all that is no sample */
    bool asking; /* samples are wanted */
    bool stuck; /* the target did not answer when it was asked to make zeros */
    uint64_t sample; /* bytes of each of them */

    unsigned caps; /* of the target, enum block_device_caps */
    struct zero_cost costs[ZERO_WAYS];
    uint64_t missed; /* bytes of zeros too short for a sample, since it asks */
    uint64_t moved; /* bytes since it rests */
    struct instant since;
    uint64_t spent_ns; /* on the samples before */
};

/** @caps of the target; @ask: both ways may be tried where nobody knows. */
void zero_choice_init(
        struct zero_choice *choice, unsigned caps, bool ask, struct instant now);

/** A piece is about to begin: perhaps it is time to ask again. Samples have @sample bytes
    from now on; those of another length are forgotten. */
void zero_choice_consider(
        struct zero_choice *choice, uint64_t sample, struct instant now);

/** The way of the next sample. */
enum zero_way zero_choice_next(const struct zero_choice *choice);

/** One took @ns, with nothing beside it. */
void zero_choice_note(
        struct zero_choice *choice, enum zero_way way, uint64_t ns, struct instant now);

/** One is not answered within any time. */
void zero_choice_hang(
        struct zero_choice *choice, enum zero_way way, uint64_t ns, struct instant now);

/** @bytes of zeros, while it asks, that were too short for a sample. */
void zero_choice_miss(struct zero_choice *choice, uint64_t bytes, struct instant now);

/** No samples for a while: the target cannot be had alone. */
void zero_choice_rest(struct zero_choice *choice, struct instant now);

/** @bytes more are on the target. */
void zero_choice_moved(struct zero_choice *choice, uint64_t bytes);

/** The target refused @way. */
void zero_choice_give_up(struct zero_choice *choice, enum zero_way way);

#endif

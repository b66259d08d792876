/* tests/support/seed.h - chance that can be told again: REPLICAD_SEED=N. */
#ifndef TESTS_SUPPORT_SEED_H
#define TESTS_SUPPORT_SEED_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

/** REPLICAD_SEED when it is set, else a fresh one; printed, so that a failure names it. */
static inline uint64_t seed_take(const char *what)
{
    const char *given = getenv("REPLICAD_SEED");
    uint64_t seed = 1;

    if (given && *given)
        seed = strtoull(given, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = 1;
    fprintf(stderr, "%s: REPLICAD_SEED=%" PRIu64 "\n", what, seed);
    return seed;
}

/** The next number of the sequence that *@state names (splitmix64). */
static inline uint64_t seed_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline uint64_t seed_below(uint64_t *state, uint64_t below)
{
    return seed_next(state) % below;
}

/** Fills @bytes with noise that has no zero byte: zeros in a test are then somebody's. */
static inline void seed_fill(uint64_t *state, uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(1 + seed_next(state) % 255);
}

#endif

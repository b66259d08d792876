/* tests/support/allocations.h - how often threads that are watched allocate: malloc() and its
 * kin are the executable's own, so that every library is counted. Not under sanitizers, which
 * bring an allocator of their own. */
#ifndef TESTS_SUPPORT_ALLOCATIONS_H
#define TESTS_SUPPORT_ALLOCATIONS_H

#include <stdbool.h>
#include <stdint.h>

extern const bool allocations_are_counted;

/** What the calling thread allocates from here on counts, or does not, as at first. */
void allocations_watch(bool counts);

/** What any thread allocates counts, watched or not, as long as @counts is. Any thread. */
void allocations_watch_all(bool counts);

/** By all threads since the last call. Any thread. */
uint64_t allocations_take(void);

#endif

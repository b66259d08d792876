/* tests/server/iscsi/allocations.h - how often threads that are watched allocate: malloc() and
 * its kin are the executable's own, so that every library is counted. Not under sanitizers,
 * which bring an allocator of their own. */
#ifndef TESTS_SERVER_ISCSI_ALLOCATIONS_H
#define TESTS_SERVER_ISCSI_ALLOCATIONS_H

#include <stdbool.h>
#include <stdint.h>

extern const bool allocations_are_counted;

/** What the calling thread allocates from here on counts, or does not, as at first. */
void allocations_watch(bool counts);

/** By all threads since the last call. Any thread. */
uint64_t allocations_take(void);

#endif

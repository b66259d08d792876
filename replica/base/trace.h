/* replica/base/trace.h - the ring of last events, always on, printed when a check
 * fails. */
#ifndef REPLICA_BASE_TRACE_H
#define REPLICA_BASE_TRACE_H

#include <stdint.h>

/**
 * Leaves one binary record {time, @where, @a, @b} in this thread's ring of 512; the
 * oldest is overwritten. @where must be a string literal. Some ten nanoseconds, no
 * lock.
 */
void trace(const char *where, uint64_t a, uint64_t b);

/** Writes every thread's records to @fd, oldest first. Async-signal-safe. */
void trace_print(int fd);

#endif

/* replica/base/clock.h - time as types, so that nobody adds seconds to milliseconds. */
#ifndef REPLICA_BASE_CLOCK_H
#define REPLICA_BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/** A point on the monotonic clock. For deadlines and rates; never stored. */
struct instant {
    uint64_t ns;
};

/** CLOCK_MONOTONIC now. Any thread. The loops' own clock is loop_now(). */
struct instant clock_monotonic(void);

/** @instant moved by @ms milliseconds, saturating. */
struct instant instant_add_ms(struct instant instant, uint64_t ms);

/** Milliseconds from @from to @to; 0 when @to is not later. Rounded up. */
uint64_t instant_ms_until(struct instant from, struct instant to);

bool instant_reached(struct instant now, struct instant due);

/** @due as pthread_cond_timedwait() takes it, of a condition on CLOCK_MONOTONIC. */
struct timespec instant_timespec(struct instant due);

/** The same, @ms milliseconds from now. */
struct timespec deadline_in(uint64_t ms);

/** Wall clock, milliseconds since 1970 UTC. What is stored and shown; 0 means "never".
 */
int64_t clock_wall_ms(void);

enum { CLOCK_TEXT = 25 }; /* "2026-11-21T20:00:00.123Z" and NUL */

/** RFC 3339 in UTC with milliseconds. @text holds CLOCK_TEXT bytes. */
void clock_format(int64_t wall_ms, char text[CLOCK_TEXT]);

/** Parses RFC 3339 (any offset, optional fraction). Returns false for anything else. */
bool clock_parse(const char *text, int64_t *wall_ms);

#endif

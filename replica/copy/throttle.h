/* replica/copy/throttle.h - a rate that is kept, without bursts and without drift.
 *
 * A schedule, not a bucket: every piece moves the time at which the next may start by
 * what it costs at the limit. Lateness (a timer, a slow device) is caught up for @slack
 * at most, so a pause is never followed by a burst. No thread, no clock of its own.
 */
#ifndef REPLICA_COPY_THROTTLE_H
#define REPLICA_COPY_THROTTLE_H

#include <stdint.h>

#include "replica/base/clock.h"

struct throttle {
    uint64_t limit; /* bytes a second; 0: none */
    uint64_t window; /* bytes: no more than this is ever caught up */
    struct instant next; /* when the next piece may start */
};

void throttle_init(struct throttle *throttle, uint64_t limit, uint64_t window);

/** From @now on; what the pieces already cost is priced anew. */
void throttle_set(struct throttle *throttle, uint64_t limit, struct instant now);

/** Milliseconds until a piece may start, 0: now. */
uint64_t throttle_wait_ms(const struct throttle *throttle, struct instant now);

/** A piece of @bytes starts now. */
void throttle_spend(struct throttle *throttle, uint64_t bytes, struct instant now);

/** The largest piece that keeps a limited stream even: an eighth of a second, whole
    @unit bytes, at least 4 KiB and a unit, at most @most. */
uint64_t throttle_piece(const struct throttle *throttle, uint64_t unit, uint64_t most);

#endif

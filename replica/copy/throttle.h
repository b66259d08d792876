/* replica/copy/throttle.h - rates that are kept, without bursts and without drift.
 *
 * A schedule, not a bucket that drips: whoever spends moves the time at which all that was
 * spent is paid, and may spend again when its own part is paid. So a meter may be shared by
 * copies on any loop without a lock: they take turns. A second schedule, a quarter faster,
 * bounds how fast lateness (a timer, a slow device) is made good: no more than a window at
 * once, and no more than a tenth of a second of the rate at all. So a pause is never followed
 * by a burst, and no two seconds see a twentieth more than the limit, whatever came before
 * them; a twentieth less only when it came to a halt for longer. That is so of one that spends,
 * in pieces of less than a tenth of a second; each further one that shares the meter may have a
 * piece of its own ahead after a halt. No thread, no clock of its own.
 */
#ifndef REPLICA_COPY_THROTTLE_H
#define REPLICA_COPY_THROTTLE_H

#include <stdint.h>

#include "replica/base/clock.h"

/** One rate. Zero is a meter without a limit. Every function from any thread, but
    meter_set() from one at a time. */
struct meter {
    _Atomic uint64_t limit; /* bytes a second; 0: none */
    _Atomic uint64_t paid_ns; /* when all that was spent is paid; 0: nothing was */
    _Atomic uint64_t peak_ns; /* the same, at the rate of catching up */
};

/** From @now on; what was spent and is not paid is priced anew. */
void meter_set(struct meter *meter, uint64_t limit, struct instant now);

enum { METERS_SHARED = 2, SHARE_WHOLE = 8 };

/** What one copy has to keep: a limit of its own, and those it shares. Its loop's. */
struct throttle {
    struct meter own;
    struct meter *shared[METERS_SHARED]; /* borrowed; NULL: none */
    struct instant due[1 + METERS_SHARED]; /* when this copy's part is paid */
    /* Bytes of a turn, and what is left of this one: who sends less than a turn at a time,
       for a narrower limit of its own, does not wait for the turns of others in between. */
    uint64_t turn[METERS_SHARED], left[METERS_SHARED];
    uint64_t window; /* bytes: no more than this is caught up at once */
    unsigned share; /* 1 to SHARE_WHOLE: how much of what is shared it takes a turn */
};

void throttle_init(struct throttle *throttle, uint64_t limit, uint64_t window);

/** The copy's own limit, as meter_set(). */
void throttle_set(struct throttle *throttle, uint64_t limit, struct instant now);

/** Milliseconds until a piece may start, 0: now. */
uint64_t throttle_wait_ms(const struct throttle *throttle, struct instant now);

/** A piece of @bytes starts now. */
void throttle_spend(struct throttle *throttle, uint64_t bytes, struct instant now);

/** The largest piece that keeps a limited stream even: a thirty-second of a second (of what
    is shared less, by its share), whole @unit bytes, at least 4 KiB and a unit, at most
    @most. */
uint64_t throttle_piece(struct throttle *throttle, uint64_t unit, uint64_t most);

#endif

/* replica/copy/flow.h - how many pieces are worth being under way at once.
 *
 * Where the way to a device is long, its time passes whatever is under way: more at once is
 * as much more a second. Where it is short, more only queues up: it is no faster, and what
 * was read has left the caches before it is sent on (measured: a third more CPU). Which of
 * them it is, the pieces tell: as long as they take hardly more time than the fastest of
 * them, nothing queues.
 *
 * Pure. One loop's thread.
 */
#ifndef REPLICA_COPY_FLOW_H
#define REPLICA_COPY_FLOW_H

#include <stdint.h>

struct flow {
    unsigned now; /* pieces that may be under way */
    unsigned least, most;
    uint64_t fastest_ns; /* what a piece takes when nothing queues; 0: not known */
    uint64_t sum_ns; /* of those of this round */
    unsigned count;
    unsigned rounds;
};

/** From now on between @least (at least 1) and @most. Zeros are a flow to begin with. */
void flow_set(struct flow *flow, unsigned least, unsigned most);

/** A whole piece took @ns from its start to its end. */
void flow_note(struct flow *flow, uint64_t ns);

#endif

#include "replica/copy/flow.h"

enum {
    ANEW = 1000, /* rounds after which the fastest piece is looked for again */
    LONG_NS = 4000000 /* a shorter way is filled by the least window */
};

void flow_set(struct flow *flow, unsigned least, unsigned most)
{
    flow->least = least;
    flow->most = most > least ? most : least;
    flow->now = least;
    flow->sum_ns = flow->count = 0;
}

/* One round: as many pieces as are under way at once. */
static void round_end(struct flow *flow)
{
    uint64_t mean = flow->sum_ns / flow->count;

    if (flow->fastest_ns >= LONG_NS && mean < flow->fastest_ns + flow->fastest_ns / 2) {
        flow->now += (flow->now + 1) / 2;
        if (flow->now > flow->most)
            flow->now = flow->most;
    } else if (mean > 2 * flow->fastest_ns && flow->now > flow->least) {
        flow->now--;
    }
    if (++flow->rounds >= ANEW) { /* the way may have changed */
        flow->rounds = 0;
        flow->now = flow->least;
        flow->fastest_ns = 0;
    }
    flow->sum_ns = flow->count = 0;
}

void flow_note(struct flow *flow, uint64_t ns)
{
    if (!flow->fastest_ns || ns < flow->fastest_ns)
        flow->fastest_ns = ns ? ns : 1;
    flow->sum_ns += ns;
    if (++flow->count >= flow->now)
        round_end(flow);
}

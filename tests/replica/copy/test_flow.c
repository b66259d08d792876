/* How many pieces are under way: more where they cost no time, no more where they queue. */
#include <criterion/criterion.h>

#include "replica/copy/flow.h"
#include "tests/support/seed.h"

enum { MS = 1000000 };

/** A device of @way_ms there and back that serves one piece a @piece_ms. */
static unsigned settle(
        struct flow *flow, uint64_t way_ms, uint64_t piece_ms, int rounds)
{
    for (int i = 0; i < rounds; i++)
        for (unsigned n = flow->now; n > 0; n--) {
            uint64_t queued = flow->now * piece_ms * MS;
            flow_note(flow, queued > way_ms * MS ? queued : way_ms * MS);
        }
    return flow->now;
}

static struct flow fresh(unsigned least, uint64_t fastest_ms)
{
    struct flow flow = { 0 };

    flow_set(&flow, least, 16);
    flow_note(&flow, fastest_ms * MS); /* the first one queues behind nothing */
    return flow;
}

Test(flow, a_long_way_takes_more_at_once)
{
    struct flow flow = fresh(4, 20);

    cr_assert_eq(settle(&flow, 20, 1, 40), 16);
}

Test(flow, a_short_way_takes_no_more_than_it_must)
{
    struct flow flow = fresh(4, 2);

    cr_assert_eq(settle(&flow, 2, 2, 40), 4);
}

Test(flow, a_short_way_is_not_filled_further_though_nothing_queues)
{
    struct flow flow = fresh(4, 1);

    for (int i = 0; i < 400; i++)
        flow_note(&flow, 1 * MS);
    cr_assert_eq(flow.now, 4);
}

Test(flow, grows_until_it_queues)
{
    struct flow flow = fresh(2, 8);
    unsigned now = settle(&flow, 8, 1, 60);

    cr_assert(now >= 8 && now < 16, "%u", now);
}

Test(flow, comes_back_when_the_device_slows_down)
{
    struct flow flow = fresh(4, 20);

    cr_assert_eq(settle(&flow, 20, 1, 40), 16);
    cr_assert(settle(&flow, 20, 5, 40) <= 9);
}

Test(flow, finds_a_way_that_became_longer)
{
    struct flow flow = fresh(4, 1);

    cr_assert_eq(settle(&flow, 1, 1, 40), 4);
    cr_assert_eq(settle(&flow, 100, 1, 1200), 16);
}

Test(flow, stays_between_its_bounds_whatever_it_is_told)
{
    uint64_t seed = seed_take("flow");
    struct flow flow = { 0 };
    unsigned least = 1;

    flow_set(&flow, least, 16);
    for (int i = 0; i < 200000; i++) {
        if (i % 1000 == 0)
            flow_set(&flow, least = 1 + (unsigned)seed_below(&seed, 20), 16);
        flow_note(&flow, seed_next(&seed) >> seed_below(&seed, 64) >> 8);
        cr_assert(flow.now >= least && flow.now <= (least > 16 ? least : 16));
    }
}

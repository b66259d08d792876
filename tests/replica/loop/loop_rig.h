/* tests/replica/loop/loop_rig.h - one of the two loops, for a test to own. */
#ifndef TESTS_REPLICA_LOOP_LOOP_RIG_H
#define TESTS_REPLICA_LOOP_LOOP_RIG_H

#include "replica/loop/sim.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum kind { UV, SIM };

static inline struct loop *make(enum kind kind)
{
    struct loop *loop =
            kind == UV ? loop_uv_create() : loop_sim_create(seed_take("loop"));
    expect(loop);
    return loop;
}

#endif

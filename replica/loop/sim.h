/* replica/loop/sim.h - the simulated loop: one thread, a fake clock, an order drawn
 * from a seed.
 *
 * For tests. The same seed gives the same history, whatever machine runs it.
 */
#ifndef REPLICA_LOOP_SIM_H
#define REPLICA_LOOP_SIM_H

#include "replica/loop/loop.h"

/** Owned by the caller, loop_destroy(). The clock starts at 1 s. */
struct loop *loop_sim_create(uint64_t seed);

/** False for a loop that keeps real time. */
bool loop_is_simulated(const struct loop *loop);

/**
 * Run one ready thing (a posted task, finished work or a due timer), chosen at random
 * among those that are ready; when none is, move the clock to the next timer. Posted
 * tasks keep their order among themselves. False when nothing is left at all.
 */
bool loop_sim_step(struct loop *loop);

/** Step until idle, or until @limit steps were taken; returns the steps taken. */
uint64_t loop_sim_run(struct loop *loop, uint64_t limit);

/** The seeded generator of the loop (splitmix64), for devices that fail by plan. */
uint64_t loop_sim_random(struct loop *loop);

/** A number in [0, below); @below > 0. */
uint64_t loop_sim_below(struct loop *loop, uint64_t below);

#endif

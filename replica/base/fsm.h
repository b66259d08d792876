/* replica/base/fsm.h - a state machine as a table: states and their allowed successors.
 */
#ifndef REPLICA_BASE_FSM_H
#define REPLICA_BASE_FSM_H

#include <stdbool.h>
#include <stdint.h>

/** One row a state, indexed by the state's number (at most 64 states). */
struct fsm_state {
    const char *name; /* NULL: the number is not assigned */
    uint64_t next; /* bit n set: state n may follow */
};

struct fsm_table {
    const char *name;
    const struct fsm_state *states;
    unsigned count;
};

/** True when @to may follow @from. A state may always follow itself only if its own bit
 * is set. */
bool fsm_allows(const struct fsm_table *table, unsigned from, unsigned to);

/** Moves @*state to @to, leaves a trace record; a move that is not allowed fails a
 * check. */
void fsm_move(const struct fsm_table *table, unsigned *state, unsigned to);

/** fsm_move() for what moves with every command: a move that is allowed leaves no
 * record, or the ring would hold nothing else, and a millisecond of that. */
static inline void fsm_step(const struct fsm_table *table, unsigned *state, unsigned to)
{
    if (*state < table->count && to < table->count &&
            (table->states[*state].next >> to & 1) != 0)
        *state = to;
    else
        fsm_move(table, state, to);
}

#endif

#include "replica/base/fsm.h"

#include <stddef.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/trace.h"

static bool is_assigned(const struct fsm_table *table, unsigned state)
{
    return state < table->count && state < 64 && table->states[state].name != NULL;
}

bool fsm_allows(const struct fsm_table *table, unsigned from, unsigned to)
{
    return is_assigned(table, from) && is_assigned(table, to) &&
            (table->states[from].next >> to & 1) != 0;
}

static const char *state_name(const struct fsm_table *table, unsigned state)
{
    return is_assigned(table, state) ? table->states[state].name : "unassigned";
}

void fsm_move(const struct fsm_table *table, unsigned *state, unsigned to)
{
    bool allowed = fsm_allows(table, *state, to);

    trace(table->name, *state, to);
    if (!allowed)
        log_plain(LOG_ERROR, "fsm-forbidden", "%s: %s (%u) may not become %s (%u)",
                table->name, state_name(table, *state), *state, state_name(table, to),
                to);
    check(allowed);
    *state = to;
}

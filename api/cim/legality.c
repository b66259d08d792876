/* The legality of ModifySynchronization's operations, from the rows. */
#include <stddef.h>

#include "api/cim/cim.h"

enum { GONE = 0, BEFORE = -1, STAYS = -2 };

struct rule {
    int64_t operation;
    unsigned types, states; /* sets: bit n is number n */
    int64_t transient, final;
};

#define T(type) (1u << (type))
#define S(state) (1u << (state))
#define ANY 0xfffcu /* 2..15 */
#define LEGALITY(operation, types, states, transient, final)                           \
    { operation, types, states, transient, final },
static const struct rule rules[] = {
#include "api/cim/legality.tbl.h"
};
#undef LEGALITY

static bool has(unsigned set, int64_t number)
{
    return number >= 0 && number < 16 && (set >> number & 1u);
}

static struct cim_step step_of(const struct rule *rule, int64_t state)
{
    return (struct cim_step){
        .legality = CIM_LEGAL,
        .transient = rule->transient,
        .final = rule->final == STAYS ? state : rule->final,
    };
}

struct cim_step cim_legality_of(int64_t operation, int64_t copy_type, int64_t state)
{
    struct cim_step refused = { .legality = CIM_NO_SUCH };

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *rule = &rules[i];
        if (rule->operation != operation || !has(rule->types, copy_type))
            continue;
        if (has(rule->states, state))
            return step_of(rule, state);
        refused.legality = cim_state_is_transient(state) ? CIM_BUSY : CIM_FORBIDDEN;
    }
    return refused;
}

bool cim_state_is_transient(int64_t state)
{
    return has(S(CIM_SYNC_PREPARE_IN_PROGRESS) | S(CIM_SYNC_RESYNC_IN_PROGRESS) |
                    S(CIM_SYNC_FRACTURE_IN_PROGRESS) | S(CIM_SYNC_QUIESCE_IN_PROGRESS) |
                    S(CIM_SYNC_RESTORE_IN_PROGRESS) | S(CIM_SYNC_COPY_IN_PROGRESS),
            state);
}

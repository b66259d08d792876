/* The state machine's table walked: 14 states x 12 operations x 4 CopyTypes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/cim/cim.h"
#include "tests/api/cim/grids.h"

/* The cell that @step would be written as. */
static void cell_of(struct cim_step step, int64_t state, bool stays, char cell[16])
{
    static const char *const refusals[] = {
        [CIM_NO_SUCH] = ".", [CIM_FORBIDDEN] = "x", [CIM_BUSY] = "b"
    };
    char final[8];

    if (step.legality != CIM_LEGAL) {
        (void)snprintf(cell, 16, "%s", refusals[step.legality]);
        return;
    }
    (void)snprintf(final, sizeof final, "%d", (int)step.final);
    if (step.final == 0)
        strcpy(final, "G");
    if (step.final == -1)
        strcpy(final, "B");
    if (stays && step.final == state)
        strcpy(final, "=");
    if (step.transient)
        (void)snprintf(cell, 16, "%d>%s", (int)step.transient, final);
    else
        (void)snprintf(cell, 16, "%s", final);
}

static unsigned walk(int64_t copy_type, const char *line)
{
    char text[128], *rest = NULL, cell[16];
    int64_t state, operation = 2;

    (void)snprintf(text, sizeof text, "%s", line);
    state = atoi(strtok_r(text, " ", &rest));
    for (char *want; (want = strtok_r(NULL, " ", &rest)); operation++) {
        struct cim_step step = cim_legality_of(operation, copy_type, state);
        cell_of(step, state, strcmp(want, "=") == 0, cell);
        cr_expect(strcmp(cell, want) == 0,
                "CopyType %d, state %d, operation %d: %s, not %s", (int)copy_type,
                (int)state, (int)operation, cell, want);
    }
    return (unsigned)(operation - 2);
}

Test(legality, the_whole_table)
{
    unsigned cells = 0;

    for (int type = 0; type < 4; type++)
        for (int row = 0; row < 14; row++)
            cells += walk(type + 2, grids[type][row]);
    cr_assert(cells == 14 * 12 * 4, "%u cells", cells);
}

Test(legality, outside_the_table_nothing_is_legal)
{
    for (int64_t operation = -2; operation < 70; operation++)
        for (int64_t type = -2; type < 70; type++)
            for (int64_t state = -2; state < 70; state++) {
                struct cim_step step = cim_legality_of(operation, type, state);
                bool inside =
                        operation >= 2 && operation <= 13 && type >= 2 && type <= 5;
                if (!inside)
                    cr_assert(step.legality == CIM_NO_SUCH);
                else if (state < 2 || state > 15)
                    cr_assert(step.legality == CIM_FORBIDDEN ||
                            step.legality == CIM_NO_SUCH);
            }
}

Test(legality, a_refusal_goes_nowhere)
{
    for (int64_t operation = 2; operation <= 13; operation++)
        for (int64_t type = 2; type <= 5; type++)
            for (int64_t state = 0; state <= 15; state++) {
                struct cim_step step = cim_legality_of(operation, type, state);
                if (step.legality != CIM_LEGAL)
                    cr_assert(step.transient == 0 && step.final == 0);
                else
                    cr_assert(step.transient == 0 ||
                            cim_state_is_transient(step.transient));
            }
}

Test(legality, six_states_are_transient)
{
    static const bool transient[20] = {
        [3] = true, [5] = true, [7] = true, [8] = true, [10] = true, [15] = true
    };

    for (int64_t state = -3; state < 20; state++)
        cr_assert(cim_state_is_transient(state) == (state >= 0 && transient[state]),
                "state %d", (int)state);
    cr_assert(!cim_state_is_transient(3 + 32) && !cim_state_is_transient(3 + 64));
}

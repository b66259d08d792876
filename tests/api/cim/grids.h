/* tests/api/cim/grids.h - the state machine as data: 14 states x 12 operations x 4 CopyTypes.
 *
 * Copied by hand from the table of the standard's page, not made from the rows of api/cim. A
 * cell: "." the CopyType has no such operation (5), "x" the state forbids it (4), "b" busy
 * (6), else where it goes: "7>13" by the transient 7 to 13, "G" the pair is gone, "B" the
 * state before, "=" the state it is in, a number alone: at once. */
#ifndef TESTS_API_CIM_GRIDS_H
#define TESTS_API_CIM_GRIDS_H

static const char *const async_grid[] = {
    /*     Det Fra  Syn Rst   Pre Unp Qui Unq RTS RTA Sta Sto */
    " 2    G   x    5>6 x     3>4 x   x   x   x   =   .   .",
    " 3    b   b    b   b     b   b   b   b   b   =   .   .",
    " 4    G   x    5>6 x     x   B   x   x   x   =   .   .",
    " 5    b   7>13 b   b     b   b   8>9 b   b   =   .   .",
    " 6    G   7>13 5>6 x     x   x   8>9 x   =   =   .   .",
    " 7    b   b    b   b     b   b   b   b   b   =   .   .",
    " 8    b   b    b   b     b   b   b   b   b   =   .   .",
    " 9    G   7>13 5>6 10>13 x   x   x   5>6 x   =   .   .",
    "10    b   b    b   b     b   b   b   b   b   =   .   .",
    "11    x   x    x   x     x   x   x   x   x   =   .   .",
    "12    G   x    5>6 x     x   x   x   x   x   =   .   .",
    "13    G   x    5>6 10>13 3>4 x   x   x   =   =   .   .",
    "14    x   x    x   x     x   x   x   x   x   =   .   .",
    "15    b   b    b   b     b   b   b   b   b   =   .   .",
};

static const char *const sync_grid[] = {
    /*     Det Fra  Syn Rst   Pre Unp Qui Unq RTS RTA Sta Sto */
    " 2    G   x    5>6 x     3>4 x   x   x   .   x   .   .",
    " 3    b   b    b   b     b   b   b   b   .   b   .   .",
    " 4    G   x    5>6 x     x   B   x   x   .   x   .   .",
    " 5    b   7>13 b   b     b   b   8>9 b   .   b   .   .",
    " 6    G   7>13 5>6 x     x   x   8>9 x   .   =   .   .",
    " 7    b   b    b   b     b   b   b   b   .   b   .   .",
    " 8    b   b    b   b     b   b   b   b   .   b   .   .",
    " 9    G   7>13 5>6 10>13 x   x   x   5>6 .   x   .   .",
    "10    b   b    b   b     b   b   b   b   .   b   .   .",
    "11    x   x    x   x     x   x   x   x   .   x   .   .",
    "12    G   x    5>6 x     x   x   x   x   .   x   .   .",
    "13    G   x    5>6 10>13 3>4 x   x   x   .   =   .   .",
    "14    x   x    x   x     x   x   x   x   .   x   .   .",
    "15    b   b    b   b     b   b   b   b   .   b   .   .",
};

static const char *const unsync_assoc_grid[] = {
    /*     Det Fra  Syn  Rst  Pre Unp Qui Unq RTS RTA Sta   Sto */
    " 2    G   .    5>14 x    3>4 x   x   x   .   .   15>14 x",
    " 3    b   .    b    b    b   b   b   b   .   .   b     b",
    " 4    G   .    5>14 x    x   B   x   x   .   .   15>14 x",
    " 5    b   .    b    b    b   b   8>9 b   .   .   b     2",
    " 6    x   .    x    x    x   x   x   x   .   .   x     x",
    " 7    b   .    b    b    b   b   b   b   .   .   b     b",
    " 8    b   .    b    b    b   b   b   b   .   .   b     b",
    " 9    G   .    5>14 x    x   x   x   B   .   .   x     x",
    "10    b   .    b    b    b   b   b   b   .   .   b     b",
    "11    G   .    5>14 10>B x   x   8>9 x   .   .   15>14 x",
    "12    G   .    5>14 x    x   x   x   x   .   .   x     x",
    "13    x   .    x    x    x   x   x   x   .   .   x     x",
    "14    G   .    5>14 10>B x   x   8>9 x   .   .   x     x",
    "15    b   .    b    b    b   b   8>9 b   .   .   b     2",
};

static const char *const unsync_unassoc_grid[] = {
    /*     Det Fra  Syn  Rst  Pre Unp Qui Unq RTS RTA Sta   Sto */
    " 2    G   .    5>G  .    .   .   .   .   .   .   .     x",
    " 3    b   .    b    .    .   .   .   .   .   .   .     b",
    " 4    x   .    x    .    .   .   .   .   .   .   .     x",
    " 5    b   .    b    .    .   .   .   .   .   .   .     G",
    " 6    x   .    x    .    .   .   .   .   .   .   .     x",
    " 7    b   .    b    .    .   .   .   .   .   .   .     b",
    " 8    b   .    b    .    .   .   .   .   .   .   .     b",
    " 9    x   .    x    .    .   .   .   .   .   .   .     x",
    "10    b   .    b    .    .   .   .   .   .   .   .     b",
    "11    x   .    x    .    .   .   .   .   .   .   .     x",
    "12    G   .    5>G  .    .   .   .   .   .   .   .     x",
    "13    x   .    x    .    .   .   .   .   .   .   .     x",
    "14    x   .    x    .    .   .   .   .   .   .   .     x",
    "15    b   .    b    .    .   .   .   .   .   .   .     b",
};

static const char *const *const grids[] = { async_grid, sync_grid, unsync_assoc_grid,
    unsync_unassoc_grid };

#endif

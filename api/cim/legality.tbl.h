/* api/cim/legality.tbl.h - which operation of ModifySynchronization a pair may see, and
 * where it goes. LEGALITY(operation, copy types, from-states, transient, final).
 *
 * Types and states are sets of the numbers in copy_type.tbl.h and sync_state.tbl.h. An
 * operation without a row for a CopyType is one that this CopyType does not have.
 * Transient 0: there is no job. Final GONE: the association ends; BEFORE: the state from
 * which the pair came into this one (for a transient row: in which it was asked); STAYS: the
 * state it is in.
 *
 * Mirrors are CopyTypes 2 and 3. Reset To Sync changes the CopyType, not the state; Reset To
 * Async of a pair that is Async changes nothing, whatever the state. */
LEGALITY(CIM_OP_DETACH, T(2) | T(3), S(2) | S(4) | S(6) | S(9) | S(12) | S(13), 0, GONE)
LEGALITY(CIM_OP_DETACH, T(4), S(2) | S(4) | S(9) | S(11) | S(12) | S(14), 0, GONE)
LEGALITY(CIM_OP_DETACH, T(5), S(2) | S(12), 0, GONE)

LEGALITY(CIM_OP_FRACTURE, T(2) | T(3), S(5) | S(6) | S(9), 7, 13)

LEGALITY(CIM_OP_RESYNC, T(2) | T(3), S(2) | S(4) | S(6) | S(9) | S(12) | S(13), 5, 6)
LEGALITY(CIM_OP_RESYNC, T(4), S(2) | S(4) | S(9) | S(11) | S(12) | S(14), 5, 14)
LEGALITY(CIM_OP_RESYNC, T(5), S(2) | S(12), 5, GONE)

LEGALITY(CIM_OP_RESTORE, T(2) | T(3), S(9) | S(13), 10, 13)
LEGALITY(CIM_OP_RESTORE, T(4), S(11) | S(14), 10, BEFORE)

LEGALITY(CIM_OP_PREPARE, T(2) | T(3), S(2) | S(13), 3, 4)
LEGALITY(CIM_OP_PREPARE, T(4), S(2), 3, 4)

LEGALITY(CIM_OP_UNPREPARE, T(2) | T(3) | T(4), S(4), 0, BEFORE)

LEGALITY(CIM_OP_QUIESCE, T(2) | T(3), S(5) | S(6), 8, 9)
LEGALITY(CIM_OP_QUIESCE, T(4), S(5) | S(11) | S(14) | S(15), 8, 9)

LEGALITY(CIM_OP_UNQUIESCE, T(2) | T(3), S(9), 5, 6)
LEGALITY(CIM_OP_UNQUIESCE, T(4), S(9), 0, BEFORE)

LEGALITY(CIM_OP_RESET_TO_SYNC, T(2), S(6) | S(13), 0, STAYS)

LEGALITY(CIM_OP_RESET_TO_ASYNC, T(3), S(6) | S(13), 0, STAYS)
LEGALITY(CIM_OP_RESET_TO_ASYNC, T(2), ANY, 0, STAYS)

LEGALITY(CIM_OP_START_COPY, T(4), S(2) | S(4) | S(11), 15, 14)

LEGALITY(CIM_OP_STOP_COPY, T(4), S(5) | S(15), 0, 2)
LEGALITY(CIM_OP_STOP_COPY, T(5), S(5), 0, GONE)

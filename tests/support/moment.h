/* tests/support/moment.h - the daemon is killed, or one call of it fails, at the Nth call that
 * changes what a disk holds. A library preloaded into the real binary counts such calls below
 * the directories it is told to watch: writes, syncs, sizes, names, clones.
 *
 * The frames of one commit in a row in SQLite's WAL count once; its shared memory and the
 * checkpoints into the database, which are SQLite's own, not at all. io_uring is not seen.
 */
#ifndef TESTS_SUPPORT_MOMENT_H
#define TESTS_SUPPORT_MOMENT_H

#include <stdatomic.h>
#include <stdbool.h>

enum { MOMENT_DIRECTORY = 160, MOMENT_WORDS = 240 };

/** Shared by the test and the daemon. */
struct moment {
    atomic_uint at; /* the call that is struck, from 1; 0: none */
    atomic_uint met; /* calls since moment_arm() */
    atomic_int error; /* it fails with; 0: the process is killed before it is made */
    atomic_bool after_wal; /* the last call that was met wrote the WAL */
    atomic_bool struck;
    char below[2][MOMENT_DIRECTORY]; /* calls about files below these count */
    char only[32]; /* of which the path contains this */
    char words[MOMENT_WORDS]; /* what was struck: "fdatasync /path" */
};

/** From here on every process that this one starts has it. moment_close() at the end. */
struct moment *moment_open(void);
void moment_close(struct moment *moment);

/** Strikes at the @at-th call. @only: of files whose path contains it; NULL: of all. */
void moment_arm(struct moment *moment, unsigned at, int error, const char *only);

/** True: it was struck. It does not strike any more. */
bool moment_disarm(struct moment *moment);

#endif

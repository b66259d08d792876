/* tests/server/iscsi/strict_client.h - an initiator (libiscsi) that lets no command be lost: it
 * keeps many out, writes and reads back what it wrote, and while its session lasts every
 * command must be answered, or it says so. It does not log in anew by itself. */
#ifndef TESTS_SERVER_ISCSI_STRICT_CLIENT_H
#define TESTS_SERVER_ISCSI_STRICT_CLIENT_H

#include <stdint.h>

struct strict_client {
    uint16_t port;
    const char *target; /* its name */
    const char *user, *secret; /* NULL: none */
    unsigned number; /* of those that run: its ISID, and where it writes */
    uint64_t first, bytes; /* the part of the disk that is its own */
    unsigned depth; /* commands that are out; more than the target's window is fine */
    unsigned run_ms; /* then no more begin, and what is out is waited for */
    unsigned late_ms; /* no answer takes longer */
    uint64_t seed;

    uint64_t answered; /* out: commands that ended well */
    unsigned owed; /* out: commands that were not answered when it ended */
};

enum strict_end {
    STRICT_DONE,
    STRICT_KEPT_OUT, /* no login */
    STRICT_THROWN_OUT, /* the target ended the session */
    STRICT_LATE, /* a command has no answer, and the session is there */
    STRICT_WRONG, /* what was read is not what was written, or an answer cannot be */
};

/** Blocks. @late is called while the session is still there: who looks, sees. */
enum strict_end strict_run(
        struct strict_client *client, void (*late)(void *context), void *context);

#endif

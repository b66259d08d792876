/* replica/block/iscsi_initiator.h - one iSCSI session with one target.
 *
 * Private to the driver. libiscsi connects and logs in, iscsi_wire.h does the rest.
 * iscsi_initiator.c is the only file of the house that knows libiscsi; reliability.md
 * section 4 lists what that library does behind one's back, and this face is the way round
 * it: no reconnect, no timeouts of the library's, no redirect, no strings of a user's into
 * its parsers, none of its data path. It keeps no time: who waits, gives up with
 * initiator_drop().
 *
 * One loop's thread. The struct is embedded in its owner's, which outlives the last callback.
 * Callbacks come from the loop, never from inside a call of this face but initiator_drop().
 */
#ifndef REPLICA_BLOCK_ISCSI_INITIATOR_H
#define REPLICA_BLOCK_ISCSI_INITIATOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "replica/base/fault.h"
#include "replica/block/iscsi_terms.h"
#include "replica/block/iscsi_wire.h"
#include "replica/block/open.h"
#include "replica/loop/loop.h"

struct iscsi_context;

struct initiator {
    /* The owner's, set before initiator_connect(). */
    struct loop *loop;
    /** Logged in (@fault->error 0), or not and dropped. Once. */
    void (*up)(struct initiator *, const struct fault *fault);
    /** The session went away by itself; it has been dropped, the outstanding commands were
        answered as lost before this. At most once, and not after initiator_drop(). */
    void (*down)(struct initiator *, const char *why);
    /** The answer to initiator_reset(): 0, or -EIO and the response code in words. */
    void (*was_reset)(struct initiator *, int result);
    void (*logged_out)(struct initiator *);

    /* Its own. */
    struct iscsi_context *context; /* NULL: dropped or never there */
    struct loop_watch watch;
    struct loop_task flush;
    int fd;
    unsigned lun; /* as it stands on the wire */
    size_t login_mark; /* bytes of a login response that are waited for */
    bool inside; /* the library is on the stack */
    bool turning; /* a turn is on the stack: it sends what is queued meanwhile */
    bool lost; /* found out inside the library */
    bool logging_in, login_done;
    struct fault login_fault;
    struct login_terms terms;
    struct wire wire; /* once the login is done */
};

/**
 * Begin to connect and log in. Borrows @spec for the call only. Returns 0 (then @up is
 * called), or a negative errno with @fault set and nothing to drop.
 */
int initiator_connect(
        struct initiator *in, const struct block_spec *spec, struct fault *fault);

/** Queue a command. Any time between up and drop; sent by the end of this loop turn. */
void initiator_send(struct initiator *in, struct initiator_command *command);

/** As wire_heard(); UINT64_MAX without a session. */
uint64_t initiator_heard(struct initiator *in);

/** Ask for a LOGICAL UNIT RESET; no command may be outstanding. */
void initiator_reset(struct initiator *in);

/** Ask for an orderly end. Returns 0 (then @logged_out, or @down), -ENOTCONN before the
    login. */
int initiator_logout(struct initiator *in);

/**
 * End the session now, with a TCP reset, so that nothing that is still queued in the kernel
 * reaches the target. Outstanding commands are done() as lost, from inside. Harmless when
 * there is no session.
 */
void initiator_drop(struct initiator *in);

#endif

/* replica/block/open.h - what may be opened, and opening it. */
#ifndef REPLICA_BLOCK_OPEN_H
#define REPLICA_BLOCK_OPEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "replica/base/fault.h"
#include "replica/block/device.h"

enum block_driver {
#define DRIVER(name, open_function, doc) BLOCK_DRIVER_##name,
#include "replica/block/drivers.tbl.h"
#undef DRIVER
    BLOCK_DRIVER_COUNT
};

/** Ways of calling the kernel that a file is not to use; the pool of threads is always
    left. For tests: by default the best one is chosen. */
enum block_avoid { BLOCK_AVOID_URING = 1, BLOCK_AVOID_INLINE = 2 };

enum {
    BLOCK_NAME_MAX = 256, /* a file's name in its directory */
    ISCSI_NAME_MAX = 224, /* RFC 7143 4.2.7.1: 223 bytes and NUL */
    BLOCK_PORTAL_TEXT = 64, /* "[::1]:3260" and NUL */
    BLOCK_IDENTITY_MAX = 320,
    BLOCK_CHANGED_MAX = 64
};

/** A secret of CHAP. Empty user = none. Wiped by its owner after the open. */
struct block_chap {
    char user[64], secret[128];
    char mutual_user[64], mutual_secret[128];
};

/** What to open and how. Borrowed until the opening is done. */
struct block_spec {
    enum block_driver driver;
    bool writable;
    uint32_t block_size; /* file, memory: what the device shall say; iscsi: ignored */
    uint64_t expect_size; /* bytes; nonzero: another size answers -ESTALE */

    /* file */
    int directory; /* O_PATH descriptor the name stays beneath */
    char name[BLOCK_NAME_MAX]; /* relative, resolved with RESOLVE_BENEATH, no links */
    unsigned avoid; /* enum block_avoid */

    /* memory: a fresh device of expect_size zeros */

    /* iscsi */
    struct sockaddr_storage portal;
    char target[ISCSI_NAME_MAX];
    unsigned lun; /* 0..16383 */
    char expect_world[BLOCK_IDENTITY_MAX]; /* nonempty: a unit of another world-wide
                                              identity, or of none, answers -ESTALE */
    char initiator[ISCSI_NAME_MAX]; /* our own name */
    uint64_t
            isid; /* low 48 bits: type 80h (random) + qualifier; same for every reopening
                       of one handle, different for every live handle */
    const struct block_chap *chap; /* NULL: none */
    unsigned connect_timeout_ms;
    /* How long a command may be out with no byte moving for it, nor for one that it may
       wait for. After 20 times that it ends, whatever moves. See iscsi_slots.c. */
    unsigned io_timeout_ms;
    bool barrier; /* the last handle was lost while it wrote (or the process died): reset the
                     logical unit and wait for it before the device is trusted */
};

/** Who it is: to find the same thing under two names. "" where unknown. */
struct block_identity {
    char place[BLOCK_IDENTITY_MAX]; /* "file:DEV:INODE", "lun:PORTAL,TARGET,LUN" */
    char world
            [BLOCK_IDENTITY_MAX]; /* "naa.600...", "eui.00..."; trusted to be unique */
    char weak[BLOCK_IDENTITY_MAX]; /* T10 vendor id, serial number: a likeness only */
    char changed[BLOCK_CHANGED_MAX]; /* file: when it was last written or changed, as it
                                        was found: opening it for writing counts too */
    bool foreign_reservation; /* iscsi: somebody holds a persistent reservation that
                                        keeps us from writing */
};

/** One opening. Embedded by the caller, alive until @done. */
struct block_opening {
    /** @device: owned by the caller, block_close(); NULL when fault->error says why.
        @identity: borrowed for the call. On the loop, never from inside block_open(). */
    void (*done)(struct block_opening *, struct block_device *device,
            const struct block_identity *identity, const struct fault *fault);

    /* The driver's, from block_open() to done. */
    struct loop *loop;
    struct loop_task task;
    struct fault fault;
    void *private;
    void (*cancel)(struct block_opening *); /* NULL: it cannot be, or not any more */
};

/**
 * Start to open. Always ends, within connect_timeout + 3 x io_timeout at the very most.
 * Faults: -ENOENT, -ELOOP or -EXDEV (the name escapes), -EBUSY (another process holds the
 * file), -EACCES (login refused), -ETIMEDOUT, -ECONNREFUSED,
 * -ECONNABORTED (the login broke off), -ENXIO (no such LUN),
 * -ENODEV (no such target), -ESTALE (another size), -EMFILE, -ENOMEM, -EINVAL, -EIO.
 */
void block_open(struct loop *loop, const struct block_spec *spec,
        struct block_opening *opening);

/** It is not wanted any more: one that waits for a far side ends soon, with -ECANCELED; any
    other as it would. Before @done, on the loop; @done is never called from inside. */
void block_open_cancel(struct block_opening *opening);

/** "file", "iscsi", "memory". */
const char *block_driver_name(enum block_driver driver);

/** The @changed of what @spec names, as of now; "" for all but files. Whoever writes it after
    the return changes that. Blocks, some ms if it was just written: not on a loop. 0 or a
    negative errno. */
int block_changed(const struct block_spec *spec, char changed[BLOCK_CHANGED_MAX]);

#endif

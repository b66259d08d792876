/* replica/block/device.h - a run of bytes, read and written by offset, many requests at once.
 *
 * Everything that holds bytes is a block_device: drivers (drivers.tbl.h) and wrappers,
 * which are devices over devices (slice.h, faulty.h). A device is pinned to the loop that
 * opened it: submit, completion and close happen on that loop's thread and nowhere else.
 */
#ifndef REPLICA_BLOCK_DEVICE_H
#define REPLICA_BLOCK_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "replica/loop/loop.h"

struct block_device;
struct block_request;

enum block_op {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH, /* all writes done() before it are stable after it; no range */
    BLOCK_ZERO, /* the range reads as zeros afterwards; may keep it allocated */
    BLOCK_DISCARD, /* the range may be given back; reads as zeros only with BLOCK_DISCARD_ZEROES */
    BLOCK_COPY, /* the same range of @from, of which block_can_copy() */
    BLOCK_FORGET, /* what this host keeps of the range in memory is written and let go:
                     reads after it come from below */
    BLOCK_EXTENTS, /* fills @extents for the range, in order, without gaps, from its start */
    BLOCK_OP_COUNT
};

/** Whether @op changes bytes of the device. */
bool block_op_writes(enum block_op op);

enum block_request_flags {
    BLOCK_FUA = 1, /* write or zero: stable when done */
};

enum block_device_caps {
    BLOCK_CAN_ZERO = 1, /* BLOCK_ZERO without sending the zeros, else -EOPNOTSUPP */
    BLOCK_CAN_DISCARD = 2, /* BLOCK_DISCARD, else -EOPNOTSUPP */
    BLOCK_CAN_EXTENTS = 4, /* BLOCK_EXTENTS, else -EOPNOTSUPP */
    BLOCK_DISCARD_ZEROES =
            8, /* discarded ranges read as zeros (LBPRZ=1; a punched hole) */
    BLOCK_VOLATILE = 16, /* finished writes need a flush to be stable */
    BLOCK_READ_ONLY = 32, /* opened for reading: write, zero, discard answer -EROFS */
    BLOCK_THIN = 64, /* the store behind it is thinly provisioned */
    BLOCK_MAY_ZERO = 128, /* not CAN_ZERO, but it may be tried, at an unknown price */
    BLOCK_CAN_FORGET =
            256, /* BLOCK_FORGET; else -EOPNOTSUPP: nothing is kept, or for good */
};

enum block_extent_kind {
    BLOCK_EXTENT_DATA,
    BLOCK_EXTENT_ZERO /* proven to read as zeros: a hole, an unmapped run with LBPRZ */
};

struct block_extent {
    uint64_t offset, length; /* bytes, whole blocks */
    enum block_extent_kind kind;
};

/** Owned by the caller, and alive with its iovec and buffers, until done(). */
struct block_request {
    enum block_op op;
    unsigned flags; /* enum block_request_flags */
    uint64_t offset, length; /* bytes, whole blocks, inside the device: callers check */
    const struct iovec *iov; /* read, write: lengths sum to @length */
    int iovcnt;
    struct block_device *from; /* COPY: borrowed until done */
    struct block_extent *extents; /* EXTENTS: room for @extents_max; the driver sets */
    unsigned extents_max; /*   @extents_count >= 1; their lengths may sum to less */
    unsigned extents_count; /*   than @length when the room or the answer ends */
    /** 0 or a negative errno; on the device's loop, never from inside submit. */
    void (*done)(struct block_request *, int result);

    /* The driver's, from submit to done. */
    struct block_device *device;
    struct block_request *next;
    struct loop_task task;
    int result;
    void *slot;
};

/** What a driver provides. Arguments are checked before it is called. */
struct block_ops {
    const char *name;
    void (*submit)(struct block_device *, struct block_request *);
    /** No request is in flight. Frees the device, then calls @closed(@context) on the loop,
        possibly from inside. Has a deadline of its own: it always ends. */
    void (*close)(struct block_device *, void (*closed)(void *context), void *context);
    /** For block_can_copy(), between two of this driver. NULL: never. */
    bool (*can_copy)(struct block_device *to, struct block_device *from);
};

enum { BLOCK_WORDS_MAX = 160 }; /* bytes with the NUL: what fits a fault */

/** First member of every driver's own struct. Constant from open to close, but @broken. */
struct block_device {
    const struct block_ops *ops;
    struct loop *loop;
    uint64_t size; /* bytes, whole blocks */
    uint32_t block_size; /* bytes: 1 (a LogicalFile), or a power of two from 512 on */
    uint32_t max_transfer; /* bytes, the largest useful read or write; whole blocks */
    uint32_t max_zero; /* bytes of one ZERO or DISCARD, checked; 0: any length */
    uint16_t depth; /* requests in flight that are useful */
    unsigned caps; /* enum block_device_caps */
    unsigned in_flight; /* kept by block_submit() and block_done() */
    bool broken; /* the session is lost or a flush failed: every request answers an error
                    until it is closed and opened anew */
    bool returns; /* with @broken: not for what failed there, but because nobody knows what of
                     the unflushed writes is left. Opened anew it is as good as before. */
    bool answered; /* with @returns: all that was ever sent had been answered by then, so that
                      no write comes late, and no barrier is needed for its sake */
    char words[BLOCK_WORDS_MAX]; /* block_set_words(), for block_last_words() */
};

/**
 * Checks the request against the device (a failed check ends the process: it is our own
 * bug), then hands it to the driver. A read-only or missing operation answers -EROFS or
 * -EOPNOTSUPP through done(), like every other result.
 *
 * Results: 0; -EIO (medium or transport said so), -ENOSPC, -ETIMEDOUT (own deadline),
 * -ENOTCONN (session lost), -EBADE (reservation conflict), -ESTALE (the far side is not
 * what was opened: shrunk, removed, other identity), -EREMOTEIO (any other SCSI status).
 */
void block_submit(struct block_device *device, struct block_request *request);

/**
 * Bytes get from @from to @to by BLOCK_COPY, without passing through us. It may always fail,
 * with nothing said of whose fault that is, and part of the range written: then the range is
 * to be read and written. -ENODATA is no fault, and nothing was written: one of its runs of
 * 64 KiB, counted from its start, may be zeros, which can be had for less.
 */
bool block_can_copy(struct block_device *to, struct block_device *from);

/** For devices over devices: what @outer asks, for the device below. Answers to @done. */
struct block_request block_request_inner(const struct block_request *outer,
        void (*done)(struct block_request *inner, int result));

/** For drivers: complete later, on the loop, with @result. */
void block_done_later(struct block_request *request, int result);

/** For drivers: complete now; only from a callback of the loop, never from inside submit. */
void block_done(struct block_request *request, int result);

/** See block_ops.close. @device is gone once it is called; NULL is an error. */
void block_close(
        struct block_device *device, void (*closed)(void *context), void *context);

/** For drivers: the words of the failure that is about to be answered. */
void block_set_words(struct block_device *device, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/** Words for the last failure of this device (SCSI sense, errno), "" when there is none. */
const char *block_last_words(const struct block_device *device);

#endif

/* replica/block/uring.h - io_uring, where the kernel allows it: one ring a loop, shared by
 * all that it has open. Private to this room.
 *
 * What a turn of the loop asks for goes down in one system call at the turn's end, which
 * also brings back what is answered by then. Everything on the loop's thread. Nothing
 * here allocates but the ring itself, and nothing blocks.
 */
#ifndef REPLICA_BLOCK_URING_H
#define REPLICA_BLOCK_URING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "replica/loop/loop.h"

struct uring;

/** One call under way. Embedded by the caller, alive with its buffers until @done, which
    has what the system call would return, or a negative errno; never from inside. */
struct uring_call {
    void (*done)(struct uring_call *, int result);
};

/**
 * The ring of @loop, made at the first asking by the thread that runs the loop, and its
 * from then on; it goes with the loop. NULL where there is none: the kernel or a
 * container forbids it (a log line says so, once a process), memory or descriptors have
 * run out, or the loop is simulated.
 */
struct uring *uring_of(struct loop *loop);

/** A read or a write of up to 2 GiB. @iov is alive until done. */
struct uring_transfer {
    int fd;
    bool write;
    bool stable; /* write: as with RWF_DSYNC */
    bool apart; /* not tried on the calling thread: for copies too long to wait for */
    const struct iovec *iov;
    int iovcnt;
    uint64_t offset; /* bytes */
};

/* The three below return false, and forget @call, when the ring is full and the kernel
   takes nothing more just now: to be done in another way. */

bool uring_transfer(struct uring *ring, struct uring_call *call,
        const struct uring_transfer *transfer);

/** fdatasync. */
bool uring_sync(struct uring *ring, struct uring_call *call, int fd);

/** fallocate with @mode. */
bool uring_allocate(struct uring *ring, struct uring_call *call, int fd, int mode,
        uint64_t offset, uint64_t length);

#endif

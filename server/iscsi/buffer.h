/* server/iscsi/buffer.h - the memory that data passes through: one pool a loop, of a fixed
 * size, so that no peer can make us allocate.
 *
 * A buffer is one contiguous run of BUFFER_SMALL or BUFFER_LARGE bytes; before those of a
 * small one BUFFER_ROOM more are its holder's, for the header of a PDU, so that both leave in
 * one piece. When none is free,
 * who wants one waits in line; a connection that waits reads nothing more, and a command that
 * waits gets no R2T: back-pressure, never malloc. One thread: the loop's.
 */
#ifndef SERVER_ISCSI_BUFFER_H
#define SERVER_ISCSI_BUFFER_H

#include <stddef.h>
#include <stdint.h>

struct buffer_pool;

enum {
    BUFFER_SMALL = 8 << 10, /* bytes */
    BUFFER_ROOM = 64, /* bytes; keeps data at the start of a cache line */
    BUFFER_LARGE =
            256 << 10, /* bytes; also our MaxBurstLength: a burst fits one buffer */
};

struct buffer {
    uint8_t *bytes;
    size_t size; /* BUFFER_SMALL or BUFFER_LARGE */
    struct buffer
            *next; /* the holder's while it is held, the pool's while it is free */
    struct buffer_pool *pool;
};

/** Embedded by who waits, alive until @ready or buffer_wait_cancel(). */
struct buffer_wait {
    void (*ready)(
            struct buffer_wait *, struct buffer *); /* the buffer is the waiter's */
    size_t size;
    struct buffer_wait *next;
    struct buffer_pool *pool; /* not NULL: in line */
};

/** @bytes in all, address space at first; memory is touched as it is used, last in first out.
    Owned by the caller, buffer_pool_destroy() when every buffer is back. NULL: no memory. */
struct buffer_pool *buffer_pool_create(size_t bytes);
void buffer_pool_destroy(struct buffer_pool *pool);

/** A buffer of at least @size (at most BUFFER_LARGE) bytes, or NULL: none is free now, or
    others wait in line. */
struct buffer *buffer_take(struct buffer_pool *pool, size_t size);

/** Calls @wait->ready as soon as one is free, in the order of asking; never from inside. */
void buffer_wait_start(struct buffer_pool *pool, struct buffer_wait *wait, size_t size);
void buffer_wait_cancel(struct buffer_wait *wait);

/** Back to its pool; serves who waits, from inside. */
void buffer_give(struct buffer *buffer);

#endif

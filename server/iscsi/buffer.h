/* server/iscsi/buffer.h - the memory that data passes through: one pool a loop, of a fixed
 * size, so that no peer can make us allocate.
 *
 * A buffer is one contiguous run of BUFFER_SMALL or BUFFER_LARGE bytes; before those of a
 * small one BUFFER_ROOM more are its holder's, for the header of a PDU, so that both leave in
 * one piece. When none is free,
 * who wants one waits in line; a connection that waits reads nothing more, and a command that
 * waits gets no R2T: back-pressure, never malloc. One thread: the loop's.
 *
 * What a session holds may stay out for as long as its peer likes, nearly. So each of them
 * has a claim to one large buffer, or as many bytes of small ones; who has more than that gets
 * no more of what the others' claims need: that is an eighth of the pool at least, for those
 * who are yet to come, and a quarter at most. Who may not stands in nobody's way.
 */
#ifndef SERVER_ISCSI_BUFFER_H
#define SERVER_ISCSI_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct buffer_pool;
struct buffer_share;

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
    struct buffer_share *share; /* it is counted to, while it is held */
};

/** Embedded by who waits, alive until @ready or buffer_wait_cancel(). */
struct buffer_wait {
    void (*ready)(
            struct buffer_wait *, struct buffer *); /* the buffer is the waiter's */
    size_t size;
    STAILQ_ENTRY(buffer_wait) entry;
    struct buffer_share *share; /* not NULL: in line */
};

/** One of those that share a pool: embedded; buffer_share_open() .. _close(). */
struct buffer_share {
    struct buffer_pool *pool; /* NULL: not open */
    size_t held; /* bytes */
    /* the pool's */
    STAILQ_HEAD(, buffer_wait) waits; /* in order */
    TAILQ_ENTRY(buffer_share) entry; /* among those that wait */
};

/** @bytes in all, address space at first; memory is touched as it is used, last in first out.
    Owned by the caller, buffer_pool_destroy() when every buffer is back. NULL: no memory. */
struct buffer_pool *buffer_pool_create(size_t bytes);
void buffer_pool_destroy(struct buffer_pool *pool);

/** @share, of zeros, has a claim from now on, until it is closed: it has nothing then, and
    nobody of it waits; others who do are served, from inside. */
void buffer_share_open(struct buffer_share *share, struct buffer_pool *pool);
void buffer_share_close(struct buffer_share *share); /* not open is fine */

/** For who holds little and not for long: without limit. The pool's. */
struct buffer_share *buffer_common(struct buffer_pool *pool);

/** A buffer of at least @size (at most BUFFER_LARGE) bytes, or NULL: none is free now, others
    wait in line, or it holds too much already. */
struct buffer *buffer_take(struct buffer_share *share, size_t size);

/** Calls @wait->ready as soon as there is one for it, in the order of asking among those of
    its share, and the shares in turn; never from inside. */
void buffer_wait_start(
        struct buffer_share *share, struct buffer_wait *wait, size_t size);
void buffer_wait_cancel(struct buffer_wait *wait);

/** Back to its pool; serves who waits, from inside. One without a pool is a part of another,
    which its holder keeps: nothing happens. */
void buffer_give(struct buffer *buffer);

#endif

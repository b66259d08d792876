/* The pool: one run of address space, cut into chunks of BUFFER_LARGE. A chunk is a large
 * buffer, or it is split into small ones until all of those are back. What came back last is
 * handed out first, so that a quiet daemon touches little memory; a chunk that was never used
 * costs nothing.
 */
#include "server/iscsi/buffer.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "replica/base/check.h"

enum { SMALL_WHOLE = BUFFER_ROOM + BUFFER_SMALL, SMALLS = BUFFER_LARGE / SMALL_WHOLE };

struct chunk {
    struct buffer large;
    struct buffer small[SMALLS];
    struct buffer *free; /* small ones that came back */
    unsigned carved, used; /* small ones ever handed out since the split; out now */
    LIST_ENTRY(chunk) entry; /* among the split ones with room; or the free ones */
};

struct buffer_pool {
    uint8_t *bytes;
    size_t size; /* bytes mapped */
    size_t count, fresh; /* chunks; how many were ever used */
    LIST_HEAD(, chunk) free; /* whole chunks that came back */
    LIST_HEAD(, chunk) split; /* split ones with a small buffer to give */
    TAILQ_HEAD(, buffer_share) waiting; /* whose turn it is first */
    bool wanted; /* one that may have a buffer waits for one */
    size_t held, claimed; /* bytes; those that open shares lack of their claims */
    struct buffer_share common;
    struct chunk chunks[];
};

struct buffer_pool *buffer_pool_create(size_t bytes)
{
    size_t count = bytes / BUFFER_LARGE;
    struct buffer_pool *pool;

    if (count == 0)
        count = 1;
    pool = calloc(1, sizeof *pool + count * sizeof *pool->chunks);
    if (!pool)
        return NULL;
    pool->count = count;
    pool->size = count * BUFFER_LARGE;
    TAILQ_INIT(&pool->waiting);
    pool->common.pool = pool;
    STAILQ_INIT(&pool->common.waits);
    pool->bytes = mmap(NULL, pool->size, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool->bytes == MAP_FAILED) {
        free(pool);
        return NULL;
    }
    return pool;
}

void buffer_pool_destroy(struct buffer_pool *pool)
{
    if (!pool)
        return;
    check(pool->held == 0 && TAILQ_EMPTY(&pool->waiting));
    (void)munmap(pool->bytes, pool->size);
    free(pool);
}

static uint8_t *chunk_bytes(const struct buffer_pool *pool, const struct chunk *chunk)
{
    return pool->bytes + (size_t)(chunk - pool->chunks) * BUFFER_LARGE;
}

/* A whole chunk: the one that came back last, else one that was never used. */
static struct chunk *chunk_take(struct buffer_pool *pool)
{
    struct chunk *chunk = LIST_FIRST(&pool->free);

    if (chunk)
        LIST_REMOVE(chunk, entry);
    else if (pool->fresh < pool->count)
        chunk = &pool->chunks[pool->fresh++];
    return chunk;
}

static void chunk_give(struct buffer_pool *pool, struct chunk *chunk)
{
    LIST_INSERT_HEAD(&pool->free, chunk, entry);
}

static struct buffer *large_take(struct buffer_pool *pool)
{
    struct chunk *chunk = chunk_take(pool);

    if (!chunk)
        return NULL;
    chunk->large = (struct buffer){
        .bytes = chunk_bytes(pool, chunk), .size = BUFFER_LARGE, .pool = pool
    };
    return &chunk->large;
}

static struct buffer *small_carve(struct buffer_pool *pool, struct chunk *chunk)
{
    struct buffer *buffer = &chunk->small[chunk->carved];

    *buffer = (struct buffer){ .bytes = chunk_bytes(pool, chunk) +
                (size_t)chunk->carved * SMALL_WHOLE + BUFFER_ROOM,
        .size = BUFFER_SMALL,
        .pool = pool };
    chunk->carved++;
    return buffer;
}

static struct buffer *small_take(struct buffer_pool *pool)
{
    struct chunk *chunk = LIST_FIRST(&pool->split);
    struct buffer *buffer;

    if (!chunk) {
        if (!(chunk = chunk_take(pool)))
            return NULL;
        chunk->free = NULL;
        chunk->carved = chunk->used = 0;
        LIST_INSERT_HEAD(&pool->split, chunk, entry);
    }
    if ((buffer = chunk->free))
        chunk->free = buffer->next;
    else
        buffer = small_carve(pool, chunk);
    if (++chunk->used == SMALLS)
        LIST_REMOVE(chunk, entry);
    buffer->next = NULL;
    return buffer;
}

/* -- shares ---------------------------------------------------------------------------------- */

/* Bytes it may still have whatever the others have. */
static size_t share_claim(const struct buffer_share *share)
{
    return share->held < BUFFER_LARGE ? BUFFER_LARGE - share->held : 0;
}

static void share_hold(struct buffer_share *share, size_t held)
{
    struct buffer_pool *pool = share->pool;

    pool->held += held - share->held;
    if (share != &pool->common)
        pool->claimed -= share_claim(share);
    share->held = held;
    if (share != &pool->common)
        pool->claimed += share_claim(share);
}

void buffer_share_open(struct buffer_share *share, struct buffer_pool *pool)
{
    share->pool = pool;
    STAILQ_INIT(&share->waits);
    pool->claimed += share_claim(share);
}

/* What must be left for others behind one that has more than its claim. */
static size_t share_leaves(const struct buffer_share *share)
{
    const struct buffer_pool *pool = share->pool;
    size_t eighth = pool->count / 8 * BUFFER_LARGE;
    size_t claims = pool->claimed - share_claim(share);

    return claims < eighth ? eighth : claims > 2 * eighth ? 2 * eighth : claims;
}

static size_t whole_size(size_t size)
{
    return size <= BUFFER_SMALL ? BUFFER_SMALL : BUFFER_LARGE;
}

/* May it have one more? */
static bool share_fits(const struct buffer_share *share, size_t size)
{
    const struct buffer_pool *pool = share->pool;

    size = whole_size(size);
    return share->held + size <= BUFFER_LARGE || share == &pool->common ||
            pool->size - pool->held >= size + share_leaves(share);
}

static struct buffer *any_take(struct buffer_share *share, size_t size)
{
    struct buffer_pool *pool = share->pool;
    struct buffer *buffer;

    check(size <= BUFFER_LARGE);
    buffer = size <= BUFFER_SMALL ? small_take(pool) : large_take(pool);
    if (buffer) {
        buffer->share = share;
        share_hold(share, share->held + buffer->size);
    }
    return buffer;
}

struct buffer_share *buffer_common(struct buffer_pool *pool)
{
    return &pool->common;
}

struct buffer *buffer_take(struct buffer_share *share, size_t size)
{
    if (share->pool->wanted || !STAILQ_EMPTY(&share->waits) || !share_fits(share, size))
        return NULL;
    return any_take(share, size);
}

static struct chunk *chunk_of(const struct buffer *buffer)
{
    struct buffer_pool *pool = buffer->pool;

    return &pool->chunks[(size_t)(buffer->bytes - pool->bytes) / BUFFER_LARGE];
}

static void small_give(struct buffer_pool *pool, struct buffer *buffer)
{
    struct chunk *chunk = chunk_of(buffer);

    buffer->next = chunk->free;
    chunk->free = buffer;
    if (chunk->used-- == SMALLS)
        LIST_INSERT_HEAD(&pool->split, chunk, entry);
    if (chunk->used == 0) {
        LIST_REMOVE(chunk, entry);
        chunk_give(pool, chunk);
    }
}

/* -- who waits ------------------------------------------------------------------------------- */

/* Its share's next turn is after all others'. */
static void wait_unlink_first(struct buffer_share *share)
{
    STAILQ_FIRST(&share->waits)->share = NULL;
    STAILQ_REMOVE_HEAD(&share->waits, entry);
    TAILQ_REMOVE(&share->pool->waiting, share, entry);
    if (!STAILQ_EMPTY(&share->waits))
        TAILQ_INSERT_TAIL(&share->pool->waiting, share, entry);
}

static struct buffer_share *share_next_that_fits(const struct buffer_pool *pool)
{
    struct buffer_share *share;

    TAILQ_FOREACH(share, &pool->waiting, entry)
        if (share_fits(share, STAILQ_FIRST(&share->waits)->size))
            break;
    return share;
}

/* Whose turn it is and who asked for a large one is not overtaken by small ones, or it would
   wait for ever. */
static void waits_serve(struct buffer_pool *pool)
{
    struct buffer_share *share;
    struct buffer *buffer;

    pool->wanted = false;
    while ((share = share_next_that_fits(pool))) {
        struct buffer_wait *wait = STAILQ_FIRST(&share->waits);
        if (!(buffer = any_take(share, wait->size))) {
            pool->wanted = true;
            return;
        }
        wait_unlink_first(share);
        wait->ready(wait, buffer);
    }
}

void buffer_give(struct buffer *buffer)
{
    struct buffer_pool *pool = buffer->pool;

    if (!pool)
        return;
    check(buffer->share->held >= buffer->size);
    share_hold(buffer->share, buffer->share->held - buffer->size);
    if (buffer->size == BUFFER_LARGE)
        chunk_give(pool, chunk_of(buffer));
    else
        small_give(pool, buffer);
    if (!TAILQ_EMPTY(&pool->waiting))
        waits_serve(pool);
}

/* What its claim kept back may be another's now. */
void buffer_share_close(struct buffer_share *share)
{
    struct buffer_pool *pool = share->pool;

    if (!pool)
        return;
    check(share->held == 0 && STAILQ_EMPTY(&share->waits));
    pool->claimed -= share_claim(share);
    share->pool = NULL;
    if (!TAILQ_EMPTY(&pool->waiting))
        waits_serve(pool);
}

void buffer_wait_start(
        struct buffer_share *share, struct buffer_wait *wait, size_t size)
{
    check(size <= BUFFER_LARGE);
    wait->size = size;
    wait->share = share;
    if (STAILQ_EMPTY(&share->waits))
        TAILQ_INSERT_TAIL(&share->pool->waiting, share, entry);
    STAILQ_INSERT_TAIL(&share->waits, wait, entry);
    share->pool->wanted |= share_fits(share, STAILQ_FIRST(&share->waits)->size);
}

void buffer_wait_cancel(struct buffer_wait *wait)
{
    struct buffer_share *share = wait->share;

    if (!share)
        return;
    STAILQ_REMOVE(&share->waits, wait, buffer_wait, entry);
    wait->share = NULL;
    if (STAILQ_EMPTY(&share->waits))
        TAILQ_REMOVE(&share->pool->waiting, share, entry);
    waits_serve(share->pool); /* who stood behind it may want less */
}

/* The pool: one run of address space, cut into chunks of BUFFER_LARGE. A chunk is a large
 * buffer, or it is split into small ones until all of those are back. What came back last is
 * handed out first, so that a quiet daemon touches little memory; a chunk that was never used
 * costs nothing.
 */
#include "server/iscsi/buffer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "replica/base/check.h"

enum { SMALL_WHOLE = BUFFER_ROOM + BUFFER_SMALL, SMALLS = BUFFER_LARGE / SMALL_WHOLE };

struct chunk {
    struct buffer large;
    struct buffer small[SMALLS];
    struct buffer *free; /* small ones that came back */
    unsigned carved, used; /* small ones ever handed out since the split; out now */
    struct chunk *next, **link; /* among the split ones with room; or the free ones */
};

struct buffer_pool {
    uint8_t *bytes;
    size_t size; /* bytes mapped */
    size_t count, fresh; /* chunks; how many were ever used */
    struct chunk *free; /* whole chunks that came back */
    struct chunk *split; /* split ones with a small buffer to give */
    struct buffer_wait *first, **last; /* who waits, in order */
    size_t out; /* buffers */
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
    pool->last = &pool->first;
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
    check(pool->out == 0 && !pool->first);
    (void)munmap(pool->bytes, pool->size);
    free(pool);
}

static void chunk_link(struct chunk **list, struct chunk *chunk)
{
    chunk->next = *list;
    chunk->link = list;
    if (chunk->next)
        chunk->next->link = &chunk->next;
    *list = chunk;
}

static void chunk_unlink(struct chunk *chunk)
{
    *chunk->link = chunk->next;
    if (chunk->next)
        chunk->next->link = chunk->link;
}

static uint8_t *chunk_bytes(const struct buffer_pool *pool, const struct chunk *chunk)
{
    return pool->bytes + (size_t)(chunk - pool->chunks) * BUFFER_LARGE;
}

/* A whole chunk: the one that came back last, else one that was never used. */
static struct chunk *chunk_take(struct buffer_pool *pool)
{
    struct chunk *chunk = pool->free;

    if (chunk)
        chunk_unlink(chunk);
    else if (pool->fresh < pool->count)
        chunk = &pool->chunks[pool->fresh++];
    return chunk;
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
    struct chunk *chunk = pool->split;
    struct buffer *buffer;

    if (!chunk) {
        if (!(chunk = chunk_take(pool)))
            return NULL;
        chunk->free = NULL;
        chunk->carved = chunk->used = 0;
        chunk_link(&pool->split, chunk);
    }
    if ((buffer = chunk->free))
        chunk->free = buffer->next;
    else
        buffer = small_carve(pool, chunk);
    if (++chunk->used == SMALLS)
        chunk_unlink(chunk);
    buffer->next = NULL;
    return buffer;
}

static struct buffer *any_take(struct buffer_pool *pool, size_t size)
{
    struct buffer *buffer;

    check(size <= BUFFER_LARGE);
    buffer = size <= BUFFER_SMALL ? small_take(pool) : large_take(pool);
    if (buffer)
        pool->out++;
    return buffer;
}

struct buffer *buffer_take(struct buffer_pool *pool, size_t size)
{
    return pool->first ? NULL : any_take(pool, size);
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
        chunk_link(&pool->split, chunk);
    if (chunk->used == 0) {
        chunk_unlink(chunk);
        chunk_link(&pool->free, chunk);
    }
}

static void wait_unlink_first(struct buffer_pool *pool)
{
    struct buffer_wait *wait = pool->first;

    pool->first = wait->next;
    if (!pool->first)
        pool->last = &pool->first;
    wait->pool = NULL;
}

/* In the order of asking: who asked for a large one is not overtaken by small ones, or it
   would wait for ever. */
static void waits_serve(struct buffer_pool *pool)
{
    struct buffer_wait *wait;
    struct buffer *buffer;

    while ((wait = pool->first) && (buffer = any_take(pool, wait->size))) {
        wait_unlink_first(pool);
        wait->ready(wait, buffer);
    }
}

void buffer_give(struct buffer *buffer)
{
    struct buffer_pool *pool = buffer->pool;

    check(pool->out > 0);
    pool->out--;
    if (buffer->size == BUFFER_LARGE)
        chunk_link(&pool->free, chunk_of(buffer));
    else
        small_give(pool, buffer);
    if (pool->first)
        waits_serve(pool);
}

void buffer_wait_start(struct buffer_pool *pool, struct buffer_wait *wait, size_t size)
{
    check(size <= BUFFER_LARGE);
    wait->size = size;
    wait->next = NULL;
    wait->pool = pool;
    *pool->last = wait;
    pool->last = &wait->next;
}

void buffer_wait_cancel(struct buffer_wait *wait)
{
    struct buffer_pool *pool = wait->pool;

    if (!pool)
        return;
    for (struct buffer_wait **at = &pool->first; *at; at = &(*at)->next)
        if (*at == wait) {
            *at = wait->next;
            if (!*at)
                pool->last = at;
            break;
        }
    wait->pool = NULL;
    waits_serve(pool); /* who stood behind it may want less */
}

/* The buffer pool: sizes, who waits, and that nothing is lost whatever the order. */
#include <string.h>

#include "replica/base/scope.h"
#include "server/iscsi/buffer.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { SMALLS = BUFFER_LARGE / (BUFFER_ROOM + BUFFER_SMALL) };

struct waiter {
    struct buffer_wait wait;
    struct buffer *buffer;
    unsigned served; /* its place in the order of being served */
};

static unsigned serial;

static void on_ready(struct buffer_wait *wait, struct buffer *buffer)
{
    struct waiter *waiter = container_of(wait, struct waiter, wait);

    waiter->buffer = buffer;
    waiter->served = ++serial;
}

static void wait_for(struct buffer_pool *pool, struct waiter *waiter, size_t size)
{
    *waiter = (struct waiter){ .wait.ready = on_ready };
    expect(!buffer_take(pool, size));
    buffer_wait_start(pool, &waiter->wait, size);
}

Test(scsi_buffer, sizes)
{
    struct buffer_pool *pool = buffer_pool_create(2 * BUFFER_LARGE);
    struct buffer *small = buffer_take(pool, 1), *large;

    expect_eq(small->size, BUFFER_SMALL);
    large = buffer_take(pool, BUFFER_SMALL + 1);
    expect_eq(large->size, BUFFER_LARGE);
    expect_eq((uintptr_t)small->bytes % 64, 0);
    expect_eq((uintptr_t)large->bytes % 4096, 0);
    expect(!buffer_take(pool, BUFFER_LARGE)); /* the other chunk is split */
    buffer_give(small);
    small = buffer_take(pool, BUFFER_LARGE);
    expect(small != NULL);
    buffer_give(small);
    buffer_give(large);
    buffer_pool_destroy(pool);
    buffer_pool_destroy(NULL);
}

Test(scsi_buffer, a_chunk_makes_small_ones_that_do_not_overlap)
{
    struct buffer_pool *pool = buffer_pool_create(BUFFER_LARGE);
    struct buffer *all[SMALLS];

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < SMALLS; i++) {
            all[i] = buffer_take(pool, BUFFER_SMALL);
            expect(all[i] != NULL);
            memset(all[i]->bytes - BUFFER_ROOM, (int)i, BUFFER_ROOM + BUFFER_SMALL);
        }
        expect(!buffer_take(pool, 1));
        for (unsigned i = 0; i < SMALLS; i++) {
            expect_eq(all[i]->bytes[-BUFFER_ROOM], i);
            expect_eq(all[i]->bytes[0], i);
            expect_eq(all[i]->bytes[BUFFER_SMALL - 1], i);
        }
        for (unsigned i = 0; i < SMALLS; i++)
            buffer_give(all[(i * 7 + round) % SMALLS]);
    }
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, what_came_back_last_goes_out_first)
{
    struct buffer_pool *pool = buffer_pool_create(8 * BUFFER_LARGE);
    struct buffer *one = buffer_take(pool, BUFFER_LARGE);
    uint8_t *bytes = one->bytes;

    buffer_give(one);
    one = buffer_take(pool, BUFFER_LARGE);
    expect(one->bytes == bytes);
    buffer_give(one);
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, who_waits_is_served_in_order)
{
    struct buffer_pool *pool = buffer_pool_create(2 * BUFFER_LARGE);
    struct buffer *first = buffer_take(pool, BUFFER_LARGE);
    struct buffer *second = buffer_take(pool, BUFFER_LARGE);
    struct waiter large, small, last;

    serial = 0;
    wait_for(pool, &large, BUFFER_LARGE);
    wait_for(pool, &small, 10);
    wait_for(pool, &last, BUFFER_LARGE);
    buffer_give(first);
    expect_eq(large.served, 1);
    expect_eq(small.served, 0);
    expect(!buffer_take(pool, 10)); /* nobody overtakes */
    buffer_give(second);
    expect_eq(small.served, 2);
    expect_eq(last.served, 0);
    buffer_give(small.buffer);
    expect_eq(last.served, 3);
    buffer_give(last.buffer);
    buffer_give(large.buffer);
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, who_leaves_the_line_frees_those_behind)
{
    struct buffer_pool *pool = buffer_pool_create(BUFFER_LARGE);
    struct buffer *small = buffer_take(pool, 1);
    struct waiter large, behind;

    wait_for(pool, &large, BUFFER_LARGE);
    wait_for(pool, &behind, 1);
    buffer_wait_cancel(&large.wait);
    expect(!large.buffer && behind.buffer);
    buffer_wait_cancel(&large.wait); /* harmless */
    buffer_give(behind.buffer);
    buffer_give(small);
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, nothing_is_lost_at_random)
{
    enum { MANY = 200 };
    static struct waiter waiters[MANY];
    struct buffer_pool *pool = buffer_pool_create(6 * BUFFER_LARGE);
    uint64_t seed = seed_take("buffers");

    memset(waiters, 0, sizeof waiters);
    for (unsigned step = 0; step < 100000; step++) {
        struct waiter *one = &waiters[seed_below(&seed, MANY)];
        size_t size = seed_below(&seed, 3) ? BUFFER_SMALL : BUFFER_LARGE;
        if (one->buffer) {
            struct buffer *mine = one->buffer;
            one->buffer = NULL;
            buffer_give(mine);
        } else if (one->wait.pool) {
            if (seed_below(&seed, 4) == 0)
                buffer_wait_cancel(&one->wait);
        } else if (!(one->buffer = buffer_take(pool, size))) {
            one->wait.ready = on_ready;
            buffer_wait_start(pool, &one->wait, size);
        }
        if (one->buffer)
            expect(one->buffer->size >= BUFFER_SMALL);
    }
    for (unsigned i = 0; i < MANY; i++)
        buffer_wait_cancel(&waiters[i].wait);
    for (unsigned i = 0; i < MANY; i++)
        if (waiters[i].buffer)
            buffer_give(waiters[i].buffer);
    struct buffer *all[6]; /* all of it is whole again */
    for (unsigned i = 0; i < 6; i++)
        expect((all[i] = buffer_take(pool, BUFFER_LARGE)) != NULL);
    for (unsigned i = 0; i < 6; i++)
        buffer_give(all[i]);
    buffer_pool_destroy(pool);
}

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
    expect(!buffer_take(buffer_common(pool), size));
    buffer_wait_start(buffer_common(pool), &waiter->wait, size);
}

Test(scsi_buffer, sizes)
{
    struct buffer_pool *pool = buffer_pool_create(2 * BUFFER_LARGE);
    struct buffer *small = buffer_take(buffer_common(pool), 1), *large;

    expect_eq(small->size, BUFFER_SMALL);
    large = buffer_take(buffer_common(pool), BUFFER_SMALL + 1);
    expect_eq(large->size, BUFFER_LARGE);
    expect_eq((uintptr_t)small->bytes % 64, 0);
    expect_eq((uintptr_t)large->bytes % 4096, 0);
    expect(!buffer_take(
            buffer_common(pool), BUFFER_LARGE)); /* the other chunk is split */
    buffer_give(small);
    small = buffer_take(buffer_common(pool), BUFFER_LARGE);
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
            all[i] = buffer_take(buffer_common(pool), BUFFER_SMALL);
            expect(all[i] != NULL);
            memset(all[i]->bytes - BUFFER_ROOM, (int)i, BUFFER_ROOM + BUFFER_SMALL);
        }
        expect(!buffer_take(buffer_common(pool), 1));
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
    struct buffer *one = buffer_take(buffer_common(pool), BUFFER_LARGE);
    uint8_t *bytes = one->bytes;

    buffer_give(one);
    one = buffer_take(buffer_common(pool), BUFFER_LARGE);
    expect(one->bytes == bytes);
    buffer_give(one);
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, who_waits_is_served_in_order)
{
    struct buffer_pool *pool = buffer_pool_create(2 * BUFFER_LARGE);
    struct buffer *first = buffer_take(buffer_common(pool), BUFFER_LARGE);
    struct buffer *second = buffer_take(buffer_common(pool), BUFFER_LARGE);
    struct waiter large, small, last;

    serial = 0;
    wait_for(pool, &large, BUFFER_LARGE);
    wait_for(pool, &small, 10);
    wait_for(pool, &last, BUFFER_LARGE);
    buffer_give(first);
    expect_eq(large.served, 1);
    expect_eq(small.served, 0);
    expect(!buffer_take(buffer_common(pool), 10)); /* nobody overtakes */
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
    struct buffer *small = buffer_take(buffer_common(pool), 1);
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

/* -- shares ------------------------------------------------------------------------------ */

enum { MANY = 64 };

static struct buffer *takes[MANY];
static unsigned taken;

static unsigned take_all(struct buffer_share *share)
{
    unsigned before = taken;

    while ((takes[taken] = buffer_take(share, BUFFER_LARGE)))
        taken++;
    return taken - before;
}

static void give_all(void)
{
    while (taken > 0)
        buffer_give(takes[--taken]);
}

static void shares_open(
        struct buffer_share *shares, unsigned count, struct buffer_pool *pool)
{
    for (unsigned i = 0; i < count; i++)
        buffer_share_open(&shares[i], pool);
}

static void shares_close(struct buffer_share *shares, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        buffer_share_close(&shares[i]);
}

Test(scsi_buffer, each_can_have_one_whatever_the_others_have)
{
    struct buffer_pool *pool = buffer_pool_create(MANY / 2 * BUFFER_LARGE);
    struct buffer_share shares[8] = { 0 }, late[4] = { 0 };

    shares_open(shares, 1, pool);
    expect_eq(take_all(&shares[0]), MANY / 2 - 4); /* one alone leaves an eighth */
    shares_open(late, 4, pool);
    for (unsigned i = 0; i < 4; i++)
        expect_eq(take_all(&late[i]), 1);
    give_all();
    shares_close(late, 4);
    shares_open(shares + 1, 7, pool);
    expect_eq(take_all(&shares[0]), MANY / 2 - 7);
    for (unsigned i = 1; i < 8; i++)
        expect_eq(take_all(&shares[i]), 1);
    give_all();
    shares_close(shares, 8);
    shares_close(shares, 8); /* harmless */
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, a_claim_is_one_large_or_many_small)
{
    struct buffer_pool *pool = buffer_pool_create(MANY / 2 * BUFFER_LARGE);
    struct buffer_share greedy = { 0 }, other = { 0 };

    shares_open(&greedy, 1, pool);
    shares_open(&other, 1, pool);
    (void)take_all(&greedy);
    for (unsigned i = 0; i < BUFFER_LARGE / BUFFER_SMALL; i++)
        expect((takes[taken++] = buffer_take(&other, BUFFER_SMALL)) != NULL);
    expect(!buffer_take(&greedy, BUFFER_SMALL));
    give_all();
    expect_eq(greedy.held + other.held, 0);
    shares_close(&greedy, 1);
    shares_close(&other, 1);
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, who_holds_much_stands_in_nobodys_way)
{
    struct buffer_pool *pool = buffer_pool_create(MANY / 2 * BUFFER_LARGE);
    struct buffer_share greedy = { 0 }, other = { 0 };
    struct waiter one = { .wait.ready = on_ready };
    struct buffer *mine;

    shares_open(&greedy, 1, pool);
    shares_open(&other, 1, pool);
    (void)take_all(&greedy);
    buffer_wait_start(&greedy, &one.wait, BUFFER_LARGE);
    mine = buffer_take(&other, BUFFER_LARGE);
    expect(mine != NULL);
    expect(!buffer_take(&greedy, 1)); /* not before its own that waits */
    buffer_give(mine);
    expect(!one.buffer);
    buffer_give(takes[--taken]);
    expect(one.buffer != NULL);
    buffer_give(one.buffer);
    give_all();
    shares_close(&greedy, 1);
    shares_close(&other, 1);
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, who_leaves_lets_others_have_its_claim)
{
    struct buffer_pool *pool = buffer_pool_create(MANY / 2 * BUFFER_LARGE);
    struct buffer_share greedy = { 0 }, others[6] = { 0 };
    struct waiter one = { .wait.ready = on_ready };

    shares_open(&greedy, 1, pool);
    shares_open(others, 6, pool);
    expect_eq(take_all(&greedy), MANY / 2 - 6);
    buffer_wait_start(&greedy, &one.wait, BUFFER_LARGE);
    shares_close(others, 1); /* it had nothing: nothing is given back */
    expect(one.buffer != NULL);
    buffer_give(one.buffer);
    give_all();
    shares_close(&greedy, 1);
    shares_close(others, 6);
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, shares_are_served_in_turn)
{
    struct buffer_pool *pool = buffer_pool_create(BUFFER_LARGE);
    struct buffer_share shares[2] = { 0 };
    struct buffer *all = buffer_take(buffer_common(pool), BUFFER_LARGE);
    static struct waiter waiters[4];

    serial = 0;
    shares_open(shares, 2, pool);
    for (unsigned i = 0; i < 4; i++) { /* two of one, two of the other */
        waiters[i] = (struct waiter){ .wait.ready = on_ready };
        buffer_wait_start(&shares[i / 2], &waiters[i].wait, BUFFER_LARGE);
    }
    buffer_give(all);
    for (unsigned n = 0; n < 4; n++)
        for (unsigned i = 0; i < 4; i++)
            if (waiters[i].buffer) {
                struct buffer *buffer = waiters[i].buffer;
                waiters[i].buffer = NULL;
                buffer_give(buffer);
                break;
            }
    expect_eq(waiters[0].served, 1);
    expect_eq(waiters[2].served, 2);
    expect_eq(waiters[1].served, 3);
    expect_eq(waiters[3].served, 4);
    shares_close(shares, 2);
    buffer_pool_destroy(pool);
}

Test(scsi_buffer, nothing_is_lost_at_random)
{
    enum { WAITERS = 200, SHARES = 5 };
    static struct waiter waiters[WAITERS];
    struct buffer_pool *pool = buffer_pool_create(6 * BUFFER_LARGE);
    struct buffer_share shares[SHARES] = { 0 };
    uint64_t seed = seed_take("buffers");

    memset(waiters, 0, sizeof waiters);
    shares_open(shares, SHARES, pool);
    for (unsigned step = 0; step < 100000; step++) {
        unsigned index = (unsigned)seed_below(&seed, WAITERS);
        struct waiter *one = &waiters[index];
        struct buffer_share *share = &shares[index % SHARES];
        size_t size = seed_below(&seed, 3) ? BUFFER_SMALL : BUFFER_LARGE;
        if (one->buffer) {
            struct buffer *mine = one->buffer;
            one->buffer = NULL;
            buffer_give(mine);
        } else if (one->wait.share) {
            if (seed_below(&seed, 4) == 0)
                buffer_wait_cancel(&one->wait);
        } else if (!(one->buffer = buffer_take(share, size))) {
            one->wait.ready = on_ready;
            buffer_wait_start(share, &one->wait, size);
        }
        if (one->buffer)
            expect(one->buffer->size >= BUFFER_SMALL);
    }
    for (unsigned i = 0; i < WAITERS; i++)
        buffer_wait_cancel(&waiters[i].wait);
    for (unsigned i = 0; i < WAITERS; i++)
        if (waiters[i].buffer)
            buffer_give(waiters[i].buffer);
    shares_close(shares, SHARES);
    struct buffer *all[6]; /* all of it is whole again */
    for (unsigned i = 0; i < 6; i++)
        expect((all[i] = buffer_take(buffer_common(pool), BUFFER_LARGE)) != NULL);
    for (unsigned i = 0; i < 6; i++)
        buffer_give(all[i]);
    buffer_pool_destroy(pool);
}

/* Copies that share a loop: how long their pieces are, and how many are under way. */
#include <criterion/criterion.h>

#include "replica/copy/inside.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/rig.h"

enum { MIB = 1 << 20, SIZE = 48 * MIB };

/* A copy on devices that take @ms more to answer than memory does, in a company that the
   test makes. */
static void begin(struct rig *rig, enum copy_kind kind, unsigned ms)
{
    struct block_fault_plan slow = { .op = -1, .delay_ms = ms };
    struct copy_options options = rig_options(kind);

    options.window = 4;
    rig_init_plain(rig, rig_seed(), SIZE, 512, 512, 0, BLOCK_VOLATILE);
    rig_start(rig, &options, &slow, 1, &slow, 1);
}

static void guests_set(struct rig *rig, unsigned guests)
{
    rig->company += guests - rig->guests;
    rig->guests = guests;
}

struct stretch {
    uint64_t requests, bytes; /* read of the source */
    unsigned most; /* pieces that were under way at once */
};

/* Until @read bytes of the source have been asked for, or all. */
static struct stretch run_until(struct rig *rig, uint64_t read)
{
    struct block_faulty_counts from = block_faulty_counts(rig->source_device),
                               to = from;
    struct stretch stretch = { 0 };

    while (!rig->ended && to.bytes[BLOCK_READ] < read) {
        cr_assert(loop_sim_step(rig->loop));
        to = block_faulty_counts(rig->source_device);
        if (rig->copy && rig->copy->busy > stretch.most)
            stretch.most = rig->copy->busy;
    }
    stretch.requests = to.seen[BLOCK_READ] - from.seen[BLOCK_READ];
    stretch.bytes = to.bytes[BLOCK_READ] - from.bytes[BLOCK_READ];
    return stretch;
}

/* How many of them are under way is between half the bytes of alone and all of them: the
   flow says. */
static bool short_ones(const struct stretch *stretch)
{
    return stretch->requests > 0 && stretch->bytes == stretch->requests * COPY_SHORT;
}

static void finish(struct rig *rig)
{
    cr_assert(rig_run(rig) == 0);
    if (rig->options.kind == COPY_FULL)
        rig_expect_equal(rig);
    rig_finish(rig);
}

Test(company, pieces_are_short_while_another_shares_the_loop)
{
    struct rig rig;
    struct stretch stretch;

    begin(&rig, COPY_FULL, 0);
    stretch = run_until(&rig, 8 * MIB);
    cr_assert(stretch.bytes == stretch.requests * COPY_CHUNK && stretch.most == 4);
    guests_set(&rig, 1);
    stretch = run_until(&rig, 24 * MIB);
    cr_assert(short_ones(&stretch) && stretch.most >= 8);
    guests_set(&rig, 0);
    stretch = run_until(&rig, SIZE); /* the last is what is left */
    cr_assert(stretch.requests == (stretch.bytes + COPY_CHUNK - 1) / COPY_CHUNK);
    finish(&rig);
}

/* As many bytes as alone: a long way is no narrower for it. */
Test(company, a_long_way_has_as_much_under_way_as_alone)
{
    struct rig rig;
    struct stretch stretch;

    begin(&rig, COPY_FULL, 20);
    guests_set(&rig, 3);
    stretch = run_until(&rig, SIZE);
    cr_assert(short_ones(&stretch) && stretch.most == 16);
    finish(&rig);
}

Test(company, the_window_of_the_priority_counts_in_company_too)
{
    struct rig rig;
    struct stretch stretch;

    begin(&rig, COPY_FULL, 0);
    guests_set(&rig, 1);
    copy_set_window(rig.copy, 2, 0);
    stretch = run_until(&rig, 8 * MIB);
    cr_assert(short_ones(&stretch) && stretch.most >= 4 && stretch.most <= 8);
    copy_set_window(rig.copy, 8, 0);
    stretch = run_until(&rig, 24 * MIB);
    cr_assert(short_ones(&stretch) && stretch.most >= 16);
    finish(&rig);
}

/* Both sides of a piece share its buffer: half a whole one is what they had. */
Test(company, comparing_has_short_pieces_too)
{
    struct rig rig;
    struct stretch stretch;

    begin(&rig, COPY_DELTA, 0);
    stretch = run_until(&rig, 8 * MIB);
    cr_assert(stretch.bytes == stretch.requests * COPY_CHUNK / 2 && stretch.most == 4);
    guests_set(&rig, 1);
    stretch = run_until(&rig, SIZE);
    cr_assert(short_ones(&stretch) && stretch.most >= 4);
    finish(&rig);
}

/* Two of them are company to one another, from the start of each to its end. */
Test(company, a_copy_counts_itself)
{
    struct rig rig;

    begin(&rig, COPY_FULL, 0);
    cr_assert_eq(rig.company, 1);
    guests_set(&rig, 1);
    cr_assert_eq(rig.company, 2);
    finish(&rig);
    cr_assert_eq(rig.company, 1);
}

/* How zeros get to a target that may make them, at a price nobody knows: both ways are tried,
 * the cheaper is kept, and whatever the target does about it, the volume is right. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "replica/base/checked.h"
#include "replica/copy/inside.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/toll.h"

enum { MIB = 1 << 20, SAMPLED = ZERO_SAMPLES * ZERO_SAMPLE };

/* -- the choice alone ------------------------------------------------------------------ */

static struct instant at(uint64_t ms)
{
    return (struct instant){ 5000000000u + ms * 1000000 };
}

static struct zero_choice choice_of(unsigned caps, bool asks)
{
    struct zero_choice choice;

    zero_choice_init(&choice, caps, asks, at(0));
    zero_choice_consider(&choice, ZERO_SAMPLE, at(0));
    return choice;
}

/* Samples until it is answered: what is made and what is sent, by turns, in milliseconds. */
static unsigned answer(struct zero_choice *choice, const unsigned *made,
        const unsigned *sent, uint64_t now_ms)
{
    unsigned counts[ZERO_WAYS] = { 0 }, count = 0;

    for (; choice->asking; count++) {
        enum zero_way way = zero_choice_next(choice);
        unsigned ms = (way == ZERO_BY_ZERO ? made : sent)[counts[way]++];
        cr_assert(count < 2 * ZERO_SAMPLES && way != ZERO_BY_DISCARD);
        zero_choice_note(choice, way, ms * 1000000ull, at(now_ms));
    }
    cr_assert(counts[ZERO_BY_ZERO] == counts[ZERO_BY_WRITE], "by turns");
    return count;
}

Test(zero_choice, what_is_known_is_not_asked)
{
    static const struct {
        unsigned caps;
        bool asks;
        enum zero_way way;
        bool asking;
    } rows[] = {
        { BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES | BLOCK_CAN_ZERO, true,
                ZERO_BY_DISCARD, false },
        { BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES | BLOCK_MAY_ZERO, true,
                ZERO_BY_DISCARD, false },
        { BLOCK_CAN_DISCARD | BLOCK_CAN_ZERO, true, ZERO_BY_ZERO, false },
        { BLOCK_CAN_DISCARD, true, ZERO_BY_WRITE, false },
        { 0, true, ZERO_BY_WRITE, false },
        { BLOCK_MAY_ZERO, true, ZERO_BY_WRITE, true },
        { BLOCK_MAY_ZERO | BLOCK_CAN_DISCARD, true, ZERO_BY_WRITE, true },
        { BLOCK_MAY_ZERO, false, ZERO_BY_WRITE, false },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct zero_choice choice = choice_of(rows[i].caps, rows[i].asks);
        cr_assert(
                choice.now == rows[i].way && choice.asking == rows[i].asking, "%u", i);
        zero_choice_moved(&choice, ZERO_AGAIN);
        zero_choice_consider(&choice, ZERO_SAMPLE, at(1000000));
        cr_assert(choice.asking == rows[i].asking, "%u", i);
    }
}

Test(zero_choice, the_clearly_cheaper_is_kept)
{
    static const struct {
        unsigned made[4], sent[4];
        enum zero_way way;
        unsigned samples;
    } rows[] = {
        { { 1, 1 }, { 9, 9 }, ZERO_BY_ZERO, 4 },
        { { 9, 9 }, { 1, 1 }, ZERO_BY_WRITE, 4 },
        { { 2, 2, 2, 2 }, { 4, 4, 4, 4 }, ZERO_BY_ZERO, 8 },
        { { 4, 4, 4, 4 }, { 2, 2, 2, 2 }, ZERO_BY_WRITE, 8 },
        { { 4, 4, 4, 4 }, { 4, 4, 4, 4 }, ZERO_BY_WRITE, 8 },
        { { 4, 4, 4, 4 }, { 5, 5, 5, 5 }, ZERO_BY_WRITE, 8 }, /* hardly */
        { { 3, 90, 3, 3 }, { 9, 9, 9, 9 }, ZERO_BY_ZERO, 8 }, /* one late: by itself */
        { { 9, 9, 9, 9 }, { 3, 3, 90, 3 }, ZERO_BY_WRITE, 8 },
        { { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, ZERO_BY_WRITE, 4 }, /* too fast to tell */
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct zero_choice choice = choice_of(BLOCK_MAY_ZERO, true);
        unsigned samples = answer(&choice, rows[i].made, rows[i].sent, 1);
        cr_assert(choice.now == rows[i].way, "row %u", i);
        cr_assert(samples == rows[i].samples, "row %u: %u", i, samples);
    }
}

Test(zero_choice, it_is_asked_again_by_bytes_or_by_time_and_not_too_often)
{
    static const unsigned one[] = { 1, 1, 1, 1 }, ten[] = { 10, 10, 10, 10 };
    static const unsigned slow[] = { 9000, 9000, 9000, 9000 };
    struct zero_choice choice = choice_of(BLOCK_MAY_ZERO, true);

    answer(&choice, one, ten, 100);
    zero_choice_moved(&choice, ZERO_AGAIN - 1);
    zero_choice_consider(&choice, ZERO_SAMPLE, at(50000));
    cr_assert(!choice.asking && choice.now == ZERO_BY_ZERO);
    zero_choice_moved(&choice, 1);
    zero_choice_consider(&choice, ZERO_SAMPLE, at(50000));
    cr_assert(
            choice.asking && choice.now == ZERO_BY_ZERO, "what holds goes on holding");
    answer(&choice, ten, one, 50000);
    cr_assert(choice.now == ZERO_BY_WRITE);
    zero_choice_consider(&choice, ZERO_SAMPLE, at(50000 + ZERO_AGAIN_MS - 1));
    cr_assert(!choice.asking);
    zero_choice_consider(&choice, ZERO_SAMPLE, at(50000 + ZERO_AGAIN_MS));
    cr_assert(choice.asking);
    answer(&choice, slow, one, 200000); /* eighteen seconds, for nothing */
    zero_choice_moved(&choice, 2 * ZERO_AGAIN);
    zero_choice_consider(&choice, ZERO_SAMPLE, at(200000 + 18000 * (ZERO_SHARE - 1)));
    cr_assert(!choice.asking);
    zero_choice_consider(&choice, ZERO_SAMPLE, at(200000 + 18100 * ZERO_SHARE));
    cr_assert(choice.asking);
}

Test(zero_choice, samples_of_another_size_are_forgotten)
{
    struct zero_choice choice = choice_of(BLOCK_MAY_ZERO, true);

    zero_choice_note(&choice, ZERO_BY_WRITE, 5, at(1));
    zero_choice_note(&choice, ZERO_BY_ZERO, 5, at(1));
    zero_choice_note(&choice, ZERO_BY_WRITE, 5, at(1));
    zero_choice_consider(&choice, ZERO_SAMPLE, at(2));
    cr_assert(zero_choice_next(&choice) == ZERO_BY_ZERO);
    zero_choice_consider(&choice, ZERO_SAMPLE / 2, at(2));
    cr_assert(zero_choice_next(&choice) == ZERO_BY_WRITE && choice.asking);
    zero_choice_note(&choice, ZERO_BY_WRITE, 5, at(3));
    zero_choice_note(&choice, ZERO_BY_ZERO, 5, at(3));
    cr_assert(choice.asking, "two and one are not two and two");
}

Test(zero_choice, a_refusal_is_for_good_and_a_discard_that_fails_is_no_end)
{
    struct zero_choice choice =
            choice_of(BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES | BLOCK_MAY_ZERO, true);

    zero_choice_give_up(&choice, ZERO_BY_DISCARD);
    cr_assert(choice.now == ZERO_BY_WRITE && choice.asking);
    zero_choice_give_up(&choice, ZERO_BY_DISCARD); /* another run says so */
    cr_assert(choice.now == ZERO_BY_WRITE && choice.asking);
    zero_choice_give_up(&choice, ZERO_BY_ZERO);
    zero_choice_moved(&choice, ZERO_AGAIN);
    zero_choice_consider(&choice, ZERO_SAMPLE, at(1000000));
    cr_assert(choice.now == ZERO_BY_WRITE && !choice.asking && !choice.stuck);
    choice = choice_of(BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES | BLOCK_CAN_ZERO, true);
    zero_choice_give_up(&choice, ZERO_BY_DISCARD);
    cr_assert(choice.now == ZERO_BY_ZERO && !choice.asking);
    zero_choice_give_up(&choice, ZERO_BY_ZERO);
    cr_assert(choice.now == ZERO_BY_WRITE && !choice.asking);
}

/* -- what a copy makes of it ----------------------------------------------------------- */

static void expect_right(struct toll *toll)
{
    rig_expect_equal(&toll->rig);
    rig_finish(&toll->rig);
}

static void copy_all(struct toll *toll)
{
    struct copy_options options = rig_options(COPY_FULL);

    cr_assert(rig_copy(&toll->rig, &options) == 0, "%s", toll->rig.fault.why);
    cr_assert(toll->rig.last.written == toll->write_bytes, "what is sent is told");
    cr_assert(toll->rig.last.skipped == toll->rig.source_size - toll->write_bytes);
    cr_assert(toll->zero_bytes == toll->rig.last.skipped, "the rest was made there");
}

/* In what was read, and in holes, where a piece may be long. */
Test(zero_way, the_cheaper_way_wins_over_garbage)
{
    for (unsigned i = 0; i < 8; i++) {
        bool dear = i & 1, holes = i & 2, first = i & 4;
        struct toll toll;
        toll_init(&toll, rig_seed() + i, 48 * MIB, holes ? BLOCK_CAN_EXTENTS : 0);
        toll_clear(&toll, first ? 0 : 8 * MIB, 40 * MIB);
        toll.write_ms = dear ? 2 : 9;
        toll.zero_ms = dear ? 9 : 2;
        uint64_t clear = (first ? 40 : 32) * (uint64_t)MIB;
        copy_all(&toll);
        cr_assert(toll.beside == 1, "a sample is alone");
        if (dear)
            cr_assert(toll.zeros >= 2 && toll.zero_bytes <= SAMPLED, "%" PRIu64,
                    toll.zero_bytes);
        else
            cr_assert(toll.zero_bytes < clear &&
                            toll.zero_bytes + SAMPLED + 8 * MIB >= clear,
                    "%" PRIu64, toll.zero_bytes);
        if (!dear && holes)
            cr_assert(toll.zeros < 30, "long runs are few requests: %" PRIu64,
                    toll.zeros);
        expect_right(&toll);
    }
}

/* The first of them, too, that comes upon data in flight. */
Test(zero_way, a_sample_has_the_target_to_itself)
{
    struct toll toll;
    struct copy_options options = rig_options(COPY_FULL);
    unsigned seen = 0, most = 0;

    toll_init(&toll, rig_seed(), 24 * MIB, 0);
    toll_clear(&toll, 8 * MIB, 24 * MIB);
    toll.write_ms = toll.zero_ms = 4;
    rig_start(&toll.rig, &options, NULL, 0, NULL, 0);
    while (!toll.rig.ended) {
        const struct copy *copy = toll.rig.copy;
        if (copy && copy->sample) {
            seen++;
            cr_assert(copy->writing == 1, "%u beside it", copy->writing - 1);
        } else if (copy && copy->writing > most) {
            most = copy->writing;
        }
        cr_assert(loop_sim_step(toll.rig.loop));
    }
    cr_assert(seen && most > 1 && rig_run(&toll.rig) == 0);
    expect_right(&toll);
}

/* Neither wins by much: what is sent is what is always true. */
Test(zero_way, equal_prices_are_no_reason)
{
    struct toll toll;

    toll_init(&toll, rig_seed(), 32 * MIB, 0);
    toll_clear(&toll, 0, 32 * MIB);
    toll.write_ms = toll.zero_ms = 4;
    copy_all(&toll);
    cr_assert(toll.zero_bytes == SAMPLED, "%" PRIu64, toll.zero_bytes);
    expect_right(&toll);
}

static unsigned by_turns(struct toll *toll, unsigned index, int *result)
{
    (void)toll;
    (void)result;
    return index % 2 ? 1 : 40;
}

/* Cheap for long enough to be believed, then not any more. */
static unsigned cheap_then_dear(struct toll *toll, unsigned index, int *result)
{
    (void)result;
    return index < 6 ? 2 : 40 * toll->write_ms;
}

Test(zero_way, prices_that_change)
{
    struct toll toll;

    toll_init(&toll, rig_seed(), 48 * MIB, 0);
    toll_clear(&toll, MIB, 47 * MIB);
    toll.write_ms = 5;
    toll.zero_price = by_turns;
    copy_all(&toll);
    expect_right(&toll);

    /* A minute is a few of these: it is asked again, and the other is taken. */
    toll_init(&toll, rig_seed() + 1, 64 * MIB, 0);
    toll_clear(&toll, 0, 64 * MIB);
    toll.write_ms = 100;
    toll.zero_price = cheap_then_dear;
    copy_all(&toll);
    cr_assert(toll.zero_bytes > 4 * MIB, "it was believed");
    cr_assert(toll.write_bytes > 24 * MIB, "%" PRIu64, toll.write_bytes);
    expect_right(&toll);
}

/* -- refused, failed, stuck ------------------------------------------------------------ */

static unsigned refuse_from;
static int refuse_with;

static unsigned refusing(struct toll *toll, unsigned index, int *result)
{
    (void)toll;
    if (index >= refuse_from)
        *result = refuse_with;
    return 2;
}

Test(zero_way, a_refusal_at_any_time_is_answered_by_sending)
{
    static const int errors[] = { -EOPNOTSUPP, -EREMOTEIO, -EINVAL };

    for (unsigned i = 0; i < 24; i++) {
        struct toll toll;
        toll_init(&toll, rig_seed() + i, 24 * MIB, i & 1 ? BLOCK_CAN_EXTENTS : 0);
        toll_clear(&toll, 0, 20 * MIB);
        toll.write_ms = 9;
        toll.zero_price = refusing;
        refuse_from = i / 3;
        refuse_with = errors[i % 3];
        copy_all(&toll);
        cr_assert(toll.zeros <= refuse_from);
        cr_assert(!toll.rig.last.zeroing_stuck);
        expect_right(&toll);
    }
}

Test(zero_way, an_error_is_the_copys)
{
    for (unsigned i = 0; i < 8; i++) {
        struct toll toll;
        struct copy_options options = rig_options(COPY_FULL);
        toll_init(&toll, rig_seed() + i, 24 * MIB, 0);
        toll_clear(&toll, 0, 20 * MIB);
        toll.write_ms = 9;
        toll.zero_price = refusing;
        refuse_from = i;
        refuse_with = -EIO;
        cr_assert(rig_copy(&toll.rig, &options) == -EIO && toll.rig.on_target);
        toll.zero_price = NULL;
        options = rig_resume(&toll.rig);
        cr_assert(rig_copy(&toll.rig, &options) == 0);
        expect_right(&toll);
    }
}

static unsigned hang_at;

static unsigned hanging(struct toll *toll, unsigned index, int *result)
{
    (void)toll;
    (void)result;
    return index == hang_at ? 25000 : 1;
}

static unsigned losing(struct toll *toll, unsigned index, int *result)
{
    (void)toll;
    if (index == hang_at)
        *result = -ENOTCONN;
    return index == hang_at ? 25000 : 1;
}

/* A target that is asked and does not answer: it is told, and not asked again, neither by
   this copy nor, after the session is lost, by the next. */
Test(zero_way, a_target_that_hangs_is_not_asked_again)
{
    for (hang_at = 0; hang_at < 2; hang_at++) {
        struct toll toll;
        struct copy_options options;
        toll_init(&toll, rig_seed(), 24 * MIB, 0);
        toll_clear(&toll, 0, 20 * MIB);
        toll.write_ms = 9;
        toll.zero_price = hanging;
        copy_all(&toll);
        cr_assert(toll.zeros == hang_at + 1 && toll.rig.last.zeroing_stuck);
        expect_right(&toll);

        toll_init(&toll, rig_seed(), 24 * MIB, 0);
        toll_clear(&toll, 0, 20 * MIB);
        toll.write_ms = 9;
        toll.zero_price = losing;
        options = rig_options(COPY_FULL);
        cr_assert(rig_copy(&toll.rig, &options) == -ENOTCONN);
        cr_assert(toll.rig.last.zeroing_stuck && toll.zeros == hang_at);
        toll.zeros = toll.zero_bytes = 0;
        toll.zero_price = NULL;
        options = rig_resume(&toll.rig);
        options.zeroing_stuck = true;
        cr_assert(rig_copy(&toll.rig, &options) == 0);
        cr_assert(toll.zeros == 0, "it was asked again");
        expect_right(&toll);
    }
}

static uint64_t now_ms(struct rig *rig)
{
    return loop_now(rig->loop).ns / 1000000;
}

/* A write that hangs, as a sample or before one: nobody waits for it but its own piece. */
Test(zero_way, a_write_that_hangs_holds_up_nobody)
{
    for (unsigned i = 0; i < 4; i++) {
        struct toll toll;
        struct copy_options options = rig_options(COPY_FULL);
        struct copy_figures figures;
        toll_init(&toll, rig_seed(), 40 * MIB, 0);
        toll_clear(&toll, i < 2 ? 0 : 2 * MIB, 30 * MIB);
        toll.write_ms = 9;
        toll.hang_ms = 60000;
        toll.hang_after = i % 2 * 2;
        rig_start(&toll.rig, &options, NULL, 0, NULL, 0);
        for (uint64_t end = now_ms(&toll.rig) + 30000;
                !toll.rig.ended && now_ms(&toll.rig) < end;)
            cr_assert(loop_sim_step(toll.rig.loop));
        cr_assert(!toll.rig.ended);
        copy_figures(toll.rig.copy, &figures);
        cr_assert(
                figures.read == 40 * MIB, "%u: %" PRIu64 " was read", i, figures.read);
        cr_assert(toll.write_bytes + toll.zero_bytes >= 38 * MIB);
        cr_assert(rig_run(&toll.rig) == 0);
        expect_right(&toll);
    }
}

/* -- few samples, or none -------------------------------------------------------------- */

Test(zero_way, short_runs_are_sent_and_not_looked_for_for_ever)
{
    struct toll toll;
    struct copy_options options = rig_options(COPY_FULL);
    bool asking = true;

    toll_init(&toll, rig_seed(), 64 * MIB, 0);
    for (uint64_t at = 0; at < 64 * MIB; at += 4 * COPY_GRAIN)
        toll_clear(&toll, at, at + 3 * COPY_GRAIN);
    rig_start(&toll.rig, &options, NULL, 0, NULL, 0);
    while (!toll.rig.ended) {
        if (toll.rig.copy)
            asking = toll.rig.copy->zeros.asking;
        cr_assert(loop_sim_step(toll.rig.loop));
    }
    cr_assert(!asking && rig_run(&toll.rig) == 0);
    cr_assert(toll.zeros == 0 && toll.write_bytes == 64 * MIB);
    expect_right(&toll);
}

/* Holes at a limit: what is sent counts, what the target makes does not. */
Test(zero_way, the_limit_counts_what_is_sent)
{
    for (unsigned dear = 0; dear < 2; dear++) {
        struct toll toll;
        struct copy_options options = rig_options(COPY_FULL);
        uint64_t begin, ms;
        toll_init(&toll, rig_seed(), 64 * MIB, BLOCK_CAN_EXTENTS);
        toll_clear(&toll, 0, 64 * MIB);
        toll.write_ms = dear ? 2 : 9;
        toll.zero_ms = dear ? 9 : 2;
        options.limit = 4 * MIB; /* pieces of 128 KiB: so long are samples, too */
        begin = now_ms(&toll.rig);
        rig_start(&toll.rig, &options, NULL, 0, NULL, 0);
        cr_assert(rig_run(&toll.rig) == 0);
        ms = now_ms(&toll.rig) - begin;
        cr_assert(toll.rig.last.read == 0);
        if (dear)
            cr_assert(ms > 15000 && ms < 16500, "%" PRIu64 " ms", ms);
        else
            cr_assert(ms < 2000 && toll.write_bytes < 4 * MIB, "%" PRIu64 " ms", ms);
        expect_right(&toll);
    }
}

/* -- anything --------------------------------------------------------------------------- */

static unsigned any_price(struct toll *toll, unsigned index, int *result)
{
    static const int errors[] = { -EOPNOTSUPP, -EINVAL, -EIO, -ENOTCONN };

    (void)index;
    if (rig_below(&toll->rig, 12) == 0)
        *result = errors[rig_below(&toll->rig, 4)];
    return (unsigned)rig_below(&toll->rig, rig_below(&toll->rig, 8) ? 20 : 9000);
}

/* Prices, answers, limits, drains and drops as they are drawn; what was told holds, and it
   goes on from there until it is done. */
Test(zero_way, whatever_the_target_does_the_volume_is_right)
{
    for (unsigned i = 0; i < 200; i++) {
        struct toll toll;
        struct copy_options options = rig_options(i % 3 == 2 ? COPY_DELTA : COPY_FULL);
        struct rig *rig = &toll.rig;
        toll_init(&toll, rig_seed() + i * 7, 6 * MIB, i % 2 ? BLOCK_CAN_EXTENTS : 0);
        for (unsigned runs = 0; runs < 6; runs++) {
            uint64_t from = rig_below(rig, 96) * 65536;
            toll_clear(&toll, from,
                    min_u64(6 * MIB,
                            from + rig_below(rig, 40) * 65536 +
                                    rig_below(rig, 2) * 512));
        }
        toll.write_ms = 1 + (unsigned)rig_below(rig, 20);
        toll.zero_price = any_price;
        options.verify = rig_below(rig, 3) == 0;
        options.limit = rig_below(rig, 4) ? 0 : 3000000;
        for (unsigned lives = 0;; lives++) {
            rig_start(rig, &options, NULL, 0, NULL, 0);
            for (uint64_t steps = rig_below(rig, 200); !rig->ended && steps; steps--)
                cr_assert(loop_sim_step(rig->loop));
            if (rig->copy && lives < 4 && rig_below(rig, 2))
                (rig_below(rig, 2) ? copy_drain : copy_drop)(rig->copy);
            if (lives >= 6)
                toll.zero_price = NULL;
            if (rig_run(rig) == 0)
                break;
            cr_assert(lives < 10, "seed %" PRIu64 ": no end", rig->seed);
            options = rig_resume(rig);
            options.zeroing_stuck = rig->last.zeroing_stuck;
        }
        rig_expect_equal(rig);
        rig_finish(rig);
    }
}

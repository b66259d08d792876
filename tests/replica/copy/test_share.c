/* Limits that several share, windows that change, and where the time goes; all on the
 * simulated clock, or on none. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/copy/inside.h"
#include "replica/loop/sim.h"
#include "tests/replica/copy/rig.h"

enum { CHUNK = 512 << 10 }; /* bytes: the longest piece here, eight of them a window */

enum { MIB = 1 << 20, PARTIES = 4, MS = 1000000 };

static uint64_t far(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

/* -- the rate alone ------------------------------------------------------------------ */

/* Somebody who wants to send all the time, and wakes up as late as it is told. */
struct sender {
    struct throttle throttle;
    uint64_t random, piece, late_ms;
    uint64_t now_ns;
    uint64_t sent;
};

static uint64_t draw(uint64_t *random, uint64_t below)
{
    uint64_t z = *random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return (z ^ z >> 27) % below;
}

static struct sender sender_of(uint64_t limit, uint64_t late_ms)
{
    struct sender sender = {
        .random = rig_seed(), .late_ms = late_ms, .now_ns = 5000000000u
    };

    throttle_init(&sender.throttle, limit, 8 * CHUNK);
    sender.piece = throttle_piece(&sender.throttle, 512, CHUNK);
    return sender;
}

/* The next piece; returns when it began. */
static uint64_t sender_step(struct sender *sender)
{
    struct instant now = { sender->now_ns };
    uint64_t ms = throttle_wait_ms(&sender->throttle, now);

    if (ms) {
        now.ns += ms * MS;
        if (sender->late_ms)
            now.ns += draw(&sender->random, sender->late_ms * MS);
        cr_assert(throttle_wait_ms(&sender->throttle, now) == 0);
    }
    sender->now_ns = now.ns;
    throttle_spend(&sender->throttle, sender->piece, now);
    sender->sent += sender->piece;
    return now.ns;
}

static const uint64_t limits[] = { 300000, 10 * MIB, 100 * MIB, 400 * MIB };

Test(meter, two_seconds_are_within_a_twentieth_though_timers_are_late)
{
    static const uint64_t lates[] = { 0, 1, 8 };

    for (unsigned i = 0; i < 4; i++)
        for (unsigned late = 0; late < 3; late++) {
            struct sender sender = sender_of(limits[i], lates[late]);
            for (unsigned window = 0; window < 3; window++) {
                uint64_t end = sender.now_ns + 2000 * (uint64_t)MS, from = sender.sent;
                while (sender_step(&sender) < end)
                    ;
                cr_assert(far(sender.sent - from, 2 * limits[i]) <=
                                limits[i] / 10 + sender.piece,
                        "%" PRIu64 ", late by %" PRIu64 ": %" PRIu64, limits[i],
                        lates[late], sender.sent - from);
            }
        }
}

Test(meter, exact_when_nobody_is_late)
{
    for (unsigned i = 0; i < 4; i++) {
        struct sender sender = sender_of(limits[i], 0);
        uint64_t from = sender.now_ns, ns, wanted;
        for (unsigned n = 0; n < 1000; n++)
            sender_step(&sender);
        ns = sender_step(&sender) - from;
        wanted = (uint64_t)((__uint128_t)1000 * sender.piece * 1000000000 / limits[i]);
        /* To the millisecond that timers have. */
        cr_assert(ns + MS >= wanted && ns <= wanted + 2 * MS,
                "%" PRIu64 ": %" PRIu64 " ns, not %" PRIu64, limits[i], ns, wanted);
    }
}

/* However late: never more than a window at once, and never more than the rate with a tenth
   of a second before it, the piece that begins counted too. */
Test(meter, lateness_is_made_good_without_a_burst)
{
    enum { STEPS = 4000, BACK = 300 };
    static uint64_t at[STEPS];

    for (unsigned i = 0; i < 4; i++) {
        struct sender sender = sender_of(limits[i], 400);
        for (unsigned n = 0; n < STEPS; n++) {
            at[n] = sender_step(&sender);
            for (unsigned back = 1; back <= BACK && back <= n; back++) {
                uint64_t bytes = back * sender.piece, ns = at[n] - at[n - back];
                uint64_t paid = (uint64_t)((__uint128_t)limits[i] * ns / 1000000000);
                cr_assert(bytes <= 8 * CHUNK + paid + paid / 4 + sender.piece,
                        "a burst of %" PRIu64 " in %" PRIu64 " ns", bytes, ns);
                cr_assert(bytes <= paid + limits[i] / 10);
            }
        }
    }
}

/* -- stalls: the thread, or the far side, comes to a halt ------------------------------ */

enum { HALTS = 4, HALT_EVERY_MS = 4000, WINDOW_MS = 2000, MADE_GOOD_MS = 60 };

struct course {
    struct sender sender;
    uint64_t begin, end; /* nanoseconds */
    uint64_t halts[HALTS]; /* nanoseconds: where they begin */
    unsigned count;
    uint64_t at[1 << 15]; /* of each piece */
};

static struct course course;

/* A halt of @ms somewhere in every HALT_EVERY_MS. */
static void course_run(uint64_t limit, uint64_t ms)
{
    struct course *c = &course;
    unsigned halt = 0;

    memset(c, 0, sizeof *c);
    c->sender = sender_of(limit, 1);
    c->begin = c->sender.now_ns;
    c->end = c->begin + (uint64_t)HALTS * HALT_EVERY_MS * MS;
    for (unsigned i = 0; i < HALTS; i++)
        c->halts[i] = c->begin + (i * HALT_EVERY_MS + 500) * (uint64_t)MS +
                draw(&c->sender.random, 1000 * (uint64_t)MS);
    while (c->sender.now_ns < c->end) {
        if (halt < HALTS && c->sender.now_ns >= c->halts[halt]) {
            c->halts[halt] = c->sender.now_ns;
            c->sender.now_ns += ms * MS;
            halt++;
        }
        check(c->count < sizeof c->at / sizeof *c->at);
        c->at[c->count++] = sender_step(&c->sender);
    }
}

/* Nanoseconds of halts in the two seconds from @from on. */
static uint64_t course_halted(const struct course *c, uint64_t from, uint64_t ms)
{
    uint64_t to = from + WINDOW_MS * (uint64_t)MS, sum = 0;

    for (unsigned i = 0; i < HALTS; i++) {
        uint64_t a = c->halts[i] > from ? c->halts[i] : from;
        uint64_t end = c->halts[i] + ms * MS, b = end < to ? end : to;
        sum += b > a ? b - a : 0;
    }
    return sum;
}

/* Every window of two seconds, from piece to piece. */
static void course_judge(const struct course *c, uint64_t limit, uint64_t ms)
{
    uint64_t wanted = 2 * limit, room = wanted / 20, halted, bytes;

    for (unsigned first = 0, last = 0; first < c->count; first++) {
        while (last < c->count && c->at[last] < c->at[first] + WINDOW_MS * (uint64_t)MS)
            last++;
        if (last == c->count)
            return;
        bytes = (last - first) * c->sender.piece;
        halted = (uint64_t)((__uint128_t)limit * course_halted(c, c->at[first], ms) /
                1000000000);
        cr_assert(bytes <= wanted + room && bytes + halted + room >= wanted,
                "limit %" PRIu64 ", %" PRIu64 " ms: %" PRIu64 " in 2 s", limit, ms,
                bytes);
    }
}

Test(meter, two_seconds_are_within_a_twentieth_of_the_limit_whatever_halts)
{
    static const uint64_t halts[] = { 50, 90, 150, 300, 500 };

    for (unsigned i = 0; i < 4; i++)
        for (unsigned h = 0; h < 5; h++) {
            uint64_t lost = halts[h] > MADE_GOOD_MS ? halts[h] - MADE_GOOD_MS : 0;
            uint64_t whole = (HALT_EVERY_MS - lost) * HALTS * limits[i] / 1000;
            course_run(limits[i], halts[h]);
            course_judge(&course, limits[i], halts[h]);
            /* What a halt took is made good: a short one's all of it. */
            cr_assert(course.sender.sent + whole / 200 >= whole,
                    "limit %" PRIu64 ", %" PRIu64 " ms: %" PRIu64 " of %" PRIu64,
                    limits[i], halts[h], course.sender.sent, whole);
        }
}

Test(meter, no_credit_grows_in_a_pause)
{
    struct sender sender = sender_of(10 * MIB, 0);
    uint64_t from;

    sender_step(&sender);
    sender.now_ns += 3600000 * (uint64_t)MS;
    from = sender.sent;
    for (uint64_t end = sender.now_ns + 1000 * (uint64_t)MS;
            sender_step(&sender) < end;)
        ;
    cr_assert(sender.sent - from <= 11 * MIB + sender.piece);
}

static struct meter busy_meter;

static void *spend_all(void *context)
{
    struct throttle throttle;

    (void)context;
    throttle_init(&throttle, 0, 8 * CHUNK);
    throttle.shared[0] = &busy_meter;
    for (unsigned i = 0; i < 20000; i++)
        throttle_spend(&throttle, 1000, (struct instant){ 1000000000 });
    return NULL;
}

/* Many threads at once: not a byte is forgotten. */
Test(meter, what_threads_spend_together_is_all_priced)
{
    pthread_t threads[4];

    meter_set(&busy_meter, 1000000, (struct instant){ 1000000000 });
    for (unsigned i = 0; i < 4; i++)
        cr_assert(pthread_create(&threads[i], NULL, spend_all, NULL) == 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert(atomic_load(&busy_meter.paid_ns) == 1000000000 + 80000 * (uint64_t)MS);
}

/* -- copies that share ----------------------------------------------------------------- */

struct party {
    struct memory_disk *source, *target;
    struct block_device *from, *to;
    struct copy *copy;
    bool ended;
    uint64_t read; /* at the last look */
};

struct hall {
    struct loop *loop;
    unsigned company;
    struct meter meter, other;
    struct party parties[PARTIES];
    unsigned count;
};

static void party_ended(void *context, int result, bool on_target,
        const struct copy_figures *figures, const struct fault *fault)
{
    struct party *party = context;

    (void)result, (void)on_target, (void)figures, (void)fault;
    party->ended = true;
    party->copy = NULL;
}

/* Each request to either end takes @delay_ms. */
static void party_join(struct hall *hall, uint64_t size, unsigned delay_ms,
        struct copy_options options)
{
    struct party *party = &hall->parties[hall->count++];
    struct block_fault_plan slow = { .op = -1, .delay_ms = delay_ms };

    *party = (struct party){ .source = memory_disk_create(size, 512),
        .target = memory_disk_create(size, 512) };
    check(party->source && party->target);
    memset(memory_disk_bytes(party->source), 0x5a, size);
    party->from = memory_disk_open(party->source, hall->loop, 0);
    party->to = memory_disk_open(party->target, hall->loop, BLOCK_VOLATILE);
    check(party->from && party->to);
    if (delay_ms) {
        party->from = block_faulty(&party->from, &slow, 1);
        party->to = block_faulty(&party->to, &slow, 1);
    }
    options.source = party->from;
    options.target = party->to;
    options.ended = party_ended;
    options.context = party;
    options.company = &hall->company;
    party->copy = copy_start(&options);
    check(party->copy);
}

static void hall_open(struct hall *hall, uint64_t limit)
{
    *hall = (struct hall){ .loop = loop_sim_create(rig_seed()) };
    check(hall->loop);
    meter_set(&hall->meter, limit, loop_now(hall->loop));
}

static void closed(void *context)
{
    ++*(unsigned *)context;
}

static void hall_close(struct hall *hall)
{
    unsigned count = 0;

    for (unsigned i = 0; i < hall->count; i++) {
        struct party *party = &hall->parties[i];
        if (party->copy)
            copy_drop(party->copy);
        while (!party->ended)
            cr_assert(loop_sim_step(hall->loop));
        block_close(party->from, closed, &count);
        block_close(party->to, closed, &count);
    }
    while (loop_sim_step(hall->loop))
        ;
    cr_assert(count == 2 * hall->count && hall->company == 0);
    for (unsigned i = 0; i < hall->count; i++) {
        memory_disk_destroy(hall->parties[i].source);
        memory_disk_destroy(hall->parties[i].target);
    }
    loop_destroy(hall->loop);
}

/* Runs for @ms; @bytes of each party are what it read meanwhile. Returns all of them. */
static uint64_t hall_run(struct hall *hall, uint64_t ms, uint64_t *bytes)
{
    uint64_t end = loop_now(hall->loop).ns + ms * MS, sum = 0;

    while (loop_now(hall->loop).ns < end)
        cr_assert(loop_sim_step(hall->loop));
    for (unsigned i = 0; i < hall->count; i++) {
        struct party *party = &hall->parties[i];
        struct copy_figures figures;
        cr_assert(party->copy, "the volume is too small for this test");
        copy_figures(party->copy, &figures);
        bytes[i] = figures.read - party->read;
        party->read = figures.read;
        sum += bytes[i];
    }
    return sum;
}

Test(copy_share, a_shared_limit_is_kept_by_all_together_and_shared_evenly)
{
    struct hall hall;
    uint64_t bytes[PARTIES], sum;

    hall_open(&hall, 6 * MIB);
    for (unsigned i = 0; i < 3; i++)
        party_join(&hall, 24 * MIB, 3 * i,
                (struct copy_options){
                        .meters = { &hall.meter }, .window = 2 + 3 * i });
    hall_run(&hall, 500, bytes);
    for (unsigned window = 0; window < 3; window++) {
        sum = hall_run(&hall, 2000, bytes);
        cr_assert(far(sum, 12 * MIB) <= 12 * MIB / 20, "%" PRIu64, sum);
        for (unsigned i = 0; i < 3; i++)
            cr_assert(
                    far(bytes[i], 4 * MIB) <= 4 * MIB / 8, "%u: %" PRIu64, i, bytes[i]);
    }
    hall_close(&hall);
}

/* The narrowest of its own, the pipe's and the daemon's; others take what it leaves. */
Test(copy_share, who_is_limited_more_leaves_the_rest_to_others)
{
    struct hall hall;
    uint64_t bytes[PARTIES], sum;

    hall_open(&hall, 6 * MIB);
    meter_set(&hall.other, 2 * MIB, loop_now(hall.loop));
    party_join(&hall, 24 * MIB, 0,
            (struct copy_options){ .meters = { &hall.meter }, .limit = MIB });
    party_join(&hall, 24 * MIB, 0,
            (struct copy_options){ .meters = { &hall.other, &hall.meter } });
    party_join(&hall, 24 * MIB, 0, (struct copy_options){ .meters = { &hall.meter } });
    hall_run(&hall, 500, bytes);
    sum = hall_run(&hall, 4000, bytes);
    cr_assert(far(sum, 24 * MIB) <= 24 * MIB / 20, "%" PRIu64, sum);
    cr_assert(far(bytes[0], 4 * MIB) <= 4 * MIB / 20, "%" PRIu64, bytes[0]);
    cr_assert(far(bytes[1], 8 * MIB) <= 8 * MIB / 20, "%" PRIu64, bytes[1]);
    cr_assert(far(bytes[2], 12 * MIB) <= 12 * MIB / 20, "%" PRIu64, bytes[2]);
    hall_close(&hall);
}

static void hall_set(struct hall *hall, uint64_t limit)
{
    meter_set(&hall->meter, limit, loop_now(hall->loop));
    for (unsigned i = 0; i < hall->count; i++)
        copy_nudge(hall->parties[i].copy);
}

Test(copy_share, a_shared_limit_changes_while_they_run)
{
    struct hall hall;
    uint64_t bytes[PARTIES], sum;

    hall_open(&hall, 100); /* hours a piece */
    for (unsigned i = 0; i < 2; i++)
        party_join(
                &hall, 48 * MIB, 1, (struct copy_options){ .meters = { &hall.meter } });
    hall_run(&hall, 5000, bytes);
    hall_set(&hall, 8 * MIB);
    hall_run(&hall, 200, bytes);
    sum = hall_run(&hall, 2000, bytes);
    cr_assert(far(sum, 16 * MIB) <= 16 * MIB / 20, "%" PRIu64, sum);
    hall_set(&hall, 100000);
    hall_run(&hall, 1000, bytes);
    sum = hall_run(&hall, 2000, bytes);
    cr_assert(sum <= 230000, "%" PRIu64, sum);
    hall_set(&hall, 0);
    while (!hall.parties[0].ended || !hall.parties[1].ended)
        cr_assert(loop_sim_step(hall.loop));
    hall_close(&hall);
}

Test(copy_share, priorities_share_a_limit_by_weight)
{
    static const unsigned shares[] = { 8, 6, 4, 2 };
    struct hall hall;
    uint64_t bytes[PARTIES], sum;

    hall_open(&hall, 8 * MIB);
    for (unsigned i = 0; i < 4; i++)
        party_join(&hall, 24 * MIB, 1,
                (struct copy_options){ .meters = { &hall.meter }, .share = shares[i] });
    hall_run(&hall, 500, bytes);
    sum = hall_run(&hall, 4000, bytes);
    cr_assert(far(sum, 32 * MIB) <= 32 * MIB / 20, "%" PRIu64, sum);
    for (unsigned i = 0; i < 4; i++)
        cr_assert(
                far(bytes[i], sum * shares[i] / 20) <= sum * shares[i] / 200 + MIB / 4,
                "%u: %" PRIu64 " of %" PRIu64, i, bytes[i], sum);
    hall_close(&hall);
}

/* Without a limit: requests in flight are what a busy far side divides itself by. */
Test(copy_share, a_priority_that_changes_moves_the_share_of_a_running_copy)
{
    struct hall hall;
    uint64_t bytes[PARTIES];

    hall_open(&hall, 0);
    for (unsigned i = 0; i < 2; i++)
        party_join(&hall, 192 * MIB, 50, (struct copy_options){ .window = i ? 2 : 8 });
    hall_run(&hall, 500, bytes);
    hall_run(&hall, 700, bytes);
    cr_assert(bytes[0] > 3 * bytes[1] && bytes[0] < 5 * bytes[1]);
    copy_set_window(hall.parties[0].copy, 2, 2);
    copy_set_window(hall.parties[1].copy, 8, 8);
    hall_run(&hall, 300, bytes);
    hall_run(&hall, 700, bytes);
    cr_assert(bytes[1] > 3 * bytes[0] && bytes[1] < 5 * bytes[0]);
    hall_close(&hall);
}

/* -- stopping and counting ------------------------------------------------------------- */

static struct block_faulty_counts seen_by(const struct block_device *device)
{
    return block_faulty_counts(device);
}

/* A suspend is a drain: nothing more is read, and no more is written than was read. */
Test(copy_share, a_drain_begins_no_request_past_one_window)
{
    for (unsigned steps = 10; steps < 200; steps += 17) {
        struct hall hall;
        struct party *party = &hall.parties[0];
        struct block_faulty_counts from, to;
        uint64_t bytes[PARTIES];
        hall_open(&hall, 0);
        party_join(&hall, 128 * MIB, 20, (struct copy_options){ .window = 4 });
        hall_run(&hall, steps, bytes);
        from = seen_by(party->from);
        to = seen_by(party->to);
        copy_drain(party->copy);
        while (!party->ended)
            cr_assert(loop_sim_step(hall.loop));
        cr_assert(seen_by(party->from).seen[BLOCK_READ] == from.seen[BLOCK_READ]);
        cr_assert(seen_by(party->to).seen[BLOCK_WRITE] <=
                to.seen[BLOCK_WRITE] + 2 * 4); /* as many as had been read */
        cr_assert(seen_by(party->to).seen[BLOCK_FLUSH] <= to.seen[BLOCK_FLUSH] + 1);
        hall_close(&hall);
    }
}

static struct copy_figures figures_with(
        unsigned source_ms, unsigned target_ms, uint64_t limit, enum copy_kind kind)
{
    struct rig rig;
    struct block_fault_plan source = { .op = BLOCK_READ, .delay_ms = source_ms };
    struct block_fault_plan target = { .op = -1, .delay_ms = target_ms };
    struct copy_options options = rig_options(kind);
    struct copy_figures figures;

    rig_init_plain(&rig, rig_seed(), 16 * MIB, 512, 512, 0, BLOCK_VOLATILE);
    options.limit = limit;
    rig_start(&rig, &options, &source, 1, &target, 1);
    cr_assert(rig_run(&rig) == 0);
    figures = rig.last;
    rig_finish(&rig);
    return figures;
}

/* The disks dawdle by themselves, up to 100 ms now and then: next to a second that is little,
   however few the requests are. */
Test(copy_share, the_time_goes_where_the_delay_is)
{
    struct copy_figures figures;

    for (enum copy_kind kind = COPY_FULL; kind <= COPY_DELTA; kind++) {
        figures = figures_with(1000, 2, 0, kind);
        cr_assert(figures.source_ns > 3 * figures.target_ns && !figures.limit_ns);
        figures = figures_with(2, 1000, 0, kind);
        cr_assert(figures.target_ns > 3 * figures.source_ns && !figures.limit_ns);
        figures = figures_with(1, 1, 4 * MIB, kind);
        cr_assert(figures.limit_ns > 3500 * (uint64_t)MS);
    }
}

Test(copy_share, what_is_skipped_is_told_by_reason)
{
    struct rig rig;
    struct copy_options options = rig_options(COPY_FULL);
    uint8_t *bytes;

    rig_init_plain(&rig, rig_seed(), 16 * MIB, 512, 512, BLOCK_CAN_EXTENTS,
            BLOCK_VOLATILE | BLOCK_CAN_ZERO);
    bytes = memory_disk_bytes(rig.source);
    memset(bytes + 8 * MIB, 0, 8 * MIB);
    memset(rig.source_shadow + 8 * MIB, 0, 8 * MIB);
    memory_disk_settle(rig.source);
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(rig.last.skipped == 8 * MIB && rig.last.equal == 0);
    /* Four grains differ; what is compared and equal is so whatever it holds. */
    for (unsigned i = 0; i < 4; i++)
        memory_disk_bytes(rig.target)[i * 3 * MIB + 7] ^= 1;
    memory_disk_settle(rig.target);
    options = rig_options(COPY_DELTA);
    rig.last = (struct copy_figures){ 0 };
    cr_assert(rig_copy(&rig, &options) == 0);
    cr_assert(rig.last.written + rig.last.skipped == 16 * MIB);
    cr_assert(rig.last.equal + 4 * COPY_GRAIN >= rig.last.skipped &&
                    rig.last.equal <= rig.last.skipped && rig.last.equal > 0,
            "%" PRIu64 " of %" PRIu64, rig.last.equal, rig.last.skipped);
    rig_expect_equal(&rig);
    rig_finish(&rig);
}

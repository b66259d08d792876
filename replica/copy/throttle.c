#include "replica/copy/throttle.h"

#include <stdatomic.h>

#include "replica/base/checked.h"

enum {
    /* What is made good at once, and the piece that does it: together less than a twentieth
       of two seconds, so no two seconds see more than that above the limit. */
    AHEAD_MS = 98,
    LATE_MS = 10, /* of it that long pieces keep: timers are late by some */
    PIECE_MIN = 4096,
    PIECES_PER_SECOND = 32
};

static const uint64_t NS_PER_S = 1000000000, NS_PER_MS = 1000000;

/* Nanoseconds that @bytes take at @limit, saturating. */
static uint64_t price(uint64_t bytes, uint64_t limit)
{
    unsigned __int128 ns = (unsigned __int128)bytes * NS_PER_S / limit;
    return ns > UINT64_MAX / 2 ? UINT64_MAX / 2 : (uint64_t)ns;
}

static uint64_t load(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

/* -- one rate ---------------------------------------------------------------------- */

/* Move @line by @cost, from no earlier than @slack before @now; returns where it is. */
static uint64_t line_spend(
        _Atomic uint64_t *line, uint64_t cost, uint64_t slack, uint64_t now)
{
    uint64_t old = load(line), earliest = now > slack ? now - slack : 0, from, to;

    do {
        from = old > earliest ? old : earliest;
        if (old == 0) /* the first piece: there is nothing to catch up */
            from = now;
        if (__builtin_add_overflow(from, cost, &to))
            to = UINT64_MAX;
    } while (!atomic_compare_exchange_weak_explicit(
            line, &old, to, memory_order_relaxed, memory_order_relaxed));
    return to;
}

static void line_reprice(
        _Atomic uint64_t *line, uint64_t before, uint64_t limit, uint64_t now)
{
    uint64_t old = load(line), to;

    do {
        to = 0;
        if (before && limit && old > now) {
            unsigned __int128 owed = (unsigned __int128)(old - now) * before / NS_PER_S;
            to = owed > UINT64_MAX ? UINT64_MAX / 2
                                   : now + price((uint64_t)owed, limit);
        }
    } while (!atomic_compare_exchange_weak_explicit(
            line, &old, to, memory_order_relaxed, memory_order_relaxed));
}

void meter_set(struct meter *meter, uint64_t limit, struct instant now)
{
    uint64_t before = load(&meter->limit);

    if (limit == before)
        return;
    atomic_store_explicit(&meter->limit, limit, memory_order_relaxed);
    line_reprice(&meter->paid_ns, before, limit, now.ns);
    line_reprice(&meter->peak_ns, before, limit, now.ns);
}

/* Returns when these @bytes are paid. */
static struct instant meter_spend(
        struct meter *meter, uint64_t bytes, uint64_t window, struct instant now)
{
    uint64_t limit = load(&meter->limit), cost, whole, paid, peak, slack;

    if (!limit)
        return (struct instant){ 0 };
    cost = price(bytes, limit);
    whole = price(window, limit);
    slack = AHEAD_MS * NS_PER_MS - min_u64(cost, (AHEAD_MS - LATE_MS) * NS_PER_MS);
    paid = line_spend(&meter->paid_ns, cost, slack, now.ns);
    peak = line_spend(&meter->peak_ns, cost - cost / 5, whole - whole / 5, now.ns);
    return (struct instant){ paid > peak ? paid : peak };
}

/* A limit that was raised meanwhile has made @due earlier than it was told: nobody waits
   longer than until all is paid. */
static uint64_t meter_wait_ms(
        const struct meter *meter, struct instant due, struct instant now)
{
    uint64_t paid = load(&meter->paid_ns), peak = load(&meter->peak_ns);

    if (!load(&meter->limit))
        return 0;
    due.ns = min_u64(due.ns, paid > peak ? paid : peak);
    return instant_ms_until(now, due);
}

/* -- what one copy has to keep ------------------------------------------------------- */

void throttle_init(struct throttle *throttle, uint64_t limit, uint64_t window)
{
    *throttle = (struct throttle){ .window = window, .share = SHARE_WHOLE };
    atomic_store_explicit(&throttle->own.limit, limit, memory_order_relaxed);
}

void throttle_set(struct throttle *throttle, uint64_t limit, struct instant now)
{
    meter_set(&throttle->own, limit, now);
}

uint64_t throttle_wait_ms(const struct throttle *throttle, struct instant now)
{
    uint64_t most = meter_wait_ms(&throttle->own, throttle->due[0], now), ms;

    for (unsigned i = 0; i < METERS_SHARED; i++) {
        if (!throttle->shared[i])
            continue;
        ms = meter_wait_ms(throttle->shared[i], throttle->due[1 + i], now);
        most = ms > most ? ms : most;
    }
    return most;
}

static void shared_spend(
        struct throttle *throttle, unsigned at, uint64_t bytes, struct instant now)
{
    struct instant due =
            meter_spend(throttle->shared[at], bytes, throttle->window, now);

    if (throttle->left[at] > bytes) {
        throttle->left[at] -= bytes;
        return;
    }
    throttle->left[at] = throttle->turn[at];
    throttle->due[1 + at] = due;
}

void throttle_spend(struct throttle *throttle, uint64_t bytes, struct instant now)
{
    if (!bytes)
        return;
    throttle->due[0] = meter_spend(&throttle->own, bytes, throttle->window, now);
    for (unsigned i = 0; i < METERS_SHARED; i++)
        if (throttle->shared[i])
            shared_spend(throttle, i, bytes, now);
}

uint64_t throttle_piece(struct throttle *throttle, uint64_t unit, uint64_t most)
{
    uint64_t floor = unit > PIECE_MIN ? unit : PIECE_MIN, piece = most, limit;

    if ((limit = load(&throttle->own.limit)))
        piece = min_u64(piece, limit / PIECES_PER_SECOND);
    for (unsigned i = 0; i < METERS_SHARED; i++) {
        limit = throttle->shared[i] ? load(&throttle->shared[i]->limit) : 0;
        throttle->turn[i] = min_u64(most, limit / PIECES_PER_SECOND) / SHARE_WHOLE *
                throttle->share;
        if (limit)
            piece = min_u64(piece, throttle->turn[i]);
    }
    if (piece == most)
        return most;
    piece -= piece % floor;
    if (piece < floor)
        piece = floor;
    return min_u64(piece, most);
}

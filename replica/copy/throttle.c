#include "replica/copy/throttle.h"

#include "replica/base/checked.h"

enum { SLACK_MS = 100, PIECE_MIN = 4096, PIECES_PER_SECOND = 8 };

static const uint64_t NS_PER_S = 1000000000, NS_PER_MS = 1000000;

/* Nanoseconds that @bytes take at @limit, saturating. */
static uint64_t price(uint64_t bytes, uint64_t limit)
{
    unsigned __int128 ns = (unsigned __int128)bytes * NS_PER_S / limit;
    return ns > UINT64_MAX / 2 ? UINT64_MAX / 2 : (uint64_t)ns;
}

void throttle_init(struct throttle *throttle, uint64_t limit, uint64_t window)
{
    *throttle = (struct throttle){ .limit = limit, .window = window };
}

void throttle_set(struct throttle *throttle, uint64_t limit, struct instant now)
{
    uint64_t debt = 0;

    if (throttle->limit && limit && throttle->next.ns > now.ns) {
        unsigned __int128 owed =
                (unsigned __int128)(throttle->next.ns - now.ns) * throttle->limit;
        debt = price((uint64_t)(owed / NS_PER_S), limit);
    }
    throttle->limit = limit;
    throttle->next.ns = now.ns + debt;
}

uint64_t throttle_wait_ms(const struct throttle *throttle, struct instant now)
{
    if (!throttle->limit)
        return 0;
    return instant_ms_until(now, throttle->next);
}

void throttle_spend(struct throttle *throttle, uint64_t bytes, struct instant now)
{
    uint64_t slack, earliest;

    if (!throttle->limit)
        return;
    slack = min_u64(SLACK_MS * NS_PER_MS, price(throttle->window, throttle->limit));
    earliest = now.ns > slack ? now.ns - slack : 0;
    if (throttle->next.ns == 0) /* the first piece: there is nothing to catch up */
        earliest = now.ns;
    if (throttle->next.ns < earliest)
        throttle->next.ns = earliest;
    throttle->next.ns += price(bytes, throttle->limit);
}

uint64_t throttle_piece(const struct throttle *throttle, uint64_t unit, uint64_t most)
{
    uint64_t floor = unit > PIECE_MIN ? unit : PIECE_MIN, piece;

    if (!throttle->limit)
        return most;
    piece = throttle->limit / PIECES_PER_SECOND;
    piece -= piece % floor;
    if (piece < floor)
        piece = floor;
    return min_u64(piece, most);
}

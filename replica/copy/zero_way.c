#include "replica/copy/zero_way.h"

#include "replica/base/check.h"
#include "replica/block/device.h"

static void ask(struct zero_choice *choice)
{
    choice->asking = true;
    choice->missed = choice->spent_ns = 0;
    choice->costs[ZERO_BY_ZERO] = choice->costs[ZERO_BY_WRITE] =
            (struct zero_cost){ 0 };
}

void zero_choice_rest(struct zero_choice *choice, struct instant now)
{
    choice->asking = false;
    choice->moved = 0;
    choice->since = now;
}

void zero_choice_init(
        struct zero_choice *choice, unsigned caps, bool asks, struct instant now)
{
    if (!asks)
        caps &= ~(unsigned)BLOCK_MAY_ZERO;
    *choice = (struct zero_choice){ .caps = caps, .now = ZERO_BY_WRITE, .since = now };
    if ((caps & BLOCK_CAN_DISCARD) && (caps & BLOCK_DISCARD_ZEROES))
        choice->now = ZERO_BY_DISCARD;
    else if (caps & BLOCK_CAN_ZERO)
        choice->now = ZERO_BY_ZERO;
    else if (caps & BLOCK_MAY_ZERO)
        ask(choice);
}

static bool unsure(const struct zero_choice *choice)
{
    return (choice->caps & BLOCK_MAY_ZERO) && !(choice->caps & BLOCK_CAN_ZERO) &&
            choice->now != ZERO_BY_DISCARD;
}

static bool rested(const struct zero_choice *choice, struct instant now)
{
    uint64_t ns = now.ns - choice->since.ns;

    return ns / ZERO_SHARE >= choice->spent_ns &&
            (choice->moved >= ZERO_AGAIN || ns >= ZERO_AGAIN_MS * 1000000ull);
}

void zero_choice_consider(
        struct zero_choice *choice, uint64_t sample, struct instant now)
{
    if (!unsure(choice))
        return;
    if (choice->asking ? choice->sample != sample : rested(choice, now))
        ask(choice);
    choice->sample = sample;
}

enum zero_way zero_choice_next(const struct zero_choice *choice)
{
    const struct zero_cost *made = &choice->costs[ZERO_BY_ZERO],
                           *sent = &choice->costs[ZERO_BY_WRITE];

    return made->count < sent->count ? ZERO_BY_ZERO : ZERO_BY_WRITE;
}

/* Without the worst: others use the target, too, and now and then it stops for a while. */
static uint64_t usual_ns(const struct zero_cost *cost)
{
    return cost->sum_ns - cost->worst_ns;
}

static void judge(struct zero_choice *choice, struct instant now)
{
    const struct zero_cost *made = &choice->costs[ZERO_BY_ZERO],
                           *sent = &choice->costs[ZERO_BY_WRITE];
    uint64_t a = usual_ns(made), b = usual_ns(sent);
    bool plain = made->count * 2 >= ZERO_SAMPLES && (a / 4 >= b || b / 4 >= a);

    if (made->count != sent->count || (made->count < ZERO_SAMPLES && !plain))
        return;
    choice->now = a < b - b / 4 ? ZERO_BY_ZERO : ZERO_BY_WRITE;
    zero_choice_rest(choice, now);
}

void zero_choice_note(
        struct zero_choice *choice, enum zero_way way, uint64_t ns, struct instant now)
{
    struct zero_cost *cost = &choice->costs[way];

    check(way != ZERO_BY_DISCARD);
    if (!choice->asking)
        return;
    cost->count++;
    cost->sum_ns += ns;
    choice->spent_ns += ns;
    if (ns > cost->worst_ns)
        cost->worst_ns = ns;
    judge(choice, now);
}

void zero_choice_hang(
        struct zero_choice *choice, enum zero_way way, uint64_t ns, struct instant now)
{
    if (way == ZERO_BY_WRITE) { /* a long way, perhaps: see what the other takes */
        zero_choice_note(choice, way, ns, now);
        return;
    }
    choice->stuck = true;
    zero_choice_give_up(choice, way);
}

void zero_choice_miss(struct zero_choice *choice, uint64_t bytes, struct instant now)
{
    choice->missed += bytes;
    if (choice->missed >= ZERO_MISS)
        zero_choice_rest(choice, now);
}

void zero_choice_moved(struct zero_choice *choice, uint64_t bytes)
{
    choice->moved += bytes;
}

void zero_choice_give_up(struct zero_choice *choice, enum zero_way way)
{
    if (way == ZERO_BY_ZERO) {
        choice->caps &= ~(unsigned)(BLOCK_CAN_ZERO | BLOCK_MAY_ZERO);
        choice->asking = false;
    }
    if (choice->now != way) /* another run has said so already */
        return;
    choice->now = choice->caps & BLOCK_CAN_ZERO ? ZERO_BY_ZERO : ZERO_BY_WRITE;
    if (unsure(choice))
        ask(choice);
}

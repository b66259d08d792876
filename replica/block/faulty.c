/* Fault injection. Every request gets a slot that remembers what its strike decided; the
 * answer of the device below passes through it and may be replaced, spoilt or held back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/block/wrappers.h"

struct faulty_slot {
    struct block_request inner;
    struct block_request *outer;
    struct loop_timer timer;
    const struct block_fault_plan *strike; /* NULL: none */
    int result;
    struct faulty_slot *next;
};

struct faulty_plan {
    struct block_fault_plan plan;
    unsigned matched, struck;
};

struct faulty_device {
    struct block_device base;
    struct block_device *under;
    struct block_faulty_counts counts;
    struct faulty_slot *free_slots;
    unsigned plan_count;
    struct faulty_plan plans[];
};

static struct faulty_device *faulty_of(struct block_device *base)
{
    return container_of(base, struct faulty_device, base);
}

static bool plan_touches(
        const struct block_fault_plan *plan, const struct block_request *request)
{
    if (plan->op != -1 && plan->op != (int)request->op)
        return false;
    if (plan->length == 0)
        return true;
    return request->op != BLOCK_FLUSH &&
            request->offset < plan->offset + plan->length &&
            plan->offset < request->offset + request->length;
}

/* Every plan counts what it matches; the first in order that may strike does. */
static const struct block_fault_plan *draw_strike(
        struct faulty_device *faulty, const struct block_request *request)
{
    const struct block_fault_plan *strike = NULL;

    for (unsigned i = 0; i < faulty->plan_count; i++) {
        struct faulty_plan *p = &faulty->plans[i];
        if (!plan_touches(&p->plan, request) || p->matched++ < p->plan.after)
            continue;
        if (strike || (p->plan.times != 0 && p->struck >= p->plan.times))
            continue;
        p->struck++;
        faulty->counts.struck++;
        strike = &p->plan;
    }
    return strike;
}

static void slot_answer(struct faulty_slot *slot)
{
    struct block_request *outer = slot->outer;
    struct faulty_device *faulty = faulty_of(outer->device);
    int result = slot->result;

    slot->next = faulty->free_slots;
    faulty->free_slots = slot;
    block_done(outer, result);
}

static void slot_fire(struct loop_timer *timer)
{
    slot_answer(container_of(timer, struct faulty_slot, timer));
}

static void slot_answer_late(struct faulty_slot *slot, struct loop *loop)
{
    slot->timer.fire = slot_fire;
    loop_timer_start(loop, &slot->timer, slot->strike ? slot->strike->delay_ms : 0);
}

static void flip_bit(const struct block_request *request)
{
    uint64_t at = request->length / 2;

    for (int i = 0; i < request->iovcnt; i++) {
        if (at < request->iov[i].iov_len) {
            ((uint8_t *)request->iov[i].iov_base)[at] ^= 0x10;
            return;
        }
        at -= request->iov[i].iov_len;
    }
}

static void faulty_done(struct block_request *inner, int result)
{
    struct faulty_slot *slot = container_of(inner, struct faulty_slot, inner);
    const struct block_fault_plan *strike = slot->strike;
    struct faulty_device *faulty = faulty_of(slot->outer->device);

    slot->outer->extents_count = inner->extents_count;
    slot->result = result;
    if (result < 0)
        block_set_words(&faulty->base, "%s", block_last_words(faulty->under));
    if (strike && strike->error) {
        slot->result = strike->error;
        block_set_words(&faulty->base, "a planned fault");
    }
    if (strike && strike->corrupt && inner->op == BLOCK_READ && result == 0)
        flip_bit(inner);
    if (faulty->base.broken) /* lost with the session, done or not */
        slot->result = strike && strike->error ? strike->error : -ENOTCONN;
    if (faulty->under->broken)
        faulty->base.broken = true;
    if (strike && strike->delay_ms)
        slot_answer_late(slot, faulty->base.loop);
    else
        slot_answer(slot);
}

static struct faulty_slot *slot_take(struct faulty_device *faulty)
{
    struct faulty_slot *slot = faulty->free_slots;

    if (!slot)
        return malloc(sizeof *slot);
    faulty->free_slots = slot->next;
    return slot;
}

static void pass_under(struct faulty_device *faulty, struct faulty_slot *slot)
{
    slot->inner = block_request_inner(slot->outer, faulty_done);
    block_submit(faulty->under, &slot->inner);
}

static void faulty_submit(struct block_device *base, struct block_request *outer)
{
    struct faulty_device *faulty = faulty_of(base);
    struct faulty_slot *slot = slot_take(faulty);

    if (!slot) {
        block_done_later(outer, -ENOMEM);
        return;
    }
    faulty->counts.seen[outer->op]++;
    faulty->counts.bytes[outer->op] += outer->op == BLOCK_FLUSH ? 0 : outer->length;
    *slot = (struct faulty_slot){ .outer = outer };
    slot->strike = draw_strike(faulty, outer);
    if (slot->strike && slot->strike->lose) {
        base->broken = true;
        base->returns = slot->strike->returns;
    }
    bool fails = slot->strike && (slot->strike->error || slot->strike->lose);
    if (!fails || slot->strike->apply) {
        pass_under(faulty, slot);
        return;
    }
    slot->result = slot->strike->error ? slot->strike->error : -ENOTCONN;
    block_set_words(base, "a planned fault");
    slot_answer_late(slot, base->loop);
}

static void faulty_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct faulty_device *faulty = faulty_of(base);
    struct block_device *under = faulty->under;

    while (faulty->free_slots) {
        struct faulty_slot *slot = faulty->free_slots;
        faulty->free_slots = slot->next;
        free(slot);
    }
    free(faulty);
    block_close(under, closed, context);
}

static const struct block_ops faulty_ops = {
    .name = "faulty",
    .submit = faulty_submit,
    .close = faulty_close,
};

struct block_device *block_faulty(struct block_device **under,
        const struct block_fault_plan *plans, unsigned count)
{
    struct faulty_device *faulty =
            calloc(1, sizeof *faulty + count * sizeof *faulty->plans);

    if (!faulty)
        return NULL;
    faulty->base = **under;
    faulty->base.ops = &faulty_ops;
    faulty->base.in_flight = 0;
    faulty->under = *under;
    faulty->plan_count = count;
    for (unsigned i = 0; i < count; i++)
        faulty->plans[i].plan = plans[i];
    *under = NULL;
    return &faulty->base;
}

struct block_faulty_counts block_faulty_counts(const struct block_device *device)
{
    check(device->ops == &faulty_ops);
    return ((const struct faulty_device *)(const void *)device)->counts;
}

#include "tests/replica/copy/nemesis.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "tests/support/seed.h"

enum { POISON = 0xe7 };

struct slot {
    struct slot *next, **link; /* of those that are not over, the youngest first */
    struct block_device *device;
    struct block_request inner;
    struct block_request *outer; /* NULL: a ghost */
    struct iovec iov;
    enum nemesis_kind strike; /* NEMESIS_KINDS: none */
    int error; /* what a struck one answers */
    unsigned delay_ms;
    bool waiting; /* the inner one is over, the timer runs */
    struct loop_timer timer;
    uint8_t bytes[] __attribute__((aligned(16)));
};

struct device {
    struct block_device base;
    struct block_device *under;
    struct nemesis *nemesis;
    struct slot *slots;
    void (*closed)(void *context);
    void *context;
};

static struct device *device_of(struct block_device *base)
{
    return container_of(base, struct device, base);
}

static bool has_bytes(const struct block_request *request)
{
    return request->op == BLOCK_READ || request->op == BLOCK_WRITE;
}

static bool changes(const struct block_request *request)
{
    return request->op == BLOCK_WRITE || request->op == BLOCK_ZERO ||
            request->op == BLOCK_DISCARD;
}

static void note_error(struct nemesis *nemesis, int error)
{
    nemesis->errors |= UINT64_C(1) << (unsigned)-error % 64;
}

bool nemesis_answered(const struct nemesis *nemesis, int error)
{
    return nemesis->errors >> (unsigned)-error % 64 & 1;
}

/* -- buffers --------------------------------------------------------------------------- */

static void gather(const struct block_request *request, uint8_t *to)
{
    for (int i = 0; i < request->iovcnt; i++) {
        memcpy(to, request->iov[i].iov_base, request->iov[i].iov_len);
        to += request->iov[i].iov_len;
    }
}

static void scatter(
        const struct block_request *request, const uint8_t *from, uint64_t length)
{
    for (int i = 0; i < request->iovcnt && length; i++) {
        uint64_t some = min_u64(length, request->iov[i].iov_len);
        memcpy(request->iov[i].iov_base, from, some);
        from += some;
        length -= some;
    }
}

static void poison(const struct block_request *request)
{
    for (int i = 0; i < request->iovcnt; i++)
        memset(request->iov[i].iov_base, POISON, request->iov[i].iov_len);
}

/* -- the end of one -------------------------------------------------------------------- */

static void device_free(struct device *device)
{
    struct block_device *under = device->under;
    void (*closed)(void *context) = device->closed;
    void *context = device->context;

    free(device);
    block_close(under, closed, context);
}

static void slot_free(struct slot *slot)
{
    struct device *device = device_of(slot->device);

    *slot->link = slot->next;
    if (slot->next)
        slot->next->link = slot->link;
    free(slot);
    if (!device->slots && device->closed)
        device_free(device);
}

static void slot_answer(struct slot *slot)
{
    struct device *device = device_of(slot->device);
    struct block_request *outer = slot->outer;
    int result = slot->error;

    if (slot->next) /* older ones are still out */
        device->nemesis->counts[NEMESIS_REORDERED]++;
    if (result) {
        note_error(device->nemesis, result);
        block_set_words(&device->base, "a drawn fault");
    }
    slot_free(slot);
    block_done(outer, result);
}

static void slot_fire(struct loop_timer *timer)
{
    slot_answer(container_of(timer, struct slot, timer));
}

static void slot_wait(struct slot *slot, uint64_t ms)
{
    slot->waiting = true;
    slot->timer.fire = slot_fire;
    loop_timer_start(slot->device->loop, &slot->timer, ms);
}

static void inner_done(struct block_request *inner, int result)
{
    struct slot *slot = container_of(inner, struct slot, inner);
    struct device *device = device_of(slot->device);

    if (device->under->broken)
        device->base.broken = true;
    if (!slot->outer) {
        slot_free(slot);
        return;
    }
    if (result)
        slot->error = result;
    if (inner->op == BLOCK_EXTENTS && result == 0) {
        slot->outer->extents_count = inner->extents_count;
        memcpy(slot->outer->extents, slot->bytes,
                inner->extents_count * sizeof *inner->extents);
    }
    if (inner->op == BLOCK_READ && result == 0) {
        uint64_t part = slot->error ? inner->length / 2 : inner->length;
        scatter(slot->outer, slot->bytes, part);
    }
    if (slot->delay_ms)
        slot_wait(slot, slot->delay_ms);
    else
        slot_answer(slot);
}

/* -- losing ---------------------------------------------------------------------------- */

static void slot_lose(struct slot *slot)
{
    struct device *device = device_of(slot->device);

    if (!slot->outer)
        return;
    note_error(device->nemesis, -ENOTCONN);
    block_done_later(slot->outer, -ENOTCONN);
    slot->outer = NULL;
    if (slot->waiting) {
        loop_timer_stop(slot->device->loop, &slot->timer);
        slot_free(slot);
    } else if (changes(&slot->inner)) {
        device->nemesis->counts[NEMESIS_GHOST]++;
    }
}

void nemesis_lose(struct block_device *base)
{
    struct device *device = device_of(base);

    base->broken = true;
    block_set_words(base, "a drawn loss");
    for (struct slot *slot = device->slots, *next; slot; slot = next) {
        next = slot->next;
        slot_lose(slot);
    }
}

/* -- drawing --------------------------------------------------------------------------- */

static uint64_t below(struct nemesis *nemesis, uint64_t limit)
{
    return seed_below(&nemesis->random, limit);
}

static int draw_error(struct nemesis *nemesis, enum block_op op)
{
    static const int errors[BLOCK_OP_COUNT][4] = {
        [BLOCK_READ] = { -EIO, -ETIMEDOUT, -ESTALE, -EREMOTEIO },
        [BLOCK_WRITE] = { -EIO, -ENOSPC, -EBADE, -ETIMEDOUT },
        [BLOCK_FLUSH] = { -EIO, -ENOSPC, -ETIMEDOUT, -EREMOTEIO },
        [BLOCK_ZERO] = { -EOPNOTSUPP, -EREMOTEIO, -EINVAL, -ENOSPC },
        [BLOCK_DISCARD] = { -EOPNOTSUPP, -EREMOTEIO, -EINVAL, -EBADE },
        [BLOCK_EXTENTS] = { -EOPNOTSUPP, -EREMOTEIO, -ESTALE, -EIO },
    };

    return errors[op][below(nemesis, 4)];
}

static enum nemesis_kind draw_kind(struct nemesis *nemesis, enum block_op op)
{
    /* Of most requests, which are reads, fewer are struck. */
    unsigned draw, rate = nemesis->per_mille * (op == BLOCK_READ ? 1 : 6);

    if (!nemesis->budget || below(nemesis, 1000) >= rate)
        return NEMESIS_KINDS;
    nemesis->budget--;
    if (nemesis->only_late)
        return NEMESIS_LATE;
    draw = (unsigned)below(nemesis, 7);
    if (draw == 0)
        return NEMESIS_LOST;
    if (draw == 1)
        return NEMESIS_LATE;
    if (op == BLOCK_FLUSH)
        return NEMESIS_FLUSH_FAILED;
    if (op == BLOCK_EXTENTS || draw == 2)
        return NEMESIS_FAILED;
    if (op == BLOCK_READ)
        return NEMESIS_SHORT_READ;
    return draw < 4 ? NEMESIS_SHORT_WRITE : NEMESIS_HALF_TOLD;
}

/* -- the device ------------------------------------------------------------------------ */

static struct slot *slot_make(struct device *device, struct block_request *outer)
{
    uint64_t room = has_bytes(outer)     ? outer->length
            : outer->op == BLOCK_EXTENTS ? outer->extents_max * sizeof *outer->extents
                                         : 0;
    struct slot *slot = calloc(1, sizeof *slot + room);

    check(slot);
    slot->device = &device->base;
    slot->outer = outer;
    slot->strike = NEMESIS_KINDS;
    slot->inner = block_request_inner(outer, inner_done);
    slot->inner.extents = (struct block_extent *)(void *)slot->bytes;
    if (outer->op == BLOCK_EXTENTS && device->nemesis->extents_most)
        slot->inner.extents_max = device->nemesis->extents_most;
    if (outer->op == BLOCK_WRITE)
        gather(outer, slot->bytes);
    else if (outer->op == BLOCK_READ)
        poison(outer);
    slot->next = device->slots;
    slot->link = &device->slots;
    if (slot->next)
        slot->next->link = &slot->next;
    device->slots = slot;
    return slot;
}

static void slot_pass(struct slot *slot)
{
    if (has_bytes(&slot->inner)) {
        slot->iov = (struct iovec){ slot->bytes, slot->inner.length };
        slot->inner.iov = &slot->iov;
        slot->inner.iovcnt = 1;
    }
    block_submit(device_of(slot->device)->under, &slot->inner);
}

static void land_fire(struct loop_timer *timer)
{
    slot_pass(container_of(timer, struct slot, timer));
}

/* Until then nothing of it is there, and no flush can cover it. */
static void slot_land(struct slot *slot, unsigned most_ms)
{
    slot->timer.fire = land_fire;
    loop_timer_start(slot->device->loop, &slot->timer,
            below(device_of(slot->device)->nemesis, most_ms));
}

/* Whole blocks, less than all. */
static uint64_t draw_part(struct device *device, uint64_t length)
{
    uint64_t block = device->base.block_size;

    return below(device->nemesis, length / block) * block;
}

static void slot_strike(struct slot *slot)
{
    struct device *device = device_of(slot->device);
    struct nemesis *nemesis = device->nemesis;

    nemesis->counts[slot->strike]++;
    if (slot->strike == NEMESIS_LATE) {
        slot->delay_ms = 1000 + (unsigned)below(nemesis, 8000);
        return;
    }
    if (slot->strike != NEMESIS_LOST)
        slot->error = draw_error(nemesis, slot->inner.op);
    if (slot->strike == NEMESIS_SHORT_WRITE)
        slot->inner.length = draw_part(device, slot->inner.length);
}

static bool is_passed(struct slot *slot)
{
    if (slot->strike == NEMESIS_FAILED || slot->strike == NEMESIS_FLUSH_FAILED)
        return false;
    return slot->strike != NEMESIS_SHORT_WRITE || slot->inner.length > 0;
}

static void nemesis_submit(struct block_device *base, struct block_request *outer)
{
    struct device *device = device_of(base);
    struct nemesis *nemesis = device->nemesis;
    struct slot *slot;

    if (base->broken) {
        note_error(nemesis, -ENOTCONN);
        block_done_later(outer, -ENOTCONN);
        return;
    }
    nemesis->reads += outer->op == BLOCK_READ;
    nemesis->read_bytes += outer->op == BLOCK_READ ? outer->length : 0;
    slot = slot_make(device, outer);
    slot->strike = draw_kind(nemesis, outer->op);
    if (slot->strike != NEMESIS_KINDS)
        slot_strike(slot);
    if (outer->op == BLOCK_FLUSH && nemesis->flush_ms)
        slot->delay_ms += (unsigned)below(nemesis, nemesis->flush_ms);
    if (!is_passed(slot)) {
        slot_wait(slot, below(nemesis, 20));
        return;
    }
    if (changes(outer) && nemesis->land_ms)
        slot_land(slot, nemesis->land_ms);
    else
        slot_pass(slot);
    if (slot->strike == NEMESIS_LOST)
        nemesis_lose(base);
}

static void nemesis_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct device *device = device_of(base);

    device->closed = closed;
    device->context = context;
    if (!device->slots)
        device_free(device);
}

static const struct block_ops nemesis_ops = {
    .name = "nemesis", .submit = nemesis_submit, .close = nemesis_close
};

struct block_device *nemesis_over(struct block_device *under, struct nemesis *nemesis)
{
    struct device *device = calloc(1, sizeof *device);

    check(device);
    device->base = *under;
    device->base.ops = &nemesis_ops;
    device->base.in_flight = 0;
    device->under = under;
    device->nemesis = nemesis;
    return &device->base;
}

#include "tests/replica/copy/toll.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"

struct gate {
    struct block_device base, *under;
    struct toll *toll;
    struct block_request *first, **last; /* in turn; the first is served */
    struct block_request *hung;
    struct loop_timer timer, hang;
    int result; /* of the first */
    unsigned zeros; /* served */
    bool hung_once;
};

static void gate_serve(struct gate *gate);

static void gate_apply(struct gate *gate, const struct block_request *request)
{
    struct toll *toll = gate->toll;
    uint8_t *at = memory_disk_bytes(toll->rig.target) + request->offset;

    if (request->op == BLOCK_READ) {
        memcpy(request->iov[0].iov_base, at, request->length);
    } else if (request->op == BLOCK_WRITE) {
        memcpy(at, request->iov[0].iov_base, request->length);
        toll->writes++;
        toll->write_bytes += request->length;
    } else if (request->op == BLOCK_ZERO) {
        memset(at, 0, request->length);
        toll->zeros++;
        toll->zero_bytes += request->length;
    }
}

static void gate_lose(struct gate *gate)
{
    gate->base.broken = true;
    block_set_words(&gate->base, "lost");
    while (gate->first) {
        struct block_request *request = gate->first;
        gate->first = request->next;
        block_done_later(request, -ENOTCONN);
    }
    gate->last = &gate->first;
}

static void gate_fire(struct loop_timer *timer)
{
    struct gate *gate = container_of(timer, struct gate, timer);
    struct block_request *request = gate->first;
    int result = gate->result;

    gate->first = request->next;
    if (!gate->first)
        gate->last = &gate->first;
    if (result == -ENOTCONN)
        gate_lose(gate);
    else if (result == 0)
        gate_apply(gate, request);
    if (gate->first)
        gate_serve(gate);
    block_done(request, result);
}

static void hang_fire(struct loop_timer *timer)
{
    struct gate *gate = container_of(timer, struct gate, hang);
    struct block_request *request = gate->hung;

    gate->hung = NULL;
    gate_apply(gate, request);
    block_done(request, 0);
}

static unsigned gate_price(struct gate *gate, const struct block_request *request)
{
    struct toll *toll = gate->toll;
    unsigned units = (unsigned)(round_up(request->length, TOLL_UNIT) / TOLL_UNIT);

    gate->result = 0;
    switch (request->op) {
    case BLOCK_READ:
        return units * toll->read_ms;
    case BLOCK_WRITE:
        return units * toll->write_ms;
    case BLOCK_ZERO:
        if (toll->zero_price)
            return toll->zero_price(toll, gate->zeros++, &gate->result);
        return units * toll->zero_ms;
    default:
        return 0;
    }
}

static void gate_serve(struct gate *gate)
{
    loop_timer_start(gate->base.loop, &gate->timer, gate_price(gate, gate->first));
}

static bool gate_hangs(struct gate *gate, struct block_request *request)
{
    struct toll *toll = gate->toll;

    if (!toll->hang_ms || gate->hung_once || request->op != BLOCK_WRITE ||
            toll->writes < toll->hang_after)
        return false;
    gate->hung_once = true;
    gate->hung = request;
    loop_timer_start(gate->base.loop, &gate->hang, toll->hang_ms);
    return true;
}

static void gate_submit(struct block_device *base, struct block_request *request)
{
    struct gate *gate = container_of(base, struct gate, base);
    struct toll *toll = gate->toll;
    bool idle = !gate->first;

    if (request->op == BLOCK_ZERO && !toll->zeros && base->in_flight > toll->beside)
        toll->beside = base->in_flight;
    if (gate_hangs(gate, request))
        return;
    request->next = NULL;
    *gate->last = request;
    gate->last = &request->next;
    if (idle)
        gate_serve(gate);
}

static void gate_close(
        struct block_device *base, void (*closed)(void *context), void *context)
{
    struct gate *gate = container_of(base, struct gate, base);
    struct block_device *under = gate->under;

    free(gate);
    block_close(under, closed, context);
}

static const struct block_ops gate_ops = {
    .name = "toll", .submit = gate_submit, .close = gate_close
};

static struct block_device *gate_over(
        struct rig *rig, struct block_device *device, bool on_target)
{
    struct gate *gate;

    if (!on_target)
        return device;
    gate = calloc(1, sizeof *gate);
    check(gate);
    gate->base = *device;
    gate->base.ops = &gate_ops;
    gate->under = device;
    gate->toll = container_of(rig, struct toll, rig);
    gate->last = &gate->first;
    gate->timer.fire = gate_fire;
    gate->hang.fire = hang_fire;
    return &gate->base;
}

void toll_init(struct toll *toll, uint64_t seed, uint64_t size, unsigned source_caps)
{
    memset(toll, 0, sizeof *toll);
    rig_init_plain(&toll->rig, seed, size, 512, 512, source_caps,
            BLOCK_VOLATILE | BLOCK_MAY_ZERO);
    toll->rig.wrap = gate_over;
    toll->read_ms = toll->write_ms = toll->zero_ms = 1;
}

void toll_clear(struct toll *toll, uint64_t from, uint64_t end)
{
    memset(memory_disk_bytes(toll->rig.source) + from, 0, end - from);
    memset(toll->rig.source_shadow + from, 0, end - from);
    memory_disk_settle(toll->rig.source);
}

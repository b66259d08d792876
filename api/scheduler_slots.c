/* The plans that the engine runs, or will once the batch is durable, and what they may run
 * beside. After the commit the engine hears of them, and of what it was asked meanwhile. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/scheduler_inside.h"

/* -- spans ------------------------------------------------------------------------- */

bool span_of(struct clerk_turn *turn, const struct uuid *id, struct span *span)
{
    struct store_element element;

    if (!turn_get(turn, STORE_ELEMENT, id->text, &element))
        return false;
    span->root = uuid_is_none(&element.of) ? element.id : element.of;
    span->from = element.offset;
    span->to = uuid_is_none(&element.of) ? UINT64_MAX : element.offset + element.size;
    return true;
}

static bool span_meets(const struct span *a, const struct span *b)
{
    return uuid_equal(&a->root, &b->root) && a->from < b->to && b->from < a->to;
}

/** May something that reads and writes these spans run beside what runs? Writers lock the
    whole of a file, and reset the whole of a LUN: one at a time, wherever they write. */
static bool spans_allow(const struct spans *a, const struct spans *b)
{
    if (!uuid_is_none(&a->writes.root) && uuid_equal(&a->writes.root, &b->writes.root))
        return false;
    for (int i = 0; i < 2; i++)
        if (span_meets(&a->writes, &b->reads[i]) ||
                span_meets(&a->reads[i], &b->writes))
            return false;
    return true;
}

/* -- slots ------------------------------------------------------------------------- */

struct slot *slot_find(struct scheduler *scheduler, const struct uuid *id)
{
    for (size_t i = 0; i < scheduler->slot_count; i++)
        if (!scheduler->slots[i].ended && uuid_equal(&scheduler->slots[i].id, id))
            return &scheduler->slots[i];
    return NULL;
}

struct slot *slot_of_job(struct scheduler *scheduler, const struct uuid *job)
{
    for (size_t i = 0; i < scheduler->slot_count; i++)
        if (!scheduler->slots[i].ended && uuid_equal(&scheduler->slots[i].of.job, job))
            return &scheduler->slots[i];
    return NULL;
}

void slot_remove(struct scheduler *scheduler, size_t at)
{
    free(scheduler->slots[at].plan);
    scheduler->slots[at] = scheduler->slots[--scheduler->slot_count];
}

unsigned slots_of(const struct scheduler *scheduler, bool scans)
{
    unsigned count = 0;

    for (size_t i = 0; i < scheduler->slot_count; i++) {
        const struct slot *slot = &scheduler->slots[i];
        if (slot->ended)
            continue;
        if (scans)
            count += slot->of.kind == SCHEDULER_SCAN;
        else
            count += !uuid_is_none(&slot->of.job);
    }
    return count;
}

bool slots_allow(const struct scheduler *scheduler, const struct spans *spans)
{
    for (size_t i = 0; i < scheduler->slot_count; i++) {
        const struct slot *slot = &scheduler->slots[i];
        if (!slot->ended && !spans_allow(&slot->spans, spans))
            return false;
    }
    return true;
}

bool slot_add(struct scheduler *scheduler, const struct engine_plan *plan,
        const struct scheduler_plan_of *of, const struct spans *spans)
{
    struct slot slot = { .id = plan->id,
        .of = *of,
        .spans = *spans,
        .fresh = true,
        .limit = plan->limit,
        .pipe = plan->pipe,
        .pipe_limit = plan->pipe_limit,
        .priority = plan->priority };

    if (plan->work != ENGINE_VERIFY)
        (void)snprintf(
                slot.of.written, sizeof(slot.of.written), "%s", plan->target.address);
    if (scheduler->slot_count == scheduler->slot_room) {
        size_t room = scheduler->slot_room ? 2 * scheduler->slot_room : 16;
        void *slots = realloc(scheduler->slots, room * sizeof(slot));
        if (!slots)
            return false;
        scheduler->slots = slots;
        scheduler->slot_room = room;
    }
    slot.plan = malloc(sizeof(*plan));
    if (!slot.plan)
        return false;
    *slot.plan = *plan;
    scheduler->slots[scheduler->slot_count++] = slot;
    return true;
}

/* -- after the commit -------------------------------------------------------------- */

static void ring_start(struct service *service, struct slot *slot)
{
    struct engine_event event = { .kind = ENGINE_ENDED,
        .id = slot->id,
        .end = ENGINE_FAILED,
        .loose = slot->plan->resumed,
        .total = 0,
        .watermark = slot->plan->watermark,
        .verified = slot->plan->verified,
        .differences = slot->plan->differences,
        .skipped = slot->plan->skipped,
        .equal = slot->plan->equal,
        .read = slot->plan->read,
        .written = slot->plan->written };
    int result = engine_start(service->engine, slot->plan);

    slot->fresh = false;
    free(slot->plan);
    slot->plan = NULL;
    if (!result)
        return;
    if (result == -ESHUTDOWN) /* nobody's fault: it waits for the next start */
        event.end = ENGINE_STOPPED;
    else
        fault_set(&event.fault, result, "it could not be started: %s",
                strerrordesc_np(-result));
    progress_event(service, &event);
}

static void ring_pace(struct engine *engine, struct slot *slot)
{
    if (slot->limit_changed)
        (void)engine_limit(engine, &slot->id, slot->limit);
    if (slot->priority_changed)
        (void)engine_priority(engine, &slot->id, slot->priority);
    if (slot->pipe_changed)
        engine_pipe_limit(engine, &slot->pipe, slot->pipe_limit);
    slot->limit_changed = slot->priority_changed = slot->pipe_changed = false;
}

void scheduler_ring(struct service *service)
{
    struct scheduler *scheduler = service->scheduler;

    scheduler->holds_fresh = false;
    for (size_t i = 0; i < scheduler->slot_count; i++) {
        struct slot *slot = &scheduler->slots[i];
        slot->held_now = false;
        if (slot->fresh)
            ring_start(service, slot);
        if (slot->stop) {
            (void)engine_stop(service->engine, &slot->id, slot->how);
            slot->stop = false;
            slot->told = true;
        }
        ring_pace(service->engine, slot);
    }
}

void scheduler_gone(struct service *service, const struct uuid *id)
{
    struct scheduler *scheduler = service->scheduler;

    for (size_t i = 0; i < scheduler->slot_count; i++)
        if (!scheduler->slots[i].fresh && uuid_equal(&scheduler->slots[i].id, id)) {
            slot_remove(scheduler, i);
            return;
        }
}

/* -- for the others ---------------------------------------------------------------- */

bool scheduler_find(
        struct service *service, const struct uuid *id, struct scheduler_plan_of *of)
{
    struct slot *slot = slot_find(service->scheduler, id);

    if (slot)
        *of = slot->of;
    return slot != NULL;
}

void scheduler_ended(struct service *service, const struct uuid *id)
{
    struct slot *slot = slot_find(service->scheduler, id);

    if (slot)
        slot->ended = true;
}

void scheduler_held(struct service *service, const struct uuid *id)
{
    struct slot *slot = slot_find(service->scheduler, id);

    if (!slot)
        return;
    slot->held_now = true;
    slot->held_job = slot->of.job;
    slot->of.job = (struct uuid){ "" };
}

bool scheduler_writes(struct service *service, const struct uuid *root)
{
    const struct scheduler *scheduler = service->scheduler;

    for (size_t i = 0; i < scheduler->slot_count; i++)
        if (uuid_equal(&scheduler->slots[i].spans.writes.root, root))
            return true;
    return false;
}

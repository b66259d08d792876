/* replica/end.c - an element's address becomes a spec, the spec a device, the device a
 * window of the size that the element promised. */
#include "replica/end.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/wrappers.h"
#include "replica/credentials.h"

enum { BLOCK_SIZE_MAX = 64 << 10 }; /* bytes; the pump's grain */

void end_init(
        struct end *end, struct engine *engine, struct loop *loop, const char *role)
{
    *end = (struct end){
        .engine = engine, .loop = loop, .role = role, .isid = engine_isid(engine)
    };
}

static void openings_remove(struct end *end);

static void fail_closed(void *context)
{
    struct end *end = context;
    end->done(end, NULL, &end->fault);
}

/* -- what was found ------------------------------------------------------------------ */

static int vet_size(struct end *end)
{
    const struct engine_element *element = &end->element;
    const struct block_device *device = end->device;
    uint64_t size = element->size;

    if (element->whole && device->size != element->whole)
        return fault_set(&end->fault, -ESTALE,
                "the %s has changed its size: %llu bytes, was %llu", end->role,
                (unsigned long long)device->size, (unsigned long long)element->whole);
    if (!range_inside(element->offset, size, device->size))
        return fault_set(&end->fault, -ESTALE,
                "the %s ends at byte %llu, before the range that is asked for",
                end->role, (unsigned long long)device->size);
    if (!size)
        size = device->size - element->offset;
    if (device->block_size > BLOCK_SIZE_MAX)
        return fault_set(&end->fault, -EINVAL, "the %s has blocks of %u bytes",
                end->role, device->block_size);
    if ((element->offset | size) % device->block_size)
        return fault_set(&end->fault, -EINVAL,
                "the range of the %s is no whole number of its blocks of %u bytes",
                end->role, device->block_size);
    return 0;
}

static int take_window(struct end *end)
{
    const struct engine_element *element = &end->element;
    uint64_t size = element->size ? element->size : end->device->size - element->offset;
    struct block_device *window;

    if (element->offset == 0 && size == end->device->size)
        return 0;
    window = block_slice(&end->device, element->offset, size);
    if (!window)
        return fault_set(&end->fault, -ENOMEM, "out of memory");
    end->device = window;
    return 0;
}

/* A task of its own: the owner may close the device, which is no thing to do from inside
   the driver's own callback. */
static void answer_run(struct loop_task *task)
{
    struct end *end = container_of(task, struct end, answering);
    struct block_device *device = end->device;

    if (!device) {
        check(end->fault.error < 0);
        end->done(end, NULL, &end->fault);
        return;
    }
    end->found = (struct engine_found){ .whole = device->size,
        .block_size = device->block_size,
        .thin = device->caps & BLOCK_THIN,
        .read_only = end->spec.writable && (device->caps & BLOCK_READ_ONLY),
        .identity = end->identity };
    if (vet_size(end) < 0 || take_window(end) < 0) {
        block_close(end->device, fail_closed, end);
        return;
    }
    end->found.size = end->device->size;
    end->done(end, end->device, &end->fault);
}

static void opened(struct block_opening *opening, struct block_device *device,
        const struct block_identity *identity, const struct fault *fault)
{
    struct end *end = container_of(opening, struct end, opening);

    openings_remove(end);
    explicit_bzero(&end->chap, sizeof end->chap);
    end->device = device;
    if (device) {
        end->fault = (struct fault){ 0 };
        end->identity = *identity;
    } else {
        end->fault = *fault;
    }
    loop_post(end->loop, &end->answering);
}

/* -- opening ------------------------------------------------------------------------- */

static struct lane *lane_of(const struct end *end)
{
    struct lane *lane = end->engine->lanes;

    while (lane->loop != end->loop)
        lane++;
    return lane;
}

static void openings_add(struct end *end)
{
    struct lane *lane = lane_of(end);

    end->opening_now = true;
    end->next = lane->openings;
    lane->openings = end;
}

static void openings_remove(struct end *end)
{
    struct end **at = &lane_of(end)->openings;

    while (*at != end)
        at = &(*at)->next;
    *at = end->next;
    end->opening_now = false;
}

void end_cancel(struct end *end)
{
    if (!end->opening_now)
        return;
    end->cancelled = true;
    block_open_cancel(&end->opening);
}

void ends_shut(struct lane *lane)
{
    lane->shut = true;
    for (struct end *end = lane->openings; end; end = end->next)
        end_cancel(end);
}

static int cancelled_fault(struct end *end)
{
    return fault_set(&end->fault, -ECANCELED, "the opening was given up on request");
}

static void open_now(struct end *end)
{
    end->opening = (struct block_opening){ .done = opened };
    block_open(end->loop, &end->spec, &end->opening);
}

static void reading_work(struct loop_work *work)
{
    struct end *end = container_of(work, struct end, reading);

    (void)credentials_read(end->engine->credentials, end->element.credentials,
            &end->chap, &end->fault);
}

static void reading_done(struct loop_work *work)
{
    struct end *end = container_of(work, struct end, reading);

    if (end->cancelled && !end->fault.error)
        cancelled_fault(end);
    if (!end->fault.error) {
        open_now(end);
        return;
    }
    openings_remove(end);
    explicit_bzero(&end->chap, sizeof end->chap);
    end->done(end, NULL, &end->fault);
}

static int spec_file(struct end *end, const struct address *address)
{
    const struct pool *pool = engine_pool_find(end->engine, address->pool);
    struct block_spec *spec = &end->spec;

    spec->driver = BLOCK_DRIVER_file;
    if (!pool)
        return fault_set(
                &end->fault, -ENXIO, "there is no pool named \"%s\"", address->pool);
    spec->directory = pool->directory;
    memcpy(spec->name, address->file, sizeof spec->name);
    spec->block_size = end->element.block_size ? end->element.block_size : 512;
    return 0;
}

static bool portal_allowed(
        const struct engine *engine, const struct sockaddr_storage *portal)
{
    for (size_t i = 0; i < engine->allow_count; i++)
        if (portal_rule_allows(&engine->allow[i], portal))
            return true;
    return false;
}

static int spec_iscsi(struct end *end, const struct address *address)
{
    const struct engine *engine = end->engine;
    struct block_spec *spec = &end->spec;
    char text[BLOCK_PORTAL_TEXT];

    if (!portal_allowed(engine, &address->portal)) {
        portal_format(&address->portal, text);
        return fault_set(&end->fault, -EPERM,
                "portal %s is not on the list of allowed ones (--allow-portal)", text);
    }
    spec->driver = BLOCK_DRIVER_iscsi;
    spec->expect_size = end->element.whole; /* compared after the barrier's reset */
    spec->portal = address->portal;
    spec->lun = address->lun;
    memcpy(spec->target, address->target, sizeof spec->target);
    memcpy(spec->expect_world, end->element.world, sizeof spec->expect_world);
    memcpy(spec->initiator, engine->initiator, sizeof spec->initiator);
    spec->isid = end->isid;
    spec->connect_timeout_ms = engine->connect_timeout_ms;
    spec->io_timeout_ms = engine->io_timeout_ms;
    spec->chap = end->element.credentials[0] ? &end->chap : NULL;
    return 0;
}

static int spec_fill(struct end *end)
{
    struct address address;

    if (address_parse(end->element.address, &address, &end->fault) < 0)
        return end->fault.error;
    if (address.kind == ADDRESS_POOL_FILE)
        return spec_file(end, &address);
    return spec_iscsi(end, &address);
}

void end_open(struct end *end, const struct engine_element *element, bool writable,
        bool barrier)
{
    end->element = *element;
    end->fault = (struct fault){ 0 };
    end->found = (struct engine_found){ 0 };
    end->device = NULL;
    end->answering.run = answer_run;
    end->spec = (struct block_spec){ .writable = writable, .barrier = barrier };
    end->opening = (struct block_opening){ .cancel = NULL };
    end->cancelled = false;
    if (spec_fill(end) < 0 || (lane_of(end)->shut && cancelled_fault(end) < 0)) {
        loop_post(end->loop, &end->answering);
        return;
    }
    openings_add(end);
    if (!end->spec.chap) {
        open_now(end);
        return;
    }
    end->reading = (struct loop_work){ .work = reading_work, .done = reading_done };
    loop_work_start(end->loop, &end->reading);
}

/* -- has it changed -------------------------------------------------------------------- */

struct stamp {
    char place[BLOCK_IDENTITY_MAX], world[BLOCK_IDENTITY_MAX], weak[BLOCK_IDENTITY_MAX];
    char changed[BLOCK_CHANGED_MAX];
};

static struct digest128 stamp_of(
        const struct block_identity *identity, const char *changed)
{
    struct stamp stamp;

    memset(&stamp, 0, sizeof stamp);
    (void)snprintf(stamp.place, sizeof stamp.place, "%s", identity->place);
    (void)snprintf(stamp.world, sizeof stamp.world, "%s", identity->world);
    (void)snprintf(stamp.weak, sizeof stamp.weak, "%s", identity->weak);
    (void)snprintf(stamp.changed, sizeof stamp.changed, "%s", changed);
    return digest_xxh3(&stamp, sizeof stamp);
}

struct digest128 end_stamp_found(const struct end *end)
{
    return stamp_of(&end->found.identity, end->found.identity.changed);
}

bool end_shows_changes(const struct end *end)
{
    return end->found.identity.changed[0] != '\0';
}

int end_stamp_left(const struct end *end, struct digest128 *stamp)
{
    char changed[BLOCK_CHANGED_MAX];
    int result = block_changed(&end->spec, changed);

    *stamp = stamp_of(&end->found.identity, changed);
    return result;
}

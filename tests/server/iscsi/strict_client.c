#include "tests/server/iscsi/strict_client.h"

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/clock.h"
#include "tests/support/must.h"
#include "tests/support/seed.h"

enum { BLOCK = 512, TURN_MS = 100 };

/* One command at a time, in a place of its own. */
struct slot {
    struct work *work;
    uint64_t lba;
    uint32_t length; /* bytes */
    uint8_t *bytes; /* written */
    bool reads;
    struct scsi_task *out; /* NULL: none. libiscsi tells not of all that it cancels */
    struct instant since;
};

struct work {
    struct strict_client *client;
    struct iscsi_context *iscsi;
    struct slot *slots;
    uint64_t area; /* bytes of a slot */
    uint64_t chance;
    struct instant end;
    bool entered, lost, wrong;
};

static void slot_done(
        struct iscsi_context *iscsi, int status, void *data, void *private);

static void slot_send(struct slot *slot)
{
    struct work *work = slot->work;
    struct scsi_task *task;

    if (slot->reads)
        task = iscsi_read16_task(work->iscsi, 0, slot->lba, slot->length, BLOCK, 0, 0,
                0, 0, 0, slot_done, slot);
    else
        task = iscsi_write16_task(work->iscsi, 0, slot->lba, slot->bytes, slot->length,
                BLOCK, 0, 0, 0, 0, 0, slot_done, slot);
    work->lost |= !task;
    slot->out = task;
    slot->since = clock_monotonic();
}

/* What was written is read; then something else is written, mostly little, sometimes all. */
static void slot_next(struct slot *slot)
{
    struct work *work = slot->work;
    uint64_t most = work->area / BLOCK;

    if (work->lost || work->wrong || instant_reached(clock_monotonic(), work->end))
        return;
    slot->reads = !slot->reads && slot->length > 0;
    if (!slot->reads) {
        if (seed_below(&work->chance, 4) > 0 && most > 16)
            most = 16;
        slot->length = (uint32_t)(1 + seed_below(&work->chance, most)) * BLOCK;
        memset(slot->bytes, (int)seed_below(&work->chance, 256), slot->length);
        memcpy(slot->bytes, &work->chance, sizeof(work->chance));
    }
    slot_send(slot);
}

static bool is_same(const struct slot *slot, const struct scsi_task *task)
{
    return !slot->reads ||
            (task->datain.size == (int)slot->length &&
                    memcmp(task->datain.data, slot->bytes, slot->length) == 0);
}

static void slot_done(
        struct iscsi_context *iscsi, int status, void *data, void *private)
{
    struct slot *slot = private;
    struct work *work = slot->work;
    struct scsi_task *task = data;
    bool again = status == SCSI_STATUS_BUSY || status == SCSI_STATUS_TASK_SET_FULL ||
            (status == SCSI_STATUS_CHECK_CONDITION &&
                    task->sense.key == SCSI_SENSE_UNIT_ATTENTION);

    slot->out = NULL;
    if (status == SCSI_STATUS_CANCELLED) { /* the session is over */
        work->lost = true;
    } else {
        work->client->answered += status == SCSI_STATUS_GOOD;
        if (!again && (status != SCSI_STATUS_GOOD || !is_same(slot, task))) {
            fprintf(stderr, "strict: %s of %u at %llu: status %x, %s\n",
                    slot->reads ? "read" : "write", slot->length,
                    (unsigned long long)slot->lba, status, iscsi_get_error(iscsi));
            work->wrong = true;
        }
    }
    scsi_free_scsi_task(task);
    if (work->lost || work->wrong)
        return;
    if (again)
        slot_send(slot);
    else
        slot_next(slot);
}

static void on_entered(
        struct iscsi_context *iscsi, int status, void *data, void *private)
{
    struct work *work = private;

    (void)iscsi, (void)data;
    work->entered = status == SCSI_STATUS_GOOD;
    work->lost |= !work->entered;
}

/* Step by step: iscsi_full_connect_async() leaks when it is kept out. */
static void on_connected(
        struct iscsi_context *iscsi, int status, void *data, void *private)
{
    struct work *work = private;

    (void)data;
    if (status != SCSI_STATUS_GOOD || iscsi_login_async(iscsi, on_entered, work) != 0)
        work->lost = true;
}

/* One look at the socket. */
static void turn(struct work *work)
{
    struct pollfd fd = { .fd = iscsi_get_fd(work->iscsi),
        .events = (short)iscsi_which_events(work->iscsi) };

    if (fd.fd < 0 || poll(&fd, 1, TURN_MS) < 0 ||
            iscsi_service(work->iscsi, fd.revents) < 0)
        work->lost = true;
}

static bool enter(struct work *work)
{
    struct strict_client *client = work->client;
    struct iscsi_context *iscsi = work->iscsi;
    struct instant late = instant_add_ms(clock_monotonic(), client->late_ms);
    char portal[32];

    snprintf(portal, sizeof(portal), "127.0.0.1:%u", client->port);
    iscsi_set_noautoreconnect(iscsi, 1);
    must(iscsi_set_isid_random(iscsi, 0x570000u + client->number, 0) == 0);
    must(iscsi_set_targetname(iscsi, client->target) == 0);
    must(iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL) == 0);
    must(iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C) == 0);
    if (client->user)
        must(iscsi_set_initiator_username_pwd(iscsi, client->user, client->secret) ==
                0);
    if (iscsi_connect_async(iscsi, portal, on_connected, work) != 0)
        return false;
    while (!work->entered && !work->lost && !instant_reached(clock_monotonic(), late))
        turn(work);
    return work->entered && !work->lost;
}

static struct instant oldest(const struct work *work, unsigned *out)
{
    struct instant first = clock_monotonic();

    *out = 0;
    for (unsigned i = 0; i < work->client->depth; i++) {
        const struct slot *slot = &work->slots[i];
        *out += slot->out != NULL;
        if (slot->out && instant_reached(first, slot->since))
            first = slot->since;
    }
    return first;
}

static enum strict_end drive(struct work *work)
{
    struct strict_client *client = work->client;

    work->end = instant_add_ms(clock_monotonic(), client->run_ms);
    for (unsigned i = 0; i < client->depth; i++)
        slot_next(&work->slots[i]);
    for (;;) {
        struct instant first = oldest(work, &client->owed);
        if (work->wrong)
            return STRICT_WRONG;
        if (work->lost)
            return STRICT_THROWN_OUT;
        if (client->owed == 0)
            return STRICT_DONE;
        if (instant_ms_until(first, clock_monotonic()) >= client->late_ms)
            return STRICT_LATE;
        turn(work);
    }
}

static void slots_make(struct work *work)
{
    struct strict_client *client = work->client;

    work->area = client->bytes / client->depth / BLOCK * BLOCK;
    must(work->area > 0 && (work->slots = calloc(client->depth, sizeof(*work->slots))));
    for (unsigned i = 0; i < client->depth; i++) {
        work->slots[i].work = work;
        work->slots[i].lba = (client->first + i * work->area) / BLOCK;
        must(work->slots[i].bytes = malloc(work->area));
    }
}

enum strict_end strict_run(
        struct strict_client *client, void (*late)(void *context), void *context)
{
    struct work work = { .client = client, .chance = client->seed };
    enum strict_end end = STRICT_KEPT_OUT;

    client->owed = 0;
    slots_make(&work);
    must(work.iscsi = iscsi_create_context("iqn.2026-11.org.replicad:strict"));
    if (enter(&work))
        end = drive(&work);
    if (end == STRICT_LATE && late)
        late(context);
    work.lost = true; /* what is cancelled now begins nothing */
    if (end == STRICT_DONE)
        (void)iscsi_logout_sync(work.iscsi);
    iscsi_destroy_context(work.iscsi);
    for (unsigned i = 0; i < client->depth; i++) {
        scsi_free_scsi_task(work.slots[i].out);
        free(work.slots[i].bytes);
    }
    free(work.slots);
    return end;
}

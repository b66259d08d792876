#include "tests/server/iscsi/scsi_rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "replica/base/log.h"
#include "replica/loop/sim.h"
#include "server/iscsi/pdu.h"
#include "tests/support/device.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

/* -- the backing --------------------------------------------------------------------- */

static struct block_device *device_make(struct rig *rig, bool again)
{
    struct memory_disk *disk = rig->disk;
    struct block_device *device;

    if (again && rig->reopen_size) {
        if (!rig->other)
            rig->other = memory_disk_create(rig->reopen_size, rig->options.block_size);
        disk = rig->other;
    }
    device = memory_disk_open(disk, rig->loop, rig->options.caps);
    expect(device != NULL);
    rig->device = block_faulty(
            &device, rig->options.plans, again ? 0 : rig->options.plan_count);
    expect(rig->device != NULL);
    return rig->device;
}

static void open_now(struct loop_task *task)
{
    struct rig *rig = container_of(task, struct rig, open_task);
    struct scsi_opening *opening = rig->opening;
    struct fault fault = { 0 };

    rig->opening = NULL;
    if (rig->opens_fail > 0) {
        rig->opens_fail--;
        fault_set(&fault, -EIO, "planned");
        opening->opened(opening, NULL, &fault);
        return;
    }
    opening->opened(opening, device_make(rig, rig->opens > 1), &fault);
}

static void rig_open(void *context, struct scsi_opening *opening, bool again)
{
    struct rig *rig = context;

    expect(!rig->opening);
    expect_eq(again, rig->opens > 0);
    rig->opens++;
    rig->opening = opening;
    rig->open_task.run = open_now;
    loop_post(rig->loop, &rig->open_task);
}

static void keep_now(struct loop_task *task)
{
    struct rig *rig = container_of(task, struct rig, keep_task);
    void (*call)(void *, int) = rig->kept_call;

    rig->kept_call = NULL;
    call(rig->kept_unit, rig->keep_result);
}

void rig_keep_answer(struct rig *rig)
{
    rig->keep_task.run = keep_now;
    loop_post(rig->loop, &rig->keep_task);
}

static void rig_keep(void *context, const uint8_t *bytes, size_t length,
        void (*kept)(void *unit, int result), void *unit)
{
    struct rig *rig = context;

    expect(!rig->kept_call); /* one at a time */
    expect(length <= sizeof rig->kept);
    rig->keeps++;
    if (rig->keep_result == 0) {
        memcpy(rig->kept, bytes, length);
        rig->kept_length = length;
    }
    rig->kept_call = kept;
    rig->kept_unit = unit;
    if (!rig->keep_held)
        rig_keep_answer(rig);
}

/* -- life ---------------------------------------------------------------------------- */

static void rig_made(void *context, struct scsi_unit *unit, const struct fault *fault)
{
    struct rig *rig = context;

    rig->unit = unit;
    rig->fault = *fault;
    rig->made = true;
}

static void nexus_make(struct rig *rig, unsigned index)
{
    struct scsi_nexus *nexus = &rig->nexus[index];
    uint32_t sense;

    snprintf(nexus->initiator, sizeof nexus->initiator, "iqn.2026-11.test:host%u",
            index);
    nexus->isid[0] = 0x80;
    nexus->isid[5] = (uint8_t)index;
    scsi_nexus_open(rig->unit, nexus);
    if (rig->options.keeps_attention)
        return;
    expect_eq(rig_simple(rig, index, &sense, CDB(0, 0, 0, 0, 0, 0)),
            SCSI_CHECK_CONDITION);
    expect_eq(sense, SENSE(6, 0x2900));
}

static void options_default(struct rig_options *options)
{
    options->size = options->size ? options->size : 8 << 20;
    options->block_size = options->block_size ? options->block_size : 512;
    options->caps = options->caps ? options->caps : RIG_THIN;
    options->buffers = options->buffers ? options->buffers : 4 << 20;
}

void rig_make(struct rig *rig, const struct rig_options *options)
{
    struct scsi_unit_options unit = { 0 };

    *rig = (struct rig){ .options = *options, .opens_fail = options->opens_fail };
    log_setup(LOG_ERROR, false); /* devices break in hundreds here */
    options_default(&rig->options);
    rig->loop = loop_sim_create(rig->options.seed);
    rig->buffers = buffer_pool_create(rig->options.buffers);
    rig->disk = memory_disk_create(rig->options.size, rig->options.block_size);
    expect(rig->loop && rig->buffers && rig->disk);
    rig->backing = (struct scsi_backing){ rig, rig_open, rig_keep };
    unit.loop = rig->loop;
    unit.buffers = rig->buffers;
    uuid_parse("0193a5f0-1111-7222-8333-444455556666", &unit.id);
    unit.name = "iqn.2026-11.org.replicad:0193a5f0-1111-7222-8333-444455556666";
    unit.read_only = rig->options.read_only;
    unit.backing = &rig->backing;
    unit.kept = rig->options.kept;
    unit.kept_length = rig->options.kept_length;
    scsi_unit_create(&unit, rig_made, rig);
    expect(!rig->made);
    expect(drive_until(rig->loop, &rig->made));
    for (unsigned i = 0; rig->unit && i < RIG_NEXUSES; i++)
        nexus_make(rig, i);
}

void rig_make_large(struct rig *rig, unsigned caps)
{
    rig_make(rig, &(struct rig_options){ .seed = 1, .caps = caps, .size = 64 << 20 });
}

void rig_release(struct rig *rig)
{
    if (rig->unit) {
        for (unsigned i = 0; i < RIG_NEXUSES; i++)
            if (rig->nexus[i].unit)
                scsi_nexus_close(&rig->nexus[i]);
        scsi_unit_destroy(rig->unit, device_set_flag, &rig->gone);
        expect(!rig->gone);
        expect(drive_until(rig->loop, &rig->gone));
    }
    buffer_pool_destroy(rig->buffers); /* checks that all are back */
    memory_disk_destroy(rig->disk);
    memory_disk_destroy(rig->other);
    loop_destroy(rig->loop);
}

/* -- the transport ------------------------------------------------------------------- */

static struct rig_task *mine(struct scsi_task *task)
{
    struct rig_task *own = container_of(task, struct rig_task, task);

    expect_eq(own->dones, 0); /* nothing comes after done */
    return own;
}

static void want_filled(struct rig_task *own, struct buffer *buffer)
{
    own->wanting = false;
    memcpy(buffer->bytes, own->out + own->want_offset, own->want_length);
    scsi_data_arrived(&own->task, buffer);
}

static void want_ready(struct buffer_wait *wait, struct buffer *buffer)
{
    want_filled(container_of(wait, struct rig_task, wait), buffer);
}

void rig_answer_want(struct rig_task *own)
{
    struct buffer *buffer;

    if (own->lose_want) {
        own->wanting = false;
        scsi_data_arrived(&own->task, NULL);
    } else if ((buffer = buffer_take(
                        buffer_common(own->rig->buffers), own->want_length))) {
        want_filled(own, buffer);
    } else {
        own->wait.ready = want_ready;
        buffer_wait_start(
                buffer_common(own->rig->buffers), &own->wait, own->want_length);
    }
}

static void want_later(struct loop_task *later)
{
    struct rig_task *own = container_of(later, struct rig_task, later);

    if (own->wanting && !own->done)
        rig_answer_want(own);
}

static void on_want(struct scsi_task *task, uint32_t offset, uint32_t length)
{
    struct rig_task *own = mine(task);

    expect(!own->wanting && !own->sending);
    expect(length > 0 && length <= BUFFER_LARGE);
    expect((uint64_t)offset + length <= task->expected);
    own->wanting = true;
    own->want_offset = offset;
    own->want_length = length;
    own->wants++;
    if (own->hold_want)
        return;
    if (loop_sim_below(own->rig->loop, 2)) {
        rig_answer_want(own); /* immediate data */
        return;
    }
    own->later.run = want_later;
    loop_post(own->rig->loop, &own->later);
}

static void receive(struct rig_task *own, struct buffer *buffer, uint32_t length)
{
    expect(length <= buffer->size);
    expect(own->received + length <= own->task.expected);
    memcpy(own->in + own->received, buffer->bytes, length);
    own->received += length;
}

void rig_answer_data(struct rig_task *own)
{
    struct buffer *buffer = own->held;

    own->held = NULL;
    own->sending = false;
    buffer_give(buffer);
    scsi_data_sent(&own->task);
}

static void data_later(struct loop_task *later)
{
    rig_answer_data(container_of(later, struct rig_task, later));
}

static void on_data(struct scsi_task *task, struct buffer *buffer, uint32_t length)
{
    struct rig_task *own = mine(task);

    expect(!own->wanting && !own->sending && length > 0);
    receive(own, buffer, length);
    own->datas++;
    own->held = buffer;
    own->sending = true;
    if (own->hold_data)
        return;
    if (loop_sim_below(own->rig->loop, 2)) {
        rig_answer_data(own);
        return;
    }
    own->later.run = data_later;
    loop_post(own->rig->loop, &own->later);
}

static void on_done(struct scsi_task *task)
{
    struct rig_task *own = mine(task);

    expect(!own->sending);
    buffer_wait_cancel(&own->wait); /* of a want that an abort ended */
    own->dones++;
    own->done = true;
    own->wanting = false;
    own->rig->done++;
    if (task->data) {
        expect(!task->aborted && task->status == SCSI_GOOD && task->data_length > 0);
        receive(own, task->data, task->data_length);
        buffer_give(task->data);
    }
    expect_eq(task->sent, own->received);
    expect(task->aborted ||
            (task->status == SCSI_CHECK_CONDITION) == (task->sense_length > 0));
}

static const struct scsi_task_ops transport = { on_want, on_data, on_done };

void rig_command(struct rig *rig, struct rig_task *task, unsigned nexus,
        const uint8_t *cdb, size_t length)
{
    memset(task, 0, sizeof *task);
    memset(&task->task, 0xa5, sizeof task->task); /* whatever the memory held before */
    task->rig = rig;
    task->task.ops = &transport;
    task->task.nexus = &rig->nexus[nexus];
    task->task.attribute = SCSI_SIMPLE;
    task->task.reads = task->task.writes = false;
    task->task.expected = 0;
    memset(task->task.cdb, 0, sizeof task->task.cdb);
    memcpy(task->task.cdb, cdb, length);
}

void rig_out(struct rig_task *task, const void *bytes, uint32_t length)
{
    task->out = bytes;
    task->task.writes = length > 0;
    task->task.expected = length;
}

void rig_in(struct rig_task *task, void *bytes, uint32_t length)
{
    task->in = bytes;
    task->task.reads = length > 0;
    task->task.expected = length;
}

void rig_submit(struct rig_task *task)
{
    scsi_submit(&task->task);
}

bool rig_wait(struct rig_task *task)
{
    return drive_until(task->rig->loop, &task->done);
}

enum scsi_status rig_run(struct rig_task *task)
{
    rig_submit(task);
    expect(rig_wait(task));
    expect(!task->task.aborted);
    return task->task.status;
}

void rig_settle(struct rig *rig)
{
    bool never = false;

    (void)drive_until_ms(rig->loop, &never, 50);
}

struct rig_reset {
    struct scsi_reset_wait wait;
    bool finished;
};

static void reset_finished(struct scsi_reset_wait *wait)
{
    container_of(wait, struct rig_reset, wait)->finished = true;
}

void rig_reset(struct rig *rig, unsigned nexus, enum scsi_reset what)
{
    struct rig_reset reset = { .wait.finished = reset_finished };

    scsi_reset(&rig->nexus[nexus], what, &reset.wait);
    expect(!reset.finished);
    expect(drive_until(rig->loop, &reset.finished));
}

uint32_t rig_sense(const struct rig_task *task)
{
    const uint8_t *sense = task->task.sense;

    if (task->task.sense_length == 0)
        return 0;
    if (sense[0] == 0x72)
        return SENSE(sense[1], be16_get(sense + 2));
    expect((sense[0] & 0x7f) == 0x70);
    return SENSE(sense[2], be16_get(sense + 12));
}

/* -- short forms --------------------------------------------------------------------- */

enum scsi_status rig_simple(struct rig *rig, unsigned nexus, uint32_t *sense,
        const uint8_t *cdb, size_t length)
{
    return rig_put(rig, nexus, sense, NULL, 0, cdb, length);
}

enum scsi_status rig_get(struct rig *rig, unsigned nexus, uint32_t *sense, void *in,
        uint32_t expected, uint32_t *received, const uint8_t *cdb, size_t length)
{
    struct rig_task task;
    enum scsi_status status;

    rig_command(rig, &task, nexus, cdb, length);
    rig_in(&task, in, expected);
    status = rig_run(&task);
    if (sense)
        *sense = rig_sense(&task);
    if (received)
        *received = task.received;
    return status;
}

enum scsi_status rig_put(struct rig *rig, unsigned nexus, uint32_t *sense,
        const void *out, uint32_t expected, const uint8_t *cdb, size_t length)
{
    struct rig_task task;
    enum scsi_status status;

    rig_command(rig, &task, nexus, cdb, length);
    rig_out(&task, out, expected);
    status = rig_run(&task);
    if (sense)
        *sense = rig_sense(&task);
    return status;
}

void rig_lba16(uint8_t cdb[16], uint8_t opcode, uint64_t lba, uint32_t blocks)
{
    memset(cdb, 0, 16);
    cdb[0] = opcode;
    be64_put(cdb + 2, lba);
    be32_put(cdb + 10, blocks);
}

void rig_lba10(uint8_t cdb[16], uint8_t opcode, uint64_t lba, uint32_t blocks)
{
    memset(cdb, 0, 16);
    cdb[0] = opcode;
    be32_put(cdb + 2, (uint32_t)lba);
    be16_put(cdb + 7, (uint16_t)blocks);
}

size_t rig_unmap_list(uint8_t *list, unsigned count, const uint64_t (*ranges)[2])
{
    size_t length = 8 + count * 16u;

    memset(list, 0, length);
    be16_put(list, (uint16_t)(length - 2));
    be16_put(list + 2, (uint16_t)(count * 16));
    for (unsigned i = 0; i < count; i++) {
        be64_put(list + 8 + i * 16, ranges[i][0]);
        be32_put(list + 16 + i * 16, (uint32_t)ranges[i][1]);
    }
    return length;
}

uint8_t *rig_disk_at(const struct rig *rig, uint64_t lba)
{
    return memory_disk_bytes(rig->disk) + lba * rig->options.block_size;
}

uint32_t rig_attention(struct rig *rig, unsigned nexus)
{
    uint32_t sense;

    rig_simple(rig, nexus, &sense, CDB(0, 0, 0, 0, 0, 0));
    return sense;
}

void rig_read_task(struct rig *rig, struct rig_task *task, unsigned nexus, uint64_t lba,
        uint32_t blocks, void *bytes)
{
    uint8_t cdb[16];

    rig_lba16(cdb, 0x88, lba, blocks);
    rig_command(rig, task, nexus, cdb, sizeof cdb);
    rig_in(task, bytes, blocks * rig->options.block_size);
}

void rig_write_task(struct rig *rig, struct rig_task *task, unsigned nexus,
        uint64_t lba, uint32_t blocks, const void *bytes)
{
    uint8_t cdb[16];

    rig_lba16(cdb, 0x8a, lba, blocks);
    rig_command(rig, task, nexus, cdb, sizeof cdb);
    rig_out(task, bytes, blocks * rig->options.block_size);
}

enum scsi_status rig_read(
        struct rig *rig, unsigned nexus, uint64_t lba, uint32_t blocks, void *bytes)
{
    struct rig_task task;

    rig_read_task(rig, &task, nexus, lba, blocks, bytes);
    return rig_run(&task);
}

enum scsi_status rig_write(struct rig *rig, unsigned nexus, uint64_t lba,
        uint32_t blocks, const void *bytes)
{
    struct rig_task task;

    rig_write_task(rig, &task, nexus, lba, blocks, bytes);
    return rig_run(&task);
}

void rig_fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    seed_fill(&seed, bytes, length);
}

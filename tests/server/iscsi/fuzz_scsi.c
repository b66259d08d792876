/* The device server on a memory disk, fed with commands: CDBs, lengths, data, aborts and
 * resets as they come. Each command must end exactly once, no buffer may be lost, and nothing
 * outside of a buffer or of the disk may be touched (the sanitizers look).
 *
 * Input: a byte for the unit (thin, thick, 4 KiB blocks ...), then records of one byte and what
 * it asks for. The bytes of a CDB are mended a little, so that most commands get past the
 * first check. */
#include <string.h>

#include "replica/base/log.h"
#include "replica/block/memory.h"
#include "replica/loop/sim.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/support/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { SLOTS = 12, NEXUSES = 2, DISK = 1 << 20, STEPS = 4000 };

struct slot {
    struct scsi_task task;
    struct buffer_wait wait;
    const struct script *script;
    bool live, wanting, sending;
    struct buffer *held;
    uint32_t want_length;
};

struct script {
    const uint8_t *bytes;
    size_t length;
    struct loop *loop;
    struct buffer_pool *buffers;
    struct memory_disk *disk;
    struct scsi_unit *unit;
    struct scsi_nexus nexus[NEXUSES];
    struct slot slots[SLOTS];
    struct scsi_backing backing;
    struct scsi_opening *opening;
    struct loop_task open_task, keep_task;
    void (*kept)(void *, int);
    uint8_t kept_bytes[SCSI_KEPT_MAX];
    struct scsi_reset_wait reset;
    bool resetting, gone;
    unsigned caps;
    uint32_t block_size;
};

static uint8_t byte_take(struct script *script)
{
    if (script->length == 0)
        return 0;
    script->length--;
    return *script->bytes++;
}

/* -- the house ----------------------------------------------------------------------- */

static void opened(struct loop_task *task)
{
    struct script *script = container_of(task, struct script, open_task);
    struct fault fault = { 0 };

    script->opening->opened(script->opening,
            memory_disk_open(script->disk, script->loop, script->caps), &fault);
}

static void backing_open(void *context, struct scsi_opening *opening, bool again)
{
    struct script *script = context;

    (void)again;
    script->opening = opening;
    script->open_task.run = opened;
    loop_post(script->loop, &script->open_task);
}

static void kept(struct loop_task *task)
{
    struct script *script = container_of(task, struct script, keep_task);

    script->kept(script->unit, 0);
}

static void backing_keep(void *context, const uint8_t *bytes, size_t length,
        void (*call)(void *unit, int result), void *unit)
{
    struct script *script = context;

    must(unit == script->unit && length <= sizeof script->kept_bytes);
    memcpy(script->kept_bytes, bytes, length);
    script->kept = call;
    script->keep_task.run = kept;
    loop_post(script->loop, &script->keep_task);
}

static void made(void *context, struct scsi_unit *unit, const struct fault *fault)
{
    struct script *script = context;

    (void)fault;
    script->unit = unit;
}

static void set_gone(void *context)
{
    ((struct script *)context)->gone = true;
}

/* -- the transport ------------------------------------------------------------------- */

static void want_filled(struct slot *slot, struct buffer *buffer)
{
    slot->wanting = false;
    for (uint32_t i = 0; i < slot->want_length; i++) /* zeros, ones, and counting */
        buffer->bytes[i] = slot->task.sequence % 3 ? (uint8_t)(i >> 9) : 0;
    memcpy(buffer->bytes, slot->script->bytes,
            min_u64(slot->want_length, slot->script->length));
    scsi_data_arrived(&slot->task, buffer);
}

static void want_ready(struct buffer_wait *wait, struct buffer *buffer)
{
    want_filled(container_of(wait, struct slot, wait), buffer);
}

static void want_answer(struct slot *slot)
{
    struct buffer *buffer =
            buffer_take(buffer_common(slot->script->buffers), slot->want_length);

    slot->wanting = false;
    if (buffer) {
        want_filled(slot, buffer);
        return;
    }
    slot->wait.ready = want_ready;
    buffer_wait_start(
            buffer_common(slot->script->buffers), &slot->wait, slot->want_length);
}

static void on_want(struct scsi_task *task, uint32_t offset, uint32_t length)
{
    struct slot *slot = container_of(task, struct slot, task);

    must(slot->live && !slot->wanting && length > 0 && length <= BUFFER_LARGE);
    must((uint64_t)offset + length <= task->expected);
    slot->wanting = true;
    slot->want_length = length;
}

static void on_data(struct scsi_task *task, struct buffer *buffer, uint32_t length)
{
    struct slot *slot = container_of(task, struct slot, task);

    must(slot->live && !slot->sending && length > 0 && length <= buffer->size);
    slot->sending = true;
    slot->held = buffer;
}

static void data_answer(struct slot *slot)
{
    slot->sending = false;
    buffer_give(slot->held);
    scsi_data_sent(&slot->task);
}

static void on_done(struct scsi_task *task)
{
    struct slot *slot = container_of(task, struct slot, task);

    must(slot->live && !slot->sending && task->sent <= task->expected);
    must(task->sense_length <= SCSI_SENSE_MAX);
    buffer_wait_cancel(&slot->wait);
    slot->live = slot->wanting = false;
    if (task->data) {
        must(task->data_length > 0 && task->data_length <= task->data->size);
        buffer_give(task->data);
    }
}

static const struct scsi_task_ops transport = { on_want, on_data, on_done };

/* -- the script ---------------------------------------------------------------------- */

/* An opcode that exists, an address that is near. */
static void cdb_mend(struct script *script, uint8_t *cdb, uint8_t how)
{
    const struct scsi_opcode *row = &scsi_opcodes[cdb[0] % scsi_opcode_count];

    if (how & 1)
        return;
    cdb[0] = row->opcode;
    if (row->action >= 0)
        cdb[1] = (uint8_t)((cdb[1] & 0xe0) | row->action);
    if (how & 2)
        return;
    if (row->flags & O_PROTECT)
        cdb[1] &= 0x1f;
    if (row->length == 16)
        memset(cdb + 2, 0, 6);
    if (row->length >= 10 && (row->flags & O_RANGE))
        cdb[2] = cdb[3] = 0;
    if (row->length == 16 && (row->flags & O_RANGE))
        cdb[10] = cdb[11] = 0;
    if (row->length == 12)
        cdb[6] = cdb[7] = 0;
    cdb[row->length - 1] = 0;
    (void)script;
}

/* What the PDU says: mostly what the command means, by its own words. */
static void expect_set(struct script *script, struct scsi_task *task)
{
    const struct scsi_opcode *row = opcode_find(script->unit, task->cdb);
    uint8_t how = byte_take(script);
    unsigned direction = row ? row->direction : how & 3;

    if (how < 16)
        direction ^= 3;
    task->reads = direction & DATA_IN;
    task->writes = direction & DATA_OUT;
    task->expected = (uint32_t)(how & 0x7f) << (how & 0x80 ? 12 : 9);
    if (row && row->opcode == 0x89)
        task->expected = task->cdb[13] * 2u * script->unit->block_size;
    if (row && (row->opcode == 0x41 || row->opcode == 0x93))
        task->expected = script->unit->block_size;
    if (row && row->opcode == 0x5f)
        task->expected = 24;
}

static void command_start(struct script *script, struct slot *slot, bool wrong_lun)
{
    struct scsi_task *task = &slot->task;
    uint8_t how = byte_take(script);

    if (slot->live)
        return;
    memset(slot, 0xa5, sizeof *slot);
    slot->script = script;
    slot->wanting = slot->sending = false;
    slot->wait.share = NULL;
    slot->live = true;
    task->ops = &transport;
    task->nexus = &script->nexus[how >> 2 & 1];
    task->attribute = how & 0x80 ? (enum scsi_attribute)(how >> 4 & 7) : SCSI_SIMPLE;
    for (unsigned i = 0; i < SCSI_CDB_MAX; i++)
        task->cdb[i] = byte_take(script);
    cdb_mend(script, task->cdb, how);
    expect_set(script, task);
    if (wrong_lun)
        scsi_submit_wrong_lun(task);
    else
        scsi_submit(task);
}

static void reset_over(struct scsi_reset_wait *wait)
{
    container_of(wait, struct script, reset)->resetting = false;
}

static void reset_start(struct script *script, uint8_t how)
{
    if (script->resetting)
        return;
    script->resetting = true;
    script->reset = (struct scsi_reset_wait){ .finished = reset_over };
    scsi_reset(
            &script->nexus[how & 1], (enum scsi_reset)(how >> 1 & 3), &script->reset);
}

static void step(struct script *script, uint8_t what)
{
    struct slot *slot = &script->slots[(what >> 3) % SLOTS];

    switch (what & 7) {
    case 0:
        if (slot->live)
            scsi_abort(&slot->task);
        break;
    case 1:
        reset_start(script, byte_take(script));
        break;
    case 2:
        if (slot->wanting) {
            slot->wanting = false;
            scsi_data_arrived(&slot->task, NULL);
        }
        break;
    case 3:
        (void)loop_sim_run(script->loop, what >> 3);
        break;
    default:
        command_start(script, slot, what == 7);
    }
}

static void answer_all(struct script *script)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &script->slots[i];
        if (slot->live && slot->wanting)
            want_answer(slot);
        if (slot->live && slot->sending)
            data_answer(slot);
    }
}

static bool any_live(const struct script *script)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (script->slots[i].live)
            return true;
    return script->resetting;
}

static void script_begin(struct script *script)
{
    static const unsigned caps[] = { BLOCK_VOLATILE,
        BLOCK_VOLATILE | BLOCK_THIN | BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD |
                BLOCK_CAN_EXTENTS | BLOCK_DISCARD_ZEROES,
        BLOCK_CAN_DISCARD, BLOCK_CAN_ZERO | BLOCK_READ_ONLY };
    static const uint32_t sizes[] = { 512, 4096, 1, 65536 };
    uint8_t shape = byte_take(script);
    struct scsi_unit_options options = { .name = "iqn.2026-11.org.replicad:fuzz" };

    script->caps = caps[shape & 3];
    script->block_size = sizes[shape >> 2 & 3];
    script->loop = loop_sim_create(shape);
    script->buffers = buffer_pool_create(3 * BUFFER_LARGE);
    script->disk = memory_disk_create(DISK, script->block_size);
    script->backing = (struct scsi_backing){ script, backing_open, backing_keep };
    options.loop = script->loop;
    options.buffers = script->buffers;
    options.backing = &script->backing;
    (void)uuid_parse("0193a5f0-1111-7222-8333-444455556666", &options.id);
    scsi_unit_create(&options, made, script);
    while (!script->unit)
        must(loop_turn(script->loop));
    for (unsigned i = 0; i < NEXUSES; i++) {
        script->nexus[i].initiator[0] = (char)('a' + i);
        scsi_nexus_open(script->unit, &script->nexus[i]);
    }
}

static void script_end(struct script *script)
{
    for (unsigned i = 0; any_live(script); i++) {
        must(i < STEPS);
        answer_all(script);
        (void)loop_sim_run(script->loop, 1000);
    }
    for (unsigned i = 0; i < NEXUSES; i++)
        scsi_nexus_close(&script->nexus[i]);
    scsi_unit_destroy(script->unit, set_gone, script);
    while (!script->gone)
        must(loop_turn(script->loop));
    buffer_pool_destroy(script->buffers);
    memory_disk_destroy(script->disk);
    loop_destroy(script->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static struct script script;

    script = (struct script){ .bytes = bytes, .length = length };
    log_setup(LOG_ERROR, false);
    script_begin(&script);
    while (script.length > 0) {
        step(&script, byte_take(&script));
        if (byte_take(&script) & 1)
            answer_all(&script);
    }
    script_end(&script);
    return 0;
}

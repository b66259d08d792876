/* What the unit says of itself: ready, sense, LUNs, supported commands and functions. */
#include "server/iscsi/scsi_inside.h"

static void ready_now(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    if (unit->device && !unit->lost)
        task_good(task);
    else
        task_fail(task, KEY_NOT_READY, SENSE_BECOMING_READY);
}

/* Asked whether it is ready, the unit does not wait until it is. */
void scsi_test_unit_ready(struct scsi_task *task)
{
    ready_now(task);
}

/* Started it is, always; a medium that can be stopped or taken out it has not. */
void scsi_start_stop_unit(struct scsi_task *task)
{
    enum { START = 0x01, LOEJ = 0x02 };

    if ((task->cdb[4] & 0xf0) || (task->cdb[4] & (START | LOEJ)) != START)
        task_fail_field(task);
    else
        ready_now(task);
}

/* -- REQUEST SENSE ------------------------------------------------------------------- */

static int64_t sense_reply(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    enum sense_code code = SENSE_NONE;
    enum sense_key key = KEY_NO_SENSE;
    const struct scsi_unit *unit = task_unit(task);

    (void)room;
    if (nexus_attention_take(task->nexus, &code)) {
        key = KEY_UNIT_ATTENTION;
    } else if (!unit->device || unit->lost) {
        key = KEY_NOT_READY;
        code = SENSE_BECOMING_READY;
    }
    return sense_build(bytes, task->cdb[1] & 0x01, key, code, NULL);
}

void scsi_request_sense(struct scsi_task *task)
{
    task_reply(task, task->cdb[4], BUFFER_SMALL, sense_reply);
}

/* -- REPORT LUNS --------------------------------------------------------------------- */

static int64_t luns_reply(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    bool listed = task->cdb[2] != 0x01; /* 01h: only well known ones, there are none */

    (void)room;
    be32_put(bytes, listed ? 8 : 0);
    return listed ? 16 : 8; /* LUN 0 is eight zeros */
}

void scsi_report_luns(struct scsi_task *task)
{
    if (task->cdb[2] > 0x02)
        task_fail_field(task);
    else
        task_reply(task, be32_get(task->cdb + 6), BUFFER_SMALL, luns_reply);
}

/* -- REPORT SUPPORTED OPERATION CODES ------------------------------------------------ */

enum { RCTD = 0x80, TIMEOUTS = 12 };

static size_t put_timeouts(const struct scsi_opcode *row, uint8_t *bytes)
{
    be16_put(bytes, TIMEOUTS - 2);
    be32_put(bytes + 8, row->seconds);
    return TIMEOUTS;
}

static size_t put_row(const struct scsi_opcode *row, bool timeouts, uint8_t *bytes)
{
    bytes[0] = row->opcode;
    bytes[5] = (uint8_t)(timeouts ? 0x02 : 0);
    if (row->action >= 0) {
        be16_put(bytes + 2, (uint16_t)row->action);
        bytes[5] |= 0x01; /* SERVACTV */
    }
    be16_put(bytes + 6, row->length);
    return 8 + (timeouts ? put_timeouts(row, bytes + 8) : 0);
}

static int64_t opcodes_all(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    const struct scsi_unit *unit = task_unit(task);
    size_t at = 4;

    check(room >= 4 + scsi_opcode_count * (8 + TIMEOUTS));
    for (unsigned i = 0; i < scsi_opcode_count; i++)
        if (opcode_served(unit, &scsi_opcodes[i]))
            at += put_row(&scsi_opcodes[i], task->cdb[2] & RCTD, bytes + at);
    be32_put(bytes, (uint32_t)(at - 4));
    return (int64_t)at;
}

/* The row that the CDB asks for, or NULL. */
static const struct scsi_opcode *opcode_asked(const struct scsi_task *task, bool action)
{
    uint8_t cdb[2] = { task->cdb[3], (uint8_t)(action ? task->cdb[5] & 0x1f : 0) };
    uint16_t wanted = be16_get(task->cdb + 4);
    const struct scsi_opcode *row = opcode_find(task_unit(task), cdb);

    if (!row || !action)
        return row;
    return wanted == (row->action < 0 ? 0 : row->action) ? row : NULL;
}

static int64_t opcode_one(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    enum { NOT_SUPPORTED = 1, SUPPORTED = 3, CTDP = 0x80 };
    const struct scsi_opcode *row = opcode_asked(task, (task->cdb[2] & 7) != 1);
    bool timeouts = task->cdb[2] & RCTD;
    size_t at;

    (void)room;
    if (!row) {
        bytes[1] = NOT_SUPPORTED;
        return 4;
    }
    bytes[1] = (uint8_t)(SUPPORTED | (timeouts ? CTDP : 0));
    be16_put(bytes + 2, row->length);
    bytes[4] = row->opcode;
    memcpy(bytes + 5, row->usage, (size_t)row->length - 1);
    at = 4 + (size_t)row->length;
    return (int64_t)(at + (timeouts ? put_timeouts(row, bytes + at) : 0));
}

void scsi_report_supported_opcodes(struct scsi_task *task)
{
    enum { ALL, PLAIN, WITH_ACTION, EITHER };
    uint8_t how = task->cdb[2] & 7;
    uint32_t allocation = be32_get(task->cdb + 6);
    unsigned row = task_unit(task)->rows[task->cdb[3]];
    bool has_actions = row && scsi_opcodes[row - 1].action >= 0;

    if (how > EITHER || (how == PLAIN && has_actions) ||
            (how == WITH_ACTION && row && !has_actions))
        task_fail_field(task);
    else
        task_reply(
                task, allocation, BUFFER_SMALL, how == ALL ? opcodes_all : opcode_one);
}

/* -- REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS -------------------------------------- */

static int64_t functions_reply(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    enum {
        ABORT_TASK = 0x80,
        ABORT_SET = 0x40,
        CLEAR_SET = 0x10,
        UNIT_RESET = 0x08,
        TARGET_RESET = 0x02
    };
    bool extended = task->cdb[2] & 0x80; /* REPD: no timeouts are told */

    (void)room;
    bytes[0] = ABORT_TASK | ABORT_SET | CLEAR_SET | UNIT_RESET | TARGET_RESET;
    if (extended)
        bytes[3] = 12;
    return extended ? 16 : 4;
}

void scsi_report_supported_functions(struct scsi_task *task)
{
    uint32_t allocation = be32_get(task->cdb + 6);

    if (allocation < 4)
        task_fail_field(task);
    else
        task_reply(task, allocation, BUFFER_SMALL, functions_reply);
}

/* -- a LUN that is not there --------------------------------------------------------- */

/* SPC-4 6.6: it has no queue, no attentions, no reservations. It stands in the task set of
   the session's own unit only so that aborts and the end of a session find it. */
static int64_t wrong_inquiry(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    (void)room;
    return inquiry_standard(task_unit(task), bytes, false);
}

static int64_t wrong_sense(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    (void)room;
    return sense_build(
            bytes, task->cdb[1] & 0x01, KEY_ILLEGAL_REQUEST, SENSE_NO_SUCH_UNIT, NULL);
}

void task_wrong_lun(struct scsi_task *task)
{
    bool standard = !(task->cdb[1] & 0x03) && task->cdb[2] == 0;

    if (task->cdb[0] == 0x12 && standard)
        task_reply(task, be16_get(task->cdb + 3), BUFFER_SMALL, wrong_inquiry);
    else if (task->cdb[0] == 0x12)
        task_fail_field(task);
    else if (task->cdb[0] == 0x03)
        task_reply(task, task->cdb[4], BUFFER_SMALL, wrong_sense);
    else if (task->cdb[0] == 0xa0)
        scsi_report_luns(task);
    else
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_NO_SUCH_UNIT);
}

/* From a CDB to its function: the table, and the checks that all commands share, in the order
 * of SAM-5 5.3.3: unit attention, the opcode itself, reservations, the CDB. */
#include <assert.h>

#include "server/iscsi/scsi_inside.h"

const struct scsi_opcode scsi_opcodes[] = {
#define OPCODE(code, sa, bytes, way, flag, who, time, function, ...)                   \
    { .opcode = (code),                                                                \
        .action = (sa),                                                                \
        .length = (bytes),                                                             \
        .direction = (way),                                                            \
        .flags = (flag),                                                               \
        .access = (who),                                                               \
        .seconds = (time),                                                             \
        .run = (function),                                                             \
        .usage = { __VA_ARGS__ } },
#include "server/iscsi/scsi_opcodes.tbl.h"
#undef OPCODE
};

const unsigned scsi_opcode_count = sizeof scsi_opcodes / sizeof *scsi_opcodes;

static_assert(sizeof scsi_opcodes / sizeof *scsi_opcodes < UINT8_MAX, "fits rows[]");

void opcode_index(uint8_t rows[256])
{
    for (unsigned i = scsi_opcode_count; i-- > 0;)
        rows[scsi_opcodes[i].opcode] = (uint8_t)(i + 1);
}

/* Only these rows, and only there, does a unit without discard miss. */
bool opcode_served(const struct scsi_unit *unit, const struct scsi_opcode *row)
{
    return !(row->flags & O_THIN) || (unit->caps & BLOCK_CAN_DISCARD);
}

const struct scsi_opcode *opcode_find(const struct scsi_unit *unit, const uint8_t *cdb)
{
    const struct scsi_opcode *end = scsi_opcodes + scsi_opcode_count;
    const struct scsi_opcode *row = scsi_opcodes + unit->rows[cdb[0]] - 1;

    if (unit->rows[cdb[0]] == 0)
        return NULL;
    for (; row < end && row->opcode == cdb[0]; row++)
        if (row->action < 0 || row->action == (cdb[1] & 0x1f))
            return opcode_served(unit, row) ? row : NULL;
    return NULL;
}

static void task_fail_opcode(struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);
    unsigned row = unit->rows[task->cdb[0]];
    bool known = row && scsi_opcodes[row - 1].action >= 0;

    task_fail(task, KEY_ILLEGAL_REQUEST,
            known ? SENSE_INVALID_FIELD_IN_CDB : SENSE_INVALID_OPCODE);
}

enum flags_verdict { FLAGS_FIT, FLAGS_NOTHING, FLAGS_WRONG };

/* R and W of the PDU against the opcode. A command that would answer with data and is flagged
   as a write is asked for no data: it does nothing, and its residual says so. To take data
   for a command that was flagged as a read is impossible: refused. */
static enum flags_verdict flags_judge(const struct scsi_task *task)
{
    if (task->expected == 0 || task->opcode->direction == NO_DATA)
        return FLAGS_FIT;
    if (task->reads == task->writes)
        return FLAGS_WRONG;
    if (task->opcode->direction == (task->reads ? DATA_IN : DATA_OUT))
        return FLAGS_FIT;
    return task->writes ? FLAGS_NOTHING : FLAGS_WRONG;
}

static void range_decode(struct scsi_task *task)
{
    const uint8_t *cdb = task->cdb;

    switch (task->opcode->length) {
    case 6:
        task->lba = be24_get(cdb + 1) & 0x1fffff;
        task->blocks = cdb[4] ? cdb[4] : 256;
        break;
    case 10:
        task->lba = be32_get(cdb + 2);
        task->blocks = be16_get(cdb + 7);
        break;
    case 12:
        task->lba = be32_get(cdb + 2);
        task->blocks = be32_get(cdb + 6);
        break;
    default:
        task->lba = be64_get(cdb + 2);
        task->blocks = be32_get(cdb + 10);
    }
}

bool task_medium_range(struct scsi_task *task)
{
    if (range_inside(task->lba, task->blocks, task_unit(task)->blocks))
        return true;
    task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_LBA_OUT_OF_RANGE);
    return false;
}

/* False: the task has ended. */
static bool range_check(struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);
    unsigned flags = task->opcode->flags;

    if ((flags & O_PROTECT) && (task->cdb[1] & 0xe0)) {
        task_fail_field(task);
        return false;
    }
    if (!(flags & O_RANGE))
        return true;
    range_decode(task);
    if (!task_medium_range(task))
        return false;
    if ((flags & O_MOVES) && task->blocks > (uint64_t)TRANSFER_MOST >> unit->shift) {
        task_fail_field(task);
        return false;
    }
    return true;
}

static bool task_admit(struct scsi_task *task)
{
    const struct scsi_opcode *row = task->opcode;
    enum sense_code code;

    if (!(row && (row->flags & O_HEARS_NOTHING)) &&
            nexus_attention_take(task->nexus, &code))
        task_fail(task, KEY_UNIT_ATTENTION, code);
    else if (!row)
        task_fail_opcode(task);
    else if (reserve_conflict(task))
        task_status(task, SCSI_RESERVATION_CONFLICT);
    else if (task->cdb[row->length - 1] & 0x04) /* NACA: no ACA here (NORMACA 0) */
        task_fail_field(task);
    else if (task->attribute == SCSI_ACA)
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_MESSAGE);
    else if (flags_judge(task) == FLAGS_WRONG)
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_INVALID_INFORMATION_UNIT);
    else if ((row->flags & O_WRITES) && unit_read_only(task_unit(task)))
        task_fail(task, KEY_DATA_PROTECT, SENSE_WRITE_PROTECTED);
    else
        return range_check(task);
    return false;
}

void task_start(struct scsi_task *task)
{
    if (!task_admit(task))
        return;
    if (flags_judge(task) == FLAGS_NOTHING)
        task_good(task);
    else
        task->opcode->run(task);
}

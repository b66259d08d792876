/* INQUIRY, READ CAPACITY: what the unit is. Identity comes from the element's id alone, so it
 * is stable for the element's life and tells nothing of the host. */
#include <stdio.h>

#include "server/iscsi/scsi_inside.h"

static const char vendor[] = "REPLICAD", product[] = "VIRTUAL-DISK    ",
                  revision[] = "0001";

enum { PAGE_HEADER = 4 };

static void put_text(uint8_t *bytes, const char *text, size_t length)
{
    memcpy(bytes, text, length);
}

int64_t inquiry_standard(const struct scsi_unit *unit, uint8_t *bytes, bool there)
{
    static const uint16_t versions[] = { /* SAM-5, iSCSI, SPC-4, SBC-3 */
        0x00a0, 0x0960, 0x0460, 0x04c0
    };
    enum { LENGTH = 96, VERSIONS = 58 };

    (void)unit;
    bytes[0] = there ? 0x00 : 0x7f; /* direct access block device */
    bytes[2] = 0x06; /* SPC-4 */
    bytes[3] = 0x12; /* HISUP, response data format 2 */
    bytes[4] = LENGTH - 5;
    bytes[7] = 0x02; /* CMDQUE */
    put_text(bytes + 8, vendor, 8);
    put_text(bytes + 16, product, 16);
    put_text(bytes + 32, revision, 4);
    for (unsigned i = 0; i < sizeof versions / sizeof *versions; i++)
        be16_put(bytes + VERSIONS + i * 2, versions[i]);
    return LENGTH;
}

/* -- vital product data -------------------------------------------------------------- */

static size_t page_supported(const struct scsi_unit *unit, uint8_t *bytes);

static size_t page_serial(const struct scsi_unit *unit, uint8_t *bytes)
{
    size_t length = strlen(unit->id.text);

    put_text(bytes, unit->id.text, length);
    return length;
}

enum designator { /* association << 4 | type (SPC-4 table 453) */
    OF_UNIT_T10 = 0x01,
    OF_UNIT_NAA = 0x03,
    OF_PORT_RELATIVE = 0x14,
    OF_PORT_GROUP = 0x15,
    OF_PORT_NAME = 0x18,
    OF_TARGET_NAME = 0x28
};

enum code_set { CODE_BINARY = 1, CODE_ASCII = 2, CODE_UTF8 = 3 };

/* Returns the whole length; the designator's bytes stand behind the header already. */
static size_t designator_head(
        uint8_t *bytes, enum designator what, enum code_set set, size_t length)
{
    enum { ISCSI = 0x50, PIV = 0x80 };
    bool of_unit = what < 0x10;

    bytes[0] = (uint8_t)(of_unit ? set : ISCSI | set);
    bytes[1] = (uint8_t)(of_unit ? what : PIV | what);
    bytes[3] = (uint8_t)length;
    return 4 + length;
}

/* SCSI names end in NUL and fill whole words (SPC-4 7.8.6.11). */
static size_t designator_name(
        uint8_t *bytes, enum designator what, const char *name, const char *rest)
{
    enum { ROOM = 252 };
    int length = snprintf((char *)bytes + 4, ROOM, "%s%s", name, rest);
    size_t padded = ((size_t)length + 4) & ~(size_t)3;

    return designator_head(bytes, what, CODE_UTF8, padded);
}

static size_t page_identity(const struct scsi_unit *unit, uint8_t *bytes)
{
    size_t id = strlen(unit->id.text), at = 0;

    memcpy(bytes + 4, unit->hash, 8);
    bytes[4] = (uint8_t)(0x30 | (unit->hash[0] & 0x0f)); /* NAA 3: locally assigned */
    at += designator_head(bytes, OF_UNIT_NAA, CODE_BINARY, 8);
    put_text(bytes + at + 4, vendor, 8);
    put_text(bytes + at + 12, unit->id.text, id);
    at += designator_head(bytes + at, OF_UNIT_T10, CODE_ASCII, 8 + id);
    be32_put(bytes + at + 4, 1);
    at += designator_head(bytes + at, OF_PORT_RELATIVE, CODE_BINARY, 4);
    be32_put(bytes + at + 4, 1);
    at += designator_head(bytes + at, OF_PORT_GROUP, CODE_BINARY, 4);
    at += designator_name(bytes + at, OF_PORT_NAME, unit->name, ",t,0x0001");
    at += designator_name(bytes + at, OF_TARGET_NAME, unit->name, "");
    return at;
}

static uint32_t in_blocks(const struct scsi_unit *unit, uint64_t bytes)
{
    return (uint32_t)min_u64(bytes >> unit->shift, UINT32_MAX);
}

/* COMPARE AND WRITE: both halves in one buffer, and the count is one byte. */
uint32_t compare_most(const struct scsi_unit *unit)
{
    return (uint32_t)min_u64(in_blocks(unit, BUFFER_LARGE / 2), 255);
}

static size_t page_limits(const struct scsi_unit *unit, uint8_t *page)
{
    uint8_t *bytes = page - PAGE_HEADER; /* offsets as in the standard */
    uint32_t grain = in_blocks(unit, GRAIN);

    bytes[5] = (uint8_t)compare_most(unit);
    be16_put(bytes + 6, (uint16_t)(grain ? grain : 1));
    be32_put(bytes + 8, in_blocks(unit, TRANSFER_MOST));
    be32_put(bytes + 12, in_blocks(unit, BUFFER_LARGE));
    if (unit->caps & BLOCK_CAN_DISCARD) {
        be32_put(bytes + 20, UNMAP_MOST);
        be32_put(bytes + 24, UNMAP_RANGES);
        be32_put(bytes + 28, grain ? grain : 1);
    }
    be64_put(bytes + 36, in_blocks(unit, ZERO_MOST));
    return 60;
}

static size_t page_characteristics(const struct scsi_unit *unit, uint8_t *bytes)
{
    (void)unit;
    be16_put(bytes, 1); /* does not rotate */
    return 60;
}

static size_t page_provisioning(const struct scsi_unit *unit, uint8_t *bytes)
{
    enum { LBPU = 0x80, LBPWS = 0x40, LBPWS10 = 0x20, LBPRZ = 0x04 };

    if (unit->caps & BLOCK_CAN_DISCARD) {
        bytes[1] = LBPU | LBPWS | LBPWS10;
        bytes[2] = unit->caps & BLOCK_THIN ? 2 : 1; /* thin; resource provisioned */
    }
    if (unit->caps & BLOCK_DISCARD_ZEROES)
        bytes[1] |= LBPRZ;
    return 4;
}

static const struct {
    uint8_t code;
    size_t (*fill)(const struct scsi_unit *unit, uint8_t *bytes);
} pages[] = {
    { 0x00, page_supported },
    { 0x80, page_serial },
    { 0x83, page_identity },
    { 0xb0, page_limits },
    { 0xb1, page_characteristics },
    { 0xb2, page_provisioning },
};

enum { PAGES = sizeof pages / sizeof *pages };

static size_t page_supported(const struct scsi_unit *unit, uint8_t *bytes)
{
    (void)unit;
    for (unsigned i = 0; i < PAGES; i++)
        bytes[i] = pages[i].code;
    return PAGES;
}

static int64_t inquiry_build(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    const struct scsi_unit *unit = task_unit(task);
    size_t length;

    (void)room;
    if (!(task->cdb[1] & 0x01) && task->cdb[2] == 0)
        return inquiry_standard(unit, bytes, true);
    for (unsigned i = 0; i < PAGES && (task->cdb[1] & 0x01); i++)
        if (pages[i].code == task->cdb[2]) {
            length = pages[i].fill(unit, bytes + PAGE_HEADER);
            bytes[1] = pages[i].code;
            be16_put(bytes + 2, (uint16_t)length);
            return (int64_t)(PAGE_HEADER + length);
        }
    task_fail_field(task);
    return -1;
}

void scsi_inquiry(struct scsi_task *task)
{
    if (task->cdb[1] & 0xfe) /* CMDDT is obsolete */
        task_fail_field(task);
    else
        task_reply(task, be16_get(task->cdb + 3), BUFFER_SMALL, inquiry_build);
}

/* -- READ CAPACITY ------------------------------------------------------------------- */

static int64_t capacity_10(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    const struct scsi_unit *unit = task_unit(task);

    (void)room;
    be32_put(bytes, (uint32_t)min_u64(unit->blocks - 1, UINT32_MAX));
    be32_put(bytes + 4, unit->block_size);
    return 8;
}

void scsi_read_capacity_10(struct scsi_task *task)
{
    bool partial =
            task->cdb[8] & 0x01; /* PMI: there is no slower cylinder to tell of */

    if (!partial && be32_get(task->cdb + 2) != 0)
        task_fail_field(task);
    else
        task_reply(task, 8, BUFFER_SMALL, capacity_10);
}

static int64_t capacity_16(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    const struct scsi_unit *unit = task_unit(task);

    (void)room;
    be64_put(bytes, unit->blocks - 1);
    be32_put(bytes + 8, unit->block_size);
    if (unit->caps & BLOCK_CAN_DISCARD)
        bytes[14] |= 0x80; /* LBPME */
    if (unit->caps & BLOCK_DISCARD_ZEROES)
        bytes[14] |= 0x40; /* LBPRZ */
    return 32;
}

void scsi_read_capacity_16(struct scsi_task *task)
{
    bool partial = task->cdb[14] & 0x01;

    if (!partial && be64_get(task->cdb + 2) != 0)
        task_fail_field(task);
    else
        task_reply(task, be32_get(task->cdb + 10), BUFFER_SMALL, capacity_16);
}

/* Mode pages (SPC-4 7.5, SBC-3 6.4). What can be changed: WCE (then every write is written
 * through), D_SENSE and SWP; for all sessions, until a reset, saved nowhere.
 *
 * WCE goes off in two steps: every write that begins from now on is written through, and one
 * that is under way is flushed before its GOOD; then what was cached is flushed. Only when
 * that has ended well is WCE seen to be off, by anybody: before it, and when it failed, there
 * is something in the cache. */
#include "server/iscsi/scsi_inside.h"

enum page_control { CURRENT, CHANGEABLE, DEFAULT, SAVED };

enum {
    ALL_PAGES = 0x3f,
    ALL_SUBPAGES = 0xff,
    PAGE_MOST = 20, /* bytes of one page with its header */
    LIST_MOST = 4096, /* bytes of a parameter list */
    WCE = 0x04,
    D_SENSE = 0x04,
    SWP = 0x08,
    WRITE_PROTECT = 0x80,
    DPOFUA = 0x10
};

#define SENSE_NOT_SAVED ((enum sense_code)0x3900)

/* What MODE SELECT may set. */
struct mode {
    bool write_through, descriptor_sense, write_protect;
};

static struct mode mode_now(const struct scsi_unit *unit, enum page_control control)
{
    if (control != CURRENT)
        return (struct mode){ 0 };
    return (struct mode){ unit->write_through, unit->descriptor_sense,
        unit->write_protect };
}

/* -- the pages: offsets as in the standards, header first ---------------------------- */

static void page_recovery(
        const struct scsi_unit *unit, enum page_control control, uint8_t *page)
{
    (void)unit, (void)control, (void)page; /* nothing is retried or remapped here */
}

static void page_caching(
        const struct scsi_unit *unit, enum page_control control, uint8_t *page)
{
    bool volatile_cache = unit->caps & BLOCK_VOLATILE;

    if (volatile_cache && !(mode_now(unit, control).write_through && unit->settled))
        page[2] = WCE; /* as the mask of what can be changed, too */
}

static void caching_apply(struct mode *mode, const uint8_t *page)
{
    mode->write_through = !(page[2] & WCE);
}

static void page_control_mode(
        const struct scsi_unit *unit, enum page_control control, uint8_t *page)
{
    struct mode mode = mode_now(unit, control);
    bool mask = control == CHANGEABLE;

    page[2] = mask || mode.descriptor_sense ? D_SENSE : 0;
    page[3] = mask ? 0 : 0x10; /* unrestricted reordering of SIMPLE tasks */
    page[4] = mask || mode.write_protect ? SWP : 0;
}

static void control_mode_apply(struct mode *mode, const uint8_t *page)
{
    mode->descriptor_sense = page[2] & D_SENSE;
    mode->write_protect = page[4] & SWP;
}

static void page_exceptions(
        const struct scsi_unit *unit, enum page_control control, uint8_t *page)
{
    (void)unit;
    page[2] = control == CHANGEABLE ? 0 : 0x08; /* DEXCPT: none is reported */
}

static const struct mode_page {
    uint8_t code, length; /* length with the two bytes of the header */
    void (*fill)(
            const struct scsi_unit *unit, enum page_control control, uint8_t *page);
    void (*apply)(struct mode *mode, const uint8_t *page);
} pages[] = {
    { 0x01, 12, page_recovery, NULL },
    { 0x08, 20, page_caching, caching_apply },
    { 0x0a, 12, page_control_mode, control_mode_apply },
    { 0x1c, 12, page_exceptions, NULL },
};

enum { PAGES = sizeof pages / sizeof *pages };

static void page_build(const struct scsi_unit *unit, const struct mode_page *row,
        enum page_control control, uint8_t *page)
{
    page[0] = row->code;
    page[1] = (uint8_t)(row->length - 2);
    row->fill(unit, control, page);
}

/* -- MODE SENSE ---------------------------------------------------------------------- */

static uint8_t device_specific(const struct scsi_unit *unit)
{
    return (uint8_t)(DPOFUA | (unit_read_only(unit) ? WRITE_PROTECT : 0));
}

static size_t block_descriptor(
        const struct scsi_unit *unit, bool is_long, uint8_t *bytes)
{
    if (is_long) {
        be64_put(bytes, unit->blocks);
        be32_put(bytes + 12, unit->block_size);
        return 16;
    }
    be32_put(bytes, (uint32_t)min_u64(unit->blocks, UINT32_MAX));
    be24_put(bytes + 5, unit->block_size);
    return 8;
}

/* Headers of MODE SENSE and MODE SELECT, 6 and 10. */
static size_t header_put(const struct scsi_unit *unit, bool ten, size_t descriptors,
        bool is_long, uint8_t *bytes)
{
    if (!ten) {
        bytes[2] = device_specific(unit);
        bytes[3] = (uint8_t)descriptors;
        return 4;
    }
    bytes[3] = device_specific(unit);
    bytes[4] = is_long;
    be16_put(bytes + 6, (uint16_t)descriptors);
    return 8;
}

static size_t pages_put(const struct scsi_task *task, uint8_t *bytes)
{
    enum page_control control = (enum page_control)(task->cdb[2] >> 6);
    uint8_t wanted = task->cdb[2] & 0x3f;
    size_t at = 0;

    for (unsigned i = 0; i < PAGES; i++)
        if (wanted == pages[i].code || wanted == ALL_PAGES) {
            page_build(task_unit(task), &pages[i], control, bytes + at);
            at += pages[i].length;
        }
    return at;
}

static int64_t mode_sense_build(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    const struct scsi_unit *unit = task_unit(task);
    bool ten = task->cdb[0] == 0x5a, bare = task->cdb[1] & 0x08;
    bool is_long = ten && (task->cdb[1] & 0x10) && !bare;
    size_t header = ten ? 8 : 4, at, found;

    (void)room;
    at = header + (bare ? 0 : block_descriptor(unit, is_long, bytes + header));
    (void)header_put(unit, ten, at - header, is_long, bytes);
    found = pages_put(task, bytes + at);
    if (found == 0) {
        task_fail_field(task);
        return -1;
    }
    at += found;
    if (ten)
        be16_put(bytes, (uint16_t)(at - 2));
    else
        bytes[0] = (uint8_t)(at - 1);
    return (int64_t)at;
}

void scsi_mode_sense(struct scsi_task *task)
{
    uint8_t subpage = task->cdb[3];
    bool ten = task->cdb[0] == 0x5a;

    if (subpage != 0 && subpage != ALL_SUBPAGES)
        task_fail_field(task);
    else if (task->cdb[2] >> 6 == SAVED)
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_NOT_SAVED);
    else
        task_reply(task, ten ? be16_get(task->cdb + 7) : task->cdb[4], BUFFER_SMALL,
                mode_sense_build);
}

/* -- MODE SELECT --------------------------------------------------------------------- */

/* A parameter list being read. */
struct list {
    const uint8_t *bytes;
    size_t length;
};

enum verdict { FINE, SHORT, INVALID };

static void list_skip(struct list *list, size_t length)
{
    list->bytes += length;
    list->length -= length;
}

/* The capacity and the block size can be told again, not changed. */
static enum verdict descriptors_check(
        const struct scsi_unit *unit, struct list *list, size_t length, bool is_long)
{
    uint8_t own[16] = { 0 };
    size_t one = block_descriptor(unit, is_long, own);
    size_t count = is_long ? 8 : 4; /* bytes of the number of blocks */
    static const uint8_t zeros[8],
            ones[8] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

    if (length > list->length)
        return SHORT;
    if (length == 0)
        return FINE;
    if (length != one || memcmp(list->bytes + count, own + count, one - count) != 0)
        return INVALID;
    if (memcmp(list->bytes, own, count) != 0 &&
            memcmp(list->bytes, zeros, count) != 0 &&
            memcmp(list->bytes, ones, count) != 0)
        return INVALID;
    list_skip(list, length);
    return FINE;
}

static enum verdict header_take(
        const struct scsi_unit *unit, bool ten, struct list *list)
{
    size_t header = ten ? 8 : 4, descriptors;
    bool is_long;

    if (list->length < header)
        return SHORT;
    is_long = ten && (list->bytes[4] & 0x01);
    descriptors = ten ? be16_get(list->bytes + 6) : list->bytes[3];
    list_skip(list, header);
    return descriptors_check(unit, list, descriptors, is_long);
}

static const struct mode_page *page_find(uint8_t code)
{
    for (unsigned i = 0; i < PAGES; i++)
        if (pages[i].code == code)
            return &pages[i];
    return NULL;
}

/* Only bits that can be changed may differ from what they are. */
static bool page_agrees(
        const struct scsi_unit *unit, const struct mode_page *row, const uint8_t *page)
{
    uint8_t now[PAGE_MOST] = { 0 }, mask[PAGE_MOST] = { 0 };

    page_build(unit, row, CURRENT, now);
    page_build(unit, row, CHANGEABLE, mask);
    for (unsigned i = 2; i < row->length; i++)
        if ((page[i] ^ now[i]) & ~mask[i])
            return false;
    return page[1] == now[1];
}

static enum verdict page_take(
        const struct scsi_unit *unit, struct list *list, struct mode *mode)
{
    const struct mode_page *row = page_find(list->bytes[0] & 0x3f);

    if (!row || (list->bytes[0] & 0x40)) /* SPF: there are no subpages */
        return INVALID;
    if (list->length < row->length)
        return SHORT;
    if (!page_agrees(unit, row, list->bytes))
        return INVALID;
    if (row->apply)
        row->apply(mode, list->bytes);
    list_skip(list, row->length);
    return FINE;
}

static void mode_apply(struct scsi_task *task, struct mode mode)
{
    struct scsi_unit *unit = task_unit(task);
    struct mode now = mode_now(unit, CURRENT);

    if (memcmp(&now, &mode, sizeof mode) == 0)
        return;
    if (mode.write_through != now.write_through)
        unit->settled = false;
    unit->write_through = mode.write_through;
    unit->descriptor_sense = mode.descriptor_sense;
    unit->write_protect = mode.write_protect;
    unit_attention(unit, task->nexus, SENSE_MODE_CHANGED);
}

static enum verdict list_take(
        const struct scsi_unit *unit, bool ten, struct list *list, struct mode *mode)
{
    enum verdict verdict = header_take(unit, ten, list);

    while (verdict == FINE && list->length > 0)
        verdict = list->length < 2 ? SHORT : page_take(unit, list, mode);
    return verdict;
}

static void select_flushed(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    if (task->result < 0) {
        task_fail_device(task);
        return;
    }
    if (unit->write_through && !unit->settled) { /* nobody switched it on meanwhile */
        unit->settled = true;
        unit_attention(unit, task->nexus, SENSE_MODE_CHANGED);
    }
    task_good(task);
}

static void mode_select_list(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    struct list list = { task->buffer->bytes, task->piece };
    struct mode mode = mode_now(unit, CURRENT);
    enum verdict verdict = list_take(unit, task->cdb[0] == 0x55, &list, &mode);

    task->at = task->piece;
    task_drop_buffer(task);
    if (verdict == SHORT) {
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_PARAMETER_LIST_LENGTH);
        return;
    }
    if (verdict == INVALID) {
        task_fail_parameter(task);
        return;
    }
    mode_apply(task, mode);
    if (mode.write_through && !unit->settled)
        task_device(task, BLOCK_FLUSH, 0, NULL, 0, 0, select_flushed);
    else
        task_good(task);
}

void scsi_mode_select(struct scsi_task *task)
{
    uint32_t length = task->cdb[0] == 0x55 ? be16_get(task->cdb + 7) : task->cdb[4];

    task->transfer = length;
    if (!(task->cdb[1] & 0x10) || (task->cdb[1] & 0x01)) /* PF, not SP */
        task_fail_field(task);
    else if (length == 0)
        task_good(task);
    else if (length > LIST_MOST || task->expected < length)
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_PARAMETER_LIST_LENGTH);
    else
        task_want(task, 0, length, mode_select_list);
}

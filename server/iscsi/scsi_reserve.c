/* Persistent reservations (SPC-4 5.13) and RESERVE/RELEASE(6) (SPC-2).
 *
 * The whole state is a value, struct registrations. A PERSISTENT RESERVE OUT makes the next
 * value from the present one, has it kept if APTPL asks for that, and only when it is durable
 * does it become the present one and the command GOOD: what a crash leaves behind is the one or
 * the other. One such command at a time; others stand in line.
 *
 * A registrant is an I_T nexus: an initiator port (name and ISID) and our one target port. It
 * stays registered while it is logged out.
 */
#include <assert.h>
#include <stdio.h>

#include "replica/base/digest.h"
#include "server/iscsi/scsi_inside.h"

enum { NOBODY = 0xff };

enum { SCOPE_UNIT = 0 };

/* -- who is who ---------------------------------------------------------------------- */

static unsigned registrant_find(
        const struct registrations *all, const struct scsi_nexus *nexus)
{
    for (unsigned i = 0; i < all->count; i++)
        if (memcmp(all->list[i].isid, nexus->isid, sizeof nexus->isid) == 0 &&
                strcmp(all->list[i].initiator, nexus->initiator) == 0)
            return i;
    return NOBODY;
}

static bool type_is_all(unsigned type)
{
    return type == RESERVE_WRITE_ALL || type == RESERVE_ACCESS_ALL;
}

static bool type_shares(unsigned type) /* with registrants */
{
    return type >= RESERVE_WRITE_REGISTRANTS;
}

static bool type_lets_read(unsigned type)
{
    return type == RESERVE_WRITE || type == RESERVE_WRITE_REGISTRANTS ||
            type == RESERVE_WRITE_ALL;
}

static bool type_known(unsigned type)
{
    return type == RESERVE_WRITE || type == RESERVE_ACCESS ||
            (type >= RESERVE_WRITE_REGISTRANTS && type <= RESERVE_ACCESS_ALL);
}

static bool holds(const struct registrations *all, unsigned who)
{
    return all->type != RESERVE_NO && who != NOBODY &&
            (type_is_all(all->type) || all->holder == who);
}

/* -- conflicts: the access column of the table --------------------------------------- */

static bool persistent_conflict(const struct scsi_task *task)
{
    const struct registrations *all = &task_unit(task)->pr;
    unsigned access = task->opcode->access & 7u;

    if (access == A_ALL || access == A_OWN)
        return false;
    if (access == A_READS && type_lets_read(all->type))
        return false;
    if (!task->nexus->registered)
        return true;
    return !type_shares(all->type) && !holds(all, registrant_find(all, task->nexus));
}

bool reserve_conflict(const struct scsi_task *task)
{
    const struct scsi_unit *unit = task_unit(task);

    if (unit->reserver && unit->reserver != task->nexus &&
            !(task->opcode->access & A_SPC2))
        return true;
    return unit->pr.type != RESERVE_NO && persistent_conflict(task);
}

void reserve_nexus_open(struct scsi_nexus *nexus)
{
    nexus->registered = registrant_find(&nexus->unit->pr, nexus) != NOBODY;
}

void reserve_nexus_close(struct scsi_nexus *nexus)
{
    if (nexus->unit->reserver == nexus)
        nexus->unit->reserver = NULL;
}

void reserve_reset(struct scsi_unit *unit)
{
    unit->reserver = NULL;
}

/* -- RESERVE(6), RELEASE(6) ---------------------------------------------------------- */

/* Beside persistent registrations they conflict (SPC-2 5.5.1; CRH is 0). */
static bool spc2_refused(struct scsi_task *task)
{
    if (task_unit(task)->pr.count > 0) {
        task_status(task, SCSI_RESERVATION_CONFLICT);
        return true;
    }
    if (task->cdb[1] & 0x11) { /* third party, extents */
        task_fail_field(task);
        return true;
    }
    return false;
}

void scsi_reserve_6(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    if (spc2_refused(task))
        return;
    if (unit->reserver && unit->reserver != task->nexus) {
        task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    unit->reserver = task->nexus;
    task_good(task);
}

void scsi_release_6(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    if (spc2_refused(task))
        return;
    if (unit->reserver == task->nexus)
        unit->reserver = NULL;
    task_good(task);
}

/* -- kept over a restart ------------------------------------------------------------- */

/* "RPR1", type, holder, count, 0; then each: key, ISID, length and name; then CRC32C. */
enum { KEPT_HEADER = 8, KEPT_FIXED = 15, KEPT_CRC = 4 };

static const char kept_magic[4] = "RPR1";

static size_t kept_put(const struct registrant *one, uint8_t *bytes)
{
    size_t length = strlen(one->initiator);

    be64_put(bytes, one->key);
    memcpy(bytes + 8, one->isid, 6);
    bytes[14] = (uint8_t)length;
    memcpy(bytes + KEPT_FIXED, one->initiator, length);
    return KEPT_FIXED + length;
}

static size_t reserve_write(const struct registrations *all, uint8_t *bytes)
{
    size_t at = KEPT_HEADER;

    memcpy(bytes, kept_magic, sizeof kept_magic);
    bytes[4] = all->type;
    bytes[5] = all->holder;
    bytes[6] = all->count;
    bytes[7] = 0;
    for (unsigned i = 0; i < all->count; i++)
        at += kept_put(&all->list[i], bytes + at);
    be32_put(bytes + at, digest_crc32c(bytes, at));
    return at + KEPT_CRC;
}

static_assert(
        KEPT_HEADER + REGISTRANTS_MOST * (KEPT_FIXED + SCSI_NAME_MAX) + KEPT_CRC <=
                SCSI_KEPT_MAX,
        "all of it can be kept");

/* Returns the bytes of one registrant, 0 when it is none. */
static size_t kept_get(struct registrant *one, const uint8_t *bytes, size_t room)
{
    size_t length;

    if (room < KEPT_FIXED)
        return 0;
    length = bytes[14];
    if (length >= SCSI_NAME_MAX || room < KEPT_FIXED + length)
        return 0;
    one->key = be64_get(bytes);
    memcpy(one->isid, bytes + 8, 6);
    memcpy(one->initiator, bytes + KEPT_FIXED, length);
    one->initiator[length] = '\0';
    return KEPT_FIXED + length;
}

static bool kept_head(struct registrations *all, const uint8_t *bytes, size_t length)
{
    if (length < KEPT_HEADER + KEPT_CRC ||
            memcmp(bytes, kept_magic, sizeof kept_magic) != 0 ||
            digest_crc32c(bytes, length - KEPT_CRC) !=
                    be32_get(bytes + length - KEPT_CRC))
        return false;
    all->keep = true;
    all->type = bytes[4];
    all->holder = bytes[5];
    all->count = bytes[6];
    if (all->count > REGISTRANTS_MOST)
        return false;
    if (all->type == RESERVE_NO)
        return true;
    return type_known(all->type) && all->count > 0 &&
            (type_is_all(all->type) || all->holder < all->count);
}

bool reserve_read(struct scsi_unit *unit, const uint8_t *bytes, size_t length)
{
    struct registrations *all = &unit->pr;
    size_t at = KEPT_HEADER, one = 0;

    if (!bytes || length == 0)
        return true;
    if (!kept_head(all, bytes, length))
        return false;
    for (unsigned i = 0; i < all->count; i++, at += one)
        if ((one = kept_get(&all->list[i], bytes + at, length - KEPT_CRC - at)) == 0)
            return false;
    return at == length - KEPT_CRC;
}

/* -- PERSISTENT RESERVE IN ----------------------------------------------------------- */

static int64_t in_keys(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    const struct scsi_unit *unit = task_unit(task);

    (void)room;
    be32_put(bytes, unit->generation);
    be32_put(bytes + 4, unit->pr.count * 8u);
    for (unsigned i = 0; i < unit->pr.count; i++)
        be64_put(bytes + 8 + (size_t)i * 8, unit->pr.list[i].key);
    return 8 + unit->pr.count * 8;
}

static int64_t in_reservation(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    const struct scsi_unit *unit = task_unit(task);
    const struct registrations *all = &unit->pr;

    (void)room;
    be32_put(bytes, unit->generation);
    if (all->type == RESERVE_NO)
        return 8;
    be32_put(bytes + 4, 16);
    be64_put(bytes + 8, type_is_all(all->type) ? 0 : all->list[all->holder].key);
    bytes[21] = all->type;
    return 24;
}

static int64_t in_capabilities(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    enum { ATP_C = 0x04, PTPL_C = 0x01, TMV = 0x80, PTPL_A = 0x01 };

    (void)room;
    be16_put(bytes, 8);
    bytes[2] = ATP_C | PTPL_C; /* ALL_TG_PT is honest: there is one target port */
    bytes[3] = (uint8_t)(TMV | (task_unit(task)->pr.keep ? PTPL_A : 0));
    bytes[4] = 0xea; /* types 7, 6, 5, 3, 1 */
    bytes[5] = 0x01; /* type 8 */
    return 8;
}

/* TransportID of an iSCSI initiator port (SPC-4 7.6.4.6). */
static size_t put_transport_id(const struct registrant *one, uint8_t *bytes)
{
    const uint8_t *isid = one->isid;
    int length = snprintf((char *)bytes + 4, SCSI_NAME_MAX + 20,
            "%s,i,0x%02x%02x%02x%02x%02x%02x", one->initiator, isid[0], isid[1],
            isid[2], isid[3], isid[4], isid[5]);
    size_t padded = ((size_t)length + 4) & ~(size_t)3;

    bytes[0] = 0x45; /* with ISID, iSCSI */
    be16_put(bytes + 2, (uint16_t)padded);
    return 4 + padded;
}

static size_t put_status(const struct registrations *all, unsigned who, uint8_t *bytes)
{
    enum { FIXED = 24 };
    size_t id = put_transport_id(&all->list[who], bytes + FIXED);

    be64_put(bytes, all->list[who].key);
    if (holds(all, who)) {
        bytes[12] = 0x01; /* R_HOLDER */
        bytes[13] = all->type;
    }
    be16_put(bytes + 18, 1); /* relative target port */
    be32_put(bytes + 20, (uint32_t)id);
    return FIXED + id;
}

static int64_t in_status(struct scsi_task *task, uint8_t *bytes, size_t room)
{
    const struct scsi_unit *unit = task_unit(task);
    size_t at = 8;

    check(room >= 8 + REGISTRANTS_MOST * (28 + SCSI_NAME_MAX + 24));
    be32_put(bytes, unit->generation);
    for (unsigned i = 0; i < unit->pr.count; i++)
        at += put_status(&unit->pr, i, bytes + at);
    be32_put(bytes + 4, (uint32_t)(at - 8));
    return (int64_t)at;
}

void scsi_persistent_reserve_in(struct scsi_task *task)
{
    static reply_f *const builders[] = { in_keys, in_reservation, in_capabilities,
        in_status };
    unsigned action = task->cdb[1] & 0x1f;

    if (task_unit(task)->reserver) {
        task_status(task, SCSI_RESERVATION_CONFLICT);
        return;
    }
    task_reply(task, be16_get(task->cdb + 7), action == 3 ? BUFFER_LARGE : BUFFER_SMALL,
            builders[action]);
}

/* -- PERSISTENT RESERVE OUT ---------------------------------------------------------- */

enum out_action {
    OUT_REGISTER,
    OUT_RESERVE,
    OUT_RELEASE,
    OUT_CLEAR,
    OUT_PREEMPT,
    OUT_PREEMPT_AND_ABORT,
    OUT_REGISTER_AND_IGNORE /* REGISTER AND MOVE is not served: no row */
};

enum { OUT_LIST = 24, OUT_SPEC_I_PT = 0x08, OUT_APTPL = 0x01 };

/* What a command asks for, and what becomes of it. Lives in task->room between its steps. */
struct out {
    uint64_t key, action_key;
    uint32_t lost; /* attention for those who lose their registration, 0 none */
    bool released; /* registrants that stay hear of it */
    bool counts; /* for the generation */
    bool purges;
    bool aptpl;
};

static_assert(sizeof(struct out) <= sizeof(((struct scsi_task *)0)->room), "fits");

static struct out *out_of(struct scsi_task *task)
{
    return (struct out *)(void *)&task->room;
}

static enum out_action out_action(const struct scsi_task *task)
{
    return (enum out_action)(task->cdb[1] & 0x1f);
}

enum out_verdict {
    OUT_DONE,
    OUT_CONFLICT,
    OUT_BAD_FIELD,
    OUT_BAD_PARAMETER,
    OUT_BAD_RELEASE,
    OUT_FULL
};

static void registrant_remove(struct registrations *all, unsigned who)
{
    memmove(&all->list[who], &all->list[who + 1],
            (all->count - who - 1) * sizeof *all->list);
    all->count--;
    if (all->holder != NOBODY && all->holder > who)
        all->holder--;
}

static void reservation_end(struct registrations *all)
{
    all->type = RESERVE_NO;
    all->holder = NOBODY;
}

static void reservation_set(struct registrations *all, unsigned type, unsigned who)
{
    all->type = (uint8_t)type;
    all->holder = (uint8_t)(type_is_all(type) ? NOBODY : who);
}

static enum out_verdict registrant_add(
        struct registrations *all, const struct scsi_nexus *nexus, uint64_t key)
{
    struct registrant *one = &all->list[all->count];

    if (all->count == REGISTRANTS_MOST)
        return OUT_FULL;
    memset(one, 0, sizeof *one);
    memcpy(one->initiator, nexus->initiator, sizeof one->initiator);
    memcpy(one->isid, nexus->isid, sizeof one->isid);
    one->key = key;
    all->count++;
    return OUT_DONE;
}

/* Whoever leaves takes his reservation along; the type says who must hear of that. */
static void registrant_leave(struct registrations *all, unsigned who, struct out *out)
{
    bool was_holder = holds(all, who);
    bool last = all->count == 1;

    if (was_holder && (!type_is_all(all->type) || last)) {
        out->released = type_shares(all->type);
        reservation_end(all);
    }
    registrant_remove(all, who);
}

static enum out_verdict out_register(struct scsi_task *task, struct registrations *all,
        unsigned who, struct out *out)
{
    bool ignore = out_action(task) == OUT_REGISTER_AND_IGNORE;
    uint64_t present = who == NOBODY ? 0 : all->list[who].key;

    if (!ignore && out->key != present)
        return OUT_CONFLICT;
    if (who == NOBODY && out->action_key == 0)
        return OUT_DONE;
    out->counts = true;
    all->keep = out->aptpl;
    if (out->action_key == 0) {
        registrant_leave(all, who, out);
        return OUT_DONE;
    }
    if (who == NOBODY)
        return registrant_add(all, task->nexus, out->action_key);
    all->list[who].key = out->action_key;
    return OUT_DONE;
}

static enum out_verdict out_reserve(
        struct scsi_task *task, struct registrations *all, unsigned who)
{
    unsigned type = task->cdb[2] & 0x0f;

    if (task->cdb[2] >> 4 != SCOPE_UNIT || !type_known(type))
        return OUT_BAD_FIELD;
    if (all->type == RESERVE_NO)
        reservation_set(all, type, who);
    else if (!holds(all, who) || all->type != type)
        return OUT_CONFLICT;
    return OUT_DONE;
}

static enum out_verdict out_release(struct scsi_task *task, struct registrations *all,
        unsigned who, struct out *out)
{
    if (!holds(all, who))
        return OUT_DONE;
    if (task->cdb[2] >> 4 != SCOPE_UNIT || (task->cdb[2] & 0x0f) != all->type)
        return OUT_BAD_RELEASE;
    out->released = type_shares(all->type);
    reservation_end(all);
    return OUT_DONE;
}

static enum out_verdict out_clear(struct registrations *all, struct out *out)
{
    reservation_end(all);
    all->count = 0;
    out->lost = SENSE_RESERVATIONS_PREEMPTED;
    out->counts = true;
    return OUT_DONE;
}

/* Removes those with @key, or @everybody, but not @spare. Returns how many. */
static unsigned registrants_remove(struct registrations *all, bool everybody,
        uint64_t key, const struct registrant *spare)
{
    unsigned removed = 0;

    for (unsigned i = all->count; i-- > 0;) {
        if ((everybody || all->list[i].key == key) &&
                (!spare || memcmp(&all->list[i], spare, sizeof *all->list) != 0)) {
            registrant_remove(all, i);
            removed++;
        }
    }
    return removed;
}

/* SPC-4 5.13.11.4: the reservation is taken over. */
static enum out_verdict preempt_reservation(struct scsi_task *task,
        struct registrations *all, unsigned who, struct out *out)
{
    struct registrant self = all->list[who];
    unsigned type = task->cdb[2] & 0x0f, was = all->type;

    if (task->cdb[2] >> 4 != SCOPE_UNIT || !type_known(type))
        return OUT_BAD_FIELD;
    reservation_end(all);
    (void)registrants_remove(all, type_is_all(was), out->action_key, &self);
    reservation_set(all, type, registrant_find(all, task->nexus));
    out->released = type != was && type_shares(was);
    return OUT_DONE;
}

static enum out_verdict out_preempt(struct scsi_task *task, struct registrations *all,
        unsigned who, struct out *out)
{
    bool everybody = type_is_all(all->type);
    uint64_t holder_key =
            all->type != RESERVE_NO && !everybody ? all->list[all->holder].key : 0;

    out->lost = SENSE_REGISTRATIONS_PREEMPTED;
    out->counts = true;
    out->purges = out_action(task) == OUT_PREEMPT_AND_ABORT;
    if (out->action_key == 0 && !everybody)
        return OUT_BAD_PARAMETER;
    if (out->action_key == holder_key)
        return preempt_reservation(task, all, who, out);
    if (registrants_remove(all, false, out->action_key, NULL) == 0)
        return OUT_CONFLICT;
    if (everybody && all->count == 0)
        reservation_end(all);
    return OUT_DONE;
}

/* unit->next becomes what the command makes of it. */
static enum out_verdict out_judge(struct scsi_task *task)
{
    struct registrations *all = &task_unit(task)->next;
    struct out *out = out_of(task);
    unsigned who = registrant_find(all, task->nexus);
    enum out_action action = out_action(task);

    if (action == OUT_REGISTER || action == OUT_REGISTER_AND_IGNORE)
        return out_register(task, all, who, out);
    if (who == NOBODY || all->list[who].key != out->key)
        return OUT_CONFLICT;
    switch (action) {
    case OUT_RESERVE:
        return out_reserve(task, all, who);
    case OUT_RELEASE:
        return out_release(task, all, who, out);
    case OUT_CLEAR:
        return out_clear(all, out);
    default:
        return out_preempt(task, all, who, out);
    }
}

/* -- from judgement to GOOD ---------------------------------------------------------- */

void reserve_task_over(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    unit->registering = NULL;
    (void)line_wake(&unit->register_line);
}

static void out_failed(struct scsi_task *task)
{
    task_fail(task, KEY_HARDWARE_ERROR, SENSE_INTERNAL_FAILURE);
}

/* Sessions hear what they lost, and know whether they are registered. */
static void out_announce(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    const struct out *out = out_of(task);

    for (struct scsi_nexus *nexus = unit->nexuses; nexus; nexus = nexus->next) {
        bool was = nexus->registered;
        nexus->registered = registrant_find(&unit->pr, nexus) != NOBODY;
        if (nexus == task->nexus)
            continue;
        if (was && !nexus->registered && out->lost)
            nexus_attention(nexus, (enum sense_code)out->lost);
        else if (nexus->registered && out->released)
            nexus_attention(nexus, SENSE_RESERVATIONS_RELEASED);
        nexus->purged = was && !nexus->registered && out->purges;
    }
}

/* PREEMPT AND ABORT: the commands of those who were put out end before it does. */
static void out_purge(struct scsi_unit *unit)
{
    for (struct scsi_task *task = unit->first; task; task = task->next)
        if (task->nexus->purged && task != unit->registering) {
            task->purged = true;
            unit->purge_left++;
            scsi_abort(task);
        }
    for (struct scsi_nexus *nexus = unit->nexuses; nexus; nexus = nexus->next)
        nexus->purged = false;
}

void reserve_task_purged(struct scsi_unit *unit)
{
    if (--unit->purge_left == 0)
        task_post(unit->registering, task_good);
}

static void out_commit(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    const struct out *out = out_of(task);

    unit->pr = unit->next;
    unit->generation += out->counts;
    out_announce(task);
    out_purge(unit);
    if (unit->purge_left == 0)
        task_post(task, task_good);
}

static void out_kept(void *context, int result)
{
    struct scsi_unit *unit = context;
    struct scsi_task *task = unit->registering;

    if (result < 0)
        task_post(task, out_failed);
    else
        out_commit(task);
}

static void out_keep(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    size_t length = 0;

    task->state = TASK_KEEPING;
    if (!unit->pr.keep && !unit->next.keep) {
        out_commit(task);
        return;
    }
    if (unit->next.keep && unit->next.count > 0)
        length = reserve_write(&unit->next, unit->kept);
    unit->backing->keep(unit->backing->context, unit->kept, length, out_kept, unit);
}

static void out_refuse(struct scsi_task *task, enum out_verdict verdict)
{
    switch (verdict) {
    case OUT_CONFLICT:
        task_status(task, SCSI_RESERVATION_CONFLICT);
        break;
    case OUT_BAD_PARAMETER:
        task_fail_parameter(task);
        break;
    case OUT_BAD_RELEASE:
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_INVALID_RELEASE);
        break;
    case OUT_FULL:
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_REGISTRATION_RESOURCES);
        break;
    default:
        task_fail_field(task);
    }
}

static void out_begin(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);
    enum out_verdict verdict;

    if (unit->registering) {
        line_join(&unit->register_line, task, out_begin);
        return;
    }
    unit->registering = task;
    unit->next = unit->pr;
    verdict = out_judge(task);
    if (verdict == OUT_DONE)
        out_keep(task);
    else
        out_refuse(task, verdict);
}

static void out_list(struct scsi_task *task)
{
    const uint8_t *bytes = task->buffer->bytes;
    struct out *out = out_of(task);

    *out = (struct out){ .key = be64_get(bytes),
        .action_key = be64_get(bytes + 8),
        .aptpl = bytes[20] & OUT_APTPL };
    task->at = task->piece;
    if (bytes[20] & OUT_SPEC_I_PT) { /* SIP_C is 0 */
        task_fail_parameter(task);
        return;
    }
    task_drop_buffer(task);
    out_begin(task);
}

void scsi_persistent_reserve_out(struct scsi_task *task)
{
    uint32_t length = be32_get(task->cdb + 5);

    task->transfer = length;
    if (task_unit(task)->reserver)
        task_status(task, SCSI_RESERVATION_CONFLICT);
    else if (length != OUT_LIST || task->expected < OUT_LIST)
        task_fail(task, KEY_ILLEGAL_REQUEST, SENSE_PARAMETER_LIST_LENGTH);
    else
        task_want(task, 0, OUT_LIST, out_list);
}

/* PERSISTENT RESERVE OUT (SPC-4 5.13).
 *
 * The whole state is a value, struct registrations. A PERSISTENT RESERVE OUT makes the next
 * value from the present one, has it kept if APTPL asks for that, and only when it is durable
 * does it become the present one and the command GOOD: what a crash leaves behind is the one or
 * the other. One such command at a time; others stand in line.
 */
#include <assert.h>

#include "server/iscsi/scsi_reserve.h"

enum { SCOPE_UNIT = 0 };

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
    bool was_holder = registrant_holds(all, who);
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
    else if (!registrant_holds(all, who) || all->type != type)
        return OUT_CONFLICT;
    return OUT_DONE;
}

static enum out_verdict out_release(struct scsi_task *task, struct registrations *all,
        unsigned who, struct out *out)
{
    if (!registrant_holds(all, who))
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

/* -- from judgement to GOOD ------------------------------------------------------- */

/* The turn is handed on: one that is aborted before it has begun hands it on as well. */
void reserve_task_over(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    unit->registering = unit->register_line.first;
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
    struct scsi_task *task;

    TAILQ_FOREACH(task, &unit->set, in_set)
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

    if (unit->registering && unit->registering != task) {
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

/* Persistent reservations (SPC-4 5.13) and RESERVE/RELEASE(6) (SPC-2): who is registered, and
 * whom that keeps out.
 *
 * A registrant is an I_T nexus: an initiator port (name and ISID) and our one target port. It
 * stays registered while it is logged out.
 */
#include "server/iscsi/scsi_reserve.h"

/* -- who is who ------------------------------------------------------------------- */

unsigned registrant_find(
        const struct registrations *all, const struct scsi_nexus *nexus)
{
    for (unsigned i = 0; i < all->count; i++)
        if (memcmp(all->list[i].isid, nexus->isid, sizeof nexus->isid) == 0 &&
                strcmp(all->list[i].initiator, nexus->initiator) == 0)
            return i;
    return NOBODY;
}

bool registrant_holds(const struct registrations *all, unsigned who)
{
    return all->type != RESERVE_NO && who != NOBODY &&
            (type_is_all(all->type) || all->holder == who);
}

/* -- conflicts: the access column of the table ------------------------------------ */

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
    return !type_shares(all->type) &&
            !registrant_holds(all, registrant_find(all, task->nexus));
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

/* -- RESERVE(6), RELEASE(6) ------------------------------------------------------- */

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

/* Reservations: not yet held by anybody. */
#include "server/iscsi/scsi_inside.h"

bool reserve_conflict(const struct scsi_task *task)
{
    (void)task;
    return false;
}
void reserve_nexus_open(struct scsi_nexus *nexus)
{
    nexus->registered = false;
}
void reserve_nexus_close(struct scsi_nexus *nexus)
{
    (void)nexus;
}
void reserve_reset(struct scsi_unit *unit)
{
    unit->reserver = NULL;
}
bool reserve_read(struct scsi_unit *unit, const uint8_t *bytes, size_t length)
{
    (void)unit, (void)bytes;
    return length == 0;
}
void reserve_task_purged(struct scsi_unit *unit)
{
    (void)unit;
}

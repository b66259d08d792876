/* PERSISTENT RESERVE IN. */
#include <stdio.h>

#include "server/iscsi/scsi_reserve.h"

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
    if (registrant_holds(all, who)) {
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

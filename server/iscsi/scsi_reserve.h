/* server/iscsi/scsi_reserve.h - what the files of reservations share: scsi_reserve.c (who is
 * registered, who conflicts), scsi_reserve_in.c and scsi_reserve_out.c (the two commands),
 * scsi_reserve_kept.c (what outlives the process). Private to these. The unit's loop only;
 * nothing blocks.
 */
#ifndef SERVER_ISCSI_SCSI_RESERVE_H
#define SERVER_ISCSI_SCSI_RESERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/iscsi/scsi_inside.h"

enum { NOBODY = 0xff };

static inline bool type_is_all(unsigned type)
{
    return type == RESERVE_WRITE_ALL || type == RESERVE_ACCESS_ALL;
}

static inline bool type_shares(unsigned type) /* with registrants */
{
    return type >= RESERVE_WRITE_REGISTRANTS;
}

static inline bool type_lets_read(unsigned type)
{
    return type == RESERVE_WRITE || type == RESERVE_WRITE_REGISTRANTS ||
            type == RESERVE_WRITE_ALL;
}

static inline bool type_known(unsigned type)
{
    return type == RESERVE_WRITE || type == RESERVE_ACCESS ||
            (type >= RESERVE_WRITE_REGISTRANTS && type <= RESERVE_ACCESS_ALL);
}

/** The place of @nexus in the list, or NOBODY. */
unsigned registrant_find(
        const struct registrations *all, const struct scsi_nexus *nexus);

/** Does @who, which may be NOBODY, hold the reservation? */
bool registrant_holds(const struct registrations *all, unsigned who);

/** @all as reserve_read() understands it, SCSI_KEPT_MAX bytes at most. Returns how many. */
size_t reserve_write(const struct registrations *all, uint8_t *bytes);

#endif

/* replica/block/iscsi_command.h - SCSI commands made from requests.
 *
 * Private to the driver. Pure but for realloc(); one loop's thread.
 */
#ifndef REPLICA_BLOCK_ISCSI_COMMAND_H
#define REPLICA_BLOCK_ISCSI_COMMAND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "replica/block/device.h"
#include "replica/block/iscsi_facts.h"
#include "replica/block/iscsi_initiator.h"

enum {
    COMMAND_FEW = 8, /* iovec elements held without allocating */
    COMMAND_STATUS =
            128 << 10, /* bytes of GET LBA STATUS: mostly the whole map at once */
    COMMAND_REQUEST_MAX = 1 << 30, /* bytes of one read or write */
};

/** What a command needs to stay alive with it. Begins as zeros; command_room_free(). */
struct command_room {
    struct iovec few[COMMAND_FEW];
    struct iovec *many; /* grown when a request needs more, kept for the next one */
    int many_room;
    uint8_t parameter[24]; /* of UNMAP */
};

/**
 * Fill @command for @request to the device @base with @facts. @status: COMMAND_STATUS bytes,
 * for EXTENTS only. Returns 0, -ENOMEM, or -EINVAL for a vector or a length beyond reason.
 */
int block_iscsi_command(struct initiator_command *command, struct command_room *room,
        const struct block_device *base, const struct lun_facts *facts,
        const struct block_request *request, uint8_t *status);

/** SYNCHRONIZE CACHE of all blocks. */
void block_iscsi_command_flush(struct initiator_command *command);

void command_room_free(struct command_room *room);

#endif

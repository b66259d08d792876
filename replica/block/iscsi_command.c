#include "replica/block/iscsi_command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/checked.h"

static const uint8_t zeros[4096]; /* the data of WRITE SAME */

static void put_be64(uint8_t *p, uint64_t value)
{
    put_be32(p, (uint32_t)(value >> 32));
    put_be32(p + 4, (uint32_t)value);
}

static void start(struct initiator_command *command, uint8_t opcode, unsigned cdb_size,
        enum initiator_direction direction, uint64_t length)
{
    memset(command->cdb, 0, sizeof(command->cdb));
    command->cdb[0] = opcode;
    command->cdb_size = cdb_size;
    command->direction = direction;
    command->length = (uint32_t)length;
    command->expected = 0;
    command->iovcnt = 0;
}

static void range_put(struct initiator_command *command, uint32_t block_size,
        const struct block_request *request)
{
    put_be64(command->cdb + 2, request->offset / block_size);
    put_be32(command->cdb + 10, (uint32_t)(request->length / block_size));
}

static void buffer_put(struct initiator_command *command, struct command_room *room,
        const void *bytes, size_t length)
{
    room->few[0] = (struct iovec){ (void *)(uintptr_t)bytes, length };
    command->iov = room->few;
    command->iovcnt = 1;
}

/** A copy of the caller's vector, without its empty elements. */
static int vector_put(struct initiator_command *command, struct command_room *room,
        const struct block_request *request)
{
    struct iovec *iov = room->few;
    int count = 0;

    if (request->iovcnt > COMMAND_FEW) {
        if (request->iovcnt > room->many_room) {
            iov = realloc(room->many, sizeof(*iov) * (size_t)request->iovcnt);
            if (!iov)
                return -ENOMEM;
            room->many = iov;
            room->many_room = request->iovcnt;
        }
        iov = room->many;
    }
    for (int i = 0; i < request->iovcnt; i++)
        if (request->iov[i].iov_len)
            iov[count++] = request->iov[i];
    command->iov = iov;
    command->iovcnt = count;
    return count <= WIRE_PIECES ? 0 : -EINVAL;
}

/** With UNMAP: gives the blocks back if they read as zeros then, else writes zeros. */
static void write_same(struct initiator_command *command, struct command_room *room,
        uint32_t block_size, const struct block_request *request, bool gives_back)
{
    start(command, 0x93, 16, INITIATOR_OUT, block_size); /* WRITE SAME(16) */
    if (gives_back)
        command->cdb[1] = 0x08;
    range_put(command, block_size, request);
    buffer_put(command, room, zeros, block_size);
}

static void unmap(struct initiator_command *command, struct command_room *room,
        uint32_t block_size, const struct block_request *request)
{
    uint8_t *list = room->parameter;

    memset(list, 0, sizeof(room->parameter));
    list[1] = 22; /* bytes that follow the length field */
    list[3] = 16; /* one descriptor */
    put_be64(list + 8, request->offset / block_size);
    put_be32(list + 16, (uint32_t)(request->length / block_size));
    start(command, 0x42, 10, INITIATOR_OUT, sizeof(room->parameter)); /* UNMAP */
    command->cdb[8] = sizeof(room->parameter);
    buffer_put(command, room, list, sizeof(room->parameter));
}

static void lba_status(struct initiator_command *command, struct command_room *room,
        uint32_t block_size, const struct block_request *request, uint8_t *status)
{
    start(command, 0x9e, 16, INITIATOR_IN, COMMAND_STATUS); /* GET LBA STATUS */
    command->cdb[1] = 0x12;
    put_be64(command->cdb + 2, request->offset / block_size);
    put_be32(command->cdb + 10, COMMAND_STATUS);
    memset(status, 0, COMMAND_STATUS); /* not what an earlier answer said */
    buffer_put(command, room, status, COMMAND_STATUS);
}

static int read_or_write(struct initiator_command *command, struct command_room *room,
        uint32_t block_size, const struct block_request *request, bool fua)
{
    bool write = request->op == BLOCK_WRITE;

    if (request->length > COMMAND_REQUEST_MAX)
        return -EINVAL;
    start(command, write ? 0x8a : 0x88, 16, write ? INITIATOR_OUT : INITIATOR_IN,
            request->length); /* WRITE(16), READ(16) */
    range_put(command, block_size, request);
    if (write && fua && (request->flags & BLOCK_FUA))
        command->cdb[1] |= 0x08;
    return vector_put(command, room, request);
}

int block_iscsi_command(struct initiator_command *command, struct command_room *room,
        const struct block_device *base, const struct lun_facts *facts,
        const struct block_request *request, uint8_t *status)
{
    switch (request->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return read_or_write(command, room, base->block_size, request, facts->fua);
    case BLOCK_FLUSH:
        block_iscsi_command_flush(command);
        return 0;
    case BLOCK_DISCARD:
        /* UNMAP may leave blocks as they were; after WRITE SAME they read as zeros. */
        if (!(base->caps & BLOCK_DISCARD_ZEROES)) {
            unmap(command, room, base->block_size, request);
            return 0;
        }
        write_same(command, room, base->block_size, request, true);
        return 0;
    case BLOCK_ZERO:
        write_same(command, room, base->block_size, request,
                base->caps & BLOCK_DISCARD_ZEROES);
        return 0;
    case BLOCK_EXTENTS:
        lba_status(command, room, base->block_size, request, status);
        return 0;
    case BLOCK_COPY:
    case BLOCK_FORGET:
    case BLOCK_OP_COUNT:
        break;
    }
    return -EINVAL;
}

void block_iscsi_command_flush(struct initiator_command *command)
{
    start(command, 0x35, 10, INITIATOR_NONE, 0); /* SYNCHRONIZE CACHE, all of it */
}

void command_room_free(struct command_room *room)
{
    free(room->many);
    room->many = NULL;
    room->many_room = 0;
}

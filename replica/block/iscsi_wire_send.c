/* What leaves: PDUs are gathered in a batch, which goes in as few system calls as the
 * socket takes. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "replica/base/checked.h"
#include "replica/block/iscsi_wire_inside.h"

enum {
    ELEMENTS_MAX = 1024, /* of one sendmsg() */
    BATCH_BYTES = 1 << 20
};

static_assert((int)WIRE_PIECES + 2 <= (int)(WIRE_PIECES + 2 * WIRE_HEADERS),
        "a PDU of any command fits an empty batch");

static void batch_add(struct wire *wire, void *base, size_t length)
{
    wire->element_room[wire->elements++] = (struct iovec){ base, length };
    wire->batched += length;
}

static uint8_t *batch_header(struct wire *wire, unsigned opcode, unsigned flags)
{
    uint8_t *header = wire->header_room[wire->headers++];

    memset(header, 0, TERMS_HEADER);
    header[0] = (uint8_t)opcode;
    header[1] = (uint8_t)flags;
    batch_add(wire, header, TERMS_HEADER);
    return header;
}

/** @length bytes of the command's buffers, which are at its cursor. */
static void batch_data(
        struct wire *wire, struct initiator_command *command, uint32_t length)
{
    struct wire_cursor *cursor = &command->cursor;

    command->moved += length;
    while (length) {
        const struct iovec *iov = &command->iov[cursor->piece];
        size_t n = min_u64(length, iov->iov_len - cursor->at);
        batch_add(wire, (uint8_t *)iov->iov_base + cursor->at, n);
        length -= (uint32_t)n;
        cursor->at += n;
        if (cursor->at == iov->iov_len)
            *cursor = (struct wire_cursor){ cursor->piece + 1, 0 };
    }
}

static void header_lun(const struct wire *wire, uint8_t *header)
{
    header[8] = (uint8_t)(wire->lun >> 8);
    header[9] = (uint8_t)wire->lun;
}

static void header_length(uint8_t *header, uint32_t length)
{
    header[5] = (uint8_t)(length >> 16);
    header[6] = (uint8_t)(length >> 8);
    header[7] = (uint8_t)length;
}

/** The command with its immediate data. */
static void emit_command(struct wire *wire, struct initiator_command *command)
{
    static const unsigned flags[] = { 0, 0x40, 0x20 }; /* none, R, W */
    const struct login_terms *terms = &wire->terms;
    uint64_t unasked = 0, now = 0;
    uint8_t *header;

    if (command->direction == INITIATOR_OUT) {
        unasked = min_u64(command->length, terms->first_burst);
        if (terms->immediate)
            now = min_u64(unasked, terms->segment);
        if (terms->initial_r2t)
            unasked = now;
    }
    header = batch_header(wire, SCSI_COMMAND,
            flags[command->direction] | 1u /* SIMPLE */ |
                    (now == unasked ? FINAL : 0u));
    header_length(header, (uint32_t)now);
    header_lun(wire, header);
    put_be32(header + 16, command->tag);
    put_be32(header + 20, expected_length(command));
    put_be32(header + 24, wire->cmd_sn++);
    put_be32(header + 28, wire->exp_stat_sn);
    memcpy(header + 32, command->cdb, command->cdb_size);
    command->started = true;
    command->allowed = (uint32_t)unasked;
    command->transfer_tag = NO_TAG;
    batch_data(wire, command, (uint32_t)now);
}

static void emit_data(struct wire *wire, struct initiator_command *command)
{
    uint32_t length =
            (uint32_t)min_u64(command->allowed - command->moved, wire->terms.segment);
    bool last = command->moved + length == command->allowed;
    uint8_t *header = batch_header(wire, DATA_OUT, last ? FINAL : 0);

    header_length(header, length);
    header_lun(wire, header);
    put_be32(header + 16, command->tag);
    put_be32(header + 20, command->transfer_tag);
    put_be32(header + 28, wire->exp_stat_sn);
    put_be32(header + 36, command->data_sn++);
    put_be32(header + 40, command->moved);
    batch_data(wire, command, length);
}

/** A PDU of @command, which may be cut anywhere, fits the batch. */
static bool batch_takes(
        const struct wire *wire, const struct initiator_command *command)
{
    return wire->headers < WIRE_HEADERS && wire->batched < BATCH_BYTES &&
            wire->elements + 2 + (unsigned)command->iovcnt <=
            sizeof(wire->element_room) / sizeof(wire->element_room[0]);
}

static void batch_controls(struct wire *wire)
{
    for (unsigned i = 0; i < wire->control_count; i++) {
        uint8_t *header = batch_header(wire, 0, 0);
        memcpy(header, wire->controls[i], TERMS_HEADER);
        put_be32(header + 24, wire->cmd_sn); /* immediate: does not count */
        put_be32(header + 28, wire->exp_stat_sn);
    }
    wire->control_count = 0;
}

static bool may_start(const struct wire *wire)
{
    return wire->starting.first && serial_reached(wire->max_cmd_sn, wire->cmd_sn);
}

/** What a command may send by now; the command moves on when that is all of it. */
static bool batch_command(struct wire *wire, struct initiator_command *command)
{
    while (command->moved < command->allowed && batch_takes(wire, command)) {
        command->batch = wire->batch;
        emit_data(wire, command);
    }
    return command->moved == command->allowed;
}

static void batch_fill(struct wire *wire)
{
    struct initiator_command *command;

    wire->elements = wire->element = wire->headers = 0;
    wire->batched = 0;
    wire->batch++;
    batch_controls(wire);
    while ((command = wire->sending.first)) {
        if (!batch_command(wire, command))
            return; /* full */
        (void)wire_list_take(&wire->sending);
        command->queued = false;
    }
    while (may_start(wire) && batch_takes(wire, wire->starting.first)) {
        command = wire_list_take(&wire->starting);
        command->queued = false;
        command->batch = wire->batch;
        emit_command(wire, command);
        if (!batch_command(wire, command)) {
            command->queued = true;
            wire_list_add(&wire->sending, command);
            return;
        }
    }
}

/** All of the batch has left: what was answered meanwhile is done now. */
static void batch_sent(struct wire *wire)
{
    struct initiator_command *command;

    wire->elements = wire->element = 0;
    while ((command = wire_list_take(&wire->deferred))) {
        wire_command_off(wire, command);
        wire_list_add(&wire->finished, command);
    }
}

static void batch_advance(struct wire *wire, size_t sent)
{
    while (sent) {
        struct iovec *iov = &wire->element_room[wire->element];
        size_t n = min_u64(sent, iov->iov_len);
        sent -= n;
        iov->iov_base = (uint8_t *)iov->iov_base + n;
        iov->iov_len -= n;
        if (iov->iov_len == 0)
            wire->element++;
    }
    if (wire->element == wire->elements)
        batch_sent(wire);
}

bool wire_wants_send(const struct wire *wire)
{
    return wire->element < wire->elements || wire->control_count > 0 ||
            wire->sending.first || may_start(wire);
}

static void batch_push(struct wire *wire)
{
    struct msghdr message = { .msg_iov = wire->element_room + wire->element,
        .msg_iovlen = min_u64(wire->elements - wire->element, ELEMENTS_MAX) };
    ssize_t n = sendmsg(wire->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n >= 0)
        batch_advance(wire, (size_t)n);
    else if (errno == EAGAIN)
        wire->blocked = true;
    else if (errno != EINTR)
        wire->lost = true;
}

void wire_send(struct wire *wire)
{
    wire->blocked = false;
    while (!wire->lost && !wire->blocked && wire_wants_send(wire)) {
        if (wire->element == wire->elements)
            batch_fill(wire);
        batch_push(wire);
    }
}

uint8_t *wire_control(struct wire *wire, unsigned opcode, unsigned flags)
{
    uint8_t *header;

    if (wire->control_count == WIRE_CONTROLS) { /* it floods us, and does not read */
        wire->lost = true;
        return NULL;
    }
    header = wire->controls[wire->control_count++];
    memset(header, 0, TERMS_HEADER);
    header[0] = (uint8_t)(opcode | IMMEDIATE);
    header[1] = (uint8_t)(flags | FINAL);
    return header;
}

void wire_queue_reset(struct wire *wire)
{
    uint8_t *header = wire_control(wire, TASK_MANAGEMENT, 5); /* LOGICAL UNIT RESET */

    if (!header)
        return;
    header_lun(wire, header);
    put_be32(header + 16, CONTROL_RESET);
    put_be32(header + 20, NO_TAG);
}

void wire_queue_logout(struct wire *wire)
{
    uint8_t *header = wire_control(wire, LOGOUT, 0); /* close the session */

    if (header)
        put_be32(header + 16, CONTROL_LOGOUT);
}

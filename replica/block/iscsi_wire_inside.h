/* replica/block/iscsi_wire_inside.h - what the parts of the wire share: iscsi_wire.c (its
 * commands), iscsi_wire_send.c (what leaves), iscsi_wire_receive.c (what comes). Private to
 * these; like the wire, any one thread at a time. */
#ifndef REPLICA_BLOCK_ISCSI_WIRE_INSIDE_H
#define REPLICA_BLOCK_ISCSI_WIRE_INSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/block/iscsi_wire.h"

/** The first byte of a header, RFC 7143 11.2.1. */
enum opcode {
    NOP_OUT = 0x00,
    SCSI_COMMAND = 0x01,
    TASK_MANAGEMENT = 0x02,
    DATA_OUT = 0x05,
    LOGOUT = 0x06,
    NOP_IN = 0x20,
    SCSI_RESPONSE = 0x21,
    TASK_MANAGED = 0x22,
    DATA_IN = 0x25,
    LOGGED_OUT = 0x26,
    READY_TO_TRANSFER = 0x31,
    ASYNC_MESSAGE = 0x32,
    OPCODE = 0x3f,
    IMMEDIATE = 0x40
};

/** The second byte, as far as we read or set it. */
enum { FINAL = 0x80, OVERFLOW = 0x04, UNDERFLOW = 0x02, STATUS = 0x01 };

enum { CONTROL_RESET = 1, CONTROL_LOGOUT = 2 }; /* tags of what is no command */

static const uint32_t NO_TAG = 0xffffffff;

/** Serial number arithmetic, RFC 1982. */
static inline bool serial_reached(uint32_t value, uint32_t mark)
{
    return (int32_t)(value - mark) >= 0;
}

/** Expected Data Transfer Length, RFC 7143 11.3.4. */
static inline uint32_t expected_length(const struct initiator_command *command)
{
    return command->expected > command->length ? command->expected : command->length;
}

/* -- iscsi_wire.c ------------------------------------------------------------------ */

void wire_list_add(struct wire_list *list, struct initiator_command *command);

/** The command that @tag stands for, sent and not yet answered; NULL when there is none. */
struct initiator_command *wire_command_of(struct wire *wire, uint32_t tag);

/** No longer outstanding: its tag is free. */
void wire_command_off(struct wire *wire, struct initiator_command *command);

/** Its buffers are the caller's again, at the latest when the batch has been sent. */
void wire_command_answered(struct wire *wire, struct initiator_command *command);

/* -- iscsi_wire_send.c ------------------------------------------------------------- */

/** Queues an immediate PDU without data and returns its header, to be filled in but for
    the numbers; NULL, and the session is lost, when too many wait. */
uint8_t *wire_control(struct wire *wire, unsigned opcode, unsigned flags);

#endif

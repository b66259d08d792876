/* tests/server/iscsi/gate_device.h - a disk in memory behind a unit, whose requests can be
 * held back. Reservations are kept by forgetting them. What cannot be had aborts. */
#ifndef TESTS_SERVER_ISCSI_GATE_DEVICE_H
#define TESTS_SERVER_ISCSI_GATE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/iscsi/scsi.h"

struct gate;

/** For a unit on @loop. @size: bytes; @max_transfer: bytes, 0: what memory takes. Owned by the
    caller, gate_destroy() when the unit is gone. */
struct gate *gate_create(struct loop *loop, uint64_t size, uint32_t max_transfer);
void gate_destroy(struct gate *gate);

/** Borrowed, as long as the gate. */
const struct scsi_backing *gate_backing(const struct gate *gate);
uint8_t *gate_bytes(struct gate *gate);

/** Any thread. What is asked from here on waits for gate_open(). */
void gate_shut(struct gate *gate);

/** Any thread. What waits goes on, the last one first. */
void gate_open(struct gate *gate);

/** Not the loop's thread. Blocks until that many requests wait; false: not in a minute. */
bool gate_wait_held(struct gate *gate, unsigned wanted);

#endif

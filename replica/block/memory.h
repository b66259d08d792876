/* replica/block/memory.h - the memory device, and the power that can be cut under it. */
#ifndef REPLICA_BLOCK_MEMORY_H
#define REPLICA_BLOCK_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/block/device.h"

/**
 * The store behind memory devices: it outlives them, as a disk outlives its sessions. Two
 * images: what a reader sees, and what is stable (flushed). One loop's thread.
 */
struct memory_disk;

/** @size bytes of zeros; owned by the caller, memory_disk_destroy(). */
struct memory_disk *memory_disk_create(uint64_t size, uint32_t block_size);
void memory_disk_destroy(struct memory_disk *disk);

/** The bytes a reader sees. Borrowed; for tests to fill and to compare. */
uint8_t *memory_disk_bytes(struct memory_disk *disk);

/** Declare what is there now stable (after filling the bytes by hand). */
void memory_disk_settle(struct memory_disk *disk);

/**
 * Cut the power: each unflushed write survives, is lost, or is torn at 512 bytes, as
 * @random(context) draws. Devices open on it answer -ENOTCONN from then on.
 */
void memory_disk_cut(
        struct memory_disk *disk, uint64_t (*random)(void *context), void *context);

/** Writes submitted since creation: to cut after the n-th. */
uint64_t memory_disk_writes(const struct memory_disk *disk);

/** With @caps (CAN_ZERO, CAN_DISCARD, CAN_EXTENTS, DISCARD_ZEROES, VOLATILE, THIN, READ_ONLY).
    Owned by the caller, block_close(). On the simulated loop answers come in random order. */
struct block_device *memory_disk_open(
        struct memory_disk *disk, struct loop *loop, unsigned caps);

#endif

/* tests/replica/block/fixture.h - every way to have a device of known bytes.
 *
 * One row a driver and a wrapper; the contract suite runs for each. To add a driver: a
 * struct fixture (in a file of its own where it needs much), and its row in fixtures.c.
 */
#ifndef TESTS_REPLICA_BLOCK_FIXTURE_H
#define TESTS_REPLICA_BLOCK_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/block/device.h"

/** What the bytes are in, apart from the devices opened on it. */
struct fixture_store {
    uint64_t size;
    uint32_t block_size;
    void *own; /* the fixture's */
};

struct fixture {
    const char *name;
    uint32_t block_size; /* of the devices it makes */
    bool simulated; /* its loop */

    /** Words why it cannot run here (no tool, no right), NULL when it can. May be NULL. */
    const char *(*missing)(void);

    /** A store of @store->size bytes, equal to @bytes; sets @store->own. False on failure. */
    bool (*make)(struct fixture_store *store, const uint8_t *bytes);

    /** A device on the store, owned by the caller. The loop is turned until it is open. */
    struct block_device *(*open)(
            struct fixture_store *store, struct loop *loop, bool writable);

    /** The store's bytes by a way that is not the device. No device is open for writing. */
    void (*peek)(
            struct fixture_store *store, uint64_t offset, void *to, uint64_t length);

    /** Removes the store; no device is open on it. */
    void (*destroy)(struct fixture_store *store);
};

/** The rows; ends with NULL. */
extern const struct fixture *const fixtures[];

/* Rows of other files. */
extern const struct fixture fixture_iscsi_512, fixture_iscsi_4096; /* fixture_iscsi.c */
extern const struct fixture fixture_iscsi_512_thick, fixture_iscsi_4096_thin;

#endif

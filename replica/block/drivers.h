/* replica/block/drivers.h - what each driver provides to block_open(). Private to this
 * room. */
#ifndef REPLICA_BLOCK_DRIVERS_H
#define REPLICA_BLOCK_DRIVERS_H

#include "replica/block/open.h"

/**
 * One open function a driver, named in its row. As block_open(): borrows @spec until
 * the opening is done, calls opening->done exactly once, on @loop, never from inside.
 */
#define DRIVER(name, open_function, doc)                                               \
    void open_function(struct loop *loop, const struct block_spec *spec,               \
            struct block_opening *opening);
#include "replica/block/drivers.tbl.h"
#undef DRIVER

/** End @opening with a fault, later, on its loop. Needs no memory. */
void block_opening_fail(struct block_opening *opening, int error, const char *format,
        ...) __attribute__((format(printf, 3, 4)));

#endif

/* replica/copy/map.h - what a device proves to be zero, asked in stretches ahead of a
 * cursor.
 *
 * Only hints: a device that cannot tell, or fails to, is all data. Everything on its
 * loop.
 */
#ifndef REPLICA_COPY_MAP_H
#define REPLICA_COPY_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/block/device.h"

enum {
    MAP_EXTENTS = 1024,
    MAP_SCANT = 1
            << 20, /* bytes: an answer about less, though more was asked, and with few */
    MAP_FEW = 64, /* extents, takes as long as reading that would */
    MAP_PATIENCE = 16, /* of them in a row: after each of the next ones */
    MAP_BLIND = 64 << 20, /* bytes are taken for data unasked */
    MAP_HOLE_MIN = 64 << 10 /* bytes: a smaller hole is cheaper read than gone round */
};

struct map {
    struct block_device *device;
    bool on; /* the device can tell */
    bool asking; /* a request is in flight */
    uint64_t until; /* bytes: the extents answer for all from the cursor up to here */
    uint64_t unit; /* bytes: zero runs are given in whole ones */
    unsigned at, count;
    unsigned scant; /* answers in a row that told too little */
    struct block_extent extents[MAP_EXTENTS];
    struct block_request request;
    /** An answer came: @result 0, or why none did (then the map is off). */
    void (*answered)(struct map *, int result);
};

/** @device is borrowed while the map lives; @on false: all is data. */
void map_init(struct map *map, struct block_device *device, bool on, uint64_t unit,
        void (*answered)(struct map *, int result));

/** True when the map can answer at @cursor, which only grows. Else it asks the device
   about a stretch up to @end, and @answered follows. */
bool map_ready(struct map *map, uint64_t cursor, uint64_t end);

/** Bytes from @cursor that are proven zero, whole units (but for what reaches @end). */
uint64_t map_zero_run(struct map *map, uint64_t cursor, uint64_t end);

/** Bytes from @cursor up to the next hole worth going round, 1..@most. */
uint64_t map_data_run(struct map *map, uint64_t cursor, uint64_t most);

#endif

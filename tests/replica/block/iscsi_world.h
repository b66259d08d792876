/* tests/replica/block/iscsi_world.h - a tgtd with one LUN over a file, and a loop for the
 * driver that opens it.
 */
#ifndef TESTS_REPLICA_BLOCK_ISCSI_WORLD_H
#define TESTS_REPLICA_BLOCK_ISCSI_WORLD_H

#include <fcntl.h>
#include <unistd.h>

#include "tests/replica/block/iscsi_rig.h"

enum { SIZE = 8 * RIG_MIB };

struct world {
    struct tgt *tgt;
    struct loop *loop;
    char path[128];
    int fd;
};

/** @like: the LUN's other properties, or NULL. The test ends when it cannot be had. */
static inline struct world world_make(const struct tgt_lun *like)
{
    struct world world = { .tgt = tgt_start(), .loop = rig_loop() };
    struct tgt_lun lun = like ? *like : (struct tgt_lun){ 0 };

    tgt_make_file(world.tgt, "disk", SIZE, world.path);
    world.fd = open(world.path, O_RDWR | O_CLOEXEC);
    lun.path = world.path;
    tgt_add_target(world.tgt, 1, RIG_TARGET);
    tgt_add_lun(world.tgt, 1, 1, &lun);
    return world;
}

static inline void world_end(struct world *world)
{
    loop_destroy(world->loop);
    close(world->fd);
    tgt_stop(world->tgt);
}

#endif

/* tests/replica/block/hostile_scene.h - the iscsi driver opposite a target that misbehaves by
 * plan (tests/support/hostile_target.py). */
#ifndef TESTS_REPLICA_BLOCK_HOSTILE_SCENE_H
#define TESTS_REPLICA_BLOCK_HOSTILE_SCENE_H

#include <stdlib.h>

#include "tests/replica/block/iscsi_rig.h"

enum {
    SIZE = 4096 * 512,
    LENGTH = 64 * RIG_KIB,
    SHORT_MS = 2500, /* an I/O deadline that what is answered meets on any machine */
};

struct scene {
    struct hostile target;
    struct loop *loop;
    struct block_spec spec;
    struct block_device *device;
    uint8_t *bytes;
};

static inline void scene_start(struct scene *scene, const char *const arguments[])
{
    *scene = (struct scene){ .loop = rig_loop(), .bytes = malloc(SIZE) };
    hostile_start(&scene->target, arguments);
    scene->spec = rig_spec(scene->target.port, 0);
}

static inline void scene_open(struct scene *scene)
{
    scene->device = rig_open_in_time(scene->loop, &scene->spec);
}

static inline void scene_end(struct scene *scene)
{
    if (scene->device)
        cr_assert(device_close(&scene->device));
    loop_destroy(scene->loop);
    hostile_stop(&scene->target);
    free(scene->bytes);
}

#define RULES(...) ((const char *const[]){ __VA_ARGS__, NULL })

#endif

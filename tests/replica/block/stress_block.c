/* For ThreadSanitizer: two loops on threads of their own, each with file devices that read,
 * write, flush and look for holes in the pool, and hand pieces of work to one another. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/block/open.h"
#include "replica/block/pool.h"
#include "replica/block/wrappers.h"
#include "tests/support/device.h"
#include "tests/support/directory.h"
#include "tests/support/seed.h"

enum { LOOPS = 2, SIZE = 1 << 20, UNIT = 8192, FLIGHT = 16, ROUNDS = 3000 };

struct player {
    struct block_request request;
    struct iovec iov;
    struct block_extent extents[8];
    struct stage *stage;
    unsigned place;
    uint8_t stamp; /* the byte of the last write of this place */
    uint8_t bytes[UNIT];
};

struct stage {
    struct loop *loop;
    struct block_opening opening;
    struct block_spec spec;
    struct block_device *device;
    struct loop_task start, nudge;
    struct player players[FLIGHT];
    unsigned started, over;
    uint64_t seed;
    pthread_t thread;
};

static struct directory directory;
static struct stage stages[LOOPS];

static void play(struct player *player);

static void stage_closed(void *context)
{
    loop_stop(((struct stage *)context)->loop);
}

static void nudged(struct loop_task *task)
{
    check(loop_is_mine(container_of(task, struct stage, nudge)->loop));
}

static void played(struct block_request *request, int result)
{
    struct player *player = container_of(request, struct player, request);
    struct stage *stage = player->stage;

    check(result == 0);
    if (request->op == BLOCK_READ)
        check(player->bytes[0] == player->stamp &&
                player->bytes[UNIT - 1] == player->stamp);
    if (request->op == BLOCK_ZERO)
        player->stamp = 0;
    if (stage->started < ROUNDS) {
        play(player);
    } else if (++stage->over == FLIGHT) {
        block_close(stage->device, stage_closed, stage);
    }
}

static void play(struct player *player)
{
    static const enum block_op ops[] = { BLOCK_READ, BLOCK_WRITE, BLOCK_READ,
        BLOCK_FLUSH, BLOCK_EXTENTS, BLOCK_WRITE, BLOCK_ZERO };
    struct stage *stage = player->stage;
    enum block_op op = ops[seed_below(&stage->seed, 7)];

    if (op == BLOCK_ZERO && !(stage->device->caps & BLOCK_CAN_ZERO))
        op = BLOCK_FLUSH;
    if (op == BLOCK_WRITE)
        memset(player->bytes, ++player->stamp, UNIT);
    player->iov = (struct iovec){ player->bytes, UNIT };
    player->request = (struct block_request){ .op = op,
        .flags = stage->started % 50 == 0 ? BLOCK_FUA : 0,
        .offset = op == BLOCK_FLUSH ? 0 : (uint64_t)player->place * UNIT,
        .length = op == BLOCK_FLUSH ? 0 : UNIT,
        .iov = &player->iov,
        .iovcnt = 1,
        .extents = player->extents,
        .extents_max = 8,
        .done = played };
    stage->started++;
    block_submit(stage->device, &player->request);
}

static void stage_opened(struct block_opening *opening, struct block_device *device,
        const struct block_identity *identity, const struct fault *fault)
{
    struct stage *stage = container_of(opening, struct stage, opening);

    (void)identity, (void)fault;
    check(device);
    stage->device = block_slice(&device, UNIT, SIZE - UNIT);
    check(stage->device);
    for (unsigned i = 0; i < FLIGHT; i++) {
        stage->players[i].stage = stage;
        stage->players[i].place = i;
        play(&stage->players[i]);
    }
}

static void stage_start(struct loop_task *task)
{
    struct stage *stage = container_of(task, struct stage, start);
    block_open(stage->loop, &stage->spec, &stage->opening);
}

static void *stage_run(void *own)
{
    loop_run(((struct stage *)own)->loop);
    return NULL;
}

static void stage_set(struct stage *stage, unsigned number)
{
    stage->loop = loop_uv_create();
    check(stage->loop);
    stage->seed = number + 1;
    stage->spec = (struct block_spec){ .driver = BLOCK_DRIVER_file,
        .writable = true,
        .block_size = 512,
        .directory = directory.fd };
    snprintf(stage->spec.name, sizeof stage->spec.name, "disk-%u", number);
    check(pool_create(directory.fd, stage->spec.name, SIZE, false, NULL) == 0);
    stage->opening.done = stage_opened;
    stage->nudge.run = nudged;
    stage->start.run = stage_start;
    loop_post(stage->loop, &stage->start);
    check(pthread_create(&stage->thread, NULL, stage_run, stage) == 0);
    loop_post(stage->loop, &stage->nudge);
}

int main(void)
{
    check(directory_make(&directory));
    for (unsigned i = 0; i < LOOPS; i++)
        stage_set(&stages[i], i);
    for (unsigned i = 0; i < LOOPS; i++) {
        check(pthread_join(stages[i].thread, NULL) == 0);
        loop_destroy(stages[i].loop);
        printf("loop %u: %u requests\n", i, stages[i].started);
    }
    directory_remove(&directory);
    return 0;
}

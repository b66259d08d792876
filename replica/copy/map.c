#include "replica/copy/map.h"

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"

/* One question covers so much: the answer is old by the time its end is reached. */
static const uint64_t STRETCH = (uint64_t)1 << 30;

void map_init(struct map *map, struct block_device *device, bool on, uint64_t unit,
        void (*answered)(struct map *, int result))
{
    map->device = device;
    map->on = on && (device->caps & BLOCK_CAN_EXTENTS);
    map->asking = false;
    map->until = 0;
    map->unit = unit;
    map->at = map->count = map->scant = 0;
    map->answered = answered;
}

/* What the driver says must be in order and without gaps; else holes would move. */
static uint64_t vet(const struct block_request *request)
{
    uint64_t at = request->offset;

    check(request->extents_count >= 1 && request->extents_count <= MAP_EXTENTS);
    for (unsigned i = 0; i < request->extents_count; i++) {
        check(request->extents[i].offset == at && request->extents[i].length > 0);
        at += request->extents[i].length;
    }
    check(at <= request->offset + request->length);
    return at;
}

/* Some far sides tell one run at a time, however short: nothing may begin before the next
   answer, and what begins is as short as that run. */
static bool is_scant(const struct map *map)
{
    uint64_t told = map->until - map->request.offset;

    return told < MAP_SCANT && told < map->request.length && map->count < MAP_FEW;
}

static void go_blind(struct map *map)
{
    uint64_t end = map->request.offset + map->request.length;
    uint64_t length = min_u64(MAP_BLIND, end - map->until);

    map->extents[map->count++] = (struct block_extent){
        .offset = map->until, .length = length, .kind = BLOCK_EXTENT_DATA
    };
    map->until += length;
}

static void answer(struct block_request *request, int result)
{
    struct map *map = container_of(request, struct map, request);

    map->asking = false;
    if (result == 0) {
        map->until = vet(request);
        map->at = 0;
        map->count = request->extents_count;
        map->scant = is_scant(map) ? map->scant + 1 : 0;
        if (map->scant >= MAP_PATIENCE)
            go_blind(map);
    } else {
        map->on = false;
    }
    map->answered(map, result);
}

bool map_ready(struct map *map, uint64_t cursor, uint64_t end)
{
    if (!map->on)
        return true;
    if (map->asking)
        return false;
    if (cursor < map->until)
        return true;
    map->asking = true;
    map->request = (struct block_request){ .op = BLOCK_EXTENTS,
        .offset = cursor,
        .length = min_u64(STRETCH, end - cursor),
        .extents = map->extents,
        .extents_max = MAP_EXTENTS,
        .done = answer };
    block_submit(map->device, &map->request);
    return false;
}

/* The extent that holds @cursor, from the place of the last look; the cursor only
 * grows. */
static unsigned seek(struct map *map, uint64_t cursor)
{
    while (map->at < map->count &&
            map->extents[map->at].offset + map->extents[map->at].length <= cursor)
        map->at++;
    return map->at;
}

/* Zeros from @cursor, which lies in extent @at or before it. */
static uint64_t zeros_from(const struct map *map, unsigned at, uint64_t cursor)
{
    uint64_t end = cursor;

    for (; at < map->count && map->extents[at].kind == BLOCK_EXTENT_ZERO; at++)
        end = map->extents[at].offset + map->extents[at].length;
    return end - cursor;
}

uint64_t map_zero_run(struct map *map, uint64_t cursor, uint64_t end)
{
    uint64_t run;

    if (!map->on || cursor >= map->until)
        return 0;
    run = zeros_from(map, seek(map, cursor), cursor);
    if (run >= end - cursor)
        return end - cursor;
    return run - run % map->unit;
}

uint64_t map_data_run(struct map *map, uint64_t cursor, uint64_t most)
{
    uint64_t at = cursor;

    if (!map->on || cursor >= map->until)
        return most;
    for (unsigned i = seek(map, cursor); i < map->count && at - cursor < most; i++) {
        if (at > cursor && zeros_from(map, i, at) >= MAP_HOLE_MIN + map->unit)
            break;
        at = map->extents[i].offset + map->extents[i].length;
    }
    /* Ends are whole blocks of the device, the run must end on whole units. */
    return min_u64(round_up(at - cursor, map->unit), most);
}

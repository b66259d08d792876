/* What every device promises (device.h), asked of every row of fixtures.c. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/checked.h"
#include "replica/block/device.h"
#include "replica/loop/sim.h"
#include "tests/replica/block/fixture.h"
#include "tests/support/device.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum {
    SIZE = 1048576 + 12288, /* no multiple of any chunk, whole blocks of 4096 */
    HOLE = 262144, /* bytes of zeros in the middle of the noise */
    HOLE_SIZE = 131072,
};

/* One case's world: a store, its device, and the bytes that ought to be in it. */
struct scene {
    const struct fixture *fixture;
    struct fixture_store store;
    struct loop *loop;
    struct block_device *device;
    uint8_t *model;
    uint64_t seed;
};

static int fixture_count(void)
{
    int count = 0;

    while (fixtures[count])
        count++;
    return count;
}

static struct criterion_test_params fixture_params(void)
{
    static int indices[64];
    int count = fixture_count();

    for (int i = 0; i < count; i++)
        indices[i] = i;
    return cr_make_param_array(int, indices, (size_t)count);
}

static void scene_open(struct scene *scene, bool writable)
{
    scene->device = scene->fixture->open(&scene->store, scene->loop, writable);
    expect(scene->device);
}

static void scene_set(struct scene *scene, int index, bool writable)
{
    const struct fixture *fixture = fixtures[index];
    const char *missing = fixture->missing ? fixture->missing() : NULL;
    const char *wanted = getenv("REPLICAD_FIXTURE"); /* a part of the row's name */

    if (wanted && !strstr(fixture->name, wanted))
        cr_skip_test("%s: not asked for", fixture->name);
    if (missing)
        cr_skip_test("%s: %s", fixture->name, missing);
    *scene = (struct scene){ .fixture = fixture };
    scene->seed = seed_take(fixture->name);
    scene->store.size = SIZE + (fixture->block_size == 1 ? 777 : 0);
    scene->store.block_size = fixture->block_size;
    scene->model = malloc(scene->store.size);
    seed_fill(&scene->seed, scene->model, scene->store.size);
    memset(scene->model + HOLE, 0, HOLE_SIZE);
    expect(fixture->make(&scene->store, scene->model));
    scene->loop = fixture->simulated ? loop_sim_create(scene->seed) : loop_uv_create();
    expect(scene->loop);
    scene_open(scene, writable);
}

/* Closes, and compares every byte by another way than the device. */
static void scene_strike(struct scene *scene)
{
    uint8_t *bytes = malloc(scene->store.size);

    expect(device_close(&scene->device));
    scene->fixture->peek(&scene->store, 0, bytes, scene->store.size);
    for (uint64_t i = 0; i < scene->store.size; i++)
        cr_assert(bytes[i] == scene->model[i], "%s: byte %llu is %02x, not %02x",
                scene->fixture->name, (unsigned long long)i, bytes[i], scene->model[i]);
    scene->fixture->destroy(&scene->store);
    loop_destroy(scene->loop);
    free(bytes);
    free(scene->model);
}

#define CASE(name, writable)                                                           \
    static void name(struct scene *s);                                                 \
    ParameterizedTestParameters(contract, name)                                        \
    {                                                                                  \
        return fixture_params();                                                       \
    }                                                                                  \
    ParameterizedTest(int *index, contract, name)                                      \
    {                                                                                  \
        struct scene scene;                                                            \
        scene_set(&scene, *index, writable);                                           \
        name(&scene);                                                                  \
        scene_strike(&scene);                                                          \
    }                                                                                  \
    static void name(struct scene *s)

static bool can(const struct scene *s, unsigned caps)
{
    return (s->device->caps & caps) == caps;
}

/* -- what it says of itself ----------------------------------------------------------- */

CASE(geometry_is_what_was_asked_and_makes_sense, true)
{
    const struct block_device *d = s->device;

    expect_eq(d->size, s->store.size);
    expect_eq(d->block_size, s->store.block_size);
    expect(d->max_transfer >= d->block_size && d->max_transfer % d->block_size == 0);
    expect(d->max_zero % d->block_size == 0);
    expect(d->depth >= 1);
    expect(!can(s, BLOCK_DISCARD_ZEROES) || can(s, BLOCK_CAN_DISCARD));
    expect(!can(s, BLOCK_CAN_ZERO) || !can(s, BLOCK_MAY_ZERO));
    expect(!can(s, BLOCK_READ_ONLY));
    expect(!d->broken);
    expect_eq(d->in_flight, 0);
    expect_str(block_last_words(d), "");
    expect(d->loop == s->loop);
}

/* -- reads ---------------------------------------------------------------------------- */

static void expect_range(struct scene *s, uint64_t offset, uint64_t length)
{
    uint8_t *bytes = malloc(length + 2);

    memset(bytes, 0x5a, length + 2); /* one byte more on either side must stay */
    expect_eq(device_read(s->device, offset, bytes + 1, length), 0);
    cr_assert(memcmp(bytes + 1, s->model + offset, length) == 0, "%llu+%llu",
            (unsigned long long)offset, (unsigned long long)length);
    expect_eq(bytes[0], 0x5a);
    expect_eq(bytes[length + 1], 0x5a);
    free(bytes);
}

CASE(reads_give_what_is_there_at_every_edge, false)
{
    uint64_t unit = s->device->block_size, size = s->device->size;

    expect_range(s, 0, unit);
    expect_range(s, size - unit, unit);
    expect_range(s, size - 3 * unit, 3 * unit);
    expect_range(s, HOLE - unit, 2 * unit);
    expect_range(s, HOLE + HOLE_SIZE - unit, 2 * unit);
    expect_range(s, HOLE, HOLE_SIZE);
    for (uint64_t at = 0; at < size;) {
        uint64_t n = min_u64(s->device->max_transfer, size - at);
        expect_range(s, at, n);
        at += n;
    }
}

CASE(a_read_scatters_over_many_buffers, false)
{
    enum { PARTS = 150 }; /* more than one window of the file driver */
    uint64_t unit = s->device->block_size < 512 ? 100 : 512;
    uint8_t *bytes = malloc(PARTS * 512);
    struct iovec iov[PARTS];
    uint64_t length = 0, at = 4096, limit = s->device->max_transfer;
    int count = 0;

    while (count < PARTS && length + unit <= limit) {
        iov[count] = (struct iovec){ bytes + length, count % 7 == 3 ? 0 : unit };
        length += iov[count++].iov_len;
    }
    while (length % s->device->block_size)
        length -= iov[--count].iov_len;
    struct device_call call = { .request = { .op = BLOCK_READ,
                                        .offset = at,
                                        .length = length,
                                        .iov = iov,
                                        .iovcnt = count } };
    expect_eq(device_call_run(s->device, &call), 0);
    expect(memcmp(bytes, s->model + at, length) == 0);
    free(bytes);
}

/* -- writes --------------------------------------------------------------------------- */

static void put(struct scene *s, uint64_t offset, uint64_t length, unsigned flags)
{
    uint8_t *bytes = malloc(length);

    seed_fill(&s->seed, bytes, length);
    expect_eq(device_do(s->device, BLOCK_WRITE, offset, bytes, length, flags), 0);
    memcpy(s->model + offset, bytes, length);
    free(bytes);
}

CASE(writes_reach_the_store_and_nothing_beside_them, true)
{
    uint64_t unit = s->device->block_size, size = s->device->size;

    put(s, 0, unit, 0);
    put(s, size - unit, unit, 0);
    put(s, HOLE + unit, 3 * unit, 0);
    put(s, HOLE + HOLE_SIZE - unit, 2 * unit, BLOCK_FUA);
    put(s, 5 * unit, min_u64(s->device->max_transfer, HOLE), 0);
    expect_eq(device_flush(s->device), 0);
    expect_range(s, 0, min_u64(s->device->max_transfer, size));
}

CASE(a_write_gathers_from_many_buffers, true)
{
    enum { PARTS = 130 };
    uint64_t unit = s->device->block_size < 512 ? 33 : 512, length = 0;
    uint8_t *bytes = malloc(PARTS * 512);
    struct iovec iov[PARTS];
    int count = 0;

    seed_fill(&s->seed, bytes, PARTS * 512);
    while (count < PARTS && length + unit <= s->device->max_transfer) {
        iov[count] = (struct iovec){ bytes + length, unit };
        length += iov[count++].iov_len;
    }
    while (length % s->device->block_size)
        length -= iov[--count].iov_len;
    struct device_call call = { .request = { .op = BLOCK_WRITE,
                                        .offset = 8192,
                                        .length = length,
                                        .iov = iov,
                                        .iovcnt = count } };
    expect_eq(device_call_run(s->device, &call), 0);
    memcpy(s->model + 8192, bytes, length);
    free(bytes);
}

CASE(a_request_of_no_length_is_good, true)
{
    uint8_t nothing[1];

    expect_eq(device_read(s->device, 0, nothing, 0), 0);
    expect_eq(device_write(s->device, s->device->size, nothing, 0), 0);
    expect_eq(device_flush(s->device), 0);
    expect_eq(device_flush(s->device), 0);
}

/* -- many at once --------------------------------------------------------------------- */

enum { FLIGHT = 48, FLIGHT_UNIT = 8192 };

struct flight {
    struct device_call call;
    struct iovec iov;
    uint8_t bytes[FLIGHT_UNIT];
};

static void flight_start(
        struct scene *s, struct flight *flight, enum block_op op, uint64_t offset)
{
    flight->iov = (struct iovec){ flight->bytes, FLIGHT_UNIT };
    flight->call = (struct device_call){ .request = { .op = op,
                                                 .offset = offset,
                                                 .length = FLIGHT_UNIT,
                                                 .iov = &flight->iov,
                                                 .iovcnt = 1,
                                                 .done = device_call_done } };
    block_submit(s->device, &flight->call.request);
    expect(!flight->call.done);
}

static void flights_land(struct scene *s, struct flight *flights, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        expect(drive_until(s->loop, &flights[i].call.done));
        expect_eq(flights[i].call.result, 0);
    }
    expect_eq(s->device->in_flight, 0);
}

CASE(many_requests_fly_together_and_each_is_answered, true)
{
    struct flight *flights = calloc(2 * FLIGHT, sizeof *flights);

    for (unsigned i = 0; i < FLIGHT; i++) {
        seed_fill(&s->seed, flights[i].bytes, FLIGHT_UNIT);
        memcpy(s->model + (uint64_t)i * FLIGHT_UNIT, flights[i].bytes, FLIGHT_UNIT);
        flight_start(s, &flights[i], BLOCK_WRITE, (uint64_t)i * FLIGHT_UNIT);
    }
    for (unsigned i = FLIGHT; i < 2 * FLIGHT; i++) /* of what nobody writes */
        flight_start(s, &flights[i], BLOCK_READ, (uint64_t)i * FLIGHT_UNIT);
    expect_eq(s->device->in_flight, 2 * FLIGHT);
    flights_land(s, flights, 2 * FLIGHT);
    for (unsigned i = FLIGHT; i < 2 * FLIGHT; i++)
        expect(memcmp(flights[i].bytes, s->model + (uint64_t)i * FLIGHT_UNIT,
                       FLIGHT_UNIT) == 0);
    for (unsigned i = 0; i < FLIGHT; i++)
        flight_start(s, &flights[i], BLOCK_READ, (uint64_t)i * FLIGHT_UNIT);
    flights_land(s, flights, FLIGHT);
    for (unsigned i = 0; i < FLIGHT; i++)
        expect(memcmp(flights[i].bytes, s->model + (uint64_t)i * FLIGHT_UNIT,
                       FLIGHT_UNIT) == 0);
    free(flights);
}

CASE(flushes_may_fly_together_with_all_else, true)
{
    struct device_call flushes[8] = { 0 };
    struct flight *flights = calloc(8, sizeof *flights);

    for (unsigned i = 0; i < 8; i++) {
        seed_fill(&s->seed, flights[i].bytes, FLIGHT_UNIT);
        memcpy(s->model + (uint64_t)i * FLIGHT_UNIT, flights[i].bytes, FLIGHT_UNIT);
        flight_start(s, &flights[i], BLOCK_WRITE, (uint64_t)i * FLIGHT_UNIT);
        flushes[i].request =
                (struct block_request){ .op = BLOCK_FLUSH, .done = device_call_done };
        block_submit(s->device, &flushes[i].request);
    }
    for (unsigned i = 0; i < 8; i++) {
        expect(drive_until(s->loop, &flushes[i].done));
        expect_eq(flushes[i].result, 0);
    }
    flights_land(s, flights, 8);
    free(flights);
}

/* -- zeros and holes ------------------------------------------------------------------ */

static uint64_t zero_span(const struct scene *s)
{
    uint64_t limit = s->device->max_zero ? s->device->max_zero : UINT64_MAX;
    return min_u64(65536, limit);
}

/* What may be tried is done or refused, and either is true. */
static bool zero_fits(const struct scene *s, int result)
{
    if (can(s, BLOCK_MAY_ZERO))
        return result == 0 || result == -EOPNOTSUPP;
    return result == (can(s, BLOCK_CAN_ZERO) ? 0 : -EOPNOTSUPP);
}

CASE(zeroed_ranges_read_as_zeros_or_the_refusal_changes_nothing, true)
{
    uint64_t unit = s->device->block_size, span = zero_span(s);
    uint64_t places[] = { 0, 7 * unit, HOLE - unit, s->device->size - span };

    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        int result = device_do(
                s->device, BLOCK_ZERO, places[i], NULL, span, i == 1 ? BLOCK_FUA : 0);
        expect(zero_fits(s, result));
        if (result == 0)
            memset(s->model + places[i], 0, span);
        expect_range(s, places[i], span);
    }
    int result = device_do(s->device, BLOCK_ZERO, 3 * unit, NULL, unit, 0);
    expect(zero_fits(s, result));
    if (result == 0)
        memset(s->model + 3 * unit, 0, unit);
}

CASE(discard_gives_zeros_only_where_it_says_so, true)
{
    uint64_t span = zero_span(s), at = 131072;
    int result = device_do(s->device, BLOCK_DISCARD, at, NULL, span, 0);

    expect_eq(result, can(s, BLOCK_CAN_DISCARD) ? 0 : -EOPNOTSUPP);
    if (result == 0 && can(s, BLOCK_DISCARD_ZEROES))
        memset(s->model + at, 0, span);
    else if (result == 0) /* anything goes, so what is there is put right */
        put(s, at, span, 0);
    expect_range(s, at, span);
}

/* Walks [offset, offset+length) with room for @room extents a call. */
static uint64_t walk_extents(
        struct scene *s, uint64_t offset, uint64_t length, unsigned room)
{
    struct block_extent extents[16];
    uint64_t at = offset, end = offset + length, zeros = 0;

    while (at < end) {
        struct device_call call = { .request = { .op = BLOCK_EXTENTS,
                                            .offset = at,
                                            .length = end - at,
                                            .extents = extents,
                                            .extents_max = room } };
        expect_eq(device_call_run(s->device, &call), 0);
        expect(call.request.extents_count >= 1 && call.request.extents_count <= room);
        for (unsigned i = 0; i < call.request.extents_count; i++) {
            const struct block_extent *e = &extents[i];
            expect_eq(e->offset, at);
            expect(e->length > 0 && e->length <= end - at);
            expect_eq(e->length % s->device->block_size, 0);
            for (uint64_t k = 0; k < e->length && e->kind == BLOCK_EXTENT_ZERO; k++)
                cr_assert(s->model[at + k] == 0, "data at %llu is called zero",
                        (unsigned long long)(at + k));
            zeros += e->kind == BLOCK_EXTENT_ZERO ? e->length : 0;
            at += e->length;
        }
    }
    expect_eq(at, end);
    return zeros;
}

CASE(extents_cover_the_range_in_order_and_never_call_data_a_zero, true)
{
    uint64_t unit = s->device->block_size, size = s->device->size;

    if (!can(s, BLOCK_CAN_EXTENTS)) {
        struct block_extent extent;
        struct device_call call = { .request = { .op = BLOCK_EXTENTS,
                                            .length = unit,
                                            .extents = &extent,
                                            .extents_max = 1 } };
        expect_eq(device_call_run(s->device, &call), -EOPNOTSUPP);
        return;
    }
    for (unsigned room = 1; room <= 16; room += 5)
        walk_extents(s, 0, size, room);
    walk_extents(s, HOLE - 3 * unit, 5 * unit, 2);
    walk_extents(s, HOLE + 3 * unit, unit, 1);
    walk_extents(s, size - unit, unit, 4);
    for (unsigned i = 0; i < 20; i++) { /* one block of data in the hole, many times */
        put(s, HOLE + seed_below(&s->seed, HOLE_SIZE / unit) * unit, unit, 0);
        walk_extents(s, 0, size, 16);
    }
}

/* -- refusals ------------------------------------------------------------------------- */

CASE(a_read_only_device_refuses_changes_and_reads_on, false)
{
    uint64_t unit = s->device->block_size;
    uint8_t *bytes = calloc(1, unit);

    expect(can(s, BLOCK_READ_ONLY));
    expect_eq(device_write(s->device, 0, bytes, unit), -EROFS);
    expect_eq(device_do(s->device, BLOCK_ZERO, 0, NULL, unit, 0), -EROFS);
    expect_eq(device_do(s->device, BLOCK_DISCARD, 0, NULL, unit, 0), -EROFS);
    expect_range(s, 0, unit);
    expect_eq(device_flush(s->device), 0);
    expect(!s->device->broken);
    free(bytes);
}

/* -- over a reopening ----------------------------------------------------------------- */

CASE(what_was_written_is_there_after_closing_and_opening, true)
{
    for (unsigned i = 0; i < 3; i++) {
        put(s, 4096 * i, 8192, 0);
        expect_eq(device_flush(s->device), 0);
        expect(device_close(&s->device));
        scene_open(s, i != 1);
        expect_range(s, 0, 65536);
        expect(device_close(&s->device));
        scene_open(s, true);
    }
}

/* -- a life at random ----------------------------------------------------------------- */

enum { SLOTS = 8, ROUNDS = 1000 };

/* Each slot works in a stripe of its own, so that what is in flight never overlaps. */
struct player {
    struct device_call call;
    struct iovec iov[3];
    uint8_t *bytes;
    bool flying;
};

static void player_draw(struct scene *s, struct player *p, unsigned slot)
{
    static const enum block_op ops[] = { BLOCK_READ, BLOCK_READ, BLOCK_READ,
        BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_ZERO,
        BLOCK_DISCARD };
    uint64_t unit = s->device->block_size;
    uint64_t stripe = s->device->size / SLOTS / 4096 * 4096, limit = stripe / unit;
    uint64_t first = seed_below(&s->seed, limit);
    uint64_t blocks = 1 + seed_below(&s->seed, min_u64(limit - first, 65536 / unit));
    struct block_request *r = &p->call.request;

    *r = (struct block_request){ .op = ops[seed_below(&s->seed, 10)],
        .flags = seed_below(&s->seed, 20) == 0 ? BLOCK_FUA : 0,
        .offset = slot * stripe + first * unit,
        .length = blocks * unit,
        .done = device_call_done };
    if (r->op == BLOCK_FLUSH)
        r->offset = r->length = 0;
    if (s->device->max_zero && (r->op == BLOCK_ZERO || r->op == BLOCK_DISCARD))
        r->length = min_u64(r->length, s->device->max_zero);
    if (r->op == BLOCK_WRITE)
        seed_fill(&s->seed, p->bytes, r->length);
    uint64_t cut = r->length ? seed_below(&s->seed, r->length) : 0;
    p->iov[0] = (struct iovec){ p->bytes, cut };
    p->iov[1] = (struct iovec){ p->bytes + cut, r->length - cut };
    r->iov = p->iov;
    r->iovcnt = 2;
    p->call.done = false;
    p->flying = true;
    block_submit(s->device, r);
}

static void player_check(struct scene *s, struct player *p)
{
    const struct block_request *r = &p->call.request;
    unsigned needed = r->op == BLOCK_DISCARD ? BLOCK_CAN_DISCARD : 0;

    p->flying = false;
    if (r->op == BLOCK_ZERO)
        expect(zero_fits(s, p->call.result));
    else
        expect_eq(p->call.result, can(s, needed) ? 0 : -EOPNOTSUPP);
    if (r->op == BLOCK_READ)
        expect(memcmp(p->bytes, s->model + r->offset, r->length) == 0);
    if (r->op == BLOCK_WRITE)
        memcpy(s->model + r->offset, p->bytes, r->length);
    if (r->op == BLOCK_ZERO && p->call.result == 0)
        memset(s->model + r->offset, 0, r->length);
    if (r->op == BLOCK_DISCARD && p->call.result == 0 && can(s, BLOCK_DISCARD_ZEROES))
        memset(s->model + r->offset, 0, r->length);
    else if (r->op == BLOCK_DISCARD && p->call.result == 0)
        put(s, r->offset, r->length, 0);
}

CASE(a_thousand_random_requests_agree_with_a_model, true)
{
    struct player players[SLOTS] = { 0 };

    for (unsigned i = 0; i < SLOTS; i++)
        players[i].bytes = malloc(65536);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned slot = (unsigned)seed_below(&s->seed, SLOTS);
        struct player *p = &players[slot];
        if (p->flying) {
            expect(drive_until(s->loop, &p->call.done));
            player_check(s, p);
        }
        player_draw(s, p, slot);
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        if (players[i].flying) {
            expect(drive_until(s->loop, &players[i].call.done));
            player_check(s, &players[i]);
        }
        free(players[i].bytes);
    }
    expect_eq(device_flush(s->device), 0);
}

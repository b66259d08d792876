/* A big copy that runs does not starve a small one that comes later: real files on one loop,
 * told by what either has read when the other is through, not by time. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/copy/inside.h"
#include "replica/end.h"
#include "tests/replica/engine/bench.h"

enum { MIB = 1 << 20, BIG = 160 * MIB, SMALL = 16 * MIB, TAPS = 4 };

/* The way to one open end, and what went over it. The loop's. */
static struct tap {
    struct end *end; /* only to be told apart: it may have ended */
    char address[512];
    void (*done)(struct end *, struct block_device *, const struct fault *);
    struct block_ops ops;
    const struct block_ops *real;
    uint64_t read, written;
    uint64_t longest; /* of its reads */
} taps[TAPS];

static struct bench bench;
static struct engine_plan big, small;
/* What the big one had read when both ran, and when the small one was written. The loop's
   until the plans have ended. */
static uint64_t read_from, read_until;
static bool small_written;
static atomic_bool big_ended_first;

/* -- taps ------------------------------------------------------------------------------ */

static struct tap *tap_of(const char *file)
{
    for (unsigned i = 0; i < TAPS; i++)
        if (strstr(taps[i].address, file))
            return &taps[i];
    check(false);
    return NULL;
}

static void tap_submit(struct block_device *device, struct block_request *request)
{
    struct tap *tap = taps;

    while (&tap->ops != device->ops)
        tap++;
    if (request->op == BLOCK_READ) {
        tap->read += request->length;
        if (request->length > tap->longest)
            tap->longest = request->length;
    }
    if (request->op == BLOCK_WRITE)
        tap->written += request->length;
    if (request->op == BLOCK_FLUSH && tap == tap_of("small-to") &&
            tap->written == SMALL && !small_written) {
        small_written = true;
        read_until = tap_of("big-from")->read;
    }
    tap->real->submit(device, request);
}

static void tapped(
        struct end *end, struct block_device *device, const struct fault *fault)
{
    struct tap *tap = taps;

    while (tap->end != end)
        tap++;
    if (device) {
        tap->real = device->ops;
        tap->ops = *device->ops;
        tap->ops.submit = tap_submit;
        device->ops = &tap->ops;
    }
    end->done = tap->done;
    end->done(end, device, fault);
}

static void open_tapped(struct end *end, const struct engine_element *element,
        bool writable, bool barrier)
{
    struct tap *tap = taps;

    while (tap->end)
        check(++tap < taps + TAPS);
    *tap = (struct tap){ .end = end, .done = end->done };
    (void)snprintf(tap->address, sizeof tap->address, "%s", element->address);
    end->done = tapped;
    end_open(end, element, writable, barrier);
}

/* -- events ---------------------------------------------------------------------------- */

/* The big one hardly moves until the small one has opened its files, for opening takes as
   long as it takes; from then on nothing holds either back. */
static void hear(struct bench *b, const struct engine_event *event)
{
    bool is_big = uuid_equal(&event->id, &big.id);

    if (event->kind == ENGINE_STARTED && is_big) {
        check(engine_start(b->engine, &small) == 0);
    } else if (event->kind == ENGINE_STARTED) {
        read_from = tap_of("big-from")->read;
        check(engine_limit(b->engine, &big.id, 0) == 0);
    } else if (event->kind == ENGINE_ENDED && is_big) {
        big_ended_first = !small_written;
    } else if (event->kind == ENGINE_ENDED) {
        (void)engine_stop(b->engine, &big.id, ENGINE_DRAIN);
    }
}

static void tune(struct engine_options *options)
{
    options->loops = 1;
}

static void setup(void)
{
    bench_init(&bench, tune);
    bench.hook = hear;
    bench.engine->open = open_tapped;
}

static void teardown(void)
{
    bench_finish(&bench);
}

TestSuite(fairness, .init = setup, .fini = teardown);

/* Without a hole. */
static void fill(const char *name, uint64_t size)
{
    static uint8_t bytes[MIB];
    scoped_fd int fd =
            open(bench_path(&bench, name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    check(fd >= 0);
    for (uint64_t at = 0; at < size; at += sizeof bytes) {
        memset(bytes, (int)(at / sizeof bytes) + 1, sizeof bytes);
        check(write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes);
    }
}

/* What the big one has read while the small one was copied. */
static uint64_t read_between(void)
{
    struct bench_record first, second;

    fill("big-from", BIG);
    fill("small-from", SMALL);
    bench_file(&bench, "big-to", BIG, 0);
    bench_file(&bench, "small-to", SMALL, 0);
    big = bench_plan(ENGINE_COPY, "big-from", "big-to");
    small = bench_plan(ENGINE_COPY, "small-from", "small-to");
    big.limit = 4096;
    cr_assert(engine_start(bench.engine, &big) == 0);
    cr_assert(bench_wait(&bench, &big.id, bench_has_ended, &first));
    cr_assert(bench_wait(&bench, &small.id, bench_has_ended, &second));

    cr_assert(second.last.end == ENGINE_DONE, "%s", second.last.fault.why);
    cr_assert(bench_equal(&bench, "small-from", "small-to", SMALL));
    cr_assert(bench_equal(&bench, "big-from", "big-to", first.last.watermark));
    return big_ended_first || !small_written ? UINT64_MAX : read_until - read_from;
}

static void again(void)
{
    teardown();
    memset(taps, 0, sizeof taps);
    small_written = false;
    atomic_store(&big_ended_first, false);
    setup();
}

/* Half and half would be as much as the small one; and neither waits for the other. A disk
   that others keep busy may hold one file's writes back for a while, but not each time. */
Test(fairness, a_big_copy_does_not_starve_a_small_one)
{
    bool fair = false;

    for (int tries = 0; !fair && tries < 5; tries++) {
        uint64_t between = read_between();
        cr_log_info("%" PRIu64 " bytes of the big one", between);
        fair = between >= SMALL / 8 && between <= 4 * (uint64_t)SMALL;
        again();
    }
    cr_assert(fair);
}

/* The small one begins while the big one is under way, and all its pieces are short for
   that, unless the big one is through first. */
Test(fairness, copies_on_one_loop_know_of_one_another)
{
    bool knew = false;

    for (int tries = 0; !knew && tries < 5; tries++) {
        (void)read_between();
        knew = tap_of("small-from")->longest == COPY_SHORT;
        again();
    }
    cr_assert(knew);
}

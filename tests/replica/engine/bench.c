#include "tests/replica/engine/bench.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/clock.h"
#include "replica/base/scope.h"
#include "tests/support/directory.h"

/* -- events -------------------------------------------------------------------------- */

static struct bench_record *record_of(struct bench *bench, const struct uuid *id)
{
    for (unsigned i = 0; i < bench->count; i++)
        if (uuid_equal(&bench->records[i].id, id))
            return &bench->records[i];
    check(bench->count < BENCH_PLANS);
    bench->records[bench->count] = (struct bench_record){ .id = *id };
    return &bench->records[bench->count++];
}

static void note(struct bench_record *record, const struct engine_event *event)
{
    const struct engine_event *last = &record->last;
    bool first = record->started + record->waiting + record->held + record->ended == 0;

    record->late |= record->ended > 0;
    if (!first)
        record->fell |= event->done < last->done || event->watermark < last->watermark;
    record->fell |= event->done > event->total;
    record->last = *event;
    switch (event->kind) {
    case ENGINE_STARTED:
        record->started++;
        break;
    case ENGINE_PROGRESS:
        record->progress++;
        break;
    case ENGINE_WAITING:
        record->waiting++;
        break;
    case ENGINE_HELD:
        record->held++;
        break;
    case ENGINE_ENDED:
        record->ended++;
        break;
    }
}

static void on_event(void *context, const struct engine_event *event)
{
    struct bench *bench = context;

    if (bench->hook)
        bench->hook(bench, event);
    pthread_mutex_lock(&bench->lock);
    note(record_of(bench, &event->id), event);
    pthread_cond_broadcast(&bench->changed);
    pthread_mutex_unlock(&bench->lock);
}

bool bench_wait(struct bench *bench, const struct uuid *id,
        bool (*reached)(const struct bench_record *), struct bench_record *record)
{
    struct timespec deadline;
    int result = 0;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += BENCH_WAIT_MS / 1000;
    pthread_mutex_lock(&bench->lock);
    while (!reached(record_of(bench, id)) && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&bench->changed, &bench->lock, &deadline);
    *record = *record_of(bench, id);
    pthread_mutex_unlock(&bench->lock);
    return reached(record);
}

void bench_later(const struct bench *bench, const char *name)
{
    struct instant due = instant_add_ms(clock_monotonic(), 30000);
    struct stat file, scratch;

    check(stat(bench_path(bench, name), &file) == 0);
    do {
        scoped_fd int fd =
                open(bench_path(bench, "later"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        check(fd >= 0 && write(fd, "x", 1) == 1 && fstat(fd, &scratch) == 0);
        check(!instant_reached(clock_monotonic(), due));
    } while (scratch.st_ctim.tv_sec == file.st_ctim.tv_sec &&
            scratch.st_ctim.tv_nsec == file.st_ctim.tv_nsec);
    check(unlink(bench_path(bench, "later")) == 0);
}

bool bench_has_ended(const struct bench_record *record)
{
    return record->ended > 0;
}

bool bench_has_started(const struct bench_record *record)
{
    return record->started > 0;
}

bool bench_has_moved(const struct bench_record *record)
{
    return record->last.watermark > 0;
}

bool bench_is_waiting(const struct bench_record *record)
{
    return record->waiting > 0;
}

bool bench_is_held(const struct bench_record *record)
{
    return record->held > 0;
}

/* -- files --------------------------------------------------------------------------- */

const char *bench_path(const struct bench *bench, const char *name)
{
    static char paths[2][400];
    static unsigned turn;
    char *path = paths[turn++ % 2];

    snprintf(path, sizeof paths[0], "%s/pool/%s", bench->directory, name);
    return path;
}

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return (z ^ z >> 27) * 0x94d049bb133111ebu;
}

void bench_file(struct bench *bench, const char *name, uint64_t length, uint64_t seed)
{
    enum { CHUNK = 1 << 16 };
    static uint64_t chunk[CHUNK / 8];
    scoped_fd int fd = open(bench_path(bench, name), O_RDWR | O_CREAT | O_TRUNC, 0600);

    check(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
    for (uint64_t at = 0; seed && at < length; at += CHUNK) {
        if (next(&seed) % 4 == 0)
            continue;
        for (unsigned i = 0; i < CHUNK / 8; i++)
            chunk[i] = next(&seed);
        size_t n = min_u64(CHUNK, length - at);
        check(pwrite(fd, chunk, n, (off_t)at) == (ssize_t)n);
    }
}

bool bench_equal(
        const struct bench *bench, const char *a, const char *b, uint64_t length)
{
    char command[1000];

    snprintf(command, sizeof command, "cmp -n %" PRIu64 " %s %s", length,
            bench_path(bench, a), bench_path(bench, b));
    return system(command) == 0;
}

/* -- life ---------------------------------------------------------------------------- */

void bench_engine_start(
        struct bench *bench, void (*tune)(struct engine_options *options))
{
    char pool[100], keys[100];
    struct engine_pool pools[] = { { .name = "p", .path = pool } };
    struct fault fault = { 0 };
    struct engine_options options = { .loops = 2,
        .pools = pools,
        .pool_count = 1,
        .credentials = keys,
        .initiator = "iqn.2026-11.example.replicad:test",
        .connect_timeout_ms = 2000,
        .io_timeout_ms = 5000,
        .recovery_ms = 2000,
        .event = on_event,
        .context = bench };

    snprintf(pool, sizeof pool, "%s/pool", bench->directory);
    snprintf(keys, sizeof keys, "%s/keys", bench->directory);
    (void)mkdir(keys, 0700);
    if (tune)
        tune(&options);
    bench->engine = engine_create(&options, &fault);
    if (!bench->engine) {
        fprintf(stderr, "no engine: %s\n", fault.why);
        abort();
    }
}

void bench_engine_stop(struct bench *bench)
{
    engine_destroy(bench->engine);
    bench->engine = NULL;
}

void bench_init(struct bench *bench, void (*tune)(struct engine_options *options))
{
    pthread_condattr_t attributes;

    memset(bench, 0, sizeof *bench);
    pthread_mutex_init(&bench->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&bench->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    snprintf(bench->directory, sizeof bench->directory, "/tmp/replicad-engine-XXXXXX");
    check(mkdtemp(bench->directory));
    bench_engine_start(bench, tune);
}

void bench_finish(struct bench *bench)
{
    bench_engine_stop(bench);
    check(tree_remove(bench->directory) == 0);
    pthread_cond_destroy(&bench->changed);
    pthread_mutex_destroy(&bench->lock);
}

/* -- plans --------------------------------------------------------------------------- */

struct engine_element bench_element(const char *name, uint32_t block_size)
{
    struct engine_element element = { .block_size = block_size };

    snprintf(element.address, sizeof element.address, "pool:p/%s", name);
    return element;
}

struct engine_plan bench_plan(
        enum engine_work work, const char *source, const char *target)
{
    return (struct engine_plan){ .id = uuid_make(),
        .work = work,
        .source = bench_element(source, 1),
        .target = bench_element(target, 1) };
}

struct bench_record bench_run(struct bench *bench, const struct engine_plan *plan)
{
    struct bench_record record = { 0 };
    int result = engine_start(bench->engine, plan);

    if (result < 0) {
        fprintf(stderr, "engine_start: %s\n", strerror(-result));
        abort();
    }
    (void)bench_wait(bench, &plan->id, bench_has_ended, &record);
    return record;
}

struct engine_plan bench_resume(
        const struct engine_plan *plan, const struct bench_record *record)
{
    struct engine_plan again = *plan;

    again.id = uuid_make();
    again.resumed = true;
    again.watermark = record->last.watermark;
    again.verified = record->last.verified;
    again.skipped = record->last.skipped;
    again.equal = record->last.equal;
    again.read = record->last.read;
    again.written = record->last.written;
    return again;
}

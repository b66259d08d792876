/* tests/replica/engine/stress_engine.c - many threads start, stop, limit, probe and count at
 * once; every plan that was started ends once. Its own main(), for ThreadSanitizer. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/engine.h"
#include "tests/support/directory.h"
#include "tests/support/seed.h"

enum { THREADS = 4, ROUNDS = 300, FILES = 8, SIZE = 3 << 20 };

static struct engine *engine;
static _Atomic unsigned started, ended, events;
static uint64_t seed;

static void on_event(void *context, const struct engine_event *event)
{
    (void)context;
    atomic_fetch_add(&events, 1);
    if (event->kind == ENGINE_ENDED) {
        check(event->end != ENGINE_FAILED || event->fault.error == -EBUSY ||
                event->fault.error == -EILSEQ || event->fault.error == -EINVAL);
        atomic_fetch_add(&ended, 1);
    }
}

static void name_element(struct engine_element *element, unsigned number)
{
    *element = (struct engine_element){ .block_size = 512 };
    snprintf(element->address, sizeof element->address, "pool:p/f%u", number);
}

/* One plan with a thread's own mixture of wishes. */
static void round_run(uint64_t *state)
{
    struct engine_plan plan = { .id = uuid_make(),
        .work = (enum engine_work)seed_below(state, 4),
        .limit = seed_below(state, 2) ? 0 : 1 + seed_below(state, 20 << 20),
        .priority = (unsigned)seed_below(state, 4),
        .verify = seed_below(state, 2) };
    struct engine_found found;
    struct engine_figures figures;
    int result;

    name_element(&plan.source, (unsigned)seed_below(state, FILES));
    name_element(&plan.target, (unsigned)seed_below(state, FILES));
    check(engine_start(engine, &plan) == 0);
    atomic_fetch_add(&started, 1);
    for (uint64_t n = seed_below(state, 6); n; n--) {
        switch (seed_below(state, 4)) {
        case 0:
            (void)engine_limit(engine, &plan.id, seed_below(state, 40 << 20));
            break;
        case 1:
            (void)engine_probe(engine, &plan.source, false, &found, NULL);
            break;
        case 2:
            engine_figures(engine, &figures);
            (void)engine_stalled_ms(engine);
            break;
        default:
            (void)engine_stop(engine, &plan.id, ENGINE_DRAIN);
        }
    }
    if (seed_below(state, 8) == 0) /* left to run */
        return;
    result = engine_stop_wait(
            engine, &plan.id, seed_below(state, 2) ? ENGINE_DRAIN : ENGINE_DROP, 60000);
    check(result == 0 || result == -ESRCH);
}

static void *thread_main(void *argument)
{
    uint64_t state = seed + (uint64_t)(uintptr_t)argument;

    for (unsigned i = 0; i < ROUNDS; i++)
        round_run(&state);
    return NULL;
}

static void files_make(const char *directory)
{
    static char bytes[SIZE];
    char path[200];

    for (unsigned i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/f%u", directory, i);
        scoped_fd int fd = open(path, O_WRONLY | O_CREAT, 0600);
        memset(bytes, (int)('a' + i), SIZE / 2);
        check(fd >= 0 && write(fd, bytes, SIZE) == SIZE);
    }
}

int main(void)
{
    char directory[] = "/tmp/replicad-stress-XXXXXX";
    pthread_t threads[THREADS];
    struct fault fault = { 0 };

    seed = seed_take("stress_engine");
    check(mkdtemp(directory));
    files_make(directory);
    struct engine_pool pool = { .name = "p", .path = directory };
    struct engine_options options = { .loops = 3,
        .pools = &pool,
        .pool_count = 1,
        .connect_timeout_ms = 5000,
        .io_timeout_ms = 5000,
        .recovery_ms = 5000,
        .event = on_event };
    engine = engine_create(&options, &fault);
    check(engine);
    for (uintptr_t i = 0; i < THREADS; i++)
        check(pthread_create(&threads[i], NULL, thread_main, (void *)i) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        check(pthread_join(threads[i], NULL) == 0);
    engine_destroy(engine);
    printf("%u started, %u ended, %u events\n", started, ended, events);
    check(started == ended && started == THREADS * ROUNDS);
    return tree_remove(directory) == 0 ? 0 : 1;
}

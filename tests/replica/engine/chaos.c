/* tests/replica/engine/chaos.c - ten copies, stopped, dropped, limited and resumed at random,
 * the whole engine thrown away and made anew now and then; in the end every one is right. Its
 * own main(), for ThreadSanitizer. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/engine.h"
#include "tests/support/directory.h"
#include "tests/support/seed.h"

enum { JOBS = 10, LIVES = 8, ROUNDS = 25, SIZE = 6 << 20 };

struct job {
    struct engine_plan plan;
    bool running, over; /* under the lock */
    struct engine_event last;
    unsigned lives;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct job jobs[JOBS];
static char directory[] = "/tmp/replicad-chaos-XXXXXX";

static void on_event(void *context, const struct engine_event *event)
{
    (void)context;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < JOBS; i++) {
        struct job *job = &jobs[i];
        if (!uuid_equal(&job->plan.id, &event->id))
            continue;
        check(job->running && event->done >= job->last.done);
        check(event->watermark >= job->last.watermark && event->done <= event->total);
        check(event->skipped + event->written == event->watermark);
        job->last = *event;
        if (event->kind == ENGINE_ENDED) {
            check(event->end != ENGINE_FAILED);
            job->running = false;
            job->over = event->end == ENGINE_DONE;
        }
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static struct engine *engine_new(void)
{
    struct engine_pool pool = { .name = "p", .path = directory };
    struct engine_options options = { .loops = 2,
        .pools = &pool,
        .pool_count = 1,
        .connect_timeout_ms = 5000,
        .io_timeout_ms = 5000,
        .recovery_ms = 5000,
        .event = on_event };
    struct fault fault;
    struct engine *engine = engine_create(&options, &fault);

    check(engine);
    return engine;
}

static void job_start(struct engine *engine, struct job *job, uint64_t limit)
{
    pthread_mutex_lock(&lock);
    bool idle = !job->running && !job->over;
    if (idle) {
        job->plan.resumed = job->lives++ > 0;
        job->plan.watermark = job->last.watermark;
        job->plan.verified = job->last.verified;
        job->plan.skipped = job->last.skipped;
        job->plan.written = job->last.written;
        job->plan.limit = limit;
        job->running = true;
    }
    pthread_mutex_unlock(&lock);
    if (idle)
        check(engine_start(engine, &job->plan) == 0);
}

static void round_run(struct engine *engine, uint64_t *state)
{
    struct job *job = &jobs[seed_below(state, JOBS)];
    const struct uuid *id = &job->plan.id;
    enum engine_stop how = seed_below(state, 2) ? ENGINE_DRAIN : ENGINE_DROP;
    int result = 0;

    switch (seed_below(state, 5)) {
    case 0:
        result = engine_stop(engine, id, how);
        break;
    case 1:
        result = engine_stop_wait(engine, id, how, 60000);
        break;
    case 2:
        result = engine_limit(engine, id, seed_below(state, 30 << 20));
        break;
    default:
        job_start(engine, job, seed_below(state, 8 << 20));
    }
    check(result == 0 || result == -ESRCH);
}

static void jobs_finish(struct engine *engine)
{
    for (unsigned i = 0; i < JOBS; i++) {
        struct job *job = &jobs[i];
        pthread_mutex_lock(&lock);
        while (!job->over) {
            pthread_mutex_unlock(&lock);
            job_start(engine, job, 0);
            (void)engine_limit(engine, &job->plan.id, 0);
            pthread_mutex_lock(&lock);
            while (job->running)
                pthread_cond_wait(&changed, &lock);
        }
        pthread_mutex_unlock(&lock);
    }
}

static void file_make(uint64_t *state, const char *kind, unsigned number)
{
    static uint8_t bytes[SIZE];
    char path[100];

    snprintf(path, sizeof path, "%s/%s%u", directory, kind, number);
    scoped_fd int fd = open(path, O_WRONLY | O_CREAT, 0600);
    for (uint64_t at = 0; at < SIZE; at += 65536)
        memset(bytes + at, seed_below(state, 3) ? (int)seed_below(state, 256) : 0,
                65536);
    check(fd >= 0 && write(fd, bytes, SIZE) == SIZE);
}

static void job_init(uint64_t *state, unsigned number)
{
    struct engine_plan *plan = &jobs[number].plan;

    file_make(state, "s", number);
    file_make(state, "t", number);
    plan->id = uuid_make();
    plan->work = seed_below(state, 2) ? ENGINE_COPY : ENGINE_DELTA;
    plan->verify = seed_below(state, 2);
    plan->priority = number % 4;
    plan->source.block_size = plan->target.block_size = 512;
    snprintf(plan->source.address, sizeof plan->source.address, "pool:p/s%u", number);
    snprintf(plan->target.address, sizeof plan->target.address, "pool:p/t%u", number);
}

static int compare_all(void)
{
    char command[200];
    int differing = 0;

    for (unsigned i = 0; i < JOBS; i++) {
        snprintf(command, sizeof command, "cmp %s/s%u %s/t%u", directory, i, directory,
                i);
        differing += system(command) != 0;
    }
    return tree_remove(directory) != 0 || differing > 0;
}

int main(void)
{
    uint64_t state = seed_take("chaos");
    unsigned lives = 0;

    check(mkdtemp(directory));
    for (unsigned i = 0; i < JOBS; i++)
        job_init(&state, i);
    for (unsigned life = 0; life < LIVES; life++) {
        struct engine *engine = engine_new();
        for (unsigned i = 0; i < ROUNDS; i++)
            round_run(engine, &state);
        if (life == LIVES - 1)
            jobs_finish(engine);
        engine_destroy(engine);
    }
    for (unsigned i = 0; i < JOBS; i++) {
        check(jobs[i].over && !jobs[i].running && jobs[i].last.done == SIZE);
        lives += jobs[i].lives;
    }
    printf("%u copies in %u lives\n", JOBS, lives);
    return compare_all();
}

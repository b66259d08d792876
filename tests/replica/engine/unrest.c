/* tests/replica/engine/unrest.c - ten jobs over files and LUNs of a real tgtd, suspended,
 * resumed, limited and cancelled at random for REPLICAD_UNREST_S seconds (10). Every run that
 * begins ends once, every job that is done has an equal target, nothing hangs, and afterwards
 * there are as many descriptors, threads and bytes in memory as before. Its own main(), for
 * ThreadSanitizer. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/engine.h"
#include "tests/support/directory.h"
#include "tests/support/seed.h"
#include "tests/support/tgt.h"

enum {
    JOBS = 10,
    SIZE = 5 << 20,
    BEHIND = 65536, /* bytes of garbage after the end of a target */
    DEADLINE_S = 120,
    STEP_MS = 20,
    MEMORY_KIB = 24 << 10 /* what the allocator may keep of ten copies' buffers */
};

#define NAME "iqn.2026-11.example:unrest"

struct job {
    struct engine_plan plan;
    char source[200], target[200]; /* paths of the files behind */
    bool running; /* under the lock, as all below */
    bool fresh; /* the next run is of a new job */
    bool done; /* and not compared yet */
    struct engine_event last;
    unsigned begun, ended;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static struct job jobs[JOBS];
static char directory[] = "/tmp/replicad-unrest-XXXXXX";
static struct tgt *tgt;
static struct engine *engine;
static uint64_t state;
static struct uuid pipe_id;
static unsigned dones, suspended, resumed, cancelled, limited, compared;

/* -- events ------------------------------------------------------------------------------ */

static void note(struct job *job, const struct engine_event *event)
{
    check(job->running);
    check(event->done >= job->last.done && event->done <= event->total);
    check(event->watermark >= job->last.watermark);
    if (job->plan.work != ENGINE_VERIFY)
        check(event->skipped + event->written == event->watermark);
    job->last = *event;
    if (event->kind != ENGINE_ENDED)
        return;
    job->running = false;
    job->ended++;
    if (event->end == ENGINE_FAILED)
        fprintf(stderr, "%s: %s\n", job->target, event->fault.why);
    check(event->end != ENGINE_FAILED);
    check((event->end == ENGINE_DONE) == (event->done == event->total) ||
            event->end == ENGINE_STOPPED);
    job->done = event->end == ENGINE_DONE;
}

static void on_event(void *context, const struct engine_event *event)
{
    (void)context;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < JOBS; i++)
        if (uuid_equal(&jobs[i].plan.id, &event->id))
            note(&jobs[i], event);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Until no job runs. */
static void wait_quiet(void)
{
    struct timespec deadline;
    unsigned running = JOBS;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&lock);
    for (;;) {
        running = 0;
        for (unsigned i = 0; i < JOBS; i++)
            running += jobs[i].running;
        if (!running)
            break;
        check(pthread_cond_timedwait(&changed, &lock, &deadline) == 0); /* it hangs */
    }
    pthread_mutex_unlock(&lock);
}

/* A little time, or an event. */
static void wait_step(void)
{
    struct timespec deadline;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_nsec += (long)seed_below(&state, STEP_MS) * 1000000;
    deadline.tv_sec += deadline.tv_nsec / 1000000000;
    deadline.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lock);
    (void)pthread_cond_timedwait(&changed, &lock, &deadline);
    pthread_mutex_unlock(&lock);
}

/* -- files ------------------------------------------------------------------------------- */

static void write_at(const char *path, uint64_t at, const void *bytes, uint64_t length)
{
    scoped_fd int fd = open(path, O_WRONLY | O_CREAT, 0600);

    check(fd >= 0 && pwrite(fd, bytes, length, (off_t)at) == (ssize_t)length);
}

/* Some chunks stay holes. */
static void source_fill(const char *path)
{
    static uint8_t chunk[65536];
    scoped_fd int fd = open(path, O_WRONLY | O_CREAT, 0600);

    check(fd >= 0 && ftruncate(fd, SIZE) == 0);
    for (uint64_t at = 0; at < SIZE; at += sizeof chunk) {
        seed_fill(&state, chunk, sizeof chunk);
        if (seed_below(&state, 3))
            write_at(path, at, chunk, sizeof chunk);
    }
}

static void target_fill(const char *path)
{
    static uint8_t garbage[SIZE + BEHIND];

    memset(garbage, 0xa5, sizeof garbage);
    write_at(path, 0, garbage, sizeof garbage);
}

static void expect_equal(const struct job *job)
{
    static uint8_t a[SIZE], b[SIZE + BEHIND];
    scoped_fd int source = open(job->source, O_RDONLY);
    scoped_fd int target = open(job->target, O_RDONLY);

    check(pread(source, a, SIZE, 0) == SIZE);
    check(pread(target, b, sizeof b, 0) == sizeof b);
    check(memcmp(a, b, SIZE) == 0);
    for (unsigned i = SIZE; i < sizeof b; i++)
        check(b[i] == 0xa5);
}

/* Somebody else writes on the target, and says so. */
static void target_spoil(const struct job *job)
{
    uint8_t bytes[3000];

    check(engine_pair_forget(engine, &job->plan.pair) == 0);
    memset(bytes, 0x3c, sizeof bytes);
    for (unsigned i = 0; i < 4; i++)
        write_at(job->target, seed_below(&state, SIZE - sizeof bytes), bytes,
                sizeof bytes);
}

/* -- what may happen --------------------------------------------------------------------- */

/* A done job is compared, and its place taken by another job. */
static void job_renew(struct job *job)
{
    static const enum engine_work works[] = { ENGINE_COPY, ENGINE_DELTA, ENGINE_DELTA };

    dones += job->done;
    if (job->done) {
        expect_equal(job);
        compared++;
    }
    job->plan.id = uuid_make();
    job->plan.work = works[seed_below(&state, 3)];
    job->plan.verify = seed_below(&state, 4) == 0;
    job->last = (struct engine_event){ 0 };
    job->plan.resumed = job->begun > 0;
    job->done = job->fresh = false;
    if (seed_below(&state, 3) == 0)
        target_spoil(job);
}

/* Starts what does not run: a job that was suspended goes on, another takes the place of one
   that is over. */
static void job_start(struct job *job)
{
    bool running;

    pthread_mutex_lock(&lock);
    running = job->running;
    pthread_mutex_unlock(&lock);
    if (running)
        return;
    if (job->done || job->fresh || !job->begun)
        job_renew(job);
    else
        resumed++;
    job->plan.resumed = job->begun > 0;
    job->plan.watermark = job->last.watermark;
    job->plan.verified = job->last.verified;
    job->plan.skipped = job->last.skipped;
    job->plan.equal = job->last.equal;
    job->plan.written = job->last.written;
    job->plan.limit = seed_below(&state, 3) ? 0 : 1 + seed_below(&state, 20 << 20);
    job->plan.priority = (unsigned)seed_below(&state, 4);
    pthread_mutex_lock(&lock);
    job->running = true;
    job->begun++;
    pthread_mutex_unlock(&lock);
    check(engine_start(engine, &job->plan) == 0);
}

static void job_stop(struct job *job, bool cancel)
{
    enum engine_stop how = cancel ? ENGINE_DROP : ENGINE_DRAIN;
    int result;

    if (seed_below(&state, 2))
        result = engine_stop(engine, &job->plan.id, how);
    else
        result = engine_stop_wait(engine, &job->plan.id, how, DEADLINE_S * 1000);
    check(result == 0 || result == -ESRCH);
    pthread_mutex_lock(&lock);
    job->fresh |= cancel;
    pthread_mutex_unlock(&lock);
    *(cancel ? &cancelled : &suspended) += result == 0;
}

static void job_limit(struct job *job)
{
    uint64_t limit = seed_below(&state, 2) ? 0 : 1 + seed_below(&state, 30 << 20);
    int result = 0;

    switch (seed_below(&state, 4)) {
    case 0:
        engine_pipe_limit(engine, &pipe_id, limit);
        break;
    case 1:
        result =
                engine_priority(engine, &job->plan.id, (unsigned)seed_below(&state, 4));
        break;
    default:
        result = engine_limit(engine, &job->plan.id, limit);
    }
    check(result == 0 || result == -ESRCH);
    limited += result == 0;
}

static void round_run(void)
{
    struct job *job = &jobs[seed_below(&state, JOBS)];
    struct engine_found found;
    struct fault fault;

    switch (seed_below(&state, 8)) {
    case 0:
        job_stop(job, false);
        break;
    case 1:
        job_stop(job, seed_below(&state, 2));
        break;
    case 2:
        job_limit(job);
        break;
    case 3:
        if (seed_below(&state, 8) == 0)
            (void)engine_probe(engine, &job->plan.source, false, &found, &fault);
        break;
    default:
        job_start(job);
    }
    if (seed_below(&state, 2))
        wait_step();
}

/* All run to their ends, unlimited. */
static void jobs_finish(void)
{
    engine_pipe_limit(engine, &pipe_id, 0);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < JOBS; i++)
            (void)engine_limit(engine, &jobs[i].plan.id, 0);
        wait_quiet();
        for (unsigned i = 0; i < JOBS; i++) {
            job_start(&jobs[i]);
            (void)engine_limit(engine, &jobs[i].plan.id, 0);
        }
    }
    wait_quiet();
    for (unsigned i = 0; i < JOBS; i++) {
        check(jobs[i].begun == jobs[i].ended && jobs[i].done);
        expect_equal(&jobs[i]);
    }
}

/* -- what is held ------------------------------------------------------------------------ */

struct held {
    unsigned fds, threads;
    unsigned long memory_kib;
};

static unsigned entries(const char *path)
{
    DIR *listing = opendir(path);
    unsigned count = 0;

    check(listing);
    while (readdir(listing))
        count++;
    closedir(listing);
    return count;
}

/* A worker of the kernel's own for io_uring comes and goes as it likes. */
static bool is_kernel_worker(const char *thread)
{
    char path[300], name[32] = "";
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%s/comm", thread);
    file = fopen(path, "r");
    if (!file)
        return true; /* just gone */
    (void)!fgets(name, sizeof name, file);
    fclose(file);
    return strncmp(name, "iou-", 4) == 0;
}

static unsigned threads_now(void)
{
    DIR *listing = opendir("/proc/self/task");
    struct dirent *entry;
    unsigned count = 0;

    check(listing);
    while ((entry = readdir(listing)))
        count += entry->d_name[0] != '.' && !is_kernel_worker(entry->d_name);
    closedir(listing);
    return count;
}

static struct held held_now(void)
{
    struct held held = { .fds = entries("/proc/self/fd"), .threads = threads_now() };
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];

    check(status);
    while (fgets(line, sizeof line, status))
        if (sscanf(line, "VmRSS: %lu", &held.memory_kib) == 1)
            break;
    fclose(status);
    return held;
}

static void expect_held(const char *when, struct held before, struct held after)
{
    fprintf(stderr,
            "unrest: %s: %u descriptors (%u before), %u threads (%u), %lu KiB (%lu)\n",
            when, after.fds, before.fds, after.threads, before.threads,
            after.memory_kib, before.memory_kib);
    check(after.fds == before.fds);
    check(after.threads <= before.threads);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
    check(after.memory_kib <= before.memory_kib + MEMORY_KIB);
#endif
}

/* -- the whole --------------------------------------------------------------------------- */

static struct engine *engine_new(void)
{
    static char pool_path[100], state_path[100];
    static struct portal_rule loopback;
    struct engine_pool pool = { .name = "p", .path = pool_path };
    struct engine_options options = { .loops = 2,
        .pools = &pool,
        .pool_count = 1,
        .allow = &loopback,
        .allow_count = 1,
        .state_directory = state_path,
        .initiator = "iqn.2026-11.example.replicad:unrest",
        .connect_timeout_ms = 30000,
        .io_timeout_ms = 30000,
        .recovery_ms = 60000,
        .event = on_event };
    struct fault fault;
    struct engine *made;

    check(portal_rule_parse("127.0.0.0/8", &loopback, NULL) == 0);
    snprintf(pool_path, sizeof pool_path, "%s/pool", directory);
    snprintf(state_path, sizeof state_path, "%s/state", directory);
    (void)mkdir(pool_path, 0700);
    (void)mkdir(state_path, 0700);
    made = engine_create(&options, &fault);
    check(made);
    return made;
}

/* @lun 0: a file of the pool. */
static void end_init(struct engine_element *element, char path[200], char role,
        unsigned number, int lun)
{
    struct tgt_lun what = { .path = path, .thin = number % 2 };

    element->block_size = 512;
    if (!lun) {
        snprintf(path, 200, "%s/pool/%c%u", directory, role, number);
        snprintf(
                element->address, sizeof element->address, "pool:p/%c%u", role, number);
    } else {
        snprintf(path, 200, "%s/%c%u", tgt->directory, role, number);
        snprintf(element->address, sizeof element->address,
                "iscsi://127.0.0.1:%u/%s/%d", tgt->port, NAME, lun);
    }
    if (role == 's')
        source_fill(path);
    else
        target_fill(path);
    if (lun)
        tgt_add_lun(tgt, 1, lun, &what);
}

static void job_init(unsigned number)
{
    struct job *job = &jobs[number];
    bool from_lun = number >= 5 && number <= 7, to_lun = number >= 7;

    end_init(&job->plan.source, job->source, 's', number,
            from_lun ? 1 + (int)number : 0);
    end_init(
            &job->plan.target, job->target, 't', number, to_lun ? 20 + (int)number : 0);
    job->plan.pair = uuid_make();
    if (number % 3 == 0)
        job->plan.pipe = pipe_id;
}

static unsigned seconds(void)
{
    const char *given = getenv("REPLICAD_UNREST_S");

    return given && atoi(given) > 0 ? (unsigned)atoi(given) : 10;
}

static bool all_happened(void)
{
    return dones > 0 && suspended > 0 && resumed > 0 && cancelled > 0 && limited > 0;
}

/* So long, and on a slow machine until all of it was seen. */
static void unrest(void)
{
    struct timespec now, end;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds();
    do {
        round_run();
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec ||
            (!all_happened() && now.tv_sec < end.tv_sec + DEADLINE_S));
}

int main(void)
{
    pthread_condattr_t attributes;
    struct held before, warm;

    state = seed_take("unrest");
    check(mkdtemp(directory));
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attributes);
    tgt = tgt_start();
    tgt_add_target(tgt, 1, NAME);
    pipe_id = uuid_make();
    engine = engine_new();
    for (unsigned i = 0; i < JOBS; i++)
        job_init(i);
    engine_destroy(engine); /* what a process keeps of a first one is kept now */
    before = held_now();
    engine = engine_new();
    jobs_finish();
    warm = held_now();
    unrest();
    jobs_finish();
    expect_held("at rest", warm, held_now());
    engine_destroy(engine);
    warm = held_now();
    before.threads = warm.threads; /* the pool's threads stay */
    before.memory_kib = warm.memory_kib;
    expect_held("at the end", before, warm);
    printf("unrest: %u done and %u compared, %u suspended, %u resumed, %u cancelled, "
           "%u "
           "limited\n",
            dones, compared, suspended, resumed, cancelled, limited);
    check(all_happened());
    tgt_stop(tgt);
    return tree_remove(directory) == 0 ? 0 : 1;
}

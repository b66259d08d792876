/* tests/replica/engine/bench.h - an engine over a directory of real files, and its events.
 *
 * Events are kept per plan; waiting for one has a deadline, and never sleeps for a state.
 */
#ifndef TESTS_REPLICA_ENGINE_BENCH_H
#define TESTS_REPLICA_ENGINE_BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "replica/engine.h"

enum { BENCH_PLANS = 64, BENCH_WAIT_MS = 60000 };

struct bench_record {
    struct uuid id;
    unsigned started, progress, waiting, held, ended;
    bool fell; /* done or watermark went back, or passed the total */
    bool late; /* an event after ENDED */
    uint64_t skipped_counts_wrong;
    struct engine_event last;
};

struct bench {
    char directory[64]; /* holds pool/ and keys/ */
    struct engine *engine;
    /** Called in every event, on the loop, before it is noted; may be NULL. */
    void (*hook)(struct bench *, const struct engine_event *);
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct bench_record records[BENCH_PLANS];
    unsigned count;
};

/** A fresh directory with the pool "p"; @tune may change the options. */
void bench_init(struct bench *bench, void (*tune)(struct engine_options *options));
void bench_finish(struct bench *bench);
void bench_engine_stop(struct bench *bench);
void bench_engine_start(
        struct bench *bench, void (*tune)(struct engine_options *options));

/** A file of the pool: @length random bytes from @seed with holes in between; or, @seed 0,
    a hole. */
void bench_file(struct bench *bench, const char *name, uint64_t length, uint64_t seed);

/** Until a change of the file is told from its last one: the clock that stamps them ticks in
    milliseconds. */
void bench_later(const struct bench *bench, const char *name);

/** Path of a file of the pool. Static buffer, two in turn. */
const char *bench_path(const struct bench *bench, const char *name);

/** cmp(1) says equal over the first @length bytes. */
bool bench_equal(
        const struct bench *bench, const char *a, const char *b, uint64_t length);

struct engine_element bench_element(const char *name, uint32_t block_size);
struct engine_plan bench_plan(
        enum engine_work work, const char *source, const char *target);

/** Wait until @reached says so; false: not within BENCH_WAIT_MS. @record is a copy. */
bool bench_wait(struct bench *bench, const struct uuid *id,
        bool (*reached)(const struct bench_record *), struct bench_record *record);
bool bench_has_ended(const struct bench_record *record);
bool bench_has_started(const struct bench_record *record);
bool bench_has_moved(const struct bench_record *record);
bool bench_is_waiting(const struct bench_record *record);
bool bench_is_held(const struct bench_record *record);

/** Start and wait for the end. */
struct bench_record bench_run(struct bench *bench, const struct engine_plan *plan);

/** What a second run goes on from. */
struct engine_plan bench_resume(
        const struct engine_plan *plan, const struct bench_record *record);

#endif

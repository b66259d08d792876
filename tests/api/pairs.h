/* tests/api/pairs.h - what tests of pairs and their jobs share: bytes in pools, waits, rows
 * planted through the clerk, calls that race.
 *
 * What is waited for and does not come within a minute fails the test.
 */
#ifndef TESTS_API_PAIRS_H
#define TESTS_API_PAIRS_H

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/service.h"
#include "tests/api/rig.h"
#include "tests/support/seed.h"

enum {
    PAIRS_MIB = 1 << 20,
    /* Bytes a second. One piece goes at once, and with it the first progress; the next one
       would take a minute: what shall run on meanwhile does, on any machine. */
    PAIRS_CRAWL = 64,
    PAIRS_PATIENCE_MS = 60000,
    PAIRS_PATH = 700
};

/** The file of an element of the pool "default". */
void element_path(struct rig *rig, const char *id, char path[PAIRS_PATH]);

/** Writes noise over the whole of an element's file in the pool "default". */
void pair_noise(struct rig *rig, const char *id, size_t size, uint64_t seed);

/** Are the first @size bytes of two elements' files equal? */
bool pair_equal(struct rig *rig, const char *a, const char *b, size_t size);

/** The id at the end of a member that is a path. */
void answer_id(const struct answer *answer, const char *member, char id[37]);

struct store_job job_row(struct rig *rig, const char *id);

/** False: there is no such pair. */
bool replica_row(struct rig *rig, const char *id, struct store_replica *replica);

struct store_element element_row(struct rig *rig, const char *id);

/** A call has started a job: its id. The answer is released. */
void job_started(struct answer *answer, char job[37]);

/** Waits for the end of a job and returns its row. */
struct store_job job_finish(struct rig *rig, const char *id);

/** Waits until a job is in @state. */
struct store_job job_reach(struct rig *rig, const char *id, int64_t state);

/** Waits until a pair is in @state (0: gone). */
void pair_reach(struct rig *rig, const char *id, int64_t state);

/** A row as it is, past all rules. */
void plant(struct rig *rig, enum store_table table, const void *row);

/** A pair whose scan is due now: the scheduler is told. */
void plant_due(struct rig *rig, struct store_replica *replica);

void uproot(struct rig *rig, enum store_table table, const void *row);

struct uuid uuid_of(const char *text);

/** Waits for the end of a scan that has begun when its pair was synced @before. The row then. */
struct store_replica scan_finish(struct rig *rig, const char *id, int64_t before);

/** The row of a pair, every column with a value of its own. */
struct store_replica pair_made(
        const char *source, const char *target, int64_t type, int64_t state);

/** Attaches @target to @source; a @limit in bytes a second, 0 none. Returns its job's id. */
void pair_attach(struct rig *rig, const char *source, const char *target, int type,
        int limit, char job[37]);

/** Takes away the limit of a job that is not over. */
void job_unlimit(struct rig *rig, const char *job);

/** Results of a method with that value: how many rows? */
int64_t results_count(struct rig *rig, const char *method, int64_t value);

/** One of some calls that are made at the same moment. The first four are given. */
struct racer {
    enum api_call call;
    const char *id, *key;
    char body[300];
    enum api_verdict verdict;
    int value;
    bool replayed;
    char job[37]; /* @value 4096 */

    struct rig *rig;
    pthread_t thread;
    pthread_barrier_t *start;
};
void race(struct rig *rig, struct racer *racers, unsigned count);

#endif

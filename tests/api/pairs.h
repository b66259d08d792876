/* tests/api/pairs.h - what tests of pairs and their jobs share: bytes in pools, waits, rows
 * planted through the clerk.
 */
#ifndef TESTS_API_PAIRS_H
#define TESTS_API_PAIRS_H

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/service.h"
#include "tests/api/rig.h"
#include "tests/support/seed.h"

enum { PAIRS_MIB = 1 << 20 };

/** Writes noise over the whole of an element's file in the pool "default". */
static inline void pair_noise(
        struct rig *rig, const char *id, size_t size, uint64_t seed)
{
    char path[700];
    uint8_t *bytes = malloc(size);
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s.raw", rig->pool, id);
    expect(bytes != NULL);
    seed_fill(&seed, bytes, size);
    file = fopen(path, "r+");
    expect(file != NULL);
    expect(fwrite(bytes, 1, size, file) == size);
    expect(fclose(file) == 0);
    free(bytes);
}

/** Are the first @size bytes of two elements' files equal? */
static inline bool pair_equal(
        struct rig *rig, const char *a, const char *b, size_t size)
{
    char path[2][700];
    uint8_t *bytes[2] = { calloc(1, size), calloc(1, size) };
    bool equal = bytes[0] && bytes[1];

    snprintf(path[0], sizeof(path[0]), "%s/%s.raw", rig->pool, a);
    snprintf(path[1], sizeof(path[1]), "%s/%s.raw", rig->pool, b);
    for (int i = 0; i < 2 && equal; i++) {
        FILE *file = fopen(path[i], "r");
        equal = file && fread(bytes[i], 1, size, file) == size;
        if (file)
            fclose(file);
    }
    equal = equal && memcmp(bytes[0], bytes[1], size) == 0;
    free(bytes[0]);
    free(bytes[1]);
    return equal;
}

/** The id at the end of a member that is a path. */
static inline void answer_id(
        const struct answer *answer, const char *member, char id[37])
{
    const char *path = answer_text(answer, member), *slash = strrchr(path, '/');

    cr_assert(slash && strlen(slash + 1) == 36, "%s is %s", member, path);
    memcpy(id, slash + 1, 37);
}

static inline struct store_job job_row(struct rig *rig, const char *id)
{
    struct store_reader *reader = store_reader_take(rig->service->store, 5000);
    struct store_job job;

    expect(reader != NULL);
    expect_eq(store_get(reader, STORE_JOB, id, &job), 0);
    store_reader_give(rig->service->store, reader);
    return job;
}

/** False: there is no such pair. */
static inline bool replica_row(
        struct rig *rig, const char *id, struct store_replica *replica)
{
    struct store_reader *reader = store_reader_take(rig->service->store, 5000);
    int result;

    expect(reader != NULL);
    result = store_get(reader, STORE_REPLICA, id, replica);
    store_reader_give(rig->service->store, reader);
    return result == 0;
}

static inline struct store_element element_row(struct rig *rig, const char *id)
{
    struct store_reader *reader = store_reader_take(rig->service->store, 5000);
    struct store_element element;

    expect(reader != NULL);
    expect_eq(store_get(reader, STORE_ELEMENT, id, &element), 0);
    store_reader_give(rig->service->store, reader);
    return element;
}

/** Waits for the end of a job and returns its row. */
static inline struct store_job job_finish(struct rig *rig, const char *id)
{
    struct uuid uuid;
    struct store_job job;

    expect(uuid_parse(id, &uuid));
    expect(job_wait(rig->service, &uuid, 30, &job));
    cr_assert(job_is_over(job.state), "the job is in state %d: %s", (int)job.state,
            job.error);
    return job;
}

/** Waits until a job is in @state. */
static inline struct store_job job_reach(struct rig *rig, const char *id, int64_t state)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 30000);
    struct store_job job = job_row(rig, id);
    int64_t seen = -1;

    while (job.state != state && service_wait(rig->service, &seen, deadline))
        job = job_row(rig, id);
    cr_assert(job.state == state, "the job is in state %d, not %d: %s", (int)job.state,
            (int)state, job.error);
    return job;
}

/** Waits until a pair is in @state (0: gone). */
static inline void pair_reach(struct rig *rig, const char *id, int64_t state)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 30000);
    struct store_replica replica;
    int64_t seen = -1, is = -1;

    do {
        is = replica_row(rig, id, &replica) ? replica.sync_state : 0;
    } while (is != state && service_wait(rig->service, &seen, deadline));
    cr_assert(is == state, "the pair is in %d, not %d: %s", (int)is, (int)state,
            replica.last_error);
}

struct plant {
    enum store_table table;
    const void *row;
    bool gone, touch;
};

static inline bool plant_work(struct clerk_turn *turn, void *context)
{
    const struct plant *plant = context;

    if (plant->gone)
        turn_delete(turn, plant->table, plant->row);
    else
        turn_put(turn, plant->table, plant->row);
    if (plant->touch)
        turn_touch(turn, plant->table, plant->row);
    return true;
}

/** A row as it is, past all rules. */
static inline void plant(struct rig *rig, enum store_table table, const void *row)
{
    struct plant plant = { .table = table, .row = row };

    expect_eq(clerk_call(rig->service->clerk, plant_work, &plant), 0);
}

/** A pair whose scan is due now: the scheduler is told. */
static inline void plant_due(struct rig *rig, struct store_replica *replica)
{
    struct plant plant = { .table = STORE_REPLICA, .row = replica, .touch = true };

    replica->scan_due = 1;
    expect_eq(clerk_call(rig->service->clerk, plant_work, &plant), 0);
}

static inline void uproot(struct rig *rig, enum store_table table, const void *row)
{
    struct plant plant = { .table = table, .row = row, .gone = true };

    expect_eq(clerk_call(rig->service->clerk, plant_work, &plant), 0);
}

static inline struct uuid uuid_of(const char *text)
{
    struct uuid id;

    expect(uuid_parse(text, &id));
    return id;
}

/** The row of a pair, every column with a value of its own. */
static inline struct store_replica pair_made(
        const char *source, const char *target, int64_t type, int64_t state)
{
    return (struct store_replica){ .id = uuid_of(target),
        .source = uuid_of(source),
        .copy_type = type,
        .sync_state = state,
        .state_before = CIM_SYNC_FROZEN,
        .copy_priority = CIM_COPY_PRIORITY_HIGH,
        .replica_type = 2,
        .when_established = 1000,
        .when_synced = 2000,
        .rpo = 300,
        .limit = 77,
        .recovery_mode = 2 };
}

/** Attaches @target to @source; a @limit in bytes a second, 0 none. Returns its job's id. */
static inline void pair_attach(struct rig *rig, const char *source, const char *target,
        int type, int limit, char job[37])
{
    struct answer answer =
            rig_callf(rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                    "{\"SourceElement\":\"%s\",\"CopyType\":%d,\"Goal\":{"
                    "\"BandwidthLimit\":%d}}",
                    source, type, limit);

    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
}

/** Results of a method with that value: how many rows? */
static inline int64_t results_count(struct rig *rig, const char *method, int64_t value)
{
    struct store_reader *reader = store_reader_take(rig->service->store, 5000);
    struct store_query query = { .table = STORE_RESULT,
        .filter_count = 2,
        .filters = { { .column = RESULT_METHOD, .count = 1, .texts = { method } },
                { .column = RESULT_RETURN,
                        .is_number = true,
                        .count = 1,
                        .numbers = { value } } } };
    int64_t count;

    expect(reader != NULL);
    count = store_count(reader, &query);
    store_reader_give(rig->service->store, reader);
    return count;
}

#endif

#include "tests/api/pairs.h"

#include <stdlib.h>

static struct instant patience(void)
{
    return instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
}

void element_path(struct rig *rig, const char *id, char path[PAIRS_PATH])
{
    snprintf(path, PAIRS_PATH, "%s/%s.raw", rig->pool, id);
}

void pair_noise(struct rig *rig, const char *id, size_t size, uint64_t seed)
{
    char path[PAIRS_PATH];
    uint8_t *bytes = malloc(size);
    FILE *file;

    element_path(rig, id, path);
    expect(bytes != NULL);
    seed_fill(&seed, bytes, size);
    file = fopen(path, "r+");
    expect(file != NULL);
    expect(fwrite(bytes, 1, size, file) == size);
    expect(fclose(file) == 0);
    free(bytes);
}

bool pair_equal(struct rig *rig, const char *a, const char *b, size_t size)
{
    char path[2][PAIRS_PATH];
    uint8_t *bytes[2] = { calloc(1, size), calloc(1, size) };
    bool equal = bytes[0] && bytes[1];

    element_path(rig, a, path[0]);
    element_path(rig, b, path[1]);
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

void answer_id(const struct answer *answer, const char *member, char id[37])
{
    const char *path = answer_text(answer, member), *slash = strrchr(path, '/');

    cr_assert(slash && strlen(slash + 1) == 36, "%s is %s", member, path);
    memcpy(id, slash + 1, 37);
}

static bool row_get(struct rig *rig, enum store_table table, const char *id, void *row)
{
    struct store_reader *reader =
            store_reader_take(rig->service->store, PAIRS_PATIENCE_MS);
    int result;

    expect(reader != NULL);
    result = store_get(reader, table, id, row);
    store_reader_give(rig->service->store, reader);
    return result == 0;
}

struct store_job job_row(struct rig *rig, const char *id)
{
    struct store_job job;

    expect(row_get(rig, STORE_JOB, id, &job));
    return job;
}

bool replica_row(struct rig *rig, const char *id, struct store_replica *replica)
{
    return row_get(rig, STORE_REPLICA, id, replica);
}

struct store_element element_row(struct rig *rig, const char *id)
{
    struct store_element element;

    expect(row_get(rig, STORE_ELEMENT, id, &element));
    return element;
}

struct store_job job_finish(struct rig *rig, const char *id)
{
    struct uuid uuid;
    struct store_job job;

    expect(uuid_parse(id, &uuid));
    expect(job_wait(rig->service, &uuid, PAIRS_PATIENCE_MS / 1000, &job));
    cr_assert(job_is_over(job.state), "the job is in state %d: %s", (int)job.state,
            job.error);
    return job;
}

struct store_job job_reach(struct rig *rig, const char *id, int64_t state)
{
    struct instant deadline = patience();
    struct store_job job = job_row(rig, id);
    int64_t seen = -1;

    while (job.state != state && service_wait(rig->service, &seen, deadline))
        job = job_row(rig, id);
    cr_assert(job.state == state, "the job is in state %d, not %d: %s", (int)job.state,
            (int)state, job.error);
    return job;
}

void pair_reach(struct rig *rig, const char *id, int64_t state)
{
    struct instant deadline = patience();
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

static bool plant_work(struct clerk_turn *turn, void *context)
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

void plant(struct rig *rig, enum store_table table, const void *row)
{
    struct plant plant = { .table = table, .row = row };

    expect_eq(clerk_call(rig->service->clerk, plant_work, &plant), 0);
}

void plant_due(struct rig *rig, struct store_replica *replica)
{
    struct plant plant = { .table = STORE_REPLICA, .row = replica, .touch = true };

    replica->scan_due = 1;
    expect_eq(clerk_call(rig->service->clerk, plant_work, &plant), 0);
}

void uproot(struct rig *rig, enum store_table table, const void *row)
{
    struct plant plant = { .table = table, .row = row, .gone = true };

    expect_eq(clerk_call(rig->service->clerk, plant_work, &plant), 0);
}

struct uuid uuid_of(const char *text)
{
    struct uuid id;

    expect(uuid_parse(text, &id));
    return id;
}

struct store_replica scan_finish(struct rig *rig, const char *id, int64_t before)
{
    struct instant deadline = patience();
    struct store_replica replica;
    int64_t seen = -1;

    for (;;) {
        expect(replica_row(rig, id, &replica));
        if (replica.when_synced != before)
            return replica;
        expect(service_wait(rig->service, &seen, deadline));
    }
}

struct store_replica pair_made(
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

void job_started(struct answer *answer, char job[37])
{
    expect_answer(answer, STARTED, 4096);
    answer_id(answer, "Job", job);
    answer_release(answer);
}

void pair_attach(struct rig *rig, const char *source, const char *target, int type,
        int limit, char job[37])
{
    struct answer answer =
            rig_callf(rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                    "{\"SourceElement\":\"%s\",\"CopyType\":%d,\"Goal\":{"
                    "\"BandwidthLimit\":%d}}",
                    source, type, limit);

    job_started(&answer, job);
}

void job_unlimit(struct rig *rig, const char *job)
{
    struct answer answer = rig_call(
            rig, API_JOB_PATCH, (struct asked){ .id = job }, "{\"BandwidthLimit\":0}");

    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
}

int64_t results_count(struct rig *rig, const char *method, int64_t value)
{
    struct store_reader *reader =
            store_reader_take(rig->service->store, PAIRS_PATIENCE_MS);
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

static void *racer_run(void *context)
{
    struct racer *racer = context;
    struct asked asked = { .id = racer->id, .key = racer->key };
    struct answer answer;

    pthread_barrier_wait(racer->start);
    answer = rig_call(racer->rig, racer->call, asked, racer->body);
    racer->verdict = answer.outcome.verdict;
    racer->value = answer.outcome.return_value;
    racer->replayed = answer.outcome.replayed;
    if (racer->value == 4096)
        answer_id(&answer, "Job", racer->job);
    answer_release(&answer);
    return NULL;
}

void race(struct rig *rig, struct racer *racers, unsigned count)
{
    pthread_barrier_t start;

    pthread_barrier_init(&start, NULL, count);
    for (unsigned i = 0; i < count; i++) {
        racers[i].rig = rig;
        racers[i].start = &start;
        expect_eq(pthread_create(&racers[i].thread, NULL, racer_run, &racers[i]), 0);
    }
    for (unsigned i = 0; i < count; i++)
        expect_eq(pthread_join(racers[i].thread, NULL), 0);
    pthread_barrier_destroy(&start);
}

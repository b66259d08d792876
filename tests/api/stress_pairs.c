/* Random calls on a few pairs from several threads at once: attach, all operations, state
 * changes of jobs, detach. Whatever was answered, afterwards every transient state has a live
 * job, every live job its pair, every counter its bounds, and a restart ends what is left.
 * A main() of its own: it runs under ThreadSanitizer.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/service.h"
#include "tests/api/stress.h"
#include "tests/support/seed.h"

enum { THREADS = 4, CALLS = 120, PAIRS = 4, SOURCES = 2, SIZE = 256 * 1024 };

static struct service *service;
/** By call: 0..6, none, 4096, 4097. */
static _Atomic unsigned answers[API_CALL_COUNT][10];
static char sources[SOURCES][37], targets[PAIRS][37];

static int call(enum api_call what, const char *id, const char *body, char made[37])
{
    struct api_request request = { .call = what,
        .id = id,
        .body = body,
        .length = body ? strlen(body) : 0,
        .prefer_wait_s = -1,
        .caller = "127.0.0.1",
        .request_id = "stress" };
    struct api_outcome outcome;
    const char *slash;
    int value;

    api_serve(service, &request, &outcome);
    value = outcome.return_value;
    answers[what][value < 0 ? 7 : value < 7 ? value : value == 4096 ? 8 : 9]++;
    slash = strrchr(outcome.location, '/');
    if (made && slash)
        snprintf(made, 37, "%s", slash + 1);
    api_outcome_release(&outcome);
    return value;
}

static void element(char id[37])
{
    char body[100];

    snprintf(body, sizeof(body),
            "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":%d}", SIZE);
    must(call(API_ELEMENT_CREATE, NULL, body, id) == 0);
}

/* -- the callers ------------------------------------------------------------------------ */

static void step(uint64_t *seed, char job[37])
{
    const char *target = targets[seed_below(seed, PAIRS)];
    static const int types[] = { 2, 4, 5 };
    char body[200];

    switch (seed_below(seed, 8)) {
    case 0:
    case 1:
        snprintf(body, sizeof(body),
                "{\"SourceElement\":\"%s\",\"CopyType\":%d,\"Goal\":{"
                "\"BandwidthLimit\":%d}}",
                sources[seed_below(seed, SOURCES)], types[seed_below(seed, 3)],
                seed_below(seed, 2) ? 1 << 20 : 0);
        (void)call(API_REPLICA_ATTACH, target, body, job);
        break;
    case 2:
        snprintf(body, sizeof(body), "{\"RequestedState\":%d}",
                2 + (int)seed_below(seed, 4));
        (void)call(API_JOB_REQUEST_STATE_CHANGE, job, body, NULL);
        break;
    case 3:
        (void)call(API_REPLICA_DETACH, target, NULL, NULL);
        break;
    default:
        snprintf(body, sizeof(body), "{\"Operation\":%d}",
                2 + (int)seed_below(seed, 12));
        (void)call(API_REPLICA_MODIFY, target, body, job);
        break;
    }
}

static void *caller(void *context)
{
    uint64_t seed = *(uint64_t *)context;
    char job[37] = "01931234-0000-7000-8000-000000000000";

    for (int i = 0; i < CALLS; i++)
        step(&seed, job);
    return NULL;
}

/* -- what holds whatever came -------------------------------------------------------------- */

struct live {
    unsigned count, moving;
};

static bool job_sound(void *context, const void *row)
{
    const struct store_job *job = row;
    struct live *live = context;
    bool over = job_is_over(job->state);

    must((job->percent == 100) == (job->state == CIM_JOB_COMPLETED));
    must(job->done <= job->total);
    must(over == (job->ended != 0));
    must(over ? job->return_value != 4096 && job->wanted == 0
              : job->return_value == 4096);
    live->count += !over;
    live->moving += !over && job->state != CIM_JOB_SUSPENDED;
    return true;
}

static struct live jobs_look(void)
{
    struct store_reader *reader = store_reader_take(service->store, 60000);
    struct store_query query = { .table = STORE_JOB, .limit = 1000 };
    struct live live = { 0 };

    must(store_list(reader, &query, job_sound, &live) >= 0);
    store_reader_give(service->store, reader);
    return live;
}

/** At rest: what is live is suspended, and is its pair's. */
static void pairs_look(void)
{
    struct store_reader *reader = store_reader_take(service->store, 60000);
    unsigned paired = 0;

    for (int i = 0; i < PAIRS; i++) {
        struct store_replica replica;
        struct store_job job;
        if (store_get(reader, STORE_REPLICA, targets[i], &replica))
            continue;
        must(replica.copy_type != 3);
        must(replica.maintained == (replica.sync_state == CIM_SYNC_SYNCHRONIZED));
        if (!uuid_is_none(&replica.job)) {
            must(store_get(reader, STORE_JOB, replica.job.text, &job) == 0);
            must(job.state == CIM_JOB_SUSPENDED);
            must(uuid_equal(&job.replica, &replica.id));
            paired++;
        } else {
            must(!cim_state_is_transient(replica.sync_state));
        }
    }
    store_reader_give(service->store, reader);
    must(jobs_look().count == paired);
}

/** What was left suspended would refuse the next round everything. */
static void clear(void)
{
    for (int i = 0; i < PAIRS; i++) {
        struct store_reader *reader = store_reader_take(service->store, 60000);
        struct store_replica replica;
        bool there = store_get(reader, STORE_REPLICA, targets[i], &replica) == 0;
        store_reader_give(service->store, reader);
        if (!there)
            continue;
        if (!uuid_is_none(&replica.job))
            must(call(API_JOB_REQUEST_STATE_CHANGE, replica.job.text,
                         "{\"RequestedState\":4}", NULL) == 0);
        must(call(API_REPLICA_DETACH, targets[i], NULL, NULL) == 0);
    }
}

/** Until no job moves; suspended ones may stay. */
static void rest(void)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 60000);
    int64_t seen = -1;

    while (jobs_look().moving)
        must(service_wait(service, &seen, deadline));
}

static void stop(void)
{
    service_drain(service);
    service_destroy(service);
}

/** What was reached: a stress that is refused everything shows nothing. */
static void answers_print(void)
{
    static const enum api_call calls[] = { API_REPLICA_ATTACH, API_REPLICA_MODIFY,
        API_REPLICA_DETACH, API_JOB_REQUEST_STATE_CHANGE };

    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        fprintf(stderr, "call %d:", (int)calls[i]);
        for (int value = 0; value < 10; value++)
            fprintf(stderr, " %u", answers[calls[i]][value]);
        fprintf(stderr, "\n");
    }
    must(answers[API_REPLICA_ATTACH][8] > 3 && answers[API_REPLICA_MODIFY][8] > 0);
    must(answers[API_REPLICA_MODIFY][0] > 0 && answers[API_REPLICA_DETACH][0] > 0);
}

int main(void)
{
    uint64_t seed = seed_take("stress_pairs"), seeds[THREADS];
    pthread_t threads[THREADS];
    struct stress stress;

    stress_make(&stress, 2);
    service = stress_start(&stress);
    for (int i = 0; i < SOURCES; i++)
        element(sources[i]);
    for (int i = 0; i < PAIRS; i++)
        element(targets[i]);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < THREADS; i++) {
            seeds[i] = seed_next(&seed);
            must(pthread_create(&threads[i], NULL, caller, &seeds[i]) == 0);
        }
        for (int i = 0; i < THREADS; i++)
            must(pthread_join(threads[i], NULL) == 0);
        if (round != 1) /* the second time it is stopped in the middle */
            rest();
        if (round != 1)
            pairs_look();
        stop();
        service = stress_start(&stress);
        rest();
        pairs_look();
        clear();
    }
    stop();
    answers_print();
    directory_remove(&stress.directory);
    return 0;
}

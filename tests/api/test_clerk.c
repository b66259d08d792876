/* The clerk: one commit for all that waits, and each answered for itself; races that have
 * one winner.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#include "tests/api/pairs.h"

static struct rig rig;

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(clerk, .init = begin, .fini = end);

enum { THREADS = 64 };

/* -- group commit ---------------------------------------------------------------------------- */

struct one {
    pthread_t thread;
    struct uuid id;
    bool keep, fail, adds;
    int result;
    size_t place; /* in its batch */
};

static sem_t gate, arrived;

static bool gate_work(struct clerk_turn *turn, void *context)
{
    (void)turn;
    (void)context;
    sem_post(&arrived);
    sem_wait(&gate);
    return true;
}

static bool one_work(struct clerk_turn *turn, void *context)
{
    struct one *one = context;
    struct store_setting setting = { .id = one->id, .created = turn->now };

    snprintf(setting.name, sizeof(setting.name), "%s", one->id.text);
    turn_put(turn, STORE_SETTING, &setting);
    turn_touch(turn, STORE_JOB, &one->id); /* counts up within one batch */
    one->place = turn->touched->count;
    if (one->fail) {
        setting.id = uuid_make();
        turn_delete(turn, STORE_SETTING, &setting);
    }
    return one->keep;
}

static void *one_thread(void *context)
{
    struct one *one = context;

    one->result =
            (one->adds ? clerk_add : clerk_call)(rig.service->clerk, one_work, one);
    return NULL;
}

static void *gate_thread(void *context)
{
    (void)clerk_call(rig.service->clerk, gate_work, NULL);
    return context;
}

static bool setting_there(const struct uuid *id)
{
    struct store_reader *reader =
            store_reader_take(rig.service->store, PAIRS_PATIENCE_MS);
    struct store_setting setting;
    bool there;

    expect(reader != NULL);
    there = store_get(reader, STORE_SETTING, id->text, &setting) == 0;
    store_reader_give(rig.service->store, reader);
    return there;
}

/* All of them in one batch. */
static void batch_run(struct one ones[THREADS])
{
    pthread_t gated;

    sem_init(&gate, 0, 0);
    sem_init(&arrived, 0, 0);
    pthread_create(&gated, NULL, gate_thread, NULL);
    sem_wait(&arrived);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&ones[i].thread, NULL, one_thread, &ones[i]);
    while (clerk_waiting(rig.service->clerk) < THREADS)
        sched_yield();
    sem_post(&gate);
    for (int i = 0; i < THREADS; i++)
        pthread_join(ones[i].thread, NULL);
    pthread_join(gated, NULL);
}

Test(clerk, what_waits_is_committed_together_and_answered_alone)
{
    static struct one ones[THREADS];
    size_t kept = 0, last = 0;

    for (int i = 0; i < THREADS; i++)
        ones[i] = (struct one){
            .id = uuid_make(), .keep = i % 4 != 1, .fail = i % 4 == 2
        };
    batch_run(ones);
    for (int i = 0; i < THREADS; i++) {
        bool good = ones[i].keep && !ones[i].fail;
        expect_eq(ones[i].result, ones[i].fail ? -ENOENT : 0);
        cr_assert(setting_there(&ones[i].id) == good, "row %d", i);
        kept += good;
        if (good && ones[i].place > last)
            last = ones[i].place;
    }
    /* All in one batch: the last that was kept saw the others before it. */
    expect_eq(kept, THREADS / 2);
    expect(last >= THREADS / 2);
}

/* It had no savepoint: what it has put goes only with all the rest. */
Test(clerk, an_addition_that_fails_half_way_leaves_nothing)
{
    static struct one ones[THREADS];

    for (int i = 0; i < THREADS; i++)
        ones[i] = (struct one){
            .id = uuid_make(), .keep = true, .adds = i % 2, .fail = i == THREADS / 2 + 1
        };
    batch_run(ones);
    for (int i = 0; i < THREADS; i++) {
        expect_eq(ones[i].result, -ENOENT);
        cr_assert(!setting_there(&ones[i].id), "row %d", i);
    }
    for (int i = 0; i < THREADS; i++)
        ones[i].fail = false;
    batch_run(ones);
    for (int i = 0; i < THREADS; i++) {
        expect_eq(ones[i].result, 0);
        cr_assert(setting_there(&ones[i].id), "row %d", i);
    }
}

/* -- one winner ------------------------------------------------------------------------------- */

Test(clerk, two_attaches_to_one_target_have_one_winner)
{
    char source[8][37], target[37];
    struct racer racers[8] = { 0 };

    for (int round = 0; round < 5; round++) {
        unsigned won = 0;
        rig_element(&rig, "StorageVolume", 65536, target);
        for (int i = 0; i < 8; i++) {
            rig_element(&rig, "StorageVolume", 65536, source[i]);
            racers[i] = (struct racer){ .call = API_REPLICA_ATTACH, .id = target };
            snprintf(racers[i].body, sizeof(racers[i].body),
                    "{\"SourceElement\":\"%s\",\"CopyType\":4}", source[i]);
        }
        race(&rig, racers, 8);
        for (int i = 0; i < 8; i++) {
            cr_assert(racers[i].value == 4096 || racers[i].value == 6, "%s %d",
                    verdict_name(racers[i].verdict), racers[i].value);
            won += racers[i].value == 4096;
            if (racers[i].value == 4096)
                expect_eq(job_finish(&rig, racers[i].job).state, CIM_JOB_COMPLETED);
        }
        expect_eq(won, 1);
    }
}

Test(clerk, sixty_four_clients_each_get_a_replica)
{
    static struct racer racers[THREADS];
    char source[37];

    rig_element(&rig, "StorageVolume", 65536, source);
    pair_noise(&rig, source, 65536, 41);
    for (int i = 0; i < THREADS; i++) {
        racers[i] = (struct racer){ .call = API_REPLICA_CREATE };
        snprintf(racers[i].body, sizeof(racers[i].body),
                "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    }
    race(&rig, racers, THREADS);
    for (int i = 0; i < THREADS; i++) {
        struct store_job job;
        expect_eq(racers[i].value, 4096);
        job = job_finish(&rig, racers[i].job);
        expect_eq(job.state, CIM_JOB_COMPLETED);
        expect(pair_equal(&rig, source, job.target.text, 65536));
    }
}

Test(clerk, the_cap_and_the_order_of_jobs)
{
    char source[37], target[6][37], jobs[6][37];
    static const int priorities[] = { 3, 3, 2, 2, 4, 4 }; /* ReplicationPriority */
    struct store_job rows[6];

    rig_element(&rig, "StorageVolume", 65536, source);
    pair_noise(&rig, source, 65536, 42);
    for (int i = 0; i < 6; i++) {
        struct answer answer;
        rig_element(&rig, "StorageVolume", 65536, target[i]);
        answer = rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target[i] },
                "{\"SourceElement\":\"%s\",\"CopyType\":5,\"Goal\":{"
                "\"ReplicationPriority\":%d,\"BandwidthLimit\":%d}}",
                source, priorities[i], i < 2 ? PAIRS_CRAWL : 0);
        job_started(&answer, jobs[i]);
        if (i < 2)
            (void)job_reach(&rig, jobs[i], CIM_JOB_RUNNING);
    }
    for (int i = 2; i < 6; i++) {
        struct answer answer =
                rig_call(&rig, API_JOB_GET, (struct asked){ .id = jobs[i] }, NULL);

        expect_eq(answer_number(&answer, "JobState"), CIM_JOB_NEW);
        expect_str(answer_text(&answer, "LimitedBy"), "Queue");
        answer_release(&answer);
    }
    for (int i = 0; i < 2; i++)
        job_unlimit(&rig, jobs[i]);
    for (int i = 0; i < 6; i++)
        rows[i] = job_finish(&rig, jobs[i]);
    /* Urgent ones started first, and the older of equals. */
    expect(rows[4].started <= rows[5].started && rows[4].started <= rows[2].started);
    expect(rows[5].started <= rows[2].started && rows[2].started <= rows[3].started);
}

Test(clerk, terminate_against_completion)
{
    char source[37], target[37], job[37];
    uint64_t seed = seed_take("terminate_against_completion");

    rig_element(&rig, "StorageVolume", 1 << 20, source);
    rig_element(&rig, "StorageVolume", 1 << 20, target);
    for (int round = 0; round < 30; round++) {
        struct answer answer =
                rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                        "{\"SourceElement\":\"%s\",\"CopyType\":4}", source);
        struct store_job row;
        job_started(&answer, job);
        for (uint64_t spin = seed_below(&seed, 4000); spin; spin--)
            sched_yield();
        answer = rig_call(&rig, API_JOB_REQUEST_STATE_CHANGE,
                (struct asked){ .id = job }, "{\"RequestedState\":4}");
        cr_assert(answer.outcome.return_value == 0 ||
                        answer.outcome.return_value == 4096 ||
                        answer.outcome.return_value == 4097,
                "%d", answer.outcome.return_value);
        answer_release(&answer);
        row = job_finish(&rig, job);
        expect(row.state == CIM_JOB_COMPLETED || row.state == CIM_JOB_TERMINATED);
        pair_reach(&rig, target, row.state == CIM_JOB_COMPLETED ? 14 : 12);
        expect((row.percent == 100) == (row.state == CIM_JOB_COMPLETED));
        answer = rig_call(
                &rig, API_REPLICA_DETACH, (struct asked){ .id = target }, NULL);
        expect_answer(&answer, DONE, 0);
        answer_release(&answer);
    }
}

/* What lacks, hangs or fails below: what is answered then is so, and nothing is forgotten. */
#include <errno.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "tests/api/small_pair.h"

/* -- below the service ----------------------------------------------------------------------- */

/* Each is off when it is 0. */
static struct {
    _Atomic unsigned lost_ends; /* ends of jobs for which memory lacks */
    _Atomic unsigned lost_commits; /* commits of such ends for which space lacks */
    _Atomic bool ending; /*   one is in this transaction */
    _Atomic bool clones; /* the pool can clone, */
    void (*cloning)(void); /*   and what happens while it does */
    _Atomic unsigned cloned; /* how often it has */
    _Atomic bool endless; /* who waits for the end of a plan waits in vain */
    _Atomic int probe; /* what every probe answers */
    _Atomic unsigned failures; /* how often it was logged that a job has failed */
} below;

void __wrap_log_event(enum log_level level, const char *event, struct log_about about,
        const char *format, ...) __attribute__((format(printf, 4, 5)));
void __wrap_log_event(enum log_level level, const char *event, struct log_about about,
        const char *format, ...)
{
    (void)level;
    (void)about;
    (void)format;
    below.failures += strcmp(event, "job-failed") == 0;
}

int __real_store_apply(
        struct store *store, const struct store_change *changes, size_t count);
int __wrap_store_apply(
        struct store *store, const struct store_change *changes, size_t count);
int __wrap_store_apply(
        struct store *store, const struct store_change *changes, size_t count)
{
    const struct store_job *job = changes[0].row;

    if (changes[0].table == STORE_JOB && changes[0].verb == STORE_PUT &&
            (job->state == CIM_JOB_COMPLETED || job->state == CIM_JOB_EXCEPTION)) {
        if (below.lost_ends) {
            below.lost_ends--;
            return -ENOMEM;
        }
        below.ending = true;
    }
    return __real_store_apply(store, changes, count);
}

int __real_store_commit(struct store *store);
int __wrap_store_commit(struct store *store);
int __wrap_store_commit(struct store *store)
{
    bool ending = below.ending;

    below.ending = false;
    if (ending && below.lost_commits) {
        below.lost_commits--;
        store_rollback(store);
        return -ENOSPC;
    }
    return __real_store_commit(store);
}

int __real_engine_pool_figures(
        struct engine *engine, const char *pool, struct engine_pool_figures *figures);
int __wrap_engine_pool_figures(
        struct engine *engine, const char *pool, struct engine_pool_figures *figures);
int __wrap_engine_pool_figures(
        struct engine *engine, const char *pool, struct engine_pool_figures *figures)
{
    int result = __real_engine_pool_figures(engine, pool, figures);

    figures->can_clone |= below.clones;
    return result;
}

int __wrap_engine_file_clone(struct engine *engine, const char *address,
        const char *pool, const char *file, uint64_t size, struct fault *fault);
int __wrap_engine_file_clone(struct engine *engine, const char *address,
        const char *pool, const char *file, uint64_t size, struct fault *fault)
{
    char command[2 * PAIRS_PATH];

    (void)engine;
    (void)size;
    (void)fault;
    expect_str(pool, "default");
    below.cloned++;
    if (below.cloning)
        below.cloning();
    snprintf(command, sizeof(command), "cp %s/%s %s/%s", rig.pool,
            strchr(address, '/') + 1, rig.pool, file);
    expect_eq(system(command), 0);
    return 0;
}

int __real_engine_stop_wait(struct engine *engine, const struct uuid *id,
        enum engine_stop how, unsigned ms);
int __wrap_engine_stop_wait(struct engine *engine, const struct uuid *id,
        enum engine_stop how, unsigned ms);
int __wrap_engine_stop_wait(
        struct engine *engine, const struct uuid *id, enum engine_stop how, unsigned ms)
{
    return below.endless ? -ETIMEDOUT : __real_engine_stop_wait(engine, id, how, ms);
}

int __real_engine_probe(struct engine *engine, const struct engine_element *element,
        bool writable, struct engine_found *found, struct fault *fault);
int __wrap_engine_probe(struct engine *engine, const struct engine_element *element,
        bool writable, struct engine_found *found, struct fault *fault);
int __wrap_engine_probe(struct engine *engine, const struct engine_element *element,
        bool writable, struct engine_found *found, struct fault *fault)
{
    if (below.probe)
        return fault_set(fault, below.probe, "the test says so");
    return __real_engine_probe(engine, element, writable, found, fault);
}

static void begin(void)
{
    memset(&below, 0, sizeof(below));
    small_pair_begin();
}

TestSuite(faults, .init = begin, .fini = small_pair_end);

/* -- ends ------------------------------------------------------------------------------------ */

static bool writes_work(struct clerk_turn *turn, void *context)
{
    struct uuid root = uuid_of(target);

    *(bool *)context = scheduler_writes(turn->service, &root);
    return false;
}

static bool target_is_written(void)
{
    bool writes = false;

    expect_eq(clerk_call(rig.service->clerk, writes_work, &writes), 0);
    return writes;
}

/* Of whatever job, by whatever result. Counted right after the commit that shows the end: when
   the clerk answers anew, that is behind it. */
static unsigned ends_counted(void)
{
    unsigned long count = 0;
    size_t length;
    char *text;

    (void)target_is_written();
    text = api_metrics(rig.service, &length);
    expect(text != NULL);
    for (char *line = text; (line = strstr(line, "\nreplicad_jobs_finished_total{"));) {
        line = strchr(line, '}');
        count += strtoul(line + 1, NULL, 10);
    }
    free(text);
    return (unsigned)count;
}

/** Starts @job. */
static void modify(const char *operation, char job[37])
{
    struct answer answer = rig_callf(&rig, API_REPLICA_MODIFY,
            (struct asked){ .id = target }, "{\"Operation\":\"%s\"}", operation);

    job_started(&answer, job);
}

/** A copy whose end is lost twice, of which @lost counts down: it ends, and counts once. */
static void copy_losing(_Atomic unsigned *lost)
{
    char job[37];

    *lost = 2;
    pair_attach(&rig, source, target, 4, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect_eq(*lost, 0);
    expect_eq(ends_counted(), 1);
}

Test(faults, the_end_of_a_job_is_told_again_when_memory_lacks)
{
    char job[37];

    copy_losing(&below.lost_ends);
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
    modify("Resync", job); /* its place is free */
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect_eq(ends_counted(), 2);
}

Test(faults, the_end_of_a_job_is_counted_when_it_is_durable)
{
    copy_losing(&below.lost_commits);
}

Test(faults, that_a_job_has_failed_is_logged_once)
{
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 4, 0, job);
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
    pair_noise(&rig, target, SIZE, 63);
    below.lost_commits = 2;
    answer = rig_call(&rig, API_REPLICA_VERIFY, (struct asked){ .id = target }, "{}");
    job_started(&answer, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_EXCEPTION);
    expect_eq(below.lost_commits, 0);
    (void)target_is_written(); /* what the clerk did before is done */
    expect_eq(below.failures, 1);
}

/** Prepared, with its ends held; let go; prepared again. */
static void prepare_twice(void)
{
    struct answer answer =
            rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                    "{\"SourceElement\":\"%s\",\"CopyType\":4,\"Goal\":{"
                    "\"InitialSynchronization\":3}}",
                    source);
    char job[37];

    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    modify("Prepare", job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    pair_reach(&rig, target, CIM_SYNC_PREPARED);
    expect(target_is_written()); /* what it holds is nobody else's */
    expect_eq(ends_counted(), 1);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Unprepare\"}");
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    modify("Prepare", job); /* its place is free, or will be soon */
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect_eq(ends_counted(), 2);
}

Test(faults, the_end_of_a_prepare_is_told_again_when_memory_lacks)
{
    below.lost_ends = 2;
    prepare_twice();
    expect_eq(below.lost_ends, 0);
}

Test(faults, the_end_of_a_prepare_is_told_again_when_space_lacks)
{
    below.lost_commits = 2;
    prepare_twice();
    expect_eq(below.lost_commits, 0);
}

/* -- a scan ---------------------------------------------------------------------------------- */

static void limit(uint64_t bytes)
{
    struct answer answer =
            rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                    "{\"SourceElement\":\"%s\",\"CopyType\":2,\"Goal\":{"
                    "\"BandwidthLimit\":%d}}",
                    source, (int)bytes);

    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
}

static void scan_await(void)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    struct store_replica replica;
    int64_t seen = -1;

    for (;;) {
        expect(replica_row(&rig, target, &replica));
        if (replica.scan_started)
            return;
        expect(service_wait(rig.service, &seen, deadline));
    }
}

static void scan_due_now(void)
{
    struct store_replica replica;

    expect(replica_row(&rig, target, &replica));
    plant_due(&rig, &replica);
}

/* An Async pair whose scan is in the middle of its target. */
static void scanning(void)
{
    char job[37];

    pair_attach(&rig, source, target, 2, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    limit(PAIRS_CRAWL);
    pair_noise(&rig, source, SIZE, 62);
    scan_due_now();
    scan_await();
}

static struct answer replicate(const char *of)
{
    return rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"%s\",\"CopyType\":4}", of);
}

Test(faults, no_clone_is_taken_of_what_a_scan_writes)
{
    struct answer answer;
    char job[37], copy[37];

    below.clones = true;
    scanning();
    answer = replicate(target);
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_id(&answer, "TargetElement", copy);
    answer_release(&answer);
    expect_eq(below.cloned, 0);
    expect(target_is_written());
    expect_eq(job_row(&rig, job).state, CIM_JOB_NEW); /* it waits for the scan */
    limit(0);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(pair_equal(&rig, source, copy, SIZE));
}

static void scan_comes(void)
{
    struct store_replica replica;

    scan_due_now();
    expect(!target_is_written());
    expect(replica_row(&rig, target, &replica) && !replica.scan_started);
}

Test(faults, no_scan_starts_while_its_target_is_cloned)
{
    struct store_replica replica;
    struct answer answer;
    char job[37], copy[37];

    below.clones = true;
    below.cloning = scan_comes;
    pair_attach(&rig, source, target, 2, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(replica_row(&rig, target, &replica));
    answer = replicate(target);
    expect_answer(&answer, MADE, 0);
    answer_id(&answer, "TargetElement", copy);
    answer_release(&answer);
    expect_eq(below.cloned, 1);
    expect(pair_equal(&rig, source, copy, SIZE));
    (void)scan_finish(&rig, target, replica.when_synced); /* it comes now */
}

static struct answer detach(const char *if_match)
{
    return rig_call(&rig, API_REPLICA_DETACH,
            (struct asked){ .id = target, .if_match = if_match }, NULL);
}

Test(faults, a_pair_whose_scan_does_not_end_is_not_detached)
{
    struct answer answer;
    struct store_replica replica;

    scanning();
    below.endless = true;
    answer = detach(NULL);
    expect_answer(&answer, TIMEOUT, 3);
    answer_release(&answer);
    expect(replica_row(&rig, target, &replica));
    expect_eq(replica.sync_state, CIM_SYNC_SYNCHRONIZED);
    expect(replica.scan_due != 0);
    expect(target_is_written());
    expect_eq(results_count(&rig, "ModifySynchronization", 0), 0);
    expect_eq(results_count(&rig, "ModifySynchronization", 3), 1);
}

Test(faults, a_pair_is_detached_when_its_scan_has_ended)
{
    struct answer answer;
    struct store_replica replica;
    char tag[24];

    scanning();
    expect(replica_row(&rig, target, &replica));
    answer = detach("\"r0\"");
    expect_answer(&answer, PRECONDITION, -1);
    answer_release(&answer);
    snprintf(tag, sizeof(tag), "\"r%lld\"", (long long)replica.revision);
    answer = detach(tag);
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    expect(!replica_row(&rig, target, &replica));
    expect(!target_is_written());
    expect_eq(results_count(&rig, "ModifySynchronization", 0), 1);
}

/* -- tags and waits -------------------------------------------------------------------------- */

static void tag_fits(enum api_call call, const char *id, const struct answer *answer)
{
    struct answer change = rig_call(&rig, call,
            (struct asked){ .id = id, .if_match = answer->outcome.etag },
            call == API_JOB_PATCH ? "{\"DeleteOnCompletion\":true}"
                                  : "{\"CopyPriority\":3}");

    cr_assert(answer->outcome.etag[0], "no tag");
    cr_assert_eq(change.outcome.verdict, API_DONE, "%s: %s", answer->outcome.etag,
            answer_detail(&change));
    answer_release(&change);
}

Test(faults, the_tag_after_a_wait_is_that_of_what_was_waited_for)
{
    struct asked asked = { .id = target, .wait_s = PAIRS_PATIENCE_MS / 1000 };
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 4, 0, job);
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
    answer = rig_call(&rig, API_REPLICA_VERIFY, asked, "{}");
    expect_answer(&answer, DONE, 4096);
    tag_fits(API_REPLICA_PATCH, target, &answer);
    answer_release(&answer);
    answer = rig_call(&rig, API_REPLICA_MODIFY, asked, "{\"Operation\":\"Resync\"}");
    expect_answer(&answer, DONE, 4096);
    tag_fits(API_REPLICA_PATCH, target, &answer);
    answer_release(&answer);
}

Test(faults, the_tag_of_a_job_that_was_waited_for_is_its_own)
{
    struct asked asked = { .wait_s = PAIRS_PATIENCE_MS / 1000 };
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 4, PAIRS_CRAWL, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    asked.id = job;
    answer = rig_call(
            &rig, API_JOB_REQUEST_STATE_CHANGE, asked, "{\"RequestedState\":4}");
    expect_answer(&answer, DONE, 4096);
    tag_fits(API_JOB_PATCH, job, &answer);
    answer_release(&answer);
}

static void *wait_main(void *context)
{
    struct store_job job;

    return (void *)(uintptr_t)job_wait(rig.service, context, 0, &job);
}

Test(faults, a_wait_ends_when_there_is_nothing_to_read_with)
{
    struct store_reader *readers[64];
    struct timespec deadline;
    unsigned count = 0;
    pthread_t thread;
    void *found = &thread;
    struct uuid id;
    char job[37];

    pair_attach(&rig, source, target, 4, 0, job);
    (void)job_finish(&rig, job);
    id = uuid_of(job);
    while (count < 64 && (readers[count] = store_reader_take(rig.service->store, 0)))
        count++;
    expect(count > 0 && count < 64);
    expect_eq(pthread_create(&thread, NULL, wait_main, &id), 0);
    (void)clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PAIRS_PATIENCE_MS / 1000;
    expect_eq(pthread_timedjoin_np(thread, &found, &deadline), 0);
    expect(!found);
    while (count)
        store_reader_give(rig.service->store, readers[--count]);
}

/* -- whose failure it is --------------------------------------------------------------------- */

Test(faults, a_failing_disk_of_ours_is_no_far_side)
{
    struct store_element element = element_row(&rig, source);
    struct answer answer;

    below.probe = -EIO;
    answer = replicate(source);
    expect_answer(&answer, FAILED, 4);
    answer_release(&answer);
    snprintf(element.address, sizeof(element.address),
            "iscsi://127.0.0.1:1/iqn.2026-11.example:t/1");
    plant(&rig, STORE_ELEMENT, &element);
    answer = replicate(source);
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
}

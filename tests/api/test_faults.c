/* What lacks, hangs or fails below: what is answered then is so, and nothing is forgotten. */
#include <errno.h>

#include "replica/base/check.h"
#include "tests/api/small_pair.h"

/* -- below the service ----------------------------------------------------------------------- */

/* Each is off when it is 0. */
static struct {
    _Atomic unsigned lost_ends; /* ends of jobs for which memory lacks */
    _Atomic bool clones; /* the pool can clone, */
    void (*cloning)(void); /*   and what happens while it does */
    _Atomic unsigned cloned; /* how often it has */
    _Atomic bool endless; /* who waits for the end of a plan waits in vain */
    _Atomic int probe; /* what every probe answers */
} below;

int __real_store_apply(
        struct store *store, const struct store_change *changes, size_t count);
int __wrap_store_apply(
        struct store *store, const struct store_change *changes, size_t count);
int __wrap_store_apply(
        struct store *store, const struct store_change *changes, size_t count)
{
    const struct store_job *job = changes[0].row;

    if (changes[0].table == STORE_JOB && changes[0].verb == STORE_PUT &&
            job->state == CIM_JOB_COMPLETED && below.lost_ends) {
        below.lost_ends--;
        return -ENOMEM;
    }
    return __real_store_apply(store, changes, count);
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

Test(faults, the_end_of_a_job_is_told_again_when_memory_lacks)
{
    struct answer answer;
    char job[37];

    below.lost_ends = 2;
    pair_attach(&rig, source, target, 4, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect_eq(below.lost_ends, 0);
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Resync\"}"); /* its place is free */
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
}

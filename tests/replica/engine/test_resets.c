/* Jobs that share a LUN, each by a session of its own: who opens it anew has it reset, which
 * takes from the others what they have not flushed. On the simulated loop: a life of minutes,
 * replayed from a seed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/block/memory.h"
#include "replica/loop/sim.h"
#include "replica/runner.h"
#include "tests/support/seed.h"

enum {
    JOBS = 3,
    SIZE = 24 << 20,
    LIMIT = 256 << 10, /* bytes a second: a minute and a half */
    RECOVERY_MS = 30000,
    AWAY_MS = 700, /* after it was killed */
    STEPS = 4000000,
    SEEDS = 4
};

/* -- a LUN of many sessions ------------------------------------------------------------ */

/* One session. What it is told of a reset it is told at its next answer, as a unit
   attention; with writes that no flush covers it gives itself up. */
struct nexus {
    struct block_device base;
    struct block_device *under;
    struct nexus *next;
    bool attention;
    unsigned changes, flushed;
    int error; /* broken: what it answers */
};

struct job {
    struct engine_plan plan;
    struct memory_disk *source, *target; /* a range of the LUN of its own */
    struct engine_event last;
    unsigned ended, started;
};

static struct {
    struct engine engine;
    struct lane lane;
    struct job jobs[JOBS];
    struct nexus *nexuses;
    struct instant back_at; /* until then nothing answers */
    unsigned resets;
    bool answers; /* what is out at a reset is answered, and the session left in order */
} world;

static struct nexus *nexus_of(struct block_device *device)
{
    return container_of(device, struct nexus, base);
}

static void nexus_break(struct nexus *nexus, int error, bool returns, const char *why)
{
    if (nexus->base.broken)
        return;
    nexus->base.broken = true;
    nexus->base.returns = returns;
    nexus->base.answered = returns && world.answers;
    nexus->error = error;
    block_set_words(&nexus->base, "%s", why);
}

static void nexus_told(struct nexus *nexus)
{
    if (nexus->attention && nexus->changes != nexus->flushed)
        nexus_break(nexus, -EIO, true,
                "a reset may have lost writes that were not yet flushed");
    nexus->attention = false;
}

struct passing {
    struct block_request inner, *outer;
    unsigned covers;
};

static void passed(struct block_request *inner, int result)
{
    struct passing *passing = container_of(inner, struct passing, inner);
    struct block_request *outer = passing->outer;
    struct nexus *nexus = nexus_of(outer->device);

    nexus_told(nexus);
    if (nexus->base.broken)
        result = nexus->error;
    else if (block_op_writes(outer->op))
        nexus->changes++;
    else if (outer->op == BLOCK_FLUSH && result == 0)
        nexus->flushed = passing->covers;
    outer->extents_count = inner->extents_count;
    free(passing);
    block_done(outer, result);
}

static void nexus_submit(struct block_device *base, struct block_request *outer)
{
    struct nexus *nexus = nexus_of(base);
    struct passing *passing = calloc(1, sizeof *passing);

    check(passing);
    passing->outer = outer;
    passing->covers = nexus->changes;
    passing->inner = *outer;
    passing->inner.done = passed;
    block_submit(nexus->under, &passing->inner);
}

static void nexus_close(
        struct block_device *base, void (*closed)(void *), void *context)
{
    struct nexus *nexus = nexus_of(base), **link = &world.nexuses;
    struct block_device *under = nexus->under;

    while (*link != nexus)
        link = &(*link)->next;
    *link = nexus->next;
    free(nexus);
    block_close(under, closed, context);
}

static const struct block_ops nexus_ops = {
    .name = "nexus", .submit = nexus_submit, .close = nexus_close
};

static void lun_reset(void)
{
    world.resets++;
    for (struct nexus *nexus = world.nexuses; nexus; nexus = nexus->next)
        nexus->attention = true;
}

/* Its process dies, and is there again after a while. */
static void lun_kill(void)
{
    for (struct nexus *nexus = world.nexuses; nexus; nexus = nexus->next)
        nexus_break(nexus, -ENOTCONN, false, "the session was lost");
    world.back_at = instant_add_ms(loop_now(world.lane.loop), AWAY_MS);
}

static struct block_device *nexus_open(struct memory_disk *disk, bool barrier)
{
    struct nexus *nexus = calloc(1, sizeof *nexus);

    check(nexus);
    nexus->under = memory_disk_open(disk, world.lane.loop, BLOCK_VOLATILE);
    check(nexus->under);
    nexus->base = *nexus->under;
    nexus->base.ops = &nexus_ops;
    if (barrier)
        lun_reset();
    nexus->next = world.nexuses;
    world.nexuses = nexus;
    return &nexus->base;
}

/* -- the engine ------------------------------------------------------------------------ */

static void answer(struct loop_task *task)
{
    struct end *end = container_of(task, struct end, answering);
    end->done(end, end->device, &end->fault);
}

/* "source" or "target", and the number of the job. */
static void open_here(struct end *end, const struct engine_element *element,
        bool writable, bool barrier)
{
    struct job *job = &world.jobs[element->address[6] - '0'];
    bool away = !instant_reached(loop_now(end->loop), world.back_at);

    end->element = *element;
    end->spec.driver = BLOCK_DRIVER_memory;
    end->fault = (struct fault){ 0 };
    end->device = NULL;
    if (!writable)
        end->device = memory_disk_open(job->source, end->loop, BLOCK_READ_ONLY);
    else if (away)
        fault_set(&end->fault, -ECONNREFUSED, "nobody listens");
    else
        end->device = nexus_open(job->target, barrier);
    if (end->device)
        end->found = (struct engine_found){ .size = end->device->size };
    end->answering.run = answer;
    loop_post(end->loop, &end->answering);
}

static void on_event(void *context, const struct engine_event *event)
{
    (void)context;
    for (unsigned i = 0; i < JOBS; i++) {
        struct job *job = &world.jobs[i];
        if (!uuid_equal(&job->plan.id, &event->id))
            continue;
        cr_assert(!job->ended && event->watermark >= job->last.watermark);
        job->last = *event;
        job->started += event->kind == ENGINE_STARTED;
        job->ended += event->kind == ENGINE_ENDED;
    }
}

static void job_init(struct job *job, unsigned number)
{
    job->plan = (struct engine_plan){
        .id = uuid_make(), .work = ENGINE_COPY, .limit = LIMIT, .priority = 3
    };
    (void)snprintf(job->plan.source.address, 16, "source%u", number);
    (void)snprintf(job->plan.target.address, 16, "target%u", number);
    job->source = memory_disk_create(SIZE, 512);
    job->target = memory_disk_create(SIZE, 512);
    check(job->source && job->target);
    for (uint64_t i = 0; i < SIZE; i++)
        memory_disk_bytes(job->source)[i] = (uint8_t)((i * (31 + 2 * number)) >> 7 | 1);
    memory_disk_settle(job->source);
}

static void world_init(uint64_t seed)
{
    memset(&world, 0, sizeof world);
    world.lane.loop = loop_sim_create(seed);
    check(world.lane.loop);
    world.lane.engine = &world.engine;
    world.engine = (struct engine){ .lanes = &world.lane,
        .lane_count = 1,
        .open = open_here,
        .event = on_event,
        .recovery_ms = RECOVERY_MS,
        .stall_ms = 10000,
        .isid_base = seed,
        .credentials = -1,
        .digests = -1 };
    pthread_mutex_init(&world.engine.lock, NULL);
    pthread_cond_init(&world.engine.changed, NULL);
    for (unsigned i = 0; i < JOBS; i++)
        job_init(&world.jobs[i], i);
}

static void world_finish(void)
{
    for (unsigned i = 0; i < JOBS; i++) {
        memory_disk_destroy(world.jobs[i].source);
        memory_disk_destroy(world.jobs[i].target);
    }
    loop_destroy(world.lane.loop);
    pthread_cond_destroy(&world.engine.changed);
    pthread_mutex_destroy(&world.engine.lock);
}

static bool until(bool (*reached)(void))
{
    for (unsigned i = 0; i < STEPS && !reached(); i++)
        check(loop_sim_step(world.lane.loop));
    return reached();
}

static bool all_moved(void)
{
    for (unsigned i = 0; i < JOBS; i++)
        if (world.jobs[i].plan.limit && !world.jobs[i].last.watermark)
            return false;
    return true;
}

static bool all_ended(void)
{
    for (unsigned i = 0; i < JOBS; i++)
        if (world.jobs[i].plan.limit && !world.jobs[i].ended)
            return false;
    return true;
}

/* -- tests ------------------------------------------------------------------------------ */

/* The far side dies once. Each job that comes back resets what the others had begun, and is
   told so by theirs: nobody fails for that, and nothing is wrong in the end. */
static void war(uint64_t seed, bool answers)
{
    unsigned jobs = 2 + (unsigned)(seed % (JOBS - 1));

    world_init(seed);
    world.answers = answers;
    for (unsigned i = 0; i < JOBS; i++)
        world.jobs[i].plan.limit = i < jobs ? LIMIT : 0;
    for (unsigned i = 0; i < jobs; i++)
        cr_assert(engine_start(&world.engine, &world.jobs[i].plan) == 0);
    cr_assert(until(all_moved));
    lun_kill();
    cr_assert(until(all_ended), "seed %" PRIu64 ": it never ends", seed);
    for (unsigned i = 0; i < jobs; i++) {
        struct job *job = &world.jobs[i];
        cr_assert(job->last.end == ENGINE_DONE,
                "seed %" PRIu64 ": job %u: %s, at %" PRIu64, seed, i,
                job->last.fault.why, job->last.watermark);
        cr_assert(memcmp(memory_disk_bytes(job->source), memory_disk_bytes(job->target),
                          SIZE) == 0);
    }
    if (answers) /* what was given up in order needs no barrier: there is peace */
        cr_assert_eq(
                world.resets, jobs, "seed %" PRIu64 ": %u resets", seed, world.resets);
    world_finish();
}

Test(resets, jobs_that_share_a_lun_take_turns)
{
    uint64_t seed = seed_take("resets");

    for (unsigned i = 0; i < SEEDS; i++)
        war(seed + i, false);
}

Test(resets, jobs_that_leave_a_lun_in_order_disturb_nobody)
{
    uint64_t seed = seed_take("resets");

    for (unsigned i = 0; i < SEEDS; i++)
        war(seed + i, true);
}

/* What the engine is told, and what its words become: plans from rows, ends from events. */
#include <errno.h>

#include "tests/api/small_pair.h"

TestSuite(plans, .init = small_pair_begin, .fini = small_pair_end);

static struct store_job job_of(enum job_work work, int64_t state)
{
    bool back = work == JOB_RESTORE;

    return (struct store_job){ .id = uuid_make(),
        .method = "CreateReplica",
        .work = work,
        .state = state,
        .priority = 1,
        .source = uuid_of(back ? target : source),
        .target = uuid_of(back ? source : target),
        .replica = uuid_of(target),
        .submitted = 1000,
        .started = 3000,
        .total = SIZE,
        .done = 4096,
        .limit = 88,
        .return_value = 4096 };
}

/* -- plans -------------------------------------------------------------------------------- */

struct building {
    const struct store_replica *replica;
    const struct store_job *job;
    struct engine_plan plan;
    struct fault fault;
    bool built;
};

static bool build_work(struct clerk_turn *turn, void *context)
{
    struct building *building = context;

    building->built = plan_build(
            turn, building->replica, building->job, &building->plan, &building->fault);
    return false;
}

static struct building built(
        const struct store_replica *replica, const struct store_job *job)
{
    struct building building = { .replica = replica, .job = job };

    expect_eq(clerk_call(rig.service->clerk, build_work, &building), 0);
    return building;
}

Test(plans, a_first_run_trusts_its_fresh_target_a_second_does_not)
{
    struct store_replica replica = pair_made(source, target, 4, 2);
    struct store_job job = job_of(JOB_COPY, CIM_JOB_NEW);
    struct building first, second;

    job.started = 0;
    job.target_zero = true;
    job.verify = true;
    first = built(&replica, &job);
    expect(first.built && first.plan.target_zero && !first.plan.resumed);
    expect(first.plan.verify && first.plan.work == ENGINE_COPY);
    expect_eq(first.plan.watermark, 0);
    expect_eq(first.plan.limit, 88);
    expect_eq(first.plan.priority, 1);
    expect(uuid_equal(&first.plan.id, &job.id));
    expect_eq(first.plan.source.size, SIZE);
    expect_eq(first.plan.target.size, 2 * SIZE);
    job.started = 1;
    job.watermark = 65536;
    job.verified = 4096;
    job.skipped_equal = 2;
    job.read = 7;
    job.skipped = 4096;
    job.written = 61440;
    second = built(&replica, &job);
    expect(second.built && !second.plan.target_zero && second.plan.resumed);
    expect_eq(second.plan.watermark, 65536);
    expect_eq(second.plan.skipped, 4096);
    expect_eq(second.plan.written, 61440);
    expect_eq(second.plan.verified, 4096);
    expect_eq(second.plan.equal, 2);
    expect_eq(second.plan.read, 7);
}

Test(plans, restore_runs_back_over_no_more_than_the_source)
{
    struct store_replica replica = pair_made(source, target, 4, 10);
    struct store_job job = job_of(JOB_RESTORE, CIM_JOB_NEW);
    struct building back = built(&replica, &job);

    expect(back.built && back.plan.work == ENGINE_DELTA);
    expect(strstr(back.plan.source.address, target));
    expect(strstr(back.plan.target.address, source));
    expect_eq(back.plan.source.size, SIZE);
    expect_eq(back.plan.source.whole, 2 * SIZE);
}

Test(plans, a_scan_is_fenced_only_after_one_that_never_ended)
{
    struct store_replica replica = pair_made(source, target, 2, 6);
    struct building scan = built(&replica, NULL);

    expect(scan.built && scan.plan.work == ENGINE_DELTA && !scan.plan.resumed);
    expect(uuid_equal(&scan.plan.id, &replica.id));
    expect_eq(scan.plan.limit, 77);
    expect_eq(scan.plan.priority, 1);
    replica.scan_started = 5;
    scan = built(&replica, NULL);
    expect(scan.plan.resumed);
}

Test(plans, a_hold_bears_the_pairs_name)
{
    struct store_replica replica = pair_made(source, target, 4, 3);
    struct store_job job = job_of(JOB_PREPARE, CIM_JOB_NEW);
    struct building hold = built(&replica, &job);

    expect(hold.built && hold.plan.work == ENGINE_HOLD);
    expect(uuid_equal(&hold.plan.id, &replica.id));
}

Test(plans, what_is_not_complete_is_not_read)
{
    struct store_replica replica = pair_made(source, target, 4, 2);
    struct store_job job = job_of(JOB_COPY, CIM_JOB_NEW);
    struct store_element element = element_row(&rig, source);
    struct building building;

    element.complete = false;
    plant(&rig, STORE_ELEMENT, &element);
    building = built(&replica, &job);
    expect(!building.built && building.fault.error == -EBUSY);
    uproot(&rig, STORE_ELEMENT, &element);
    building = built(&replica, &job);
    expect(!building.built && building.fault.error == -ENOENT);
}

Test(plans, a_pipes_credentials_are_the_targets)
{
    struct store_pipe pipe = {
        .id = uuid_make(), .name = "p", .credentials = "array-b", .limit = 99
    };
    struct store_replica replica = pair_made(source, target, 2, 5);
    struct store_job job = job_of(JOB_RESYNC, CIM_JOB_NEW);
    struct building building;

    plant(&rig, STORE_PIPE, &pipe);
    replica.pipe = pipe.id;
    building = built(&replica, &job);
    expect_str(building.plan.target.credentials, "array-b");
    expect_str(building.plan.source.credentials, "");
    expect(uuid_equal(&building.plan.pipe, &pipe.id));
    expect_eq(building.plan.pipe_limit, 99);
    expect_eq(building.plan.limit, 88);
    job = job_of(JOB_RESTORE, CIM_JOB_NEW);
    building = built(&replica, &job);
    expect_str(building.plan.source.credentials, "array-b");
}

/* -- ends ---------------------------------------------------------------------------------- */

struct ending_of {
    struct store_job *job;
    struct job_ending ending;
};

static bool end_work(struct clerk_turn *turn, void *context)
{
    struct ending_of *of = context;

    job_end(turn, of->job, &of->ending);
    return true;
}

struct end_row {
    int64_t type, pair;
    enum job_work work;
    int64_t wanted;
    enum engine_end end;
    int64_t job_after, pair_after; /* pair 0: gone */
    int value;
};

static const struct end_row ends[] = {
    { 2, 5, JOB_COPY, 0, ENGINE_DONE, 7, 6, 0 },
    { 4, 5, JOB_COPY, 0, ENGINE_DONE, 7, 14, 0 },
    { 5, 5, JOB_COPY, 0, ENGINE_DONE, 7, 0, 0 },
    { 4, 15, JOB_COPY, 0, ENGINE_DONE, 7, 14, 0 },
    { 4, 5, JOB_RESYNC, 0, ENGINE_DONE, 7, 14, 0 },
    { 2, 7, JOB_RESYNC, WANT_TERMINATE, ENGINE_DONE, 7, 13, 0 },
    { 2, 8, JOB_RESYNC, WANT_SUSPEND, ENGINE_DONE, 7, 9, 0 },
    { 2, 10, JOB_RESTORE, 0, ENGINE_DONE, 7, 13, 0 },
    { 4, 10, JOB_RESTORE, 0, ENGINE_DONE, 7, 14, 0 },
    { 4, 3, JOB_PREPARE, 0, ENGINE_DONE, 7, 4, 0 },
    { 4, 5, JOB_COPY, WANT_SUSPEND, ENGINE_STOPPED, 5, 5, 4096 },
    { 4, 8, JOB_COPY, WANT_SUSPEND, ENGINE_STOPPED, 5, 9, 4096 },
    { 4, 5, JOB_COPY, WANT_TERMINATE, ENGINE_STOPPED, 8, 12, 4 },
    { 5, 5, JOB_COPY, WANT_TERMINATE, ENGINE_STOPPED, 8, 12, 4 },
    { 4, 5, JOB_COPY, WANT_KILL, ENGINE_STOPPED, 9, 12, 4 },
    { 4, 15, JOB_COPY, WANT_STOP_COPY, ENGINE_STOPPED, 8, 2, 4 },
    { 5, 5, JOB_COPY, WANT_STOP_COPY, ENGINE_STOPPED, 8, 0, 4 },
    { 2, 7, JOB_COPY, WANT_TERMINATE, ENGINE_STOPPED, 8, 13, 4 },
    { 2, 7, JOB_COPY, WANT_TERMINATE, ENGINE_FAILED, 8, 13, 4 },
    { 4, 5, JOB_COPY, WANT_KILL, ENGINE_FAILED, 9, 12, 4 },
    { 4, 5, JOB_COPY, 0, ENGINE_FAILED, 10, 12, 3 },
    { 4, 5, JOB_COPY, WANT_SUSPEND, ENGINE_FAILED, 10, 12, 3 },
    { 4, 8, JOB_COPY, WANT_SUSPEND, ENGINE_FAILED, 10, 12, 3 },
    { 4, 3, JOB_PREPARE, 0, ENGINE_FAILED, 10, 12, 3 },
};

static void end_check(size_t n, const struct end_row *row)
{
    struct store_replica replica = pair_made(source, target, row->type, row->pair);
    struct store_job job = job_of(
            row->work, row->wanted > 5 ? CIM_JOB_SHUTTING_DOWN : CIM_JOB_RUNNING);
    struct ending_of of = { .job = &job, .ending = { .end = row->end } };
    bool there;

    job.wanted = row->wanted;
    replica.job = job.id;
    plant(&rig, STORE_JOB, &job);
    plant(&rig, STORE_REPLICA, &replica);
    if (row->end == ENGINE_FAILED)
        fault_set(&of.ending.fault, -ETIMEDOUT, "no answer");
    expect_eq(clerk_call(rig.service->clerk, end_work, &of), 0);
    job = job_row(&rig, job.id.text);
    there = replica_row(&rig, target, &replica);
    cr_assert(job.state == row->job_after && job.return_value == row->value,
            "row %zu: job %d, value %d", n, (int)job.state, (int)job.return_value);
    cr_assert((there ? replica.sync_state : 0) == row->pair_after, "row %zu: pair %d",
            n, there ? (int)replica.sync_state : 0);
    expect_eq(job.wanted, 0);
    expect((job.ended != 0) == job_is_over(job.state));
    expect((job.percent == 100) == (job.state == CIM_JOB_COMPLETED));
    if (row->end == ENGINE_FAILED && job.state == CIM_JOB_EXCEPTION) {
        expect_eq(job.error_code, 3);
        expect_eq(job.error_type, CIM_ERROR_COMMUNICATIONS);
        expect_eq(job.probable_cause, CIM_CAUSE_TIMEOUT);
        expect(strstr(job.error, "no answer"));
    }
    if (!there)
        return;
    expect(uuid_is_none(&replica.job) == job_is_over(job.state));
    expect((replica.last_error[0] != '\0') == (replica.sync_state == CIM_SYNC_BROKEN));
    /* The time that a whole copy stands for is its start. */
    if (row->end == ENGINE_DONE && (row->work == JOB_COPY || row->work == JOB_RESYNC))
        expect_eq(replica.when_synced, 3000);
    else
        expect_eq(replica.when_synced, 2000);
    if (row->pair_after == CIM_SYNC_QUIESCED && row->end == ENGINE_DONE)
        expect_eq(replica.state_before, CIM_SYNC_SYNCHRONIZED);
    uproot(&rig, STORE_REPLICA, &replica);
}

Test(plans, every_end_of_a_job)
{
    for (size_t n = 0; n < sizeof(ends) / sizeof(*ends); n++)
        end_check(n, &ends[n]);
}

static bool scan_work(struct clerk_turn *turn, void *context)
{
    struct job_ending ending = { .end = ENGINE_DONE };

    scan_ended(turn, context, &ending);
    return true;
}

Test(plans, a_whole_scan_stands_for_its_start)
{
    struct store_replica replica = pair_made(source, target, 2, CIM_SYNC_SYNCHRONIZED);

    replica.scan_started = clock_wall_ms() - 10000;
    replica.scan_due = 1;
    plant(&rig, STORE_REPLICA, &replica);
    expect_eq(clerk_call(rig.service->clerk, scan_work, &replica.id), 0);
    int64_t started = replica.scan_started;
    expect(replica_row(&rig, target, &replica));
    expect_eq(replica.when_synced, started);
    expect_eq(replica.scan_due, started + 150000);
    expect_eq(replica.scan_started, 0);
}

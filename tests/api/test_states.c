/* ModifySynchronization through api_serve(): every cell of the table, and what the operations
 * do to jobs that really run.
 */
#include <fcntl.h>

#include "tests/api/cim/grids.h"
#include "tests/api/pairs.h"

static struct rig rig;
static char source[37], target[37];

enum { SIZE = 128 * 1024 };

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
    rig_element(&rig, "StorageVolume", SIZE, source);
    rig_element(&rig, "StorageVolume", SIZE, target);
    pair_noise(&rig, source, SIZE, 21);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(states, .init = begin, .fini = end);

static struct answer modify(int64_t operation)
{
    return rig_callf(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":%d}", (int)operation);
}

/* -- the walk ------------------------------------------------------------------------------ */

static int64_t planted_before(int64_t copy_type, int64_t state)
{
    if (state == CIM_SYNC_PREPARED)
        return CIM_SYNC_INITIALIZED;
    return copy_type == CIM_COPY_UNSYNC_ASSOC ? CIM_SYNC_FROZEN : CIM_SYNC_SYNCHRONIZED;
}

/** The pair as if it had come to @state; @job: with a suspended job. */
static struct store_job planted(int64_t copy_type, int64_t state, bool job)
{
    struct store_replica replica = { .id = uuid_of(target),
        .source = uuid_of(source),
        .copy_type = copy_type,
        .sync_state = state,
        .state_before = planted_before(copy_type, state),
        .copy_priority = 2,
        .replica_type = 2,
        .when_established = clock_wall_ms(),
        .when_synced = clock_wall_ms(),
        .rpo = 300,
        .recovery_mode = 2 };
    struct store_element element = element_row(&rig, target);
    struct store_job row = { .id = uuid_make(),
        .method = "CreateReplica",
        .work = JOB_COPY,
        .state = CIM_JOB_SUSPENDED,
        .priority = 2,
        .source = replica.source,
        .target = replica.id,
        .replica = replica.id,
        .submitted = clock_wall_ms(),
        .started = clock_wall_ms(),
        .total = SIZE,
        .return_value = 4096 };

    element.complete = true;
    plant(&rig, STORE_ELEMENT, &element);
    if (job) {
        replica.job = row.id;
        if (state == CIM_SYNC_QUIESCED && copy_type == CIM_COPY_UNSYNC_ASSOC)
            replica.state_before = CIM_SYNC_RESYNC_IN_PROGRESS;
        plant(&rig, STORE_JOB, &row);
    }
    plant(&rig, STORE_REPLICA, &replica);
    return row;
}

static void cleared(const struct store_job *job)
{
    struct store_replica replica;
    struct answer answer;

    if (replica_row(&rig, target, &replica) &&
            replica.sync_state == CIM_SYNC_PREPARED &&
            replica.copy_type != CIM_COPY_UNSYNC_UNASSOC) {
        answer = modify(CIM_OP_DETACH); /* closes what is held */
        expect_answer(&answer, DONE, 0);
        answer_release(&answer);
    } else if (replica_row(&rig, target, &replica)) {
        uproot(&rig, STORE_REPLICA, &replica);
    }
    if (job)
        uproot(&rig, STORE_JOB, job);
}

struct cell {
    int64_t type, state, operation;
    const char *text;
};

static void cell_expect(
        const struct cell *cell, struct answer *answer, const char *verdict, int value)
{
    cr_assert(strcmp(verdict_name(answer->outcome.verdict), verdict) == 0 &&
                    answer->outcome.return_value == value,
            "CopyType %d, state %d, operation %d: %s %d, not %s %d: %s",
            (int)cell->type, (int)cell->state, (int)cell->operation,
            verdict_name(answer->outcome.verdict), answer->outcome.return_value,
            verdict, value, answer_detail(answer));
}

/** 0: gone. */
static int64_t cell_final(const struct cell *cell, const char *text, int64_t before)
{
    if (*text == 'G')
        return 0;
    if (*text == 'B')
        return before;
    return *text == '=' ? cell->state : atoi(text);
}

/** One call; what it answers and where the pair ends. */
static void cell_walk(const struct cell *cell, bool with_job)
{
    struct store_job job = planted(cell->type, cell->state, with_job);
    struct answer answer = modify(cell->operation);
    const char *arrow = strchr(cell->text, '>');
    int64_t before = cell->operation == CIM_OP_RESTORE
            ? cell->state
            : planted_before(cell->type, cell->state);
    bool rests =
            cell->operation == CIM_OP_FRACTURE || cell->operation == CIM_OP_QUIESCE;
    bool resumes = with_job && cell->operation == CIM_OP_UNQUIESCE;
    char started[37];

    if (*cell->text == '.') {
        cell_expect(cell, &answer, "INVALID", 5);
    } else if (*cell->text == 'x') {
        cell_expect(cell, &answer, "STATE", 4);
    } else if (*cell->text == 'b') {
        cell_expect(cell, &answer, "IN_USE", 6);
    } else if (cell->operation == CIM_OP_RESET_TO_SYNC) {
        cell_expect(cell, &answer, "NOT_SUPPORTED", 1);
    } else if ((arrow && !rests) || resumes) {
        cell_expect(cell, &answer, "STARTED", 4096);
        answer_id(&answer, "Job", started);
        if (resumes)
            expect_str(started, job.id.text);
        expect_eq(job_finish(&rig, started).state, CIM_JOB_COMPLETED);
        pair_reach(
                &rig, target, cell_final(cell, arrow ? arrow + 1 : cell->text, before));
    } else {
        cell_expect(cell, &answer, "DONE", 0);
        pair_reach(
                &rig, target, cell_final(cell, arrow ? arrow + 1 : cell->text, before));
    }
    answer_release(&answer);
    cleared(with_job ? &job : NULL);
}

static unsigned row_walk(int64_t type, const char *line, bool with_job)
{
    char text[128], *rest = NULL;
    struct cell cell = { .type = type, .operation = CIM_OP_DETACH };

    (void)snprintf(text, sizeof(text), "%s", line);
    cell.state = atoi(strtok_r(text, " ", &rest));
    for (; (cell.text = strtok_r(NULL, " ", &rest)); cell.operation++)
        if (!with_job || cell.state == CIM_SYNC_RESYNC_IN_PROGRESS ||
                cell.state == CIM_SYNC_COPY_IN_PROGRESS ||
                cell.state == CIM_SYNC_QUIESCED)
            cell_walk(&cell, with_job);
    return (unsigned)(cell.operation - CIM_OP_DETACH);
}

static void grid_walk(int64_t type, const char *const *grid, bool with_job)
{
    unsigned cells = 0;

    for (int row = 0; row < 14; row++)
        cells += row_walk(type, grid[row], with_job);
    expect_eq(cells, 14 * 12);
}

Test(states, every_cell_of_async)
{
    grid_walk(CIM_COPY_ASYNC, async_grid, false);
}

Test(states, every_cell_of_sync)
{
    grid_walk(CIM_COPY_SYNC, sync_grid, false);
}

Test(states, every_cell_of_unsync_assoc)
{
    grid_walk(CIM_COPY_UNSYNC_ASSOC, unsync_assoc_grid, false);
}

Test(states, every_cell_of_unsync_unassoc)
{
    grid_walk(CIM_COPY_UNSYNC_UNASSOC, unsync_unassoc_grid, false);
}

Test(states, with_a_job_that_is_suspended)
{
    grid_walk(CIM_COPY_ASYNC, async_grid, true);
    grid_walk(CIM_COPY_UNSYNC_ASSOC, unsync_assoc_grid, true);
    grid_walk(CIM_COPY_UNSYNC_UNASSOC, unsync_unassoc_grid, true);
}

/* -- with jobs that run --------------------------------------------------------------------- */

/** A copy that takes long: it is limited to what a test outlives. */
static void copy_slowly(int type, char job[37])
{
    pair_attach(&rig, source, target, type, PAIRS_CRAWL, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
}

static void done(struct answer answer)
{
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
}

static struct answer request(const char *job, int state)
{
    return rig_callf(&rig, API_JOB_REQUEST_STATE_CHANGE, (struct asked){ .id = job },
            "{\"RequestedState\":%d}", state);
}

/** Does the array @member of what @call answers of @id say @word? */
static bool lists(
        enum api_call call, const char *id, const char *member, const char *word)
{
    struct answer answer = rig_call(&rig, call, (struct asked){ .id = id }, NULL);
    json_t *value;
    size_t i;
    bool found = false;

    json_array_foreach(json_object_get(answer.json, member), i, value) found |=
            strcmp(json_string_value(value), word) == 0;
    answer_release(&answer);
    return found;
}

static bool may(const char *operation)
{
    return lists(API_REPLICA_GET, target, "Operations", operation);
}

Test(states, a_running_copy_is_quiesced_and_taken_up_again)
{
    struct answer answer;
    char job[37], again[37];

    copy_slowly(4, job);
    pair_reach(&rig, target, CIM_SYNC_RESYNC_IN_PROGRESS);
    done(modify(CIM_OP_QUIESCE));
    expect_eq(job_row(&rig, job).state, CIM_JOB_SUSPENDED);
    pair_reach(&rig, target, CIM_SYNC_QUIESCED);
    /* The job of a quiesced pair is resumed by Unquiesce alone. */
    expect(!lists(API_JOB_GET, job, "Actions", "Start") && may("Unquiesce"));
    answer = request(job, CIM_REQUEST_START);
    expect_answer(&answer, STATE, 4097);
    answer_release(&answer);
    answer = modify(CIM_OP_UNQUIESCE);
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", again);
    expect_str(again, job);
    answer_release(&answer);
    job_unlimit(&rig, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
    expect(pair_equal(&rig, source, target, SIZE));
}

Test(states, a_running_copy_is_fractured)
{
    char job[37];

    copy_slowly(2, job);
    done(modify(CIM_OP_FRACTURE));
    expect_eq(job_row(&rig, job).state, CIM_JOB_TERMINATED);
    expect_eq(job_row(&rig, job).return_value, 4);
    pair_reach(&rig, target, CIM_SYNC_FRACTURED);
    expect(!element_row(&rig, target).complete);
    expect(!may("Restore") && may("Resync")); /* of what is not whole */
}

Test(states, a_running_copy_is_stopped)
{
    struct store_replica replica;
    char job[37];

    copy_slowly(4, job);
    done(modify(CIM_OP_STOP_COPY));
    expect_eq(job_row(&rig, job).state, CIM_JOB_TERMINATED);
    pair_reach(&rig, target, CIM_SYNC_INITIALIZED);
    expect(!element_row(&rig, target).complete);
    done(modify(CIM_OP_DETACH));
    copy_slowly(5, job);
    done(modify(CIM_OP_STOP_COPY));
    expect(!replica_row(&rig, target, &replica));
    expect(!element_row(&rig, target).complete);
}

Test(states, suspend_leaves_the_state_and_resume_goes_on)
{
    struct answer answer;
    struct store_job row;
    char job[37];

    copy_slowly(4, job);
    answer = request(job, CIM_REQUEST_SUSPEND);
    expect_answer(&answer, STARTED, 4096);
    answer_release(&answer);
    row = job_reach(&rig, job, CIM_JOB_SUSPENDED);
    pair_reach(&rig, target, CIM_SYNC_RESYNC_IN_PROGRESS);
    done(request(job, CIM_REQUEST_SUSPEND));
    answer = modify(CIM_OP_DETACH);
    expect_answer(&answer, IN_USE, 6);
    answer_release(&answer);
    job_unlimit(&rig, job);
    answer = request(job, CIM_REQUEST_START);
    expect_answer(&answer, STARTED, 4096);
    answer_release(&answer);
    expect(job_finish(&rig, job).percent == 100);
    expect(job_row(&rig, job).started == row.started);
    answer = request(job, CIM_REQUEST_TERMINATE);
    expect_answer(&answer, STATE, 4097);
    answer_release(&answer);
    expect(pair_equal(&rig, source, target, SIZE));
}

static void broken_by(int state, int64_t end)
{
    struct store_job row;
    struct answer answer;
    char job[37];

    copy_slowly(4, job);
    answer = request(job, state);
    expect_answer(&answer, STARTED, 4096);
    answer_release(&answer);
    row = job_finish(&rig, job);
    expect_eq(row.state, end);
    expect_eq(row.return_value, 4);
    expect(row.percent < 100);
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    done(request(job, state)); /* it is so already */
    answer = modify(CIM_OP_RESYNC);
    job_started(&answer, job);
    job_unlimit(&rig, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    pair_reach(&rig, target, CIM_SYNC_FROZEN);
    expect(pair_equal(&rig, source, target, SIZE));
    expect(element_row(&rig, target).complete);
}

Test(states, a_terminated_copy_breaks_the_pair_and_resync_heals_it)
{
    broken_by(CIM_REQUEST_TERMINATE, CIM_JOB_TERMINATED);
}

Test(states, a_killed_copy_breaks_the_pair_and_resync_heals_it)
{
    broken_by(CIM_REQUEST_KILL, CIM_JOB_KILLED);
}

static long long percent_synced(void)
{
    struct answer answer =
            rig_call(&rig, API_REPLICA_GET, (struct asked){ .id = target }, NULL);
    long long percent = answer_number(&answer, "PercentSynced");

    answer_release(&answer);
    return percent;
}

/** The ratio of /metrics, in hundredths. */
static long ratio_told(void)
{
    static const char name[] = "replicad_relationship_sync_ratio{";
    size_t length;
    char *text = api_metrics(rig.service, &length);
    const char *at = text ? strstr(text, name) : NULL;
    long told = -1;

    if (at && (at = strchr(at, ' ')))
        told = (long)(strtod(at, NULL) * 100 + 0.5);
    free(text);
    return told;
}

/* A resync that ends early has spoilt what the target held: it is not synced to 100 %. */
Test(states, percent_synced_is_what_a_broken_resync_left)
{
    struct answer answer;
    struct store_job row;
    char job[37];

    pair_attach(&rig, source, target, 4, PAIRS_CRAWL, job);
    job_unlimit(&rig, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect_eq(percent_synced(), 100);
    expect_eq(ratio_told(), 100);
    pair_noise(&rig, source, SIZE, 27);
    answer = modify(CIM_OP_RESYNC);
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    expect(percent_synced() < 100);
    expect(ratio_told() < 100);
    answer = request(job, CIM_REQUEST_TERMINATE);
    expect_answer(&answer, STARTED, 4096);
    answer_release(&answer);
    row = job_finish(&rig, job);
    expect_eq(row.state, CIM_JOB_TERMINATED);
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    expect_eq(percent_synced(), row.percent);
    expect_eq(ratio_told(), row.percent);
}

static void copied(int type)
{
    char job[37];

    pair_attach(&rig, source, target, type, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
}

static void operated(int64_t operation, int64_t final)
{
    struct answer answer = modify(operation);
    char job[37];

    job_started(&answer, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    pair_reach(&rig, target, final);
}

Test(states, restore_brings_the_source_back)
{
    copied(4);
    pair_noise(&rig, source, SIZE, 22);
    expect(!pair_equal(&rig, source, target, SIZE));
    operated(CIM_OP_RESTORE, CIM_SYNC_FROZEN);
    expect(pair_equal(&rig, source, target, SIZE));
    expect(element_row(&rig, source).complete);
}

/** A Restore that was terminated: the source is neither the old nor the new. */
static void restore_broken(void)
{
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 4, PAIRS_CRAWL, job);
    job_unlimit(&rig, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    pair_noise(&rig, source, SIZE, 26);
    answer = modify(CIM_OP_RESTORE);
    expect_answer(&answer, STARTED, 4096);
    answer_id(&answer, "Job", job);
    answer_release(&answer);
    answer = request(job, CIM_REQUEST_TERMINATE);
    expect_answer(&answer, STARTED, 4096);
    answer_release(&answer);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_TERMINATED);
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    expect(!element_row(&rig, source).complete);
}

/** Refused with 6, and the way out is named. */
static void refused_for_lack(struct answer answer)
{
    char way[200];

    expect_answer(&answer, IN_USE, 6);
    expect(strstr(answer_detail(&answer), "Restore"));
    snprintf(way, sizeof(way),
            "DELETE /replicas/%s, then POST /replicas/%s/attach "
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":5}",
            target, source, target);
    expect_str(answer_text(&answer, "Remedy"), way);
    answer_release(&answer);
}

Test(states, after_a_broken_restore_the_copy_goes_the_other_way)
{
    struct answer answer;
    char job[37];

    restore_broken();
    refused_for_lack(modify(CIM_OP_RESYNC));
    refused_for_lack(rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":5}", source));
    done(modify(CIM_OP_DETACH));
    pair_attach(&rig, target, source, 5, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(pair_equal(&rig, source, target, SIZE));
    expect(element_row(&rig, source).complete);
    answer = rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":5}", source);
    expect_answer(&answer, STARTED, 4096);
    answer_release(&answer);
}

Test(states, resync_takes_a_new_point_in_time)
{
    struct store_replica before, after;

    copied(4);
    expect(replica_row(&rig, target, &before));
    pair_noise(&rig, source, SIZE, 23);
    operated(CIM_OP_RESYNC, CIM_SYNC_FROZEN);
    expect(pair_equal(&rig, source, target, SIZE));
    expect(replica_row(&rig, target, &after));
    expect(after.when_synced >= before.when_synced);
}

Test(states, a_fractured_mirror_may_be_written_and_restored)
{
    copied(2);
    done(modify(CIM_OP_FRACTURE));
    expect(may("Restore"));
    pair_noise(&rig, target, SIZE, 24);
    operated(CIM_OP_RESTORE, CIM_SYNC_FRACTURED);
    expect(pair_equal(&rig, source, target, SIZE));
    pair_noise(&rig, target, SIZE, 25);
    operated(CIM_OP_RESYNC, CIM_SYNC_SYNCHRONIZED);
    expect(pair_equal(&rig, source, target, SIZE));
}

Test(states, a_prepared_pair_holds_its_ends_until_unprepare)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct store_replica replica;
    struct answer answer;
    char path[PAIRS_PATH];
    int fd;

    answer = rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
            "{\"SourceElement\":\"%s\",\"CopyType\":4,\"Goal\":{"
            "\"InitialSynchronization\":3}}",
            source);
    done(answer);
    expect(element_row(&rig, target).complete);
    operated(CIM_OP_PREPARE, CIM_SYNC_PREPARED);
    element_path(&rig, target, path);
    fd = open(path, O_RDWR);
    expect(fd >= 0);
    expect(fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK); /* held */
    done(modify(CIM_OP_UNPREPARE));
    lock = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
    expect(fcntl(fd, F_OFD_SETLK, &lock) == 0); /* and let go when it answered */
    close(fd);
    expect(replica_row(&rig, target, &replica));
    expect_eq(replica.sync_state, CIM_SYNC_INITIALIZED);
    operated(CIM_OP_PREPARE, CIM_SYNC_PREPARED);
    operated(CIM_OP_START_COPY, CIM_SYNC_FROZEN);
    expect(pair_equal(&rig, source, target, SIZE));
}

Test(states, an_operation_out_of_range)
{
    struct answer answer = modify(14);

    expect_answer(&answer, INVALID, 5);
    answer_release(&answer);
    answer = modify(0x8000);
    expect_answer(&answer, NOT_SUPPORTED, 1);
    answer_release(&answer);
    answer = modify(0);
    expect_answer(&answer, INVALID, 5);
    answer_release(&answer);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target }, "{}");
    expect_answer(&answer, INVALID, 5);
    answer_release(&answer);
}

/* Death at any moment: what was acknowledged is there, whole. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/store/disk.h"
#include "tests/store/rig.h"

static struct rig rig;

static void setup(void)
{
    rig_make(&rig);
}

static void teardown(void)
{
    rig_remove(&rig);
}

TestSuite(crash, .init = setup, .fini = teardown);

/* One acknowledged change: three rows of the same number. */
static int change_apply(uint64_t n)
{
    struct store_element element = { .id = rig_id(n), .size = n };
    struct store_job job = { .id = rig_id(n), .total = n };
    struct store_event event = { .time = (int64_t)n, .changed = "{}" };
    const struct store_change changes[] = { { STORE_PUT, STORE_ELEMENT, &element },
        { STORE_PUT, STORE_JOB, &job }, { STORE_PUT, STORE_EVENT, &event } };

    return store_apply(rig.store, changes, 3);
}

/* As the clerk does it: several in one transaction, one of them taken back. */
static int group_apply(uint64_t *n)
{
    int error = store_begin(rig.store);

    for (unsigned i = 0; i < 8 && !error; i++) {
        error = store_mark(rig.store);
        if (!error)
            error = change_apply(i == 5 ? 1000000 + *n : ++*n);
        if (!error)
            error = i == 5 ? store_undo(rig.store) : store_keep(rig.store);
    }
    return error ? error : store_commit(rig.store);
}

static bool group_step(uint64_t *n, uint64_t *seed)
{
    if (seed_below(seed, 3))
        return change_apply(++*n) == 0;
    if (seed_below(seed, 8) == 0)
        return store_checkpoint(rig.store, seed_below(seed, 2)) == 0;
    return group_apply(n) == 0;
}

/* In the child: change for ever, and tell each number once it is durable. */
static void child_run(uint64_t n, uint64_t seed, int acknowledge)
{
    rig_open(&rig);
    while (group_step(&n, &seed))
        if (write(acknowledge, &n, sizeof(n)) != (ssize_t)sizeof(n))
            break;
    _exit(1);
}

static void row_there(enum store_table table, uint64_t n, uint64_t value)
{
    union store_row row;
    int error = store_get(store_own_reader(rig.store), table, rig_id(n).text, &row);

    cr_assert_eq(error, 0, "%" PRIu64 " was acknowledged and is gone: %d", n, error);
    cr_assert_eq(table == STORE_JOB ? row.job.total : row.element.size, value);
}

static bool is_there(enum store_table table, uint64_t n)
{
    union store_row row;

    return store_get(store_own_reader(rig.store), table, rig_id(n).text, &row) == 0;
}

/* Everything up to @last; beyond it whole changes without a gap; nothing that was undone.
   Returns the last that is there. */
static uint64_t all_there(uint64_t last)
{
    for (uint64_t n = 1; n <= last; n++) {
        row_there(STORE_ELEMENT, n, n);
        row_there(STORE_JOB, n, n);
    }
    for (; is_there(STORE_JOB, last + 1); last++)
        row_there(STORE_ELEMENT, last + 1, last + 1);
    cr_assert(!is_there(STORE_ELEMENT, last + 1), "half a change");
    cr_assert_eq((uint64_t)store_last_event(store_own_reader(rig.store)), last);
    cr_assert_eq((uint64_t)store_count(store_own_reader(rig.store),
                         &(struct store_query){ .table = STORE_JOB, .limit = 1 }),
            last);
    return last;
}

/* Run a child until it has told of @changes more, kill it, return the last it told of. */
static uint64_t child_kill(uint64_t n, uint64_t seed, uint64_t changes)
{
    uint64_t last = n, told;
    int ends[2], status;
    pid_t child;

    cr_assert_eq(pipe(ends), 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        close(ends[0]);
        child_run(n, seed, ends[1]);
    }
    close(ends[1]);
    while (last < n + changes && read(ends[0], &told, sizeof(told)) == sizeof(told))
        last = told;
    cr_assert_geq(last, n + changes, "the child gave up");
    cr_assert_eq(kill(child, SIGKILL), 0);
    while (read(ends[0], &told, sizeof(told)) == sizeof(told))
        last = told;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status));
    close(ends[0]);
    return last;
}

Test(crash, killed_at_any_moment)
{
    uint64_t seed = seed_take("crash"), n = 0;

    for (unsigned round = 0; round < 12; round++) {
        n = child_kill(n, seed_next(&seed), seed_below(&seed, 60));
        rig_open(&rig);
        n = all_there(n);
        rig_close(&rig);
    }
    cr_assert_gt(n, 12);
}

/* The power goes with the process: of each file only what was synced is left. */
Test(crash, power_cut_at_any_moment)
{
    uint64_t seed = seed_take("power"), n = 0;

    disk_install();
    for (unsigned round = 0; round < 8; round++) {
        disk_settle(rig.directory);
        disk_shadows = true;
        n = child_kill(n, seed_next(&seed), seed_below(&seed, 40));
        disk_shadows = false;
        disk_cut(rig.directory);
        rig_open(&rig);
        n = all_there(n);
        rig_close(&rig);
    }
}

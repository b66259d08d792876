/* The disk is full, fails, or memory is short: an answer, and the store goes on. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

TestSuite(faults, .init = setup, .fini = teardown);

static void setting_make(uint64_t n, struct store_setting *row)
{
    memset(row, 0, sizeof(*row));
    row->id = rig_id(n);
    memset(row->body, 'a' + (int)(n % 26), sizeof(row->body) - 1);
}

static int setting_put(uint64_t n)
{
    struct store_setting row;

    setting_make(n, &row);
    return rig_put(&rig, STORE_SETTING, &row);
}

/* Settings 1..@last are there and right, and no others. */
static void settings_there(struct store_reader *reader, uint64_t last)
{
    struct store_query query = { .table = STORE_SETTING, .limit = 1 };
    struct store_setting row, expected;

    for (uint64_t n = 1; n <= last; n++) {
        setting_make(n, &expected);
        cr_assert_eq(store_get(reader, STORE_SETTING, expected.id.text, &row), 0);
        cr_assert(rig_equal(STORE_SETTING, &row, &expected));
    }
    cr_assert_eq((uint64_t)store_count(reader, &query), last);
}

static bool ballast_is_there(void)
{
    return rig_names(&rig, "ballast") == 1;
}

static int state_put(int64_t state)
{
    struct store_job job = { .id = rig_id(1), .state = state };

    return rig_put(&rig, STORE_JOB, &job);
}

/* -- no space ---------------------------------------------------------------------------- */

/* Ends when the mount namespace of this test's process does. */
static bool tmpfs_mount(const char *size)
{
    char options[32];

    snprintf(options, sizeof(options), "size=%s", size);
    return unshare(CLONE_NEWNS) == 0 &&
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
            mount("none", rig.directory, "tmpfs", 0, options) == 0;
}

static void disk_fill(void)
{
    static char block[65536];
    char path[RIG_PATH];
    int fd = open(rig_path(&rig, "filler", path), O_WRONLY | O_CREAT | O_APPEND, 0600);
    size_t size = sizeof(block);

    while (size)
        if (write(fd, block, size) <= 0)
            size /= 2;
    close(fd);
}

static void disk_free(void)
{
    char path[RIG_PATH];

    cr_assert_eq(unlink(rig_path(&rig, "filler", path)), 0);
}

static uint64_t put_until_full(void)
{
    uint64_t n = 0;
    int error;

    while (!(error = setting_put(n + 1)))
        cr_assert_lt(++n, 100000);
    cr_assert_eq(error, -ENOSPC, "%d", error);
    return n;
}

static void unmount(void)
{
    rig_close(&rig);
    cr_assert_eq(umount2(rig.directory, MNT_DETACH), 0);
}

Test(faults, a_full_disk)
{
    uint64_t n;

    if (!tmpfs_mount("24m"))
        cr_skip_test("cannot mount a tmpfs here");
    rig_open(&rig);
    cr_assert(ballast_is_there() && !store_tight(rig.store));
    disk_fill();
    n = put_until_full();
    cr_assert(!ballast_is_there() && store_tight(rig.store));
    settings_there(store_own_reader(rig.store), n);
    for (int64_t state = 2; state < 12; state++)
        cr_assert_eq(state_put(state), 0, "the ballast's space serves state changes");
    cr_assert_eq(store_checkpoint(rig.store, true), 0);
    cr_assert(store_tight(rig.store), "no space yet");
    disk_free();
    cr_assert_eq(store_checkpoint(rig.store, true), 0);
    cr_assert(ballast_is_there() && !store_tight(rig.store));
    cr_assert_eq(setting_put(n + 1), 0);
    rig_close(&rig);
    rig_open(&rig);
    settings_there(store_own_reader(rig.store), n + 1);
    unmount();
}

/* Even the ballast is used up: still an answer, and all of it is there when space comes. */
Test(faults, a_disk_full_to_the_last)
{
    uint64_t n;
    struct store_reader *reader;

    if (!tmpfs_mount("24m"))
        cr_skip_test("cannot mount a tmpfs here");
    rig_open(&rig);
    disk_fill();
    n = put_until_full();
    disk_fill();
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(setting_put(n + 1), -ENOSPC);
    reader = store_reader_take(rig.store, 60000);
    cr_assert(reader, "reading needs no space");
    settings_there(reader, n);
    store_reader_give(rig.store, reader);
    (void)store_checkpoint(rig.store, true);
    rig_close(&rig);
    rig_open(&rig);
    settings_there(store_own_reader(rig.store), n);
    disk_free();
    cr_assert_eq(setting_put(n + 1), 0);
    settings_there(store_own_reader(rig.store), n + 1);
    unmount();
}

/* In the middle of a transaction larger than any cache: doomed, and said so to the end. */
Test(faults, full_in_a_transaction)
{
    uint64_t n = 10;
    int error = 0;

    if (!tmpfs_mount("24m"))
        cr_skip_test("cannot mount a tmpfs here");
    rig_open(&rig);
    cr_assert_eq(setting_put(1), 0);
    disk_fill();
    cr_assert_eq(store_begin(rig.store), 0);
    cr_assert_eq(store_mark(rig.store), 0);
    while (!error && n < 100000)
        error = setting_put(n++);
    cr_assert_eq(error, -ENOSPC);
    cr_assert_eq(setting_put(2), -ENOSPC);
    cr_assert_eq(store_undo(rig.store), -ENOSPC);
    cr_assert_eq(store_mark(rig.store), -ENOSPC);
    cr_assert_eq(setting_put(2), -ENOSPC);
    cr_assert_eq(store_commit(rig.store), -ENOSPC);
    cr_assert(store_tight(rig.store));
    settings_there(store_own_reader(rig.store), 1);
    cr_assert_eq(setting_put(2), 0);
    settings_there(store_own_reader(rig.store), 2);
    unmount();
}

/* A limit of the process is met as an I/O error with EFBIG: no space, not a broken disk. */
Test(faults, a_limit_on_file_size)
{
    struct rlimit limit, before;
    uint64_t n;

    rig_open(&rig);
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 1 << 20;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    n = put_until_full();
    cr_assert_gt(n, 10);
    settings_there(store_own_reader(rig.store), n);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    cr_assert_eq(setting_put(n + 1), 0);
    settings_there(store_own_reader(rig.store), n + 1);
}

/* -- a failing disk ---------------------------------------------------------------------- */

static int64_t wal_size(void)
{
    char path[RIG_PATH];
    struct stat status;

    cr_assert_eq(stat(rig_path(&rig, "replicad.db-wal", path), &status), 0);
    return status.st_size;
}

Test(faults, a_failed_sync_replaces_the_connection)
{
    struct store_reader *own;
    sqlite3 *before;

    disk_install();
    rig_open(&rig);
    own = store_own_reader(rig.store);
    cr_assert_eq(setting_put(1), 0);
    before = own->db;
    disk_plans[DISK_SYNC] = (struct disk_plan){ 1, 1, SQLITE_IOERR_FSYNC, 0 };
    cr_assert_eq(setting_put(2), -EIO);
    cr_assert_eq(disk_plans[DISK_SYNC].failed, 1);
    cr_assert_eq(store_own_reader(rig.store), own, "its address stays");
    cr_assert(own->db && !own->sick);
    settings_there(own, 1);
    cr_assert_neq(own->db, before);
    cr_assert_eq(wal_size(), 0, "nothing stands on what the sync failed on");
    cr_assert_eq(setting_put(2), 0);
    settings_there(own, 2);
}

Test(faults, a_disk_that_keeps_failing_means_read_only)
{
    struct store_reader *reader;

    disk_install();
    rig_open(&rig);
    cr_assert_eq(setting_put(1), 0);
    disk_plans[DISK_SYNC] = (struct disk_plan){ 1, 1000, SQLITE_IOERR_FSYNC, 0 };
    for (unsigned i = 0; i < 6; i++)
        cr_assert_eq(setting_put(2), -EIO);
    cr_assert_leq(disk_plans[DISK_SYNC].failed, 6, "it is left in peace");
    cr_assert_eq(store_begin(rig.store), -EIO);
    cr_assert_eq(store_checkpoint(rig.store, true), -EIO);
    cr_assert_eq(store_expire(rig.store, 1, 1, 1, 1, 1), -EIO);
    reader = store_reader_take(rig.store, 60000);
    cr_assert(reader);
    settings_there(reader, 1);
    store_reader_give(rig.store, reader);
    rig_close(&rig);
    disk_plans[DISK_SYNC].after = 0;
    rig_open(&rig);
    cr_assert_eq(setting_put(2), 0);
    settings_there(store_own_reader(rig.store), 2);
}

/* -- every call, one after the other ------------------------------------------------------ */

static uint64_t acknowledged, tried;

/* A small life. Stops at the first thing that fails for good; notes what was acknowledged. */
static void life(void)
{
    struct store_reader *reader;
    bool quarantined = false;

    acknowledged = tried = 0;
    if (store_open(rig.directory, &rig.store, &quarantined, NULL) != 0)
        return;
    cr_assert(!quarantined, "a failing call is not a corrupt database");
    for (tried = 1; tried <= 6; tried++) {
        if (setting_put(tried) == 0)
            acknowledged = tried;
        else
            break;
        reader = store_reader_take(rig.store, 60000);
        if (reader) {
            struct store_setting row;
            (void)store_get(reader, STORE_SETTING, rig_id(tried).text, &row);
            store_reader_give(rig.store, reader);
        }
        if (tried == 3)
            (void)store_checkpoint(rig.store, true);
    }
    (void)store_expire(rig.store, 1, 1, 1, 1, 1);
    rig_close(&rig);
}

/* What was acknowledged is there; the one that failed may be, if it was cut off after its
   last write, but is whole then. */
static void life_verify(void)
{
    struct store_setting row;
    uint64_t last = acknowledged;

    rig_open(&rig);
    if (store_get(store_own_reader(rig.store), STORE_SETTING, rig_id(last + 1).text,
                &row) == 0)
        cr_assert_leq(++last, tried);
    settings_there(store_own_reader(rig.store), last);
    rig_close(&rig);
}

/* The ballast stays: to make it each time would be most of the work. */
static void life_clear(void)
{
    static const char *const names[] = { "replicad.db", "replicad.db-wal",
        "replicad.db-shm", "replicad.db-journal" };
    char path[RIG_PATH];

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)unlink(rig_path(&rig, names[i], path));
}

static void sweep(enum disk_call call, int code, unsigned times, unsigned step)
{
    unsigned failed, at = 1;

    do {
        disk_plans[call] = (struct disk_plan){ at, times, code, 0 };
        life();
        failed = disk_plans[call].failed;
        disk_plans[call].after = 0;
        life_verify();
        life_clear();
        at += step;
    } while (failed);
    cr_assert_gt(at, 3, "nothing was made to fail");
    cr_log_info("call %d, code %d: %u places", call, code, at);
}

Test(faults, each_sync_fails_once)
{
    disk_install();
    sweep(DISK_SYNC, SQLITE_IOERR_FSYNC, 1, 1);
}

Test(faults, each_write_finds_no_space)
{
    disk_install();
    sweep(DISK_WRITE, SQLITE_FULL, 1, 7);
}

Test(faults, each_write_fails_from_then_on)
{
    disk_install();
    sweep(DISK_WRITE, SQLITE_IOERR_WRITE, 1000000, 11);
}

Test(faults, each_read_fails_once)
{
    disk_install();
    sweep(DISK_READ, SQLITE_IOERR_READ, 1, 7);
}

/* -- memory ------------------------------------------------------------------------------ */

static sqlite3_mem_methods memory;
static unsigned memory_after; /* the n-th allocation from now on fails; 0: none */
static unsigned memory_failed;

static bool memory_planned(void)
{
    if (!memory_after || --memory_after)
        return false;
    memory_failed++;
    return true;
}

static void *memory_take(int size)
{
    return memory_planned() ? NULL : memory.xMalloc(size);
}

static void *memory_change(void *place, int size)
{
    return memory_planned() ? NULL : memory.xRealloc(place, size);
}

static void memory_install(void)
{
    sqlite3_mem_methods ours;

    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory), SQLITE_OK);
    ours = memory;
    ours.xMalloc = memory_take;
    ours.xRealloc = memory_change;
    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_MALLOC, &ours), SQLITE_OK);
}

Test(faults, each_allocation_fails_once)
{
    unsigned at = 1;

    memory_install();
    do {
        memory_failed = 0;
        memory_after = at;
        life();
        memory_after = 0;
        life_verify();
        life_clear();
        at += 1 + at / 8;
    } while (memory_failed);
    cr_assert_gt(at, 100);
    cr_log_info("%u allocations", at);
}

/* Who may open a database, which one, and what becomes of an older one. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/store/rig.h"

static struct rig rig;
static uint64_t remote_type; /* what fstatfs() is made to say; 0: the truth */

/* The linker puts this in the place of the store's call: no network share can be mounted by
   a test that must run everywhere. */
int __real_fstatfs64(int fd, struct statfs *status);
int __wrap_fstatfs64(int fd, struct statfs *status);
int __wrap_fstatfs64(int fd, struct statfs *status)
{
    int result = __real_fstatfs64(fd, status);

    if (remote_type)
        memcpy(&status->f_type, &remote_type, sizeof(status->f_type));
    return result;
}

static void setup(void)
{
    rig_make(&rig);
}

static void teardown(void)
{
    rig_remove(&rig);
}

TestSuite(open, .init = setup, .fini = teardown);

static int open_again(struct fault *fault)
{
    struct store *store;
    bool quarantined = true;
    int error = store_open(rig.directory, &store, &quarantined, fault);

    if (!error)
        store_close(store);
    else
        cr_assert_null(store);
    cr_assert(!quarantined);
    return error;
}

Test(open, a_directory_that_is_none)
{
    struct fault fault = { 0 };
    struct store *store;

    cr_assert_eq(store_open("/nonexistent/x", &store, NULL, &fault), -ENOENT);
    cr_assert_null(store);
    cr_assert_eq(fault.error, -ENOENT);
    cr_assert_neq(fault.why[0], 0);
    cr_assert_null(strstr(fault.why, "nonexistent"), "no path of the host");
    cr_assert_eq(store_open("/dev/null", &store, NULL, &fault), -ENOTDIR);
    cr_assert_eq(store_open("/nonexistent/x", &store, NULL, NULL), -ENOENT);
    store_close(NULL);
}

Test(open, a_second_one_is_refused)
{
    struct fault fault = { 0 };
    int status;
    pid_t child;

    rig_open(&rig);
    cr_assert_eq(open_again(&fault), -EBUSY, "in this process");
    fflush(NULL);
    child = fork();
    if (child == 0)
        _exit(open_again(NULL) == -EBUSY ? 42 : 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 42, "in another process");
    rig_close(&rig);
    cr_assert_eq(open_again(&fault), 0);
}

Test(open, a_network_file_system_is_refused)
{
    struct fault fault = { 0 };

    remote_type = 0x6969;
    cr_assert_eq(open_again(&fault), -EMEDIUMTYPE);
    cr_assert_eq(rig_names(&rig, "replicad"), 0, "nothing is left there");
    remote_type = 0x65735546;
    cr_assert_eq(open_again(&fault), -EMEDIUMTYPE);
    remote_type = 0xff534d42;
    cr_assert_eq(open_again(&fault), -EMEDIUMTYPE);
    remote_type = (uint64_t)(int64_t)(int32_t)0xff534d42;
    cr_assert_eq(open_again(&fault), -EMEDIUMTYPE, "a sign does not hide it");
    remote_type = 0xef53;
    cr_assert_eq(open_again(&fault), 0);
    remote_type = 0;
}

Test(open, files_are_for_the_owner_only)
{
    static const char *const names[] = { "replicad.db", "replicad.db-wal",
        "replicad.lock", "ballast" };
    char path[RIG_PATH];
    struct stat status;

    umask(0);
    rig_open(&rig);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_assert_eq(stat(rig_path(&rig, names[i], path), &status), 0, "%s", names[i]);
        cr_assert_eq(status.st_mode & 0777, 0600, "%s", names[i]);
    }
}

/* The index of the WAL is in memory, so nobody else can be let in. Another process looks: a
   process never sees its own locks. */
Test(open, no_other_process_may_read)
{
    enum { SHARED_FIRST = 0x40000002, SHARED_SIZE = 510 }; /* SQLite's file format */
    struct flock lock = { .l_type = F_RDLCK,
        .l_whence = SEEK_SET,
        .l_start = SHARED_FIRST,
        .l_len = SHARED_SIZE };
    char path[RIG_PATH];
    int status;
    pid_t child;

    rig_open(&rig);
    cr_assert_eq(rig_names(&rig, "-shm"), 0);
    child = fork();
    if (child == 0) {
        int fd = open(rig_path(&rig, "replicad.db", path), O_RDONLY);
        _exit(fd < 0 || fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type != F_WRLCK);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0);
}

Test(open, the_ballast_is_real)
{
    char path[RIG_PATH];
    struct stat status;

    for (unsigned i = 0; i < 3; i++) {
        rig_open(&rig);
        cr_assert_eq(stat(rig_path(&rig, "ballast", path), &status), 0);
        cr_assert_eq(status.st_size, 8 << 20);
        cr_assert_geq((uint64_t)status.st_blocks * 512, 8u << 20);
        cr_assert(!store_tight(rig.store));
        rig_close(&rig);
        if (i == 0)
            cr_assert_eq(truncate(path, 100), 0);
        if (i == 1)
            cr_assert_eq(truncate(path, 0) || truncate(path, 8 << 20), 0);
    }
}

/* Run @sql on the closed database by a connection of our own. */
static void meddle(const char *sql)
{
    char path[RIG_PATH];
    sqlite3 *db;

    cr_assert_eq(sqlite3_open(rig_path(&rig, "replicad.db", path), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s",
            sqlite3_errmsg(db));
    sqlite3_close(db);
}

static uint32_t file_digest(const char *name)
{
    static char bytes[1 << 20];
    char path[RIG_PATH];
    int fd = open(rig_path(&rig, name, path), O_RDONLY);
    ssize_t length = read(fd, bytes, sizeof(bytes));
    uint32_t digest = 5381;

    cr_assert(length > 0 && length < (ssize_t)sizeof(bytes));
    for (ssize_t i = 0; i < length; i++)
        digest = digest * 33 ^ (unsigned char)bytes[i];
    close(fd);
    return digest;
}

Test(open, a_newer_database_is_left_alone)
{
    struct fault fault = { 0 };
    uint32_t before;

    rig_open(&rig);
    rig_close(&rig);
    meddle("PRAGMA user_version = 1000");
    before = file_digest("replicad.db");
    cr_assert_eq(open_again(&fault), -EPROTONOSUPPORT);
    cr_assert(strstr(fault.why, "newer"), "%s", fault.why);
    cr_assert_eq(file_digest("replicad.db"), before);
    cr_assert_eq(rig_names(&rig, "corrupt"), 0);
}

Test(open, a_stranger_is_left_alone)
{
    struct fault fault = { 0 };
    uint32_t before;

    meddle("CREATE TABLE wine (id INTEGER PRIMARY KEY, year INTEGER)");
    before = file_digest("replicad.db");
    cr_assert_eq(open_again(&fault), -EPROTONOSUPPORT);
    cr_assert_eq(file_digest("replicad.db"), before);
    meddle("PRAGMA user_version = 1; PRAGMA application_id = 1");
    cr_assert_eq(open_again(&fault), -EPROTONOSUPPORT);
    cr_assert_eq(rig_names(&rig, "corrupt"), 0);
}

/* -- corrupt ones ----------------------------------------------------------------------- */

/* A new, empty one is open and works; @names databases have been moved aside. */
static void quarantined(unsigned names)
{
    struct fault fault = { 0 };
    struct store_meta row = { .key = "k" };
    bool aside = false;

    cr_assert_eq(
            store_open(rig.directory, &rig.store, &aside, &fault), 0, "%s", fault.why);
    cr_assert(aside);
    cr_assert_eq(rig_names(&rig, "replicad.db.corrupt-") - rig_names(&rig, "Z-wal") -
                    rig_names(&rig, "Z-shm"),
            names);
    cr_assert_eq(
            store_get(store_own_reader(rig.store), STORE_META, "k", &row), -ENOENT);
    cr_assert_eq(rig_put(&rig, STORE_META, &row), 0);
    rig_close(&rig);
    rig_open(&rig);
    cr_assert_eq(store_get(store_own_reader(rig.store), STORE_META, "k", &row), 0);
    rig_close(&rig);
}

static void overwrite(const char *name, long offset, const char *bytes, size_t length)
{
    char path[RIG_PATH];
    int fd = open(rig_path(&rig, name, path), O_WRONLY | O_CREAT, 0600);

    cr_assert_eq(pwrite(fd, bytes, length, offset), (ssize_t)length);
    close(fd);
}

Test(open, garbage_is_moved_aside)
{
    overwrite("replicad.db", 0, "this is no database, only words ...", 35);
    quarantined(1);
    overwrite("replicad.db", 0, "this is no database, only words ...", 35);
    quarantined(2);
}

Test(open, a_broken_header_is_moved_aside)
{
    rig_open(&rig);
    rig_close(&rig);
    overwrite("replicad.db", 0, "SQLite format 4", 16);
    quarantined(1);
}

Test(open, a_broken_tree_is_moved_aside)
{
    char noise[3000];

    memset(noise, 0x5a, sizeof(noise));
    rig_open(&rig);
    rig_close(&rig);
    overwrite("replicad.db", 4096 * 7, noise, sizeof(noise));
    quarantined(1);
}

Test(open, a_wal_without_its_database_is_moved_aside)
{
    overwrite("replicad.db-wal", 0, "what was the newest", 19);
    quarantined(0);
    cr_assert_eq(rig_names(&rig, "Z-wal"), 1);
}

Test(open, a_database_without_its_tables_is_moved_aside)
{
    rig_open(&rig);
    rig_close(&rig);
    meddle("DROP INDEX job_state");
    quarantined(1);
    meddle("DROP TABLE replica");
    quarantined(2);
    meddle("PRAGMA user_version = 0");
    quarantined(3);
}

/* All that belongs together goes together, and under one name. */
Test(open, the_wal_goes_with_its_database)
{
    char noise[4096];

    memset(noise, 0x5a, sizeof(noise));
    rig_open(&rig);
    rig_close(&rig);
    overwrite("replicad.db", 0, noise, sizeof(noise));
    overwrite("replicad.db-wal", 0, noise, sizeof(noise));
    overwrite("replicad.db-shm", 0, noise, sizeof(noise));
    quarantined(1);
    cr_assert_eq(rig_names(&rig, "Z-wal"), 1);
    cr_assert_eq(rig_names(&rig, "Z-shm"), 1);
}

Test(open, a_symbolic_link_is_refused)
{
    char path[RIG_PATH];
    struct fault fault = { 0 };

    cr_assert_eq(symlink("/etc/passwd", rig_path(&rig, "replicad.db", path)), 0);
    cr_assert_lt(open_again(&fault), 0);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(unlink(rig_path(&rig, "replicad.lock", path)), 0);
    cr_assert_eq(symlink("/etc/passwd", path), 0);
    cr_assert_lt(open_again(&fault), 0);
}

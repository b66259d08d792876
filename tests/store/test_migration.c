/* Older databases become ours, step by step, whole or not at all. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

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

TestSuite(migration, .init = setup, .fini = teardown);

static void database_make(const char *sql)
{
    char path[RIG_PATH], *message = NULL;
    sqlite3 *db;

    cr_assert_eq(sqlite3_open(rig_path(&rig, "replicad.db", path), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, &message), SQLITE_OK, "%s", message);
    sqlite3_close(db);
}

static int64_t number_of(const char *sql)
{
    int64_t number = -1;

    cr_assert_eq(handle_number(&rig.store->writer, sql, &number), 0, "%s", sql);
    return number;
}

/* Version 0: a file of no bytes, as a crash right after its making leaves it. */
Test(migration, from_an_empty_file)
{
    char path[RIG_PATH];
    FILE *file = fopen(rig_path(&rig, "replicad.db", path), "w");

    fclose(file);
    rig_open(&rig);
    cr_assert_eq(number_of("PRAGMA user_version"), schema_version);
    cr_assert_eq(number_of("SELECT count(*) FROM sqlite_schema WHERE type = 'table'"
                           " AND name NOT LIKE 'sqlite_%'"),
            STORE_TABLE_COUNT);
}

/* Version 0 again: SQLite's first page is there, nothing of ours. */
Test(migration, from_an_empty_database)
{
    database_make("PRAGMA journal_mode = WAL; VACUUM");
    rig_open(&rig);
    cr_assert_eq(number_of("PRAGMA user_version"), schema_version);
}

/* Version 1 with rows in it, made by statements that are written down here and never change,
   seals included: what a released replicad wrote must stay readable. */
static const char version_1[] =
#include "tests/store/version_1.sql.h"
        ;

Test(migration, from_version_1)
{
    struct store_job job;
    struct store_element element;
    struct store_replica replica;
    struct store_result result;
    struct store_event event;
    struct store_reader *own;

    database_make(version_1);
    rig_open(&rig);
    own = store_own_reader(rig.store);
    cr_assert_eq(number_of("PRAGMA user_version"), schema_version);
    cr_assert_eq(store_get(own, STORE_JOB, rig_id(1).text, &job), 0);
    cr_assert_eq(job.state, 7);
    cr_assert_eq(job.total, UINT64_MAX);
    cr_assert_str_eq(job.method, "CreateReplica");
    cr_assert_eq(store_get(own, STORE_ELEMENT, rig_id(2).text, &element), 0);
    cr_assert_str_eq(element.name, "naïve 🐘");
    cr_assert_eq(element.complete, true);
    cr_assert_eq(store_get(own, STORE_REPLICA, rig_id(3).text, &replica), 0);
    cr_assert_eq(replica.sync_state, 4);
    cr_assert_eq(store_get(own, STORE_RESULT, rig_id(4).text, &result), 0);
    cr_assert_str_eq(result.in, "{\"CopyType\":5}");
    cr_assert_eq(store_get(own, STORE_EVENT, "17", &event), 0);
    cr_assert_eq(store_last_event(own), 17);
}

/* -- the runner, with steps of its own --------------------------------------------------- */

#define FIRST "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1)"
#define SECOND "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 5"
static const char *const steps[] = { FIRST, SECOND,
    "CREATE TABLE b (z INTEGER); UPDATE a SET y = y + 1" };

static struct store_reader plain;

static void plain_open(void)
{
    char path[RIG_PATH];

    database_make("PRAGMA journal_mode = WAL");
    cr_assert_eq(handle_open(&plain, rig_path(&rig, "replicad.db", path), true), 0);
}

static int64_t plain_number(const char *sql)
{
    int64_t number = -1;

    cr_assert_eq(handle_number(&plain, sql, &number), 0, "%s", sql);
    return number;
}

Test(migration, steps_are_taken_in_order_and_once)
{
    struct fault fault = { 0 };

    plain_open();
    for (unsigned version = 0; version <= 3; version++)
        for (unsigned again = 0; again < 2; again++) {
            cr_assert_eq(schema_migrate(&plain, steps, version, &fault), 0);
            cr_assert_eq(plain_number("PRAGMA user_version"), version);
        }
    cr_assert_eq(plain_number("SELECT y FROM a"), 6);
    handle_close(&plain, true);
}

Test(migration, a_step_that_fails_leaves_the_one_before)
{
    static const char *const bad[] = { FIRST, SECOND,
        "CREATE TABLE b (z INTEGER); UPDATE a SET nothing = 1" };
    struct fault fault = { 0 };

    plain_open();
    cr_assert_lt(schema_migrate(&plain, bad, 3, &fault), 0);
    cr_assert_eq(plain_number("PRAGMA user_version"), 2);
    cr_assert_eq(
            plain_number("SELECT count(*) FROM sqlite_schema WHERE name = 'b'"), 0);
    cr_assert_neq(fault.why[0], 0);
    cr_assert_eq(schema_migrate(&plain, steps, 3, &fault), 0);
    cr_assert_eq(plain_number("SELECT y FROM a"), 6);
    handle_close(&plain, true);
}

/* What is committed stays and is seen; what is not, is not. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "tests/store/rig.h"

static struct rig rig;

static void setup(void)
{
    rig_make(&rig);
    rig_open(&rig);
}

static void teardown(void)
{
    rig_remove(&rig);
}

TestSuite(transactions, .init = setup, .fini = teardown);

static int meta_put(const char *key, const char *value)
{
    struct store_meta row = { 0 };

    snprintf(row.key, sizeof(row.key), "%s", key);
    snprintf(row.value, sizeof(row.value), "%s", value);
    return rig_put(&rig, STORE_META, &row);
}

static int meta_delete(const char *key)
{
    struct store_meta row = { 0 };

    snprintf(row.key, sizeof(row.key), "%s", key);
    return rig_delete(&rig, STORE_META, &row);
}

/* The value a reader finds, "" when it finds none. */
static const char *meta_seen(struct store_reader *reader, const char *key)
{
    static struct store_meta row;
    int error = store_get(reader, STORE_META, key, &row);

    cr_assert(error == 0 || error == -ENOENT, "%d", error);
    return error ? "" : row.value;
}

static void seen(const char *key, const char *value)
{
    struct store_reader *reader = store_reader_take(rig.store, 60000);

    cr_assert(reader);
    cr_assert_str_eq(meta_seen(reader, key), value);
    store_reader_give(rig.store, reader);
}

Test(transactions, readers_see_only_what_is_committed)
{
    cr_assert_eq(meta_put("a", "1"), 0);
    seen("a", "1");
    cr_assert_eq(store_begin(rig.store), 0);
    cr_assert_eq(meta_put("a", "2"), 0);
    cr_assert_str_eq(meta_seen(store_own_reader(rig.store), "a"), "2");
    seen("a", "1");
    cr_assert_eq(store_commit(rig.store), 0);
    seen("a", "2");
}

Test(transactions, rollback_takes_everything_back)
{
    cr_assert_eq(store_begin(rig.store), 0);
    cr_assert_eq(meta_put("a", "1"), 0);
    cr_assert_eq(store_mark(rig.store), 0);
    cr_assert_eq(meta_put("b", "1"), 0);
    cr_assert_eq(store_keep(rig.store), 0);
    store_rollback(rig.store);
    seen("a", "");
    seen("b", "");
    cr_assert_eq(store_begin(rig.store), 0);
    cr_assert_eq(store_mark(rig.store), 0);
    cr_assert_eq(meta_put("b", "1"), 0);
    store_rollback(rig.store);
    seen("b", "");
}

Test(transactions, an_undone_step_leaves_the_others)
{
    cr_assert_eq(store_begin(rig.store), 0);
    for (unsigned i = 0; i < 6; i++) {
        char key[8];
        snprintf(key, sizeof(key), "k%u", i);
        cr_assert_eq(store_mark(rig.store), 0);
        cr_assert_eq(meta_put(key, "there"), 0);
        cr_assert_eq(meta_put("shared", key), 0);
        cr_assert_eq(i % 2 ? store_undo(rig.store) : store_keep(rig.store), 0);
    }
    cr_assert_eq(store_commit(rig.store), 0);
    for (unsigned i = 0; i < 6; i++) {
        char key[8];
        snprintf(key, sizeof(key), "k%u", i);
        seen(key, i % 2 ? "" : "there");
    }
    seen("shared", "k4");
}

/* Whatever the transaction around it: a list of changes is made whole or not at all. */
static void whole_or_not(bool inside)
{
    struct store_meta a = { .key = "a", .value = "1" },
                      b = { .key = "b", .value = "1" }, gone = { .key = "gone" };
    const struct store_change changes[] = { { STORE_PUT, STORE_META, &a },
        { STORE_DELETE, STORE_META, &gone }, { STORE_PUT, STORE_META, &b } };

    cr_assert_eq(meta_put("kept", "1"), 0);
    if (inside) {
        cr_assert_eq(store_begin(rig.store), 0);
        cr_assert_eq(meta_put("before", "1"), 0);
    }
    cr_assert_eq(store_apply(rig.store, changes, 3), -ENOENT);
    cr_assert_eq(meta_delete("none"), -ENOENT);
    cr_assert_eq(meta_put("after", "1"), 0);
    if (inside)
        cr_assert_eq(store_commit(rig.store), 0);
    seen("a", "");
    seen("b", "");
    seen("kept", "1");
    seen("after", "1");
    seen("before", inside ? "1" : "");
    cr_assert_eq(meta_put("gone", "x"), 0);
    cr_assert_eq(store_apply(rig.store, changes, 3), 0);
    seen("a", "1");
    seen("b", "1");
    seen("gone", "");
}

Test(transactions, a_list_of_changes_alone)
{
    whole_or_not(false);
}

Test(transactions, a_list_of_changes_inside)
{
    whole_or_not(true);
}

Test(transactions, no_changes_at_all)
{
    cr_assert_eq(store_apply(rig.store, NULL, 0), 0);
    cr_assert_eq(store_begin(rig.store), 0);
    cr_assert_eq(store_commit(rig.store), 0);
}

Test(transactions, what_was_committed_is_there_after_opening_again)
{
    cr_assert_eq(meta_put("a", "1"), 0);
    rig_close(&rig);
    cr_assert_eq(rig_names(&rig, "-wal"), 0, "a clean end leaves no WAL");
    rig_open(&rig);
    seen("a", "1");
}

Test(transactions, events_are_numbered_and_no_number_comes_twice)
{
    struct store_event event = { .kind = "InstCreation", .changed = "{}" };
    struct store_reader *own = store_own_reader(rig.store);

    cr_assert_eq(store_last_event(own), 0);
    cr_assert_eq(store_first_event(own), 0);
    for (unsigned i = 1; i <= 5; i++) {
        cr_assert_eq(rig_put(&rig, STORE_EVENT, &event), 0);
        cr_assert_eq(store_last_event(own), i);
    }
    cr_assert_eq(store_begin(rig.store), 0);
    cr_assert_eq(rig_put(&rig, STORE_EVENT, &event), 0);
    cr_assert_eq(store_last_event(own), 6);
    store_rollback(rig.store);
    cr_assert_eq(store_last_event(own), 5);
    for (int64_t i = 1; i <= 5; i++) {
        event.number = i;
        cr_assert_eq(store_first_event(own), i);
        cr_assert_eq(rig_delete(&rig, STORE_EVENT, &event), 0);
    }
    cr_assert_eq(store_first_event(own), 0);
    cr_assert_eq(store_last_event(own), 5);
    rig_close(&rig);
    rig_open(&rig);
    own = store_own_reader(rig.store);
    cr_assert_eq(store_last_event(own), 5);
    event.number = 0;
    cr_assert_eq(rig_put(&rig, STORE_EVENT, &event), 0);
    cr_assert_eq(store_first_event(own), 6);
}

/* Eight readers, and the ninth waits for one of them until its time is over. */
Test(transactions, readers_are_a_pool)
{
    struct store_reader *readers[STORE_READERS], *ninth;

    for (unsigned i = 0; i < STORE_READERS; i++) {
        readers[i] = store_reader_take(rig.store, 0);
        cr_assert(readers[i]);
        for (unsigned j = 0; j < i; j++)
            cr_assert_neq(readers[i], readers[j]);
    }
    cr_assert_null(store_reader_take(rig.store, 0));
    cr_assert_null(store_reader_take(rig.store, 20));
    store_reader_give(rig.store, readers[3]);
    ninth = store_reader_take(rig.store, 0);
    cr_assert_eq(ninth, readers[3]);
    for (unsigned i = 0; i < STORE_READERS; i++)
        store_reader_give(rig.store, readers[i]);
}

static void *give_back(void *context)
{
    store_reader_give(rig.store, context);
    return NULL;
}

/* Whoever waits is woken, long before its time is over. */
Test(transactions, a_reader_given_back_wakes_a_waiter)
{
    struct store_reader *readers[STORE_READERS], *woken;
    pthread_t giver;

    for (unsigned i = 0; i < STORE_READERS; i++)
        readers[i] = store_reader_take(rig.store, 0);
    cr_assert_eq(pthread_create(&giver, NULL, give_back, readers[5]), 0);
    woken = store_reader_take(rig.store, 3600 * 1000);
    cr_assert_eq(woken, readers[5]);
    cr_assert_eq(pthread_join(giver, NULL), 0);
    for (unsigned i = 0; i < STORE_READERS; i++)
        store_reader_give(rig.store, readers[i]);
}

Test(transactions, readers_cannot_write_nor_checkpoint)
{
    struct store_reader *reader = store_reader_take(rig.store, 0);
    int on = 0, pages = -1;

    cr_assert_eq(meta_put("a", "1"), 0);
    cr_assert_eq(sqlite3_exec(reader->db, "DELETE FROM meta", NULL, NULL, NULL) & 0xff,
            SQLITE_READONLY);
    cr_assert_neq(sqlite3_wal_checkpoint_v2(
                          reader->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, &pages),
            SQLITE_OK);
    cr_assert_eq(
            sqlite3_db_config(reader->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1, &on),
            SQLITE_OK);
    cr_assert_eq(on, 1);
    store_reader_give(rig.store, reader);
    seen("a", "1");
}

/* The pragmas we rely on, asked of the connections themselves. */
Test(transactions, connections_are_configured)
{
    const struct {
        const char *pragma;
        int64_t writer, reader;
    } expected[] = { { "PRAGMA synchronous", 2, -1 }, { "PRAGMA mmap_size", 0, 0 },
        { "PRAGMA trusted_schema", 0, 0 }, { "PRAGMA cell_size_check", 1, 1 },
        { "PRAGMA wal_autocheckpoint", 0, 0 }, { "PRAGMA query_only", 0, 1 },
        { "PRAGMA journal_size_limit", 16777216, -1 },
        { "PRAGMA application_id", 0x52455043 + 0, 0x52455043 + 0 },
        { "PRAGMA user_version", schema_version, schema_version } };
    struct store_reader *reader = store_reader_take(rig.store, 0);
    int64_t number;
    int on = 0;

    for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        /* no row at all: the pragma is off, as mmap_size is when it cannot be on */
        int error = handle_number(&rig.store->writer, expected[i].pragma, &number);
        cr_assert_eq(error ? 0 : number, expected[i].writer, "%s", expected[i].pragma);
        error = handle_number(reader, expected[i].pragma, &number);
        cr_assert(expected[i].reader < 0 || (error ? 0 : number) == expected[i].reader,
                "%s", expected[i].pragma);
    }
    sqlite3_db_config(reader->db, SQLITE_DBCONFIG_DEFENSIVE, -1, &on);
    cr_assert_eq(on, 1);
    sqlite3_db_config(rig.store->writer.db, SQLITE_DBCONFIG_DEFENSIVE, -1, &on);
    cr_assert_eq(on, 1);
    store_reader_give(rig.store, reader);
}

Test(transactions, checkpoints_move_the_wal_home)
{
    struct store_reader *reader;
    char path[RIG_PATH];
    int64_t before = 0;

    for (unsigned i = 0; i < 50; i++)
        cr_assert_eq(meta_put("a", i % 2 ? "1" : "2"), 0);
    cr_assert_gt(store_bytes(rig.store), 50 * 4096);
    reader = store_reader_take(rig.store, 0);
    cr_assert_str_eq(meta_seen(reader, "a"), "1");
    cr_assert_eq(store_checkpoint(rig.store, true), 0);
    before = (int64_t)store_bytes(rig.store);
    rig_path(&rig, "replicad.db", path);
    cr_assert_lt(before, 50 * 4096, "%" PRId64 " bytes after a truncating one", before);
    cr_assert_eq(meta_put("a", "3"), 0);
    cr_assert_eq(store_checkpoint(rig.store, false), 0);
    cr_assert_str_eq(meta_seen(reader, "a"), "3");
    store_reader_give(rig.store, reader);
}

/* The WAL does not grow for ever when nobody asks for a checkpoint. */
Test(transactions, commits_checkpoint_by_themselves)
{
    struct store_setting row = { .id = rig_id(1) };

    memset(row.body, 'x', sizeof(row.body) - 1);
    for (unsigned i = 0; i < 60; i++) {
        cr_assert_eq(store_begin(rig.store), 0);
        for (unsigned j = 0; j < 100; j++) {
            row.id = rig_id(j);
            row.revision = i;
            cr_assert_eq(rig_put(&rig, STORE_SETTING, &row), 0);
        }
        cr_assert_eq(store_commit(rig.store), 0);
    }
    cr_assert_lt(store_bytes(rig.store), 10u << 20, "%" PRIu64, store_bytes(rig.store));
}

/* store/writer.c - the one who writes: transactions, and what is done when they fail.
 *
 * SQLite may end a transaction by itself when the disk is full, memory is short or an I/O call
 * failed, and what follows would then commit piece by piece. So such an error dooms the open
 * transaction: whatever is still asked of it answers the same error, and its end undoes it.
 * A row that is not there, or a name that is taken, does not doom.
 *
 * After a failed fsync the kernel may call pages clean that never reached the disk. The
 * connection that saw it is replaced, the database checked, and its WAL moved home; when that
 * fails again without a commit between, the store stays read-only. What was answered with an
 * error is not there; only after such an end the next start may find it.
 */
#include <errno.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "store/inside.h"

enum {
    CHECKPOINT_PAGES = 1000,
    WAL_ALARM_PAGES = (64 << 20) / 4096,
    SICK_MAX = 2,
    IDLE_BUSY_MS = 20, /* what readers may make an idle checkpoint wait */
    BUSY_MS = 1000
};

/* SQLite calls this within a commit. */
static int wal_grew(void *context, sqlite3 *db, const char *name, int pages)
{
    struct store *store = context;

    (void)db;
    (void)name;
    store->wal_pages = pages;
    return SQLITE_OK;
}

/* Which pragma said it is not what counts: is the database in WAL mode now? */
static int wal_use(struct store_reader *writer)
{
    sqlite3_stmt *stmt = NULL;
    const char *mode;
    int error = 0;
    int rc = sqlite3_prepare_v2(
            writer->db, "PRAGMA journal_mode = WAL", -1, &stmt, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    mode = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
    if (rc != SQLITE_ROW)
        error = handle_error(writer, rc);
    else if (!mode || strcmp(mode, "wal") != 0)
        error = -EMEDIUMTYPE;
    (void)sqlite3_finalize(stmt);
    return error;
}

int writer_open(struct store *store, struct fault *fault)
{
    struct store_reader *writer = &store->writer;
    int error = handle_open(writer, store->path, true);

    if (error)
        return fault_set(
                fault, error, "the database cannot be opened: %s", strerror(-error));
    error = schema_recognize(writer, schema_version, fault);
    if (!error) {
        error = wal_use(writer);
        if (error)
            (void)fault_set(fault, error, "the database cannot keep a WAL");
    }
    if (!error) {
        error = handle_quick_check(writer);
        if (error)
            (void)fault_set(fault, error, "the database is not sound");
    }
    if (error) {
        handle_close(writer, false);
        return error;
    }
    (void)sqlite3_wal_hook(writer->db, wal_grew, store);
    store->wal_pages = store->checkpointed_at = 0;
    return 0;
}

/* The WAL that a sync failed on is moved into the database, which is synced, and emptied: no
   later commit may stand on frames that are only in memory. */
static int wal_renew(struct store *store)
{
    int left = -1;
    int rc;

    errno = 0;
    rc = sqlite3_wal_checkpoint_v2(
            store->writer.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, &left, NULL);
    if (rc != SQLITE_OK)
        return handle_error(&store->writer, rc);
    return left == 0 ? 0 : -EBUSY;
}

static void writer_give_up(struct store *store)
{
    if (!store->said_sick)
        log_plain(LOG_ERROR, "store-read-only",
                "the disk under the database keeps failing: no change is taken until"
                " replicad is started again");
    store->said_sick = true;
}

/* A connection that is not used any more but keeps the index of the WAL alive: made anew from
   the WAL it would take in the commit that has just failed. */
static void writer_park(struct store *store)
{
    sqlite3 *old = handle_detach(&store->writer);

    if (!old)
        return;
    if (store->parked || !sqlite3_get_autocommit(old))
        handle_drop(old, false);
    else
        store->parked = old;
}

/* Replace a connection that is not to be trusted again. */
static void writer_reopen(struct store *store)
{
    struct fault fault = { 0 };
    int error;

    writer_park(store);
    if (store->sick_count >= SICK_MAX) {
        writer_give_up(store);
        return;
    }
    store->sick_count++;
    log_plain(LOG_ERROR, "store-sick",
            "an I/O error under the database: its connection is replaced");
    error = writer_open(store, &fault);
    if (!error)
        error = wal_renew(store);
    if (!error) {
        handle_drop(store->parked, false);
        store->parked = NULL;
        return;
    }
    handle_close(&store->writer, false);
    log_plain(LOG_ERROR, "store-sick", "it cannot be replaced: %s", strerror(-error));
}

/* With no transaction open: answer what the last one met. */
static void writer_settle(struct store *store)
{
    if (store->writer.full) {
        store->writer.full = false;
        ballast_release(store);
    }
    if (store->writer.sick)
        writer_reopen(store);
}

/* A closed connection can be tried again by whoever comes next. */
static int writer_ready(struct store *store)
{
    if (!store->writer.db)
        writer_reopen(store);
    return store->writer.db ? 0 : -EIO;
}

static bool error_dooms(int error)
{
    return error && error != -ENOENT && error != -EEXIST && error != -E2BIG &&
            error != -EINVAL;
}

static int writer_note(struct store *store, int error)
{
    if (error_dooms(error) && !store->doom)
        store->doom = error;
    return error;
}

static int writer_checkpoint(struct store *store, int mode)
{
    int error = 0;
    int rc;

    errno = 0;
    rc = sqlite3_wal_checkpoint_v2(store->writer.db, NULL, mode, NULL, NULL);
    /* Busy: a reader still needs what is in the WAL. Next time, then. */
    if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED)
        error = handle_error(&store->writer, rc);
    writer_settle(store);
    return error;
}

/* After a commit. What fails here is not the commit's failure: that is durable. */
static void writer_tend(struct store *store)
{
    bool large = store->wal_pages > WAL_ALARM_PAGES;

    store->sick_count = 0;
    if (store->wal_pages < store->checkpointed_at)
        store->checkpointed_at = 0; /* the WAL began anew */
    if (large && !store->said_wal)
        log_plain(LOG_WARN, "store-wal",
                "the WAL has grown to %d MiB: a reader holds it open, or the disk "
                "fails",
                store->wal_pages / 256);
    store->said_wal = large;
    if (store->wal_pages - store->checkpointed_at < CHECKPOINT_PAGES)
        return;
    store->checkpointed_at = store->wal_pages;
    (void)writer_checkpoint(store, SQLITE_CHECKPOINT_PASSIVE);
}

/* -- transactions ---------------------------------------------------------------------- */

int store_begin(struct store *store)
{
    int error;

    check(store->state == WRITER_IDLE);
    error = writer_ready(store);
    if (!error)
        error = statement_run(&store->writer, SHAPE_BEGIN);
    if (error == -EBUSY)
        log_plain(LOG_ERROR, "store-busy",
                "another program writes to the database: this must never be");
    if (error) {
        writer_settle(store);
        return error;
    }
    store->state = WRITER_OPEN;
    store->doom = 0;
    return 0;
}

static void writer_end(struct store *store)
{
    struct store_reader *writer = &store->writer;

    if (writer->db && !sqlite3_get_autocommit(writer->db) &&
            statement_run(writer, SHAPE_ROLLBACK) != 0)
        writer->sick = true;
    store->state = WRITER_IDLE;
    store->doom = 0;
    writer_settle(store);
}

int store_commit(struct store *store)
{
    int error;

    check(store->state == WRITER_OPEN ||
            (store->doom && store->state == WRITER_MARKED));
    error = store->doom;
    if (!error)
        error = statement_run(&store->writer, SHAPE_COMMIT);
    writer_end(store);
    if (!error)
        writer_tend(store);
    return error;
}

void store_rollback(struct store *store)
{
    check(store->state != WRITER_IDLE);
    writer_end(store);
}

int store_mark(struct store *store)
{
    int error;

    check(store->state == WRITER_OPEN ||
            (store->doom && store->state == WRITER_MARKED));
    if (store->doom)
        return store->doom;
    error = writer_note(store, statement_run(&store->writer, SHAPE_MARK));
    if (!error)
        store->state = WRITER_MARKED;
    return error;
}

/* @first: what is done with the mark; then it goes. */
static int mark_end(struct store *store, bool undo)
{
    int error = store->doom;

    if (error) {
        store->state = WRITER_OPEN;
        return error;
    }
    check(store->state == WRITER_MARKED);
    if (undo)
        error = statement_run(&store->writer, SHAPE_UNDO);
    if (!error)
        error = statement_run(&store->writer, SHAPE_KEEP);
    store->state = WRITER_OPEN;
    return writer_note(store, error);
}

int store_keep(struct store *store)
{
    check(store->state != WRITER_IDLE);
    return mark_end(store, false);
}

int store_undo(struct store *store)
{
    check(store->state != WRITER_IDLE);
    return mark_end(store, true);
}

/* -- changes --------------------------------------------------------------------------- */

/* 1: a row was changed, 0: none, or a negative errno. */
static int row_write(struct store_reader *writer, enum shape shape,
        enum store_table table, const void *row)
{
    scoped_stmt struct statement statement = { 0 };
    int error = statement_take(writer, shape, &statement);
    int rc;

    if (error)
        return error;
    if (shape < SHAPE_DELETE)
        rc = row_bind(statement.stmt, table, row);
    else
        rc = row_bind_key(statement.stmt, table, row);
    if (rc != SQLITE_OK)
        return handle_error(writer, rc);
    error = statement_step(&statement);
    return error ? error : sqlite3_changes(writer->db) > 0;
}

/* A row that has just been made is not there yet: an UPDATE would find nothing. An event has
   no index, and mostly no number yet: nothing to gain. Only a guess: an UPSERT is right for
   any row. */
static bool row_is_new(enum store_table table, const void *row)
{
    if (table == STORE_EVENT || table == STORE_RESULT)
        return true;
    return row_revision(table, row) == 1;
}

static int change_make(struct store *store, const struct store_change *change)
{
    enum store_table table = change->table;
    int made;

    check((unsigned)table < STORE_TABLE_COUNT);
    if (change->verb == STORE_DELETE) {
        made = row_write(&store->writer, SHAPE_DELETE + table, table, change->row);
        return made == 0 ? -ENOENT : made < 0 ? made : 0;
    }
    check(change->verb == STORE_PUT);
    made = row_is_new(table, change->row)
            ? 0
            : row_write(&store->writer, SHAPE_UPDATE + table, table, change->row);
    if (made == 0)
        made = row_write(&store->writer, SHAPE_UPSERT + table, table, change->row);
    return made < 0 ? made : 0;
}

static int changes_make(
        struct store *store, const struct store_change *changes, size_t count)
{
    int error = 0;

    for (size_t i = 0; i < count && !error; i++)
        error = writer_note(store, change_make(store, &changes[i]));
    return error;
}

/* One statement is all or nothing by itself; several need a savepoint. */
static int changes_make_whole(
        struct store *store, const struct store_change *changes, size_t count)
{
    int error, undone = 0;

    if (store->doom)
        return store->doom;
    if (count == 1)
        return changes_make(store, changes, count);
    error = writer_note(store, statement_run(&store->writer, SHAPE_STEP));
    if (error)
        return error;
    error = changes_make(store, changes, count);
    if (store->doom)
        return error;
    if (error)
        undone = statement_run(&store->writer, SHAPE_STEP_UNDO);
    if (!undone)
        undone = statement_run(&store->writer, SHAPE_STEP_KEEP);
    (void)writer_note(store, undone);
    return error ? error : undone;
}

int store_apply(struct store *store, const struct store_change *changes, size_t count)
{
    int error;

    if (!count)
        return 0;
    if (store->state != WRITER_IDLE)
        return changes_make_whole(store, changes, count);
    error = store_begin(store);
    if (error)
        return error;
    error = changes_make(store, changes, count);
    if (!error)
        return store_commit(store);
    store_rollback(store);
    return error;
}

/* -- housekeeping of the file ---------------------------------------------------------- */

int store_checkpoint(struct store *store, bool idle)
{
    int error;

    check(store->state == WRITER_IDLE);
    error = writer_ready(store);
    if (error)
        return error;
    if (idle) {
        (void)sqlite3_busy_timeout(store->writer.db, IDLE_BUSY_MS);
        error = writer_checkpoint(store, SQLITE_CHECKPOINT_TRUNCATE);
        if (store->writer.db)
            (void)sqlite3_busy_timeout(store->writer.db, BUSY_MS);
        if (!error && store_tight(store))
            ballast_make(store);
    } else {
        error = writer_checkpoint(store, SQLITE_CHECKPOINT_PASSIVE);
    }
    if (!error)
        store->checkpointed_at = store->wal_pages;
    return error;
}

struct store_reader *store_own_reader(struct store *store)
{
    return &store->writer;
}

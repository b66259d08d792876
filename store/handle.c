/* store/handle.c - SQLite connections, opened with every precaution we know of.
 *
 * SQLite before 3.51.3 can lose a WAL when two connections write or checkpoint at once. So
 * exactly one connection of one process writes and checkpoints; readers are read-only, never
 * checkpoint, not even on close. The writer has no automatic checkpoint either: SQLite would
 * swallow its errors, writer.c runs it after a commit and sees them.
 *
 * No other process may open the database while we have it (STORE_LOCK keeps a second replicad
 * away, "unix-excl" everybody else). So the index of the WAL is in our memory, and the locks
 * in it are words, where they would be two fcntl() a read, made under a mutex of all readers.
 */
#include <errno.h>
#include <string.h>

#include "replica/base/log.h"
#include "store/inside.h"

enum { BUSY_MS = 1000, LENGTH_MAX = 16 << 20 };

int handle_sql(struct store_reader *reader, const char *sql)
{
    int rc;

    errno = 0;
    rc = sqlite3_exec(reader->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : handle_error(reader, rc);
}

int handle_blame_file(struct store_reader *reader, int error)
{
    if (error == -EIO && (sqlite3_errcode(reader->db) & 0xff) == SQLITE_ERROR)
        return handle_corrupt(reader, sqlite3_errmsg(reader->db));
    return error;
}

static void stmt_finalize(sqlite3_stmt **stmt)
{
    (void)sqlite3_finalize(*stmt);
}

int handle_number(struct store_reader *reader, const char *sql, int64_t *number)
{
    scoped(stmt_finalize) sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(reader->db, sql, -1, &stmt, NULL);

    if (rc != SQLITE_OK)
        return handle_error(reader, rc);
    rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW)
        return rc == SQLITE_DONE ? -ENOENT : handle_error(reader, rc);
    *number = sqlite3_column_int64(stmt, 0);
    return 0;
}

int handle_quick_check(struct store_reader *reader)
{
    scoped(stmt_finalize) sqlite3_stmt *stmt = NULL;
    const char *verdict;
    int rc = sqlite3_prepare_v2(reader->db, "PRAGMA quick_check(1)", -1, &stmt, NULL);

    if (rc != SQLITE_OK)
        return handle_error(reader, rc);
    rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW)
        return rc == SQLITE_DONE ? -EUCLEAN : handle_error(reader, rc);
    verdict = (const char *)sqlite3_column_text(stmt, 0);
    if (verdict && strcmp(verdict, "ok") == 0)
        return 0;
    log_plain(LOG_ERROR, "store-corrupt", "the database is not sound: %s",
            verdict ? verdict : "no memory");
    return verdict ? -EUCLEAN : -ENOMEM;
}

static void handle_configure(struct store_reader *reader)
{
    static const struct {
        int option, value;
    } options[] = {
        { SQLITE_DBCONFIG_DEFENSIVE, 1 },
        { SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },
        { SQLITE_DBCONFIG_DQS_DDL, 0 },
        { SQLITE_DBCONFIG_DQS_DML, 0 },
        { SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0 },
        { SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 },
        { SQLITE_DBCONFIG_ENABLE_VIEW, 0 },
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        (void)sqlite3_db_config(
                reader->db, options[i].option, options[i].value, (int *)NULL);
    (void)sqlite3_db_config(
            reader->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !reader->writer, (int *)NULL);
    (void)sqlite3_limit(reader->db, SQLITE_LIMIT_LENGTH, LENGTH_MAX);
    (void)sqlite3_limit(reader->db, SQLITE_LIMIT_ATTACHED, 0);
    (void)sqlite3_busy_timeout(reader->db, BUSY_MS);
}

/* None of these changes the file. */
static int handle_pragmas(struct store_reader *reader)
{
    int error = handle_sql(reader,
            "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;"
            "PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0");

    if (error)
        return error;
    if (!reader->writer)
        return handle_sql(reader, "PRAGMA query_only = ON");
    return handle_sql(reader,
            "PRAGMA synchronous = FULL; PRAGMA secure_delete = FAST;"
            "PRAGMA cache_size = -8192; PRAGMA journal_size_limit = 16777216");
}

int handle_open(struct store_reader *reader, const char *path, bool writer)
{
    int flags = writer ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY;
    int rc, error;

    reader->writer = writer;
    reader->sick = reader->full = reader->said_corrupt = false;
    flags |= SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE;
    errno = 0;
    rc = sqlite3_open_v2(path, &reader->db, flags, "unix-excl");
    if (rc != SQLITE_OK) {
        error = reader->db ? handle_error(reader, rc) : -ENOMEM;
        handle_close(reader, false);
        return error;
    }
    handle_configure(reader);
    error = handle_blame_file(reader, handle_pragmas(reader));
    if (error)
        handle_close(reader, false);
    return error;
}

sqlite3 *handle_detach(struct store_reader *reader)
{
    sqlite3 *db = reader->db;

    for (unsigned shape = 0; shape < SHAPE_COUNT_ALL; shape++) {
        struct statements *idle = &reader->idle[shape];
        while (idle->count)
            (void)sqlite3_finalize(idle->stmts[--idle->count]);
    }
    reader->db = NULL;
    return db;
}

void handle_drop(sqlite3 *db, bool checkpoint)
{
    if (!db)
        return;
    (void)sqlite3_db_config(
            db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !checkpoint, (int *)NULL);
    /* v2: a list that is being delivered may still hold a statement. */
    (void)sqlite3_close_v2(db);
}

void handle_close(struct store_reader *reader, bool checkpoint)
{
    handle_drop(handle_detach(reader), checkpoint);
}

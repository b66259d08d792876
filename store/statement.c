/* store/statement.c - every statement of the store: its text, its life, its errors.
 *
 * Texts are made from the descriptors, once in each handle, and prepared statements are kept
 * there. INDEXED BY makes a plan part of the text: SQLite then refuses the statement rather
 * than walk the table when an index is missing.
 *
 * A put is an UPDATE first, of what no index holds, where all that is indexed has not changed
 * (a job's progress): one row is written and no index. Only when that meets no row it is an
 * UPSERT, which removes and enters the row in each of its indexes.
 */
#include <errno.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "store/inside.h"

static const char *const fixed[SHAPE_COUNT_ALL - SHAPE_EVENTS] = {
#define TEXT(shape) [shape - SHAPE_EVENTS]
    TEXT(SHAPE_LAST_EVENT) = "SELECT seq FROM sqlite_sequence WHERE name = 'event'",
    TEXT(SHAPE_FIRST_EVENT) = "SELECT min(number) FROM event",
    TEXT(SHAPE_BEGIN) = "BEGIN IMMEDIATE",
    TEXT(SHAPE_LOOK) = "BEGIN",
    TEXT(SHAPE_COMMIT) = "COMMIT",
    TEXT(SHAPE_ROLLBACK) = "ROLLBACK",
    TEXT(SHAPE_MARK) = "SAVEPOINT mark",
    TEXT(SHAPE_KEEP) = "RELEASE mark",
    TEXT(SHAPE_UNDO) = "ROLLBACK TO mark",
    TEXT(SHAPE_STEP) = "SAVEPOINT step",
    TEXT(SHAPE_STEP_KEEP) = "RELEASE step",
    TEXT(SHAPE_STEP_UNDO) = "ROLLBACK TO step",
    TEXT(SHAPE_JOBS_SPAN) = "SELECT (SELECT max(rowid) FROM job)"
                            " - (SELECT min(rowid) FROM job) + 1",
    TEXT(SHAPE_JOBS_ENDED) = "SELECT count(*) FROM job INDEXED BY job_ended"
                             " WHERE ended > 0",
    /* A state that is no bit of the set must not shift: SQLite would shift in the sign. */
    TEXT(SHAPE_JOBS_EXPIRE) =
            "DELETE FROM job WHERE id IN (SELECT id FROM job INDEXED BY job_ended"
            " WHERE ended > 0 AND ended < ?1 AND state BETWEEN 0 AND 63"
            " AND (?2 >> state) & 1 ORDER BY ended LIMIT ?3)",
    TEXT(SHAPE_RESULTS_SPAN) = "SELECT (SELECT max(rowid) FROM result)"
                               " - (SELECT min(rowid) FROM result) + 1",
    TEXT(SHAPE_RESULTS_EXPIRE) = "DELETE FROM result WHERE id IN (SELECT id FROM "
                                 "result INDEXED BY result_time"
                                 " WHERE time < ?1 ORDER BY time LIMIT ?2)",
    TEXT(SHAPE_EVENTS_WALK) =
            "SELECT number, time FROM event WHERE number > ?1 ORDER BY number",
    TEXT(SHAPE_EVENTS_EXPIRE) = "DELETE FROM event WHERE number <= ?1",
    TEXT(SHAPE_KEYS_EXPIRE) = "DELETE FROM key WHERE \"key\" IN (SELECT \"key\" FROM "
                              "key INDEXED BY key_time"
                              " WHERE time < ?1 ORDER BY time LIMIT ?2)",
#undef TEXT
};

/* `"a", "b", ..., "crc"` */
static void text_columns(sqlite3_str *text, const struct table *table)
{
    for (unsigned i = 0; i < table->count; i++)
        sqlite3_str_appendf(text, "\"%w\", ", table->fields[i].name);
    sqlite3_str_appendall(text, "\"crc\"");
}

static void text_update(sqlite3_str *text, const struct table *table)
{
    sqlite3_str_appendf(text, "UPDATE \"%w\" SET ", table->name);
    for (unsigned i = 1; i < table->count; i++)
        if (!table->fields[i].indexed)
            sqlite3_str_appendf(text, "\"%w\" = ?%u, ", table->fields[i].name, i + 1);
    sqlite3_str_appendf(text, "\"crc\" = ?%u WHERE \"%w\" = ?1", table->count + 1,
            table->fields[0].name);
    /* The + keeps SQLite from looking the row up by anything but its key. */
    for (unsigned i = 1; i < table->count; i++)
        if (table->fields[i].indexed)
            sqlite3_str_appendf(
                    text, " AND +\"%w\" = ?%u", table->fields[i].name, i + 1);
}

static void text_upsert(sqlite3_str *text, const struct table *table)
{
    sqlite3_str_appendf(text, "INSERT INTO \"%w\" (", table->name);
    text_columns(text, table);
    sqlite3_str_appendall(text, ") VALUES (?1");
    for (unsigned i = 1; i <= table->count; i++)
        sqlite3_str_appendf(text, ", ?%u", i + 1);
    sqlite3_str_appendf(
            text, ") ON CONFLICT (\"%w\") DO UPDATE SET ", table->fields[0].name);
    for (unsigned i = 1; i < table->count; i++)
        sqlite3_str_appendf(text, "\"%w\" = excluded.\"%w\", ", table->fields[i].name,
                table->fields[i].name);
    sqlite3_str_appendall(text, "\"crc\" = excluded.\"crc\"");
}

static void text_select(sqlite3_str *text, const struct table *table)
{
    sqlite3_str_appendall(text, "SELECT ");
    text_columns(text, table);
    sqlite3_str_appendf(text, " FROM \"%w\"", table->name);
}

static void text_list(sqlite3_str *text, const struct table *table, const char *by)
{
    const char *key = table->fields[0].name;

    text_select(text, table);
    if (by)
        sqlite3_str_appendf(text, " INDEXED BY \"%w_%w\"", table->name, by);
    sqlite3_str_appendall(text, " WHERE ");
    if (by)
        sqlite3_str_appendf(text, "\"%w\" = ?3 AND ", by);
    sqlite3_str_appendf(text,
            "\"%w\" < ?1 AND \"%w\" >= ?2"
            " ORDER BY \"%w\" DESC",
            key, key, key);
}

static void text_of_table(sqlite3_str *text, enum shape shape)
{
    const struct table *table = table_of(shape % STORE_TABLE_COUNT);

    switch (shape - shape % STORE_TABLE_COUNT) {
    case SHAPE_UPDATE:
        text_update(text, table);
        break;
    case SHAPE_UPSERT:
        text_upsert(text, table);
        break;
    case SHAPE_DELETE:
        sqlite3_str_appendf(text, "DELETE FROM \"%w\" WHERE \"%w\" = ?1", table->name,
                table->fields[0].name);
        break;
    case SHAPE_GET:
        text_select(text, table);
        sqlite3_str_appendf(text, " WHERE \"%w\" = ?1", table->fields[0].name);
        break;
    case SHAPE_LIST:
        text_list(text, table, NULL);
        break;
    default:
        sqlite3_str_appendf(text, "SELECT count(*) FROM \"%w\"", table->name);
        break;
    }
}

static void text_of_column(sqlite3_str *text, enum shape shape)
{
    unsigned word = (unsigned)(shape - SHAPE_LIST_BY) % STORE_COLUMN_COUNT;
    const struct table *table = table_of(column_table(word));
    const char *by = table->fields[column_field(word)].name;

    if (shape < SHAPE_COUNT_BY)
        text_list(text, table, by);
    else
        sqlite3_str_appendf(text,
                "SELECT %s FROM \"%w\" INDEXED BY \"%w_%w\" WHERE \"%w\" = ?1",
                shape < SHAPE_WEIGH_BY ? "count(*)" : "1", table->name, table->name, by,
                by);
}

char *shape_text(enum shape shape)
{
    sqlite3_str *text = sqlite3_str_new(NULL);

    if (shape < SHAPE_LIST_BY) {
        text_of_table(text, shape);
    } else if (shape < SHAPE_EVENTS) {
        text_of_column(text, shape);
    } else if (shape == SHAPE_EVENTS) {
        text_select(text, table_of(STORE_EVENT));
        sqlite3_str_appendall(text, " WHERE number > ?1 ORDER BY number");
    } else {
        check(shape < SHAPE_COUNT_ALL);
        sqlite3_str_appendall(text, fixed[shape - SHAPE_EVENTS]);
    }
    return sqlite3_str_finish(text);
}

static int statement_prepare(
        struct store_reader *reader, enum shape shape, sqlite3_stmt **stmt)
{
    char *text = shape_text(shape);
    int rc;

    if (!text)
        return -ENOMEM;
    rc = sqlite3_prepare_v3(
            reader->db, text, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL);
    sqlite3_free(text);
    return rc == SQLITE_OK ? 0 : handle_error(reader, rc);
}

int statement_take(
        struct store_reader *reader, enum shape shape, struct statement *statement)
{
    struct statements *idle = &reader->idle[shape];
    sqlite3_stmt *stmt = NULL;

    if (!reader->db)
        return -EIO;
    if (idle->count) {
        stmt = idle->stmts[--idle->count];
    } else {
        int error = statement_prepare(reader, shape, &stmt);
        if (error)
            return error;
    }
    *statement = (struct statement){ .reader = reader, .shape = shape, .stmt = stmt };
    return 0;
}

void statement_give(struct statement *statement)
{
    struct statements *idle;

    if (!statement->stmt)
        return;
    (void)sqlite3_reset(statement->stmt);
    (void)sqlite3_clear_bindings(statement->stmt);
    idle = &statement->reader->idle[statement->shape];
    /* A statement of a connection that was replaced meanwhile is not worth keeping. */
    if (idle->count < STATEMENTS_IDLE &&
            sqlite3_db_handle(statement->stmt) == statement->reader->db)
        idle->stmts[idle->count++] = statement->stmt;
    else
        (void)sqlite3_finalize(statement->stmt);
    statement->stmt = NULL;
}

int statement_step(struct statement *statement)
{
    int rc;

    errno = 0;
    rc = sqlite3_step(statement->stmt);
    if (rc == SQLITE_ROW)
        return 1;
    return rc == SQLITE_DONE ? 0 : handle_error(statement->reader, rc);
}

int statement_run(struct store_reader *reader, enum shape shape)
{
    scoped_stmt struct statement statement = { 0 };
    int error = statement_take(reader, shape, &statement);

    if (error)
        return error;
    error = statement_step(&statement);
    return error < 0 ? error : 0;
}

/* A quota or a limit of the process reaches us as an I/O error, and SQLite keeps the errno
   behind it for some calls only: then it is still in errno, cleared before the call. */
static bool error_is_space(struct store_reader *reader, int rc, int number)
{
    if ((rc & 0xff) == SQLITE_FULL)
        return true;
    if ((rc & 0xff) != SQLITE_IOERR && (rc & 0xff) != SQLITE_CANTOPEN)
        return false;
    if (sqlite3_system_errno(reader->db))
        number = sqlite3_system_errno(reader->db);
    return number == ENOSPC || number == EDQUOT || number == EFBIG;
}

/* After these the connection's pages may not be the disk's. */
static bool error_sickens(int rc, bool space)
{
    if ((rc & 0xff) != SQLITE_IOERR || rc == SQLITE_IOERR_NOMEM)
        return false;
    return !space || rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC;
}

int handle_corrupt(struct store_reader *reader, const char *what)
{
    /* Once for a connection: a list may meet a thousand such rows. */
    if (!reader->said_corrupt)
        log_plain(LOG_ERROR, "store-corrupt", "the database is corrupt: %s", what);
    reader->said_corrupt = true;
    return -EUCLEAN;
}

int handle_error(struct store_reader *reader, int rc)
{
    int number = errno;
    bool space = error_is_space(reader, rc, number);

    reader->full = reader->full || space;
    reader->sick = reader->sick || error_sickens(rc, space);
    if (space)
        return -ENOSPC;
    if (rc == SQLITE_IOERR_NOMEM)
        return -ENOMEM;
    switch (rc & 0xff) {
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return handle_corrupt(reader, sqlite3_errmsg(reader->db));
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_BUSY:
        return -EBUSY;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_RANGE:
        return -EINVAL;
    case SQLITE_TOOBIG:
        return -E2BIG;
    default:
        log_plain(LOG_ERROR, "store-error", "SQLite failed: %s (%d, errno %d)",
                sqlite3_errmsg(reader->db), rc, number);
        return -EIO;
    }
}

/* store/inside.h - what the files of store/ share. Private to store/ and its tests.
 *
 * A handle (struct store_reader) is one SQLite connection with its prepared statements. The
 * store has one that writes and checkpoints, the writer's, and up to STORE_READERS that read.
 * A statement is known by its shape, a small number; its text is made from the descriptors of
 * rows.c the first time a handle needs it.
 */
#ifndef STORE_INSIDE_H
#define STORE_INSIDE_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/scope.h"
#include "store/store.h"

/* -- rows.c: the rows described ------------------------------------------------------- */

enum field_kind {
    FIELD_NUMBER, /* int64_t */
    FIELD_SIZE, /* uint64_t; kept as the int64 with the same bits */
    FIELD_FLAG, /* bool: 0 or 1 */
    FIELD_UUID, /* struct uuid, as text */
    FIELD_TEXT, /* char[] with its NUL */
    FIELD_LONG /* const char *, borrowed */
};

/** One column: its name in SQL is the member's name in C. */
struct field {
    const char *name;
    enum field_kind kind;
    size_t offset, size; /* bytes in the row's struct */
    bool indexed; /* some index holds it: a change costs more than the row */
};

/** The first field is the key. */
struct table {
    const char *name;
    size_t row_size;
    const struct field *fields;
    unsigned count;
};

enum { STORE_FIELDS = 64 }; /* no table has as many */

const struct table *table_of(enum store_table table);
enum store_table column_table(enum store_column column);
/** Which field of its table, from 0. */
unsigned column_field(enum store_column column);

/** The row's revision; 0: its table has none. */
int64_t row_revision(enum store_table table, const void *row);

/** Bind every field of @row to ?1.. and the seal after them. SQLITE_OK or an error. */
int row_bind(sqlite3_stmt *stmt, enum store_table table, const void *row);
/** Bind only the key, to ?1. */
int row_bind_key(sqlite3_stmt *stmt, enum store_table table, const void *row);
/** The same for a key in text; an event's number that is none: SQLITE_RANGE. */
int key_bind(sqlite3_stmt *stmt, int at, enum store_table table, const char *key);
/** Read the columns 0.. and check the seal. Long texts are SQLite's until the next step. */
int row_read(sqlite3_stmt *stmt, enum store_table table, void *row);

/* -- statement.c: shapes, texts, errors ----------------------------------------------- */

enum shape {
    SHAPE_UPDATE = 0, /* + table; leaves every index alone */
    SHAPE_UPSERT = SHAPE_UPDATE + STORE_TABLE_COUNT, /* + table */
    SHAPE_DELETE = SHAPE_UPSERT + STORE_TABLE_COUNT, /* + table; ?1 key */
    SHAPE_GET = SHAPE_DELETE + STORE_TABLE_COUNT, /* + table; ?1 key */
    SHAPE_LIST = SHAPE_GET + STORE_TABLE_COUNT, /* + table; ?1 before, ?2 since */
    SHAPE_COUNT = SHAPE_LIST + STORE_TABLE_COUNT, /* + table */
    SHAPE_LIST_BY = SHAPE_COUNT + STORE_TABLE_COUNT, /* + column; ?1, ?2, ?3 value */
    SHAPE_COUNT_BY = SHAPE_LIST_BY + STORE_COLUMN_COUNT, /* + column; ?1 value */
    SHAPE_WEIGH_BY = SHAPE_COUNT_BY + STORE_COLUMN_COUNT, /* + column; ?1 value */
    SHAPE_EVENTS = SHAPE_WEIGH_BY + STORE_COLUMN_COUNT, /* ?1 after */
    SHAPE_LAST_EVENT,
    SHAPE_FIRST_EVENT,
    SHAPE_BEGIN, /* the writer's */
    SHAPE_LOOK, /* a reader's */
    SHAPE_COMMIT,
    SHAPE_ROLLBACK,
    SHAPE_MARK,
    SHAPE_KEEP,
    SHAPE_UNDO,
    SHAPE_STEP, /* store_apply()'s own savepoint inside a transaction */
    SHAPE_STEP_KEEP,
    SHAPE_STEP_UNDO,
    SHAPE_JOBS_SPAN, /* not fewer than there are rows */
    SHAPE_JOBS_ENDED,
    SHAPE_JOBS_EXPIRE, /* ?1 before, ?2 states, ?3 at most */
    SHAPE_RESULTS_SPAN, /* not fewer than there are rows */
    SHAPE_RESULTS_EXPIRE, /* ?1 before, ?2 at most */
    SHAPE_EVENTS_WALK, /* ?1 after */
    SHAPE_EVENTS_EXPIRE, /* ?1 up to */
    SHAPE_KEYS_EXPIRE, /* ?1 before, ?2 at most */
    SHAPE_COUNT_ALL
};

enum { STATEMENTS_IDLE = 4 }; /* kept of one shape in one handle */

struct statements {
    unsigned char count;
    sqlite3_stmt *stmts[STATEMENTS_IDLE];
};

struct store_reader {
    sqlite3 *db; /* NULL: not open (yet, or any more) */
    bool writer, said_corrupt;
    bool sick; /* an fsync or a write failed: this connection is not to be trusted again */
    bool full; /* no space was left */
    char *held; /* long texts of the last store_get() */
    size_t held_size;
    struct statements idle[SHAPE_COUNT_ALL];
};

/** A statement lent by its handle; back at the end of the scope, reset. */
struct statement {
    struct store_reader *reader;
    enum shape shape;
    sqlite3_stmt *stmt;
};

void statement_give(struct statement *statement);
#define scoped_stmt scoped(statement_give)

/** 0 or a negative errno. The same shape may be lent several times at once. */
int statement_take(
        struct store_reader *reader, enum shape shape, struct statement *statement);

/** 1: a row, 0: done, or a negative errno. */
int statement_step(struct statement *statement);

/** Take, step once, give. 0 or a negative errno. */
int statement_run(struct store_reader *reader, enum shape shape);

/** The text of a shape; sqlite3_free() it. NULL: no memory. */
char *shape_text(enum shape shape);

/** The errno for a result code of SQLite; notes in the handle what must be done about it. */
int handle_error(struct store_reader *reader, int rc);
/** Logs @what, once for this connection. Returns -EUCLEAN. */
int handle_corrupt(struct store_reader *reader, const char *what);

/* -- handle.c: connections ------------------------------------------------------------ */

/** Open @path with all our precautions. 0 or a negative errno, and then it is closed. */
int handle_open(struct store_reader *reader, const char *path, bool writer);
/** NULL-safe in its db. @checkpoint: the last connection moves the WAL into the database. */
void handle_close(struct store_reader *reader, bool checkpoint);
/** The two halves of it: finalize its statements and hand out the connection; close that. */
sqlite3 *handle_detach(struct store_reader *reader);
void handle_drop(sqlite3 *db, bool checkpoint);
/** Run plain SQL. */
int handle_sql(struct store_reader *reader, const char *sql);
/** Our words are right: when SQLite finds them wrong it is the file that differs. The error
    of the last call, -EUCLEAN in that case. */
int handle_blame_file(struct store_reader *reader, int error);
/** The first column of the first row of @sql as a number. */
int handle_number(struct store_reader *reader, const char *sql, int64_t *number);
/** PRAGMA quick_check. -EUCLEAN: not sound, logged. */
int handle_quick_check(struct store_reader *reader);

/* -- schema.c: what the database holds, and its versions ------------------------------ */

/** A step from version n to n+1 of a database, n its place in the list. */
extern const char *const schema_steps[];
extern const unsigned schema_version;

/** Ours, and not newer than @version? -EPROTONOSUPPORT. */
int schema_recognize(
        struct store_reader *writer, unsigned version, struct fault *fault);
/** Take the steps that are missing, each in a transaction; all of them or an error. */
int schema_migrate(struct store_reader *writer, const char *const *steps,
        unsigned version, struct fault *fault);
/** Does every statement still fit? -EUCLEAN. */
int schema_verify(struct store_reader *writer);

/* -- files.c: the files beside the database ------------------------------------------- */

struct store;

/** Is this file system (statfs's f_type) one where WAL and locks cannot be trusted? */
bool files_remote(uint64_t type);
int files_lock(struct store *store, struct fault *fault);
/** Make the file with our mode when there is none. */
int files_make(struct store *store);
/** A WAL without the database it belongs to. */
bool files_orphaned(struct store *store);
/** Move the database and all that belongs to it aside; the directory is synced. */
int files_quarantine(struct store *store, const char *why);
uint64_t files_bytes(struct store *store);

/** Have the ballast when there is space for it. Sets store->tight when there is none. */
void ballast_make(struct store *store);
void ballast_release(struct store *store);

/* -- store.c, writer.c ---------------------------------------------------------------- */

enum { STORE_READERS = 8 };
#define STORE_FILE "replicad.db"
#define STORE_LOCK "replicad.lock"
#define STORE_BALLAST "ballast"
#define STORE_BALLAST_SIZE (8u << 20)

enum writer_state { WRITER_IDLE, WRITER_OPEN, WRITER_MARKED };

struct store {
    /* set when it is opened */
    char *path; /* of the database */
    int directory, lock;

    /* any thread */
    atomic_bool tight;

    /* the writer's thread */
    struct store_reader writer;
    sqlite3 *parked; /* the writer's last connection, sick, until there is another */
    enum writer_state state;
    int doom; /* the error after which the open transaction can only end */
    unsigned sick_count; /* reopened so often without a commit since */
    int wal_pages, checkpointed_at;
    bool said_wal, said_sick;

    /* any thread */
    atomic_uint taken; /* bit n: readers[n] is its taker's */
    atomic_uint waiting; /* for one to be given back */
    struct store_reader readers[STORE_READERS];

    /* for those who wait */
    pthread_mutex_t pool_lock;
    pthread_cond_t given;
};

/** Open the writer's handle on a database that is there: WAL, sound, ours. */
int writer_open(struct store *store, struct fault *fault);

#endif

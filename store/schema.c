/* store/schema.c - what the database holds, and how an older one becomes it.
 *
 * PRAGMA user_version counts the steps that were taken. A step is never changed once it was
 * released; a new one is appended. A column that is added must be NOT NULL DEFAULT 0 or '' and
 * gets its line in rows.c; a step that writes other values into old rows must seal them anew
 * (rows.c tells what a seal is).
 *
 * Tables of short rows live in the tree of their key (WITHOUT ROWID). Jobs, results and
 * idempotency keys are larger, and a row in the inner pages of such a tree makes it deep: these
 * are ordinary tables. Every index that lists use ends in the id, in so many words or by
 * WITHOUT ROWID, and that order is the order of the list.
 */
#include <errno.h>
#include <stdio.h>

#include "replica/base/log.h"
#include "store/inside.h"

#define APPLICATION_ID 1380274243 /* "REPC" */

const char *const schema_steps[] = {
    "CREATE TABLE element ("
    " id TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, created INTEGER NOT "
    "NULL,"
    " type INTEGER NOT NULL, name TEXT NOT NULL, address TEXT NOT NULL,"
    " pool TEXT NOT NULL, \"of\" TEXT NOT NULL, \"offset\" INTEGER NOT NULL,"
    " size INTEGER NOT NULL, whole INTEGER NOT NULL, block_size INTEGER NOT NULL,"
    " remote INTEGER NOT NULL, thin INTEGER NOT NULL, complete INTEGER NOT NULL,"
    " credentials TEXT NOT NULL, place TEXT NOT NULL, world TEXT NOT NULL,"
    " weak TEXT NOT NULL, usage INTEGER NOT NULL, health INTEGER NOT NULL,"
    " warnings TEXT NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX element_type ON element (type, id);"
    "CREATE INDEX element_name ON element (name, id);"
    "CREATE INDEX element_address ON element (address, id);"
    "CREATE INDEX element_pool ON element (pool, id);"
    "CREATE INDEX element_of ON element (\"of\", id);"
    "CREATE INDEX element_remote ON element (remote, id);"
    "CREATE INDEX element_place ON element (place, id);"
    "CREATE INDEX element_world ON element (world, id);"
    "CREATE INDEX element_weak ON element (weak, id);"
    "CREATE INDEX element_usage ON element (usage, id);"

    "CREATE TABLE replica ("
    " id TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, source TEXT NOT NULL,"
    " pipe TEXT NOT NULL, job TEXT NOT NULL, copy_type INTEGER NOT NULL,"
    " sync_state INTEGER NOT NULL, state_before INTEGER NOT NULL,"
    " copy_priority INTEGER NOT NULL, replica_type INTEGER NOT NULL,"
    " percent INTEGER NOT NULL, maintained INTEGER NOT NULL,"
    " when_established INTEGER NOT NULL, when_synced INTEGER NOT NULL,"
    " scan_started INTEGER NOT NULL, scan_due INTEGER NOT NULL, rpo INTEGER NOT NULL,"
    " recovery_mode INTEGER NOT NULL, \"limit\" INTEGER NOT NULL,"
    " verify INTEGER NOT NULL, goal TEXT NOT NULL, last_error TEXT NOT NULL,"
    " crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX replica_source ON replica (source, id);"
    "CREATE INDEX replica_pipe ON replica (pipe, id);"
    "CREATE INDEX replica_copy_type ON replica (copy_type, id);"
    "CREATE INDEX replica_sync_state ON replica (sync_state, id);"

    "CREATE TABLE job ("
    " id TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, method TEXT NOT NULL,"
    " work INTEGER NOT NULL, state INTEGER NOT NULL, priority INTEGER NOT NULL,"
    " source TEXT NOT NULL, target TEXT NOT NULL, replica TEXT NOT NULL,"
    " submitted INTEGER NOT NULL, started INTEGER NOT NULL, changed INTEGER NOT NULL,"
    " ended INTEGER NOT NULL, percent INTEGER NOT NULL, total INTEGER NOT NULL,"
    " done INTEGER NOT NULL, skipped INTEGER NOT NULL, written INTEGER NOT NULL,"
    " watermark INTEGER NOT NULL, rate INTEGER NOT NULL, \"limit\" INTEGER NOT NULL,"
    " mode INTEGER NOT NULL, target_zero INTEGER NOT NULL, resumed INTEGER NOT NULL,"
    " verify INTEGER NOT NULL, delete_on_completion INTEGER NOT NULL,"
    " wanted INTEGER NOT NULL, error_code INTEGER NOT NULL,"
    " return_value INTEGER NOT NULL, error TEXT NOT NULL, error_type INTEGER NOT NULL,"
    " probable_cause INTEGER NOT NULL, request TEXT NOT NULL, trace TEXT NOT NULL,"
    " owner TEXT NOT NULL, lease INTEGER NOT NULL, fence INTEGER NOT NULL,"
    " time_before_removal INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;"
    "CREATE INDEX job_method ON job (method, id);"
    "CREATE INDEX job_state ON job (state, id);"
    "CREATE INDEX job_source ON job (source, id);"
    "CREATE INDEX job_target ON job (target, id);"
    "CREATE INDEX job_replica ON job (replica, id);"
    "CREATE INDEX job_delete_on_completion ON job (delete_on_completion, id);"
    "CREATE INDEX job_ended ON job (ended) WHERE ended > 0;"

    "CREATE TABLE result ("
    " id TEXT NOT NULL PRIMARY KEY, method TEXT NOT NULL, time INTEGER NOT NULL,"
    " caller TEXT NOT NULL, request TEXT NOT NULL, \"in\" TEXT NOT NULL,"
    " return_value INTEGER NOT NULL, detail TEXT NOT NULL, job TEXT NOT NULL,"
    " target TEXT NOT NULL, source TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;"
    "CREATE INDEX result_method ON result (method, id);"
    "CREATE INDEX result_return_value ON result (return_value, id);"
    "CREATE INDEX result_job ON result (job, id);"
    "CREATE INDEX result_target ON result (target, id);"
    "CREATE INDEX result_caller ON result (caller, id);"
    "CREATE INDEX result_time ON result (time);"

    "CREATE TABLE setting ("
    " id TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, created INTEGER NOT "
    "NULL,"
    " name TEXT NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL)"
    " STRICT, WITHOUT ROWID;"
    "CREATE INDEX setting_name ON setting (name, id);"

    "CREATE TABLE pipe ("
    " id TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, created INTEGER NOT "
    "NULL,"
    " name TEXT NOT NULL, source_system TEXT NOT NULL, target_system TEXT NOT NULL,"
    " endpoints TEXT NOT NULL, credentials TEXT NOT NULL, \"limit\" INTEGER NOT NULL,"
    " crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX pipe_name ON pipe (name, id);"

    /* AUTOINCREMENT: a number is never used twice, though the last event be dropped. */
    "CREATE TABLE event ("
    " number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL,"
    " kind TEXT NOT NULL, about TEXT NOT NULL, type TEXT NOT NULL,"
    " changed TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;"

    "CREATE TABLE key ("
    " \"key\" TEXT NOT NULL PRIMARY KEY, time INTEGER NOT NULL,"
    " fingerprint TEXT NOT NULL, outcome TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;"
    "CREATE INDEX key_time ON key (time);"

    "CREATE TABLE meta ("
    " \"key\" TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)"
    " STRICT, WITHOUT ROWID;",

    "CREATE TABLE export ("
    " id TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, created INTEGER NOT "
    "NULL,"
    " initiators TEXT NOT NULL, credentials TEXT NOT NULL, read_only INTEGER NOT NULL,"
    " crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE reservation ("
    " id TEXT NOT NULL PRIMARY KEY, kept TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;",

    "ALTER TABLE job ADD COLUMN differ_bytes INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN differ_ranges INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN differences TEXT NOT NULL DEFAULT '';",

    "ALTER TABLE job ADD COLUMN \"read\" INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN skipped_zero INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN skipped_equal INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN verified INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN limited_by INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN stalled INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN stall_reason TEXT NOT NULL DEFAULT '';",
};

const unsigned schema_version = sizeof(schema_steps) / sizeof(schema_steps[0]);

/* Both numbers and how many tables there are. */
static int schema_look(struct store_reader *writer, int64_t *application,
        int64_t *version, int64_t *tables)
{
    int error = handle_number(writer, "PRAGMA application_id", application);

    if (!error)
        error = handle_number(writer, "PRAGMA user_version", version);
    if (!error)
        error = handle_number(writer, "SELECT count(*) FROM sqlite_schema", tables);
    return handle_blame_file(writer, error);
}

int schema_recognize(struct store_reader *writer, unsigned version, struct fault *fault)
{
    int64_t application = 0, number = 0, tables = 0;
    int error = schema_look(writer, &application, &number, &tables);

    if (error)
        return fault_set(fault, error, "the database cannot be read");
    if (!application && !number && !tables)
        return 0;
    if (application != APPLICATION_ID)
        return fault_set(fault, -EPROTONOSUPPORT,
                "%s in the data directory is not replicad's database", STORE_FILE);
    if (number > version)
        return fault_set(fault, -EPROTONOSUPPORT,
                "the database was written by a newer replicad (version %lld, this one"
                " knows %u)",
                (long long)number, version);
    return number >= 1 ? 0 : fault_set(fault, -EUCLEAN, "the database has no version");
}

static int step_take(struct store_reader *writer, const char *sql, unsigned version)
{
    char numbers[96];
    int error = handle_sql(writer, "BEGIN IMMEDIATE");

    if (error)
        return error;
    (void)snprintf(numbers, sizeof(numbers),
            "PRAGMA application_id = %d; PRAGMA user_version = %u", APPLICATION_ID,
            version);
    error = handle_sql(writer, sql);
    if (!error)
        error = handle_sql(writer, numbers);
    if (!error)
        error = handle_sql(writer, "COMMIT");
    if (error && !sqlite3_get_autocommit(writer->db))
        (void)handle_sql(writer, "ROLLBACK");
    return error;
}

int schema_migrate(struct store_reader *writer, const char *const *steps,
        unsigned version, struct fault *fault)
{
    int64_t number = 0;
    int error = handle_number(writer, "PRAGMA user_version", &number);

    for (unsigned at = (unsigned)number; !error && at < version; at++) {
        if (number)
            log_plain(LOG_INFO, "store-migrate",
                    "the database goes from version %u to %u", at, at + 1);
        error = step_take(writer, steps[at], at + 1);
    }
    if (error)
        return fault_set(
                fault, error, "the database cannot be brought to version %u", version);
    return 0;
}

int schema_verify(struct store_reader *writer)
{
    for (unsigned shape = 0; shape < SHAPE_COUNT_ALL; shape++) {
        scoped_stmt struct statement statement = { 0 };
        int error = statement_take(writer, shape, &statement);
        /* No such table, column or index: the version does not tell the truth. */
        if (error)
            return handle_blame_file(writer, error);
    }
    return 0;
}

/* store/rows.c - the rows described once, and moved by what is described.
 *
 * Each row carries a seal, a CRC-32C in the column "crc": quick_check proves that the trees are
 * sound, not that a number in a row is the one we wrote. Only fields that are not zero or empty
 * enter the seal, each with its name, so that a column that a later version adds, with 0 or ''
 * in the old rows, breaks no seal. An event's number is left out: the row is sealed before
 * SQLite gives it one.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/digest.h"
#include "store/inside.h"

/* The kind follows from the member's type, so that the two cannot disagree. */
/* clang-format off */
#define KIND(value)                                                                      \
    _Generic((value),                                                                    \
            int64_t: FIELD_NUMBER, uint64_t: FIELD_SIZE, bool: FIELD_FLAG,               \
            struct uuid: FIELD_UUID, char *: FIELD_TEXT, const char *: FIELD_LONG)
#define DESCRIBE(row, member, in_index)                                                  \
    { #member, KIND(((struct row *)0)->member), offsetof(struct row, member),            \
      sizeof(((struct row *)0)->member), in_index }
/* clang-format on */

#define F(member) DESCRIBE(store_element, member, false)
#define X(member) DESCRIBE(store_element, member, true)
static const struct field element_fields[] = {
    F(id),
    F(revision),
    F(created),
    X(type),
    X(name),
    X(address),
    X(pool),
    X(of),
    F(offset),
    F(size),
    F(whole),
    F(block_size),
    X(remote),
    F(thin),
    F(complete),
    F(credentials),
    X(place),
    X(world),
    X(weak),
    X(usage),
    F(health),
    F(warnings),
};
#undef F
#undef X

#define F(member) DESCRIBE(store_replica, member, false)
#define X(member) DESCRIBE(store_replica, member, true)
static const struct field replica_fields[] = {
    F(id),
    F(revision),
    X(source),
    X(pipe),
    F(job),
    X(copy_type),
    X(sync_state),
    F(state_before),
    F(copy_priority),
    F(replica_type),
    F(percent),
    F(maintained),
    F(when_established),
    F(when_synced),
    F(scan_started),
    F(scan_due),
    F(rpo),
    F(recovery_mode),
    F(limit),
    F(verify),
    F(goal),
    F(last_error),
};
#undef F
#undef X

#define F(member) DESCRIBE(store_job, member, false)
#define X(member) DESCRIBE(store_job, member, true)
static const struct field job_fields[] = {
    F(id),
    F(revision),
    X(method),
    F(work),
    X(state),
    F(priority),
    X(source),
    X(target),
    X(replica),
    F(submitted),
    F(started),
    F(changed),
    X(ended),
    F(percent),
    F(total),
    F(done),
    F(skipped),
    F(written),
    F(watermark),
    F(rate),
    F(limit),
    F(mode),
    F(target_zero),
    F(resumed),
    F(verify),
    X(delete_on_completion),
    F(wanted),
    F(error_code),
    F(return_value),
    F(error),
    F(error_type),
    F(probable_cause),
    F(request),
    F(trace),
    F(owner),
    F(lease),
    F(fence),
    F(time_before_removal),
    F(differ_bytes),
    F(differ_ranges),
    F(differences),
    F(read),
    F(skipped_zero),
    F(skipped_equal),
    F(verified),
    F(limited_by),
    F(stalled),
    F(stall_reason),
};
#undef F
#undef X

#define F(member) DESCRIBE(store_result, member, false)
#define X(member) DESCRIBE(store_result, member, true)
static const struct field result_fields[] = {
    F(id),
    X(method),
    X(time),
    X(caller),
    F(request),
    F(in),
    X(return_value),
    F(detail),
    X(job),
    X(target),
    F(source),
};
#undef F
#undef X

#define F(member) DESCRIBE(store_setting, member, false)
#define X(member) DESCRIBE(store_setting, member, true)
static const struct field setting_fields[] = {
    F(id),
    F(revision),
    F(created),
    X(name),
    F(body),
};
#undef F
#undef X

#define F(member) DESCRIBE(store_pipe, member, false)
#define X(member) DESCRIBE(store_pipe, member, true)
static const struct field pipe_fields[] = {
    F(id),
    F(revision),
    F(created),
    X(name),
    F(source_system),
    F(target_system),
    F(endpoints),
    F(credentials),
    F(limit),
};
#undef F
#undef X

#define F(member) DESCRIBE(store_event, member, false)
static const struct field event_fields[] = {
    F(number),
    F(time),
    F(kind),
    F(about),
    F(type),
    F(changed),
};
#undef F

#define F(member) DESCRIBE(store_key, member, false)
#define X(member) DESCRIBE(store_key, member, true)
static const struct field key_fields[] = {
    F(key),
    X(time),
    F(fingerprint),
    F(outcome),
};
#undef F
#undef X

#define F(member) DESCRIBE(store_meta, member, false)
static const struct field meta_fields[] = {
    F(key),
    F(value),
};
#undef F

#define F(member) DESCRIBE(store_export, member, false)
static const struct field export_fields[] = {
    F(id),
    F(revision),
    F(created),
    F(initiators),
    F(credentials),
    F(read_only),
};
#undef F

#define F(member) DESCRIBE(store_reservation, member, false)
static const struct field reservation_fields[] = {
    F(id),
    F(kept),
};
#undef F

#define TABLE(word)                                                                    \
    {                                                                                  \
#word, sizeof(struct store_##word), word##_fields,                             \
                sizeof(word##_fields) / sizeof(word##_fields[0])                       \
    }
static const struct table tables[STORE_TABLE_COUNT] = {
    [STORE_ELEMENT] = TABLE(element),
    [STORE_REPLICA] = TABLE(replica),
    [STORE_JOB] = TABLE(job),
    [STORE_RESULT] = TABLE(result),
    [STORE_SETTING] = TABLE(setting),
    [STORE_PIPE] = TABLE(pipe),
    [STORE_EVENT] = TABLE(event),
    [STORE_KEY] = TABLE(key),
    [STORE_META] = TABLE(meta),
    [STORE_EXPORT] = TABLE(export),
    [STORE_RESERVATION] = TABLE(reservation),
};

static const struct column {
    enum store_table table;
    size_t offset;
} columns[STORE_COLUMN_COUNT] = {
#define C(table, word, member)                                                         \
    {                                                                                  \
        table, offsetof(struct store_##word, member)                                   \
    }
    [ELEMENT_TYPE] = C(STORE_ELEMENT, element, type),
    [ELEMENT_NAME] = C(STORE_ELEMENT, element, name),
    [ELEMENT_POOL] = C(STORE_ELEMENT, element, pool),
    [ELEMENT_OF] = C(STORE_ELEMENT, element, of),
    [ELEMENT_PLACE] = C(STORE_ELEMENT, element, place),
    [ELEMENT_WORLD] = C(STORE_ELEMENT, element, world),
    [ELEMENT_WEAK] = C(STORE_ELEMENT, element, weak),
    [ELEMENT_REMOTE] = C(STORE_ELEMENT, element, remote),
    [ELEMENT_USAGE] = C(STORE_ELEMENT, element, usage),
    [ELEMENT_ADDRESS] = C(STORE_ELEMENT, element, address),
    [REPLICA_SOURCE] = C(STORE_REPLICA, replica, source),
    [REPLICA_COPY_TYPE] = C(STORE_REPLICA, replica, copy_type),
    [REPLICA_SYNC_STATE] = C(STORE_REPLICA, replica, sync_state),
    [REPLICA_PIPE] = C(STORE_REPLICA, replica, pipe),
    [JOB_STATE] = C(STORE_JOB, job, state),
    [JOB_SOURCE] = C(STORE_JOB, job, source),
    [JOB_TARGET] = C(STORE_JOB, job, target),
    [JOB_REPLICA] = C(STORE_JOB, job, replica),
    [JOB_METHOD] = C(STORE_JOB, job, method),
    [JOB_REMOVE] = C(STORE_JOB, job, delete_on_completion),
    [RESULT_METHOD] = C(STORE_RESULT, result, method),
    [RESULT_RETURN] = C(STORE_RESULT, result, return_value),
    [RESULT_JOB] = C(STORE_RESULT, result, job),
    [RESULT_TARGET] = C(STORE_RESULT, result, target),
    [RESULT_CALLER] = C(STORE_RESULT, result, caller),
    [SETTING_NAME] = C(STORE_SETTING, setting, name),
    [PIPE_NAME] = C(STORE_PIPE, pipe, name),
#undef C
};

const struct table *table_of(enum store_table table)
{
    check((unsigned)table < STORE_TABLE_COUNT);
    return &tables[table];
}

enum store_table column_table(enum store_column column)
{
    check((unsigned)column < STORE_COLUMN_COUNT);
    return columns[column].table;
}

unsigned column_field(enum store_column column)
{
    const struct table *table = table_of(column_table(column));
    unsigned at = 0;

    while (at < table->count && table->fields[at].offset != columns[column].offset)
        at++;
    check(at < table->count);
    return at;
}

static const void *field_place(const struct field *field, const void *row)
{
    return (const char *)row + field->offset;
}

/* A text of the row; "" for a long one that is not there. */
static const char *field_text(const struct field *field, const void *row)
{
    const char *text = field_place(field, row);

    if (field->kind == FIELD_LONG) {
        memcpy(&text, field_place(field, row), sizeof(text));
        return text ? text : "";
    }
    check(memchr(text, 0, field->size));
    return text;
}

static bool field_is_text(const struct field *field)
{
    return field->kind >= FIELD_UUID;
}

static int64_t field_number(const struct field *field, const void *row)
{
    int64_t number;
    bool flag;

    if (field->kind == FIELD_FLAG) {
        memcpy(&flag, field_place(field, row), sizeof(flag));
        return flag;
    }
    memcpy(&number, field_place(field, row), sizeof(number));
    return number;
}

int64_t row_revision(enum store_table word, const void *row)
{
    const struct field *field = &table_of(word)->fields[1]; /* next to the key */

    return strcmp(field->name, "revision") == 0 ? field_number(field, row) : 0;
}

/* What a field adds to the seal; 0: nothing. */
static uint64_t field_digest(const struct field *field, const void *row)
{
    const char *text;
    size_t length;

    if (!field_is_text(field))
        return (uint64_t)field_number(field, row);
    text = field_text(field, row);
    length = strlen(text);
    return length ? (uint64_t)length << 32 | digest_crc32c(text, length) : 0;
}

static int64_t row_seal(enum store_table word, const void *row)
{
    const struct table *table = table_of(word);
    uint64_t parts[2 * STORE_FIELDS] __attribute__((uninitialized));
    size_t count = 0;

    check(table->count <= STORE_FIELDS);
    for (unsigned i = word == STORE_EVENT; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        uint64_t digest = field_digest(field, row);
        if (!digest)
            continue;
        parts[count++] = htole64(digest_crc32c(field->name, strlen(field->name)));
        parts[count++] = htole64(digest);
    }
    return digest_crc32c(parts, count * sizeof(parts[0]));
}

static int field_bind(
        sqlite3_stmt *stmt, int at, const struct field *field, const void *row)
{
    if (field_is_text(field))
        return sqlite3_bind_text(stmt, at, field_text(field, row), -1, SQLITE_STATIC);
    return sqlite3_bind_int64(stmt, at, field_number(field, row));
}

int row_bind(sqlite3_stmt *stmt, enum store_table word, const void *row)
{
    const struct table *table = table_of(word);
    int rc = SQLITE_OK;

    for (unsigned i = 0; i < table->count && rc == SQLITE_OK; i++)
        rc = field_bind(stmt, (int)i + 1, &table->fields[i], row);
    if (rc != SQLITE_OK)
        return rc;
    if (word == STORE_EVENT && !field_number(&table->fields[0], row))
        (void)sqlite3_bind_null(stmt, 1);
    return sqlite3_bind_int64(stmt, (int)table->count + 1, row_seal(word, row));
}

int row_bind_key(sqlite3_stmt *stmt, enum store_table table, const void *row)
{
    return field_bind(stmt, 1, &table_of(table)->fields[0], row);
}

int key_bind(sqlite3_stmt *stmt, int at, enum store_table table, const char *key)
{
    char *end;
    int64_t number;

    if (field_is_text(&table_of(table)->fields[0]))
        return sqlite3_bind_text(stmt, at, key, -1, SQLITE_STATIC);
    if (*key < '0' || *key > '9')
        return SQLITE_RANGE;
    errno = 0;
    number = strtoll(key, &end, 10);
    if (errno || *end)
        return SQLITE_RANGE;
    return sqlite3_bind_int64(stmt, at, number);
}

static int text_read(sqlite3_value *value, const struct field *field, void *place)
{
    const char *text = (const char *)sqlite3_value_text(value);
    size_t length = (size_t)sqlite3_value_bytes(value);

    if (!text)
        return -ENOMEM;
    if (memchr(text, 0, length))
        return -EUCLEAN;
    if (field->kind == FIELD_LONG) {
        memcpy(place, &text, sizeof(text));
        return 0;
    }
    if (length >= field->size)
        return -EUCLEAN;
    memcpy(place, text, length + 1);
    return 0;
}

static int field_read(sqlite3_value *value, const struct field *field, void *row)
{
    void *place = (char *)row + field->offset;
    int wanted = field_is_text(field) ? SQLITE_TEXT : SQLITE_INTEGER;
    int64_t number;
    bool flag;

    if (sqlite3_value_type(value) != wanted)
        return -EUCLEAN;
    if (wanted == SQLITE_TEXT)
        return text_read(value, field, place);
    number = sqlite3_value_int64(value);
    if (field->kind == FIELD_FLAG) {
        flag = number == 1;
        memcpy(place, &flag, sizeof(flag));
        return number == 0 || number == 1 ? 0 : -EUCLEAN;
    }
    memcpy(place, &number, sizeof(number));
    return 0;
}

/* A column is asked for once, as a value, which is as good as protected: no other thread has
   this connection meanwhile. */
int row_read(sqlite3_stmt *stmt, enum store_table word, void *row)
{
    const struct table *table = table_of(word);
    int error = 0;

    memset(row, 0, table->row_size);
    for (unsigned i = 0; i < table->count && !error; i++)
        error = field_read(sqlite3_column_value(stmt, (int)i), &table->fields[i], row);
    if (error)
        return error;
    if (sqlite3_column_int64(stmt, (int)table->count) != row_seal(word, row))
        return -EUCLEAN;
    return 0;
}

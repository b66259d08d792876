/* Every row comes back as it was put, and the descriptors describe all of it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/store/rig.h"

/* Every byte of the struct is a field's, or padding before an aligned field or the end. */
static bool gap_is_padding(const struct table *table, const bool *covered, size_t from)
{
    size_t to = from;

    while (to < table->row_size && !covered[to])
        to++;
    return to - from < 8 && to % 8 == 0;
}

static void table_cover(const struct table *table, bool *covered)
{
    for (unsigned i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        for (size_t at = field->offset; at < field->offset + field->size; at++) {
            cr_assert(!covered[at], "%s.%s overlaps", table->name, field->name);
            covered[at] = true;
        }
    }
}

Test(rows, descriptors_cover_the_structs)
{
    for (unsigned word = 0; word < STORE_TABLE_COUNT; word++) {
        const struct table *table = table_of(word);
        bool covered[16384] = { false };
        cr_assert(table->count <= STORE_FIELDS && table->row_size < sizeof(covered));
        table_cover(table, covered);
        for (size_t at = 0; at < table->row_size; at++)
            if (!covered[at] && (at == 0 || covered[at - 1]))
                cr_assert(gap_is_padding(table, covered, at),
                        "%s: byte %zu is nobody's", table->name, at);
    }
}

static void column_compare(sqlite3_stmt *stmt, const struct table *table, unsigned at)
{
    const struct field *field = &table->fields[at];

    cr_assert_str_eq((const char *)sqlite3_column_text(stmt, 1), field->name);
    cr_assert_str_eq((const char *)sqlite3_column_text(stmt, 2),
            field->kind >= FIELD_UUID ? "TEXT" : "INTEGER", "%s.%s", table->name,
            field->name);
    cr_assert_eq(sqlite3_column_int(stmt, 3), 1, "%s.%s may be null", table->name,
            field->name);
    cr_assert_eq(sqlite3_column_int(stmt, 5), at == 0, "%s.%s as a key", table->name,
            field->name);
}

static void schema_compare(struct store *store, const struct table *table)
{
    char sql[160];
    sqlite3_stmt *stmt;
    unsigned at = 0;

    /* The seal stands where the first version ended; columns added since follow it. */
    snprintf(sql, sizeof(sql),
            "SELECT * FROM pragma_table_info('%s') ORDER BY name = 'crc', cid",
            table->name);
    cr_assert_eq(sqlite3_prepare_v2(store->writer.db, sql, -1, &stmt, NULL), SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW && at < table->count)
        column_compare(stmt, table, at++);
    cr_assert_eq(at, table->count, "%s lacks a column", table->name);
    cr_assert_str_eq((const char *)sqlite3_column_text(stmt, 1), "crc");
    cr_assert_eq(sqlite3_step(stmt), SQLITE_DONE, "%s has more columns", table->name);
    sqlite3_finalize(stmt);
}

Test(rows, schema_agrees_with_descriptors)
{
    struct rig rig;

    rig_make(&rig);
    rig_open(&rig);
    for (unsigned word = 0; word < STORE_TABLE_COUNT; word++)
        schema_compare(rig.store, table_of(word));
    rig_remove(&rig);
}

/* A field is said to be in an index exactly when the schema has one that begins with it. */
Test(rows, indexes_agree_with_descriptors)
{
    struct rig rig;
    int64_t count;

    rig_make(&rig);
    rig_open(&rig);
    for (unsigned word = 0; word < STORE_TABLE_COUNT; word++)
        for (unsigned i = 1; i < table_of(word)->count; i++) {
            char sql[160];
            snprintf(sql, sizeof(sql),
                    "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name ="
                    " '%s_%s'",
                    table_of(word)->name, table_of(word)->fields[i].name);
            cr_assert_eq(handle_number(&rig.store->writer, sql, &count), 0);
            cr_assert_eq(count, table_of(word)->fields[i].indexed, "%s.%s",
                    table_of(word)->name, table_of(word)->fields[i].name);
        }
    rig_remove(&rig);
}

static void trip(struct rig *rig, enum store_table table, const union store_row *row)
{
    union store_row back;
    struct store_reader *reader;

    cr_assert_eq(rig_put(rig, table, row), 0, "%s", table_of(table)->name);
    memset(&back, 0xee, sizeof(back));
    reader = store_reader_take(rig->store, 60000);
    cr_assert(reader);
    cr_assert_eq(store_get(reader, table, rig_key(table, row), &back), 0);
    cr_assert(rig_equal(table, row, &back), "%s", table_of(table)->name);
    store_reader_give(rig->store, reader);
}

/* Each filling over each other one, so that an update leaves nothing of what was there. */
Test(rows, every_value_comes_back)
{
    uint64_t seed = seed_take("rows");
    struct rig rig;
    union store_row row;

    rig_make(&rig);
    rig_open(&rig);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++)
        for (unsigned first = 0; first < RIG_VALUES; first++)
            for (unsigned second = 0; second < RIG_VALUES; second++) {
                uint64_t id = 1 + first * RIG_VALUES + second;
                rig_fill(table, first, id, &seed, &row);
                trip(&rig, table, &row);
                rig_fill(table, second, id, &seed, &row);
                trip(&rig, table, &row);
            }
    for (unsigned i = 0; i < 200; i++) {
        unsigned table = seed_below(&seed, STORE_TABLE_COUNT);
        rig_fill(table, RIG_RANDOM, 1 + seed_below(&seed, 100), &seed, &row);
        trip(&rig, table, &row);
    }
    rig_remove(&rig);
}

/* One field changed at a time: the short way of a put must not lose any of them. */
Test(rows, every_field_alone_can_be_changed)
{
    uint64_t seed = 7;
    struct rig rig;
    union store_row row, other;

    rig_make(&rig);
    rig_open(&rig);
    cr_assert_eq(store_begin(rig.store), 0);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++)
        for (unsigned i = 1; i < table_of(table)->count; i++) {
            const struct field *field = &table_of(table)->fields[i];
            union store_row back;
            rig_fill(table, RIG_SMALLEST, 1, &seed, &row);
            cr_assert_eq(rig_put(&rig, table, &row), 0);
            rig_fill(table, i % 2 ? RIG_ZERO : RIG_LARGEST, 1, &seed, &other);
            memcpy((char *)&row + field->offset, (char *)&other + field->offset,
                    field->size);
            cr_assert_eq(rig_put(&rig, table, &row), 0);
            cr_assert_eq(store_get(store_own_reader(rig.store), table,
                                 rig_key(table, &row), &back),
                    0);
            cr_assert(rig_equal(table, &row, &back), "%s.%s", table_of(table)->name,
                    field->name);
        }
    cr_assert_eq(store_commit(rig.store), 0);
    rig_remove(&rig);
}

Test(rows, sizes_above_int64_max_are_kept)
{
    struct rig rig;
    struct store_element row = { .id = rig_id(1),
        .offset = UINT64_MAX,
        .size = (uint64_t)INT64_MAX + 1,
        .whole = UINT64_MAX - 1 };
    struct store_element back;

    rig_make(&rig);
    rig_open(&rig);
    cr_assert_eq(rig_put(&rig, STORE_ELEMENT, &row), 0);
    rig_close(&rig);
    rig_open(&rig);
    cr_assert_eq(
            store_get(store_own_reader(rig.store), STORE_ELEMENT, row.id.text, &back),
            0);
    cr_assert_eq(back.offset, UINT64_MAX);
    cr_assert_eq(back.size, (uint64_t)INT64_MAX + 1);
    cr_assert_eq(back.whole, UINT64_MAX - 1);
    rig_remove(&rig);
}

Test(rows, deleting)
{
    uint64_t seed = 3;
    struct rig rig;
    union store_row row, back;

    rig_make(&rig);
    rig_open(&rig);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++) {
        rig_fill(table, RIG_SMALLEST, 5, &seed, &row);
        cr_assert_eq(rig_delete(&rig, table, &row), -ENOENT);
        cr_assert_eq(rig_put(&rig, table, &row), 0);
        cr_assert_eq(rig_delete(&rig, table, &row), 0);
        cr_assert_eq(store_get(store_own_reader(rig.store), table, rig_key(table, &row),
                             &back),
                -ENOENT);
        cr_assert_eq(rig_delete(&rig, table, &row), -ENOENT);
    }
    rig_remove(&rig);
}

Test(rows, a_key_that_is_none)
{
    struct rig rig;
    union store_row back;
    static const char *const keys[] = { "", "x", "-1", "1x", "99999999999999999999",
        "'; DROP TABLE job; --", " 1", "+1" };
    struct store_event one = { .number = 1 };

    rig_make(&rig);
    rig_open(&rig);
    cr_assert_eq(rig_put(&rig, STORE_EVENT, &one), 0);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++)
        for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
            cr_assert_eq(store_get(store_own_reader(rig.store), table, keys[i], &back),
                    -ENOENT);
    rig_remove(&rig);
}

/* A long text that was read lives until the next call with the handle, and no longer: the
   statement it came from is over by then, and holds no transaction open. */
Test(rows, long_texts_outlive_their_statement)
{
    struct rig rig;
    struct store_result row = { .id = rig_id(1), .in = "{\"CopyType\":5}" }, back;
    struct store_reader *reader;

    rig_make(&rig);
    rig_open(&rig);
    cr_assert_eq(rig_put(&rig, STORE_RESULT, &row), 0);
    reader = store_reader_take(rig.store, 60000);
    cr_assert_eq(store_get(reader, STORE_RESULT, row.id.text, &back), 0);
    cr_assert_eq(sqlite3_next_stmt(reader->db, NULL) != NULL, true);
    for (sqlite3_stmt *s = sqlite3_next_stmt(reader->db, NULL); s;
            s = sqlite3_next_stmt(reader->db, s))
        cr_assert(!sqlite3_stmt_busy(s));
    row.in = "{}";
    cr_assert_eq(rig_put(&rig, STORE_RESULT, &row), 0);
    cr_assert_str_eq(back.in, "{\"CopyType\":5}");
    store_reader_give(rig.store, reader);
    rig_remove(&rig);
}

/* The wrong value in the file is found, though the trees are sound. */
Test(rows, a_changed_value_is_found)
{
    struct rig rig;
    struct store_job row = { .id = rig_id(1), .watermark = 77, .error = "none" }, back;

    rig_make(&rig);
    rig_open(&rig);
    cr_assert_eq(rig_put(&rig, STORE_JOB, &row), 0);
    cr_assert_eq(handle_sql(&rig.store->writer, "UPDATE job SET watermark = 78"), 0);
    cr_assert_eq(store_get(store_own_reader(rig.store), STORE_JOB, row.id.text, &back),
            -EUCLEAN);
    cr_assert_eq(
            handle_sql(&rig.store->writer, "UPDATE job SET watermark = 77, error='n'"),
            0);
    cr_assert_eq(store_get(store_own_reader(rig.store), STORE_JOB, row.id.text, &back),
            -EUCLEAN);
    cr_assert_eq(handle_sql(&rig.store->writer, "UPDATE job SET error='none'"), 0);
    cr_assert_eq(
            store_get(store_own_reader(rig.store), STORE_JOB, row.id.text, &back), 0);
    rig_remove(&rig);
}

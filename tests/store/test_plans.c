/* No list walks a table or sorts: asked of SQLite for every statement that really ran. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/store/rig.h"

enum { TEXTS = 512 };

static char *texts[TEXTS]; /* of the statements that ran, each once */
static unsigned text_count;
static unsigned
        walked; /* rows stepped over in a full scan, rows sorted, indexes made */

static void text_note(const char *sql)
{
    for (unsigned i = 0; i < text_count; i++)
        if (strcmp(texts[i], sql) == 0)
            return;
    cr_assert_lt(text_count, TEXTS);
    texts[text_count++] = strdup(sql);
}

static bool text_is_pragma(const char *sql)
{
    return strncmp(sql, "PRAGMA", 6) == 0 || strncmp(sql, "CREATE", 6) == 0 ||
            strncmp(sql, "ALTER", 5) == 0 || strstr(sql, "sqlite_schema") ||
            strncmp(sql, "EXPLAIN", 7) == 0;
}

static int trace(unsigned event, void *context, void *p, void *x)
{
    sqlite3_stmt *stmt = p;
    const char *sql = sqlite3_sql(stmt);

    (void)context;
    (void)x;
    if (event != SQLITE_TRACE_PROFILE || !sql || text_is_pragma(sql))
        return 0;
    text_note(sql);
    if (strncmp(sql, "SELECT count(*) FROM \"", 22) == 0 && !strstr(sql, "WHERE"))
        return 0;
    if (strstr(sql, "sqlite_sequence"))
        return 0;
    walked += (unsigned)sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_FULLSCAN_STEP, 0);
    walked += (unsigned)sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_SORT, 0);
    walked += (unsigned)sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_AUTOINDEX, 0);
    return 0;
}

/* Called by SQLite for each connection that is opened. */
static int watch(sqlite3 *db, char **words, const void *api)
{
    (void)words;
    (void)api;
    return sqlite3_trace_v2(db, SQLITE_TRACE_PROFILE, trace, NULL);
}

/* Two exceptions, both of one look and not of a list: the whole count of a table, which
   SQLite takes from its pages, and the table of one row that keeps the last number. */
static bool text_may_scan(const char *sql)
{
    return (strncmp(sql, "SELECT count(*) FROM \"", 22) == 0 &&
                   !strstr(sql, "WHERE")) ||
            strstr(sql, "FROM sqlite_sequence");
}

/* Does the plan of @sql walk without bounds or sort? */
static bool plan_is_bad(sqlite3 *db, const char *sql, unsigned *lines)
{
    char *explain = sqlite3_mprintf("EXPLAIN QUERY PLAN %s", sql);
    sqlite3_stmt *stmt = NULL;
    bool bad = false;

    cr_assert_eq(sqlite3_prepare_v2(db, explain, -1, &stmt, NULL), SQLITE_OK, "%s: %s",
            sql, sqlite3_errmsg(db));
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        const char *detail = (const char *)sqlite3_column_text(stmt, 3);
        bool scan = strncmp(detail, "SCAN ", 5) == 0 &&
                strcmp(detail, "SCAN CONSTANT ROW") != 0 && !text_may_scan(sql);
        ++*lines;
        if (scan || strstr(detail, "TEMP B-TREE") || strstr(detail, "AUTOMATIC"))
            bad = true;
    }
    sqlite3_finalize(stmt);
    sqlite3_free(explain);
    return bad;
}

static bool row_each(void *context, const void *row)
{
    (void)context;
    (void)row;
    return true;
}

/* Text ids that are there, so that statements have rows to step over. */
static const struct uuid *value_id(unsigned i)
{
    static struct uuid ids[64];

    ids[i] = rig_id(i);
    return &ids[i];
}

static void filter_set(
        struct store_filter *filter, enum store_column column, unsigned count)
{
    const struct table *table = table_of(column_table(column));

    memset(filter, 0, sizeof(*filter));
    filter->column = column;
    filter->is_number = table->fields[column_field(column)].kind < FIELD_UUID;
    filter->count = count;
    for (unsigned i = 0; i < count; i++) {
        filter->numbers[i] = i;
        filter->texts[i] = value_id(i)->text;
    }
}

static unsigned shapes_run(struct store_reader *reader, struct store_query *query)
{
    static const char before[] = "00000000-0000-7000-8000-000000000030";
    static const char since[] = "00000000-0000-7000-8000-000000000003";
    unsigned ran = 0;

    for (unsigned bounds = 0; bounds < 4; bounds++)
        for (unsigned limit = 1; limit <= 1000; limit += 999) {
            bool number = query->table == STORE_EVENT;
            query->before = bounds & 1 ? number ? "30" : before : NULL;
            query->since = bounds & 2 ? number ? "3" : since : NULL;
            query->limit = limit;
            cr_assert_geq(store_list(reader, query, row_each, NULL), 0);
            ran++;
        }
    cr_assert_geq(store_count(reader, query), 0);
    return ran;
}

static unsigned table_run(struct store_reader *reader, enum store_table table)
{
    struct store_query query = { .table = table };
    unsigned ran = shapes_run(reader, &query);

    for (unsigned a = 0; a < STORE_COLUMN_COUNT; a++) {
        if (column_table(a) != table)
            continue;
        for (unsigned count = 1; count <= 16; count += count == 1 ? 2 : 13) {
            query.filter_count = 1;
            filter_set(&query.filters[0], a, count);
            ran += shapes_run(reader, &query);
        }
        for (unsigned b = 0; b < STORE_COLUMN_COUNT; b++) {
            if (column_table(b) != table)
                continue;
            query.filter_count = 2;
            filter_set(&query.filters[0], a, 1 + b % 3);
            filter_set(&query.filters[1], b, 1 + a % 3);
            ran += shapes_run(reader, &query);
        }
    }
    return ran;
}

static void rows_make(struct rig *rig)
{
    uint64_t seed = 11;
    union store_row row;

    cr_assert_eq(store_begin(rig->store), 0);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++)
        for (unsigned i = 1; i <= 64; i++) {
            rig_fill(table, i % RIG_VALUES, i, &seed, &row);
            cr_assert_eq(rig_put(rig, table, &row), 0);
        }
    cr_assert_eq(store_commit(rig->store), 0);
}

static void others_run(struct rig *rig, struct store_reader *reader)
{
    uint64_t seed = 12;
    union store_row row;

    cr_assert_geq(store_events(reader, 3, 10, row_each, NULL), 0);
    cr_assert_gt(store_last_event(reader), 0);
    cr_assert_gt(store_first_event(reader), 0);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++) {
        rig_fill(table, RIG_LARGEST, 5, &seed, &row);
        cr_assert_eq(
                store_get(reader, table, rig_key(table, &row), &(union store_row){ 0 }),
                0);
        cr_assert_eq(rig_put(rig, table, &row), 0);
        cr_assert_eq(rig_delete(rig, table, &row), 0);
    }
    /* By age, by number, and both with little room. */
    cr_assert_geq(store_expire(rig->store, 100, 60, 0x780, 100, 3), 0);
    cr_assert_geq(store_expire(rig->store, INT64_MAX, 2, 0x780, INT64_MAX, 1000), 0);
    cr_assert_geq(store_expire(rig->store, 0, 0, UINT64_MAX, 0, 1000), 0);
}

Test(plans, no_statement_walks_a_table_or_sorts)
{
    struct rig rig;
    struct store_reader *reader;
    unsigned ran = 0, lines = 0;

    sqlite3_auto_extension((void (*)(void))watch);
    rig_make(&rig);
    rig_open(&rig);
    rows_make(&rig);
    reader = store_reader_take(rig.store, 60000);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++)
        ran += table_run(reader, table);
    others_run(&rig, reader);
    cr_assert_eq(walked, 0, "%u rows were walked or sorted", walked);
    sqlite3_cancel_auto_extension((void (*)(void))watch);
    (void)sqlite3_trace_v2(reader->db, 0, NULL, NULL);
    for (unsigned i = 0; i < text_count; i++)
        cr_assert(!plan_is_bad(reader->db, texts[i], &lines), "%s", texts[i]);
    /* Nothing seen is nothing proven: a list by each column, a list of each table, both
       counts of each column, and the rest. */
    cr_assert_gt(text_count, 3 * STORE_COLUMN_COUNT + 5 * STORE_TABLE_COUNT);
    cr_assert_gt(lines, 3 * STORE_COLUMN_COUNT);
    cr_log_info("%u queries, %u statements, %u lines of plans", ran, text_count, lines);
    store_reader_give(rig.store, reader);
    for (unsigned i = 0; i < text_count; i++)
        free(texts[i]);
    rig_remove(&rig);
}

/* The judge can say no. */
Test(plans, bad_statements_are_found)
{
    static const char *const sins[] = { "SELECT * FROM job",
        "SELECT * FROM job ORDER BY submitted",
        "SELECT * FROM job WHERE state = 4 ORDER BY submitted",
        "SELECT * FROM job WHERE state IN (4, 7, 8) ORDER BY id DESC LIMIT 5",
        "SELECT * FROM job WHERE method LIKE '%a' ORDER BY id DESC",
        "SELECT * FROM job WHERE state + 0 = 4 ORDER BY id DESC",
        "SELECT * FROM element WHERE size > 5 ORDER BY id DESC",
        "SELECT * FROM replica ORDER BY percent",
        "SELECT method, count(*) FROM job GROUP BY state, method" };
    struct rig rig;
    unsigned lines = 0;

    rig_make(&rig);
    rig_open(&rig);
    for (unsigned i = 0; i < sizeof(sins) / sizeof(sins[0]); i++)
        cr_assert(plan_is_bad(rig.store->writer.db, sins[i], &lines), "%s", sins[i]);
    rig_remove(&rig);
}

/* And so can the counters of the statements that ran. */
Test(plans, bad_runs_are_found)
{
    struct rig rig;

    sqlite3_auto_extension((void (*)(void))watch);
    rig_make(&rig);
    rig_open(&rig);
    rows_make(&rig);
    cr_assert_eq(walked, 0);
    cr_assert_eq(
            handle_sql(&rig.store->writer, "SELECT * FROM job ORDER BY submitted"), 0);
    cr_assert_gt(walked, 60);
    sqlite3_cancel_auto_extension((void (*)(void))watch);
    for (unsigned i = 0; i < text_count; i++)
        free(texts[i]);
    rig_remove(&rig);
}

/* store/query.c - rows by key, lists and counts.
 *
 * A list is walked in the order of an index, newest first, and stops when it has its rows:
 * nothing is sorted, nothing walked twice. A filter of several values is as many walks of one
 * index, merged here by id: SQLite would gather an IN list's rows and sort them. Of several
 * filters one drives the walk, the one that matches fewest rows (counted to WEIGH_MAX); the
 * others are asked of each row that comes by.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "store/inside.h"

enum { VALUES_MAX = 16, FILTERS_MAX = 8, LIMIT_MAX = 1000, WEIGH_MAX = 1000 };

/* -- one row ---------------------------------------------------------------------------- */

static int row_fetch(struct statement *statement, enum store_table table, void *row)
{
    char what[80];
    int error = row_read(statement->stmt, table, row);

    if (error != -EUCLEAN)
        return error;
    (void)snprintf(what, sizeof(what), "a row of %s is not as it was written",
            table_of(table)->name);
    return handle_corrupt(statement->reader, what);
}

static int held_grow(struct store_reader *reader, size_t size)
{
    char *held;

    if (size <= reader->held_size)
        return 0;
    held = realloc(reader->held, size);
    if (!held)
        return -ENOMEM;
    reader->held = held;
    reader->held_size = size;
    return 0;
}

/* Long texts outlive their statement in the handle, so that no read transaction stays open. */
static int row_hold(struct store_reader *reader, enum store_table word, void *row)
{
    const struct table *table = table_of(word);

    for (unsigned i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        char *place = (char *)row + field->offset;
        const char *text;
        if (field->kind != FIELD_LONG)
            continue;
        memcpy(&text, place, sizeof(text));
        int error = held_grow(reader, strlen(text) + 1);
        if (error)
            return error;
        memcpy(reader->held, text, strlen(text) + 1);
        memcpy(place, &reader->held, sizeof(reader->held));
    }
    return 0;
}

int store_get(
        struct store_reader *reader, enum store_table table, const char *key, void *row)
{
    scoped_stmt struct statement statement = { 0 };
    int error = statement_take(reader, SHAPE_GET + table, &statement);
    int rc;

    if (error)
        return error;
    rc = key_bind(statement.stmt, 1, table, key);
    if (rc != SQLITE_OK)
        return rc == SQLITE_RANGE ? -ENOENT : handle_error(reader, rc);
    error = statement_step(&statement);
    if (error <= 0)
        return error ? error : -ENOENT;
    error = row_fetch(&statement, table, row);
    return error ? error : row_hold(reader, table, row);
}

/* -- filters ---------------------------------------------------------------------------- */

static const struct field *filter_field(const struct store_filter *filter)
{
    return &table_of(column_table(filter->column))
                    ->fields[column_field(filter->column)];
}

static void query_check(const struct store_query *query)
{
    check(query->filter_count <= FILTERS_MAX);
    for (unsigned i = 0; i < query->filter_count; i++) {
        const struct store_filter *filter = &query->filters[i];
        check(column_table(filter->column) == query->table);
        check(filter->count >= 1 && filter->count <= VALUES_MAX);
        check(filter->is_number == (filter_field(filter)->kind < FIELD_UUID));
    }
}

static bool filter_same(const struct store_filter *filter, unsigned a, unsigned b)
{
    if (filter->is_number)
        return filter->numbers[a] == filter->numbers[b];
    return strcmp(filter->texts[a], filter->texts[b]) == 0;
}

/* Has the value stood in the filter before? Its rows must come once. */
static bool filter_repeats(const struct store_filter *filter, unsigned at)
{
    for (unsigned i = 0; i < at; i++)
        if (filter_same(filter, i, at))
            return true;
    return false;
}

static int filter_bind(
        sqlite3_stmt *stmt, int at, const struct store_filter *filter, unsigned value)
{
    if (filter->is_number)
        return sqlite3_bind_int64(stmt, at, filter->numbers[value]);
    return sqlite3_bind_text(stmt, at, filter->texts[value], -1, SQLITE_STATIC);
}

/* Asked of the row a list statement stands on: its columns are the fields in their order. */
static bool filter_matches(const struct store_filter *filter, sqlite3_stmt *stmt)
{
    int column = (int)column_field(filter->column);

    for (unsigned i = 0; i < filter->count; i++) {
        const unsigned char *text;
        if (filter->is_number) {
            if (sqlite3_column_int64(stmt, column) == filter->numbers[i])
                return true;
            continue;
        }
        text = sqlite3_column_text(stmt, column);
        if (text && strcmp((const char *)text, filter->texts[i]) == 0)
            return true;
    }
    return false;
}

/* Rows a filter's values have, counted to WEIGH_MAX; or a negative errno. */
static int filter_weigh(struct store_reader *reader, const struct store_filter *filter)
{
    int weight = 0;

    for (unsigned i = 0; i < filter->count; i++) {
        scoped_stmt struct statement statement = { 0 };
        int error = statement_take(reader, SHAPE_WEIGH_BY + filter->column, &statement);
        if (error)
            return error;
        error = filter_bind(statement.stmt, 1, filter, i);
        if (error != SQLITE_OK)
            return handle_error(reader, error);
        while (weight < WEIGH_MAX && (error = statement_step(&statement)) > 0)
            weight++;
        if (error < 0)
            return error;
    }
    return weight;
}

/* The filter that drives the walk; or a negative errno. */
static int query_driver(struct store_reader *reader, const struct store_query *query)
{
    int best = 0, least = WEIGH_MAX;

    if (query->filter_count == 1)
        return 0;
    for (unsigned i = 0; i < query->filter_count; i++) {
        int weight = filter_weigh(reader, &query->filters[i]);
        if (weight < 0)
            return weight;
        if (weight < least) {
            least = weight;
            best = (int)i;
        }
    }
    return best;
}

/* -- the walk --------------------------------------------------------------------------- */

struct walk {
    struct store_reader *reader;
    const struct store_query *query;
    const struct store_filter *driver; /* NULL: the table in the order of its key */
    unsigned count;
    bool looking; /* a read transaction of ours is open */
    struct statement
            streams[VALUES_MAX]; /* each on its next row; ended ones are given back */
};

static void walk_end(struct walk *walk)
{
    for (unsigned i = 0; i < walk->count; i++)
        statement_give(&walk->streams[i]);
    if (walk->looking)
        (void)statement_run(walk->reader, SHAPE_COMMIT);
}

/* A NULL cursor must hold nothing back: a blob sorts after every text, '' before. */
static int walk_bind_bounds(struct walk *walk, sqlite3_stmt *stmt)
{
    const struct store_query *query = walk->query;
    bool number = table_of(query->table)->fields[0].kind == FIELD_NUMBER;
    int rc;

    if (query->before)
        rc = key_bind(stmt, 1, query->table, query->before);
    else
        rc = number ? sqlite3_bind_int64(stmt, 1, INT64_MAX)
                    : sqlite3_bind_zeroblob(stmt, 1, 0);
    if (rc != SQLITE_OK)
        return rc;
    if (query->since)
        return key_bind(stmt, 2, query->table, query->since);
    return number ? sqlite3_bind_int64(stmt, 2, INT64_MIN)
                  : sqlite3_bind_text(stmt, 2, "", 0, SQLITE_STATIC);
}

/* Go on to the next row of a stream, or give it back. */
static int stream_next(struct statement *stream)
{
    int more = statement_step(stream);

    if (more <= 0)
        statement_give(stream);
    return more < 0 ? more : 0;
}

static int stream_start(struct walk *walk, unsigned value)
{
    const struct store_filter *driver = walk->driver;
    enum shape shape = driver ? SHAPE_LIST_BY + driver->column
                              : SHAPE_LIST + (enum shape)walk->query->table;
    struct statement *stream = &walk->streams[walk->count];
    int error = statement_take(walk->reader, shape, stream);
    int rc;

    if (error)
        return error;
    walk->count++;
    rc = walk_bind_bounds(walk, stream->stmt);
    if (rc == SQLITE_OK && driver)
        rc = filter_bind(stream->stmt, 3, driver, value);
    return rc == SQLITE_OK ? stream_next(stream) : handle_error(walk->reader, rc);
}

static int walk_start(struct walk *walk)
{
    const struct store_query *query = walk->query;
    struct store_reader *reader = walk->reader;
    int error = 0, driver;

    if (!query->filter_count)
        return stream_start(walk, 0);
    /* Several statements must see one state. The writer's own eyes do anyway. */
    if (reader->db && !reader->writer && sqlite3_get_autocommit(reader->db)) {
        error = statement_run(reader, SHAPE_LOOK);
        walk->looking = !error;
    }
    if (error)
        return error;
    driver = query_driver(reader, query);
    if (driver < 0)
        return driver;
    walk->driver = &query->filters[driver];
    for (unsigned i = 0; i < walk->driver->count && !error; i++)
        if (!filter_repeats(walk->driver, i))
            error = stream_start(walk, i);
    return error;
}

/* The stream with the newest row; NULL: the walk is over. A stream of its own has no rival,
   so only ids, which are text, are ever compared. */
static struct statement *walk_newest(struct walk *walk)
{
    struct statement *newest = NULL;
    const char *best = NULL;

    for (unsigned i = 0; i < walk->count; i++) {
        struct statement *stream = &walk->streams[i];
        const char *id;
        if (!stream->stmt)
            continue;
        if (walk->count == 1)
            return stream;
        id = (const char *)sqlite3_column_text(stream->stmt, 0);
        if (!newest || (id && best && strcmp(id, best) > 0)) {
            newest = stream;
            best = id;
        }
    }
    return newest;
}

static bool walk_matches(const struct walk *walk, sqlite3_stmt *stmt)
{
    for (unsigned i = 0; i < walk->query->filter_count; i++)
        if (&walk->query->filters[i] != walk->driver &&
                !filter_matches(&walk->query->filters[i], stmt))
            return false;
    return true;
}

int store_list(struct store_reader *reader, const struct store_query *query,
        store_row_f *each, void *context)
{
    scoped(walk_end) struct walk walk = { .reader = reader, .query = query };
    union store_row row;
    struct statement *stream;
    unsigned delivered = 0;
    int error;

    query_check(query);
    check(query->limit >= 1 && query->limit <= LIMIT_MAX);
    error = walk_start(&walk);
    while (!error && delivered < query->limit && (stream = walk_newest(&walk))) {
        if (walk_matches(&walk, stream->stmt)) {
            error = row_fetch(stream, query->table, &row);
            if (error)
                break;
            delivered++;
            if (!each(context, &row))
                break;
        }
        error = stream_next(stream);
    }
    return error ? error : (int)delivered;
}

/* -- counts ----------------------------------------------------------------------------- */

static int64_t count_run(struct store_reader *reader, enum shape shape,
        const struct store_filter *filter, unsigned value)
{
    scoped_stmt struct statement statement = { 0 };
    int error = statement_take(reader, shape, &statement);
    int rc = SQLITE_OK;

    if (error)
        return error;
    if (filter)
        rc = filter_bind(statement.stmt, 1, filter, value);
    if (rc != SQLITE_OK)
        return handle_error(reader, rc);
    error = statement_step(&statement);
    return error > 0 ? sqlite3_column_int64(statement.stmt, 0) : error;
}

/* One filter is answered by its index alone. */
static int64_t count_filter(
        struct store_reader *reader, const struct store_filter *filter)
{
    int64_t sum = 0;

    for (unsigned i = 0; i < filter->count; i++) {
        int64_t count = 0;
        if (!filter_repeats(filter, i))
            count = count_run(reader, SHAPE_COUNT_BY + filter->column, filter, i);
        if (count < 0)
            return count;
        sum += count;
    }
    return sum;
}

static int64_t count_walk(struct store_reader *reader, const struct store_query *query)
{
    struct store_query whole = *query;
    scoped(walk_end) struct walk walk = { .reader = reader, .query = &whole };
    int64_t count = 0;
    int error;

    whole.before = whole.since = NULL;
    error = walk_start(&walk);
    for (unsigned i = 0; i < walk.count; i++)
        while (!error && walk.streams[i].stmt) {
            count += walk_matches(&walk, walk.streams[i].stmt);
            error = stream_next(&walk.streams[i]);
        }
    return error ? error : count;
}

int64_t store_count(struct store_reader *reader, const struct store_query *query)
{
    query_check(query);
    if (!query->filter_count)
        return count_run(reader, SHAPE_COUNT + query->table, NULL, 0);
    if (query->filter_count == 1)
        return count_filter(reader, &query->filters[0]);
    return count_walk(reader, query);
}

/* -- events ----------------------------------------------------------------------------- */

int store_events(struct store_reader *reader, int64_t after, unsigned limit,
        store_row_f *each, void *context)
{
    scoped_stmt struct statement statement = { 0 };
    int error = statement_take(reader, SHAPE_EVENTS, &statement);
    unsigned delivered = 0;
    struct store_event row;

    if (error)
        return error;
    error = sqlite3_bind_int64(statement.stmt, 1, after);
    if (error != SQLITE_OK)
        return handle_error(reader, error);
    while (delivered < limit && (error = statement_step(&statement)) > 0) {
        error = row_fetch(&statement, STORE_EVENT, &row);
        if (error)
            return error;
        delivered++;
        if (!each(context, &row))
            break;
    }
    return error < 0 ? error : (int)delivered;
}

static int64_t event_number(struct store_reader *reader, enum shape shape)
{
    int64_t number = count_run(reader, shape, NULL, 0);

    return number > 0 ? number : 0;
}

int64_t store_last_event(struct store_reader *reader)
{
    return event_number(reader, SHAPE_LAST_EVENT);
}

int64_t store_first_event(struct store_reader *reader)
{
    return event_number(reader, SHAPE_FIRST_EVENT);
}

/* Lists against a model that looks at every row. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/store/rig.h"

enum { JOBS = 400, ROUNDS = 3000 };

struct world {
    struct rig rig;
    struct store_job jobs[JOBS]; /* in the order of their ids */
};

static struct world *world;
static uint64_t seed;

static const char *const methods[] = { "CreateReplica", "AttachOrModifyReplica", "",
    "é" };

static void job_make(struct store_job *job, uint64_t n)
{
    memset(job, 0, sizeof(*job));
    job->id = rig_id(n * 3 + 1);
    job->state = (int64_t)seed_below(&seed, 12);
    job->source = rig_id(seed_below(&seed, 4));
    job->target = rig_id(seed_below(&seed, 30));
    if (seed_below(&seed, 2))
        job->replica = job->target;
    job->delete_on_completion = seed_below(&seed, 5) == 0;
    strcpy(job->method, methods[seed_below(&seed, 4)]);
}

static void setup(void)
{
    static struct world room;

    world = &room;
    seed = seed_take("lists");
    rig_make(&world->rig);
    rig_open(&world->rig);
    cr_assert_eq(store_begin(world->rig.store), 0);
    for (unsigned i = 0; i < JOBS; i++) {
        job_make(&world->jobs[i], i);
        cr_assert_eq(rig_put(&world->rig, STORE_JOB, &world->jobs[i]), 0);
    }
    cr_assert_eq(store_commit(world->rig.store), 0);
}

static void teardown(void)
{
    rig_remove(&world->rig);
}

TestSuite(lists, .init = setup, .fini = teardown);

/* -- the model -------------------------------------------------------------------------- */

static bool value_matches(
        const struct store_filter *filter, unsigned i, const struct store_job *job)
{
    switch (filter->column) {
    case JOB_STATE:
        return filter->numbers[i] == job->state;
    case JOB_REMOVE:
        return filter->numbers[i] == job->delete_on_completion;
    case JOB_SOURCE:
        return strcmp(filter->texts[i], job->source.text) == 0;
    case JOB_TARGET:
        return strcmp(filter->texts[i], job->target.text) == 0;
    case JOB_REPLICA:
        return strcmp(filter->texts[i], job->replica.text) == 0;
    default:
        return strcmp(filter->texts[i], job->method) == 0;
    }
}

static bool model_matches(const struct store_query *query, const struct store_job *job)
{
    for (unsigned f = 0; f < query->filter_count; f++) {
        bool any = false;
        for (unsigned i = 0; i < query->filters[f].count; i++)
            any = any || value_matches(&query->filters[f], i, job);
        if (!any)
            return false;
    }
    return true;
}

static bool model_between(const struct store_query *query, const struct store_job *job)
{
    return (!query->before || strcmp(job->id.text, query->before) < 0) &&
            (!query->since || strcmp(job->id.text, query->since) >= 0);
}

/* -- chance ----------------------------------------------------------------------------- */

static struct uuid texts[8][16];

static void filter_random(struct store_filter *filter, unsigned at)
{
    static const enum store_column columns[] = { JOB_STATE, JOB_SOURCE, JOB_TARGET,
        JOB_REPLICA, JOB_METHOD, JOB_REMOVE };

    filter->column = columns[seed_below(&seed, 6)];
    filter->is_number = filter->column == JOB_STATE || filter->column == JOB_REMOVE;
    filter->count = 1 + (unsigned)seed_below(&seed, seed_below(&seed, 3) ? 3 : 16);
    for (unsigned i = 0; i < filter->count; i++) {
        filter->numbers[i] = (int64_t)seed_below(&seed, 13);
        texts[at][i] = rig_id(seed_below(&seed, filter->column == JOB_SOURCE ? 5 : 31));
        if (filter->column == JOB_REPLICA && seed_below(&seed, 4) == 0)
            texts[at][i].text[0] = 0;
        filter->texts[i] = filter->column == JOB_METHOD ? methods[seed_below(&seed, 4)]
                                                        : texts[at][i].text;
    }
}

static void query_random(struct store_query *query)
{
    static struct uuid before, since;

    memset(query, 0, sizeof(*query));
    query->table = STORE_JOB;
    query->filter_count = (unsigned)seed_below(&seed, seed_below(&seed, 4) ? 3 : 9);
    for (unsigned i = 0; i < query->filter_count; i++)
        filter_random(&query->filters[i], i);
    before = rig_id(seed_below(&seed, JOBS * 3 + 2));
    since = rig_id(seed_below(&seed, JOBS * 3 + 2));
    query->before = seed_below(&seed, 2) ? before.text : NULL;
    query->since = seed_below(&seed, 3) ? NULL : since.text;
    query->limit = seed_below(&seed, 2) ? 1000 : 1 + (unsigned)seed_below(&seed, 20);
}

/* -- comparison ------------------------------------------------------------------------- */

struct found {
    unsigned count;
    struct uuid ids[1000];
};

static bool found_add(void *context, const void *row)
{
    struct found *found = context;
    const struct store_job *job = row;

    found->ids[found->count++] = job->id;
    return true;
}

static void compare(struct store_reader *reader, const struct store_query *query)
{
    static struct found found;
    unsigned expected = 0;
    int64_t count = 0;
    int delivered;

    found.count = 0;
    delivered = store_list(reader, query, found_add, &found);
    cr_assert_eq(delivered, (int)found.count);
    for (int i = JOBS - 1; i >= 0; i--) {
        const struct store_job *job = &world->jobs[i];
        count += model_matches(query, job);
        if (expected == query->limit || !model_matches(query, job) ||
                !model_between(query, job))
            continue;
        cr_assert_lt(expected, found.count, "a row is missing");
        cr_assert_str_eq(found.ids[expected].text, job->id.text);
        expected++;
    }
    cr_assert_eq(expected, found.count, "%u rows too many", found.count - expected);
    cr_assert_eq(store_count(reader, query), count);
}

Test(lists, agree_with_the_model)
{
    struct store_reader *reader = store_reader_take(world->rig.store, 60000);
    struct store_query query;

    for (unsigned i = 0; i < ROUNDS; i++) {
        query_random(&query);
        compare(i % 2 ? reader : store_own_reader(world->rig.store), &query);
    }
    store_reader_give(world->rig.store, reader);
}

Test(lists, pages_meet_without_gap_or_overlap)
{
    struct store_reader *reader = store_reader_take(world->rig.store, 60000);
    struct store_query query = { .table = STORE_JOB,
        .filter_count = 1,
        .limit = 7,
        .filters = { { .column = JOB_STATE,
                .is_number = true,
                .count = 3,
                .numbers = { 4, 7, 10 } } } };
    static struct found page, all;
    unsigned sum = 0;

    query.limit = 1000;
    (void)store_list(reader, &query, found_add, &all);
    query.limit = 7;
    do {
        page.count = 0;
        cr_assert_geq(store_list(reader, &query, found_add, &page), 0);
        for (unsigned i = 0; i < page.count; i++)
            cr_assert_str_eq(page.ids[i].text, all.ids[sum++].text);
        query.before = sum ? all.ids[sum - 1].text : NULL;
    } while (page.count == 7);
    cr_assert_eq(sum, all.count);
    store_reader_give(world->rig.store, reader);
}

/* -- callbacks -------------------------------------------------------------------------- */

static bool stop_third(void *context, const void *row)
{
    (void)row;
    return ++*(unsigned *)context < 3;
}

Test(lists, stop_when_told)
{
    unsigned calls = 0;
    struct store_query query = { .table = STORE_JOB, .limit = 100 };

    cr_assert_eq(
            store_list(store_own_reader(world->rig.store), &query, stop_third, &calls),
            3);
    cr_assert_eq(calls, 3);
}

struct nested {
    struct store_reader *reader;
    unsigned depth, rows;
};

/* The same statement again, inside its own list, and rows by key beside it. */
static bool nested_each(void *context, const void *row)
{
    struct nested *nested = context;
    const struct store_job *job = row;
    struct store_job again;
    struct store_query query = { .table = STORE_JOB,
        .filter_count = 1,
        .limit = 3,
        .filters = { { .column = JOB_SOURCE, .count = 2 } } };

    query.filters[0].texts[0] = job->source.text;
    query.filters[0].texts[1] = "none";
    nested->rows++;
    cr_assert_eq(store_get(nested->reader, STORE_JOB, job->id.text, &again), 0);
    cr_assert(rig_equal(STORE_JOB, job, &again));
    if (nested->depth < 3) {
        struct nested inner = { nested->reader, nested->depth + 1, 0 };
        cr_assert_geq(store_list(nested->reader, &query, nested_each, &inner), 1);
        cr_assert_geq(inner.rows, 1);
    }
    return true;
}

Test(lists, may_be_asked_inside_one_another)
{
    struct store_reader *reader = store_reader_take(world->rig.store, 60000);
    struct nested nested = { .reader = reader };
    struct store_query query = { .table = STORE_JOB, .limit = 5 };

    cr_assert_eq(store_list(reader, &query, nested_each, &nested), 5);
    cr_assert_eq(nested.rows, 5);
    cr_assert(sqlite3_get_autocommit(reader->db));
    store_reader_give(world->rig.store, reader);
}

/* What is committed while a list is read does not come into it: it is one state. */
static bool meddle_each(void *context, const void *row)
{
    const struct store_job *job = row;
    struct store_job other = *job;

    (*(unsigned *)context)++;
    cr_assert(job->state == 1 || job->state == 2);
    for (unsigned i = 0; i < JOBS; i++) {
        other = world->jobs[i];
        other.state = 3;
        cr_assert_eq(rig_put(&world->rig, STORE_JOB, &other), 0);
        if (i == 3)
            break;
    }
    other = *job;
    other.state = 3;
    cr_assert_eq(rig_put(&world->rig, STORE_JOB, &other), 0);
    return true;
}

Test(lists, are_of_one_moment)
{
    struct store_reader *reader = store_reader_take(world->rig.store, 60000);
    struct store_query query = { .table = STORE_JOB,
        .filter_count = 1,
        .limit = 30,
        .filters = { { .column = JOB_STATE,
                .is_number = true,
                .count = 2,
                .numbers = { 1, 2 } } } };
    int64_t before = store_count(reader, &query);
    unsigned rows = 0;

    cr_assert_eq(
            store_list(reader, &query, meddle_each, &rows), before < 30 ? before : 30);
    cr_assert_lt(store_count(reader, &query), before);
    store_reader_give(world->rig.store, reader);
}

static unsigned starts;

/* When the second value's walk begins, its only row becomes one of the first value. */
static int move_when_second(unsigned event, void *context, void *stmt, void *text)
{
    struct store_job *job = context;

    (void)event;
    (void)text;
    if (strstr(sqlite3_sql(stmt), "INDEXED BY") && ++starts == 2) {
        job->state = 101;
        cr_assert_eq(rig_put(&world->rig, STORE_JOB, job), 0);
    }
    return 0;
}

Test(lists, do_not_lose_a_row_that_moves)
{
    struct store_reader *reader = store_reader_take(world->rig.store, 60000);
    struct store_job job = { .id = rig_id(0x99999), .state = 102 };
    struct store_query query = { .table = STORE_JOB,
        .filter_count = 1,
        .limit = 30,
        .filters = { { .column = JOB_STATE,
                .is_number = true,
                .count = 2,
                .numbers = { 101, 102 } } } };
    static struct found found;

    cr_assert_eq(rig_put(&world->rig, STORE_JOB, &job), 0);
    cr_assert_eq(
            sqlite3_trace_v2(reader->db, SQLITE_TRACE_STMT, move_when_second, &job),
            SQLITE_OK);
    cr_assert_eq(store_list(reader, &query, found_add, &found), 1);
    cr_assert_eq(starts, 2);
    cr_assert_str_eq(found.ids[0].text, job.id.text);
    (void)sqlite3_trace_v2(reader->db, 0, NULL, NULL);
    store_reader_give(world->rig.store, reader);
}

/* -- every table, every column ---------------------------------------------------------- */

static bool count_each(void *context, const void *row)
{
    (void)row;
    ++*(unsigned *)context;
    return true;
}

Test(lists, every_column_finds_its_row)
{
    struct store_reader *own = store_own_reader(world->rig.store);
    union store_row row;

    for (unsigned column = 0; column < STORE_COLUMN_COUNT; column++) {
        enum store_table table = column_table(column);
        const struct field *field = &table_of(table)->fields[column_field(column)];
        struct store_query query = { .table = table, .filter_count = 1, .limit = 10 };
        struct store_filter *filter = &query.filters[0];
        unsigned rows = 0;
        rig_fill(table, RIG_SMALLEST, 0x777, &seed, &row);
        cr_assert_eq(rig_put(&world->rig, table, &row), 0);
        *filter = (struct store_filter){
            .column = column, .count = 1, .is_number = field->kind < FIELD_UUID
        };
        filter->texts[0] = (char *)&row + field->offset;
        if (field->kind == FIELD_FLAG)
            filter->numbers[0] = *((char *)&row + field->offset);
        else if (filter->is_number)
            memcpy(&filter->numbers[0], (char *)&row + field->offset, 8);
        query.since = ((struct uuid *)(void *)&row)->text;
        cr_assert_geq(store_list(own, &query, count_each, &rows), 1, "%s.%s",
                table_of(table)->name, field->name);
        filter->numbers[0] = 12345;
        filter->texts[0] = "nothing has this";
        cr_assert_eq(store_list(own, &query, count_each, &rows), 0);
    }
}

Test(lists, tables_without_filters)
{
    struct store_reader *own = store_own_reader(world->rig.store);
    union store_row row;

    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++) {
        struct store_query query = { .table = table, .limit = 2 };
        unsigned rows = 0;
        for (unsigned i = 1; i <= 3; i++) {
            rig_fill(table, RIG_SMALLEST, 9000 + i, &seed, &row);
            cr_assert_eq(rig_put(&world->rig, table, &row), 0);
        }
        cr_assert_eq(store_list(own, &query, count_each, &rows), 2);
        cr_assert_eq(rows, 2);
        query.limit = 1000;
        query.before = query.since = rig_key(table, &row);
        cr_assert_eq(store_list(own, &query, count_each, &rows), 0);
        query.before = NULL;
        cr_assert_eq(store_list(own, &query, count_each, &rows), 1);
        cr_assert_eq(store_count(own, &query), table == STORE_JOB ? JOBS + 3 : 3);
    }
}

Test(lists, a_cursor_that_is_none)
{
    struct store_query query = { .table = STORE_EVENT, .limit = 10, .before = "x" };
    struct store_reader *reader = store_reader_take(world->rig.store, 60000);
    unsigned rows = 0;

    cr_assert_eq(store_list(reader, &query, count_each, &rows), -EINVAL);
    query = (struct store_query){ .table = STORE_JOB, .limit = 10, .before = "" };
    cr_assert_eq(store_list(reader, &query, count_each, &rows), 0);
    store_reader_give(world->rig.store, reader);
}

/* -- events ----------------------------------------------------------------------------- */

static bool event_each(void *context, const void *row)
{
    const struct store_event *event = row;
    int64_t *next = context;

    cr_assert_eq(event->number, *next);
    cr_assert_str_eq(event->changed, "{\"JobState\":7}");
    ++*next;
    return *next != 16;
}

Test(lists, events_come_oldest_first)
{
    struct store_event event = { .kind = "InstModification",
        .changed = "{\"JobState\":7}" };
    struct store_reader *reader = store_reader_take(world->rig.store, 60000);
    int64_t next = 1;

    cr_assert_eq(store_events(reader, 0, 10, event_each, &next), 0);
    for (unsigned i = 0; i < 20; i++)
        cr_assert_eq(rig_put(&world->rig, STORE_EVENT, &event), 0);
    cr_assert_eq(store_events(reader, 0, 7, event_each, &next), 7);
    cr_assert_eq(store_events(reader, 7, 5, event_each, &next), 5);
    cr_assert_eq(
            store_events(reader, 12, 100, event_each, &next), 3); /* told to stop */
    cr_assert_eq(store_events(reader, 15, 100, event_each, &next), 5);
    cr_assert_eq(store_events(reader, 20, 100, event_each, &next), 0);
    store_reader_give(world->rig.store, reader);
}

/* store/expire.c - what has grown old, or too much, is dropped, a little at a time.
 *
 * Each table has an index on the time that counts, and events their number, so a step costs
 * what it drops. How many rows there are is counted only when they could be too many: a span of
 * row numbers is an upper bound that costs nothing.
 */
#include <errno.h>

#include "replica/base/check.h"
#include "store/inside.h"

struct expiry {
    struct store_reader *writer;
    int64_t before_ms, keep;
    uint64_t ended_states;
    int64_t keys_before_ms;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Run a statement with up to three numbers. Returns rows changed or an errno. */
static int64_t expire_run(struct store_reader *writer, enum shape shape,
        const int64_t *numbers, int count)
{
    scoped_stmt struct statement statement = { 0 };
    int error = statement_take(writer, shape, &statement);

    for (int i = 0; i < count && !error; i++)
        if (sqlite3_bind_int64(statement.stmt, i + 1, numbers[i]) != SQLITE_OK)
            error = -ENOMEM;
    if (!error)
        error = statement_step(&statement);
    return error ? error : sqlite3_changes64(writer->db);
}

/* The first column of the first row, 0 when it is NULL; or an errno. */
static int64_t expire_ask(struct store_reader *writer, enum shape shape)
{
    scoped_stmt struct statement statement = { 0 };
    int error = statement_take(writer, shape, &statement);

    if (!error)
        error = statement_step(&statement);
    return error > 0 ? sqlite3_column_int64(statement.stmt, 0) : error;
}

/* How many rows beyond @keep there are: 0 at once when the span says so. */
static int64_t expire_surplus(
        const struct expiry *expiry, enum shape span, enum shape count)
{
    int64_t rows = expire_ask(expiry->writer, span);

    if (rows <= expiry->keep)
        return least(rows, 0);
    rows = expire_ask(expiry->writer, count);
    return rows < 0 ? rows : rows > expiry->keep ? rows - expiry->keep : 0;
}

static int64_t expire_jobs_before(
        const struct expiry *expiry, int64_t before_ms, int64_t most)
{
    return expire_run(expiry->writer, SHAPE_JOBS_EXPIRE,
            (int64_t[]){ before_ms, (int64_t)expiry->ended_states, most }, 3);
}

static int64_t expire_results_before(
        const struct expiry *expiry, int64_t before_ms, int64_t most)
{
    return expire_run(
            expiry->writer, SHAPE_RESULTS_EXPIRE, (int64_t[]){ before_ms, most }, 2);
}

/* By age, then by number, both oldest first. */
static int64_t expire_rows(const struct expiry *expiry, int64_t most,
        int64_t (*before)(const struct expiry *, int64_t, int64_t), enum shape span,
        enum shape count)
{
    int64_t dropped = before(expiry, expiry->before_ms, most);
    int64_t surplus;

    if (dropped < 0 || dropped == most)
        return dropped;
    surplus = expire_surplus(expiry, span, count);
    if (surplus <= 0)
        return surplus < 0 ? surplus : dropped;
    surplus = before(expiry, INT64_MAX, least(surplus, most - dropped));
    return surplus < 0 ? surplus : dropped + surplus;
}

static int64_t expire_jobs(const struct expiry *expiry, int64_t most)
{
    return expire_rows(
            expiry, most, expire_jobs_before, SHAPE_JOBS_SPAN, SHAPE_JOBS_ENDED);
}

static int64_t expire_results(const struct expiry *expiry, int64_t most)
{
    return expire_rows(expiry, most, expire_results_before, SHAPE_RESULTS_SPAN,
            (enum shape)(SHAPE_COUNT + STORE_RESULT));
}

/* The last of the old events, among the first @most; 0: none; or an errno. */
static int64_t events_old(const struct expiry *expiry, int64_t most)
{
    scoped_stmt struct statement statement = { 0 };
    int more = statement_take(expiry->writer, SHAPE_EVENTS_WALK, &statement);
    int64_t old = 0;

    if (more || sqlite3_bind_int64(statement.stmt, 1, 0) != SQLITE_OK)
        return more ? more : -ENOMEM;
    for (int64_t i = 0; i < most && (more = statement_step(&statement)) > 0; i++) {
        if (sqlite3_column_int64(statement.stmt, 1) >= expiry->before_ms)
            break;
        old = sqlite3_column_int64(statement.stmt, 0);
    }
    return more < 0 ? more : old;
}

/* Only ever from the front: what is kept has no holes, whatever the clock did. */
static int64_t expire_events(const struct expiry *expiry, int64_t most)
{
    int64_t first = expire_ask(expiry->writer, SHAPE_FIRST_EVENT);
    int64_t last = expire_ask(expiry->writer, SHAPE_LAST_EVENT);
    int64_t old, many;

    if (first <= 0 || last < 0)
        return first < 0 ? first : least(last, 0);
    old = events_old(expiry, most);
    if (old < 0)
        return old;
    many = last > expiry->keep ? last - expiry->keep : 0;
    many = least(many, first + most - 1);
    if (many > old)
        old = many;
    return old ? expire_run(expiry->writer, SHAPE_EVENTS_EXPIRE, &old, 1) : 0;
}

static int64_t expire_keys(const struct expiry *expiry, int64_t most)
{
    return expire_run(expiry->writer, SHAPE_KEYS_EXPIRE,
            (int64_t[]){ expiry->keys_before_ms, most }, 2);
}

static int64_t expire_all(const struct expiry *expiry, int64_t most)
{
    static int64_t (*const steps[])(const struct expiry *, int64_t) = { expire_jobs,
        expire_results, expire_events, expire_keys };
    int64_t sum = 0;

    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]) && sum < most; i++) {
        int64_t dropped = steps[i](expiry, most - sum);
        if (dropped < 0)
            return dropped;
        sum += dropped;
    }
    return sum;
}

int store_expire(struct store *store, int64_t before_ms, uint64_t keep,
        uint64_t ended_states, int64_t keys_before_ms, unsigned batch)
{
    struct expiry expiry = {
        .writer = store_own_reader(store),
        .before_ms = before_ms,
        .keep = keep > INT64_MAX ? INT64_MAX : (int64_t)keep,
        .ended_states = ended_states,
        .keys_before_ms = keys_before_ms,
    };
    int64_t dropped;
    int error;

    check(batch > 0 && batch <= INT32_MAX);
    error = store_begin(store);
    if (error)
        return error;
    dropped = expire_all(&expiry, batch);
    if (dropped <= 0) {
        store_rollback(store);
        return (int)dropped;
    }
    error = store_commit(store);
    return error ? error : (int)dropped;
}

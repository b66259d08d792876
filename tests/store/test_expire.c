/* What is dropped and what stays. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/store/rig.h"

enum { RUNNING = 4, DONE = 7, FAILED = 10 };
#define OVER (1ull << DONE | 1ull << FAILED)

static struct rig rig;

static void setup(void)
{
    rig_make(&rig);
    rig_open(&rig);
}

static void teardown(void)
{
    rig_remove(&rig);
}

TestSuite(expire, .init = setup, .fini = teardown);

static void job_put(uint64_t n, int64_t state, int64_t ended)
{
    struct store_job job = { .id = rig_id(n), .state = state, .ended = ended };

    cr_assert_eq(rig_put(&rig, STORE_JOB, &job), 0);
}

static void result_put(uint64_t n, int64_t time)
{
    struct store_result result = { .id = rig_id(n), .time = time };

    cr_assert_eq(rig_put(&rig, STORE_RESULT, &result), 0);
}

static void event_put(int64_t time)
{
    struct store_event event = { .time = time };

    cr_assert_eq(rig_put(&rig, STORE_EVENT, &event), 0);
}

static void key_put(uint64_t n, int64_t time)
{
    struct store_key key = { .time = time };

    strcpy(key.key, rig_id(n).text);
    cr_assert_eq(rig_put(&rig, STORE_KEY, &key), 0);
}

struct ids {
    unsigned count;
    uint64_t ids[64];
};

static bool id_each(void *context, const void *row)
{
    struct ids *ids = context;

    ids->ids[ids->count++] = strtoull((const char *)row + 24, NULL, 16);
    return true;
}

/* What is left of @table is exactly these, newest first. */
static void left(enum store_table table, unsigned count, const uint64_t *expected)
{
    struct store_query query = { .table = table, .limit = 64 };
    struct ids ids = { 0 };

    cr_assert_eq(
            store_list(store_own_reader(rig.store), &query, id_each, &ids), (int)count);
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(ids.ids[i], expected[i]);
}

#define LEFT(table, ...)                                                               \
    left(table, sizeof((uint64_t[]){ __VA_ARGS__ }) / 8, (uint64_t[]){ __VA_ARGS__ })

Test(expire, nothing_to_do)
{
    cr_assert_eq(store_expire(rig.store, INT64_MAX, 0, UINT64_MAX, INT64_MAX, 10), 0);
    job_put(1, DONE, 100);
    result_put(1, 100);
    event_put(100);
    key_put(1, 100);
    cr_assert_eq(store_expire(rig.store, 100, 10, OVER, 100, 10), 0);
    cr_assert_eq(store_expire(rig.store, 0, UINT64_MAX, OVER, 0, 10), 0);
}

Test(expire, jobs_by_the_time_they_ended)
{
    job_put(1, DONE, 500); /* an old id that ended late */
    job_put(2, FAILED, 100);
    job_put(3, RUNNING, 0);
    job_put(4, DONE, 200);
    job_put(5, RUNNING, 50); /* a time left over from before it was resumed */
    job_put(6, 3, 100); /* over, but not in our states */
    cr_assert_eq(store_expire(rig.store, 200, 100, OVER, 0, 10), 1);
    LEFT(STORE_JOB, 6, 5, 4, 3, 1);
    cr_assert_eq(store_expire(rig.store, INT64_MAX, 100, OVER, 0, 10), 2);
    LEFT(STORE_JOB, 6, 5, 3);
}

Test(expire, states_that_are_no_bits)
{
    job_put(1, 63, 1);
    job_put(2, 64, 1);
    job_put(3, -1, 1);
    job_put(4, INT64_MAX, 1);
    job_put(5, 0, 1);
    cr_assert_eq(store_expire(rig.store, INT64_MAX, 100, 1ull << 62, 0, 10), 0);
    cr_assert_eq(store_expire(rig.store, INT64_MAX, 100, UINT64_MAX, 0, 10), 2);
    LEFT(STORE_JOB, 4, 3, 2);
}

Test(expire, jobs_by_number)
{
    for (unsigned i = 1; i <= 9; i++)
        job_put(i, i % 3 ? DONE : RUNNING, i % 3 ? 1000 - i : 0);
    /* Six are over; ended in the order 8 7 5 4 2 1. */
    cr_assert_eq(store_expire(rig.store, 0, 6, OVER, 0, 10), 0);
    cr_assert_eq(store_expire(rig.store, 0, 4, OVER, 0, 10), 2);
    LEFT(STORE_JOB, 9, 6, 5, 4, 3, 2, 1);
    cr_assert_eq(store_expire(rig.store, 0, 0, OVER, 0, 10), 4);
    LEFT(STORE_JOB, 9, 6, 3);
}

Test(expire, results_by_time_and_number)
{
    for (unsigned i = 1; i <= 10; i++)
        result_put(i, 100 * i);
    cr_assert_eq(store_expire(rig.store, 301, 100, OVER, 0, 10), 3);
    LEFT(STORE_RESULT, 10, 9, 8, 7, 6, 5, 4);
    cr_assert_eq(store_expire(rig.store, 500, 4, OVER, 0, 10), 3);
    LEFT(STORE_RESULT, 10, 9, 8, 7);
}

/* Two by age, then more by number than the step has room for. */
Test(expire, a_step_is_never_larger_than_asked)
{
    for (unsigned i = 1; i <= 10; i++)
        result_put(i, 100 * i);
    cr_assert_eq(store_expire(rig.store, 201, 3, OVER, 0, 4), 4);
    LEFT(STORE_RESULT, 10, 9, 8, 7, 6, 5);
}

Test(expire, events_from_the_front_only)
{
    struct store_reader *own = store_own_reader(rig.store);

    for (unsigned i = 1; i <= 20; i++)
        event_put(i == 10 ? 5000 : 100 * i); /* the clock went wrong at 10 */
    cr_assert_eq(store_expire(rig.store, 301, 100, OVER, 0, 100), 3);
    cr_assert_eq(store_first_event(own), 4);
    cr_assert_eq(store_expire(rig.store, 1501, 100, OVER, 0, 100), 6);
    cr_assert_eq(store_first_event(own), 10);
    cr_assert_eq(store_expire(rig.store, 0, 5, OVER, 0, 2), 2);
    cr_assert_eq(store_first_event(own), 12);
    cr_assert_eq(store_expire(rig.store, 0, 5, OVER, 0, 100), 4);
    cr_assert_eq(store_first_event(own), 16);
    cr_assert_eq(store_last_event(own), 20);
    cr_assert_eq(store_expire(rig.store, 0, 0, OVER, 0, 100), 5);
    cr_assert_eq(store_first_event(own), 0);
    cr_assert_eq(store_last_event(own), 20);
    event_put(1);
    cr_assert_eq(store_first_event(own), 21);
}

Test(expire, keys_by_time)
{
    for (unsigned i = 1; i <= 5; i++)
        key_put(i, 100 * i);
    cr_assert_eq(store_expire(rig.store, INT64_MAX, 0, OVER, 300, 10), 2);
    LEFT(STORE_KEY, 5, 4, 3);
}

/* Batches: never more rows than asked for, oldest first, and it comes to an end. */
Test(expire, in_small_steps)
{
    unsigned sum = 0;
    int dropped;

    for (unsigned i = 1; i <= 30; i++) {
        job_put(i, i % 2 ? DONE : RUNNING, i % 2 ? i : 0);
        result_put(i, i);
        event_put(i);
        key_put(i, i);
    }
    while ((dropped = store_expire(rig.store, 26, 100, OVER, 11, 7)) > 0) {
        cr_assert_leq(dropped, 7);
        if (!sum)
            cr_assert_eq(dropped, 7);
        sum += (unsigned)dropped;
        cr_assert_leq(sum, 200);
    }
    cr_assert_eq(dropped, 0);
    cr_assert_eq(sum, 13 + 25 + 25 + 10);
    LEFT(STORE_RESULT, 30, 29, 28, 27, 26);
    LEFT(STORE_JOB, 30, 29, 28, 27, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2);
}

/* The oldest first, also within a step. */
Test(expire, oldest_first)
{
    for (unsigned i = 1; i <= 8; i++)
        job_put(i, DONE, 100 - i);
    cr_assert_eq(store_expire(rig.store, 1000, 100, OVER, 0, 3), 3);
    LEFT(STORE_JOB, 5, 4, 3, 2, 1);
}

/* A hundred thousand jobs in the history. Times are printed, never judged. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "replica/base/clock.h"
#include "tests/store/rig.h"

/* Sanitizers make it ten times slower and find nothing more in the last ninety thousand. */
#if defined(__SANITIZE_ADDRESS__)
enum { JOBS = 10000, GROUP = 1000 };
#else
enum { JOBS = 100000, GROUP = 1000 };
#endif

static struct rig rig;

static double since_ms(struct instant from)
{
    return (double)(clock_monotonic().ns - from.ns) / 1e6;
}

static void job_make(struct store_job *job, uint64_t n)
{
    memset(job, 0, sizeof(*job));
    job->id = rig_id(n);
    strcpy(job->method, n % 2 ? "CreateReplica" : "AttachOrModifyReplica");
    job->state = n % 50 ? 7 : 10;
    job->source = rig_id(n % 100);
    job->target = rig_id(n);
    job->replica = n % 3 ? job->target : (struct uuid){ "" };
    job->submitted = 1800000000000 + (int64_t)n;
    job->started = job->changed = job->ended = job->submitted + 5;
    job->percent = 100;
    job->total = job->done = job->written = job->watermark = 1 << 30;
    strcpy(job->request, "0193c0de-0000-7000-8000-000000000000");
}

static void jobs_make(void)
{
    struct instant from = clock_monotonic();
    struct store_job job;

    for (unsigned n = 1; n <= JOBS; n++) {
        if (n % GROUP == 1)
            cr_assert_eq(store_begin(rig.store), 0);
        job_make(&job, n);
        cr_assert_eq(rig_put(&rig, STORE_JOB, &job), 0);
        if (n % GROUP == 0)
            cr_assert_eq(store_commit(rig.store), 0);
    }
    cr_log_info("%d jobs made, %d in a transaction: %.0f ms, %.1f MiB", JOBS, GROUP,
            since_ms(from), (double)store_bytes(rig.store) / (1 << 20));
}

struct page {
    unsigned count;
    struct uuid first, last;
};

static bool page_each(void *context, const void *row)
{
    struct page *page = context;
    const struct store_job *job = row;

    if (!page->count++)
        page->first = job->id;
    page->last = job->id;
    return true;
}

/* The best of five: what it costs, not what the machine was busy with. */
static void page_time(struct store_reader *reader, const char *name,
        const struct store_query *query, unsigned count, uint64_t first)
{
    struct page page;
    double best = 1e9;

    for (unsigned i = 0; i < 5; i++) {
        struct instant from = clock_monotonic();
        page = (struct page){ 0 };
        cr_assert_eq(
                store_list(reader, query, page_each, &page), (int)count, "%s", name);
        if (since_ms(from) < best)
            best = since_ms(from);
    }
    if (count)
        cr_assert_str_eq(page.first.text, rig_id(first).text, "%s", name);
    cr_log_info("%-46s %8.3f ms", name, best);
}

static void pages_time(struct store_reader *reader)
{
    struct uuid fifty = rig_id(51);
    struct store_query query = { .table = STORE_JOB, .limit = 50 };

    page_time(reader, "first page of 50", &query, 50, JOBS);
    query.before = fifty.text;
    page_time(reader, "last page of 50", &query, 50, 50);
    query.before = NULL;
    query.limit = 500;
    page_time(reader, "first page of 500", &query, 500, JOBS);
    query.limit = 50;
    query.filter_count = 1;
    query.filters[0] = (struct store_filter){
        .column = JOB_STATE, .is_number = true, .count = 3, .numbers = { 4, 7, 10 }
    };
    page_time(reader, "JobState=4,7,10", &query, 50, JOBS);
    query.before = fifty.text;
    page_time(reader, "JobState=4,7,10, last page", &query, 50, 50);
    query.before = NULL;
    query.filter_count = 2;
    query.filters[1] = (struct store_filter){
        .column = JOB_TARGET, .count = 1, .texts = { fifty.text }
    };
    page_time(reader, "JobState and TargetElement, one job", &query, 1, 51);
    query.filters[0].count = 1;
    query.filters[0].numbers[0] = 10;
    query.filters[1] = (struct store_filter){
        .column = JOB_METHOD, .count = 1, .texts = { "CreateReplica" }
    };
    page_time(reader, "two filters that share no job (the worst)", &query, 0, 0);
}

static void get_time(struct store_reader *reader)
{
    struct instant from = clock_monotonic();
    struct store_job job;
    uint64_t seed = 5;

    for (unsigned i = 0; i < 10000; i++) {
        uint64_t n = 1 + seed_below(&seed, JOBS);
        cr_assert_eq(store_get(reader, STORE_JOB, rig_id(n).text, &job), 0);
    }
    cr_log_info("one job %38s %8.3f ms", "", since_ms(from) / 10000);
}

static void count_time(struct store_reader *reader)
{
    struct store_query query = { .table = STORE_JOB, .limit = 1 };
    struct instant from = clock_monotonic();

    cr_assert_eq(store_count(reader, &query), JOBS);
    cr_log_info("count of all %33s %8.3f ms", "", since_ms(from));
}

static void apply_time(void)
{
    struct store_element element = { 0 };
    struct store_result result = { .in = "{\"CopyType\":5}" };
    struct store_job job;
    const struct store_change changes[] = { { STORE_PUT, STORE_ELEMENT, &element },
        { STORE_PUT, STORE_RESULT, &result }, { STORE_PUT, STORE_JOB, &job } };
    struct instant from = clock_monotonic();

    for (unsigned i = 1; i <= 200; i++) {
        job_make(&job, JOBS + i);
        element.id = result.id = job.id;
        cr_assert_eq(store_apply(rig.store, changes, 3), 0);
    }
    cr_log_info("three rows, durable %26s %8.3f ms", "", since_ms(from) / 200);
    from = clock_monotonic();
    cr_assert_eq(store_begin(rig.store), 0);
    for (unsigned i = 1; i <= 10000; i++) {
        job_make(&job, 1 + i * 7 % JOBS);
        job.watermark = i;
        cr_assert_eq(rig_put(&rig, STORE_JOB, &job), 0);
    }
    cr_assert_eq(store_commit(rig.store), 0);
    cr_log_info("one of 10,000 progress changes together %6s %8.3f ms", "",
            since_ms(from) / 10000);
}

static void expire_time(void)
{
    struct instant from = clock_monotonic();
    unsigned steps = 0, sum = 0;
    int dropped;

    cr_assert_eq(store_expire(rig.store, 0, 2 * JOBS, 0x780, 0, 500), 0);
    cr_log_info("housekeeping with nothing to do %14s %8.3f ms", "", since_ms(from));
    from = clock_monotonic();
    while ((dropped = store_expire(rig.store, 0, JOBS - 5000, 0x780, 0, 500)) > 0) {
        sum += (unsigned)dropped;
        steps++;
    }
    cr_assert_eq(dropped, 0);
    cr_assert_eq(sum, 5000 + 200);
    cr_log_info(
            "housekeeping, a step of 500 %18s %8.3f ms", "", since_ms(from) / steps);
}

Test(bulk, a_hundred_thousand_jobs)
{
    struct store_reader *reader;
    struct instant from;

    rig_make(&rig);
    rig_open(&rig);
    jobs_make();
    rig_close(&rig);
    from = clock_monotonic();
    rig_open(&rig);
    cr_log_info("opening, checked whole %23s %8.3f ms", "", since_ms(from));
    reader = store_reader_take(rig.store, 60000);
    pages_time(reader);
    get_time(reader);
    count_time(reader);
    store_reader_give(rig.store, reader);
    apply_time();
    expire_time();
    rig_remove(&rig);
}

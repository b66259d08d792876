/* api/metrics.c - figures as Prometheus text: families of relationships, jobs, copies,
 * the store, the pools, the iSCSI target. No label has more values than there are
 * relationships or pools. */
#include "api/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/jobs.h"
#include "replica/base/scope.h"

enum { READER_MS = 1000, PAGE = 500, STATES = 16 };

static const char *const methods[METRIC_METHODS] = { "CreateReplica",
    "AttachOrModifyReplica", "ModifySynchronization", "VerifyReplica", "other" };

static const char *const returns[METRIC_RETURNS] = { "0", "1", "2", "3", "4", "5", "6",
    "other" };

static unsigned method_index(const char *name)
{
    unsigned i = 0;

    while (i < METRIC_METHODS - 1 && strcmp(methods[i], name) != 0)
        i++;
    return i;
}

/* -- counted ----------------------------------------------------------------------- */

/** Upper bounds, seconds. */
static const unsigned bounds[METRIC_BUCKETS] = { 1, 5, 15, 60, 300, 900, 3600, 14400,
    86400 };

static void times_add(struct metric_times *times, int64_t from, int64_t to)
{
    uint64_t ms = from > 0 && to > from ? (uint64_t)(to - from) : 0;
    unsigned i = 0;

    while (i < METRIC_BUCKETS && ms > bounds[i] * 1000ull)
        i++;
    atomic_fetch_add_explicit(&times->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&times->sum_ms, ms, memory_order_relaxed);
}

struct metric_end metrics_end_of(const struct store_job *job)
{
    bool known = job->return_value >= 0 && job->return_value < METRIC_RETURNS - 1;

    return (struct metric_end){ .method = (uint8_t)method_index(job->method),
        .result = (uint8_t)((job->state - CIM_JOB_COMPLETED) % METRIC_RESULTS),
        .value = (uint8_t)(known ? job->return_value : METRIC_RETURNS - 1),
        .submitted = job->submitted,
        .started = job->started,
        .ended = job->ended };
}

void metrics_job_ended(struct metrics *metrics, const struct metric_end *end)
{
    atomic_fetch_add_explicit(&metrics->finished[end->method][end->result][end->value],
            1, memory_order_relaxed);
    if (end->started == 0) /* it ended while it waited */
        return;
    times_add(&metrics->duration, end->started, end->ended);
    times_add(&metrics->queue_wait, end->submitted, end->started);
}

/* -- printed ----------------------------------------------------------------------- */

static void family(FILE *to, const char *name, const char *type, const char *help)
{
    (void)fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(
        FILE *to, const char *name, const char *type, const char *help, uint64_t value)
{
    family(to, name, type, help);
    (void)fprintf(to, "%s %" PRIu64 "\n", name, value);
}

static void seconds(FILE *to, const char *name, const char *help, uint64_t ms)
{
    family(to, name, "gauge", help);
    (void)fprintf(to, "%s %" PRIu64 ".%03" PRIu64 "\n", name, ms / 1000, ms % 1000);
}

static void times_print(
        FILE *to, const char *name, const char *help, struct metric_times *times)
{
    uint64_t total = 0, sum = times->sum_ms;

    family(to, name, "histogram", help);
    for (unsigned i = 0; i <= METRIC_BUCKETS; i++) {
        total += times->buckets[i];
        if (i < METRIC_BUCKETS)
            (void)fprintf(
                    to, "%s_bucket{le=\"%u\"} %" PRIu64 "\n", name, bounds[i], total);
        else
            (void)fprintf(to, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, total);
    }
    (void)fprintf(to, "%s_sum %" PRIu64 ".%03" PRIu64 "\n%s_count %" PRIu64 "\n", name,
            sum / 1000, sum % 1000, name, total);
}

/* -- relationships ----------------------------------------------------------------- */

struct pair {
    struct uuid id, source, job;
    int64_t copy_type, state, percent, when_synced, rpo;
    bool error;
};

struct pairs {
    struct pair *list;
    size_t count, room;
    bool failed;
};

static bool pair_add(void *context, const void *row)
{
    struct pairs *pairs = context;
    const struct store_replica *replica = row;

    if (pairs->count == pairs->room) {
        size_t room = pairs->room ? 2 * pairs->room : 64;
        struct pair *list = realloc(pairs->list, room * sizeof(*list));
        if (!list) {
            pairs->failed = true;
            return false;
        }
        pairs->list = list;
        pairs->room = room;
    }
    pairs->list[pairs->count++] = (struct pair){ replica->id, replica->source,
        replica->job, replica->copy_type, replica->sync_state, replica->percent,
        replica->when_synced, replica->rpo, replica->last_error[0] != '\0' };
    return true;
}

static bool pairs_read(struct store_reader *reader, struct pairs *pairs)
{
    struct store_query query = { .table = STORE_REPLICA, .limit = PAGE };
    int result;

    do {
        char before[UUID_TEXT];
        if (pairs->count) {
            memcpy(before, pairs->list[pairs->count - 1].id.text, sizeof(before));
            query.before = before;
        }
        result = store_list(reader, &query, pair_add, pairs);
    } while (result == PAGE && !pairs->failed);
    for (size_t i = 0; i < pairs->count; i++)
        pairs->list[i].percent =
                replica_percent(reader, &pairs->list[i].job, pairs->list[i].percent);
    return result >= 0 && !pairs->failed;
}

static void pairs_print_state(FILE *to, const struct pairs *pairs)
{
    int64_t state;
    const char *name;

    family(to, "replicad_relationship_info", "gauge", "What there is, always 1.");
    for (size_t i = 0; i < pairs->count; i++) {
        const struct pair *pair = &pairs->list[i];
        name = cim_name(CIM_COPY_TYPE, pair->copy_type);
        (void)fprintf(to,
                "replicad_relationship_info{relationship=\"%s\",copy_type=\"%s\","
                "source=\"%s\",target=\"%s\"} 1\n",
                pair->id.text, name ? name : "", pair->source.text, pair->id.text);
    }
    family(to, "replicad_relationship_state", "gauge", "1 for the SyncState it is in.");
    for (size_t i = 0; i < pairs->count; i++)
        for (unsigned n = 0; cim_row(CIM_SYNC_STATE, n, &state, &name); n++)
            (void)fprintf(to,
                    "replicad_relationship_state{relationship=\"%s\",state=\"%s\"} "
                    "%d\n",
                    pairs->list[i].id.text, name, pairs->list[i].state == state);
}

/** A figure that not every pair has: negative is none. */
static void pairs_print_each(FILE *to, const struct pairs *pairs, const char *name,
        const char *help, double (*value)(const struct pair *pair, int64_t now))
{
    int64_t now = clock_wall_ms();

    family(to, name, "gauge", help);
    for (size_t i = 0; i < pairs->count; i++) {
        double figure = value(&pairs->list[i], now);
        if (figure >= 0)
            (void)fprintf(to, "%s{relationship=\"%s\"} %.3f\n", name,
                    pairs->list[i].id.text, figure);
    }
}

static double pair_lag(const struct pair *pair, int64_t now)
{
    if (pair->copy_type != CIM_COPY_ASYNC || pair->when_synced == 0)
        return -1;
    return now > pair->when_synced ? (double)(now - pair->when_synced) / 1000 : 0;
}

static double pair_objective(const struct pair *pair, int64_t now)
{
    (void)now;
    return pair->copy_type == CIM_COPY_ASYNC ? (double)pair->rpo : -1;
}

static double pair_consistent(const struct pair *pair, int64_t now)
{
    (void)now;
    return pair->when_synced ? (double)pair->when_synced / 1000 : -1;
}

static double pair_ratio(const struct pair *pair, int64_t now)
{
    (void)now;
    return (double)pair->percent / 100;
}

static double pair_error(const struct pair *pair, int64_t now)
{
    (void)now;
    return pair->error;
}

static void pairs_print(FILE *to, const struct pairs *pairs)
{
    pairs_print_state(to, pairs);
    pairs_print_each(to, pairs, "replicad_relationship_lag_seconds",
            "Age of what the replica holds: no unreplicated write is older.", pair_lag);
    pairs_print_each(to, pairs, "replicad_relationship_rpo_objective_seconds",
            "DesiredRPO of an Async pair.", pair_objective);
    pairs_print_each(to, pairs,
            "replicad_relationship_last_consistent_timestamp_seconds", "WhenSynced.",
            pair_consistent);
    pairs_print_each(to, pairs, "replicad_relationship_sync_ratio",
            "PercentSynced, 0 to 1.", pair_ratio);
    pairs_print_each(to, pairs, "replicad_relationship_last_error",
            "1 while LastError says something.", pair_error);
}

/* -- jobs -------------------------------------------------------------------------- */

struct live {
    const struct service *service;
    uint64_t count[METRIC_METHODS][STATES];
    struct uuid last;
};

static bool live_add(void *context, const void *row)
{
    struct live *live = context;
    struct store_job job = *(const struct store_job *)row;

    job_as_it_is(live->service, &job);
    if (job.state >= 0 && job.state < STATES)
        live->count[method_index(job.method)][job.state]++;
    live->last = job.id;
    return true;
}

static bool live_read(struct store_reader *reader, struct live *live)
{
    struct store_query query = {
        .table = STORE_JOB,
        .filter_count = 1,
        .filters = { { .column = JOB_STATE,
                .is_number = true,
                .count = 5,
                .numbers = { CIM_JOB_NEW, CIM_JOB_STARTING, CIM_JOB_RUNNING,
                        CIM_JOB_SUSPENDED, CIM_JOB_SHUTTING_DOWN } } },
        .limit = PAGE,
    };
    struct uuid before;
    int result;

    while ((result = store_list(reader, &query, live_add, live)) == PAGE) {
        before = live->last;
        query.before = before.text;
    }
    return result >= 0;
}

static void jobs_print(FILE *to, const struct live *live, struct metrics *metrics)
{
    family(to, "replicad_jobs", "gauge", "Jobs that are not over.");
    for (unsigned m = 0; m < METRIC_METHODS; m++)
        for (int64_t s = CIM_JOB_NEW; s <= CIM_JOB_SHUTTING_DOWN; s++)
            (void)fprintf(to, "replicad_jobs{state=\"%s\",type=\"%s\"} %" PRIu64 "\n",
                    cim_name(CIM_JOB_STATE, s), methods[m], live->count[m][s]);
    family(to, "replicad_jobs_finished_total", "counter",
            "Jobs that have come to an end.");
    for (unsigned m = 0; m < METRIC_METHODS; m++)
        for (unsigned r = 0; r < METRIC_RESULTS; r++)
            for (unsigned v = 0; v < METRIC_RETURNS; v++) {
                uint64_t count = metrics->finished[m][r][v];
                if (count == 0)
                    continue;
                (void)fprintf(to,
                        "replicad_jobs_finished_total{type=\"%s\",result=\"%s\","
                        "return_value=\"%s\"} %" PRIu64 "\n",
                        methods[m], cim_name(CIM_JOB_STATE, CIM_JOB_COMPLETED + (int)r),
                        returns[v], count);
            }
    times_print(to, "replicad_job_duration_seconds",
            "From the start of a job to its end.", &metrics->duration);
    times_print(to, "replicad_job_queue_wait_seconds",
            "From the call to the start of its job.", &metrics->queue_wait);
}

/* -- the engine, the store, the pools ---------------------------------------------- */

static void engine_print(FILE *to, struct service *service)
{
    struct engine_figures figures = { 0 };

    engine_figures(service->engine, &figures);
    single(to, "replicad_workers", "gauge", "Worker loops.", figures.loops);
    single(to, "replicad_copies_running", "gauge", "Plans that the loops run now.",
            figures.plans);
    single(to, "replicad_copy_read_bytes_total", "counter", "Bytes read by copies.",
            figures.read_bytes);
    single(to, "replicad_copy_written_bytes_total", "counter",
            "Bytes written by copies.", figures.written_bytes);
    single(to, "replicad_copy_skipped_bytes_total", "counter",
            "Bytes that need not be written: zero or equal.", figures.skipped_bytes);
    single(to, "replicad_backend_reconnects_total", "counter",
            "Devices that were lost and opened again.", figures.reopened);
    seconds(to, "replicad_engine_stalled_seconds",
            "The longest that a loop has not turned.",
            engine_stalled_ms(service->engine));
    seconds(to, "replicad_clerk_stalled_seconds",
            "How long the clerk has had work and not turned.",
            clerk_stalled_ms(service->clerk));
    single(to, "replicad_store_bytes", "gauge", "The database and its log.",
            store_bytes(service->store));
}

static void pools_print(FILE *to, struct service *service)
{
    const struct api_options *options = &service->options;
    struct engine_pool_figures figures;

    family(to, "replicad_pool_size_bytes", "gauge", "TotalManagedSpace.");
    for (size_t i = 0; i < options->pool_count; i++)
        if (engine_pool_figures(service->engine, options->pools[i].name, &figures) == 0)
            (void)fprintf(to, "replicad_pool_size_bytes{pool=\"%s\"} %" PRIu64 "\n",
                    options->pools[i].name, figures.total);
    family(to, "replicad_pool_free_bytes", "gauge", "RemainingManagedSpace.");
    for (size_t i = 0; i < options->pool_count; i++)
        if (engine_pool_figures(service->engine, options->pools[i].name, &figures) == 0)
            (void)fprintf(to, "replicad_pool_free_bytes{pool=\"%s\"} %" PRIu64 "\n",
                    options->pools[i].name, figures.remaining);
}

static void exports_print(FILE *to, struct service *service)
{
    const struct api_exporter *exporter = service->exporter;
    struct api_export_figures figures = { 0 };

    if (!exporter)
        return;
    exporter->figures(exporter->context, &figures);
    single(to, "replicad_target_exports", "gauge", "Elements that the target serves.",
            figures.exports);
    single(to, "replicad_target_sessions", "gauge", "Sessions of hosts.",
            figures.sessions);
    single(to, "replicad_target_connections", "gauge",
            "Connections of hosts, those that log in among them.", figures.connections);
    single(to, "replicad_target_commands_total", "counter",
            "SCSI commands of hosts that were taken.", figures.commands);
    single(to, "replicad_target_read_bytes_total", "counter", "Bytes that hosts read.",
            figures.read_bytes);
    single(to, "replicad_target_written_bytes_total", "counter",
            "Bytes that hosts wrote.", figures.written_bytes);
    single(to, "replicad_target_logins_refused_total", "counter",
            "Logins that were refused.", figures.logins_refused);
    single(to, "replicad_target_connections_dropped_total", "counter",
            "Connections that the target ended for what the peer did or did not do.",
            figures.connections_dropped);
}

static bool rows_print(FILE *to, struct service *service)
{
    struct store_reader *reader = store_reader_take(service->store, READER_MS);
    struct store_query elements = { .table = STORE_ELEMENT };
    struct pairs pairs = { 0 };
    struct live live = { .service = service };
    int64_t count;
    bool good;

    if (!reader)
        return false;
    count = store_count(reader, &elements);
    good = count >= 0 && pairs_read(reader, &pairs) && live_read(reader, &live);
    store_reader_give(service->store, reader);
    if (good) {
        single(to, "replicad_elements", "gauge", "Registered elements.",
                (uint64_t)count);
        pairs_print(to, &pairs);
        jobs_print(to, &live, &service->metrics);
    }
    free(pairs.list);
    return good;
}

char *api_metrics(struct service *service, size_t *length)
{
    char *text = NULL;
    FILE *to = open_memstream(&text, length);
    bool good;

    if (!to)
        return NULL;
    good = rows_print(to, service);
    if (good) {
        engine_print(to, service);
        exports_print(to, service);
        pools_print(to, service);
    }
    if (fclose(to) == 0 && good)
        return text;
    free(text);
    return NULL;
}

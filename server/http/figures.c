#include "server/http/figures.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "replica/base/clock.h"

/* A status that has no slot here is counted under the last, "other". */
static const int codes[] = { 200, 201, 202, 204, 304, 400, 403, 404, 405, 409, 412, 413,
    414, 415, 421, 422, 500, 501, 502, 503, 504, 507, 0 };
static const double bounds[] = { 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1, 2.5, 5, 10, 30, 60 }; /* seconds */

enum {
    CODES = sizeof(codes) / sizeof(codes[0]),
    BOUNDS = sizeof(bounds) / sizeof(bounds[0]),
};

struct family {
    _Atomic uint64_t answers[HTTP_METHOD_COUNT][CODES];
    _Atomic uint64_t buckets[BOUNDS + 1]; /* not cumulative; the last is +Inf's own */
    _Atomic uint64_t sum_ns;
};

struct figures {
    int64_t started_ms; /* wall clock */
    struct family families[]; /* by row of routes[], and one more: unknown paths */
};

struct figures *figures_create(void)
{
    size_t size = sizeof(struct figures) + (route_count + 1) * sizeof(struct family);
    struct figures *figures = calloc(1, size);

    if (figures)
        figures->started_ms = clock_wall_ms();
    return figures;
}

void figures_destroy(struct figures *figures)
{
    free(figures);
}

static size_t code_slot(int status)
{
    size_t slot = 0;

    while (codes[slot] != 0 && codes[slot] != status)
        slot++;
    return slot;
}

void figures_count(struct figures *figures, const struct route *row,
        enum http_method method, int status, uint64_t duration_ns)
{
    struct family *family =
            &figures->families[row ? (size_t)(row - routes) : route_count];
    double seconds = (double)duration_ns / 1e9;
    size_t bucket = 0;

    while (bucket < BOUNDS && seconds > bounds[bucket])
        bucket++;
    atomic_fetch_add_explicit(
            &family->answers[method][code_slot(status)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&family->buckets[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&family->sum_ns, duration_ns, memory_order_relaxed);
}

static const char *family_label(size_t index)
{
    return index < route_count ? routes[index].template : "other";
}

static void family_print_answers(struct family *family, size_t index, struct text *text)
{
    for (size_t m = 0; m < HTTP_METHOD_COUNT; m++) {
        for (size_t c = 0; c < CODES; c++) {
            uint64_t n =
                    atomic_load_explicit(&family->answers[m][c], memory_order_relaxed);
            char code[16] = "other";

            if (n == 0)
                continue;
            if (codes[c] != 0)
                (void)snprintf(code, sizeof(code), "%d", codes[c]);
            text_print(text,
                    "replicad_http_requests_total{route=\"%s\",method=\"%s\",code=\"%"
                    "s\"} "
                    "%llu\n",
                    family_label(index), http_method_name((enum http_method)m), code,
                    (unsigned long long)n);
        }
    }
}

static void family_print_durations(
        struct family *family, size_t index, struct text *text)
{
    static const char name[] = "replicad_http_request_duration_seconds";
    const char *label = family_label(index);
    unsigned long long sum = 0, seen[BOUNDS + 1];

    for (size_t b = 0; b <= BOUNDS; b++) {
        sum += atomic_load_explicit(&family->buckets[b], memory_order_relaxed);
        seen[b] = sum;
    }
    if (sum == 0)
        return;
    for (size_t b = 0; b < BOUNDS; b++)
        text_print(text, "%s_bucket{route=\"%s\",le=\"%g\"} %llu\n", name, label,
                bounds[b], seen[b]);
    text_print(text, "%s_bucket{route=\"%s\",le=\"+Inf\"} %llu\n", name, label, sum);
    text_print(text, "%s_sum{route=\"%s\"} %.9g\n", name, label,
            (double)atomic_load_explicit(&family->sum_ns, memory_order_relaxed) / 1e9);
    text_print(text, "%s_count{route=\"%s\"} %llu\n", name, label, sum);
}

/* What only /proc knows is left out where there is none: 0 would be a lie. */
static void process_print_descriptors(struct text *text)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");

    if (!directory)
        return;
    while (readdir(directory))
        count++;
    (void)closedir(directory);
    text_print(text,
            "# HELP process_open_fds Open file descriptors.\n"
            "# TYPE process_open_fds gauge\n"
            "process_open_fds %u\n",
            count > 3 ? count - 3 : 0); /* ".", ".." and the directory itself */
}

static void process_print_resident(struct text *text)
{
    unsigned long long pages;
    FILE *file = fopen("/proc/self/statm", "re");

    if (!file)
        return;
    if (fscanf(file, "%*u %llu", &pages) == 1)
        text_print(text,
                "# HELP process_resident_memory_bytes Resident memory.\n"
                "# TYPE process_resident_memory_bytes gauge\n"
                "process_resident_memory_bytes %llu\n",
                pages * (unsigned long long)sysconf(_SC_PAGESIZE));
    (void)fclose(file);
}

static void process_print(const struct figures *figures, struct text *text)
{
    struct rusage usage = { 0 };
    struct rlimit limit = { 0 };

    (void)getrusage(RUSAGE_SELF, &usage);
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    text_print(text,
            "# HELP process_cpu_seconds_total User and system CPU time spent.\n"
            "# TYPE process_cpu_seconds_total counter\n"
            "process_cpu_seconds_total %.6f\n",
            (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                    (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    process_print_resident(text);
    process_print_descriptors(text);
    text_print(text,
            "# HELP process_max_fds Limit of open file descriptors.\n"
            "# TYPE process_max_fds gauge\n"
            "process_max_fds %llu\n"
            "# HELP process_start_time_seconds Start of the process, since 1970 UTC.\n"
            "# TYPE process_start_time_seconds gauge\n"
            "process_start_time_seconds %.3f\n",
            (unsigned long long)limit.rlim_cur, (double)figures->started_ms / 1e3);
}

void figures_print(struct figures *figures, struct text *text)
{
    text_print(text,
            "# HELP replicad_build_info What is running.\n"
            "# TYPE replicad_build_info gauge\n"
            "replicad_build_info{version=\"" REPLICAD_VERSION "\"} 1\n");
    process_print(figures, text);
    text_print(text,
            "# HELP replicad_http_requests_total Requests answered.\n"
            "# TYPE replicad_http_requests_total counter\n");
    for (size_t i = 0; i <= route_count; i++)
        family_print_answers(&figures->families[i], i, text);
    text_print(text,
            "# HELP replicad_http_request_duration_seconds From the request line to "
            "the "
            "answer, waits included.\n"
            "# TYPE replicad_http_request_duration_seconds histogram\n");
    for (size_t i = 0; i <= route_count; i++)
        family_print_durations(&figures->families[i], i, text);
}

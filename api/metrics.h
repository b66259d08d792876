/* api/metrics.h - what is counted as it happens; the rest of the figures is read from
 * the rows and the engine when somebody asks. Private to api/. Any thread. */
#ifndef API_METRICS_H
#define API_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

struct store_job;

enum {
    METRIC_METHODS = 5, /* CreateReplica, AttachOrModifyReplica, ModifySynchronization,
                  VerifyReplica, other */
    METRIC_RESULTS = 4, /* JobState 7..10 */
    METRIC_RETURNS = 8, /* 0..6, other */
    METRIC_BUCKETS = 9 /* and one for what is longer */
};

struct metric_times {
    _Atomic uint64_t buckets[METRIC_BUCKETS + 1];
    _Atomic uint64_t sum_ms;
};

/** Since the process started. Zeroed at first. */
struct metrics {
    _Atomic uint64_t finished[METRIC_METHODS][METRIC_RESULTS][METRIC_RETURNS];
    struct metric_times duration, queue_wait;
};

/** What is counted of the end of a job, once that is durable. */
struct metric_end {
    uint8_t method, result, value;
    int64_t submitted, started, ended; /* wall clock, ms; started 0: never */
};

/** Of a job that is over. */
struct metric_end metrics_end_of(const struct store_job *job);

void metrics_job_ended(struct metrics *metrics, const struct metric_end *end);

#endif

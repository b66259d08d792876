/* tests/api/stress.h - a service for programs with a main() of their own: Criterion aborts
 * under ThreadSanitizer.
 */
#ifndef TESTS_API_STRESS_H
#define TESTS_API_STRESS_H

#include <stdio.h>

#include "api/api.h"
#include "tests/support/directory.h"
#include "tests/support/must.h"

/** A directory with one pool; directory_remove() at the end. Where it is made it stays. */
struct stress {
    struct directory directory;
    char data[300], pool[300];
    struct api_pool pools[1]; /* "default" */
    struct api_options options;
};

static inline void stress_make(struct stress *stress, unsigned max_jobs)
{
    must(directory_make(&stress->directory));
    snprintf(stress->data, sizeof(stress->data), "%s/data", stress->directory.path);
    snprintf(stress->pool, sizeof(stress->pool), "%s/pool", stress->directory.path);
    must(mkdir(stress->data, 0700) == 0);
    stress->pools[0] = (struct api_pool){ "default", stress->pool };
    stress->options = (struct api_options){ .data_directory = stress->data,
        .pools = stress->pools,
        .pool_count = 1,
        .iqn_prefix = "iqn.2026-11.example",
        .connect_timeout_ms = 20000,
        .io_timeout_ms = 20000,
        .workers = 2,
        .max_jobs = max_jobs };
}

static inline struct service *stress_start(const struct stress *stress)
{
    struct fault fault = { 0 };
    struct service *service = service_create(&stress->options, &fault);

    if (!service)
        fprintf(stderr, "service: %s\n", fault.why);
    must(service != NULL);
    return service;
}

#endif

/* Openings that hang at the far side: whoever stops does not wait for their deadlines, which
 * are longer here than any test. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "replica/base/check.h"
#include "replica/engine_inside.h"
#include "tests/replica/engine/bench.h"
#include "tests/support/tgt.h"

enum { MIB = 1 << 20, FOR_EVER_MS = 3600 * 1000, PATIENCE_S = 60 };

static struct bench bench;
static struct hostile far_side;
static struct portal_rule loopback;

static void tune(struct engine_options *options)
{
    check(portal_rule_parse("127.0.0.0/8", &loopback, NULL) == 0);
    options->allow = &loopback;
    options->allow_count = 1;
    options->connect_timeout_ms = options->io_timeout_ms = FOR_EVER_MS;
    options->recovery_ms = FOR_EVER_MS;
    options->stall_ms = 200; /* the first thing that is told of an opening */
}

/* It logs in, and does not say who it is. */
static void setup(void)
{
    static const char *const rules[] = { "12:mute", NULL };

    hostile_start(&far_side, rules);
    bench_init(&bench, tune);
    bench_file(&bench, "file", MIB, 1);
}

static void teardown(void)
{
    bench_finish(&bench);
    hostile_stop(&far_side);
}

TestSuite(openings, .init = setup, .fini = teardown);

static struct engine_element lun_element(void)
{
    struct engine_element element = { .address = "" };

    (void)snprintf(element.address, sizeof element.address,
            "iscsi://127.0.0.1:%u/iqn.2026-11.example:mute/0", far_side.port);
    return element;
}

static struct engine_plan lun_plan(bool to_lun)
{
    struct engine_plan plan = bench_plan(ENGINE_COPY, "file", "file");

    *(to_lun ? &plan.target : &plan.source) = lun_element();
    return plan;
}

static bool bench_is_opening(const struct bench_record *record)
{
    return strstr(record->last.stall, "is being opened") != NULL;
}

Test(openings, a_plan_that_opens_is_stopped)
{
    for (int i = 0; i < 4; i++) {
        struct engine_plan plan = lun_plan(i % 2);
        struct bench_record record;

        cr_assert_eq(engine_start(bench.engine, &plan), 0);
        cr_assert(bench_wait(&bench, &plan.id, bench_is_opening, &record));
        cr_assert_eq(
                engine_stop(bench.engine, &plan.id, i / 2 ? ENGINE_DROP : ENGINE_DRAIN),
                0);
        cr_assert(bench_wait(&bench, &plan.id, bench_has_ended, &record));
        cr_assert_eq(record.last.end, ENGINE_STOPPED);
        cr_assert(!record.late && !record.last.loose);
    }
}

Test(openings, plans_that_open_do_not_hold_up_the_end)
{
    struct engine_plan plans[3] = { lun_plan(true), lun_plan(false), lun_plan(true) };
    struct bench_record record;

    for (int i = 0; i < 3; i++)
        cr_assert_eq(engine_start(bench.engine, &plans[i]), 0);
    for (int i = 0; i < 3; i++)
        cr_assert(bench_wait(&bench, &plans[i].id, bench_is_opening, &record));
    engine_shut(bench.engine);
    for (int i = 0; i < 3; i++)
        cr_assert(bench_wait(&bench, &plans[i].id, bench_has_ended, &record));
    cr_assert_eq(engine_start(bench.engine, &plans[0]), -ESHUTDOWN);
}

static void *probe_main(void *context)
{
    struct engine_element element = lun_element();
    struct engine_found found;
    int *result = context;

    *result = engine_probe(bench.engine, &element, false, &found, NULL);
    return NULL;
}

static void probe_await(unsigned count)
{
    struct instant due = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    unsigned probes = 0;

    while (probes < count) {
        cr_assert(!instant_reached(clock_monotonic(), due));
        pthread_mutex_lock(&bench.engine->lock);
        probes = bench.engine->probes;
        pthread_mutex_unlock(&bench.engine->lock);
        (void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
}

Test(openings, a_probe_does_not_hold_up_the_end)
{
    struct timespec deadline;
    pthread_t threads[2];
    int results[2];

    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, probe_main, &results[i]), 0);
    probe_await(2);
    engine_shut(bench.engine);
    (void)clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_S;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pthread_timedjoin_np(threads[i], NULL, &deadline), 0);
        cr_assert_eq(results[i], -ECANCELED);
    }
    (void)probe_main(&results[0]); /* too late to begin */
    cr_assert_eq(results[0], -ECANCELED);
}

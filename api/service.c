/* The service: who is made before whom, who stops whom.
 *
 * Made: store, engine, clerk, recovery. Undone: drain (waiters go, no new call), the engine's
 * plans (their last events become notes), clerk (the notes become rows, for which it still
 * asks the engine), engine, store.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/jobs.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

enum {
    JOBS_DEFAULT = 4,
    DAYS_DEFAULT = 30,
    ROWS_DEFAULT = 100000,
    EXPIRE_BATCH = 500,
    EXPIRE_MS = 60 * 1000,
    STALL_MS = 30 * 1000, /* longer than this without a turn: not alive */
    RECOVERY_MS = 60 * 1000,
    SETTLE_MS = 30 * 1000 /* beyond the I/O timeout: to close, to keep digests */
};

static const int64_t day_ms = (int64_t)24 * 3600 * 1000;

/* -- options ------------------------------------------------------------------------------ */

/** What a service keeps of its options beside the struct itself. */
struct options_copy {
    struct api_pool *pools;
    const char **allow;
};

static char *text_copy(const char *text, bool *lost)
{
    char *copy = text ? strdup(text) : NULL;

    *lost |= text && !copy;
    return copy;
}

static void options_free(struct api_options *options)
{
    for (size_t i = 0; options->pools && i < options->pool_count; i++) {
        free((char *)(uintptr_t)options->pools[i].name);
        free((char *)(uintptr_t)options->pools[i].path);
    }
    for (size_t i = 0; options->allow_portals && i < options->allow_count; i++)
        free((char *)(uintptr_t)options->allow_portals[i]);
    free((void *)(uintptr_t)options->pools);
    free((void *)(uintptr_t)options->allow_portals);
    free((char *)(uintptr_t)options->data_directory);
    free((char *)(uintptr_t)options->credentials);
    free((char *)(uintptr_t)options->initiator_name);
    free((char *)(uintptr_t)options->iqn_prefix);
}

/** Texts and lists are copied. False: out of memory; options_free() in any case. */
static bool options_copy(struct api_options *to, const struct api_options *from)
{
    struct api_pool *pools = calloc(from->pool_count + 1, sizeof(*pools));
    const char **allow = calloc(from->allow_count + 1, sizeof(*allow));
    bool lost = !pools || !allow;

    *to = *from;
    to->pools = pools;
    to->allow_portals = allow;
    to->data_directory = text_copy(from->data_directory, &lost);
    to->credentials = text_copy(from->credentials, &lost);
    to->initiator_name = text_copy(from->initiator_name, &lost);
    to->iqn_prefix = text_copy(from->iqn_prefix, &lost);
    for (size_t i = 0; pools && i < from->pool_count; i++) {
        pools[i].name = text_copy(from->pools[i].name, &lost);
        pools[i].path = text_copy(from->pools[i].path, &lost);
    }
    for (size_t i = 0; allow && i < from->allow_count; i++)
        allow[i] = text_copy(from->allow_portals[i], &lost);
    if (!to->max_jobs)
        to->max_jobs = JOBS_DEFAULT;
    if (!to->retention_days)
        to->retention_days = DAYS_DEFAULT;
    if (!to->retention_rows)
        to->retention_rows = ROWS_DEFAULT;
    return !lost;
}

/* -- making -------------------------------------------------------------------------------- */

/** The initiator's name: asked for, or made once and kept. */
static int service_name(struct service *service, struct fault *fault)
{
    const char *asked = service->options.initiator_name;
    struct store_meta meta = { .key = "initiator" };
    struct store_change change = { STORE_PUT, STORE_META, &meta };
    struct uuid id;
    int result;

    if (asked) {
        (void)snprintf(service->initiator, sizeof(service->initiator), "%s", asked);
        return 0;
    }
    if (store_get(store_own_reader(service->store), STORE_META, meta.key, &meta)) {
        id = uuid_make();
        (void)snprintf(meta.value, sizeof(meta.value),
                "iqn.2026-11.org.replicad:initiator.%s", id.text);
        if ((result = store_apply(service->store, &change, 1)))
            return fault_set(fault, result, "cannot keep the initiator's name: %s",
                    strerrordesc_np(-result));
    }
    (void)snprintf(
            service->initiator, sizeof(service->initiator), "%.223s", meta.value);
    return 0;
}

static int service_store(struct service *service, struct fault *fault)
{
    bool quarantined = false;
    int result = store_open(
            service->options.data_directory, &service->store, &quarantined, fault);

    if (result == 0 && quarantined)
        service->quarantined = true;
    return result;
}

static int service_engine_start(struct service *service, struct fault *fault)
{
    const struct api_options *options = &service->options;
    size_t rules = options->allow_count ? options->allow_count : 2;
    scoped_free struct portal_rule *allow = calloc(rules, sizeof(*allow));
    scoped_free struct engine_pool *pools =
            calloc(options->pool_count + 1, sizeof(*pools));
    static const char *const loopback[] = { "127.0.0.0/8", "[::1]/128" };
    struct engine_options engine = { .loops = options->workers,
        .pools = pools,
        .pool_count = options->pool_count,
        .allow = allow,
        .allow_count = rules,
        .credentials = options->credentials,
        .state_directory = options->data_directory,
        .initiator = service->initiator,
        .connect_timeout_ms = options->connect_timeout_ms,
        .io_timeout_ms = options->io_timeout_ms,
        .recovery_ms = RECOVERY_MS,
        .limit = options->bandwidth_limit,
        .event = progress_event,
        .context = service };

    if (!allow || !pools)
        return fault_set(fault, -ENOMEM, "out of memory");
    for (size_t i = 0; i < rules; i++) {
        const char *rule =
                options->allow_count ? options->allow_portals[i] : loopback[i];
        struct fault why = { 0 };
        int result = portal_rule_parse(rule, &allow[i], &why);

        if (result)
            return fault_set(
                    fault, result, "--allow-portal %.60s: %.80s", rule, why.why);
    }
    for (size_t i = 0; i < options->pool_count; i++)
        pools[i] =
                (struct engine_pool){ options->pools[i].name, options->pools[i].path };
    service->engine = engine_create(&engine, fault);
    return service->engine ? 0 : -1;
}

static int service_clerk(struct service *service, struct fault *fault)
{
    service->scheduler = scheduler_create();
    service->keys = keys_create();
    if (service->scheduler && service->keys)
        service->clerk = clerk_create(service, service->store);
    if (!service->clerk)
        return fault_set(fault, -ENOMEM, "out of memory or threads");
    return 0;
}

struct service *service_create(const struct api_options *options, struct fault *fault)
{
    struct service *service = calloc(1, sizeof(*service));
    pthread_condattr_t attributes;

    if (!service) {
        fault_set(fault, -ENOMEM, "out of memory");
        return NULL;
    }
    service->limit = options->bandwidth_limit;
    pthread_mutex_init(&service->wake_lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&service->wake, &attributes);
    pthread_mutex_init(&service->claims_lock, NULL);
    pthread_cond_init(&service->claims_free, &attributes);
    pthread_condattr_destroy(&attributes);
    if (!options_copy(&service->options, options))
        fault_set(fault, -ENOMEM, "out of memory");
    else if (service_store(service, fault) == 0 && service_name(service, fault) == 0 &&
            service_clerk(service, fault) == 0 &&
            service_engine_start(service, fault) == 0 && recover(service, fault) == 0)
        return service;
    service_destroy(service);
    return NULL;
}

void service_limit(struct service *service, uint64_t limit)
{
    atomic_store(&service->limit, limit);
    engine_whole_limit(service->engine, limit);
}

void service_drain(struct service *service)
{
    pthread_mutex_lock(&service->wake_lock);
    service->draining = true;
    pthread_cond_broadcast(&service->wake);
    pthread_mutex_unlock(&service->wake_lock);
    pthread_mutex_lock(&service->claims_lock);
    pthread_cond_broadcast(&service->claims_free);
    pthread_mutex_unlock(&service->claims_lock);
    engine_shut(service->engine); /* calls may wait for it to open something */
}

bool service_settle(struct service *service)
{
    if (!service)
        return true;
    service_drain(service);
    return engine_drain(service->engine, service->options.io_timeout_ms + SETTLE_MS);
}

void service_destroy(struct service *service)
{
    if (!service)
        return;
    service_drain(service);
    (void)engine_drain(service->engine, 0);
    clerk_destroy(service->clerk);
    engine_destroy(service->engine);
    scheduler_destroy(service->scheduler);
    export_hands_free(service);
    keys_destroy(service->keys);
    store_close(service->store);
    options_free(&service->options);
    pthread_cond_destroy(&service->claims_free);
    pthread_mutex_destroy(&service->claims_lock);
    pthread_cond_destroy(&service->wake);
    pthread_mutex_destroy(&service->wake_lock);
    free(service);
}

/* -- waiting ------------------------------------------------------------------------------ */

bool service_wait(struct service *service, int64_t *seen, struct instant deadline)
{
    struct timespec due = instant_timespec(deadline);
    bool changed;

    pthread_mutex_lock(&service->wake_lock);
    while (*seen >= 0 && service->last_event == *seen && !service->draining)
        if (pthread_cond_timedwait(&service->wake, &service->wake_lock, &due) ==
                ETIMEDOUT)
            break;
    changed = service->last_event != *seen && !service->draining;
    *seen = service->last_event;
    pthread_mutex_unlock(&service->wake_lock);
    return changed;
}

/* -- health ------------------------------------------------------------------------------- */

static unsigned checks_fill(struct api_check *checks, unsigned room,
        const struct api_check *from, unsigned count)
{
    if (count > room)
        count = room;
    memcpy(checks, from, count * sizeof(*checks));
    return count;
}

unsigned api_live(struct service *service, struct api_check *checks, unsigned room)
{
    const struct api_check all[] = {
        { "clerk", clerk_stalled_ms(service->clerk) < STALL_MS },
        { "engine", engine_stalled_ms(service->engine) < STALL_MS },
    };

    return checks_fill(checks, room, all, sizeof(all) / sizeof(*all));
}

unsigned api_ready(struct service *service, struct api_check *checks, unsigned room)
{
    const struct api_check all[] = {
        { "store", !clerk_failing(service->clerk) },
        { "clerk", clerk_stalled_ms(service->clerk) < STALL_MS },
        { "engine", engine_stalled_ms(service->engine) < STALL_MS },
        { "recovery", service->recovered },
        { "draining", !service->draining },
    };

    return checks_fill(checks, room, all, sizeof(all) / sizeof(*all));
}

/* -- housekeeping ------------------------------------------------------------------------- */

void service_tick(struct service *service)
{
    const struct api_options *options = &service->options;
    struct instant now = clock_monotonic();
    int64_t wall = clock_wall_ms();
    int dropped;

    if (!service->recovered)
        return;
    (void)job_sweep(service);
    if (!instant_reached(now, service->expire_due))
        return;
    dropped = store_expire(service->store,
            wall - (int64_t)options->retention_days * day_ms, options->retention_rows,
            JOB_OVER_STATES, wall - day_ms, EXPIRE_BATCH);
    if (dropped < 0)
        log_plain(LOG_WARN, "expire-failed", "retention could not drop rows: %s",
                strerrordesc_np(-dropped));
    /* A full step says that there is more. */
    if (dropped < EXPIRE_BATCH)
        service->expire_due = instant_add_ms(now, EXPIRE_MS);
}

/* Many callers at once: elements made and deleted, copies run, lists, events and figures read,
 * keys raced for, then a drain while some wait. For ThreadSanitizer: a main() of its own.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/api/stress.h"

enum { ROUNDS = 12, MAKERS = 3, READERS = 2, COPIERS = 2 };

static struct service *service;
static _Atomic bool over;

static void call(enum api_call what, const char *id, const char *key, const char *body,
        int wait_s, struct api_outcome *outcome)
{
    struct api_request request = {
        .call = what,
        .id = id,
        .body = body,
        .length = body ? strlen(body) : 0,
        .idempotency_key = key,
        .prefer_wait_s = wait_s,
        .caller = "127.0.0.1",
        .request_id = "stress",
    };

    api_serve(service, &request, outcome);
}

static void element_make(const char *key, char id[37])
{
    struct api_outcome outcome;

    call(API_ELEMENT_CREATE, NULL, key,
            "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":65536}", -1,
            &outcome);
    must(outcome.verdict == API_MADE || (key && outcome.verdict == API_KEY_BUSY));
    if (outcome.verdict == API_MADE)
        snprintf(id, 37, "%s", outcome.location + strlen("/elements/"));
    api_outcome_release(&outcome);
}

/** Makes, renames and deletes; and races the other makers for one key a round. */
static void *make(void *context)
{
    struct api_outcome outcome;
    char id[37], shared[37] = "", key[40];

    (void)context;
    for (int round = 0; round < ROUNDS; round++) {
        snprintf(key, sizeof(key), "round-%d", round);
        element_make(key, shared);
        element_make(NULL, id);
        call(API_ELEMENT_PATCH, id, NULL, "{\"ElementName\":\"renamed\"}", -1,
                &outcome);
        must(outcome.verdict == API_DONE);
        api_outcome_release(&outcome);
        call(API_ELEMENT_DELETE, id, NULL, NULL, -1, &outcome);
        must(outcome.verdict == API_DONE);
        api_outcome_release(&outcome);
    }
    return NULL;
}

static void *copy(void *context)
{
    struct api_outcome outcome;
    char id[37], body[120];

    (void)context;
    element_make(NULL, id);
    snprintf(body, sizeof(body),
            "{\"SourceElement\":\"%s\",\"CopyType\":5,\"ElementName\":\"copy\"}", id);
    for (int round = 0; round < ROUNDS; round++) {
        call(API_REPLICA_CREATE, NULL, NULL, body, 30, &outcome);
        must(outcome.return_value == 4096 || outcome.return_value == 0);
        api_outcome_release(&outcome);
    }
    return NULL;
}

static void *read_all(void *context)
{
    static const enum api_call lists[] = { API_ELEMENTS_LIST, API_JOBS_LIST,
        API_RESULTS_LIST, API_REPLICAS_LIST, API_POOLS_LIST, API_CAPABILITIES_GET };
    struct api_outcome outcome;
    size_t length;

    (void)context;
    for (size_t n = 0; !over; n++) {
        call(lists[n % (sizeof(lists) / sizeof(*lists))], NULL, NULL, NULL, -1,
                &outcome);
        must(outcome.verdict == API_DONE);
        api_outcome_release(&outcome);
        free(api_metrics(service, &length));
        struct api_check checks[16];
        must(api_live(service, checks, 16) > 0 && api_ready(service, checks, 16) > 0);
    }
    return NULL;
}

static bool grows(void *context, const struct api_event *event)
{
    int64_t *last = context;

    must(event->number > *last);
    must(event->data[0] == '{');
    *last = event->number;
    return true;
}

static void *watch(void *context)
{
    int64_t last = 0;
    bool reset;

    (void)context;
    while (api_events(service, last, 1000, &reset, grows, &last) != -ESHUTDOWN)
        must(!reset);
    must(last > 0);
    return NULL;
}

static size_t start(
        pthread_t *threads, size_t count, unsigned more, void *(*run)(void *))
{
    while (more--)
        must(pthread_create(&threads[count++], NULL, run, NULL) == 0);
    return count;
}

static void run_all(void)
{
    pthread_t workers[MAKERS + COPIERS], others[READERS + 1];
    size_t busy = start(workers, 0, MAKERS, make),
           idle = start(others, 0, READERS, read_all);

    busy = start(workers, busy, COPIERS, copy);
    idle = start(others, idle, 1, watch);
    for (size_t i = 0; i < busy; i++)
        pthread_join(workers[i], NULL);
    over = true;
    service_drain(service);
    for (size_t i = 0; i < idle; i++)
        pthread_join(others[i], NULL);
}

int main(void)
{
    struct stress stress;

    stress_make(&stress, 4);
    service = stress_start(&stress);
    run_all();
    service_destroy(service);
    directory_remove(&stress.directory);
    return 0;
}

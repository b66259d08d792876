#include "tests/server/http/fake_service.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "replica/base/clock.h"

enum { EVENTS = 20000 };

struct event {
    const char *kind, *type, *data;
};

/* All under the lock, but what is constant. */
struct service {
    pthread_mutex_t lock;
    pthread_cond_t turn;
    struct fake_answer answer;
    struct fake_seen seen;
    unsigned held;
    unsigned released; /* generation */
    bool drained;
    bool stuck; /* constant: held calls stay held when it drains */
    struct event *events;
    int64_t last, forgotten;
    struct api_check live[2], ready[3];
};

struct service *fake_create(void)
{
    struct service *service = calloc(1, sizeof(*service));
    pthread_condattr_t attributes;

    pthread_mutex_init(&service->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&service->turn, &attributes);
    pthread_condattr_destroy(&attributes);
    service->events = calloc(EVENTS, sizeof(*service->events));
    service->answer.outcome.return_value = -1;
    service->answer.outcome.waited_s = -1;
    service->live[0] = (struct api_check){ "clerk", true };
    service->live[1] = (struct api_check){ "loops", true };
    service->ready[0] = (struct api_check){ "store", true };
    service->ready[1] = (struct api_check){ "loops", true }; /* as live has it */
    service->ready[2] = (struct api_check){ "draining", true };
    return service;
}

struct service *service_create(const struct api_options *options, struct fault *fault)
{
    struct service *service = fake_create();

    (void)options, (void)fault;
    service->stuck = service->answer.hold = getenv("REPLICAD_FAKE_STUCK") != NULL;
    return service;
}

void service_limit(struct service *service, uint64_t limit)
{
    (void)service, (void)limit;
}

/* Nothing is exported here: such a daemon is started with --iscsi none. */
struct engine *service_engine(struct service *service)
{
    (void)service;
    return NULL;
}

void service_export_by(struct service *service, const struct api_exporter *exporter)
{
    (void)service;
    (void)exporter;
}

unsigned service_exports_resume(struct service *service)
{
    (void)service;
    return 0;
}

unsigned service_opening_ms(const struct service *service)
{
    (void)service;
    return 1000;
}

int service_keep(struct service *service, const struct uuid *element,
        const uint8_t *bytes, size_t length, void (*kept)(void *context, int result),
        void *context)
{
    (void)service;
    (void)element;
    (void)bytes;
    (void)length;
    (void)kept;
    (void)context;
    return -ENOSYS;
}

void service_drain(struct service *service)
{
    pthread_mutex_lock(&service->lock);
    service->drained = true;
    service->ready[2].ok = false;
    pthread_cond_broadcast(&service->turn);
    pthread_mutex_unlock(&service->lock);
}

bool service_settle(struct service *service)
{
    if (service)
        service_drain(service);
    return true;
}

void service_destroy(struct service *service)
{
    pthread_cond_destroy(&service->turn);
    pthread_mutex_destroy(&service->lock);
    free(service->events);
    free(service);
}

/* Holds the lock. False: @ms are over. */
static bool turn_await(struct service *service, struct instant due)
{
    struct timespec until = { (time_t)(due.ns / 1000000000u),
        (long)(due.ns % 1000000000u) };

    return pthread_cond_timedwait(&service->turn, &service->lock, &until) == 0;
}

void fake_answer(struct service *service, const struct fake_answer *answer)
{
    pthread_mutex_lock(&service->lock);
    service->answer = *answer;
    pthread_mutex_unlock(&service->lock);
}

struct fake_seen fake_seen(struct service *service)
{
    pthread_mutex_lock(&service->lock);
    struct fake_seen seen = service->seen;
    pthread_mutex_unlock(&service->lock);
    return seen;
}

void fake_release(struct service *service)
{
    pthread_mutex_lock(&service->lock);
    service->released++;
    pthread_cond_broadcast(&service->turn);
    pthread_mutex_unlock(&service->lock);
}

bool fake_await_held(struct service *service, unsigned count)
{
    struct instant due = instant_add_ms(clock_monotonic(), 60000);
    bool there;

    pthread_mutex_lock(&service->lock);
    while (service->held < count && turn_await(service, due))
        ;
    there = service->held >= count;
    pthread_mutex_unlock(&service->lock);
    return there;
}

static void text_copy(char *to, size_t room, const char *from)
{
    snprintf(to, room, "%s", from ? from : "");
}

static void request_note(struct fake_seen *seen, const struct api_request *request)
{
    size_t used = 0;

    seen->calls++;
    seen->call = request->call;
    seen->length = request->length;
    seen->has_body = request->body != NULL;
    seen->has_key = request->idempotency_key != NULL;
    seen->prefer_wait_s = request->prefer_wait_s;
    text_copy(seen->id, sizeof(seen->id), request->id);
    text_copy(seen->if_match, sizeof(seen->if_match), request->if_match);
    text_copy(seen->if_none_match, sizeof(seen->if_none_match), request->if_none_match);
    text_copy(seen->key, sizeof(seen->key), request->idempotency_key);
    text_copy(seen->caller, sizeof(seen->caller), request->caller);
    text_copy(seen->request_id, sizeof(seen->request_id), request->request_id);
    snprintf(seen->body, sizeof(seen->body), "%.*s",
            (int)(request->length < 255 ? request->length : 255),
            request->body ? request->body : "");
    seen->query[0] = '\0';
    for (size_t i = 0; i < request->query_count && used < sizeof(seen->query); i++)
        used += (size_t)snprintf(seen->query + used, sizeof(seen->query) - used,
                "%s%s=%s", i ? "&" : "", request->query[i].name,
                request->query[i].value);
}

void api_serve(struct service *service, const struct api_request *request,
        struct api_outcome *outcome)
{
    pthread_mutex_lock(&service->lock);
    request_note(&service->seen, request);
    struct fake_answer answer = service->answer;
    unsigned generation = service->released;
    if (answer.hold) {
        struct instant due = instant_add_ms(clock_monotonic(), 300000);
        service->held++;
        pthread_cond_broadcast(&service->turn);
        while ((!service->drained || service->stuck) &&
                generation == service->released && turn_await(service, due))
            ;
        service->held--;
    }
    pthread_mutex_unlock(&service->lock);
    *outcome = answer.outcome;
    if (answer.body) {
        outcome->body = strdup(answer.body);
        outcome->length = strlen(answer.body);
    }
}

void api_outcome_release(struct api_outcome *outcome)
{
    free(outcome->body);
    outcome->body = NULL;
}

static char *problem_print(int return_value, const char *slug, const char *title,
        int status, const char *detail, const char *request_id, size_t *length)
{
    char *text = NULL;
    int n = asprintf(&text,
            "{\"type\":\"/problems/"
            "%s\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\","
            "\"ReturnValue\":%d,\"RequestId\":\"%s\"}",
            slug, title, status, detail, return_value, request_id);

    *length = n < 0 ? 0 : (size_t)n;
    return n < 0 ? NULL : text;
}

char *api_problem_render(const struct api_outcome *outcome, int status,
        const char *request_id, size_t *length)
{
    static const char *const words[][2] = {
#define VERDICT(symbol, slug, title) { slug, title },
#include "api/verdicts.tbl.h"
#undef VERDICT
    };

    return problem_print(outcome->return_value, words[outcome->verdict][0],
            words[outcome->verdict][1], status, "of the fake", request_id, length);
}

char *api_problem_plain(const char *slug, const char *title, int status,
        const char *detail, const char *request_id, size_t *length)
{
    return problem_print(-1, slug, title, status, detail, request_id, length);
}

void fake_event(
        struct service *service, const char *kind, const char *type, const char *data)
{
    pthread_mutex_lock(&service->lock);
    if (service->last < EVENTS - 1)
        service->events[++service->last] = (struct event){ kind, type, data };
    pthread_cond_broadcast(&service->turn);
    pthread_mutex_unlock(&service->lock);
}

void fake_forget(struct service *service, int64_t number)
{
    pthread_mutex_lock(&service->lock);
    service->forgotten = number;
    pthread_mutex_unlock(&service->lock);
}

int api_events(struct service *service, int64_t after, unsigned ms, bool *reset,
        api_event_f *each, void *context)
{
    struct instant due = instant_add_ms(clock_monotonic(), ms);
    int delivered = 0;
    bool more = true;

    pthread_mutex_lock(&service->lock);
    *reset = after < service->forgotten || after > service->last;
    while (!service->drained && !*reset && service->last <= after &&
            turn_await(service, due))
        ;
    if (service->drained)
        delivered = -ESHUTDOWN;
    while (more && delivered >= 0 && !*reset && after < service->last) {
        const struct event *next = &service->events[++after];
        struct api_event event = { after, next->kind, next->type, next->data };
        more = each(context, &event);
        delivered++;
    }
    pthread_mutex_unlock(&service->lock);
    return delivered;
}

bool api_event_type(const char *type, size_t length)
{
    return (length == 3 && memcmp(type, "Job", 3) == 0) ||
            (length == 7 && memcmp(type, "Replica", 7) == 0);
}

int64_t api_events_last(struct service *service)
{
    pthread_mutex_lock(&service->lock);
    int64_t last = service->last;
    pthread_mutex_unlock(&service->lock);
    return last;
}

void fake_health(struct service *service, const char *name, bool ok)
{
    pthread_mutex_lock(&service->lock);
    for (int i = 0; i < 3; i++) {
        if (i < 2 && strcmp(service->live[i].name, name) == 0)
            service->live[i].ok = ok;
        if (strcmp(service->ready[i].name, name) == 0)
            service->ready[i].ok = ok;
    }
    pthread_mutex_unlock(&service->lock);
}

static unsigned checks_copy(struct service *service, const struct api_check *from,
        unsigned count, struct api_check *to, unsigned room)
{
    count = room < count ? room : count;

    pthread_mutex_lock(&service->lock);
    memcpy(to, from, count * sizeof(*to));
    pthread_mutex_unlock(&service->lock);
    return count;
}

unsigned api_live(struct service *service, struct api_check *checks, unsigned room)
{
    return checks_copy(service, service->live, 2, checks, room);
}

unsigned api_ready(struct service *service, struct api_check *checks, unsigned room)
{
    return checks_copy(service, service->ready, 3, checks, room);
}

char *api_metrics(struct service *service, size_t *length)
{
    char *text = strdup("# HELP replicad_fake_ratio Of the fake service.\n"
                        "# TYPE replicad_fake_ratio gauge\n"
                        "replicad_fake_ratio 1\n");

    (void)service;
    *length = strlen(text);
    return text;
}

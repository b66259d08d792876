/* api/events.c - what has changed, told to those who watch: Inst* indications.
 *
 * An event is a row, put in the transaction of the change it tells of, so that a reader
 * that has seen an event sees the change, and none is lost over a restart. After each
 * commit the clerk publishes the newest number; whoever waits reads rows after the one
 * it has seen.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/resource.h"
#include "replica/base/check.h"
#include "replica/base/scope.h"

enum { EVENTS_PAGE = 100, READER_MS = 2000 };

/* Whoever puts events of another type names it here: a stream that asks for what never
 * comes would be silent for ever. */
static const char *const types[] = { "Element", "Job", "Pipe", "Replica", "Setting" };

bool api_event_type(const char *type, size_t length)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strlen(types[i]) == length && memcmp(types[i], type, length) == 0)
            return true;
    return false;
}

void event_put(struct clerk_turn *turn, const char *kind, const char *type,
        const char *about, const char *changed)
{
    struct store_event event = { .time = turn->now, .changed = changed };

    check(api_event_type(type, strlen(type)));
    (void)snprintf(event.kind, sizeof(event.kind), "%s", kind);
    (void)snprintf(event.type, sizeof(event.type), "%s", type);
    (void)snprintf(event.about, sizeof(event.about), "%s", about);
    turn_put(turn, STORE_EVENT, &event);
}

void events_wake(struct service *service)
{
    int64_t last = store_last_event(store_own_reader(service->store));

    pthread_mutex_lock(&service->wake_lock);
    if (last > service->last_event)
        service->last_event = last;
    pthread_cond_broadcast(&service->wake);
    pthread_mutex_unlock(&service->wake_lock);
}

int64_t api_events_last(struct service *service)
{
    int64_t last;

    pthread_mutex_lock(&service->wake_lock);
    last = service->last_event;
    pthread_mutex_unlock(&service->wake_lock);
    return last;
}

/** Wait for an event after @after. The newest number, 0: none came, -ESHUTDOWN. */
static int64_t event_wait(struct service *service, int64_t after, unsigned ms)
{
    struct timespec due = deadline_in(ms);
    int64_t last;

    pthread_mutex_lock(&service->wake_lock);
    while (service->last_event <= after && !service->draining)
        if (pthread_cond_timedwait(&service->wake, &service->wake_lock, &due) ==
                ETIMEDOUT)
            break;
    last = service->draining              ? -ESHUTDOWN
            : service->last_event > after ? service->last_event
                                          : 0;
    pthread_mutex_unlock(&service->wake_lock);
    return last;
}

struct delivery {
    api_event_f *each;
    void *context;
    bool failed;
};

static bool event_deliver(void *context, const void *row)
{
    struct delivery *delivery = context;
    const struct store_event *stored = row;
    struct writer *writer = writer_create();
    scoped_free char *data = NULL;
    struct api_event event = { stored->number, stored->kind, stored->type, NULL };

    if (writer) {
        writer_text(writer, "Self", stored->about);
        writer_text(writer, "Type", stored->type);
        writer_json(writer, "Changed", stored->changed);
        data = writer_finish(&writer, NULL);
    }
    event.data = data;
    delivery->failed = !data;
    return data && delivery->each(delivery->context, &event);
}

/** There is an event after @after, and it is not kept any more. */
static bool is_gone(struct store_reader *reader, int64_t after)
{
    int64_t first = store_first_event(reader), last = store_last_event(reader);

    return after < last && (first == 0 || after + 1 < first);
}

static int events_read(
        struct service *service, int64_t after, bool *reset, struct delivery *delivery)
{
    struct store_reader *reader = store_reader_take(service->store, READER_MS);
    int result = 0;

    if (!reader)
        return 0; /* too busy: asked again */
    if (is_gone(reader, after))
        *reset = true;
    else
        result = store_events(reader, after, EVENTS_PAGE, event_deliver, delivery);
    store_reader_give(service->store, reader);
    return result < 0 || delivery->failed ? -EIO : result;
}

/**
 * No event has this number yet. A commit is seen by readers a moment before its number
 * is published, so that a watcher may be ahead of what is published: the rows decide.
 */
static bool is_from_the_future(struct service *service, int64_t after)
{
    struct store_reader *reader;
    bool future = false;

    if (after <= api_events_last(service) ||
            !(reader = store_reader_take(service->store, READER_MS)))
        return false;
    future = after > store_last_event(reader);
    store_reader_give(service->store, reader);
    return future;
}

/** With *@reset nothing is delivered: go on from api_events_last(). */
int api_events(struct service *service, int64_t after, unsigned ms, bool *reset,
        api_event_f *each, void *context)
{
    struct delivery delivery = { .each = each, .context = context };
    int64_t newest;

    *reset = after < 0 || is_from_the_future(service, after);
    if (*reset)
        return 0;
    newest = event_wait(service, after, ms);
    if (newest <= 0)
        return (int)newest;
    return events_read(service, after, reset, &delivery);
}

/* Events: what changed is told once, in order, to who waits; what is gone is said. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "api/service.h"
#include "tests/api/rig.h"

static struct rig rig;
static const struct asked nothing;

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(events, .init = begin, .fini = end);

struct seen {
    unsigned count, stop_at;
    int64_t numbers[64];
    char kinds[64][24], types[64][24], data[64][400];
};

static bool see(void *context, const struct api_event *event)
{
    struct seen *seen = context;
    unsigned n = seen->count++;

    seen->numbers[n] = event->number;
    snprintf(seen->kinds[n], sizeof(seen->kinds[n]), "%s", event->kind);
    snprintf(seen->types[n], sizeof(seen->types[n]), "%s", event->type);
    snprintf(seen->data[n], sizeof(seen->data[n]), "%s", event->data);
    return seen->count != seen->stop_at;
}

Test(events, a_change_is_told_in_order)
{
    struct seen seen = { 0 };
    struct answer answer;
    char id[37], wanted[80];
    int64_t from = api_events_last(rig.service);
    bool reset;
    json_t *data;

    rig_element(&rig, "StorageVolume", 4096, id);
    answer = rig_call(&rig, API_ELEMENT_PATCH, (struct asked){ .id = id },
            "{\"ElementName\":\"new name\"}");
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
    answer_release(&answer);
    expect_eq(api_events(rig.service, from, 0, &reset, see, &seen), 3);
    expect(!reset);
    expect_str(seen.kinds[0], "InstCreation");
    expect_str(seen.kinds[1], "InstModification");
    expect_str(seen.kinds[2], "InstDeletion");
    expect(seen.numbers[0] < seen.numbers[1] && seen.numbers[1] < seen.numbers[2]);
    expect_eq(seen.numbers[2], api_events_last(rig.service));
    data = json_loads(seen.data[1], 0, NULL);
    snprintf(wanted, sizeof(wanted), "/elements/%s", id);
    expect_str(json_string_value(json_object_get(data, "Self")), wanted);
    expect_str(json_string_value(json_object_get(data, "Type")), "Element");
    expect_str(json_string_value(json_object_get(
                       json_object_get(data, "Changed"), "ElementName")),
            "new name");
    cr_assert(strchr(seen.data[1], '\n') == NULL);
    json_decref(data);
}

Test(events, a_patch_that_changes_nothing_tells_nothing)
{
    struct seen seen = { 0 };
    struct answer answer;
    char id[37], body[400];
    int64_t from;
    bool reset;

    rig_element(&rig, "StorageVolume", 4096, id);
    answer = rig_call(&rig, API_ELEMENT_GET, (struct asked){ .id = id }, NULL);
    snprintf(body, sizeof(body), "{\"ElementName\":\"%s\"}",
            answer_text(&answer, "ElementName"));
    answer_release(&answer);
    from = api_events_last(rig.service);
    answer = rig_call(&rig, API_ELEMENT_PATCH, (struct asked){ .id = id }, body);
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
    expect_eq(api_events(rig.service, from, 0, &reset, see, &seen), 0);
}

Test(events, a_reader_that_stops_goes_on_where_it_was)
{
    struct seen seen = { .stop_at = 1 }, rest = { 0 };
    struct answer answer;
    int64_t from = api_events_last(rig.service);
    bool reset;

    for (int i = 0; i < 3; i++) {
        answer = rig_call(&rig, API_SETTING_CREATE, nothing, "{}");
        answer_release(&answer);
    }
    (void)api_events(rig.service, from, 0, &reset, see, &seen);
    expect_eq(seen.count, 1);
    expect_eq(api_events(rig.service, seen.numbers[0], 0, &reset, see, &rest), 2);
    expect_eq(rest.numbers[0], seen.numbers[0] + 1);
}

static void *maker(void *context)
{
    struct answer answer = rig_call(&rig, API_SETTING_CREATE, nothing, "{}");

    (void)context;
    answer_release(&answer);
    return NULL;
}

Test(events, who_waits_is_woken)
{
    struct seen seen = { 0 };
    int64_t from = api_events_last(rig.service);
    pthread_t thread;
    bool reset;

    expect_eq(pthread_create(&thread, NULL, maker, NULL), 0);
    expect_eq(api_events(rig.service, from, 50000, &reset, see, &seen), 1);
    pthread_join(thread, NULL);
    expect_str(seen.types[0], "Setting");
}

static void *drainer(void *context)
{
    (void)context;
    service_drain(rig.service);
    return NULL;
}

Test(events, a_drain_wakes_who_waits)
{
    struct seen seen = { 0 };
    pthread_t thread;
    bool reset;

    expect_eq(pthread_create(&thread, NULL, drainer, NULL), 0);
    expect_eq(api_events(rig.service, api_events_last(rig.service), 50000, &reset, see,
                      &seen),
            -ESHUTDOWN);
    pthread_join(thread, NULL);
}

Test(events, a_number_from_the_future_is_a_reset)
{
    struct seen seen = { 0 };
    bool reset = false;

    expect_eq(api_events(rig.service, api_events_last(rig.service) + 1, 0, &reset, see,
                      &seen),
            0);
    expect(reset);
    expect_eq(seen.count, 0);
}

Test(events, a_commit_that_is_not_published_yet_is_no_future)
{
    struct seen seen = { 0 };
    struct answer answer = rig_call(&rig, API_SETTING_CREATE, nothing, "{}");
    int64_t last = api_events_last(rig.service);
    bool reset = true;

    answer_release(&answer);
    pthread_mutex_lock(&rig.service->wake_lock);
    rig.service->last_event = last - 1;
    pthread_mutex_unlock(&rig.service->wake_lock);
    expect_eq(api_events(rig.service, last, 0, &reset, see, &seen), 0);
    expect(!reset);
}

static bool drop_first(struct clerk_turn *turn, void *context)
{
    struct store_event event = { .number = *(int64_t *)context };

    turn_delete(turn, STORE_EVENT, &event);
    return true;
}

Test(events, what_is_gone_is_a_reset_and_what_is_kept_is_not)
{
    struct seen seen = { 0 };
    struct answer answer;
    int64_t first = api_events_last(rig.service) + 1;
    bool reset = false;

    for (int i = 0; i < 3; i++) {
        answer = rig_call(&rig, API_SETTING_CREATE, nothing, "{}");
        answer_release(&answer);
    }
    for (int64_t n = 1; n <= first; n++)
        (void)clerk_call(rig.service->clerk, drop_first, &n);
    expect_eq(api_events(rig.service, first - 1, 0, &reset, see, &seen), 0);
    expect(reset);
    expect_eq(api_events(rig.service, first, 0, &reset, see, &seen), 2);
    expect(!reset);
}

Test(events, numbers_grow_over_a_restart)
{
    struct answer answer = rig_call(&rig, API_SETTING_CREATE, nothing, "{}");
    int64_t last = api_events_last(rig.service);

    answer_release(&answer);
    expect(last > 0);
    rig_stop(&rig);
    rig_start(&rig);
    expect(api_events_last(rig.service) >= last);
    last = api_events_last(rig.service);
    answer = rig_call(&rig, API_SETTING_CREATE, nothing, "{}");
    answer_release(&answer);
    expect(api_events_last(rig.service) > last);
}

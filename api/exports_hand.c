/* Who has an export in hand: one call that changes it, or one thread that has it served again.
 * Nobody waits for another export, and for the same one only so long. One that could not be
 * served stays on the list with the moment from which it may be tried again: what takes long to
 * fail is tried less often, so that it does not keep the rest waiting. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "api/exports.h"

enum {
    PATIENCE_MS = 30 * 1000, /* of a call, for who has its export in hand */
    CANCEL_MS = 100, /* between two words to who opens it that it is not wanted */
    LONG_MS = 1000, /* what fails sooner keeps nobody waiting */
    REST = 2, /* the others rest so many times as long as failing took */
    RETRY_AFTER_S = 5
};

struct export_hand {
    struct export_hand *next;
    struct uuid id;
    bool taken, revives;
    unsigned waiting; /* calls */
    struct instant since; /* taken */
    struct instant due; /* not taken: the revival waits until then */
};

/* -- under claims_lock ----------------------------------------------------------------------- */

static struct export_hand **hand_find(struct service *service, const struct uuid *id)
{
    struct export_hand **at = &service->export_hands;

    while (*at && !uuid_equal(&(*at)->id, id))
        at = &(*at)->next;
    return at;
}

/** One that is on the list. NULL: no memory. */
static struct export_hand *hand_make(struct service *service, const struct uuid *id)
{
    struct export_hand *hand = *hand_find(service, id);

    if (hand || !(hand = calloc(1, sizeof(*hand))))
        return hand;
    hand->id = *id;
    hand->next = service->export_hands;
    service->export_hands = hand;
    return hand;
}

static void hand_close(struct export_hand *hand, bool revives)
{
    hand->taken = true;
    hand->revives = revives;
    hand->since = clock_monotonic();
}

static void hand_free(struct export_hand **at)
{
    struct export_hand *hand = *at;

    *at = hand->next;
    free(hand);
}

/** Until nobody has it, or @until. Calls that wait come before the revival. */
static void hand_wait(struct service *service, struct export_hand *hand, bool cancel,
        struct instant until)
{
    const struct api_exporter *exporter = service->exporter;

    hand->waiting++;
    while (hand->taken && !service->draining &&
            !instant_reached(clock_monotonic(), until)) {
        struct instant next = until;
        struct timespec due;

        if (cancel && hand->revives && exporter && exporter->cancel) {
            exporter->cancel(exporter->context, &hand->id);
            next = instant_add_ms(clock_monotonic(), CANCEL_MS);
        }
        due = instant_timespec(next.ns < until.ns ? next : until);
        (void)pthread_cond_timedwait(
                &service->claims_free, &service->claims_lock, &due);
    }
    hand->waiting--;
}

/* -- calls ------------------------------------------------------------------------------------ */

static void hand_refuse(struct call *call, bool memory)
{
    if (!memory) {
        outcome_fail(call->outcome, API_INTERNAL, -1, "out of memory");
        return;
    }
    outcome_fail(call->outcome, API_OVERLOADED, -1,
            "The export is in other hands: another call changes it, or its element is "
            "being opened. Ask again");
    call->outcome->retry_after = RETRY_AFTER_S;
}

bool export_hand_take(struct call *call, const struct uuid *id, bool cancel)
{
    struct service *service = call->service;
    struct instant until = instant_add_ms(clock_monotonic(), PATIENCE_MS);
    struct export_hand *hand;
    bool idle = false;

    pthread_mutex_lock(&service->claims_lock);
    hand = hand_make(service, id);
    if (hand) {
        hand_wait(service, hand, cancel, until);
        idle = !hand->taken;
    }
    if (idle)
        hand_close(hand, false);
    pthread_mutex_unlock(&service->claims_lock);
    if (!idle)
        hand_refuse(call, hand != NULL);
    return idle;
}

void export_hand_give(struct service *service, const struct uuid *id)
{
    struct export_hand **at;

    pthread_mutex_lock(&service->claims_lock);
    at = hand_find(service, id);
    (*at)->taken = false;
    if ((*at)->waiting == 0)
        hand_free(at);
    pthread_cond_broadcast(&service->claims_free);
    pthread_mutex_unlock(&service->claims_lock);
}

/* -- the revival ------------------------------------------------------------------------------- */

bool export_hand_try(struct service *service, const struct uuid *id)
{
    struct export_hand *hand;
    bool idle;

    pthread_mutex_lock(&service->claims_lock);
    hand = hand_make(service, id);
    idle = hand && !hand->taken && hand->waiting == 0 &&
            instant_reached(clock_monotonic(), hand->due);
    if (idle)
        hand_close(hand, true);
    pthread_mutex_unlock(&service->claims_lock);
    return idle;
}

void export_hand_rest(struct service *service, const struct uuid *id)
{
    struct instant now = clock_monotonic();
    struct export_hand *hand;
    uint64_t took;

    pthread_mutex_lock(&service->claims_lock);
    hand = *hand_find(service, id);
    took = instant_ms_until(hand->since, now);
    hand->taken = false;
    hand->due = instant_add_ms(now, took < LONG_MS ? 0 : REST * took);
    pthread_cond_broadcast(&service->claims_free);
    pthread_mutex_unlock(&service->claims_lock);
}

void export_hands_free(struct service *service)
{
    while (service->export_hands)
        hand_free(&service->export_hands);
}

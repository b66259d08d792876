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
    struct instant since; /* taken */
    struct instant due; /* not taken: the revival waits until then */
};

static struct timespec timespec_of(struct instant until)
{
    return (struct timespec){ .tv_sec = (time_t)(until.ns / 1000000000u),
        .tv_nsec = (long)(until.ns % 1000000000u) };
}

/* -- under claims_lock ----------------------------------------------------------------------- */

static struct export_hand **hand_find(struct service *service, const struct uuid *id)
{
    struct export_hand **at = &service->export_hands;

    while (*at && !uuid_equal(&(*at)->id, id))
        at = &(*at)->next;
    return at;
}

/** Nobody has it. False: no memory. */
static bool hand_make(struct service *service, const struct uuid *id, bool revives)
{
    struct export_hand *hand = *hand_find(service, id);

    if (!hand) {
        hand = calloc(1, sizeof(*hand));
        if (!hand)
            return false;
        hand->id = *id;
        hand->next = service->export_hands;
        service->export_hands = hand;
    }
    hand->taken = true;
    hand->revives = revives;
    hand->since = clock_monotonic();
    return true;
}

static void hand_free(struct export_hand **at)
{
    struct export_hand *hand = *at;

    *at = hand->next;
    free(hand);
}

/** Until nobody has it, or @until. True: nobody has. */
static bool hand_wait(struct service *service, const struct uuid *id, bool cancel,
        struct instant until)
{
    const struct api_exporter *exporter = service->exporter;
    const struct export_hand *hand;

    while ((hand = *hand_find(service, id)) && hand->taken && !service->draining &&
            !instant_reached(clock_monotonic(), until)) {
        struct instant next = until;
        struct timespec due;

        if (cancel && hand->revives && exporter && exporter->cancel) {
            exporter->cancel(exporter->context, id);
            next = instant_add_ms(clock_monotonic(), CANCEL_MS);
        }
        due = timespec_of(next.ns < until.ns ? next : until);
        (void)pthread_cond_timedwait(
                &service->claims_free, &service->claims_lock, &due);
    }
    return !hand || !hand->taken;
}

/* -- calls ------------------------------------------------------------------------------------ */

bool export_hand_take(struct call *call, const struct uuid *id, bool cancel)
{
    struct service *service = call->service;
    bool alone, made;

    pthread_mutex_lock(&service->claims_lock);
    alone = hand_wait(
            service, id, cancel, instant_add_ms(clock_monotonic(), PATIENCE_MS));
    made = alone && hand_make(service, id, false);
    pthread_mutex_unlock(&service->claims_lock);
    if (made)
        return true;
    outcome_fail(call->outcome, alone ? API_INTERNAL : API_OVERLOADED, -1,
            alone ? "out of memory"
                  : "The export is in other hands: another call changes it, or its "
                    "element is being opened. Ask again");
    if (!alone)
        call->outcome->retry_after = RETRY_AFTER_S;
    return false;
}

void export_hand_give(struct service *service, const struct uuid *id)
{
    pthread_mutex_lock(&service->claims_lock);
    hand_free(hand_find(service, id));
    pthread_cond_broadcast(&service->claims_free);
    pthread_mutex_unlock(&service->claims_lock);
}

/* -- the revival ------------------------------------------------------------------------------- */

bool export_hand_try(struct service *service, const struct uuid *id)
{
    const struct export_hand *hand;
    bool taken = false;

    pthread_mutex_lock(&service->claims_lock);
    hand = *hand_find(service, id);
    if (!hand || (!hand->taken && instant_reached(clock_monotonic(), hand->due)))
        taken = hand_make(service, id, true);
    pthread_mutex_unlock(&service->claims_lock);
    return taken;
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

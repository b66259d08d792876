/* Who stands against what: pairs and jobs over the same bytes.
 *
 * Asked twice by every call that makes a pair: on a reader before the engine's steps, so
 * that a caller is refused before anything is opened, and again in the turn that promises.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/service.h"

enum { PAGE = 32 };

struct claims {
    struct call *call;
    struct store_reader *reader;
    const struct uuid *but;
    /** Does this pair, whose target (else source) overlaps, stand against it? */
    bool (*against)(
            struct claims *claims, const struct store_replica *pair, bool target);
    const char *what, *pointer;
    bool refused;
};

bool element_overlap(const struct store_element *a, const struct store_element *b)
{
    const struct uuid *root_a = uuid_is_none(&a->of) ? &a->id : &a->of;
    const struct uuid *root_b = uuid_is_none(&b->of) ? &b->id : &b->of;

    if (!uuid_equal(root_a, root_b))
        return false;
    if (uuid_is_none(&a->of) || uuid_is_none(&b->of))
        return true;
    return a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

static void claims_refuse(struct claims *claims, const struct store_replica *pair)
{
    struct api_outcome *outcome = claims->call->outcome;

    if (!claims->refused) {
        outcome_fail(outcome, API_IN_USE, CIM_IN_USE, "%s", claims->what);
        outcome_pointer(outcome, claims->pointer, claims->what);
        outcome_remedy(outcome, "DELETE /replicas/%s", pair->id.text);
    }
    claims->refused = true;
    outcome_holder_of(outcome, "replicas", &pair->id);
    if (!uuid_is_none(&pair->job))
        outcome_holder_of(outcome, "jobs", &pair->job);
}

static void claims_pair(
        struct claims *claims, const struct store_replica *pair, bool target)
{
    if (claims->but && uuid_equal(&pair->id, claims->but))
        return;
    if (claims->against(claims, pair, target))
        claims_refuse(claims, pair);
}

static bool claims_source_row(void *context, const void *row)
{
    claims_pair(context, row, false);
    return true;
}

static bool claims_element(void *context, const struct store_element *element)
{
    struct claims *claims = context;
    struct store_replica pair;
    struct store_query query = { .table = STORE_REPLICA,
        .filter_count = 1,
        .filters = { { .column = REPLICA_SOURCE,
                .count = 1,
                .texts = { element->id.text } } },
        .limit = 1000 };

    if (store_get(claims->reader, STORE_REPLICA, element->id.text, &pair) == 0)
        claims_pair(claims, &pair, true);
    (void)store_list(claims->reader, &query, claims_source_row, claims);
    return true;
}

static bool claims_look(struct claims *claims, const struct store_element *element)
{
    element_overlaps(claims->reader, element, claims_element, claims);
    return !claims->refused;
}

static bool against_any(
        struct claims *claims, const struct store_replica *pair, bool target)
{
    (void)claims;
    (void)pair;
    (void)target;
    return true;
}

bool claims_target(struct call *call, struct store_reader *reader,
        const struct store_element *element, const struct uuid *but)
{
    struct claims claims = { .call = call,
        .reader = reader,
        .but = but,
        .against = against_any,
        .what = "the target, or something that shares its bytes, is in a pair already",
        .pointer = "/TargetElement" };

    return claims_look(&claims, element) &&
            claims_export(call, reader, element, "/TargetElement");
}

/** Is the pair's target being written, or its source restored? */
static bool against_source(
        struct claims *claims, const struct store_replica *pair, bool target)
{
    if (!target)
        return pair->sync_state == CIM_SYNC_RESTORE_IN_PROGRESS;
    return pair->sync_state != CIM_SYNC_RESTORE_IN_PROGRESS &&
            !uuid_is_none(&pair->job) && !replica_is_verified(claims->reader, pair);
}

/* -- a source that is not whole ------------------------------------------------------------ */

struct lack {
    struct store_reader *reader;
    struct store_element element; /* where it lacks, "" in its id: nowhere */
    struct store_replica pair; /* that can bring it back, "" in its id: none */
    bool restores; /* as it is */
};

static bool lack_element(void *context, const struct store_element *other)
{
    struct lack *lack = context;

    if (!other->complete)
        lack->element = *other;
    return other->complete;
}

/** One whose replica is whole; the best is one that may restore from it at once. */
static bool lack_pair(void *context, const void *row)
{
    struct lack *lack = context;
    const struct store_replica *pair = row;
    struct store_element target;

    if (store_get(lack->reader, STORE_ELEMENT, pair->id.text, &target) != 0 ||
            !target.complete || !uuid_is_none(&pair->job))
        return true;
    lack->pair = *pair;
    lack->restores = cim_legality_of(CIM_OP_RESTORE, pair->copy_type, pair->sync_state)
                             .legality == CIM_LEGAL;
    return !lack->restores;
}

void restore_back(struct store_reader *reader, const struct uuid *source,
        const struct uuid *target, char text[REMEDY])
{
    struct store_element from, to;
    char part[200] = "", whole[80];
    int type;

    *text = '\0';
    if (store_get(reader, STORE_ELEMENT, target->text, &from) != 0 ||
            store_get(reader, STORE_ELEMENT, source->text, &to) != 0)
        return;
    (void)snprintf(whole, sizeof(whole), "\"/elements/%s\"", from.id.text);
    if (from.size > to.size) { /* its beginning is what was restored */
        (void)snprintf(part, sizeof(part),
                "POST /elements {\"Type\":\"StorageExtent\",\"Of\":\"/elements/%s\","
                "\"Offset\":%llu,\"Size\":%llu}, then ",
                uuid_is_none(&from.of) ? from.id.text : from.of.text,
                (unsigned long long)from.offset, (unsigned long long)to.size);
        (void)snprintf(whole, sizeof(whole), "its Self");
    }
    type = to.remote ? CIM_COPY_ASYNC : CIM_COPY_UNSYNC_UNASSOC;
    (void)snprintf(text, REMEDY,
            "DELETE /replicas/%s, then %sPOST /replicas/%s/attach "
            "{\"SourceElement\":%s,\"CopyType\":%d}",
            target->text, part, source->text, whole, type);
}

static void lack_remedy(struct lack *lack, struct api_outcome *outcome)
{
    const char *id = lack->element.id.text;
    struct store_query query = { .table = STORE_REPLICA,
        .filter_count = 1,
        .filters = { { .column = REPLICA_SOURCE, .count = 1, .texts = { id } } },
        .limit = 1000 };
    struct store_replica pair;
    char text[REMEDY];

    if (store_get(lack->reader, STORE_REPLICA, id, &pair) == 0) {
        outcome_remedy(
                outcome, "POST /replicas/%s/modify {\"Operation\":\"Resync\"}", id);
        return;
    }
    (void)store_list(lack->reader, &query, lack_pair, lack);
    if (lack->restores) {
        outcome_remedy(outcome, "POST /replicas/%s/modify {\"Operation\":\"Restore\"}",
                lack->pair.id.text);
    } else if (!uuid_is_none(&lack->pair.id)) {
        restore_back(lack->reader, &lack->element.id, &lack->pair.id, text);
        outcome_remedy(outcome, "%s", text);
    } else {
        outcome_remedy(outcome,
                "POST /replicas/%s/attach with a SourceElement that is whole", id);
    }
}

bool claims_source(struct call *call, struct store_reader *reader,
        const struct store_element *element, const struct uuid *but)
{
    struct claims claims = { .call = call,
        .reader = reader,
        .but = but,
        .against = against_source,
        .what = "the source is being written by a job",
        .pointer = "/SourceElement" };
    struct lack lack = { .reader = reader };

    if (!claims_look(&claims, element))
        return false;
    element_overlaps(reader, element, lack_element, &lack);
    if (uuid_is_none(&lack.element.id))
        return true;
    outcome_fail(call->outcome, API_IN_USE, CIM_IN_USE,
            "the source is not Complete: a copy or a Restore onto it has still to come "
            "to its end");
    outcome_pointer(call->outcome, "/SourceElement", "not Complete");
    outcome_holder_of(call->outcome, "elements", &lack.element.id);
    lack_remedy(&lack, call->outcome);
    return false;
}

/* -- what is restored, what is served ------------------------------------------------------ */

/** Another pair's target; a source that a job reads, or that is held. */
static bool against_restore(
        struct claims *claims, const struct store_replica *pair, bool target)
{
    (void)claims;
    return target || !uuid_is_none(&pair->job) || pair->sync_state == CIM_SYNC_PREPARED;
}

bool claims_restore(struct call *call, struct store_reader *reader,
        const struct store_element *element, const struct uuid *but)
{
    struct claims claims = { .call = call,
        .reader = reader,
        .but = but,
        .against = against_restore,
        .what = "what would be restored is in use by another pair",
        .pointer = "/Operation" };

    return claims_look(&claims, element) &&
            claims_export(call, reader, element, "/Operation");
}

/** Another pair's target; a source that is being restored. */
static bool against_served(
        struct claims *claims, const struct store_replica *pair, bool target)
{
    (void)claims;
    return target || pair->sync_state == CIM_SYNC_RESTORE_IN_PROGRESS;
}

bool claims_served(struct call *call, struct store_reader *reader,
        const struct store_element *element)
{
    struct claims claims = { .call = call,
        .reader = reader,
        .against = against_served,
        .what = "what would be exported read-write is written by a pair",
        .pointer = "/ReadOnly" };

    return claims_look(&claims, element);
}

/* -- bytes that nothing may start to write ----------------------------------------------------- */

/** Under the lock. @shared: those that are held count, too. */
static bool claim_find(struct service *service, const struct uuid *root, bool shared)
{
    for (struct claim *claim = service->claims; claim; claim = claim->next)
        if (uuid_equal(&claim->root, root) && (shared || !claim->shared))
            return true;
    return false;
}

/** Under the lock. */
static void claim_add(struct service *service, struct claim *claim)
{
    claim->taken = true;
    claim->next = service->claims;
    service->claims = claim;
}

static struct uuid claim_root(const struct store_element *element)
{
    return uuid_is_none(&element->of) ? element->id : element->of;
}

bool claim_is_taken(struct service *service, const struct uuid *root)
{
    bool taken;

    pthread_mutex_lock(&service->claims_lock);
    taken = claim_find(service, root, true);
    pthread_mutex_unlock(&service->claims_lock);
    return taken;
}

bool claim_take(
        struct call *call, struct claim *claim, const struct store_element *element)
{
    struct service *service = call->service;
    const struct api_options *options = &service->options;
    /* As long as a probe may take. */
    struct timespec due = deadline_in(
            options->connect_timeout_ms + 3 * (uint64_t)options->io_timeout_ms);
    int result = 0;

    claim->root = claim_root(element);
    pthread_mutex_lock(&service->claims_lock);
    while (claim_find(service, &claim->root, false) && result != ETIMEDOUT &&
            !service->draining)
        result = pthread_cond_timedwait(
                &service->claims_free, &service->claims_lock, &due);
    if (!claim_find(service, &claim->root, false))
        claim_add(service, claim);
    pthread_mutex_unlock(&service->claims_lock);
    if (claim->taken)
        return true;
    outcome_fail(call->outcome, API_IN_USE, CIM_IN_USE,
            "another call is probing the target as its own");
    outcome_pointer(call->outcome, "/TargetElement", "try again");
    return false;
}

void claim_hold(struct service *service, struct claim *claim,
        const struct store_element *element)
{
    claim->root = claim_root(element);
    claim->shared = true;
    pthread_mutex_lock(&service->claims_lock);
    claim_add(service, claim);
    pthread_mutex_unlock(&service->claims_lock);
}

void claim_drop(struct service *service, struct claim *claim)
{
    struct claim **at;

    if (!claim->taken)
        return;
    claim->taken = false;
    pthread_mutex_lock(&service->claims_lock);
    for (at = &service->claims; *at != claim; at = &(*at)->next)
        ;
    *at = claim->next;
    pthread_cond_broadcast(&service->claims_free);
    pthread_mutex_unlock(&service->claims_lock);
    clerk_wake_at(service->clerk, 1); /* what waited for it may start */
}

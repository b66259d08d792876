/* api/keys.c - idempotency keys: the outcome of an answer 0 or 4096 is kept a day, in
 * the transaction of the change, and given again to who asks again.
 *
 * A key belongs to the call and the path it was used on. While its first call runs it
 * is in a list in memory; the row is looked for only after the key is in the list, so
 * that the second of two callers finds either the first one under way or its row.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/resource.h"
#include "replica/base/digest.h"
#include "replica/base/scope.h"

enum { KEY_MAX = 255, ID_MAX = 64, READER_MS = 5000, FINGERPRINT = 65 };

static const int64_t day_ms = 24 * 3600 * 1000;

/** A key under way. */
struct key {
    struct key *next;
    char scope[STORE_ADDRESS];
    char fingerprint[FINGERPRINT];
};

struct keys {
    pthread_mutex_t lock;
    struct key *first; /* under lock; few */
};

static const char *const call_names[] = {
#define CALL(symbol, method, kind) #symbol,
#include "api/calls.tbl.h"
#undef CALL
};

static const char *const verdict_names[] = {
#define VERDICT(symbol, slug, title) #symbol,
#include "api/verdicts.tbl.h"
#undef VERDICT
};

struct keys *keys_create(void)
{
    struct keys *keys = calloc(1, sizeof(*keys));

    if (keys)
        pthread_mutex_init(&keys->lock, NULL);
    return keys;
}

void keys_destroy(struct keys *keys)
{
    if (!keys)
        return;
    pthread_mutex_destroy(&keys->lock);
    free(keys);
}

static bool key_is_legal(const char *text)
{
    size_t length = strlen(text);

    for (const char *at = text; *at; at++)
        if (*at < ' ' || *at > '~')
            return false;
    return length >= 1 && length <= KEY_MAX;
}

static void fingerprint(const struct api_request *request, char text[FINGERPRINT])
{
    scoped_free char *canonical = body_canonical(request->body, request->length);
    uint8_t digest[32];

    if (canonical)
        digest_sha256(canonical, strlen(canonical), digest);
    else
        digest_sha256(request->body ? request->body : "",
                request->body ? request->length : 0, digest);
    for (unsigned i = 0; i < sizeof(digest); i++)
        (void)snprintf(text + 2 * (size_t)i, 3, "%02x", digest[i]);
}

static struct key *key_make(const struct api_request *request)
{
    struct key *key = calloc(1, sizeof(*key));

    if (!key)
        return NULL;
    (void)snprintf(key->scope, sizeof(key->scope), "%s %s %s",
            call_names[request->call], request->id ? request->id : "-",
            request->idempotency_key);
    fingerprint(request, key->fingerprint);
    return key;
}

/** Take the key for this call; false: another call has it. */
static bool key_enter(struct keys *keys, struct key *key)
{
    struct key *other;

    pthread_mutex_lock(&keys->lock);
    for (other = keys->first; other; other = other->next)
        if (strcmp(other->scope, key->scope) == 0)
            break;
    if (!other) {
        key->next = keys->first;
        keys->first = key;
    }
    pthread_mutex_unlock(&keys->lock);
    return !other;
}

static void key_leave(struct keys *keys, struct key *key)
{
    struct key **at;

    pthread_mutex_lock(&keys->lock);
    for (at = &keys->first; *at; at = &(*at)->next)
        if (*at == key) {
            *at = key->next;
            break;
        }
    pthread_mutex_unlock(&keys->lock);
}

/* -- the outcome as text: four lines, then the body -------------------------------- */

static char *outcome_text(const struct api_outcome *outcome)
{
    char *text = NULL;

    if (asprintf(&text, "%s %d %u\n%s\n%s\n%s", verdict_names[outcome->verdict],
                outcome->return_value, outcome->retry_after, outcome->location,
                outcome->etag, outcome->body ? outcome->body : "") < 0)
        return NULL;
    return text;
}

static bool verdict_of(const char *name, enum api_verdict *verdict)
{
    for (unsigned i = 0; i < API_VERDICT_COUNT; i++)
        if (strcmp(verdict_names[i], name) == 0) {
            *verdict = (enum api_verdict)i;
            return true;
        }
    return false;
}

/** Next line of @*text into @line; false: there is none, or it is too long. */
static bool line_take(const char **text, char *line, size_t room)
{
    const char *end = strchr(*text, '\n');

    if (!end || (size_t)(end - *text) >= room)
        return false;
    memcpy(line, *text, (size_t)(end - *text));
    line[end - *text] = '\0';
    *text = end + 1;
    return true;
}

static bool outcome_from_text(struct api_outcome *outcome, const char *text)
{
    char head[80], verdict[40];
    int value;
    unsigned retry;

    if (!line_take(&text, head, sizeof(head)) ||
            sscanf(head, "%39s %d %u", verdict, &value, &retry) != 3 ||
            !verdict_of(verdict, &outcome->verdict) ||
            !line_take(&text, outcome->location, sizeof(outcome->location)) ||
            !line_take(&text, outcome->etag, sizeof(outcome->etag)))
        return false;
    outcome->return_value = value;
    outcome->retry_after = retry;
    outcome->replayed = true;
    if (*text) {
        outcome->body = strdup(text);
        outcome->length = strlen(text);
    }
    return *text == '\0' || outcome->body;
}

/* -- a call ------------------------------------------------------------------------ */

/** True: go on, the key is new. */
static bool key_look(struct call *call, const struct key *key)
{
    struct store_reader *reader = store_reader_take(call->service->store, READER_MS);
    struct store_key row;
    bool fresh = false;
    int result;

    if (!reader) {
        outcome_fail(call->outcome, API_OVERLOADED, -1,
                "too many calls read at once: try again");
        return false;
    }
    result = store_get(reader, STORE_KEY, key->scope, &row);
    if (result == -ENOENT || (result == 0 && row.time <= clock_wall_ms() - day_ms))
        fresh = true;
    else if (result != 0)
        outcome_fail(call->outcome, API_INTERNAL, -1, "the database could not be read");
    else if (strcmp(row.fingerprint, key->fingerprint) != 0)
        outcome_fail(call->outcome, API_KEY_REUSED, -1,
                "the Idempotency-Key was used with another body");
    else if (!outcome_from_text(call->outcome, row.outcome))
        outcome_fail(
                call->outcome, API_INTERNAL, -1, "the first answer cannot be read");
    store_reader_give(call->service->store, reader);
    return fresh;
}

bool keys_begin(struct call *call)
{
    const struct api_request *request = call->request;
    struct key *key;

    call->key = NULL;
    if (!request->idempotency_key || (request->id && strlen(request->id) > ID_MAX))
        return true; /* such an id names nothing: no answer that could be kept */
    if (!key_is_legal(request->idempotency_key)) {
        outcome_fail(call->outcome, API_MALFORMED, -1,
                "an Idempotency-Key has 1 to %d printable characters", KEY_MAX);
        return false;
    }
    if (!(key = key_make(request))) {
        outcome_fail(call->outcome, API_OVERLOADED, -1, "out of memory");
        return false;
    }
    if (!key_enter(call->service->keys, key)) {
        free(key);
        outcome_fail(call->outcome, API_KEY_BUSY, -1,
                "the first call with this Idempotency-Key is still under way");
        return false;
    }
    call->key = key;
    if (key_look(call, key))
        return true;
    keys_end(call);
    return false;
}

static bool is_kept(const struct api_outcome *outcome)
{
    return outcome->verdict == API_DONE || outcome->verdict == API_MADE ||
            outcome->verdict == API_STARTED || outcome->verdict == API_GONE;
}

void keys_put(struct call *call, struct clerk_turn *turn)
{
    scoped_free char *text = NULL;
    struct store_key row = { .time = turn->now };

    if (!call->key || !is_kept(call->outcome))
        return;
    if (!(text = outcome_text(call->outcome))) {
        turn->error = turn->error ? turn->error : -ENOMEM;
        return;
    }
    memcpy(row.key, call->key->scope, sizeof(row.key));
    memcpy(row.fingerprint, call->key->fingerprint, sizeof(call->key->fingerprint));
    row.outcome = text;
    turn_put(turn, STORE_KEY, &row);
}

void keys_end(struct call *call)
{
    if (!call->key)
        return;
    key_leave(call->service->keys, call->key);
    free(call->key);
    call->key = NULL;
}

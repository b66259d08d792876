/* tests/server/http/fake_service.h - api/api.h with outcomes by script, no store, no engine.
 *
 * Each call answers what fake_answer() said last; what it was asked is kept for fake_seen().
 * Any thread. In a process of its own ($REPLICAD_FAKE_STUCK set) each call is held for a
 * minute, whatever the service is told.
 */
#ifndef TESTS_SERVER_HTTP_FAKE_SERVICE_H
#define TESTS_SERVER_HTTP_FAKE_SERVICE_H

#include "api/api.h"

struct fake_answer {
    struct api_outcome outcome; /* without body and problem */
    const char *body; /* literal; NULL: none, and a problem for an error */
    bool hold; /* api_serve() waits until drain or fake_release() */
};

/** What api_serve() was asked last. Texts are "" where the member was NULL. */
struct fake_seen {
    unsigned calls;
    enum api_call call;
    char id[128], body[256], if_match[64], if_none_match[64], key[256], caller[64],
            request_id[80], query[512]; /* "a=1&b=2", decoded */
    size_t length;
    bool has_body, has_key;
    int prefer_wait_s;
};

struct service *fake_create(void);
void fake_answer(struct service *service, const struct fake_answer *answer);
struct fake_seen fake_seen(struct service *service);

/** Let held calls go on. */
void fake_release(struct service *service);
/** Wait until @count calls are held at once, 30 s at most. False: they are not. */
bool fake_await_held(struct service *service, unsigned count);

/** Add an event; texts are literals. Its number is one more than the last. */
void fake_event(
        struct service *service, const char *kind, const char *type, const char *data);
/** Events up to @number cannot be replayed any more. */
void fake_forget(struct service *service, int64_t number);

/** The check @name of api_live() ("clerk", "loops"), api_ready() ("store", "loops",
    "draining"), or both. */
void fake_health(struct service *service, const char *name, bool ok);

#endif

/* tests/server/http/rig.h - listeners over the fake service, on ports they picked. */
#ifndef TESTS_SERVER_HTTP_RIG_H
#define TESTS_SERVER_HTTP_RIG_H

#include "server/http/http.h"
#include "tests/server/http/fake_service.h"
#include "tests/support/http.h"

struct rig {
    struct service *service;
    struct http *http;
    const char *address, *health; /* borrowed of @http */
};

/** @options: what differs from the default; the addresses are filled in. Ends the process
    when it cannot start. */
struct rig rig_start(struct http_options options);

/** As the daemon does: drain, quiesce, stop, destroy. */
void rig_stop(struct rig *rig);

/** A request of bytes as they are; the first @room - 1 bytes of what comes back until the
    peer closes or @ms are over. *@ended: it closed. Returns the first status, 0 none. */
int rig_raw(const struct rig *rig, const char *bytes, size_t length, int ms, char *text,
        size_t room, bool *ended);

#endif

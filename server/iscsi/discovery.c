/* Discovery sessions: those who only ask which targets there are.
 *
 * Anybody may, and what anybody may must take nothing from those who work: they have a pool of
 * their own, in which a newcomer always finds a place. When it is full, the one that has been
 * silent longest goes, of the newcomer's own address when that one has its share already: an
 * answer takes no longer than asking, and who has it needs no session. A life is four times
 * what a target waits for a silent peer, a minute. All of them stay on the first loop. */
#include "server/iscsi/discovery.h"

#include <string.h>

#include "replica/base/scope.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

enum {
    DISCOVERIES_MAX = 16, /* when there are more, the oldest end */
    DISCOVERIES_ADDRESS_MAX = 4
};

static bool is_discovery(const struct connection *connection)
{
    return connection->state != CONNECTION_CLOSED && connection->session &&
            !connection->session->export;
}

/* The list has the newest first: of two that are silent as long, the older one. */
static void silent_longest(struct connection **longest, struct connection *other)
{
    if (!*longest || instant_reached((*longest)->heard, other->heard))
        *longest = other;
}

void discovery_make_room(const struct connection *newcomer)
{
    struct connection *other = newcomer->hall->connections;
    struct connection *silent = NULL, *silent_near = NULL;
    unsigned all = 0, near = 0;

    for (; other; other = other->next) {
        if (!is_discovery(other))
            continue;
        all++;
        silent_longest(&silent, other);
        if (strcmp(other->host, newcomer->host) != 0)
            continue;
        near++;
        silent_longest(&silent_near, other);
    }
    if (near >= DISCOVERIES_ADDRESS_MAX)
        silent = silent_near;
    else if (all < DISCOVERIES_MAX)
        return;
    connection_drop(silent, "its place is for a newer discovery");
}

void discovery_tick(struct connection *connection, struct instant now)
{
    const struct session *session = connection->session;
    uint64_t most = 4 * (uint64_t)connection->target->ping_ms;

    if (!session->export && instant_ms_until(session->began, now) >= most)
        connection_drop(connection, "a discovery is over in a minute");
}

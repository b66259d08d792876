/* What a pair waits for, as its LastError.
 *
 * A device that is away has a minute to come back before the scan or the job has failed.
 * From the first lost session or refused opening on LastError says that it is waited for,
 * while SyncState is what it was, and no longer than it is. What is said there for good, why
 * the pair is broken or what a verify has found, is not written over.
 */
#include <stdio.h>
#include <string.h>

#include "api/service.h"

/** LastError begins so while somebody waits, and nothing else that is said there. */
static const char waits[] = "waiting";

static bool replica_waits(const struct store_replica *replica)
{
    return strncmp(replica->last_error, waits, sizeof(waits) - 1) == 0;
}

bool replica_hush(struct store_replica *replica)
{
    if (!replica_waits(replica))
        return false;
    replica->last_error[0] = '\0';
    return true;
}

static void replica_say(struct store_replica *replica, const struct engine_event *event)
{
    size_t room = sizeof(replica->last_error);

    if (replica->last_error[0] && !replica_waits(replica))
        return;
    if (event->kind == ENGINE_WAITING)
        (void)snprintf(replica->last_error, room, "%s for the %s: %s", waits,
                event->on_target ? "target" : "source", event->fault.why);
    else
        (void)snprintf(replica->last_error, room, "%s: %s", waits, event->stall);
}

/** One that shall stand still is not waited for. */
static bool replica_moves(const struct store_replica *replica)
{
    return replica->sync_state != CIM_SYNC_BROKEN &&
            replica->sync_state != CIM_SYNC_QUIESCE_IN_PROGRESS &&
            replica->sync_state != CIM_SYNC_FRACTURE_IN_PROGRESS;
}

void replica_told(struct clerk_turn *turn, const struct uuid *id,
        const struct engine_event *event)
{
    struct store_replica replica;
    char before[STORE_SENTENCE];

    if (!turn_get(turn, STORE_REPLICA, id->text, &replica) || !replica_moves(&replica))
        return;
    memcpy(before, replica.last_error, sizeof(before));
    if (event->kind == ENGINE_WAITING || event->stall[0])
        replica_say(&replica, event);
    else
        (void)replica_hush(&replica);
    if (strcmp(before, replica.last_error) != 0) /* each attempt says the same again */
        replica_put(turn, &replica, false);
}

/* Who is in: the sessions of all exports, and how many of them there may be.
 *
 * Every export is a target of its own, so a host with forty disks on two paths has eighty
 * sessions: what is few is the paths of one name to one target. The other limits are for the
 * others' sake: a target's, a name's, and all. A session costs 120 KiB at most (half of that
 * when it is idle) and a descriptor, its data the halls' buffers: SESSIONS_MAX of them 120 MiB.
 * Those who only ask what there is are not here: discovery.c. */
#include "server/iscsi/roster.h"

#include <stdio.h>
#include <string.h>

#include "replica/base/scope.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/entry.h"
#include "server/iscsi/export.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

enum {
    SESSIONS_TARGET_MAX = 16,
    SESSIONS_INITIATOR_MAX = 256, /* of a name on all targets: 64 disks by four paths */
    SESSIONS_PATHS_MAX = 4 /* of a name on one */
};

static bool tsih_used(const struct iscsi_target *target, uint16_t tsih)
{
    for (unsigned i = 0; i < ROSTER; i++)
        if (target->roster[i].taken && target->roster[i].tsih == tsih)
            return true;
    return false;
}

uint16_t roster_tsih(struct iscsi_target *target)
{
    pthread_mutex_lock(&target->lock);
    do
        target->last_tsih++;
    while (target->last_tsih == 0 || tsih_used(target, target->last_tsih));
    pthread_mutex_unlock(&target->lock);
    return target->last_tsih;
}

/* -- a place ------------------------------------------------------------------------------- */

struct census {
    struct roster_entry *place; /* NULL: none */
    unsigned all, of_target, of_name, of_both;
};

/* One that replaces an older session of its own takes that one's place. */
static void census_take(struct census *census, const struct session *session)
{
    struct iscsi_target *target = session->connection->target;
    const struct login_result *who = &session->terms;

    for (unsigned i = 0; i < ROSTER; i++) {
        struct roster_entry *entry = &target->roster[i];
        bool same_target = entry->export == session->export, same_name;

        if (!entry->taken) {
            census->place = entry;
            continue;
        }
        same_name = strcmp(entry->initiator, who->initiator) == 0;
        if (same_target && same_name &&
                memcmp(entry->isid, who->isid, sizeof entry->isid) == 0)
            continue;
        census->all++;
        census->of_target += same_target;
        census->of_name += same_name;
        census->of_both += same_target && same_name;
    }
    if (!census->place)
        census->all = SESSIONS_MAX;
}

static bool is_full(unsigned count, unsigned most, const char *of, char why[80])
{
    if (count >= most)
        (void)snprintf(why, 80, "%u sessions %s are all there may be", most, of);
    return count >= most;
}

bool roster_enter(struct session *session, char why[80])
{
    const struct login_result *who = &session->terms;
    struct census census = { 0 };
    struct roster_entry *entry;

    census_take(&census, session);
    if (is_full(census.of_both, SESSIONS_PATHS_MAX, "of its name on this target",
                why) ||
            is_full(census.of_target, SESSIONS_TARGET_MAX, "on this target", why) ||
            is_full(census.of_name, SESSIONS_INITIATOR_MAX, "of its name", why) ||
            is_full(census.all, SESSIONS_MAX, "in all", why))
        return false;
    entry = census.place;
    entry->taken = true;
    entry->tsih = session->connection->entry->tsih;
    entry->export = session->export;
    memcpy(entry->initiator, who->initiator, sizeof entry->initiator);
    entry->proven = who->user[0];
    memcpy(entry->address, session->connection->address, sizeof entry->address);
    memcpy(entry->isid, who->isid, sizeof entry->isid);
    entry->since_ms = clock_wall_ms();
    atomic_store_explicit(&entry->read_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->written_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->queued, 0, memory_order_relaxed);
    session->entry = entry;
    session->export->sessions++;
    return true;
}

void roster_leave(struct session *session)
{
    struct iscsi_target *target = session->connection->target;

    if (!session->entry)
        return;
    pthread_mutex_lock(&target->lock);
    session->entry->taken = false;
    session->export->sessions--;
    pthread_cond_broadcast(&target->changed);
    pthread_mutex_unlock(&target->lock);
    session->entry = NULL;
}

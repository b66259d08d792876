/* server/iscsi/target_inside.h - the target itself, for the files that make it up.
 *
 * Who owns what: its registry (exports, roster) is under its lock, which nobody holds for
 * longer than one walk over the exports or the roster, a few thousand names, and which no
 * command ever takes. "Locked" in the headers beside this one: the caller holds it. Portals
 * and logins are the first loop's, a hall is its loop's.
 */
#ifndef SERVER_ISCSI_TARGET_INSIDE_H
#define SERVER_ISCSI_TARGET_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "replica/loop/loop.h"
#include "server/iscsi/admission.h"
#include "server/iscsi/portal.h"
#include "server/iscsi/roster.h"
#include "server/iscsi/target.h"

struct export;
struct hall;

enum {
    PORTALS_MAX = 16,
    STUCK_MS = 30 * 1000 /* of a PDU, of owed data, of a hole, of our output */
};

struct iscsi_target {
    char prefix[SCSI_NAME_MAX];
    unsigned ping_ms, stuck_ms;
    struct hall *halls;
    size_t hall_count;
    struct portal portals[PORTALS_MAX];
    size_t portal_count;

    /* the first loop's */
    unsigned logins;
    uint16_t last_tsih;
    struct failure failures[FAILURES];
    struct loop_task start;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* an export's state, a hall's end */
    struct export *exports;
    uint64_t exports_made, credentials_made;
    struct roster_entry roster[ROSTER];
    size_t halls_running;
    unsigned grace_ms; /* set before the halls stop */
    bool started;
    int start_result;

    _Atomic unsigned sessions, connections;
    _Atomic uint64_t logins_refused, connections_dropped;
};

/** Locked; for target->changed. False: the deadline passed. */
bool target_wait(struct iscsi_target *target, const struct timespec *deadline);

#endif

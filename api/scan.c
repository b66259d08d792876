/* Async by scanning: source and target are compared and what differs is written, so often
 * that the replica is never older than the objective.
 *
 * A scan that takes as long as the time between two starts still keeps the objective when it
 * starts every half of it. It is no job: SyncState stays 6, WhenSynced is the start of the
 * last whole one. One that fails makes the pair 12 and is tried again with growing
 * pauses, unless CopyRecoveryMode is Manual; a pair in 12 with `scan_due` is one that
 * waits for that. `scan_started` is set while a scan runs: found set at its next start,
 * the process died in between.
 */
#include <stdio.h>
#include <string.h>

#include "api/service.h"
#include "replica/base/log.h"

enum {
    SECOND_MS = 1000,
    RETRY_FIRST_MS = 5 * SECOND_MS,
    RETRY_MAX_MS = 300 * SECOND_MS,
    AFTER_STOP_MS = 5 * SECOND_MS,
    LOOK_AGAIN_MS = 3600 * SECOND_MS /* nothing is due: a put pair tells earlier */
};

int64_t scan_next(const struct store_replica *replica, int64_t now)
{
    int64_t due = replica->when_synced + replica->rpo * SECOND_MS / 2;

    return due > now ? due : now + 1;
}

struct due_pairs {
    struct store_replica list[32];
    unsigned count;
    int64_t now, next;
    struct uuid last;
};

static bool due_take(void *context, const void *row)
{
    struct due_pairs *due = context;
    const struct store_replica *replica = row;

    due->last = replica->id;
    if (!replica->scan_due)
        return true;
    if (replica->scan_due < due->next)
        due->next = replica->scan_due;
    if (replica->scan_due <= due->now)
        due->list[due->count++] = *replica;
    return true;
}

void scan_due(struct clerk_turn *turn, int64_t *next,
        void (*each)(struct clerk_turn *turn, struct store_replica *replica))
{
    struct due_pairs due = { .now = turn->now, .next = turn->now + LOOK_AGAIN_MS };
    struct store_query query = { .table = STORE_REPLICA,
        .filter_count = 2,
        .filters = { { .column = REPLICA_COPY_TYPE,
                             .is_number = true,
                             .count = 1,
                             .numbers = { CIM_COPY_ASYNC } },
                { .column = REPLICA_SYNC_STATE,
                        .is_number = true,
                        .count = 2,
                        .numbers = { CIM_SYNC_SYNCHRONIZED, CIM_SYNC_BROKEN } } },
        .limit = sizeof(due.list) / sizeof(*due.list) };
    int got;

    do {
        due.count = 0;
        got = store_list(turn->reader, &query, due_take, &due);
        if (got < 0 && !turn->error)
            turn->error = got;
        for (unsigned i = 0; i < due.count; i++)
            each(turn, &due.list[i]);
        query.before = due.last.text;
    } while (got == (int)query.limit && !turn->error);
    *next = due.next;
}

void scan_begun(struct clerk_turn *turn, struct store_replica *replica)
{
    replica->scan_started = turn->now;
    replica_put(turn, replica, false);
}

static int64_t scan_retry(const struct store_replica *replica, int64_t now)
{
    int64_t pause;

    if (replica->recovery_mode == CIM_RECOVERY_MANUAL)
        return 0;
    /* The longer it is since the last good one, the longer the pause. */
    pause = (now - replica->when_synced) / 4;
    if (pause < RETRY_FIRST_MS)
        pause = RETRY_FIRST_MS;
    return now + (pause > RETRY_MAX_MS ? RETRY_MAX_MS : pause);
}

static void scan_failed(struct clerk_turn *turn, struct store_replica *replica,
        const struct job_ending *ending)
{
    replica->scan_due = scan_retry(replica, turn->now);
    if (replica->sync_state != CIM_SYNC_BROKEN && job_ending_is_news(ending))
        log_event(LOG_WARN, "scan-failed",
                (struct log_about){ .replica = replica->id.text }, "%s",
                ending->fault.why);
    replica_break(turn, replica, &ending->fault);
}

void scan_ended(
        struct clerk_turn *turn, const struct uuid *id, const struct job_ending *ending)
{
    struct store_replica replica;
    bool stands;

    if (!turn_get(turn, STORE_REPLICA, id->text, &replica))
        return;
    /* Asked to stand still meanwhile, or moved on: what it was is no news. */
    stands = replica.scan_due != 0 &&
            (replica.sync_state == CIM_SYNC_SYNCHRONIZED ||
                    replica.sync_state == CIM_SYNC_BROKEN);
    if (ending->end == ENGINE_DONE && stands) {
        replica.when_synced = replica.scan_started;
        replica.sync_state = CIM_SYNC_SYNCHRONIZED;
        replica.last_error[0] = '\0';
        replica.scan_due = scan_next(&replica, turn->now);
    } else if (ending->end == ENGINE_STOPPED && stands) {
        replica.scan_due = turn->now + AFTER_STOP_MS;
    }
    replica.scan_started = 0;
    (void)replica_hush(&replica);
    if (replica.sync_state == CIM_SYNC_QUIESCE_IN_PROGRESS)
        replica.sync_state = CIM_SYNC_QUIESCED;
    if (replica.sync_state == CIM_SYNC_FRACTURE_IN_PROGRESS)
        replica.sync_state = CIM_SYNC_FRACTURED;
    if (ending->end == ENGINE_FAILED && stands)
        scan_failed(turn, &replica, ending);
    else
        replica_put(turn, &replica, false);
}

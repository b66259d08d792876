/* The turn, the batch, the commit.
 *
 * A note whose change could not be made durable (disk full) stays, in order, and is tried
 * again every RETRY_MS: what a loop told must not be lost, and a call that comes meanwhile is
 * answered with the store's own error.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/clerk_inside.h"
#include "api/service.h"
#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

enum { RETRY_MS = 500 }; /* between tries of notes that the store refused */

/* -- the turn --------------------------------------------------------------------------- */

static void turn_fail(struct clerk_turn *turn, int error)
{
    if (error && !turn->error)
        turn->error = error;
}

static void turn_apply(struct clerk_turn *turn, enum store_verb verb,
        enum store_table table, const void *row)
{
    struct store_change change = { .verb = verb, .table = table, .row = row };

    if (turn->error)
        return;
    turn_fail(turn, store_apply(turn->store, &change, 1));
    turn->rows += !turn->error;
}

void turn_put(struct clerk_turn *turn, enum store_table table, const void *row)
{
    turn_apply(turn, STORE_PUT, table, row);
}

void turn_delete(struct clerk_turn *turn, enum store_table table, const void *row)
{
    turn_apply(turn, STORE_DELETE, table, row);
}

bool turn_get(
        struct clerk_turn *turn, enum store_table table, const char *key, void *row)
{
    int result;

    if (turn->error)
        return false;
    result = store_get(turn->reader, table, key, row);
    if (result && result != -ENOENT)
        turn_fail(turn, result);
    return result == 0;
}

static void touch_add(struct clerk_turn *turn, struct clerk_touch touch)
{
    struct clerk_touched *touched = turn->touched;

    if (touched->count == touched->room) {
        size_t room = touched->room ? 2 * touched->room : 64;
        void *list = realloc(touched->list, room * sizeof(*touched->list));
        if (!list) {
            turn_fail(turn, -ENOMEM);
            return;
        }
        touched->list = list;
        touched->room = room;
    }
    touched->list[touched->count++] = touch;
}

void turn_touch(struct clerk_turn *turn, enum store_table table, const struct uuid *id)
{
    touch_add(turn, (struct clerk_touch){ .table = table, .id = *id });
}

void turn_touch_over(struct clerk_turn *turn, const struct store_job *job)
{
    touch_add(turn,
            (struct clerk_touch){ .table = STORE_JOB,
                    .id = job->id,
                    .over = true,
                    .end = metrics_end_of(job) });
}

/* -- one batch -------------------------------------------------------------------------- */

/** Without a savepoint, whose sub-journal takes a copy of each page that the rows go to. */
static int call_add(struct clerk_turn *turn, struct clerk_call *call, int *broken)
{
    size_t touched = turn->touched->count;
    bool keep;

    turn->error = 0;
    turn->rows = 0;
    keep = call->work(turn, call->context);
    check(keep || turn->error || !turn->rows);
    if (turn->error && turn->rows)
        *broken = turn->error; /* no half of it stays */
    if (turn->error || !keep)
        turn->touched->count = touched;
    return turn->error;
}

/** One item in its savepoint. 0 kept or taken back as it chose; an error that it may have
    alone. *@broken: the transaction itself is lost. */
static int item_run(struct clerk_turn *turn, struct clerk_note *note, int *broken)
{
    struct clerk_call *call = container_of(note, struct clerk_call, note);
    size_t touched = turn->touched->count;
    bool keep;

    if (!note->run && call->adds)
        return call_add(turn, call, broken);
    if ((*broken = store_mark(turn->store)))
        return *broken;
    turn->error = 0;
    keep = note->run ? note->run(turn, note) : call->work(turn, call->context);
    if (turn->error || !keep) {
        turn->touched->count = touched;
        *broken = store_undo(turn->store);
    } else {
        *broken = store_keep(turn->store);
    }
    return turn->error ? turn->error : *broken;
}

static void plan_run(struct clerk_turn *turn, int *broken)
{
    size_t touched = turn->touched->count;

    if ((*broken = store_mark(turn->store)))
        return;
    turn->error = 0;
    scheduler_plan(turn);
    if (!turn->error) {
        *broken = store_keep(turn->store);
        return;
    }
    /* Nothing starts now; what the items changed is still good. */
    turn->touched->count = touched;
    *broken = store_undo(turn->store);
    scheduler_undone(turn->service, false);
    clerk_wake_at(turn->service->clerk, turn->now + RETRY_MS);
}

static void item_result(struct clerk_note *note, int result)
{
    if (!note->run)
        container_of(note, struct clerk_call, note)->result = result;
}

/** Run @list in one transaction. 0 or what befell all of it. */
static int batch_run(struct clerk_batch *batch, struct clerk_note *list, bool schedule)
{
    struct clerk_turn turn = { .service = batch->service,
        .store = batch->store,
        .reader = store_own_reader(batch->store),
        .now = clock_wall_ms(),
        .schedule = schedule,
        .touched = &batch->touched };
    struct clerk_note *note;
    int broken = store_begin(batch->store);

    batch->touched.count = 0;
    if (broken)
        return broken;
    for (note = list; note && !broken; note = note->next) {
        int result = item_run(&turn, note, &broken);
        item_result(note, result);
        if (note->run)
            note->failed = result;
    }
    if (!broken && (turn.schedule || batch->touched.count))
        plan_run(&turn, &broken);
    if (broken)
        store_rollback(batch->store);
    else
        broken = store_commit(batch->store);
    return broken;
}

/** Give back what is done with; what the store refused goes to @late. */
static void batch_notes(struct clerk_batch *batch, struct clerk_note *list, int result)
{
    struct clerk_note **late = &batch->late, *note, *next;

    for (note = list; note; note = next) {
        next = note->next;
        if (result)
            note->failed = result;
        if (note->failed && !note->once) {
            *late = note;
            late = &note->next;
            continue;
        }
        note->done(note, note->failed == 0);
    }
    *late = NULL;
    if (batch->late)
        batch->late_due = instant_add_ms(clock_monotonic(), RETRY_MS);
}

/** Part the list by kind: notes are given back before calls are answered, and either may
    free its own. */
static void list_part(
        struct clerk_note *list, struct clerk_note **notes, struct clerk_note **calls)
{
    for (; list; list = list->next) {
        struct clerk_note ***end = list->run ? &notes : &calls;
        **end = list;
        *end = &list->next;
    }
    *notes = *calls = NULL;
}

static void batch_say(struct clerk_batch *batch, int result)
{
    if (result && !batch->failing)
        log_plain(LOG_ERROR, "store-failing", "the store refuses changes: %s",
                strerrordesc_np(-result));
    if (!result && batch->failing)
        log_plain(LOG_INFO, "store-well", "the store takes changes again");
    batch->failing = result != 0;
}

/** Not sooner: a note whose change is not durable is run again, and ends its job again. */
static void batch_count(struct clerk_batch *batch)
{
    const struct clerk_touched *touched = &batch->touched;

    for (size_t i = 0; i < touched->count; i++)
        if (touched->list[i].over)
            metrics_job_ended(&batch->service->metrics, &touched->list[i].end);
}

int clerk_batch_do(struct clerk_batch *batch, struct clerk_note *list, bool schedule,
        struct clerk_note **calls)
{
    struct service *service = batch->service;
    struct clerk_note *notes;
    int result = batch_run(batch, list, schedule);

    batch->dirty = true;
    batch_say(batch, result);
    list_part(list, &notes, calls);
    if (result)
        scheduler_undone(service, true);
    else
        batch_count(batch);
    batch_notes(batch, notes, result);
    if (!result) {
        events_wake(service);
        scheduler_ring(service);
    }
    return result;
}

void clerk_batch_finish(struct clerk_batch *batch)
{
    struct clerk_note *note, *next;

    for (note = batch->late; note; note = next) {
        next = note->next;
        note->done(note, false);
    }
    free(batch->touched.list);
}

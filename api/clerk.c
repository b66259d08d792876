/* The queue, the batch, the commit.
 *
 * The calls of a batch sleep on one word, those that gather meanwhile on another: a commit
 * wakes those it answers, all with one system call, and nobody else, and who wakes asks for
 * no lock. The clerk is told of work only when it sleeps. A note whose change could not be
 * made durable (disk full) stays, in order, and is tried again every RETRY_MS: what a loop
 * told must not be lost, and a call that comes meanwhile is answered with the store's own
 * error.
 */
#include "api/clerk.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "api/service.h"
#include "replica/base/check.h"
#include "replica/base/clock.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

enum {
    RETRY_MS = 500, /* between tries of notes that the store refused */
    HOUSEKEEPING_MS = 1000 /* at most this often, and when idle */
};

struct clerk_call {
    struct clerk_note note; /* @run NULL: that is how the clerk knows a call */
    clerk_work_f *work;
    void *context;
    bool adds; /* clerk_add() */
    int result;
    atomic_bool answered; /* from then on it may be gone */
};

struct clerk {
    struct service *service;
    struct store *store;
    pthread_t thread;

    pthread_mutex_t lock; /* what follows is under it */
    pthread_cond_t work;
    struct clerk_note *first, **end;
    _Atomic uint32_t *round; /* of @rounds: where the calls of that queue sleep */
    int64_t wake_at; /* wall ms; 0: not asked */
    bool stop, busy;
    bool asleep; /* on @work, and not woken yet */
    struct instant since; /* the clerk's last turn, while there is work */

    _Atomic uint32_t rounds[2]; /* any thread: one more with each batch answered */

    /* the clerk's thread only */
    struct clerk_note *late; /* notes that the store refused, oldest first */
    struct instant late_due, housekeeping_due;
    struct clerk_touched touched;
    bool dirty; /* a batch since the last idle checkpoint */
    _Atomic bool failing; /* the store refused the last batch: said once */
};

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
static int batch_run(struct clerk *clerk, struct clerk_note *list, bool schedule)
{
    struct clerk_turn turn = { .service = clerk->service,
        .store = clerk->store,
        .reader = store_own_reader(clerk->store),
        .now = clock_wall_ms(),
        .schedule = schedule,
        .touched = &clerk->touched };
    struct clerk_note *note;
    int broken = store_begin(clerk->store);

    clerk->touched.count = 0;
    if (broken)
        return broken;
    for (note = list; note && !broken; note = note->next) {
        int result = item_run(&turn, note, &broken);
        item_result(note, result);
        if (note->run)
            note->failed = result;
    }
    if (!broken && (turn.schedule || clerk->touched.count))
        plan_run(&turn, &broken);
    if (broken)
        store_rollback(clerk->store);
    else
        broken = store_commit(clerk->store);
    return broken;
}

/** Give back what is done with; what the store refused goes to @late. */
static void batch_notes(struct clerk *clerk, struct clerk_note *list, int result)
{
    struct clerk_note **late = &clerk->late, *note, *next;

    for (note = list; note; note = next) {
        next = note->next;
        if (!note->run)
            continue;
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
    if (clerk->late)
        clerk->late_due = instant_add_ms(clock_monotonic(), RETRY_MS);
}

static void round_sleep(_Atomic uint32_t *round, uint32_t seen)
{
    (void)syscall(SYS_futex, round, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void round_end(_Atomic uint32_t *round)
{
    atomic_fetch_add(round, 1);
    (void)syscall(SYS_futex, round, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void batch_calls(struct clerk_note *list, int result, _Atomic uint32_t *round)
{
    struct clerk_note *note, *next;

    if (!list)
        return;
    for (note = list; note; note = next) {
        struct clerk_call *call = container_of(note, struct clerk_call, note);
        next = note->next;
        if (note->run)
            continue;
        if (result)
            call->result = result;
        atomic_store(&call->answered, true);
    }
    round_end(round);
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

static void batch_say(struct clerk *clerk, int result)
{
    if (result && !clerk->failing)
        log_plain(LOG_ERROR, "store-failing", "the store refuses changes: %s",
                strerrordesc_np(-result));
    if (!result && clerk->failing)
        log_plain(LOG_INFO, "store-well", "the store takes changes again");
    clerk->failing = result != 0;
}

/** Not sooner: a note whose change is not durable is run again, and ends its job again. */
static void batch_count(struct clerk *clerk)
{
    const struct clerk_touched *touched = &clerk->touched;

    for (size_t i = 0; i < touched->count; i++)
        if (touched->list[i].over)
            metrics_job_ended(&clerk->service->metrics, &touched->list[i].end);
}

static void batch_do(struct clerk *clerk, struct clerk_note *list,
        _Atomic uint32_t *round, bool schedule)
{
    struct service *service = clerk->service;
    struct clerk_note *notes, *calls;
    int result = batch_run(clerk, list, schedule);

    clerk->dirty = true;
    batch_say(clerk, result);
    list_part(list, &notes, &calls);
    if (result)
        scheduler_undone(service, true);
    else
        batch_count(clerk);
    batch_notes(clerk, notes, result);
    if (!result) {
        events_wake(service);
        scheduler_ring(service);
    }
    batch_calls(calls, result, round);
}

/* -- the thread ------------------------------------------------------------------------- */

/** When the clerk has to look again though nobody asks; under the lock. */
static uint64_t clerk_patience(struct clerk *clerk, struct instant now)
{
    uint64_t ms = instant_ms_until(now, clerk->housekeeping_due);

    if (clerk->late && instant_ms_until(now, clerk->late_due) < ms)
        ms = instant_ms_until(now, clerk->late_due);
    if (clerk->wake_at) {
        int64_t wall = clerk->wake_at - clock_wall_ms();
        if (wall < 0)
            wall = 0;
        if ((uint64_t)wall < ms)
            ms = (uint64_t)wall;
    }
    return ms;
}

static void clerk_sleep(struct clerk *clerk, uint64_t ms)
{
    struct instant until = instant_add_ms(clock_monotonic(), ms);
    struct timespec due = { .tv_sec = (time_t)(until.ns / 1000000000u),
        .tv_nsec = (long)(until.ns % 1000000000u) };

    clerk->asleep = true;
    (void)pthread_cond_timedwait(&clerk->work, &clerk->lock, &due);
    clerk->asleep = false;
}

/** Take what is queued, late notes first; under the lock. */
static struct clerk_note *clerk_take(struct clerk *clerk, _Atomic uint32_t **round)
{
    struct clerk_note *list = clerk->first, **end;

    *round = clerk->round;
    clerk->round = &clerk->rounds[clerk->round == clerk->rounds];
    clerk->first = NULL;
    clerk->end = &clerk->first;
    if (!clerk->late)
        return list;
    for (end = &clerk->late; *end; end = &(*end)->next)
        ;
    *end = list;
    list = clerk->late;
    clerk->late = NULL;
    return list;
}

static bool clerk_wake_due(struct clerk *clerk)
{
    if (!clerk->wake_at || clerk->wake_at > clock_wall_ms())
        return false;
    clerk->wake_at = 0;
    return true;
}

/** Wait for work; under the lock, which is held again on return. False: stop. */
static bool clerk_wait(struct clerk *clerk, bool *due)
{
    for (;;) {
        struct instant now = clock_monotonic();
        *due = clerk_wake_due(clerk);
        if (clerk->first || *due || instant_reached(now, clerk->housekeeping_due) ||
                (clerk->late && instant_reached(now, clerk->late_due)))
            return true;
        if (clerk->stop)
            return false;
        clerk_sleep(clerk, clerk_patience(clerk, now));
    }
}

static void clerk_keep_house(struct clerk *clerk, bool idle)
{
    struct instant now = clock_monotonic();

    if (!instant_reached(now, clerk->housekeeping_due))
        return;
    service_tick(clerk->service);
    if (clerk->dirty || store_tight(clerk->store))
        clerk->dirty = store_checkpoint(clerk->store, idle) != 0 || !idle;
    clerk->housekeeping_due = instant_add_ms(now, HOUSEKEEPING_MS);
}

static void *clerk_main(void *context)
{
    struct clerk *clerk = context;
    _Atomic uint32_t *round;
    bool due;

    pthread_mutex_lock(&clerk->lock);
    while (clerk_wait(clerk, &due)) {
        struct clerk_note *list = clerk_take(clerk, &round);
        clerk->busy = true;
        clerk->since = clock_monotonic();
        pthread_mutex_unlock(&clerk->lock);
        if (list || due)
            batch_do(clerk, list, round, due);
        clerk_keep_house(clerk, !list);
        pthread_mutex_lock(&clerk->lock);
        clerk->busy = false;
        clerk->since = clock_monotonic();
    }
    pthread_mutex_unlock(&clerk->lock);
    return NULL;
}

/* -- the face --------------------------------------------------------------------------- */

/** Under the lock. True: the clerk sleeps, and is to be woken once the lock is free. */
static bool clerk_rouse(struct clerk *clerk)
{
    bool asleep = clerk->asleep;

    clerk->asleep = false;
    return asleep;
}

/** Under the lock; true as clerk_rouse(). */
static bool clerk_queue(struct clerk *clerk, struct clerk_note *note)
{
    note->next = NULL;
    if (!clerk->first && !clerk->busy)
        clerk->since = clock_monotonic();
    *clerk->end = note;
    clerk->end = &note->next;
    return clerk_rouse(clerk);
}

static void clerk_unlock(struct clerk *clerk, bool rouse)
{
    pthread_mutex_unlock(&clerk->lock);
    if (rouse)
        pthread_cond_signal(&clerk->work);
}

static int call_run(struct clerk *clerk, struct clerk_call *call)
{
    _Atomic uint32_t *round;

    check(!pthread_equal(pthread_self(), clerk->thread));
    pthread_mutex_lock(&clerk->lock);
    if (clerk->stop || clerk->service->draining) {
        pthread_mutex_unlock(&clerk->lock);
        return -ESHUTDOWN;
    }
    round = clerk->round;
    clerk_unlock(clerk, clerk_queue(clerk, &call->note));
    for (;;) { /* a signal may come between, or the end of the next but one */
        uint32_t seen = atomic_load(round);
        if (atomic_load(&call->answered))
            return call->result;
        round_sleep(round, seen);
    }
}

int clerk_call(struct clerk *clerk, clerk_work_f *work, void *context)
{
    struct clerk_call call = { .work = work, .context = context };

    return call_run(clerk, &call);
}

int clerk_add(struct clerk *clerk, clerk_work_f *work, void *context)
{
    struct clerk_call call = { .work = work, .context = context, .adds = true };

    return call_run(clerk, &call);
}

void clerk_post(struct clerk *clerk, struct clerk_note *note)
{
    pthread_mutex_lock(&clerk->lock);
    clerk_unlock(clerk, clerk_queue(clerk, note));
}

void clerk_wake_at(struct clerk *clerk, int64_t wall_ms)
{
    bool rouse = false;

    pthread_mutex_lock(&clerk->lock);
    if (!clerk->wake_at || wall_ms < clerk->wake_at) {
        clerk->wake_at = wall_ms > 0 ? wall_ms : 1;
        rouse = clerk_rouse(clerk);
    }
    clerk_unlock(clerk, rouse);
}

uint64_t clerk_stalled_ms(struct clerk *clerk)
{
    uint64_t ms = 0;

    pthread_mutex_lock(&clerk->lock);
    if (clerk->busy || clerk->first)
        ms = instant_ms_until(clerk->since, clock_monotonic());
    pthread_mutex_unlock(&clerk->lock);
    return ms;
}

unsigned clerk_waiting(struct clerk *clerk)
{
    unsigned count = 0;

    pthread_mutex_lock(&clerk->lock);
    for (struct clerk_note *note = clerk->first; note; note = note->next)
        count++;
    pthread_mutex_unlock(&clerk->lock);
    return count;
}

bool clerk_failing(struct clerk *clerk)
{
    return clerk->failing;
}

struct clerk *clerk_create(struct service *service, struct store *store)
{
    struct clerk *clerk = calloc(1, sizeof(*clerk));
    pthread_condattr_t attributes;

    if (!clerk)
        return NULL;
    clerk->service = service;
    clerk->store = store;
    clerk->end = &clerk->first;
    clerk->round = clerk->rounds;
    pthread_mutex_init(&clerk->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&clerk->work, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&clerk->thread, NULL, clerk_main, clerk) == 0)
        return clerk;
    pthread_cond_destroy(&clerk->work);
    pthread_mutex_destroy(&clerk->lock);
    free(clerk);
    return NULL;
}

/** What the store refused to the last: the rows stay as they were, recovery finds them. */
static void clerk_give_back(struct clerk *clerk)
{
    struct clerk_note *note, *next;

    for (note = clerk->late; note; note = next) {
        next = note->next;
        note->done(note, false);
    }
}

void clerk_destroy(struct clerk *clerk)
{
    if (!clerk)
        return;
    pthread_mutex_lock(&clerk->lock);
    clerk->stop = true;
    clerk_unlock(clerk, clerk_rouse(clerk));
    pthread_join(clerk->thread, NULL);
    clerk_give_back(clerk);
    pthread_cond_destroy(&clerk->work);
    pthread_mutex_destroy(&clerk->lock);
    free(clerk->touched.list);
    free(clerk);
}

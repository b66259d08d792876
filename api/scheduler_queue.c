/* The jobs that wait: by id to find them, and in the order in which they would start. */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "api/scheduler_inside.h"
#include "replica/base/check.h"

static int waiting_order(const struct waiting *a, const struct waiting *b)
{
    if (a->priority != b->priority)
        return a->priority < b->priority ? -1 : 1;
    return strcmp(a->id.text, b->id.text);
}

static int waiting_by_id(const void *a, const void *b)
{
    return strcmp(
            ((const struct waiting *)a)->id.text, ((const struct waiting *)b)->id.text);
}

/** Where @waiting stands or would stand. */
static size_t queue_place(
        const struct scheduler *scheduler, const struct waiting *waiting)
{
    size_t low = 0, high = scheduler->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (waiting_order(scheduler->queue[middle], waiting) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct waiting *waiting_find(struct scheduler *scheduler, const struct uuid *id)
{
    struct waiting key = { .id = *id };
    void *node = tfind(&key, &scheduler->by_id, waiting_by_id);

    return node ? *(struct waiting **)node : NULL;
}

void waiting_remove(struct scheduler *scheduler, struct waiting *waiting)
{
    size_t at = queue_place(scheduler, waiting);

    check(at < scheduler->count && scheduler->queue[at] == waiting);
    scheduler->count--;
    memmove(&scheduler->queue[at], &scheduler->queue[at + 1],
            (scheduler->count - at) * sizeof(*scheduler->queue));
    (void)tdelete(waiting, &scheduler->by_id, waiting_by_id);
    free(waiting);
}

static bool waiting_add(struct scheduler *scheduler, const struct waiting *value)
{
    struct waiting *waiting;
    size_t at;

    if (scheduler->count == scheduler->room) {
        size_t room = scheduler->room ? 2 * scheduler->room : 64;
        void *queue = realloc(scheduler->queue, room * sizeof(*scheduler->queue));
        if (!queue)
            return false;
        scheduler->queue = queue;
        scheduler->room = room;
    }
    waiting = malloc(sizeof(*waiting));
    if (!waiting)
        return false;
    *waiting = *value;
    if (!tsearch(waiting, &scheduler->by_id, waiting_by_id)) {
        free(waiting);
        return false;
    }
    at = queue_place(scheduler, waiting);
    memmove(&scheduler->queue[at + 1], &scheduler->queue[at],
            (scheduler->count - at) * sizeof(*scheduler->queue));
    scheduler->queue[at] = waiting;
    scheduler->count++;
    return true;
}

void queue_clear(struct scheduler *scheduler)
{
    while (scheduler->count)
        waiting_remove(scheduler, scheduler->queue[scheduler->count - 1]);
}

void queue_take(struct scheduler *scheduler, struct clerk_turn *turn,
        const struct store_job *job)
{
    struct waiting *old = waiting_find(scheduler, &job->id);
    struct waiting value = { .id = job->id, .priority = job->priority };

    if (old)
        waiting_remove(scheduler, old);
    if (job->state != CIM_JOB_NEW)
        return;
    /* An element that is gone overlaps nothing; the start will say what is wrong. */
    (void)span_of(turn, &job->source, &value.spans.reads[0]);
    (void)span_of(turn, &job->target,
            job->work == JOB_VERIFY ? &value.spans.reads[1] : &value.spans.writes);
    if (!waiting_add(scheduler, &value) && !turn->error)
        turn->error = -ENOMEM;
}

/* -- from the rows ----------------------------------------------------------------- */

struct loading {
    struct scheduler *scheduler;
    struct store_job jobs[32];
    unsigned count;
};

static bool load_row(void *context, const void *row)
{
    struct loading *loading = context;

    loading->jobs[loading->count++] = *(const struct store_job *)row;
    return true;
}

void queue_reload(struct scheduler *scheduler, struct clerk_turn *turn)
{
    struct loading loading = { .scheduler = scheduler };
    struct uuid last = { "" };
    struct store_query query = { .table = STORE_JOB,
        .filter_count = 1,
        .filters = { { .column = JOB_STATE,
                .is_number = true,
                .count = 1,
                .numbers = { CIM_JOB_NEW } } },
        .limit = sizeof(loading.jobs) / sizeof(*loading.jobs) };
    int got;

    queue_clear(scheduler);
    do {
        loading.count = 0;
        query.before = uuid_is_none(&last) ? NULL : last.text;
        got = store_list(turn->reader, &query, load_row, &loading);
        if (got < 0) {
            turn->error = got;
            return;
        }
        for (unsigned i = 0; i < loading.count; i++)
            queue_take(scheduler, turn, &loading.jobs[i]);
        if (loading.count)
            last = loading.jobs[loading.count - 1].id;
    } while ((unsigned)got == query.limit && !turn->error);
    scheduler->reload = false;
}

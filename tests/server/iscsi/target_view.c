/* What the target has of each connection, told by the loop that it belongs to. */
#include "tests/server/iscsi/target_view.h"

#include <semaphore.h>
#include <stdio.h>
#include <time.h>

#include "replica/base/scope.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"

enum { LOOK_S = 10 };

/* Not on the stack: a loop that stands still may run it when nobody waits any more. */
struct look {
    struct loop_task task;
    struct hall *hall;
    sem_t done;
};

static const char *state_name(const struct fsm_table *table, unsigned state)
{
    return table->states[state].name;
}

static void task_show(const struct task *task)
{
    fprintf(stderr,
            "      task %u: %s, unit's state %u, opcode %02x, tag %08x, number %u%s, "
            "jobs %u%s, R2Ts %u, wants %u at %u, buffers%s%s%s%s%s%s%s\n",
            task->slot, state_name(&task_table, task->state), task->scsi.state,
            task->opcode, task->itt, task->cmdsn, task->immediate ? " immediate" : "",
            task->jobs, task->queued ? " queued" : "", task->r2ts, task->want_length,
            task->want_at, task->in ? " in" : "", task->out ? " out" : "",
            task->spare ? " spare" : "", task->scsi.buffer ? " unit's" : "",
            task->wait.share || task->scsi.wait.share ? ", waits for one" : "",
            task->unsolicited ? ", unsolicited data comes" : "",
            task->quiet ? ", quiet" : "");
}

static void session_show(const struct session *session)
{
    fprintf(stderr,
            "    session: %s, expcmdsn %u, maxcmdsn %u, statsn %u, behind a hole %llx, "
            "unanswered %u, immediate %u, busy %u, holds %zu bytes\n",
            session->terms.initiator, session->expcmdsn, session->maxcmdsn,
            session->statsn, (unsigned long long)session->arrived, session->unanswered,
            session->immediates, session->busy, session->share.held);
    for (unsigned i = 0; i < TASKS; i++)
        if (session->tasks[i].state != TASK_FREE)
            task_show(&session->tasks[i]);
}

static void connection_show(const struct connection *connection, struct instant now)
{
    const struct receive *in = &connection->in;
    const struct send *out = &connection->out;

    fprintf(stderr,
            "  %s: %s, heard %llu ms ago, watched for %u\n"
            "    in: state %u%s%s, %zu bytes not parsed, %u of %u to come\n"
            "    out: %u PDUs made, %zu bytes of them gone, %u of %u notices made, "
            "jobs %s%s%s\n",
            connection->address, state_name(&connection_table, connection->state),
            (unsigned long long)instant_ms_until(connection->heard, now),
            connection->watched, in->state, in->paused ? ", paused" : "",
            in->resume.queued ? ", resume posted" : "", in->end - in->begin, in->left,
            in->length, out->count, out->done, out->notice_made, out->notice_count,
            STAILQ_EMPTY(&out->jobs) ? "none" : "some", out->blocked ? ", blocked" : "",
            out->flush.queued ? ", flush posted" : "");
    if (connection->session)
        session_show(connection->session);
}

static void look_run(struct loop_task *task)
{
    struct look *look = container_of(task, struct look, task);
    const struct connection *connection = look->hall->connections;

    for (; connection; connection = connection->next)
        connection_show(connection, loop_now(look->hall->loop));
    (void)sem_post(&look->done);
}

static void hall_show(struct hall *hall)
{
    static struct look looks[16];
    static unsigned count;
    struct look *look = &looks[count++ % 16];
    struct timespec until;

    if (count > 16) /* no more than these: one may still be queued */
        return;
    *look = (struct look){ .task = { .run = look_run }, .hall = hall };
    (void)sem_init(&look->done, 0, 0);
    loop_post(hall->loop, &look->task);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LOOK_S;
    if (sem_timedwait(&look->done, &until) < 0)
        fprintf(stderr, "  its loop does not answer, its turn began %llu ms ago\n",
                (unsigned long long)loop_stalled_ms(hall->loop));
}

void target_view(struct iscsi_target *target)
{
    struct iscsi_figures figures;

    iscsi_target_figures(target, &figures);
    fprintf(stderr,
            "target: %u connections, %u sessions, %llu commands ended, %llu bytes "
            "read, "
            "%llu written, %llu logins refused, %llu connections dropped\n",
            figures.connections, figures.sessions, (unsigned long long)figures.commands,
            (unsigned long long)figures.read_bytes,
            (unsigned long long)figures.written_bytes,
            (unsigned long long)figures.logins_refused,
            (unsigned long long)figures.connections_dropped);
    for (size_t i = 0; i < target->hall_count; i++) {
        fprintf(stderr, " loop %zu\n", i);
        hall_show(&target->halls[i]);
    }
}

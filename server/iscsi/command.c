/* SCSI commands between the wire and the unit: RFC 7143 11.3, 11.4. */
#include "server/iscsi/command.h"

#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/dataout.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/management.h"
#include "server/iscsi/request.h"
#include "server/iscsi/roster.h"
#include "server/iscsi/send.h"
#include "server/iscsi/session.h"

enum { FLAG_READ = 0x40, FLAG_WRITE = 0x20, FLAG_ATTRIBUTE = 0x07 };

static struct task *task_of(struct scsi_task *scsi)
{
    return container_of(scsi, struct task, scsi);
}

/* -- the header ---------------------------------------------------------------------------- */

uint32_t command_unsolicited_max(const struct login_terms *terms, uint32_t expected)
{
    return expected < terms->first_burst ? expected : terms->first_burst;
}

const char *command_judge(const struct session *session, const uint8_t *header)
{
    const struct login_terms *terms = &session->terms.terms;
    uint32_t length = pdu_data_length(header);
    uint32_t most = command_unsolicited_max(terms, be32_get(header + 20));
    bool writes = header[1] & FLAG_WRITE;

    if (length > 0 && !writes)
        return "data with a command that writes nothing";
    if (length > 0 && !terms->immediate_data)
        return "immediate data that was not agreed";
    if (length > most)
        return "more immediate data than the first burst";
    if (!pdu_final(header) && (!writes || terms->initial_r2t))
        return "unsolicited data that was not agreed";
    if (!pdu_final(header) && length == most)
        return "unsolicited data behind the first burst";
    return NULL;
}

bool command_is_bidirectional(const uint8_t *header)
{
    return (header[1] & (FLAG_READ | FLAG_WRITE)) == (FLAG_READ | FLAG_WRITE);
}

enum verdict command_header(struct connection *connection, struct task *task)
{
    const uint8_t *header = connection->in.header;
    struct scsi_task *scsi = &task->scsi;

    memcpy(scsi->cdb, header + 32, sizeof scsi->cdb);
    scsi->attribute = (enum scsi_attribute)(header[1] & FLAG_ATTRIBUTE);
    scsi->reads = header[1] & FLAG_READ;
    scsi->writes = header[1] & FLAG_WRITE;
    scsi->expected = be32_get(header + 20);
    scsi->status = SCSI_GOOD;
    scsi->sense_length = 0;
    scsi->aborted = false;
    scsi->data = NULL;
    scsi->data_length = scsi->sent = 0;
    scsi->transfer = 0;
    task->is_wrong_lun = task->lun != 0;
    task->unsolicited = !pdu_final(header);
    if (connection->in.length == 0 && !task->unsolicited)
        return TAKE;
    dataout_owed(task);
    connection->in.task = task;
    return dataout_room(connection, task, 0, scsi->expected);
}

/* Flow control came first; but those who hold buffers may wait for data that stands behind
   this very command. */
void command_refuse_full(struct connection *connection)
{
    struct receive *in = &connection->in;

    dataout_forget(in->task);
    in->task->scsi.status = SCSI_TASK_SET_FULL;
    in->sink = true;
    connection_resume(connection);
}

/* -- the unit's word ----------------------------------------------------------------------- */

static void queued_change(struct session *session, int by)
{
    struct roster_entry *entry = session->entry;
    unsigned now = atomic_load_explicit(&entry->queued, memory_order_relaxed);

    atomic_store_explicit(&entry->queued, now + (unsigned)by, memory_order_relaxed);
}

/* One thread writes each, others only read: no need of a locked instruction. */
static void count(_Atomic uint64_t *figure, uint64_t more)
{
    atomic_store_explicit(figure,
            atomic_load_explicit(figure, memory_order_relaxed) + more,
            memory_order_relaxed);
}

static void command_count(struct task *task)
{
    struct session *session = task->session;
    const struct scsi_task *scsi = &task->scsi;
    struct hall *hall = session->connection->hall;
    uint64_t written = scsi->writes && scsi->status == SCSI_GOOD
            ? min_u64(scsi->transfer, scsi->expected)
            : 0;

    queued_change(session, -1);
    count(&session->entry->read_bytes, scsi->sent);
    count(&session->entry->written_bytes, written);
    count(&hall->commands, 1);
    count(&hall->read_bytes, scsi->sent);
    count(&hall->written_bytes, written);
}

void command_start(struct task *task)
{
    task_state_set(task, TASK_RUNNING);
    queued_change(task->session, 1);
    if (task->scsi.status == SCSI_TASK_SET_FULL)
        task_ops.done(&task->scsi);
    else if (task->is_wrong_lun)
        scsi_submit_wrong_lun(&task->scsi);
    else
        scsi_submit(&task->scsi);
}

/* The unit has ended it and all unsolicited data came: what remains is to say so. */
void command_over(struct task *task)
{
    struct session *session = task->session;

    if (task->quiet || session->connection->fd < 0) {
        task_free(task);
        return;
    }
    if (task->out && task->out_length == 0) {
        buffer_give(task->out);
        task->out = NULL;
    }
    if (task->out)
        task->jobs |= JOB_DATA;
    task_answer(task);
}

static void on_done(struct scsi_task *scsi)
{
    struct task *task = task_of(scsi);
    bool lost = task->session->connection->fd < 0;

    command_count(task);
    task->quiet |= scsi->aborted;
    dataout_forget(task); /* who aborted it need not send its data any more */
    task->out = scsi->data;
    task->out_length = scsi->data_length;
    task->out_at = 0;
    if (task->unsolicited && !lost) {
        task_state_set(task, TASK_OVER);
        management_task_over(task);
        return;
    }
    management_task_over(task);
    command_over(task);
}

static void on_want(struct scsi_task *scsi, uint32_t offset, uint32_t length)
{
    dataout_want(task_of(scsi), offset, length);
}

static void on_data(struct scsi_task *scsi, struct buffer *buffer, uint32_t length)
{
    struct task *task = task_of(scsi);

    task_state_set(task, TASK_FEEDING);
    task->out = buffer;
    task->out_length = length;
    task->out_at = 0;
    send_queue(task, JOB_DATA);
}

const struct scsi_task_ops task_ops = {
    .want = on_want,
    .data = on_data,
    .done = on_done,
};

void command_sent(struct task *task)
{
    task->sent += task->out_length;
    buffer_give(task->out);
    task->out = NULL;
    if (task->state != TASK_FEEDING)
        return; /* its answer follows */
    task_state_set(task, TASK_RUNNING);
    scsi_data_sent(&task->scsi);
}

void command_abort(struct task *task)
{
    switch (task->state) {
    case TASK_LOADING:
    case TASK_HELD:
    case TASK_OVER:
        task_free(task);
        break;
    case TASK_RUNNING:
    case TASK_WANTING:
    case TASK_FEEDING:
        if (!task->is_wrong_lun) /* those end by themselves */
            scsi_abort(&task->scsi);
        break;
    default:
        break;
    }
}

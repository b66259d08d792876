/* Task management: RFC 7143 11.5, 11.6. Answered when the tasks concerned have ended. */
#include "server/iscsi/management.h"

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/command.h"
#include "server/iscsi/dataout.h"
#include "server/iscsi/session.h"

enum function {
    ABORT_TASK = 1,
    ABORT_TASK_SET = 2,
    CLEAR_ACA = 3,
    CLEAR_TASK_SET = 4,
    LOGICAL_UNIT_RESET = 5,
    TARGET_WARM_RESET = 6,
    TARGET_COLD_RESET = 7,
    TASK_REASSIGN = 8,
    FUNCTIONS
};

enum response {
    COMPLETE = 0,
    NO_TASK = 1,
    NO_LUN = 2,
    REASSIGN_NOT_SUPPORTED = 4,
    NOT_SUPPORTED = 5
};

static void answer(struct task *task, enum response response)
{
    task->response = (uint8_t)response;
    task_answer(task);
}

/* -- one task ------------------------------------------------------------------------------ */

/* It is not answered, nor is its data waited for. What is held keeps its place in the order
   of command numbers. */
static void silence(struct task *task)
{
    task->quiet = true;
    if (task->state == TASK_OVER)
        task_free(task);
    else
        dataout_forget(task);
}

/* RFC 7143 11.6.1: a tag that we do not know may be of a command that is lost on its way. */
static void abort_unknown(struct task *task)
{
    if (session_number_skip(task->session, task->want_length, task->cmdsn))
        answer(task, COMPLETE);
    else
        answer(task, NO_TASK);
}

static void abort_task(struct task *task)
{
    struct task *victim = task_find(task->session, task->want_at);

    if (!victim || victim == task || victim->opcode != PDU_SCSI_COMMAND ||
            victim->state == TASK_ANSWERING || task->want_at == PDU_NO_TAG) {
        abort_unknown(task);
        return;
    }
    if (victim->state == TASK_HELD || victim->state == TASK_OVER) {
        silence(victim);
        answer(task, COMPLETE);
        return;
    }
    task->free_next = victim->aborter;
    victim->aborter = task;
    command_abort(victim);
}

void management_task_over(struct task *task)
{
    while (task->aborter) {
        struct task *aborter = task->aborter;
        task->aborter = aborter->free_next;
        answer(aborter, task->quiet ? COMPLETE : NO_TASK);
    }
}

/* -- all of a set -------------------------------------------------------------------------- */

static void on_finished(struct scsi_reset_wait *wait)
{
    answer(container_of(wait, struct task, reset), COMPLETE);
}

/* Those that the unit does not have (any more). Commands behind a hole are in the task set
   as far as they were sent before; those that have ended and wait for the rest of their data
   are not answered either. */
static void others_silence(struct task *task)
{
    struct session *session = task->session;

    for (unsigned i = 0; i < TASKS; i++) {
        struct task *other = &session->tasks[i];
        if (other->opcode == PDU_SCSI_COMMAND &&
                (other->state == TASK_OVER ||
                        (other->state == TASK_HELD &&
                                serial_compare(other->cmdsn, task->cmdsn) < 0)))
            silence(other);
    }
}

static void reset(struct task *task, enum scsi_reset what)
{
    others_silence(task);
    task->reset.finished = on_finished;
    scsi_reset(&task->session->nexus, what, &task->reset);
}

static void unsupported(struct task *task, enum scsi_reset what)
{
    (void)what;
    answer(task, NOT_SUPPORTED);
}

static void reassign(struct task *task, enum scsi_reset what)
{
    (void)what;
    answer(task, REASSIGN_NOT_SUPPORTED);
}

static void abort_one(struct task *task, enum scsi_reset what)
{
    (void)what;
    abort_task(task);
}

/* RFC 7143 11.5.1. A cold reset would end every session: a tool for malice. */
static const struct {
    const char *name;
    void (*run)(struct task *, enum scsi_reset);
    enum scsi_reset what;
    bool needs_lun;
} functions[FUNCTIONS] = {
    [ABORT_TASK] = { "abort task", abort_one, 0, true },
    [ABORT_TASK_SET] = { "abort task set", reset, SCSI_ABORT_TASK_SET, true },
    [CLEAR_ACA] = { "clear ACA", unsupported, 0, true },
    [CLEAR_TASK_SET] = { "clear task set", reset, SCSI_CLEAR_TASK_SET, true },
    [LOGICAL_UNIT_RESET] = { "LUN reset", reset, SCSI_LOGICAL_UNIT_RESET, true },
    [TARGET_WARM_RESET] = { "target warm reset", reset, SCSI_TARGET_WARM_RESET, false },
    [TARGET_COLD_RESET] = { "target cold reset", unsupported, 0, false },
    [TASK_REASSIGN] = { "task reassign", reassign, 0, false },
};

void management_start(struct task *task)
{
    unsigned function = task->function;

    if (function >= FUNCTIONS || !functions[function].run) {
        answer(task, NOT_SUPPORTED);
        return;
    }
    log_plain(LOG_INFO, "iscsi-task-management", "%.64s asks for %s",
            task->session->terms.initiator, functions[function].name);
    if (functions[function].needs_lun && task->lun != 0)
        answer(task, NO_LUN);
    else
        functions[function].run(task, functions[function].what);
}

/* server/iscsi/session.h - a session: command numbers, tasks, PDUs that are no SCSI. On its
 * connection's loop. */
#ifndef SERVER_ISCSI_SESSION_H
#define SERVER_ISCSI_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "replica/base/clock.h"
#include "replica/base/fsm.h"
#include "server/iscsi/buffer.h"
#include "server/iscsi/login.h"
#include "server/iscsi/pdu.h"
#include "server/iscsi/question.h"
#include "server/iscsi/scsi.h"

struct connection;
struct export;
struct roster_entry;

enum {
    CREDITS = 32, /* commands of a session that are not answered */
    IMMEDIATES = 8, /* immediate ones beside them */
    TASKS = CREDITS + IMMEDIATES,
    R2TS = 8, /* outstanding of one task at most */
    LATE = TASKS * R2TS /* transfer tags of aborted tasks that a session remembers */
};

enum task_state {
    TASK_FREE,
    TASK_LOADING, /* the PDU's own data is being received */
    TASK_HELD, /* behind a hole in the command numbers */
    TASK_RUNNING, /* somebody works on it: the unit, a reset */
    TASK_WANTING, /* the unit waits for data-out */
    TASK_FEEDING, /* the unit's data-in is being sent */
    TASK_OVER, /* the unit has ended it, unsolicited data is still to come */
    TASK_ANSWERING, /* its answer is queued */
    TASK_STATES
};
extern const struct fsm_table task_table;

struct r2t {
    uint32_t ttt, offset, length, received, datasn;
};

/* What an initiator asked for with one PDU, and its answer. */
struct task {
    struct scsi_task scsi;
    struct session *session;
    unsigned state; /* enum task_state */
    enum pdu_opcode opcode;
    uint8_t slot;
    bool immediate, is_wrong_lun;
    uint32_t itt, cmdsn;
    uint64_t lun;
    struct task *free_next;

    /* to be sent */
    STAILQ_ENTRY(task) in_jobs;
    bool queued;
    uint8_t jobs; /* enum task_job */
    struct buffer *out; /* data-in, or the data of an answer */
    uint32_t out_length, out_at; /* bytes of it; queued as PDUs */
    uint32_t sent; /* bytes of data-in before @out */
    uint32_t pdus; /* Data-In or R2T made so far: DataSN, R2TSN, ExpDataSN */
    uint8_t sense[2 + SCSI_SENSE_MAX + 2];

    /* data-out: @in holds [in_at, in_at + in_length), of which the unit has taken what is
       before want_at; @loan is a part of it */
    struct buffer *in, *spare, loan;
    uint32_t in_at, in_length;
    uint32_t want_at, want_length;
    struct buffer_wait wait;
    bool unsolicited; /* more of it is to come */
    bool damaged; /* a data digest was wrong */
    uint32_t unsolicited_datasn, unsolicited_at;
    uint32_t asked_to; /* offset up to which R2T was sent */
    struct r2t r2t[R2TS]; /* in order; the first gets data */
    uint8_t r2ts;
    bool asked; /* for what is wanted now: R2T was sent */
    struct instant owed; /* since when data is */
    uint64_t owed_moved, owed_deaf; /* of the connection, then */

    /* task management, text, logout */
    struct scsi_reset_wait reset;
    struct task *aborter; /* those who wait for this one's end */
    uint8_t function, response;
    bool quiet; /* aborted before it began: no answer */
};

struct session {
    struct connection *connection;
    struct export *export; /* NULL: discovery */
    struct scsi_nexus nexus;
    struct buffer_share share; /* of its hall's buffers */
    bool nexus_open;
    struct login_result terms; /* names and what was agreed */
    struct roster_entry *entry;
    uint64_t order; /* of arrival at its export */
    struct instant began; /* discovery */

    uint32_t expcmdsn, maxcmdsn, statsn;
    uint64_t arrived; /* bit n: expcmdsn + n came before its turn */
    struct instant hole;
    unsigned unanswered; /* of CREDITS */
    unsigned immediates;
    unsigned busy; /* tasks that are not free */

    uint32_t itt[TASKS]; /* of slot n, PDU_NO_TAG: none */
    struct task *free;
    uint32_t tags; /* R2T counter */
    uint32_t late[LATE];
    uint32_t gone
            [TASKS]; /* tags of aborted ones that unsolicited data may still come for */
    unsigned late_next, gone_next;
    uint32_t ping; /* TTT of the NOP-In that is out, PDU_NO_TAG: none */
    uint32_t pings;
    struct question question;
    struct task *leaving; /* the Logout to be answered at the end */
    struct task tasks[TASKS];
};

struct session *session_create(
        struct connection *connection, const struct login_result *result);
void session_destroy(struct session *session);
/** True: the number is new and in the window. */
bool session_number_fits(struct session *session, uint32_t cmdsn);
/** It is here, with or without a task: what it and those behind it waited for, begins. */
void session_number_arrived(struct session *session, uint32_t cmdsn, struct task *task);
/** In the order of command numbers, or at once for immediate ones. */
void request_start(struct task *task);
uint32_t session_maxcmdsn(struct session *session);
/** The peer has been told of a shut window, and commands may come: session_window_tell(). */
bool session_window_is_stale(const struct session *session);
void session_window_tell(struct session *session);
void session_reject(
        struct connection *connection, const uint8_t *header, enum pdu_reject reason);
void session_end_tasks(struct session *session); /* abort all */
/** A task became free: is somebody waiting for the last one? */
void session_settle(struct session *session);
/** A command that will not come any more. True: its number was still awaited. */
bool session_number_skip(struct session *session, uint32_t cmdsn, uint32_t before);
void session_tick(struct session *session, struct instant now);
void session_ask_logout(struct session *session, unsigned ms);
/** The peer is silent: asks whether it is there. */
void session_ping(struct session *session);
/** Its nexus is known to the unit, its numbers start. On its loop. */
void session_begin(struct session *session);

struct task *task_find(struct session *session, uint32_t itt);
void task_free(struct task *task);
void task_answer(struct task *task);
/** Its answer has left. */
void task_sent(struct task *task);
struct task *session_task(struct session *session, const uint8_t *header);
void task_state_set(struct task *task, enum task_state state);

#endif

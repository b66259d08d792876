/* server/iscsi/inside.h - the transport's own structs. Private to this room.
 *
 * Who owns what: struct iscsi_target's registry (exports, roster) is under its lock, which
 * nobody holds for longer than one walk over the exports or the roster, a few thousand names,
 * and which no command ever takes.
 * A connection, its session and its tasks belong to one loop at a time: the first one while
 * it logs in, that of its export from then on. A hall is what a loop has of the target.
 */
#ifndef SERVER_ISCSI_INSIDE_H
#define SERVER_ISCSI_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "replica/base/checked.h"
#include "replica/base/clock.h"
#include "replica/base/fsm.h"
#include "replica/loop/loop.h"
#include "server/iscsi/buffer.h"
#include "server/iscsi/login.h"
#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi.h"
#include "server/iscsi/target.h"

enum {
    PORTALS_MAX = 16,
    LOGINS_MAX = 32, /* connections before the end of their login */
    LOGINS_ADDRESS_MAX = 4,
    LOGIN_MS = 10 * 1000, /* a whole login */
    LOGIN_PDU_MS = 3 * 1000,
    SESSIONS_MAX = 1024, /* what they cost: roster.c */
    SESSIONS_TARGET_MAX = 16,
    SESSIONS_INITIATOR_MAX = 256, /* of a name on all targets: 64 disks by four paths */
    SESSIONS_PATHS_MAX = 4, /* of a name on one */
    DISCOVERIES_MAX = 16, /* beside them; when there are more, the oldest end */
    DISCOVERIES_ADDRESS_MAX = 4,
    ROSTER = SESSIONS_MAX + 32, /* those of a name that replace an older one, too */
    CREDITS = 32, /* commands of a session that are not answered */
    IMMEDIATES = 8, /* immediate ones beside them */
    TASKS = CREDITS + IMMEDIATES,
    R2TS = 8, /* outstanding of one task at most */
    LATE = TASKS * R2TS, /* transfer tags of aborted tasks that a session remembers */
    NOTICES = 8, /* PDUs that answer no task: Reject, NOP-In, async message */
    FRAMES = 64, /* PDUs made and not wholly sent */
    RECEIVE_BUFFER = 64 << 10, /* bytes */
    TICK_MS = 250, /* how often deadlines are looked at */
    STUCK_MS = 30 * 1000, /* of a PDU, of owed data, of a hole, of our output */
    MOVE_RATE = 32 << 10, /* bytes a second; what moves faster is not stuck */
    MOVED_MOST = 16 << 20, /* bytes that may come or leave before data that is owed */
    FULL_MS = 1000, /* an immediate command waits for a buffer, then TASK SET FULL */
    BODY_RATE = 64 << 10, /* bytes a second of a PDU's data, after the first second */
    LINGER_MS = 2000, /* for a peer to hear our last words */
};

/* RFC 7143 8.1.1: the transport connection as the target sees it. */
enum connection_state {
    CONNECTION_LOGIN, /* S4 IN_LOGIN, on the first loop */
    CONNECTION_MOVING, /* posted to the loop of its export */
    CONNECTION_WAITING, /* an older session of the same nexus ends first */
    CONNECTION_OPEN, /* S5 LOGGED_IN */
    CONNECTION_ASKED, /* S7 LOGOUT_REQUESTED */
    CONNECTION_LEAVING, /* S6 IN_LOGOUT: commands end, then it is answered */
    CONNECTION_LAST_WORDS, /* nothing is read any more; what is queued is sent */
    CONNECTION_LINGERING, /* all is sent; the peer closes, or time is up */
    CONNECTION_CLOSED, /* S8 CLEANUP_WAIT: tasks end */
    CONNECTION_STATES
};
extern const struct fsm_table connection_table;

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

enum task_job { JOB_R2T = 1, JOB_DATA = 2, JOB_ANSWER = 4 };

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

/* A PDU to a peer that is no answer to a task. */
struct notice {
    uint8_t header[PDU_HEADER];
    uint8_t data[PDU_HEADER];
    uint8_t length;
};

/* A Text request, and what of its answer is not told yet. */
struct question {
    struct buffer *buffer; /* a part of the answer, NULL: none */
    uint32_t length, at; /* of it, bytes; made into PDUs */
    struct login_list list; /* wanted: more parts follow */
    uint64_t before; /* the serial of the last export that was told */
    uint32_t ttt; /* by which the peer asks on, PDU_NO_TAG: all is told */
    bool busy; /* it is being answered */
    bool final; /* the peer has nothing to say behind it */
    bool goes_on; /* this answer is not the last of it */
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

enum receive_state {
    RECEIVE_HEADER,
    RECEIVE_ROOM, /* the header is there; a slot or a notice must become free */
    RECEIVE_BUFFER_WAIT, /* the same; a buffer */
    RECEIVE_DATA,
    RECEIVE_TAIL, /* padding and digest */
    RECEIVE_STATES
};

/* The PDU that is being received. */
struct receive {
    uint8_t *bytes; /* RECEIVE_BUFFER */
    size_t begin, end;
    unsigned state; /* enum receive_state */
    uint8_t header[PDU_HEADER];
    struct task *task; /* where its data goes, NULL: nowhere */
    struct task *began; /* the PDU is this one's, NULL: no task has it */
    bool number; /* its command number counts */
    struct loop_task resume;
    bool sink; /* it is the task's, but nobody wants the bytes */
    const char *fault; /* why the connection is dropped */
    uint32_t offset; /* of the next byte of data in the task's data-out */
    uint32_t length, left; /* of the data segment, bytes */
    uint32_t crc;
    struct instant since; /* the PDU's data began */
    bool paused; /* the watch is off for want of room */
    struct instant paused_at;
    uint64_t deaf_ms; /* of the pauses that are over */
    unsigned pdus; /* begun since the last bytes came */
    unsigned left_alone; /* flushes until it is read without being told to */
    unsigned misses; /* such reads that brought nothing, in a row */
};

enum frame_end { FRAME_NOTHING, FRAME_DATA, FRAME_ANSWER };

struct frame {
    uint8_t header[PDU_HEADER + PDU_DIGEST];
    uint8_t tail[8]; /* padding and digest */
    uint8_t header_length, tail_length;
    enum frame_end end;
    const uint8_t *data;
    uint32_t length;
    bool led; /* the header stands before the data too: one piece */
    struct task *task;
};

struct send {
    struct frame *frames; /* FRAMES */
    unsigned first, count;
    size_t done; /* bytes of the first one sent */
    STAILQ_HEAD(, task) jobs;
    struct notice notices[NOTICES];
    unsigned notice_first, notice_count, notice_made;
    struct loop_task flush;
    bool blocked; /* the socket is full */
    struct instant stuck; /* since when, had all that left since come at MOVE_RATE */
};

/* The part of a connection that ends with the login. */
struct entry {
    struct login *login;
    struct login_asker asker;
    struct login_result result;
    uint16_t tsih;
    uint64_t credentials; /* of the export, when its name was looked up */
    bool throttled; /* refused for what failed before */
    char why[80]; /* it is refused, for the log; "" when the status says it */
    struct instant began, pdu_began;
    uint8_t answer[PDU_HEADER + LOGIN_DATA_MAX + 4];
    size_t length, sent;
    unsigned next; /* enum login_next, after the answer */
    bool counted; /* among the logins of the target */
};

struct connection {
    struct iscsi_target *target;
    struct hall *hall;
    struct connection *next, **link; /* of the hall */
    unsigned state;
    int fd;
    struct loop_watch watch;
    unsigned watched; /* LOOP_* bits */
    struct loop_task move;
    struct sockaddr_storage peer;
    char address[64], host[64]; /* of the peer, with its port and without */
    char portal[64]; /* of ours it came in on */
    struct entry *entry;
    struct session *session;
    struct receive in;
    struct send out;
    struct instant heard, pinged, closing; /* last byte; NOP-In; end of patience */
    uint64_t moved; /* bytes in and out */
    bool header_digest, data_digest;
};

/* A loop's part. */
struct hall {
    struct iscsi_target *target;
    struct loop *loop;
    struct buffer_pool *buffers;
    struct connection *connections;
    struct loop_timer tick;
    struct loop_task stop;
    unsigned endings; /* exports that are ending */
    bool stopping, stopped;
    struct instant patience; /* stopping: connections are dropped then */
    _Atomic uint64_t commands, read_bytes, written_bytes;
};

enum export_state { EXPORT_OPENING, EXPORT_SERVING, EXPORT_FAILED, EXPORT_ENDING };

/* Who may use an export, and how they show who they are. Constant once made. */
struct grant {
    char (*initiators)[SCSI_NAME_MAX]; /* normalised; "*" all */
    size_t initiator_count;
    bool has_chap;
    struct login_chap chap;
};

/* Under the target's lock but where said. */
struct export
{
    struct iscsi_target *target;
    struct export *next;
    struct hall *hall; /* constant */
    struct uuid id; /* constant */
    uint64_t serial; /* constant: two of one id are not the same */
    char name[SCSI_NAME_MAX]; /* constant */
    bool read_only; /* constant */
    struct scsi_backing const *backing; /* constant */
    uint8_t *kept; /* constant until it has opened: a copy, its publisher may be gone */
    size_t kept_length; /* constant */
    enum export_state state;
    struct fault fault;
    struct grant *grant; /* in force */
    struct grant *ready; /* in force when it is settled, NULL: none */
    uint64_t credentials; /* the number of those in force, of the target */
    unsigned sessions; /* in the roster */
    /* the loop's */
    struct scsi_unit *unit;
    bool busy; /* the unit is being made or unmade */
    bool ending;
    struct instant patience; /* ending: sessions are closed then */
    uint64_t arrivals;
    struct loop_task opening, end, change;
    bool changing; /* under the lock: @change is posted */
    unsigned grace_ms; /* set under the lock, before @end is posted */
};

/* A session for other threads to see: @taken under the lock, numbers by its loop. */
struct roster_entry {
    bool taken;
    uint16_t tsih;
    struct export *export;
    char initiator[SCSI_NAME_MAX], address[64];
    bool proven; /* by CHAP */
    uint8_t isid[6];
    int64_t since_ms;
    _Atomic uint64_t read_bytes, written_bytes;
    _Atomic unsigned queued;
};

enum { FAILURES = 64, FAILURES_MAX = 5, FAILURE_MS = 60 * 1000 };

/* Failed logins of a name from an address. The first loop's. */
struct failure {
    char initiator[SCSI_NAME_MAX];
    char address[64];
    struct instant first;
    unsigned count;
    uint64_t credentials; /* how many were made before the first of them */
};

struct portal {
    struct iscsi_target *target;
    int fd;
    struct sockaddr_storage address;
    struct loop_watch watch;
    struct loop_timer rest; /* active: nobody is let in */
    unsigned refused; /* in this turn */
    struct instant told; /* a refusal was logged last */
    unsigned untold; /* refusals since */
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

/* -- portal.c: who comes in -------------------------------------------------------------- */

int portal_open(struct iscsi_target *target, const struct sockaddr_storage *address,
        struct fault *fault);
int portals_watch(struct iscsi_target *target); /* on the first loop */
void portals_unwatch(struct iscsi_target *target); /* on the first loop */
void portals_close(struct iscsi_target *target); /* unwatched */

/* -- entry.c: the login of a connection -------------------------------------------------- */

/** On the first loop. False: no memory; the caller closes. */
bool entry_start(struct connection *connection);
void entry_read(struct connection *connection); /* bytes came */
void entry_read_on(struct connection *connection); /* those that are there */
void entry_send(struct connection *connection); /* the rest of an answer */
void entry_accept(struct connection *connection); /* the last answer may go */
void entry_refuse(struct connection *connection, uint16_t status); /* it may not */
void entry_tick(struct connection *connection, struct instant now);
void entry_leave(
        struct connection *connection); /* no login of the first loop's any more */
void entry_finish(struct connection *connection); /* frees it; without one is fine */

/* -- admission.c: names, limits, the way to the export's loop ---------------------------- */

enum login_access admission_access(void *context, const char *initiator,
        const char *target, struct login_chap *chap);
bool admission_user(void *context, const char *initiator, const char *user,
        struct login_chap *chap);
bool admission_throttled(void *context, const char *initiator);
void admission_failed(void *context, const char *initiator);
/** After the login: 0 (the connection goes its way), or a login status (class << 8 | detail)
    to refuse with. */
uint16_t admission_enter(struct connection *connection);
/** Those who wait for older sessions of this export to end. On its loop. */
void admission_retry(struct export *export);

/* -- roster.c: the sessions of exports --------------------------------------------------- */

uint16_t roster_tsih(struct iscsi_target *target); /* that no session has */
/** A place for a session of an export. Locked. False: there is none, and @why names the limit. */
bool roster_enter(struct session *session, char why[80]);
/** It has ended. Without a place: nothing. On its loop. */
void roster_leave(struct session *session);

/* -- discovery.c: who only asks. On the first loop ---------------------------------------- */

/** For one that is about to be a discovery session: another one may end for it. */
void discovery_make_room(const struct connection *newcomer);
void discovery_tick(struct connection *connection, struct instant now);

/* -- connection.c: life, receive --------------------------------------------------------- */

struct connection *connection_create(struct hall *hall, int fd);
void connection_watch(struct connection *connection); /* as its state needs */
/** Bytes in, as many as there are, one system call. False: none, or the connection is lost. */
bool connection_read(struct connection *connection);
/** All is sent: the next bytes may be here already. Open or not. */
void connection_read_on(struct connection *connection);
/** Goes on after a wait for room. */
void connection_resume(struct connection *connection);
void connection_resume_later(struct connection *connection);
/** Ends it now; the peer is not told. @why for the log, NULL: nothing to tell. */
void connection_drop(struct connection *connection, const char *why);
/** Sends what is queued, then ends it. */
void connection_finish(struct connection *connection, const char *why);
/** Frees it when nothing is left to wait for. */
void connection_try_free(struct connection *connection);
void connection_enter_hall(struct connection *connection, struct hall *hall);
void connection_leave_hall(struct connection *connection);
void connection_move(struct connection *connection); /* out of its hall, for another */
void connection_arrive(struct connection *connection, struct hall *hall);
void connection_leave(struct connection *connection); /* a Logout came */
void connection_ask(struct connection *connection); /* for a Logout */
/** Refused in the login, which says so itself. */
void connection_refuse(struct connection *connection);
/** Its queue was flushed as far as the socket takes it. */
void connection_flushed(struct connection *connection);
/** RFC 7143 5.3.2: full feature phase begins. */
void connection_open(struct connection *connection);

/* -- frame.c ----------------------------------------------------------------------------- */

/** The @index-th that is not wholly sent. */
struct frame *frame_at(struct send *out, unsigned index);
/** PDUs of what is queued, as many as there is room for. */
void frames_make(struct connection *connection);

/* -- send.c ------------------------------------------------------------------------------ */

bool send_start(struct connection *connection);
void send_queue(struct task *task, enum task_job job);
struct notice *send_notice(struct connection *connection); /* NULL: none free */
void send_schedule(struct connection *connection);
void send_flush(struct connection *connection);
bool send_idle(const struct connection *connection); /* nothing is left to send */
/** The connection is lost: everything counts as sent. */
void send_abandon(struct connection *connection);
void send_forget(struct task *task); /* its jobs, that are no PDUs yet */

/* -- session.c: command numbers, tasks, PDUs that are no SCSI ------------------------------ */

enum verdict { TAKE, LATER, DROP };

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

/* -- request.c: PDUs as they come -------------------------------------------------------- */

/** A header came: where does its data go? */
enum verdict session_header(struct connection *connection);
/** The whole PDU came. */
void session_payload(struct connection *connection, bool damaged);

/* -- question.c: Text requests ----------------------------------------------------------- */

/** The header of one came. True: it is rejected, for @reason, and what is asked goes on. */
bool question_fails(const struct connection *connection, enum pdu_reject *reason);
void question_begin(struct session *session, const uint8_t *header); /* it has a task */
void question_start(struct task *task);
void question_answered(struct session *session); /* its answer has left */
void question_forget(struct session *session);

/* -- command.c: SCSI commands ------------------------------------------------------------ */

extern const struct scsi_task_ops task_ops;
/** What is wrong with the data of a command PDU, NULL: nothing. */
const char *command_judge(const struct session *session, const uint8_t *header);
bool command_is_bidirectional(const uint8_t *header);
/** Bytes that may come unasked for. */
uint32_t command_unsolicited_max(const struct login_terms *terms, uint32_t expected);
enum verdict command_header(struct connection *connection, struct task *task);
void command_start(struct task *task); /* in the order of command numbers */
void command_over(struct task *task); /* the unit is done, and all its data came */
void command_abort(struct task *task);
void command_sent(struct task *task); /* a data-in buffer left */
/** No buffer for the data of the command that comes: it ends with TASK SET FULL. */
void command_refuse_full(struct connection *connection);

/* -- dataout.c --------------------------------------------------------------------------- */

enum verdict dataout_header(struct connection *connection);
void dataout_payload(struct connection *connection, bool damaged);
/** The command's own data came. */
void dataout_first(struct task *task, uint32_t length, bool damaged);
/** A buffer for up to @size bytes of data from @offset on. LATER: the connection waits. */
enum verdict dataout_room(struct connection *connection, struct task *task,
        uint32_t offset, uint32_t size);
void dataout_want(struct task *task, uint32_t offset, uint32_t length);
void dataout_check(struct task *task); /* is what was wanted there? */
void dataout_forget(struct task *task);
/** Unsolicited data follows, or R2T was made: data is owed from now on. */
void dataout_owed(struct task *task);
void dataout_tick(struct task *task, struct instant now);

/* -- management.c ------------------------------------------------------------------------ */

void management_start(struct task *task);
void management_task_over(
        struct task *task); /* those who asked for its end hear of it */

/* -- target.c: waiting ------------------------------------------------------------------- */

/** Locked; for target->changed. False: the deadline passed. */
bool target_wait(struct iscsi_target *target, const struct timespec *deadline);

/* -- grant.c: who may use an export ------------------------------------------------------ */

/** Judged and copied; owned by the caller, grant_destroy(). 0, -EINVAL, -ENOMEM. */
int grant_make(
        const struct iscsi_export *what, struct grant **grant, struct fault *fault);
void grant_destroy(struct grant *grant); /* NULL is fine */
/** In force from now on, in place of what was; takes @grant. Locked. */
void grant_take(struct export *export, struct grant **grant);

/* -- export.c ---------------------------------------------------------------------------- */

struct export *export_find_name(
        struct iscsi_target *target, const char *name); /* locked */
bool export_allows(const struct export *export, const char *initiator); /* locked */
/** Locked. A session of @initiator may go on; @proven: it came by CHAP. */
bool export_keeps(const struct export *export, const char *initiator, bool proven);

struct export *export_find_id(struct iscsi_target *target, const struct uuid *id);
/** The same one, not another of its id. Locked. */
struct export *export_still(
        struct iscsi_target *target, const struct uuid *id, uint64_t serial);
void export_unlink(struct export *export); /* locked */
void export_free(struct export *export);
void export_open(struct export *export); /* posts; it is in the list, OPENING */
/** Has it end on its loop: sessions are asked to go, and have @grace_ms. Locked, SERVING. */
void export_end(struct export *export, unsigned grace_ms);
/** Who may use it has changed. Locked, SERVING. */
void export_recheck(struct export *export);
void export_left(struct export *export); /* a session did; on its loop */
void exports_tick(struct hall *hall, struct instant now);

/* -- hall.c ------------------------------------------------------------------------------ */

bool hall_start(struct hall *hall, struct iscsi_target *target, struct loop *loop,
        size_t buffer_bytes);
void hall_finish(struct hall *hall);

void hall_tick_start(struct hall *hall);
void hall_connection_gone(struct hall *hall);

#endif

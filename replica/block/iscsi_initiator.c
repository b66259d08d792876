/* The one file that knows libiscsi (1.19). What it may be asked, and what not:
 *
 * - Its timeouts corrupt data (a timed-out command frees the PDU that is half sent), so one
 *   is set for the login alone; its reconnect replays commands under a new ISID, so it is off
 *   and a lost session is lost.
 * - It reports a lost session in many ways: a negative result, cancelled commands, or
 *   nothing at all while the descriptor stays readable. All of them end in in->lost, and
 *   the last is found by looking at the socket when nothing comes of being called.
 * - Its callbacks run deep inside it. They only note what happened; the owner hears of it
 *   after the library has returned, so that the owner may do anything, dropping included.
 * - Its commands are made from our own CDBs with our own buffers as iovecs, so that a target
 *   never decides how much we allocate. Its sense data is parsed by us: the library reads
 *   past the end of a short one.
 * - A target that goes on without asking for CHAP is not refused by it, mutual CHAP or not;
 *   nothing can be done about that from outside: a portal is trusted or it is not listed.
 * - It sends a PDU as two small segments; the socket is corked around a turn that sends.
 */
#include "replica/block/iscsi_initiator.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/block/address.h"

static_assert(sizeof(struct scsi_iovec) == sizeof(struct iovec) &&
                offsetof(struct scsi_iovec, iov_len) == offsetof(struct iovec, iov_len),
        "the library's iovec is the system's");

enum { SUSPICIOUS_TURNS = 64 }; /* fruitless calls before the socket is looked at */

/**
 * Before main(), while there is one thread: LIBISCSI_* changes the library's behaviour and
 * can make it print login keys; and its writev() raises SIGPIPE on a closed connection.
 */
__attribute__((constructor)) static void environment_clear(void)
{
    struct sigaction action;

    for (char **entry = environ; entry && *entry;) {
        char name[128];
        size_t length = strcspn(*entry, "=");
        if (strncmp(*entry, "LIBISCSI_", 9) != 0 || length >= sizeof(name)) {
            entry++;
            continue;
        }
        memcpy(name, *entry, length);
        name[length] = '\0';
        (void)unsetenv(name);
        entry = environ; /* the array was moved together */
    }
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
        (void)signal(SIGPIPE, SIG_IGN);
}

/* -- inside the library -------------------------------------------------------------- */

static void list_remove(struct initiator *in, struct initiator_command *command)
{
    if (command->previous)
        command->previous->next = command->next;
    else
        in->flying = command->next;
    if (command->next)
        command->next->previous = command->previous;
    command->next = command->previous = NULL;
    if (command->direction == INITIATOR_OUT)
        in->writing--;
}

static void answer_take(
        struct scsi_answer *answer, int status, const struct scsi_task *task)
{
    unsigned said, came;

    *answer = (struct scsi_answer){ .status = (uint8_t)status };
    if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW)
        answer->residual = (int64_t)task->residual;
    else if (task->residual_status == SCSI_RESIDUAL_OVERFLOW)
        answer->residual = -(int64_t)task->residual;
    if (status != SCSI_STATUS_CHECK_CONDITION || !task->datain.data ||
            task->datain.size < 2)
        return;
    /* The data segment is the length of the sense data in two bytes, then the sense data. */
    came = (unsigned)task->datain.size - 2;
    said = (unsigned)task->datain.data[0] << 8 | task->datain.data[1];
    if (said > came)
        return; /* torn: as good as none */
    answer->sense_length = said < SENSE_KEEP ? said : SENSE_KEEP;
    memcpy(answer->sense, task->datain.data + 2, answer->sense_length);
}

static void command_ended(
        struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct initiator_command *command = private_data;
    struct initiator *in = command->initiator;

    (void)context;
    (void)data; /* NULL for some: the task is remembered instead */
    if (status >= 0 && status <= 0xff) {
        answer_take(&command->answer, status, command->task);
        list_remove(in, command);
        *in->finished_end = command;
        in->finished_end = &command->next;
        in->idle_turns = 0;
    } else { /* cancelled, timed out, or an answer that is none: no more of this session */
        in->lost = true;
    }
    scsi_free_scsi_task(command->task);
    command->task = NULL;
}

/** The number in brackets at the end of the library's message: login class and detail. */
static unsigned login_status(const char *text)
{
    const char *bracket = strrchr(text, '(');
    unsigned status = 0;

    if (!strstr(text, "Failed to log in to target") || !bracket)
        return 0;
    return sscanf(bracket, "(%u)", &status) == 1 ? status : 0;
}

static void login_failed(struct initiator *in, const char *text)
{
    struct fault *fault = &in->login_fault;
    unsigned status = login_status(text);

    in->lost = true;
    if (fault->error)
        return;
    if (status == 0x0201 || status == 0x0202)
        fault_set(fault, -EACCES, "the target refused the login: %s",
                status == 0x0201 ? "authentication failed" : "not authorised");
    else if (status == 0x0203 || status == 0x0204)
        fault_set(fault, -ENODEV, "the portal has no such target");
    else if (status >> 8 == 1)
        fault_set(fault, -EIO, "the target redirects elsewhere, which is not followed");
    else if (status) /* class 3, RFC 7143 11.13.5: its own trouble, which may pass */
        fault_set(fault, status >> 8 == 3 ? -ECONNABORTED : -EIO,
                "the target refused the login with status %04x", status);
    else if (strncmp(text, "Authentication failed", 21) == 0)
        fault_set(fault, -EACCES, "the target could not prove who it is");
    else
        fault_set(fault, -ECONNABORTED,
                "the login ended without an answer that can be understood");
}

static void login_ended(
        struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct initiator *in = private_data;

    (void)data;
    in->logging_in = false;
    if (status == SCSI_STATUS_GOOD) {
        in->login_done = true;
        iscsi_set_timeout(context, 0); /* from here on deadlines are ours */
    } else if (status == SCSI_STATUS_REDIRECT) {
        in->lost = true;
        fault_set(&in->login_fault, -EIO,
                "the target redirects elsewhere, which is not followed");
    } else {
        login_failed(in, iscsi_get_error(context));
    }
}

static void connect_ended(
        struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct initiator *in = private_data;

    (void)data;
    if (status != SCSI_STATUS_GOOD || iscsi_login_async(context, login_ended, in) != 0)
        in->lost = true;
    else
        in->logging_in = true;
}

static void reset_ended(
        struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct initiator *in = private_data;
    uint32_t response = 0xff;

    (void)context;
    if (status != SCSI_STATUS_GOOD) {
        in->lost = true;
        return;
    }
    if (data)
        memcpy(&response, data, sizeof(response));
    in->reset_result = response == 0 ? 0 : -EIO;
    in->reset_done = true;
}

static void logout_ended(
        struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct initiator *in = private_data;

    (void)context;
    (void)status;
    (void)data;
    in->logout_done = true;
}

/* -- around the library -------------------------------------------------------------- */

static void cork(struct initiator *in, int on)
{
    (void)setsockopt(in->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

/** One call of the library, which notes what it did in @in. */
static void service(struct initiator *in, int events)
{
    /* A lone small command is one segment anyway. */
    bool corked = (events & POLLOUT) &&
            (in->writing || iscsi_out_queue_length(in->context) > 1);

    in->inside = true;
    in->idle_turns++;
    if (corked)
        cork(in, 1);
    if (iscsi_service(in->context, events) < 0)
        in->lost = true;
    if (corked)
        cork(in, 0);
    if (iscsi_get_fd(in->context) != in->fd) /* it closed it, or opened another */
        in->lost = true;
    if (in->lost && !in->login_done)
        login_failed(in, iscsi_get_error(in->context));
    in->inside = false;
}

/** False when the far side is gone, though the library did not notice. */
static bool socket_lives(struct initiator *in)
{
    char byte;
    ssize_t n = recv(in->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    in->idle_turns = 0;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/** Until the login the library connects: its errno is asked for before it can swallow it. */
static bool connection_failed(struct initiator *in)
{
    int error = 0;
    socklen_t size = sizeof(error);

    if (in->logging_in || in->login_done ||
            getsockopt(in->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error == 0)
        return false;
    in->lost = true;
    fault_set(&in->login_fault, -error, "the portal cannot be reached: %s",
            strerrordesc_np(error));
    return true;
}

static void deliver(struct initiator *in)
{
    struct initiator_command *command;

    while ((command = in->finished)) {
        in->finished = command->next;
        if (!in->finished)
            in->finished_end = &in->finished;
        command->next = NULL;
        command->done(command);
    }
}

/** Tell the owner what the library noted. The owner may drop in any of these. */
static void notify(struct initiator *in, bool was_up)
{
    static const struct fault none;

    deliver(in);
    if (in->context && in->login_done && !was_up && !in->lost)
        in->up(in, &none);
    if (in->context && in->reset_done) {
        in->reset_done = false;
        in->was_reset(in, in->reset_result);
    }
    if (in->context && in->logout_done) {
        in->logout_done = false;
        in->logged_out(in);
    }
}

static void session_lost(struct initiator *in, bool was_up)
{
    initiator_drop(in);
    if (was_up) {
        in->down(in, "the session was lost");
        return;
    }
    if (!in->login_fault.error)
        fault_set(&in->login_fault, -EIO, "the connection cannot be served");
    in->up(in, &in->login_fault);
}

static void watch_update(struct initiator *in)
{
    int wanted = iscsi_which_events(in->context);
    unsigned events = ((wanted & POLLIN) ? (unsigned)LOOP_READABLE : 0u) |
            ((wanted & POLLOUT) ? (unsigned)LOOP_WRITABLE : 0u);

    /* 0 means "sleep and ask again", which the library says only of its own reconnects. */
    if (events == 0 || loop_watch_set(in->loop, &in->watch, in->fd, events) != 0)
        in->lost = true;
}

static void turn(struct initiator *in, int events)
{
    bool was_up = in->login_done;

    in->turning = true;
    service(in, events);
    notify(in, was_up);
    was_up = in->login_done;
    if (in->context && !in->lost && iscsi_out_queue_length(in->context) > 0 &&
            (iscsi_which_events(in->context) & POLLOUT)) {
        service(in,
                POLLOUT); /* what the answers gave rise to goes out in the same turn */
        notify(in, was_up);
    }
    in->turning = false;
    if (in->context && !in->lost)
        watch_update(in);
    if (in->context && in->lost)
        session_lost(in, was_up);
}

static void watch_ready(struct loop_watch *watch, unsigned events)
{
    struct initiator *in = container_of(watch, struct initiator, watch);
    int poll_events = ((events & LOOP_READABLE) ? POLLIN : 0) |
            ((events & LOOP_WRITABLE) ? POLLOUT : 0);

    if (connection_failed(in) ||
            ((events & LOOP_READABLE) && in->login_done &&
                    (!in->flying || in->idle_turns >= SUSPICIOUS_TURNS) &&
                    !socket_lives(in)))
        session_lost(in, in->login_done);
    else
        turn(in, poll_events);
}

static void flush_run(struct loop_task *task)
{
    struct initiator *in = container_of(task, struct initiator, flush);

    if (in->context && iscsi_out_queue_length(in->context) > 0)
        turn(in, POLLOUT);
    else if (in->context && in->lost)
        session_lost(in, in->login_done);
}

static void flush_soon(struct initiator *in)
{
    if (!in->turning && !in->flush.queued)
        loop_post(in->loop, &in->flush);
}

/* -- the face ------------------------------------------------------------------------ */

static void options_set(struct initiator *in, const struct block_spec *spec)
{
    struct iscsi_context *context = in->context;

    iscsi_set_log_level(context, 0);
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_targetname(context, spec->target);
    iscsi_set_isid_random(context, (uint32_t)(spec->isid >> 16) & 0xffffff,
            (uint32_t)spec->isid & 0xffff);
    /* Beyond our own deadline for the login, so that it never decides. */
    iscsi_set_timeout(context, (int)(spec->connect_timeout_ms / 1000 + 2));
    if (spec->chap && spec->chap->user[0]) {
        iscsi_set_initiator_username_pwd(context, spec->chap->user, spec->chap->secret);
        if (spec->chap->mutual_user[0])
            iscsi_set_target_username_pwd(
                    context, spec->chap->mutual_user, spec->chap->mutual_secret);
    }
}

static int connect_start(
        struct initiator *in, const struct block_spec *spec, struct fault *fault)
{
    char portal[BLOCK_PORTAL_TEXT];
    int on = 1, error;

    portal_format(&spec->portal, portal);
    errno = 0;
    if (iscsi_connect_async(in->context, portal, connect_ended, in) != 0) {
        error = errno ? errno : EIO;
        return fault_set(fault, -error, "the portal cannot be reached: %s",
                strerrordesc_np(error));
    }
    in->fd = iscsi_get_fd(in->context);
    (void)fcntl(in->fd, F_SETFD, FD_CLOEXEC);
    (void)setsockopt(in->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    error = loop_watch_set(in->loop, &in->watch, in->fd, LOOP_WRITABLE);
    if (error)
        return fault_set(fault, error, "the connection cannot be watched");
    return 0;
}

int initiator_connect(
        struct initiator *in, const struct block_spec *spec, struct fault *fault)
{
    int result;

    in->fd = -1;
    /* The library writes the number as it is: peripheral addressing below 256, flat above. */
    in->lun = spec->lun < 256 ? spec->lun : 0x4000 | spec->lun;
    in->flying = in->finished = NULL;
    in->finished_end = &in->finished;
    in->watch.ready = watch_ready;
    in->flush.run = flush_run;
    in->context = iscsi_create_context(spec->initiator);
    if (!in->context)
        return fault_set(fault, -ENOMEM, "no memory for a session");
    options_set(in, spec);
    result = connect_start(in, spec, fault);
    if (result)
        initiator_drop(in);
    return result;
}

void initiator_send(struct initiator *in, struct initiator_command *command)
{
    static const int directions[] = { SCSI_XFER_NONE, SCSI_XFER_READ, SCSI_XFER_WRITE };
    struct scsi_task *task;

    check(in->context && !command->task && !command->next && !command->previous);
    command->initiator = in;
    command->answer = (struct scsi_answer){ .lost = true };
    command->next = in->flying;
    if (in->flying)
        in->flying->previous = command;
    in->flying = command;
    if (command->direction == INITIATOR_OUT)
        in->writing++;
    flush_soon(in);

    task = scsi_create_task((int)command->cdb_size, command->cdb,
            directions[command->direction], (int)command->length);
    if (!task) {
        in->lost = true; /* out of memory: the flush finds it */
        return;
    }
    if (command->direction == INITIATOR_IN)
        scsi_task_set_iov_in(task, (struct scsi_iovec *)command->iov, command->iovcnt);
    else if (command->direction == INITIATOR_OUT)
        scsi_task_set_iov_out(task, (struct scsi_iovec *)command->iov, command->iovcnt);
    command->task = task;
    if (iscsi_scsi_command_async(
                in->context, (int)in->lun, task, command_ended, NULL, command) != 0) {
        scsi_free_scsi_task(task);
        command->task = NULL;
        in->lost = true;
    }
}

int initiator_reset(struct initiator *in)
{
    check(in->context && !in->flying);
    if (iscsi_task_mgmt_lun_reset_async(in->context, in->lun, reset_ended, in) != 0)
        return -ENOMEM;
    flush_soon(in);
    return 0;
}

int initiator_logout(struct initiator *in)
{
    check(in->context);
    if (iscsi_logout_async(in->context, logout_ended, in) != 0)
        return -ENOMEM;
    flush_soon(in);
    return 0;
}

void initiator_drop(struct initiator *in)
{
    struct linger at_once = { .l_onoff = 1, .l_linger = 0 };
    struct iscsi_context *context = in->context;
    struct initiator_command *command;

    if (!context)
        return;
    check(!in->inside);
    loop_watch_stop(in->loop, &in->watch);
    if (in->fd >= 0)
        (void)setsockopt(in->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    in->inside = true; /* its last callbacks: commands cancelled, tasks freed */
    /* The library does not wipe its copies of the secrets. */
    iscsi_set_initiator_username_pwd(context, "", "");
    iscsi_set_target_username_pwd(context, "", "");
    iscsi_destroy_context(context);
    in->inside = false;
    in->context = NULL;
    in->fd = -1;
    in->lost = true;

    deliver(in); /* what was answered before the end */
    while ((command = in->flying)) {
        list_remove(in, command);
        if (command->task) { /* its callback never came */
            scsi_free_scsi_task(command->task);
            command->task = NULL;
        }
        command->answer.lost = true;
        command->done(command);
    }
}

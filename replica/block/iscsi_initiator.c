/* The one file that knows libiscsi (1.19), which connects and logs in here, and no more:
 *
 * - Its timeouts corrupt data (a timed-out command frees the PDU that is half sent), its
 *   cancelled commands leave holes in the numbers, its reconnect replays commands under a
 *   new ISID, short data passes for success with it, and it wants two system calls a PDU.
 *   Hence from the login on the socket is iscsi_wire.h's, and the library only keeps it.
 * - What the login agreed on it does not tell: every login response is looked at while it
 *   still stands in the socket, whole, before the library is called to read it.
 * - It reports a lost connection in many ways. All of them end in in->lost.
 * - Its callbacks run deep inside it. They only note what happened; the owner hears of it
 *   after the library has returned, so that the owner may do anything, dropping included.
 * - A target that goes on without asking for CHAP is not refused by it, mutual CHAP or not;
 *   nothing can be done about that from outside: a portal is trusted or it is not listed.
 */
#include "replica/block/iscsi_initiator.h"

#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
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

enum {
    LOGIN_MOST = TERMS_HEADER + 255 * 4 + 8192, /* bytes of a login response */
    /* Bytes read in one turn of the loop: about what the caches of one core hold, so that
       what was read is sent on while it is still there, and others have their turn. */
    RECEIVE_TURN = 512 << 10
};

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

/* -- around the library -------------------------------------------------------------- */

/** One call of the library, which notes what it did in @in. */
static void service(struct initiator *in, int events)
{
    in->inside = true;
    if (iscsi_service(in->context, events) < 0)
        in->lost = true;
    if (iscsi_get_fd(in->context) != in->fd) /* it closed it, or opened another */
        in->lost = true;
    if (in->lost && !in->login_done)
        login_failed(in, iscsi_get_error(in->context));
    in->inside = false;
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

static void low_mark(struct initiator *in, size_t bytes)
{
    int mark = (int)bytes;

    in->login_mark = bytes;
    (void)setsockopt(in->fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof(mark));
}

/**
 * Look at the login response in the socket. False while it is not whole: the socket is
 * not readable before it is, or has ended.
 */
static bool login_look(struct initiator *in)
{
    uint8_t bytes[LOGIN_MOST];
    ssize_t n = recv(in->fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
    size_t had = n > 0 ? (size_t)n : 0, want = TERMS_HEADER;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (had >= want)
        want = terms_pdu_length(bytes);
    if (had < want && want <= LOGIN_MOST && n > 0 && in->login_mark != want) {
        low_mark(in, want);
        return false;
    }
    low_mark(in, 1);
    if (had < want) /* it ended, or says too much: the library will tell */
        in->lost = want > LOGIN_MOST;
    else if (terms_take(&in->terms, bytes, had) != 0)
        in->lost = true;
    if (in->lost)
        fault_set(&in->login_fault, -EIO, "the target's login answer makes no sense");
    return true;
}

/* -- the session ---------------------------------------------------------------------- */

static void deliver(struct initiator *in)
{
    struct initiator_command *command;

    while (in->context && (command = wire_list_take(&in->wire.finished)))
        command->done(command);
}

/** Tell the owner what happened. The owner may drop in any of these. */
static void notify(struct initiator *in)
{
    deliver(in);
    if (in->context && in->wire.reset_done) {
        in->wire.reset_done = false;
        in->was_reset(in, in->wire.reset_result);
    }
    if (in->context && in->wire.logout_done) {
        in->wire.logout_done = false;
        in->logged_out(in);
    }
}

static void session_lost(struct initiator *in)
{
    bool was_up = in->login_done;

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
    unsigned events = LOOP_READABLE | (in->wire.blocked ? (unsigned)LOOP_WRITABLE : 0u);
    int wanted;

    if (!in->login_done) {
        wanted = iscsi_which_events(in->context);
        events = ((wanted & POLLIN) ? (unsigned)LOOP_READABLE : 0u) |
                ((wanted & POLLOUT) ? (unsigned)LOOP_WRITABLE : 0u);
    }
    /* 0 means "sleep and ask again", which the library says only of its own reconnects. */
    if (events == 0 || loop_watch_set(in->loop, &in->watch, in->fd, events) != 0)
        in->lost = true;
}

static void turn_end(struct initiator *in)
{
    if (in->context && !in->lost && !in->wire.lost)
        watch_update(in);
    if (in->context && (in->lost || in->wire.lost))
        session_lost(in);
}

/** Read, tell, and send what the answers gave rise to in the same turn. */
static void turn(struct initiator *in, bool readable)
{
    in->turning = true;
    if (readable)
        wire_receive(&in->wire, RECEIVE_TURN);
    notify(in);
    if (in->context && !in->wire.lost)
        wire_send(&in->wire);
    if (in->context)
        notify(in);
    in->turning = false;
    turn_end(in);
}

static void login_turn(struct initiator *in, unsigned events)
{
    static const struct fault none;
    int poll_events = ((events & LOOP_READABLE) ? POLLIN : 0) |
            ((events & LOOP_WRITABLE) ? POLLOUT : 0);

    if (connection_failed(in)) {
        session_lost(in);
        return;
    }
    if ((poll_events & POLLIN) && in->logging_in && !login_look(in))
        poll_events &= ~POLLIN;
    if (poll_events && !in->lost)
        service(in, poll_events);
    if (in->login_done && !in->terms.told)
        in->lost = true; /* cannot be: nothing was read but what had been looked at */
    if (in->login_done && !in->lost) {
        wire_begin(&in->wire, in->fd, in->lun, &in->terms);
        in->turning = true;
        in->up(in, &none);
        in->turning = false;
        if (in->context) {
            turn(in, false);
            return;
        }
    }
    turn_end(in);
}

static void watch_ready(struct loop_watch *watch, unsigned events)
{
    struct initiator *in = container_of(watch, struct initiator, watch);

    if (in->login_done)
        turn(in, (events & LOOP_READABLE) != 0);
    else
        login_turn(in, events);
}

static void flush_run(struct loop_task *task)
{
    struct initiator *in = container_of(task, struct initiator, flush);

    if (in->context && in->login_done && (in->wire.lost || !in->wire.blocked))
        turn(in, false);
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
    (void)iscsi_set_header_digest(context, ISCSI_HEADER_DIGEST_NONE);
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
    /* Peripheral addressing below 256, flat above. */
    in->lun = spec->lun < 256 ? spec->lun : 0x4000 | spec->lun;
    terms_init(&in->terms);
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
    check(in->context && in->login_done && !command->next);
    command->initiator = in;
    command->answer = (struct scsi_answer){ .lost = true };
    wire_queue(&in->wire, command);
    flush_soon(in);
}

uint64_t initiator_heard(struct initiator *in)
{
    return in->context && in->login_done ? wire_heard(&in->wire) : UINT64_MAX;
}

void initiator_reset(struct initiator *in)
{
    check(in->context && in->login_done && in->wire.outstanding == 0);
    wire_queue_reset(&in->wire);
    flush_soon(in);
}

int initiator_logout(struct initiator *in)
{
    check(in->context);
    if (!in->login_done)
        return -ENOTCONN;
    wire_queue_logout(&in->wire);
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
    in->inside = true; /* its last callbacks: a login cancelled */
    /* The library does not wipe its copies of the secrets. */
    iscsi_set_initiator_username_pwd(context, "", "");
    iscsi_set_target_username_pwd(context, "", "");
    iscsi_destroy_context(context);
    in->inside = false;
    in->context = NULL;
    in->fd = -1;
    in->lost = true;

    if (!in->login_done)
        return;
    while ((command = wire_list_take(&in->wire.finished))) /* answered before the end */
        command->done(command);
    while ((command = wire_take_lost(&in->wire))) {
        command->answer.lost = true;
        command->done(command);
    }
}

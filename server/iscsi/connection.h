/* server/iscsi/connection.h - a connection: its life, and what comes in.
 *
 * A connection, its session and its tasks belong to one loop at a time: the first one while
 * it logs in, that of its export from then on. What is declared here is for that loop.
 */
#ifndef SERVER_ISCSI_CONNECTION_H
#define SERVER_ISCSI_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "replica/base/clock.h"
#include "replica/base/fsm.h"
#include "replica/loop/loop.h"
#include "server/iscsi/pdu.h"
#include "server/iscsi/send.h"

struct entry;
struct hall;
struct iscsi_target;
struct session;
struct task;

enum {
    RECEIVE_BUFFER = 64 << 10, /* bytes */
    MOVE_RATE = 32 << 10 /* bytes a second; what moves faster is not stuck */
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

#endif

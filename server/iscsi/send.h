/* server/iscsi/send.h - what goes out. On the connection's loop. */
#ifndef SERVER_ISCSI_SEND_H
#define SERVER_ISCSI_SEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "replica/base/clock.h"
#include "replica/loop/loop.h"
#include "server/iscsi/pdu.h"

struct connection;
struct task;

enum {
    NOTICES = 8, /* PDUs that answer no task: Reject, NOP-In, async message */
    FRAMES = 64 /* PDUs made and not wholly sent */
};

/* What of a task waits to be sent. */
enum task_job { JOB_R2T = 1, JOB_DATA = 2, JOB_ANSWER = 4 };

/* A PDU to a peer that is no answer to a task. */
struct notice {
    uint8_t header[PDU_HEADER];
    uint8_t data[PDU_HEADER];
    uint8_t length;
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

/* -- frame.c: PDUs ------------------------------------------------------------------------ */

/** The @index-th that is not wholly sent. */
struct frame *frame_at(struct send *out, unsigned index);
/** PDUs of what is queued, as many as there is room for. */
void frames_make(struct connection *connection);

/* -- send.c: the queue -------------------------------------------------------------------- */

bool send_start(struct connection *connection);
void send_queue(struct task *task, enum task_job job);
struct notice *send_notice(struct connection *connection); /* NULL: none free */
void send_schedule(struct connection *connection);
void send_flush(struct connection *connection);
bool send_idle(const struct connection *connection); /* nothing is left to send */
/** The connection is lost: everything counts as sent. */
void send_abandon(struct connection *connection);
void send_forget(struct task *task); /* its jobs, that are no PDUs yet */

#endif

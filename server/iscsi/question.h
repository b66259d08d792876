/* server/iscsi/question.h - Text requests in full feature phase. On the connection's loop. */
#ifndef SERVER_ISCSI_QUESTION_H
#define SERVER_ISCSI_QUESTION_H

#include <stdbool.h>
#include <stdint.h>

#include "server/iscsi/login.h"
#include "server/iscsi/pdu.h"

struct buffer;
struct connection;
struct session;
struct task;

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

/** The header of one came. True: it is rejected, for @reason, and what is asked goes on. */
bool question_fails(const struct connection *connection, enum pdu_reject *reason);
void question_begin(struct session *session, const uint8_t *header); /* it has a task */
void question_start(struct task *task);
void question_answered(struct session *session); /* its answer has left */
void question_forget(struct session *session);

#endif

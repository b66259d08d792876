/* Text requests in full feature phase: RFC 7143 11.10, 11.11, appendix C.
 *
 * A question is one PDU. Its answer is made a buffer at a time: what was said of keys, then the
 * targets that may be seen, the newest first, whole ones, in one walk over the exports that
 * goes on behind the last one told when the peer asks on. So a list of any length costs one
 * buffer, and exports that come or go meanwhile do not disturb it. Discovery has a large
 * buffer: there are initiators that take their list in one PDU or not at all. */
#include "server/iscsi/question.h"

#include <stdio.h>
#include <string.h>

#include "replica/base/scope.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/export.h"
#include "server/iscsi/grant.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"
#include "server/iscsi/text.h"

/* -- the list ------------------------------------------------------------------------------ */

static bool may_see(const struct export *export, const struct login_result *who)
{
    if (export->state != EXPORT_SERVING || !export_allows(export, who->initiator))
        return false;
    if (who->session == LOGIN_NORMAL)
        return strcmp(export->name, who->target) == 0;
    return !export->grant->has_chap || strcmp(export->grant->chap.user, who->user) == 0;
}

/* All of it, or nothing and false. */
static bool target_write(
        struct text_writer *writer, const char *name, const char *portal)
{
    size_t before = writer->length;

    text_write_key(writer, "TargetName", name);
    text_write_key(writer, "TargetAddress", portal);
    if (writer->overflow)
        writer->length = before;
    return !writer->overflow;
}

/* As many as fit behind what is in the buffer. */
static void targets_list(struct session *session)
{
    struct iscsi_target *target = session->connection->target;
    struct question *question = &session->question;
    struct text_writer writer = { .at = question->buffer->bytes,
        .length = question->length,
        .room = question->buffer->size };
    const struct export *export;
    char portal[64];

    (void)snprintf(portal, sizeof portal, "%.60s,1", session->connection->portal);
    pthread_mutex_lock(&target->lock);
    for (export = target->exports; export; export = export->next) {
        if (export->serial >= question->before || !may_see(export, &session->terms) ||
                (question->list.name[0] &&
                        strcmp(export->name, question->list.name) != 0))
            continue;
        if (!target_write(&writer, export->name, portal))
            break;
        question->before = export->serial;
    }
    pthread_mutex_unlock(&target->lock);
    question->list.wanted = export != NULL;
    question->length = (uint32_t)writer.length;
}

/* -- the question -------------------------------------------------------------------------- */

bool question_fails(const struct connection *connection, enum pdu_reject *reason)
{
    const struct session *session = connection->session;
    const uint8_t *header = connection->in.header;
    uint32_t length = connection->in.length, ttt = pdu_ttt(header);
    bool asks_on = ttt != PDU_NO_TAG;

    if (header[1] & PDU_CONTINUE || (!pdu_final(header) && !asks_on))
        *reason = PDU_REJECT_NOT_SUPPORTED; /* questions in pieces: too long for us */
    else if (session->question.busy || length > LOGIN_DATA_MAX)
        *reason = PDU_REJECT_PROTOCOL;
    else if (asks_on && (ttt != session->question.ttt || length > 0))
        *reason = PDU_REJECT_INVALID_FIELD;
    else
        return false;
    return true;
}

void question_begin(struct session *session, const uint8_t *header)
{
    if (pdu_ttt(header) == PDU_NO_TAG)
        session->question.ttt = PDU_NO_TAG;
    session->question.final = pdu_final(header);
    session->question.busy = true;
}

/* NULL, or why the connection ends. */
static const char *answer_make(struct task *task)
{
    struct session *session = task->session;
    struct question *question = &session->question;
    size_t size = session->export ? BUFFER_SMALL : BUFFER_LARGE;
    int length;

    if (!question->buffer)
        question->buffer = buffer_take(&session->share, size);
    if (!question->buffer)
        return "no buffer";
    length = login_text(task->in ? task->in->bytes : NULL, task->in_length,
            session->terms.session, session->terms.target, &session->terms.terms,
            &question->list, question->buffer->bytes, question->buffer->size);
    if (length < 0)
        return "bad text";
    question->at = 0;
    question->length = (uint32_t)length;
    question->before = UINT64_MAX;
    if (question->list.wanted)
        targets_list(session);
    return NULL;
}

static void answer_go_on(struct session *session)
{
    struct question *question = &session->question;

    if (question->at < question->length || !question->list.wanted)
        return;
    question->at = question->length = 0;
    targets_list(session);
}

void question_start(struct task *task)
{
    struct session *session = task->session;
    struct question *question = &session->question;
    uint32_t most = session->terms.terms.send_max & ~UINT32_C(3);
    const char *why = NULL;

    if (question->ttt == PDU_NO_TAG)
        why = answer_make(task);
    else
        answer_go_on(session);
    if (why) {
        task_free(task); /* it has no answer, and nobody else ends it */
        connection_finish(session->connection, why);
        return;
    }
    question->goes_on = question->length - question->at > most || question->list.wanted;
    question->ttt = PDU_NO_TAG;
    if (question->goes_on || !question->final) /* who may say more has the last word */
        question->ttt = ++session->pings & 0x7fffffff;
    task_answer(task);
}

void question_answered(struct session *session)
{
    struct question *question = &session->question;

    question->busy = false;
    if (question->ttt == PDU_NO_TAG)
        question_forget(session);
}

void question_forget(struct session *session)
{
    if (session->question.buffer)
        buffer_give(session->question.buffer);
    session->question.buffer = NULL;
}

/* A whole login: each PDU of the input is 4 bytes (byte 1 of its header, an opcode or what to
 * break, and a length of two bytes), then its text. The first byte says what the asker says.
 * Text of full feature phase comes last. */
#include <stdlib.h>

#include "tests/server/iscsi/login_rig.h"
#include "tests/support/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/** What must be true of whoever is let in, and of every answer. */
static void step_check(const struct login_rig *rig, enum login_next next)
{
    size_t length = pdu_data_length(rig->answer);
    const struct login_terms *terms = &rig->result.terms;

    if (next == LOGIN_DROP)
        return;
    must(rig->answer[0] == PDU_LOGIN_RESPONSE && length <= LOGIN_DATA_MAX);
    must((rig_status(rig) == 0) == (next != LOGIN_REFUSED));
    if (next == LOGIN_REFUSED)
        must(length == 0 && rig_status(rig) >> 8 >= 2);
    if (length < LOGIN_DATA_MAX)
        must(rig->data[length] == 0xa5); /* nothing behind its end */
    if (next != LOGIN_FULL_FEATURE)
        return;
    must(rig->access == LOGIN_OPEN || rig->access == LOGIN_WITH_CHAP);
    must(rig->accesses == 1 && rig->failures == 0 && !rig->throttled);
    must((rig->access == LOGIN_WITH_CHAP) == (rig->result.user[0] != 0));
    must(rig->answer[1] & 0x80 && !(rig->answer[1] & 0x40));
    must(terms->send_max >= 512 && terms->send_max < 1 << 24);
    must(terms->max_burst >= 512 && terms->max_burst <= 262144);
    must(terms->first_burst <= terms->max_burst && terms->first_burst >= 512);
    must(terms->max_outstanding_r2t >= 1 && terms->max_outstanding_r2t <= 8);
    must(terms->error_recovery_level == 0 && terms->time2wait <= 3600);
    must(rig->result.initiator[0] &&
            (rig->result.target[0] != 0) == (rig->result.session == LOGIN_NORMAL));
}

/** The rest as text of the session. */
static void text_try(
        const struct login_rig *rig, const uint8_t *bytes, size_t length, size_t room)
{
    uint8_t *copy = malloc(length + 1), *answer = malloc(room + 1);
    struct login_terms terms = rig->result.terms;
    struct login_list list;
    int answered;

    must(copy && answer);
    memcpy(copy, bytes, length);
    answered = login_text(copy, length, rig->result.session, rig->result.target, &terms,
            &list, answer, room);
    must(memchr(list.name, 0, sizeof list.name) != NULL);
    must(answered >= -1 && answered <= (int)room && terms.send_max >= 512);
    free(copy);
    free(answer);
}

static enum login_next pdu_send(
        struct login_rig *rig, const uint8_t *head, const uint8_t *text, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1); /* of just its size */
    enum login_next next;

    must(copy != NULL);
    memcpy(copy, text, length);
    if (head[1] & 0x80) /* another opcode, or one byte of the header else */
        rig->bhs[0] = head[1] & 0x7f;
    else if (head[1])
        rig->bhs[head[1] % 48] ^= 1;
    next = rig_send_bytes(rig, head[0], copy, length);
    free(copy);
    step_check(rig, next);
    return next;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const enum login_access accesses[] = { LOGIN_OPEN, LOGIN_WITH_CHAP,
        LOGIN_WITH_CHAP, LOGIN_WITH_CHAP, LOGIN_FORBIDDEN, LOGIN_UNKNOWN_TARGET };
    static struct login_rig rig;
    enum login_next next = LOGIN_GO_ON;
    size_t at = 1;

    if (length == 0)
        return 0;
    rig_start(&rig, accesses[bytes[0] % 6]);
    must(rig.login != NULL);
    rig.throttled = bytes[0] == 255;
    while (next == LOGIN_GO_ON && length - at >= 4) {
        const uint8_t *head = bytes + at;
        size_t data = be16_get(head + 2);

        at += 4;
        if (data > length - at)
            data = length - at;
        if (data > LOGIN_DATA_MAX)
            data = LOGIN_DATA_MAX;
        next = pdu_send(&rig, head, bytes + at, data);
        at += data;
    }
    if (next == LOGIN_FULL_FEATURE)
        text_try(&rig, bytes + at, length - at, length % 300);
    rig_stop(&rig);
    return 0;
}

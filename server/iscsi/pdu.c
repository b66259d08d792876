#include "server/iscsi/pdu.h"

#include <stddef.h>

/* A header is judged in the order of what it can do to us: lengths first, then whether such
 * a PDU may come at all, then its own fields. A fault that leaves framing and trust alone is
 * rejected; everything else costs the peer its connection. */

enum pdu_rule { DATA = 1, TAG = 2, FINAL = 4, DISCOVERY = 8 };

typedef enum pdu_fault pdu_check_f(const uint8_t *bhs, enum pdu_reject *reason);

static enum pdu_fault drop(enum pdu_reject *reason, enum pdu_reject why)
{
    *reason = why;
    return PDU_DROP;
}

static enum pdu_fault reject(enum pdu_reject *reason, enum pdu_reject why)
{
    *reason = why;
    return PDU_ANSWER_REJECT;
}

static enum pdu_fault nothing_check(const uint8_t *bhs, enum pdu_reject *reason)
{
    (void)bhs, (void)reason;
    return PDU_FINE;
}

static enum pdu_fault never_check(const uint8_t *bhs, enum pdu_reject *reason)
{
    (void)bhs;
    return drop(reason, PDU_REJECT_PROTOCOL);
}

/** Without a tag it asks for no answer, and only an immediate one may do so. */
static enum pdu_fault nop_check(const uint8_t *bhs, enum pdu_reject *reason)
{
    if (pdu_itt(bhs) == PDU_NO_TAG && !pdu_immediate(bhs))
        return reject(reason, PDU_REJECT_PROTOCOL);
    return PDU_FINE;
}

static enum pdu_fault command_check(const uint8_t *bhs, enum pdu_reject *reason)
{
    enum { READ = 0x40, WRITE = 0x20, ATTRIBUTE = 0x07 };
    bool write = bhs[1] & WRITE;

    if (pdu_data_length(bhs) >
            be32_get(bhs + 20)) /* more than it says it will ever send */
        return drop(reason, PDU_REJECT_PROTOCOL);
    if (!write && pdu_data_length(bhs) > 0)
        return drop(reason, PDU_REJECT_PROTOCOL);
    if (write && (bhs[1] & READ)) /* both ways needs an AHS for the second length */
        return reject(reason, PDU_REJECT_NOT_SUPPORTED);
    if (!write && !pdu_final(bhs)) /* no data of its own can follow it */
        return reject(reason, PDU_REJECT_INVALID_FIELD);
    if ((bhs[1] & ATTRIBUTE) > 4)
        return reject(reason, PDU_REJECT_INVALID_FIELD);
    return PDU_FINE;
}

/** F says that all was said, C that more comes: not both. */
static enum pdu_fault text_check(const uint8_t *bhs, enum pdu_reject *reason)
{
    enum { CONTINUE = 0x40 };

    if (pdu_final(bhs) && (bhs[1] & CONTINUE))
        return drop(reason, PDU_REJECT_PROTOCOL);
    return PDU_FINE;
}

/** An empty one may end a sequence, but an endless run of them moves nothing. */
static enum pdu_fault data_check(const uint8_t *bhs, enum pdu_reject *reason)
{
    if (pdu_data_length(bhs) == 0 && !pdu_final(bhs))
        return drop(reason, PDU_REJECT_PROTOCOL);
    return PDU_FINE;
}

/** Close the session, close the connection, remove it for recovery; no fourth reason. */
static enum pdu_fault logout_check(const uint8_t *bhs, enum pdu_reject *reason)
{
    if ((bhs[1] & 0x7f) > 2)
        return reject(reason, PDU_REJECT_INVALID_FIELD);
    return PDU_FINE;
}

static enum pdu_fault snack_check(const uint8_t *bhs, enum pdu_reject *reason)
{
    (void)bhs;
    return reject(reason, PDU_REJECT_SNACK);
}

static const struct pdu_row {
    pdu_check_f *check; /* NULL: no such opcode */
    unsigned rules;
} rows[64] = {
#define PDU(opcode, rules, check, section) [opcode] = { check, rules },
#include "server/iscsi/pdu.tbl.h"
#undef PDU
};

enum pdu_fault pdu_judge(
        const uint8_t *bhs, const struct pdu_limits *limits, enum pdu_reject *reason)
{
    const struct pdu_row *row = &rows[pdu_opcode(bhs)];

    if (!row->check)
        return drop(reason, PDU_REJECT_NOT_SUPPORTED);
    if (pdu_data_length(bhs) > limits->data_max)
        return drop(reason, PDU_REJECT_PROTOCOL);
    if (pdu_ahs_length(bhs) > 0)
        return drop(reason, PDU_REJECT_NOT_SUPPORTED);
    if (limits->discovery && !(row->rules & DISCOVERY))
        return drop(reason, PDU_REJECT_PROTOCOL);
    if (!(row->rules & DATA) && pdu_data_length(bhs) > 0)
        return drop(reason, PDU_REJECT_PROTOCOL);
    if ((row->rules & TAG) && pdu_itt(bhs) == PDU_NO_TAG)
        return drop(reason, PDU_REJECT_PROTOCOL);
    if ((row->rules & FINAL) && !pdu_final(bhs))
        return reject(reason, PDU_REJECT_INVALID_FIELD);
    return row->check(bhs, reason);
}

#include "server/iscsi/login_inside.h"

#include <stdlib.h>
#include <string.h>

#include "replica/base/fsm.h"

/* One PDU is judged in this order, and the first fault ends the login with a status:
 *
 *   its header by itself      lengths, version, flags
 *   its header by the login   stage, what must stay the same, whether our answer waits
 *   its text, when whole      read, every key offered; names, then who it is, then the rest
 *
 * Only then is an answer built, and the stage left when T asks for it and nothing is owed. */

#define TO(state) (UINT64_C(1) << (state))
static const struct fsm_state states[] = {
    [WAITING] = { "S3 waiting",
            TO(SECURING) | TO(OPERATING) | TO(REFUSED) }, /* T4, T7 */
    [SECURING] = { "S4 security", TO(OPERATING) | TO(LOGGED_IN) | TO(REFUSED) },
    [OPERATING] = { "S4 operational", TO(LOGGED_IN) | TO(REFUSED) }, /* T5, T7 */
    [LOGGED_IN] = { "S5 logged in", 0 },
    [REFUSED] = { "S1 refused", 0 },
};
static const struct fsm_table machine = { "login", states,
    sizeof states / sizeof states[0] };

struct login *login_create(const struct login_asker *asker)
{
    struct login *login = calloc(1, sizeof *login);

    if (!login)
        return NULL;
    login->asker = asker;
    login->state = WAITING;
    negotiation_start(&login->negotiation);
    return login;
}

void login_destroy(struct login *login)
{
    if (!login)
        return;
    explicit_bzero(login, sizeof *login);
    free(login);
}

const char *login_initiator(const struct login *login)
{
    return login->initiator;
}

/* -- the header -------------------------------------------------------------------------- */

static unsigned header_csg(const uint8_t *bhs)
{
    return bhs[1] >> CSG_SHIFT & STAGE_MASK;
}

static unsigned header_nsg(const uint8_t *bhs)
{
    return bhs[1] & STAGE_MASK;
}

static unsigned login_csg(const struct login *login)
{
    return login->state == OPERATING ? CSG_OPERATIONAL : CSG_SECURITY;
}

static enum login_status stage_check(const uint8_t *bhs)
{
    unsigned csg = header_csg(bhs), nsg = header_nsg(bhs);

    if (csg != CSG_SECURITY && csg != CSG_OPERATIONAL)
        return STATUS_INITIATOR;
    if (!(bhs[1] & FLAG_T))
        return STATUS_GOOD;
    if ((bhs[1] & FLAG_C) || nsg <= csg ||
            (nsg != CSG_OPERATIONAL && nsg != CSG_FULL_FEATURE))
        return STATUS_INITIATOR;
    return STATUS_GOOD;
}

static enum login_status header_check(const uint8_t *bhs, size_t length)
{
    if (!pdu_immediate(bhs) || pdu_ahs_length(bhs) > 0 ||
            pdu_data_length(bhs) != length || length > LOGIN_DATA_MAX)
        return STATUS_INITIATOR;
    if (bhs[3] > 0) /* the lowest version that it speaks; there is only 0 */
        return STATUS_VERSION;
    return stage_check(bhs);
}

/** What the leading PDU says of itself: every answer repeats it, a refusal too. */
static void header_remember(struct login *login, const uint8_t *bhs)
{
    memcpy(login->versions, bhs + 2, sizeof login->versions);
    memcpy(login->isid_tsih, bhs + 8, sizeof login->isid_tsih);
    login->cid = be16_get(bhs + 20);
    login->cmdsn = pdu_cmdsn(bhs);
    login->statsn = pdu_expstatsn(bhs);
}

/** A session to be joined is none of ours: it would need a second connection, or recovery, and
    neither is looked up before the name is proven. */
static enum login_status header_first(struct login *login, const uint8_t *bhs)
{
    if (be16_get(bhs + 14) != 0)
        return STATUS_NO_SESSION;
    fsm_move(&machine, &login->state,
            header_csg(bhs) == CSG_OPERATIONAL ? OPERATING : SECURING);
    return STATUS_GOOD;
}

static enum login_status header_next(const struct login *login, const uint8_t *bhs)
{
    if (memcmp(login->versions, bhs + 2, sizeof login->versions) != 0 ||
            memcmp(login->isid_tsih, bhs + 8, sizeof login->isid_tsih) != 0 ||
            login->cid != be16_get(bhs + 20) || login_csg(login) != header_csg(bhs))
        return STATUS_INITIATOR;
    return STATUS_GOOD;
}

/* -- a whole text ------------------------------------------------------------------------ */

static enum negotiation_stage login_stage(const struct login *login)
{
    return login->state == OPERATING ? NEGOTIATION_OPERATIONAL : NEGOTIATION_SECURITY;
}

/** SessionType may stand behind keys that depend on it. */
static bool is_discovery(const struct login_text *text)
{
    for (int i = 0; i < text->count; i++)
        if (text_is(&text->pairs[i], "SessionType"))
            return strcmp(text->pairs[i].value, "Discovery") == 0;
    return false;
}

static enum login_status text_offer(struct login *login, struct login_text *text)
{
    struct negotiation *negotiation = &login->negotiation;

    text->count = text_read(login->text, login->text_length, text->pairs);
    if (text->count < 0)
        return STATUS_INITIATOR;
    login->keys += (unsigned)text->count;
    if (login->keys > LOGIN_KEYS_MAX)
        return STATUS_INITIATOR;
    if (!login->named)
        negotiation->discovery = is_discovery(text);
    for (int i = 0; i < text->count; i++) {
        const struct text_pair *pair = &text->pairs[i];

        text->verdicts[i] = negotiation_offer(negotiation, login_stage(login), pair);
        if (text->verdicts[i] == NEGOTIATION_VIOLATION)
            return STATUS_INITIATOR;
        if (text->verdicts[i] == NEGOTIATION_WORD)
            text->words[negotiation_key(pair)] = pair;
    }
    return negotiation_settle(negotiation) ? STATUS_GOOD : STATUS_INITIATOR;
}

/** RFC 7143 13.12: good from the next stage on; said once, where the peer may hear it. */
static void text_declare(
        struct login *login, const uint8_t *bhs, struct text_writer *writer)
{
    bool leaves = login->authenticated && (bhs[1] & FLAG_T) &&
            header_nsg(bhs) == CSG_FULL_FEATURE;

    if (login->declared || (login->state != OPERATING && !leaves))
        return;
    negotiation_declare(writer);
    login->declared = true;
}

static enum login_status text_process(struct login *login, const uint8_t *bhs)
{
    struct text_writer writer = { .at = login->out, .room = sizeof login->out };
    struct login_text text = { .count = 0 };
    bool first = !login->named;
    enum login_status status;

    if ((status = text_offer(login, &text)) != STATUS_GOOD ||
            (status = login_identify(login, &text)) != STATUS_GOOD)
        return status;
    if (first && login->session == LOGIN_NORMAL) /* RFC 7143 13.9 */
        text_write_number(&writer, "TargetPortalGroupTag", login->asker->portal_group);
    if ((status = login_authenticate(login, &text, bhs[1] & FLAG_T, &writer)) !=
            STATUS_GOOD)
        return status;
    for (int i = 0; i < text.count; i++)
        negotiation_answer(
                &login->negotiation, &text.pairs[i], text.verdicts[i], &writer);
    text_declare(login, bhs, &writer);
    login->text_length = 0;
    login->out_length = writer.length;
    login->out_sent = 0;
    return writer.overflow ? STATUS_RESOURCES : STATUS_GOOD;
}

/* -- the answer -------------------------------------------------------------------------- */

static void answer_start(struct login *login, const uint8_t *bhs, uint8_t *answer)
{
    pdu_start(answer, PDU_LOGIN_RESPONSE, false);
    answer[1] = (uint8_t)(login_csg(login) << CSG_SHIFT);
    memcpy(answer + 8, login->isid_tsih, sizeof login->isid_tsih);
    be32_put(answer + 16, pdu_itt(bhs));
    be32_put(answer + 24, login->statsn++);
    be32_put(answer + 28, login->cmdsn);
    be32_put(answer + 32, login->cmdsn);
}

static enum login_next answer_refuse(struct login *login, const uint8_t *bhs,
        uint8_t *answer, enum login_status status)
{
    answer_start(login, bhs, answer);
    be16_put(answer + 36, (uint16_t)status);
    explicit_bzero(&login->known, sizeof login->known);
    fsm_move(&machine, &login->state, REFUSED);
    return LOGIN_REFUSED;
}

static void result_fill(
        const struct login *login, uint16_t tsih, struct login_result *result)
{
    memset(result, 0, sizeof *result);
    result->session = login->session;
    memcpy(result->initiator, login->initiator, sizeof result->initiator);
    memcpy(result->target, login->target, sizeof result->target);
    memcpy(result->user, login->user, sizeof result->user);
    result->chap_algorithm =
            login->chap_step == CHAP_DONE ? (uint8_t)login->chap.algorithm : 0;
    memcpy(result->isid, login->isid_tsih, sizeof result->isid);
    result->cid = login->cid;
    result->tsih = tsih;
    result->cmdsn = login->cmdsn;
    result->expstatsn = login->expstatsn;
    result->statsn = login->statsn;
    negotiation_terms(&login->negotiation, login->declared, &result->terms);
}

/** As much of our text as the peer takes in one PDU. */
static bool answer_piece(struct login *login, uint8_t *answer, uint8_t *data)
{
    size_t most = login->negotiation.keys[KEY_MAX_RECEIVE].agreed;
    size_t left = login->out_length - login->out_sent;

    if (most > LOGIN_DATA_MAX)
        most = LOGIN_DATA_MAX;
    if (most > left)
        most = left;
    memcpy(data, login->out + login->out_sent, most);
    be24_put(answer + 5, (uint32_t)most);
    login->out_sent += most;
    if (most < left)
        answer[1] |= FLAG_C;
    return most == left;
}

/** Sends what there is, and leaves the stage when T asks for it and nothing is owed. */
static enum login_next answer_send(struct login *login, const uint8_t *bhs,
        uint16_t tsih, uint8_t *answer, uint8_t *data, struct login_result *result)
{
    bool leaves;

    answer_start(login, bhs, answer);
    leaves = answer_piece(login, answer, data) && (bhs[1] & FLAG_T) && login->named &&
            login->authenticated;
    if (!leaves)
        return LOGIN_GO_ON;
    answer[1] |= (uint8_t)(FLAG_T | header_nsg(bhs));
    if (header_nsg(bhs) == CSG_OPERATIONAL) {
        fsm_move(&machine, &login->state, OPERATING);
        return LOGIN_GO_ON;
    }
    be16_put(answer + 14, tsih);
    fsm_move(&machine, &login->state, LOGGED_IN);
    result_fill(login, be16_get(login->isid_tsih + 6), result);
    return LOGIN_FULL_FEATURE;
}

/** Gathers what came. *@whole: a text is there to be read. */
static enum login_status text_gather(struct login *login, const uint8_t *bhs,
        const uint8_t *data, size_t length, bool *whole)
{
    *whole = false;
    if (login->out_sent <
            login->out_length) /* RFC 7143 6.2: C is answered with nothing */
        return length == 0 && !(bhs[1] & FLAG_C) ? STATUS_GOOD : STATUS_INITIATOR;
    if (length > sizeof login->text - login->text_length)
        return STATUS_INITIATOR;
    if (length > 0)
        memcpy(login->text + login->text_length, data, length);
    login->text_length += length;
    *whole = !(bhs[1] & FLAG_C);
    return STATUS_GOOD;
}

static enum login_status login_take(
        struct login *login, const uint8_t *bhs, const uint8_t *data, size_t length)
{
    enum login_status status = header_check(bhs, length);
    bool whole;

    if (status != STATUS_GOOD)
        return status;
    if (++login->pdus > LOGIN_PDUS_MAX)
        return STATUS_INITIATOR;
    status = login->state == WAITING ? header_first(login, bhs)
                                     : header_next(login, bhs);
    if (status != STATUS_GOOD)
        return status;
    login->expstatsn = pdu_expstatsn(bhs);
    if ((status = text_gather(login, bhs, data, length, &whole)) != STATUS_GOOD)
        return status;
    return whole ? text_process(login, bhs) : STATUS_GOOD;
}

enum login_next login_step(struct login *login, const uint8_t *bhs, const uint8_t *data,
        size_t length, uint16_t tsih, uint8_t *answer, uint8_t *answer_data,
        struct login_result *result)
{
    enum login_status status;

    if (login->state == LOGGED_IN || login->state == REFUSED)
        return LOGIN_DROP;
    if (pdu_opcode(bhs) != PDU_LOGIN) {
        if (login->state == WAITING)
            return LOGIN_DROP;
        return answer_refuse(login, bhs, answer, STATUS_INVALID);
    }
    if (login->state == WAITING)
        header_remember(login, bhs);
    status = login_take(login, bhs, data, length);
    if (status != STATUS_GOOD)
        return answer_refuse(login, bhs, answer, status);
    return answer_send(login, bhs, tsih, answer, answer_data, result);
}

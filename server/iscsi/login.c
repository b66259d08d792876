#include "server/iscsi/login.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/fsm.h"
#include "server/iscsi/chap.h"
#include "server/iscsi/negotiate.h"
#include "server/iscsi/text.h"

/* One PDU is judged in this order, and the first fault ends the login with a status:
 *
 *   its header by itself      lengths, version, flags
 *   its header by the login   stage, what must stay the same, whether our answer waits
 *   its text, when whole      read, every key offered; names, then who it is, then the rest
 *
 * Only then is an answer built, and the stage left when T asks for it and nothing is owed. */

enum { CSG_SHIFT = 2, STAGE_MASK = 3, FLAG_T = 0x80, FLAG_C = 0x40 };
enum { CSG_SECURITY = 0, CSG_OPERATIONAL = 1, CSG_FULL_FEATURE = 3 };

/* States and moves of the target's side of a connection, RFC 7143 8.1 and 8.2. */
enum login_state { WAITING, SECURING, OPERATING, LOGGED_IN, REFUSED };

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

enum login_status { /* class and detail, RFC 7143 11.13.5 */
    STATUS_GOOD = 0x0000,
    STATUS_INITIATOR = 0x0200,
    STATUS_AUTHENTICATION = 0x0201,
    STATUS_FORBIDDEN = 0x0202,
    STATUS_NOT_FOUND = 0x0203,
    STATUS_VERSION = 0x0205,
    STATUS_MISSING = 0x0207,
    STATUS_SESSION_TYPE = 0x0209,
    STATUS_NO_SESSION = 0x020a,
    STATUS_INVALID = 0x020b,
    STATUS_RESOURCES = 0x0302
};

enum chap_step { CHAP_NONE, CHAP_AGREED, CHAP_CHALLENGED, CHAP_DONE };

struct login {
    const struct login_asker *asker;
    unsigned state; /* enum login_state */
    unsigned pdus, keys; /* come so far */

    /* of the first PDU, and the same in all that follow */
    uint8_t versions[2], isid_tsih[8];
    uint16_t cid;
    uint32_t cmdsn;
    uint32_t statsn; /* of the next answer */
    uint32_t expstatsn; /* of the last request */

    bool named; /* the first text came whole: who, for what, may it */
    enum login_session session;
    char initiator[SCSI_NAME_MAX], target[SCSI_NAME_MAX];
    bool authenticated;
    enum chap_step chap_step;
    struct chap chap;
    struct login_chap known; /* a secret while it is needed */
    char user[CHAP_NAME_MAX];
    struct negotiation negotiation;
    bool declared; /* our MaxRecvDataSegmentLength */

    uint8_t text[LOGIN_TEXT_MAX]; /* theirs, C-bit pieces together */
    size_t text_length;
    uint8_t out[LOGIN_TEXT_MAX]; /* ours, and how much of it is sent */
    size_t out_length, out_sent;
};

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

/** What the leading PDU says of itself. A session to be joined is none of ours: it would need
    a second connection, or recovery, and neither is looked up before the name is proven. */
static enum login_status header_first(struct login *login, const uint8_t *bhs)
{
    memcpy(login->versions, bhs + 2, sizeof login->versions);
    memcpy(login->isid_tsih, bhs + 8, sizeof login->isid_tsih);
    login->cid = be16_get(bhs + 20);
    login->cmdsn = pdu_cmdsn(bhs);
    login->statsn = pdu_expstatsn(bhs);
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

/* -- names ------------------------------------------------------------------------------- */

/** The pairs of one text, each with what was said about it. */
struct login_text {
    int count;
    struct text_pair pairs[TEXT_PAIRS_MAX];
    enum negotiation_verdict verdicts[TEXT_PAIRS_MAX];
    const struct text_pair *words[KEY_COUNT]; /* those that are ours to understand */
};

static const char *text_word(const struct login_text *text, enum login_key key)
{
    return text->words[key] ? text->words[key]->value : NULL;
}

static enum login_status session_name(
        struct login *login, const struct login_text *text)
{
    const char *type = text_word(text, KEY_SESSION_TYPE);
    const char *initiator = text_word(text, KEY_INITIATOR_NAME);
    const char *target = text_word(text, KEY_TARGET_NAME);

    if (type && strcmp(type, "Normal") != 0 && strcmp(type, "Discovery") != 0)
        return STATUS_SESSION_TYPE;
    login->session =
            type && strcmp(type, "Discovery") == 0 ? LOGIN_DISCOVERY : LOGIN_NORMAL;
    if (!initiator || (!target && login->session == LOGIN_NORMAL))
        return STATUS_MISSING;
    if (!text_name(initiator, login->initiator))
        return STATUS_INITIATOR;
    if (login->session == LOGIN_NORMAL && !text_name(target, login->target))
        return STATUS_NOT_FOUND;
    return STATUS_GOOD;
}

/** May this name come here at all; LOGIN_OPEN alone needs no proof of it. */
static enum login_status session_admit(struct login *login)
{
    const struct login_asker *asker = login->asker;

    if (asker->throttled(asker->context, login->initiator))
        return STATUS_AUTHENTICATION;
    switch (asker->access(
            asker->context, login->initiator, login->target, &login->known)) {
    case LOGIN_UNKNOWN_TARGET:
        return STATUS_NOT_FOUND;
    case LOGIN_FORBIDDEN:
        return STATUS_FORBIDDEN;
    case LOGIN_OPEN:
        login->authenticated = true;
        return STATUS_GOOD;
    case LOGIN_WITH_CHAP: /* in the stage that has it */
        return login->state == SECURING ? STATUS_GOOD : STATUS_AUTHENTICATION;
    }
    return STATUS_FORBIDDEN;
}

static enum login_status text_identify(
        struct login *login, const struct login_text *text)
{
    enum login_status status;

    if (login->named) /* RFC 7143 6.3: in the first request, and never changed */
        return text->words[KEY_SESSION_TYPE] || text->words[KEY_INITIATOR_NAME] ||
                        text->words[KEY_TARGET_NAME]
                ? STATUS_INITIATOR
                : STATUS_GOOD;
    if ((status = session_name(login, text)) != STATUS_GOOD ||
            (status = session_admit(login)) != STATUS_GOOD)
        return status;
    login->named = true;
    return STATUS_GOOD;
}

/* -- who it is: AuthMethod, then CHAP step by step, RFC 7143 12.1 ------------------------ */

static bool list_has(const char *list, const char *wanted)
{
    const char *member;
    size_t length;

    for (unsigned i = 0; text_member(list, i, &member, &length); i++)
        if (length == strlen(wanted) && memcmp(member, wanted, length) == 0)
            return true;
    return false;
}

/** Which CHAP keys a text has, a bit each. */
static unsigned chap_keys(const struct login_text *text)
{
    unsigned keys = 0;

    for (int key = KEY_CHAP_A; key <= KEY_CHAP_R; key++)
        if (text->words[key])
            keys |= 1u << (key - KEY_CHAP_A);
    return keys;
}

enum { HAS_A = 1, HAS_I = 2, HAS_C = 4, HAS_N = 8, HAS_R = 16 };
static_assert(KEY_CHAP_A + 1 == KEY_CHAP_I && KEY_CHAP_A + 2 == KEY_CHAP_C &&
                KEY_CHAP_A + 3 == KEY_CHAP_N && KEY_CHAP_A + 4 == KEY_CHAP_R,
        "the bits above are in the order of keys.tbl.h");

static enum login_status method_agree(
        struct login *login, const char *list, struct text_writer *writer)
{
    const char *method = login->authenticated ? "None" : "CHAP";

    if (!list_has(list, method))
        return STATUS_AUTHENTICATION;
    text_write_key(writer, "AuthMethod", method);
    if (!login->authenticated)
        login->chap_step = CHAP_AGREED;
    return STATUS_GOOD;
}

static enum login_status chap_begin(
        struct login *login, const struct login_text *text, struct text_writer *writer)
{
    if (!chap_choose(&login->chap, text_word(text, KEY_CHAP_A)))
        return STATUS_AUTHENTICATION;
    chap_challenge(&login->chap, login->asker->random);
    text_write_number(writer, "CHAP_A", login->chap.algorithm);
    text_write_number(writer, "CHAP_I", login->chap.identifier);
    text_write_binary(
            writer, "CHAP_C", login->chap.challenge, sizeof login->chap.challenge);
    login->chap_step = CHAP_CHALLENGED;
    return STATUS_GOOD;
}

/** Ours, after theirs was good. */
static enum login_status chap_answer(
        struct login *login, const struct login_text *text, struct text_writer *writer)
{
    const struct text_pair *challenge = text->words[KEY_CHAP_C];
    uint8_t response[DIGEST_MAX];
    int length = chap_respond(&login->chap, &login->known, text_word(text, KEY_CHAP_I),
            challenge->value, challenge->value_length, response);

    if (length < 0)
        return STATUS_AUTHENTICATION;
    text_write_key(writer, "CHAP_N", login->known.mutual_user);
    text_write_binary(writer, "CHAP_R", response, (size_t)length);
    explicit_bzero(response, sizeof response);
    return STATUS_GOOD;
}

/** Whose secret is to be shown: the target's, or in a discovery session that of whoever says
    to come. */
static const struct login_chap *chap_known(struct login *login, const char *user)
{
    const struct login_asker *asker = login->asker;

    if (login->session == LOGIN_NORMAL)
        return &login->known;
    explicit_bzero(&login->known, sizeof login->known);
    return asker->user(asker->context, login->initiator, user, &login->known)
            ? &login->known
            : NULL;
}

static enum login_status chap_end(
        struct login *login, const struct login_text *text, struct text_writer *writer)
{
    const char *user = text_word(text, KEY_CHAP_N);
    const struct text_pair *response = text->words[KEY_CHAP_R];
    const struct login_chap *known = chap_known(login, user);
    enum login_status status = STATUS_GOOD;

    if (!chap_verify(
                &login->chap, known, user, response->value, response->value_length))
        status = STATUS_AUTHENTICATION;
    else if (text->words[KEY_CHAP_I])
        status = chap_answer(login, text, writer);
    if (status == STATUS_GOOD) {
        memcpy(login->user, login->known.user, sizeof login->user);
        login->authenticated = true;
        login->chap_step = CHAP_DONE;
    } else {
        login->asker->failed(login->asker->context, login->initiator);
    }
    explicit_bzero(&login->known, sizeof login->known);
    return status;
}

/** The rows: what a text must bring in each step. */
static enum login_status text_authenticate(struct login *login,
        const struct login_text *text, const uint8_t *bhs, struct text_writer *writer)
{
    const char *methods = text_word(text, KEY_AUTH_METHOD);
    unsigned keys = chap_keys(text);

    if (methods)
        return keys ? STATUS_INITIATOR : method_agree(login, methods, writer);
    switch (login->chap_step) {
    case CHAP_NONE:
        if (keys)
            return STATUS_INITIATOR;
        return !login->authenticated && (bhs[1] & FLAG_T) ? STATUS_AUTHENTICATION
                                                          : STATUS_GOOD;
    case CHAP_AGREED:
        if (keys != HAS_A)
            return keys ? STATUS_INITIATOR : STATUS_MISSING;
        return chap_begin(login, text, writer);
    case CHAP_CHALLENGED:
        if (keys != (HAS_N | HAS_R) && keys != (HAS_N | HAS_R | HAS_I | HAS_C))
            return keys & ~(unsigned)(HAS_N | HAS_R | HAS_I | HAS_C) ? STATUS_INITIATOR
                                                                     : STATUS_MISSING;
        return chap_end(login, text, writer);
    case CHAP_DONE:
        break;
    }
    return keys ? STATUS_INITIATOR : STATUS_GOOD;
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
            (status = text_identify(login, &text)) != STATUS_GOOD)
        return status;
    if (first && login->session == LOGIN_NORMAL) /* RFC 7143 13.9 */
        text_write_number(&writer, "TargetPortalGroupTag", login->asker->portal_group);
    if ((status = text_authenticate(login, &text, bhs, &writer)) != STATUS_GOOD)
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
    status = login_take(login, bhs, data, length);
    if (status != STATUS_GOOD)
        return answer_refuse(login, bhs, answer, status);
    return answer_send(login, bhs, tsih, answer, answer_data, result);
}

/* Who comes, and whether it is true: names, the asker's word, AuthMethod, CHAP. */
#include "server/iscsi/login_inside.h"

#include <assert.h>
#include <string.h>

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

enum login_status login_identify(struct login *login, const struct login_text *text)
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
enum login_status login_authenticate(struct login *login, const struct login_text *text,
        bool leaving, struct text_writer *writer)
{
    const char *methods = text_word(text, KEY_AUTH_METHOD);
    unsigned keys = chap_keys(text);

    if (methods)
        return keys ? STATUS_INITIATOR : method_agree(login, methods, writer);
    switch (login->chap_step) {
    case CHAP_NONE:
        if (keys)
            return STATUS_INITIATOR;
        return !login->authenticated && leaving ? STATUS_AUTHENTICATION : STATUS_GOOD;
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

#include "server/iscsi/chap.h"

#include <string.h>

#include "server/iscsi/text.h"

/* In our order of preference. The registry of numbers is IANA's, "CHAP algorithms". */
static const struct {
    unsigned number;
    enum digest_kind kind;
} algorithms[] = {
    { 8, DIGEST_SHA3_256 },
    { 7, DIGEST_SHA256 },
    { 6, DIGEST_SHA1 },
    { 5, DIGEST_MD5 },
};

enum { ALGORITHMS = sizeof algorithms / sizeof algorithms[0] };

static bool is_listed(const char *list, unsigned number)
{
    const char *member;
    size_t length;

    for (unsigned i = 0; text_member(list, i, &member, &length); i++)
        if (length == 1 && member[0] == (char)('0' + number))
            return true;
    return false;
}

bool chap_choose(struct chap *chap, const char *list)
{
    uint8_t unused[DIGEST_MAX];

    for (unsigned i = 0; i < ALGORITHMS; i++)
        if (is_listed(list, algorithms[i].number) &&
                digest_make(algorithms[i].kind, "", 0, unused)) {
            chap->algorithm = algorithms[i].number;
            chap->kind = algorithms[i].kind;
            return true;
        }
    return false;
}

void chap_challenge(struct chap *chap, void (*random)(uint8_t *bytes, size_t length))
{
    random(&chap->identifier, 1);
    random(chap->challenge, sizeof chap->challenge);
}

static bool chap_hash(enum digest_kind kind, uint8_t identifier, const char *secret,
        const uint8_t *challenge, size_t length, uint8_t digest[DIGEST_MAX])
{
    uint8_t text[1 + CHAP_SECRET_MAX + CHAP_CHALLENGE_MAX];
    size_t secret_length = strnlen(secret, CHAP_SECRET_MAX);
    bool made;

    text[0] = identifier;
    memcpy(text + 1, secret, secret_length);
    memcpy(text + 1 + secret_length, challenge, length);
    made = digest_make(kind, text, 1 + secret_length + length, digest);
    explicit_bzero(text, sizeof text);
    return made;
}

/** Compares all of both, however long the name that came is. */
static bool user_is(const char *known, const char *user)
{
    char ours[CHAP_NAME_MAX] = "", theirs[CHAP_NAME_MAX] = "";
    size_t length = strlen(user);
    bool fits = length > 0 && length < sizeof theirs;

    memcpy(ours, known, strnlen(known, sizeof ours - 1));
    memcpy(theirs, user, fits ? length : 0);
    return digest_same(ours, theirs, sizeof ours) && fits;
}

bool chap_verify(const struct chap *chap, const struct login_chap *known,
        const char *user, const char *response, size_t response_length)
{
    static const struct login_chap nobody = { .user = "nobody",
        .secret = "sixteen of these" };
    uint8_t wanted[DIGEST_MAX], given[DIGEST_MAX] = { 0 };
    bool is_known = known && known->user[0] && known->secret[0];
    const struct login_chap *against = is_known ? known : &nobody;
    int length = text_binary(response, response_length, given, sizeof given);
    bool made = chap_hash(chap->kind, chap->identifier, against->secret,
            chap->challenge, sizeof chap->challenge, wanted);
    bool user_good = user_is(against->user, user);
    bool response_good = digest_same(wanted, given, sizeof wanted);

    explicit_bzero(wanted, sizeof wanted);
    return (int)made & (int)is_known & (int)user_good & (int)response_good &
            (int)(length == (int)digest_size(chap->kind));
}

/** RFC 7143 12.1.3: the challenge that we sent, sent back, would have us answer for them. */
static bool is_reflected(const struct chap *chap, const uint8_t *theirs, size_t length)
{
    return length == sizeof chap->challenge &&
            memcmp(theirs, chap->challenge, length) == 0;
}

int chap_respond(const struct chap *chap, const struct login_chap *known,
        const char *identifier, const char *challenge, size_t challenge_length,
        uint8_t response[DIGEST_MAX])
{
    uint8_t theirs[CHAP_CHALLENGE_MAX];
    uint32_t number;
    int length;

    if (!known->mutual_user[0] || !known->mutual_secret[0] ||
            strncmp(known->secret, known->mutual_secret, CHAP_SECRET_MAX) == 0)
        return -1;
    if (!text_number(identifier, &number) || number > UINT8_MAX)
        return -1;
    length = text_binary(challenge, challenge_length, theirs, sizeof theirs);
    if (length <= 0 || is_reflected(chap, theirs, (size_t)length))
        return -1;
    if (!chap_hash(chap->kind, (uint8_t)number, known->mutual_secret, theirs,
                (size_t)length, response))
        return -1;
    return (int)digest_size(chap->kind);
}

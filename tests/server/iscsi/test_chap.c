/* CHAP, against responses computed by another hand: Python's
 * hashlib.new(name, bytes([identifier]) + secret + challenge). */
#include "tests/support/expect.h"

#include <stdio.h>

#include "server/iscsi/chap.h"

static const struct login_chap host = { .user = "host",
    .secret = "open sesame 12345",
    .mutual_user = "disk",
    .mutual_secret = "the other way round" };

#define THEIR_CHALLENGE "0x030a11181f262d343b424950575e656c737a81888f969da4"

static const struct {
    const char *list;
    unsigned number;
    const char *hex, *base64, *mutual; /* of identifier 200 and THEIR_CHALLENGE */
} vectors[] = {
    { "5", 5, "0xdd2aaebbaee8153d4f7f21b3d01829d5",
            "0b3Squu67oFT1PfyGz0Bgp1Q==", "ef0db372928ce886c6175bf4179600fd" },
    { "6", 6, "0xffe56cbaacb32f9d8160cd451fc85aefe55061fb",
            "0b/+VsuqyzL52BYM1FH8ha7+VQYfs=",
            "91a4d7591bfb8b97122c01e27cf54fccca133343" },
    { "7", 7, "0xf7928f8022ebf44110aad8bab8e4ebd7203436ad7f1bef06bfa09dfe310dc1bf",
            "0b95KPgCLr9EEQqti6uOTr1yA0Nq1/G+8Gv6Cd/jENwb8=",
            "453abde37f78e4e595b37ec4895a507cf69cdd9af23937e7ff5f881004c182c7" },
    { "8", 8, "0x8ea1c3b9f232d06d84924f9271c0671a974eab856124df0c9732dd6aae972c4e",
            "0bjqHDufIy0G2Ekk+SccBnGpdOq4VhJN8MlzLdaq6XLE4=",
            "c2c1a59b2b31d83189be0ddbdd8e2433cac711eb700c51e10f39d0b4930b2315" },
};
enum { VECTORS = sizeof vectors / sizeof vectors[0] };

static void count_up(uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = length == 1 ? 0x27 : (uint8_t)(i + 1);
}

static struct chap chap_of(const char *list)
{
    struct chap chap = { .algorithm = 0 };

    expect(chap_choose(&chap, list));
    chap_challenge(&chap, count_up);
    return chap;
}

static bool verify(const struct chap *chap, const struct login_chap *known,
        const char *user, const char *response)
{
    return chap_verify(chap, known, user, response, strlen(response));
}

Test(chap, our_preference_decides)
{
    static const struct {
        const char *list;
        unsigned number;
    } rows[] = { { "5", 5 }, { "5,6,7,8", 8 }, { "8,7,6,5", 8 }, { "5,7", 7 },
        { "6,7", 7 }, { "6,5", 6 }, { "1,2,5,99", 5 }, { "", 0 }, { "9", 0 },
        { "55", 0 }, { "05", 0 }, { "5 ", 0 }, { "MD5", 0 }, { ",,5,", 5 }, { "-5", 0 },
        { "0x5", 0 } };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct chap chap = { .algorithm = 0 };

        cr_assert(chap_choose(&chap, rows[i].list) == (rows[i].number != 0), "%s",
                rows[i].list);
        expect_eq(chap.algorithm, rows[i].number);
    }
}

Test(chap, known_responses_of_four_algorithms)
{
    for (unsigned i = 0; i < VECTORS; i++) {
        struct chap chap = chap_of(vectors[i].list);

        expect_eq(chap.algorithm, vectors[i].number);
        expect(verify(&chap, &host, "host", vectors[i].hex));
        expect(verify(&chap, &host, "host", vectors[i].base64));
        for (unsigned other = 0; other < VECTORS; other++)
            if (other != i)
                expect(!verify(&chap, &host, "host", vectors[other].hex));
    }
}

Test(chap, every_digit_counts)
{
    struct chap chap = chap_of("8");
    char response[80];

    for (size_t at = 2; at < 66; at++) {
        strcpy(response, vectors[3].hex);
        response[at] = response[at] == '0' ? '1' : '0';
        cr_assert(!verify(&chap, &host, "host", response), "digit %zu", at);
    }
}

Test(chap, wrong_lengths_forms_and_users)
{
    struct chap chap = chap_of("5");
    struct login_chap empty = host, nameless = host;
    static const char *const bad[] = { "", "0x", "0b",
        "dd2aaebbaee8153d4f7f21b3d01829d5", "0xdd2aaebbaee8153d4f7f21b3d01829d",
        "0xdd2aaebbaee8153d4f7f21b3d01829", "0xdd2aaebbaee8153d4f7f21b3d01829d500",
        "0xdd2aaebbaee8153d4f7f21b3d01829dg",
        "0xdd2aaebbaee8153d4f7f21b3d01829d50000000000000000000000000000000000",
        "0bdd2aaebbaee8153d4f7f21b3d01829d5",
        "0b3Squu67oFT1PfyGz0Bgp1Q=", "0b3Squu67oFT1PfyGz0Bgp1R==" };

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(!verify(&chap, &host, "host", bad[i]), "%s", bad[i]);
    expect(!verify(&chap, &host, "Host", vectors[0].hex));
    expect(!verify(&chap, &host, "hos", vectors[0].hex));
    expect(!verify(&chap, &host, "host2", vectors[0].hex));
    expect(!verify(&chap, &host, "", vectors[0].hex));
    expect(!verify(&chap, &host,
            "hosthosthosthosthosthosthosthosthosthosthosthosthosthosthosthosthost",
            vectors[0].hex));
    expect(!verify(&chap, NULL, "host", vectors[0].hex));
    empty.secret[0] = 0; /* hash of identifier and challenge alone, which anyone has */
    expect(!verify(&chap, &empty, "host", "0xc42db3c892106577cd6ee9a165eb79d7"));
    nameless.user[0] = 0;
    expect(!verify(&chap, &nameless, "", vectors[0].hex));
}

Test(chap, nobody_is_never_let_in)
{
    struct chap chap = chap_of("5");

    /* md5 of 0x27, "sixteen of these", challenge: what an unknown user is compared with */
    expect(!verify(&chap, NULL, "nobody", "0x64d30f1c597865acca54ebefb8e8ca20"));
}

Test(chap, mutual_responses)
{
    for (unsigned i = 0; i < VECTORS; i++) {
        struct chap chap = chap_of(vectors[i].list);
        uint8_t response[DIGEST_MAX];
        char hex[2 * DIGEST_MAX + 1] = "";
        int length = chap_respond(&chap, &host, "200", THEIR_CHALLENGE,
                strlen(THEIR_CHALLENGE), response);

        for (int at = 0; at < length; at++)
            sprintf(hex + 2 * at, "%02x", response[at]);
        expect_str(hex, vectors[i].mutual);
    }
}

static int respond(
        const struct login_chap *known, const char *identifier, const char *challenge)
{
    struct chap chap = chap_of("5");
    uint8_t response[DIGEST_MAX];

    return chap_respond(
            &chap, known, identifier, challenge, strlen(challenge), response);
}

Test(chap, what_is_not_responded_to)
{
    static const char own[] =
            "0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
    static const char own64[] = "0bAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    struct login_chap known = host;
    char longest[2 + 2 * 1025 + 1] = "0x";

    expect_eq(respond(&host, "0", "0x00"), 16);
    expect_eq(respond(&host, "255", "0b/+8="), 16);
    expect_eq(respond(&host, "0", own), -1); /* reflected */
    expect_eq(respond(&host, "39", own64), -1);
    expect_eq(respond(&host, "256", "0x00"), -1);
    expect_eq(respond(&host, "-1", "0x00"), -1);
    expect_eq(respond(&host, "", "0x00"), -1);
    expect_eq(respond(&host, "1", ""), -1);
    expect_eq(respond(&host, "1", "0x"), -1);
    expect_eq(respond(&host, "1", "0x1"), -1);
    expect_eq(respond(&host, "1", "12"), -1);
    memset(longest + 2, 'a', 2 * 1025);
    expect_eq(respond(&host, "1", longest), -1);
    longest[2 + 2 * 1024] = 0;
    expect_eq(respond(&host, "1", longest), 16);

    strcpy(known.mutual_secret, known.secret); /* RFC 7143 12.1.3: not the same */
    expect_eq(respond(&known, "1", "0x00"), -1);
    known = host;
    known.mutual_secret[0] = 0;
    expect_eq(respond(&known, "1", "0x00"), -1);
    known = host;
    known.mutual_user[0] = 0;
    expect_eq(respond(&known, "1", "0x00"), -1);
}

Test(chap, the_longest_secret_is_used_whole)
{
    struct chap chap = chap_of("5");
    struct login_chap known = { .user = "host" };
    static const char md5[] = "0x91d835b4f046a8225371aea632ce1b32";

    memset(known.secret, 's', CHAP_SECRET_MAX - 1);
    expect(verify(&chap, &known, "host", md5));
    known.secret[CHAP_SECRET_MAX - 2] = 't';
    expect(!verify(&chap, &known, "host", md5));
}

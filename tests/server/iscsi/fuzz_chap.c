/* CHAP as it comes: a list, a user, a response, an identifier, a challenge, each ended by a
 * newline, with nothing of them trusted. */
#include "server/iscsi/chap.h"

#include <stdlib.h>
#include <string.h>

#include "server/iscsi/text.h"
#include "tests/support/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void count_up(uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = length == 1 ? 0x27 : (uint8_t)(i + 1);
}

/** The next word, in memory of its own. */
static char *word_take(const uint8_t **bytes, size_t *length)
{
    const uint8_t *end = *length ? memchr(*bytes, '\n', *length) : NULL;
    size_t size = end ? (size_t)(end - *bytes) : *length;
    char *word = malloc(size + 1);

    must(word != NULL);
    memcpy(word, *bytes, size);
    word[size] = 0;
    *bytes += end ? size + 1 : size;
    *length -= end ? size + 1 : size;
    return word;
}

/** What is decoded is decoded the same again, and encodes to what it was. */
static void binary_check(const char *value)
{
    uint8_t bytes[DIGEST_MAX], text[200];
    struct text_writer writer = { .at = text, .room = sizeof text };
    int length = text_binary(value, strlen(value), bytes, sizeof bytes);

    must(length >= -1 && length <= (int)sizeof bytes);
    if (length < 0 || value[1] != 'x')
        return;
    text_write_binary(&writer, "k", bytes, (size_t)length);
    must(!writer.overflow && strcasecmp((char *)text + 2, value) == 0);
}

/** Few know the secret: who is let in gave one of the four responses and the right name. */
static void verify_check(const struct chap *chap, const struct login_chap *known,
        const char *user, const char *response)
{
    size_t length = strlen(response);

    must(!chap_verify(chap, NULL, user, response, length));
    if (chap_verify(chap, known, user, response, length)) {
        must(strcmp(user, known->user) == 0);
        must(length >= 2 + digest_size(chap->kind) * 4 / 3);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const struct login_chap known = { .user = "host",
        .secret = "open sesame 12345",
        .mutual_user = "disk",
        .mutual_secret = "the other way round" };
    char *list = word_take(&bytes, &length), *user = word_take(&bytes, &length);
    char *response = word_take(&bytes, &length), *number = word_take(&bytes, &length);
    char *challenge = word_take(&bytes, &length);
    uint8_t ours[DIGEST_MAX];
    struct chap chap = { .algorithm = 0 };

    binary_check(response);
    binary_check(challenge);
    if (chap_choose(&chap, list)) {
        int answered;

        must(chap.algorithm >= 5 && chap.algorithm <= 8);
        chap_challenge(&chap, count_up);
        verify_check(&chap, &known, user, response);
        answered =
                chap_respond(&chap, &known, number, challenge, strlen(challenge), ours);
        must(answered == -1 || answered == (int)digest_size(chap.kind));
    }
    free(list);
    free(user);
    free(response);
    free(number);
    free(challenge);
    return 0;
}

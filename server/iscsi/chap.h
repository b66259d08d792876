/* server/iscsi/chap.h - CHAP (RFC 1994) as RFC 7143 12.1.3 has it, one way and mutual.
 *
 * A response is the hash of identifier, secret and challenge. Who may be whom is the caller's
 * question; here it is only whether a secret was known. An unknown user costs the same work and
 * gets the same answer as a wrong secret. Pure but for the challenge, which the caller's source
 * of chance makes. Any thread, one at a time a struct.
 */
#ifndef SERVER_ISCSI_CHAP_H
#define SERVER_ISCSI_CHAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/digest.h"
#include "server/iscsi/login.h"

enum { CHAP_CHALLENGE_MAX = 1024 }; /* bytes of theirs, RFC 7143 12.1.3 */

struct chap {
    unsigned algorithm; /* its number on the wire */
    enum digest_kind kind;
    uint8_t identifier, challenge[CHAP_CHALLENGE];
};

/** Chooses our preference (8, 7, 6, 5) of the list of CHAP_A. False: none of it is ours. */
bool chap_choose(struct chap *chap, const char *list);

/** A new identifier and challenge. */
void chap_challenge(struct chap *chap, void (*random)(uint8_t *bytes, size_t length));

/** Whether @user and @response (CHAP_N and CHAP_R as they came) show @known's secret. @known
    NULL: nobody of that name. */
bool chap_verify(const struct chap *chap, const struct login_chap *known,
        const char *user, const char *response, size_t response_length);

/**
 * Our response to their @identifier and @challenge (CHAP_I and CHAP_C as they came), with the
 * mutual secret. Returns its bytes, or -1: no mutual secret or one equal to theirs, a number or
 * a challenge that is none, or our own challenge sent back to us.
 */
int chap_respond(const struct chap *chap, const struct login_chap *known,
        const char *identifier, const char *challenge, size_t challenge_length,
        uint8_t response[DIGEST_MAX]);

#endif

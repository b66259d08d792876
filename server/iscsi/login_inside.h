/* server/iscsi/login_inside.h - what the files of the login share; not for anyone else. */
#ifndef SERVER_ISCSI_LOGIN_INSIDE_H
#define SERVER_ISCSI_LOGIN_INSIDE_H

#include "server/iscsi/chap.h"
#include "server/iscsi/login.h"
#include "server/iscsi/negotiate.h"
#include "server/iscsi/text.h"

enum { CSG_SHIFT = 2, STAGE_MASK = 3, FLAG_T = 0x80, FLAG_C = 0x40 };
enum { CSG_SECURITY = 0, CSG_OPERATIONAL = 1, CSG_FULL_FEATURE = 3 };

/* States and moves of the target's side of a connection, RFC 7143 8.1 and 8.2. */
enum login_state { WAITING, SECURING, OPERATING, LOGGED_IN, REFUSED };

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

/** The pairs of one text, each with what was said about it. */
struct login_text {
    int count;
    struct text_pair pairs[TEXT_PAIRS_MAX];
    enum negotiation_verdict verdicts[TEXT_PAIRS_MAX];
    const struct text_pair *words[KEY_COUNT]; /* those that are ours to understand */
};

/** Who comes, for what, and may it: of the first whole text. Later ones must not name anyone. */
enum login_status login_identify(struct login *login, const struct login_text *text);

/** What a text with T as @leaving says brings towards proof, its answer into @writer. */
enum login_status login_authenticate(struct login *login, const struct login_text *text,
        bool leaving, struct text_writer *writer);

#endif

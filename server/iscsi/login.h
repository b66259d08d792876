/* server/iscsi/login.h - the login phase as a state machine over PDUs, without a socket.
 *
 * RFC 7143 sections 6, 10.3, 11.12, 11.13, 12, 13. Nothing outside of it happens before
 * authentication is over: the asker only looks names up, without side effects. Pure but for
 * CHAP's random challenge, which the asker brings. Any thread, one at a time a login.
 */
#ifndef SERVER_ISCSI_LOGIN_H
#define SERVER_ISCSI_LOGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi.h"

enum {
    LOGIN_DATA_MAX = 8192, /* DataSegmentLength of a login PDU */
    LOGIN_TEXT_MAX = 16 << 10, /* bytes of one negotiation, C-bit pieces together */
    LOGIN_PDUS_MAX = 16,
    LOGIN_KEYS_MAX = 64,
    CHAP_NAME_MAX = 64, /* with its NUL */
    CHAP_SECRET_MAX = 256,
    CHAP_CHALLENGE = 32
};

/** What the two sides agreed on: one member a row of keys.tbl.h that lives on. */
struct login_terms {
    bool header_digest, data_digest; /* CRC32C */
    bool initial_r2t, immediate_data;
    uint32_t send_max; /* the peer's MaxRecvDataSegmentLength: of what we send */
    uint32_t receive_max; /* ours, declared */
    uint32_t max_burst, first_burst; /* bytes */
    uint16_t max_outstanding_r2t;
    uint16_t time2wait, time2retain; /* seconds */
    bool data_pdu_in_order, data_sequence_in_order;
    uint8_t error_recovery_level; /* 0 */
};

/** Credentials of an export; the secrets are wiped by who holds them. */
struct login_chap {
    char user[CHAP_NAME_MAX], secret[CHAP_SECRET_MAX]; /* the initiator must show */
    char mutual_user[CHAP_NAME_MAX],
            mutual_secret[CHAP_SECRET_MAX]; /* we show; "" none */
};

enum login_access {
    LOGIN_UNKNOWN_TARGET,
    LOGIN_FORBIDDEN,
    LOGIN_OPEN,
    LOGIN_WITH_CHAP
};

/** Asked of who owns the exports. Constant; no call has side effects. */
struct login_asker {
    void *context;
    /** May @initiator (normalised) use @target ("": discovery), and how must it show who it
        is? Fills @chap for LOGIN_WITH_CHAP. */
    enum login_access (*access)(void *context, const char *initiator,
            const char *target, struct login_chap *chap);
    /** Discovery with CHAP: the credentials of @user, whichever export's; false: none. */
    bool (*user)(void *context, const char *initiator, const char *user,
            struct login_chap *chap);
    /** 1 .. 65535, the portal's group. */
    uint16_t portal_group;
    /** Failed attempts of this name and address wait; true: it must wait (status 0201). */
    bool (*throttled)(void *context, const char *initiator);
    void (*failed)(void *context, const char *initiator);
    void (*random)(uint8_t *bytes, size_t length);
};

enum login_session { LOGIN_NORMAL, LOGIN_DISCOVERY };

struct login;

enum login_next {
    LOGIN_GO_ON, /* send the answer, wait for the next PDU */
    LOGIN_FULL_FEATURE, /* send the answer; @result is filled */
    LOGIN_REFUSED, /* send the answer, then close */
    LOGIN_DROP /* close without a word: it did not begin with a login PDU (RFC 7143 6.3) */
};

struct login_result {
    enum login_session session;
    char initiator[SCSI_NAME_MAX]; /* normalised, authenticated as far as policy asks */
    char target[SCSI_NAME_MAX]; /* "" discovery */
    char user[CHAP_NAME_MAX]; /* of CHAP, "" none */
    uint8_t chap_algorithm; /* its number, 5 (MD5, weak) .. 8; 0 none */
    uint8_t isid[6];
    uint16_t cid, tsih; /* TSIH as asked for: 0 a new session */
    uint32_t cmdsn; /* of the first command to come */
    uint32_t expstatsn, statsn; /* the next StatSN we send */
    struct login_terms terms;
};

/** Owned by the caller, login_destroy() (which wipes secrets). NULL: no memory. */
struct login *login_create(const struct login_asker *asker);
void login_destroy(struct login *login);

/**
 * One login PDU came: @bhs and @length (<= LOGIN_DATA_MAX) bytes of data. Fills the answer:
 * @answer[48] and @answer_data (room for LOGIN_DATA_MAX), its length in the header. A PDU that
 * is no login PDU is refused. @tsih: what the answer of the last PDU says for a new session.
 *
 * A header with an AHS, or with more data than LOGIN_DATA_MAX, is given with @length 0, its
 * data unread: it is refused. The answer's MaxCmdSN (byte 32) allows one command; who has
 * more room may write another number there before it is sent.
 */
enum login_next login_step(struct login *login, const uint8_t *bhs, const uint8_t *data,
        size_t length, uint16_t tsih, uint8_t *answer, uint8_t *answer_data,
        struct login_result *result);

/** The name of who logs in, as far as it is known, "" before: for logs, escaped. */
const char *login_initiator(const struct login *login);

/* -- text in full feature phase (send_targets.c)------------------------------------------ */

/** Targets that a Text request asks for. */
struct login_list {
    bool wanted;
    char name[SCSI_NAME_MAX]; /* this one, if it may be seen; "" all that may */
};

/**
 * A Text request's data in a session: SendTargets (RFC 7143 appendix C), and keys that may be
 * declared again (MaxRecvDataSegmentLength, which sets @terms->send_max). Returns the length of
 * the answer in @answer (room @room), or -1: a protocol error, or more than fits; 64 keys of
 * ours and NotUnderstood for others fit in 8 KiB. What @list then wants is the caller's to
 * write behind it: TargetName, and TargetAddress ("address:port,group") of each portal.
 */
int login_text(const uint8_t *data, size_t length, enum login_session session,
        const char *own_target, struct login_terms *terms, struct login_list *list,
        uint8_t *answer, size_t room);

#endif

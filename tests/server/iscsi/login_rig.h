/* tests/server/iscsi/login_rig.h - an initiator of the login phase, in plain words.
 *
 * Texts are written with '|' for NUL, both ways. Chance is not: the challenge is 1, 2 .. 32
 * and the identifier 0x27, so that responses can be computed elsewhere and written down.
 */
#ifndef TESTS_SERVER_ISCSI_LOGIN_RIG_H
#define TESTS_SERVER_ISCSI_LOGIN_RIG_H

#include "server/iscsi/login.h"

enum { SECURITY = 0x00, OPERATIONAL = 0x04 }; /* byte 1 of a login PDU: CSG */
enum { TO_OPERATIONAL = 0x81, TO_FULL = 0x83, MORE = 0x40 }; /* T and NSG; C */

#define INITIATOR "InitiatorName=iqn.2026-11.org.example:host|"
#define TARGET "TargetName=iqn.2026-11.org.example:disk|"
#define GROUP "TargetPortalGroupTag=7|"
#define OURS "MaxRecvDataSegmentLength=262144|"

struct login_rig {
    struct login *login;
    struct login_asker asker;
    enum login_access access; /* what the asker says */
    bool throttled;
    struct login_chap chap; /* of the target, and of the user of a discovery session */
    unsigned accesses, failures, users; /* calls */
    char asked_initiator[SCSI_NAME_MAX], asked_target[SCSI_NAME_MAX];

    uint8_t bhs[48]; /* of the next PDU: changed by who wants it wrong */
    uint8_t answer[48], data[LOGIN_DATA_MAX];
    uint8_t refusal[48]; /* kept by who looks at it later */
    char text[LOGIN_DATA_MAX + 1]; /* of the answer */
    struct login_result result;
};

void rig_start(struct login_rig *rig, enum login_access access);
void rig_stop(struct login_rig *rig);

/** A login PDU with @flags (byte 1) and @text. */
enum login_next rig_send(struct login_rig *rig, unsigned flags, const char *text);
/** The same with bytes as they are. */
enum login_next rig_send_bytes(
        struct login_rig *rig, unsigned flags, const void *bytes, size_t length);

/** Class and detail of the last answer. */
unsigned rig_status(const struct login_rig *rig);

#endif

/* server/iscsi/roster.h - the sessions of exports, for other threads to see. */
#ifndef SERVER_ISCSI_ROSTER_H
#define SERVER_ISCSI_ROSTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/iscsi/scsi.h"

struct export;
struct iscsi_target;
struct session;

enum {
    SESSIONS_MAX = 1024, /* what they cost: roster.c */
    ROSTER = SESSIONS_MAX + 32 /* those of a name that replace an older one, too */
};

/* A session for other threads to see: @taken under the lock, numbers by its loop. */
struct roster_entry {
    bool taken;
    uint16_t tsih;
    struct export *export;
    char initiator[SCSI_NAME_MAX], address[64];
    bool proven; /* by CHAP */
    uint8_t isid[6];
    int64_t since_ms;
    _Atomic uint64_t read_bytes, written_bytes;
    _Atomic unsigned queued;
};

uint16_t roster_tsih(struct iscsi_target *target); /* that no session has */
/** A place for a session of an export. Locked. False: there is none, and @why names the limit. */
bool roster_enter(struct session *session, char why[80]);
/** It has ended. Without a place: nothing. On its loop. */
void roster_leave(struct session *session);

#endif

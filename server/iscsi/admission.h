/* server/iscsi/admission.h - names, limits, the way to the export's loop. */
#ifndef SERVER_ISCSI_ADMISSION_H
#define SERVER_ISCSI_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/base/clock.h"
#include "server/iscsi/login.h"

struct connection;
struct export;

enum { FAILURES = 64 };

/* Failed logins of a name from an address. The first loop's. */
struct failure {
    char initiator[SCSI_NAME_MAX];
    char address[64];
    struct instant first;
    unsigned count;
    uint64_t credentials; /* how many were made before the first of them */
};

enum login_access admission_access(void *context, const char *initiator,
        const char *target, struct login_chap *chap);
bool admission_user(void *context, const char *initiator, const char *user,
        struct login_chap *chap);
bool admission_throttled(void *context, const char *initiator);
void admission_failed(void *context, const char *initiator);
/** After the login: 0 (the connection goes its way), or a login status (class << 8 | detail)
    to refuse with. */
uint16_t admission_enter(struct connection *connection);
/** Those who wait for older sessions of this export to end. On its loop. */
void admission_retry(struct export *export);

#endif

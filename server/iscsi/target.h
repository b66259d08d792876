/* server/iscsi/target.h - the iSCSI target (RFC 7143): the face of this room.
 *
 * Serves exported elements, each as LUN 0 of a target of its own. Knows no method, no row and
 * no JSON: who owns the house publishes what is to be served and keeps what must outlive us.
 *
 * Threads: every function may be called from any thread but a loop, and may wait for loops up
 * to the stated time. Callbacks come on loops: they must not wait.
 */
#ifndef SERVER_ISCSI_TARGET_H
#define SERVER_ISCSI_TARGET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/fault.h"
#include "replica/base/uuid.h"
#include "server/iscsi/login.h"
#include "server/iscsi/scsi.h"

struct iscsi_target;

struct iscsi_target_options {
    struct loop *const *loops; /* running; alive until destroy has returned */
    size_t loop_count;
    const struct sockaddr_storage *portals; /* port 0 picks one */
    size_t portal_count;
    const char *prefix; /* of target names: PREFIX:ID */
    size_t buffer_bytes; /* of all loops together; 0: 128 MiB, and at least 32 a loop */
    unsigned ping_ms; /* silence before NOP-In, and until the drop; 0: 15 s */
    unsigned stuck_ms; /* patience with a peer whose bytes do not move; 0: 30 s */
};

/** Listens. Owned by the caller, iscsi_target_destroy(). NULL with @fault (-EADDRINUSE...). */
struct iscsi_target *iscsi_target_create(
        const struct iscsi_target_options *options, struct fault *fault);

/** No connection is taken any more; sessions hear "logout requested" (async message), have
    @ms to go, then are closed; units flush and close their devices. False: some device does not
    end, and nothing was freed: it is all still used, the backings too. NULL is fine. */
bool iscsi_target_destroy(struct iscsi_target *target, unsigned ms);

/** The addresses it really has; @index from 0. False: no more. */
bool iscsi_target_portal(const struct iscsi_target *target, unsigned index,
        struct sockaddr_storage *address);

/** A value, but @backing is borrowed as scsi.h says. */
struct iscsi_export {
    struct uuid id; /* of the element: target name PREFIX:ID */
    const char *const *initiators; /* names, normalised by us; "*" all; none: nobody */
    size_t initiator_count;
    bool has_chap;
    struct login_chap chap;
    bool read_only;
    unsigned loop; /* index of the loop it lives on */
    const struct scsi_backing *backing;
    const uint8_t *kept;
    size_t kept_length;
};

/**
 * Open the element and serve it. Waits up to @ms. 0; -EEXIST (published already),
 * -ETIMEDOUT, -EINVAL (a name that is no iSCSI name, a secret shorter than 12 bytes, two equal
 * secrets), -ENOMEM, or what opening said.
 */
int iscsi_target_publish(struct iscsi_target *target, const struct iscsi_export *export,
        unsigned ms, struct fault *fault);

/**
 * Who may use it and with which credentials: judged and held ready (in place of what was held
 * ready before) until iscsi_target_settle(); nothing changes yet. 0; -ENOENT, -EINVAL, -ENOMEM;
 * -EBUSY: @read_only or the loop differ (withdraw first). Never waits.
 */
int iscsi_target_change(struct iscsi_target *target, const struct iscsi_export *export,
        struct fault *fault);

/**
 * What is held ready is in force, or forgotten (not @kept). New logins need it. Sessions of
 * initiators who may not any more are closed, their commands end first; all others go on,
 * whatever credentials they came with. Waits up to @ms for those ends: -ETIMEDOUT (they go on
 * ending, and nothing more is heard from them). 0; -ENOENT: nothing is held ready.
 */
int iscsi_target_settle(
        struct iscsi_target *target, const struct uuid *id, bool kept, unsigned ms);

/** Serve it no more: sessions are closed, what is in flight ends, the device is flushed and
    closed. Waits up to @ms: -ETIMEDOUT (it goes on ending). -ENOENT. */
int iscsi_target_withdraw(
        struct iscsi_target *target, const struct uuid *id, unsigned ms);

struct iscsi_session {
    char initiator[SCSI_NAME_MAX];
    char address[64]; /* of the peer, numeric */
    int64_t since_ms; /* wall clock */
    unsigned queue_depth; /* commands now */
    uint64_t read_bytes, written_bytes;
};

/** Copies up to @room sessions of the export; returns how many there are, or -ENOENT. */
int iscsi_target_sessions(struct iscsi_target *target, const struct uuid *id,
        struct iscsi_session *sessions, size_t room);

/** For /metrics. */
struct iscsi_figures {
    unsigned sessions, connections, exports;
    uint64_t commands, read_bytes, written_bytes, logins_refused, connections_dropped;
};
void iscsi_target_figures(struct iscsi_target *target, struct iscsi_figures *figures);

/** "PREFIX:ID". */
void iscsi_target_name(
        const char *prefix, const struct uuid *id, char name[SCSI_NAME_MAX]);

#endif

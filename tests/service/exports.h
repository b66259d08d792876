/* tests/service/exports.h - a whole daemon with exports, and hosts that use them: libiscsi
 * as a stranger uses it, and the programs of qemu, e2fsprogs and libiscsi. What must work and
 * does not fails the test; every wait is bounded. */
#ifndef TESTS_SERVICE_EXPORTS_H
#define TESTS_SERVICE_EXPORTS_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tests/service/world.h"

enum { SECTOR = 512, MIB = 1 << 20, PATIENCE_S = 60, PORTAL_TEXT = 64, OUTPUT = 8192 };

/** Portals on IPv4 and, second, IPv6; on IPv4 again where there is none. */
struct house {
    struct world world;
    char credentials[WORLD_PATH]; /* its directory */
    char v4[PORTAL_TEXT], v6[PORTAL_TEXT]; /* as it is listening now */
};

/** @extra: more options, NULL-terminated, or NULL. */
void house_open(struct house *house, const char *const *extra);
void house_close(struct house *house);

/** kill -9, and a new life on the same data; its portals may be others. */
void house_kill(struct house *house);

/** A thin volume of the pool. */
void volume_make(struct house *house, uint64_t size, char id[WORLD_ID]);

/** PUT of the export; @body is JSON. The answer must have @status (201: new, 200: again). */
void export_put(struct house *house, long status, const char *id, const char *body);

/** What its export says. Owned by the caller. */
json_t *export_get(struct house *house, const char *id);

/** Waits until an export is served. */
void serving_wait(struct house *house, const char *id);

/** 409, and ReturnValue 6 where a method answers, for this call. */
void call_in_use(
        struct house *house, const char *method, const char *path, const char *body);

/** Waits until an export shows @count sessions. */
void sessions_wait(struct house *house, const char *id, size_t count);

/** A credentials file of mode 0600. */
void secret_write(struct house *house, const char *name, const char *lines);

/* -- hosts ------------------------------------------------------------------------------- */

/** A host that may still be told about secrets and digests; never comes back by itself. */
struct iscsi_context *host_make(const char *id, const char *name);

/** Logs in. False: it was refused; the host is of no use then but for host_free(). */
bool host_login(struct iscsi_context *host, const char *portal);

/** Both, must work, and unit attentions are taken. */
struct iscsi_context *host_come(const char *portal, const char *id, const char *name);
void host_leave(struct iscsi_context *host);
void host_free(struct iscsi_context *host);

/** Is @key registered, and nobody else's? */
bool host_is_registered(struct iscsi_context *host, uint64_t key);

/** Comes and goes. False: it was refused. */
bool may_come(const char *portal, const char *id, const char *name);

/** One answer. */
struct said {
    int status; /* SCSI's; -1: none came */
    unsigned key, code; /* of the sense data, code is ASC << 8 | ASCQ */
    size_t length;
    uint8_t data[8192];
};

/** Frees @task. */
struct said said_of(struct scsi_task *task);

struct said host_ready(struct iscsi_context *host); /* TEST UNIT READY */
struct said host_read(struct iscsi_context *host, uint64_t lba, unsigned blocks);
struct said host_write(
        struct iscsi_context *host, uint64_t lba, unsigned blocks, uint8_t value);

/** PERSISTENT RESERVE OUT; the keys as the service action takes them. */
struct said host_reserve(
        struct iscsi_context *host, int action, int type, uint64_t key, uint64_t other);

/** TEST UNIT READY until nothing is news any more. */
void host_settle(struct iscsi_context *host);

#define expect_good(call_)                                                             \
    do {                                                                               \
        struct said got_ = (call_);                                                    \
        cr_assert(got_.status == SCSI_STATUS_GOOD, "status %d, sense %x/%04x",         \
                got_.status, got_.key, got_.code);                                     \
    } while (0)

#define expect_sense(call_, wanted_key, wanted_code)                                   \
    do {                                                                               \
        struct said got_ = (call_);                                                    \
        cr_assert(got_.status == SCSI_STATUS_CHECK_CONDITION &&                        \
                        got_.key == (wanted_key) && got_.code == (wanted_code),        \
                "status %d, sense %x/%04x", got_.status, got_.key, got_.code);         \
    } while (0)

#define expect_conflict(call_)                                                         \
    do {                                                                               \
        struct said got_ = (call_);                                                    \
        cr_assert(got_.status == SCSI_STATUS_RESERVATION_CONFLICT,                     \
                "status %d, sense %x/%04x", got_.status, got_.key, got_.code);         \
    } while (0)

/** A host on a thread of its own that writes all over its export. */
struct writer_host {
    struct iscsi_context *host;
    struct scsi_task *task; /* its command, while it has one */
    bool answered;
    uint8_t bytes[64 * 512]; /* the longest write */
    uint64_t blocks, state;
    pthread_t thread;
    atomic_bool stop;
    atomic_uint writes; /* answered GOOD */
    bool lost; /* the session was taken from it */
};
void writer_start(struct writer_host *writer, const char *portal, const char *id,
        const char *name, uint64_t size);
/** Until @more further writes were answered. */
void writer_wait(struct writer_host *writer, unsigned more);
void writer_stop(struct writer_host *writer);

/* -- programs ------------------------------------------------------------------------------ */

/** sh -c of printf's command, at most a minute; both outputs. The exit status. */
int shell(char output[OUTPUT], const char *command, ...)
        __attribute__((format(printf, 2, 3)));

/** iscsi://PORTAL/TARGET/0. */
const char *url_of(char url[256], const char *portal, const char *id);

#endif

/* store/rows.h - the rows, as values. Numbers whose meaning is api/'s are plain numbers here.
 *
 * Times are milliseconds of the wall clock, 0 = never. An empty uuid or text = none.
 * `owner` and `lease` are columns of jobs from the start, for several nodes on one queue.
 */
#ifndef STORE_ROWS_H
#define STORE_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/base/uuid.h"

enum {
    STORE_NAME = 257, /* ElementName: 256 bytes and NUL */
    STORE_ADDRESS = 512,
    STORE_WORD = 65, /* names of pools, credentials, methods */
    STORE_IDENTITY = 320,
    STORE_SENTENCE = 512,
    STORE_GOAL = 2048,
};

enum store_table {
    STORE_ELEMENT,
    STORE_REPLICA,
    STORE_JOB,
    STORE_RESULT,
    STORE_SETTING,
    STORE_PIPE,
    STORE_EVENT,
    STORE_KEY, /* idempotency keys */
    STORE_META, /* single facts of this installation */
    STORE_EXPORT, /* what the iSCSI target serves */
    STORE_RESERVATION, /* persistent reservations it must not forget */
    STORE_TABLE_COUNT
};

/** What lists may be filtered by; each has an index (column, id). JOB_REMOVE is
    delete_on_completion: 0 or 1. */
/* clang-format off */
enum store_column {
    ELEMENT_TYPE, ELEMENT_NAME, ELEMENT_POOL, ELEMENT_OF, ELEMENT_PLACE, ELEMENT_WORLD,
    ELEMENT_WEAK, ELEMENT_REMOTE, ELEMENT_USAGE, ELEMENT_ADDRESS,
    REPLICA_SOURCE, REPLICA_COPY_TYPE, REPLICA_SYNC_STATE, REPLICA_PIPE,
    JOB_STATE, JOB_SOURCE, JOB_TARGET, JOB_REPLICA, JOB_METHOD, JOB_REMOVE,
    RESULT_METHOD, RESULT_RETURN, RESULT_JOB, RESULT_TARGET, RESULT_CALLER,
    SETTING_NAME, PIPE_NAME,
    STORE_COLUMN_COUNT
};
/* clang-format on */

struct store_element {
    struct uuid id; /* key */
    int64_t revision, created;
    int64_t type;
    char name[STORE_NAME];
    char address[STORE_ADDRESS]; /* of an extent: its parent's */
    char pool[STORE_WORD]; /* allocated in that pool: it is ours to remove */
    struct uuid of; /* extent: the element it is part of */
    uint64_t offset, size; /* bytes; offset 0 but for extents */
    uint64_t whole; /* bytes of all that is addressed */
    int64_t block_size;
    bool remote, thin, complete;
    char credentials[STORE_WORD];
    char place[STORE_IDENTITY], world[STORE_IDENTITY], weak[STORE_IDENTITY];
    int64_t usage, health;
    char warnings[STORE_GOAL]; /* JSON array of strings, opaque here */
};

struct store_replica {
    struct uuid id; /* key: the target element's */
    int64_t revision;
    struct uuid source, pipe;
    struct uuid job; /* the live job, if any */
    int64_t copy_type, sync_state;
    int64_t state_before; /* where Unprepare, Unquiesce, Restore go back to */
    int64_t copy_priority, replica_type;
    int64_t percent;
    bool maintained; /* SyncMaintained */
    int64_t when_established, when_synced;
    int64_t scan_started, scan_due; /* Async by scan */
    int64_t rpo; /* seconds */
    int64_t recovery_mode; /* CopyRecoveryMode */
    uint64_t limit; /* bytes a second, 0 none */
    bool verify;
    char goal[STORE_GOAL]; /* canonical JSON as asked for, "" none */
    char last_error[STORE_SENTENCE];
};

struct store_job {
    struct uuid id; /* key */
    int64_t revision;
    char method[STORE_WORD]; /* MethodName; Name is the same */
    int64_t work; /* api's word for what it does */
    int64_t state, priority;
    struct uuid source, target, replica; /* replica none: the pair is gone */
    int64_t submitted, started, changed, ended;
    int64_t percent;
    uint64_t total, done, skipped, written, watermark, rate, limit;
    int64_t mode; /* full, delta by digest, delta by comparison */
    bool target_zero, resumed, verify, delete_on_completion;
    int64_t wanted; /* a state asked for and under way; 0 none */
    int64_t error_code, return_value;
    char error[STORE_SENTENCE]; /* ErrorDescription */
    int64_t error_type, probable_cause; /* CIM_Error's numbers */
    char request[STORE_WORD]; /* id of the request that made it */
    char trace[STORE_WORD];
    char owner[STORE_WORD];
    int64_t lease, fence;
    int64_t time_before_removal; /* ms */
    uint64_t differ_bytes, differ_ranges; /* found by comparing, up to where it is */
    char differences[STORE_GOAL]; /* the first ranges, opaque here; "" none */
    uint64_t read; /* from either end, by all runs */
    uint64_t skipped_zero, skipped_equal; /* bytes; `skipped` is both */
    uint64_t verified; /* bytes read back and found equal */
    int64_t limited_by; /* enum engine_limited; 0 none */
    int64_t stalled; /* since when no byte has moved; 0: they do */
    char stall_reason[STORE_SENTENCE];
};

struct store_result {
    struct uuid id; /* key */
    char method[STORE_WORD];
    int64_t time;
    char caller[STORE_WORD], request[STORE_WORD];
    const char *in; /* InParameters as JSON text, at most 64 KiB; borrowed */
    int64_t return_value;
    char detail[STORE_SENTENCE];
    struct uuid job, target, source;
};

struct store_setting {
    struct uuid id; /* key */
    int64_t revision, created;
    char name[STORE_NAME];
    char body[STORE_GOAL]; /* canonical JSON of its properties */
};

struct store_pipe {
    struct uuid id; /* key */
    int64_t revision, created;
    char name[STORE_NAME];
    char source_system[STORE_NAME], target_system[STORE_NAME];
    char endpoints[STORE_GOAL]; /* JSON array of portals */
    char credentials[STORE_WORD];
    uint64_t limit;
};

struct store_event {
    int64_t number; /* key; given by the store when it is put with 0; never used twice */
    int64_t time;
    char kind[STORE_WORD]; /* InstCreation ... */
    char about[STORE_WORD]; /* Self, "/jobs/..." */
    char type[STORE_WORD]; /* Job, Replica ... */
    const char *changed; /* JSON object text; borrowed */
};

struct store_key {
    char key[STORE_ADDRESS]; /* key: caller's key and what it was used for */
    int64_t time;
    char fingerprint[STORE_WORD]; /* hex SHA-256 of the body */
    const char *outcome; /* opaque text of api/; borrowed */
};

struct store_export {
    struct uuid id; /* key: the element's */
    int64_t revision, created;
    char initiators[STORE_GOAL]; /* names, each ended by a newline */
    char credentials[STORE_WORD];
    bool read_only;
};

struct store_reservation {
    struct uuid id; /* key: the element's */
    const char *kept; /* opaque text of who serves it; borrowed */
};

struct store_meta {
    char key[STORE_WORD]; /* key */
    char value[STORE_ADDRESS];
};

/** Room for a row of any table. */
union store_row {
    struct store_element element;
    struct store_replica replica;
    struct store_job job;
    struct store_result result;
    struct store_setting setting;
    struct store_pipe pipe;
    struct store_event event;
    struct store_key key;
    struct store_export export;
    struct store_reservation reservation;
    struct store_meta meta;
};

#endif

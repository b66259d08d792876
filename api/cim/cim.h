/* api/cim/cim.h - the words of CIM: enumerations, their names, what is in which range.
 *
 * One row a value in *.tbl.h; enum, names and decoders come from the rows. Sources: DMTF CIM
 * schema 2.41 and the two methods' own pages. No state, any thread.
 */
#ifndef API_CIM_CIM_H
#define API_CIM_CIM_H

#include <stdbool.h>
#include <stdint.h>

/** The two methods differ in names and ranges; the others share the second column. */
enum cim_method {
    CIM_CREATE_REPLICA,
    CIM_ATTACH_OR_MODIFY_REPLICA,
    CIM_MODIFY_SYNCHRONIZATION,
    CIM_OTHER_METHOD,
    CIM_POOL_METHOD, /* the pool and element methods: 2 is Unknown, as CreateReplica's */
    CIM_REQUEST_STATE_CHANGE /* ConcreteJob's: a map of its own */
};

/** The method of a MethodName ("CreateReplica"); CIM_OTHER_METHOD for one not told apart. */
enum cim_method cim_method_named(const char *name);

enum cim_map {
    CIM_COPY_TYPE, /* copy_type.tbl.h */
    CIM_RETURN_VALUE, /* the others' column; by method: cim_return_name() */
    CIM_SYNC_STATE,
    CIM_OPERATION, /* ModifySynchronization.Operation 2..13 */
    CIM_JOB_STATE,
    CIM_REQUESTED_STATE, /* ConcreteJob.RequestStateChange 2..5 */
    CIM_COPY_PRIORITY, /* StorageSynchronized 0..4 */
    CIM_REPLICATION_PRIORITY, /* StorageSetting 0..4 */
    CIM_INITIAL_SYNCHRONIZATION,
    CIM_COPY_RECOVERY_MODE,
    CIM_COPY_METHODOLOGY,
    CIM_REPLICA_TYPE,
    CIM_USAGE, /* StorageExtent.Usage */
    CIM_HEALTH_STATE,
    CIM_OPERATIONAL_STATUS,
    CIM_ERROR_TYPE,
    CIM_PROBABLE_CAUSE,
    CIM_SEVERITY,
    CIM_THIN_POOL_TYPE,
    CIM_REQUEST_RETURN, /* RequestStateChange's return values */
    CIM_MAP_COUNT
};

/** The row's name, or NULL for a value that has no row. */
const char *cim_name(enum cim_map map, int64_t value);

/** The value of a name (exact case); false when there is none. */
bool cim_value(enum cim_map map, const char *name, int64_t *value);

/** n-th row of a map; false past the end. For documents and tests. */
bool cim_row(enum cim_map map, unsigned n, int64_t *value, const char **name);

/** ReturnValueName as @method spells it (2 differs). */
const char *cim_return_name(enum cim_method method, int64_t value);

enum cim_copy_type_class {
    CIM_COPY_TYPE_KNOWN, /* 2..5 */
    CIM_COPY_TYPE_RESERVED, /* DMTF's: answers 5 */
    CIM_COPY_TYPE_VENDOR, /* answers 1 */
    CIM_COPY_TYPE_INVALID /* 0, 1, no uint16: answers 5 */
};

/** Which range @value falls in, by @method's own ranges (6-32767 / 6-4095 reserved). */
enum cim_copy_type_class cim_copy_type_classify(enum cim_method method, int64_t value);

#define ROW(value, symbol, create, others) symbol = value,
enum cim_return {
#include "api/cim/return_value.tbl.h"
    CIM_INVALID_TRANSITION = 4097 /* RequestStateChange */
};
#undef ROW

/* Enumerators CIM_COPY_ASYNC, CIM_SYNC_INITIALIZED, CIM_OP_DETACH, CIM_JOB_RUNNING, ... */
#define ROW(value, symbol, name) symbol = value,
enum cim_copy_type_value {
#include "api/cim/copy_type.tbl.h"
};
enum cim_sync_state_value {
#include "api/cim/sync_state.tbl.h"
};
enum cim_operation_value {
#include "api/cim/operation.tbl.h"
};
enum cim_job_state_value {
#include "api/cim/job_state.tbl.h"
};
enum cim_requested_state_value {
#include "api/cim/requested_state.tbl.h"
};
enum cim_copy_priority_value {
#include "api/cim/copy_priority.tbl.h"
};
enum cim_replication_priority_value {
#include "api/cim/replication_priority.tbl.h"
};
enum cim_initial_synchronization_value {
#include "api/cim/initial_synchronization.tbl.h"
};
enum cim_copy_recovery_mode_value {
#include "api/cim/copy_recovery_mode.tbl.h"
};
enum cim_copy_methodology_value {
#include "api/cim/copy_methodology.tbl.h"
};
enum cim_replica_type_value {
#include "api/cim/replica_type.tbl.h"
};
enum cim_usage_value {
#include "api/cim/usage.tbl.h"
};
enum cim_health_state_value {
#include "api/cim/health_state.tbl.h"
};
enum cim_operational_status_value {
#include "api/cim/operational_status.tbl.h"
};
enum cim_error_type_value {
#include "api/cim/error_type.tbl.h"
};
enum cim_probable_cause_value {
#include "api/cim/probable_cause.tbl.h"
};
enum cim_severity_value {
#include "api/cim/severity.tbl.h"
};
enum cim_thin_pool_type_value {
#include "api/cim/thin_pool_type.tbl.h"
};
enum cim_request_return_value {
#include "api/cim/request_return.tbl.h"
};
#undef ROW

/* -- the legality table of ModifySynchronization (one table, legality.tbl.h) ----------- */

enum cim_legality {
    CIM_LEGAL, /* go on to @next */
    CIM_NO_SUCH, /* the CopyType does not have this operation: 5 */
    CIM_FORBIDDEN, /* the state does not allow it: 4, HTTP 409 */
    CIM_BUSY /* a transient state with a live job: 6 */
};

/** What the row says the pair goes through; 0 where there is none. */
struct cim_step {
    enum cim_legality legality;
    int64_t transient; /* state while a job runs; 0: none */
    int64_t final; /* state afterwards; 0: the pair is gone; -1: the state before */
};

/** @copy_type 2..5, @state 0..15, @operation 2..13. */
struct cim_step cim_legality_of(int64_t operation, int64_t copy_type, int64_t state);

/** States that need a live job: 3, 5, 7, 8, 10, 15. */
bool cim_state_is_transient(int64_t state);

#endif

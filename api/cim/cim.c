/* Names and ranges, all from the rows. Maps are short: a walk is as fast as a search.
 */
#include "api/cim/cim.h"

#include <stddef.h>
#include <string.h>

struct row {
    int64_t value;
    const char *name;
};

struct map {
    const struct row *rows;
    size_t count;
};

#define ROW(value, symbol, name) { value, name },
static const struct row copy_type[] = {
#include "api/cim/copy_type.tbl.h"
};
static const struct row sync_state[] = {
#include "api/cim/sync_state.tbl.h"
};
static const struct row operation[] = {
#include "api/cim/operation.tbl.h"
};
static const struct row job_state[] = {
#include "api/cim/job_state.tbl.h"
};
static const struct row requested_state[] = {
#include "api/cim/requested_state.tbl.h"
};
static const struct row copy_priority[] = {
#include "api/cim/copy_priority.tbl.h"
};
static const struct row replication_priority[] = {
#include "api/cim/replication_priority.tbl.h"
};
static const struct row initial_synchronization[] = {
#include "api/cim/initial_synchronization.tbl.h"
};
static const struct row copy_recovery_mode[] = {
#include "api/cim/copy_recovery_mode.tbl.h"
};
static const struct row copy_methodology[] = {
#include "api/cim/copy_methodology.tbl.h"
};
static const struct row replica_type[] = {
#include "api/cim/replica_type.tbl.h"
};
static const struct row usage[] = {
#include "api/cim/usage.tbl.h"
};
static const struct row health_state[] = {
#include "api/cim/health_state.tbl.h"
};
static const struct row operational_status[] = {
#include "api/cim/operational_status.tbl.h"
};
static const struct row error_type[] = {
#include "api/cim/error_type.tbl.h"
};
static const struct row probable_cause[] = {
#include "api/cim/probable_cause.tbl.h"
};
static const struct row severity[] = {
#include "api/cim/severity.tbl.h"
};
static const struct row thin_pool_type[] = {
#include "api/cim/thin_pool_type.tbl.h"
};
static const struct row request_return[] = {
#include "api/cim/request_return.tbl.h"
};
#undef ROW

#define ROW(value, symbol, create, others) { value, create },
static const struct row create_return[] = {
#include "api/cim/return_value.tbl.h"
};
#undef ROW
#define ROW(value, symbol, create, others) { value, others },
static const struct row return_value[] = {
#include "api/cim/return_value.tbl.h"
};
#undef ROW

#define MAP(table)                                                                     \
    {                                                                                  \
        table, sizeof table / sizeof table[0]                                          \
    }
static const struct map maps[CIM_MAP_COUNT] = {
    [CIM_COPY_TYPE] = MAP(copy_type),
    [CIM_RETURN_VALUE] = MAP(return_value),
    [CIM_SYNC_STATE] = MAP(sync_state),
    [CIM_OPERATION] = MAP(operation),
    [CIM_JOB_STATE] = MAP(job_state),
    [CIM_REQUESTED_STATE] = MAP(requested_state),
    [CIM_COPY_PRIORITY] = MAP(copy_priority),
    [CIM_REPLICATION_PRIORITY] = MAP(replication_priority),
    [CIM_INITIAL_SYNCHRONIZATION] = MAP(initial_synchronization),
    [CIM_COPY_RECOVERY_MODE] = MAP(copy_recovery_mode),
    [CIM_COPY_METHODOLOGY] = MAP(copy_methodology),
    [CIM_REPLICA_TYPE] = MAP(replica_type),
    [CIM_USAGE] = MAP(usage),
    [CIM_HEALTH_STATE] = MAP(health_state),
    [CIM_OPERATIONAL_STATUS] = MAP(operational_status),
    [CIM_ERROR_TYPE] = MAP(error_type),
    [CIM_PROBABLE_CAUSE] = MAP(probable_cause),
    [CIM_SEVERITY] = MAP(severity),
    [CIM_THIN_POOL_TYPE] = MAP(thin_pool_type),
    [CIM_REQUEST_RETURN] = MAP(request_return),
};
static const struct map create_returns = MAP(create_return);

static const char *name_in(const struct map *map, int64_t value)
{
    for (size_t i = 0; i < map->count; i++)
        if (map->rows[i].value == value)
            return map->rows[i].name;
    return NULL;
}

static const struct map *map_of(enum cim_map map)
{
    return (unsigned)map < CIM_MAP_COUNT ? &maps[map] : NULL;
}

const char *cim_name(enum cim_map map, int64_t value)
{
    const struct map *rows = map_of(map);

    return rows ? name_in(rows, value) : NULL;
}

bool cim_value(enum cim_map map, const char *name, int64_t *value)
{
    const struct map *rows = map_of(map);

    for (size_t i = 0; rows && name && i < rows->count; i++) {
        if (strcmp(rows->rows[i].name, name) == 0) {
            *value = rows->rows[i].value;
            return true;
        }
    }
    return false;
}

bool cim_row(enum cim_map map, unsigned n, int64_t *value, const char **name)
{
    const struct map *rows = map_of(map);

    if (!rows || n >= rows->count)
        return false;
    *value = rows->rows[n].value;
    *name = rows->rows[n].name;
    return true;
}

enum cim_method cim_method_named(const char *name)
{
    static const struct {
        const char *name;
        enum cim_method method;
    } known[] = {
        { "CreateReplica", CIM_CREATE_REPLICA },
        { "AttachOrModifyReplica", CIM_ATTACH_OR_MODIFY_REPLICA },
        { "ModifySynchronization", CIM_MODIFY_SYNCHRONIZATION },
        { "RequestStateChange", CIM_REQUEST_STATE_CHANGE },
        { "CreateOrModifyElementFromStoragePool", CIM_POOL_METHOD },
        { "ReturnToStoragePool", CIM_POOL_METHOD },
    };

    for (size_t i = 0; name && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].method;
    return CIM_OTHER_METHOD;
}

const char *cim_return_name(enum cim_method method, int64_t value)
{
    if (method == CIM_CREATE_REPLICA || method == CIM_POOL_METHOD)
        return name_in(&create_returns, value);
    if (method == CIM_REQUEST_STATE_CHANGE)
        return cim_name(CIM_REQUEST_RETURN, value);
    return cim_name(CIM_RETURN_VALUE, value);
}

/* The last value that DMTF keeps for itself, by method (cim.md 1.1); vendors' are
 * above. Methods without ranges of their own follow CreateReplica's. */
static int64_t reserved_up_to(enum cim_method method)
{
    return method == CIM_ATTACH_OR_MODIFY_REPLICA ? 4095 : 32767;
}

enum cim_copy_type_class cim_copy_type_classify(enum cim_method method, int64_t value)
{
    if (value < CIM_COPY_ASYNC || value > UINT16_MAX)
        return CIM_COPY_TYPE_INVALID;
    if (cim_name(CIM_COPY_TYPE, value))
        return CIM_COPY_TYPE_KNOWN;
    return value <= reserved_up_to(method) ? CIM_COPY_TYPE_RESERVED
                                           : CIM_COPY_TYPE_VENDOR;
}

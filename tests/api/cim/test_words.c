/* The rows of api/cim against the pages of the standard: numbers written here by hand. */
#include <criterion/criterion.h>
#include <string.h>

#include "api/cim/cim.h"

static void is(enum cim_map map, int64_t value, const char *name)
{
    const char *have = cim_name(map, value);
    int64_t back = -99;

    cr_assert(have && strcmp(have, name) == 0, "map %d, %lld: %s, not %s", map,
            (long long)value, have ? have : "nothing", name);
    cr_assert(cim_value(map, name, &back) && back == value, "map %d: %s is %lld", map,
            name, (long long)back);
}

Test(words, copy_types_are_async_2_sync_3)
{
    is(CIM_COPY_TYPE, 2, "Async"); /* Mode has them the other way round */
    is(CIM_COPY_TYPE, 3, "Sync");
    is(CIM_COPY_TYPE, 4, "UnSyncAssoc");
    is(CIM_COPY_TYPE, 5, "UnSyncUnAssoc"); /* SupportedSynchronizationType 5 is Delta */
    cr_assert(!cim_name(CIM_COPY_TYPE, 6));
    cr_assert(CIM_COPY_ASYNC == 2 && CIM_COPY_SYNC == 3);
}

Test(words, priorities_have_two_numberings)
{
    is(CIM_REPLICATION_PRIORITY, 2, "Low");
    is(CIM_REPLICATION_PRIORITY, 3, "Same");
    is(CIM_REPLICATION_PRIORITY, 4, "High");
    is(CIM_COPY_PRIORITY, 1, "Low");
    is(CIM_COPY_PRIORITY, 2, "Same");
    is(CIM_COPY_PRIORITY, 3, "High");
    is(CIM_COPY_PRIORITY, 4, "Urgent");
    is(CIM_COPY_PRIORITY, 0, "Not Managed");
    is(CIM_REPLICATION_PRIORITY, 1, "Not Managed");
}

Test(words, initial_synchronization_is_the_settings_not_the_capabilities)
{
    is(CIM_INITIAL_SYNCHRONIZATION, 1, "Not Managed");
    is(CIM_INITIAL_SYNCHRONIZATION, 2, "Start");
    is(CIM_INITIAL_SYNCHRONIZATION, 3, "Do Not Start");
}

Test(words, sync_states)
{
    static const char *const names[] = { "Initialized", "PrepareInProgress", "Prepared",
        "ResyncInProgress", "Synchronized", "FractureInProgress", "QuiesceInProgress",
        "Quiesced", "RestoreInProgress", "Idle", "Broken", "Fractured", "Frozen",
        "CopyInProgress" };

    for (int i = 0; i < 14; i++)
        is(CIM_SYNC_STATE, i + 2, names[i]);
    cr_assert(!cim_name(CIM_SYNC_STATE, 1) && !cim_name(CIM_SYNC_STATE, 16));
    cr_assert(CIM_SYNC_IDLE == 11 && CIM_SYNC_FROZEN == 14);
}

Test(words, operations_detach_is_2)
{
    static const char *const names[] = { "Detach", "Fracture", "Resync", "Restore",
        "Prepare", "Unprepare", "Quiesce", "Unquiesce", "Reset To Sync",
        "Reset To Async", "Start Copy", "Stop Copy" };

    for (int i = 0; i < 12; i++)
        is(CIM_OPERATION, i + 2, names[i]);
    cr_assert(!cim_name(CIM_OPERATION, 14));
    cr_assert(CIM_OP_STOP_COPY == 13);
}

Test(words, jobs)
{
    static const char *const names[] = { "New", "Starting", "Running", "Suspended",
        "Shutting Down", "Completed", "Terminated", "Killed", "Exception", "Service",
        "Query Pending" };

    for (int i = 0; i < 11; i++)
        is(CIM_JOB_STATE, i + 2, names[i]);
    is(CIM_REQUESTED_STATE, 2, "Start");
    is(CIM_REQUESTED_STATE, 3, "Suspend");
    is(CIM_REQUESTED_STATE, 4, "Terminate");
    is(CIM_REQUESTED_STATE, 5, "Kill");
    cr_assert(!cim_name(CIM_REQUESTED_STATE, 6));
    is(CIM_OPERATIONAL_STATUS, 2, "OK");
    is(CIM_OPERATIONAL_STATUS, 15, "Dormant");
    is(CIM_OPERATIONAL_STATUS, 17, "Completed");
}

Test(words, others_of_the_contract)
{
    is(CIM_USAGE, 2, "Unrestricted");
    is(CIM_USAGE, 8, "Local Replica Target");
    is(CIM_HEALTH_STATE, 5, "OK");
    is(CIM_COPY_METHODOLOGY, 3, "Full-Copy");
    is(CIM_COPY_METHODOLOGY, 6, "Copy-On-Write");
    is(CIM_COPY_RECOVERY_MODE, 2, "Automatic");
    is(CIM_COPY_RECOVERY_MODE, 3, "Manual");
    is(CIM_REPLICA_TYPE, 2, "Full Copy");
    is(CIM_THIN_POOL_TYPE, 9, "ThinlyProvisionedLimitlessStoragePool");
    is(CIM_ERROR_TYPE, 10, "Unsupported Operation Error");
    is(CIM_PROBABLE_CAUSE, 111, "Timeout");
    is(CIM_SEVERITY, 7, "Fatal/NonRecoverable");
}

static void returns(enum cim_method method, int64_t value, const char *name)
{
    const char *have = cim_return_name(method, value);

    cr_assert(have && strcmp(have, name) == 0, "method %d, %lld: %s, not %s", method,
            (long long)value, have ? have : "nothing", name);
}

Test(words, the_two_methods_name_2_differently)
{
    returns(CIM_CREATE_REPLICA, 2, "Unknown");
    returns(CIM_ATTACH_OR_MODIFY_REPLICA, 2, "Unspecified Error");
    returns(CIM_MODIFY_SYNCHRONIZATION, 2, "Unspecified Error");
    returns(CIM_POOL_METHOD, 2, "Unknown");
}

Test(words, return_values_are_the_same_else)
{
    for (int method = CIM_CREATE_REPLICA; method <= CIM_POOL_METHOD; method++) {
        returns((enum cim_method)method, 0, "Job Completed with No Error");
        returns((enum cim_method)method, 1, "Not Supported");
        returns((enum cim_method)method, 3, "Timeout");
        returns((enum cim_method)method, 4, "Failed");
        returns((enum cim_method)method, 5, "Invalid Parameter");
        returns((enum cim_method)method, 6, "In Use");
        returns((enum cim_method)method, 4096,
                "Method Parameters Checked - Job Started");
        cr_assert(!cim_return_name((enum cim_method)method, 7));
        cr_assert(!cim_return_name((enum cim_method)method, 4097));
    }
}

Test(words, a_jobs_state_change_has_a_map_of_its_own)
{
    enum cim_method method = cim_method_named("RequestStateChange");

    returns(method, 0, "Completed with No Error");
    returns(method, 2, "Unknown/Unspecified Error");
    returns(method, 4096, "Method Parameters Checked - Transition Started");
    returns(method, 4097, "Invalid State Transition");
    returns(method, 4098, "Use of Timeout Parameter Not Supported");
    returns(method, 4099, "Busy");
}

Test(words, methods_by_name)
{
    cr_assert(cim_method_named("CreateReplica") == CIM_CREATE_REPLICA);
    cr_assert(
            cim_method_named("AttachOrModifyReplica") == CIM_ATTACH_OR_MODIFY_REPLICA);
    cr_assert(cim_method_named("ModifySynchronization") == CIM_MODIFY_SYNCHRONIZATION);
    cr_assert(cim_method_named("ReturnToStoragePool") == CIM_POOL_METHOD);
    cr_assert(cim_method_named("createreplica") == CIM_OTHER_METHOD);
    cr_assert(cim_method_named(NULL) == CIM_OTHER_METHOD);
}

Test(words, every_row_is_one_value_and_one_name)
{
    unsigned rows = 0;

    for (int map = 0; map < CIM_MAP_COUNT; map++) {
        int64_t value, last = -1, back;
        const char *name;
        unsigned n = 0;
        for (; cim_row((enum cim_map)map, n, &value, &name); n++) {
            cr_assert(value > last, "map %d: %lld is out of order", map,
                    (long long)value);
            cr_assert(cim_value((enum cim_map)map, name, &back) && back == value,
                    "map %d: %s twice", map, name);
            cr_assert(strlen(name) > 0 && strchr(name, ',') == NULL);
            last = value;
        }
        cr_assert(n > 0, "map %d has no row", map);
        rows += n;
    }
    cr_assert(rows > 120, "%u rows", rows);
}

Test(words, names_are_exact)
{
    int64_t value = 77;

    cr_assert(!cim_value(CIM_COPY_TYPE, "async", &value));
    cr_assert(!cim_value(CIM_COPY_TYPE, "Async ", &value));
    cr_assert(!cim_value(CIM_COPY_TYPE, "", &value));
    cr_assert(!cim_value(CIM_COPY_TYPE, NULL, &value));
    cr_assert(!cim_value(CIM_MAP_COUNT, "Async", &value));
    cr_assert(!cim_name(CIM_MAP_COUNT, 2));
    cr_assert(value == 77);
}

Test(words, ranges_beyond_uint16_are_invalid)
{
    static const int64_t odd[] = { INT64_MIN, -1, 0, 1, 65536, INT64_MAX };

    for (unsigned i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        cr_assert(cim_copy_type_classify(CIM_CREATE_REPLICA, odd[i]) ==
                CIM_COPY_TYPE_INVALID);
        cr_assert(cim_copy_type_classify(CIM_ATTACH_OR_MODIFY_REPLICA, odd[i]) ==
                CIM_COPY_TYPE_INVALID);
    }
}

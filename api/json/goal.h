/* api/json/goal.h - a Goal: CIM_StorageSetting, CIM_ReplicationSettingData and ours.
 *
 * The same decoder serves Goal (an object, JSON text or MOF text) and /settings bodies.
 */
#ifndef API_JSON_GOAL_H
#define API_JSON_GOAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct body_problems;

/** A value. given_X false: the property was not there, X has its default. */
struct goal {
    bool given_initial_synchronization, given_replication_priority, given_desired_rpo,
            given_copy_recovery_mode, given_failed_copy_stops_host_io,
            given_methodology, given_limit, given_verify, given_thin_pool_type,
            given_thin_reserve;
    int64_t initial_synchronization; /* 0 N/A, 1 Not Managed, 2 Start, 3 Do Not Start */
    int64_t replication_priority; /* 0 N/A, 1 Not Managed, 2 Low, 3 Same, 4 High */
    uint64_t desired_rpo; /* seconds, 10.., 300 */
    int64_t copy_recovery_mode; /* 2 Automatic, 3 Manual */
    bool failed_copy_stops_host_io;
    int64_t methodology; /* DesiredCopyMethodology */
    uint64_t limit; /* BandwidthLimit, bytes a second */
    bool verify;
    int64_t thin_pool_type; /* ThinProvisionedPoolType 7..9 */
    uint64_t thin_reserve; /* ThinProvisionedInitialReserve, bytes */
};

/** Defaults, nothing given. */
void goal_init(struct goal *goal);

/**
 * Text that is JSON or MOF (`instance of CIM_StorageSetting { ReplicationPriority = 4; };`)
 * into @goal, which it first sets to the defaults. A null property is one that is not there.
 * Problems are added under @pointer. 0, -EINVAL or -ENOMEM; then @goal is not to be used.
 */
int goal_parse(const char *text, size_t length, const char *pointer, struct goal *goal,
        struct body_problems *problems);

/** The given properties as canonical JSON; owned by the caller, free(). "{}" for none. */
char *goal_text(const struct goal *goal);

/** @under's given properties, overlaid by those of @over. */
void goal_merge(struct goal *under, const struct goal *over);

#endif

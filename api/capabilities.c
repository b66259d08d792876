/* api/capabilities.c - /capabilities: what is really supported, per CopyType, with the
 * members of CIM_StorageReplicationCapabilities; and the limits of this service.
 *
 * SupportedSynchronizationType has numbers of its own: 5 is UnSyncAssoc-Delta, not
 * UnSyncUnAssoc. SupportedModifyOperations are those of the legality table. */
#include <stdio.h>
#include <string.h>

#include "api/resource.h"
#include "replica/base/digest.h"

enum { ACTIONS_MAX = 8, IDEMPOTENCY_S = 24 * 3600, WAIT_MAX_S = 60, LIST_MAX = 500 };

/** Numbers of SupportedAsynchronousActions and SupportedSynchronousActions. */
enum action {
    ACTION_LOCAL_CREATION = 2,
    ACTION_LOCAL_MODIFICATION = 4,
    ACTION_REMOTE_MODIFICATION = 5,
    ACTION_LOCAL_ATTACHMENT = 6,
    ACTION_REMOTE_ATTACHMENT = 7,
    ACTION_PIPE_CREATION = 9
};

struct ability {
    int64_t copy_type;
    int64_t synchronization;
    const char *synchronization_name;
    int64_t with_job[ACTIONS_MAX], without_job[ACTIONS_MAX]; /* up to 0 */
    int64_t initial[ACTIONS_MAX]; /* InitialReplicationState */
    bool persistent;
    const char *tracking, *consistency, *missing;
};

/* A replica is made in a pool of ours: its creation is always a local one. */
static const struct ability abilities[] = {
    { CIM_COPY_ASYNC, 2, "Async",
            { ACTION_LOCAL_CREATION, ACTION_LOCAL_ATTACHMENT,
                    ACTION_REMOTE_ATTACHMENT },
            { ACTION_LOCAL_MODIFICATION, ACTION_REMOTE_MODIFICATION,
                    ACTION_PIPE_CREATION },
            { 2, 4 }, true, "Scan", "Fuzzy", NULL },
    { CIM_COPY_SYNC, 3, "Sync", { 0 }, { 0 }, { 0 }, false, NULL, NULL,
            "It needs a mirror in the source's write path, which this build does not "
            "have" },
    { CIM_COPY_UNSYNC_ASSOC, 4, "UnSyncAssoc-Full",
            { ACTION_LOCAL_CREATION, ACTION_LOCAL_ATTACHMENT },
            { ACTION_LOCAL_CREATION, ACTION_LOCAL_MODIFICATION }, { 2 }, true, "None",
            "Fuzzy", NULL },
    { CIM_COPY_UNSYNC_UNASSOC, 6, "UnSyncUnAssoc",
            { ACTION_LOCAL_CREATION, ACTION_LOCAL_ATTACHMENT },
            { ACTION_LOCAL_CREATION }, { 2 }, false, "None", "Fuzzy", NULL },
};

static const char *const action_names[] = {
    [ACTION_LOCAL_CREATION] = "Local Replica Creation",
    [ACTION_LOCAL_MODIFICATION] = "Local Replica Modification",
    [ACTION_REMOTE_MODIFICATION] = "Remote Replica Modification",
    [ACTION_LOCAL_ATTACHMENT] = "Local Replica Attachment",
    [ACTION_REMOTE_ATTACHMENT] = "Remote Replica Attachment",
    [ACTION_PIPE_CREATION] = "Network Pipe Creation",
};

static const char *const initial_names[] = {
    [2] = "Initialized", [3] = "Prepared", [4] = "Synchronized", [5] = "Idle"
};

/** The numbers under @name, their names under @name"Name". */
static void render_list(struct writer *writer, const char *name, const int64_t *list,
        const char *const *names)
{
    char member[64];

    writer_array(writer, name);
    for (const int64_t *at = list; *at; at++)
        writer_signed(writer, NULL, *at);
    writer_end(writer);
    (void)snprintf(member, sizeof(member), "%sName", name);
    writer_array(writer, member);
    for (const int64_t *at = list; *at; at++)
        writer_text(writer, NULL, names[*at]);
    writer_end(writer);
}

/** Has the CopyType this operation, and this build the operation? */
static bool operation_is_supported(const struct ability *ability, int64_t operation)
{
    if (ability->missing || operation == CIM_OP_RESET_TO_SYNC)
        return false;
    return cim_legality_of(operation, ability->copy_type, CIM_SYNC_INITIALIZED)
                   .legality != CIM_NO_SUCH;
}

static void render_operations(struct writer *writer, const struct ability *ability)
{
    writer_array(writer, "SupportedModifyOperations");
    for (int64_t o = CIM_OP_DETACH; o <= CIM_OP_STOP_COPY; o++)
        if (operation_is_supported(ability, o))
            writer_signed(writer, NULL, o);
    writer_end(writer);
    writer_array(writer, "SupportedModifyOperationsName");
    for (int64_t o = CIM_OP_DETACH; o <= CIM_OP_STOP_COPY; o++)
        if (operation_is_supported(ability, o))
            writer_text(writer, NULL, cim_name(CIM_OPERATION, o));
    writer_end(writer);
}

static void render_ability(struct writer *writer, const struct ability *ability)
{
    writer_object(writer, NULL);
    writer_cim(writer, "CopyType", CIM_COPY_TYPE, ability->copy_type);
    writer_flag(writer, "Supported", !ability->missing);
    writer_text(writer, "Reason", ability->missing);
    writer_signed(writer, "SupportedSynchronizationType", ability->synchronization);
    writer_text(
            writer, "SupportedSynchronizationTypeName", ability->synchronization_name);
    render_list(
            writer, "SupportedAsynchronousActions", ability->with_job, action_names);
    render_list(
            writer, "SupportedSynchronousActions", ability->without_job, action_names);
    render_list(writer, "InitialReplicationState", ability->initial, initial_names);
    render_operations(writer, ability);
    /* Ours: POST /replicas/{id}/verify. One that ends with its copy is never verified. */
    writer_flag(writer, "VerifySupported", !ability->missing && ability->persistent);
    writer_text(writer, "Tracking", ability->tracking);
    writer_text(writer, "Consistency", ability->consistency);
    writer_flag(writer, "PersistentReplicasSupported", ability->persistent);
    writer_flag(writer, "IncrementalDeltasSupported", false);
    writer_flag(writer, "SpaceLimitSupported", false);
    writer_flag(writer, "BidirectionalConnectionsSupported", false);
    writer_null(writer, "MaximumReplicasPerSource"); /* none set */
    writer_text(writer, "PeerConnectionProtocol", "iSCSI");
    writer_end(writer);
}

static void render_limits(struct writer *writer, const struct service *service)
{
    const struct api_options *options = &service->options;

    writer_object(writer, "Limits");
    writer_number(writer, "RunningJobs", options->max_jobs);
    writer_number(writer, "BandwidthLimit", service->limit);
    writer_number(writer, "ListMembers", LIST_MAX);
    writer_number(writer, "WaitSeconds", WAIT_MAX_S);
    writer_number(writer, "IdempotencyKeySeconds", IDEMPOTENCY_S);
    writer_number(writer, "RetentionDays", options->retention_days);
    writer_number(writer, "RetentionRows", options->retention_rows);
    writer_number(writer, "ConnectTimeoutMilliseconds", options->connect_timeout_ms);
    writer_number(writer, "IoTimeoutMilliseconds", options->io_timeout_ms);
    writer_end(writer);
}

static void render_pools(struct writer *writer, struct service *service)
{
    struct engine_pool_figures figures;

    writer_array(writer, "Pools");
    for (size_t i = 0; i < service->options.pool_count; i++) {
        const char *name = service->options.pools[i].name;
        writer_object(writer, NULL);
        writer_path(writer, "Pool", "pools", name);
        writer_flag(writer, "CanClone",
                engine_pool_figures(service->engine, name, &figures) == 0 &&
                        figures.can_clone);
        writer_end(writer);
    }
    writer_end(writer);
}

static void render_portals(struct writer *writer, const struct api_options *options)
{
    writer_array(writer, "AllowedPortals");
    for (size_t i = 0; i < options->allow_count; i++)
        writer_text(writer, NULL, options->allow_portals[i]);
    if (options->allow_count == 0) {
        writer_text(writer, NULL, "127.0.0.0/8");
        writer_text(writer, NULL, "[::1]/128");
    }
    writer_end(writer);
}

static void render(struct writer *writer, struct service *service)
{
    static const char *const types[] = { "StorageVolume", "StorageExtent",
        "LogicalFile" };

    writer_text(writer, "Id", "capabilities");
    writer_text(writer, "Self", "/capabilities");
    writer_text(writer, "Version", REPLICAD_VERSION);
    writer_text(writer, "InitiatorName", service->initiator);
    writer_array(writer, "SupportedCopyTypes");
    for (size_t i = 0; i < sizeof(abilities) / sizeof(*abilities); i++)
        if (!abilities[i].missing)
            writer_signed(writer, NULL, abilities[i].copy_type);
    writer_end(writer);
    writer_array(writer, "StorageReplicationCapabilities");
    for (size_t i = 0; i < sizeof(abilities) / sizeof(*abilities); i++)
        render_ability(writer, &abilities[i]);
    writer_end(writer);
    writer_array(writer, "ElementTypes");
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        writer_text(writer, NULL, types[i]);
    writer_end(writer);
    writer_flag(writer, "Exports", service->exporter != NULL);
    render_pools(writer, service);
    render_portals(writer, &service->options);
    render_limits(writer, service);
}

void call_CAPABILITIES_GET(struct call *call)
{
    struct api_outcome *outcome = call->outcome;
    struct writer *writer;
    int64_t tag;

    if (!call_no_query(call))
        return;
    if ((writer = writer_create()))
        render(writer, call->service);
    outcome->verdict = API_DONE;
    outcome_body(outcome, &writer);
    if (!outcome->body)
        return;
    tag = (int64_t)(digest_xxh3(outcome->body, outcome->length).low >> 1);
    if (!outcome_if_none_match(call, tag))
        outcome_etag(outcome, tag);
}

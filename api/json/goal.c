/* A Goal's properties: what each may be, and what this build does with it.
 *
 * Three kinds of property. Ours: a row of `understood`, with its range. Descriptive: taken
 * as text and dropped, because every CIM_SettingData instance must carry them. Known to CIM
 * and not acted on: refused by name, as not supported, so that nobody believes that it was
 * heard. All else is an error of the caller.
 *
 * Values of our own properties that are legal and not acted on are refused the same way:
 * - FailedCopyStopsHostIO true: there is no write path that could stop.
 * - DesiredCopyMethodology but 0, 2 and 3: we copy everything, or clone if we may choose.
 * - ThinProvisionedPoolType 7 and 8: a pool is a directory of sparse files that grow while
 *   the file system has room. That is 9, limitless; nothing is set aside for an element and
 *   no quota is kept.
 * - ThinProvisionedInitialReserve but 0: a file's blocks are reserved whole or not at all. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "api/json/decode.h"
#include "api/json/writer.h"

enum { RPO_MIN = 10, RPO_DEFAULT = 300, TEXT_MAX = 256 };

enum kind { KIND_CIM, KIND_NUMBER, KIND_FLAG };

struct property {
    const char *name;
    enum kind kind;
    size_t value, given; /* offsets in struct goal */
    uint64_t min,
            max; /* CIM: of the numbers that the map has, those that are legal here */
    enum cim_map map;
    uint64_t
            acted; /* CIM: bit n, number n is acted on. NUMBER, FLAG: the largest that is */
};

#define AT(member) offsetof(struct goal, member)
#define CIM(name, member, map, min, max, acted)                                        \
    {                                                                                  \
        name, KIND_CIM, AT(member), AT(given_##member), min, max, map, acted           \
    }
#define NUMBER(name, member, min, max, acted)                                          \
    {                                                                                  \
        name, KIND_NUMBER, AT(member), AT(given_##member), min, max, CIM_MAP_COUNT,    \
                acted                                                                  \
    }
#define FLAG(name, member, acted)                                                      \
    {                                                                                  \
        name, KIND_FLAG, AT(member), AT(given_##member), 0, 1, CIM_MAP_COUNT, acted    \
    }

/* In the order of the names, which is that of the text: see goal_text(). */
static const struct property understood[] = {
    NUMBER("BandwidthLimit", limit, 0, INT64_MAX, INT64_MAX),
    CIM("CopyRecoveryMode", copy_recovery_mode, CIM_COPY_RECOVERY_MODE, 2, 3, 0xc),
    CIM("DesiredCopyMethodology", methodology, CIM_COPY_METHODOLOGY, 0, 10,
            1u << CIM_METHODOLOGY_NOT_SPECIFIED |
                    1u << CIM_METHODOLOGY_IMPLEMENTATION_DECIDES |
                    1u << CIM_METHODOLOGY_FULL_COPY),
    NUMBER("DesiredRPO", desired_rpo, RPO_MIN, UINT32_MAX, UINT32_MAX),
    FLAG("FailedCopyStopsHostIO", failed_copy_stops_host_io, 0),
    CIM("InitialSynchronization", initial_synchronization, CIM_INITIAL_SYNCHRONIZATION,
            0, 3, 0xf),
    CIM("ReplicationPriority", replication_priority, CIM_REPLICATION_PRIORITY, 0, 4,
            0x1f),
    NUMBER("ThinProvisionedInitialReserve", thin_reserve, 0, INT64_MAX, 0),
    CIM("ThinProvisionedPoolType", thin_pool_type, CIM_THIN_POOL_TYPE, 7, 9,
            1u << CIM_THIN_LIMITLESS),
    FLAG("Verify", verify, 1),
};

static const char *const descriptive[] = { "ElementName", "InstanceID" };

/* CIM_ManagedElement, CIM_SettingData, CIM_StorageSetting, CIM_ReplicationSettingData. */
static const char *const not_acted_on[] = { "Caption", "Description", "Generation",
    "ConfigurationName", "ChangeableType", "ComponentSetting", "SoID", "SoOrgID",
    "NoSinglePointOfFailure", "DataRedundancyMax", "DataRedundancyMin",
    "DataRedundancyGoal", "PackageRedundancyMax", "PackageRedundancyMin",
    "PackageRedundancyGoal", "DeltaReservationMax", "DeltaReservationMin",
    "DeltaReservationGoal", "ExtentStripeLength", "ExtentStripeLengthMin",
    "ExtentStripeLengthMax", "ParityLayout", "UserDataStripeDepth",
    "UserDataStripeDepthMin", "UserDataStripeDepthMax", "IncrementalDeltas",
    "PersistentReplica", "UseReplicationBuffer", "SpaceLimit",
    "SpaceLimitWarningThreshold", "LowSpaceWarningThreshold",
    "StorageExtentInitialUsage", "StoragePoolInitialUsage", "CUImage",
    "DataOrganization", "DiskType", "EmulatedDevice", "Encryption", "FormFactorType",
    "PortType", "SubsystemID", "CompressedElement", "CompressionRate",
    "InterconnectSpeed", "InterconnectType", "RPM", "InitialStorageTierMethodology",
    "InitialStorageTieringSelection", "StorageTieringFrozen", "Pairing",
    "UnequalGroupsAction", "UnequalListsAction", "TargetElementSupplier",
    "ThinProvisioningPolicy", "ConsistentPointInTime", "DeltaUpdateInterval",
    "DeltaUpdateBlocks", "Multihop", "OnGroupOrListError", "CopyPriority", "ReadOnly",
    "StorageCompressionPolicy", "AutoDelete", "TargetElementGoal",
    "TargetElementResourcePool", "TimeBeforeRemoval" };

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* -- one property ------------------------------------------------------------------------ */

static const struct property *property_named(const char *name)
{
    for (size_t i = 0; i < COUNT(understood); i++)
        if (strcmp(understood[i].name, name) == 0)
            return &understood[i];
    return NULL;
}

static bool is_one_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

const char *goal_spelling(const char *name)
{
    for (size_t i = 0; i < COUNT(understood); i++)
        if (strcasecmp(understood[i].name, name) == 0)
            return understood[i].name;
    for (size_t i = 0; i < COUNT(descriptive); i++)
        if (strcasecmp(descriptive[i], name) == 0)
            return descriptive[i];
    for (size_t i = 0; i < COUNT(not_acted_on); i++)
        if (strcasecmp(not_acted_on[i], name) == 0)
            return not_acted_on[i];
    return NULL;
}

/* False: not a legal value; the problem is told. */
static bool value_read(const struct property *property, json_t *value,
        const char *pointer, uint64_t *number, struct body_problems *problems)
{
    json_int_t integer = json_integer_value(value);
    int64_t named = 0;

    if (property->kind == KIND_FLAG) {
        *number = json_is_true(value);
        if (!json_is_boolean(value))
            body_problem_add(problems, false, pointer, "must be true or false");
        return json_is_boolean(value);
    }
    if (property->kind == KIND_CIM && json_is_string(value)) {
        if (cim_value(property->map, json_string_value(value), &named))
            integer = named;
        else
            integer = -1;
    } else if (!json_is_integer(value)) {
        integer = -1;
    }
    if (integer < 0 || (uint64_t)integer < property->min ||
            (uint64_t)integer > property->max) {
        body_problem_add(problems, false, pointer,
                "must be an integer from %" PRIu64 " to %" PRIu64 "%s", property->min,
                property->max, property->kind == KIND_CIM ? ", or a name" : "");
        return false;
    }
    *number = (uint64_t)integer;
    return true;
}

static bool is_acted_on(const struct property *property, uint64_t number)
{
    if (property->kind == KIND_CIM)
        return property->acted >> number & 1u;
    return number <= property->acted;
}

static void value_store(
        const struct property *property, uint64_t number, struct goal *goal)
{
    void *at = (char *)goal + property->value;

    switch (property->kind) {
    case KIND_CIM:
        *(int64_t *)at = (int64_t)number;
        break;
    case KIND_NUMBER:
        *(uint64_t *)at = number;
        break;
    case KIND_FLAG:
        *(bool *)at = number != 0;
        break;
    }
    *(bool *)((char *)goal + property->given) = true;
}

static void property_take(const struct property *property, json_t *value,
        const char *pointer, struct goal *goal, struct body_problems *problems)
{
    uint64_t number = 0;

    if (!value_read(property, value, pointer, &number, problems))
        return;
    if (is_acted_on(property, number))
        value_store(property, number, goal);
    else
        body_problem_add(problems, true, pointer, "this value of %s is not supported",
                property->name);
}

static void descriptive_take(
        json_t *value, const char *pointer, struct body_problems *problems)
{
    const char *text = json_string_value(value);

    if (!text || strlen(text) > TEXT_MAX || utf8_has_control(text))
        body_problem_add(problems, false, pointer,
                "must be a string of at most %d bytes without control characters",
                TEXT_MAX);
}

void goal_property(struct goal *goal, const char *name, json_t *value,
        const char *pointer, struct body_problems *problems)
{
    const struct property *property = property_named(name);
    bool described = !property && is_one_of(descriptive, COUNT(descriptive), name);

    if (!property && !described && !is_one_of(not_acted_on, COUNT(not_acted_on), name))
        body_problem_add(problems, false, pointer, "there is no such property");
    else if (json_is_null(value))
        return; /* as if it were not there */
    else if (property)
        property_take(property, value, pointer, goal, problems);
    else if (described)
        descriptive_take(value, pointer, problems);
    else
        body_problem_add(problems, true, pointer, "%s is not supported", name);
}

/* -- the whole --------------------------------------------------------------------------- */

void goal_init(struct goal *goal)
{
    *goal = (struct goal){
        .initial_synchronization = CIM_INITIAL_START,
        .replication_priority = CIM_REPLICATION_PRIORITY_SAME,
        .desired_rpo = RPO_DEFAULT,
        .copy_recovery_mode = CIM_RECOVERY_AUTOMATIC,
        .methodology = CIM_METHODOLOGY_IMPLEMENTATION_DECIDES,
        .thin_pool_type = CIM_THIN_LIMITLESS,
    };
}

int goal_from_object(json_t *object, const char *pointer, struct goal *goal,
        struct body_problems *problems)
{
    unsigned before = problems->count;
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        char inner[POINTER_MAX];
        pointer_join(inner, pointer, name);
        goal_property(goal, name, value, inner, problems);
    }
    return problems->count == before && before < BODY_PROBLEMS_MAX ? 0 : -EINVAL;
}

static bool looks_like_json(const char *text, size_t length)
{
    while (length > 0 && strchr(" \t\r\n", *text))
        text++, length--;
    return length > 0 && *text == '{';
}

int goal_parse(const char *text, size_t length, const char *pointer, struct goal *goal,
        struct body_problems *problems)
{
    unsigned before = problems->count;
    json_auto_t *object = looks_like_json(text, length)
            ? scan_object(text, length, HUGE_AS_REAL, pointer, problems)
            : mof_parse(text, length, pointer, problems);

    goal_init(goal);
    if (!object)
        return problems->count == before && before < BODY_PROBLEMS_MAX ? -ENOMEM
                                                                       : -EINVAL;
    return goal_from_object(object, pointer, goal, problems);
}

static void value_write(
        struct writer *writer, const struct property *property, const struct goal *goal)
{
    const void *at = (const char *)goal + property->value;

    switch (property->kind) {
    case KIND_CIM:
        writer_signed(writer, property->name, *(const int64_t *)at);
        break;
    case KIND_NUMBER:
        writer_number(writer, property->name, *(const uint64_t *)at);
        break;
    case KIND_FLAG:
        writer_flag(writer, property->name, *(const bool *)at);
        break;
    }
}

static bool is_given(const struct property *property, const struct goal *goal)
{
    return *(const bool *)((const char *)goal + property->given);
}

/* What scan_canonical() makes of it: sorted, nothing between. */
char *goal_text(const struct goal *goal)
{
    struct writer *writer = writer_create();

    for (size_t i = 0; writer && i < COUNT(understood); i++)
        if (is_given(&understood[i], goal))
            value_write(writer, &understood[i], goal);
    return writer_finish(&writer, NULL);
}

void goal_merge(struct goal *under, const struct goal *over)
{
    for (size_t i = 0; i < COUNT(understood); i++) {
        const struct property *property = &understood[i];
        size_t size = property->kind == KIND_FLAG ? sizeof(bool) : sizeof(uint64_t);
        if (!is_given(property, over))
            continue;
        memcpy((char *)under + property->value, (const char *)over + property->value,
                size);
        *(bool *)((char *)under + property->given) = true;
    }
}

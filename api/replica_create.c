/* CreateReplica: a new element in a pool that is a copy of another.
 *
 * The order: words, rows, the source's own answer, the file, the turn. The file is made (or
 * cloned) before the turn that promises it, remembered first so that a crash leaves no
 * orphan (recover.c), and removed when the turn refuses.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "api/resource.h"
#include "replica/base/checked.h"

struct create_input {
    char name[STORE_NAME], source[UUID_TEXT], setting[UUID_TEXT], pool[STORE_WORD];
    int64_t copy_type;
    bool has_name, has_source, has_setting, has_pool, has_copy_type;
};

#define INPUT(member) offsetof(struct create_input, member)
static const struct body_member create_members[] = {
    { "ElementName", BODY_TEXT, BODY_OPTIONAL, INPUT(name), INPUT(has_name), 1,
            STORE_NAME - 1, 0, NULL },
    { "SourceElement", BODY_REFERENCE, BODY_REQUIRED, INPUT(source), INPUT(has_source),
            0, 0, 0, "elements" },
    { "TargetSettingGoal", BODY_REFERENCE, BODY_OPTIONAL, INPUT(setting),
            INPUT(has_setting), 0, 0, 0, "settings" },
    { "TargetPool", BODY_NAMED, BODY_OPTIONAL, INPUT(pool), INPUT(has_pool), 1,
            STORE_WORD - 1, 0, "pools" },
    { "CopyType", BODY_CIM, BODY_REQUIRED, INPUT(copy_type), INPUT(has_copy_type), 0, 0,
            CIM_COPY_TYPE, NULL },
};
#undef INPUT

struct create {
    struct call *call;
    struct create_input input;
    struct goal goal;
    const struct api_pool *pool;
    struct store_element source, target;
    struct store_replica replica;
    bool made; /* the file is there and nobody was promised it */
    bool cloned; /* it is whole already */
    bool start; /* a first copy is wanted */
    int64_t cloned_at;
    struct claim claim; /* of the source, while it is cloned */
    bool source_written; /* a plan of ours writes the source now */
};

/* -- words and rows -------------------------------------------------------------------------- */

static bool refuse(struct create *create, enum api_verdict verdict, int value,
        const char *pointer, const char *detail)
{
    outcome_fail(create->call->outcome, verdict, value, "%s", detail);
    outcome_pointer(create->call->outcome, pointer, detail);
    return false;
}

static bool create_setting(struct create *create, struct store_reader *reader)
{
    struct store_setting setting;

    goal_init(&create->goal);
    if (!create->input.has_setting)
        return true;
    if (store_get(reader, STORE_SETTING, create->input.setting, &setting))
        return refuse(create, API_NO_REFERENCE, CIM_INVALID_PARAMETER,
                "/TargetSettingGoal", "there is no such setting");
    if (goal_parse(setting.body, strlen(setting.body), "/TargetSettingGoal",
                &create->goal, &create->call->problems) == 0)
        return true;
    call_refuse(create->call);
    return false;
}

/** The pool that was named, else the source's, else the first. */
static bool create_pool(struct create *create)
{
    const struct service *service = create->call->service;
    const char *address = create->source.address;
    char name[STORE_WORD] = "";

    if (create->input.has_pool) {
        create->pool = pool_find(service, create->input.pool);
        return create->pool ||
                refuse(create, API_NO_REFERENCE, CIM_INVALID_PARAMETER, "/TargetPool",
                        "there is no such pool");
    }
    if (strncmp(address, "pool:", 5) == 0)
        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(address + 5, "/"),
                address + 5);
    create->pool = pool_find(service, name[0] ? name : NULL);
    if (!create->pool)
        create->pool = pool_find(service, NULL);
    return create->pool ||
            refuse(create, API_INVALID, CIM_INVALID_PARAMETER, "/TargetPool",
                    "this service has no pool");
}

static bool create_source(struct create *create, struct store_reader *reader)
{
    if (store_get(reader, STORE_ELEMENT, create->input.source, &create->source))
        return refuse(create, API_NO_REFERENCE, CIM_INVALID_PARAMETER, "/SourceElement",
                "there is no such element");
    return copy_type_built(create->call, create->input.copy_type) &&
            claims_source(create->call, reader, &create->source, NULL);
}

static bool create_check(struct create *create)
{
    struct store_reader *reader = call_reader(create->call);
    bool good;

    if (!reader)
        return false;
    good = create_source(create, reader) && create_setting(create, reader) &&
            create_pool(create);
    store_reader_give(create->call->service->store, reader);
    create->replica.copy_type = create->input.copy_type;
    return good &&
            replica_take_goal(create->call, &create->replica, &create->goal,
                    "/TargetSettingGoal");
}

/* -- the rows to be ------------------------------------------------------------------------- */

static void create_rows(struct create *create)
{
    struct store_element *target = &create->target;
    const struct store_element *source = &create->source;
    struct store_replica *replica = &create->replica;

    target->id = uuid_make();
    target->type = source->type == ELEMENT_STORAGE_EXTENT ? ELEMENT_STORAGE_VOLUME
                                                          : source->type;
    if (create->input.has_name)
        memcpy(target->name, create->input.name, sizeof(target->name));
    else
        name_make(target->name, "Replica", &target->id);
    (void)snprintf(target->pool, sizeof(target->pool), "%s", create->pool->name);
    (void)snprintf(target->address, sizeof(target->address), "pool:%s/%s.raw",
            create->pool->name, target->id.text);
    target->size = target->whole = source->size;
    target->block_size = source->block_size;
    target->usage = CIM_USAGE_UNRESTRICTED;
    target->health = CIM_HEALTH_OK;
    memcpy(target->warnings, "[]", sizeof("[]"));
    replica->id = target->id;
    replica->source = source->id;
    replica->replica_type = CIM_REPLICA_FULL_COPY;
    create->call->target = target->id;
}

/* -- the file ---------------------------------------------------------------------------- */

/** Only a whole file in a pool, for a copy that is a point in time, and not forbidden. */
static bool create_may_clone(const struct create *create)
{
    return create->start && uuid_is_none(&create->source.of) &&
            strncmp(create->source.address, "pool:", 5) == 0 &&
            (create->input.copy_type == CIM_COPY_UNSYNC_ASSOC ||
                    create->input.copy_type == CIM_COPY_UNSYNC_UNASSOC) &&
            !create->goal.verify &&
            !(create->goal.given_methodology &&
                    create->goal.methodology == CIM_METHODOLOGY_FULL_COPY);
}

static bool written_work(struct clerk_turn *turn, void *context)
{
    struct create *create = context;

    create->source_written = scheduler_writes(turn->service, &create->claim.root);
    return false;
}

/** Held, the source stays as it is, but for what writes it already: the scan of a pair whose
    target it is. Then it is left to a job, which waits for the end of that. */
static bool create_hold(struct create *create)
{
    claim_hold(create->call->service, &create->claim, &create->source);
    return clerk_call(create->call->service->clerk, written_work, create) == 0 &&
            !create->source_written;
}

/** 0 cloned; 1 it cannot be; an errno that is not about cloning. */
static int create_clone(struct create *create, const char *file, struct fault *fault)
{
    struct engine *engine = create->call->service->engine;
    struct engine_pool_figures figures = { 0 };
    int result = 1;

    if (!create_may_clone(create) ||
            engine_pool_figures(engine, create->pool->name, &figures) ||
            !figures.can_clone)
        return 1;
    if (create_hold(create)) {
        create->cloned_at = clock_wall_ms();
        result = engine_file_clone(engine, create->source.address, create->pool->name,
                file, create->target.size, fault);
    }
    claim_drop(create->call->service, &create->claim);
    if (result == -EOPNOTSUPP || result == -EXDEV || result == -EINVAL)
        return 1;
    create->cloned = result == 0;
    return result;
}

static bool create_space(struct create *create)
{
    struct engine_pool_figures figures = { 0 };
    char detail[120];

    if (engine_pool_figures(
                create->call->service->engine, create->pool->name, &figures) ||
            figures.remaining >= create->target.size)
        return true; /* unknown: the file will tell */
    (void)snprintf(detail, sizeof(detail), "the pool lacks %llu bytes",
            (unsigned long long)(create->target.size - figures.remaining));
    return refuse(create, API_NO_SPACE, CIM_FAILED, "/TargetPool", detail);
}

/** Thin, unless all of it is asked to be reserved; a part of it is not something we do. */
static bool create_reserve(struct create *create, bool *reserve)
{
    const struct goal *goal = &create->goal;

    *reserve = goal->given_thin_reserve && goal->thin_reserve >= create->source.size;
    if (!goal->given_thin_reserve || goal->thin_reserve == 0 || *reserve)
        return true;
    return refuse(create, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED, "/TargetSettingGoal",
            "ThinProvisionedInitialReserve: nothing or the whole size, not a part of "
            "it");
}

static bool create_engine_failed(struct create *create, const struct fault *fault)
{
    outcome_engine(create->call->outcome, fault, "the pool", create->target.address);
    outcome_pointer(create->call->outcome, "/TargetPool", fault->why);
    return false;
}

/** What the new file says of itself: for registering it twice to be noticed. */
static bool create_identify(struct create *create)
{
    struct engine_element element;
    struct engine_found found = { 0 };
    struct fault fault = { 0 };

    element_for_engine(&create->target, &element);
    if (engine_probe(create->call->service->engine, &element, false, &found, &fault))
        return create_engine_failed(create, &fault);
    create->target.thin = found.thin;
    memcpy(create->target.place, found.identity.place, sizeof(create->target.place));
    return true;
}

static bool create_file(struct create *create)
{
    struct store_element *target = &create->target;
    char file[UUID_TEXT + 4];
    struct fault fault = { 0 };
    bool reserve;
    int result;

    if (!create_reserve(create, &reserve) ||
            !making_begin(create->call, &target->id, target->pool))
        return false;
    create->made = true;
    (void)snprintf(file, sizeof(file), "%s.raw", target->id.text);
    result = reserve ? 1 : create_clone(create, file, &fault);
    if (result == 1) {
        if (!create_space(create))
            return false;
        result = engine_file_create(create->call->service->engine, target->pool, file,
                target->size, reserve, &fault);
    }
    if (result) {
        fault.error = result;
        return create_engine_failed(create, &fault);
    }
    return create_identify(create);
}

/* -- the turn ------------------------------------------------------------------------------ */

static void create_put_element(struct create *create, struct clerk_turn *turn)
{
    struct store_element *target = &create->target;

    target->created = turn->now;
    target->revision = 1;
    target->complete = create->cloned;
    turn_put(turn, STORE_ELEMENT, target);
    making_done(turn, &target->id);
    element_event(turn, target, "InstCreation");
}

static void create_put_pair(struct create *create, struct clerk_turn *turn)
{
    struct store_replica *replica = &create->replica;
    struct store_job job;

    replica->when_established = turn->now;
    replica->sync_state = CIM_SYNC_INITIALIZED;
    if (create->cloned) {
        replica->sync_state = CIM_SYNC_FROZEN;
        replica->when_synced = create->cloned_at;
        replica->percent = 100;
    } else if (create->start) {
        job_make(turn, create->call, replica, "CreateReplica", JOB_COPY,
                &create->source, &create->target, &job);
        job.target_zero = true;
        job_put(turn, &job, true);
    }
    replica_put(turn, replica, true);
}

static void create_answer(struct create *create)
{
    struct call *call = create->call;
    bool pair = !(create->cloned && create->input.copy_type == CIM_COPY_UNSYNC_UNASSOC);
    struct uuid none = { "" };

    replica_answer(call, pair ? &create->replica.id : &none, &call->job, true);
    if (!call->outcome->problem && call->outcome->return_value == CIM_OK) {
        call->outcome->verdict = API_MADE;
        (void)snprintf(call->outcome->location, sizeof(call->outcome->location),
                "/elements/%s", create->target.id.text);
    }
}

static bool create_work(struct clerk_turn *turn, void *context)
{
    struct create *create = context;
    struct store_element now;

    /* What could have changed while the file was made. */
    if (!turn_get(turn, STORE_ELEMENT, create->source.id.text, &now))
        return turn->error == 0 &&
                refuse(create, API_NO_REFERENCE, CIM_INVALID_PARAMETER,
                        "/SourceElement", "the source was deleted meanwhile");
    if (!claims_source(create->call, turn->reader, &now, NULL))
        return false;
    if (now.size != create->source.size)
        return refuse(create, API_STATE, CIM_FAILED, "/SourceElement",
                "the source was changed meanwhile");
    create_put_element(create, turn);
    if (!create->cloned || create->input.copy_type != CIM_COPY_UNSYNC_UNASSOC)
        create_put_pair(create, turn);
    create_answer(create);
    call_settle(create->call, turn);
    return !create->call->outcome->problem;
}

/* -- the call ---------------------------------------------------------------------------------- */

static void create_run(struct create *create)
{
    struct engine_element source;

    if (!create_check(create))
        return;
    create->call->source = create->source.id;
    create->start = !(create->goal.given_initial_synchronization &&
            create->goal.initial_synchronization == CIM_INITIAL_DO_NOT_START);
    element_for_engine(&create->source, &source);
    if (!probe_end(create->call, &source, &create->source, false))
        return;
    create_rows(create);
    if (create_file(create) && call_commit(create->call, create_work, create) &&
            !create->call->outcome->problem)
        create->made = false;
    if (!create->made)
        return;
    making_undo(create->call->service, &create->target.id, create->target.pool);
    create->call->target = create->call->job = (struct uuid){ "" };
}

void call_REPLICA_CREATE(struct call *call)
{
    struct create create = { .call = call };

    if (!call_decode(call, create_members,
                sizeof(create_members) / sizeof(*create_members), &create.input) ||
            !copy_type_check(call, create.input.copy_type))
        return;
    create_run(&create);
}

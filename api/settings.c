/* api/settings.c - /settings: a Goal with a name, to be referred to by
 * TargetSettingGoal. What refers to it takes a copy, so a setting is held by nobody. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/resource.h"
#include "replica/base/scope.h"

struct setting_input {
    char name[STORE_NAME];
    struct goal goal;
    bool has_name, has_goal;
};

static const struct body_member members[] = {
    { .name = "ElementName",
            .type = BODY_TEXT,
            .min = 1,
            .max = STORE_NAME - 1,
            .offset = offsetof(struct setting_input, name),
            .given = offsetof(struct setting_input, has_name) },
    { .name = "",
            .type = BODY_PROPERTIES,
            .offset = offsetof(struct setting_input, goal),
            .given = offsetof(struct setting_input, has_goal) },
};

enum { MEMBERS = sizeof(members) / sizeof(members[0]) };

static void render_goal(struct writer *writer, const struct goal *goal)
{
    if (goal->given_initial_synchronization)
        writer_cim(writer, "InitialSynchronization", CIM_INITIAL_SYNCHRONIZATION,
                goal->initial_synchronization);
    if (goal->given_replication_priority)
        writer_cim(writer, "ReplicationPriority", CIM_REPLICATION_PRIORITY,
                goal->replication_priority);
    if (goal->given_desired_rpo)
        writer_number(writer, "DesiredRPO", goal->desired_rpo);
    if (goal->given_copy_recovery_mode)
        writer_cim(writer, "CopyRecoveryMode", CIM_COPY_RECOVERY_MODE,
                goal->copy_recovery_mode);
    if (goal->given_failed_copy_stops_host_io)
        writer_flag(writer, "FailedCopyStopsHostIO", goal->failed_copy_stops_host_io);
    if (goal->given_methodology)
        writer_cim(writer, "DesiredCopyMethodology", CIM_COPY_METHODOLOGY,
                goal->methodology);
    if (goal->given_limit)
        writer_number(writer, "BandwidthLimit", goal->limit);
    if (goal->given_verify)
        writer_flag(writer, "Verify", goal->verify);
    if (goal->given_thin_pool_type)
        writer_cim(writer, "ThinProvisionedPoolType", CIM_THIN_POOL_TYPE,
                goal->thin_pool_type);
    if (goal->given_thin_reserve)
        writer_number(writer, "ThinProvisionedInitialReserve", goal->thin_reserve);
}

static void render_setting(struct writer *writer, const struct store_setting *setting)
{
    char text[64];

    writer_text(writer, "Id", setting->id.text);
    writer_path(writer, "Self", "settings", setting->id.text);
    (void)snprintf(text, sizeof(text), "replicad:%s", setting->id.text);
    writer_text(writer, "InstanceID", text);
    writer_text(writer, "ElementName", setting->name);
    writer_time(writer, "Created", setting->created);
}

static void setting_render(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *row)
{
    const struct store_setting *setting = row;
    struct body_problems problems = { 0 };
    struct goal goal;

    (void)call;
    (void)reader;
    render_setting(writer, setting);
    if (goal_parse(setting->body, strlen(setting->body), "", &goal, &problems) == 0)
        render_goal(writer, &goal);
}

/** A row whose text has just been made of @goal. */
struct setting_written {
    struct store_setting row;
    const struct goal *goal;
};

static void written_render(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *context)
{
    const struct setting_written *written = context;

    (void)call;
    (void)reader;
    render_setting(writer, &written->row);
    render_goal(writer, written->goal);
}

static const struct list_member list_members[] = {
    { .name = "ElementName", .column = SETTING_NAME, .type = LIST_TEXT },
};

void call_SETTINGS_LIST(struct call *call)
{
    list_serve(call, STORE_SETTING, "/settings", list_members, 1, setting_render);
}

void call_SETTING_GET(struct call *call)
{
    struct store_setting row;

    call_get(call, STORE_SETTING, &row, setting_render, &row.revision);
}

struct setting_work {
    struct call *call;
    struct setting_input input;
};

static void setting_event(
        struct clerk_turn *turn, const char *kind, const struct store_setting *setting)
{
    struct writer *changed = writer_create();

    if (changed)
        writer_text(changed, "ElementName", setting->name);
    event_row(turn, kind, "Setting", "settings", setting->id.text, changed);
}

/** The goal's text into the row; false: out of memory. */
static bool setting_keep(struct clerk_turn *turn, struct store_setting *setting,
        const struct goal *goal, const char *kind)
{
    scoped_free char *text = goal_text(goal);

    if (!text || strlen(text) >= sizeof(setting->body)) {
        turn->error = turn->error ? turn->error : -ENOMEM;
        return false;
    }
    (void)snprintf(setting->body, sizeof(setting->body), "%s", text);
    turn_put(turn, STORE_SETTING, setting);
    setting_event(turn, kind, setting);
    return true;
}

static bool create_work(struct clerk_turn *turn, void *context)
{
    struct setting_work *work = context;
    struct setting_written written = { .goal = &work->input.goal };
    struct store_setting *setting = &written.row;

    setting->id = uuid_make();
    setting->revision = 1;
    setting->created = turn->now;
    if (work->input.has_name)
        memcpy(setting->name, work->input.name, sizeof(setting->name));
    else
        name_make(setting->name, "Setting", &setting->id);
    if (!setting_keep(turn, setting, &work->input.goal, "InstCreation"))
        return false;
    call_made(work->call, turn->reader, written_render, &written, setting->revision,
            "settings", setting->id.text);
    call_settle(work->call, turn);
    return true;
}

void call_SETTING_CREATE(struct call *call)
{
    struct setting_work work = { .call = call };

    if (call_decode(call, members, MEMBERS, &work.input))
        (void)call_commit_new(call, create_work, &work);
}

/** The row as the object that a client would have sent; owned by the caller, free(). */
static char *setting_object(const struct store_setting *setting)
{
    struct writer *writer = writer_create();
    scoped_free char *name = NULL;

    if (!writer)
        return NULL;
    writer_text(writer, "ElementName", setting->name);
    name = writer_finish(&writer, NULL);
    return name ? body_patch(setting->body, name, strlen(name)) : NULL;
}

/** RFC 7396: the patch over what is there, then decoded as if sent whole. */
static bool patch_decode(struct call *call, const struct store_setting *setting,
        struct setting_input *input)
{
    scoped_free char *before = setting_object(setting), *after = NULL;

    if (before && call->request->length)
        after = body_patch(before, call->request->body, call->request->length);
    else if (before)
        after = strdup(before);
    call->problems.count = 0;
    memset(input, 0, sizeof(*input));
    if (!after) {
        outcome_fail(call->outcome, API_INTERNAL, -1, "out of memory");
        return false;
    }
    (void)body_decode(after, strlen(after), members, MEMBERS, input, &call->problems);
    if (call->problems.count == 0 && !input->has_name)
        body_problem_add(&call->problems, false, "/ElementName", "cannot be removed");
    if (call->problems.count == 0)
        return true;
    call_refuse(call);
    return false;
}

static bool patch_work(struct clerk_turn *turn, void *context)
{
    struct setting_work *work = context;
    struct setting_written written = { .goal = &work->input.goal };
    struct store_setting *setting = &written.row;
    struct call *call = work->call;

    if (!turn_find(call, turn, STORE_SETTING, setting) ||
            !outcome_if_match(call, setting->revision) ||
            !patch_decode(call, setting, &work->input))
        return false;
    memcpy(setting->name, work->input.name, sizeof(setting->name));
    setting->revision++;
    if (!setting_keep(turn, setting, &work->input.goal, "InstModification"))
        return false;
    call_answer(call, turn->reader, written_render, &written, setting->revision);
    call_settle(call, turn);
    return true;
}

void call_SETTING_PATCH(struct call *call)
{
    struct setting_work work = { .call = call };

    if (call_decode(call, members, MEMBERS, &work.input))
        (void)call_commit(call, patch_work, &work);
}

static bool delete_work(struct clerk_turn *turn, void *context)
{
    struct call *call = context;
    struct store_setting setting;

    if (!turn_find(call, turn, STORE_SETTING, &setting) ||
            !outcome_if_match(call, setting.revision))
        return false;
    turn_delete(turn, STORE_SETTING, &setting);
    event_row(turn, "InstDeletion", "Setting", "settings", setting.id.text, NULL);
    call->outcome->verdict = API_GONE;
    call_settle(call, turn);
    return true;
}

void call_SETTING_DELETE(struct call *call)
{
    (void)call_commit(call, delete_work, call);
}

/* api/pipes.c - /pipes: peer-to-peer connections that a remote pair may be scoped by.
 * The portals are checked against the same list that guards connections, so that a pipe
 * cannot name what could never be used. A pipe is held by the pairs that
 * refer to it. */
#include "api/pipes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "replica/base/scope.h"

struct pipe_input {
    char name[STORE_NAME], source_system[STORE_NAME], target_system[STORE_NAME];
    char credentials[STORE_WORD];
    struct body_texts endpoints;
    uint64_t limit;
    bool has_name, has_source_system, has_target_system, has_credentials, has_endpoints,
            has_limit;
};

#define MEMBER(json, kind, value, ...)                                                 \
    {                                                                                  \
        .name = json, .type = kind, .offset = offsetof(struct pipe_input, value),      \
        .given = offsetof(struct pipe_input, has_##value), .need = BODY_CLEARED,       \
        __VA_ARGS__                                                                    \
    }

static const struct body_member members[] = {
    MEMBER("ElementName", BODY_TEXT, name, .min = 1, .max = STORE_NAME - 1),
    MEMBER("SourceSystem", BODY_TEXT, source_system, .min = 1, .max = STORE_NAME - 1),
    MEMBER("TargetSystem", BODY_TEXT, target_system, .min = 1, .max = STORE_NAME - 1),
    MEMBER("TargetEndpoint", BODY_TEXTS, endpoints, .min = 1, .max = BODY_LIST_MAX),
    MEMBER("Credentials", BODY_TEXT, credentials, .min = 1, .max = STORE_WORD - 1),
    MEMBER("BandwidthLimit", BODY_NUMBER, limit, .max = INT64_MAX),
};

enum { MEMBERS = sizeof(members) / sizeof(members[0]) };

bool portal_is_allowed(
        const struct service *service, const struct sockaddr_storage *portal)
{
    struct portal_rule rule;

    if (service->options.allow_count == 0)
        return portal_is_loopback(portal);
    for (size_t i = 0; i < service->options.allow_count; i++)
        if (portal_rule_parse(service->options.allow_portals[i], &rule, NULL) == 0 &&
                portal_rule_allows(&rule, portal))
            return true;
    return false;
}

bool pipe_holds(const struct store_pipe *pipe, const struct sockaddr_storage *portal)
{
    char text[BLOCK_PORTAL_TEXT], quoted[BLOCK_PORTAL_TEXT + 2];

    portal_format(portal, text);
    (void)snprintf(quoted, sizeof(quoted), "\"%s\"", text);
    return strstr(pipe->endpoints, quoted) != NULL;
}

/** Canonical portals as JSON into @json; what is wrong goes to the call's problems. */
static void endpoints_take(
        struct call *call, const struct body_texts *endpoints, char json[STORE_GOAL])
{
    char canonical[BODY_LIST_MAX][BLOCK_PORTAL_TEXT];
    const char *list[BODY_LIST_MAX];
    struct sockaddr_storage portal;
    struct fault fault = { 0 };
    char pointer[40];

    for (unsigned i = 0; i < endpoints->count; i++) {
        (void)snprintf(pointer, sizeof(pointer), "/TargetEndpoint/%u", i);
        list[i] = canonical[i];
        if (portal_parse(endpoints->text[i], ADDRESS_PORT_ISCSI, false, &portal,
                    &fault) != 0)
            body_problem_add(&call->problems, false, pointer, "%s", fault.why);
        else if (!portal_is_allowed(call->service, &portal))
            body_problem_add(&call->problems, false, pointer,
                    "the portal is not on the list of allowed ones (--allow-portal)");
        else
            portal_format(&portal, canonical[i]);
    }
    if (call->problems.count == 0 &&
            !texts_to_json(json, STORE_GOAL, endpoints->count, list))
        body_problem_add(&call->problems, false, "/TargetEndpoint", "is too long");
}

/** What a client sent over what there was; false: the outcome says why. */
static bool pipe_take(
        struct call *call, const struct pipe_input *input, struct store_pipe *pipe)
{
    if (input->has_name && !input->name[0])
        body_problem_add(&call->problems, false, "/ElementName", "cannot be removed");
    else if (input->has_name)
        memcpy(pipe->name, input->name, sizeof(pipe->name));
    if (input->has_source_system)
        memcpy(pipe->source_system, input->source_system, sizeof(pipe->source_system));
    if (input->has_target_system)
        memcpy(pipe->target_system, input->target_system, sizeof(pipe->target_system));
    if (input->has_credentials && input->credentials[0] &&
            !word_is_plain(input->credentials))
        body_problem_add(&call->problems, false, "/Credentials",
                "The name of a file in the directory of credentials, nothing else");
    else if (input->has_credentials)
        memcpy(pipe->credentials, input->credentials, sizeof(pipe->credentials));
    if (input->has_limit)
        pipe->limit = input->limit;
    if (input->has_endpoints && input->endpoints.count == 0)
        body_problem_add(
                &call->problems, false, "/TargetEndpoint", "cannot be removed");
    else if (input->has_endpoints)
        endpoints_take(call, &input->endpoints, pipe->endpoints);
    if (call->problems.count == 0)
        return true;
    call_refuse(call);
    return false;
}

static void pipe_render(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *row)
{
    const struct store_pipe *pipe = row;
    char text[64];

    (void)call;
    (void)reader;
    writer_text(writer, "Id", pipe->id.text);
    (void)snprintf(text, sizeof(text), "/pipes/%s", pipe->id.text);
    writer_text(writer, "Self", text);
    (void)snprintf(text, sizeof(text), "replicad:%s", pipe->id.text);
    writer_text(writer, "InstanceID", text);
    writer_text(writer, "ElementName", pipe->name);
    writer_text(writer, "SourceSystem",
            pipe->source_system[0] ? pipe->source_system : NULL);
    writer_text(writer, "TargetSystem",
            pipe->target_system[0] ? pipe->target_system : NULL);
    writer_json(writer, "TargetEndpoint", pipe->endpoints);
    writer_text(writer, "Credentials", pipe->credentials[0] ? pipe->credentials : NULL);
    writer_number(writer, "BandwidthLimit", pipe->limit);
    writer_time(writer, "Created", pipe->created);
}

static const struct list_member list_members[] = {
    { .name = "ElementName", .column = PIPE_NAME, .type = LIST_TEXT },
};

void call_PIPES_LIST(struct call *call)
{
    list_serve(call, STORE_PIPE, "/pipes", list_members, 1, pipe_render);
}

void call_PIPE_GET(struct call *call)
{
    struct store_pipe row;

    call_get(call, STORE_PIPE, &row, pipe_render, &row.revision);
}

struct pipe_work {
    struct call *call;
    struct pipe_input input;
    struct store_pipe pipe;
};

static void pipe_event(
        struct clerk_turn *turn, const char *kind, const struct store_pipe *pipe)
{
    struct writer *changed = writer_create();

    if (changed) {
        writer_text(changed, "ElementName", pipe->name);
        writer_number(changed, "BandwidthLimit", pipe->limit);
    }
    event_row(turn, kind, "Pipe", "pipes", pipe->id.text, changed);
}

static bool create_work(struct clerk_turn *turn, void *context)
{
    struct pipe_work *work = context;
    struct store_pipe *pipe = &work->pipe;

    pipe->created = turn->now;
    turn_put(turn, STORE_PIPE, pipe);
    pipe_event(turn, "InstCreation", pipe);
    call_made(work->call, turn->reader, pipe_render, pipe, pipe->revision, "pipes",
            pipe->id.text);
    call_settle(work->call, turn);
    return true;
}

void call_PIPE_CREATE(struct call *call)
{
    struct pipe_work work = { .call = call,
        .pipe = { .id = uuid_make(), .revision = 1 } };

    if (!call_decode(call, members, MEMBERS, &work.input))
        return;
    if (work.input.endpoints.count == 0)
        body_problem_add(&call->problems, false, "/TargetEndpoint", "is required");
    /* Of a pipe that is made, a null is the same as no member. */
    work.input.has_endpoints = work.input.endpoints.count > 0;
    work.input.has_name = work.input.name[0] != '\0';
    name_make(work.pipe.name, "Pipe", &work.pipe.id);
    if (pipe_take(call, &work.input, &work.pipe))
        (void)call_commit(call, create_work, &work);
}

static bool holder_each(void *context, const void *row)
{
    struct api_outcome *outcome = context;
    char path[64];

    (void)snprintf(
            path, sizeof(path), "/replicas/%s", ((const struct uuid *)row)->text);
    outcome_holder(outcome, path);
    outcome_remedy(outcome, "DELETE %s", path);
    return true;
}

/** Pairs that refer to the pipe; the outcome names them. */
static bool pipe_is_held(
        struct clerk_turn *turn, const struct uuid *id, struct api_outcome *outcome)
{
    struct store_query query = {
        .table = STORE_REPLICA,
        .filter_count = 1,
        .filters = { { .column = REPLICA_PIPE, .count = 1, .texts = { id->text } } },
        .limit = 8,
    };
    int64_t count = store_count(turn->reader, &query);

    if (count < 0)
        turn->error = turn->error ? turn->error : (int)count;
    if (count == 0)
        return false;
    outcome_fail(outcome, API_IN_USE, -1, "A replica goes through this pipe");
    (void)store_list(turn->reader, &query, holder_each, outcome);
    return true;
}

/** A pair that is there was checked against the portals it had; how fast it may go is told
    to the copies that run. */
static bool changes_way(const struct pipe_input *input)
{
    return input->has_endpoints || input->has_credentials;
}

static bool patch_work(struct clerk_turn *turn, void *context)
{
    struct pipe_work *work = context;
    struct store_pipe *pipe = &work->pipe;
    struct call *call = work->call;

    if (!turn_find(call, turn, STORE_PIPE, pipe) ||
            !outcome_if_match(call, pipe->revision))
        return false;
    if (changes_way(&work->input) && pipe_is_held(turn, &pipe->id, call->outcome))
        return false;
    if (!pipe_take(call, &work->input, pipe))
        return false;
    pipe->revision++;
    turn_put(turn, STORE_PIPE, pipe);
    turn_touch(turn, STORE_PIPE, &pipe->id);
    pipe_event(turn, "InstModification", pipe);
    call_answer(call, turn->reader, pipe_render, pipe, pipe->revision);
    call_settle(call, turn);
    return true;
}

void call_PIPE_PATCH(struct call *call)
{
    struct pipe_work work = { .call = call };

    if (call_decode(call, members, MEMBERS, &work.input))
        (void)call_commit(call, patch_work, &work);
}

static bool delete_work(struct clerk_turn *turn, void *context)
{
    struct call *call = context;
    struct store_pipe pipe;

    if (!turn_find(call, turn, STORE_PIPE, &pipe) ||
            !outcome_if_match(call, pipe.revision) ||
            pipe_is_held(turn, &pipe.id, call->outcome))
        return false;
    turn_delete(turn, STORE_PIPE, &pipe);
    event_row(turn, "InstDeletion", "Pipe", "pipes", pipe.id.text, NULL);
    call->outcome->verdict = API_GONE;
    call_settle(call, turn);
    return true;
}

void call_PIPE_DELETE(struct call *call)
{
    (void)call_commit(call, delete_work, call);
}

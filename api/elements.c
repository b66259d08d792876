/* api/elements.c - /elements: what can be copied and copied to.
 *
 * Usage is kept in the row, from the relationships; Complete of an element says of all
 * bytes it has, also those that one of its extents is copied to.
 */
#include "api/elements.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/exports.h"
#include "replica/base/clock.h"

static const char *const type_names[] = {
    [ELEMENT_STORAGE_VOLUME] = "StorageVolume",
    [ELEMENT_STORAGE_EXTENT] = "StorageExtent",
    [ELEMENT_LOGICAL_FILE] = "LogicalFile",
    [ELEMENT_FILE_SYSTEM] = "FileSystem",
    [ELEMENT_COMMON_DATABASE] = "CommonDatabase",
};

const char *element_type_name(int64_t type)
{
    return type >= ELEMENT_STORAGE_VOLUME && type <= ELEMENT_COMMON_DATABASE
            ? type_names[type]
            : NULL;
}

bool element_type_parse(const char *name, int64_t *type)
{
    for (*type = ELEMENT_STORAGE_VOLUME; *type <= ELEMENT_COMMON_DATABASE; ++*type)
        if (strcmp(type_names[*type], name) == 0)
            return true;
    return false;
}

const struct api_pool *pool_find(const struct service *service, const char *name)
{
    for (size_t i = 0; i < service->options.pool_count; i++)
        if (!name || strcmp(service->options.pools[i].name, name) == 0)
            return &service->options.pools[i];
    return NULL;
}

void element_for_engine(const struct store_element *row, struct engine_element *element)
{
    *element = (struct engine_element){
        .offset = row->offset,
        .size = row->size,
        .whole = row->whole,
        .block_size = (uint32_t)row->block_size,
    };
    (void)snprintf(element->address, sizeof(element->address), "%s", row->address);
    (void)snprintf(
            element->credentials, sizeof(element->credentials), "%s", row->credentials);
    (void)snprintf(element->world, sizeof(element->world), "%s", row->world);
}

/* -- what overlaps what ------------------------------------------------------------ */

enum { OVERLAP_PAGE = 64 };

struct overlap_page {
    unsigned count;
    struct uuid ids[OVERLAP_PAGE];
};

static bool overlap_collect(void *context, const void *row)
{
    struct overlap_page *page = context;

    page->ids[page->count++] = *(const struct uuid *)row;
    return page->count < OVERLAP_PAGE;
}

static bool ranges_meet(const struct store_element *a, const struct store_element *b)
{
    return a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

/** The extents of @whole that meet @element's bytes, but not itself. */
static void overlap_extents(struct store_reader *reader, const struct uuid *whole,
        const struct store_element *element,
        bool (*each)(void *context, const struct store_element *other), void *context)
{
    struct store_query query = {
        .table = STORE_ELEMENT,
        .filter_count = 1,
        .filters = { { .column = ELEMENT_OF, .count = 1, .texts = { whole->text } } },
        .limit = OVERLAP_PAGE,
    };
    struct overlap_page page = { 0 };
    struct store_element other;
    struct uuid last;

    do {
        page.count = 0;
        if (store_list(reader, &query, overlap_collect, &page) <= 0)
            return;
        for (unsigned i = 0; i < page.count; i++)
            if (!uuid_equal(&page.ids[i], &element->id) &&
                    store_get(reader, STORE_ELEMENT, page.ids[i].text, &other) == 0 &&
                    (uuid_equal(whole, &element->id) || ranges_meet(&other, element)) &&
                    !each(context, &other))
                return;
        last = page.ids[page.count - 1];
        query.before = last.text;
    } while (page.count == OVERLAP_PAGE);
}

void element_overlaps(struct store_reader *reader, const struct store_element *element,
        bool (*each)(void *context, const struct store_element *other), void *context)
{
    struct store_element parent;

    if (!each(context, element))
        return;
    if (uuid_is_none(&element->of)) {
        overlap_extents(reader, &element->id, element, each, context);
        return;
    }
    if (store_get(reader, STORE_ELEMENT, element->of.text, &parent) == 0 &&
            !each(context, &parent))
        return;
    overlap_extents(reader, &element->of, element, each, context);
}

static bool complete_each(void *context, const struct store_element *other)
{
    bool *complete = context;

    return *complete = other->complete;
}

bool element_complete(struct store_reader *reader, const struct store_element *row)
{
    bool complete = true;

    element_overlaps(reader, row, complete_each, &complete);
    return complete;
}

/* -- who holds it ------------------------------------------------------------------ */

struct holding {
    struct api_outcome *outcome;
    const char *collection;
    bool held;
};

static bool holding_each(void *context, const void *row)
{
    struct holding *holding = context;
    const struct uuid *id = row;
    char path[64];

    (void)snprintf(path, sizeof(path), "/%s/%s", holding->collection, id->text);
    if (!holding->held) {
        outcome_fail(holding->outcome, API_IN_USE, CIM_IN_USE, "%s holds it", path);
        if (strcmp(holding->collection, "jobs") == 0)
            outcome_remedy(holding->outcome,
                    "POST %s/request-state-change {\"RequestedState\":\"Terminate\"}",
                    path);
        else
            outcome_remedy(holding->outcome, "DELETE %s", path);
    }
    holding->held = true;
    outcome_holder(holding->outcome, path);
    return true;
}

/** Rows of @table with @id in @column; live jobs only. */
static void held_by(struct store_reader *reader, enum store_table table,
        enum store_column column, const struct uuid *id, struct holding *holding)
{
    struct store_query query = {
        .table = table,
        .filter_count = table == STORE_JOB ? 2 : 1,
        .filters = { { .column = column, .count = 1, .texts = { id->text } },
                { .column = JOB_STATE,
                        .is_number = true,
                        .count = 5,
                        .numbers = { CIM_JOB_NEW, CIM_JOB_STARTING, CIM_JOB_RUNNING,
                                CIM_JOB_SUSPENDED, CIM_JOB_SHUTTING_DOWN } } },
        .limit = 8,
    };

    (void)store_list(reader, &query, holding_each, holding);
}

bool element_held(
        struct store_reader *reader, const struct uuid *id, struct api_outcome *outcome)
{
    struct holding holding = { .outcome = outcome, .collection = "replicas" };
    struct store_replica replica;

    if (export_holds(reader, id->text, outcome))
        return true;
    if (store_get(reader, STORE_REPLICA, id->text, &replica) == 0)
        (void)holding_each(&holding, &replica.id);
    held_by(reader, STORE_REPLICA, REPLICA_SOURCE, id, &holding);
    holding.collection = "jobs";
    held_by(reader, STORE_JOB, JOB_SOURCE, id, &holding);
    held_by(reader, STORE_JOB, JOB_TARGET, id, &holding);
    holding.collection = "elements";
    held_by(reader, STORE_ELEMENT, ELEMENT_OF, id, &holding);
    return holding.held;
}

/* -- Usage ------------------------------------------------------------------------- */

struct usage {
    struct clerk_turn *turn;
    unsigned count;
    struct uuid others[OVERLAP_PAGE]; /* the pairs' targets */
};

static bool usage_each(void *context, const void *row)
{
    struct usage *usage = context;

    usage->others[usage->count++] = ((const struct store_replica *)row)->id;
    return usage->count < OVERLAP_PAGE;
}

static bool is_remote(struct clerk_turn *turn, const struct uuid *id)
{
    struct store_element row;

    return turn_get(turn, STORE_ELEMENT, id->text, &row) && row.remote;
}

/** 2, or 6..11: even for local pairs, odd when one of them is remote. */
static int64_t usage_of(struct clerk_turn *turn, const struct store_element *element)
{
    struct store_query query = {
        .table = STORE_REPLICA,
        .filter_count = 1,
        .filters = { { .column = REPLICA_SOURCE,
                .count = 1,
                .texts = { element->id.text } } },
        .limit = OVERLAP_PAGE,
    };
    struct usage usage = { .turn = turn };
    struct store_replica replica;
    bool target = turn_get(turn, STORE_REPLICA, element->id.text, &replica);
    bool remote = element->remote || (target && is_remote(turn, &replica.source));

    if (store_list(turn->reader, &query, usage_each, &usage) < 0)
        usage.count = 0;
    for (unsigned i = 0; i < usage.count && !remote; i++)
        remote = is_remote(turn, &usage.others[i]);
    if (!target && usage.count == 0)
        return CIM_USAGE_UNRESTRICTED;
    return CIM_USAGE_LOCAL_SOURCE + (target ? usage.count ? 4 : 2 : 0) + remote;
}

void element_refresh_usage(struct clerk_turn *turn, const struct uuid *id)
{
    struct store_element row;
    struct writer *changed;
    int64_t usage;

    if (!turn_get(turn, STORE_ELEMENT, id->text, &row))
        return;
    usage = usage_of(turn, &row);
    if (usage == row.usage)
        return;
    row.usage = usage;
    row.revision++;
    turn_put(turn, STORE_ELEMENT, &row);
    if ((changed = writer_create()))
        writer_cim(changed, "Usage", CIM_USAGE, usage);
    event_row(turn, "InstModification", "Element", "elements", id->text, changed);
}

/* -- calls ------------------------------------------------------------------------- */

void element_render(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *element)
{
    const struct store_element *row = element;
    char self[64];

    (void)snprintf(self, sizeof(self), "/elements/%s", row->id.text);
    writer_text(writer, "Id", row->id.text);
    writer_text(writer, "Self", self);
    writer_text(writer, "Type", element_type_name(row->type));
    writer_text(writer, "ElementName", row->name);
    writer_text(writer, "Address", row->address);
    writer_path(writer, "Pool", "pools", row->pool);
    writer_path(writer, "Of", "elements", row->of.text);
    writer_number(writer, "Offset", row->offset);
    writer_signed(writer, "BlockSize", row->block_size);
    writer_number(writer, "NumberOfBlocks",
            row->block_size > 0 ? row->size / (uint64_t)row->block_size : 0);
    writer_number(writer, "Size", row->size);
    writer_flag(writer, "ThinlyProvisioned", row->thin);
    writer_flag(writer, "Remote", row->remote);
    writer_text(writer, "Credentials", row->credentials[0] ? row->credentials : NULL);
    writer_cim(writer, "Usage", CIM_USAGE, row->usage);
    writer_cim(writer, "HealthState", CIM_HEALTH_STATE, row->health);
    export_render_in(call, reader, writer, &row->id);
    writer_flag(writer, "Complete", element_complete(reader, row));
    writer_json(writer, "Warnings", row->warnings[0] ? row->warnings : "[]");
    writer_time(writer, "Created", row->created);
}

int64_t element_tag(struct store_reader *reader, const struct store_element *row)
{
    return row->revision * 2 + element_complete(reader, row);
}

static const struct list_member list_members[] = {
    { .name = "Type",
            .column = ELEMENT_TYPE,
            .type = LIST_PARSED,
            .parse = element_type_parse },
    { .name = "ElementName", .column = ELEMENT_NAME, .type = LIST_TEXT },
    { .name = "Pool",
            .column = ELEMENT_POOL,
            .type = LIST_NAMED,
            .collection = "pools" },
    { .name = "Of",
            .column = ELEMENT_OF,
            .type = LIST_REFERENCE,
            .collection = "elements" },
    { .name = "Remote", .column = ELEMENT_REMOTE, .type = LIST_FLAG },
    { .name = "Usage", .column = ELEMENT_USAGE, .type = LIST_CIM, .map = CIM_USAGE },
    { .name = "Address", .column = ELEMENT_ADDRESS, .type = LIST_TEXT },
};

void call_ELEMENTS_LIST(struct call *call)
{
    list_serve(call, STORE_ELEMENT, "/elements", list_members,
            sizeof(list_members) / sizeof(list_members[0]), element_render);
}

void call_ELEMENT_GET(struct call *call)
{
    struct store_reader *reader;
    struct store_element row;

    if (!call_no_query(call) || !(reader = call_reader(call)))
        return;
    if (call_find(call, reader, STORE_ELEMENT, &row))
        call_answer(call, reader, element_render, &row, element_tag(reader, &row));
    store_reader_give(call->service->store, reader);
}

#define MEMBER(json, kind, value, ...)                                                 \
    {                                                                                  \
        .name = json, .type = kind, .offset = offsetof(struct element_input, value),   \
        .given = offsetof(struct element_input, has_##value), __VA_ARGS__              \
    }

static const struct body_member create_members[] = {
    MEMBER("Type", BODY_TEXT, type, .need = BODY_REQUIRED, .min = 1, .max = 32),
    MEMBER("ElementName", BODY_TEXT, name, .min = 1, .max = STORE_NAME - 1),
    MEMBER("Pool", BODY_NAMED, pool, .min = 1, .max = STORE_WORD - 1,
            .collection = "pools"),
    MEMBER("Size", BODY_NUMBER, size, .min = 1, .max = INT64_MAX),
    MEMBER("Address", BODY_TEXT, address, .min = 1, .max = STORE_ADDRESS - 1),
    MEMBER("Credentials", BODY_TEXT, credentials, .min = 1, .max = STORE_WORD - 1),
    MEMBER("Remote", BODY_FLAG, remote, .min = 0),
    MEMBER("Of", BODY_REFERENCE, of, .collection = "elements"),
    MEMBER("Offset", BODY_NUMBER, offset, .min = 0, .max = INT64_MAX),
};

static void only_with(
        struct call *call, bool given, const char *pointer, const char *with)
{
    if (given)
        body_problem_add(&call->problems, false, pointer,
                "is only taken together with %s", with);
}

/** Which members go together, before anything is opened. */
static void input_check_members(struct call *call, const struct element_input *input)
{
    bool extent = strcmp(input->type, type_names[ELEMENT_STORAGE_EXTENT]) == 0;

    if (input->has_pool + input->has_address + input->has_of != 1)
        body_problem_add(&call->problems, false,
                input->has_pool              ? "/Pool"
                        : input->has_address ? "/Address"
                                             : "",
                "Exactly one of Address, Pool and Of says where the element is");
    if (!input->has_address) {
        only_with(call, input->has_credentials, "/Credentials", "Address");
        only_with(call, input->has_remote, "/Remote", "Address");
    }
    only_with(call, input->has_offset && !input->has_of, "/Offset", "Of");
    if (input->has_address)
        only_with(call, input->has_size, "/Size", "Pool or Of");
    else if (!input->has_size && (input->has_pool || input->has_of))
        body_problem_add(&call->problems, false, "/Size", "is required");
    if (input->has_of != extent && call->problems.count == 0)
        body_problem_add(&call->problems, false, input->has_of ? "/Type" : "/Of",
                "A StorageExtent, and nothing else, is part of another element");
}

static bool input_check(
        struct call *call, const struct element_input *input, int64_t *type)
{
    if (!element_type_parse(input->type, type))
        body_problem_add(&call->problems, false, "/Type",
                "must be StorageVolume, StorageExtent or LogicalFile");
    else if (*type == ELEMENT_FILE_SYSTEM || *type == ELEMENT_COMMON_DATABASE)
        body_problem_add(
                &call->problems, true, "/Type", "%s is not supported yet", input->type);
    else
        input_check_members(call, input);
    if (call->problems.count == 0 && *type == ELEMENT_STORAGE_VOLUME &&
            input->has_pool && input->size % ELEMENT_BLOCK != 0)
        body_problem_add(&call->problems, false, "/Size", "is no multiple of 512");
    if (call->problems.count == 0)
        return true;
    call_refuse(call);
    return false;
}

static void row_begin(struct element_making *making, int64_t type)
{
    struct store_element *row = &making->row;

    row->id = uuid_make();
    row->type = type;
    row->revision = 1;
    row->complete = true;
    row->usage = CIM_USAGE_UNRESTRICTED;
    row->health = CIM_HEALTH_OK;
    if (making->input->has_name)
        (void)snprintf(row->name, sizeof(row->name), "%s", making->input->name);
    else
        name_make(row->name, making->input->type, &row->id);
}

static bool create_work(struct clerk_turn *turn, void *context)
{
    struct element_making *making = context;
    struct store_element *row = &making->row;
    struct call *call = making->call;
    struct writer *changed;

    row->created = turn->now;
    if (making->input->has_of ? !element_carve(making, turn)
                              : !element_is_new(making, turn))
        return false;
    turn_put(turn, STORE_ELEMENT, row);
    if (making->made)
        making_done(turn, &row->id);
    if ((changed = writer_create())) {
        writer_text(changed, "Type", making->input->type);
        writer_text(changed, "ElementName", row->name);
        writer_number(changed, "Size", row->size);
    }
    event_row(turn, "InstCreation", "Element", "elements", row->id.text, changed);
    call_made(call, turn->reader, element_render, row, element_tag(turn->reader, row),
            "elements", row->id.text);
    call->target = row->id;
    call_settle(call, turn);
    return true;
}

void call_ELEMENT_CREATE(struct call *call)
{
    struct element_input input = { 0 };
    struct element_making making = { .call = call, .input = &input };
    int64_t type;

    if (!call_decode(call, create_members,
                sizeof(create_members) / sizeof(create_members[0]), &input) ||
            !input_check(call, &input, &type))
        return;
    row_begin(&making, type);
    if (input.has_address && !element_register(&making))
        return;
    if (input.has_pool && !element_allocate(&making))
        return;
    (void)call_commit(call, create_work, &making);
    if (call->outcome->verdict != API_MADE)
        element_unmake(&making);
}

struct element_renaming {
    struct call *call;
    char name[STORE_NAME];
    bool has_name;
};

static bool patch_work(struct clerk_turn *turn, void *context)
{
    struct element_renaming *patch = context;
    struct call *call = patch->call;
    struct store_element row;
    struct writer *changed;

    if (!turn_find(call, turn, STORE_ELEMENT, &row) ||
            !outcome_if_match(call, element_tag(turn->reader, &row)))
        return false;
    if (patch->has_name && strcmp(row.name, patch->name) != 0) {
        memcpy(row.name, patch->name, sizeof(row.name));
        row.revision++;
        turn_put(turn, STORE_ELEMENT, &row);
        if ((changed = writer_create()))
            writer_text(changed, "ElementName", row.name);
        event_row(
                turn, "InstModification", "Element", "elements", row.id.text, changed);
    }
    call_answer(
            call, turn->reader, element_render, &row, element_tag(turn->reader, &row));
    call_settle(call, turn);
    return true;
}

void call_ELEMENT_PATCH(struct call *call)
{
    static const struct body_member members[] = {
        { .name = "ElementName",
                .type = BODY_TEXT,
                .need = BODY_KEPT,
                .min = 1,
                .max = STORE_NAME - 1,
                .offset = offsetof(struct element_renaming, name),
                .given = offsetof(struct element_renaming, has_name) },
    };
    struct element_renaming patch = { .call = call };

    if (call_decode(call, members, 1, &patch))
        (void)call_commit(call, patch_work, &patch);
}

struct element_removal {
    struct call *call;
    struct store_element row;
};

static bool delete_work(struct clerk_turn *turn, void *context)
{
    struct element_removal *removal = context;
    struct call *call = removal->call;
    struct store_element *row = &removal->row;

    if (!turn_find(call, turn, STORE_ELEMENT, row) ||
            !outcome_if_match(call, element_tag(turn->reader, row)))
        return false;
    call->target = row->id;
    if (element_held(turn->reader, &row->id, call->outcome))
        return false;
    turn_delete(turn, STORE_ELEMENT, row);
    (void)target_forget(turn, &row->id);
    if (row->pool[0])
        making_again(turn, &row->id, row->pool);
    event_row(turn, "InstDeletion", "Element", "elements", row->id.text, NULL);
    call_done(call);
    call_settle(call, turn);
    return true;
}

void call_ELEMENT_DELETE(struct call *call)
{
    struct element_removal removal = { .call = call };

    /* The bytes go after the promise: a crash leaves them to the next start. */
    if (call_commit(call, delete_work, &removal) &&
            call->outcome->verdict == API_DONE && removal.row.pool[0])
        making_undo(call->service, &removal.row.id, removal.row.pool);
}

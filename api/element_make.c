/* api/element_make.c - how an element comes to be: an address that is opened once, a
 * fresh file in a pool, a part of another element.
 *
 * All that may wait for a device is done before the clerk's turn; in the turn only rows
 * are looked at. A file whose row was not committed is removed here, or at the next
 * start when the process died in between.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/elements.h"
#include "api/exports.h"
#include "replica/base/checked.h"

static void refuse(struct call *call, enum api_verdict verdict, const char *pointer,
        const char *detail)
{
    outcome_fail(call->outcome, verdict, CIM_INVALID_PARAMETER, "%s", detail);
    outcome_pointer(call->outcome, pointer, detail);
}

/**
 * What the engine found wrong with the words of the call is 5; with the far side 3 or
 * 4, with ourselves 2.
 */
static void refuse_probe(
        struct call *call, const char *address, bool file, const struct fault *fault)
{
    switch (fault->error) {
    case -EPERM:
        refuse(call, API_INVALID, "/Address", fault->why);
        return;
    case -ENOKEY:
        refuse(call, API_INVALID, "/Credentials", fault->why);
        return;
    case -ENOENT:
    case -ENOTDIR:
        if (file) {
            refuse(call, API_NO_REFERENCE, "/Address", fault->why);
            return;
        }
        break;
    case -ELOOP:
    case -EXDEV:
    case -EINVAL:
    case -EISDIR:
        if (file) {
            refuse(call, API_INVALID, "/Address", fault->why);
            return;
        }
        break;
    default:
        break;
    }
    outcome_engine(call->outcome, fault, "the element", address);
}

static void warn(struct store_element *row, const char *warning)
{
    const char *list[] = { warning };

    if (row->warnings[0] == '\0' || strcmp(row->warnings, "[]") == 0) {
        (void)texts_to_json(row->warnings, sizeof(row->warnings), 1, list);
    } else {
        char more[STORE_GOAL];
        size_t length = strlen(row->warnings);
        if (texts_to_json(more, sizeof(more), 1, list) &&
                length + strlen(more) < sizeof(row->warnings)) {
            row->warnings[length - 1] = ',';
            (void)snprintf(row->warnings + length, sizeof(row->warnings) - length, "%s",
                    more + 1);
        }
    }
}

/** Sizes as the type wants them; what was found becomes the row. */
static bool take_found(
        struct element_making *making, bool file, const struct engine_found *found)
{
    struct store_element *row = &making->row;
    struct call *call = making->call;
    bool volume = row->type == ELEMENT_STORAGE_VOLUME;

    if (found->size == 0) {
        refuse(call, API_INVALID, "/Address", "What is addressed has no bytes");
        return false;
    }
    if (file && volume && found->size % ELEMENT_BLOCK != 0) {
        refuse(call, API_INVALID, "/Type",
                "The file's length is no multiple of 512 bytes: register it as a "
                "LogicalFile");
        return false;
    }
    row->size = row->whole = found->whole ? found->whole : found->size;
    row->block_size = !file ? found->block_size : volume ? ELEMENT_BLOCK : 1;
    row->thin = found->thin;
    (void)snprintf(row->place, sizeof(row->place), "%s", found->identity.place);
    (void)snprintf(row->world, sizeof(row->world), "%s", found->identity.world);
    (void)snprintf(row->weak, sizeof(row->weak), "%s", found->identity.weak);
    if (found->identity.foreign_reservation)
        warn(row,
                "Somebody holds a persistent reservation on it that keeps us from "
                "writing");
    return true;
}

static bool probe(struct element_making *making, bool file)
{
    struct engine_element element = { .block_size = 1 };
    struct engine_found found = { 0 };
    struct fault fault = { 0 };
    int result;

    (void)snprintf(element.address, sizeof(element.address), "%s", making->row.address);
    (void)snprintf(element.credentials, sizeof(element.credentials), "%s",
            making->row.credentials);
    result = engine_probe(
            making->call->service->engine, &element, false, &found, &fault);
    if (result != 0) {
        fault.error = result;
        refuse_probe(making->call, making->row.address, file, &fault);
        return false;
    }
    return take_found(making, file, &found);
}

/** A secret that was put into the address by mistake stays out of /results. */
static void withhold(char *in, const char *member)
{
    char *at = in ? strstr(in, member) : NULL;

    if (!at)
        return;
    for (at += strlen(member); *at && *at != '"'; at++) {
        if (*at == '\\' && at[1])
            *at++ = '*';
        *at = '*';
    }
}

static bool address_take(struct element_making *making, struct address *address)
{
    struct call *call = making->call;
    const char *text = making->input->address;
    struct fault fault = { 0 };
    char canonical[ADDRESS_TEXT];

    if (address_parse(text, address, &fault) != 0) {
        if (strchr(text, '@') || strchr(text, '%') || strchr(text, '?'))
            withhold(call->in, "\"Address\":\"");
        refuse(call, API_INVALID, "/Address",
                fault.why[0] ? fault.why : "This is no address of an element");
        return false;
    }
    if (address->kind == ADDRESS_POOL_FILE &&
            !pool_find(call->service, address->pool)) {
        refuse(call, API_NO_REFERENCE, "/Address", "There is no pool of that name");
        return false;
    }
    address_format(address, canonical);
    (void)snprintf(making->row.address, sizeof(making->row.address), "%s", canonical);
    return true;
}

/** An export of ours under its iSCSI name: the element it is of is there already. */
static bool address_is_own(struct element_making *making, const struct address *address)
{
    struct call *call = making->call;
    const char *prefix = call->service->options.iqn_prefix;
    size_t length = strlen(prefix);
    struct store_reader *reader;
    bool own;

    if (strncmp(address->target, prefix, length) != 0 || address->target[length] != ':')
        return false;
    if (!(reader = call_reader(call)))
        return true;
    own = export_holds(reader, address->target + length + 1, call->outcome);
    store_reader_give(call->service->store, reader);
    return own;
}

bool element_register(struct element_making *making)
{
    const struct element_input *input = making->input;
    struct call *call = making->call;
    struct address address;
    bool file;

    if (!address_take(making, &address))
        return false;
    file = address.kind == ADDRESS_POOL_FILE;
    if (file && input->has_credentials) {
        refuse(call, API_INVALID, "/Credentials", "A file in a pool needs none");
        return false;
    }
    if (!file && making->row.type == ELEMENT_LOGICAL_FILE) {
        refuse(call, API_INVALID, "/Type",
                "A LogicalFile is a file in a pool, not a LUN");
        return false;
    }
    if (input->has_credentials && !word_is_plain(input->credentials)) {
        withhold(call->in, "\"Credentials\":\"");
        refuse(call, API_INVALID, "/Credentials",
                "The name of a file in the directory of credentials, nothing else");
        return false;
    }
    (void)snprintf(making->row.credentials, sizeof(making->row.credentials), "%s",
            input->credentials);
    making->row.remote = input->remote;
    if (!file && address_is_own(making, &address))
        return false;
    return probe(making, file);
}

static void refuse_file(struct element_making *making, const struct fault *fault)
{
    if (fault->error == -EFBIG || fault->error == -EINVAL)
        refuse(making->call, API_INVALID, "/Size",
                "The file system of the pool cannot hold a file of that size");
    else
        outcome_engine(making->call->outcome, fault, "the pool", making->row.address);
}

/** A thin element may be larger than what is free; whoever made it should know. */
static void warn_space(struct element_making *making)
{
    struct engine_pool_figures figures = { 0 };
    char warning[160];

    if (engine_pool_figures(
                making->call->service->engine, making->row.pool, &figures) != 0 ||
            figures.remaining >= making->row.size)
        return;
    (void)snprintf(warning, sizeof(warning),
            "It is thin, and the pool lacks %" PRIu64 " bytes to hold all of it",
            making->row.size - figures.remaining);
    warn(&making->row, warning);
}

bool element_allocate(struct element_making *making)
{
    const struct element_input *input = making->input;
    struct service *service = making->call->service;
    struct store_element *row = &making->row;
    struct fault fault = { 0 };
    char file[UUID_TEXT + 4];
    int result;

    if (!pool_find(service, input->pool)) {
        refuse(making->call, API_NO_REFERENCE, "/Pool",
                "There is no pool of that name");
        return false;
    }
    (void)snprintf(row->pool, sizeof(row->pool), "%s", input->pool);
    (void)snprintf(file, sizeof(file), "%s.raw", row->id.text);
    (void)snprintf(row->address, sizeof(row->address), "pool:%s/%s", row->pool, file);
    if (!making_begin(making->call, &row->id, row->pool))
        return false;
    making->made = true;
    result = engine_file_create(
            service->engine, row->pool, file, input->size, false, &fault);
    fault.error = result;
    if (result != 0)
        refuse_file(making, &fault);
    row->size = input->size;
    if (result == 0 && probe(making, true)) {
        warn_space(making);
        return true;
    }
    element_unmake(making);
    return false;
}

void element_unmake(struct element_making *making)
{
    if (making->made)
        making_undo(making->call->service, &making->row.id, making->row.pool);
    making->made = false;
}

static bool window_fits(
        struct element_making *making, const struct store_element *parent)
{
    const struct element_input *input = making->input;
    uint64_t block = (uint64_t)parent->block_size;

    if (input->offset % block != 0)
        body_problem_add(&making->call->problems, false, "/Offset",
                "is no multiple of the block size, %" PRIu64, block);
    if (input->size % block != 0)
        body_problem_add(&making->call->problems, false, "/Size",
                "is no multiple of the block size, %" PRIu64, block);
    if (!range_inside(input->offset, input->size, parent->size))
        body_problem_add(&making->call->problems, false,
                input->offset >= parent->size ? "/Offset" : "/Size",
                "is past the end of an element of %" PRIu64 " bytes", parent->size);
    if (making->call->problems.count == 0)
        return true;
    call_refuse(making->call);
    return false;
}

bool element_carve(struct element_making *making, struct clerk_turn *turn)
{
    struct store_element *row = &making->row, parent;

    if (!turn_get(turn, STORE_ELEMENT, making->input->of, &parent)) {
        if (turn->error == 0)
            refuse(making->call, API_NO_REFERENCE, "/Of", "There is no such element");
        return false;
    }
    if (!uuid_is_none(&parent.of)) {
        refuse(making->call, API_INVALID, "/Of",
                "It is an extent itself: take one of what that is part of");
        return false;
    }
    if (!window_fits(making, &parent))
        return false;
    memcpy(row->address, parent.address, sizeof(row->address));
    memcpy(row->credentials, parent.credentials, sizeof(row->credentials));
    row->of = parent.id;
    row->offset = making->input->offset;
    row->size = making->input->size;
    row->whole = parent.whole;
    memcpy(row->world, parent.world, sizeof(row->world));
    row->block_size = parent.block_size;
    row->remote = parent.remote;
    row->thin = parent.thin;
    return true;
}

/* -- the same thing under two names ------------------------------------------------ */

struct likeness {
    unsigned count;
    struct uuid ids[4];
};

static bool likeness_add(void *context, const void *row)
{
    struct likeness *likeness = context;

    const struct store_element *element = row;
    bool whole = uuid_is_none(&element->of); /* an extent stands for what it is of */

    likeness->ids[likeness->count++] = whole ? element->id : element->of;
    return likeness->count < 4;
}

static void likeness_find(struct clerk_turn *turn, enum store_column column,
        const char *text, struct likeness *likeness)
{
    struct store_query query = {
        .table = STORE_ELEMENT,
        .filter_count = 1,
        .filters = { { .column = column, .count = 1, .texts = { text } } },
        .limit = 4,
    };
    int result;

    likeness->count = 0;
    if (text[0] == '\0')
        return;
    result = store_list(turn->reader, &query, likeness_add, likeness);
    if (result < 0)
        turn->error = result;
}

static bool refuse_twin(
        struct element_making *making, const struct uuid *twin, const char *how)
{
    struct call *call = making->call;
    char path[64];

    (void)snprintf(path, sizeof(path), "/elements/%s", twin->text);
    outcome_fail(
            call->outcome, API_IN_USE, CIM_IN_USE, "It is registered already: %s", how);
    outcome_pointer(call->outcome, "/Address", "Registered already");
    outcome_holder(call->outcome, path);
    outcome_remedy(call->outcome, "DELETE %s", path);
    return false;
}

bool element_is_new(struct element_making *making, struct clerk_turn *turn)
{
    struct store_element *row = &making->row;
    struct likeness likeness;
    char warning[200];

    likeness_find(turn, ELEMENT_PLACE, row->place, &likeness);
    if (likeness.count)
        return refuse_twin(making, &likeness.ids[0], "the same file or logical unit");
    likeness_find(turn, ELEMENT_WORLD, row->world, &likeness);
    if (likeness.count)
        return refuse_twin(making, &likeness.ids[0], "the same world-wide identity");
    likeness_find(turn, ELEMENT_WEAK, row->weak, &likeness);
    for (unsigned i = 0; i < likeness.count; i++) {
        (void)snprintf(warning, sizeof(warning),
                "It may be the same thing as /elements/%s: the vendor identity is the "
                "same",
                likeness.ids[i].text);
        warn(row, warning);
    }
    return turn->error == 0;
}

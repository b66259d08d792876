/* api/exports.c - /elements/{id}/export: what the iSCSI target serves.
 *
 * The row says what is to be served, and who serves it (exports_serve.c) does. Made: the
 * element is opened and served, then the row is committed; served without a row it is for as
 * long as that takes, and a crash in between leaves nothing. Taken away: it is served no more,
 * then the row goes. While a command of a host has not ended the row stays, and with it all
 * that stands against another writer: what is in flight may still land. Changed in who may use
 * it and how they show it: held ready, committed, then in force, and no session of who still
 * may notices. Changed in more: served anew, as if made. One call at a time has an export in
 * hand (exports_hand.c).
 */
#include "api/exports.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/log.h"

enum {
    SESSIONS_SHOWN = 16,
    RETRY_AFTER_S = 5,
    QUOTED_MAX = 100, /* of a name, in what the target says of it */
    UNSERVE_TRIES = 8 /* each as long as withdraw() waits; commands end before */
};

/* -- rendering ----------------------------------------------------------------------------- */

static void sessions_render(
        struct service *service, struct writer *writer, const struct uuid *id)
{
    const struct api_exporter *exporter = service->exporter;
    struct api_export_session sessions[SESSIONS_SHOWN];
    size_t count = exporter
            ? exporter->sessions(exporter->context, id, sessions, SESSIONS_SHOWN)
            : 0;

    writer_array(writer, "Sessions");
    for (size_t i = 0; i < count && i < SESSIONS_SHOWN; i++) {
        writer_object(writer, NULL);
        writer_text(writer, "Initiator", sessions[i].initiator);
        writer_text(writer, "Address", sessions[i].address);
        writer_time(writer, "Since", sessions[i].since_ms);
        writer_number(writer, "QueueDepth", sessions[i].queue_depth);
        writer_number(writer, "BytesRead", sessions[i].read_bytes);
        writer_number(writer, "BytesWritten", sessions[i].written_bytes);
        writer_end(writer);
    }
    writer_end(writer);
}

static void names_render(struct writer *writer, const struct store_export *row)
{
    char text[sizeof(row->initiators)];
    const char *names[BODY_LIST_MAX];
    size_t count;

    memcpy(text, row->initiators, sizeof(text));
    count = export_names(text, names, BODY_LIST_MAX);
    writer_array(writer, "Initiators");
    for (size_t i = 0; i < count; i++)
        writer_text(writer, NULL, names[i]);
    writer_end(writer);
}

static void members_render(
        struct service *service, struct writer *writer, const struct store_export *row)
{
    const struct api_exporter *exporter = service->exporter;
    char text[300];

    (void)snprintf(text, sizeof(text), "/elements/%s/export", row->id.text);
    writer_text(writer, "Self", text);
    (void)snprintf(
            text, sizeof(text), "%s:%s", service->options.iqn_prefix, row->id.text);
    writer_text(writer, "TargetName", text);
    writer_number(writer, "LUN", 0);
    writer_array(writer, "Portals");
    for (unsigned i = 0;
            exporter && exporter->portal(exporter->context, i, text, sizeof(text)); i++)
        writer_text(writer, NULL, text);
    writer_end(writer);
    names_render(writer, row);
    writer_text(writer, "Credentials", row->credentials[0] ? row->credentials : NULL);
    writer_flag(writer, "ReadOnly", row->read_only);
    writer_flag(writer, "Serving",
            exporter && exporter->serves(exporter->context, &row->id));
    sessions_render(service, writer, &row->id);
    writer_time(writer, "Created", row->created);
}

static void export_render(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *row)
{
    (void)reader;
    members_render(call->service, writer, row);
}

void export_render_in(struct call *call, struct store_reader *reader,
        struct writer *writer, const struct uuid *id)
{
    struct store_export row;

    if (store_get(reader, STORE_EXPORT, id->text, &row) != 0) {
        writer_null(writer, "Export");
        return;
    }
    writer_object(writer, "Export");
    members_render(call->service, writer, &row);
    writer_end(writer);
}

/* -- who stands against it ------------------------------------------------------------------ */

struct standing {
    struct call *call;
    struct store_reader *reader;
    const struct uuid *but; /* NULL: none stands beside itself */
    const char *what, *pointer;
    bool refused;
};

static bool standing_each(void *context, const struct store_element *element)
{
    struct standing *standing = context;
    struct api_outcome *outcome = standing->call->outcome;
    struct store_export row;
    char path[64];

    if ((standing->but && uuid_equal(standing->but, &element->id)) ||
            store_get(standing->reader, STORE_EXPORT, element->id.text, &row) != 0 ||
            row.read_only)
        return true;
    (void)snprintf(path, sizeof(path), "/elements/%s/export", row.id.text);
    if (!standing->refused) {
        outcome_fail(outcome, API_IN_USE, CIM_IN_USE, "%s", standing->what);
        outcome_pointer(outcome, standing->pointer, standing->what);
        outcome_remedy(outcome, "DELETE %s", path);
    }
    standing->refused = true;
    outcome_holder(outcome, path);
    return true;
}

bool claims_export(struct call *call, struct store_reader *reader,
        const struct store_element *element, const char *pointer)
{
    struct standing standing = { .call = call,
        .reader = reader,
        .pointer = pointer,
        .what = "what would be written is exported read-write: hosts write it" };

    element_overlaps(reader, element, standing_each, &standing);
    return !standing.refused;
}

/** Two exports of the same bytes would know nothing of each other's reservations. */
static bool export_alone(struct call *call, struct store_reader *reader,
        const struct store_element *element)
{
    struct standing standing = { .call = call,
        .reader = reader,
        .but = &element->id,
        .pointer = "/ReadOnly",
        .what = "some of its bytes are exported read-write already" };

    element_overlaps(reader, element, standing_each, &standing);
    return !standing.refused;
}

bool export_holds(
        struct store_reader *reader, const char *id, struct api_outcome *outcome)
{
    struct store_export row;
    char path[64];

    if (store_get(reader, STORE_EXPORT, id, &row) != 0)
        return false;
    (void)snprintf(path, sizeof(path), "/elements/%s/export", id);
    outcome_fail(outcome, API_IN_USE, CIM_IN_USE, "%s holds it", path);
    outcome_remedy(outcome, "DELETE %s", path);
    outcome_holder(outcome, path);
    return true;
}

/* -- calls --------------------------------------------------------------------------------- */

/** False: the outcome is NOT_FOUND. */
static bool export_find(
        struct call *call, struct store_reader *reader, struct store_export *row)
{
    struct store_element element;

    if (!call_find(call, reader, STORE_ELEMENT, &element))
        return false;
    if (store_get(reader, STORE_EXPORT, element.id.text, row) == 0)
        return true;
    outcome_fail(call->outcome, API_NOT_FOUND, -1, "The element is not exported");
    return false;
}

void call_EXPORT_GET(struct call *call)
{
    struct store_reader *reader = call_no_query(call) ? call_reader(call) : NULL;
    struct store_export row;

    if (!reader)
        return;
    if (export_find(call, reader, &row)) {
        struct writer *writer = writer_create();

        /* Sessions come and go without a revision: it is told anew each time. */
        if (writer)
            members_render(call->service, writer, &row);
        call->outcome->verdict = API_DONE;
        outcome_etag(call->outcome, row.revision);
        outcome_body(call->outcome, &writer);
    }
    store_reader_give(call->service->store, reader);
}

struct export_work {
    struct call *call;
    struct body_texts initiators;
    char credentials[STORE_WORD];
    bool read_only, has_initiators, has_credentials, has_read_only;
    struct store_element element;
    struct store_export row, before;
    bool found; /* @before is what was served */
    bool kept; /* the turn is to keep the row */
    enum export_how how; /* it came to be served */
};

#define MEMBER(json, kind, value, ...)                                                 \
    {                                                                                  \
        .name = json, .type = kind, .offset = offsetof(struct export_work, value),     \
        .given = offsetof(struct export_work, has_##value), __VA_ARGS__                \
    }

static const struct body_member members[] = {
    MEMBER("Initiators", BODY_TEXTS, initiators, .need = BODY_REQUIRED, .min = 1,
            .max = BODY_LIST_MAX),
    MEMBER("Credentials", BODY_TEXT, credentials, .min = 1, .max = STORE_WORD - 1),
    MEMBER("ReadOnly", BODY_FLAG, read_only, .min = 0),
};

/** Names as RFC 7143 4.2.7 spells them, lower case, or "*" alone. */
static void initiator_take(struct export_work *work, unsigned at)
{
    static const char *const forms[] = { "iqn.", "eui.", "naa." };
    char *name = work->initiators.text[at], *to = work->row.initiators;
    struct body_problems *problems = &work->call->problems;
    size_t length = strlen(name), used = strlen(to);
    char pointer[32];
    bool named = false;

    (void)snprintf(pointer, sizeof(pointer), "/Initiators/%u", at);
    for (size_t i = 0; i < length; i++)
        if (name[i] >= 'A' && name[i] <= 'Z')
            name[i] = (char)(name[i] - 'A' + 'a');
    for (unsigned i = 0; i < 3; i++)
        named |= strncmp(name, forms[i], 4) == 0 && length > 4 && length <= 223 &&
                strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.:") == length;
    if (!named && strcmp(name, "*") != 0)
        body_problem_add(problems, false, pointer,
                "must be an iSCSI name (iqn., eui. or naa.), or \"*\" for all");
    else if (strcmp(name, "*") == 0 && work->initiators.count > 1)
        body_problem_add(problems, false, pointer, "\"*\" stands alone");
    else if (used + length + 2 > sizeof(work->row.initiators))
        body_problem_add(problems, false, pointer, "is one too many");
    else
        (void)snprintf(to + used, sizeof(work->row.initiators) - used, "%s\n", name);
}

static bool export_take(struct export_work *work)
{
    struct call *call = work->call;

    for (unsigned i = 0; i < work->initiators.count; i++)
        initiator_take(work, i);
    if (work->has_credentials && !word_is_plain(work->credentials))
        body_problem_add(&call->problems, false, "/Credentials",
                "The name of a file in the directory of credentials, nothing else");
    memcpy(work->row.credentials, work->credentials, sizeof(work->row.credentials));
    work->row.read_only = work->read_only;
    if (call->problems.count == 0)
        return true;
    call_refuse(call);
    return false;
}

/** A pair's target is written by its copies, and a source while it is restored. */
static bool export_allowed(struct export_work *work, struct store_reader *reader)
{
    return work->row.read_only ||
            (claims_served(work->call, reader, &work->element) &&
                    export_alone(work->call, reader, &work->element));
}

/** What is there, and whether it may be exported so. */
static bool export_look(struct export_work *work)
{
    struct call *call = work->call;
    struct store_reader *reader = call_reader(call);
    bool fine;

    if (!reader)
        return false;
    fine = call_find(call, reader, STORE_ELEMENT, &work->element);
    if (fine) {
        work->row.id = work->element.id;
        work->found = store_get(reader, STORE_EXPORT, work->element.id.text,
                              &work->before) == 0;
        fine = (!work->found || outcome_if_match(call, work->before.revision)) &&
                export_allowed(work, reader);
    }
    store_reader_give(call->service->store, reader);
    return fine;
}

/** Asked again when what hosts have in flight may have ended. */
static void refuse_ending(struct call *call)
{
    outcome_fail(call->outcome, API_OVERLOADED, -1,
            "The export is still ending: commands of its hosts have not ended. It is "
            "as "
            "it was; ask again");
    call->outcome->retry_after = RETRY_AFTER_S;
}

/** Of a name that the target does not take it says which; else it is about the secrets, and
    where there are none about the element. */
static void refuse_pointer(struct export_work *work, const struct fault *fault)
{
    struct api_outcome *outcome = work->call->outcome;
    char pointer[32] = "/Credentials";

    for (unsigned i = 0; fault->error == -EINVAL && i < work->initiators.count; i++) {
        size_t length = strnlen(work->initiators.text[i], QUOTED_MAX);
        if (strncmp(fault->why, work->initiators.text[i], length) == 0 &&
                fault->why[length] == ' ')
            (void)snprintf(pointer, sizeof(pointer), "/Initiators/%u", i);
    }
    if (pointer[1] == 'I' || work->has_credentials)
        outcome_pointer(outcome, pointer, fault->why);
}

static void refuse_serving(struct export_work *work, const struct fault *fault)
{
    struct call *call = work->call;
    struct api_outcome *outcome = call->outcome;

    if (fault->error == -EINPROGRESS) {
        refuse_ending(call);
    } else if (!call->service->exporter) {
        outcome_fail(outcome, API_NOT_SUPPORTED, -1, "%s", fault->why);
    } else if (fault->error == -EBUSY) {
        outcome_fail(outcome, API_IN_USE, -1, "%s", fault->why);
        outcome_remedy(outcome, "wait for who has it locked, or export it ReadOnly");
    } else if (fault->error == -ENOKEY || fault->error == -EINVAL) {
        outcome_fail(outcome, API_INVALID, -1, "%s", fault->why);
        refuse_pointer(work, fault);
    } else {
        outcome_engine(outcome, fault, "the element", work->element.address);
    }
}

static bool export_is_served(const struct export_work *work)
{
    const struct api_exporter *exporter = work->call->service->exporter;

    return exporter && exporter->serves(exporter->context, &work->row.id);
}

/** What the element was opened for stays: nothing is to be closed. */
static enum export_how export_way(const struct export_work *work)
{
    if (!export_is_served(work))
        return EXPORT_PUBLISH;
    return work->found && work->before.read_only == work->row.read_only
            ? EXPORT_CHANGE
            : EXPORT_REPLACE;
}

/** Not as the row says any more, or not yet: as the old one did, if it did. */
static void export_serve_before(struct export_work *work)
{
    struct fault fault = { 0 };

    if (!work->found || export_is_served(work) || work->call->service->draining)
        return;
    if (export_serve_row(work->call->service, &work->before, EXPORT_PUBLISH, &fault) !=
            0)
        log_event(LOG_WARN, "export-waits",
                (struct log_about){ .element = work->row.id.text },
                "it cannot be served as before: %s", fault.why);
}

/** Serve it as the row says, in place of what is served. */
static bool export_serve(struct export_work *work)
{
    struct fault fault = { 0 };
    int result;

    work->how = export_way(work);
    result = export_serve_row(work->call->service, &work->row, work->how, &fault);
    if (result == 0)
        return true;
    fault.error = result;
    refuse_serving(work, &fault);
    export_serve_before(work);
    return false;
}

/** The row is not kept. */
static void export_unserve(struct export_work *work)
{
    const struct api_exporter *exporter = work->call->service->exporter;

    if (work->how == EXPORT_CHANGE) {
        exporter->settle(exporter->context, &work->row.id, false);
        return;
    }
    /* No row says that it may be written, but our claim does until nobody writes. */
    for (unsigned i = 0; i < UNSERVE_TRIES && !work->call->service->draining; i++)
        if (exporter->withdraw(exporter->context, &work->row.id) != -ETIMEDOUT)
            break;
    export_serve_before(work);
}

/** The row is kept: new terms are in force, and sessions that it ends are not told any more. */
static void export_settle(struct export_work *work)
{
    const struct api_exporter *exporter = work->call->service->exporter;
    struct api_outcome *outcome = work->call->outcome;
    struct writer *writer;
    size_t length;
    char *body;

    if (work->how != EXPORT_CHANGE)
        return;
    exporter->settle(exporter->context, &work->row.id, true);
    if (!(writer = writer_create()))
        return; /* what was rendered before is true but for sessions */
    members_render(work->call->service, writer, &work->row);
    if ((body = writer_finish(&writer, &length))) {
        free(outcome->body);
        outcome->body = body;
        outcome->length = length;
    }
}

static bool put_work(struct clerk_turn *turn, void *context)
{
    struct export_work *work = context;
    struct call *call = work->call;
    struct writer *changed, *writer;

    if (!turn_find(call, turn, STORE_ELEMENT, &work->element) ||
            !export_allowed(work, turn->reader))
        return false;
    work->row.revision = work->found ? work->before.revision + 1 : 1;
    work->row.created = work->found ? work->before.created : turn->now;
    turn_put(turn, STORE_EXPORT, &work->row);
    if (!work->row.read_only)
        export_written_note(turn, &work->element);
    work->element.revision++;
    turn_put(turn, STORE_ELEMENT, &work->element);
    if ((changed = writer_create()))
        export_render_in(call, turn->reader, changed, &work->row.id);
    event_row(turn, "InstModification", "Element", "elements", work->row.id.text,
            changed);
    if ((writer = writer_create()))
        export_render(call, turn->reader, writer, &work->row);
    call->outcome->verdict = work->found ? API_DONE : API_MADE;
    if (!work->found)
        (void)snprintf(call->outcome->location, sizeof(call->outcome->location),
                "/elements/%s/export", work->row.id.text);
    outcome_etag(call->outcome, work->row.revision);
    outcome_body(call->outcome, &writer);
    call->target = work->row.id;
    call_settle(call, turn);
    work->kept = true;
    return true;
}

void call_EXPORT_PUT(struct call *call)
{
    struct export_work work = { .call = call };
    struct service *service = call->service;
    struct claim claim = { 0 };

    if (!call_decode(call, members, sizeof(members) / sizeof(members[0]), &work) ||
            !export_take(&work))
        return;
    if (!export_look(&work) || !export_hand_take(call, &work.element.id, false))
        return;
    if (export_look(&work) && claim_take(call, &claim, &work.element)) {
        if (export_serve(&work)) {
            if (call_commit(call, put_work, &work) && work.kept)
                export_settle(&work);
            else
                export_unserve(&work);
        }
    }
    claim_drop(service, &claim);
    export_hand_give(service, &work.row.id);
}

static bool delete_work(struct clerk_turn *turn, void *context)
{
    struct export_work *work = context;
    struct call *call = work->call;
    struct store_reservation kept;
    struct writer *changed;

    if (!turn_find(call, turn, STORE_ELEMENT, &work->element) ||
            !export_find(call, turn->reader, &work->row) ||
            !outcome_if_match(call, work->row.revision))
        return false;
    turn_delete(turn, STORE_EXPORT, &work->row);
    if (turn_get(turn, STORE_RESERVATION, work->row.id.text, &kept))
        turn_delete(turn, STORE_RESERVATION, &kept);
    work->element.revision++;
    turn_put(turn, STORE_ELEMENT, &work->element);
    if ((changed = writer_create()))
        writer_null(changed, "Export");
    event_row(turn, "InstModification", "Element", "elements", work->row.id.text,
            changed);
    call->outcome->verdict = API_GONE;
    call_settle(call, turn);
    return true;
}

/** Before anything ends: is there such an export, and is it the one that is meant? */
static bool delete_look(struct export_work *work)
{
    struct call *call = work->call;
    struct store_reader *reader = call_reader(call);

    if (!reader)
        return false;
    work->found = export_find(call, reader, &work->before) &&
            outcome_if_match(call, work->before.revision);
    store_reader_give(call->service->store, reader);
    return work->found;
}

/** True: nothing of it is served any more, and nothing that came through it is in flight. */
static bool delete_end(struct export_work *work)
{
    const struct api_exporter *exporter = work->call->service->exporter;
    int result = exporter ? exporter->withdraw(exporter->context, &work->before.id) : 0;

    if (result == 0 || result == -ENOENT)
        return true;
    refuse_ending(work->call);
    return false;
}

void call_EXPORT_DELETE(struct call *call)
{
    struct export_work work = { .call = call };
    struct service *service = call->service;
    struct uuid id;

    if (!delete_look(&work))
        return;
    id = work.before.id;
    if (!export_hand_take(call, &id, true))
        return;
    if (delete_look(&work) && delete_end(&work) &&
            (!call_commit(call, delete_work, &work) ||
                    call->outcome->verdict != API_GONE)) {
        work.row.id = id;
        export_serve_before(&work);
    }
    export_hand_give(service, &id);
}

/* api/resource.c - see resource.h. */
#include "api/resource.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "replica/base/scope.h"

enum call_kind { READ, WRITE, METHOD };

static const enum call_kind kinds[] = {
#define CALL(symbol, method, kind) [API_##symbol] = kind,
#include "api/calls.tbl.h"
#undef CALL
};

bool call_is_method(const struct call *call)
{
    return kinds[call->request->call] == METHOD;
}

static void call_nothing(struct call *call)
{
    if (call_is_method(call))
        outcome_fail(call->outcome, API_NO_REFERENCE, CIM_INVALID_PARAMETER,
                "There is nothing of that id");
    else
        outcome_fail(call->outcome, API_NOT_FOUND, -1, "There is nothing of that id");
}

bool call_find(struct call *call, struct store_reader *reader, enum store_table table,
        void *row)
{
    struct uuid id;
    int result = -ENOENT;

    if (call->request->id && uuid_parse(call->request->id, &id))
        result = store_get(reader, table, id.text, row);
    if (result == -ENOENT)
        call_nothing(call);
    else if (result != 0)
        outcome_fail(call->outcome, API_INTERNAL,
                call_is_method(call) ? CIM_UNKNOWN : -1,
                "The database could not be read");
    return result == 0;
}

bool turn_find(
        struct call *call, struct clerk_turn *turn, enum store_table table, void *row)
{
    struct uuid id;

    if (call->request->id && uuid_parse(call->request->id, &id) &&
            turn_get(turn, table, id.text, row))
        return true;
    if (turn->error == 0)
        call_nothing(call);
    return false;
}

/* Each fault with the member it is about, for whoever sees no more than the detail: a log,
   a result, a person with jq. */
static void problems_tell(const struct body_problems *problems, size_t room, char *text)
{
    size_t used = 0;

    text[0] = '\0';
    for (unsigned i = 0; i < problems->count && used < room; i++) {
        const struct body_problem *problem = &problems->list[i];
        bool whole = problem->pointer[0] == '\0'; /* the body, no member of it */
        int n = snprintf(text + used, room - used, "%s%s%s%s", i ? "; " : "",
                whole ? "" : problem->pointer + 1, whole ? "" : ": ", problem->detail);

        used += n > 0 ? (size_t)n : 0;
    }
}

void call_refuse(struct call *call)
{
    const struct body_problems *problems = &call->problems;
    char detail[480]; /* what is cut off still stands in Errors */
    bool invalid = false;

    for (unsigned i = 0; i < problems->count; i++)
        invalid |= !problems->list[i].unsupported;
    problems_tell(problems, sizeof(detail), detail);
    outcome_fail(call->outcome, invalid ? API_INVALID : API_NOT_SUPPORTED,
            !call_is_method(call) ? -1
                    : invalid     ? CIM_INVALID_PARAMETER
                                  : CIM_NOT_SUPPORTED,
            "%s", detail);
    for (unsigned i = 0; i < problems->count; i++)
        outcome_pointer(
                call->outcome, problems->list[i].pointer, problems->list[i].detail);
}

bool call_no_query(struct call *call)
{
    if (call->request->query_count == 0)
        return true;
    call_malformed(
            call, "This resource has no parameter %.60s", call->request->query[0].name);
    return false;
}

static void call_body(struct call *call, struct store_reader *reader, render_f *render,
        const void *row, int64_t revision)
{
    struct writer *writer = writer_create();

    if (writer)
        render(call, reader, writer, row);
    outcome_etag(call->outcome, revision);
    outcome_body(call->outcome, &writer);
}

void call_answer(struct call *call, struct store_reader *reader, render_f *render,
        const void *row, int64_t revision)
{
    if (kinds[call->request->call] == READ && outcome_if_none_match(call, revision))
        return;
    call->outcome->verdict = API_DONE;
    call->outcome->return_value = call_is_method(call) ? CIM_OK : -1;
    call_body(call, reader, render, row, revision);
}

void call_made(struct call *call, struct store_reader *reader, render_f *render,
        const void *row, int64_t revision, const char *collection, const char *id)
{
    call->outcome->verdict = API_MADE;
    call->outcome->return_value = call_is_method(call) ? CIM_OK : -1;
    (void)snprintf(call->outcome->location, sizeof(call->outcome->location), "/%s/%s",
            collection, id);
    call_body(call, reader, render, row, revision);
}

void call_get(struct call *call, enum store_table table, void *row, render_f *render,
        int64_t *revision)
{
    struct store_reader *reader;

    if (!call_no_query(call) || !(reader = call_reader(call)))
        return;
    if (call_find(call, reader, table, row))
        call_answer(call, reader, render, row, *revision);
    store_reader_give(call->service->store, reader);
}

void call_done(struct call *call)
{
    struct writer *writer = writer_create();

    call->outcome->verdict = API_DONE;
    call->outcome->return_value = CIM_OK;
    if (writer) {
        writer_number(writer, "ReturnValue", CIM_OK);
        writer_text(writer, "ReturnValueName", cim_return_name(call->method, CIM_OK));
        writer_null(writer, "Job");
    }
    outcome_body(call->outcome, &writer);
}

void call_malformed(struct call *call, const char *format, ...)
{
    char detail[200];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(detail, sizeof(detail), format, arguments);
    va_end(arguments);
    outcome_fail(call->outcome, API_MALFORMED, -1, "%s", detail);
}

void event_row(struct clerk_turn *turn, const char *kind, const char *type,
        const char *collection, const char *id, struct writer *changed)
{
    scoped_free char *text = NULL;
    char self[STORE_WORD];

    (void)snprintf(self, sizeof(self), "/%s/%s", collection, id);
    if (changed)
        text = writer_finish(&changed, NULL);
    event_put(turn, kind, type, self, text ? text : "{}");
}

bool texts_to_json(char *json, size_t room, size_t count, const char *const *texts)
{
    struct writer *writer = writer_create();
    scoped_free char *text = NULL;
    const char *first, *last;

    if (!writer)
        return false;
    writer_array(writer, "a");
    for (size_t i = 0; i < count; i++)
        writer_text(writer, NULL, texts[i]);
    writer_end(writer);
    text = writer_finish(&writer, NULL);
    if (!text || !(first = strchr(text, '[')) || !(last = strrchr(text, ']')) ||
            (size_t)(last - first) + 2 > room)
        return false;
    (void)snprintf(json, room, "%.*s", (int)(last - first + 1), first);
    return true;
}

void name_make(char name[STORE_NAME], const char *type, const struct uuid *id)
{
    (void)snprintf(name, STORE_NAME, "%s-%s", type, id->text + strlen(id->text) - 12);
}

bool word_is_plain(const char *word)
{
    size_t length = strspn(
            word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return length > 0 && length < STORE_WORD && word[length] == '\0' && word[0] != '.';
}

const char *return_name(const char *method, int64_t value)
{
    enum cim_method words = strcmp(method, "CreateReplica") == 0 ? CIM_CREATE_REPLICA
            : strcmp(method, "AttachOrModifyReplica") == 0
            ? CIM_ATTACH_OR_MODIFY_REPLICA
            : strcmp(method, "ModifySynchronization") == 0 ? CIM_MODIFY_SYNCHRONIZATION
                                                           : CIM_OTHER_METHOD;

    return cim_return_name(words, value);
}

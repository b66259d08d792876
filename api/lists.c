/* api/lists.c - lists: limit, cursor, Since, filters; members newest first.
 *
 * A page is found as ids, then each row is read and rendered: a render may ask the
 * reader for other rows, which it could not while the reader is in the middle of a
 * list. The cursor is the id of the last member: rows made meanwhile are newer and
 * shift nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/resource.h"
#include "replica/base/clock.h"
#include "replica/base/scope.h"

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 500, VALUES_MAX = 16, FILTERS_MAX = 8 };

/** One parameter taken apart. @text is owned: the values point into it. */
struct list_value {
    char *text;
    char ids[VALUES_MAX][UUID_TEXT];
};

struct list_page {
    struct store_query query;
    struct list_value values[FILTERS_MAX];
    struct uuid before, since;
    struct uuid ids[LIMIT_MAX + 1];
    unsigned count, limit;
    /* of a member that is not always shown as it is stored */
    const struct service *service;
    int64_t (*shown)(const struct service *service, const void *row); /* NULL: none */
    struct store_filter asked;
    struct uuid last; /* row that was looked at */
};

static void page_destroy(struct list_page **page)
{
    if (!*page)
        return;
    for (unsigned i = 0; i < FILTERS_MAX; i++)
        free((*page)->values[i].text);
    free(*page);
}

static bool parse_number(const char *text, int64_t low, int64_t high, int64_t *value)
{
    char *end;

    if (*text == '\0' || strspn(text, "-0123456789") != strlen(text))
        return false;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return errno == 0 && *end == '\0' && *value >= low && *value <= high;
}

static bool parse_flag(const char *text, int64_t *value)
{
    *value = strcmp(text, "true") == 0;
    return *value || strcmp(text, "false") == 0;
}

/** A pool is named by "/pools/NAME" or "NAME". */
static const char *parse_named(const char *text, const char *collection)
{
    size_t length = strlen(collection);

    if (text[0] == '/' && strncmp(text + 1, collection, length) == 0 &&
            text[length + 1] == '/')
        text += length + 2;
    return *text && !strchr(text, '/') ? text : NULL;
}

/** One of the values between commas, into slot @n of the filter. */
static bool value_parse(const struct list_member *member, char *text,
        struct store_filter *filter, struct list_value *value, unsigned n)
{
    int64_t *number = &filter->numbers[n];

    switch (member->type) {
    case LIST_TEXT:
        filter->texts[n] = text;
        return true;
    case LIST_NAMED:
        return (filter->texts[n] = parse_named(text, member->collection)) != NULL;
    case LIST_REFERENCE:
        filter->texts[n] = value->ids[n];
        return body_reference(text, member->collection, value->ids[n]);
    case LIST_CIM:
        return parse_number(text, 0, UINT16_MAX, number) ||
                cim_value(member->map, text, number);
    case LIST_NUMBER:
        return parse_number(text, INT64_MIN, INT64_MAX, number);
    case LIST_FLAG:
        return parse_flag(text, number);
    case LIST_PARSED:
        return member->parse(text, number);
    }
    return false;
}

static bool member_is_number(const struct list_member *member)
{
    return member->type != LIST_TEXT && member->type != LIST_NAMED &&
            member->type != LIST_REFERENCE;
}

static bool filter_parse(struct call *call, struct list_page *page,
        const struct list_member *member, const char *text)
{
    struct store_filter *filter = &page->query.filters[page->query.filter_count];
    struct list_value *value = &page->values[page->query.filter_count];
    char *next;

    if (page->query.filter_count == FILTERS_MAX) {
        call_malformed(call, "More than %d filters", FILTERS_MAX);
        return false;
    }
    value->text = strdup(text);
    if (!value->text) {
        outcome_fail(call->outcome, API_OVERLOADED, -1, "Out of memory");
        return false;
    }
    page->query.filter_count++;
    filter->column = member->column;
    filter->is_number = member_is_number(member);
    for (next = value->text; next; filter->count++) {
        char *one = strsep(&next, ",");
        if (filter->count == VALUES_MAX || *one == '\0' ||
                !value_parse(member, one, filter, value, filter->count)) {
            call_malformed(call,
                    "%s cannot be filtered by that: 1 to %d values, comma is or",
                    member->name, VALUES_MAX);
            return false;
        }
    }
    if (member->shown) {
        page->shown = member->shown;
        page->service = call->service;
        page->asked = *filter;
        member->widen(filter);
    }
    return true;
}

/** False: not one of those that every list has, or the outcome is MALFORMED. */
static bool common_parse(struct call *call, struct list_page *page, const char *name,
        const char *text, bool *known)
{
    int64_t number = 0;

    *known = true;
    if (strcmp(name, "limit") == 0) {
        if (!parse_number(text, 1, LIMIT_MAX, &number)) {
            call_malformed(call, "limit is a number from 1 to %d", LIMIT_MAX);
            return false;
        }
        page->limit = (unsigned)number;
        return true;
    }
    if (strcmp(name, "cursor") == 0) {
        page->query.before = page->before.text;
        if (uuid_parse(text, &page->before) && page->before.text[14] == '7')
            return true;
        call_malformed(call, "The cursor is not one of ours");
        return false;
    }
    if (strcmp(name, "Since") == 0) {
        page->query.since = page->since.text;
        if (clock_parse(text, &number) && number >= 0) {
            page->since = uuid_floor(number);
            return true;
        }
        call_malformed(call, "Since is a time as in RFC 3339");
        return false;
    }
    return *known = false;
}

static const struct list_member *member_find(
        const struct list_member *members, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(members[i].name, name) == 0)
            return &members[i];
    return NULL;
}

static bool given_before(const struct api_request *request, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(request->query[i].name, request->query[n].name) == 0)
            return true;
    return false;
}

static bool page_parse(struct call *call, const struct list_member *members,
        size_t count, struct list_page *page)
{
    const struct api_request *request = call->request;

    for (size_t i = 0; i < request->query_count; i++) {
        const struct api_parameter *parameter = &request->query[i];
        const struct list_member *member = member_find(members, count, parameter->name);
        bool known = true, good;

        if (given_before(request, i)) {
            call_malformed(call, "%.60s is given twice", parameter->name);
            return false;
        }
        good = member
                ? filter_parse(call, page, member, parameter->value)
                : common_parse(call, page, parameter->name, parameter->value, &known);
        if (!known)
            call_malformed(call, "There is no parameter %.60s here", parameter->name);
        if (!good)
            return false;
    }
    page->query.limit = page->limit + 1;
    return true;
}

/** Every row begins with its id, but those of events and keys, which are not listed. */
static bool page_collect(void *context, const void *row)
{
    struct list_page *page = context;

    page->ids[page->count++] = *(const struct uuid *)row;
    return page->count <= page->limit;
}

static bool page_pick(void *context, const void *row)
{
    struct list_page *page = context;
    int64_t shown = page->shown(page->service, row);

    page->last = *(const struct uuid *)row;
    for (unsigned i = 0; i < page->asked.count; i++)
        if (page->asked.numbers[i] == shown)
            return page_collect(page, row);
    return true;
}

/** 0, or an errno. */
static int page_find(struct store_reader *reader, struct list_page *page)
{
    int found;

    if (!page->shown) {
        found = store_list(reader, &page->query, page_collect, page);
        return found < 0 ? found : 0;
    }
    do { /* what is passed over may be more than what is asked for */
        found = store_list(reader, &page->query, page_pick, page);
        page->query.before = page->last.text;
    } while (found == (int)page->query.limit && page->count <= page->limit);
    return found < 0 ? found : 0;
}

/** RFC 3986 unreserved characters and a few harmless ones stay. */
static void escape(FILE *to, const char *text)
{
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if ((byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                (byte >= '0' && byte <= '9') || strchr("-._~,:/", byte))
            (void)fputc(byte, to);
        else
            (void)fprintf(to, "%%%02X", byte);
    }
}

/** The path of the next page with all that was asked; owned by the caller, free(). */
static char *next_path(
        const struct api_request *request, const char *path, const char *cursor)
{
    char *text = NULL;
    size_t length;
    FILE *to = open_memstream(&text, &length);

    if (!to)
        return NULL;
    (void)fprintf(to, "%s?cursor=%s", path, cursor);
    for (size_t i = 0; i < request->query_count; i++) {
        if (strcmp(request->query[i].name, "cursor") == 0)
            continue;
        (void)fputc('&', to);
        escape(to, request->query[i].name);
        (void)fputc('=', to);
        escape(to, request->query[i].value);
    }
    return fclose(to) == 0 ? text : NULL;
}

static int page_render(struct call *call, struct store_reader *reader,
        const struct list_page *page, struct writer *writer, render_f *render)
{
    union store_row row;

    writer_array(writer, "Members");
    for (unsigned i = 0; i < page->count && i < page->limit; i++) {
        int result = store_get(reader, page->query.table, page->ids[i].text, &row);
        if (result == -ENOENT)
            continue; /* gone since the page was found */
        if (result != 0)
            return result;
        writer_object(writer, NULL);
        render(call, reader, writer, &row);
        writer_end(writer);
    }
    writer_end(writer);
    return 0;
}

static void page_answer(struct call *call, struct store_reader *reader,
        struct list_page *page, const char *path, render_f *render)
{
    struct writer *writer = writer_create();
    scoped_free char *next = NULL;
    int result = page_find(reader, page);

    if (result >= 0 && writer)
        result = page_render(call, reader, page, writer, render);
    if (result < 0 || !writer) {
        writer_destroy(writer);
        outcome_fail(call->outcome, API_INTERNAL, -1, "The database could not be read");
        return;
    }
    if (page->count > page->limit)
        next = next_path(call->request, path, page->ids[page->limit - 1].text);
    writer_text(writer, "Next", next);
    if (next && strlen(next) < sizeof(call->outcome->next))
        (void)snprintf(call->outcome->next, sizeof(call->outcome->next), "%s", next);
    call->outcome->verdict = API_DONE;
    call->outcome->return_value = -1;
    outcome_body(call->outcome, &writer);
}

void list_serve(struct call *call, enum store_table table, const char *path,
        const struct list_member *members, size_t count, render_f *render)
{
    scoped(page_destroy) struct list_page *page = calloc(1, sizeof(*page));
    struct store_reader *reader;

    if (!page) {
        outcome_fail(call->outcome, API_OVERLOADED, -1, "Out of memory");
        return;
    }
    page->query.table = table;
    page->limit = LIMIT_DEFAULT;
    if (!page_parse(call, members, count, page) || !(reader = call_reader(call)))
        return;
    page_answer(call, reader, page, path, render);
    store_reader_give(call->service->store, reader);
}

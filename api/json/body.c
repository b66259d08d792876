/* A request body by its table of members: every wrong member is told, not the first only. */
#include "api/json/body.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/json/decode.h"
#include "replica/base/check.h"
#include "replica/base/uuid.h"

void body_problem_add(struct body_problems *problems, bool unsupported,
        const char *pointer, const char *format, ...)
{
    struct body_problem *problem;
    va_list arguments;

    if (problems->count >= BODY_PROBLEMS_MAX)
        return;
    problem = &problems->list[problems->count++];
    problem->unsupported = unsupported;
    (void)snprintf(problem->pointer, sizeof problem->pointer, "%s", pointer);
    va_start(arguments, format);
    (void)vsnprintf(problem->detail, sizeof problem->detail, format, arguments);
    va_end(arguments);
    utf8_trim(problem->pointer); /* a cut character would spoil the answer */
    utf8_trim(problem->detail);
}

bool body_reference(const char *text, const char *collection, char id[37])
{
    size_t length = strlen(collection);
    struct uuid uuid;

    if (text[0] == '/') {
        if (strncmp(text + 1, collection, length) != 0 || text[1 + length] != '/')
            return false;
        text += length + 2;
    }
    if (!uuid_parse(text, &uuid))
        return false;
    memcpy(id, uuid.text, UUID_TEXT);
    return true;
}

static bool any_required(const struct body_member *members, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (members[i].need == BODY_REQUIRED)
            return true;
    return false;
}

static void *place(void *into, size_t offset)
{
    return (char *)into + offset;
}

static const struct body_member *rest_of(
        const struct body_member *members, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (members[i].type == BODY_PROPERTIES)
            return &members[i];
    return NULL;
}

static bool is_named(const struct body_member *members, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (members[i].type != BODY_PROPERTIES && strcmp(members[i].name, name) == 0)
            return true;
    return false;
}

/* Members that no row names: properties of a setting, or refused. */
static void decode_rest(json_t *object, const struct body_member *members, size_t count,
        void *into, struct body_problems *problems)
{
    const struct body_member *rest = rest_of(members, count);
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        char pointer[POINTER_MAX];
        if (is_named(members, count, name))
            continue;
        pointer_join(pointer, "", name);
        if (!rest) {
            body_problem_add(problems, false, pointer, "there is no such member");
            continue;
        }
        goal_property(place(into, rest->offset), name, value, pointer, problems);
        *(bool *)place(into, rest->given) = true;
    }
}

static int decode_object(json_t *object, const struct body_member *members,
        size_t count, void *into, struct body_problems *problems)
{
    for (size_t i = 0; i < count; i++) {
        const struct body_member *member = &members[i];
        json_t *value;
        if (member->type == BODY_GOAL || member->type == BODY_PROPERTIES)
            goal_init(place(into, member->offset));
        if (member->type == BODY_PROPERTIES)
            continue;
        value = json_object_get(object, member->name);
        if (member_decode(member, value, into, problems) != 0)
            return -ENOMEM;
    }
    decode_rest(object, members, count, into, problems);
    return problems->count ? -EINVAL : 0;
}

int body_decode(const char *bytes, size_t length, const struct body_member *members,
        size_t count, void *into, struct body_problems *problems)
{
    json_auto_t *object = NULL;

    memory_start();
    problems->count = 0;
    if (length == 0 && any_required(members, count)) {
        body_problem_add(
                problems, false, "", "the body is empty; a JSON object is needed");
        return -EBADMSG;
    }
    object = length == 0 ? json_object()
                         : scan_object(bytes, length, HUGE_AS_REAL, "", problems);
    if (!object)
        return problems->count ? -EBADMSG : -ENOMEM;
    return decode_object(object, members, count, into, problems);
}

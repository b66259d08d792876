/* One member: what the JSON value must be, and its bytes in the struct. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "api/json/decode.h"
#include "replica/base/check.h"

/* What is being decoded, for the words of a problem. */
struct place {
    const struct body_member *member;
    void *at;
    const char *pointer;
    struct body_problems *problems;
    int result; /* -ENOMEM */
};

#define REFUSE(place, ...)                                                             \
    body_problem_add((place)->problems, false, (place)->pointer, __VA_ARGS__)

static const char *string_of(struct place *place, json_t *value)
{
    if (!json_is_string(value))
        REFUSE(place, "must be a string");
    return json_string_value(value);
}

static bool decode_text(struct place *place, json_t *value)
{
    const char *text = string_of(place, value);
    size_t length = text ? strlen(text) : 0;

    check(place->member->max > 0);
    if (!text)
        return false;
    if (length < place->member->min || length > place->member->max) {
        REFUSE(place, "must have %" PRIu64 " to %" PRIu64 " bytes, it has %zu",
                place->member->min, place->member->max, length);
        return false;
    }
    if (utf8_has_control(text)) {
        REFUSE(place, "must not have control characters");
        return false;
    }
    memcpy(place->at, text, length + 1);
    return true;
}

static bool decode_number(struct place *place, json_t *value)
{
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value) || number < 0 ||
            (uint64_t)number < place->member->min ||
            (uint64_t)number > place->member->max) {
        REFUSE(place, "must be an integer from %" PRIu64 " to %" PRIu64,
                place->member->min, place->member->max);
        return false;
    }
    *(uint64_t *)place->at = (uint64_t)number;
    return true;
}

static bool decode_flag(struct place *place, json_t *value)
{
    if (!json_is_boolean(value)) {
        REFUSE(place, "must be true or false");
        return false;
    }
    *(bool *)place->at = json_is_true(value);
    return true;
}

static bool decode_cim(struct place *place, json_t *value)
{
    int64_t *at = place->at;
    json_int_t number = json_integer_value(value);

    if (json_is_string(value)) {
        if (cim_value(place->member->map, json_string_value(value), at))
            return true;
        REFUSE(place, "no value of %s has this name", place->member->name);
        return false;
    }
    if (!json_is_integer(value) || number < 0 || number > UINT16_MAX) {
        REFUSE(place, "must be an integer from 0 to 65535, or a name");
        return false;
    }
    *at = number;
    return true;
}

static bool decode_reference(struct place *place, json_t *value)
{
    const char *text = string_of(place, value);

    if (!text)
        return false;
    if (!body_reference(text, place->member->collection, place->at)) {
        REFUSE(place, "must be /%s/ID or an id", place->member->collection);
        return false;
    }
    return true;
}

/* The name behind "/collection/", or the text itself. */
static const char *name_of(const char *text, const char *collection)
{
    size_t length = strlen(collection);

    if (text[0] == '/' && strncmp(text + 1, collection, length) == 0 &&
            text[1 + length] == '/')
        return text + length + 2;
    return text;
}

static bool decode_named(struct place *place, json_t *value)
{
    const char *text = string_of(place, value), *name;

    check(place->member->max > 0);
    if (!text)
        return false;
    name = name_of(text, place->member->collection);
    if (!*name || strlen(name) > place->member->max || strchr(name, '/') ||
            utf8_has_control(name)) {
        REFUSE(place, "must be /%s/NAME or a name of at most %" PRIu64 " bytes",
                place->member->collection, place->member->max);
        return false;
    }
    memcpy(place->at, name, strlen(name) + 1);
    return true;
}

static bool texts_one(
        struct body_texts *texts, struct place *place, json_t *value, size_t index)
{
    const char *text = json_string_value(value);
    char pointer[POINTER_MAX];

    if (text && *text && strlen(text) < sizeof texts->text[0] &&
            !utf8_has_control(text)) {
        memcpy(texts->text[texts->count++], text, strlen(text) + 1);
        return true;
    }
    pointer_index(pointer, place->pointer, index);
    body_problem_add(place->problems, false, pointer,
            "must be a string of 1 to %zu bytes without control characters",
            sizeof texts->text[0] - 1);
    return false;
}

static bool decode_texts(struct place *place, json_t *value)
{
    struct body_texts *texts = place->at;
    uint64_t max = place->member->max ? place->member->max : BODY_LIST_MAX;
    size_t count = json_array_size(value);
    bool good = true;

    check(max <= BODY_LIST_MAX);
    if (!json_is_array(value) || count < place->member->min || count > max) {
        REFUSE(place, "must be an array of %" PRIu64 " to %" PRIu64 " strings",
                place->member->min, max);
        return false;
    }
    texts->count = 0;
    for (size_t i = 0; i < count; i++)
        good &= texts_one(texts, place, json_array_get(value, i), i);
    return good;
}

static bool decode_goal(struct place *place, json_t *value)
{
    int result = 0;

    if (json_is_string(value)) {
        result = goal_parse(json_string_value(value), json_string_length(value),
                place->pointer, place->at, place->problems);
        place->result = result == -ENOMEM ? result : 0;
        return result == 0;
    }
    if (!json_is_object(value)) {
        REFUSE(place, "must be an object, or a string of JSON or MOF text");
        return false;
    }
    return goal_from_object(value, place->pointer, place->at, place->problems) == 0;
}

static bool decode(struct place *place, json_t *value)
{
    check(place->member->type < BODY_PROPERTIES);
    switch (place->member->type) {
    case BODY_TEXT:
        return decode_text(place, value);
    case BODY_NUMBER:
        return decode_number(place, value);
    case BODY_FLAG:
        return decode_flag(place, value);
    case BODY_CIM:
        return decode_cim(place, value);
    case BODY_REFERENCE:
        return decode_reference(place, value);
    case BODY_NAMED:
        return decode_named(place, value);
    case BODY_GOAL:
        return decode_goal(place, value);
    case BODY_TEXTS:
        return decode_texts(place, value);
    case BODY_PROPERTIES:
        break;
    }
    return false;
}

int member_decode(const struct body_member *member, json_t *value, void *into,
        struct body_problems *problems)
{
    char pointer[POINTER_MAX];
    struct place place = { member, (char *)into + member->offset, pointer, problems,
        0 };
    bool given = false;

    pointer_join(pointer, "", member->name);
    if (value && !json_is_null(value))
        given = decode(&place, value);
    else if (member->need == BODY_REQUIRED)
        REFUSE(&place, "is required");
    else if (value && member->need == BODY_KEPT)
        REFUSE(&place, "cannot be removed");
    else
        given = value && member->need == BODY_CLEARED;
    if (given)
        *(bool *)((char *)into + member->given) = true;
    return place.result;
}

/* Answers, built as a tree and printed once: the order of the calls is the order of the
 * members. Out of memory anywhere marks the writer; only finish tells. */
#include "api/json/writer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api/json/decode.h"
#include "replica/base/check.h"
#include "replica/base/clock.h"
#include "replica/base/scope.h"

enum { NESTING_MAX = 16 };

struct writer {
    json_t *open[NESTING_MAX]; /* [0] is owned, the others are inside it */
    unsigned depth;
    bool failed;
};

struct writer *writer_create(void)
{
    struct writer *writer = calloc(1, sizeof *writer);

    memory_start();
    if (writer && !(writer->open[0] = json_object())) {
        free(writer);
        return NULL;
    }
    return writer;
}

void writer_destroy(struct writer *writer)
{
    if (!writer)
        return;
    json_decref(writer->open[0]);
    free(writer);
}

/* Takes @value; NULL: there was no memory for it. */
static void writer_put(struct writer *writer, const char *name, json_t *value)
{
    json_t *inside = writer->open[writer->depth];
    int result = -1;

    if (writer->failed) { /* what is open may be gone */
        json_decref(value);
        return;
    }
    check(json_is_object(inside) == (name != NULL));
    check(!name || !json_object_get(inside, name)); /* a member is written once */
    if (value)
        result = name ? json_object_set_new(inside, name, value)
                      : json_array_append_new(inside, value);
    writer->failed = result != 0;
}

/* A far side's words may be no UTF-8 at all: each bad byte becomes U+FFFD. */
static json_t *string_repaired(const char *value)
{
    size_t length = strlen(value), at = 0, n = 0;
    scoped_free char *text = malloc(length * 3 + 1);

    while (text && at < length) {
        size_t good = utf8_valid(value + at, length - at);
        memcpy(text + n, value + at, good);
        n += good;
        at += good;
        if (at < length) {
            memcpy(text + n, "\xef\xbf\xbd", 3);
            n += 3;
            at++;
        }
    }
    return text ? json_stringn(text, n) : NULL;
}

void writer_text(struct writer *writer, const char *name, const char *value)
{
    json_t *text;

    if (!value) {
        writer_null(writer, name);
        return;
    }
    text = json_string(value);
    writer_put(writer, name, text ? text : string_repaired(value));
}

void writer_number(struct writer *writer, const char *name, uint64_t value)
{
    writer_put(writer, name,
            json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

void writer_signed(struct writer *writer, const char *name, int64_t value)
{
    writer_put(writer, name, json_integer(value));
}

void writer_flag(struct writer *writer, const char *name, bool value)
{
    writer_put(writer, name, json_boolean(value));
}

void writer_null(struct writer *writer, const char *name)
{
    writer_put(writer, name, json_null());
}

void writer_time(struct writer *writer, const char *name, int64_t wall_ms)
{
    char text[CLOCK_TEXT];

    if (wall_ms == 0) {
        writer_null(writer, name);
        return;
    }
    clock_format(wall_ms, text);
    writer_text(writer, name, text);
}

void writer_cim(
        struct writer *writer, const char *name, enum cim_map map, int64_t value)
{
    char beside[64];

    writer_signed(writer, name, value);
    if (!name)
        return;
    check((size_t)snprintf(beside, sizeof beside, "%sName", name) < sizeof beside);
    writer_text(writer, beside, cim_name(map, value));
}

void writer_path(
        struct writer *writer, const char *name, const char *collection, const char *id)
{
    char text[512];

    if (!id || !*id) {
        writer_null(writer, name);
        return;
    }
    check((size_t)snprintf(text, sizeof text, "/%s/%s", collection, id) < sizeof text);
    writer_text(writer, name, text);
}

void writer_json(struct writer *writer, const char *name, const char *text)
{
    json_t *value;

    if (!text || !*text) {
        writer_null(writer, name);
        return;
    }
    value = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    check(value);
    writer_put(writer, name, value);
}

/* Goes on inside @value; without memory nothing more is written, only the depth kept. */
static void writer_open(struct writer *writer, const char *name, json_t *value)
{
    check(writer->depth + 1 < NESTING_MAX);
    writer_put(writer, name, value);
    writer->open[++writer->depth] = value;
}

void writer_object(struct writer *writer, const char *name)
{
    writer_open(writer, name, json_object());
}

void writer_array(struct writer *writer, const char *name)
{
    writer_open(writer, name, json_array());
}

void writer_end(struct writer *writer)
{
    check(writer->depth > 0);
    writer->depth--;
}

char *writer_finish(struct writer **writer, size_t *length)
{
    struct writer *taken = *writer;
    char *text = NULL;

    *writer = NULL;
    if (taken)
        check(taken->depth == 0);
    if (taken && !taken->failed)
        text = memory_let_go(
                json_dumps(taken->open[0], JSON_COMPACT | JSON_ENSURE_ASCII));
    if (length)
        *length = text ? strlen(text) : 0;
    writer_destroy(taken);
    return text;
}

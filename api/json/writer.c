/* Answers, printed as the calls come into one text that grows: no tree, no second pass. What
 * leaves is ASCII; a text's other characters are escaped. JSON text that is taken over goes
 * through jansson, which finds what is none and prints it as it does all else. Out of memory
 * anywhere marks the writer; only finish tells.
 *
 * A member is written once: a short sum of each name of the open objects is kept, and where
 * two sums agree the names themselves are compared. */
#include "api/json/writer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "api/json/decode.h"
#include "replica/base/check.h"
#include "replica/base/clock.h"
#include "replica/base/scope.h"

enum {
    NESTING_MAX = 16,
    TEXT_FIRST = 2048, /* bytes: most answers never grow */
    NAMES_MAX = 128, /* names compared; further ones in the open objects are not */
    NUMBER_TEXT = 21
};

struct level {
    char closes; /* '}' or ']' */
    unsigned names; /* how many names stood before it was opened */
};

struct seen {
    uint32_t sum, length;
    size_t at; /* of the name, as it was printed */
};

struct writer {
    char *text;
    size_t length, room;
    unsigned depth, names;
    bool bare; /* nothing stands in the innermost one yet */
    bool failed;
    struct level levels[NESTING_MAX];
    struct seen seen[NAMES_MAX];
};

/* -- the text ------------------------------------------------------------------------- */

/* Where @more bytes and a NUL have room. NULL: there is no memory. */
static char *room_for(struct writer *writer, size_t more)
{
    size_t room = writer->room;
    char *text;

    if (writer->failed)
        return NULL;
    while (room - writer->length <= more)
        room *= 2;
    if (room != writer->room) {
        text = realloc(writer->text, room);
        if (!text) {
            writer->failed = true;
            return NULL;
        }
        writer->text = text;
        writer->room = room;
    }
    return writer->text + writer->length;
}

static void put(struct writer *writer, const char *bytes, size_t length)
{
    char *to = room_for(writer, length);

    if (!to)
        return;
    memcpy(to, bytes, length);
    writer->length += length;
}

static void put_char(struct writer *writer, char c)
{
    put(writer, &c, 1);
}

/* \uXXXX, or two of them: at most 12 bytes. */
static char *escape_point(char *to, uint32_t point)
{
    static const char digits[] = "0123456789ABCDEF";

    if (point >= 0x10000) {
        point -= 0x10000;
        to = escape_point(to, 0xd800 | point >> 10);
        point = 0xdc00 | (point & 0x3ff);
    }
    *to++ = '\\';
    *to++ = 'u';
    for (int shift = 12; shift >= 0; shift -= 4)
        *to++ = digits[point >> shift & 15];
    return to;
}

/* Its one letter; 0: it has none. */
static char escape_letter(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 0;
    }
}

/* The character at *@from, which moves behind it. A far side's words may be no UTF-8 at all:
   each bad byte becomes U+FFFD. */
static uint32_t point_take(const unsigned char **from, const unsigned char *end)
{
    const unsigned char *p = *from;
    size_t length = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : *p >= 0x80 ? 2 : 1;
    uint32_t point = length == 1 ? *p : *p & (0x7fu >> length);

    if (length > (size_t)(end - p) || utf8_valid((const char *)p, length) != length) {
        *from = p + 1;
        return 0xfffd;
    }
    for (size_t i = 1; i < length; i++)
        point = point << 6 | (p[i] & 0x3fu);
    *from = p + length;
    return point;
}

static char *escape(char *to, const unsigned char **from, const unsigned char *end)
{
    char letter = escape_letter(**from);

    if (!letter)
        return escape_point(to, point_take(from, end));
    *to++ = '\\';
    *to++ = letter;
    (*from)++;
    return to;
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* The inside of a string. */
static void put_escaped(struct writer *writer, const char *value)
{
    enum { MOST = 6 }; /* bytes that one byte becomes */
    const unsigned char *from = (const unsigned char *)value,
                        *end = from + strlen(value), *run;
    char *to = room_for(writer, MOST * (size_t)(end - from));

    if (!to)
        return;
    while (from < end) {
        for (run = from; run < end && is_plain(*run); run++)
            ;
        memcpy(to, from, (size_t)(run - from));
        to += run - from;
        from = run;
        if (from < end)
            to = escape(to, &from, end);
    }
    writer->length = (size_t)(to - writer->text);
}

/* -- members -------------------------------------------------------------------------- */

/* FNV-1a. */
static uint32_t sum_of(const char *bytes, size_t length)
{
    uint32_t sum = 2166136261u;

    for (size_t i = 0; i < length; i++)
        sum = (sum ^ (unsigned char)bytes[i]) * 16777619u;
    return sum;
}

/* The name that was printed @at is the only one of its object. */
static void name_note(struct writer *writer, size_t at)
{
    struct seen name = { .at = at, .length = (uint32_t)(writer->length - at) };

    name.sum = sum_of(writer->text + at, name.length);
    for (unsigned i = writer->levels[writer->depth].names; i < writer->names; i++) {
        const struct seen *other = &writer->seen[i];
        check(other->sum != name.sum || other->length != name.length ||
                memcmp(writer->text + other->at, writer->text + at, name.length) != 0);
    }
    if (writer->names < NAMES_MAX)
        writer->seen[writer->names++] = name;
}

/* What stands before a value: a comma, the name with @suffix. False: nothing is to follow. */
static bool put_name(struct writer *writer, const char *name, const char *suffix)
{
    size_t at;

    check((writer->levels[writer->depth].closes == '}') == (name != NULL));
    if (!writer->bare)
        put_char(writer, ',');
    writer->bare = false;
    if (name) {
        put_char(writer, '"');
        at = writer->length;
        put_escaped(writer, name);
        put(writer, suffix, strlen(suffix));
        if (!writer->failed)
            name_note(writer, at);
        put(writer, "\":", 2);
    }
    return !writer->failed;
}

static void put_word(struct writer *writer, const char *name, const char *word)
{
    if (put_name(writer, name, ""))
        put(writer, word, strlen(word));
}

static void put_string(
        struct writer *writer, const char *name, const char *suffix, const char *value)
{
    if (!put_name(writer, name, suffix))
        return;
    put_char(writer, '"');
    put_escaped(writer, value);
    put_char(writer, '"');
}

void writer_text(struct writer *writer, const char *name, const char *value)
{
    if (value)
        put_string(writer, name, "", value);
    else
        writer_null(writer, name);
}

static void put_number(
        struct writer *writer, const char *name, bool minus, uint64_t value)
{
    char text[NUMBER_TEXT], *from = text + sizeof text;

    do
        *--from = (char)('0' + value % 10);
    while (value /= 10);
    if (minus)
        *--from = '-';
    if (put_name(writer, name, ""))
        put(writer, from, (size_t)(text + sizeof text - from));
}

void writer_number(struct writer *writer, const char *name, uint64_t value)
{
    put_number(writer, name, false, value > INT64_MAX ? INT64_MAX : value);
}

void writer_signed(struct writer *writer, const char *name, int64_t value)
{
    put_number(writer, name, value < 0, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void writer_flag(struct writer *writer, const char *name, bool value)
{
    put_word(writer, name, value ? "true" : "false");
}

void writer_null(struct writer *writer, const char *name)
{
    put_word(writer, name, "null");
}

void writer_time(struct writer *writer, const char *name, int64_t wall_ms)
{
    char text[CLOCK_TEXT];

    if (wall_ms == 0) {
        writer_null(writer, name);
        return;
    }
    clock_format(wall_ms, text);
    put_string(writer, name, "", text);
}

void writer_cim(
        struct writer *writer, const char *name, enum cim_map map, int64_t value)
{
    const char *beside;

    writer_signed(writer, name, value);
    if (!name)
        return;
    beside = cim_name(map, value);
    if (beside)
        put_string(writer, name, "Name", beside);
    else if (put_name(writer, name, "Name"))
        put(writer, "null", 4);
}

void writer_path(
        struct writer *writer, const char *name, const char *collection, const char *id)
{
    if (!id || !*id) {
        writer_null(writer, name);
        return;
    }
    if (!put_name(writer, name, ""))
        return;
    put(writer, "\"/", 2);
    put_escaped(writer, collection);
    put_char(writer, '/');
    put_escaped(writer, id);
    put_char(writer, '"');
}

static int put_dumped(const char *bytes, size_t length, void *writer)
{
    put(writer, bytes, length);
    return 0;
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
    if (put_name(writer, name, "") &&
            json_dump_callback(value, put_dumped, writer,
                    JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII) != 0)
        writer->failed = true;
    json_decref(value);
}

/* -- nesting -------------------------------------------------------------------------- */

static void put_open(struct writer *writer, const char *name, char opens, char closes)
{
    check(writer->depth + 1 < NESTING_MAX);
    if (put_name(writer, name, ""))
        put_char(writer, opens);
    writer->levels[++writer->depth] = (struct level){ closes, writer->names };
    writer->bare = true;
}

void writer_object(struct writer *writer, const char *name)
{
    put_open(writer, name, '{', '}');
}

void writer_array(struct writer *writer, const char *name)
{
    put_open(writer, name, '[', ']');
}

void writer_end(struct writer *writer)
{
    const struct level *level = &writer->levels[writer->depth];

    check(writer->depth > 0);
    put_char(writer, level->closes);
    writer->names = level->names;
    writer->bare = false;
    writer->depth--;
}

/* -- from the beginning to the end ---------------------------------------------------- */

struct writer *writer_create(void)
{
    struct writer *writer = malloc(sizeof *writer);

    memory_start();
    if (!writer)
        return NULL;
    writer->text = malloc(TEXT_FIRST);
    if (!writer->text) {
        free(writer);
        return NULL;
    }
    writer->room = TEXT_FIRST;
    writer->length = 0;
    writer->depth = writer->names = 0;
    writer->failed = false;
    writer->bare = true;
    writer->levels[0] = (struct level){ '}', 0 };
    put_char(writer, '{');
    return writer;
}

void writer_destroy(struct writer *writer)
{
    if (!writer)
        return;
    free(writer->text);
    free(writer);
}

char *writer_finish(struct writer **writer, size_t *length)
{
    struct writer *taken = *writer;
    char *text = NULL;

    *writer = NULL;
    if (taken) {
        check(taken->depth == 0);
        put(taken, "}", 2); /* with its NUL */
    }
    if (taken && !taken->failed) {
        text = taken->text;
        taken->text = NULL;
    }
    if (length)
        *length = text ? taken->length - 1 : 0;
    writer_destroy(taken);
    return text;
}

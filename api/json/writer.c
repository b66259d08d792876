/* Answers, printed as the calls come into one text that grows: no tree, no second pass. What
 * leaves is ASCII; a text's other characters are escaped. JSON text that is taken over goes
 * through jansson, which finds what is none and prints it as it does all else. Out of memory
 * anywhere marks the writer; only finish tells.
 *
 * A member is written once: the names of the open objects are chained by a short sum, newest
 * first, and where two sums agree the names themselves are compared. What an object has
 * added is at the heads of its chains when it is closed, and is taken off again. */
#include "api/json/writer.h"

#include <assert.h>
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
    CHAINS = 64,
    NUMBER_TEXT = 21
};

struct level {
    char closes; /* '}' or ']' */
    unsigned names; /* how many names stood before it was opened */
};

struct seen {
    size_t at; /* of the name, as it was printed */
    uint32_t length;
    uint8_t chain, older; /* as in chains[] */
};

struct writer {
    char *text;
    size_t length, room;
    unsigned depth, names;
    bool bare; /* nothing stands in the innermost one yet */
    bool failed;
    struct level levels[NESTING_MAX];
    uint8_t chains[CHAINS]; /* the newest of each: its place in seen[] and 1; 0: none */
    struct seen seen[NAMES_MAX];
};

static_assert(NAMES_MAX < UINT8_MAX, "a place in seen[] and 1 is one byte");

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

/* Are eight bytes all plain? Each term has a byte's highest bit set where there is one that is
   not; a borrow may set more of them, never fewer. */
static bool are_plain(uint64_t bytes)
{
    const uint64_t ones = UINT64_MAX / 255, high = ones << 7;
    uint64_t quote = bytes ^ ones * '"', backslash = bytes ^ ones * '\\';

    return !((bytes | ((bytes - ones * 0x20) & ~bytes) | ((quote - ones) & ~quote) |
                     ((backslash - ones) & ~backslash)) &
            high);
}

static const unsigned char *plain_end(
        const unsigned char *from, const unsigned char *end)
{
    uint64_t bytes;

    for (; end - from >= 8; from += 8) {
        memcpy(&bytes, from, sizeof bytes);
        if (!are_plain(bytes))
            break;
    }
    while (from < end && is_plain(*from))
        from++;
    return from;
}

enum { ESCAPED = 6 }; /* bytes that one byte becomes, at most */

/* The inside of a string, where there is room for it. Its end. */
static char *escape_all(char *to, const char *value, size_t length)
{
    const unsigned char *from = (const unsigned char *)value, *end = from + length,
                        *run;

    for (;;) {
        run = from;
        from = plain_end(from, end);
        memcpy(to, run, (size_t)(from - run));
        to += from - run;
        if (from == end)
            return to;
        to = escape(to, &from, end);
    }
}

static void put_escaped(struct writer *writer, const char *value)
{
    size_t length = strlen(value);
    char *to = room_for(writer, ESCAPED * length);

    if (to)
        writer->length = (size_t)(escape_all(to, value, length) - writer->text);
}

/* -- members -------------------------------------------------------------------------- */

static uint8_t chain_of(const char *name, size_t length)
{
    uint32_t sum = (uint32_t)length;

    for (size_t i = 0; i < length; i += 3)
        sum = sum * 31 + (unsigned char)name[i];
    return (uint8_t)((sum ^ sum >> 6) % CHAINS);
}

/* The name of @length that is printed @at is the only one of its object. */
static void name_note(struct writer *writer, size_t at, size_t length)
{
    uint8_t chain = chain_of(writer->text + at, length);
    unsigned first = writer->levels[writer->depth].names;

    for (unsigned i = writer->chains[chain]; i > first; i = writer->seen[i - 1].older) {
        const struct seen *other = &writer->seen[i - 1];
        check(other->length != length ||
                memcmp(writer->text + other->at, writer->text + at, length) != 0);
    }
    if (writer->names == NAMES_MAX)
        return;
    writer->seen[writer->names] = (struct seen){ .at = at,
        .length = (uint32_t)length,
        .chain = chain,
        .older = writer->chains[chain] };
    writer->chains[chain] = (uint8_t)++writer->names;
}

/* The names from @first on are gone. */
static void names_drop(struct writer *writer, unsigned first)
{
    while (writer->names > first) {
        const struct seen *seen = &writer->seen[--writer->names];
        writer->chains[seen->chain] = seen->older;
    }
}

/* `"name":`, the name with @suffix. */
static void put_key(struct writer *writer, const char *name, const char *suffix)
{
    size_t length = strlen(name), more = strlen(suffix), at;
    char *to = room_for(writer, ESCAPED * length + more + 4);

    if (!to)
        return;
    *to++ = '"';
    at = (size_t)(to - writer->text);
    to = escape_all(to, name, length);
    memcpy(to, suffix, more);
    to += more;
    name_note(writer, at, (size_t)(to - writer->text) - at);
    *to++ = '"';
    *to++ = ':';
    writer->length = (size_t)(to - writer->text);
}

/* What stands before a value: a comma, the name with @suffix. False: nothing is to follow. */
static bool put_name(struct writer *writer, const char *name, const char *suffix)
{
    check((writer->levels[writer->depth].closes == '}') == (name != NULL));
    if (!writer->bare)
        put_char(writer, ',');
    writer->bare = false;
    if (name)
        put_key(writer, name, suffix);
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
    size_t length = strlen(value);
    char *to;

    if (!put_name(writer, name, suffix) ||
            !(to = room_for(writer, ESCAPED * length + 2)))
        return;
    *to++ = '"';
    to = escape_all(to, value, length);
    *to++ = '"';
    writer->length = (size_t)(to - writer->text);
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
    names_drop(writer, level->names);
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
    memset(writer->chains, 0, sizeof writer->chains);
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

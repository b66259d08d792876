/* Bytes to one JSON object, with everything checked that jansson would let pass.
 *
 * The pre-scan walks the bytes once before jansson sees them: depth (jansson recurses), and
 * numbers beyond 64 bits, which jansson refuses as bad JSON although they are only wrong
 * values: they are rewritten in a copy, as enum huge says. It does not judge the grammar. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/json/decode.h"
#include "replica/base/scope.h"

enum { DEPTH_MAX = 16 };

/* Eight bytes of ASCII without a NUL. */
static bool is_ascii_run(const char *bytes)
{
    const uint64_t ones = UINT64_MAX / 255, high = ones << 7;
    uint64_t eight;

    memcpy(&eight, bytes, sizeof eight);
    return !((eight | ((eight - ones) & ~eight)) & high);
}

size_t utf8_valid(const char *bytes, size_t length)
{
    size_t at = 0;

    while (at < length) {
        if (length - at >= 8 && is_ascii_run(bytes + at)) {
            at += 8;
            continue;
        }
        unsigned char c = (unsigned char)bytes[at];
        size_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0x80 ? 1 : 0;
        uint32_t point = more == 3 ? c & 7u
                : more == 2        ? c & 15u
                : more == 1        ? c & 31u
                                   : c;

        if (c == 0 || (c >= 0x80 && c < 0xc2) || c > 0xf4 || more > length - at - 1)
            break;
        for (size_t i = 1; i <= more; i++) {
            unsigned char next = (unsigned char)bytes[at + i];
            if ((next & 0xc0) != 0x80)
                return at;
            point = point << 6 | (next & 0x3fu);
        }
        if ((more == 2 && point < 0x800) || (more == 3 && point < 0x10000) ||
                (point >= 0xd800 && point < 0xe000) || point > 0x10ffff)
            break;
        at += more + 1;
    }
    return at;
}

bool utf8_has_control(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
            return true;
    return false;
}

void utf8_trim(char *text)
{
    text[utf8_valid(text, strlen(text))] = '\0';
}

void pointer_join(char out[POINTER_MAX], const char *base, const char *name)
{
    size_t n = 0;

    for (const char *p = base; *p && n < POINTER_MAX - 1; p++)
        out[n++] = *p;
    if (n < POINTER_MAX - 1)
        out[n++] = '/';
    for (const char *p = name; *p && n < POINTER_MAX - 2; p++) {
        if (*p == '~' || *p == '/')
            out[n++] = '~';
        out[n++] = *p == '~' ? '0' : *p == '/' ? '1' : *p;
    }
    out[n] = '\0';
    utf8_trim(out);
}

void pointer_index(char out[POINTER_MAX], const char *base, size_t index)
{
    char digits[24];

    (void)snprintf(digits, sizeof digits, "%zu", index);
    pointer_join(out, base, digits);
}

/* -- the pre-scan ------------------------------------------------------------------------ */

struct scan {
    const char *bytes;
    size_t length, at;
    char *out; /* the copy with its numbers rewritten; at most twice as long */
    size_t wrote;
    enum huge huge;
};

static void scan_put(struct scan *scan, const char *bytes, size_t length)
{
    memcpy(scan->out + scan->wrote, bytes, length);
    scan->wrote += length;
}

static void scan_string(struct scan *scan)
{
    size_t start = scan->at++;

    while (scan->at < scan->length && scan->bytes[scan->at] != '"')
        scan->at += scan->bytes[scan->at] == '\\' ? 2 : 1;
    scan->at++;
    if (scan->at > scan->length)
        scan->at = scan->length;
    scan_put(scan, scan->bytes + start, scan->at - start);
}

/* Would jansson take it? It goes by strtoll() and strtod() too. What follows the digits, or
 * the NUL after the last byte, ends them. */
static bool number_fits(const char *digits, size_t length)
{
    errno = 0;
    if (memchr(digits, '.', length) || memchr(digits, 'e', length) ||
            memchr(digits, 'E', length)) {
        double value = strtod(digits, NULL);
        return errno == 0 ||
                (value < 1 && value > -1); /* underflow is a small number */
    }
    (void)strtoll(digits, NULL, 10);
    return errno == 0;
}

static size_t digits_at(const char *text)
{
    return strspn(text, "0123456789");
}

/* The length of a number by JSON's grammar, 0 for none: what is rewritten was one. */
static size_t number_length(const char *text)
{
    const char *p = text + (*text == '-');
    size_t whole = digits_at(p);

    if (whole == 0 || (*p == '0' && whole > 1))
        return 0;
    p += whole;
    if (*p == '.') {
        if (digits_at(p + 1) == 0)
            return 0;
        p += 1 + digits_at(p + 1);
    }
    if (*p == 'e' || *p == 'E') {
        p += p[1] == '+' || p[1] == '-' ? 2 : 1;
        if (digits_at(p) == 0)
            return 0;
        p += digits_at(p);
    }
    return (size_t)(p - text);
}

/* A number may stand here only as a value: a rewritten one must not become a key. */
static bool is_key(const char *end)
{
    return end[strspn(end, " \t\r\n")] == ':';
}

static void scan_number(struct scan *scan)
{
    size_t length = strspn(scan->bytes + scan->at, "0123456789+-.eE");
    const char *digits = scan->bytes + scan->at;

    scan->at += length;
    if (number_length(digits) != length || number_fits(digits, length) ||
            is_key(digits + length)) {
        scan_put(scan, digits, length);
    } else if (scan->huge == HUGE_AS_REAL) {
        scan_put(scan, "0.5", 3);
    } else {
        scan_put(scan, "\"", 1);
        scan_put(scan, digits, length);
        scan_put(scan, "\"", 1);
    }
}

/* False: nested too deep, at scan->at. */
static bool scan_run(struct scan *scan)
{
    unsigned depth = 0;

    while (scan->at < scan->length) {
        char c = scan->bytes[scan->at];
        if (c == '"') {
            scan_string(scan);
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            scan_number(scan);
        } else {
            if ((c == '{' || c == '[') && ++depth > DEPTH_MAX)
                return false;
            if ((c == '}' || c == ']') && depth > 0)
                depth--;
            scan_put(scan, &c, 1);
            scan->at++;
        }
    }
    return true;
}

/* -- jansson ----------------------------------------------------------------------------- */

static void explain(
        const json_error_t *error, const char *pointer, struct body_problems *problems)
{
    enum json_error_code code = json_error_code(error);

    body_problem_add(problems, false, pointer, "%s (line %d, column %d)",
            code == json_error_duplicate_key ? "a key is given twice"
                    : code == json_error_end_of_input_expected
                    ? "bytes follow the object"
                    : code == json_error_premature_end_of_input
                    ? "the text ends too early"
                    : code == json_error_null_character ? "a NUL is not allowed"
                                                        : "not JSON",
            error->line, error->column);
}

static json_t *load(
        struct scan *scan, const char *pointer, struct body_problems *problems)
{
    json_error_t error = { 0 };
    json_t *value;

    memory_start();
    value = json_loadb(scan->out, scan->wrote, JSON_REJECT_DUPLICATES, &error);
    if (!value) {
        explain(&error, pointer, problems);
    } else if (!json_is_object(value)) {
        body_problem_add(problems, false, pointer, "must be a JSON object");
        json_decref(value);
        value = NULL;
    }
    return value;
}

json_t *scan_object(const char *bytes, size_t length, enum huge huge,
        const char *pointer, struct body_problems *problems)
{
    size_t valid = utf8_valid(bytes, length);
    scoped_free char *text = NULL, *out = NULL;
    struct scan scan;

    if (valid < length) {
        body_problem_add(problems, false, pointer, "%s at byte %zu",
                bytes[valid] ? "invalid UTF-8" : "a NUL", valid);
        return NULL;
    }
    text = malloc(length + 1);
    out = malloc(length * 2 + 1);
    if (!text || !out)
        return NULL;
    memcpy(text, bytes, length);
    text[length] = '\0'; /* strspn() needs an end */
    scan = (struct scan){ .bytes = text, .length = length, .out = out, .huge = huge };
    if (!scan_run(&scan)) {
        body_problem_add(problems, false, pointer, "nested deeper than %d at byte %zu",
                DEPTH_MAX, scan.at);
        return NULL;
    }
    return load(&scan, pointer, problems);
}

char *scan_canonical(const json_t *object)
{
    return memory_let_go(
            json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII));
}

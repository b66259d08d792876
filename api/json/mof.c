/* One MOF instance, as WMI clients write a Goal (DSP0004, the part that a setting needs):
 *
 *     instance of CIM_StorageSetting { ReplicationPriority = 4; Verify = TRUE; };
 *
 * Keywords, class and property names in any case, comments, decimal, hexadecimal and binary
 * integers, TRUE, FALSE, NULL, strings (also several that follow one another). Arrays, reals,
 * qualifiers, aliases and references are refused: no property of ours has them. No recursion;
 * every loop takes at least one byte of the text. */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "api/json/decode.h"
#include "replica/base/scope.h"

enum { WORD_MAX = 64, PROPERTIES_MAX = 128, STRING_MAX = 1024 };

struct mof {
    const char *text;
    size_t length, at;
    const char *pointer;
    struct body_problems *problems;
    bool failed; /* told once */
};

static void fail(struct mof *mof, const char *what)
{
    unsigned line = 1;

    if (mof->failed)
        return;
    mof->failed = true;
    for (size_t i = 0; i < mof->at && i < mof->length; i++)
        line += mof->text[i] == '\n';
    body_problem_add(
            mof->problems, false, mof->pointer, "MOF text, line %u: %s", line, what);
}

static int peek(const struct mof *mof, size_t ahead)
{
    return mof->at + ahead < mof->length ? (unsigned char)mof->text[mof->at + ahead]
                                         : -1;
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static void skip_comment(struct mof *mof)
{
    const char *end = peek(mof, 1) == '*' ? "*/" : "\n";
    const char *found = memmem(
            mof->text + mof->at + 2, mof->length - mof->at - 2, end, strlen(end));

    if (!found && end[0] == '*')
        fail(mof, "a comment does not end");
    mof->at = found ? (size_t)(found - mof->text) + strlen(end) : mof->length;
}

static void skip_space(struct mof *mof)
{
    for (;;) {
        int c = peek(mof, 0);
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
            mof->at++;
        else if (c == '/' && (peek(mof, 1) == '/' || peek(mof, 1) == '*'))
            skip_comment(mof);
        else
            return;
    }
}

static void take_mark(struct mof *mof, char mark)
{
    char what[] = "'?' is missing";

    skip_space(mof);
    what[1] = mark;
    if (peek(mof, 0) != mark)
        fail(mof, what);
    else
        mof->at++;
}

static void take_word(struct mof *mof, char word[WORD_MAX])
{
    size_t n = 0;

    skip_space(mof);
    while (is_letter(peek(mof, 0)) || (n > 0 && is_digit(peek(mof, 0)))) {
        if (n == WORD_MAX - 1) {
            fail(mof, "a name is too long");
            break;
        }
        word[n++] = mof->text[mof->at++];
    }
    word[n] = '\0';
    if (n == 0)
        fail(mof, "a name is missing");
}

static void take_keyword(struct mof *mof, const char *keyword)
{
    char word[WORD_MAX];

    take_word(mof, word);
    if (!mof->failed && strcasecmp(word, keyword) != 0)
        fail(mof, "it must begin with: instance of CLASS {");
}

static void take_class(struct mof *mof)
{
    char word[WORD_MAX];

    take_word(mof, word);
    if (!mof->failed && strcasecmp(word, "CIM_StorageSetting") != 0 &&
            strcasecmp(word, "CIM_ReplicationSettingData") != 0 &&
            strcasecmp(word, "CIM_SettingData") != 0)
        fail(mof,
                "the class must be CIM_StorageSetting, CIM_ReplicationSettingData or "
                "CIM_SettingData");
}

/* -- values ------------------------------------------------------------------------------ */

static int digit_of(int c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* Length of the digits at mof->at in @base. */
static size_t count_digits(const struct mof *mof, int base)
{
    size_t n = 0;

    while (peek(mof, n) >= 0 && digit_of(peek(mof, n)) < base)
        n++;
    return n;
}

/* @negative: the sign that stood before. A number too large is no integer of ours. */
static json_t *read_digits(struct mof *mof, int base, size_t count, bool negative)
{
    json_int_t value = 0;
    bool huge = false;

    for (size_t i = 0; i < count; i++) {
        int digit = digit_of(peek(mof, i));
        huge |= __builtin_mul_overflow(value, base, &value);
        huge |= __builtin_sub_overflow(
                value, digit, &value); /* negative reaches further */
    }
    mof->at += count;
    if (!negative)
        huge |= __builtin_sub_overflow((json_int_t)0, value, &value);
    return huge ? json_real(0.5) : json_integer(value);
}

static json_t *take_number(struct mof *mof)
{
    bool negative = peek(mof, 0) == '-';
    size_t count;
    json_t *value;

    if (negative || peek(mof, 0) == '+')
        mof->at++;
    if (peek(mof, 0) == '0' && (peek(mof, 1) | 0x20) == 'x') {
        mof->at += 2;
        count = count_digits(mof, 16);
        value = read_digits(mof, 16, count, negative);
    } else if ((count = count_digits(mof, 2)) > 0 && (peek(mof, count) | 0x20) == 'b') {
        value = read_digits(mof, 2, count, negative);
        mof->at++;
    } else {
        count = count_digits(mof, 10);
        if (count > 1 && peek(mof, 0) == '0')
            fail(mof, "octal numbers are not understood");
        value = read_digits(mof, 10, count, negative);
    }
    if (count == 0 || is_letter(peek(mof, 0)) || is_digit(peek(mof, 0)) ||
            peek(mof, 0) == '.')
        fail(mof, "an integer is expected");
    return value;
}

static json_t *take_constant(struct mof *mof)
{
    char word[WORD_MAX];

    take_word(mof, word);
    if (strcasecmp(word, "TRUE") == 0)
        return json_true();
    if (strcasecmp(word, "FALSE") == 0)
        return json_false();
    if (strcasecmp(word, "NULL") != 0)
        fail(mof, "a value is expected");
    return json_null();
}

/* The character behind a backslash; \x is refused, nothing of ours needs it. */
static int escaped(int c)
{
    static const char from[] = "btnfr\"'\\", to[] = "\b\t\n\f\r\"'\\";
    const char *found = c > 0 ? strchr(from, c) : NULL;

    return found ? to[found - from] : -1;
}

static size_t take_quoted(struct mof *mof, char *text, size_t n)
{
    mof->at++;
    for (;;) {
        int c = peek(mof, 0);
        if (c == '"')
            break;
        if (c == '\\') {
            mof->at++;
            c = escaped(peek(mof, 0));
        } else if (c < 0x20) {
            c = -1;
        }
        if (c < 0 || n == STRING_MAX) {
            fail(mof, c < 0 ? "a string is not well formed" : "a string is too long");
            return n;
        }
        text[n++] = (char)c;
        mof->at++;
    }
    mof->at++;
    return n;
}

static json_t *take_string(struct mof *mof)
{
    char text[STRING_MAX + 1];
    size_t n = 0;

    do {
        n = take_quoted(mof, text, n);
        skip_space(mof);
    } while (!mof->failed && peek(mof, 0) == '"');
    return json_stringn(text, n);
}

static json_t *take_value(struct mof *mof)
{
    int c;

    skip_space(mof);
    c = peek(mof, 0);
    if (c == '"')
        return take_string(mof);
    if (is_digit(c) || c == '-' || c == '+')
        return take_number(mof);
    if (c == '{')
        fail(mof, "no property takes an array");
    return take_constant(mof);
}

/* -- the instance ------------------------------------------------------------------------ */

static void take_property(struct mof *mof, json_t *object)
{
    char word[WORD_MAX];
    const char *name;
    json_t *value;

    take_word(mof, word);
    take_mark(mof, '=');
    if (mof->failed)
        return;
    value = take_value(mof);
    take_mark(mof, ';');
    name = goal_spelling(word);
    name = name ? name : word;
    if (!mof->failed && json_object_get(object, name))
        fail(mof, "a property is given twice");
    if (!mof->failed && json_object_size(object) == PROPERTIES_MAX)
        fail(mof, "too many properties");
    if (mof->failed)
        json_decref(value);
    else if (json_object_set_new(object, name, value) != 0)
        mof->failed = true; /* out of memory: no problem of the text */
}

static void take_instance(struct mof *mof, json_t *object)
{
    take_keyword(mof, "instance");
    take_keyword(mof, "of");
    take_class(mof);
    take_mark(mof, '{');
    for (;;) {
        skip_space(mof);
        if (mof->failed || peek(mof, 0) == '}')
            break;
        take_property(mof, object);
    }
    take_mark(mof, '}');
    take_mark(mof, ';');
    skip_space(mof);
    if (!mof->failed && mof->at < mof->length)
        fail(mof, "something follows the instance");
}

json_t *mof_parse(const char *text, size_t length, const char *pointer,
        struct body_problems *problems)
{
    struct mof mof = {
        .text = text, .length = length, .pointer = pointer, .problems = problems
    };
    json_t *object;

    if (utf8_valid(text, length) < length) {
        body_problem_add(problems, false, pointer, "MOF text: invalid UTF-8 or a NUL");
        return NULL;
    }
    memory_start();
    object = json_object();
    if (!object)
        return NULL;
    take_instance(&mof, object);
    if (mof.failed) {
        json_decref(object);
        return NULL;
    }
    return object;
}

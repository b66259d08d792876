#include "server/iscsi/text.h"

#include <stdio.h>
#include <string.h>

/* Letters are compared as ASCII here, never as the locale has them. */
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* -- reading ----------------------------------------------------------------------------- */

/** '#' stands in X#NodeArchitecture, '/' in private keys. */
static bool is_key(const char *key, size_t length)
{
    if (length == 0 || length > TEXT_KEY_MAX)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_digit(key[i]) && !is_lower(key[i]) && !is_upper(key[i]) &&
                !memchr("-+@_./#", key[i], 7))
            return false;
    return true;
}

/** UTF-8 may stand in a value (an alias); control characters may not. */
static bool is_value(const char *value, size_t length, size_t most)
{
    if (length > most)
        return false;
    for (size_t i = 0; i < length; i++)
        if ((uint8_t)value[i] < 0x20 || value[i] == 0x7f)
            return false;
    return true;
}

static bool is_twice(const struct text_pair *pairs, int count)
{
    const struct text_pair *last = &pairs[count];

    for (int i = 0; i < count; i++)
        if (pairs[i].key_length == last->key_length &&
                memcmp(pairs[i].key, last->key, last->key_length) == 0)
            return true;
    return false;
}

static bool pair_split(const char *text, size_t length, struct text_pair *pair)
{
    const char *equals = memchr(text, '=', length);
    size_t most = TEXT_VALUE_MAX;

    if (!equals)
        return false;
    pair->key = text;
    pair->key_length = (size_t)(equals - text);
    pair->value = equals + 1;
    pair->value_length = length - pair->key_length - 1;
    if (text_is(pair, "CHAP_C") || text_is(pair, "CHAP_R"))
        most = TEXT_BINARY_MAX;
    return is_key(pair->key, pair->key_length) &&
            is_value(pair->value, pair->value_length, most);
}

int text_read(const uint8_t *bytes, size_t length, struct text_pair *pairs)
{
    const char *text = (const char *)bytes;
    int count = 0;

    for (size_t at = 0; at < length;) {
        const char *end = memchr(text + at, 0, length - at);
        size_t size;

        if (!end)
            return -1;
        size = (size_t)(end - text) - at;
        if (size > 0) {
            if (count == TEXT_PAIRS_MAX ||
                    !pair_split(text + at, size, &pairs[count]) ||
                    is_twice(pairs, count))
                return -1;
            count++;
        }
        at += size + 1;
    }
    return count;
}

bool text_is(const struct text_pair *pair, const char *name)
{
    return strlen(name) == pair->key_length &&
            memcmp(pair->key, name, pair->key_length) == 0;
}

bool text_number(const char *value, uint32_t *number)
{
    bool hex = value[0] == '0' && (value[1] == 'x' || value[1] == 'X');
    const char *at = value + (hex ? 2 : 0);
    unsigned base = hex ? 16 : 10;
    uint64_t sum = 0;

    if (!*at)
        return false;
    for (; *at; at++) {
        int digit = hex_value(*at);

        if (digit < 0 || (unsigned)digit >= base)
            return false;
        sum = sum * base + (unsigned)digit;
        if (sum > UINT32_MAX)
            return false;
    }
    *number = (uint32_t)sum;
    return true;
}

bool text_member(const char *list, unsigned index, const char **member, size_t *length)
{
    for (;; list++) {
        size_t size = strcspn(list, ",");

        if (index-- == 0) {
            *member = list;
            *length = size;
            return true;
        }
        list += size;
        if (!*list)
            return false;
    }
}

/* -- writing ----------------------------------------------------------------------------- */

void text_write(struct text_writer *writer, const char *key, size_t key_length,
        const char *value)
{
    size_t value_length = strlen(value), size = key_length + 1 + value_length + 1;
    uint8_t *at;

    if (writer->overflow || size > writer->room - writer->length) {
        writer->overflow = true;
        return;
    }
    at = writer->at + writer->length;
    memcpy(at, key, key_length);
    at[key_length] = '=';
    memcpy(at + key_length + 1, value, value_length + 1);
    writer->length += size;
}

void text_write_key(struct text_writer *writer, const char *key, const char *value)
{
    text_write(writer, key, strlen(key), value);
}

void text_write_number(struct text_writer *writer, const char *key, uint32_t number)
{
    char value[16];

    (void)snprintf(value, sizeof value, "%lu", (unsigned long)number);
    text_write_key(writer, key, value);
}

void text_write_binary(struct text_writer *writer, const char *key,
        const uint8_t *bytes, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    char value[2 + 2 * 32 + 1] = "0x";
    char *at = value + 2;

    if (length > 32) {
        writer->overflow = true;
        return;
    }
    for (size_t i = 0; i < length; i++) {
        *at++ = digits[bytes[i] >> 4];
        *at++ = digits[bytes[i] & 15];
    }
    *at = 0;
    text_write_key(writer, key, value);
}

/* -- binary ------------------------------------------------------------------------------ */

static int hex_decode(const char *digits, size_t length, uint8_t *to, size_t room)
{
    if (length == 0 || length % 2 || length / 2 > room)
        return -1;
    for (size_t i = 0; i < length; i += 2) {
        int high = hex_value(digits[i]), low = hex_value(digits[i + 1]);

        if (high < 0 || low < 0)
            return -1;
        to[i / 2] = (uint8_t)(high << 4 | low);
    }
    return (int)(length / 2);
}

static int base64_value(char c)
{
    if (is_upper(c))
        return c - 'A';
    if (is_lower(c))
        return c - 'a' + 26;
    if (is_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/** Groups of four, padded; the bits that no byte takes must be zero: one form for one value. */
static int base64_decode(const char *text, size_t length, uint8_t *to, size_t room)
{
    size_t padding = 0, bytes, out = 0;
    uint32_t bits = 0;

    if (length == 0 || length % 4)
        return -1;
    if (text[length - 1] == '=')
        padding = text[length - 2] == '=' ? 2 : 1;
    bytes = length / 4 * 3 - padding;
    if (bytes > room)
        return -1;
    for (size_t i = 0; i < length; i++) {
        int value = i < length - padding ? base64_value(text[i]) : 0;

        if (value < 0)
            return -1;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 != 3)
            continue;
        for (int shift = 16; shift >= 0; shift -= 8) {
            if (out < bytes)
                to[out++] = (uint8_t)(bits >> shift);
            else if (bits >> shift & 0xff)
                return -1;
        }
        bits = 0;
    }
    return (int)bytes;
}

int text_binary(const char *value, size_t length, uint8_t *to, size_t room)
{
    if (length < 2 || value[0] != '0')
        return -1;
    if (value[1] == 'x' || value[1] == 'X')
        return hex_decode(value + 2, length - 2, to, room);
    if (value[1] == 'b' || value[1] == 'B')
        return base64_decode(value + 2, length - 2, to, room);
    return -1;
}

/* -- names ------------------------------------------------------------------------------- */

static bool is_hex(const char *digits, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (hex_value(digits[i]) < 0)
            return false;
    return true;
}

/** iqn.YYYY-MM.authority[:anything]. The letters are checked by text_name(). */
static bool is_iqn(const char *name)
{
    const char *at = name + 4;
    int month;

    for (int i = 0; i < 7; i++)
        if (i == 4 ? at[i] != '-' : !is_digit(at[i]))
            return false;
    month = (at[5] - '0') * 10 + at[6] - '0';
    return month >= 1 && month <= 12 && at[7] == '.' && at[8] && at[8] != ':';
}

/** ASCII letters in lower case, digits, "-.:". RFC 3722 has no underscore, but names made of
    names of machines have. What UTF-8 has beyond ASCII is kept as it came: the stringprep of
    RFC 3722 is the sender's, and we compare bytes. */
static bool name_copy(const char *name, char *to)
{
    size_t i;

    for (i = 0; name[i]; i++) {
        char c = name[i];

        if (i == TEXT_NAME_MAX)
            return false;
        if (is_upper(c))
            c = (char)(c - 'A' + 'a');
        else if (!is_lower(c) && !is_digit(c) && !memchr("-.:_", c, 4) &&
                (uint8_t)c < 0x80)
            return false;
        to[i] = c;
    }
    to[i] = 0;
    return true;
}

bool text_name(const char *name, char *to)
{
    bool good = false;

    if (name_copy(name, to)) {
        size_t length = strlen(to);

        if (strncmp(to, "iqn.", 4) == 0)
            good = is_iqn(to);
        else if (strncmp(to, "eui.", 4) == 0)
            good = length == 4 + 16 && is_hex(to + 4, 16);
        else if (strncmp(to, "naa.", 4) == 0)
            good = (length == 4 + 16 || length == 4 + 32) && is_hex(to + 4, length - 4);
    }
    if (!good)
        to[0] = 0;
    return good;
}

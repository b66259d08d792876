#include "server/http/query.h"

#include <string.h>

/* Length of the UTF-8 sequence at @p with @left bytes, 0 when there is none (RFC 3629). */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    unsigned low = 0x80, high = 0xbf; /* bounds of the second byte */

    if ((p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || length > left)
        return 0;
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < length; i++) {
        if (p[i] < (i == 1 ? low : 0x80) || p[i] > (i == 1 ? high : 0xbf))
            return 0;
    }
    return length;
}

bool text_is_clean(const char *text, size_t length)
{
    const unsigned char *p = (const unsigned char *)text;

    while (length > 0) {
        size_t step = utf8_length(p, length);
        if (step == 0 || *p < 0x20 || *p == 0x7f)
            return false;
        p += step;
        length -= step;
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool percent_decode(char *text, bool plus)
{
    char *to = text;

    for (const char *from = text; *from; from++) {
        if (*from == '%') {
            int high = hex_digit(from[1]);
            int low = high < 0 ? -1 : hex_digit(from[2]);
            if (low < 0)
                return false;
            *to++ = (char)(high << 4 | low);
            from += 2;
        } else {
            *to++ = plus && *from == '+' ? ' ' : *from;
        }
    }
    if (!text_is_clean(text, (size_t)(to - text)))
        return false;
    *to = '\0';
    return true;
}

const char *query_find(const struct query *query, const char *name)
{
    for (size_t i = 0; i < query->count; i++)
        if (strcmp(query->items[i].name, name) == 0)
            return query->items[i].value;
    return NULL;
}

const char *query_parse(char *text, const char *repeatable, struct query *query)
{
    query->count = 0;
    while (text && *text) {
        char *name = strsep(&text, "&");
        char *value = name + strcspn(name, "=");

        if (*value)
            *value++ = '\0';
        if (!percent_decode(name, true) || !percent_decode(value, true))
            return "the query is not valid percent-encoded UTF-8";
        if (!*name)
            return "a query parameter has no name";
        if (query_find(query, name) && (!repeatable || strcmp(name, repeatable) != 0))
            return "a query parameter is given twice";
        if (query->count == QUERY_MAX)
            return "the query has too many parameters";
        query->items[query->count++] = (struct api_parameter){ name, value };
    }
    return NULL;
}

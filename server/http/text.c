#include "server/http/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool text_reserve(struct text *text, size_t more)
{
    size_t room = text->room ? text->room : 256;
    char *grown;

    if (text->failed || more >= (size_t)1 << 30)
        return !(text->failed = true);
    while (room - text->length <= more)
        room *= 2;
    if (room == text->room)
        return true;
    if (!(grown = realloc(text->bytes, room)))
        return !(text->failed = true);
    text->bytes = grown;
    text->room = room;
    return true;
}

void text_add(struct text *text, const char *bytes, size_t length)
{
    if (!text_reserve(text, length))
        return;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

void text_print(struct text *text, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || !text_reserve(text, (size_t)length))
        return;
    va_start(arguments, format);
    (void)vsnprintf(text->bytes + text->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)length;
}

void text_release(struct text *text)
{
    free(text->bytes);
    *text = (struct text){ 0 };
}

/* server/http/text.h - a text that grows; for answers and frames made here. */
#ifndef SERVER_HTTP_TEXT_H
#define SERVER_HTTP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/** Starts as { 0 }. Owned by the holder, free(bytes). After a failed growth it stays failed. */
struct text {
    char *bytes; /* NUL-terminated once something was added */
    size_t length, room;
    bool failed; /* out of memory: what was added since is lost */
};

void text_add(struct text *text, const char *bytes, size_t length);
void text_print(struct text *text, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/** free() for scoped(). */
void text_release(struct text *text);

#endif

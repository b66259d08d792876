/* server/http/query.h - what stands after the path: decoded, checked, pure. */
#ifndef SERVER_HTTP_QUERY_H
#define SERVER_HTTP_QUERY_H

#include <stdbool.h>
#include <stddef.h>

#include "api/api.h"

enum { QUERY_MAX = 32 }; /* parameters of one request */

/** Texts point into the buffer that was decoded. */
struct query {
    struct api_parameter items[QUERY_MAX];
    size_t count;
};

/** True for NUL-free UTF-8 without control characters: no overlong form, no surrogate. */
bool text_is_clean(const char *text, size_t length);

/**
 * Percent-decode @text in place; @plus turns '+' into a blank. False for a broken escape
 * and for bytes that text_is_clean() refuses.
 */
bool percent_decode(char *text, bool plus);

/**
 * Split and decode "a=1&b=2" in place. @repeatable (or NULL) may stand there more than once.
 * Returns NULL, or what is wrong in words.
 */
const char *query_parse(char *text, const char *repeatable, struct query *query);

/** NULL: not there. */
const char *query_find(const struct query *query, const char *name);

#endif

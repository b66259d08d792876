/* server/http/prefer.h - the Prefer header (RFC 7240); pure. */
#ifndef SERVER_HTTP_PREFER_H
#define SERVER_HTTP_PREFER_H

#include <stdbool.h>

enum { PREFER_WAIT_MAX = 60 }; /* seconds */

struct prefer {
    int wait_s; /* -1: not asked; at most PREFER_WAIT_MAX */
    bool respond_async;
};

/**
 * Take what one header line asks for into @prefer, which starts as { -1, false }. The first
 * wait counts; what is unknown or malformed is ignored, as the RFC wants.
 */
void prefer_parse(const char *line, struct prefer *prefer);

#endif

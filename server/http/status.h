/* server/http/status.h - the one place where an outcome gets its HTTP number. */
#ifndef SERVER_HTTP_STATUS_H
#define SERVER_HTTP_STATUS_H

#include <stddef.h>

#include "api/api.h"

/** The number of a verdict. */
int status_of(enum api_verdict verdict);

/** A page of /problems/, and what http/ itself refuses with. */
struct problem_page {
    const char *slug, *title;
    int status;
    const char *text;
};

extern const struct problem_page problem_pages[];
extern const size_t problem_page_count;

/** NULL: no such page. */
const struct problem_page *problem_page_find(const char *slug);

#endif

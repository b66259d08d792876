/* server/http/figures.h - what http/ counts, as Prometheus text. Any thread, no lock. */
#ifndef SERVER_HTTP_FIGURES_H
#define SERVER_HTTP_FIGURES_H

#include <stdint.h>

#include "server/http/route.h"
#include "server/http/text.h"

struct figures;

/** Owned by the caller, figures_destroy(). NULL: out of memory. */
struct figures *figures_create(void);
void figures_destroy(struct figures *figures);

/** One answer. @family: the row that names the path, NULL: an unknown path. */
void figures_count(struct figures *figures, const struct route *family,
        enum http_method method, int status, uint64_t duration_ns);

/** Add the families of requests and of the process. */
void figures_print(struct figures *figures, struct text *text);

#endif

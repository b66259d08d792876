/* server/http/route.h - from method and path to a call; pure, no sockets. */
#ifndef SERVER_HTTP_ROUTE_H
#define SERVER_HTTP_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "api/api.h"

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OTHER,
    HTTP_METHOD_COUNT
};

enum route_serve {
    SERVE_CALL,
    SERVE_EVENTS,
    SERVE_LIVEZ,
    SERVE_READYZ,
    SERVE_HEALTHZ,
    SERVE_METRICS,
    SERVE_OPENAPI,
    SERVE_PROBLEM
};

enum route_body { BODY_NONE, BODY_JSON, BODY_PATCH };

struct route {
    enum http_method method;
    const char *template; /* "/jobs/{id}/errors" */
    enum route_serve serve;
    enum api_call call;
    enum route_body body;
};

extern const struct route routes[];
extern const size_t route_count;

enum http_method http_method_parse(const char *text);
const char *http_method_name(enum http_method method);

/** What a path met in the table. */
struct route_match {
    const struct route *route; /* NULL: no row has this method and path */
    const struct route *family; /* first row with this path; NULL: path unknown */
    const char *id; /* in the path given, "" none */
    size_t id_length;
};

/** @path: still percent-encoded, without the query. HEAD finds the row of GET. */
struct route_match route_find(enum http_method method, const char *path);

/** The methods of @template as an Allow header, "GET, HEAD, POST". @text: 64 bytes. */
void route_allow(const char *template, char text[64]);

/** Probes and scrapes: served by the health listener too, logged at debug only. */
bool route_is_probe(const struct route *route);

#endif

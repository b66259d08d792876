#include "server/http/route.h"

#include <stdio.h>
#include <string.h>

const struct route routes[] = {
#define ROUTE(method, template, serve, call, body)                                     \
    { HTTP_##method, template, SERVE_##serve, API_##call, BODY_##body },
#include "server/http/routes.tbl.h"
#undef ROUTE
};

const size_t route_count = sizeof(routes) / sizeof(routes[0]);

static const char *const method_names[HTTP_METHOD_COUNT] = {
    [HTTP_GET] = "GET",
    [HTTP_HEAD] = "HEAD",
    [HTTP_POST] = "POST",
    [HTTP_PUT] = "PUT",
    [HTTP_PATCH] = "PATCH",
    [HTTP_DELETE] = "DELETE",
    [HTTP_OTHER] = "other",
};

enum http_method http_method_parse(const char *text)
{
    for (enum http_method m = HTTP_GET; m < HTTP_OTHER; m++)
        if (strcmp(text, method_names[m]) == 0)
            return m;
    return HTTP_OTHER;
}

const char *http_method_name(enum http_method method)
{
    return method_names[method];
}

/* {id} takes one segment that is not empty; all else is compared byte by byte. */
static bool template_matches(
        const char *template, const char *path, const char **id, size_t *id_length)
{
    const char *hole = strchr(template, '{');
    size_t head = hole ? (size_t)(hole - template) : 0;

    *id = "";
    *id_length = 0;
    if (!hole)
        return strcmp(template, path) == 0;
    if (strncmp(template, path, head) != 0)
        return false;
    *id = path + head;
    *id_length = strcspn(*id, "/");
    return *id_length > 0 && strcmp(strchr(hole, '}') + 1, *id + *id_length) == 0;
}

struct route_match route_find(enum http_method method, const char *path)
{
    struct route_match match = { .id = "" };
    enum http_method wanted = method == HTTP_HEAD ? HTTP_GET : method;

    for (size_t i = 0; i < route_count; i++) {
        const char *id;
        size_t id_length;

        if (!template_matches(routes[i].template, path, &id, &id_length))
            continue;
        match.id = id;
        match.id_length = id_length;
        if (!match.family)
            match.family = &routes[i];
        if (routes[i].method == wanted && !match.route)
            match.route = &routes[i];
    }
    return match;
}

void route_allow(const char *template, char text[64])
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < route_count && used < 64; i++) {
        int n;

        if (strcmp(routes[i].template, template) != 0)
            continue;
        n = snprintf(text + used, 64 - used, "%s%s%s", used ? ", " : "",
                method_names[routes[i].method],
                routes[i].method == HTTP_GET ? ", HEAD" : "");
        used += n > 0 ? (size_t)n : 0;
    }
}

bool route_is_probe(const struct route *route)
{
    return route && route->serve >= SERVE_LIVEZ && route->serve <= SERVE_METRICS;
}

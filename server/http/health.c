/* Probes after the Kubernetes API server: 200 or a failure, words only when asked for. No
 * disk, no log line at info. A sick relationship fails none of them.
 */
#include <stdlib.h>
#include <string.h>

#include "server/http/exchange.h"
#include "server/http/text.h"

enum { CHECKS_MAX = 16 };

struct probe {
    const char *name; /* "livez" */
    struct api_check checks[CHECKS_MAX];
    unsigned count;
    int failure; /* the status when a check fails */
    bool ok;
};

static bool check_is_excluded(const struct exchange *x, const char *name)
{
    for (size_t i = 0; i < x->query.count; i++)
        if (strcmp(x->query.items[i].name, "exclude") == 0 &&
                strcmp(x->query.items[i].value, name) == 0)
            return true;
    return false;
}

static bool check_is_named(const struct probe *probe, unsigned count, const char *name)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(probe->checks[i].name, name) == 0)
            return true;
    return false;
}

/* healthz is both: what livez has found is named first, and not again where readyz asks the
   same. */
static void probe_run(struct exchange *x, struct probe *probe)
{
    struct service *service = x->http->service;
    enum route_serve serve = x->route->serve;
    unsigned live = 0, kept = 0, all;

    probe->name = x->route->template + 1;
    if (serve != SERVE_READYZ)
        live = api_live(service, probe->checks, CHECKS_MAX);
    all = live;
    if (serve != SERVE_LIVEZ)
        all += api_ready(service, probe->checks + live, CHECKS_MAX - live);
    probe->ok = true;
    for (unsigned i = 0; i < all; i++) {
        if (check_is_excluded(x, probe->checks[i].name) ||
                check_is_named(probe, kept, probe->checks[i].name))
            continue;
        if (!probe->checks[i].ok && probe->ok) {
            probe->ok = false;
            probe->failure = i < live ? 500 : 503;
        }
        probe->checks[kept++] = probe->checks[i];
    }
    probe->count = kept;
}

static void probe_print_text(const struct probe *probe, struct text *text)
{
    for (unsigned i = 0; i < probe->count; i++)
        text_print(text, probe->checks[i].ok ? "[+]%s ok\n" : "[-]%s failed\n",
                probe->checks[i].name);
    text_print(text, "%s check %s\n", probe->name, probe->ok ? "passed" : "failed");
}

/* Names are words of our own: nothing to escape. */
static void probe_print_json(const struct probe *probe, struct text *text)
{
    text_print(text, "{\"Status\":\"%s\",\"Checks\":[", probe->ok ? "ok" : "failed");
    for (unsigned i = 0; i < probe->count; i++)
        text_print(text, "%s{\"Name\":\"%s\",\"Ok\":%s}", i ? "," : "",
                probe->checks[i].name, probe->checks[i].ok ? "true" : "false");
    text_print(text, "]}");
}

static enum MHD_Result probe_answer(struct exchange *x, const struct probe *probe)
{
    struct text text = { 0 };
    struct MHD_Response *response = NULL;

    if (x->accepts_json)
        probe_print_json(probe, &text);
    else if (query_find(&x->query, "verbose") || !probe->ok)
        probe_print_text(probe, &text);
    else
        text_print(&text, "ok");
    if (!text.failed)
        response = MHD_create_response_from_buffer(
                text.length, text.bytes, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        text_release(&text);
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, "Content-Type",
            x->accepts_json ? "application/json" : "text/plain; charset=utf-8");
    if (!probe->ok && probe->failure == 503)
        (void)MHD_add_response_header(response, "Retry-After", "1");
    return answer_queue(x, probe->ok ? 200 : probe->failure, response);
}

enum MHD_Result health_serve(struct exchange *x)
{
    struct probe probe = { 0 };

    for (size_t i = 0; i < x->query.count; i++)
        if (strcmp(x->query.items[i].name, "verbose") != 0 &&
                strcmp(x->query.items[i].name, "exclude") != 0)
            exchange_refuse(x, "malformed", "a query parameter is unknown");
    if (x->refusal)
        return answer_refusal(x);
    probe_run(x, &probe);
    return probe_answer(x, &probe);
}

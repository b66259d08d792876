#include <stdlib.h>

#include "replica/base/scope.h"
#include "server/http/exchange.h"
#include "server/http/text.h"

static void connections_print(struct http *http, struct text *text)
{
    text_print(text,
            "# HELP replicad_http_connections Open connections of the API listeners.\n"
            "# TYPE replicad_http_connections gauge\n"
            "replicad_http_connections %u\n"
            "# HELP replicad_http_waiters Requests in a wait or an event stream.\n"
            "# TYPE replicad_http_waiters gauge\n"
            "replicad_http_waiters %u\n"
            "# HELP replicad_http_connections_cut_total Connections cut for slowness.\n"
            "# TYPE replicad_http_connections_cut_total counter\n"
            "replicad_http_connections_cut_total %llu\n",
            guests_counted(&http->guests), atomic_load(&http->waiting),
            (unsigned long long)guests_cut(&http->guests));
}

enum MHD_Result metrics_serve(struct exchange *x)
{
    struct text text = { 0 };
    size_t length = 0;
    scoped_free char *figures = NULL;

    if (x->query.count > 0) {
        exchange_refuse(x, "malformed", "a query parameter is unknown");
        return answer_refusal(x);
    }
    figures = api_metrics(x->http->service, &length);
    figures_print(x->http->figures, &text);
    connections_print(x->http, &text);
    if (figures) /* without them the scrape still shows that the process lives */
        text_add(&text, figures, length);
    if (text.failed) {
        text_release(&text);
        return MHD_NO;
    }
    return answer_bytes(x, 200, "text/plain; version=0.0.4; charset=utf-8", text.bytes,
            text.length);
}

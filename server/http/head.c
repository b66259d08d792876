#include <string.h>
#include <strings.h>

#include "replica/base/uuid.h"
#include "server/http/exchange.h"
#include "server/http/guard.h"

static const char *const head_names[HEAD_COUNT] = {
    [HEAD_HOST] = "Host",
    [HEAD_ORIGIN] = "Origin",
    [HEAD_AUTHORIZATION] = "Authorization",
    [HEAD_CONTENT_TYPE] = "Content-Type",
    [HEAD_CONTENT_LENGTH] = "Content-Length",
    [HEAD_CONTENT_ENCODING] = "Content-Encoding",
    [HEAD_TRANSFER_ENCODING] = "Transfer-Encoding",
    [HEAD_EXPECT] = "Expect",
    [HEAD_IF_MATCH] = "If-Match",
    [HEAD_IF_NONE_MATCH] = "If-None-Match",
    [HEAD_IDEMPOTENCY_KEY] = "Idempotency-Key",
    [HEAD_LAST_EVENT_ID] = "Last-Event-ID",
    [HEAD_X_REQUEST_ID] = "X-Request-Id",
};

static void head_once(struct exchange *x, enum head head, const char *value)
{
    if (x->heads[head]) {
        exchange_refuse(x, "malformed", "a header that counts once is given twice");
        x->hang_up = true; /* it may be half of a smuggled request */
    } else {
        x->heads[head] = value;
    }
}

/* The library takes "Name : value" for a header of the name "Name ", and glues a folded line
   to the name of the one before: "Content-Length: 5", " 0" becomes "Content-Length0: 5". A
   proxy before us reads both otherwise. */
static bool name_is_sound(const char *name)
{
    static const enum head framing[] = { HEAD_HOST, HEAD_AUTHORIZATION,
        HEAD_CONTENT_LENGTH, HEAD_TRANSFER_ENCODING };
    static const char token[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < sizeof(framing) / sizeof(framing[0]); i++) {
        size_t length = strlen(head_names[framing[i]]);
        if (strncasecmp(name, head_names[framing[i]], length) == 0 && name[length])
            return false;
    }
    return *name && strspn(name, token) == strlen(name);
}

static enum MHD_Result head_take(void *context, enum MHD_ValueKind kind,
        const char *name, size_t name_size, const char *value, size_t value_size)
{
    struct exchange *x = context;

    (void)kind;
    if (!value)
        value = "";
    if (strlen(name) != name_size || strlen(value) != value_size ||
            !name_is_sound(name)) {
        exchange_refuse(x, "malformed", "a header is malformed");
        x->hang_up = true;
        return MHD_YES;
    }
    if (strcasecmp(name, "Prefer") == 0)
        prefer_parse(value, &x->prefer);
    else if (strcasecmp(name, "Accept") == 0 && strstr(value, "application/json"))
        x->accepts_json = true;
    for (enum head head = 0; head < HEAD_COUNT; head++)
        if (strcasecmp(name, head_names[head]) == 0)
            head_once(x, head, value);
    return MHD_YES;
}

/* Ours, or the caller's when it is short and plain: it goes into log lines and headers. */
static void request_id_choose(struct exchange *x)
{
    static const char allowed[] =
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const char *given = x->heads[HEAD_X_REQUEST_ID];
    size_t length = given ? strlen(given) : 0;

    if (length > 0 && length <= REQUEST_ID_MAX && strspn(given, allowed) == length) {
        memcpy(x->request_id, given, length + 1);
    } else {
        struct uuid id = uuid_make();
        memcpy(x->request_id, id.text, sizeof(id.text));
    }
}

/* Two lengths, or a coding we do not know, and a proxy before us may see another request. */
static void framing_check(struct exchange *x)
{
    const char *coding = x->heads[HEAD_TRANSFER_ENCODING];
    const char *length = x->heads[HEAD_CONTENT_LENGTH];

    if (coding && length)
        exchange_refuse(x, "malformed",
                "Transfer-Encoding and Content-Length exclude each other");
    else if (coding && strcasecmp(coding, "chunked") != 0)
        exchange_refuse(x, "malformed", "the only Transfer-Encoding taken is chunked");
    else if (length && (!*length || length[strspn(length, "0123456789")]))
        exchange_refuse(x, "malformed", "Content-Length is not a number");
    else
        return;
    x->hang_up = true;
}

static void guard_apply(struct exchange *x, const char *version)
{
    const char *host = x->heads[HEAD_HOST];

    if (!host && strcmp(version, MHD_HTTP_VERSION_1_0) != 0) {
        exchange_refuse(x, "malformed", "a Host header is needed");
        return;
    }
    switch (guard_check(host, x->heads[HEAD_ORIGIN], x->http->options.hosts,
            x->http->options.host_count)) {
    case GUARD_PASS:
        break;
    case GUARD_MALFORMED:
        exchange_refuse(x, "malformed", "the Host header is no host and port");
        break;
    case GUARD_MISDIRECTED:
        exchange_refuse(x, "misdirected",
                "the Host header is no IP address, localhost or --http-host name");
        break;
    case GUARD_FOREIGN_ORIGIN:
        exchange_refuse(
                x, "foreign-origin", "the Origin is not the host that was asked");
        break;
    }
}

void exchange_read_heads(struct exchange *x, const char *version)
{
    (void)MHD_get_connection_values_n(x->connection, MHD_HEADER_KIND, head_take, x);
    request_id_choose(x);
    framing_check(x);
    guard_apply(x, version);
}

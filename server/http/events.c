/* The event stream: server-sent events (WHATWG HTML). The content reader blocks in
 * api_events(), which ends at once when the service drains. A reader that does not take what
 * was sent is cut by the reaper: the due time is set whenever a piece leaves and taken back
 * when the library asks for the next one.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "server/http/exchange.h"
#include "server/http/text.h"

enum {
    PIECE = 4096, /* the library's buffer for one call of the reader */
    FRAMES_MAX = 64 * 1024, /* gathered before they are sent */
    LOOK_MS = 1000, /* a client that went away is noticed that soon */
};

struct stream {
    struct exchange *x; /* lives until the response was freed */
    struct http *http;
    int64_t after;
    struct instant quiet; /* when the next comment is due */
    struct text frames; /* gathered, sent up to @sent */
    size_t sent;
    char *types; /* ",Job,Replica," or NULL: all */
    bool over;
};

static bool stream_wants(const struct stream *stream, const char *type)
{
    char wanted[64];
    int length;

    if (!stream->types)
        return true;
    length = snprintf(wanted, sizeof(wanted), ",%s,", type);
    return length > 0 && (size_t)length < sizeof(wanted) &&
            strstr(stream->types, wanted);
}

static bool stream_take(void *context, const struct api_event *event)
{
    struct stream *stream = context;

    stream->after = event->number;
    if (stream_wants(stream, event->type))
        text_print(&stream->frames, "id: %lld\nevent: %s\ndata: %s\n\n",
                (long long)event->number, event->kind, event->data);
    return stream->frames.length < FRAMES_MAX && !stream->frames.failed;
}

/* What was asked to replay is gone: the client reads everything anew, and goes on from the
   newest event there is now. */
static void stream_reset(struct stream *stream)
{
    stream->after = api_events_last(stream->http->service);
    text_print(&stream->frames, "id: %lld\nevent: Reset\ndata: {}\n\n",
            (long long)stream->after);
}

static bool client_is_gone(const struct stream *stream)
{
    struct pollfd look = { .fd = stream->x->guest->fd, .events = POLLRDHUP };

    return poll(&look, 1, 0) > 0 && (look.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* Wait for frames or the next comment, whichever is first. */
static void stream_gather(struct stream *stream)
{
    while (stream->frames.length == 0 && !stream->over) {
        uint64_t left = instant_ms_until(clock_monotonic(), stream->quiet);
        bool reset = false;
        int result;

        if (left == 0) {
            text_print(&stream->frames, ": keep-alive\n\n");
            break;
        }
        result = api_events(stream->http->service, stream->after,
                left < LOOK_MS ? (unsigned)left : LOOK_MS, &reset, stream_take, stream);
        if (reset)
            stream_reset(stream);
        stream->over = stream->frames.failed || (result < 0 && !reset) ||
                atomic_load(&stream->http->draining) || client_is_gone(stream);
    }
}

static ssize_t stream_read(void *context, uint64_t position, char *to, size_t room)
{
    struct stream *stream = context;
    size_t left;

    (void)position;
    guest_disarm(stream->x->guest);
    if (stream->sent == stream->frames.length) {
        stream->sent = stream->frames.length = 0;
        stream_gather(stream);
        stream->quiet =
                instant_add_ms(clock_monotonic(), stream->http->options.keep_alive_ms);
    }
    left = stream->frames.length - stream->sent;
    if (left == 0 || stream->frames.failed)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (left > room)
        left = room;
    memcpy(to, stream->frames.bytes + stream->sent, left);
    stream->sent += left;
    guest_arm(stream->x->guest, stream->x->listener->deadline_ms);
    return (ssize_t)left;
}

static void stream_free(void *context)
{
    struct stream *stream = context;

    text_release(&stream->frames);
    free(stream->types);
    free(stream);
}

static bool number_parse(const char *text, int64_t *number)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 18 || text[digits])
        return false;
    *number = strtoll(text, NULL, 10);
    return true;
}

/* "," on both ends makes the search exact. */
static bool types_parse(struct stream *stream, const char *value)
{
    struct text types = { 0 };

    for (const char *at = value; at; at = strchr(at, ',')) {
        at += at > value; /* past the comma */
        if (!api_event_type(at, strcspn(at, ",")))
            return false;
    }
    text_print(&types, ",%s,", value);
    stream->types = types.bytes;
    return !types.failed;
}

/* NULL, or what is wrong with the request. */
static const char *stream_open(struct exchange *x, struct stream *stream)
{
    const char *last = x->heads[HEAD_LAST_EVENT_ID];
    const char *types = query_find(&x->query, "Type");

    for (size_t i = 0; i < x->query.count; i++)
        if (strcmp(x->query.items[i].name, "Type") != 0 &&
                strcmp(x->query.items[i].name, "last_event_id") != 0)
            return "a query parameter is unknown";
    if (!last || !*last) /* a browser that reconnects knows better than its first URL */
        last = query_find(&x->query, "last_event_id");
    stream->x = x;
    stream->http = x->http;
    stream->quiet = instant_add_ms(x->began, x->http->options.keep_alive_ms);
    if (last && !number_parse(last, &stream->after))
        return "the last event id is none of ours";
    if (!last)
        stream->after = api_events_last(x->http->service);
    if (types && !types_parse(stream, types))
        return "Type is a list of the types that events have";
    text_print(&stream->frames, "retry: 3000\n\n");
    return stream->frames.failed ? "out of memory" : NULL;
}

static enum MHD_Result stream_start(struct exchange *x, struct stream *stream)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
            MHD_SIZE_UNKNOWN, PIECE, stream_read, stream, stream_free);

    if (!response) {
        stream_free(stream);
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, "Content-Type", "text/event-stream");
    (void)MHD_add_response_header(response, "X-Accel-Buffering", "no");
    x->streams = true;
    x->hang_up = true; /* nothing is asked after a stream */
    guest_arm(x->guest, x->listener->deadline_ms);
    return answer_queue(x, 200, response);
}

enum MHD_Result events_serve(struct exchange *x)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    const char *wrong;

    if (!stream)
        return MHD_NO;
    wrong = stream_open(x, stream);
    if (wrong)
        exchange_refuse(x, "malformed", wrong);
    else if (atomic_load(&x->http->draining))
        exchange_refuse(x, "overloaded", "the service is about to stop");
    else if (!(x->waiter = waiter_enter(x->http)))
        exchange_refuse(x, "overloaded", "too many requests wait already");
    if (!x->refusal)
        return stream_start(x, stream);
    stream_free(stream);
    return answer_refusal(x);
}

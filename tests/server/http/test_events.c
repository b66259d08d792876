/* The event stream over the fake's events. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/server/http/rig.h"

#define HOST "Host: localhost\r\n"
#define JOB "{\"Self\":\"/jobs/J\",\"Type\":\"Job\"}"

enum { PATIENCE_MS = 60000 };

static struct rig rig;
static char text[65536];

static void begin(void)
{
    rig = rig_start((struct http_options){ .keep_alive_ms = 400 });
}

static void end(void)
{
    rig_stop(&rig);
}

TestSuite(events, .init = begin, .fini = end);

static int stream_open(const char *path, const char *headers)
{
    char bytes[512];
    int fd = raw_open(rig.address);
    int n = snprintf(
            bytes, sizeof(bytes), "GET %s HTTP/1.1\r\n" HOST "%s\r\n", path, headers);

    cr_assert(fd >= 0 && raw_send(fd, bytes, (size_t)n));
    return fd;
}

/* Read on until @needle; the text of this read only. */
static const char *until(int fd, const char *needle)
{
    raw_read(fd, needle, PATIENCE_MS, text, sizeof(text), NULL);
    cr_assert(strstr(text, needle), "no %s in\n%s", needle, text);
    return text;
}

Test(events, a_stream_begins_now_and_tells_what_comes)
{
    int fd;

    fake_event(rig.service, "InstCreation", "Job", "{\"old\":1}");
    fd = stream_open("/events", "");
    until(fd, "retry: 3000\n\n");
    cr_assert(strstr(text, "HTTP/1.1 200") &&
            strstr(text, "Content-Type: text/event-stream\r\n"));
    cr_assert(strstr(text, "Cache-Control: no-store\r\n") &&
            strstr(text, "X-Accel-Buffering: no\r\n"));
    fake_event(rig.service, "InstModification", "Job", JOB);
    until(fd, JOB);
    cr_assert(strstr(text, "id: 2\nevent: InstModification\ndata: " JOB), "%s", text);
    cr_assert(!strstr(text, "old"));
    close(fd);
}

Test(events, it_resumes_after_the_last_id)
{
    static const char *const asks[][2] = {
        { "/events", "Last-Event-ID: 2\r\n" }, { "/events?last_event_id=2", "" },
        { "/events?last_event_id=1",
                "Last-Event-ID: 2\r\n" }, /* the header knows better */
    };

    for (int i = 1; i <= 4; i++)
        fake_event(rig.service, "InstCreation", "Job", JOB);
    for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
        int fd = stream_open(asks[i][0], asks[i][1]);
        until(fd, "id: 4\n");
        cr_assert(strstr(text, "id: 3\n") && !strstr(text, "id: 2\n") &&
                !strstr(text, "id: 1\n"));
        close(fd);
    }
    int fd = stream_open("/events?last_event_id=0", "");
    until(fd, "id: 4\n");
    cr_assert(strstr(text, "id: 1\n"));
    close(fd);
}

Test(events, what_is_gone_is_a_reset)
{
    int fd;

    for (int i = 1; i <= 6; i++)
        fake_event(rig.service, "InstCreation", "Job", JOB);
    fake_forget(rig.service, 3);
    fd = stream_open("/events?Type=Replica", "Last-Event-ID: 2\r\n");
    until(fd, "event: Reset\n");
    cr_assert(strstr(text, "id: 6\nevent: Reset\n") && !strstr(text, "id: 4\n"), "%s",
            text);
    fake_event(rig.service, "InstCreation", "Replica", "{\"r\":7}");
    until(fd, "{\"r\":7}");
    cr_assert(strstr(text, "id: 7\n") && !strstr(text, "Reset"));
    close(fd);
    fd = stream_open("/events", "Last-Event-ID: 900\r\n"); /* from the future */
    until(fd, "id: 7\nevent: Reset\ndata: {}\n\n");
    close(fd);
    fd = stream_open("/events", "Last-Event-ID: 3\r\n");
    until(fd, "id: 4\n");
    cr_assert(!strstr(text, "Reset"));
    close(fd);
}

Test(events, only_the_types_asked_for)
{
    int fd = stream_open("/events?Type=Job,Replica", "");

    until(fd, "retry: 3000\n\n");
    fake_event(rig.service, "InstCreation", "Pipe", "{\"p\":1}");
    fake_event(rig.service, "InstCreation", "Jo", "{\"p\":2}");
    fake_event(rig.service, "InstCreation", "Replica", "{\"r\":3}");
    fake_event(rig.service, "InstCreation", "Job", "{\"j\":4}");
    until(fd, "{\"j\":4}");
    cr_assert(strstr(text, "{\"r\":3}") && !strstr(text, "\"p\""), "%s", text);
    close(fd);
}

Test(events, refused)
{
    static const char *const paths[] = { "/events?last_event_id=x",
        "/events?last_event_id=-1", "/events?Type=", "/events?Type=a%20b",
        "/events?Type=Foo", "/events?Type=job", "/events?Type=Job,",
        "/events?Type=,Job", "/events?Type=Job,,Replica", "/events?Type=Job,Foo",
        "/events?type=Job", "/events?last_event_id=9999999999999999999" };
    struct http_answer answer;

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        long status = http_send(rig.address, "GET", paths[i], NULL, NULL, &answer);
        cr_expect(status == 400, "%s: %ld", paths[i], status);
        http_answer_release(&answer);
    }
    const char *headers[] = { "Last-Event-ID: abc", NULL };
    cr_assert(http_send(rig.address, "GET", "/events", NULL, headers, &answer) == 400);
    http_answer_release(&answer);
}

Test(events, a_quiet_stream_is_kept_alive)
{
    int fd = stream_open("/events", "");

    until(fd, "retry: 3000\n\n");
    until(fd, ": keep-alive\n\n");
    until(fd, ": keep-alive\n\n");
    close(fd);
}

/* Long before there is anything to send. */
Test(events, who_went_away_gives_the_place_back)
{
    struct instant due = instant_add_ms(clock_monotonic(), PATIENCE_MS);
    struct rig quiet = rig_start((struct http_options){ .keep_alive_ms = 600000 });
    struct http_answer answer;
    int fds[8];
    bool left = false;

    for (int i = 0; i < 8; i++) {
        fds[i] = raw_open(quiet.address);
        cr_assert(raw_send(fds[i], "GET /events HTTP/1.1\r\n" HOST "\r\n", 41));
        until(fds[i], "retry: 3000\n\n");
    }
    for (int i = 0; i < 8; i++)
        close(fds[i]);
    while (!left && !instant_reached(clock_monotonic(), due)) {
        cr_assert(
                http_send(quiet.health, "GET", "/metrics", NULL, NULL, &answer) == 200);
        left = strstr(answer.body, "replicad_http_waiters 0\n") != NULL;
        http_answer_release(&answer);
    }
    cr_assert(left);
    rig_stop(&quiet);
}

/* What the chunks of @raw hold, the last of which may be cut off. */
static void dechunk(const char *raw, size_t length, char *plain)
{
    const char *at = raw, *end = raw + length;
    char *line;

    for (;;) {
        size_t size;
        at += strspn(at, "\r\n");
        size = strtoul(at, &line, 16);
        if (line == at || strncmp(line, "\r\n", 2) != 0)
            break;
        at = line + 2;
        if (size > (size_t)(end - at))
            size = (size_t)(end - at);
        memcpy(plain, at, size);
        plain += size;
        at += size;
    }
    *plain = '\0';
}

/* So many in one go that a chunk may end in the middle of one. */
Test(events, a_thousand_arrive_in_order)
{
    char wanted[32];
    int fd = stream_open("/events", "");
    static char raw[1 << 20], all[1 << 20];
    const char *at = all;
    size_t length = 0;

    until(fd, "retry: 3000\n\n");
    for (int i = 1; i <= 1000; i++)
        fake_event(rig.service, "InstModification", "Job", JOB);
    while (!strstr(all, "id: 1000\n")) {
        size_t got = raw_read(
                fd, "\n", PATIENCE_MS, raw + length, sizeof(raw) - length, NULL);
        cr_assert(got > 0, "the stream ends after\n%s", all);
        length += got;
        dechunk(raw, length, all);
    }
    for (int i = 1; i <= 1000; i++) {
        snprintf(wanted, sizeof(wanted), "id: %d\n", i);
        at = strstr(at, wanted);
        cr_assert(at, "%d is missing", i);
    }
    close(fd);
}

/* A reader that takes nothing is dropped once its socket is full; others go on. */
Test(events, a_reader_that_does_not_read_is_dropped)
{
    static char big[4001];
    struct rig tight = rig_start((struct http_options){ .deadline_ms = 3000 });
    struct instant due = instant_add_ms(clock_monotonic(), PATIENCE_MS);
    struct http_answer answer;
    int fd = raw_open(tight.address), size = 4096;
    bool dropped = false;

    memset(big, 'x', sizeof(big) - 1);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    cr_assert(raw_send(fd, "GET /events HTTP/1.1\r\n" HOST "\r\n", 41));
    raw_read(fd, "retry: 3000\n\n", PATIENCE_MS, text, sizeof(text), NULL);
    for (int i = 0; i < 4000; i++)
        fake_event(tight.service, "InstModification", "Job", big);
    while (!dropped && !instant_reached(clock_monotonic(), due)) {
        cr_assert(
                http_send(tight.health, "GET", "/metrics", NULL, NULL, &answer) == 200);
        dropped = strstr(answer.body, "replicad_http_waiters 0\n") &&
                strstr(answer.body, "replicad_http_connections_cut_total 1\n");
        http_answer_release(&answer);
    }
    cr_assert(dropped);
    close(fd);
    rig_stop(&tight);
}

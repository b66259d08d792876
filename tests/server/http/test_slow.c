/* Who is slow, who holds connections, who waits, and what a stop does to them. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/server/http/rig.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HOST "Host: localhost\r\n"

enum { PATIENCE_MS = 60000 };

static bool is_ended(int fd, char *text, size_t room)
{
    bool ended = false;

    (void)raw_read(fd, NULL, PATIENCE_MS, text, room, &ended);
    return ended;
}

/* One byte now and then, for ever: the library sees activity, the deadline does not care. */
Test(slow, a_request_that_trickles_is_cut)
{
    static const char *const starts[] = {
        "",
        "GET /jobs HTTP/1.1\r\n" HOST "X: ",
        "POST /replicas HTTP/1.1\r\n" HOST
        "Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n",
        "POST /nothing HTTP/1.1\r\n" HOST "Content-Length: 60000\r\n\r\n",
    };

    for (size_t i = 0; i < COUNT(starts); i++) {
        /* With a request line, not even a long idle time delays it. */
        struct rig rig = rig_start((struct http_options){
                .deadline_ms = 500, .idle_s = i == 0 ? 1 : 600 });
        struct instant due = instant_add_ms(clock_monotonic(), PATIENCE_MS);
        int fd = raw_open(rig.address);
        bool ended = false;
        char text[512];

        cr_assert(raw_send(fd, starts[i], strlen(starts[i])));
        while (!ended && !instant_reached(clock_monotonic(), due)) {
            (void)raw_read(fd, NULL, 50, text, sizeof(text), &ended);
            if (!ended)
                ended = !raw_send(fd, "a", 1);
        }
        cr_expect(ended, "%zu: was not cut", i);
        close(fd);
        cr_assert(fake_seen(rig.service).calls == 0);
        rig_stop(&rig);
    }
}

Test(slow, a_silent_connection_is_closed)
{
    /* Time enough to ask for who means to, on any machine. */
    struct rig rig =
            rig_start((struct http_options){ .deadline_ms = 2000, .idle_s = 3 });
    int fd = raw_open(rig.address);
    char text[512];

    cr_assert(is_ended(fd, text, sizeof(text)));
    close(fd);
    fd = raw_open(rig.address); /* and one that asked once and then says no more */
    cr_assert(raw_send(fd, "GET /jobs HTTP/1.1\r\n" HOST "\r\n", 39));
    cr_assert(is_ended(fd, text, sizeof(text)));
    cr_assert(strncmp(text, "HTTP/1.1 200", 12) == 0);
    close(fd);
    rig_stop(&rig);
}

/* A handler that takes longer than every limit of the connection still answers. */
Test(slow, a_slow_answer_is_not_cut)
{
    struct rig rig =
            rig_start((struct http_options){ .deadline_ms = 2000, .idle_s = 3 });
    struct instant due = instant_add_ms(clock_monotonic(), 6000);
    int fd = raw_open(rig.address);
    char text[2048];

    fake_answer(rig.service,
            &(struct fake_answer){
                    .body = "{}", .hold = true, .outcome = { .waited_s = -1 } });
    cr_assert(raw_send(fd, "GET /jobs HTTP/1.1\r\n" HOST "\r\n", 39));
    cr_assert(fake_await_held(rig.service, 1));
    while (!instant_reached(clock_monotonic(), due))
        cr_assert(raw_read(fd, NULL, 100, text, sizeof(text), NULL) == 0);
    fake_release(rig.service);
    raw_read(fd, "{}", PATIENCE_MS, text, sizeof(text), NULL);
    cr_assert(strncmp(text, "HTTP/1.1 200", 12) == 0, "%s", text);
    fake_answer(
            rig.service, &(struct fake_answer){ .body = "{}", .outcome.waited_s = -1 });
    cr_assert(raw_send(fd, "GET /jobs HTTP/1.1\r\n" HOST "\r\n", 39), "and lives on");
    raw_read(fd, "{}", PATIENCE_MS, text, sizeof(text), NULL);
    cr_assert(strncmp(text, "HTTP/1.1 200", 12) == 0, "%s", text);
    close(fd);
    rig_stop(&rig);
}

/* Nor a stream whose pauses are longer. */
Test(slow, a_quiet_stream_is_not_cut)
{
    struct rig rig = rig_start((struct http_options){
            .deadline_ms = 2000, .idle_s = 3, .keep_alive_ms = 6000 });
    static const char stream[] = "GET /events HTTP/1.1\r\n" HOST "\r\n";
    int fd = raw_open(rig.address);
    char text[2048];

    cr_assert(raw_send(fd, stream, sizeof(stream) - 1));
    raw_read(fd, ": keep-alive\n\n", PATIENCE_MS, text, sizeof(text), NULL);
    cr_assert(strstr(text, ": keep-alive\n\n"), "%s", text);
    fake_event(rig.service, "InstCreation", "Job", "{\"j\":1}");
    raw_read(fd, "{\"j\":1}", PATIENCE_MS, text, sizeof(text), NULL);
    cr_assert(strstr(text, "{\"j\":1}"), "%s", text);
    close(fd);
    rig_stop(&rig);
}

Test(slow, health_answers_while_every_connection_is_held)
{
    enum { HELD = 256 };
    struct rig rig = rig_start((struct http_options){ 0 });
    struct http_answer answer;
    int fds[HELD];
    char text[2048];
    bool ended;

    fake_answer(
            rig.service, &(struct fake_answer){ .hold = true, .outcome.waited_s = -1 });
    for (int i = 0; i < HELD; i++) {
        fds[i] = raw_open(rig.address);
        cr_assert(fds[i] >= 0);
        cr_assert(raw_send(fds[i], "GET /jobs HTTP/1.1\r\n" HOST "\r\n", 39));
    }
    cr_assert(fake_await_held(rig.service, HELD));
    for (int i = 0; i < 3; i++) {
        cr_assert(http_send(rig.health, "GET", "/readyz", NULL, NULL, &answer) == 200,
                "%s", answer.why);
        http_answer_release(&answer);
        cr_assert(http_send(rig.health, "GET", "/livez", NULL, NULL, &answer) == 200);
        http_answer_release(&answer);
    }
    cr_assert(http_send(rig.health, "GET", "/metrics", NULL, NULL, &answer) == 200);
    cr_assert(strstr(answer.body, "replicad_http_connections 256\n"));
    http_answer_release(&answer);

    static const char one_more[] = "GET /jobs HTTP/1.1\r\n" HOST "\r\n";
    cr_assert(rig_raw(&rig, one_more, sizeof(one_more) - 1, PATIENCE_MS, text,
                      sizeof(text), &ended) == 503,
            "%s", text);
    cr_assert(ended && strstr(text, "Retry-After: 1\r\n") &&
            strstr(text, "/problems/overloaded"));
    fake_release(rig.service);
    for (int i = 0; i < HELD; i++) {
        raw_read(fds[i], "\r\n\r\n", PATIENCE_MS, text, sizeof(text), NULL);
        cr_assert(strncmp(text, "HTTP/1.1 200", 12) == 0);
        close(fds[i]);
    }
    fake_answer(rig.service, &(struct fake_answer){ .outcome.waited_s = -1 });
    for (struct instant due = instant_add_ms(clock_monotonic(), PATIENCE_MS);;) {
        long status = http_send(rig.address, "GET", "/jobs", NULL, NULL, &answer);
        http_answer_release(&answer);
        if (status == 200)
            break; /* once the closed ones are cleaned up */
        cr_assert(status == 503 && !instant_reached(clock_monotonic(), due));
    }
    rig_stop(&rig);
}

Test(slow, only_so_many_wait)
{
    struct rig rig = rig_start((struct http_options){ .waiters = 4 });
    static const char *const asks[] = {
        "GET /jobs/J?wait=30 HTTP/1.1\r\n" HOST "\r\n",
        "POST /replicas HTTP/1.1\r\n" HOST
        "Prefer: wait=5\r\nContent-Length: 0\r\n\r\n",
        "DELETE /replicas/T HTTP/1.1\r\n" HOST "Prefer: wait=5\r\n\r\n",
    };
    static const char stream[] = "GET /events HTTP/1.1\r\n" HOST "\r\n";
    struct http_answer answer;
    int fds[4], fd;
    char text[2048];

    fake_answer(
            rig.service, &(struct fake_answer){ .hold = true, .outcome.waited_s = -1 });
    for (size_t i = 0; i < 3; i++) {
        fds[i] = raw_open(rig.address);
        cr_assert(raw_send(fds[i], asks[i], strlen(asks[i])));
    }
    cr_assert(fake_await_held(rig.service, 3));
    fds[3] = raw_open(rig.address);
    cr_assert(raw_send(fds[3], stream, sizeof(stream) - 1));
    raw_read(fds[3], "retry: 3000", PATIENCE_MS, text, sizeof(text), NULL);
    cr_assert(strncmp(text, "HTTP/1.1 200", 12) == 0);

    cr_assert(http_send(rig.address, "GET", "/jobs/J?wait=1", NULL, NULL, &answer) ==
            503);
    char value[HTTP_HEADER_TEXT];
    cr_assert_str_eq(http_header(&answer, "Retry-After", value), "1");
    http_answer_release(&answer);
    fd = raw_open(rig.address);
    cr_assert(raw_send(fd, asks[1], strlen(asks[1])));
    raw_read(fd, "\r\n\r\n", PATIENCE_MS, text, sizeof(text), NULL);
    cr_assert(strncmp(text, "HTTP/1.1 503", 12) == 0, "%s", text);
    close(fd);
    cr_assert(http_send(rig.address, "GET", "/events", NULL, NULL, &answer) == 503);
    http_answer_release(&answer);

    fake_answer(rig.service, &(struct fake_answer){ .outcome.waited_s = -1 });
    cr_assert(
            http_send(rig.address, "GET", "/jobs/J?wait=0", NULL, NULL, &answer) == 200,
            "who does not wait is served");
    http_answer_release(&answer);
    fake_release(rig.service);
    for (size_t i = 0; i < 3; i++)
        raw_read(fds[i], "\r\n\r\n", PATIENCE_MS, text, sizeof(text), NULL);
    for (struct instant due = instant_add_ms(clock_monotonic(), PATIENCE_MS);;) {
        long status =
                http_send(rig.address, "GET", "/jobs/J?wait=1", NULL, NULL, &answer);
        http_answer_release(&answer);
        if (status == 200)
            break; /* who was answered leaves its place after that */
        cr_assert(status == 503 && !instant_reached(clock_monotonic(), due));
    }
    for (size_t i = 0; i < 4; i++)
        close(fds[i]);
    rig_stop(&rig);
}

static void *stopper_run(void *context)
{
    struct rig *rig = context;

    http_drain(rig->http);
    service_drain(rig->service);
    http_quiesce(rig->http, PATIENCE_MS);
    return NULL;
}

Test(slow, a_stop_answers_what_is_under_way)
{
    struct rig rig = rig_start((struct http_options){ 0 });
    static const char stream[] = "GET /events HTTP/1.1\r\n" HOST "\r\n";
    struct http_answer answer;
    pthread_t thread;
    int fds[9];
    char text[2048];

    fake_answer(rig.service,
            &(struct fake_answer){
                    .hold = true, .body = "{\"end\":1}", .outcome.waited_s = -1 });
    for (size_t i = 0; i < 8; i++) {
        fds[i] = raw_open(rig.address);
        cr_assert(raw_send(fds[i], "GET /jobs/J?wait=60 HTTP/1.1\r\n" HOST "\r\n", 49));
    }
    cr_assert(fake_await_held(rig.service, 8));
    fds[8] = raw_open(rig.address);
    cr_assert(raw_send(fds[8], stream, sizeof(stream) - 1));
    raw_read(fds[8], "retry: 3000", PATIENCE_MS, text, sizeof(text), NULL);

    cr_assert(pthread_create(&thread, NULL, stopper_run, &rig) == 0);
    for (size_t i = 0; i < 8; i++) {
        raw_read(fds[i], "{\"end\":1}", PATIENCE_MS, text, sizeof(text), NULL);
        cr_assert(strncmp(text, "HTTP/1.1 200", 12) == 0, "%s", text);
        cr_assert(strstr(text, "Connection: close\r\n"));
        close(fds[i]);
    }
    cr_assert(is_ended(fds[8], text, sizeof(text)), "the stream does not end");
    close(fds[8]);
    pthread_join(thread, NULL);
    cr_assert(http_send(rig.address, "GET", "/jobs", NULL, NULL, &answer) == 0);
    http_answer_release(&answer);
    cr_assert(http_send(rig.health, "GET", "/readyz", NULL, NULL, &answer) == 503);
    http_answer_release(&answer);
    cr_assert(http_send(rig.health, "GET", "/livez", NULL, NULL, &answer) == 200);
    http_answer_release(&answer);
    rig_stop(&rig);
}

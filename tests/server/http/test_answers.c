/* From the socket to the fake and back: routes, numbers, headers, limits. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/http/route.h"
#include "server/http/status.h"
#include "tests/server/http/rig.h"
#include "tests/support/port.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HOST "Host: localhost\r\n"
#define LAST "Connection: close\r\n"

static struct rig rig;
static struct http_answer answer;
static char value[HTTP_HEADER_TEXT];

static void begin(void)
{
    rig = rig_start((struct http_options){
            .hosts = (const char *const[]){ "nas" }, .host_count = 1 });
}

static void end(void)
{
    http_answer_release(&answer);
    rig_stop(&rig);
}

static long ask(
        const char *method, const char *path, const char *body, const char *header)
{
    const char *headers[] = { header, NULL };

    http_answer_release(&answer);
    return http_send(rig.address, method, path, body, headers, &answer);
}

static const char *head(const char *name)
{
    return http_header(&answer, name, value);
}

TestSuite(answers, .init = begin, .fini = end);

Test(answers, every_row_of_the_table_reaches_its_call)
{
    for (size_t i = 0; i < route_count; i++) {
        const struct route *route = &routes[i];
        char path[128];
        const char *hole = strchr(route->template, '{');
        unsigned calls = fake_seen(rig.service).calls;

        if (route->serve != SERVE_CALL)
            continue;
        snprintf(path, sizeof(path), "%.*s%s%s?q=%%C3%%A9",
                hole ? (int)(hole - route->template) : 100, route->template,
                hole ? "a%20%62" : "", hole ? strchr(hole, '}') + 1 : "");
        long status = ask(http_method_name(route->method), path,
                route->body == BODY_NONE ? NULL : "{\"a\":1}", NULL);
        struct fake_seen seen = fake_seen(rig.service);
        cr_assert(status == 200, "%s: %ld %s", path, status, answer.why);
        cr_assert(seen.calls == calls + 1 && seen.call == route->call, "%s", path);
        cr_assert_str_eq(seen.id, hole ? "a b" : "");
        cr_assert_str_eq(seen.query, "q=\xc3\xa9");
        cr_assert_str_eq(seen.body, route->body == BODY_NONE ? "" : "{\"a\":1}");
        cr_assert_str_eq(seen.caller, "127.0.0.1");
        cr_assert(seen.prefer_wait_s == -1 && !seen.has_key);
    }
}

Test(answers, every_other_method_of_a_known_path_is_405_with_allow)
{
    static const char *const methods[] = { "GET", "POST", "PUT", "PATCH", "DELETE",
        "OPTIONS", "BREW" };
    char allow[64];

    for (size_t i = 0; i < route_count; i++) {
        char path[128];
        const char *hole = strchr(routes[i].template, '{');

        snprintf(path, sizeof(path), "%.*s%s%s",
                hole ? (int)(hole - routes[i].template) : 100, routes[i].template,
                hole ? "x" : "", hole ? strchr(hole, '}') + 1 : "");
        route_allow(routes[i].template, allow);
        for (size_t m = 0; m < COUNT(methods); m++) {
            if (strstr(allow, methods[m]))
                continue;
            cr_assert(ask(methods[m], path, NULL, NULL) == 405, "%s %s: %ld",
                    methods[m], path, answer.status);
            cr_assert_str_eq(head("Allow"), allow);
            cr_assert_str_eq(head("Content-Type"), "application/problem+json");
        }
    }
    cr_assert(fake_seen(rig.service).calls == 0);
}

Test(answers, every_verdict_has_its_number_and_headers)
{
    for (enum api_verdict verdict = 0; verdict < API_VERDICT_COUNT; verdict++) {
        int wanted = status_of(verdict);

        fake_answer(rig.service,
                &(struct fake_answer){ .outcome = { .verdict = verdict,
                                               .return_value = 3,
                                               .waited_s = -1 },
                        .body = wanted < 300 && verdict != API_GONE ? "{\"x\":1}"
                                                                    : NULL });
        cr_assert(ask("POST", "/replicas", "{}", NULL) == wanted, "%d: %ld", verdict,
                answer.status);
        cr_assert_str_eq(head("Cache-Control"), "no-store");
        cr_assert_str_eq(head("X-Content-Type-Options"), "nosniff");
        cr_assert(strlen(head("X-Request-Id")) == 36);
        if (wanted >= 400) {
            cr_assert_str_eq(head("Content-Type"), "application/problem+json");
            cr_assert(strstr(answer.body, "\"ReturnValue\":3"));
        } else if (wanted < 300 && verdict != API_GONE) {
            cr_assert_str_eq(head("Content-Type"), "application/json");
            cr_assert_str_eq(answer.body, "{\"x\":1}");
        } else {
            cr_assert_str_eq(answer.body, "");
            cr_assert_str_eq(head("Content-Type"), "");
        }
        cr_assert_str_eq(head("Retry-After"), wanted == 503 ? "1" : "");
    }
}

Test(answers, what_the_outcome_says_becomes_headers)
{
    struct fake_answer script = { .outcome = { .verdict = API_STARTED,
                                          .return_value = 4096,
                                          .location = "/jobs/J",
                                          .etag = "\"r42\"",
                                          .next = "/jobs?cursor=c&limit=2",
                                          .retry_after = 2,
                                          .waited_s = 7,
                                          .replayed = true },
        .body = "{}" };

    fake_answer(rig.service, &script);
    cr_assert(ask("POST", "/replicas", "{}", "Prefer: wait=9, respond-async") == 202);
    cr_assert_str_eq(head("Location"), "/jobs/J");
    cr_assert_str_eq(head("ETag"), "\"r42\"");
    cr_assert_str_eq(head("Link"), "</jobs?cursor=c&limit=2>; rel=\"next\"");
    cr_assert_str_eq(head("Retry-After"), "2");
    cr_assert_str_eq(head("Idempotent-Replayed"), "true");
    cr_assert_str_eq(head("Preference-Applied"), "respond-async, wait=7");
    cr_assert(fake_seen(rig.service).prefer_wait_s == 9);

    script.outcome = (struct api_outcome){
        .verdict = API_STARTED, .return_value = 4096, .waited_s = -1
    };
    fake_answer(rig.service, &script);
    cr_assert(ask("POST", "/replicas", "{}", "Prefer: respond-async") == 202);
    cr_assert_str_eq(head("Preference-Applied"), "respond-async");
    cr_assert(fake_seen(rig.service).prefer_wait_s == -1);
    cr_assert(ask("POST", "/replicas", "{}", NULL) == 202);
    cr_assert_str_eq(head("Preference-Applied"), "");
    cr_assert_str_eq(head("Location"), "");
    cr_assert_str_eq(head("ETag"), "");
    cr_assert_str_eq(head("Link"), "");
    cr_assert_str_eq(head("Idempotent-Replayed"), "");
}

Test(answers, request_headers_reach_the_call)
{
    const char *headers[] = { "If-Match: \"r1\"", "If-None-Match: \"r2\"",
        "Idempotency-Key: \"k 1\"", "X-Request-Id: my.id_1-2", NULL };
    struct fake_seen seen;

    http_answer_release(&answer);
    cr_assert(
            http_send(rig.address, "PATCH", "/jobs/J", "{}", headers, &answer) == 200);
    seen = fake_seen(rig.service);
    cr_assert_str_eq(seen.if_match, "\"r1\"");
    cr_assert_str_eq(seen.if_none_match, "\"r2\"");
    cr_assert_str_eq(seen.key, "k 1");
    cr_assert_str_eq(seen.request_id, "my.id_1-2");
    cr_assert_str_eq(head("X-Request-Id"), "my.id_1-2");

    cr_assert(ask("GET", "/jobs", NULL, "X-Request-Id: a b\"c") == 200);
    cr_assert(strlen(head("X-Request-Id")) == 36,
            "a foreign id that is not plain is ours");
    cr_assert(ask("GET", "/jobs/J", NULL, "Prefer: wait=5") == 200);
    cr_assert(
            fake_seen(rig.service).prefer_wait_s == -1, "only methods wait by Prefer");
    cr_assert(ask("POST", "/replicas", "{}", "Idempotency-Key: \"\"") == 400);
}

Test(answers, head_is_get_without_the_body)
{
    fake_answer(rig.service,
            &(struct fake_answer){
                    .outcome = { .return_value = -1, .waited_s = -1, .etag = "\"r1\"" },
                    .body = "{\"Members\":[]}" });
    cr_assert(ask("HEAD", "/jobs", NULL, NULL) == 200);
    cr_assert_str_eq(head("Content-Length"), "14");
    cr_assert_str_eq(head("ETag"), "\"r1\"");
    cr_assert_str_eq(answer.body, "");
    cr_assert(fake_seen(rig.service).call == API_JOBS_LIST);
    cr_assert(ask("HEAD", "/nothing", NULL, NULL) == 404);
    cr_assert(ask("HEAD", "/replicas/x/attach", NULL, NULL) == 405);
    cr_assert(ask("HEAD", "/livez", NULL, NULL) == 200);
    cr_assert(ask("HEAD", "/events", NULL, NULL) == 200);
    cr_assert_str_eq(head("Content-Type"), "text/event-stream");
}

Test(answers, paths_and_queries_that_are_refused)
{
    static const struct row {
        const char *path;
        long status;
    } rows[] = {
        { "/", 404 },
        { "/nothing", 404 },
        { "/jobs/", 404 },
        { "//jobs", 404 },
        { "/jobs/a%2Fb", 404 },
        { "/jobs/..%2f..", 404 },
        { "/jobs/%", 400 },
        { "/jobs/%zz", 400 },
        { "/jobs/%00", 400 },
        { "/jobs/%ff", 400 },
        { "/jobs/a%0ab", 400 },
        { "/jobs?a=%", 400 },
        { "/jobs?a=1&a=2", 400 },
        { "/jobs?a=%00", 400 },
        { "/jobs?=1", 400 },
        { "/jobs?", 200 },
        { "/jobs?a", 200 },
        { "/livez?x=1", 400 },
        { "/livez?verbose&verbose", 400 },
        { "/readyz?exclude=a&exclude=b", 200 },
        { "/metrics?x", 400 },
        { "/events?since=1", 400 },
        { "/problems/nothing", 404 },
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        long status = ask("GET", rows[i].path, NULL, NULL);
        cr_expect(status == rows[i].status, "%s: %ld", rows[i].path, status);
        if (rows[i].status >= 400)
            cr_expect_str_eq(head("Content-Type"), "application/problem+json");
    }
}

/* @first, that many letters, @rest, the end of a head. */
static int ask_long(const char *first, size_t letters, const char *rest, bool *ended)
{
    char bytes[50000], text[4096];
    size_t length = strlen(first) + letters;

    memset(bytes, 'a', length);
    memcpy(bytes, first, strlen(first));
    length += (size_t)sprintf(bytes + length, "%s\r\n", rest);
    return rig_raw(&rig, bytes, length, 60000, text, sizeof(text), ended);
}

Test(answers, a_long_path_is_414_and_a_long_header_is_431)
{
    bool ended;

    cr_assert(ask_long("GET /jobs/", 1894, " HTTP/1.1\r\n" HOST LAST, &ended) == 200);
    cr_assert(ask_long("GET /jobs/", 5000, " HTTP/1.1\r\n" HOST LAST, &ended) == 414);
    cr_assert(ask_long("GET /jobs HTTP/1.1\r\n" HOST LAST "X-Long: ", 10000, "\r\n",
                      &ended) == 200);
    cr_assert(ask_long("GET /jobs HTTP/1.1\r\n" HOST "X-Long: ", 40000, "\r\n",
                      &ended) == 431);
    cr_assert(ended);
}

static long body_send(size_t length, bool chunked)
{
    char *body = malloc(length + 1);
    const char *headers[] = { chunked ? "Transfer-Encoding: chunked" : "X-Not: chunked",
        NULL };
    long status;

    memset(body, ' ', length);
    body[length] = '\0';
    http_answer_release(&answer);
    status = http_send(rig.address, "POST", "/replicas", body, headers, &answer);
    free(body);
    return status;
}

Test(answers, a_body_of_64_kib_is_taken_and_one_byte_more_is_413)
{
    for (int chunked = 0; chunked < 2; chunked++) {
        cr_assert(body_send(65536, chunked) == 200, "%d: %ld", chunked, answer.status);
        cr_assert(fake_seen(rig.service).length == 65536);
        cr_assert(body_send(65537, chunked) == 413, "%d: %ld", chunked, answer.status);
        cr_assert(body_send(4u << 20, chunked) == 413, "%d: %ld %s", chunked,
                answer.status, answer.why);
    }
    cr_assert(fake_seen(rig.service).calls == 2);
}

Test(answers, an_endless_body_is_cut)
{
    static const char start[] =
            "POST /replicas HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n";
    char *piece = malloc(1 << 20), text[4096];
    int fd = raw_open(rig.address), sent = 0;
    bool alive = true, ended = false;

    memset(piece, 'a', 1 << 20);
    cr_assert(raw_send(fd, start, sizeof(start) - 1));
    for (; alive && sent < 64; sent++)
        alive = raw_send(fd, "100000\r\n", 8) && raw_send(fd, piece, 1 << 20) &&
                raw_send(fd, "\r\n", 2);
    cr_assert(!alive, "64 MiB were taken");
    raw_read(fd, NULL, 60000, text, sizeof(text), &ended);
    cr_assert(ended);
    close(fd);
    free(piece);
    cr_assert(fake_seen(rig.service).calls == 0);
    cr_assert(ask("GET", "/jobs", NULL, NULL) == 200);
}

Test(answers, a_length_beyond_the_swallow_is_refused_at_the_headers)
{
    char text[4096];
    bool ended;
    static const char bytes[] =
            "POST /replicas HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"
            "Content-Length: 99999999999999999999\r\n\r\n";

    int status =
            rig_raw(&rig, bytes, sizeof(bytes) - 1, 60000, text, sizeof(text), &ended);
    cr_assert(status == 413 || status == 400, "%d", status);
    cr_assert(ended);
    static const char many[] =
            "POST /replicas HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"
            "Content-Length: 20000000\r\n\r\n";
    cr_assert(rig_raw(&rig, many, sizeof(many) - 1, 60000, text, sizeof(text),
                      &ended) == 413);
    cr_assert(ended);
}

Test(answers, who_asks_before_sending_is_told_at_once)
{
    static const char bytes[] =
            "POST /replicas HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"
            "Expect: 100-continue\r\n"
            "Content-Length: 70000\r\n\r\n";
    static const char good[] =
            "POST /replicas HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"
            "Expect: 100-continue\r\n"
            "Content-Length: 2\r\n\r\n";
    char text[4096];
    bool ended;
    int fd;

    cr_assert(rig_raw(&rig, bytes, sizeof(bytes) - 1, 60000, text, sizeof(text),
                      &ended) == 413);
    cr_assert(ended && strstr(text, "Connection: close"));
    fd = raw_open(rig.address);
    cr_assert(raw_send(fd, good, sizeof(good) - 1));
    raw_read(fd, "\r\n\r\n", 60000, text, sizeof(text), NULL);
    cr_assert(strncmp(text, "HTTP/1.1 100", 12) == 0, "%s", text);
    cr_assert(raw_send(fd, "{}", 2));
    raw_read(fd, "\r\n\r\n", 60000, text, sizeof(text), NULL);
    cr_assert(strncmp(text, "HTTP/1.1 200", 12) == 0, "%s", text);
    close(fd);
}

Test(answers, media_types)
{
    static const struct row {
        const char *method, *path, *header;
        long status;
    } rows[] = {
        { "POST", "/replicas", "Content-Type: application/json", 200 },
        { "POST", "/replicas", "Content-Type: application/json; charset=utf-8", 200 },
        { "POST", "/replicas", "Content-Type: text/plain", 415 },
        { "POST", "/replicas", "Content-Type: application/x-www-form-urlencoded", 415 },
        { "POST", "/replicas", "Content-Type: application/merge-patch+json", 415 },
        { "POST", "/replicas", "Content-Type:", 415 },
        { "POST", "/replicas", "Content-Encoding: gzip", 415 },
        { "POST", "/replicas", "Content-Encoding: identity", 200 },
        { "PATCH", "/jobs/J", "Content-Type: application/json", 200 },
        { "PATCH", "/jobs/J", "Content-Type: application/merge-patch+json", 200 },
        { "PATCH", "/jobs/J", "Content-Type: application/json-patch+json", 415 },
        { "GET", "/jobs", "Content-Type: application/json", 400 },
        { "DELETE", "/jobs/J", "Content-Type: application/json", 400 },
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        long status = ask(rows[i].method, rows[i].path, "{}", rows[i].header);
        cr_expect(status == rows[i].status, "%s %s: %ld", rows[i].method,
                rows[i].header, status);
    }
    cr_assert(ask("PATCH", "/jobs/J", "{}", "Content-Type: text/plain") == 415);
    cr_assert_str_eq(
            head("Accept-Patch"), "application/json, application/merge-patch+json");
    cr_assert(ask("POST", "/replicas", "", NULL) == 200,
            "an empty body is for api/ to refuse");
    cr_assert(fake_seen(rig.service).length == 0);
}

/* Two readings of one request: none of these may be served, and nothing behind it either. */
Test(answers, smuggling)
{
#define POST "POST /replicas HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"
#define NEXT "GET /jobs/smuggled HTTP/1.1\r\n" HOST "\r\n"
    static const char *const attacks[] = {
        POST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" NEXT,
        POST "Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello" NEXT,
        POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" NEXT,
        POST "Content-Length: 5\r\ncontent-length: 0\r\n\r\nhello" NEXT,
        POST "Content-Length: 5, 5\r\n\r\nhello" NEXT,
        POST "Content-Length: +5\r\n\r\nhello" NEXT,
        POST "Content-Length: -5\r\n\r\nhello" NEXT,
        POST "Content-Length: 0x5\r\n\r\nhello" NEXT,
        POST "Content-Length: 5 5\r\n\r\nhello" NEXT,
        POST "Content-Length: \r\n\r\nhello" NEXT,
        POST "Content-Length: five\r\n\r\nhello" NEXT,
        POST "Transfer-Encoding: identity\r\n\r\nhello" NEXT,
        POST "Transfer-Encoding: gzip\r\n\r\nhello" NEXT,
        POST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: "
             "identity\r\n\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: "
             "chunked\r\n\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\nhello" NEXT,
        POST "Content-Length : 5\r\nContent-Length: 0\r\n\r\nhello" NEXT,
        POST "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\nhello" NEXT,
        POST "Content-Length: 5\r\n 0\r\n\r\nhello" NEXT,
        "GET /jobs HTTP/1.1\r\n" HOST "X:\r\n Content-Length: 70\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\n\r\n5x\r\nhello\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\n\r\n"
             "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n" NEXT,
        POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n" NEXT,
        POST "Host: evil.example\r\nContent-Length: 2\r\n\r\n{}" NEXT,
        POST "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}" NEXT,
        POST "Authorization: a\r\nAuthorization: b\r\nContent-Length: 2\r\n\r\n{}" NEXT,
        POST
        "Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 2\r\n\r\n{}" NEXT,
        "GET /jobs HTTP/1.1\r\n\r\n" NEXT,
        "GET /jobs HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n" NEXT,
    };

    for (size_t i = 0; i < COUNT(attacks); i++) {
        char text[16384];
        bool ended;
        unsigned calls = fake_seen(rig.service).calls;
        int status = rig_raw(&rig, attacks[i], strlen(attacks[i]), 30000, text,
                sizeof(text), &ended);
        struct fake_seen seen = fake_seen(rig.service);

        cr_expect(status == 0 || status >= 400, "%zu: %d\n%s", i, status, text);
        cr_expect(ended, "%zu: the connection lives on", i);
        cr_expect(seen.calls == calls, "%zu: a call was served\n%s\n%s", i, attacks[i],
                text);
    }
}

Test(answers, a_refused_request_does_not_swallow_the_next)
{
    static const char bytes[] =
            "POST /nothing HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"
            "GET /jobs/next HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n";
    char text[8192];
    bool ended;

    cr_assert(rig_raw(&rig, bytes, sizeof(bytes) - 1, 30000, text, sizeof(text),
                      &ended) == 404);
    cr_assert(ended && strstr(text, "HTTP/1.1 200"), "%s", text);
    cr_assert_str_eq(fake_seen(rig.service).id, "next");
    cr_assert(fake_seen(rig.service).calls == 1);
}

Test(answers, host_and_origin_over_the_wire)
{
    static const struct row {
        const char *header;
        long status;
    } rows[] = {
        { "Host: evil.example", 421 },
        { "Host: nas", 200 },
        { "Host: NAS:8080", 200 },
        { "Host: [::1]", 200 },
        { "Host: a b", 400 },
        { "Origin: http://evil.example", 403 },
        { "Origin: null", 403 },
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        long status = ask("GET", "/jobs", NULL, rows[i].header);
        cr_expect(status == rows[i].status, "%s: %ld", rows[i].header, status);
    }
    char own[128];
    snprintf(own, sizeof(own), "Origin: http://%s", rig.address);
    cr_assert(ask("GET", "/jobs", NULL, own) == 200);
    cr_assert_str_eq(head("Access-Control-Allow-Origin"), "");
    char text[4096];
    bool ended;
    static const char old[] = "GET /jobs HTTP/1.0\r\n\r\n";
    cr_assert(rig_raw(&rig, old, sizeof(old) - 1, 60000, text, sizeof(text), &ended) ==
            200);
    http_answer_release(&answer);
    cr_assert(http_send(rig.health, "GET", "/livez", NULL,
                      (const char *const[]){ "Host: evil.example", NULL },
                      &answer) == 421);
}

Test(answers, targets_that_are_no_path)
{
    static const char *const targets[] = { "http://localhost/jobs", "*", "jobs",
        "/jobs#x", "localhost:80" };

    for (size_t i = 0; i < COUNT(targets); i++) {
        char bytes[256], text[4096];
        bool ended;
        int n = snprintf(bytes, sizeof(bytes),
                "GET %s HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", targets[i]);
        int status = rig_raw(&rig, bytes, (size_t)n, 60000, text, sizeof(text), &ended);
        cr_expect(status == 400 || status == 404, "%s: %d", targets[i], status);
    }
    cr_assert(fake_seen(rig.service).calls == 0);
}

Test(answers, probes)
{
    cr_assert(ask("GET", "/livez", NULL, NULL) == 200);
    cr_assert_str_eq(answer.body, "ok");
    cr_assert_str_eq(head("Content-Type"), "text/plain; charset=utf-8");
    cr_assert(ask("GET", "/readyz?verbose", NULL, NULL) == 200);
    cr_assert_str_eq(answer.body,
            "[+]store ok\n[+]loops ok\n[+]draining ok\nreadyz check passed\n");
    cr_assert(ask("GET", "/readyz?verbose&exclude=store", NULL, NULL) == 200);
    cr_assert_str_eq(answer.body, "[+]loops ok\n[+]draining ok\nreadyz check passed\n");
    cr_assert(ask("GET", "/healthz?verbose", NULL, NULL) == 200);
    cr_assert_str_eq(answer.body, /* what both ask is named once */
            "[+]clerk ok\n[+]loops ok\n[+]store ok\n[+]draining ok\n"
            "healthz check passed\n");

    fake_health(rig.service, "store", false);
    cr_assert(ask("GET", "/livez", NULL, NULL) == 200);
    cr_assert(ask("GET", "/readyz", NULL, NULL) == 503);
    cr_assert(strcmp(head("Retry-After"), "1") == 0);
    cr_assert(strstr(answer.body, "[-]store failed\n"));
    cr_assert(ask("GET", "/healthz", NULL, NULL) == 503);
    cr_assert(ask("GET", "/readyz?exclude=store", NULL, NULL) == 200);
    cr_assert(ask("GET", "/readyz", NULL, "Accept: application/json") == 503);
    cr_assert_str_eq(head("Content-Type"), "application/json");
    cr_assert_str_eq(answer.body,
            "{\"Status\":\"failed\",\"Checks\":[{\"Name\":\"store\",\"Ok\":"
            "false},{\"Name\":\"loops\",\"Ok\":true},"
            "{\"Name\":\"draining\",\"Ok\":true}]}");

    fake_health(rig.service, "loops", false);
    cr_assert(ask("GET", "/livez", NULL, NULL) == 500);
    cr_assert(ask("GET", "/healthz", NULL, NULL) == 500);
    cr_assert(ask("GET", "/healthz?exclude=loops&exclude=store", NULL, NULL) == 200);
}

Test(answers, the_health_listener_serves_four_paths)
{
    for (size_t i = 0; i < route_count; i++) {
        char path[128];
        const char *hole = strchr(routes[i].template, '{');
        long wanted = route_is_probe(&routes[i]) ? 200 : 404;

        snprintf(path, sizeof(path), "%.*s%s%s",
                hole ? (int)(hole - routes[i].template) : 100, routes[i].template,
                hole ? "x" : "", hole ? strchr(hole, '}') + 1 : "");
        http_answer_release(&answer);
        long status = http_send(rig.health, http_method_name(routes[i].method), path,
                NULL, NULL, &answer);
        cr_expect(status == wanted, "%s: %ld", path, status);
    }
    cr_assert(fake_seen(rig.service).calls == 0);
}

Test(answers, problem_pages_and_the_document)
{
    for (size_t i = 0; i < problem_page_count; i++) {
        char path[128];

        snprintf(path, sizeof(path), "/problems/%s", problem_pages[i].slug);
        cr_assert(ask("GET", path, NULL, NULL) == 200);
        cr_assert(strstr(answer.body, problem_pages[i].title));
        cr_assert(strstr(answer.body, problem_pages[i].text));
    }
    cr_assert(ask("GET", "/openapi.json", NULL, NULL) == 200);
    cr_assert_str_eq(head("Content-Type"), "application/json");
    cr_assert(strstr(answer.body, "\"openapi\""));
    FILE *file = fopen(OPENAPI_FILE, "r");
    cr_assert(file);
    char *text = calloc(1, answer.length + 2);
    cr_assert(fread(text, 1, answer.length + 1, file) == answer.length);
    cr_assert(memcmp(text, answer.body, answer.length) == 0);
    free(text);
    fclose(file);
}

Test(answers, metrics_please_promtool)
{
    FILE *tool;

    ask("GET", "/jobs", NULL, NULL);
    ask("GET", "/jobs/a", NULL, NULL);
    ask("HEAD", "/jobs/b", NULL, NULL);
    ask("GET", "/nothing/\"quoted\\", NULL, NULL);
    ask("BREW", "/jobs", NULL, NULL);
    http_answer_release(&answer);
    cr_assert(http_send(rig.health, "GET", "/metrics", NULL, NULL, &answer) == 200);
    cr_assert_str_eq(head("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    cr_assert(strstr(answer.body, "replicad_fake_ratio 1\n"));
    cr_assert(strstr(answer.body,
            "replicad_http_requests_total{route=\"/jobs\",method=\"GET\","
            "code=\"200\"} 1\n"));
    cr_assert(strstr(
            answer.body, "{route=\"/jobs/{id}\",method=\"HEAD\",code=\"200\"} 1\n"));
    cr_assert(strstr(answer.body, "{route=\"other\",method=\"GET\",code=\"404\"} 1\n"));
    cr_assert(
            strstr(answer.body, "{route=\"/jobs\",method=\"other\",code=\"405\"} 1\n"));
    cr_assert(strstr(answer.body, "_seconds_count{route=\"/jobs/{id}\"} 2\n"));
    cr_assert(strstr(
            answer.body, "_seconds_bucket{route=\"/jobs/{id}\",le=\"+Inf\"} 2\n"));
    cr_assert(strstr(answer.body, "replicad_build_info{version=\""));
    cr_assert(strstr(answer.body, "\nprocess_open_fds "));

    tool = popen("promtool check metrics", "w");
    cr_assert(tool);
    fwrite(answer.body, 1, answer.length, tool);
    cr_assert(pclose(tool) == 0, "promtool is missing or complains");
}

Test(answers, ipv6_and_two_listeners)
{
    static const char *const both[] = { "127.0.0.1:0", "[::1]:0" };
    struct rig two;
    const char *six;

    if (!ipv6_is_there())
        cr_skip_test("no IPv6 here");
    two = rig_start((struct http_options){ .addresses = both, .address_count = 2 });
    six = http_address(two.http, 1);
    cr_assert(six && strncmp(six, "[::1]:", 6) == 0 && strcmp(six, "[::1]:0") != 0);
    cr_assert(http_address(two.http, 2) == NULL);
    http_answer_release(&answer);
    cr_assert(http_send(six, "GET", "/jobs", NULL, NULL, &answer) == 200, "%s",
            answer.why);
    cr_assert_str_eq(fake_seen(two.service).caller, "::1");
    http_answer_release(&answer);
    cr_assert(http_send(two.address, "GET", "/jobs", NULL, NULL, &answer) == 200);
    rig_stop(&two);
}

Test(answers, an_address_that_is_taken_is_a_fault_in_words)
{
    struct fault fault = { 0 };
    struct http_options options = { .addresses = &rig.address, .address_count = 1 };
    static const char *const bad = "localhost:80";

    cr_assert(http_start(rig.service, &options, &fault) == NULL);
    cr_assert(fault.error < 0 && strstr(fault.why, "cannot listen on 127.0.0.1"), "%s",
            fault.why);
    options.addresses = &bad;
    cr_assert(http_start(rig.service, &options, &fault) == NULL);
    cr_assert(strstr(fault.why, "localhost:80"));
}

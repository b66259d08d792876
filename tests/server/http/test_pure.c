/* What http/ decides without a socket: tables in, verdicts out. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "server/http/body.h"
#include "server/http/endpoint.h"
#include "server/http/guard.h"
#include "server/http/idempotency.h"
#include "server/http/prefer.h"
#include "server/http/query.h"
#include "server/http/route.h"
#include "server/http/status.h"
#include "server/http/text.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

Test(query, what_is_taken)
{
    char text[] = "a=1&b=&c&d%20e=%C3%A9+x&f=a=b&&g=%2B";
    struct query query;

    cr_assert(query_parse(text, NULL, &query) != NULL, "an empty name");
    char good[] = "a=1&b=&c&d%20e=%C3%A9+x&f=a=b&g=%2B";
    cr_assert(query_parse(good, NULL, &query) == NULL);
    cr_assert(query.count == 6);
    cr_assert_str_eq(query_find(&query, "a"), "1");
    cr_assert_str_eq(query_find(&query, "b"), "");
    cr_assert_str_eq(query_find(&query, "c"), "");
    cr_assert_str_eq(query_find(&query, "d e"), "\xc3\xa9 x");
    cr_assert_str_eq(query_find(&query, "f"), "a=b");
    cr_assert_str_eq(query_find(&query, "g"), "+");
    cr_assert(query_find(&query, "h") == NULL);
}

Test(query, what_is_refused)
{
    static const char *const bad[] = {
        "a=%",
        "a=%4",
        "a=%zz",
        "a=%4g",
        "%=1",
        "=1",
        "a=1&=2",
        "a=%00",
        "a=%0a",
        "a=%7f",
        "a=%80",
        "a=%c0%af",
        "a=%c1%bf",
        "a=%e0%9f%bf",
        "a=%ed%a0%80",
        "a=%f0%8f%bf%bf",
        "a=%f4%90%80%80",
        "a=%f5%80%80%80",
        "a=%c3",
        "a=%e2%82",
        "a=%ff",
        "a=1&a=1",
        "a=1&b=2&a=3",
        "a=1&%61=2",
        "exclude=1&exclude=2",
    };
    struct query query;

    for (size_t i = 0; i < COUNT(bad); i++) {
        char text[64];
        snprintf(text, sizeof(text), "%s", bad[i]);
        cr_expect(query_parse(text, NULL, &query) != NULL, "%s is taken", bad[i]);
    }
    char twice[] = "exclude=1&exclude=2";
    cr_assert(query_parse(twice, "exclude", &query) == NULL);
    cr_assert(query.count == 2);
}

Test(query, edges_of_utf8_and_of_the_count)
{
    static const char *const good[] = { "a=%c2%80", "a=%df%bf", "a=%e0%a0%80",
        "a=%ed%9f%bf", "a=%ee%80%80", "a=%ef%bf%bf", "a=%f0%90%80%80", "a=%f4%8f%bf%bf",
        "a=%20", "a=~" };
    struct query query;
    char text[512] = "";

    for (size_t i = 0; i < COUNT(good); i++) {
        snprintf(text, sizeof(text), "%s", good[i]);
        cr_expect(query_parse(text, NULL, &query) == NULL, "%s is refused", good[i]);
    }
    text[0] = '\0';
    for (int i = 0; i < QUERY_MAX; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "p%d&", i);
    cr_assert(query_parse(text, NULL, &query) == NULL);
    cr_assert(query.count == QUERY_MAX);
    text[0] = '\0';
    for (int i = 0; i <= QUERY_MAX; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "p%d&", i);
    cr_assert(query_parse(text, NULL, &query) != NULL);
}

Test(guard, hosts_and_origins)
{
    static const char *const names[] = { "Replica.Example", "nas" };
    static const struct row {
        const char *host, *origin;
        enum guard_verdict wanted;
    } rows[] = {
        { NULL, NULL, GUARD_PASS }, /* HTTP/1.0; head.c asks 1.1 for one */
        { "127.0.0.1:8080", NULL, GUARD_PASS },
        { "127.0.0.1", NULL, GUARD_PASS },
        { "192.0.2.7:80", NULL, GUARD_PASS },
        { "[::1]:8080", NULL, GUARD_PASS },
        { "[2001:db8::1]", NULL, GUARD_PASS },
        { "localhost", NULL, GUARD_PASS },
        { "LOCALHOST:1", NULL, GUARD_PASS },
        { "localhost.", NULL, GUARD_PASS },
        { "replica.example:8080", NULL, GUARD_PASS },
        { "NAS", NULL, GUARD_PASS },
        { "evil.example", NULL, GUARD_MISDIRECTED },
        { "nas.evil.example", NULL, GUARD_MISDIRECTED },
        { "xnas", NULL, GUARD_MISDIRECTED },
        { "localhost.evil.example", NULL, GUARD_MISDIRECTED },
        { "127.0.0.1.evil.example", NULL, GUARD_MISDIRECTED },
        { "0x7f.1", NULL, GUARD_MISDIRECTED },
        { "2130706433", NULL, GUARD_MISDIRECTED },
        { "127.1", NULL, GUARD_MISDIRECTED },
        { "", NULL, GUARD_MALFORMED },
        { ":80", NULL, GUARD_MALFORMED },
        { "127.0.0.1:", NULL, GUARD_MALFORMED },
        { "127.0.0.1:x", NULL, GUARD_MALFORMED },
        { "127.0.0.1:65536", NULL, GUARD_MALFORMED },
        { "127.0.0.1:123456", NULL, GUARD_MALFORMED },
        { "::1", NULL, GUARD_MALFORMED },
        { "[::1", NULL, GUARD_MALFORMED },
        { "[::1]x", NULL, GUARD_MALFORMED },
        { "[evil]", NULL, GUARD_MALFORMED },
        { "[127.0.0.1]", NULL, GUARD_MALFORMED },
        { "user@localhost", NULL, GUARD_MALFORMED },
        { "localhost/x", NULL, GUARD_MALFORMED },
        { "local host", NULL, GUARD_MALFORMED },
        { "127.0.0.1:8080", "http://127.0.0.1:8080", GUARD_PASS },
        { "127.0.0.1:80", "http://127.0.0.1", GUARD_PASS },
        { "127.0.0.1", "http://127.0.0.1:80", GUARD_PASS },
        { "[::1]:8080", "http://[0:0::1]:8080", GUARD_PASS },
        { "nas", "https://nas", GUARD_PASS }, /* TLS ended by a proxy */
        { "nas:443", "HTTPS://NAS", GUARD_PASS },
        { "nas", "https://nas:80", GUARD_FOREIGN_ORIGIN },
        { "127.0.0.1:8080", "http://127.0.0.1", GUARD_FOREIGN_ORIGIN },
        { "127.0.0.1:8080", "http://127.0.0.1:8081", GUARD_FOREIGN_ORIGIN },
        { "127.0.0.1:8080", "http://localhost:8080", GUARD_FOREIGN_ORIGIN },
        { "localhost:8080", "http://localhost:8080.evil.example",
                GUARD_FOREIGN_ORIGIN },
        { "localhost:8080", "http://localhost:8080@evil.example",
                GUARD_FOREIGN_ORIGIN },
        { "localhost", "http://evil.example", GUARD_FOREIGN_ORIGIN },
        { "localhost", "http://localhost.evil.example", GUARD_FOREIGN_ORIGIN },
        { "localhost", "null", GUARD_FOREIGN_ORIGIN },
        { "localhost", "", GUARD_FOREIGN_ORIGIN },
        { "localhost", "ftp://localhost", GUARD_FOREIGN_ORIGIN },
        { "localhost", "localhost", GUARD_FOREIGN_ORIGIN },
        { "localhost", "http://localhost/", GUARD_FOREIGN_ORIGIN },
        { NULL, "http://localhost", GUARD_FOREIGN_ORIGIN },
        { "evil.example", "http://evil.example", GUARD_MISDIRECTED },
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        enum guard_verdict found =
                guard_check(rows[i].host, rows[i].origin, names, COUNT(names));
        cr_expect(found == rows[i].wanted, "Host %s Origin %s: %d",
                rows[i].host ? rows[i].host : "-",
                rows[i].origin ? rows[i].origin : "-", found);
    }
}

Test(guard, a_host_of_any_length)
{
    char host[600];

    for (size_t length = 240; length < sizeof(host) - 1; length++) {
        memset(host, 'a', length);
        host[length] = '\0';
        cr_assert(guard_check(host, NULL, NULL, 0) != GUARD_PASS);
    }
}

Test(prefer, the_header)
{
    static const struct row {
        const char *line;
        int wait_s;
        bool async;
    } rows[] = {
        { "wait=10", 10, false },
        { "wait=0", 0, false },
        { "wait = 10", 10, false },
        { "wait=\"10\"", 10, false },
        { "respond-async", -1, true },
        { "respond-async, wait=10", 10, true },
        { "wait=10,respond-async", 10, true },
        { "WAIT=7, Respond-Async", 7, true },
        { "wait=61", 60, false },
        { "wait=99999999999999999999999999", 60, false },
        { "wait", -1, false },
        { "wait=", -1, false },
        { "wait=-1", -1, false },
        { "wait=1.5", -1, false },
        { "wait=x", -1, false },
        { "wait=5;a=b, respond-async;x", 5, true },
        { "return=minimal; foo=\"some parameter\"", -1, false },
        { "handling=lenient, wait=3", 3, false },
        { "wait=3, wait=9", 3, false },
        { ",,, ,wait=4,", 4, false },
        { "waiting=4", -1, false },
        { "", -1, false },
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct prefer prefer = { -1, false };
        prefer_parse(rows[i].line, &prefer);
        cr_expect(prefer.wait_s == rows[i].wait_s, "%s: wait %d", rows[i].line,
                prefer.wait_s);
        cr_expect(prefer.respond_async == rows[i].async, "%s: async", rows[i].line);
    }
}

Test(idempotency, keys)
{
    static const struct row {
        const char *value, *key; /* NULL: refused */
    } rows[] = {
        { "abc", "abc" },
        { "\"abc\"", "abc" },
        { "\"a\\\"b\\\\c\"", "a\"b\\c" },
        { "abc  ", "abc" },
        { "8e03978e-40d5-43e8-bc93-6894a57f9324",
                "8e03978e-40d5-43e8-bc93-6894a57f9324" },
        { "a\\b", "a\\b" },
        { "", NULL },
        { "\"\"", NULL },
        { "\"", NULL },
        { "\"abc", NULL },
        { "a\"bc", NULL },
        { "\"a\"b\"", NULL },
        { "\"a\\\"", NULL },
        { "\"a\\x\"", NULL },
        { "a\tb", NULL },
        { "\xc3\xa9", NULL },
    };
    char key[IDEMPOTENCY_KEY_MAX + 1], longest[300];

    for (size_t i = 0; i < COUNT(rows); i++) {
        bool taken = idempotency_key_parse(rows[i].value, key);
        cr_expect(taken == (rows[i].key != NULL), "%s", rows[i].value);
        if (taken && rows[i].key)
            cr_expect_str_eq(key, rows[i].key);
    }
    memset(longest, 'k', sizeof(longest));
    longest[IDEMPOTENCY_KEY_MAX] = '\0';
    cr_assert(idempotency_key_parse(longest, key));
    longest[IDEMPOTENCY_KEY_MAX] = 'k';
    longest[IDEMPOTENCY_KEY_MAX + 1] = '\0';
    cr_assert(!idempotency_key_parse(longest, key));
}

Test(body, media_types)
{
    static const struct row {
        const char *value;
        bool taken;
    } rows[] = {
        { "application/json", true },
        { "Application/JSON", true },
        { " application/json ", true },
        { "application/json;charset=utf-8", true },
        { "application/json ; charset=UTF-8", true },
        { "application/json; charset=\"utf-8\"", true },
        { "application/json; profile=x; charset=utf-8", true },
        { "application/json;", true },
        { "application/json; charset=latin1", false },
        { "application/json; charset=utf-8x", false },
        { "application/json; charset=", false },
        { "application/jsonx", false },
        { "application/json x", false },
        { "application/problem+json", false },
        { "text/plain", false },
        { "", false },
    };

    for (size_t i = 0; i < COUNT(rows); i++)
        cr_expect(media_type_is(rows[i].value, "application/json") == rows[i].taken,
                "%s", rows[i].value);
}

Test(route, every_row_is_found_and_only_by_its_own_path)
{
    for (size_t i = 0; i < route_count; i++) {
        char path[128];
        const char *hole = strchr(routes[i].template, '{');

        snprintf(path, sizeof(path), "%.*s%s%s",
                hole ? (int)(hole - routes[i].template) : 127, routes[i].template,
                hole ? "0193" : "", hole ? strchr(hole, '}') + 1 : "");
        struct route_match match = route_find(routes[i].method, path);
        cr_assert(match.route == &routes[i], "%s is not its row", path);
        cr_assert(match.id_length == (hole ? 4u : 0u));
        strcat(path, "/");
        cr_assert(route_find(routes[i].method, path).family == NULL, "%s", path);
    }
    cr_assert(route_find(HTTP_HEAD, "/jobs").route->call == API_JOBS_LIST);
    cr_assert(route_find(HTTP_OTHER, "/jobs").route == NULL);
    cr_assert(route_find(HTTP_OTHER, "/jobs").family != NULL);
}

Test(route, unknown_paths)
{
    static const char *const paths[] = { "/", "", "//", "/job", "/jobsx", "/jobs/",
        "/JOBS", "/jobs//errors", "/jobs/a/b", "/jobs/a/errors/b",
        "/replicas/a/attachx", "/openapi.yaml", "jobs", "*", "/../jobs", "/problems/" };

    for (size_t i = 0; i < COUNT(paths); i++)
        cr_expect(route_find(HTTP_GET, paths[i]).family == NULL, "%s", paths[i]);
}

Test(route, allow_names_what_the_path_takes)
{
    char text[64];

    route_allow("/replicas/{id}", text);
    cr_assert_str_eq(text, "GET, HEAD, PATCH, DELETE");
    route_allow("/replicas/{id}/attach", text);
    cr_assert_str_eq(text, "POST");
    for (size_t i = 0; i < route_count; i++) {
        route_allow(routes[i].template, text);
        cr_assert(strlen(text) < sizeof(text) &&
                strstr(text, http_method_name(routes[i].method)));
    }
}

Test(status, every_verdict_has_a_number_and_every_slug_a_page)
{
    static const char *const slugs[] = {
#define VERDICT(symbol, slug, title) slug,
#include "api/verdicts.tbl.h"
#undef VERDICT
    };

    for (enum api_verdict verdict = 0; verdict < API_VERDICT_COUNT; verdict++) {
        int status = status_of(verdict);
        cr_assert(status >= 200 && status < 600);
        cr_assert((status < 400) == (slugs[verdict][0] == '\0'), "%d", verdict);
        if (slugs[verdict][0])
            cr_assert(problem_page_find(slugs[verdict]), "no page for %s",
                    slugs[verdict]);
    }
    for (size_t i = 0; i < problem_page_count; i++)
        cr_assert(problem_page_find(problem_pages[i].slug) == &problem_pages[i]);
}

Test(address, spellings)
{
    static const struct row {
        const char *text;
        bool taken, loopback;
    } rows[] = {
        { "127.0.0.1:8080", true, true },
        { "127.9.9.9:0", true, true },
        { "0.0.0.0:80", true, false },
        { "192.0.2.1:65535", true, false },
        { "[::1]:0", true, true },
        { "[::]:80", true, false },
        { "[::ffff:127.0.0.1]:80", true, true },
        { "[::ffff:10.0.0.1]:80", true, false },
        { "127.0.0.1", false, false },
        { "127.0.0.1:", false, false },
        { "127.0.0.1:65536", false, false },
        { "127.0.0.1:080808", false, false },
        { "127.0.0.1:+80", false, false },
        { "127.0.0.1: 80", false, false },
        { "localhost:80", false, false },
        { ":80", false, false },
        { "::1:80", false, false },
        { "[::1]80", false, false },
        { "[::1", false, false },
        { "[fe80::1%lo]:80", false, false },
        { "1.2.3:80", false, false },
        { "", false, false },
    };
    struct endpoint address;
    char text[ENDPOINT_TEXT];

    for (size_t i = 0; i < COUNT(rows); i++) {
        bool taken = endpoint_parse(rows[i].text, &address);
        cr_expect(taken == rows[i].taken, "%s", rows[i].text);
        if (taken && rows[i].taken)
            cr_expect(endpoint_is_loopback(&address) == rows[i].loopback, "%s",
                    rows[i].text);
    }
    cr_assert(endpoint_parse("[2001:db8::0:1]:81", &address));
    endpoint_format((struct sockaddr *)&address.storage, text);
    cr_assert_str_eq(text, "[2001:db8::1]:81");
    endpoint_format_host((struct sockaddr *)&address.storage, text);
    cr_assert_str_eq(text, "2001:db8::1");
}

Test(text, grows_and_stays_terminated)
{
    struct text text = { 0 };

    for (int i = 0; i < 3000; i++)
        text_print(&text, "%04d", i);
    text_add(&text, "end", 3);
    cr_assert(!text.failed && text.length == 12003 && strlen(text.bytes) == 12003);
    cr_assert(strcmp(text.bytes + 11996, "2999end") == 0);
    text_release(&text);
    cr_assert(text.bytes == NULL && text.length == 0);
}

/* tests/support/http.h - an HTTP client for tests: libcurl for the honest requests, a bare
 * socket for the others.
 *
 * When $REPLICAD_RECORD names a file, http_send() appends every exchange to it, one JSON
 * object a line: {"method","path","status","headers":{...},"request","body"}; the bodies are
 * texts (null: none). The OpenAPI tests validate them.
 */
#ifndef TESTS_SUPPORT_HTTP_H
#define TESTS_SUPPORT_HTTP_H

#include <stdbool.h>
#include <stddef.h>

/** Released with http_answer_release(). */
struct http_answer {
    long status; /* 0: no answer */
    char *headers; /* as they came, CRLF lines */
    size_t headers_length;
    char *body; /* NUL-terminated, "" when empty */
    size_t length;
    char why[256]; /* libcurl's words when there is no answer */
};

enum { HTTP_HEADER_TEXT = 512 };

/**
 * One request to @address ("127.0.0.1:8080"). @body NULL: none; with one, Content-Type is
 * application/json unless @headers names another. @headers: NULL-terminated lines "Name:
 * value", or NULL. A new connection each time; ends after 120 s. Returns the status, 0 when
 * there was no answer.
 */
long http_send(const char *address, const char *method, const char *path,
        const char *body, const char *const *headers, struct http_answer *answer);

/** The value of the first header @name, "" when there is none. */
const char *http_header(const struct http_answer *answer, const char *name,
        char value[HTTP_HEADER_TEXT]);

void http_answer_release(struct http_answer *answer);

/** Connected socket to "ADDR:PORT" (also "[::1]:80"), -1 on failure. */
int raw_open(const char *address);

/** All of it, however slow the peer; false when the connection ended. */
bool raw_send(int fd, const char *bytes, size_t length);

/**
 * Read until @needle is there (NULL: until the peer closes), at most @room - 1 bytes and
 * @ms milliseconds. @text is NUL-terminated. Returns bytes; *@ended (may be NULL): the peer
 * closed or reset.
 */
size_t raw_read(
        int fd, const char *needle, int ms, char *text, size_t room, bool *ended);

#endif

#include "tests/support/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "replica/base/scope.h"

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_begin(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static size_t take(char **text, size_t *length, const char *bytes, size_t n)
{
    char *grown = realloc(*text, *length + n + 1);

    if (!grown)
        return 0;
    memcpy(grown + *length, bytes, n);
    *text = grown;
    *length += n;
    grown[*length] = '\0';
    return n;
}

static size_t take_body(char *bytes, size_t size, size_t count, void *context)
{
    struct http_answer *answer = context;

    return take(&answer->body, &answer->length, bytes, size * count);
}

static size_t take_header(char *bytes, size_t size, size_t count, void *context)
{
    struct http_answer *answer = context;

    if (size * count >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        answer->headers_length = 0; /* what came before was "100 Continue" */
    }
    return take(&answer->headers, &answer->headers_length, bytes, size * count);
}

static void json_put(FILE *out, const char *text, size_t length)
{
    if (!text) {
        fputs("null", out);
        return;
    }
    fputc('"', out);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

/* Members "Name":"value" of the header lines. */
static void headers_put(FILE *out, const char *headers)
{
    const char *comma = "";

    while (headers && *headers) {
        size_t line = strcspn(headers, "\r\n"), name = strcspn(headers, ":\r\n");
        const char *value = headers + name + 1;
        if (headers[name] == ':' && strncmp(headers, "HTTP/", 5) != 0) {
            value += strspn(value, " \t");
            fputs(comma, out);
            json_put(out, headers, name);
            fputc(':', out);
            json_put(out, value, line - (size_t)(value - headers));
            comma = ",";
        }
        headers += line;
        headers += strspn(headers, "\r\n");
    }
}

/* One write(2) a line, so that tests that run at once do not mix theirs. */
static void record(const char *method, const char *path, const char *request,
        const struct http_answer *answer)
{
    const char *file = getenv("REPLICAD_RECORD");
    scoped_free char *line = NULL;
    scoped_fd int fd = -1;
    size_t length = 0;
    FILE *out;

    if (!file || !*file || !(out = open_memstream(&line, &length)))
        return;
    fputs("{\"method\":", out);
    json_put(out, method, strlen(method));
    fputs(",\"path\":", out);
    json_put(out, path, strlen(path));
    fprintf(out, ",\"status\":%ld,\"headers\":{", answer->status);
    headers_put(out, answer->headers);
    fputs("},\"request\":", out);
    json_put(out, request, request ? strlen(request) : 0);
    fputs(",\"body\":", out);
    json_put(out, answer->body, answer->length);
    fputs("}\n", out);
    fclose(out);
    fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, line, length) != (ssize_t)length)
        fprintf(stderr, "cannot record to %s\n", file);
}

static struct curl_slist *headers_list(const char *body, const char *const *headers)
{
    bool typed = false;
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");

    for (; headers && *headers; headers++) {
        typed = typed || strncasecmp(*headers, "Content-Type:", 13) == 0;
        list = curl_slist_append(list, *headers);
    }
    if (body && !typed)
        list = curl_slist_append(list, "Content-Type: application/json");
    else if (!body)
        list = curl_slist_append(list, "Content-Type:");
    return list;
}

long http_send(const char *address, const char *method, const char *path,
        const char *body, const char *const *headers, struct http_answer *answer)
{
    struct curl_slist *list = headers_list(body, headers);
    char url[2048], why[CURL_ERROR_SIZE] = "";
    CURLcode result = CURLE_URL_MALFORMAT;
    CURL *curl;

    *answer = (struct http_answer){ 0 };
    pthread_once(&curl_once, curl_begin);
    curl = curl_easy_init();
    if (snprintf(url, sizeof(url), "http://%s%s", address, path) < (int)sizeof(url)) {
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
        curl_easy_setopt(curl, CURLOPT_NOBODY, strcmp(method, "HEAD") == 0 ? 1L : 0L);
        if (body) {
            curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
            curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        }
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
        curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
        curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer);
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
        curl_easy_setopt(curl, CURLOPT_TIMEOUT, 120L);
        result = curl_easy_perform(curl);
    }
    if (result == CURLE_OK)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->status);
    else
        snprintf(answer->why, sizeof(answer->why), "%s",
                why[0] ? why : curl_easy_strerror(result));
    if (!answer->body)
        answer->body = strdup("");
    curl_slist_free_all(list);
    curl_easy_cleanup(curl);
    if (answer->status != 0)
        record(method, path, body, answer);
    return answer->status;
}

const char *http_header(const struct http_answer *answer, const char *name,
        char value[HTTP_HEADER_TEXT])
{
    const char *line = answer->headers;
    size_t length = strlen(name);

    value[0] = '\0';
    while (line && *line) {
        size_t end = strcspn(line, "\r\n");
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            const char *start = line + length + 1;
            start += strspn(start, " \t");
            snprintf(value, HTTP_HEADER_TEXT, "%.*s", (int)(line + end - start), start);
            return value;
        }
        line += end;
        line += strspn(line, "\r\n");
    }
    return value;
}

void http_answer_release(struct http_answer *answer)
{
    free(answer->headers);
    free(answer->body);
    *answer = (struct http_answer){ 0 };
}

int raw_open(const char *address)
{
    struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
    struct sockaddr_in four = { .sin_family = AF_INET };
    bool bracket = *address == '[';
    char host[64];
    const char *end = strrchr(address, ':');
    int fd, result;

    if (!end || end - address >= (ptrdiff_t)sizeof(host))
        return -1;
    snprintf(host, sizeof(host), "%.*s", (int)(end - address) - (bracket ? 2 : 0),
            address + (bracket ? 1 : 0));
    four.sin_port = six.sin6_port = htons((in_port_t)atoi(end + 1));
    if (inet_pton(AF_INET, host, &four.sin_addr) != 1 &&
            inet_pton(AF_INET6, host, &six.sin6_addr) != 1)
        return -1;
    fd = socket(bracket ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    result = bracket ? connect(fd, (struct sockaddr *)&six, sizeof(six))
                     : connect(fd, (struct sockaddr *)&four, sizeof(four));
    if (result == 0)
        return fd;
    close(fd);
    return -1;
}

bool raw_send(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

size_t raw_read(
        int fd, const char *needle, int ms, char *text, size_t room, bool *ended)
{
    struct instant due = instant_add_ms(clock_monotonic(), (uint64_t)ms);
    size_t length = 0;

    if (ended)
        *ended = false;
    text[0] = '\0';
    while (length + 1 < room && !(needle && strstr(text, needle))) {
        struct pollfd wait = { .fd = fd, .events = POLLIN };
        uint64_t left = instant_ms_until(clock_monotonic(), due);
        ssize_t n;

        if (left == 0 || poll(&wait, 1, (int)left) == 0)
            break;
        n = recv(fd, text + length, room - 1 - length, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (ended)
                *ended = true;
            break;
        }
        length += (size_t)n;
        text[length] = '\0';
    }
    return length;
}

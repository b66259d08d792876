/* A few lines of HTTP of our own: containers have no shell and no curl. */
#include "server/probe.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "replica/base/clock.h"
#include "replica/base/scope.h"
#include "server/http/endpoint.h"

static int complain(const char *address, const char *why)
{
    (void)fprintf(stderr, "replicad: %s: %s\n", address, why);
    return 1;
}

/* Waits for @events until @due. 0, or a positive errno. */
static int socket_wait(int fd, short events, struct instant due)
{
    struct pollfd wait = { .fd = fd, .events = events };
    uint64_t left = instant_ms_until(clock_monotonic(), due);
    int result = left == 0 ? 0 : poll(&wait, 1, (int)left);

    return result > 0 ? 0 : result == 0 ? ETIMEDOUT : errno;
}

static int socket_connect(int fd, const struct endpoint *address, struct instant due)
{
    socklen_t size = sizeof(int);
    int error = 0;

    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    error = socket_wait(fd, POLLOUT, due);
    if (error == 0)
        (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

/* The first bytes of the answer, as many as the status line's start needs. */
static int status_read(int fd, struct instant due, char line[13])
{
    size_t length = 0;

    while (length < 12) {
        int error = socket_wait(fd, POLLIN, due);
        ssize_t n;

        if (error != 0)
            return error;
        n = recv(fd, line + length, 12 - length, 0);
        if (n == 0)
            return ECONNRESET;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return errno;
        if (n > 0)
            length += (size_t)n;
    }
    line[12] = '\0';
    return 0;
}

int probe_ready(const char *text, unsigned ms)
{
    static const char request[] = "GET /readyz HTTP/1.1\r\n"
                                  "Host: localhost\r\n"
                                  "Connection: close\r\n\r\n";
    struct instant due = instant_add_ms(clock_monotonic(), ms);
    struct endpoint address;
    scoped_fd int fd = -1;
    char line[13] = "";
    int error;

    if (!endpoint_parse(text, &address))
        return complain(text, "a numeric ADDR:PORT is wanted");
    fd = socket(
            address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    error = fd < 0 ? errno : socket_connect(fd, &address, due);
    if (error == 0 && send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
        error = errno;
    if (error == 0)
        error = status_read(fd, due, line);
    if (error != 0)
        return complain(text, strerror(error));
    if (strncmp(line, "HTTP/1.1 200", 12) != 0)
        return complain(text, "not ready");
    return 0;
}

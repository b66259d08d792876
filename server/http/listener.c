/* The daemons: one an API address, one for health with threads of its own, so that probes
 * are answered while every API connection is held.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "replica/base/log.h"
#include "server/http/exchange.h"

enum {
    STACK = 256 * 1024,
    CONNECTION_MEMORY = 16 * 1024, /* cleared after each request */
    BACKLOG = 511,
    SURPLUS = 32, /* connections over the limit that still get their 503 */
    HEALTH_LIMIT = 64,
    SURPLUS_MS = 2000, /* what a surplus connection gets to ask */
    HEALTH_S = 5, /* probes are short: who holds a place there is cut early */
};

__attribute__((format(printf, 2, 0))) static void library_log(
        void *context, const char *format, va_list arguments)
{
    char line[256];
    int length = vsnprintf(line, sizeof(line), format, arguments);

    (void)context;
    if (length > 0) {
        line[strcspn(line, "\n")] = '\0';
        log_plain(LOG_DEBUG, "http-library", "%s", line);
    }
}

static void connection_notify(void *context, struct MHD_Connection *connection,
        void **slot, enum MHD_ConnectionNotificationCode code)
{
    struct listener *listener = context;
    struct http *http = listener->http;
    unsigned due_ms = listener->idle_s * 1000 + listener->deadline_ms;
    const union MHD_ConnectionInfo *info, *client;
    struct guest *guest;

    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*slot)
            guest_leave(*slot);
        *slot = NULL;
        return;
    }
    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!info)
        return;
    guest = guest_enter(&http->guests, info->connect_fd, !listener->health, due_ms);
    *slot = guest;
    if (!guest)
        return;
    if (guest->surplus)
        guest_hasten(guest, SURPLUS_MS);
    client = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    endpoint_format_host(client ? client->client_addr : NULL, guest->caller);
}

static void address_learn(struct listener *listener)
{
    const union MHD_DaemonInfo *info =
            MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_LISTEN_FD);
    struct sockaddr_storage bound = { 0 };
    socklen_t length = sizeof(bound);

    if (info)
        (void)getsockname(info->listen_fd, (struct sockaddr *)&bound, &length);
    endpoint_format((struct sockaddr *)&bound, listener->address);
}

static int listener_start(
        struct listener *listener, const char *text, struct fault *fault)
{
    const struct http *http = listener->http;
    unsigned limit =
            listener->health ? HEALTH_LIMIT : http->options.connections + SURPLUS;
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
            MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    struct endpoint address;

    if (!endpoint_parse(text, &address))
        return fault_set(fault, -EINVAL, "%.60s is no numeric ADDR:PORT", text);
    if (address.storage.ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    errno = 0;
    listener->daemon = MHD_start_daemon(flags, 0, NULL, NULL, exchange_step, listener,
            MHD_OPTION_EXTERNAL_LOGGER, library_log, NULL, MHD_OPTION_SOCK_ADDR,
            &address.storage, MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK,
            MHD_OPTION_CONNECTION_LIMIT, limit, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
            (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, listener->idle_s,
            MHD_OPTION_LISTEN_BACKLOG_SIZE, (unsigned)BACKLOG,
            MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_URI_LOG_CALLBACK,
            exchange_begin, listener, MHD_OPTION_NOTIFY_COMPLETED, exchange_end,
            listener, MHD_OPTION_NOTIFY_CONNECTION, connection_notify, listener,
            MHD_OPTION_END);
    if (!listener->daemon)
        return fault_set(fault, errno ? -errno : -EADDRINUSE,
                "cannot listen on %.60s: %s", text,
                strerror(errno ? errno : EADDRINUSE));
    address_learn(listener);
    return 0;
}

static void options_settle(struct http_options *options)
{
    static const unsigned deadline_ms = 30 * 1000, idle_s = 15,
                          keep_alive_ms = 15 * 1000;

    options->deadline_ms = options->deadline_ms ? options->deadline_ms : deadline_ms;
    options->idle_s = options->idle_s ? options->idle_s : idle_s;
    options->keep_alive_ms =
            options->keep_alive_ms ? options->keep_alive_ms : keep_alive_ms;
    options->connections = options->connections ? options->connections : 256;
    options->waiters = options->waiters ? options->waiters : 64;
}

static bool hosts_copy(struct http *http)
{
    size_t count = http->options.host_count;

    http->hosts = calloc(count + 1, sizeof(*http->hosts));
    for (size_t i = 0; http->hosts && i < count; i++)
        if (!(http->hosts[i] = strdup(http->options.hosts[i])))
            return false;
    http->options.hosts = (const char *const *)http->hosts;
    return http->hosts != NULL;
}

static struct http *http_allocate(
        struct service *service, const struct http_options *options)
{
    struct http *http = calloc(1, sizeof(*http));

    if (!http)
        return NULL;
    http->service = service;
    http->options = *options;
    options_settle(&http->options);
    pthread_mutex_init(&http->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&http->idle, &attributes);
    pthread_condattr_destroy(&attributes);
    http->figures = figures_create();
    http->listeners = calloc(options->address_count + 1, sizeof(*http->listeners));
    if (http->figures && http->listeners && hosts_copy(http))
        return http;
    http_stop(http);
    return NULL;
}

static int listener_add(
        struct http *http, const char *endpoint, bool health, struct fault *fault)
{
    struct listener *listener = &http->listeners[http->listener_count++];

    listener->http = http;
    listener->health = health;
    listener->deadline_ms = http->options.deadline_ms;
    listener->idle_s = http->options.idle_s;
    if (health && listener->deadline_ms > HEALTH_S * 1000)
        listener->deadline_ms = HEALTH_S * 1000;
    if (health && listener->idle_s > HEALTH_S)
        listener->idle_s = HEALTH_S;
    return listener_start(listener, endpoint, fault);
}

static int listeners_start(
        struct http *http, const struct http_options *options, struct fault *fault)
{
    int result = 0;

    for (size_t i = 0; result == 0 && i < options->address_count; i++)
        result = listener_add(http, options->addresses[i], false, fault);
    if (result == 0 && options->health)
        result = listener_add(http, options->health, true, fault);
    return result;
}

struct http *http_start(struct service *service, const struct http_options *options,
        struct fault *fault)
{
    struct http *http = http_allocate(service, options);
    int result;

    if (!http) {
        (void)fault_set(fault, -ENOMEM, "out of memory");
        return NULL;
    }
    result = guests_start(&http->guests, http->options.connections);
    if (result != 0) {
        (void)fault_set(fault, result, "cannot start a thread: %s", strerror(-result));
        http_stop(http);
        return NULL;
    }
    http->reaping = true;
    if (listeners_start(http, options, fault) == 0)
        return http;
    http_stop(http);
    return NULL;
}

const char *http_address(const struct http *http, size_t index)
{
    for (size_t i = 0; i < http->listener_count; i++)
        if (!http->listeners[i].health && index-- == 0)
            return http->listeners[i].address;
    return NULL;
}

const char *http_health_address(const struct http *http)
{
    for (size_t i = 0; i < http->listener_count; i++)
        if (http->listeners[i].health)
            return http->listeners[i].address;
    return NULL;
}

static void listener_quiesce(struct listener *listener)
{
    MHD_socket fd;

    if (listener->quiet || !listener->daemon)
        return;
    listener->quiet = true;
    fd = MHD_quiesce_daemon(listener->daemon);
    if (fd != MHD_INVALID_SOCKET)
        (void)close(fd);
}

void http_drain(struct http *http)
{
    atomic_store(&http->draining, true);
}

void http_quiesce(struct http *http, unsigned ms)
{
    struct timespec until = deadline_in(ms);
    int result = 0;

    http_drain(http);
    for (size_t i = 0; i < http->listener_count; i++)
        if (!http->listeners[i].health)
            listener_quiesce(&http->listeners[i]);
    pthread_mutex_lock(&http->lock);
    atomic_store(&http->quiescing, true);
    while (atomic_load(&http->busy) > 0 && result == 0)
        result = pthread_cond_timedwait(&http->idle, &http->lock, &until);
    pthread_mutex_unlock(&http->lock);
}

void http_stop(struct http *http)
{
    if (!http)
        return;
    atomic_store(&http->draining, true);
    for (size_t i = 0; i < http->listener_count; i++) /* health is the last of them */
        if (http->listeners[i].daemon)
            MHD_stop_daemon(http->listeners[i].daemon);
    if (http->reaping)
        guests_stop(&http->guests);
    for (size_t i = 0; http->hosts && i < http->options.host_count; i++)
        free(http->hosts[i]);
    free(http->hosts);
    free(http->listeners);
    figures_destroy(http->figures);
    pthread_cond_destroy(&http->idle);
    pthread_mutex_destroy(&http->lock);
    free(http);
}

/* Listening sockets and who comes in by them. All on the first loop, but opening. */
#include "server/iscsi/portal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/entry.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/target_inside.h"

enum {
    BACKLOG = 128,
    ACCEPTS = 4, /* a turn, of each portal: who is in already is heard in between */
    REFUSALS = 16, /* the same: they cost little, and others wait behind them */
    REST_MS = 10, /* of a portal that refused somebody: see portal_rest() */
    LOGINS_MAX = 32, /* connections before the end of their login */
    LOGINS_ADDRESS_MAX = 4,
    KEEPALIVE_S = 15, /* of silence, then as often again, then the connection is lost */
};

static void address_text(
        const struct sockaddr_storage *address, char text[64], bool port)
{
    char host[NI_MAXHOST] = "?", service[NI_MAXSERV] = "?";
    bool v6 = address->ss_family == AF_INET6;

    (void)getnameinfo((const struct sockaddr *)address, sizeof *address, host,
            sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV);
    if (!port)
        (void)snprintf(text, 64, "%.60s", host);
    else if (v6)
        (void)snprintf(text, 64, "[%.50s]:%.7s", host, service);
    else
        (void)snprintf(text, 64, "%.50s:%.7s", host, service);
}

static socklen_t address_length(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                          : sizeof(struct sockaddr_in);
}

static int listening_socket(const struct sockaddr_storage *address)
{
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)address, address_length(address)) < 0 ||
            listen(fd, BACKLOG) < 0) {
        int error = -errno;
        (void)close(fd);
        return error;
    }
    return fd;
}

int portal_open(struct iscsi_target *target, const struct sockaddr_storage *address,
        struct fault *fault)
{
    struct portal *portal = &target->portals[target->portal_count];
    socklen_t length = sizeof portal->address;
    char text[64];
    int fd = listening_socket(address);

    address_text(address, text, true);
    if (fd < 0)
        return fault_set(
                fault, fd, "cannot listen on %s: %s", text, strerrordesc_np(-fd));
    portal->target = target;
    portal->fd = fd;
    (void)getsockname(fd, (struct sockaddr *)&portal->address, &length);
    target->portal_count++;
    return 0;
}

/* -- coming in ----------------------------------------------------------------------------- */

static void socket_prepare(int fd)
{
    int on = 1, keepalive = KEEPALIVE_S, count = 1;
    unsigned timeout = STUCK_MS;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive, sizeof keepalive);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive, sizeof keepalive);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

static unsigned logins_from(const struct hall *hall, const char *host)
{
    unsigned count = 0;

    for (const struct connection *other = hall->connections; other; other = other->next)
        if (other->entry && other->entry->counted && strcmp(other->host, host) == 0)
            count++;
    return count;
}

static const char *refuse_why(const struct iscsi_target *target, const char *host)
{
    if (target->logins >= LOGINS_MAX)
        return "too many logins at once";
    if (logins_from(&target->halls[0], host) >= LOGINS_ADDRESS_MAX)
        return "too many logins at once from there";
    return NULL;
}

static void guest_enter(
        struct iscsi_target *target, int fd, const struct sockaddr_storage *peer)
{
    struct connection *connection = connection_create(&target->halls[0], fd);
    struct sockaddr_storage own = { 0 };
    socklen_t length = sizeof own;

    if (!connection) {
        (void)close(fd);
        return;
    }
    (void)getsockname(fd, (struct sockaddr *)&own, &length);
    address_text(peer, connection->address, true);
    address_text(peer, connection->host, false);
    address_text(&own, connection->portal, true);
    if (!entry_start(connection)) {
        connection_drop(connection, "no memory");
        return;
    }
    connection->entry->counted = true;
    target->logins++;
    connection_watch(connection);
}

/* At most a line a second: a flood is not to fill a disk. */
static void refusal_tell(struct portal *portal, const char *host, const char *why)
{
    struct instant now = loop_now(portal->target->halls[0].loop);

    portal->untold++;
    if (portal->told.ns && instant_ms_until(portal->told, now) < 1000)
        return;
    log_plain(LOG_WARN, "iscsi-connection-refused", "%s: %s (%u since the last line)",
            host, why, portal->untold);
    portal->told = now;
    portal->untold = 0;
}

/* A refusal costs us as much as it costs who asks for it, and a flood of them would take the
   CPU from those who are in. So a thousand or two a second must do: the rest waits in the
   backlog, and when that is full, in the kernel of who asks so often. Others wait with it then:
   a tenth of a second in the backlog, longer where their SYN finds it full. */
static void portal_rest(struct portal *portal)
{
    struct loop *loop = portal->target->halls[0].loop;

    loop_watch_stop(loop, &portal->watch);
    loop_timer_start(loop, &portal->rest, REST_MS);
}

static void on_rested(struct loop_timer *timer)
{
    struct portal *portal = container_of(timer, struct portal, rest);
    struct loop *loop = portal->target->halls[0].loop;

    if (loop_watch_set(loop, &portal->watch, portal->fd, LOOP_READABLE) < 0)
        loop_timer_start(loop, timer, REST_MS);
}

static bool guest_accept(struct portal *portal)
{
    struct sockaddr_storage peer = { 0 };
    socklen_t length = sizeof peer;
    int fd = accept4(portal->fd, (struct sockaddr *)&peer, &length,
            SOCK_NONBLOCK | SOCK_CLOEXEC);
    const char *why;
    char host[64];

    if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
        return errno != EAGAIN;
    if (fd < 0) { /* no descriptor, no memory: asking at once again would not help */
        portal->refused++;
        return false;
    }
    address_text(&peer, host, false);
    why = refuse_why(portal->target, host);
    if (why) { /* without a word: a flood is not to be answered */
        atomic_fetch_add_explicit(
                &portal->target->logins_refused, 1, memory_order_relaxed);
        refusal_tell(portal, host, why);
        (void)close(fd);
        portal->refused++;
        return true;
    }
    socket_prepare(fd);
    guest_enter(portal->target, fd, &peer);
    return true;
}

static void on_guest(struct loop_watch *watch, unsigned events)
{
    struct portal *portal = container_of(watch, struct portal, watch);

    (void)events;
    portal->refused = 0;
    for (unsigned i = 0; i < ACCEPTS + portal->refused && portal->refused < REFUSALS &&
            guest_accept(portal);
            i++)
        ;
    if (portal->refused)
        portal_rest(portal);
}

int portals_watch(struct iscsi_target *target)
{
    int result = 0;

    for (size_t i = 0; i < target->portal_count && result == 0; i++) {
        struct portal *portal = &target->portals[i];
        portal->watch.ready = on_guest;
        portal->rest.fire = on_rested;
        result = loop_watch_set(
                target->halls[0].loop, &portal->watch, portal->fd, LOOP_READABLE);
    }
    return result;
}

void portals_unwatch(struct iscsi_target *target)
{
    struct loop *loop = target->halls[0].loop;

    for (size_t i = 0; i < target->portal_count; i++) {
        loop_watch_stop(loop, &target->portals[i].watch);
        loop_timer_stop(loop, &target->portals[i].rest);
    }
}

void portals_close(struct iscsi_target *target)
{
    for (size_t i = 0; i < target->portal_count; i++)
        (void)close(target->portals[i].fd);
    target->portal_count = 0;
}

/* How long a peer may take its answers: time is given for the bytes that it takes, by rate.
 * One connection by hand, on a simulated loop, before a kernel that takes what it is told. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/loop/sim.h"
#include "server/iscsi/connection.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/session.h"
#include "server/iscsi/target_inside.h"
#include "tests/support/expect.h"

enum {
    PIECE = 1 << 20, /* bytes of each answer */
    QUIET_MS = 1 << 30, /* no ping in all this time */
    LATE_MS = 2 * TICK_MS /* by which it is noticed */
};

/* -- the kernel, and the end --------------------------------------------------------------- */

static size_t room; /* bytes that it takes */
static bool dropped;

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    size_t length = 0;

    (void)fd, (void)flags;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        length += message->msg_iov[i].iov_len;
    length = min_u64(length, room);
    room -= length;
    if (length)
        return (ssize_t)length;
    errno = EAGAIN;
    return -1;
}

ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags)
{
    struct iovec iov = { (void *)(uintptr_t)bytes, length };

    return __wrap_sendmsg(
            fd, &(struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 }, flags);
}

void __wrap_connection_drop(struct connection *connection, const char *why);
void __wrap_connection_drop(struct connection *connection, const char *why)
{
    (void)connection;
    expect_str(why, "it does not take its answers");
    dropped = true;
}

/* -- one connection ------------------------------------------------------------------------ */

struct scene {
    struct iscsi_target target;
    struct hall hall;
    struct session session;
    struct connection connection;
    struct loop_timer peer, end;
    size_t takes; /* by the peer, each time */
    unsigned every_ms;
    bool over;
};

static uint8_t answer[PIECE];

static void peer_takes(struct loop_timer *timer)
{
    struct scene *scene = container_of(timer, struct scene, peer);

    room += scene->takes;
    send_flush(&scene->connection);
    loop_timer_start(scene->hall.loop, timer, scene->every_ms);
}

static void scene_over(struct loop_timer *timer)
{
    container_of(timer, struct scene, end)->over = true;
}

/* Logged in, with answers that fill the kernel. */
static struct scene *scene_start(void)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    struct connection *connection;
    struct loop *loop = loop_sim_create(1);

    expect(scene && loop);
    connection = &scene->connection;
    scene->target.stuck_ms = STUCK_MS;
    scene->target.ping_ms = QUIET_MS;
    expect(hall_start(&scene->hall, &scene->target, loop, PIECE));
    scene->hall.connections = connection;
    scene->session.connection = connection;
    *connection = (struct connection){ .target = &scene->target,
        .hall = &scene->hall,
        .session = &scene->session,
        .state = CONNECTION_OPEN,
        .watched =
                LOOP_READABLE | LOOP_WRITABLE }; /* a simulated loop watches nothing */
    expect(send_start(connection));
    for (connection->out.count = 0; connection->out.count < FRAMES;
            connection->out.count++)
        connection->out.frames[connection->out.count] =
                (struct frame){ .data = answer, .length = PIECE };
    scene->peer.fire = peer_takes;
    scene->end.fire = scene_over;
    dropped = false;
    room = 1;
    send_flush(connection);
    expect(connection->out.blocked);
    hall_tick_start(&scene->hall);
    return scene;
}

static void scene_stop(struct scene *scene)
{
    struct loop *loop = scene->hall.loop;

    loop_timer_stop(loop, &scene->peer);
    loop_timer_stop(loop, &scene->hall.tick);
    hall_finish(&scene->hall);
    loop_destroy(loop);
    free(scene->connection.out.frames);
    free(scene);
}

/** The peer takes @bytes every @every_ms. Is it still there after @ms of the loop's time? */
static bool stays(struct scene *scene, size_t bytes, unsigned every_ms, unsigned ms)
{
    scene->takes = bytes;
    scene->every_ms = every_ms;
    scene->over = false;
    if (bytes)
        loop_timer_start(scene->hall.loop, &scene->peer, every_ms);
    else
        loop_timer_stop(scene->hall.loop, &scene->peer);
    loop_timer_start(scene->hall.loop, &scene->end, ms);
    while (!scene->over && !dropped)
        expect(loop_sim_step(scene->hall.loop));
    loop_timer_stop(scene->hall.loop, &scene->end);
    return !dropped;
}

static struct scene *scene;

static void begin(void)
{
    scene = scene_start();
}

static void end(void)
{
    scene_stop(scene);
}

TestSuite(iscsi_patience, .init = begin, .fini = end);

/* -- how long ------------------------------------------------------------------------------ */

Test(iscsi_patience, who_takes_nothing_is_dropped)
{
    expect(stays(scene, 0, 0, STUCK_MS - 1));
    expect(!stays(scene, 0, 0, 1 + LATE_MS));
}

Test(iscsi_patience, who_takes_drops_gains_nothing)
{
    expect(stays(scene, 1, 100, STUCK_MS - 1));
    expect(!stays(scene, 1, 100, 1 + LATE_MS));
}

/* Each second half a second is given. */
Test(iscsi_patience, who_takes_half_the_rate_has_twice_the_time)
{
    expect(stays(scene, MOVE_RATE / 2, 1000, 2 * STUCK_MS - 2000));
    expect(!stays(scene, MOVE_RATE / 2, 1000, 4000));
}

Test(iscsi_patience, who_takes_at_the_rate_may_take_for_ever)
{
    expect(stays(scene, MOVE_RATE, 1000, 20 * STUCK_MS));
    expect(stays(scene, MOVE_RATE / 4, 250, 20 * STUCK_MS));
}

/* Two minutes' worth at once. */
Test(iscsi_patience, what_was_taken_fast_gives_no_credit)
{
    expect(stays(scene, 120 * MOVE_RATE, STUCK_MS - 1, STUCK_MS));
    expect(stays(scene, 0, 0, STUCK_MS - 2));
    expect(!stays(scene, 0, 0, 2 + LATE_MS));
}

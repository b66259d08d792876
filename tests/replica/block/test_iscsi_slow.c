/* The iscsi driver on a slow line: slow is not stuck, and stuck is noticed however much moves
 * for others. The line is a proxy on the driver's own loop, which passes so many bytes a
 * tick: when this process stands still, so does the line, and no load of the machine makes
 * it stuck. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/replica/block/iscsi_rig.h"

enum {
    SHORT_MS =
            1500, /* an I/O deadline that an opening on a loaded machine still meets */
    TRICKLE_MS = 500, /* one that it may miss */
    NOTICED_MS = 10 * SHORT_MS, /* far from the end that comes whatever moves */
    TICK_MS = 10,
    SLOW = 4 * RIG_KIB, /* bytes a tick: at most 400 KiB/s */
    TRICKLE = 16,
    FAST = 1 << 30,
    STUCK = 0,
    COMMANDS = 2,
    LENGTH =
            RIG_MIB, /* one takes longer than a deadline: what moves within it counts */
    SIZE = COMMANDS * LENGTH
};

/* -- the line -------------------------------------------------------------------------- */

/** One direction. */
struct lane {
    int from, to;
    uint8_t bytes[64 * RIG_KIB];
    size_t at, end;
    size_t pace; /* bytes a tick */
};

struct line {
    struct loop *loop;
    struct loop_timer tick;
    int listener, near, far; /* sockets; near: the driver's. -1: none */
    uint16_t port, far_port;
    struct lane out, in;
};

static int socket_at(uint16_t port, bool listens)
{
    struct sockaddr_in place = { .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int size = 32 * RIG_KIB; /* or the kernel holds what the line should carry */

    cr_assert(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (listens)
        cr_assert(bind(fd, (struct sockaddr *)&place, sizeof(place)) == 0 &&
                listen(fd, 4) == 0);
    else
        cr_assert(connect(fd, (struct sockaddr *)&place, sizeof(place)) == 0);
    cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

/** False when its end has come. */
static bool lane_pass(struct lane *lane)
{
    size_t most = lane->pace;
    ssize_t n;

    while (most) {
        if (lane->at == lane->end) {
            size_t part = most < sizeof(lane->bytes) ? most : sizeof(lane->bytes);
            n = recv(lane->from, lane->bytes, part, 0);
            if (n <= 0)
                return n < 0 && errno == EAGAIN;
            lane->at = 0;
            lane->end = (size_t)n;
            most -= (size_t)n;
        }
        n = send(lane->to, lane->bytes + lane->at, lane->end - lane->at, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN;
        lane->at += (size_t)n;
    }
    return true;
}

static void line_cut(struct line *line)
{
    if (line->near >= 0)
        (void)close(line->near);
    if (line->far >= 0)
        (void)close(line->far);
    line->near = line->far = -1;
}

static void line_join(struct line *line)
{
    line->near = accept4(line->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (line->near < 0)
        return;
    line->far = socket_at(line->far_port, false);
    line->out = (struct lane){ .from = line->near, .to = line->far, .pace = FAST };
    line->in = (struct lane){ .from = line->far, .to = line->near, .pace = FAST };
}

static void line_tick(struct loop_timer *timer)
{
    struct line *line = container_of(timer, struct line, tick);

    if (line->near < 0)
        line_join(line);
    if (line->near >= 0 && (!lane_pass(&line->out) || !lane_pass(&line->in)))
        line_cut(line);
    loop_timer_start(line->loop, &line->tick, line->in.pace == FAST ? 1 : TICK_MS);
}

/** Of a line that is joined. */
static void line_pace(struct line *line, size_t out, size_t in)
{
    line->out.pace = out;
    line->in.pace = in;
}

static void line_start(struct line *line, struct loop *loop, uint16_t far_port)
{
    struct sockaddr_in place;
    socklen_t size = sizeof(place);

    line->loop = loop;
    line->near = line->far = -1;
    line->far_port = far_port;
    line->listener = socket_at(0, true);
    cr_assert(getsockname(line->listener, (struct sockaddr *)&place, &size) == 0);
    line->port = ntohs(place.sin_port);
    line->tick.fire = line_tick;
    loop_timer_start(loop, &line->tick, 1);
}

static void line_stop(struct line *line)
{
    loop_timer_stop(line->loop, &line->tick);
    line_cut(line);
    (void)close(line->listener);
}

/* -- a LUN at its other end -------------------------------------------------------------- */

struct scene {
    struct tgt *tgt; /* or */
    struct hostile hostile;
    struct loop *loop;
    struct line line;
    struct block_spec spec;
    struct block_device *device;
    struct rig_batch batch;
    uint8_t *bytes;
};

static void scene_go(struct scene *scene, uint16_t port, unsigned lun, unsigned io_ms)
{
    scene->loop = rig_loop();
    scene->bytes = calloc(1, SIZE);
    line_start(&scene->line, scene->loop, port);
    scene->spec = rig_spec(scene->line.port, lun);
    scene->spec.io_timeout_ms = io_ms;
}

static struct scene *scene_tgt(unsigned io_ms)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    struct tgt_lun lun = { .block_size = 512 };
    char path[128];

    scene->tgt = tgt_start();
    tgt_make_file(scene->tgt, "disk", SIZE, path);
    lun.path = path;
    tgt_add_target(scene->tgt, 1, RIG_TARGET);
    tgt_add_lun(scene->tgt, 1, 1, &lun);
    scene_go(scene, scene->tgt->port, 1, io_ms);
    return scene;
}

static struct scene *scene_hostile(const char *rule)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    const char *const arguments[] = { rule, NULL };

    hostile_start(&scene->hostile, arguments);
    scene_go(scene, scene->hostile.port, 0, SHORT_MS);
    return scene;
}

static void scene_end(struct scene *scene)
{
    line_pace(&scene->line, FAST, FAST);
    cr_assert(device_close(&scene->device));
    line_stop(&scene->line);
    loop_destroy(scene->loop);
    if (scene->tgt)
        tgt_stop(scene->tgt);
    else
        hostile_stop(&scene->hostile);
    free(scene->bytes);
    free(scene);
}

static void scene_load(struct scene *scene, enum block_op op)
{
    for (uint64_t i = 0; i < COMMANDS; i++)
        rig_start(&scene->batch, scene->device, op, i * LENGTH,
                scene->bytes + i * LENGTH, LENGTH);
}

/** All of @op at once, slowly. */
static void expect_patience(struct scene *scene, enum block_op op)
{
    struct instant began;

    scene->device = rig_open(scene->loop, &scene->spec);
    line_pace(&scene->line, SLOW, SLOW);
    scene_load(scene, op);
    began = loop_now(scene->loop);
    rig_finish(&scene->batch, scene->loop);
    cr_assert_eq(rig_count(&scene->batch, 0), COMMANDS, "%s",
            block_last_words(scene->device));
    cr_assert(instant_reached(loop_now(scene->loop), instant_add_ms(began, SHORT_MS)),
            "the line was not slow, this shows nothing");
    scene_end(scene);
}

Test(slow, reads_that_come_slowly_all_come)
{
    expect_patience(scene_tgt(SHORT_MS), BLOCK_READ);
}

Test(slow, writes_that_leave_slowly_all_leave)
{
    expect_patience(scene_tgt(SHORT_MS), BLOCK_WRITE);
}

Test(slow, a_look_at_the_unit_waits_behind_slow_data)
{
    expect_patience(scene_hostile("88:grow*1"), BLOCK_READ);
}

/** Data has moved, then none does. */
Test(slow, a_line_that_sticks_is_noticed)
{
    struct scene *scene = scene_tgt(SHORT_MS);

    scene->device = rig_open(scene->loop, &scene->spec);
    line_pace(&scene->line, SLOW, SLOW);
    scene_load(scene, BLOCK_READ);
    while (!scene->batch.ended)
        cr_assert(loop_turn(scene->loop));
    line_pace(&scene->line, STUCK, STUCK);
    cr_assert(drive_until_ms(scene->loop, &scene->batch.done, NOTICED_MS));
    rig_finish(&scene->batch, scene->loop);
    cr_assert(rig_count(&scene->batch, -ETIMEDOUT) == 1 && scene->device->broken);
    scene_end(scene);
}

/* -- one is forgotten, the others are served --------------------------------------------- */

static struct scene *busy;

static void again(struct block_request *request, int result)
{
    if (result == 0 && !busy->batch.done)
        block_submit(busy->device, request);
}

Test(slow, a_command_that_is_forgotten_is_noticed_however_busy_the_session_is)
{
    struct scene *scene = busy = scene_hostile("88:mute*1");
    struct iovec iov = { scene->bytes + LENGTH, 4096 };
    struct block_request others[2];

    scene->device = rig_open(scene->loop, &scene->spec);
    rig_start(&scene->batch, scene->device, BLOCK_READ, 0, scene->bytes, 4096);
    for (int i = 0; i < 2; i++) {
        others[i] = (struct block_request){
            .op = BLOCK_READ, .length = 4096, .iov = &iov, .iovcnt = 1, .done = again
        };
        block_submit(scene->device, &others[i]);
    }
    cr_assert(drive_until_ms(scene->loop, &scene->batch.done, NOTICED_MS));
    cr_assert(scene->batch.calls[0].result == -ETIMEDOUT && scene->device->broken);
    scene_end(scene);
}

/* -- and an end there is ------------------------------------------------------------------ */

Test(slow, what_never_stops_trickling_ends_nevertheless)
{
    struct scene *scene = scene_tgt(TRICKLE_MS);
    struct device_opening opening;

    for (int i = 0; i < 50 && !scene->device; i++) /* on a loaded machine */
        scene->device = device_open(scene->loop, &scene->spec, &opening);
    cr_assert(scene->device, "%s", opening.fault.why);
    line_pace(&scene->line, FAST, TRICKLE);
    scene_load(scene, BLOCK_READ);
    rig_finish(&scene->batch, scene->loop);
    cr_assert(rig_count(&scene->batch, -ETIMEDOUT) == 1 && scene->device->broken);
    scene_end(scene);
}

/* -- our own standing still ------------------------------------------------------------- */

Test(slow, a_loop_that_stood_still_blames_nobody)
{
    struct scene *scene = scene_tgt(SHORT_MS);
    struct timespec still = { .tv_sec = 2 * SHORT_MS / 1000 };

    scene->device = rig_open(scene->loop, &scene->spec);
    line_pace(&scene->line, STUCK, STUCK);
    rig_start(&scene->batch, scene->device, BLOCK_READ, 0, scene->bytes, LENGTH);
    cr_assert(loop_turn(scene->loop)); /* its time runs */
    (void)nanosleep(&still, NULL); /* the process is stopped, or starved */
    line_pace(&scene->line, FAST, FAST);
    rig_finish(&scene->batch, scene->loop);
    cr_assert_eq(rig_count(&scene->batch, 0), 1);
    scene_end(scene);
}

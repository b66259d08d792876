/* A load on a LUN through libiscsi: @DEPTH commands out, each answered one followed by the next,
 * for @SECONDS.
 *
 * What it costs itself thins out what it measures, on all sides alike. So it is frugal with
 * system calls: a turn is one poll, and what it reads asks for more in the same call of
 * iscsi_service(); the library's small reads (a header, then its data) are fed from one large
 * one; one read at a time waits in recv() itself. The end and a target that hangs are the
 * timer's to see: no turn reads a clock. iscsi-perf beside it is the library as it comes.
 *
 * usage: load URL read|write random|sequential BYTES DEPTH SECONDS
 * prints: answers seconds */
#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 512, DEPTH_MAX = 256, PATIENCE_S = 10, STASH = 256 << 10 };

static volatile sig_atomic_t over;

struct load {
    struct iscsi_context *iscsi;
    int lun;
    bool write, random, waits;
    uint32_t bytes;
    uint64_t places, next, state, answers;
    unsigned out;
};

struct command {
    struct load *load;
    struct scsi_iovec iov;
};

/* -- the library's reads -------------------------------------------------------------- */

/* What the socket held and the library has not asked for yet. */
static struct {
    uint8_t bytes[STASH];
    size_t begin, end;
} stash;

static bool stash_is_empty(void)
{
    return stash.begin == stash.end;
}

static size_t stash_take(void *bytes, size_t length)
{
    size_t left = stash.end - stash.begin;

    if (length > left)
        length = left;
    memcpy(bytes, stash.bytes + stash.begin, length);
    stash.begin += length;
    return length;
}

/* In the place of libc's: the library reads headers by it. */
ssize_t recv(int fd, void *bytes, size_t length, int flags)
{
    if (stash_is_empty()) {
        ssize_t got = recvfrom(fd, stash.bytes, STASH, flags, NULL, NULL);
        if (got <= 0)
            return got;
        stash.begin = 0;
        stash.end = (size_t)got;
    }
    return (ssize_t)stash_take(bytes, length);
}

/* The same, for data: what is not here yet goes straight to its place. */
ssize_t readv(int fd, const struct iovec *iov, int count)
{
    size_t taken = 0;

    if (stash_is_empty())
        return (ssize_t)syscall(SYS_readv, fd, iov, count);
    for (int i = 0; i < count && !stash_is_empty(); i++)
        taken += stash_take(iov[i].iov_base, iov[i].iov_len);
    return (ssize_t)taken;
}

/* -- commands ------------------------------------------------------------------------- */

static void fail(struct load *load, const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what,
            load->iscsi ? iscsi_get_error(load->iscsi) : "");
    exit(1);
}

static double now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static uint64_t draw(struct load *load)
{
    uint64_t z = load->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return z ^ z >> 27;
}

static void command_send(struct command *command);

static void command_done(
        struct iscsi_context *iscsi, int status, void *data, void *private)
{
    struct command *command = private;
    struct load *load = command->load;

    (void)iscsi;
    if (status != SCSI_STATUS_GOOD)
        fail(load, "a command failed");
    scsi_free_scsi_task(data);
    load->answers++;
    load->out--;
    if (!over)
        command_send(command);
}

static void command_send(struct command *command)
{
    struct load *load = command->load;
    uint64_t place =
            load->random ? draw(load) % load->places : load->next++ % load->places;
    uint64_t lba = place * (load->bytes / BLOCK);
    struct scsi_task *task;

    if (load->write)
        task = iscsi_write16_iov_task(load->iscsi, load->lun, lba, NULL, load->bytes,
                BLOCK, 0, 0, 0, 0, 0, command_done, command, &command->iov, 1);
    else
        task = iscsi_read16_iov_task(load->iscsi, load->lun, lba, load->bytes, BLOCK, 0,
                0, 0, 0, 0, command_done, command, &command->iov, 1);
    if (!task)
        fail(load, "no command");
    load->out++;
}

/* -- turns ---------------------------------------------------------------------------- */

/* One that reads one by one has nothing else to wait for, nor to send meanwhile (as a write
 * that is asked for its data would): its socket blocks, once the first one is on its way. */
static void wait_in_recv(struct load *load)
{
    int fd = iscsi_get_fd(load->iscsi);

    if (iscsi_service(load->iscsi, POLLOUT) != 0)
        fail(load, "the session is lost");
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
        fail(load, "fcntl");
    load->waits = true;
}

static void serve(struct load *load)
{
    struct pollfd wait = { .fd = iscsi_get_fd(load->iscsi),
        .events = (short)iscsi_which_events(load->iscsi) };

    if (load->waits || !stash_is_empty()) {
        wait.revents = POLLIN;
    } else if (poll(&wait, 1, -1) < 0) {
        if (errno != EINTR)
            fail(load, "poll");
        return;
    }
    if (iscsi_service(load->iscsi, wait.revents | POLLOUT) != 0)
        fail(load, "the session is lost");
}

/* The first one is the end; what is out then is waited for until the second. */
static void on_alarm(int signal)
{
    static const char words[] = "load: no answer for 10 s\n";

    (void)signal;
    if (over) {
        (void)!write(STDERR_FILENO, words, sizeof words - 1);
        _exit(1);
    }
    over = 1;
    (void)alarm(PATIENCE_S);
}

static void alarm_start(double seconds)
{
    struct sigaction action = { .sa_handler = on_alarm };
    long whole = (long)seconds;
    struct itimerval timer = { .it_value = { whole,
                                       (long)((seconds - (double)whole) * 1e6) } };

    (void)sigaction(SIGALRM, &action, NULL);
    (void)setitimer(ITIMER_REAL, &timer, NULL);
}

static void login(struct load *load, const char *address)
{
    struct iscsi_url *url;
    struct scsi_task *task;
    struct scsi_readcapacity16 *capacity;

    load->iscsi = iscsi_create_context("iqn.2026-11.example:load");
    url = iscsi_parse_full_url(load->iscsi, address);
    if (!url)
        fail(load, address);
    iscsi_set_session_type(load->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_targetname(load->iscsi, url->target);
    load->lun = url->lun;
    if (iscsi_full_connect_sync(load->iscsi, url->portal, url->lun) != 0)
        fail(load, "no login");
    iscsi_destroy_url(url);
    iscsi_set_noautoreconnect(load->iscsi, 1);
    task = iscsi_readcapacity16_sync(load->iscsi, load->lun);
    capacity = task ? scsi_datain_unmarshall(task) : NULL;
    if (!capacity)
        fail(load, "no capacity");
    load->places = (capacity->returned_lba + 1) * BLOCK / load->bytes;
    scsi_free_scsi_task(task);
}

int main(int argc, char **argv)
{
    struct load load = { .state = 1 };
    static struct command commands[DEPTH_MAX];
    double began, end;
    int depth;

    if (argc != 7)
        return 2;
    load.write = strcmp(argv[2], "write") == 0;
    load.random = strcmp(argv[3], "random") == 0;
    load.bytes = (uint32_t)strtoul(argv[4], NULL, 10);
    depth = atoi(argv[5]);
    end = atof(argv[6]);
    if (depth < 1 || depth > DEPTH_MAX || load.bytes % BLOCK)
        return 2;
    login(&load, argv[1]);
    began = now();
    for (int i = 0; i < depth; i++) {
        commands[i].load = &load;
        commands[i].iov.iov_len = load.bytes;
        if (posix_memalign(&commands[i].iov.iov_base, 4096, load.bytes) != 0)
            return 1;
        memset(commands[i].iov.iov_base, i + 1, load.bytes);
        command_send(&commands[i]);
    }
    if (depth == 1 && !load.write)
        wait_in_recv(&load);
    alarm_start(end);
    while (!over)
        serve(&load);
    end = now() - began;
    printf("%llu %.6f\n", (unsigned long long)load.answers, end);
    while (load.out > 0)
        serve(&load);
    (void)alarm(0);
    iscsi_logout_sync(load.iscsi);
    iscsi_destroy_context(load.iscsi);
    return 0;
}

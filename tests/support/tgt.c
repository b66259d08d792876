#include "tests/support/tgt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/support/directory.h"

#ifndef REPLICAD_SOURCE_DIR
#error "REPLICAD_SOURCE_DIR says where hostile_target.py lies: link tests_tgt"
#endif

enum { PATIENCE_MS = 60 * 1000, ARGUMENTS_MAX = 128 };
enum { PORT_FIRST = 10000, PORT_TRIES = 1000 };

static _Noreturn void fail(const char *what, const char *about)
{
    fprintf(stderr, "far side: %s (%s)\n", what, about);
    abort();
}

static struct instant patience(void)
{
    return instant_add_ms(clock_monotonic(), PATIENCE_MS);
}

static bool is_over(struct instant due)
{
    return instant_reached(clock_monotonic(), due);
}

/* The first port that the kernel gives away by itself: to whoever connects or asks for 0. */
static unsigned port_given_away(void)
{
    FILE *range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    unsigned first = 32768;

    if (range && fscanf(range, "%u", &first) != 1)
        first = 32768;
    if (range)
        fclose(range);
    return first;
}

/* 0: it is taken. @port 0: any. */
static uint16_t port_try(unsigned port)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    good = fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
            getsockname(fd, (struct sockaddr *)&address, &size) == 0;
    if (fd >= 0)
        close(fd);
    return good ? ntohs(address.sin_port) : 0;
}

/* Who lets go of a port and wants it back later must not have been given it by the kernel,
 * which gives it to the next one: a connection of any other process would do. */
uint16_t port_free(void)
{
    unsigned end = port_given_away(), drawn = 0;
    uint16_t port = 0;

    for (unsigned i = 0; i < PORT_TRIES && end > PORT_FIRST && port == 0; i++)
        if (getrandom(&drawn, sizeof(drawn), 0) == (ssize_t)sizeof(drawn))
            port = port_try(PORT_FIRST + drawn % (end - PORT_FIRST));
    if (port == 0)
        port = port_try(0);
    if (port == 0)
        fail("no free port", "bind");
    return port;
}

/** Starts @argv, which dies with us. Its output goes to @out, or to nowhere when negative. */
static pid_t start(const char *const argv[], const char *control, int out)
{
    pid_t parent = getpid(), pid = fork();

    if (pid < 0)
        fail("cannot fork", argv[0]);
    if (pid > 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(126);
    if (control)
        (void)setenv("TGT_IPC_SOCKET", control, 1);
    if (out < 0)
        out = open("/dev/null", O_WRONLY);
    (void)dup2(out, STDOUT_FILENO);
    if (out != STDERR_FILENO && control)
        (void)dup2(out, STDERR_FILENO);
    for (int fd = 3; fd < 256; fd++)
        (void)close(fd);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static int finish(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void control_path(const struct tgt *tgt, char path[96])
{
    snprintf(path, 96, "%s/control", tgt->directory);
}

int tgt_admin(struct tgt *tgt, const char *const arguments[])
{
    const char *argv[ARGUMENTS_MAX] = { "tgtadm", "-C", NULL, "--lld", "iscsi" };
    char number[16], control[96];
    int count = 5;

    snprintf(number, sizeof(number), "%d", tgt->control);
    argv[2] = number;
    while (*arguments && count < ARGUMENTS_MAX - 1)
        argv[count++] = *arguments++;
    control_path(tgt, control);
    return finish(start(argv, control, -1));
}

/* What touches a LUN in use tgtd refuses while a command is in it, which under load is a
 * matter of luck: it is asked until it finds a gap. What it will never do fails late. */
static void admin(struct tgt *tgt, const char *const arguments[])
{
    struct instant due = patience();

    while (tgt_admin(tgt, arguments) != 0) {
        if (is_over(due)) {
            for (int i = 0; arguments[i]; i++)
                fprintf(stderr, "%s ", arguments[i]);
            fail("tgtadm refused", "see above");
        }
        (void)poll(NULL, 0, 5);
    }
}

#define ADMIN(tgt, ...) admin(tgt, (const char *const[]){ __VA_ARGS__, NULL })

static bool daemon_answers(struct tgt *tgt)
{
    const char *const show[] = { "--op", "show", "--mode", "sys", NULL };

    return tgt_admin(tgt, show) == 0;
}

static bool daemon_wait(struct tgt *tgt)
{
    struct instant due = patience();

    while (!is_over(due)) {
        if (waitpid(tgt->pid, NULL, WNOHANG) == tgt->pid)
            return false; /* the port was taken meanwhile */
        if (daemon_answers(tgt))
            return true;
        (void)poll(NULL, 0, 10);
    }
    fail("tgtd does not answer", tgt->directory);
}

static bool daemon_start(struct tgt *tgt)
{
    char portals[128], number[16], control[96];
    const char *argv[] = { "tgtd", "-f", "-C", number, "--iscsi", portals, NULL };

    snprintf(portals, sizeof(portals), "portal=127.0.0.1:%u,portal=[::1]:%u", tgt->port,
            tgt->port);
    snprintf(number, sizeof(number), "%d", tgt->control);
    control_path(tgt, control);
    tgt->pid = start(argv, control, -1);
    if (daemon_wait(tgt))
        return true;
    tgt->pid = 0;
    return false;
}

struct tgt *tgt_start(void)
{
    struct tgt *tgt = calloc(1, sizeof(*tgt));

    if (!tgt)
        fail("no memory", "tgt");
    snprintf(tgt->directory, sizeof(tgt->directory), "/tmp/replicad-tgt-XXXXXX");
    if (!mkdtemp(tgt->directory))
        fail("no directory", tgt->directory);
    tgt->control = 1;
    for (int tries = 0; tries < 10; tries++) {
        tgt->port = port_free();
        if (daemon_start(tgt))
            return tgt;
    }
    fail("tgtd does not start", tgt->directory);
}

void tgt_kill(struct tgt *tgt)
{
    if (tgt->pid == 0)
        return;
    (void)kill(tgt->pid, SIGKILL);
    (void)finish(tgt->pid);
    tgt->pid = 0;
}

void tgt_revive(struct tgt *tgt)
{
    struct instant due = patience();
    char socket[128];

    snprintf(socket, sizeof(socket), "%s/control.%d", tgt->directory, tgt->control);
    (void)unlink(socket);
    while (!daemon_start(tgt))
        if (is_over(due))
            fail("tgtd does not start again", tgt->directory);
}

void tgt_freeze(struct tgt *tgt)
{
    siginfo_t stopped = { 0 };
    int result;

    if (kill(tgt->pid, SIGSTOP) != 0)
        fail("tgtd cannot be stopped", tgt->directory);
    do /* a stop is not over when kill() returns: a thread that runs may answer once more */
        result = waitid(P_PID, (id_t)tgt->pid, &stopped, WSTOPPED | WEXITED | WNOWAIT);
    while (result != 0 && errno == EINTR);
    if (result != 0 || stopped.si_code != CLD_STOPPED)
        fail("tgtd ended where it should stop", tgt->directory);
}

void tgt_thaw(struct tgt *tgt)
{
    (void)kill(tgt->pid, SIGCONT);
}

void tgt_stop(struct tgt *tgt)
{
    if (!tgt)
        return;
    tgt_kill(tgt);
    (void)tree_remove(tgt->directory);
    free(tgt);
}

void tgt_add_target(struct tgt *tgt, int tid, const char *name)
{
    char id[16];

    snprintf(id, sizeof(id), "%d", tid);
    ADMIN(tgt, "--op", "new", "--mode", "target", "--tid", id, "-T", name);
    ADMIN(tgt, "--op", "bind", "--mode", "target", "--tid", id, "-I", "ALL");
}

void tgt_add_account(
        struct tgt *tgt, int tid, const char *user, const char *secret, bool outgoing)
{
    char id[16];

    snprintf(id, sizeof(id), "%d", tid);
    ADMIN(tgt, "--op", "new", "--mode", "account", "--user", user, "--password",
            secret);
    if (outgoing)
        ADMIN(tgt, "--op", "bind", "--mode", "account", "--tid", id, "--user", user,
                "--outgoing");
    else
        ADMIN(tgt, "--op", "bind", "--mode", "account", "--tid", id, "--user", user);
}

static void update_lun(
        struct tgt *tgt, const char *tid, const char *lun, const char *what)
{
    ADMIN(tgt, "--op", "update", "--mode", "logicalunit", "--tid", tid, "--lun", lun,
            "--params", what);
}

void tgt_add_lun(struct tgt *tgt, int tid, int lun, const struct tgt_lun *what)
{
    char id[16], number[16], block[16], params[256], names[2][32];

    snprintf(id, sizeof(id), "%d", tid);
    snprintf(number, sizeof(number), "%d", lun);
    snprintf(block, sizeof(block), "%u", what->block_size ? what->block_size : 512);
    snprintf(names[0], sizeof(names[0]), "id%u.%d.%d", tgt->port, tid, lun);
    snprintf(names[1], sizeof(names[1]), "sn%u.%d.%d", tgt->port, tid, lun);
    ADMIN(tgt, "--op", "new", "--mode", "logicalunit", "--tid", id, "--lun", number,
            "-b", what->path, "--blocksize", block);
    snprintf(params, sizeof(params),
            "vendor_id=%s,scsi_id=%s,scsi_sn=%s,thin_provisioning=%d,readonly=%d",
            what->vendor ? what->vendor : "IET",
            what->scsi_id ? what->scsi_id : names[0],
            what->scsi_sn ? what->scsi_sn : names[1], what->thin, what->read_only);
    update_lun(tgt, id, number, params);
}

void tgt_remove_lun(struct tgt *tgt, int tid, int lun)
{
    char id[16], number[16];

    snprintf(id, sizeof(id), "%d", tid);
    snprintf(number, sizeof(number), "%d", lun);
    ADMIN(tgt, "--op", "delete", "--mode", "logicalunit", "--tid", id, "--lun", number);
}

void tgt_reload_lun(struct tgt *tgt, int tid, int lun, const char *path)
{
    char id[16], number[16], params[160];

    snprintf(id, sizeof(id), "%d", tid);
    snprintf(number, sizeof(number), "%d", lun);
    snprintf(params, sizeof(params), "path=%s", path);
    update_lun(tgt, id, number, "online=0");
    update_lun(tgt, id, number, params);
    update_lun(tgt, id, number, "online=1");
}

void tgt_make_file(struct tgt *tgt, const char *name, uint64_t size, char path[128])
{
    int fd;

    snprintf(path, 128, "%s/%s", tgt->directory, name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
        fail("cannot make a file", path);
    close(fd);
}

void hostile_start(struct hostile *hostile, const char *const arguments[])
{
    const char *argv[ARGUMENTS_MAX] = { "/usr/bin/python3",
        REPLICAD_SOURCE_DIR "/tests/support/hostile_target.py" };
    char line[64] = "";
    int pipe_ends[2], count = 2, port;
    FILE *from;

    while (*arguments && count < ARGUMENTS_MAX - 1)
        argv[count++] = *arguments++;
    if (pipe2(pipe_ends, O_CLOEXEC) != 0)
        fail("no pipe", "hostile target");
    hostile->pid = start(argv, NULL, pipe_ends[1]);
    close(pipe_ends[1]);
    from = fdopen(pipe_ends[0], "r");
    if (!from || !fgets(line, sizeof(line), from) ||
            sscanf(line, "port %d", &port) != 1)
        fail("the hostile target does not start", line);
    fclose(from);
    hostile->port = (uint16_t)port;
}

void hostile_stop(struct hostile *hostile)
{
    (void)kill(hostile->pid, SIGKILL);
    (void)finish(hostile->pid);
    hostile->pid = 0;
}

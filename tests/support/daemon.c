#include "tests/support/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/support/directory.h"

enum { PATIENCE_MS = 60 * 1000 };

static const char *binary(void)
{
    const char *given = getenv("REPLICAD_BINARY");

    return given && *given ? given : REPLICAD_BINARY;
}

/* In the child: dies with the test that made it. */
_Noreturn static void child_run(const char *const *arguments, int out, int err)
{
    sigset_t none;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)dup2(out, STDOUT_FILENO);
    (void)dup2(err, STDERR_FILENO);
    execv(binary(), (char *const *)(uintptr_t)arguments); /* execv lacks a const */
    dprintf(err, "cannot run %s: %s\n", binary(), strerror(errno));
    _exit(127);
}

/* Status of @pid when it ends within @ms; -1: it had to be killed. */
static int child_wait(pid_t pid, int ms)
{
    int status = 0;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd wait = { .fd = pidfd, .events = POLLIN };
    bool killed = false;

    if (pidfd < 0 || poll(&wait, 1, ms) == 0) {
        (void)kill(pid, SIGKILL);
        killed = true;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (pidfd >= 0)
        (void)close(pidfd);
    if (killed)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* One line, without its end, within @ms. */
static bool line_read(int fd, char *line, size_t room, int ms)
{
    struct instant due = instant_add_ms(clock_monotonic(), (uint64_t)ms);
    size_t length = 0;

    while (length + 1 < room) {
        struct pollfd wait = { .fd = fd, .events = POLLIN };
        uint64_t left = instant_ms_until(clock_monotonic(), due);

        if (left == 0 || poll(&wait, 1, (int)left) <= 0 ||
                read(fd, line + length, 1) != 1)
            break;
        if (line[length] == '\n') {
            line[length] = '\0';
            return true;
        }
        length++;
    }
    line[length] = '\0';
    return false;
}

static void log_tail(const struct daemon *daemon, char *text, size_t room)
{
    int fd = open(daemon->log, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    text[0] = '\0';
    if (fd < 0)
        return;
    (void)lseek(fd, -(off_t)(room - 1), SEEK_END); /* shorter: stays at the start */
    n = read(fd, text, room - 1);
    text[n > 0 ? n : 0] = '\0';
    (void)close(fd);
}

static bool ready_parse(struct daemon *daemon, const char *line)
{
    return sscanf(line, "replicad ready http=%127s iscsi=%127s health=%127s",
                   daemon->http, daemon->iscsi, daemon->health) == 3;
}

static bool home_make(struct daemon *daemon)
{
    const char *base = getenv("TMPDIR");

    if (daemon->directory[0])
        return true;
    if (!base || strlen(base) > 32)
        base = "/tmp";
    snprintf(daemon->directory, sizeof(daemon->directory), "%s/replicad-test-XXXXXX",
            base);
    if (!mkdtemp(daemon->directory)) {
        daemon->directory[0] = '\0';
        return false;
    }
    snprintf(daemon->data, sizeof(daemon->data), "%s/data", daemon->directory);
    snprintf(daemon->log, sizeof(daemon->log), "%s/log", daemon->directory);
    return true;
}

bool daemon_start(struct daemon *daemon, const char *const *extra)
{
    size_t count = 0;

    for (; extra && extra[count] && count + 1 < DAEMON_ARGUMENTS; count++)
        daemon->extra[count] = extra[count];
    daemon->extra[count] = NULL;
    return daemon_restart(daemon);
}

static bool given(const struct daemon *daemon, const char *option)
{
    for (size_t i = 0; daemon->extra[i]; i++)
        if (strcmp(daemon->extra[i], option) == 0)
            return true;
    return false;
}

bool daemon_restart(struct daemon *daemon)
{
    const char *arguments[DAEMON_ARGUMENTS + 8] = { "replicad", "--data-dir", NULL,
        "--http", "127.0.0.1:0" };
    size_t first = 5;
    char line[512];
    int out[2], err;

    daemon->why[0] = '\0';
    if (!home_make(daemon) || pipe2(out, O_CLOEXEC) != 0) {
        snprintf(daemon->why, sizeof(daemon->why), "%s", strerror(errno));
        return false;
    }
    arguments[2] = daemon->data;
    if (!given(daemon, "--iscsi")) {
        arguments[first++] = "--iscsi";
        arguments[first++] = "127.0.0.1:0";
    }
    for (size_t i = 0; daemon->extra[i]; i++)
        arguments[first + i] = daemon->extra[i];
    err = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    daemon->pid = fork();
    if (daemon->pid == 0)
        child_run(arguments, out[1], err);
    (void)close(err);
    (void)close(out[1]);
    if (daemon->pid > 0 && line_read(out[0], line, sizeof(line), PATIENCE_MS) &&
            ready_parse(daemon, line)) {
        (void)close(out[0]); /* nothing else is ever written there */
        return true;
    }
    (void)close(out[0]);
    daemon_kill(daemon);
    log_tail(daemon, daemon->why, sizeof(daemon->why));
    return false;
}

int daemon_end(struct daemon *daemon, int number)
{
    int status;

    if (daemon->pid <= 0)
        return -1;
    (void)kill(daemon->pid, number);
    status = child_wait(daemon->pid, PATIENCE_MS);
    daemon->pid = 0;
    return status;
}

int daemon_stop(struct daemon *daemon)
{
    return daemon_end(daemon, SIGTERM);
}

void daemon_kill(struct daemon *daemon)
{
    if (daemon->pid > 0) {
        (void)kill(daemon->pid, SIGKILL);
        (void)child_wait(daemon->pid, PATIENCE_MS);
    }
    daemon->pid = 0;
}

void daemon_release(struct daemon *daemon)
{
    daemon_kill(daemon);
    if (daemon->directory[0])
        (void)tree_remove(daemon->directory);
    daemon->directory[0] = '\0';
}

int daemon_run(const char *const *arguments, char *output, size_t room)
{
    const char *all[DAEMON_ARGUMENTS + 8] = { "replicad" };
    struct instant due = instant_add_ms(clock_monotonic(), PATIENCE_MS);
    size_t length = 0;
    int out[2], status;
    pid_t pid;

    for (size_t i = 0; arguments[i] && i < DAEMON_ARGUMENTS; i++)
        all[i + 1] = arguments[i];
    output[0] = '\0';
    if (pipe2(out, O_CLOEXEC) != 0 || (pid = fork()) < 0)
        return -1;
    if (pid == 0)
        child_run(all, out[1], out[1]);
    (void)close(out[1]);
    while (length + 1 < room) {
        struct pollfd wait = { .fd = out[0], .events = POLLIN };
        uint64_t left = instant_ms_until(clock_monotonic(), due);
        ssize_t n;

        if (left == 0 || poll(&wait, 1, (int)left) <= 0 ||
                (n = read(out[0], output + length, room - 1 - length)) <= 0)
            break;
        length += (size_t)n;
        output[length] = '\0';
    }
    status = child_wait(pid, (int)instant_ms_until(clock_monotonic(), due));
    (void)close(out[0]);
    return status;
}

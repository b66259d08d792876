/* The process: how it starts, what it says, how it ends. On the real binary. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/support/daemon.h"
#include "tests/support/http.h"
#include "tests/support/port.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct daemon daemon_;
static struct http_answer answer;
static char output[8192];

static void end(void)
{
    http_answer_release(&answer);
    daemon_release(&daemon_);
}

TestSuite(daemon, .fini = end);

static void start(const char *const *extra)
{
    cr_assert(daemon_start(&daemon_, extra), "%s", daemon_.why);
}

static long get(const char *address, const char *path)
{
    http_answer_release(&answer);
    return http_send(address, "GET", path, NULL, NULL, &answer);
}

static int run(
        const char *first, const char *second, const char *third, const char *fourth)
{
    return daemon_run((const char *const[]){ first, second, third, fourth, NULL },
            output, sizeof(output));
}

/* What the log file holds from its start on. */
static const char *log_text(void)
{
    static char text[65536];
    FILE *file = fopen(daemon_.log, "r");
    size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

    text[n] = '\0';
    if (file)
        fclose(file);
    return text;
}

Test(daemon, serves_stops_and_serves_again)
{
    start((const char *const[]){ "--health", "127.0.0.1:0", NULL });
    cr_assert(strncmp(daemon_.iscsi, "127.0.0.1:", 10) == 0, "%s", daemon_.iscsi);
    cr_assert(get(daemon_.http, "/readyz") == 200, "%s", answer.why);
    cr_assert(get(daemon_.health, "/readyz") == 200);
    cr_assert(get(daemon_.health, "/pools") == 404);
    cr_assert(get(daemon_.http, "/pools") == 200);
    cr_assert(strstr(answer.body, "\"Id\":\"default\""));
    cr_assert(daemon_stop(&daemon_) == 0);
    cr_assert(daemon_restart(&daemon_), "%s", daemon_.why);
    cr_assert(get(daemon_.http, "/readyz") == 200);
    daemon_kill(&daemon_);
    cr_assert(daemon_restart(&daemon_), "after a kill: %s", daemon_.why);
    cr_assert(get(daemon_.http, "/readyz") == 200);
    cr_assert(daemon_end(&daemon_, SIGINT) == 0, "SIGINT is a clean stop too");
}

Test(daemon, the_ready_line_names_every_address)
{
    if (!ipv6_is_there())
        cr_skip_test("no IPv6 here");
    start((const char *const[]){ "--http", "[::1]:0", "--iscsi", "127.0.0.1:0",
            "--iscsi", "[::1]:0", NULL });
    cr_assert(strncmp(daemon_.http, "127.0.0.1:", 10) == 0 &&
                    strstr(daemon_.http, ",[::1]:"),
            "%s", daemon_.http);
    cr_assert(get(strchr(daemon_.http, ',') + 1, "/livez") == 200);
    cr_assert(strcmp(daemon_.health, "none") == 0);
    cr_assert(strncmp(daemon_.iscsi, "127.0.0.1:", 10) == 0 &&
                    strstr(daemon_.iscsi, ",[::1]:"),
            "%s", daemon_.iscsi);
}

Test(daemon, no_iscsi_is_served_when_none_is_asked_for)
{
    start((const char *const[]){ "--iscsi", "none", NULL });
    cr_assert(strcmp(daemon_.iscsi, "none") == 0);
}

Test(daemon, signals_that_are_no_stop)
{
    start(NULL);
    kill(daemon_.pid, SIGHUP);
    kill(daemon_.pid, SIGUSR1);
    kill(daemon_.pid, SIGPIPE);
    cr_assert(get(daemon_.http, "/readyz") == 200);
    cr_assert(daemon_stop(&daemon_) == 0);
    cr_assert(strstr(log_text(), "\"reload\""));
}

static bool limit_is(const char *text)
{
    char wanted[64];

    snprintf(wanted, sizeof(wanted), "\"BandwidthLimit\":%s,", text);
    return get(daemon_.http, "/capabilities") == 200 && strstr(answer.body, wanted);
}

static void write_config(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    cr_assert(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

/* Wait for the log to hold @word @times. */
static bool logged(const char *word, unsigned times)
{
    struct instant due = instant_add_ms(clock_monotonic(), 60000);
    unsigned count;

    for (;;) {
        count = 0;
        for (const char *at = log_text(); (at = strstr(at, word)); at++)
            count++;
        if (count >= times || instant_reached(clock_monotonic(), due))
            return count >= times;
        usleep(10000);
    }
}

Test(daemon, the_bandwidth_limit_is_read_again)
{
    char path[] = "/tmp/replicad-config-XXXXXX";
    int fd = mkstemp(path);

    cr_assert(fd >= 0 && close(fd) == 0);
    write_config(path, "bandwidth-limit: 5000000\n");
    start((const char *const[]){ "--config", path, NULL });
    cr_assert(limit_is("5000000"));
    write_config(path, "bandwidth-limit: 7000000\n");
    kill(daemon_.pid, SIGHUP);
    cr_assert(logged("\"reload\"", 1) && limit_is("7000000"));
    write_config(path, "bandwidth-limit: fast\n");
    kill(daemon_.pid, SIGHUP);
    cr_assert(logged("\"reload\"", 2) && limit_is("7000000"),
            "what is wrong changes nothing");
    write_config(path, "workers: 1\n");
    kill(daemon_.pid, SIGHUP);
    cr_assert(logged("\"reload\"", 3) && limit_is("0"));
    cr_assert(daemon_stop(&daemon_) == 0);
    cr_assert(unlink(path) == 0);
}

Test(daemon, who_cannot_start_says_why_in_one_line)
{
    static const char *const lines[][5] = {
        { "--http", "0.0.0.0:0", NULL, NULL, "--http-unprotected" },
        { "--http", "127.0.0.1:x", NULL, NULL, "127.0.0.1:x" },
        { "--workers", "0", NULL, NULL, "--workers" },
        { "--config", "/nowhere", NULL, NULL, "/nowhere" },
        { "--nothing", NULL, NULL, NULL, "--nothing" },
        { "--data-dir", "/proc/nothing", NULL, NULL, "/proc/nothing" },
    };

    for (size_t i = 0; i < COUNT(lines); i++) {
        int status = run(lines[i][0], lines[i][1], lines[i][2], lines[i][3]);
        cr_expect(status == 1 || status == 2, "%s: %d", lines[i][0], status);
        cr_expect(strncmp(output, "replicad: ", 10) == 0 && strstr(output, lines[i][4]),
                "%s", output);
        cr_expect(strchr(output, '\n') == output + strlen(output) - 1, "%s", output);
    }
}

Test(daemon, a_directory_or_a_port_that_is_taken)
{
    char other[128];

    start(NULL);
    cr_assert(run("--data-dir", daemon_.data, "--http", "127.0.0.1:0") == 1);
    cr_assert(strstr(output, "replicad: cannot start: "), "%s", output);
    cr_assert(!strstr(output, "replicad ready"));
    snprintf(other, sizeof(other), "%s/other", daemon_.directory);
    cr_assert(run("--data-dir", other, "--http", daemon_.http) == 1);
    cr_assert(strstr(output, "cannot listen on"), "%s", output);
    cr_assert(run("--data-dir", other, "--allow-portal", "10.0.0.0/33") == 1);
    cr_assert(strstr(output, "--allow-portal 10.0.0.0/33: "), "%s", output);
    cr_assert(get(daemon_.http, "/readyz") == 200, "the first one is not disturbed");
}

Test(daemon, beyond_loopback_only_when_told_and_with_a_warning)
{
    start((const char *const[]){ "--http", "0.0.0.0:0", "--http-unprotected", NULL });
    cr_assert(strstr(daemon_.http, ",0.0.0.0:"), "%s", daemon_.http);
    cr_assert(strstr(log_text(), "\"http-unprotected\""));
    cr_assert(daemon_stop(&daemon_) == 0);
    cr_assert(daemon_restart(&daemon_));
    const char *first = strstr(log_text(), "\"http-unprotected\"");
    cr_assert(strstr(first + 1, "\"http-unprotected\""), "at every start");
}

Test(daemon, check_health)
{
    char nobody[32];
    uint16_t port;
    int fd = port_keep(&port);

    cr_assert(fd >= 0);
    snprintf(nobody, sizeof(nobody), "127.0.0.1:%u", port);
    start((const char *const[]){ "--health", "127.0.0.1:0", NULL });
    cr_assert(run("--check-health", daemon_.health, NULL, NULL) == 0, "%s", output);
    cr_assert(run("--check-health", daemon_.http, NULL, NULL) == 0, "%s", output);
    cr_assert(run("--check-health", "localhost:80", NULL, NULL) == 1);
    cr_assert(run("--check-health", nobody, NULL, NULL) == 1, "nobody is there");
    cr_assert(strchr(output, '\n') == output + strlen(output) - 1, "%s", output);
    close(fd);
}

Test(daemon, check_health_has_a_deadline)
{
    struct sockaddr_storage bound = { 0 };
    socklen_t length = sizeof(bound);
    char address[64];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0 && listen(fd, 8) == 0); /* takes connections, says nothing */
    cr_assert(getsockname(fd, (struct sockaddr *)&bound, &length) == 0);
    snprintf(address, sizeof(address), "127.0.0.1:%d",
            ((unsigned char *)&bound)[2] << 8 | ((unsigned char *)&bound)[3]);
    cr_assert(run("--check-health", address, NULL, NULL) == 1, "%s", output);
    cr_assert(strstr(output, "timed out"), "%s", output);
    close(fd);
}

/* A stop waits for the answer that is under way; a second signal does not. */
Test(daemon, a_second_signal_ends_it_at_once)
{
    static const char ask[] = "GET /jobs/J?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct instant due = instant_add_ms(clock_monotonic(), 60000);
    int fd;

    setenv("REPLICAD_BINARY", REPLICAD_FAKE, 1);
    setenv("REPLICAD_FAKE_STUCK", "1", 1);
    start((const char *const[]){ "--health", "127.0.0.1:0", "--iscsi", "none", NULL });
    fd = raw_open(daemon_.http);
    cr_assert(raw_send(fd, ask, sizeof(ask) - 1));
    do {
        cr_assert(!instant_reached(clock_monotonic(), due));
        cr_assert(get(daemon_.health, "/metrics") == 200);
    } while (!strstr(answer.body, "replicad_http_waiters 1\n"));
    kill(daemon_.pid, SIGTERM);
    while (get(daemon_.health, "/readyz") != 503)
        cr_assert(!instant_reached(clock_monotonic(), due));
    cr_assert(daemon_stop(&daemon_) == 1, "it ended by itself");
    cr_assert(strstr(log_text(), "second signal"));
    close(fd);
}

Test(daemon, the_process_is_set_up)
{
    char path[64], line[256];
    bool masked = false;
    struct rlimit files = { 0, 1 };
    FILE *file;

    start(NULL);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon_.pid);
    file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file))
        masked = masked || strcmp(line, "Umask:\t0077\n") == 0;
    cr_assert(file && masked);
    fclose(file);
    cr_assert(prlimit(daemon_.pid, RLIMIT_NOFILE, NULL, &files) == 0);
    cr_assert(files.rlim_cur == files.rlim_max);
}

Test(daemon, systemd_is_told)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval patience = { .tv_sec = 60 };
    char text[64] = "", name[32];

    snprintf(name, sizeof(name), "replicad-test-%d", (int)getpid());
    memcpy(at.sun_path + 1, name, strlen(name));
    cr_assert(bind(fd, (struct sockaddr *)&at,
                      (socklen_t)(sizeof(sa_family_t) + 1 + strlen(name))) == 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    snprintf(text, sizeof(text), "@%s", name);
    setenv("NOTIFY_SOCKET", text, 1);
    start(NULL);
    memset(text, 0, sizeof(text));
    cr_assert(recv(fd, text, sizeof(text) - 1, 0) > 0);
    cr_assert_str_eq(text, "READY=1");
    cr_assert(daemon_stop(&daemon_) == 0);
    memset(text, 0, sizeof(text));
    cr_assert(recv(fd, text, sizeof(text) - 1, 0) > 0);
    cr_assert_str_eq(text, "STOPPING=1");
    close(fd);
    unsetenv("NOTIFY_SOCKET");
}

Test(daemon, help_and_version)
{
    cr_assert(run("--help", NULL, NULL, NULL) == 0);
    cr_assert(strstr(output, "--allow-portal") && strstr(output, "--check-health"));
    cr_assert(run("--version", NULL, NULL, NULL) == 0);
    cr_assert(strncmp(output, "replicad ", 9) == 0);
}

/* tests/support/daemon.h - the real binary, in a directory of its own, on ports it picks.
 *
 * The binary is $REPLICAD_BINARY, else the one that the build made.
 */
#ifndef TESTS_SUPPORT_DAEMON_H
#define TESTS_SUPPORT_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { DAEMON_ARGUMENTS = 32, DAEMON_ADDRESS = 128 };

/** Starts as { 0 }; daemon_release() at the end. */
struct daemon {
    pid_t pid; /* 0: not running */
    char directory[64]; /* made, removed by daemon_release() */
    char data[80]; /* --data-dir: the directory's "data" */
    char log[80]; /* standard error of all its lives */
    char http[DAEMON_ADDRESS]; /* "127.0.0.1:41234", of the ready line */
    char health[DAEMON_ADDRESS]; /* "none" when there is none */
    char iscsi[DAEMON_ADDRESS];
    const char *extra[DAEMON_ARGUMENTS];
    char why[256]; /* words when a call failed */
};

/**
 * Start it with --data-dir, --http 127.0.0.1:0 and @extra (NULL-terminated or NULL; the texts
 * must live as long as @daemon), and wait up to 60 s for the ready line. False: see @why.
 */
bool daemon_start(struct daemon *daemon, const char *const *extra);

/** Start it again with the same arguments on the same data directory. */
bool daemon_restart(struct daemon *daemon);

/** SIGTERM, then wait up to 60 s. The exit status, 256 + N when signal N ended it, -1 when it
    had to be killed. */
int daemon_stop(struct daemon *daemon);

/** The same with another signal. */
int daemon_end(struct daemon *daemon, int number);

/** SIGKILL, and wait until it is gone. */
void daemon_kill(struct daemon *daemon);

/** Kill what runs, remove the directory. */
void daemon_release(struct daemon *daemon);

/**
 * Run the binary with @arguments (NULL-terminated, without the name) to its end, at most 60 s.
 * @output gets what it wrote to both outputs. The same result as daemon_stop().
 */
int daemon_run(const char *const *arguments, char *output, size_t room);

#endif

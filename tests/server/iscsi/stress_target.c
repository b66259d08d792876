/* Threads against the target: exports come and go, are changed and looked at, while initiators
 * come, work and are thrown out, on both loops. Nothing may race, leak or hang. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/server/iscsi/target_rig.h"

enum { ROUNDS = 12, DEADLINE_MS = 60000, CLIENT_S = 60 };

static struct rig *rig;
static atomic_bool over;
static atomic_uint logins;

static _Noreturn void fail(const char *what, int result)
{
    fprintf(stderr, "stress: %s: %d\n", what, result);
    exit(1);
}

/* Their own success is not the question: the target is taken from under them. */
static void *client(void *which)
{
    unsigned export = *(unsigned *)which;
    char name[SCSI_NAME_MAX], url[512], output[4096];
    const char *const ask[] = { "iscsi-inq", url, NULL };
    const char *const work[] = { "iscsi-perf", "-n", "-x", "0", "-m", "16", "-b", "8",
        "-r", "-t", "1", url, NULL };

    rig_name(export, name);
    snprintf(url, sizeof url, "iscsi://%s127.0.0.1:%u/%s/0",
            export == 1 ? "alice%alice-has-a-secret@" : "", rig->port, name);
    while (!atomic_load(&over)) {
        if (rig_command(ask, CLIENT_S, output, sizeof output) == 0)
            atomic_fetch_add(&logins, 1);
        (void)rig_command(work, CLIENT_S, output, sizeof output);
    }
    return NULL;
}

static void look(unsigned export)
{
    struct iscsi_export what = rig_export(rig, export);
    struct iscsi_session sessions[4];
    struct iscsi_figures figures;
    int count = iscsi_target_sessions(rig->target, &what.id, sessions, 4);

    iscsi_target_figures(rig->target, &figures);
    if (count > (int)figures.sessions + 4)
        fail("more sessions than there are", count);
}

/* It is given up while its opening is on its way to the loop, or has just come back. */
static void give_up(unsigned export)
{
    struct iscsi_export what = rig_export(rig, export);
    int result = iscsi_target_publish(rig->target, &what, 0, NULL);

    if (result < 0 && result != -ETIMEDOUT)
        fail("publish", result);
    result = iscsi_target_withdraw(rig->target, &what.id, DEADLINE_MS);
    if (result < 0 && result != -ENOENT)
        fail("withdraw what was given up", result);
}

static void round_of(unsigned export)
{
    struct iscsi_export what = rig_export(rig, export);
    struct fault fault = { 0 };
    int result;

    for (unsigned i = 0; i < 20; i++) {
        look(export);
        result = iscsi_target_change(rig->target, &what, &fault);
        if (result == 0)
            result = iscsi_target_settle(rig->target, &what.id, true, DEADLINE_MS);
        if (result < 0)
            fail(fault.why, result);
    }
    result = iscsi_target_withdraw(rig->target, &what.id, DEADLINE_MS);
    if (result < 0)
        fail("withdraw", result);
    look(export);
    for (unsigned i = 0; i < 20; i++)
        give_up(export);
    result = iscsi_target_publish(rig->target, &what, DEADLINE_MS, &fault);
    if (result < 0)
        fail(fault.why, result);
}

int main(void)
{
    unsigned which[4] = { 0, 1, 0, 1 };
    pthread_t threads[4];
    struct iscsi_figures figures;

    rig = rig_start(&(struct rig_options){ .buffer_bytes = 8u << 20 });
    for (unsigned i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, client, &which[i]) != 0)
            fail("no thread", (int)i);
    for (unsigned i = 0; i < ROUNDS || (atomic_load(&logins) < 4 && i < 200); i++)
        round_of(i % 2);
    atomic_store(&over, true);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    iscsi_target_figures(rig->target, &figures);
    fprintf(stderr, "stress: %u logins, %llu commands\n", atomic_load(&logins),
            (unsigned long long)figures.commands);
    if (figures.commands == 0 || atomic_load(&logins) == 0)
        fail("nobody came through", 0);
    rig_stop(rig);
    return 0;
}

/* Threads against the target: exports come and go, are changed and looked at, while initiators
 * come, work and are thrown out, on both loops. Nothing may race, leak or hang. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "replica/base/clock.h"
#include "tests/server/iscsi/strict_client.h"
#include "tests/server/iscsi/target_rig.h"
#include "tests/support/seed.h"

enum {
    CLIENTS = 4,
    ROUNDS = 12,
    LOGINS = 4, /* at least, in the rounds */
    DEADLINE_MS = 60000,
    CLIENT_S = 60,
    STRICT_MS = 300
};

static struct rig *rig;
static uint64_t seed;
static atomic_bool over;
static atomic_uint logins;

static _Noreturn void fail(const char *what, int result)
{
    fprintf(stderr, "stress: %s: %d\n", what, result);
    exit(1);
}

/* -- clients --------------------------------------------------------------------------------- */

struct client {
    unsigned number, export;
    char name[SCSI_NAME_MAX];
};

/* Its own success is not the question: the target is taken from under it. But it ends. */
static void stranger(const char *const argv[])
{
    char output[4096];
    int status = rig_load(argv, CLIENT_S, output, sizeof output);

    if (status == RIG_LATE)
        fail(argv[0], status);
    if (status == 0)
        atomic_fetch_add(&logins, 1);
}

static void owed(void *context)
{
    fprintf(stderr, "stress: client %u is owed an answer\n",
            ((struct client *)context)->number);
    rig_tell(rig);
}

/* Thrown out is fine; to wait in vain is not. */
static void strict(struct client *client)
{
    struct strict_client work = {
        .port = rig->port,
        .target = client->name,
        .user = client->export == 1 ? "alice" : NULL,
        .secret = client->export == 1 ? "alice-has-a-secret" : NULL,
        .number = client->number,
        .first = (uint64_t)client->number * (RIG_BYTES / CLIENTS),
        .bytes = RIG_BYTES / CLIENTS,
        .depth = 16,
        .run_ms = STRICT_MS,
        .late_ms = DEADLINE_MS,
        .seed = seed + client->number,
    };
    enum strict_end end = strict_run(&work, owed, client);

    if (end == STRICT_LATE || end == STRICT_WRONG)
        fail("a strict client", (int)end);
    if (work.answered > 0)
        atomic_fetch_add(&logins, 1);
}

static void *client_run(void *context)
{
    struct client *client = context;
    char url[512];
    const char *const ask[] = { "iscsi-inq", url, NULL };
    const char *const work[] = { "iscsi-perf", "-n", "-x", "0", "-m", "16", "-b", "8",
        "-r", "-t", "1", url, NULL };

    rig_name(client->export, client->name);
    snprintf(url, sizeof url, "iscsi://%s127.0.0.1:%u/%s/0",
            client->export == 1 ? "alice%alice-has-a-secret@" : "", rig->port,
            client->name);
    while (!atomic_load(&over)) {
        stranger(ask);
        strict(client);
        stranger(work);
    }
    return NULL;
}

/* -- what is done to them -------------------------------------------------------------------- */

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
    struct client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    struct iscsi_figures figures;
    struct instant late;

    seed = seed_take("stress_target");
    rig = rig_start(&(struct rig_options){ .buffer_bytes = 8u << 20 });
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){ .number = i, .export = i % 2 };
        if (pthread_create(&threads[i], NULL, client_run, &clients[i]) != 0)
            fail("no thread", (int)i);
    }
    late = instant_add_ms(clock_monotonic(), DEADLINE_MS);
    for (unsigned i = 0; i < ROUNDS ||
            (atomic_load(&logins) < LOGINS &&
                    !instant_reached(clock_monotonic(), late));
            i++)
        round_of(i % 2);
    atomic_store(&over, true);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    iscsi_target_figures(rig->target, &figures);
    fprintf(stderr, "stress: %u came through, %llu commands\n", atomic_load(&logins),
            (unsigned long long)figures.commands);
    if (figures.commands == 0 || atomic_load(&logins) == 0)
        fail("nobody came through", 0);
    rig_stop(rig);
    return 0;
}

/* iscsi_serve - a file as an iSCSI target, without the daemon: to be measured and tried by
 * strangers. Not installed.
 *
 *   iscsi_serve [-p PORT] [-l LOOPS] [-6] [-r] [-b MIB] [-i PING_MS] [-u USER:SECRET]
 *               [-m USER:SECRET] FILE...
 *
 * Serves each FILE (or "memory:BYTES") as LUN 0 of iqn.2026-11.org.replicad:UUID on 127.0.0.1
 * (or ::1), prints "port PORT" and each target's name, and ends with its standard input. */
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/scope.h"

#include "tests/server/iscsi/backing.h"

#include "server/iscsi/target.h"

enum { EXPORTS_MAX = 16, LOOPS_MAX = 8 };

static void *loop_thread_main(void *loop)
{
    loop_run(loop);
    return NULL;
}

static void chap_parse(const char *text, char *user, char *secret)
{
    const char *colon = strchr(text, ':');

    if (!colon)
        return;
    snprintf(user, CHAP_NAME_MAX, "%.*s", (int)(colon - text), text);
    snprintf(secret, CHAP_SECRET_MAX, "%s", colon + 1);
}

struct settings {
    unsigned loops, ping_ms, buffer_mib;
    uint16_t port;
    bool v6, read_only, has_chap;
    struct login_chap chap;
};

static void settings_read(struct settings *settings, int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "p:l:6rb:i:u:m:")) != -1) {
        switch (option) {
        case 'p':
            settings->port = (uint16_t)atoi(optarg);
            break;
        case 'l':
            settings->loops = (unsigned)atoi(optarg);
            break;
        case '6':
            settings->v6 = true;
            break;
        case 'r':
            settings->read_only = true;
            break;
        case 'b':
            settings->buffer_mib = (unsigned)atoi(optarg);
            break;
        case 'i':
            settings->ping_ms = (unsigned)atoi(optarg);
            break;
        case 'u':
            settings->has_chap = true;
            chap_parse(optarg, settings->chap.user, settings->chap.secret);
            break;
        case 'm':
            chap_parse(
                    optarg, settings->chap.mutual_user, settings->chap.mutual_secret);
            break;
        default:
            exit(2);
        }
    }
}

static struct sockaddr_storage portal_of(const struct settings *settings)
{
    struct sockaddr_storage storage = { 0 };
    struct sockaddr_in *v4 = (struct sockaddr_in *)&storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&storage;

    if (settings->v6) {
        v6->sin6_family = AF_INET6;
        v6->sin6_addr = in6addr_loopback;
        v6->sin6_port = htons(settings->port);
    } else {
        v4->sin_family = AF_INET;
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        v4->sin_port = htons(settings->port);
    }
    return storage;
}

static void publish(struct iscsi_target *target, const struct settings *settings,
        struct backing *backing, unsigned index)
{
    static const char *const everybody[] = { "*" };
    struct iscsi_export export = {
        .initiators = everybody,
        .initiator_count = 1,
        .has_chap = settings->has_chap,
        .chap = settings->chap,
        .read_only = settings->read_only,
        .loop = index % settings->loops,
        .backing = &backing->scsi,
    };
    struct fault fault = { 0 };
    char text[UUID_TEXT], name[SCSI_NAME_MAX];

    snprintf(text, sizeof text, "00000000-0000-7000-8000-%012u", index + 1);
    if (!uuid_parse(text, &export.id) ||
            iscsi_target_publish(target, &export, 10000, &fault) < 0) {
        fprintf(stderr, "%s: %s\n", backing->path, fault.why);
        exit(1);
    }
    iscsi_target_name("iqn.2026-11.org.replicad", &export.id, name);
    printf("target %s\n", name);
}

int main(int argc, char **argv)
{
    static struct backing backings[EXPORTS_MAX];
    struct settings settings = { .loops = 1 };
    struct loop *loops[LOOPS_MAX];
    pthread_t threads[LOOPS_MAX];
    struct sockaddr_storage portal;
    struct iscsi_target *target;
    struct fault fault = { 0 };
    unsigned exports = 0;
    char sink[64];

    settings_read(&settings, argc, argv);
    if (settings.loops < 1 || settings.loops > LOOPS_MAX)
        return 2;
    setenv("UV_THREADPOOL_SIZE", "24", 0); /* before any call of libuv */
    for (unsigned i = 0; i < settings.loops; i++)
        if (!(loops[i] = loop_uv_create()) ||
                pthread_create(&threads[i], NULL, loop_thread_main, loops[i]) != 0)
            return 1;
    portal = portal_of(&settings);
    target = iscsi_target_create(
            &(struct iscsi_target_options){ .loops = loops,
                    .loop_count = settings.loops,
                    .portals = &portal,
                    .portal_count = 1,
                    .prefix = "iqn.2026-11.org.replicad",
                    .buffer_bytes = (size_t)settings.buffer_mib << 20,
                    .ping_ms = settings.ping_ms },
            &fault);
    if (!target) {
        fprintf(stderr, "%s\n", fault.why);
        return 1;
    }
    iscsi_target_portal(target, 0, &portal);
    printf("port %u\n", ntohs(((struct sockaddr_in *)&portal)->sin_port));
    for (int i = optind; i < argc && exports < EXPORTS_MAX; i++, exports++) {
        struct backing *backing = &backings[exports];
        backing_init(
                backing, argv[i], !settings.read_only, loops[exports % settings.loops]);
        publish(target, &settings, backing, exports);
    }
    fflush(stdout);
    while (read(STDIN_FILENO, sink, sizeof sink) > 0)
        ;
    iscsi_target_destroy(target, 1000);
    for (unsigned i = 0; i < settings.loops; i++) {
        loop_stop(loops[i]);
        pthread_join(threads[i], NULL);
        loop_destroy(loops[i]);
    }
    return 0;
}

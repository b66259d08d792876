/* Many clients at once: only answers that are documented, memory that stays bounded, and
 * probes that answer while every connection of the API is held. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/service/world.h"
#include "tests/support/expect.h"

enum {
    CLIENTS = 64,
    SETTINGS_EACH = 12,
    REPLICAS_EACH = 3,
    HELD = 300,
    MEMORY_KIB = 256 << 10
};

struct client {
    pthread_t thread;
    const char *http, *source;
    unsigned made, started, later, wrong;
};

static void client_post(struct client *client, const char *path, const char *body)
{
    struct http_answer answer = { 0 };
    long status = http_send(client->http, "POST", path, body, NULL, &answer);

    client->made += status == 201;
    client->started += status == 202;
    client->later += status == 503;
    if (status != 201 && status != 202 && status != 503) {
        client->wrong++;
        fprintf(stderr, "load: %ld %s%s\n", status, answer.body ? answer.body : "",
                answer.why);
    }
    http_answer_release(&answer);
}

static void *client_run(void *context)
{
    struct client *client = context;
    char body[256];

    for (unsigned i = 0; i < SETTINGS_EACH; i++)
        client_post(client, "/settings", "{\"ElementName\":\"s\",\"DesiredRPO\":60}");
    snprintf(body, sizeof body, "{\"SourceElement\":\"%s\",\"CopyType\":5}",
            client->source);
    for (unsigned i = 0; i < REPLICAS_EACH; i++)
        client_post(client, "/replicas", body);
    return NULL;
}

/* The most that was ever resident, KiB. */
static unsigned long memory_peak(pid_t pid)
{
    char path[64], line[256];
    unsigned long peak = 0;
    FILE *status;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    status = fopen(path, "r");
    cr_assert(status, "%s", path);
    while (fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %lu", &peak) == 1)
            break;
    fclose(status);
    return peak;
}

Test(load, sixty_four_clients_at_once)
{
    unsigned made = 0, started = 0, later = 0, wrong = 0;
    static struct client clients[CLIENTS];
    struct world world;
    char source[WORLD_ID];
    unsigned long peak;
    json_t *list;

    world_open(&world, NULL);
    world_file(&world, "source", 300000, 1);
    register_file(&world, "source", source);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){ .http = world.daemon.http, .source = source };
        expect_eq(pthread_create(&clients[i].thread, NULL, client_run, &clients[i]), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        made += clients[i].made;
        started += clients[i].started;
        later += clients[i].later;
        wrong += clients[i].wrong;
    }
    fprintf(stderr, "load: %u settings, %u jobs, %u asked to come back\n", made,
            started, later);
    expect_eq(wrong, 0);
    expect_eq(made + started + later, CLIENTS * (SETTINGS_EACH + REPLICAS_EACH));
    expect(started > 0 && made > 0);
    for (;;) { /* all of them end, and well */
        list = world_call(&world, 200, "GET", "/jobs?limit=1&JobState=2,3,4,6", NULL);
        json_t *job = json_array_get(json_object_get(list, "Members"), 0);
        if (!job)
            break;
        job_completed(&world, text_of(job, "Self"), 120);
        json_decref(list);
    }
    json_decref(list);
    list = world_call(&world, 200, "GET", "/jobs?limit=500&JobState=Completed", NULL);
    expect_eq(json_array_size(json_object_get(list, "Members")), started);
    json_decref(list);
    peak = memory_peak(world.daemon.pid);
    fprintf(stderr, "load: at most %lu MiB resident\n", peak >> 10);
#ifndef __SANITIZE_ADDRESS__ /* whose shadow memory is not ours */
    expect(peak < MEMORY_KIB);
#endif
    world_close(&world);
}

Test(load, probes_answer_while_every_connection_is_held)
{
    const char *options[] = { "--health", "127.0.0.1:0", NULL };
    const char *probe[] = { "--check-health", NULL, NULL };
    struct http_answer answer = { 0 };
    static int held[HELD];
    char output[512];
    struct world world;

    world_open(&world, options);
    for (unsigned i = 0; i < HELD; i++) {
        held[i] = raw_open(world.daemon.http);
        if (held[i] >= 0)
            (void)raw_send(held[i], "GET /jobs HTTP/1.1\r\nHo", 22);
    }
    expect_eq(
            http_send(world.daemon.health, "GET", "/livez", NULL, NULL, &answer), 200);
    http_answer_release(&answer);
    expect_eq(http_send(world.daemon.health, "GET", "/metrics", NULL, NULL, &answer),
            200);
    http_answer_release(&answer);
    probe[1] = world.daemon.health;
    expect_eq(daemon_run(probe, output, sizeof output), 0);
    for (unsigned i = 0; i < HELD; i++)
        if (held[i] >= 0)
            close(held[i]);
    world_close(&world);
}

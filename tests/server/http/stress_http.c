/* Many clients, all kinds of manners, short deadlines, and a stop in the middle of it: for
 * ThreadSanitizer, which Criterion does not stand. Prints its seed, takes REPLICAD_SEED.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/server/http/rig.h"
#include "tests/support/seed.h"

#define HOST "Host: localhost\r\n"

enum { CLIENTS = 12, ROUNDS = 3, ROUND_MS = 1200, ANSWERS = 40, PATIENCE_MS = 300000 };

struct client {
    struct service *service;
    char address[64]; /* the listeners' own ends with them */
    uint64_t state;
    atomic_uint answers;
    pthread_t thread;
};

static atomic_bool over;

static unsigned pick(struct client *client, unsigned count)
{
    return (unsigned)seed_below(&client->state, count);
}

static void ask(struct client *client)
{
    static const char *const asks[] = {
        "GET /jobs?a=1 HTTP/1.1\r\n" HOST "\r\n",
        "GET /jobs/J?wait=1 HTTP/1.1\r\n" HOST "\r\n",
        "POST /replicas HTTP/1.1\r\n" HOST "Content-Type: application/json\r\nPrefer: "
        "wait=1\r\nContent-Length: 2\r\n\r\n{}",
        "POST /replicas HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}",
        "GET /metrics HTTP/1.1\r\n" HOST "\r\n",
        "GET /readyz?verbose HTTP/1.1\r\n" HOST "\r\n",
        "GET /events?last_event_id=0 HTTP/1.1\r\n" HOST "\r\n",
        "GET /nothing HTTP/1.1\r\n" HOST "\r\n",
        "GET /jobs HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "POST /replicas HTTP/1.1\r\n" HOST
        "Content-Length: 90\r\n\r\nslow", /* never ends */
        "GET /job", /* neither */
    };
    const char *bytes = asks[pick(client, sizeof(asks) / sizeof(asks[0]))];
    int fd = raw_open(client->address), times = 1 + (int)pick(client, 3);
    char text[4096];

    if (fd < 0)
        return;
    for (int i = 0; i < times && raw_send(fd, bytes, strlen(bytes)); i++)
        if (raw_read(fd, "\r\n\r\n", (int)pick(client, 300), text, sizeof(text), NULL) >
                0)
            client->answers++;
    close(fd);
}

static void *client_run(void *context)
{
    struct client *client = context;

    while (!atomic_load(&over)) {
        fake_event(client->service, "InstModification", "Job", "{}");
        ask(client);
    }
    return NULL;
}

static unsigned answers_of(struct client *clients)
{
    unsigned answers = 0;

    for (unsigned i = 0; i < CLIENTS; i++)
        answers += atomic_load(&clients[i].answers);
    return answers;
}

/* A round lasts its time, and on a slow machine until it has shown something. */
static void round_wait(struct client *clients)
{
    struct instant due = instant_add_ms(clock_monotonic(), PATIENCE_MS);

    do
        usleep(ROUND_MS * 1000);
    while (answers_of(clients) < ANSWERS && !instant_reached(clock_monotonic(), due));
}

static unsigned round_run(uint64_t seed)
{
    struct rig rig = rig_start((struct http_options){ .deadline_ms = 100,
            .idle_s = 1,
            .keep_alive_ms = 50,
            .connections = 8,
            .waiters = 3 });
    struct client clients[CLIENTS];

    atomic_store(&over, false);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){ .service = rig.service, .state = seed + i };
        snprintf(clients[i].address, sizeof(clients[i].address), "%s", rig.address);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        if (pthread_create(&clients[i].thread, NULL, client_run, &clients[i]) != 0)
            abort();
    round_wait(clients);
    http_drain(rig.http);
    service_drain(rig.service);
    http_quiesce(rig.http, 10000);
    http_stop(rig.http); /* while clients still knock */
    atomic_store(&over, true);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(clients[i].thread, NULL);
    service_destroy(rig.service);
    return answers_of(clients);
}

int main(void)
{
    uint64_t seed = seed_take("stress_http");
    unsigned answers = 0;

    for (unsigned i = 0; i < ROUNDS; i++)
        answers += round_run(seed + i * 1000);
    printf("%u answers\n", answers);
    return answers >= ROUNDS * ANSWERS ? 0 : 1;
}

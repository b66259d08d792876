/* kill -9 at random moments, under a stream of POSTs and running copies. After each restart:
 * no transient SyncState without a live job; every key repeated gets its first answer again.
 * At the end: every 4096 that was answered is a job that ended exactly once, with the right
 * bytes. REPLICAD_KILLS: how many lives (100). */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/world.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { SOURCES = 6, PROMISES = 64, CLIENTS = 3 };

/* A 4096 that was answered, and what it was asked with. */
struct promise {
    char key[64], body[400], job[80], target[WORLD_ID];
    unsigned source;
};

struct history {
    struct world world;
    char source[SOURCES][WORLD_ID], source_file[SOURCES][WORLD_PATH];
    uint64_t source_size[SOURCES];
    char slow[WORLD_ID + 16];

    pthread_mutex_t lock; /* the promises of this life and the dice */
    struct promise promises[PROMISES];
    unsigned promised;
    uint64_t state;
    atomic_bool dead;
    unsigned serial;

    unsigned answered, replayed, unanswered, resumed; /* over all lives */
};

static uint64_t draw(struct history *history, uint64_t below)
{
    uint64_t drawn;

    pthread_mutex_lock(&history->lock);
    drawn = seed_below(&history->state, below);
    pthread_mutex_unlock(&history->lock);
    return drawn;
}

static void sources_make(struct history *history)
{
    struct world *world = &history->world;
    char name[32];

    for (unsigned i = 0; i < SOURCES; i++) {
        snprintf(name, sizeof name, "source-%u", i);
        history->source_size[i] = 200000 + seed_below(&history->state, 3 << 20);
        snprintf(history->source_file[i], WORLD_PATH, "%.100s/%s", world->pool, name);
        fill_file(history->source_file[i], history->source_size[i], i + 1, true);
        register_file(world, name, history->source[i]);
    }
    json_t *setting = world_call(world, 201, "POST", "/settings",
            "{\"ElementName\":\"slow\",\"BandwidthLimit\":4000000,"
            "\"DesiredCopyMethodology\":3}");
    snprintf(history->slow, sizeof history->slow, "%s", text_of(setting, "Self"));
    json_decref(setting);
}

static bool promise_send(struct history *history, const struct promise *wanted,
        struct promise *got, bool *replayed)
{
    char header[96], text[HTTP_HEADER_TEXT];
    const char *headers[] = { header, NULL };
    struct http_answer answer = { 0 };
    bool promised = false;
    long status;

    snprintf(header, sizeof header, "Idempotency-Key: \"%s\"", wanted->key);
    status = http_send(history->world.daemon.http, "POST", "/replicas", wanted->body,
            headers, &answer);
    if (status == 202) {
        json_t *json = json_loadb(answer.body, answer.length, 0, NULL);
        *got = *wanted;
        snprintf(got->job, sizeof got->job, "%s", text_of(json, "Job"));
        snprintf(got->target, sizeof got->target, "%s",
                text_of(json, "TargetElement") + strlen("/elements/"));
        *replayed = http_header(&answer, "Idempotent-Replayed", text)[0] == 't';
        json_decref(json);
        promised = true;
    } else if (status != 0) {
        fprintf(stderr, "kill: %s was answered %ld %s\n", wanted->body, status,
                answer.body);
        abort();
    }
    http_answer_release(&answer);
    return promised;
}

/* One client of one life: POSTs until the daemon is gone. */
static void *client(void *context)
{
    static const int copy_types[] = { 5, 5, 4, 2 };
    struct history *history = context;
    struct promise wanted = { 0 }, got;
    bool replayed;

    while (!atomic_load(&history->dead)) {
        wanted.source = (unsigned)draw(history, SOURCES);
        bool slow = draw(history, 2) == 0;
        pthread_mutex_lock(&history->lock);
        snprintf(wanted.key, sizeof wanted.key, "key-%u", ++history->serial);
        pthread_mutex_unlock(&history->lock);
        snprintf(wanted.body, sizeof wanted.body,
                "{\"SourceElement\":\"/elements/%s\",\"CopyType\":%d%s%s%s}",
                history->source[wanted.source], copy_types[draw(history, 4)],
                slow ? ",\"TargetSettingGoal\":\"" : "", slow ? history->slow : "",
                slow ? "\"" : "");
        bool promised = promise_send(history, &wanted, &got, &replayed);
        pthread_mutex_lock(&history->lock);
        if (promised && history->promised < PROMISES)
            history->promises[history->promised++] = got;
        history->answered += promised;
        history->unanswered += !promised;
        bool full = history->promised == PROMISES;
        pthread_mutex_unlock(&history->lock);
        if (!promised || full)
            break;
        usleep((useconds_t)draw(history, 60000)); /* the stream's own pace */
    }
    return NULL;
}

/* A life in which nothing was answered shows little: every other one lasts at least that long. */
static void answer_await(struct history *history)
{
    struct instant due = instant_add_ms(clock_monotonic(), 60000);
    unsigned promised;

    do {
        usleep(1000);
        pthread_mutex_lock(&history->lock);
        promised = history->promised;
        pthread_mutex_unlock(&history->lock);
        cr_assert(!instant_reached(clock_monotonic(), due), "no answer for a minute");
    } while (promised == 0);
}

static void life(struct history *history)
{
    pthread_t clients[CLIENTS];
    struct timespec until = { .tv_nsec = (long)(10 + draw(history, 790)) * 1000000 };

    atomic_store(&history->dead, false);
    for (unsigned i = 0; i < CLIENTS; i++)
        expect_eq(pthread_create(&clients[i], NULL, client, history), 0);
    if (draw(history, 2))
        answer_await(history);
    nanosleep(&until, NULL); /* the moment that is drawn */
    daemon_kill(&history->world.daemon);
    atomic_store(&history->dead, true);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(clients[i], NULL);
}

static void no_state_is_an_orphan(struct history *history)
{
    static const long long transient[] = { 3, 5, 7, 8, 10, 15 };
    json_t *list = world_call(&history->world, 200, "GET", "/replicas?limit=500", NULL);
    size_t at;
    json_t *pair;

    expect(json_is_null(json_object_get(list, "Next")));
    json_array_foreach(json_object_get(list, "Members"), at, pair)
    {
        for (unsigned i = 0; i < sizeof transient / sizeof *transient; i++)
            if (number_of(pair, "SyncState") == transient[i])
                cr_assert(json_is_string(json_object_get(pair, "Job")), "%s",
                        json_dumps(pair, 0));
    }
    json_decref(list);
}

/* Half of the keys are sent again: the first answer, no second job. */
static void keys_hold(struct history *history)
{
    for (unsigned i = 0; i < history->promised; i += 2) {
        struct promise *promise = &history->promises[i], again;
        bool replayed = false;

        cr_assert(promise_send(history, promise, &again, &replayed), "no answer");
        cr_assert(replayed, "%s made a second job", promise->key);
        expect_str(again.job, promise->job);
        history->replayed++;
    }
}

static void promises_kept(struct history *history)
{
    char path[128], file[WORLD_PATH];

    for (unsigned i = 0; i < history->promised; i++) {
        struct promise *promise = &history->promises[i];

        job_completed(&history->world, promise->job, 120);
        element_file(&history->world, promise->target, file);
        cr_assert(same_bytes(history->source_file[promise->source], file,
                          history->source_size[promise->source]),
                "%s differs", file);
        snprintf(path, sizeof path, "/replicas/%s", promise->target);
        if (!strstr(promise->body, "\"CopyType\":5"))
            json_decref(world_call(&history->world, 200, "DELETE", path, NULL));
        snprintf(path, sizeof path, "/elements/%s", promise->target);
        json_decref(world_call(&history->world, 0, "DELETE", path, NULL));
    }
}

/* What nobody was promised (the answer was lost) must end as well. */
static void nothing_is_left_running(struct history *history)
{
    json_t *list = world_call(
            &history->world, 200, "GET", "/jobs?limit=500&JobState=2,3,4,5,6", NULL);
    size_t at;
    json_t *job;

    json_array_foreach(json_object_get(list, "Members"), at, job)
            json_decref(job_end(&history->world, text_of(job, "Self"), 120));
    json_decref(list);
}

static void one_end_a_job(struct history *history)
{
    char path[] = "/jobs?limit=500&JobState=8,9,10";
    json_t *list = world_call(&history->world, 200, "GET", path, NULL);

    cr_assert(json_array_size(json_object_get(list, "Members")) == 0, "%s",
            json_dumps(list, 0));
    json_decref(list);
}

Test(kill, every_promise_survives)
{
    const char *lives = getenv("REPLICAD_KILLS");
    static struct history history = { .lock = PTHREAD_MUTEX_INITIALIZER };
    unsigned kills = lives ? (unsigned)atoi(lives) : 100;

    history.state = seed_take("kill");
    world_open(&history.world, NULL);
    sources_make(&history);
    for (unsigned i = 0; i < kills; i++) {
        history.promised = 0;
        life(&history);
        cr_assert(daemon_restart(&history.world.daemon), "life %u: %s", i,
                history.world.daemon.why);
        no_state_is_an_orphan(&history);
        keys_hold(&history);
        promises_kept(&history);
    }
    nothing_is_left_running(&history);
    one_end_a_job(&history);
    fprintf(stderr,
            "kill: %u lives, %u promises kept, %u keys replayed, %u calls unanswered\n",
            kills, history.answered, history.replayed, history.unanswered);
    cr_assert(history.answered >= kills / 4, "too few promises to have shown anything");
    world_close(&history.world);
}

#include "tests/service/moments.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { PLAYS_MOST = 400, CHUNK = 64 << 10 };

void stage_open(struct stage *stage, const char *what, const char *const *extra)
{
    memset(stage, 0, sizeof *stage);
    stage->state = seed_take(what);
    stage->moment = moment_open();
    setenv("REPLICAD_FILES", "pool", 1); /* of io_uring nothing would be seen */
    house_open(&stage->house, extra);
    snprintf(stage->moment->below[0], MOMENT_DIRECTORY, "%s", stage->house.world.pool);
    snprintf(stage->moment->below[1], MOMENT_DIRECTORY, "%s",
            stage->house.world.daemon.data);
}

/** Rows that say "this file may be an orphan". */
static int makings(struct stage *stage)
{
    char path[WORLD_PATH];
    sqlite3_stmt *count;
    sqlite3 *database;
    int rows;

    snprintf(path, sizeof path, "%s/replicad.db", stage->house.world.daemon.data);
    expect_eq(sqlite3_open_v2(path, &database, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    expect_eq(sqlite3_prepare_v2(database,
                      "SELECT count(*) FROM meta WHERE \"key\" LIKE 'making:%'", -1,
                      &count, NULL),
            SQLITE_OK);
    expect_eq(sqlite3_step(count), SQLITE_ROW);
    rows = sqlite3_column_int(count, 0);
    sqlite3_finalize(count);
    sqlite3_close(database);
    return rows;
}

void stage_close(struct stage *stage)
{
    moment_close(stage->moment);
    expect_eq(daemon_stop(&stage->house.world.daemon), 0);
    expect_eq(makings(stage), 0);
    house_close(&stage->house);
}

void stage_restart(struct stage *stage)
{
    house_kill(&stage->house);
}

json_t *stage_ask(
        struct stage *stage, const char *method, const char *path, const char *body)
{
    json_t *answer =
            world_try(&stage->house.world, NULL, &stage->status, method, path, body);

    if (stage->status)
        return answer;
    json_decref(answer);
    cr_assert(stage->error == 0 && atomic_load(&stage->moment->struck),
            "%s %s was not answered, and nobody was killed", method, path);
    return NULL;
}

bool stage_job_over(struct stage *stage)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "%s?wait=5", stage->job);
    for (;;) {
        json_t *job = stage_ask(stage, "GET", path, NULL);
        long long state;

        if (!job)
            return false;
        expect_eq(stage->status, 200);
        state = number_of(job, "JobState");
        cr_assert(!instant_reached(clock_monotonic(), deadline), "it does not end: %s",
                json_dumps(job, 0));
        json_decref(job);
        if (state >= 7)
            return true;
    }
}

long status_of(struct stage *stage, const char *collection, const char *id)
{
    char path[WORLD_PATH];
    long status;

    snprintf(path, sizeof path, "/%s/%s", collection, id);
    json_decref(world_try(&stage->house.world, NULL, &status, "GET", path, NULL));
    return status;
}

bool file_there(const char *path)
{
    return access(path, F_OK) == 0;
}

void file_change(struct stage *stage, const char *path)
{
    uint64_t chunks;
    struct stat status;
    uint8_t bytes[512];
    int fd = open(path, O_RDWR | O_CLOEXEC);

    expect(fd >= 0 && fstat(fd, &status) == 0);
    chunks = (uint64_t)status.st_size / CHUNK;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t at = seed_below(&stage->state, chunks) * CHUNK;
        seed_fill(&stage->state, bytes, sizeof bytes);
        expect_eq(pwrite(fd, bytes, sizeof bytes, (off_t)at), sizeof bytes);
    }
    close(fd);
}

/* -- what must be true whenever it is asked ----------------------------------------------- */

static json_t *everything(struct stage *stage, const char *path)
{
    json_t *list = world_call(&stage->house.world, 200, "GET", path, NULL);

    expect(json_is_null(json_object_get(list, "Next")));
    return list;
}

/** The name of its file in the pool; NULL: it has none of ours. */
static const char *file_of(const json_t *element)
{
    const char *address = text_of(element, "Address");

    return strncmp(address, "pool:default/", 13) == 0 ? address + 13 : NULL;
}

static bool is_named(const json_t *elements, const char *name)
{
    size_t at;
    json_t *element;

    json_array_foreach(elements, at, element)
    {
        const char *file = file_of(element);
        if (file && strcmp(file, name) == 0)
            return true;
    }
    return false;
}

static void files_are_whole(struct stage *stage)
{
    json_t *list = everything(stage, "/elements?limit=500"), *element;
    const json_t *elements = json_object_get(list, "Members");
    DIR *pool = opendir(stage->house.world.pool);
    char path[2 * WORLD_PATH];
    struct dirent *entry;
    size_t at;

    expect(pool != NULL);
    while ((entry = readdir(pool)))
        if (strstr(entry->d_name, ".raw"))
            cr_assert(is_named(elements, entry->d_name),
                    "%s is nobody's; struck: %u, %s", entry->d_name, stage->at,
                    stage->moment->words);
    closedir(pool);
    json_array_foreach(elements, at, element)
    {
        if (!file_of(element))
            continue;
        snprintf(path, sizeof path, "%s/%s", stage->house.world.pool, file_of(element));
        cr_assert(file_there(path), "%s is gone; struck: %u, %s", path, stage->at,
                stage->moment->words);
    }
    json_decref(list);
}

static void states_are_whole(struct stage *stage)
{
    static const long long transient[] = { 3, 5, 7, 8, 10, 15 };
    json_t *list = everything(stage, "/replicas?limit=500"), *pair;
    size_t at;

    json_array_foreach(json_object_get(list, "Members"), at, pair)
    {
        for (unsigned i = 0; i < sizeof transient / sizeof *transient; i++)
            if (number_of(pair, "SyncState") == transient[i])
                cr_assert(json_is_string(json_object_get(pair, "Job")),
                        "%s; struck: %u, %s", json_dumps(pair, 0), stage->at,
                        stage->moment->words);
    }
    json_decref(list);
}

void stage_is_whole(struct stage *stage)
{
    files_are_whole(stage);
    states_are_whole(stage);
}

/* -- a pair -------------------------------------------------------------------------------- */

void job_take(struct stage *stage, const json_t *answer)
{
    snprintf(stage->job, sizeof stage->job, "%s", text_of(answer, "Job"));
}

void pair_take(struct stage *stage, const json_t *answer)
{
    snprintf(stage->id, sizeof stage->id, "%s",
            text_of(answer, "TargetElement") + strlen("/elements/"));
    element_file(&stage->house.world, stage->id, stage->target);
}

json_t *pair_get(struct stage *stage)
{
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "/replicas/%s", stage->id);
    return world_call(&stage->house.world, 200, "GET", path, NULL);
}

void pair_refused(const struct stage *stage, const json_t *answer)
{
    cr_assert(
            stage->error != 0 && stage->status == (stage->error == ENOSPC ? 507 : 500),
            "%ld %s; struck: %s", stage->status, json_dumps(answer, 0),
            stage->moment->words);
    if (stage->error == ENOSPC)
        expect_eq(number_of(answer, "ReturnValue"), 4);
}

bool pair_failed(struct stage *stage)
{
    json_t *pair = pair_get(stage), *job;
    bool failed = number_of(pair, "SyncState") == 12;

    if (failed) {
        expect(stage->error != 0);
        expect(json_is_null(json_object_get(pair, "Job")));
        expect(text_of(pair, "LastError")[0] != '\0');
        job = job_end(&stage->house.world, stage->job, PATIENCE_S);
        expect_eq(number_of(job, "JobState"), 10);
        cr_assert(number_of(job, "ReturnValue") == 4 || stage->error != ENOSPC, "%s",
                json_dumps(job, 0));
        json_decref(job);
    }
    json_decref(pair);
    return failed;
}

void pair_settle(struct stage *stage)
{
    json_t *pair, *job;

    if (pair_failed(stage))
        pair_operate(stage, 4);
    pair = pair_get(stage);
    job = json_object_get(pair, "Job");
    if (json_is_string(job))
        job_completed(&stage->house.world, json_string_value(job), PATIENCE_S);
    json_decref(pair);
    pair = pair_get(stage);
    cr_assert(json_is_null(json_object_get(pair, "Job")) &&
                    json_is_null(json_object_get(pair, "LastError")),
            "%s; struck: %s", json_dumps(pair, 0), stage->moment->words);
    expect_eq(number_of(pair, "SyncState"), 14);
    json_decref(pair);
}

void pair_answered(struct stage *stage, json_t *answer)
{
    if (!answer)
        return;
    if (stage->status == 202) {
        job_take(stage, answer);
        stage->status = stage_job_over(stage) ? 202 : 0;
    } else {
        pair_refused(stage, answer);
    }
    json_decref(answer);
}

json_t *pair_ask(struct stage *stage, int number)
{
    char path[WORLD_PATH], body[64];

    snprintf(path, sizeof path, "/replicas/%s/modify", stage->id);
    snprintf(body, sizeof body, "{\"Operation\":%d}", number);
    return stage_ask(stage, "POST", path, body);
}

void pair_operate(struct stage *stage, int number)
{
    pair_answered(stage, pair_ask(stage, number));
}

void pair_remove(struct stage *stage)
{
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "/replicas/%s", stage->id);
    json_decref(world_call(&stage->house.world, 200, "DELETE", path, NULL));
}

/* -- the play ------------------------------------------------------------------------------ */

static void point_note(struct stage *stage)
{
    size_t used = strlen(stage->points);

    snprintf(stage->points + used, sizeof stage->points - used, "%s\n",
            stage->moment->words);
}

/** What failed once does not fail for ever: something new is taken, at the latest when the
    store has found that there is space. */
static void service_goes_on(struct stage *stage)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    long status;

    do {
        json_decref(world_try(&stage->house.world, NULL, &status, "POST", "/settings",
                "{\"ElementName\":\"after\"}"));
        cr_assert(status == 201 ||
                        (status / 100 == 5 &&
                                !instant_reached(clock_monotonic(), deadline)),
                "%ld; struck: %s", status, stage->moment->words);
        if (status != 201)
            usleep(20000); /* between two looks; the answer is what ends it */
    } while (status != 201);
}

/** At once, too; but a file that could not be removed stays until the next start. */
static void stage_look(struct stage *stage, const struct scene *scene)
{
    if (strncmp(stage->moment->words, "unlinkat", 8) != 0)
        stage_is_whole(stage);
    if (scene->look)
        scene->look(stage);
    service_goes_on(stage);
}

bool stage_strike(
        struct stage *stage, const struct scene *scene, const char *only, unsigned at)
{
    stage->at = at;
    scene->prepare(stage);
    moment_arm(stage->moment, at, stage->error, only);
    scene->act(stage);
    stage->struck = moment_disarm(stage->moment);
    if (stage->struck) {
        point_note(stage);
        if (stage->error)
            stage_look(stage, scene);
        stage_restart(stage); /* after an error too: what is true must be durable */
    }
    scene->judge(stage);
    stage_is_whole(stage);
    return stage->struck;
}

static void class_play(struct stage *stage, const struct scene *scene, const char *only)
{
    unsigned at = 1;

    while (stage_strike(stage, scene, only, at))
        cr_assert(at++ < PLAYS_MOST, "it has no end");
}

/* One after another: how often SQLite syncs its directory differs from life to life, and would
   let calls on other files be passed over. */
static const char *const classes[] = { "-wal", "/replicad-pool-", ".digests" };

void stage_play(struct stage *stage, const struct scene *scene, int error)
{
    stage->error = error;
    stage->points[0] = '\0';
    for (unsigned i = 0; i < sizeof classes / sizeof *classes; i++)
        class_play(stage, scene, classes[i]);
    fprintf(stderr, "struck%s:\n%s", error ? " with an error" : "", stage->points);
}

unsigned stage_points(const struct stage *stage, const char *call, const char *file)
{
    unsigned count = 0;

    for (const char *line = stage->points; *line; line = strchr(line, '\n') + 1) {
        const char *found = strstr(line, file);
        count += strncmp(line, call, strlen(call)) == 0 && found &&
                found < strchr(line, '\n');
    }
    return count;
}

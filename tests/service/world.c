#include "tests/service/world.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/support/directory.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { BLOCK = 64 << 10, GARBAGE = 0xa5 };

extern char **environ;

void world_open(struct world *world, const char *const *extra)
{
    unsigned count = 0;

    *world = (struct world){ 0 };
    strcpy(world->pool, "/tmp/replicad-pool-XXXXXX");
    cr_assert(mkdtemp(world->pool), "no directory for the pool");
    snprintf(world->pool_option, sizeof world->pool_option, "default=%s", world->pool);
    world->arguments[count++] = "--pool";
    world->arguments[count++] = world->pool_option;
    while (extra && *extra)
        world->arguments[count++] = *extra++;
    cr_assert(daemon_start(&world->daemon, world->arguments), "%s", world->daemon.why);
}

void world_close(struct world *world)
{
    if (world->daemon.pid)
        expect_eq(daemon_stop(&world->daemon), 0);
    daemon_release(&world->daemon);
    tgt_stop(world->tgt);
    (void)tree_remove(world->pool);
}

void world_tgt(struct world *world)
{
    world->tgt = tgt_start();
    tgt_add_target(world->tgt, 1, WORLD_TARGET);
}

static json_t *answer_json(struct http_answer *answer)
{
    json_error_t error;
    json_t *json = answer->length
            ? json_loadb(answer->body, answer->length, JSON_REJECT_DUPLICATES, &error)
            : json_null();

    cr_assert(json, "no JSON: %s", answer->body);
    return json;
}

json_t *world_try(struct world *world, const char *header, long *status,
        const char *method, const char *path, const char *body)
{
    const char *headers[] = { header, NULL };
    struct http_answer answer = { 0 };
    json_t *json;

    *status = http_send(
            world->daemon.http, method, path, body, header ? headers : NULL, &answer);
    json = *status ? answer_json(&answer) : json_null();
    http_answer_release(&answer);
    return json;
}

json_t *world_call(struct world *world, long status, const char *method,
        const char *path, const char *body, ...)
{
    struct http_answer answer = { 0 };
    char text[4096];
    va_list arguments;
    json_t *json;
    long got;

    if (body) {
        va_start(arguments, body);
        vsnprintf(text, sizeof text, body, arguments);
        va_end(arguments);
    }
    got = http_send(
            world->daemon.http, method, path, body ? text : NULL, NULL, &answer);
    cr_assert(got != 0, "%s %s: %s", method, path, answer.why);
    cr_assert(status == 0 || got == status, "%s %s %s: %ld, not %ld: %s", method, path,
            body ? text : "", got, status, answer.body);
    json = answer_json(&answer);
    http_answer_release(&answer);
    return json;
}

const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    cr_assert(text, "no text %s in %s", member, json_dumps(object, 0));
    return text;
}

long long number_of(const json_t *object, const char *member)
{
    const json_t *number = json_object_get(object, member);

    cr_assert(json_is_integer(number), "no number %s in %s", member,
            json_dumps(object, 0));
    return json_integer_value(number);
}

/* -- bytes --------------------------------------------------------------------------- */

static void write_at(int fd, const void *bytes, size_t length, uint64_t offset)
{
    cr_assert(pwrite(fd, bytes, length, (off_t)offset) == (ssize_t)length,
            "a test file could not be written");
}

void fill_file(const char *path, uint64_t size, uint64_t seed, bool holes)
{
    static uint8_t block[BLOCK];
    uint64_t state = seed;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    cr_assert(fd >= 0, "%s", path);
    cr_assert(ftruncate(fd, (off_t)size) == 0, "%s", path);
    for (uint64_t at = 0; at < size; at += BLOCK) {
        size_t length = size - at < BLOCK ? (size_t)(size - at) : BLOCK;
        uint64_t kind = seed_below(&state, 4);
        if (kind == 0 && holes)
            continue;
        if (kind == 0) {
            memset(block, 0, length);
        } else {
            for (size_t i = 0; i + 8 <= length; i += 8)
                memcpy(block + i, &(uint64_t){ seed_next(&state) }, 8);
            memset(block + (length & ~(size_t)7), 0x5c, length & 7);
            if (kind == 1 && length > 8192) /* zeros that are no whole block */
                memset(block + length / 3, 0, length / 2);
        }
        write_at(fd, block, length, at);
    }
    close(fd);
}

void garbage_file(const char *path, uint64_t size)
{
    static uint8_t block[BLOCK];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    cr_assert(fd >= 0, "%s", path);
    memset(block, GARBAGE, sizeof block);
    for (uint64_t at = 0; at < size; at += BLOCK)
        write_at(fd, block, size - at < BLOCK ? (size_t)(size - at) : BLOCK, at);
    close(fd);
}

bool still_garbage(const char *path, uint64_t offset, uint64_t length)
{
    static uint8_t block[BLOCK];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0;

    while (good && length > 0) {
        size_t want = length < BLOCK ? (size_t)length : BLOCK;
        ssize_t got = pread(fd, block, want, (off_t)offset);
        good = got == (ssize_t)want;
        for (ssize_t i = 0; good && i < got; i++)
            good = block[i] == GARBAGE;
        offset += want;
        length -= want;
    }
    if (fd >= 0)
        close(fd);
    return good;
}

int run_program(const char *const *arguments)
{
    posix_spawn_file_actions_t quiet;
    int status = -1;
    pid_t pid;

    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    if (posix_spawnp(&pid, arguments[0], &quiet, NULL,
                (char *const *)(uintptr_t)arguments, environ) == 0)
        waitpid(pid, &status, 0);
    posix_spawn_file_actions_destroy(&quiet);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool same_bytes(const char *a, const char *b, uint64_t size)
{
    char count[32];
    const char *cmp[] = { "cmp", "-n", count, a, b, NULL };

    snprintf(count, sizeof count, "%llu", (unsigned long long)size);
    return run_program(cmp) == 0;
}

/* -- elements ------------------------------------------------------------------------ */

void world_file(struct world *world, const char *name, uint64_t size, uint64_t seed)
{
    char path[2 * WORLD_PATH];

    snprintf(path, sizeof path, "%s/%s", world->pool, name);
    fill_file(path, size, seed, true);
}

static void take_id(json_t *element, char id[WORLD_ID])
{
    snprintf(id, WORLD_ID, "%s", text_of(element, "Id"));
    json_decref(element);
}

void register_file(struct world *world, const char *name, char id[WORLD_ID])
{
    take_id(world_call(world, 201, "POST", "/elements",
                    "{\"Type\":\"LogicalFile\",\"ElementName\":\"%s\","
                    "\"Address\":\"pool:default/%s\"}",
                    name, name),
            id);
}

void register_lun(struct world *world, int lun, bool remote, char id[WORLD_ID])
{
    take_id(world_call(world, 201, "POST", "/elements",
                    "{\"Type\":\"StorageVolume\",\"ElementName\":\"lun %d\","
                    "\"Address\":\"iscsi://127.0.0.1:%u/" WORLD_TARGET
                    "/%d\",\"Remote\":%s}",
                    lun, world->tgt->port, lun, remote ? "true" : "false"),
            id);
}

void register_extent(struct world *world, const char *of, uint64_t offset,
        uint64_t size, char id[WORLD_ID])
{
    take_id(world_call(world, 201, "POST", "/elements",
                    "{\"Type\":\"StorageExtent\",\"ElementName\":\"extent\","
                    "\"Of\":\"/elements/%s\",\"Offset\":%llu,\"Size\":%llu}",
                    of, (unsigned long long)offset, (unsigned long long)size),
            id);
}

void make_lun(struct world *world, int lun, unsigned block_size, bool thin,
        const char *backing, char path[WORLD_PATH])
{
    struct tgt_lun what = { .path = path, .block_size = block_size, .thin = thin };

    snprintf(path, WORLD_PATH, "%s/%s", world->tgt->directory, backing);
    tgt_add_lun(world->tgt, 1, lun, &what);
}

void element_file(struct world *world, const char *id, char path[WORLD_PATH])
{
    char self[WORLD_ID + 16];
    const char *address, *slash;
    json_t *element;

    snprintf(self, sizeof self, "/elements/%s", id);
    element = world_call(world, 200, "GET", self, NULL);
    address = text_of(element, "Address");
    slash = strchr(address, '/');
    cr_assert(slash && strncmp(address, "pool:", 5) == 0, "%s", address);
    snprintf(path, WORLD_PATH, "%s%s", world->pool, slash);
    json_decref(element);
}

/* -- jobs ---------------------------------------------------------------------------- */

json_t *job_end(struct world *world, const char *path, unsigned seconds)
{
    struct instant deadline =
            instant_add_ms(clock_monotonic(), seconds * UINT64_C(1000));
    char wait[WORLD_PATH];
    long long state;
    json_t *job;

    snprintf(wait, sizeof wait, "%s?wait=10", path);
    for (;;) {
        job = world_call(world, 200, "GET", wait, NULL);
        state = number_of(job, "JobState");
        if (state >= 7 && state <= 10)
            return job;
        cr_assert(!instant_reached(clock_monotonic(), deadline),
                "the job does not end: %s", json_dumps(job, 0));
        json_decref(job);
    }
}

void job_completed(struct world *world, const char *path, unsigned seconds)
{
    json_t *job = job_end(world, path, seconds);

    cr_assert(number_of(job, "JobState") == 7 && number_of(job, "ReturnValue") == 0 &&
                    number_of(job, "PercentComplete") == 100,
            "%s", json_dumps(job, 0));
    json_decref(job);
}

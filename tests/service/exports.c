#include "tests/service/exports.h"

#include <fcntl.h>
#include <poll.h>
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
#include "tests/support/port.h"
#include "tests/support/seed.h"

/* -- the house ------------------------------------------------------------------------------- */

static void portals_take(struct house *house)
{
    const char *comma = strchr(house->world.daemon.iscsi, ',');

    cr_assert(comma, "two portals, but: %s", house->world.daemon.iscsi);
    snprintf(house->v4, sizeof(house->v4), "%.*s",
            (int)(comma - house->world.daemon.iscsi), house->world.daemon.iscsi);
    snprintf(house->v6, sizeof(house->v6), "%s", comma + 1);
}

void house_open(struct house *house, const char *const *extra)
{
    const char *options[20] = { "--iscsi", "127.0.0.1:0", "--iscsi",
        ipv6_is_there() ? "[::1]:0" : "127.0.0.1:0", "--credentials",
        house->credentials };

    memset(house, 0, sizeof(*house));
    alarm(1200); /* nothing here waits that long */
    strcpy(house->credentials, "/tmp/replicad-secrets-XXXXXX");
    cr_assert(mkdtemp(house->credentials), "no directory for secrets");
    for (unsigned at = 6; extra && *extra; at++)
        options[at] = *extra++;
    world_open(&house->world, options);
    portals_take(house);
}

void house_kill(struct house *house)
{
    daemon_kill(&house->world.daemon);
    cr_assert(daemon_restart(&house->world.daemon), "%s", house->world.daemon.why);
    portals_take(house);
}

void house_close(struct house *house)
{
    world_close(&house->world);
    (void)tree_remove(house->credentials);
}

void volume_make(struct house *house, uint64_t size, char id[WORLD_ID])
{
    json_t *made = world_call(&house->world, 201, "POST", "/elements",
            "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":%llu}",
            (unsigned long long)size);

    snprintf(id, WORLD_ID, "%s", text_of(made, "Id"));
    json_decref(made);
}

static const char *export_path(char path[WORLD_PATH], const char *id)
{
    snprintf(path, WORLD_PATH, "/elements/%s/export", id);
    return path;
}

void export_put(struct house *house, long status, const char *id, const char *body)
{
    char path[WORLD_PATH];
    json_t *answer =
            world_call(&house->world, status, "PUT", export_path(path, id), "%s", body);

    expect(json_is_true(json_object_get(answer, "Serving")));
    json_decref(answer);
}

json_t *export_get(struct house *house, const char *id)
{
    char path[WORLD_PATH];

    return world_call(&house->world, 200, "GET", export_path(path, id), NULL);
}

void serving_wait(struct house *house, const char *id)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    bool serving;

    do {
        json_t *export = export_get(house, id);
        serving = json_is_true(json_object_get(export, "Serving"));
        json_decref(export);
        cr_assert(
                !instant_reached(clock_monotonic(), deadline), "%s is not served", id);
        if (!serving)
            usleep(20000); /* between two looks; the state is what ends it */
    } while (!serving);
}

void call_in_use(
        struct house *house, const char *method, const char *path, const char *body)
{
    json_t *answer =
            world_call(&house->world, 409, method, path, body ? "%s" : NULL, body);

    expect_str(text_of(answer, "type"), "/problems/in-use");
    if (strcmp(method, "PUT") == 0) /* an export is made by no method */
        expect(json_object_get(answer, "ReturnValue") == NULL);
    else
        expect_eq(number_of(answer, "ReturnValue"), 6);
    json_decref(answer);
}

void sessions_wait(struct house *house, const char *id, size_t count)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    size_t found;

    do {
        json_t *export = export_get(house, id);
        found = json_array_size(json_object_get(export, "Sessions"));
        json_decref(export);
        cr_assert(!instant_reached(clock_monotonic(), deadline),
                "%zu sessions, not %zu", found, count);
        if (found != count)
            usleep(20000); /* between two looks; the state is what ends it */
    } while (found != count);
}

void secret_write(struct house *house, const char *name, const char *lines)
{
    char path[2 * WORLD_PATH];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", house->credentials, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, lines, strlen(lines)) == (ssize_t)strlen(lines));
    close(fd);
}

/* -- hosts ------------------------------------------------------------------------------------ */

struct iscsi_context *host_make(const char *id, const char *name)
{
    char initiator[64], target[128];
    struct iscsi_context *host;

    snprintf(initiator, sizeof(initiator), "iqn.2026-11.example:%s", name);
    snprintf(target, sizeof(target), "iqn.2026-11.org.replicad:%s", id);
    host = iscsi_create_context(initiator);
    expect(host != NULL);
    expect_eq(iscsi_set_targetname(host, target), 0);
    iscsi_set_session_type(host, ISCSI_SESSION_NORMAL);
    iscsi_set_timeout(host, PATIENCE_S);
    iscsi_set_noautoreconnect(host, 1);
    return host;
}

bool host_login(struct iscsi_context *host, const char *portal)
{
    return iscsi_connect_sync(host, portal) == 0 && iscsi_login_sync(host) == 0;
}

struct iscsi_context *host_come(const char *portal, const char *id, const char *name)
{
    struct iscsi_context *host = host_make(id, name);

    cr_assert(host_login(host, portal), "%s: %s", name, iscsi_get_error(host));
    host_settle(host);
    return host;
}

void host_leave(struct iscsi_context *host)
{
    expect_eq(iscsi_logout_sync(host), 0);
    host_free(host);
}

void host_free(struct iscsi_context *host)
{
    (void)iscsi_destroy_context(host);
}

bool may_come(const char *portal, const char *id, const char *name)
{
    struct iscsi_context *host = host_make(id, name);
    bool came = host_login(host, portal);

    if (came)
        host_leave(host);
    else
        host_free(host);
    return came;
}

struct said said_of(struct scsi_task *task)
{
    struct said said = { .status = -1 };

    if (!task)
        return said;
    said.status = task->status;
    if (task->status == SCSI_STATUS_CHECK_CONDITION) {
        said.key = (unsigned)task->sense.key;
        said.code = (unsigned)task->sense.ascq;
    }
    said.length = (size_t)task->datain.size;
    if (said.length > sizeof(said.data))
        said.length = sizeof(said.data);
    if (said.length)
        memcpy(said.data, task->datain.data, said.length);
    scsi_free_scsi_task(task);
    return said;
}

struct said host_ready(struct iscsi_context *host)
{
    return said_of(iscsi_testunitready_sync(host, 0));
}

struct said host_read(struct iscsi_context *host, uint64_t lba, unsigned blocks)
{
    return said_of(
            iscsi_read16_sync(host, 0, lba, blocks * SECTOR, SECTOR, 0, 0, 0, 0, 0));
}

struct said host_write(
        struct iscsi_context *host, uint64_t lba, unsigned blocks, uint8_t value)
{
    size_t length = (size_t)blocks * SECTOR;
    uint8_t *bytes = malloc(length);
    struct said said;

    expect(bytes != NULL);
    memset(bytes, value, length);
    said = said_of(iscsi_write16_sync(
            host, 0, lba, bytes, (uint32_t)length, SECTOR, 0, 0, 0, 0, 0));
    free(bytes);
    return said;
}

struct said host_reserve(
        struct iscsi_context *host, int action, int type, uint64_t key, uint64_t other)
{
    struct scsi_persistent_reserve_out_basic out = { .reservation_key = key,
        .service_action_reservation_key = other };

    return said_of(iscsi_persistent_reserve_out_sync(host, 0, action, 0, type, &out));
}

void host_settle(struct iscsi_context *host)
{
    struct said said = host_ready(host);

    for (unsigned i = 0; i < 8 && said.status != SCSI_STATUS_GOOD; i++) {
        cr_assert(said.status == SCSI_STATUS_CHECK_CONDITION &&
                        said.key == SCSI_SENSE_UNIT_ATTENTION,
                "status %d, sense %x/%04x", said.status, said.key, said.code);
        said = host_ready(host);
    }
    expect_good(said);
}

/* -- a writer ------------------------------------------------------------------------------- */

enum { WRITE_LONGEST = 64 }; /* blocks */

/* Not by the library's own waiting calls: of a session that is lost they leave the task, and a
 * pending PDU that points into their stack. */
static void writer_answered(
        struct iscsi_context *iscsi, int status, void *data, void *context)
{
    struct writer_host *writer = context;

    (void)iscsi, (void)status, (void)data;
    writer->answered = true;
}

/** One command to its end. False: the session is lost, and the task is writer_stop()'s. */
static bool writer_write(struct writer_host *writer, uint64_t lba, unsigned blocks)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);

    writer->answered = false;
    writer->task = iscsi_write16_task(writer->host, 0, lba, writer->bytes,
            blocks * SECTOR, SECTOR, 0, 0, 0, 0, 0, writer_answered, writer);
    while (writer->task && !writer->answered &&
            !instant_reached(clock_monotonic(), deadline)) {
        struct pollfd wait = { .fd = iscsi_get_fd(writer->host),
            .events = (short)iscsi_which_events(writer->host) };

        if (poll(&wait, 1, 100) < 0 || iscsi_service(writer->host, wait.revents) != 0)
            return false;
    }
    return writer->task && writer->answered &&
            writer->task->status != SCSI_STATUS_CANCELLED &&
            writer->task->status != SCSI_STATUS_ERROR;
}

static void *writer_main(void *argument)
{
    struct writer_host *writer = argument;

    while (!writer->stop) {
        unsigned count =
                8 * (1 + (unsigned)seed_below(&writer->state, WRITE_LONGEST / 8));
        uint64_t lba = seed_below(&writer->state, writer->blocks - count + 1);
        bool good;

        memset(writer->bytes, (int)seed_below(&writer->state, 256), count * SECTOR);
        writer->lost = !writer_write(writer, lba, count);
        if (writer->lost)
            return NULL;
        good = writer->task->status == SCSI_STATUS_GOOD;
        writer->lost = !good && writer->task->sense.key != SCSI_SENSE_UNIT_ATTENTION;
        scsi_free_scsi_task(writer->task);
        writer->task = NULL;
        if (writer->lost)
            return NULL;
        writer->writes += good;
    }
    return NULL;
}

void writer_start(struct writer_host *writer, const char *portal, const char *id,
        const char *name, uint64_t size)
{
    *writer = (struct writer_host){ .blocks = size / SECTOR,
        .state = seed_take("exports"),
        .host = host_come(portal, id, name) };
    expect_eq(pthread_create(&writer->thread, NULL, writer_main, writer), 0);
}

void writer_wait(struct writer_host *writer, unsigned more)
{
    unsigned wanted = writer->writes + more;
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);

    while (writer->writes < wanted) {
        cr_assert(!instant_reached(clock_monotonic(), deadline),
                "the writer does not come on");
        usleep(5000); /* between two looks; the count is what ends it */
    }
}

void writer_stop(struct writer_host *writer)
{
    writer->stop = true;
    pthread_join(writer->thread, NULL);
    if (writer->lost)
        host_free(writer->host);
    else
        host_leave(writer->host);
    if (writer->task) /* nothing points to it any more */
        scsi_free_scsi_task(writer->task);
}

/* -- programs ---------------------------------------------------------------------------------- */

int shell(char output[OUTPUT], const char *command, ...)
{
    char words[2048], line[2200];
    va_list arguments;
    size_t length;
    FILE *pipe;
    int status;

    va_start(arguments, command);
    vsnprintf(words, sizeof(words), command, arguments);
    va_end(arguments);
    snprintf(line, sizeof(line), "(timeout -k 5 60 %s) 2>&1", words);
    pipe = popen(line, "r");
    expect(pipe != NULL);
    length = fread(output, 1, OUTPUT - 1, pipe);
    output[length] = '\0';
    status = pclose(pipe);
    status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (status != 0)
        fprintf(stderr, "%s: %d: %s\n", words, status, output);
    return status;
}

const char *url_of(char url[256], const char *portal, const char *id)
{
    snprintf(url, 256, "iscsi://%s/iqn.2026-11.org.replicad:%s/0", portal, id);
    return url;
}

bool host_is_registered(struct iscsi_context *host, uint64_t key)
{
    struct scsi_task *task = iscsi_persistent_reserve_in_sync(
            host, 0, SCSI_PERSISTENT_RESERVE_READ_KEYS, 255);
    struct scsi_persistent_reserve_in_read_keys *keys;
    bool found;

    expect(task && task->status == SCSI_STATUS_GOOD);
    keys = scsi_datain_unmarshall(task);
    expect(keys != NULL);
    found = keys->num_keys == 1 && keys->keys[0] == key;
    scsi_free_scsi_task(task);
    return found;
}

/* The disk of the data directory is full, to the last byte and for as long as it takes: the
 * database, the digests, what is kept of reservations. What is refused has left nothing, what
 * was promised is kept, hosts go on; killed and started on the full disk it serves again; and
 * when there is room all of it is as it was promised. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/exports.h"
#include "tests/support/expect.h"

enum { ROOM = 48 * MIB, SIZE = 6 * MIB, PACE = 2 * MIB, KEY = 0x4b455950 };

struct rig {
    struct house house;
    char disk[32], filler[64], ballast[WORLD_PATH]; /* the store's own reserve */
    char source[WORLD_ID], source_file[WORLD_PATH], other_file[WORLD_PATH];
    char exported[WORLD_ID], bare[WORLD_ID], spare[WORLD_ID], spare_file[WORLD_PATH];
    char slow_job[WORLD_ID * 2], slow_file[WORLD_PATH];
    char pair[WORLD_ID], pair_file[WORLD_PATH], pair_job[WORLD_ID * 2];
    struct iscsi_context *host;
    bool kept; /* the host's registration was answered GOOD */
};

static struct rig rig;

/* In a namespace of this test and its daemon: gone with them, whatever happens. */
static bool small_mount(const char *directory)
{
    char options[32];

    snprintf(options, sizeof options, "size=%u", (unsigned)ROOM);
    return unshare(CLONE_NEWNS) == 0 &&
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
            mount("tmpfs", directory, "tmpfs", 0, options) == 0;
}

/** Until nothing goes in any more; what was given back since is taken as well. */
static void disk_fill(void)
{
    static const uint8_t bytes[64 << 10] = { 1 };
    int fd = open(rig.filler, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    size_t length = sizeof bytes;

    expect(fd >= 0);
    while (length >= 512)
        if (write(fd, bytes, length) != (ssize_t)length)
            length /= 2; /* what is left takes less */
    close(fd);
}

/** A call on a disk without a free byte. */
static json_t *ask(long *status, const char *method, const char *path, const char *body)
{
    disk_fill();
    return world_try(&rig.house.world, NULL, status, method, path, body);
}

static long answer_of(const char *method, const char *path, const char *body)
{
    long status;

    json_decref(ask(&status, method, path, body));
    return status;
}

static unsigned files(void)
{
    DIR *pool = opendir(rig.house.world.pool);
    unsigned count = 0;

    expect(pool != NULL);
    while (readdir(pool))
        count++;
    closedir(pool);
    return count;
}

/* -- before it is full ----------------------------------------------------------------------- */

static void pair_make(const char *source, const char *rest, char id[WORLD_ID],
        char job[WORLD_ID * 2], char file[WORLD_PATH])
{
    json_t *answer = world_call(&rig.house.world, 202, "POST", "/replicas",
            "{\"SourceElement\":\"%s\",\"CopyType\":4%s}", source, rest);

    snprintf(job, WORLD_ID * 2, "%s", text_of(answer, "Job"));
    snprintf(id, WORLD_ID, "%s", text_of(answer, "TargetElement") + 10);
    element_file(&rig.house.world, id, file);
    json_decref(answer);
}

static void promises_make(void)
{
    struct world *world = &rig.house.world;
    char rest[160], id[WORLD_ID], other[WORLD_ID];
    json_t *setting;

    world_file(world, "source", SIZE, 5);
    snprintf(rig.source_file, sizeof rig.source_file, "%.100s/source", world->pool);
    register_file(world, "source", rig.source);
    world_file(world, "other", SIZE, 6);
    snprintf(rig.other_file, sizeof rig.other_file, "%.100s/other", world->pool);
    register_file(world, "other", other);
    pair_make(rig.source, "", rig.pair, rig.pair_job, rig.pair_file);
    job_completed(world, rig.pair_job, PATIENCE_S);
    setting = world_call(world, 201, "POST", "/settings",
            "{\"ElementName\":\"slow\",\"BandwidthLimit\":%u}", (unsigned)PACE);
    snprintf(rest, sizeof rest, ",\"TargetSettingGoal\":\"%s\"",
            text_of(setting, "Self"));
    json_decref(setting);
    volume_make(&rig.house, MIB, rig.exported);
    volume_make(&rig.house, MIB, rig.bare);
    volume_make(&rig.house, MIB, rig.spare);
    element_file(world, rig.spare, rig.spare_file);
    export_put(&rig.house, 201, rig.exported, "{\"Initiators\":[\"*\"]}");
    rig.host = host_come(rig.house.v4, rig.exported, "host");
    pair_make(other, rest, id, rig.slow_job, rig.slow_file);
}

static bool rig_open(void)
{
    strcpy(rig.disk, "/tmp/replicad-full-XXXXXX");
    expect(mkdtemp(rig.disk) != NULL);
    if (!small_mount(rig.disk)) {
        (void)rmdir(rig.disk);
        return false;
    }
    setenv("TMPDIR", rig.disk, 1); /* where the daemon has its data */
    snprintf(rig.filler, sizeof rig.filler, "%s/filler", rig.disk);
    house_open(&rig.house, NULL);
    snprintf(
            rig.ballast, sizeof rig.ballast, "%s/ballast", rig.house.world.daemon.data);
    expect_eq(access(rig.ballast, F_OK), 0);
    promises_make();
    return true;
}

static void rig_close(void)
{
    house_close(&rig.house);
    expect_eq(umount(rig.disk), 0);
    expect_eq(rmdir(rig.disk), 0);
}

/** Until the store has met it, has given up its reserve, and that is full as well. */
static void disk_is_full(void)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    static const char body[] = "{\"ElementName\":\"more\"}";

    while (answer_of("POST", "/settings", body) != 507 ||
            access(rig.ballast, F_OK) == 0)
        cr_assert(!instant_reached(clock_monotonic(), deadline), "it is not full");
    disk_fill();
}

/* -- while it is full ------------------------------------------------------------------------- */

static void nothing_new_is_begun(void)
{
    unsigned before = files();
    char body[160];
    long status;
    json_t *answer;

    snprintf(
            body, sizeof body, "{\"SourceElement\":\"%s\",\"CopyType\":5}", rig.source);
    answer = ask(&status, "POST", "/replicas", body);
    expect_eq(status, 507);
    expect_eq(number_of(answer, "ReturnValue"), 4);
    json_decref(answer);
    expect_eq(
            answer_of("POST", "/elements",
                    "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":4096}"),
            507);
    expect_eq(files(), before);
}

/** Served and kept, or neither. */
static void an_export_is_answered_as_it_is(void)
{
    char path[WORLD_PATH];
    long status;

    snprintf(path, sizeof path, "/elements/%s/export", rig.bare);
    status = answer_of("PUT", path, "{\"Initiators\":[\"*\"]}");
    cr_assert(status == 201 || status == 507, "%ld", status);
    expect_eq(answer_of("GET", path, NULL), status == 201 ? 200 : 404);
    expect_eq(may_come(rig.house.v4, rig.bare, "other"), status == 201);
}

static void a_deletion_is_answered_as_it_is(void)
{
    char path[WORLD_PATH];
    long status;

    snprintf(path, sizeof path, "/elements/%s", rig.spare);
    status = answer_of("DELETE", path, NULL);
    cr_assert(status == 200 || status == 507, "%ld", status);
    expect_eq(answer_of("GET", path, NULL), status == 200 ? 404 : 200);
    expect_eq(access(rig.spare_file, F_OK) == 0, status == 507);
}

/** A host reads and writes; its reservation is kept before GOOD, or is not made. */
static void a_host_goes_on(void)
{
    struct scsi_persistent_reserve_out_basic out = {
        .service_action_reservation_key = KEY, .aptpl = 1
    };
    struct said said;

    expect_good(host_write(rig.host, 0, 8, 7));
    disk_fill();
    said = said_of(iscsi_persistent_reserve_out_sync(
            rig.host, 0, SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, &out));
    rig.kept = said.status == SCSI_STATUS_GOOD;
    expect_eq(host_is_registered(rig.host, KEY), rig.kept);
    expect_good(host_read(rig.host, 0, 8));
}

/** Its bytes are there, whatever can be written down of it. Digests cannot. */
static void a_resync_is_right(void)
{
    char path[WORLD_PATH];
    long status;
    json_t *answer;

    snprintf(path, sizeof path, "/replicas/%s/modify", rig.pair);
    fill_file(rig.source_file, SIZE, 7, true);
    answer = ask(&status, "POST", path, "{\"Operation\":4}");
    cr_assert(status == 202 || status == 507, "%ld", status);
    if (status == 202)
        snprintf(rig.pair_job, sizeof rig.pair_job, "%s", text_of(answer, "Job"));
    else
        rig.pair_job[0] = '\0';
    json_decref(answer);
}

/* -- when there is room again ------------------------------------------------------------------ */

static void room_is_made(void)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    long status;

    expect_eq(unlink(rig.filler), 0);
    do {
        json_decref(world_try(&rig.house.world, NULL, &status, "POST", "/settings",
                "{\"ElementName\":\"again\"}"));
        cr_assert(!instant_reached(clock_monotonic(), deadline), "still %ld", status);
        if (status != 201)
            usleep(20000); /* between two looks; the answer is what ends it */
    } while (status != 201);
    expect_eq(access(rig.ballast, F_OK), 0);
}

static void expect_ready(void)
{
    struct http_answer answer = { 0 };

    expect_eq(http_send(rig.house.world.daemon.http, "GET", "/readyz", NULL, NULL,
                      &answer),
            200);
    http_answer_release(&answer);
}

static void promises_are_kept(void)
{
    struct world *world = &rig.house.world;
    char path[WORLD_PATH];
    json_t *answer;

    job_completed(world, rig.slow_job, PATIENCE_S);
    expect(same_bytes(rig.other_file, rig.slow_file, SIZE));
    if (!rig.pair_job[0]) {
        snprintf(path, sizeof path, "/replicas/%s/modify", rig.pair);
        answer = world_call(world, 202, "POST", path, "{\"Operation\":4}");
        snprintf(rig.pair_job, sizeof rig.pair_job, "%s", text_of(answer, "Job"));
        json_decref(answer);
    }
    job_completed(world, rig.pair_job, PATIENCE_S);
    expect(same_bytes(rig.source_file, rig.pair_file, SIZE));
    serving_wait(&rig.house, rig.exported);
    rig.host = host_come(rig.house.v4, rig.exported, "host");
    expect_eq(host_is_registered(rig.host, KEY), rig.kept);
    host_leave(rig.host);
}

Test(full_disk, what_was_promised_is_kept_over_a_full_disk)
{
    if (!rig_open())
        cr_skip_test("no tmpfs mount here: it takes root");
    disk_is_full();
    nothing_new_is_begun();
    a_host_goes_on();
    an_export_is_answered_as_it_is();
    a_deletion_is_answered_as_it_is();
    a_resync_is_right();
    host_leave(rig.host);
    room_is_made();
    promises_are_kept();
    house_kill(&rig.house);
    promises_are_kept();
    rig_close();
}

Test(full_disk, a_start_on_a_full_disk_serves)
{
    if (!rig_open())
        cr_skip_test("no tmpfs mount here: it takes root");
    disk_is_full();
    a_host_goes_on();
    host_free(rig.host);
    disk_fill();
    house_kill(&rig.house);
    nothing_new_is_begun();
    serving_wait(&rig.house, rig.exported);
    rig.host = host_come(rig.house.v4, rig.exported, "host");
    expect_good(host_write(rig.host, 0, 8, 8));
    expect_eq(host_is_registered(rig.host, KEY), rig.kept);
    host_leave(rig.host);
    a_resync_is_right();
    room_is_made();
    promises_are_kept();
    expect_ready();
    rig_close();
}

/* The store has not met it before: what it keeps in reserve is there for what is under way. */
Test(full_disk, a_start_on_a_disk_that_is_just_full_goes_on)
{
    if (!rig_open())
        cr_skip_test("no tmpfs mount here: it takes root");
    host_free(rig.host);
    disk_fill();
    house_kill(&rig.house);
    job_completed(&rig.house.world, rig.slow_job, PATIENCE_S);
    expect(same_bytes(rig.other_file, rig.slow_file, SIZE));
    room_is_made();
    promises_are_kept();
    rig_close();
}

/* A thin element whose pool's file system is full: what its hosts and everybody else see. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/service/exports.h"
#include "tests/support/expect.h"

enum { ROOM = 8 * MIB, FULL = 0x2707 };

/* In a namespace of this test and its daemon: gone with them, whatever happens. */
static bool small_mount(const char *directory)
{
    char options[32];

    snprintf(options, sizeof(options), "size=%u", (unsigned)ROOM);
    return unshare(CLONE_NEWNS) == 0 &&
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
            mount("tmpfs", directory, "tmpfs", 0, options) == 0;
}

/** Until nothing goes in any more. */
static void ballast_write(const char *path)
{
    static const uint8_t bytes[64 << 10] = { 1 };
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t length = sizeof(bytes);

    expect(fd >= 0);
    while (length >= 512)
        if (write(fd, bytes, length) != (ssize_t)length)
            length /= 2; /* what is left takes less */
    close(fd);
}

static long status_of(struct house *house, const char *path)
{
    struct http_answer answer = { 0 };
    long status = http_send(house->world.daemon.http, "GET", path, NULL, NULL, &answer);

    http_answer_release(&answer);
    return status;
}

static void expect_read(struct iscsi_context *host, uint64_t lba, uint8_t value)
{
    struct said said = host_read(host, lba, 8);

    expect_good(said);
    for (unsigned i = 0; i < 8 * SECTOR; i++)
        cr_assert(said.data[i] == value, "byte %u of block %llu is %u, not %u", i,
                (unsigned long long)lba, said.data[i], value);
}

static void small_volume(struct house *house, char id[WORLD_ID])
{
    json_t *made = world_call(&house->world, 201, "POST", "/elements",
            "{\"Type\":\"StorageVolume\",\"Pool\":\"small\",\"Size\":%u}",
            (unsigned)(4 * MIB));

    snprintf(id, WORLD_ID, "%s", text_of(made, "Id"));
    json_decref(made);
}

static void everybody_else_goes_on(
        struct house *house, struct iscsi_context *bob, uint8_t value)
{
    expect_good(host_write(bob, 0, 8, value));
    expect_read(bob, 0, value);
    expect_eq(status_of(house, "/livez"), 200);
    expect_eq(status_of(house, "/readyz"), 200);
}

Test(exports_full, a_full_pool_is_told_and_nothing_else_suffers)
{
    char directory[] = "/tmp/replicad-small-XXXXXX";
    char option[64], ballast[64], small[WORLD_ID], other[WORLD_ID];
    const char *extra[] = { "--pool", option, NULL };
    struct iscsi_context *alice, *bob;
    struct house house;

    expect(mkdtemp(directory) != NULL);
    if (!small_mount(directory)) {
        (void)rmdir(directory);
        cr_skip_test("no tmpfs mount here: it takes root");
    }
    snprintf(option, sizeof(option), "small=%s", directory);
    snprintf(ballast, sizeof(ballast), "%s/ballast", directory);
    house_open(&house, extra);
    small_volume(&house, small);
    volume_make(&house, 4 * MIB, other);
    export_put(&house, 201, small, "{\"Initiators\":[\"*\"]}");
    export_put(&house, 201, other, "{\"Initiators\":[\"*\"]}");
    alice = host_come(house.v4, small, "alice");
    bob = host_come(house.v4, other, "bob");
    expect_good(host_write(alice, 0, 8, 1));

    ballast_write(ballast);
    for (unsigned i = 0; i < 3; i++) {
        expect_sense(host_write(alice, 4096, 8, 2), SCSI_SENSE_DATA_PROTECTION, FULL);
        expect_sense(host_write(alice, 2048, 512, 3), SCSI_SENSE_DATA_PROTECTION, FULL);
        expect_read(alice, 0, 1);
        expect_read(alice, 4096, 0);
        everybody_else_goes_on(&house, bob, (uint8_t)(10 + i));
    }
    expect_eq(unlink(ballast), 0);
    expect_good(host_write(alice, 4096, 8, 4));
    expect_good(host_write(alice, 2048, 512, 5));
    expect_read(alice, 4096, 4);
    expect_read(alice, 2048 + 504, 5);
    expect_read(alice, 0, 1);
    everybody_else_goes_on(&house, bob, 20);
    host_leave(alice);
    host_leave(bob);
    house_close(&house);
    expect_eq(umount(directory), 0);
    (void)rmdir(directory);
}

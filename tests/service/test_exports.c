/* Exports of the whole service with strangers as clients: qemu, e2fsprogs and libiscsi's own
 * programs; who may come and who not. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/service/exports.h"
#include "tests/support/directory.h"
#include "tests/support/expect.h"

#define ALL "{\"Initiators\":[\"*\"]}"

static char output[OUTPUT];

static void expect_said(const char *what, bool wanted)
{
    cr_assert((strstr(output, what) != NULL) == wanted, "\"%s\" in: %s", what, output);
}

/** Every byte of [@at, @at + @length) of a file is @value. */
static void expect_bytes(const char *path, off_t at, size_t length, uint8_t value)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *bytes = malloc(length);

    expect(fd >= 0 && bytes != NULL);
    expect_eq(pread(fd, bytes, length, at), length);
    for (size_t i = 0; i < length; i++)
        cr_assert(bytes[i] == value, "byte %llu of %s is %02x",
                (unsigned long long)at + i, path, bytes[i]);
    free(bytes);
    close(fd);
}

static long long blocks_of(const char *path)
{
    struct stat status;

    expect_eq(stat(path, &status), 0);
    return status.st_blocks;
}

/* -- strangers -------------------------------------------------------------------------------- */

#define TREE "/tmp/replicad-tree-XXXXXX"

/** An ext4 image of 32 MiB with some files in it. */
static void image_make(const char *directory)
{
    cr_assert(shell(output,
                      "sh -c 'mkdir %s/in && cp /bin/sh %s/in/sh && seq 200000 > "
                      "%s/in/seq && mkdir %s/in/empty'",
                      directory, directory, directory, directory) == 0);
    expect_eq(shell(output, "mkfs.ext4 -q -F -d %s/in -E root_owner=0:0 %s/image 32M",
                      directory, directory),
            0);
}

Test(exports, strangers_make_a_file_system)
{
    char tree[] = TREE, id[WORLD_ID], path[WORLD_PATH], url[256], image[64], back[64];
    struct house house;

    house_open(&house, NULL);
    volume_make(&house, 32 * MIB, id);
    export_put(&house, 201, id, ALL);
    element_file(&house.world, id, path);
    cr_assert(mkdtemp(tree));
    snprintf(image, sizeof(image), "%s/image", tree);
    snprintf(back, sizeof(back), "%s/back", tree);
    image_make(tree);
    url_of(url, house.v4, id);
    expect_eq(
            shell(output, "qemu-img convert -n -f raw -O raw %s '%s'", image, url), 0);
    expect_eq(shell(output, "qemu-img compare -f raw -F raw %s '%s'", image, url), 0);
    expect(same_bytes(image, path, 32 * MIB));
    expect_eq(shell(output, "qemu-img convert -f raw -O raw '%s' %s",
                      url_of(url, house.v6, id), back),
            0);
    expect(same_bytes(image, back, 32 * MIB));
    expect_eq(shell(output, "e2fsck -fn %s", back), 0);
    expect_eq(shell(output,
                      "sh -c 'debugfs -R \"cat seq\" %s 2>/dev/null | cmp - %s/in/seq'",
                      back, tree),
            0);
    (void)tree_remove(tree);
    house_close(&house);
}

Test(exports, qemu_io_writes_zeroes_and_discards)
{
    char id[WORLD_ID], path[WORLD_PATH], url[256];
    struct house house;
    long long before;

    house_open(&house, NULL);
    volume_make(&house, 16 * MIB, id);
    export_put(&house, 201, id, ALL);
    element_file(&house.world, id, path);
    url_of(url, house.v4, id);
    expect_eq(shell(output,
                      "qemu-io -f raw -c 'write -P 7 1M 8M' -c 'read -P 7 1M 8M' "
                      "-c flush '%s'",
                      url),
            0);
    expect_said("Pattern verification failed", false);
    expect_bytes(path, 0, MIB, 0);
    expect_bytes(path, MIB, 8 * MIB, 7);
    before = blocks_of(path);
    expect_eq(shell(output,
                      "qemu-io -d unmap -f raw -c 'discard 2M 3M' -c 'write -z 6M 1M' "
                      "-c 'write -P 9 7M 512' -c 'aio_write -P 5 8M 64k' -c aio_flush "
                      "-c 'read -P 0 2M 3M' -c 'read -P 0 6M 1M' -c flush '%s'",
                      url),
            0);
    expect_said("Pattern verification failed", false);
    expect_bytes(path, MIB, MIB, 7);
    expect_bytes(path, 2 * MIB, 3 * MIB, 0);
    expect_bytes(path, 5 * MIB, MIB, 7);
    expect_bytes(path, 6 * MIB, MIB, 0);
    expect_bytes(path, 7 * MIB, 512, 9);
    expect_bytes(path, 7 * MIB + 512, MIB - 512, 7);
    expect_bytes(path, 8 * MIB, 64 << 10, 5);
    /* 64 KiB for the file system, which has to say where the rest is */
    cr_assert(blocks_of(path) <= before - 3 * MIB / 512 + 128, "%lld blocks of %lld",
            blocks_of(path), before);
    house_close(&house);
}

Test(exports, iscsi_tools_find_ask_and_load)
{
    char alices[WORLD_ID], anybodys[WORLD_ID], nobodys[WORLD_ID], line[200], url[256];
    struct house house;

    house_open(&house, NULL);
    volume_make(&house, 16 * MIB, alices);
    volume_make(&house, 4 * MIB, anybodys);
    volume_make(&house, 4 * MIB, nobodys); /* not exported */
    export_put(&house, 201, alices, "{\"Initiators\":[\"iqn.2026-11.example:alice\"]}");
    export_put(&house, 201, anybodys, ALL);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        const char *portal = v6 ? house.v6 : house.v4;
        for (unsigned alice = 0; alice < 2; alice++) {
            expect_eq(shell(output, "iscsi-ls -i iqn.2026-11.example:%s iscsi://%s",
                              alice ? "alice" : "bob", portal),
                    0);
            snprintf(line, sizeof(line),
                    "Target:iqn.2026-11.org.replicad:%s Portal:%s,1\n", alices, portal);
            expect_said(line, alice);
            expect_said(alices, alice);
            snprintf(line, sizeof(line),
                    "Target:iqn.2026-11.org.replicad:%s Portal:%s,1\n", anybodys,
                    portal);
            expect_said(line, true);
            expect_said(nobodys, false);
            expect_said(v6 ? house.v4 : house.v6, false);
        }
        url_of(url, portal, alices);
        expect_eq(shell(output, "iscsi-inq -i iqn.2026-11.example:alice '%s'", url), 0);
        expect_said("DIRECT_ACCESS", true);
        expect(shell(output, "iscsi-inq -i iqn.2026-11.example:bob '%s'", url) != 0);
        expect_eq(
                shell(output, "iscsi-readcapacity16 -i iqn.2026-11.example:alice '%s'",
                        url),
                0);
        expect_said("16777216", true);
    }
    expect_eq(shell(output,
                      "timeout --preserve-status -s INT 10 iscsi-perf -m 32 -b 8 -r -t "
                      "1 '%s'",
                      url_of(url, house.v4, anybodys)),
            0);
    expect_said("iops average", true);
    house_close(&house);
}

/* -- who may ------------------------------------------------------------------------------------ */

Test(exports, a_changed_list_ends_sessions_of_who_may_not_any_more)
{
    struct iscsi_context *alice;
    struct house house;
    char id[WORLD_ID];

    house_open(&house, NULL);
    volume_make(&house, 4 * MIB, id);
    expect(!may_come(house.v4, id, "alice"));
    export_put(&house, 201, id,
            "{\"Initiators\":[\"iqn.2026-11.example:alice\","
            "\"iqn.2026-11.example:carol\"]}");
    expect(may_come(house.v4, id, "carol"));
    expect(may_come(house.v6, id, "carol"));
    expect(!may_come(house.v4, id, "bob"));
    expect(!may_come(house.v6, id, "bob"));
    alice = host_come(house.v4, id, "alice");
    expect_good(host_write(alice, 0, 8, 1));
    sessions_wait(&house, id, 1);
    export_put(&house, 200, id, "{\"Initiators\":[\"iqn.2026-11.example:bob\"]}");
    sessions_wait(&house, id, 0);
    expect(host_write(alice, 0, 8, 2).status != SCSI_STATUS_GOOD);
    host_free(alice);
    expect(!may_come(house.v4, id, "alice"));
    expect(may_come(house.v4, id, "bob"));
    export_put(&house, 200, id, ALL);
    expect(may_come(house.v4, id, "alice"));
    house_close(&house);
}

struct secrets {
    const char *user, *secret, *target_user, *target_secret;
    bool right;
};

/* Each under a name of its own: who guesses five times is not heard for a while. */
static void secrets_try(struct house *house, const char *id, const struct secrets *row)
{
    static unsigned names;
    struct iscsi_context *host;
    char name[32];
    bool came;

    snprintf(name, sizeof(name), "host-%u", names++);
    host = host_make(id, name);

    if (row->user)
        expect_eq(iscsi_set_initiator_username_pwd(host, row->user, row->secret), 0);
    if (row->target_user)
        expect_eq(iscsi_set_target_username_pwd(
                          host, row->target_user, row->target_secret),
                0);
    came = host_login(host, house->v4);
    cr_assert(came == row->right, "%s %s, %s %s: %s %s", row->user, row->secret,
            row->target_user, row->target_secret, came ? "came in" : "was refused",
            iscsi_get_error(host));
    if (!came) {
        host_free(host);
        return;
    }
    host_settle(host);
    expect_good(host_read(host, 0, 1));
    host_leave(host);
}

Test(exports, secrets)
{
    static const struct secrets rows[] = {
        { "alice", "alice-has-a-secret", NULL, NULL, true },
        { "alice", "alice-has-no-secret", NULL, NULL, false },
        { "alicia", "alice-has-a-secret", NULL, NULL, false },
        { "target", "target-has-its-own", NULL, NULL, false },
        { NULL, NULL, NULL, NULL, false },
        { "alice", "alice-has-a-secret", "target", "target-has-its-own", true },
        { "alice", "alice-has-a-secret", "target", "target-has-another", false },
        { "alice", "alice-has-a-secret", "tiger", "target-has-its-own", false },
        { "alice", "alice-has-no-secret", "target", "target-has-its-own", false },
    };
    static const struct secrets anew[] = {
        { "alice", "alice-has-a-secret", NULL, NULL, false },
        { "alice", "alice-has-a-new-one", NULL, NULL, true },
        /* It has no secret of its own: it cannot prove itself. */
        { "alice", "alice-has-a-new-one", "target", "target-has-its-own", false },
    };
    struct house house;
    char id[WORLD_ID];
    json_t *export;

    house_open(&house, NULL);
    secret_write(
            &house, "both", "alice:alice-has-a-secret\ntarget:target-has-its-own\n");
    secret_write(&house, "one", "alice:alice-has-a-new-one\n");
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, "{\"Initiators\":[\"*\"],\"Credentials\":\"both\"}");
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        secrets_try(&house, id, &rows[i]);
    export = export_get(&house, id);
    expect_str(text_of(export, "Credentials"), "both");
    json_decref(export);
    export_put(&house, 200, id, "{\"Initiators\":[\"*\"],\"Credentials\":\"one\"}");
    for (unsigned i = 0; i < sizeof(anew) / sizeof(anew[0]); i++)
        secrets_try(&house, id, &anew[i]);
    for (unsigned i = 0; i < 8; i++)
        expect(!may_come(house.v4, id, "mallory"));
    secrets_try(&house, id, &anew[1]); /* guesses of one shut nobody else out */
    house_close(&house);
}

Test(exports, header_digests)
{
    struct house house;
    char id[WORLD_ID];

    house_open(&house, NULL);
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, ALL);
    for (unsigned i = 0; i < 4; i++) {
        static const enum iscsi_header_digest digests[] = { ISCSI_HEADER_DIGEST_NONE,
            ISCSI_HEADER_DIGEST_NONE_CRC32C, ISCSI_HEADER_DIGEST_CRC32C_NONE,
            ISCSI_HEADER_DIGEST_CRC32C };
        struct iscsi_context *host = host_make(id, "alice");
        struct said said;

        expect_eq(iscsi_set_header_digest(host, digests[i]), 0);
        cr_assert(host_login(host, i % 2 ? house.v6 : house.v4), "%s",
                iscsi_get_error(host));
        host_settle(host);
        expect_good(host_write(host, 64, 1000, (uint8_t)(i + 1)));
        said = host_read(host, 64 + 992, 8);
        expect(said.status == SCSI_STATUS_GOOD && said.length == 8 * SECTOR);
        for (unsigned at = 0; at < said.length; at++)
            expect_eq(said.data[at], i + 1);
        host_leave(host);
    }
    house_close(&house);
}

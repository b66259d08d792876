/* LUNs as elements: what registering says of a real tgtd's, and how it fails. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/api/rig.h"
#include "tests/support/port.h"
#include "tests/support/tgt.h"

#define TARGET "iqn.2026-11.example:t1"

static struct rig rig;
static struct tgt *tgt;

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
    tgt = tgt_start();
    tgt_add_target(tgt, 1, TARGET);
}

static void end(void)
{
    rig_remove(&rig);
    tgt_stop(tgt);
}

TestSuite(luns, .init = begin, .fini = end);

static void add_lun(int lun, const char *name, uint64_t size, struct tgt_lun like)
{
    char path[128];

    tgt_make_file(tgt, name, size, path);
    like.path = path;
    tgt_add_lun(tgt, 1, lun, &like);
}

/** Register a LUN of the target at @port; @more: members with a comma in front, or "". */
static struct answer add(
        uint16_t port, const char *target, unsigned lun, const char *more)
{
    return rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"StorageVolume\",\"Address\":\"iscsi://127.0.0.1:%u/%s/%u\"%s}",
            port, target, lun, more);
}

Test(luns, one_tells_its_size_and_blocks)
{
    struct answer answer;
    char address[200];

    add_lun(1, "disk", 8 << 20, (struct tgt_lun){ .block_size = 4096, .thin = true });
    answer = add(tgt->port, TARGET, 1, ",\"Remote\":true,\"ElementName\":\"lun1\"");
    expect_answer(&answer, MADE, 0);
    expect_eq(answer_number(&answer, "Size"), 8 << 20);
    expect_eq(answer_number(&answer, "BlockSize"), 4096);
    expect_eq(answer_number(&answer, "NumberOfBlocks"), 2048);
    expect(json_is_true(json_object_get(answer.json, "ThinlyProvisioned")));
    expect(json_is_true(json_object_get(answer.json, "Remote")));
    expect(json_is_null(json_object_get(answer.json, "Pool")));
    snprintf(address, sizeof(address), "iscsi://127.0.0.1:%u/" TARGET "/1", tgt->port);
    expect_str(answer_text(&answer, "Address"), address);
    answer_release(&answer);
}

Test(luns, the_same_one_twice_is_6_however_it_is_spelled)
{
    struct answer answer;
    char holder[80];

    add_lun(1, "disk", 1 << 20, (struct tgt_lun){ 0 });
    answer = add(tgt->port, TARGET, 1, "");
    expect_answer(&answer, MADE, 0);
    snprintf(holder, sizeof(holder), "%s", answer.outcome.location);
    answer_release(&answer);
    answer = add(tgt->port, "IQN.2026-11.EXAMPLE:T1", 1, "");
    expect_answer(&answer, IN_USE, 6);
    expect_str(json_string_value(
                       json_array_get(json_object_get(answer.json, "Holders"), 0)),
            holder);
    answer_release(&answer);
}

Test(luns, two_that_look_alike_are_warned_of)
{
    const struct tgt_lun like = { .scsi_id = "twin", .scsi_sn = "twin-1" };
    struct answer answer;

    add_lun(1, "one", 1 << 20, like);
    add_lun(2, "two", 1 << 20, like);
    answer = add(tgt->port, TARGET, 1, "");
    expect_answer(&answer, MADE, 0);
    expect_eq(json_array_size(json_object_get(answer.json, "Warnings")), 0);
    answer_release(&answer);
    answer = add(tgt->port, TARGET, 2, "");
    expect_answer(&answer, MADE, 0);
    expect_eq(json_array_size(json_object_get(answer.json, "Warnings")), 1);
    answer_release(&answer);
}

/* tgt makes a unit's world-wide identity from the numbers of its target and its LUN. */
Test(luns, the_same_one_by_another_portal_is_6_when_the_world_knows_it)
{
    struct answer answer;

    if (!ipv6_is_there())
        cr_skip_test("no IPv6 here");
    add_lun(1, "disk", 1 << 20, (struct tgt_lun){ .vendor = "ACME" });
    answer = add(tgt->port, TARGET, 1, "");
    expect_answer(&answer, MADE, 0);
    answer_release(&answer);
    answer = rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"StorageVolume\",\"Address\":\"iscsi://[::1]:%u/" TARGET
            "/1\"}",
            tgt->port);
    expect_answer(&answer, IN_USE, 6);
    answer_release(&answer);
}

static void attach_is_refused(const char *source, const char *target)
{
    struct answer answer =
            rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                    "{\"SourceElement\":\"%s\",\"CopyType\":4}", source);

    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
}

/* The far side was set up anew: under the same address lies a stranger's disk. */
Test(luns, a_unit_that_is_another_one_now_is_not_touched)
{
    char lun[80], extent[80], source[37], path[128];
    struct answer answer;

    rig_element(&rig, "StorageVolume", 4096, source);
    add_lun(1, "disk", 1 << 20, (struct tgt_lun){ .vendor = "ACME" });
    answer = add(tgt->port, TARGET, 1, "");
    expect_answer(&answer, MADE, 0);
    snprintf(lun, sizeof(lun), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"StorageExtent\",\"Of\":\"%s\",\"Offset\":4096,\"Size\":8192}",
            lun);
    expect_answer(&answer, MADE, 0);
    snprintf(extent, sizeof(extent), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);

    tgt_kill(tgt);
    tgt_revive(tgt);
    tgt_add_target(tgt, 2, TARGET);
    tgt_make_file(tgt, "stranger", 1 << 20, path);
    tgt_add_lun(tgt, 2, 1, &(struct tgt_lun){ .path = path, .vendor = "ACME" });
    attach_is_refused(source, lun);
    attach_is_refused(source, extent);
    answer = rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", lun);
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
}

Test(luns, what_is_not_there_is_4)
{
    struct answer answer;
    uint16_t port;
    int kept = port_keep(&port);

    add_lun(1, "disk", 1 << 20, (struct tgt_lun){ 0 });
    answer = add(tgt->port, TARGET, 7, "");
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
    answer = add(tgt->port, "iqn.2026-11.example:nobody", 1, "");
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
    expect(kept >= 0);
    answer = add(port, TARGET, 1, "");
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
    close(kept);
}

/* It takes connections and says nothing. */
Test(luns, a_portal_that_says_nothing_is_3)
{
    struct answer answer;
    uint16_t port;
    int fd = port_keep(&port);

    rig_stop(&rig);
    rig.options.connect_timeout_ms = rig.options.io_timeout_ms = 1000;
    rig_start(&rig);
    expect(fd >= 0 && listen(fd, 8) == 0);
    answer = add(port, TARGET, 1, "");
    expect_answer(&answer, TIMEOUT, 3);
    answer_release(&answer);
    close(fd);
}

static void credentials(const char *name, const char *text, mode_t mode)
{
    char path[600];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", rig.credentials, name);
    file = fopen(path, "w");
    expect(file && fputs(text, file) >= 0 && fclose(file) == 0);
    expect(chmod(path, mode) == 0);
}

Test(luns, credentials_open_what_asks_for_them)
{
    struct answer answer;

    add_lun(1, "disk", 1 << 20, (struct tgt_lun){ 0 });
    tgt_add_account(tgt, 1, "reader", "long-enough-secret", false);
    credentials("good", "reader:long-enough-secret\n", 0600);
    credentials("wrong", "reader:another-secret-12\n", 0600);
    credentials("open", "reader:long-enough-secret\n", 0644);
    answer = add(tgt->port, TARGET, 1, "");
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
    answer = add(tgt->port, TARGET, 1, ",\"Credentials\":\"wrong\"");
    expect_answer(&answer, FAR_SIDE, 4);
    answer_release(&answer);
    answer = add(tgt->port, TARGET, 1, ",\"Credentials\":\"open\"");
    expect_answer(&answer, INVALID, 5);
    expect_pointer(&answer, "/Credentials");
    answer_release(&answer);
    answer = add(tgt->port, TARGET, 1, ",\"Credentials\":\"good\"");
    expect_answer(&answer, MADE, 0);
    expect_str(answer_text(&answer, "Credentials"), "good");
    expect(strstr(answer.outcome.body, "long-enough-secret") == NULL);
    answer_release(&answer);
}

Test(luns, a_lun_is_no_file)
{
    struct answer answer = rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"LogicalFile\",\"Address\":\"iscsi://127.0.0.1:%u/" TARGET
            "/1\"}",
            tgt->port);

    expect_answer(&answer, INVALID, 5);
    expect_pointer(&answer, "/Type");
    answer_release(&answer);
}

/* Exports of the whole service and its copies: a source is copied while a host writes it, who
 * is In Use for whom, all kinds of elements served, and one daemon as the far side of
 * another. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/exports.h"
#include "tests/support/expect.h"

#define ALL "{\"Initiators\":[\"*\"]}"

/* -- copies while hosts write ------------------------------------------------------------- */

static void job_take(json_t *answer, char job[WORLD_PATH], char target[WORLD_PATH])
{
    snprintf(job, WORLD_PATH, "%s", text_of(answer, "Job"));
    if (target)
        snprintf(target, WORLD_PATH, "%s", text_of(answer, "TargetElement"));
    json_decref(answer);
}

Test(exports_copies, a_source_is_copied_while_it_is_written)
{
    enum { SIZE = 24 * MIB };
    char source[WORLD_ID], from[WORLD_PATH], to[WORLD_PATH], job[WORLD_PATH],
            target[WORLD_PATH], path[WORLD_PATH];
    struct writer_host writer;
    struct house house;
    json_t *pair;

    house_open(&house, NULL);
    volume_make(&house, SIZE, source);
    export_put(&house, 201, source, ALL);
    element_file(&house.world, source, from);
    writer_start(&writer, house.v4, source, "alice", SIZE);
    for (int type = 4; type <= 5; type++) {
        unsigned before;

        writer_wait(&writer, 20);
        before = writer.writes;
        job_take(world_call(&house.world, 202, "POST", "/replicas",
                         "{\"SourceElement\":\"%s\",\"CopyType\":%d}", source, type),
                job, target);
        writer_wait(&writer, 5);
        job_completed(&house.world, job, 120);
        expect(writer.writes >= before + 5);
        if (type == 5)
            continue;
        snprintf(path, sizeof(path), "/replicas/%s", strrchr(target, '/') + 1);
        pair = world_call(&house.world, 200, "GET", path, NULL);
        expect_str(text_of(pair, "Consistency"), "Fuzzy");
        json_decref(pair);
        element_file(&house.world, strrchr(target, '/') + 1, to);
    }
    writer_wait(&writer, 5);
    writer_stop(&writer);
    expect(!writer.lost);
    snprintf(job, sizeof(job), "%.120s/modify", path);
    job_take(
            world_call(&house.world, 202, "POST", job, "{\"Operation\":4}"), job, NULL);
    job_completed(&house.world, job, 120);
    expect(same_bytes(from, to, SIZE));
    house_close(&house);
}

Test(exports_copies, what_hosts_may_write_is_no_target)
{
    char source[WORLD_ID], target[WORLD_ID], extent[WORLD_ID], path[WORLD_PATH],
            body[WORLD_PATH], job[WORLD_PATH];
    struct house house;

    house_open(&house, NULL);
    volume_make(&house, 4 * MIB, source);
    volume_make(&house, 4 * MIB, target);
    register_extent(&house.world, target, MIB, 2 * MIB, extent);
    snprintf(path, sizeof(path), "/replicas/%s/attach", target);
    snprintf(body, sizeof(body), "{\"SourceElement\":\"%s\",\"CopyType\":4}", source);
    export_put(&house, 201, target, ALL);
    call_in_use(&house, "POST", path, body);
    snprintf(job, sizeof(job), "/elements/%s/export", target);
    json_decref(world_call(&house.world, 204, "DELETE", job, NULL));
    export_put(&house, 201, extent, ALL); /* a part of it will do */
    call_in_use(&house, "POST", path, body);
    snprintf(job, sizeof(job), "/elements/%s/export", extent);
    json_decref(world_call(&house.world, 204, "DELETE", job, NULL));
    job_take(world_call(&house.world, 202, "POST", path, "%s", body), job, NULL);
    snprintf(path, sizeof(path), "/elements/%s/export", target);
    call_in_use(&house, "PUT", path, ALL);
    job_completed(&house.world, job, 120);
    call_in_use(&house, "PUT", path, ALL);
    export_put(&house, 201, target, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    house_close(&house);
}

/* -- all kinds ------------------------------------------------------------------------------ */

Test(exports_copies, an_extent_and_a_file_of_odd_size)
{
    char file[WORLD_ID], extent[WORLD_ID], path[2 * WORLD_PATH], body[WORLD_PATH];
    struct iscsi_context *host;
    struct house house;
    struct said said;

    house_open(&house, NULL);
    snprintf(path, sizeof(path), "%s/odd", house.world.pool);
    garbage_file(path, MIB + 300);
    register_file(&house.world, "odd", file);
    register_extent(&house.world, file, 256 << 10, 128 << 10, extent);
    export_put(&house, 201, extent, ALL);
    host = host_come(house.v4, extent, "alice");
    expect_good(host_write(host, 0, 256, 1));
    expect_sense(host_write(host, 255, 2, 2), SCSI_SENSE_ILLEGAL_REQUEST, 0x2100);
    host_leave(host);
    snprintf(body, sizeof(body), "/elements/%s/export", file);
    call_in_use(&house, "PUT", body, ALL); /* some of it is served already */
    snprintf(body, sizeof(body), "/elements/%s/export", extent);
    json_decref(world_call(&house.world, 204, "DELETE", body, NULL));
    expect(still_garbage(path, 0, 256 << 10));
    expect(!still_garbage(path, 256 << 10, 1));
    expect(!still_garbage(path, (384 << 10) - 1, 1));
    expect(still_garbage(path, 384 << 10, MIB + 300 - (384 << 10)));

    export_put(&house, 201, file, ALL);
    host = host_come(house.v4, file, "alice");
    said = said_of(iscsi_readcapacity16_sync(host, 0));
    expect(said.status == SCSI_STATUS_GOOD && said.length >= 12);
    expect_eq(said.data[6] << 8 | said.data[7], MIB / SECTOR - 1);
    expect_good(host_write(host, MIB / SECTOR - 1, 1, 3));
    expect_sense(host_write(host, MIB / SECTOR - 1, 2, 4), SCSI_SENSE_ILLEGAL_REQUEST,
            0x2100);
    expect_good(said_of(iscsi_synchronizecache16_sync(host, 0, 0, 0, 0, 0)));
    host_leave(host);
    expect(!still_garbage(path, MIB - 1, 1));
    expect(still_garbage(path, MIB, 300)); /* what cannot be addressed */
    house_close(&house);
}

static void lun_make(struct house *house, char path[WORLD_PATH])
{
    make_lun(&house->world, 1, 512, false, "lun", path);
}

Test(exports_copies, a_lun_that_goes_and_comes_back)
{
    static const char *const options[] = { "--connect-timeout", "5", "--io-timeout",
        "5", NULL };
    char id[WORLD_ID], path[WORLD_PATH];
    struct iscsi_context *host;
    struct house house;
    struct said said;
    struct instant deadline;

    house_open(&house, options);
    world_tgt(&house.world);
    snprintf(path, sizeof(path), "%s/lun", house.world.tgt->directory);
    garbage_file(path, 4 * MIB);
    lun_make(&house, path);
    register_lun(&house.world, 1, false, id);
    export_put(&house, 201, id, ALL);
    host = host_come(house.v4, id, "alice");
    expect_good(host_write(host, 0, 64, 1));
    said = host_read(host, 60, 8);
    expect_eq(said.length, 8 * SECTOR);
    expect(said.data[0] == 1 && said.data[8 * SECTOR - 1] == 0xa5);
    tgt_kill(house.world.tgt);
    said = host_read(host, 0, 8); /* an answer, before libiscsi's patience is over */
    cr_assert(said.status != SCSI_STATUS_GOOD && said.status != -1 &&
                    said.status < SCSI_STATUS_CANCELLED,
            "status %d", said.status);
    tgt_revive(house.world.tgt);
    tgt_add_target(house.world.tgt, 1, WORLD_TARGET);
    lun_make(&house, path);
    deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    do {
        said = host_write(host, 64, 8, 2);
        cr_assert(!instant_reached(clock_monotonic(), deadline),
                "status %d, sense %x/%04x", said.status, said.key, said.code);
        if (said.status != SCSI_STATUS_GOOD)
            usleep(20000); /* between two tries; the answer is what ends it */
    } while (said.status != SCSI_STATUS_GOOD);
    host_settle(host); /* it has been told that what was not flushed may be lost */
    expect_good(said_of(iscsi_synchronizecache16_sync(host, 0, 0, 0, 0, 0)));
    host_leave(host);
    expect(still_garbage(path, 72 * SECTOR, 4 * MIB - 72 * SECTOR));
    expect(!still_garbage(path, 71 * SECTOR, 1));
    house_close(&house);
}

/* -- two daemons -------------------------------------------------------------------------------- */

static void register_export(struct house *at, const struct house *of, const char *id,
        bool v6, char registered[WORLD_ID])
{
    json_t *made = world_call(&at->world, 201, "POST", "/elements",
            "{\"Type\":\"StorageVolume\",\"ElementName\":\"far\",\"Address\":"
            "\"iscsi://%s/iqn.2026-11.org.replicad:%s/0\"}",
            v6 ? of->v6 : of->v4, id);

    snprintf(registered, WORLD_ID, "%s", text_of(made, "Id"));
    json_decref(made);
}

Test(exports_copies, an_export_of_our_own_is_no_element)
{
    char id[WORLD_ID], body[400];
    struct house house;

    house_open(&house, NULL);
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, ALL);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        snprintf(body, sizeof(body),
                "{\"Type\":\"StorageVolume\",\"Address\":"
                "\"iscsi://%s/iqn.2026-11.org.replicad:%s/0\"}",
                v6 ? house.v6 : house.v4, id);
        call_in_use(&house, "POST", "/elements", body);
    }
    house_close(&house);
}

Test(exports_copies, one_daemon_is_the_far_side_of_another)
{
    enum { SIZE = 12 * MIB };
    char source[WORLD_ID], target[WORLD_ID], from[WORLD_ID], to[WORLD_ID],
            bytes[WORLD_PATH], path[WORLD_PATH], job[WORLD_PATH], made[WORLD_PATH];
    struct house theirs, ours;

    house_open(&theirs, NULL);
    house_open(&ours, NULL);
    volume_make(&theirs, SIZE, source);
    element_file(&theirs.world, source, bytes);
    fill_file(bytes, SIZE, 5, true);
    volume_make(&theirs, SIZE, target);
    element_file(&theirs.world, target, path);
    garbage_file(path, SIZE);
    export_put(&theirs, 201, source, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    export_put(&theirs, 201, target, ALL);
    register_export(&ours, &theirs, source, false, from);
    register_export(&ours, &theirs, target, true, to);

    job_take(world_call(&ours.world, 202, "POST", "/replicas",
                     "{\"SourceElement\":\"%s\",\"CopyType\":5}", from),
            job, made);
    job_completed(&ours.world, job, 120);
    element_file(&ours.world, strrchr(made, '/') + 1, path);
    expect(same_bytes(bytes, path, SIZE)); /* from it */

    snprintf(made, sizeof(made), "/replicas/%s/attach", to);
    job_take(world_call(&ours.world, 202, "POST", made,
                     "{\"SourceElement\":\"%s\",\"CopyType\":4}", from),
            job, NULL);
    job_completed(&ours.world, job, 120);
    element_file(&theirs.world, target, path);
    expect(same_bytes(bytes, path, SIZE)); /* from it and to it */
    house_close(&ours);
    house_close(&theirs);
}

/* Exports made, changed and taken away, struck at each call: after the restart one is served as
 * its row says, and what was answered is what the row says. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/service/moments.h"
#include "tests/support/expect.h"

/* stage->id is the element; its file holds what a host wrote once. */

static json_t *export_ask(struct stage *stage, const char *method, const char *body)
{
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "/elements/%s/export", stage->id);
    return stage_ask(stage, method, path, body);
}

/** -1: it is not exported; else ReadOnly. Served, or nobody may come, accordingly. */
static int export_is(struct stage *stage)
{
    struct iscsi_context *host;
    json_t *export = export_ask(stage, "GET", NULL);
    bool read_only = json_is_true(json_object_get(export, "ReadOnly"));

    json_decref(export);
    if (stage->status == 404) {
        expect(!may_come(stage->house.v4, stage->id, "host"));
        return -1;
    }
    expect_eq(stage->status, 200);
    serving_wait(&stage->house, stage->id);
    host = host_come(stage->house.v4, stage->id, "host");
    expect_good(host_read(host, 0, 8));
    if (read_only)
        expect_sense(host_write(host, 8, 8, 2), SCSI_SENSE_DATA_PROTECTION, 0x2700);
    else
        expect_good(host_write(host, 8, 8, 2));
    host_leave(host);
    return read_only;
}

/** What it is now: @answered when the call was answered with @status. */
static void export_judge(struct stage *stage, long status, int answered, int before)
{
    long got = stage->status;
    int is = export_is(stage);

    stage->status = got; /* for who asks again */
    cr_assert(got == 0 || got == status || (stage->error && got == 507),
            "%ld; struck: %s", got, stage->moment->words);
    if (got == 0)
        cr_assert(is == answered || is == before, "%d; struck: %s", is,
                stage->moment->words);
    else
        cr_assert(is == (got == status ? answered : before), "%ld, but %d; struck: %s",
                got, is, stage->moment->words);
}

static void export_drop(struct stage *stage)
{
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "/elements/%s/export", stage->id);
    json_decref(world_call(&stage->house.world, 0, "DELETE", path, NULL));
}

static void export_set(struct stage *stage, bool read_only)
{
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "/elements/%s/export", stage->id);
    json_decref(world_call(&stage->house.world, 0, "PUT", path,
            "{\"Initiators\":[\"*\"],\"ReadOnly\":%s}", read_only ? "true" : "false"));
}

static const char writable[] = "{\"Initiators\":[\"*\"]}";
static const char read_only[] = "{\"Initiators\":[\"*\"],\"ReadOnly\":true}";

static void new_act(struct stage *stage)
{
    json_decref(export_ask(stage, "PUT", writable));
}

static void new_look(struct stage *stage)
{
    export_judge(stage, 201, 0, -1);
}

static void new_judge(struct stage *stage)
{
    new_look(stage);
    export_drop(stage);
}

static void new_read_only_act(struct stage *stage)
{
    json_decref(export_ask(stage, "PUT", read_only));
}

static void new_read_only_judge(struct stage *stage)
{
    export_judge(stage, 201, 1, -1);
    export_drop(stage);
}

static void writable_prepare(struct stage *stage)
{
    export_set(stage, false);
}

static void change_judge(struct stage *stage)
{
    export_judge(stage, 200, 1, 0);
}

static void delete_act(struct stage *stage)
{
    json_decref(export_ask(stage, "DELETE", NULL));
}

static void delete_judge(struct stage *stage)
{
    export_judge(stage, 204, -1, 0);
}

static const struct scene scenes[] = {
    { export_drop, new_act, new_judge, new_look },
    { export_drop, new_read_only_act, new_read_only_judge, NULL },
    { writable_prepare, new_read_only_act, change_judge, change_judge },
    { writable_prepare, delete_act, delete_judge, delete_judge },
};

static void play(const char *what, const struct scene *scene, int error)
{
    struct stage stage;

    stage_open(&stage, what, NULL);
    volume_make(&stage.house, MIB, stage.id);
    stage_play(&stage, scene, error);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 1);
    export_drop(&stage);
    stage_close(&stage);
}

Test(moments, an_export_that_was_answered_is_served)
{
    play("export", &scenes[0], 0);
}

Test(moments, an_export_read_only_that_was_answered_is_served)
{
    play("export read-only", &scenes[1], 0);
}

Test(moments, a_changed_export_is_one_or_the_other)
{
    play("export changed", &scenes[2], 0);
}

Test(moments, an_export_taken_away_stays_away)
{
    play("export deleted", &scenes[3], 0);
}

Test(moments, no_space_for_an_export)
{
    play("export, no space", &scenes[0], ENOSPC);
}

Test(moments, no_space_for_a_change)
{
    play("export changed, no space", &scenes[2], ENOSPC);
}

Test(moments, no_space_for_the_end_of_an_export)
{
    play("export deleted, no space", &scenes[3], ENOSPC);
}

/* -- reservations ---------------------------------------------------------------------------- */

enum { KEY = 0x4b455950 };

static struct said register_kept(struct iscsi_context *host, uint64_t key)
{
    struct scsi_persistent_reserve_out_basic out = {
        .service_action_reservation_key = key, .aptpl = 1
    };

    return said_of(iscsi_persistent_reserve_out_sync(
            host, 0, SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, &out));
}

/** What was kept for an export goes with it. */
static void register_prepare(struct stage *stage)
{
    export_drop(stage);
    export_set(stage, false);
}

/** Kept before it is answered, or it was not; the host can tell at once. */
static void register_act(struct stage *stage)
{
    struct iscsi_context *host = host_come(stage->house.v4, stage->id, "host");

    stage->status = register_kept(host, KEY).status;
    cr_assert(host_is_registered(host, KEY) == (stage->status == SCSI_STATUS_GOOD),
            "answered %ld; struck: %s", stage->status, stage->moment->words);
    if (stage->status != SCSI_STATUS_GOOD)
        expect_good(host_write(host, 0, 8, 1));
    host_leave(host);
}

static void register_judge(struct stage *stage)
{
    struct iscsi_context *host;

    serving_wait(&stage->house, stage->id);
    host = host_come(stage->house.v4, stage->id, "host");
    cr_assert(host_is_registered(host, KEY) == (stage->status == SCSI_STATUS_GOOD),
            "answered %ld; struck: %s", stage->status, stage->moment->words);
    host_leave(host);
}

static const struct scene register_scene = { register_prepare, register_act,
    register_judge, register_judge };

Test(moments, no_space_for_a_reservation)
{
    struct stage stage;

    stage_open(&stage, "reservation, no space", NULL);
    volume_make(&stage.house, MIB, stage.id);
    stage_play(&stage, &register_scene, ENOSPC);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 1);
    export_drop(&stage);
    stage_close(&stage);
}

/* What makes and removes files in a pool, struck at each of its calls: nothing is lost, no file
 * is nobody's, and what was answered is so. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/service/moments.h"
#include "tests/support/expect.h"

enum { SIZE = 5 * (64 << 10) + 512 };

static void element_make(struct stage *stage)
{
    volume_make(&stage->house, SIZE, stage->id);
    element_file(&stage->house.world, stage->id, stage->target);
}

static void element_remove(struct stage *stage, const char *id, const char *file)
{
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "/elements/%s", id);
    json_decref(world_call(&stage->house.world, 200, "DELETE", path, NULL));
    expect(!file_there(file));
}

/* -- DELETE ------------------------------------------------------------------------------- */

static void delete_act(struct stage *stage)
{
    char path[WORLD_PATH];

    snprintf(path, sizeof path, "/elements/%s", stage->id);
    json_decref(stage_ask(stage, "DELETE", path, NULL));
}

static void delete_judge(struct stage *stage)
{
    long answered = stage->status;
    long status = status_of(stage, "elements", stage->id);

    cr_assert(answered == 0 || status == (answered == 200 ? 404 : 200),
            "answered %ld, but it is %ld; struck: %s", answered, status,
            stage->moment->words);
    cr_assert(file_there(stage->target) == (status == 200), "%ld; struck: %s", status,
            stage->moment->words);
    if (status == 200)
        element_remove(stage, stage->id, stage->target);
}

static const struct scene delete_scene = { element_make, delete_act, delete_judge,
    NULL };

static void delete_play(int error)
{
    struct stage stage;

    stage_open(&stage, "delete", NULL);
    stage_play(&stage, &delete_scene, error);
    expect(stage_points(&stage, "unlinkat", ".raw") == 1);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 2);
    stage_close(&stage);
}

Test(moments, a_deletion_is_whole_or_was_not)
{
    delete_play(0);
}

Test(moments, a_deletion_without_space_is_whole_or_was_not)
{
    delete_play(ENOSPC);
}

Test(moments, a_deletion_on_a_sick_disk_is_whole_or_was_not)
{
    delete_play(EIO);
}

/* -- allocation --------------------------------------------------------------------------- */

static void nothing_prepare(struct stage *stage)
{
    stage->id[0] = '\0';
}

static void create_act(struct stage *stage)
{
    json_t *answer = stage_ask(stage, "POST", "/elements",
            "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":1048576}");

    if (stage->status == 201)
        snprintf(stage->id, sizeof stage->id, "%s", text_of(answer, "Id"));
    json_decref(answer);
}

/** What there is; nobody knows more of what was not answered. */
static void create_judge(struct stage *stage)
{
    json_t *list = world_call(&stage->house.world, 200, "GET", "/elements", NULL);
    const json_t *all = json_object_get(list, "Members");

    cr_assert(stage->status == 0 || stage->status == 201 ||
                    (stage->error == ENOSPC && stage->status == 507) ||
                    (stage->error == EIO && stage->status / 100 == 5),
            "%ld; struck: %s", stage->status, stage->moment->words);
    expect(json_array_size(all) <= 1);
    expect(stage->status != 201 || json_array_size(all) == 1);
    expect(stage->status == 0 || stage->status == 201 || json_array_size(all) == 0);
    stage_is_whole(stage);
    if (json_array_size(all) == 1) {
        const char *id = text_of(json_array_get(all, 0), "Id");
        element_file(&stage->house.world, id, stage->target);
        element_remove(stage, id, stage->target);
    }
    json_decref(list);
}

static const struct scene create_scene = { nothing_prepare, create_act, create_judge,
    NULL };

static void create_play(int error)
{
    struct stage stage;

    stage_open(&stage, "create", NULL);
    stage_play(&stage, &create_scene, error);
    expect(stage_points(&stage, "linkat", ".raw") == 1);
    expect(stage_points(&stage, "fsync", "/replicad-pool-") == 2);
    expect(stage_points(&stage, "fdatasync", "-wal") >= 2);
    stage_close(&stage);
}

Test(moments, an_allocation_is_whole_or_was_not)
{
    create_play(0);
}

Test(moments, an_allocation_without_space_is_whole_or_was_not)
{
    create_play(ENOSPC);
}

Test(moments, an_allocation_on_a_sick_disk_is_whole_or_was_not)
{
    create_play(EIO);
}

/* -- clones ---------------------------------------------------------------------------------- */

enum { IMAGE_MIB = 350, CLONED = 3 * MIB + 5 };

/* In a namespace of this test and its daemon: gone with them, whatever happens. */
static bool clones_mount(struct stage *stage)
{
    char image[] = "/tmp/replicad-image-XXXXXX";
    const char *make[] = { "mkfs.xfs", "-q", image, NULL };
    const char *mount_it[] = { "mount", "-o", "loop", image, stage->house.world.pool,
        NULL };
    int fd = mkstemp(image);
    bool mounted;

    expect(fd >= 0 && ftruncate(fd, (off_t)IMAGE_MIB << 20) == 0);
    close(fd);
    expect_eq(run_program(make), 0);
    mounted = unshare(CLONE_NEWNS) == 0 &&
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
            run_program(mount_it) == 0;
    (void)unlink(image);
    return mounted;
}

static void clone_act(struct stage *stage)
{
    char body[WORLD_PATH];

    snprintf(body, sizeof body, "{\"SourceElement\":\"%s\",\"CopyType\":5}",
            stage->other);
    json_decref(stage_ask(stage, "POST", "/replicas", body));
}

/** All of it or nothing, and never a job. */
static void clone_judge(struct stage *stage)
{
    json_t *list = world_call(&stage->house.world, 200, "GET",
            "/elements?Type=LogicalFile&limit=2", NULL);
    const json_t *newest = json_array_get(json_object_get(list, "Members"), 0);
    const char *id = text_of(newest, "Id");
    bool made = strcmp(id, stage->other) != 0;

    cr_assert(stage->status == 0 || stage->status == (made ? 201 : 507),
            "%ld; struck: %s", stage->status, stage->moment->words);
    if (made) {
        element_file(&stage->house.world, id, stage->target);
        expect(json_is_true(json_object_get(newest, "Complete")));
        cr_assert(same_bytes(stage->source, stage->target, CLONED), "struck: %s",
                stage->moment->words);
        element_remove(stage, id, stage->target);
    }
    json_decref(list);
}

static const struct scene clone_scene = { nothing_prepare, clone_act, clone_judge,
    NULL };

static void clone_play(int error)
{
    struct stage stage;

    stage_open(&stage, "clone", NULL);
    if (!clones_mount(&stage)) {
        stage_close(&stage);
        cr_skip_test("no loop mount here: it takes root");
    }
    stage_restart(&stage);
    world_file(&stage.house.world, "source", CLONED, 3);
    snprintf(
            stage.source, sizeof stage.source, "%.100s/source", stage.house.world.pool);
    register_file(&stage.house.world, "source", stage.other);
    stage_play(&stage, &clone_scene, error);
    expect(stage_points(&stage, "clone", "/replicad-pool-") == 1);
    expect(stage_points(&stage, "linkat", ".raw") == 1);
    expect_eq(daemon_stop(&stage.house.world.daemon), 0);
    expect_eq(umount(stage.house.world.pool), 0);
    cr_assert(daemon_restart(&stage.house.world.daemon));
    stage_close(&stage);
}

Test(moments, a_clone_is_whole_or_was_not)
{
    clone_play(0);
}

Test(moments, a_clone_without_space_is_whole_or_was_not)
{
    clone_play(ENOSPC);
}

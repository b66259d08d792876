/* Every return code of both methods by a real cause, over HTTP, and in /results with the
 * same number; the edges of CopyType; what differs between the two methods. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/world.h"
#include "tests/support/expect.h"

enum { MIB = 1 << 20 };

/* The newest row of /results: same method, same number, same name as the answer's. */
static void recorded(
        struct world *world, const char *method, long long value, const char *name)
{
    json_t *list = world_call(world, 200, "GET", "/results?limit=1", NULL);
    const json_t *row = json_array_get(json_object_get(list, "Members"), 0);

    expect_str(text_of(row, "MethodName"), method);
    expect_eq(number_of(row, "ReturnValue"), value);
    expect_str(text_of(row, "ReturnValueName"), name);
    json_decref(list);
}

/* A call that must answer @status and @value; the answer's own name is what /results has. */
static json_t *answers(struct world *world, long status, long long value,
        const char *method, const char *path, const char *body)
{
    json_t *answer = world_call(world, status, "POST", path, "%s", body);

    cr_assert(number_of(answer, "ReturnValue") == value, "%s: %s", body,
            json_dumps(answer, 0));
    recorded(world, method, value, text_of(answer, "ReturnValueName"));
    return answer;
}

static void create_answers(struct world *world, long status, long long value,
        const char *source, const char *rest)
{
    char body[512];

    snprintf(body, sizeof body, "{\"SourceElement\":\"/elements/%s\"%s}", source, rest);
    json_decref(answers(world, status, value, "CreateReplica", "/replicas", body));
}

static json_t *attach_answer(struct world *world, long status, long long value,
        const char *target, const char *source, const char *rest)
{
    char path[128], body[512];

    snprintf(path, sizeof path, "/replicas/%s/attach", target);
    snprintf(body, sizeof body, "{\"SourceElement\":\"%s\"%s}", source, rest);
    return answers(world, status, value, "AttachOrModifyReplica", path, body);
}

static void attach_answers(struct world *world, long status, long long value,
        const char *target, const char *source, const char *rest)
{
    json_decref(attach_answer(world, status, value, target, source, rest));
}

static void replica_removed(struct world *world, const char *target)
{
    char path[128];

    snprintf(path, sizeof path, "/replicas/%s", target);
    json_decref(world_call(world, 200, "DELETE", path, NULL));
}

/* Sockets the daemon has open, and descriptors of all kinds. */
static unsigned descriptors_open(struct world *world, unsigned *all)
{
    char path[300], link[64];
    unsigned count = 0;
    struct dirent *entry;
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)world->daemon.pid);
    folder = opendir(path);
    cr_assert(folder, "%s", path);
    while ((entry = readdir(folder))) {
        (*all)++;
        snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)world->daemon.pid,
                entry->d_name);
        if (readlink(path, link, sizeof link) > 7 && strncmp(link, "socket:", 7) == 0)
            count++;
    }
    closedir(folder);
    return count;
}

static unsigned sockets_open(struct world *world)
{
    unsigned all = 0;

    return descriptors_open(world, &all);
}

/* Until the sockets of earlier calls are closed, and files that probes had open too. */
static void descriptors_settle(struct world *world, unsigned idle)
{
    struct timespec pause = { .tv_nsec = 2000000 };
    struct instant deadline = instant_add_ms(clock_monotonic(), 60000);
    unsigned same = 0, last = 0;

    while (same < 30) {
        unsigned all = 0, sockets = descriptors_open(world, &all);
        same = sockets <= idle && all == last ? same + 1 : 0;
        last = all;
        cr_assert(!instant_reached(clock_monotonic(), deadline),
                "descriptors are not closed");
        nanosleep(
                &pause, NULL); /* between two looks: closing has no event to wait for */
    }
}

/* The daemon may open @more descriptors beyond those it has now; 0: as many as it likes.
   First the sockets of earlier calls must be gone; @idle of them are the daemon's own. */
static void limit_descriptors(struct world *world, unsigned idle, unsigned more)
{
    static const struct rlimit plenty = { 4096, 4096 };
    struct rlimit limit = plenty;
    char path[64];
    unsigned fd = 0;

    if (more)
        descriptors_settle(world, idle);
    for (unsigned left = more; left > 0; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%u", (int)world->daemon.pid, fd);
        if (access(path, F_OK) != 0)
            left--;
    }
    if (more)
        limit.rlim_cur = fd;
    expect_eq(prlimit(world->daemon.pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

static const char *const quick[] = { "--connect-timeout", "5", "--io-timeout", "5",
    NULL };

Test(returns, of_create_replica)
{
    char small[WORLD_ID], huge[WORLD_ID], lun[WORLD_ID], backing[WORLD_PATH];
    char path[WORLD_PATH * 2];
    struct world world;
    unsigned idle;

    world_open(&world, quick);
    idle = sockets_open(&world);
    world_tgt(&world);
    world_file(&world, "small", MIB + 5, 1);
    register_file(&world, "small", small);
    tgt_make_file(world.tgt, "backing", 4 * MIB, backing);
    make_lun(&world, 1, 512, false, "backing", backing);
    register_lun(&world, 1, false, lun);
    snprintf(path, sizeof path, "%s/huge", world.pool);
    fill_file(path, 1, 1, false);
    expect_eq(truncate(path, (off_t)8 << 40), 0);
    register_file(&world, "huge", huge);

    create_answers(&world, 202, 4096, small, ",\"CopyType\":5");
    create_answers(&world, 202, 4096, lun, ",\"CopyType\":\"UnSyncAssoc\"");
    create_answers(&world, 501, 1, small, ",\"CopyType\":3");
    create_answers(&world, 501, 1, small, ",\"CopyType\":32768");
    create_answers(&world, 422, 5, small, ",\"CopyType\":32767");
    create_answers(&world, 422, 5, small, "");
    create_answers(
            &world, 404, 5, "01890000-0000-7000-8000-000000000000", ",\"CopyType\":5");
    create_answers(&world, 507, 4, huge, ",\"CopyType\":5");

    limit_descriptors(&world, idle, 1); /* the call's own socket, and nothing more */
    create_answers(&world, 500, 2, small, ",\"CopyType\":5");
    limit_descriptors(&world, idle, 0);

    tgt_freeze(world.tgt);
    create_answers(&world, 504, 3, lun, ",\"CopyType\":5");
    tgt_thaw(world.tgt);
    tgt_kill(world.tgt);
    create_answers(&world, 502, 4, lun, ",\"CopyType\":5");

    /* 6: a source that is itself no whole copy yet */
    json_t *slow = world_call(&world, 201, "POST", "/settings",
            "{\"ElementName\":\"slow\",\"BandwidthLimit\":64,"
            "\"DesiredCopyMethodology\":3}");
    json_t *answer = world_call(&world, 202, "POST", "/replicas",
            "{\"SourceElement\":\"%s\",\"CopyType\":4,\"TargetSettingGoal\":\"%s\"}",
            small, text_of(slow, "Self"));
    create_answers(&world, 409, 6,
            text_of(answer, "TargetElement") + strlen("/elements/"), ",\"CopyType\":5");
    json_decref(slow);
    json_decref(answer);

    /* 0: nothing is to be copied yet, so there is no job */
    json_t *setting = world_call(&world, 201, "POST", "/settings",
            "{\"ElementName\":\"later\",\"InitialSynchronization\":3}");
    char rest[256];
    snprintf(rest, sizeof rest, ",\"CopyType\":4,\"TargetSettingGoal\":\"%s\"",
            text_of(setting, "Self"));
    create_answers(&world, 201, 0, small, rest);
    json_decref(setting);
    world_close(&world);
}

Test(returns, of_create_replica_by_a_clone)
{
    const char *truncate_image[] = { "truncate", "-s", "350M", NULL, NULL };
    const char *make[] = { "mkfs.xfs", "-q", NULL, NULL };
    const char *mount[] = { "mount", "-o", "loop", NULL, NULL, NULL };
    const char *unmount[] = { "umount", NULL, NULL };
    char image[WORLD_PATH * 2], folder[WORLD_PATH * 2], option[WORLD_PATH * 3];
    char file[WORLD_PATH * 3], path[WORLD_PATH * 3], id[WORLD_ID];
    struct world world;

    world_open(&world, NULL);
    snprintf(image, sizeof image, "%s/image", world.pool);
    snprintf(folder, sizeof folder, "%s/clones", world.pool);
    truncate_image[3] = make[2] = mount[3] = image;
    mount[4] = unmount[1] = folder;
    expect_eq(mkdir(folder, 0700), 0);
    expect_eq(run_program(truncate_image), 0);
    expect_eq(run_program(make), 0);
    if (geteuid() != 0 || run_program(mount) != 0) {
        world_close(&world);
        cr_skip_test("no loop mount here: it takes root");
    }
    expect_eq(daemon_stop(&world.daemon), 0);
    snprintf(option, sizeof option, "default=%s", folder);
    world.arguments[1] = option;
    cr_assert(daemon_start(&world.daemon, world.arguments), "%s", world.daemon.why);
    snprintf(file, sizeof file, "%s/golden", folder);
    fill_file(file, 20 * MIB + 9, 3, true);
    register_file(&world, "golden", id);

    for (int copy_type = 4; copy_type <= 5; copy_type++) {
        json_t *answer = world_call(&world, 201, "POST", "/replicas",
                "{\"SourceElement\":\"%s\",\"CopyType\":%d}", id, copy_type);
        expect_eq(number_of(answer, "ReturnValue"), 0);
        expect(json_is_null(json_object_get(answer, "Job")));
        recorded(&world, "CreateReplica", 0, "Job Completed with No Error");
        snprintf(path, sizeof path, "%s/%s.raw", folder,
                text_of(answer, "TargetElement") + strlen("/elements/"));
        expect(same_bytes(file, path, 20 * MIB + 9));
        snprintf(path, sizeof path, "/replicas/%s",
                text_of(answer, "TargetElement") + strlen("/elements/"));
        json_decref(answer);
        if (copy_type == 4) {
            answer = world_call(&world, 200, "GET", path, NULL);
            expect_eq(number_of(answer, "SyncState"), 14);
        } else {
            answer = world_call(&world, 404, "GET", path, NULL);
        }
        json_decref(answer);
    }
    expect_eq(daemon_stop(&world.daemon), 0);
    expect_eq(run_program(unmount), 0);
    world_close(&world);
}

Test(returns, of_attach_or_modify_replica)
{
    char source[WORLD_ID], other[WORLD_ID], near[WORLD_ID], far[WORLD_ID];
    char small[WORLD_ID], backing[WORLD_PATH];
    struct world world;
    unsigned idle;

    world_open(&world, quick);
    idle = sockets_open(&world);
    world_tgt(&world);
    world_file(&world, "source", 2 * MIB, 1);
    world_file(&world, "other", 2 * MIB, 2);
    world_file(&world, "near", 3 * MIB, 3);
    world_file(&world, "small", MIB, 4);
    register_file(&world, "source", source);
    register_file(&world, "other", other);
    register_file(&world, "near", near);
    register_file(&world, "small", small);
    tgt_make_file(world.tgt, "backing", 4 * MIB, backing);
    make_lun(&world, 1, 512, false, "backing", backing);
    register_lun(&world, 1, true, far);

    attach_answers(&world, 501, 1, near, source, ",\"CopyType\":3");
    attach_answers(&world, 501, 1, near, source, ",\"CopyType\":4096");
    attach_answers(&world, 422, 5, near, source, ",\"CopyType\":4095");
    attach_answers(&world, 501, 1, far, source, ",\"CopyType\":4");
    attach_answers(&world, 501, 1, far, source, ",\"CopyType\":5");
    attach_answers(&world, 422, 5, small, source, ",\"CopyType\":5");
    attach_answers(&world, 422, 5, source, source, ",\"CopyType\":5");
    attach_answers(&world, 404, 5, near, "01890000-0000-7000-8000-000000000000",
            ",\"CopyType\":5");
    attach_answers(&world, 404, 5, "01890000-0000-7000-8000-000000000000", source,
            ",\"CopyType\":5");

    limit_descriptors(&world, idle, 1);
    attach_answers(&world, 500, 2, near, source, ",\"CopyType\":5");
    limit_descriptors(&world, idle, 0);
    tgt_freeze(world.tgt);
    attach_answers(&world, 504, 3, far, source, ",\"CopyType\":2");
    tgt_thaw(world.tgt);
    tgt_kill(world.tgt);
    attach_answers(&world, 502, 4, far, source, ",\"CopyType\":2");

    json_t *answer = attach_answer(&world, 202, 4096, near, source,
            ",\"CopyType\":2,\"Goal\":{\"DesiredRPO\":60}");
    job_completed(&world, text_of(answer, "Job"), 120);
    json_decref(answer);
    attach_answers(&world, 200, 0, near, source,
            ",\"CopyType\":2,\"Goal\":\"instance of CIM_ReplicationSettingData { "
            "DesiredRPO = "
            "90; };\"");
    attach_answers(&world, 200, 0, near, source, ",\"CopyType\":2");
    attach_answers(&world, 409, 6, near, other, ",\"CopyType\":2");
    attach_answers(&world, 409, 6, near, source, ",\"CopyType\":4");
    replica_removed(&world, near);
    recorded(&world, "ModifySynchronization", 0, "Job Completed with No Error");
    world_close(&world);
}

/* Where the ranges of the two methods begin and end, on the wire. */
Test(returns, the_edges_of_copy_type)
{
    static const struct {
        const char *value;
        int create, attach; /* ReturnValue; 0: it is taken (4096) */
    } edges[] = { { "-1", 5, 5 }, { "0", 5, 5 }, { "1", 5, 5 }, { "2", 0, 0 },
        { "3", 1, 1 }, { "4", 0, 0 }, { "5", 0, 0 }, { "6", 5, 5 }, { "4095", 5, 5 },
        { "4096", 5, 1 }, { "32767", 5, 1 }, { "32768", 1, 1 }, { "65535", 1, 1 },
        { "65536", 5, 5 }, { "4.0", 5, 5 }, { "\"4\"", 5, 5 }, { "null", 5, 5 },
        { "true", 5, 5 }, { "\"Async\"", 0, 0 }, { "\"async\"", 5, 5 } };
    static const long status[] = { 202, 501, 0, 0, 0, 422 };
    char source[WORLD_ID], target[WORLD_ID], rest[64];
    struct world world;

    world_open(&world, NULL);
    world_file(&world, "source", 100000, 1);
    register_file(&world, "source", source);
    for (unsigned i = 0; i < sizeof edges / sizeof *edges; i++) {
        snprintf(rest, sizeof rest, ",\"CopyType\":%s", edges[i].value);
        create_answers(&world, status[edges[i].create],
                edges[i].create ? edges[i].create : 4096, source, rest);
        json_t *made = world_call(&world, 201, "POST", "/elements",
                "{\"Type\":\"LogicalFile\",\"Pool\":\"default\",\"Size\":100000}");
        snprintf(target, sizeof target, "%s", text_of(made, "Id"));
        json_decref(made);
        attach_answers(&world, status[edges[i].attach],
                edges[i].attach ? edges[i].attach : 4096, target, source, rest);
    }
    world_close(&world);
}

/* Value 2's name and the Goal's form differ between the methods. */
Test(returns, what_differs_between_the_methods)
{
    char source[WORLD_ID], target[WORLD_ID], path[128];
    struct world world;
    unsigned idle;
    json_t *answer;

    world_open(&world, NULL);
    idle = sockets_open(&world);
    world_file(&world, "source", 100000, 1);
    world_file(&world, "target", 100000, 2);
    register_file(&world, "source", source);
    register_file(&world, "target", target);
    snprintf(path, sizeof path, "/replicas/%s/attach", target);

    /* a Goal is CreateReplica's by reference, AttachOrModifyReplica's by value */
    create_answers(
            &world, 422, 5, source, ",\"CopyType\":5,\"Goal\":{\"DesiredRPO\":60}");
    attach_answers(&world, 422, 5, target, source,
            ",\"CopyType\":5,\"TargetSettingGoal\":\"/settings/x\"");
    create_answers(&world, 404, 5, source,
            ",\"CopyType\":5,\"TargetSettingGoal\":\"/settings/"
            "01890000-0000-7000-8000-000000000000\"");
    attach_answers(&world, 422, 5, target, source,
            ",\"CopyType\":5,\"TargetPool\":\"/pools/default\"");
    create_answers(&world, 422, 5, source,
            ",\"CopyType\":5,\"TargetElement\":\"/elements/x\"");

    limit_descriptors(&world, idle, 1);
    answer = world_call(&world, 500, "POST", "/replicas",
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    expect_str(text_of(answer, "ReturnValueName"), "Unknown");
    json_decref(answer);
    limit_descriptors(&world, idle, 1);
    answer = world_call(&world, 500, "POST", path,
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    expect_str(text_of(answer, "ReturnValueName"), "Unspecified Error");
    json_decref(answer);
    limit_descriptors(&world, idle, 0);
    world_close(&world);
}

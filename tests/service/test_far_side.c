/* The far side fails in mid-copy: the job resumes, or ends with the right code in bounded
 * time; meanwhile nothing else waits for it; afterwards the bytes are right. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/world.h"
#include "tests/support/expect.h"

enum { MIB = 1 << 20, SIZE = 24 * MIB };

static const char *const options[] = { "--connect-timeout", "5", "--io-timeout", "5",
    NULL };

/* A copy from a pool file to a LUN (or back), too slow to come to its end before copy_hurry(). */
struct copy {
    struct world world;
    char file[WORLD_ID], file_path[WORLD_PATH];
    char lun[WORLD_ID], lun_path[WORLD_PATH];
    char job[WORLD_ID * 2];
    bool to_lun;
};

static void luns_make(struct copy *copy)
{
    tgt_add_target(copy->world.tgt, 1, WORLD_TARGET);
    make_lun(&copy->world, 1, 512, false, "lun", copy->lun_path);
}

static void copy_open(struct copy *copy, bool to_lun)
{
    const char *from, *to;

    memset(copy, 0, sizeof *copy);
    copy->to_lun = to_lun;
    world_open(&copy->world, options);
    copy->world.tgt = tgt_start();
    snprintf(copy->file_path, sizeof copy->file_path, "%.100s/file", copy->world.pool);
    snprintf(copy->lun_path, sizeof copy->lun_path, "%s/lun",
            copy->world.tgt->directory);
    from = to_lun ? copy->file_path : copy->lun_path;
    to = to_lun ? copy->lun_path : copy->file_path;
    fill_file(from, SIZE, 7, false);
    garbage_file(to, SIZE);
    luns_make(copy);
    register_file(&copy->world, "file", copy->file);
    register_lun(&copy->world, 1, false, copy->lun);
}

static void copy_start(struct copy *copy, const char *goal)
{
    const char *source = copy->to_lun ? copy->file : copy->lun;
    const char *target = copy->to_lun ? copy->lun : copy->file;
    char path[128];
    json_t *answer;

    snprintf(path, sizeof path, "/replicas/%s/attach", target);
    answer = world_call(&copy->world, 202, "POST", path,
            "{\"SourceElement\":\"%s\",\"CopyType\":4,\"Goal\":{%s}}", source, goal);
    snprintf(copy->job, sizeof copy->job, "%s", text_of(answer, "Job"));
    json_decref(answer);
}

/* Waits until the copy is somewhere in its middle: something of it is flushed. */
static void copy_reach(struct copy *copy)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 60000);
    long long now;

    do {
        json_t *job = world_call(&copy->world, 200, "GET", copy->job, NULL);
        now = number_of(job, "BytesDone");
        cr_assert(number_of(job, "JobState") < 7 &&
                        !instant_reached(clock_monotonic(), deadline),
                "%s", json_dumps(job, 0));
        json_decref(job);
        usleep(20000); /* between two looks; the state is what ends it */
    } while (now == 0);
}

/* What is left may go as fast as it can. Where there is trouble, the job may be over by now. */
static void copy_hurry(struct copy *copy)
{
    json_decref(
            world_call(&copy->world, 0, "PATCH", copy->job, "{\"BandwidthLimit\":0}"));
}

/* Another job, from file to file, and the probes, while the far side is in trouble. */
static void others_go_on(struct copy *copy)
{
    char source[WORLD_ID];
    json_t *answer;
    long status;

    world_file(&copy->world, "bystander", 3 * MIB, 9);
    register_file(&copy->world, "bystander", source);
    answer = world_call(&copy->world, 202, "POST", "/replicas",
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    job_completed(&copy->world, text_of(answer, "Job"), 120);
    json_decref(answer);
    struct http_answer live = { 0 };
    status = http_send(copy->world.daemon.http, "GET", "/livez", NULL, NULL, &live);
    expect_eq(status, 200);
    http_answer_release(&live);
}

static void copy_good(struct copy *copy)
{
    copy_hurry(copy);
    job_completed(&copy->world, copy->job, 120);
    expect(same_bytes(copy->file_path, copy->lun_path, SIZE));
    world_close(&copy->world);
}

static void copy_fails(struct copy *copy, const char *words)
{
    json_t *job = job_end(&copy->world, copy->job, 120), *errors, *pair;
    char path[200];

    cr_assert(number_of(job, "JobState") == 10, "%s", json_dumps(job, 0));
    expect_eq(number_of(job, "ReturnValue"), 4);
    expect(number_of(job, "PercentComplete") < 100);
    cr_assert(
            strstr(text_of(job, "ErrorDescription"), words), "%s", json_dumps(job, 0));
    snprintf(path, sizeof path, "%s/errors", copy->job);
    errors = world_call(&copy->world, 200, "GET", path, NULL);
    expect_eq(json_array_size(json_object_get(errors, "Members")), 1);
    pair = world_call(&copy->world, 200, "GET", text_of(job, "Replica"), NULL);
    expect_eq(number_of(pair, "SyncState"), 12);
    json_decref(job);
    json_decref(errors);
    json_decref(pair);
}

/* After the trouble is over: Resync brings the pair to the right bytes. */
static void resync_good(struct copy *copy)
{
    char path[128];
    json_t *answer;

    snprintf(path, sizeof path, "/replicas/%s/modify",
            copy->to_lun ? copy->lun : copy->file);
    answer = world_call(&copy->world, 202, "POST", path, "{\"Operation\":4}");
    snprintf(copy->job, sizeof copy->job, "%s", text_of(answer, "Job"));
    json_decref(answer);
    copy_good(copy);
}

#define SLOW "\"BandwidthLimit\":200000"

Test(far_side, a_target_killed_and_restarted)
{
    struct copy copy;

    copy_open(&copy, true);
    copy_start(&copy, SLOW);
    copy_reach(&copy);
    tgt_kill(copy.world.tgt);
    others_go_on(&copy);
    tgt_revive(copy.world.tgt);
    luns_make(&copy);
    copy_good(&copy);
}

Test(far_side, a_source_killed_and_restarted)
{
    struct copy copy;

    copy_open(&copy, false);
    copy_start(&copy, SLOW);
    copy_reach(&copy);
    tgt_kill(copy.world.tgt);
    tgt_revive(copy.world.tgt);
    luns_make(&copy);
    copy_good(&copy);
}

Test(far_side, a_target_that_stalls_past_the_deadline)
{
    struct timespec longer = { .tv_sec = 7 }; /* than the I/O timeout of 5 s */
    struct copy copy;

    copy_open(&copy, true);
    copy_start(&copy, SLOW);
    copy_reach(&copy);
    tgt_freeze(copy.world.tgt);
    others_go_on(&copy);
    nanosleep(&longer, NULL);
    tgt_thaw(copy.world.tgt);
    copy_good(&copy);
}

Test(far_side, a_lun_removed)
{
    struct copy copy;

    copy_open(&copy, true);
    copy_start(&copy, SLOW);
    copy_reach(&copy);
    tgt_remove_lun(copy.world.tgt, 1, 1);
    others_go_on(&copy);
    copy_fails(&copy, "target");
    make_lun(&copy.world, 1, 512, false, "lun", copy.lun_path);
    resync_good(&copy);
}

Test(far_side, a_lun_shrunk)
{
    struct copy copy;

    copy_open(&copy, true);
    copy_start(&copy, SLOW);
    copy_reach(&copy);
    expect_eq(truncate(copy.lun_path, SIZE / 2), 0);
    tgt_reload_lun(copy.world.tgt, 1, 1, copy.lun_path);
    copy_hurry(&copy);
    copy_fails(&copy, "target");
    expect_eq(truncate(copy.lun_path, SIZE), 0);
    tgt_reload_lun(copy.world.tgt, 1, 1, copy.lun_path);
    resync_good(&copy);
}

/* A small file system of the test's own; skipped where it cannot be mounted. */
static void small_mount(const char *folder, const char *size)
{
    char option[32];
    const char *mount[] = { "mount", "-t", "tmpfs", "-o", option, "none", folder,
        NULL };

    snprintf(option, sizeof option, "size=%s", size);
    expect_eq(mkdir(folder, 0700), 0);
    if (geteuid() != 0 || run_program(mount) != 0)
        cr_skip_test("no tmpfs mount here: it takes root");
}

static void small_unmount(const char *folder)
{
    const char *unmount[] = { "umount", "-l", folder, NULL };

    expect_eq(run_program(unmount), 0);
}

Test(far_side, a_lun_that_cannot_write_any_more)
{
    char folder[WORLD_PATH], backing[WORLD_PATH * 2], path[128];
    struct tgt_lun what = { .path = backing };
    char target[WORLD_ID];
    struct copy copy;
    json_t *answer;

    copy_open(&copy, true);
    snprintf(folder, sizeof folder, "%s/small", copy.world.tgt->directory);
    small_mount(folder, "8m");
    snprintf(backing, sizeof backing, "%s/backing", folder);
    close(creat(backing, 0600));
    expect_eq(truncate(backing, SIZE), 0); /* thin: 24 MiB promised, 8 there */
    tgt_add_lun(copy.world.tgt, 1, 2, &what);
    register_lun(&copy.world, 2, false, target);
    snprintf(path, sizeof path, "/replicas/%s/attach", target);
    answer = world_call(&copy.world, 202, "POST", path,
            "{\"SourceElement\":\"%s\",\"CopyType\":4}", copy.file);
    snprintf(copy.job, sizeof copy.job, "%s", text_of(answer, "Job"));
    json_decref(answer);
    copy_fails(&copy, "target");
    tgt_remove_lun(copy.world.tgt, 1, 2);
    small_unmount(folder);
    world_close(&copy.world);
}

Test(far_side, a_pool_that_fills_up)
{
    char folder[WORLD_PATH], option[WORLD_PATH + 16], filler[WORLD_PATH * 2];
    const char *arguments[] = { "--connect-timeout", "5", "--io-timeout", "5", "--pool",
        option, NULL };
    struct copy copy;
    json_t *answer;

    copy_open(&copy, true);
    expect_eq(daemon_stop(&copy.world.daemon), 0);
    snprintf(folder, sizeof folder, "%.100s/small", copy.world.pool);
    small_mount(folder, "32m");
    snprintf(option, sizeof option, "small=%s", folder);
    for (unsigned i = 0; arguments[i]; i++)
        copy.world.arguments[2 + i] = arguments[i];
    cr_assert(daemon_start(&copy.world.daemon, copy.world.arguments), "%s",
            copy.world.daemon.why);
    json_t *setting = world_call(&copy.world, 201, "POST", "/settings",
            "{\"ElementName\":\"slow\",\"BandwidthLimit\":200000}");
    answer = world_call(&copy.world, 202, "POST", "/replicas",
            "{\"SourceElement\":\"%s\",\"CopyType\":4,\"TargetPool\":\"/pools/small\","
            "\"TargetSettingGoal\":\"%s\"}",
            copy.file, text_of(setting, "Self"));
    snprintf(copy.job, sizeof copy.job, "%s", text_of(answer, "Job"));
    copy_reach(&copy);
    snprintf(filler, sizeof filler, "%s/filler", folder);
    const char *fill[] = { "sh", "-c",
        "exec dd if=/dev/zero of=\"$0\" bs=1M status=none 2>&-", filler, NULL };
    (void)run_program(fill); /* it ends when nothing is left */
    copy_hurry(&copy);
    copy_fails(&copy, "target");
    expect_eq(unlink(filler), 0);
    char path[128], made[WORLD_PATH * 2];
    snprintf(path, sizeof path, "%s/modify", text_of(answer, "Replica"));
    json_t *again = world_call(&copy.world, 202, "POST", path, "{\"Operation\":4}");
    snprintf(copy.job, sizeof copy.job, "%s", text_of(again, "Job"));
    copy_hurry(&copy);
    job_completed(&copy.world, copy.job, 120);
    snprintf(made, sizeof made, "%s/%s.raw", folder,
            text_of(answer, "TargetElement") + strlen("/elements/"));
    expect(same_bytes(copy.file_path, made, SIZE));
    json_decref(again);
    json_decref(setting);
    json_decref(answer);
    small_unmount(folder);
    world_close(&copy.world);
}

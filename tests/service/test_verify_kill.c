/* A verify of a pair that a kill -9 interrupts: it goes on where it was, says what both its
 * lives have found, and the pair's SyncState has not moved. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/world.h"
#include "tests/support/expect.h"

/* At the pair's own pace it would take more than a minute. */
enum { SIZE = 16 << 20, PACE = 200000, EARLY = 64 << 10, LATE = SIZE - 512 };

struct pair {
    struct world world;
    char target[WORLD_ID], self[WORLD_ID + 16], job[80];
    long long sync_state;
};

static void job_pace(struct pair *pair, unsigned pace)
{
    json_decref(world_call(
            &pair->world, 200, "PATCH", pair->job, "{\"BandwidthLimit\":%u}", pace));
}

/** A whole copy, whose jobs to come are slow. */
static void pair_open(struct pair *pair, int copy_type)
{
    char source[WORLD_ID];
    json_t *setting, *made;

    world_open(&pair->world, NULL);
    world_file(&pair->world, "source", SIZE, 5);
    register_file(&pair->world, "source", source);
    setting = world_call(&pair->world, 201, "POST", "/settings",
            "{\"ElementName\":\"slow\",\"BandwidthLimit\":%d}", PACE);
    made = world_call(&pair->world, 202, "POST", "/replicas",
            "{\"SourceElement\":\"/elements/%s\",\"CopyType\":%d,"
            "\"TargetSettingGoal\":\"%s\"}",
            source, copy_type, text_of(setting, "Self"));
    snprintf(pair->job, sizeof pair->job, "%s", text_of(made, "Job"));
    snprintf(pair->self, sizeof pair->self, "%s", text_of(made, "Replica"));
    snprintf(pair->target, sizeof pair->target, "%s",
            text_of(made, "TargetElement") + strlen("/elements/"));
    json_decref(setting);
    json_decref(made);
    job_pace(pair, 0);
    job_completed(&pair->world, pair->job, 120);
}

static long long pair_state(struct pair *pair)
{
    json_t *replica = world_call(&pair->world, 200, "GET", pair->self, NULL);
    long long state = number_of(replica, "SyncState");

    json_decref(replica);
    return state;
}

/** Bits of a byte of the target, behind everybody's back. */
static void flip(struct pair *pair, off_t at)
{
    char path[WORLD_PATH];
    uint8_t byte;
    int fd;

    element_file(&pair->world, pair->target, path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    expect(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x81;
    expect_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void verify_start(struct pair *pair)
{
    char path[WORLD_ID + 32];
    json_t *answer;

    pair->sync_state = pair_state(pair);
    snprintf(path, sizeof path, "%s/verify", pair->self);
    answer = world_call(&pair->world, 202, "POST", path, NULL);
    snprintf(pair->job, sizeof pair->job, "%s", text_of(answer, "Job"));
    json_decref(answer);
}

/** Until it is under way and @done bytes of it are written down; what it says then. */
static json_t *verify_reach(struct pair *pair, long long done)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 60000);

    for (;;) {
        json_t *job = world_call(&pair->world, 200, "GET", pair->job, NULL);

        cr_assert(number_of(job, "JobState") < 7, "it is over: %s", json_dumps(job, 0));
        if (number_of(job, "JobState") == 4 && number_of(job, "BytesDone") >= done)
            return job;
        cr_assert(!instant_reached(clock_monotonic(), deadline),
                "it does not come on: %s", json_dumps(job, 0));
        json_decref(job);
        usleep(20000); /* between two looks; the count is what ends it */
    }
}

static void kill_and_restart(struct pair *pair)
{
    daemon_kill(&pair->world.daemon);
    cr_assert(daemon_restart(&pair->world.daemon), "%s", pair->world.daemon.why);
}

/** Killed in the middle of it, twice. */
static void verify_interrupted(struct pair *pair)
{
    long long done = 0;

    verify_start(pair);
    for (unsigned life = 0; life < 2; life++) {
        json_t *job = verify_reach(pair, done + 1);
        json_t *replica;

        cr_assert(number_of(job, "BytesDone") >= done, "%s", json_dumps(job, 0));
        done = number_of(job, "BytesDone");
        expect(done < LATE);
        json_decref(job);
        kill_and_restart(pair);
        expect_eq(pair_state(pair), pair->sync_state);
        replica = world_call(&pair->world, 200, "GET", pair->self, NULL);
        expect_str(text_of(replica, "Job"), pair->job); /* it is alive */
        json_decref(replica);
    }
    job_pace(pair, 0);
}

static void expect_end(struct pair *pair, int job_state, unsigned differences)
{
    static const long long offsets[] = { EARLY, LATE };
    json_t *job = job_end(&pair->world, pair->job, 120);
    const json_t *found = json_object_get(job, "Differences");

    cr_assert(number_of(job, "JobState") == job_state &&
                    number_of(job, "DifferentRanges") == differences &&
                    json_array_size(found) == differences,
            "%s", json_dumps(job, 0));
    expect_eq(number_of(job, "BytesVerified"), SIZE - differences * 512);
    expect_eq(number_of(job, "DifferentBytes"), differences * 512);
    for (unsigned i = 0; i < differences; i++)
        cr_assert(number_of(json_array_get(found, i), "Offset") == offsets[i], "%s",
                json_dumps(job, 0));
    json_decref(job);
    expect_eq(pair_state(pair), pair->sync_state);
}

static void play(int copy_type)
{
    struct pair pair;

    pair_open(&pair, copy_type);
    verify_interrupted(&pair);
    expect_end(&pair, 7, 0);
    flip(&pair, EARLY);
    flip(&pair, LATE);
    verify_interrupted(&pair);
    expect_end(&pair, 10, 2);
    world_close(&pair.world);
}

Test(verify_kill, of_a_point_in_time)
{
    play(4);
}

Test(verify_kill, of_a_copy_that_follows)
{
    play(2);
}

/* Exports whose far side is stuck: what a host has sent may still land, so nothing says that it
 * is over before it is. A second daemon that is stopped (SIGSTOP) plays the far side. */
#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/exports.h"
#include "tests/support/expect.h"

#define ALL "{\"Initiators\":[\"*\"]}"

/** A far side with one volume, and it as an element of ours that is exported. */
struct stuck {
    struct house theirs, ours;
    char far[WORLD_ID], lun[WORLD_ID];
    char element[WORLD_PATH], export[WORLD_PATH]; /* paths of the latter */
    struct iscsi_context *host; /* of write_stuck() */
    struct scsi_task *task;
    bool came;
};

static void stuck_open(struct stuck *stuck, const char *const *options)
{
    json_t *made;

    house_open(&stuck->theirs, NULL);
    house_open(&stuck->ours, options);
    volume_make(&stuck->theirs, 4 * MIB, stuck->far);
    export_put(&stuck->theirs, 201, stuck->far, ALL);
    made = world_call(&stuck->ours.world, 201, "POST", "/elements",
            "{\"Type\":\"StorageVolume\",\"ElementName\":\"far\",\"Address\":"
            "\"iscsi://%s/iqn.2026-11.org.replicad:%s/0\"}",
            stuck->theirs.v4, stuck->far);
    snprintf(stuck->lun, sizeof(stuck->lun), "%s", text_of(made, "Id"));
    json_decref(made);
    snprintf(stuck->element, sizeof(stuck->element), "/elements/%s", stuck->lun);
    snprintf(stuck->export, sizeof(stuck->export), "/elements/%s/export", stuck->lun);
    export_put(&stuck->ours, 201, stuck->lun, ALL);
}

/* A stop is not over when kill() returns: a thread that runs may answer once more. */
static void stuck_far_side(struct stuck *stuck, int number)
{
    pid_t pid = stuck->theirs.world.daemon.pid;
    int status;

    expect_eq(kill(pid, number), 0);
    if (number == SIGSTOP)
        expect(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
}

static void stuck_close(struct stuck *stuck)
{
    host_free(stuck->host);
    scsi_free_scsi_task(stuck->task);
    stuck_far_side(stuck, SIGCONT);
    house_close(&stuck->ours);
    house_close(&stuck->theirs);
}

/* -- a write that is under way -------------------------------------------------------------- */

static void write_came(
        struct iscsi_context *host, int status, void *data, void *context)
{
    (void)host, (void)status, (void)data;
    *(bool *)context = true;
}

/** A host comes, the far side stops, and a write of 8 blocks is on its way: our daemon has
    it, and nothing answers it. */
static void write_stuck(struct stuck *stuck)
{
    static uint8_t bytes[8 * SECTOR];
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    struct iscsi_context *host = host_come(stuck->ours.v4, stuck->lun, "alice");
    long long depth;

    stuck->host = host;
    stuck_far_side(stuck, SIGSTOP);
    memset(bytes, 'H', sizeof(bytes));
    stuck->came = false;
    stuck->task = iscsi_write16_task(host, 0, 0, bytes, sizeof(bytes), SECTOR, 0, 0, 0,
            0, 0, write_came, &stuck->came);
    expect(stuck->task != NULL);
    do {
        struct pollfd wait = { .fd = iscsi_get_fd(host),
            .events = (short)iscsi_which_events(host) };
        json_t *export;

        cr_assert(!instant_reached(clock_monotonic(), deadline), "it does not arrive");
        cr_assert(!stuck->came, "it was answered");
        if (poll(&wait, 1, 20) > 0)
            expect_eq(iscsi_service(host, wait.revents), 0);
        export = export_get(&stuck->ours, stuck->lun);
        depth = number_of(
                json_array_get(json_object_get(export, "Sessions"), 0), "QueueDepth");
        json_decref(export);
    } while (depth == 0);
}

/** 503, and when to ask again. */
static void still_ending(struct stuck *stuck, const char *method, const char *body)
{
    struct http_answer answer = { 0 };
    char after[HTTP_HEADER_TEXT];

    cr_assert(http_send(stuck->ours.world.daemon.http, method, stuck->export, body,
                      NULL, &answer) == 503,
            "%s: %ld %s", method, answer.status, answer.body);
    cr_assert(strstr(answer.body, "still ending"), "%s", answer.body);
    expect(http_header(&answer, "Retry-After", after)[0]);
    http_answer_release(&answer);
}

Test(exports_stuck, it_is_deleted_when_nothing_of_it_can_land_any_more)
{
    static const char *const options[] = { "--io-timeout", "100", NULL };
    char source[WORLD_ID], path[WORLD_PATH], body[WORLD_PATH];
    struct instant deadline;
    struct stuck stuck;
    long status;

    stuck_open(&stuck, options);
    volume_make(&stuck.ours, 4 * MIB, source);
    write_stuck(&stuck);

    still_ending(&stuck, "DELETE", NULL);
    still_ending(&stuck, "PUT", ALL);
    call_in_use(&stuck.ours, "DELETE", stuck.element, NULL);
    snprintf(path, sizeof(path), "/replicas/%s/attach", stuck.lun);
    snprintf(body, sizeof(body), "{\"SourceElement\":\"%s\",\"CopyType\":4}", source);
    call_in_use(&stuck.ours, "POST", path, body);
    json_decref(world_call(&stuck.ours.world, 200, "GET", stuck.export, NULL));

    stuck_far_side(&stuck, SIGCONT);
    deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    do {
        json_decref(world_try(
                &stuck.ours.world, NULL, &status, "DELETE", stuck.export, NULL));
        cr_assert(status == 204 ||
                        (status == 503 &&
                                !instant_reached(clock_monotonic(), deadline)),
                "status %ld", status);
    } while (status != 204);
    json_decref(world_call(&stuck.ours.world, 404, "GET", stuck.export, NULL));
    export_put(&stuck.ours, 201, stuck.lun, ALL);
    expect(may_come(stuck.ours.v4, stuck.lun, "alice"));
    json_decref(world_call(&stuck.ours.world, 204, "DELETE", stuck.export, NULL));
    json_decref(world_call(&stuck.ours.world, 200, "DELETE", stuck.element, NULL));
    stuck_close(&stuck);
}

/* -- what cannot be opened ---------------------------------------------------------------------- */

enum { DEAD = 6 };

/** A daemon in its second life, with one export that can be served and younger ones whose tgtd
    is stopped. */
struct dead {
    struct house house;
    char good[WORLD_ID], luns[DEAD][WORLD_ID];
};

static void dead_open(struct dead *dead, const char *const *options)
{
    house_open(&dead->house, options);
    world_tgt(&dead->house.world);
    volume_make(&dead->house, 4 * MIB, dead->good);
    export_put(&dead->house, 201, dead->good, ALL);
    for (int i = 0; i < DEAD; i++) {
        char name[8], path[WORLD_PATH];

        snprintf(name, sizeof(name), "lun%d", i);
        snprintf(path, sizeof(path), "%s/%s", dead->house.world.tgt->directory, name);
        garbage_file(path, 4 * MIB);
        make_lun(&dead->house.world, i + 1, 512, false, name, path);
        register_lun(&dead->house.world, i + 1, false, dead->luns[i]);
        export_put(&dead->house, 201, dead->luns[i], ALL);
    }
    daemon_kill(&dead->house.world.daemon);
    tgt_freeze(dead->house.world.tgt);
    house_kill(&dead->house);
}

/** How often @words are in the log of our daemon. */
static unsigned said_in_log(const struct house *house, const char *words)
{
    char line[1024];
    unsigned count = 0;
    FILE *log = fopen(house->world.daemon.log, "r");

    expect(log != NULL);
    while (fgets(line, sizeof(line), log))
        count += strstr(line, words) != NULL;
    fclose(log);
    return count;
}

Test(exports_stuck, who_is_dead_keeps_nobody_waiting)
{
    static const char *const options[] = { "--connect-timeout", "100", NULL };
    struct instant deadline;
    char path[WORLD_PATH];
    struct dead dead;
    long status;

    dead_open(&dead, options);
    serving_wait(&dead.house, dead.good); /* behind all of them */
    export_put(
            &dead.house, 200, dead.good, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    snprintf(path, sizeof(path), "/elements/%s/export", dead.good);
    json_decref(world_call(&dead.house.world, 204, "DELETE", path, NULL));
    for (unsigned i = 0; i < 2; i++) { /* their own openings are not waited for */
        snprintf(path, sizeof(path), "/elements/%s/export", dead.luns[i]);
        json_decref(world_call(&dead.house.world, 204, "DELETE", path, NULL));
        *strrchr(path, '/') = '\0';
        json_decref(world_call(&dead.house.world, 200, "DELETE", path, NULL));
    }
    snprintf(path, sizeof(path), "/elements/%s/export", dead.luns[2]);
    json_decref(world_call(&dead.house.world, 204, "DELETE", path, NULL));
    /* All that came while they were being opened for the first time. */
    expect_eq(said_in_log(&dead.house, "export-waits"), 0);
    /* What was not wanted any more is, as soon as nothing is left of its opening. */
    tgt_thaw(dead.house.world.tgt);
    deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);
    do {
        json_decref(world_try(&dead.house.world, NULL, &status, "PUT", path, ALL));
        cr_assert(status == 201 ||
                        (status == 503 &&
                                !instant_reached(clock_monotonic(), deadline)),
                "status %ld", status);
        if (status != 201)
            usleep(20000); /* between two looks; the answer is what ends it */
    } while (status != 201);
    house_close(&dead.house);
}

Test(exports_stuck, a_stop_does_not_wait_for_one_after_the_other)
{
    static const char *const options[] = { "--connect-timeout", "15", NULL };
    struct dead dead;

    dead_open(&dead, options);
    serving_wait(&dead.house, dead.good);
    expect_eq(daemon_stop(&dead.house.world.daemon), 0);
    tgt_thaw(dead.house.world.tgt);
    cr_assert(daemon_restart(&dead.house.world.daemon), "%s",
            dead.house.world.daemon.why);
    for (unsigned i = 0; i < DEAD; i++)
        serving_wait(&dead.house, dead.luns[i]); /* none of them is forgotten */
    house_close(&dead.house);
}

/** Waits until our daemon has said @words, longer than any of its own deadlines here. */
static void log_wait(const struct house *house, const char *words)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 3 * PATIENCE_S * 1000);

    while (said_in_log(house, words) == 0) {
        cr_assert(!instant_reached(clock_monotonic(), deadline), "not said: %s", words);
        usleep(100000); /* between two looks; what is said ends it */
    }
}

Test(exports_stuck, an_opening_fails_for_its_own_reasons)
{
    static const char *const options[] = { "--connect-timeout", "75", NULL };
    struct dead dead;

    dead_open(&dead, options);
    log_wait(&dead.house, "export-waits");
    expect_eq(said_in_log(&dead.house, "does not open in time"), 0);
    tgt_thaw(dead.house.world.tgt);
    house_close(&dead.house);
}

/* -- what never ends ---------------------------------------------------------------------------- */

/** SIGTERM, and as long as a stop may take when nothing ends by itself. */
static int stop_await(struct daemon *daemon)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), 3 * PATIENCE_S * 1000);
    pid_t ended;
    int status;

    expect_eq(kill(daemon->pid, SIGTERM), 0);
    while ((ended = waitpid(daemon->pid, &status, WNOHANG)) == 0) {
        cr_assert(!instant_reached(clock_monotonic(), deadline), "it does not stop");
        usleep(100000); /* between two looks; its end is what ends it */
    }
    expect_eq(ended, daemon->pid);
    daemon->pid = 0;
    return status;
}

Test(exports_stuck, a_stop_leaves_what_is_still_used)
{
    static const char *const options[] = { "--io-timeout", "600", NULL };
    struct stuck stuck;
    int status;

    stuck_open(&stuck, options);
    write_stuck(&stuck);
    status = stop_await(&stuck.ours.world.daemon);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x", status);
    expect_eq(said_in_log(&stuck.ours, "exports-left"), 1);
    expect_eq(said_in_log(&stuck.ours, "not clean"), 1);
    /* The next life is none the worse for it. */
    stuck_far_side(&stuck, SIGCONT);
    cr_assert(daemon_restart(&stuck.ours.world.daemon), "%s",
            stuck.ours.world.daemon.why);
    serving_wait(&stuck.ours, stuck.lun);
    stuck_close(&stuck);
}

/* -- the barrier -------------------------------------------------------------------------------- */

static void far_side_make(struct house *house, struct hostile *hostile,
        const char *const rules[], const char *name, char id[WORLD_ID])
{
    json_t *made;

    hostile_start(hostile, rules);
    made = world_call(&house->world, 201, "POST", "/elements",
            "{\"Type\":\"StorageVolume\",\"ElementName\":\"%s\",\"Address\":"
            "\"iscsi://127.0.0.1:%u/iqn.2026-11.example:%s/0\"}",
            name, hostile->port, name);
    snprintf(id, WORLD_ID, "%s", text_of(made, "Id"));
    json_decref(made);
}

/** An element whose far side refuses the reset that is the barrier. */
static void resetless_make(struct house *house, struct hostile *hostile,
        const char *name, char id[WORLD_ID])
{
    static const char *const rules[] = { "tmf:response=5", NULL };

    far_side_make(house, hostile, rules, name, id);
}

/** How the job of the first copy onto it has ended. The caller's. */
static json_t *copied_onto(struct house *house, const char *source, const char *id)
{
    char path[WORLD_PATH];
    json_t *answer, *job;

    snprintf(path, sizeof(path), "/replicas/%s/attach", id);
    answer = world_call(&house->world, 202, "POST", path,
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    job = job_end(&house->world, text_of(answer, "Job"), 120);
    json_decref(answer);
    return job;
}

Test(exports_stuck, who_writes_after_hosts_opens_with_a_barrier)
{
    char exported[WORLD_ID], untouched[WORLD_ID], source[WORLD_ID], path[WORLD_PATH];
    struct hostile one, two;
    struct house house;
    json_t *job;

    house_open(&house, NULL);
    volume_make(&house, MIB / 4, source); /* no more than that far side takes at once */
    resetless_make(&house, &one, "one", untouched);
    job = copied_onto(&house, source, untouched);
    cr_assert(strcmp(text_of(job, "JobStateName"), "Completed") == 0, "%s",
            text_of(job, "ErrorDescription"));
    json_decref(job);
    snprintf(path, sizeof(path), "/elements/%s", untouched); /* they look alike */
    json_decref(world_call(&house.world, 200, "DELETE", path, NULL));
    resetless_make(&house, &two, "two", exported);
    export_put(&house, 201, exported, ALL); /* the first: there is nothing to fence */
    house_kill(&house);
    log_wait(&house, "logical unit reset"); /* it is not trusted without one */
    snprintf(path, sizeof(path), "/elements/%s/export", exported);
    json_decref(world_call(&house.world, 204, "DELETE", path, NULL));
    job = copied_onto(&house, source, exported);
    expect_str(text_of(job, "JobStateName"), "Exception");
    cr_assert(strstr(text_of(job, "ErrorDescription"), "logical unit reset"), "%s",
            text_of(job, "ErrorDescription"));
    json_decref(job);
    house_close(&house);
    hostile_stop(&one);
    hostile_stop(&two);
}

/* A copy onto @id whose opening was fenced, which the far side refuses. */
static void copy_is_fenced(struct house *house, const char *source, const char *id)
{
    char path[WORLD_PATH];
    json_t *job = copied_onto(house, source, id);

    expect_str(text_of(job, "JobStateName"), "Exception");
    cr_assert(strstr(text_of(job, "ErrorDescription"), "logical unit reset"), "%s",
            text_of(job, "ErrorDescription"));
    json_decref(job);
    snprintf(path, sizeof(path), "/replicas/%s", id);
    json_decref(world_call(&house->world, 200, "DELETE", path, NULL));
}

static void copy_completes(struct house *house, const char *source, const char *id)
{
    json_t *job = copied_onto(house, source, id);

    cr_assert(strcmp(text_of(job, "JobStateName"), "Completed") == 0, "%s",
            text_of(job, "ErrorDescription"));
    json_decref(job);
}

/* The first write is never answered, so it may be carried out at any time: after the job and
   the pair are gone, too, and whoever was asked to copy there next. */
Test(exports_stuck, who_writes_after_a_copy_that_was_cut_opens_with_a_barrier)
{
    static const char *const options[] = { "--io-timeout", "5", NULL };
    static const char *const rules[] = { "8a:mute*1", "tmf:response=5*3", "tmf:good*1",
        "tmf:response=5", NULL };
    char target[WORLD_ID], source[WORLD_ID];
    struct hostile far_side;
    struct house house;

    house_open(&house, options);
    volume_make(&house, MIB / 4, source);
    far_side_make(&house, &far_side, rules, "cut", target);
    copy_is_fenced(&house, source, target); /* on its way back */
    copy_is_fenced(&house, source, target);
    house_kill(&house);
    copy_is_fenced(&house, source, target);
    copy_completes(&house, source, target); /* it was reset */
    copy_completes(&house, source, target); /* there is nothing left to fence */
    house_close(&house);
    hostile_stop(&far_side);
}

/* -- kill -9 after each answer ------------------------------------------------------------------ */

/** Is the export, after a kill, as the last answer said? */
static void outlives(struct stuck *stuck, bool read_only)
{
    json_t *export;

    house_kill(&stuck->ours);
    export = export_get(&stuck->ours, stuck->lun);
    expect_eq(json_is_true(json_object_get(export, "ReadOnly")), read_only);
    json_decref(export);
}

Test(exports_stuck, what_was_answered_outlives_the_process)
{
    static const char *const options[] = { "--io-timeout", "100", NULL };
    struct stuck stuck;

    stuck_open(&stuck, options); /* 201 */
    outlives(&stuck, false);
    serving_wait(&stuck.ours, stuck.lun);
    export_put(
            &stuck.ours, 200, stuck.lun, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    outlives(&stuck, true);
    serving_wait(&stuck.ours, stuck.lun);
    export_put(&stuck.ours, 200, stuck.lun, ALL);
    outlives(&stuck, false);
    serving_wait(&stuck.ours, stuck.lun);
    write_stuck(&stuck);
    still_ending(&stuck, "DELETE", NULL);
    outlives(&stuck, false);
    call_in_use(&stuck.ours, "DELETE", stuck.element, NULL);
    json_decref(world_call(&stuck.ours.world, 204, "DELETE", stuck.export, NULL));
    house_kill(&stuck.ours);
    json_decref(world_call(&stuck.ours.world, 404, "GET", stuck.export, NULL));
    stuck_close(&stuck);
}

/* Openings at a target that misbehaves by plan: what is refused, and what is opened all the
 * same. */
#include <criterion/criterion.h>

#include "tests/replica/block/hostile_scene.h"

/** The error of an opening under @rules; @words (may be NULL) must be part of its fault. */
static int refused_under(const char *const arguments[], bool barrier, const char *words)
{
    struct scene scene;
    struct device_opening opening;

    scene_start(&scene, arguments);
    scene.spec.barrier = barrier;
    if (words && strcmp(words, "in time") == 0)
        scene.spec.connect_timeout_ms = scene.spec.io_timeout_ms = 400;
    scene.device = device_open(scene.loop, &scene.spec, &opening);
    cr_assert(!scene.device && opening.fault.why[0]);
    fprintf(stderr, "refused: %d, %s\n", opening.fault.error, opening.fault.why);
    cr_assert(!words || strstr(opening.fault.why, words), "%s", opening.fault.why);
    scene_end(&scene);
    return opening.fault.error;
}

Test(hostile, logins_that_fail)
{
    static const struct {
        const char *rule;
        int error;
        const char *words;
    } rows[] = {
        { "login:redirect", -EIO, "redirects" },
        { "login:status=0101", -EIO, "redirects" },
        { "login:close", -ECONNABORTED, NULL },
        { "login:mute", -ETIMEDOUT, "in time" },
        { "login:status=0201", -EACCES, "authentication failed" },
        { "login:status=0202", -EACCES, "not authorised" },
        { "login:status=0203", -ENODEV, "no such target" },
        { "login:status=0204", -ENODEV, "no such target" },
        { "login:status=0301", -ECONNABORTED, "0301" },
        { "login:status=0302", -ECONNABORTED, "0302" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_eq(refused_under(RULES(rows[i].rule), false, rows[i].words),
                rows[i].error, "%s", rows[i].rule);
}

Test(hostile, luns_that_do_not_open)
{
    static const struct {
        const char *rules[2];
        int error;
        const char *words;
    } rows[] = {
        { { "00:mute" }, -ETIMEDOUT, "in time" },
        { { "00:status=08" }, -ETIMEDOUT, "in time" },
        { { "00:sense=2/4/1" }, -ETIMEDOUT, "in time" },
        { { "00:sense=6/29/0" }, -EIO, "UNIT ATTENTION" },
        { { "00:sense=2/3a/0" }, -EIO, "NOT READY" },
        { { "00:close" }, -EIO, "ended the session" },
        { { "00:sense=5/25/0" }, -ENXIO, "no such logical unit" },
        { { "00:sensebytes=1" }, -EIO, "sense" },
        { { "12:vanish*1" }, -ENXIO, "no such logical unit" },
        { { "9e10:sense=5/20/0" }, -EIO, "READ CAPACITY" },
        { { "--block-size", "520" }, -EINVAL, "520" },
        { { "--block-size", "256" }, -EINVAL, "256" },
        { { "--block-size", "8192" }, -EINVAL, "8192" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_eq(refused_under((const char *const[]){ rows[i].rules[0],
                                           rows[i].rules[1], NULL },
                             false, rows[i].words),
                rows[i].error, "%s", rows[i].rules[0]);
}

Test(hostile, the_barrier_is_waited_for)
{
    cr_assert_eq(refused_under(RULES("tmf:mute"), true, "in time"), -ETIMEDOUT);
    cr_assert_eq(refused_under(RULES("tmf:response=5"), true, "reset"), -EIO);
    cr_assert_eq(refused_under(RULES("tmf:response=ff"), true, "reset"), -EIO);
}

Test(hostile, a_reader_never_resets)
{
    struct scene scene;

    scene_start(&scene, RULES("tmf:mute"));
    scene.spec.writable = false;
    scene.spec.barrier = true;
    scene_open(&scene);
    cr_assert_eq(device_read(scene.device, 0, scene.bytes, LENGTH), 0);
    scene_end(&scene);
}

Test(hostile, attentions_at_the_login_are_eaten)
{
    struct scene scene;

    scene_start(&scene,
            RULES("00:sense=6/29/0*4", "12:sense=6/2a/1*2", "00:status=08*2",
                    "9e10:sense=2/4/1*2"));
    scene_open(&scene);
    scene_end(&scene);
}

/* The last question of an opening may be answered at length, and tells nothing new. */
Test(hostile, what_is_offered_room_may_use_it)
{
    static const char *const rules[][2] = {
        { "room:long" },
        { "room:sense=6/29/0*4" },
        { "room:sense=6/29/0" },
        { "room:sense=5/24/0" },
        { "room:status=08" },
        { "room:status=18" },
    };

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        struct scene scene;
        scene_start(&scene, rules[i]);
        scene_open(&scene);
        cr_assert_eq(device_read(scene.device, 0, scene.bytes, LENGTH), 0, "%s",
                rules[i][0]);
        scene_end(&scene);
    }
}

static void opens_under(
        const char *const arguments[], bool barrier, unsigned io_timeout_ms)
{
    struct scene scene;

    scene_start(&scene, arguments);
    scene.spec.barrier = barrier;
    scene.spec.io_timeout_ms = io_timeout_ms;
    scene_open(&scene);
    memset(scene.bytes, 0x5a, LENGTH);
    cr_assert_eq(device_write(scene.device, 0, scene.bytes, LENGTH), 0);
    cr_assert_eq(device_read(scene.device, 0, scene.bytes, LENGTH), 0);
    cr_assert_eq(scene.bytes[LENGTH - 1], 0x5a);
    scene_end(&scene);
}

/* A LUN opens all the same whose target does not stand to be offered room. It is not offered
 * again: the opening takes two sessions, and the barrier's reset in each of them. */
Test(hostile, what_ends_at_room_is_opened_without_it)
{
    static const char *const rules[] = { "room:close", "room:longer" };

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        for (int barrier = 0; barrier < 2; barrier++)
            opens_under(RULES(rules[i], "login:honest*2", "login:status=0301",
                                "tmf:honest*2", "tmf:response=5"),
                    barrier == 1, 60000);
    opens_under(RULES("room:mute"), true, SHORT_MS);
}

Test(hostile, the_second_session_may_fail_too)
{
    cr_assert_eq(refused_under(RULES("room:close", "login:honest*1", "login:mute"),
                         false, "in time"),
            -ETIMEDOUT);
    cr_assert_eq(refused_under(RULES("room:close", "login:honest*1", "login:close"),
                         false, NULL),
            -ECONNABORTED);
    cr_assert_eq(refused_under(RULES("room:close", "tmf:honest*1", "tmf:response=5"),
                         true, "reset"),
            -EIO);
    cr_assert_eq(refused_under(RULES("room:close", "00:honest*1", "00:close"), false,
                         "ended the session"),
            -EIO);
}

static bool turn_until(struct scene *scene, struct device_opening *opening, void *first)
{
    struct drive_deadline deadline = { .timer.fire = drive_expire };

    loop_timer_start(scene->loop, &deadline.timer, DRIVE_DEADLINE_MS);
    while (!opening->done && opening->opening.private == first && !deadline.passed)
        (void)loop_turn(scene->loop);
    loop_timer_stop(scene->loop, &deadline.timer);
    return !opening->done && opening->opening.private != first;
}

Test(hostile, an_opening_that_began_anew_can_be_given_up)
{
    struct scene scene;
    struct device_opening opening = { .opening.done = device_opened };

    scene_start(&scene, RULES("room:close", "00:honest*1", "00:mute"));
    block_open(scene.loop, &scene.spec, &opening.opening);
    cr_assert(turn_until(&scene, &opening, opening.opening.private));
    block_open_cancel(&opening.opening);
    cr_assert(drive_until(scene.loop, &opening.done));
    cr_assert(!opening.device && opening.fault.error == -ECANCELED);
    scene_end(&scene);
}

Test(hostile, a_reservation_of_another_is_told)
{
    struct scene scene;
    struct device_opening opening;

    scene_start(&scene, RULES("00:status=18"));
    scene.device = device_open(scene.loop, &scene.spec, &opening);
    cr_assert(scene.device && opening.identity.foreign_reservation);
    scene_end(&scene);
    scene_start(&scene, RULES("5e:status=18"));
    scene.device = device_open(scene.loop, &scene.spec, &opening);
    cr_assert(scene.device && opening.identity.foreign_reservation);
    cr_assert(strncmp(opening.identity.world, "naa.6007", 8) == 0);
    scene_end(&scene);
}

Test(hostile, luns_beyond_255_are_addressed_flat)
{
    struct scene scene;

    scene_start(&scene, RULES("--lun", "300"));
    scene.spec.lun = 300;
    scene_open(&scene);
    scene_end(&scene);
    scene_start(&scene, RULES("--lun", "16383"));
    scene.spec.lun = 16383;
    scene.spec.barrier = true;
    scene_open(&scene);
    scene_end(&scene);
}

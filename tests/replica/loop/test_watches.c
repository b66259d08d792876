/* Descriptors that the real loop watches. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/replica/loop/loop_rig.h"
#include "tests/support/drive.h"

/* -- descriptors ---------------------------------------------------------------------- */

struct ear {
    struct loop_watch watch;
    struct loop *loop;
    unsigned events, calls;
    bool heard;
};

static void ear_ready(struct loop_watch *watch, unsigned events)
{
    struct ear *ear = container_of(watch, struct ear, watch);
    ear->events = events;
    ear->calls++;
    ear->heard = true;
}

Test(loop, a_watch_is_level_triggered_and_its_events_can_change)
{
    struct loop *loop = make(UV);
    struct ear ear = { .watch.ready = ear_ready, .loop = loop };
    bool never = false;
    int pair[2];

    expect_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    expect_eq(loop_watch_set(loop, &ear.watch, pair[0], LOOP_READABLE), 0);
    drive_until_ms(loop, &never, 5);
    expect(!(ear.heard));
    expect_eq(write(pair[1], "x", 1), 1);
    expect(drive_until(loop, &ear.heard));
    expect_eq(ear.events, LOOP_READABLE);
    ear.heard = false; /* nobody read: it is told again */
    expect(drive_until(loop, &ear.heard));

    expect_eq(loop_watch_set(loop, &ear.watch, pair[0], LOOP_WRITABLE), 0);
    ear.heard = false;
    expect(drive_until(loop, &ear.heard));
    expect_eq(ear.events, LOOP_WRITABLE);

    loop_watch_stop(loop, &ear.watch);
    loop_watch_stop(loop, &ear.watch);
    ear.heard = false;
    drive_until_ms(loop, &never, 5);
    expect(!(ear.heard));
    close(pair[0]);
    close(pair[1]);
    loop_destroy(loop);
}

Test(loop, a_watch_follows_its_descriptor_number_to_another_socket)
{
    struct loop *loop = make(UV);
    struct ear ear = { .watch.ready = ear_ready, .loop = loop };
    int first[2], second[2];

    expect_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, first), 0);
    expect_eq(loop_watch_set(loop, &ear.watch, first[0], LOOP_READABLE), 0);
    loop_watch_stop(loop, &ear.watch);
    close(first[0]);
    close(first[1]);
    expect_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, second), 0);
    expect_eq(second[0], first[0]); /* the number came back */
    expect_eq(loop_watch_set(loop, &ear.watch, second[0], LOOP_READABLE), 0);
    expect_eq(write(second[1], "x", 1), 1);
    expect(drive_until(loop, &ear.heard));
    loop_watch_stop(loop, &ear.watch);
    close(second[0]);
    close(second[1]);
    loop_destroy(loop);
}

Test(loop, a_watch_set_to_another_descriptor_leaves_the_first)
{
    struct loop *loop = make(UV);
    struct ear ear = { .watch.ready = ear_ready, .loop = loop };
    bool never = false;
    int first[2], second[2];

    expect_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, first), 0);
    expect_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, second), 0);
    expect_eq(loop_watch_set(loop, &ear.watch, first[0], LOOP_READABLE), 0);
    expect_eq(loop_watch_set(loop, &ear.watch, second[0], LOOP_READABLE), 0);
    expect_eq(write(first[1], "x", 1), 1);
    drive_until_ms(loop, &never, 5);
    expect(!ear.heard);
    expect_eq(write(second[1], "x", 1), 1);
    expect(drive_until(loop, &ear.heard));
    loop_watch_stop(loop, &ear.watch);
    for (unsigned i = 0; i < 2; i++) {
        close(first[i]);
        close(second[i]);
    }
    loop_destroy(loop);
}

Test(loop, an_error_is_told_as_both_and_again)
{
    struct loop *loop = make(UV);
    struct ear ear = { .watch.ready = ear_ready, .loop = loop };
    int pipes[2];

    expect_eq(pipe(pipes), 0);
    expect_eq(loop_watch_set(loop, &ear.watch, pipes[1], LOOP_WRITABLE), 0);
    expect(drive_until(loop, &ear.heard));
    close(pipes[0]); /* the writing end now polls as an error */
    do {
        ear.heard = false;
        expect(drive_until(loop, &ear.heard));
    } while (ear.events != (LOOP_READABLE | LOOP_WRITABLE));
    ear.heard = false;
    expect(drive_until(loop, &ear.heard));
    loop_watch_stop(loop, &ear.watch);
    close(pipes[1]);
    loop_destroy(loop);
}

Test(loop, what_cannot_be_watched_is_an_error)
{
    struct loop *uv = make(UV), *sim = make(SIM);
    struct ear ear = { .watch.ready = ear_ready };
    FILE *file = tmpfile();

    expect(loop_watch_set(uv, &ear.watch, fileno(file), LOOP_READABLE) < 0);
    expect(!ear.watch.handle);
    expect_eq(loop_watch_set(sim, &ear.watch, 0, LOOP_READABLE), -ENOSYS);
    fclose(file);
    loop_destroy(uv);
    loop_destroy(sim);
}

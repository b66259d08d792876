/* Bytes that are there when an answer has left are read without being told of, and a peer that
 * is never that fast is soon left alone. Seen in the system calls of the loop: they are ours
 * here, and send() returns when its peer has gone on. */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/server/iscsi/target_rig.h"
#include "tests/support/expect.h"

enum { PEER_MS = 30000, KERNEL_SIGNALS = 8 }; /* ms; bytes of a set */

static atomic_bool peer_is_fast;
static atomic_uint sent, in_vain, polls;

static ssize_t sent_and_awaited(int fd, ssize_t result)
{
    struct pollfd next = { .fd = fd, .events = POLLIN };

    if (result > 0 && atomic_load(&peer_is_fast)) {
        atomic_fetch_add(&sent, 1);
        (void)poll(&next, 1, PEER_MS); /* what it asks next, or its end */
    }
    return result;
}

__attribute__((visibility("default"))) ssize_t send(
        int fd, const void *bytes, size_t length, int flags)
{
    return sent_and_awaited(fd, syscall(SYS_sendto, fd, bytes, length, flags, NULL, 0));
}

__attribute__((visibility("default"))) ssize_t sendmsg(
        int fd, const struct msghdr *message, int flags)
{
    return sent_and_awaited(fd, syscall(SYS_sendmsg, fd, message, flags));
}

__attribute__((visibility("default"))) ssize_t recv(
        int fd, void *bytes, size_t length, int flags)
{
    ssize_t got = syscall(SYS_recvfrom, fd, bytes, length, flags, NULL, NULL);

    if (got < 0 && errno == EAGAIN)
        atomic_fetch_add(&in_vain, 1);
    return got;
}

__attribute__((visibility("default"))) int epoll_pwait(
        int fd, struct epoll_event *events, int room, int ms, const sigset_t *mask)
{
    atomic_fetch_add(&polls, 1);
    return (int)syscall(SYS_epoll_pwait, fd, events, room, ms, mask, KERNEL_SIGNALS);
}

__attribute__((visibility("default"))) int epoll_wait(
        int fd, struct epoll_event *events, int room, int ms)
{
    return epoll_pwait(fd, events, room, ms, NULL);
}

Test(iscsi_read_on, what_is_there_already_is_read_at_once)
{
    atomic_store(&peer_is_fast, true);
    rig_play("scenarios", "one_at_a_time", NULL);
    expect(atomic_load(&sent) >= 300);
    expect(atomic_load(&polls) < atomic_load(&sent) / 2);
}

Test(iscsi_read_on, who_is_never_that_fast_is_left_alone)
{
    rig_play("scenarios", "one_in_a_while", NULL);
    expect(atomic_load(&in_vain) > 0);
    expect(atomic_load(&in_vain) <
            30); /* of 300: less often each time, never given up */
}

/* Every wait of the target's, made to happen often: a kernel that takes and gives a few bytes at
 * a time, ends in the middle of a PDU or right behind it, or says EAGAIN though it need not; a
 * pool that holds fewer buffers than there are sessions; more commands than the window holds.
 * Whatever comes in between, each command is answered, with the bytes that were written. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "tests/server/iscsi/strict_client.h"
#include "tests/server/iscsi/target_rig.h"
#include "tests/support/seed.h"

enum { CLIENTS = 8, RUN_MS = 800, LATE_MS = 60 * 1000 };

/* -- the kernel as the target meets it ----------------------------------------------------- */

static atomic_bool mean; /* as long as clients work */
static uint64_t kernel_seed;
static atomic_uint loops;

/* Of this thread's own: the same calls in the same order have the same luck. */
static uint64_t chance(uint64_t below)
{
    static _Thread_local uint64_t state;

    if (!state)
        state = kernel_seed + atomic_fetch_add(&loops, 1) * 0x9e3779b9u;
    return seed_below(&state, below);
}

/* How many of @length bytes go through; 0: EAGAIN. One in eight ends where a PDU without data
   would. */
static size_t luck(size_t length)
{
    if (!atomic_load(&mean) || length == 0)
        return length;
    switch (chance(8)) {
    case 0:
        return 0;
    case 1:
        return length < 48 ? length : 48;
    case 2:
        return 1 + chance(length);
    case 3:
        return 1 + chance(length < 64 ? length : 64);
    default:
        return length;
    }
}

static ssize_t not_now(void)
{
    errno = EAGAIN;
    return -1;
}

/* @iov cut to @length bytes. */
static int cut(const struct iovec *iov, int count, size_t length, struct iovec *few)
{
    int kept = 0;

    for (int i = 0; i < count && length > 0; i++) {
        few[kept] = iov[i];
        if (few[kept].iov_len > length)
            few[kept].iov_len = length;
        length -= few[kept++].iov_len;
    }
    return kept;
}

static size_t whole(const struct iovec *iov, int count)
{
    size_t length = 0;

    for (int i = 0; i < count; i++)
        length += iov[i].iov_len;
    return length;
}

ssize_t __real_send(int fd, const void *bytes, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags)
{
    size_t some = luck(length);

    return some ? __real_send(fd, bytes, some, flags) : not_now();
}

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec few[1024];
    struct msghdr less = *message;
    size_t some = luck(whole(message->msg_iov, (int)message->msg_iovlen));

    if (some == 0)
        return not_now();
    less.msg_iovlen =
            (size_t)cut(message->msg_iov, (int)message->msg_iovlen, some, few);
    less.msg_iov = few;
    return __real_sendmsg(fd, &less, flags);
}

ssize_t __real_recv(int fd, void *bytes, size_t length, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t length, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t length, int flags)
{
    size_t some = luck(length);

    return some ? __real_recv(fd, bytes, some, flags) : not_now();
}

ssize_t __real_readv(int fd, const struct iovec *iov, int count);
ssize_t __wrap_readv(int fd, const struct iovec *iov, int count);
ssize_t __wrap_readv(int fd, const struct iovec *iov, int count)
{
    struct iovec few[8];
    size_t some = luck(whole(iov, count));

    return some ? __real_readv(fd, few, cut(iov, count, some, few)) : not_now();
}

/* -- clients --------------------------------------------------------------------------------- */

static struct rig *rig;
static uint64_t seed;
static atomic_uint failures;
static atomic_ullong answered;

static void late(void *context)
{
    fprintf(stderr, "waits: client %u is owed an answer\n", *(unsigned *)context);
    rig_tell(rig);
}

static void *client_run(void *which)
{
    static const unsigned depths[] = { 40, 8, 32, 1 };
    unsigned number = *(unsigned *)which, export = number % 2;
    char name[SCSI_NAME_MAX];
    struct strict_client client = {
        .port = rig->port,
        .target = name,
        .user = export == 1 ? "alice" : NULL,
        .secret = export == 1 ? "alice-has-a-secret" : NULL,
        .number = number,
        .first = number / 2 * (RIG_BYTES / (CLIENTS / 2)),
        .bytes = RIG_BYTES / (CLIENTS / 2),
        .depth = depths[number / 2 % 4],
        .run_ms = RUN_MS,
        .late_ms = LATE_MS,
        .seed = seed + number,
    };
    enum strict_end end = STRICT_KEPT_OUT;

    rig_name(export, name);
    for (unsigned i = 0; i < 100 && end == STRICT_KEPT_OUT;
            i++) /* four at a time log in */
        end = strict_run(&client, late, which);
    atomic_fetch_add(&answered, client.answered);
    if (end != STRICT_DONE) {
        fprintf(stderr,
                "waits: client %u of depth %u ended with %d, %u commands owed\n",
                number, client.depth, (int)end, client.owed);
        atomic_fetch_add(&failures, 1);
    }
    return NULL;
}

static void clients_work(void)
{
    unsigned which[CLIENTS];
    pthread_t threads[CLIENTS];

    atomic_store(&mean, true);
    for (unsigned i = 0; i < CLIENTS; i++) {
        which[i] = i;
        if (pthread_create(&threads[i], NULL, client_run, &which[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&mean, false);
}

int main(void)
{
    /* Of the first, two chunks a loop, for four sessions each; all are cut into small pieces. */
    static const size_t pools[] = { 1u << 20, 4u << 20, 64u << 20 };

    seed = kernel_seed = seed_take("stress_waits");
    for (unsigned i = 0; i < sizeof pools / sizeof pools[0]; i++) {
        rig = rig_start(&(struct rig_options){
                .buffer_bytes = pools[i], .max_transfer = 64 << 10 });
        atomic_store(&answered, 0);
        clients_work();
        rig_stop(rig);
        fprintf(stderr, "waits: %llu commands were answered\n", atomic_load(&answered));
        if (atomic_load(&failures) || atomic_load(&answered) == 0)
            return 1;
        seed++;
    }
    return 0;
}

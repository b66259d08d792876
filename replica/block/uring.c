/* The only file that includes liburing.
 *
 * The ring is watched by the loop through its own descriptor, which is readable while
 * answers wait. It is made for one thread (SINGLE_ISSUER, kernel 6.0), which is not
 * interrupted where it runs but told when it next enters the kernel (COOP_TASKRUN,
 * 5.19); older kernels get what they know of that. DEFER_TASKRUN would save a lock, but
 * what waits for its thread then does not make the descriptor readable, and an eventfd
 * told of every answer costs more than the lock.
 *
 * What can be done at once (a read out of the page cache) is done by the submission
 * itself, and its answer is there when it returns. All else waits in the kernel, on its
 * threads where the file system cannot do it otherwise. Those are bounded a ring, so what
 * one device has under way must be bounded too: see file.c. */
#include "replica/block/uring.h"

#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"
#include "replica/loop/sim.h"

enum {
    ENTRIES = 256, /* calls that are gathered before they go down early */
    ANSWERS = 4096, /* that wait to be heard; the kernel keeps what is more */
    BATCH = 64, /* answers taken out before the first is told */
    WORKERS = 64, /* threads of the kernel a ring, for what has to block */
    RETRY_MS = 2
};

struct uring {
    struct loop_guest guest;
    struct loop *loop;
    struct io_uring ring;
    struct loop_watch watch;
    struct loop_task flush; /* at the end of a turn that has asked for something */
    struct loop_timer retry; /* the kernel had no memory for it */
};

static atomic_bool forbidden; /* this process has been refused */

/* -- what went down and what came back --------------------------------------------- */

static unsigned take(struct uring *uring, struct uring_call **calls, int *results)
{
    struct io_uring_cqe *cqes[BATCH];
    unsigned count = io_uring_peek_batch_cqe(&uring->ring, cqes, BATCH);

    for (unsigned i = 0; i < count; i++) {
        calls[i] = io_uring_cqe_get_data(cqes[i]);
        results[i] = cqes[i]->res;
    }
    io_uring_cq_advance(&uring->ring, count);
    return count;
}

/* Those who are told may ask for more, which waits for the next round. */
static void tell(struct uring *uring)
{
    struct uring_call *calls[BATCH];
    int results[BATCH];
    unsigned count, told = 0;

    do {
        count = take(uring, calls, results);
        for (unsigned i = 0; i < count; i++)
            calls[i]->done(calls[i], results[i]);
        told += count;
    } while (count == BATCH && told < ANSWERS);
}

static bool submit(struct uring *uring)
{
    int result;

    do
        result = io_uring_submit(&uring->ring);
    while (result == -EINTR);
    check(result != -EEXIST && result != -EBADF); /* another thread's, or closed */
    if (io_uring_sq_ready(&uring->ring) == 0)
        return true;
    if (!loop_timer_active(&uring->retry))
        loop_timer_start(uring->loop, &uring->retry, RETRY_MS);
    return false;
}

static void exchange(struct uring *uring)
{
    (void)submit(uring);
    tell(uring);
}

static void on_flush(struct loop_task *task)
{
    exchange(container_of(task, struct uring, flush));
}

static void on_retry(struct loop_timer *timer)
{
    exchange(container_of(timer, struct uring, retry));
}

static void on_ready(struct loop_watch *watch, unsigned events)
{
    (void)events;
    exchange(container_of(watch, struct uring, watch));
}

/* -- asking ------------------------------------------------------------------------ */

static struct io_uring_sqe *ask(struct uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

    if (!sqe) {
        (void)submit(uring);
        sqe = io_uring_get_sqe(&uring->ring);
    }
    if (sqe && !uring->flush.queued)
        loop_defer(uring->loop, &uring->flush);
    return sqe;
}

bool uring_transfer(struct uring *uring, struct uring_call *call,
        const struct uring_transfer *transfer)
{
    struct io_uring_sqe *sqe = ask(uring);
    const struct iovec *iov = transfer->iov;
    unsigned count = (unsigned)transfer->iovcnt;
    bool one = count == 1;

    if (!sqe)
        return false;
    if (transfer->write && one)
        io_uring_prep_write(sqe, transfer->fd, iov->iov_base, (unsigned)iov->iov_len,
                transfer->offset);
    else if (transfer->write)
        io_uring_prep_writev(sqe, transfer->fd, iov, count, transfer->offset);
    else if (one)
        io_uring_prep_read(sqe, transfer->fd, iov->iov_base, (unsigned)iov->iov_len,
                transfer->offset);
    else
        io_uring_prep_readv(sqe, transfer->fd, iov, count, transfer->offset);
    if (transfer->stable)
        sqe->rw_flags = RWF_DSYNC;
    if (transfer->apart)
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    io_uring_sqe_set_data(sqe, call);
    return true;
}

bool uring_sync(struct uring *uring, struct uring_call *call, int fd)
{
    struct io_uring_sqe *sqe = ask(uring);

    if (!sqe)
        return false;
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data(sqe, call);
    return true;
}

bool uring_allocate(struct uring *uring, struct uring_call *call, int fd, int mode,
        uint64_t offset, uint64_t length)
{
    struct io_uring_sqe *sqe = ask(uring);

    if (!sqe)
        return false;
    io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset, (off_t)length);
    io_uring_sqe_set_data(sqe, call);
    return true;
}

/* -- life -------------------------------------------------------------------------- */

static void uring_leave(struct loop_guest *guest)
{
    struct uring *uring = container_of(guest, struct uring, guest);

    loop_watch_stop(uring->loop, &uring->watch);
    loop_timer_stop(uring->loop, &uring->retry);
    check(!uring->flush.queued);
    io_uring_queue_exit(&uring->ring);
    free(uring);
}

/* The best set of flags that this kernel knows. */
static int ring_open(struct io_uring *ring)
{
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
        IORING_SETUP_COOP_TASKRUN,
        0,
    };
    int result = -EINVAL;

    for (unsigned i = 0; i < sizeof flags / sizeof *flags && result == -EINVAL; i++) {
        struct io_uring_params params = { .flags = flags[i] | IORING_SETUP_CQSIZE,
            .cq_entries = ANSWERS };
        result = io_uring_queue_init_params(ENTRIES, ring, &params);
    }
    return result;
}

static bool ring_can(struct io_uring *ring)
{
    static const int needed[] = { IORING_OP_READ, IORING_OP_READV, IORING_OP_WRITE,
        IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE };
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool can = probe && (ring->features & IORING_FEAT_NODROP);

    for (unsigned i = 0; can && i < sizeof needed / sizeof *needed; i++)
        can = io_uring_opcode_supported(probe, needed[i]);
    io_uring_free_probe(probe);
    return can;
}

/* Refused once is refused for good, but what is short may be there another time. */
static void refuse(int error)
{
    static atomic_bool told;

    if (error != -EMFILE && error != -ENFILE && error != -ENOMEM)
        atomic_store(&forbidden, true);
    if (!atomic_exchange(&told, true))
        log_plain(LOG_INFO, "no-io-uring",
                "io_uring is not to be had (%s): files are called from threads",
                strerrordesc_np(-error));
}

static int uring_start(struct uring *uring)
{
    unsigned workers[2] = { WORKERS, WORKERS };
    int result = ring_open(&uring->ring);

    if (result < 0)
        return result;
    result = ring_can(&uring->ring) ? 0 : -ENOSYS;
    if (result == 0)
        result = loop_watch_set(
                uring->loop, &uring->watch, uring->ring.ring_fd, LOOP_READABLE);
    if (result < 0) {
        io_uring_queue_exit(&uring->ring);
        return result;
    }
    (void)io_uring_register_iowq_max_workers(&uring->ring, workers);
    (void)io_uring_register_ring_fd(&uring->ring); /* cheaper calls, where known */
    return 0;
}

struct uring *uring_of(struct loop *loop)
{
    struct loop_guest *guest = loop_guest_find(loop, uring_leave);
    struct uring *uring;
    int result;

    if (guest)
        return container_of(guest, struct uring, guest);
    if (atomic_load(&forbidden) || loop_is_simulated(loop))
        return NULL;
    uring = calloc(1, sizeof *uring);
    if (!uring)
        return NULL;
    uring->loop = loop;
    uring->guest.leave = uring_leave;
    uring->watch.ready = on_ready;
    uring->flush.run = on_flush;
    uring->retry.fire = on_retry;
    result = uring_start(uring);
    if (result < 0) {
        refuse(result);
        free(uring);
        return NULL;
    }
    loop_guest_add(loop, &uring->guest);
    return uring;
}

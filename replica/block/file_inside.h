/* replica/block/file_inside.h - what the parts of the file driver share: file.c (life),
 * file_submit.c (queues and ways), file_ring.c (calls by io_uring), file_calls.c (calls
 * that block). Private to these. */
#ifndef REPLICA_BLOCK_FILE_INSIDE_H
#define REPLICA_BLOCK_FILE_INSIDE_H

#include <sys/types.h>

#include "replica/block/device.h"
#include "replica/block/uring.h"

enum {
    POOL_LANES = 4, /* calls of one device in the pool (design: at most 4) */
    RING_LANES = 32, /* calls of one device in the kernel's hands */
    LANE_WINDOW = 8 /* entries for what a short call has left */
};

struct file_queue {
    struct block_request *first, **end;
};

/** One request against the kernel. */
struct file_call {
    struct file_device *device;
    struct block_request *request; /* for a flush: the first of those it serves */
    uint64_t done; /* bytes transferred */
    bool stabilises; /* holds the one right to sync */
    bool measured; /* the size has been looked at */
    bool lost; /* making bytes stable failed */
    int error; /* of the call that failed, 0 or negative */
    const char *what; /* failed: its name */
};

/** A call under way, in a thread of the pool or in the kernel. */
struct file_lane {
    struct file_call call;
    struct loop_work work;
    struct uring_call answer;
    struct iovec window[LANE_WINDOW];
    bool other_way; /* the second of two modes of fallocate */
    bool pooled; /* it is in the pool */
    struct file_lane *next;
};

struct file_device {
    struct block_device base;
    int fd;
    bool thick; /* all of it is allocated: zeros keep it so */
    dev_t file_system;
    bool in_memory; /* its calls never wait for a disk: tmpfs, ramfs */
    bool read_nowait, write_nowait; /* they can be asked not to wait for a disk */
    struct uring *ring; /* NULL: the pool */
    struct instant measured; /* the turn in which its size was last looked at */

    struct file_queue syncing; /* flushes, and what is stable when it is done */
    struct file_queue ringed, pooled;
    bool sync_running;
    int lost_error; /* negative, once it broke: of the call that lost bytes */
    unsigned pool_running, ring_running; /* lanes */
    struct file_lane lanes[POOL_LANES + RING_LANES], *free_lanes;

    struct loop_work closing;
    void (*closed)(void *context);
    void *context;
};

/* -- file_calls.c: any thread ------------------------------------------------------ */

/** Runs what is left of the call. Blocks. */
void file_call_run(struct file_call *call);

/** A read or write that does not wait for a disk: true when all of it is done, false when
    it has yet to be. */
bool file_call_now(struct file_call *call);

/** Sets error and what; returns @error. */
int file_call_fail(struct file_call *call, const char *what, int error);

/** True, and the call failed, when the file has become shorter than the device. */
bool file_call_shrank(struct file_call *call);

/** Fills @window, of @room entries, with what is left of the transfer; returns their
    number. */
int file_call_window(const struct file_call *call, struct iovec *window, int room);

/** The mode of fallocate for this request, or the @other one, for a file system that does
    not know the first. */
int file_call_mode(const struct file_call *call, bool other);

/* -- file_submit.c: the loop's thread ---------------------------------------------- */

void file_submit(struct block_device *base, struct block_request *request);

/** As file_call_shrank(), at most once a turn. */
bool file_shrank(struct file_call *call);

/** Makes queues and lanes ready. */
void file_lanes_init(struct file_device *file);

/** The lane's call is over: hears the answer, and starts what waits. From a callback. */
void file_lane_finish(struct file_lane *lane);

/** From the ring: runs what is left of the lane's call in the pool. */
void file_lane_pool(struct file_lane *lane);

/* -- file_ring.c: the loop's thread ------------------------------------------------ */

/** Starts the lane's call on the ring. */
void file_ring_start(struct file_lane *lane);

/** For uring_call.done of every lane. */
void file_ring_answer(struct uring_call *answer, int result);

#endif

/* server/http/guests.h - the open connections, and the reaper that cuts the slow ones.
 *
 * libmicrohttpd knows inactivity only: a byte an interval keeps a request open for ever. So
 * each connection has a due time of its own, and a thread shuts its socket down when it has
 * come. One lock covers list and shutdown(); the close notification takes it too, before the
 * descriptor is closed, so a number that the kernel gave away again is never hit. A due time
 * is moved several times a request, by the connection's own thread and without the lock.
 */
#ifndef SERVER_HTTP_GUESTS_H
#define SERVER_HTTP_GUESTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "replica/base/clock.h"
#include "server/http/endpoint.h"

struct guests;

struct guest {
    LIST_ENTRY(guest) entry; /* guests.lock */
    struct guests *guests; /* constant */
    _Atomic uint64_t
            due; /* monotonic nanoseconds; 0: none. The connection's thread sets
                             it, the reaper takes it away */
    int fd; /* constant; closed by the library after guest_leave() */
    bool counted; /* constant: one of the API's connections */
    bool surplus; /* constant: came over the limit, gets 503 */
    char caller[ENDPOINT_TEXT]; /* constant once it is served: the far host */
};

struct guests {
    pthread_mutex_t lock;
    pthread_cond_t turn;
    pthread_t reaper;
    LIST_HEAD(, guest) open; /* lock */
    _Atomic uint64_t wake; /* when the reaper looks next, monotonic nanoseconds; the
                              largest number: it is looking, tell it of what comes */
    unsigned counted; /* lock */
    unsigned limit; /* constant: counted ones above it are surplus */
    uint64_t cut; /* lock: how many were shut down */
    bool stop; /* lock */
};

/** Start the reaper. 0 or a negative errno. */
int guests_start(struct guests *guests, unsigned limit);
/** Join the reaper; every guest must have left. */
void guests_stop(struct guests *guests);

/** A connection is there. NULL: out of memory. Ended by guest_leave(). */
struct guest *guest_enter(struct guests *guests, int fd, bool counted, unsigned due_ms);
void guest_leave(struct guest *guest);

/** From now on @ms to go. */
void guest_arm(struct guest *guest, unsigned ms);
/** As guest_arm(), but an earlier due time stays. */
void guest_hasten(struct guest *guest, unsigned ms);
void guest_disarm(struct guest *guest);

/** How many were cut since the start. */
uint64_t guests_cut(struct guests *guests);
/** How many of the API's connections are open. */
unsigned guests_counted(struct guests *guests);

#endif

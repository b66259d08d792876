/* server/iscsi/portal.h - listening sockets, and who comes in by them. */
#ifndef SERVER_ISCSI_PORTAL_H
#define SERVER_ISCSI_PORTAL_H

#include <sys/socket.h>

#include "replica/base/clock.h"
#include "replica/base/fault.h"
#include "replica/loop/loop.h"

struct iscsi_target;

struct portal {
    struct iscsi_target *target;
    int fd;
    struct sockaddr_storage address;
    struct loop_watch watch;
    struct loop_timer rest; /* active: nobody is let in */
    unsigned refused; /* in this turn */
    struct instant told; /* a refusal was logged last */
    unsigned untold; /* refusals since */
};

int portal_open(struct iscsi_target *target, const struct sockaddr_storage *address,
        struct fault *fault);
int portals_watch(struct iscsi_target *target); /* on the first loop */
void portals_unwatch(struct iscsi_target *target); /* on the first loop */
void portals_close(struct iscsi_target *target); /* unwatched */

#endif

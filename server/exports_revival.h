/* server/exports_revival.h - exports that should be served and are not are tried again.
 *
 * A few threads, because opening what is behind a dead portal takes its time to fail, and the
 * others are not to wait for it.
 */
#ifndef SERVER_EXPORTS_REVIVAL_H
#define SERVER_EXPORTS_REVIVAL_H

#include "api/api.h"

struct revival;

/** What else the threads see to. */
struct revival_ops {
    void *context;
    /** At each round. How many things are still to be looked after: the next round comes. */
    unsigned (*tidy)(void *context);
    /** It is being stopped: whoever is opened for it gives up. Again and again until all have. */
    void (*cancel)(void *context);
};

/** At work at once. Owned by the caller, revival_stop(). NULL: no memory or no thread. */
struct revival *revival_start(struct service *service, const struct revival_ops *ops);

/** Something may not be served any more that should be: look. Any thread. Never waits. */
void revival_ask(struct revival *revival);

/** Ends the threads, frees. Waits for @cancel to work. NULL is fine. */
void revival_stop(struct revival *revival);

#endif

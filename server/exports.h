/* server/exports.h - the api's exports, served by the iSCSI target: where the two meet.
 *
 * The api says what is to be served and keeps what must not be forgotten; the target serves and
 * knows neither rows nor JSON; the engine opens the elements. What cannot be served
 * yet (its far side is down) is tried again (exports_revival.h).
 */
#ifndef SERVER_EXPORTS_H
#define SERVER_EXPORTS_H

#include <stddef.h>

#include "api/api.h"

struct exports;

/**
 * Listen on @addresses ("ADDR:PORT"), be the service's exporter, serve what its rows say. Owned by
 * the caller, exports_stop(). NULL with @fault. Main's thread.
 */
struct exports *exports_start(struct service *service, const char *const *addresses,
        size_t count, const char *prefix, struct fault *fault);

/** Stop trying, let sessions go, close every element. The service is drained, and no call is
    under way. False: some element does not close; all that it may still use is there, so the
    service must not be destroyed. NULL is fine. */
bool exports_stop(struct exports *exports);

/** The address of portal @index as text; false: no more. */
bool exports_address(struct exports *exports, unsigned index, char *text, size_t room);

#endif

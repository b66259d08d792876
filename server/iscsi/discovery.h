/* server/iscsi/discovery.h - who only asks. On the first loop. */
#ifndef SERVER_ISCSI_DISCOVERY_H
#define SERVER_ISCSI_DISCOVERY_H

#include "replica/base/clock.h"

struct connection;

/** For one that is about to be a discovery session: another one may end for it. */
void discovery_make_room(const struct connection *newcomer);
void discovery_tick(struct connection *connection, struct instant now);

#endif

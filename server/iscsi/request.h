/* server/iscsi/request.h - PDUs as they come in full feature phase. On the connection's
 * loop. */
#ifndef SERVER_ISCSI_REQUEST_H
#define SERVER_ISCSI_REQUEST_H

#include <stdbool.h>

struct connection;

enum verdict { TAKE, LATER, DROP };

/** A header came: where does its data go? */
enum verdict session_header(struct connection *connection);
/** The whole PDU came. */
void session_payload(struct connection *connection, bool damaged);

#endif

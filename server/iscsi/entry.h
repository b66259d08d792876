/* server/iscsi/entry.h - the login of a connection. On the first loop. */
#ifndef SERVER_ISCSI_ENTRY_H
#define SERVER_ISCSI_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/clock.h"
#include "server/iscsi/login.h"

struct connection;

/* The part of a connection that ends with the login. */
struct entry {
    struct login *login;
    struct login_asker asker;
    struct login_result result;
    uint16_t tsih;
    uint64_t credentials; /* of the export, when its name was looked up */
    bool throttled; /* refused for what failed before */
    char why[80]; /* it is refused, for the log; "" when the status says it */
    struct instant began, pdu_began;
    uint8_t answer[PDU_HEADER + LOGIN_DATA_MAX + 4];
    size_t length, sent;
    unsigned next; /* enum login_next, after the answer */
    bool counted; /* among the logins of the target */
};

/** On the first loop. False: no memory; the caller closes. */
bool entry_start(struct connection *connection);
void entry_read(struct connection *connection); /* bytes came */
void entry_read_on(struct connection *connection); /* those that are there */
void entry_send(struct connection *connection); /* the rest of an answer */
void entry_accept(struct connection *connection); /* the last answer may go */
void entry_refuse(struct connection *connection, uint16_t status); /* it may not */
void entry_tick(struct connection *connection, struct instant now);
void entry_leave(
        struct connection *connection); /* no login of the first loop's any more */
void entry_finish(struct connection *connection); /* frees it; without one is fine */

#endif

/* server/iscsi/dataout.h - data-out, asked for or not. On the connection's loop. */
#ifndef SERVER_ISCSI_DATAOUT_H
#define SERVER_ISCSI_DATAOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/base/clock.h"
#include "server/iscsi/request.h"

struct connection;
struct task;

enum verdict dataout_header(struct connection *connection);
void dataout_payload(struct connection *connection, bool damaged);
/** The command's own data came. */
void dataout_first(struct task *task, uint32_t length, bool damaged);
/** A buffer for up to @size bytes of data from @offset on. LATER: the connection waits. */
enum verdict dataout_room(struct connection *connection, struct task *task,
        uint32_t offset, uint32_t size);
void dataout_want(struct task *task, uint32_t offset, uint32_t length);
void dataout_check(struct task *task); /* is what was wanted there? */
void dataout_forget(struct task *task);
/** Unsolicited data follows, or R2T was made: data is owed from now on. */
void dataout_owed(struct task *task);
void dataout_tick(struct task *task, struct instant now);

#endif

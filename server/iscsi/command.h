/* server/iscsi/command.h - SCSI commands between the wire and the unit. On the connection's
 * loop. */
#ifndef SERVER_ISCSI_COMMAND_H
#define SERVER_ISCSI_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "server/iscsi/login.h"
#include "server/iscsi/request.h"
#include "server/iscsi/scsi.h"

struct connection;
struct session;
struct task;

extern const struct scsi_task_ops task_ops;
/** What is wrong with the data of a command PDU, NULL: nothing. */
const char *command_judge(const struct session *session, const uint8_t *header);
bool command_is_bidirectional(const uint8_t *header);
/** Bytes that may come unasked for. */
uint32_t command_unsolicited_max(const struct login_terms *terms, uint32_t expected);
enum verdict command_header(struct connection *connection, struct task *task);
void command_start(struct task *task); /* in the order of command numbers */
void command_over(struct task *task); /* the unit is done, and all its data came */
void command_abort(struct task *task);
void command_sent(struct task *task); /* a data-in buffer left */
/** No buffer for the data of the command that comes: it ends with TASK SET FULL. */
void command_refuse_full(struct connection *connection);

#endif

/* server/iscsi/management.h - task management. On the connection's loop. */
#ifndef SERVER_ISCSI_MANAGEMENT_H
#define SERVER_ISCSI_MANAGEMENT_H

struct task;

void management_start(struct task *task);
void management_task_over(
        struct task *task); /* those who asked for its end hear of it */

#endif

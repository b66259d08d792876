/* tests/server/iscsi/target_view.h - the inside of a target, for a test that waits in vain. */
#ifndef TESTS_SERVER_ISCSI_TARGET_VIEW_H
#define TESTS_SERVER_ISCSI_TARGET_VIEW_H

struct iscsi_target;

/** Tells standard error what it has: figures, connections, what each of them waits for, tasks.
    Not on a loop; a few times a process. Blocks some seconds for a loop that stands still. */
void target_view(struct iscsi_target *target);

#endif

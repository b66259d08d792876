/* tests/store/disk.h - a disk under SQLite that fails by plan and loses what was not synced.
 *
 * A VFS that stands before SQLite's own and becomes the default: the store notices nothing.
 */
#ifndef TESTS_STORE_DISK_H
#define TESTS_STORE_DISK_H

#include <stdbool.h>

enum disk_call { DISK_WRITE, DISK_SYNC, DISK_TRUNCATE, DISK_READ, DISK_CALLS };

/** The @after-th call of a kind from now on fails with @code, and @times - 1 more. */
struct disk_plan {
    unsigned after; /* 0: never */
    unsigned times;
    int code; /* SQLite's */
    unsigned failed; /* how many have */
};

extern struct disk_plan disk_plans[DISK_CALLS];

/** Put it in front. Once in a process, before the first connection. */
void disk_install(void);

/** From now on each sync of a file leaves a copy NAME.synced: what a power cut leaves. */
extern bool disk_shadows;

/** With no connection open: all that is in @directory now is synced. */
void disk_settle(const char *directory);

/** In another process, after a death: put what was synced in the place of what is there. */
void disk_cut(const char *directory);

#endif

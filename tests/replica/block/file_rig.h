/* tests/replica/block/file_rig.h - a file in a directory of its own, opened as a device,
 * over a kernel that fails, does less or is stuck as the test says.
 *
 * The driver's calls are wrapped by the linker (--wrap), see CMakeLists.txt.
 */
#ifndef TESTS_REPLICA_BLOCK_FILE_RIG_H
#define TESTS_REPLICA_BLOCK_FILE_RIG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/support/device.h"
#include "tests/support/directory.h"

enum { FILE_SIZE = 65536 }; /* bytes of the file "disk" */

struct file_rig {
    struct directory directory;
    struct loop *loop;
    struct device_opening opening; /* the last */
    bool at_once; /* in memory, where the loop does all itself: set before file_set() */
};

/** How the kernel is to behave, and what it was asked. */
struct file_kernel {
    atomic_int sync_errors, write_errors; /* errnos to answer, once each; 0: none */
    atomic_uint syncs, dsync_writes, running, most_running;
    atomic_uint own_reads; /* by the loop itself */
    atomic_bool shorten; /* a third of the first buffer, and no more */
    pthread_mutex_t gate; /* held: reads and flushes are stuck */
};

extern struct file_rig file_rig;
extern struct file_kernel file_kernel;

/** The directory, the loop and "disk", empty. Skips the test where no file is in memory. */
void file_set(void);

/** All of it goes; no device is open. */
void file_strike(void);

void file_path(const char *name, char *path, size_t room);

/** A file of @size bytes, all of it a hole. */
void file_make(const char *name, uint64_t size);

/** NULL when it did not open: see file_rig.opening.fault. @expected: bytes, 0: any. */
struct block_device *file_open_as(
        const char *name, bool writable, uint32_t block_size, uint64_t expected);

/** "disk", in blocks of 512 bytes; the test ends when it does not open. */
struct block_device *file_open_disk(bool writable);

/** Turns the loop until *@count is @wanted; the test ends after 30 s. */
void file_await(const atomic_uint *count, unsigned wanted);

#endif

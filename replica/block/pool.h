/* replica/block/pool.h - a directory that holds elements' files. All calls block; call them
 * off the loops. Names never leave the directory: openat2 with RESOLVE_BENEATH,
 * RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS. */
#ifndef REPLICA_BLOCK_POOL_H
#define REPLICA_BLOCK_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/base/fault.h"

/** O_PATH|O_DIRECTORY descriptor of @path, or a negative errno. Made (0700) when missing. */
int pool_open(const char *path, struct fault *fault);

/** Bytes of the file system and bytes free for us. 0 or a negative errno. */
int pool_space(int directory, uint64_t *total, uint64_t *remaining);

/** True when FICLONE works inside this directory (tried once with two small files). */
bool pool_can_clone(int directory);

/**
 * A new file of @size zeros, thin, 0600; fails with -EEXIST when the name is taken. Durable
 * (file and directory synced) on return. -ENOSPC when @reserve is set and the space cannot
 * be reserved.
 */
int pool_create(int directory, const char *name, uint64_t size, bool reserve,
        struct fault *fault);

/**
 * A new file @name that shares its blocks with @source_name of @source_directory (FICLONE),
 * grown to @size. Durable on return. -EOPNOTSUPP or -EXDEV where it cannot be; then nothing
 * is left behind.
 */
int pool_clone(int source_directory, const char *source_name, int directory,
        const char *name, uint64_t size, struct fault *fault);

/** Remove. -ENOENT when it is not there. Durable on return. */
int pool_remove(int directory, const char *name, struct fault *fault);

/** Calls @each for every entry until it returns false. For the sweep of orphans at start. */
int pool_list(
        int directory, bool (*each)(void *context, const char *name), void *context);

#endif

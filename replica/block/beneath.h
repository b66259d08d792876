/* replica/block/beneath.h - opening names that stay beneath a directory. Private to this room. */
#ifndef REPLICA_BLOCK_BENEATH_H
#define REPLICA_BLOCK_BENEATH_H

#include <sys/types.h>

/**
 * openat2() of the relative @name beneath @directory (O_PATH is enough), with O_CLOEXEC,
 * RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS and RESOLVE_NO_XDEV: no dots,
 * link, absolute name or mount leads out, whatever changes meanwhile. Blocks. A descriptor owned by the
 * caller, or -ENOENT, -ELOOP (a link), -EXDEV (leads out, or over a mount), -EEXIST, -EACCES, ...
 */
int beneath_open(int directory, const char *name, int flags, mode_t mode);

/** As above, but -EINVAL for anything that is no regular file, which is never waited for. */
int beneath_open_file(int directory, const char *name, int flags);

#endif

/* replica/credentials.h - a file with a secret, read with suspicion. Inside replica/. */
#ifndef REPLICA_CREDENTIALS_H
#define REPLICA_CREDENTIALS_H

#include "replica/base/fault.h"
#include "replica/block/open.h"

/**
 * Read "user:secret" from the first line of file @name in @directory, and the mutual pair
 * from the second, if there is one. The file must be a regular one, of mode 0600 exactly,
 * with one name, and not a link. Blocks; off the loops. 0, or -ENOKEY with @fault, which
 * never holds a byte of the file. @chap is the caller's to wipe; on failure it is wiped.
 */
int credentials_read(
        int directory, const char *name, struct block_chap *chap, struct fault *fault);

#endif

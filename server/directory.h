/* server/directory.h - where the data lives when nobody says. */
#ifndef SERVER_DIRECTORY_H
#define SERVER_DIRECTORY_H

#include "replica/base/fault.h"

/**
 * The data directory: @given, else the first of $STATE_DIRECTORY, else /var/lib/replicad when
 * it can be written, else $XDG_STATE_HOME/replicad or ~/.local/state/replicad. Made (0700)
 * when missing. Owned by the caller, free(). NULL with @fault.
 */
char *directory_choose(const char *given, struct fault *fault);

/** Make @path and its missing parents, 0700. 0 or a negative errno. */
int directory_make(const char *path);

#endif

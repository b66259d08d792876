/* server/lifetime.h - who is started in what order, and who stops whom. */
#ifndef SERVER_LIFETIME_H
#define SERVER_LIFETIME_H

#include "server/options.h"

/**
 * Serve until SIGTERM or SIGINT. Called once, from main's thread, before there are others.
 * Returns the exit status: 0 after a clean stop, 1 when it could not start (one line on
 * standard error says why). A second signal ends the process at once, with 1.
 */
int lifetime_run(const struct options *options);

#endif

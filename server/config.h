/* server/config.h - the YAML configuration: keys of the options' names, values as text. */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "server/options.h"

/** Keys that are no options. */
struct config_extra {
    char *retention_days, *retention_rows; /* owned, NULL: not given */
};

/**
 * Values of @path, for options that have none yet: the command line wins. Returns 0, or
 * -EINVAL with one sentence in @why.
 */
int config_read(const char *path, struct options *options, struct config_extra *extra,
        char why[OPTION_WHY]);

/** Append a copy of @text. False: out of memory. */
bool option_add(struct option_values *values, const char *text);

#endif

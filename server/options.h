/* server/options.h - what the command line and the configuration ask for. One thread. */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "replica/base/log.h"

enum option_id {
#define ONE(symbol, name, argument, help) OPTION_##symbol,
#define LIST(symbol, name, argument, help) OPTION_##symbol,
#define FLAG(symbol, name, help) OPTION_##symbol,
#include "server/options.tbl.h"
#undef ONE
#undef LIST
#undef FLAG
    OPTION_COUNT
};

struct option_values {
    char **items; /* owned, NULL-terminated when there are any */
    size_t count;
};

struct option_pool {
    char *name, *path; /* owned */
};

/** Owned by the holder, options_finish(). Zero where nothing was given, unless a default is
    named. */
struct options {
    struct option_values values[OPTION_COUNT]; /* as given; the command line has won */
    struct option_pool *pools;
    size_t pool_count;
    unsigned connect_timeout_s; /* 5 */
    unsigned io_timeout_s; /* 30 */
    unsigned workers, max_jobs;
    unsigned retention_days;
    uint64_t retention_rows;
    uint64_t bandwidth_limit; /* bytes a second; 0: none */
    bool http_unprotected;
    bool iscsi_none; /* nothing is served over iSCSI */
    bool log_json;
    enum log_level log_level; /* LOG_INFO */
    const char *check_health; /* of argv: the other mode; NULL: serve */
    bool help, version; /* print it and end */
    int argc; /* as they were given: borrowed, to be read again */
    char **argv;
};

enum { OPTION_WHY = 256 };

/**
 * Read @argv, then the file that it names. Returns 0, or -EINVAL with one sentence in @why;
 * options_finish() is needed either way.
 */
int options_parse(struct options *options, int argc, char **argv, char why[OPTION_WHY]);
void options_finish(struct options *options);

/** The first value as text, NULL when it was not given. */
const char *options_text(const struct options *options, enum option_id option);

void options_help(FILE *out);

#endif

/* replica/base/log.h - structured log lines on standard error, one event a line. */
#ifndef REPLICA_BASE_LOG_H
#define REPLICA_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/** Set once by main before there are threads. JSON: one object a line; text: for
 * people. */
void log_setup(enum log_level level, bool json);

/** What a line is about; NULL members are left out. Borrowed for the call. */
struct log_about {
    const char *job, *replica, *element, *request;
};

/**
 * Writes one line with one write(2): time (RFC 3339), level, event (a short stable
 * word-with-dashes for machines), message, and what it is about. Peer-supplied text in
 * the message is escaped. Any thread. Never blocks on a lock held during I/O.
 */
void log_event(enum log_level level, const char *event, struct log_about about,
        const char *format, ...) __attribute__((format(printf, 4, 5)));

#define log_plain(level, event, ...)                                                   \
    log_event(level, event, (struct log_about){ 0 }, __VA_ARGS__)

/** "error", "warn", "info", "debug". False for anything else. */
bool log_level_parse(const char *text, enum log_level *level);

#endif

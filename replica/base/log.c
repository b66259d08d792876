/* A line is built on the stack and leaves in one write: lines of threads never mix, and
 * no lock is held while the reader of standard error is slow. 4096 bytes are PIPE_BUF:
 * what a pipe takes whole. Longer messages are cut at a character. */
#include "replica/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/clock.h"

enum { LINE = 4096, MESSAGE = 2048, TAIL = 8 /* room kept for what closes a line */ };

static enum log_level threshold = LOG_INFO;
static bool as_json;

static const char *const level_names[] = { "error", "warn", "info", "debug" };

struct line {
    char text[LINE];
    size_t length;
};

void log_setup(enum log_level level, bool json)
{
    threshold = level;
    as_json = json;
}

bool log_level_parse(const char *text, enum log_level *level)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static void add_bytes(struct line *line, const char *bytes, size_t length)
{
    if (length > sizeof line->text - TAIL - line->length)
        return; /* all or nothing: never half an escape */
    memcpy(line->text + line->length, bytes, length);
    line->length += length;
}

static void add(struct line *line, const char *text)
{
    add_bytes(line, text, strlen(text));
}

/* Bytes of the well-formed UTF-8 character at @text (Unicode table 3-7), 0 when it is
 * not. */
static size_t utf8_length(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;
    uint8_t low = 0x80, high = 0xbf;
    size_t more;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    more = p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
    if (p[0] == 0xe0)
        low = 0xa0;
    if (p[0] == 0xf0)
        low = 0x90;
    if (p[0] == 0xed)
        high = 0x9f;
    if (p[0] == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i <= more; i++, low = 0x80, high = 0xbf)
        if (p[i] < low || p[i] > high) /* NUL is too low: never read past it */
            return 0;
    return more + 1;
}

/* C1 controls are characters of two bytes, and terminals obey them. */
static bool is_control(const char *text, size_t length)
{
    uint8_t first = (uint8_t)text[0];
    return first < 0x20 || first == 0x7f ||
            (length == 2 && first == 0xc2 && (uint8_t)text[1] < 0xa0);
}

/* Escaped so that text from outside can neither end the line nor speak to a terminal.
 */
static void add_escaped(struct line *line, const char *text)
{
    while (*text) {
        size_t length = utf8_length(text);
        uint8_t byte = (uint8_t)(length == 2 ? text[1] : text[0]);
        char escape[8];

        if (length == 0) {
            (void)snprintf(
                    escape, sizeof escape, as_json ? "\\ufffd" : "\\x%02x", byte);
            add(line, escape);
            length = 1;
        } else if (is_control(text, length)) {
            (void)snprintf(
                    escape, sizeof escape, as_json ? "\\u%04x" : "\\x%02x", byte);
            add(line, escape);
        } else if (*text == '\\' || (*text == '"' && as_json)) {
            add_bytes(line, "\\", 1);
            add_bytes(line, text, 1);
        } else {
            add_bytes(line, text, length);
        }
        text += length;
    }
}

static void add_member(struct line *line, const char *name, const char *value)
{
    if (!value)
        return;
    add(line, as_json ? ",\"" : " ");
    add(line, name);
    add(line, as_json ? "\":\"" : "=");
    add_escaped(line, value);
    if (as_json)
        add(line, "\"");
}

static void add_about(struct line *line, struct log_about about)
{
    add_member(line, "job", about.job);
    add_member(line, "replica", about.replica);
    add_member(line, "element", about.element);
    add_member(line, "request", about.request);
}

static void line_json(struct line *line, const char *time, const char *level,
        const char *event, struct log_about about, const char *message)
{
    add(line, "{\"time\":\"");
    add(line, time);
    add(line, "\"");
    add_member(line, "level", level);
    add_member(line, "event", event);
    add_about(line, about); /* before the message, which may be cut */
    add(line, ",\"message\":\"");
    add_escaped(line, message);
    memcpy(line->text + line->length, "\"}\n", 3);
    line->length += 3;
}

static void line_text(struct line *line, const char *time, const char *level,
        const char *event, struct log_about about, const char *message)
{
    add(line, time);
    add(line, " ");
    add(line, level);
    add(line, " ");
    add(line, event);
    add(line, ": ");
    add_escaped(line, message);
    add_about(line, about);
    line->text[line->length++] = '\n';
}

static void line_write(const struct line *line)
{
    size_t at = 0;

    while (at < line->length) {
        ssize_t n = write(STDERR_FILENO, line->text + at, line->length - at);
        if (n < 0 && errno != EINTR)
            return; /* nobody to tell */
        at += n > 0 ? (size_t)n : 0;
    }
}

void log_event(enum log_level level, const char *event, struct log_about about,
        const char *format, ...)
{
    /* Else 6 KiB of zeros, also for a line that is not wanted. */
    char message[MESSAGE] __attribute__((uninitialized));
    struct line line __attribute__((uninitialized));
    char time[CLOCK_TEXT];
    va_list arguments;
    int saved = errno;

    if (level > threshold)
        return;
    va_start(arguments, format);
    if (vsnprintf(message, sizeof message, format, arguments) < 0)
        message[0] = '\0';
    va_end(arguments);
    clock_format(clock_wall_ms(), time);
    line.length = 0;
    (as_json ? line_json : line_text)(
            &line, time, level_names[level], event, about, message);
    line_write(&line);
    errno = saved;
}

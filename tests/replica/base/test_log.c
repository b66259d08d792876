#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/log.h"
#include "tests/support/expect.h"

static char text[8192];

/* What one call writes on standard error. */
#define LOGGED(call)                                                                   \
    do {                                                                               \
        FILE *file = tmpfile();                                                        \
        int kept = dup(STDERR_FILENO);                                                 \
        dup2(fileno(file), STDERR_FILENO);                                             \
        call;                                                                          \
        dup2(kept, STDERR_FILENO);                                                     \
        close(kept);                                                                   \
        rewind(file);                                                                  \
        text[fread(text, 1, sizeof text - 1, file)] = '\0';                            \
        fclose(file);                                                                  \
    } while (0)

Test(log, json_is_one_object_a_line_and_names_what_it_is_about)
{
    log_setup(LOG_INFO, true);
    LOGGED(log_event(LOG_WARN, "leg-lost",
            ((struct log_about){ .job = "J", .request = "R" }), "%d of %d", 1, 2));
    expect(strncmp(text, "{\"time\":\"2", 10) == 0);
    cr_assert(!!strstr(text,
                      "\",\"level\":\"warn\",\"event\":\"leg-lost\",\"job\":\"J\","
                      "\"request\":\"R\",\"message\":\"1 of 2\"}\n"),
            "%s", text);
}

Test(log, text_from_outside_can_neither_end_a_line_nor_an_object)
{
    log_setup(LOG_INFO, true);
    LOGGED(log_plain(
            LOG_INFO, "x", "a\"b\\c\nd\x1b[31m\x7f\xc2\x85|\xff\xc3\xa9\xe2\x82"));
    cr_assert(!!strstr(text,
                      "\"message\":\"a\\\"b\\\\c\\u000ad\\u001b[31m\\u007f\\u0085|"
                      "\\ufffd\xc3\xa9\\ufffd\\ufffd\"}\n"),
            "%s", text);
    log_setup(LOG_INFO, false);
    LOGGED(log_plain(LOG_INFO, "x", "a\nb\\\xff"));
    cr_assert(!!strstr(text, " info x: a\\x0ab\\\\\\xff\n"), "%s", text);
}

Test(log, what_only_looks_like_utf8_is_replaced_byte_by_byte)
{
    static const char *const wrong[] = { "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\x80", "\xe2\x28\xa1" };
    static const char good[] = "\xc2\xa0\xe0\xa0\x80\xed\x9f\xbf\xf0\x90\x80\x80"
                               "\xf4\x8f\xbf\xbf";

    log_setup(LOG_INFO, true);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        LOGGED(log_plain(LOG_INFO, "x", "%s", wrong[i]));
        char *message = strstr(text, "\"message\":\"") + strlen("\"message\":\"");
        for (const char *at = wrong[i]; *at; at++) {
            size_t n = *at == '(' ? 1 : 6;
            expect(strncmp(message, n == 1 ? "(" : "\\ufffd", n) == 0);
            message += n;
        }
        expect_str(message, "\"}\n");
    }
    LOGGED(log_plain(LOG_INFO, "x", "%s", good));
    expect(strstr(text, good));
}

Test(log, a_long_message_is_cut_and_the_line_still_closed)
{
    char longer[6000];

    memset(longer, '\n', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    log_setup(LOG_INFO, true);
    LOGGED(log_plain(LOG_INFO, "x", "%s", longer));
    size_t length = strlen(text);
    expect(length <= 4096 && length > 4000);
    expect_str(text + length - 3, "\"}\n");
}

Test(log, what_is_below_the_level_is_not_written)
{
    enum log_level level = LOG_ERROR;

    log_setup(LOG_WARN, false);
    LOGGED(log_plain(LOG_INFO, "x", "quiet"));
    expect_str(text, "");
    LOGGED(log_plain(LOG_WARN, "x", "loud"));
    expect(strstr(text, "warn x: loud"));
    expect(log_level_parse("debug", &level) && level == LOG_DEBUG);
    expect(!(log_level_parse("DEBUG", &level)) && level == LOG_DEBUG);
}

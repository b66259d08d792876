#include "server/http/prefer.h"

#include <string.h>
#include <strings.h>

static const char blanks[] = " \t";

/* The number in @text (digits, perhaps quoted, @length bytes), -1 when it is none. */
static int seconds_parse(const char *text, size_t length)
{
    int value = 0;

    if (length >= 2 && text[0] == '"' && text[length - 1] == '"') {
        text++;
        length -= 2;
    }
    if (length == 0)
        return -1;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
        if (value > PREFER_WAIT_MAX)
            value = PREFER_WAIT_MAX; /* capped here, so it cannot overflow */
    }
    return value;
}

/* One preference, "wait=10" or "respond-async", without parameters. */
static void preference_take(const char *text, size_t length, struct prefer *prefer)
{
    const char *equals = memchr(text, '=', length);
    size_t name = equals ? (size_t)(equals - text) : length;
    const char *value = equals ? equals + 1 : text + length;
    size_t rest = (size_t)(text + length - value);

    while (name > 0 && strchr(blanks, text[name - 1]))
        name--;
    while (rest > 0 && strchr(blanks, *value)) {
        value++;
        rest--;
    }
    while (rest > 0 && strchr(blanks, value[rest - 1]))
        rest--;
    if (name == 4 && strncasecmp(text, "wait", 4) == 0 && prefer->wait_s < 0)
        prefer->wait_s = seconds_parse(value, rest);
    else if (name == 13 && strncasecmp(text, "respond-async", 13) == 0)
        prefer->respond_async = true;
}

void prefer_parse(const char *line, struct prefer *prefer)
{
    while (*line) {
        size_t length = strcspn(line, ",;");

        while (length > 0 && strchr(blanks, *line)) {
            line++;
            length--;
        }
        preference_take(line, length, prefer);
        line += length;
        line += strcspn(line, ","); /* parameters of a preference mean nothing to us */
        if (*line == ',')
            line++;
    }
}

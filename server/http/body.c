#include "server/http/body.h"

#include <string.h>
#include <strings.h>

static const char *blanks_skip(const char *text)
{
    return text + strspn(text, " \t");
}

bool media_type_is(const char *value, const char *wanted)
{
    size_t length = strlen(wanted);

    value = blanks_skip(value);
    if (strncasecmp(value, wanted, length) != 0)
        return false;
    value = blanks_skip(value + length);
    while (*value ==
            ';') { /* parameters: a charset must be UTF-8, others mean nothing */
        value = blanks_skip(value + 1);
        length = strcspn(value, "; \t");
        if (strncasecmp(value, "charset=", 8) == 0 &&
                !(length == 13 && strncasecmp(value + 8, "utf-8", 5) == 0) &&
                !(length == 15 && strncasecmp(value + 8, "\"utf-8\"", 7) == 0))
            return false;
        value = blanks_skip(value + length);
    }
    return *value == '\0';
}

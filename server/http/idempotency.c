#include "server/http/idempotency.h"

#include <stddef.h>
#include <string.h>

bool idempotency_key_parse(const char *value, char key[IDEMPOTENCY_KEY_MAX + 1])
{
    size_t left = strlen(value), length = 0;
    bool quoted;

    while (left > 0 && value[left - 1] == ' ')
        left--;
    quoted = left >= 2 && value[0] == '"' && value[left - 1] == '"';
    if (quoted) {
        value++;
        left -= 2;
    }
    for (; left > 0; value++, left--) {
        if (quoted && *value == '\\') {
            value++;
            if (--left == 0 || (*value != '"' && *value != '\\'))
                return false;
        } else if (*value == '"') {
            return false;
        }
        if (*value < ' ' || *value > '~' || length == IDEMPOTENCY_KEY_MAX)
            return false;
        key[length++] = *value;
    }
    key[length] = '\0';
    return length > 0;
}

#include "replica/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "replica/base/trace.h"

void check_failed(
        const char *file, int line, const char *function, const char *condition)
{
    char text[512];
    int length = snprintf(text, sizeof text, "%s:%d: %s: check failed: %s\n", file,
            line, function, condition);

    if (length > 0) {
        size_t n = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
        ssize_t ignored = write(STDERR_FILENO, text, n);
        (void)ignored; /* there is nobody left to tell */
    }
    trace_print(STDERR_FILENO);
    abort();
}

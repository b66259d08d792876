#include "replica/base/fault.h"

#include <stdarg.h>
#include <stdio.h>

int fault_set(struct fault *fault, int error, const char *format, ...)
{
    va_list arguments;

    if (!fault)
        return error;
    fault->error = error;
    va_start(arguments, format);
    (void)vsnprintf(fault->why, sizeof fault->why, format, arguments);
    va_end(arguments);
    return error;
}

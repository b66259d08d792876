/* replica/base/check.h - what only our own code can break, checked in production too.
 */
#ifndef REPLICA_BASE_CHECK_H
#define REPLICA_BASE_CHECK_H

/**
 * Ends the process when @condition is false: prints the place, the words and the last
 * trace records on standard error, then abort(). Never for input from outside. Any
 * thread.
 */
#define check(condition)                                                               \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, __func__, #condition))

_Noreturn void check_failed(
        const char *file, int line, const char *function, const char *condition);

#endif

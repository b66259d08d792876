/* replica/base/fault.h - a failure that a person will read. */
#ifndef REPLICA_BASE_FAULT_H
#define REPLICA_BASE_FAULT_H

/**
 * Filled by calls that open, probe or end something; lives on the caller's stack; never
 * in the read/write path. No secret, no absolute path of the host belongs in @why.
 */
struct fault {
    int error; /* 0 or a negative errno, the same that the call returns */
    char why[160]; /* one sentence, no full stop, ends in NUL */
};

/** Fill @fault (may be NULL) and return @error, so that callers can `return
 * fault_set(...)`. */
int fault_set(struct fault *fault, int error, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#endif

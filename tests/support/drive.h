/* tests/support/drive.h - turn a loop on this thread until something is true. */
#ifndef TESTS_SUPPORT_DRIVE_H
#define TESTS_SUPPORT_DRIVE_H

#include <stdbool.h>

#include "replica/base/scope.h"
#include "replica/loop/loop.h"

enum { DRIVE_DEADLINE_MS = 60000 };

struct drive_deadline {
    struct loop_timer timer;
    bool passed;
};

static inline void drive_expire(struct loop_timer *timer)
{
    container_of(timer, struct drive_deadline, timer)->passed = true;
}

/**
 * Turns @loop, the caller's own, until *@flag. False when @ms of the loop's time passed
 * first, or when a simulated loop has nothing left to do.
 */
static inline bool drive_until_ms(struct loop *loop, const bool *flag, uint64_t ms)
{
    struct drive_deadline deadline = { .timer.fire = drive_expire };

    loop_timer_start(loop, &deadline.timer, ms);
    while (!*flag && !deadline.passed && loop_turn(loop))
        ;
    loop_timer_stop(loop, &deadline.timer);
    return *flag;
}

static inline bool drive_until(struct loop *loop, const bool *flag)
{
    return drive_until_ms(loop, flag, DRIVE_DEADLINE_MS);
}

#endif

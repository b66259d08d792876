#include "replica/block/open.h"

#include <stdarg.h>
#include <stdio.h>

#include "replica/base/check.h"
#include "replica/base/scope.h"
#include "replica/block/drivers.h"

static const struct {
    const char *name;
    void (*open)(struct loop *, const struct block_spec *, struct block_opening *);
} drivers[BLOCK_DRIVER_COUNT] = {
#define DRIVER(name, open_function, doc) { #name, open_function },
#include "replica/block/drivers.tbl.h"
#undef DRIVER
};

void block_open(
        struct loop *loop, const struct block_spec *spec, struct block_opening *opening)
{
    check(loop_is_mine(loop) && opening->done);
    check((unsigned)spec->driver < BLOCK_DRIVER_COUNT);
    opening->loop = loop;
    opening->private = NULL;
    opening->cancel = NULL;
    opening->task.queued = false;
    opening->fault = (struct fault){ 0 };
    drivers[spec->driver].open(loop, spec, opening);
}

void block_open_cancel(struct block_opening *opening)
{
    if (!opening->cancel)
        return;
    check(loop_is_mine(opening->loop));
    opening->cancel(opening);
}

static void run_failed(struct loop_task *task)
{
    struct block_opening *opening = container_of(task, struct block_opening, task);
    static const struct block_identity nobody;

    opening->done(opening, NULL, &nobody, &opening->fault);
}

void block_opening_fail(
        struct block_opening *opening, int error, const char *format, ...)
{
    va_list arguments;

    check(error < 0);
    opening->fault.error = error;
    va_start(arguments, format);
    (void)vsnprintf(opening->fault.why, sizeof opening->fault.why, format, arguments);
    va_end(arguments);
    opening->task.run = run_failed;
    loop_post(opening->loop, &opening->task);
}

const char *block_driver_name(enum block_driver driver)
{
    check((unsigned)driver < BLOCK_DRIVER_COUNT);
    return drivers[driver].name;
}

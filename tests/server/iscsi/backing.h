/* tests/server/iscsi/backing.h - a device of replica/block behind a unit: a file, or memory
 * ("memory:BYTES"). Reservations are kept in memory. */
#ifndef TESTS_SERVER_ISCSI_BACKING_H
#define TESTS_SERVER_ISCSI_BACKING_H

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/scope.h"
#include "replica/block/open.h"
#include "server/iscsi/scsi.h"

struct backing {
    struct scsi_backing scsi;
    const char *path;
    struct loop *loop;
    struct block_spec spec;
    struct block_opening opening;
    struct scsi_opening *asked;
    struct loop_task keeping;
    void (*kept)(void *unit, int result);
    void *unit;
};

static inline void backing_opened(struct block_opening *opening,
        struct block_device *device, const struct block_identity *identity,
        const struct fault *fault)
{
    struct backing *backing = container_of(opening, struct backing, opening);

    (void)identity;
    backing->asked->opened(backing->asked, device, fault);
}

static inline void backing_open(void *context, struct scsi_opening *asked, bool again)
{
    struct backing *backing = context;

    (void)again;
    backing->asked = asked;
    backing->opening = (struct block_opening){ .done = backing_opened };
    block_open(backing->loop, &backing->spec, &backing->opening);
}

static inline void backing_keep_end(struct loop_task *task)
{
    struct backing *backing = container_of(task, struct backing, keeping);
    backing->kept(backing->unit, 0);
}

static inline void backing_keep(void *context, const uint8_t *bytes, size_t length,
        void (*kept)(void *unit, int result), void *unit)
{
    struct backing *backing = context;

    (void)bytes, (void)length;
    backing->kept = kept;
    backing->unit = unit;
    backing->keeping.run = backing_keep_end;
    loop_post(backing->loop, &backing->keeping);
}

/** @path is borrowed. */
static inline void backing_init(
        struct backing *backing, const char *path, bool writable, struct loop *loop)
{
    char copy[512], *slash;

    *backing = (struct backing){ .path = path, .loop = loop };
    backing->scsi = (struct scsi_backing){ backing, backing_open, backing_keep };
    backing->spec.writable = writable;
    backing->spec.block_size = 512;
    if (strncmp(path, "memory:", 7) == 0) {
        backing->spec.driver = BLOCK_DRIVER_memory;
        backing->spec.expect_size = strtoull(path + 7, NULL, 0);
        return;
    }
    backing->spec.driver = BLOCK_DRIVER_file;
    snprintf(copy, sizeof copy, "%s", path);
    slash = strrchr(copy, '/');
    snprintf(backing->spec.name, sizeof backing->spec.name, "%.255s",
            slash ? slash + 1 : copy);
    if (slash)
        *slash = '\0';
    backing->spec.directory =
            open(slash ? copy : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

#endif

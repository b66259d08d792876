#include "replica/digests.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

/* -- a file as a medium ---------------------------------------------------------------- */

static int fd_of(struct sidecar_medium *medium)
{
    return container_of(medium, struct digests_file, medium)->fd;
}

static int file_size(struct sidecar_medium *medium, uint64_t *size)
{
    struct stat status;

    if (fstat(fd_of(medium), &status) < 0)
        return -errno;
    *size = (uint64_t)status.st_size;
    return 0;
}

static int file_read(
        struct sidecar_medium *medium, uint64_t offset, void *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t got = pread(
                fd_of(medium), (char *)bytes + at, length - at, (off_t)(offset + at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        at += (size_t)got;
    }
    return 0;
}

static int file_write(struct sidecar_medium *medium, uint64_t offset, const void *bytes,
        size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t put = pwrite(fd_of(medium), (const char *)bytes + at, length - at,
                (off_t)(offset + at));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? -errno : -EIO;
        at += (size_t)put;
    }
    return 0;
}

static int file_resize(struct sidecar_medium *medium, uint64_t size)
{
    return ftruncate(fd_of(medium), (off_t)size) < 0 ? -errno : 0;
}

static int file_sync(struct sidecar_medium *medium)
{
    return fdatasync(fd_of(medium)) < 0 ? -errno : 0;
}

static const struct sidecar_medium file_medium = { .size = file_size,
    .read = file_read,
    .write = file_write,
    .resize = file_resize,
    .sync = file_sync };

/* -- names ----------------------------------------------------------------------------- */

static bool name_of(const struct uuid *pair, char name[DIGESTS_NAME])
{
    struct uuid parsed;

    name[0] = '\0';
    if (!uuid_parse(pair->text, &parsed)) /* "" too: no pair, no sidecar */
        return false;
    (void)snprintf(name, DIGESTS_NAME, "%s.digests", parsed.text);
    return true;
}

static int directory_sync(int directory)
{
    return fsync(directory) < 0 ? -errno : 0;
}

/* Durably: one that came back after a crash would be believed. */
static int name_remove(int directory, const char *name)
{
    if (unlinkat(directory, name, 0) < 0)
        return errno == ENOENT ? 0 : -errno;
    return directory_sync(directory);
}

int digests_remove(const struct engine *engine, const struct uuid *pair)
{
    char name[DIGESTS_NAME];

    if (engine->digests < 0 || !name_of(pair, name))
        return 0;
    return name_remove(engine->digests, name);
}

/* -- opening --------------------------------------------------------------------------- */

struct binding {
    char source[512], target[512];
    uint64_t source_offset, target_offset, target_size;
};

static struct digest128 binding_of(const struct engine_plan *plan, uint64_t target_size)
{
    struct binding binding;

    memset(&binding, 0, sizeof binding);
    (void)snprintf(binding.source, sizeof binding.source, "%s", plan->source.address);
    (void)snprintf(binding.target, sizeof binding.target, "%s", plan->target.address);
    binding.source_offset = plan->source.offset;
    binding.target_offset = plan->target.offset;
    binding.target_size = target_size;
    return digest_xxh3(&binding, sizeof binding);
}

/* In the pool. A table that cannot be had is no failure: the target is compared. */
static int take_table(struct digests *digests)
{
    int result = digests->file.fd >= 0 ? 0 : -EIO;

    digests->table = result == 0 ? sidecar_create(digests->facts.size) : NULL;
    if (!digests->table)
        return -ENOMEM;
    result = sidecar_begin(&digests->file.medium, &digests->facts, &digests->start,
            digests->table, &digests->by_digest);
    return result ? result : directory_sync(digests->directory); /* the name too */
}

static void file_close(struct digests *digests)
{
    if (digests->file.fd >= 0)
        (void)close(digests->file.fd);
    digests->file.fd = -1;
}

static void open_work(struct loop_work *work)
{
    struct digests *digests = container_of(work, struct digests, work);
    int result = -ENOENT;

    if (digests->wanted) {
        digests->file.fd = openat(digests->directory, digests->name,
                O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        result = take_table(digests);
    }
    if (result == 0)
        return;
    digests_spoil(digests);
    file_close(digests);
    result = name_remove(digests->directory, digests->name);
    if (result)
        fault_set(&digests->fault, result,
                "the digests of the target cannot be set aside: %s",
                strerrordesc_np(-result));
}

static void work_done(struct loop_work *work)
{
    struct digests *digests = container_of(work, struct digests, work);

    digests->opened = true;
    digests->done(digests);
}

static void work_start(struct digests *digests, struct loop *loop,
        void (*work)(struct loop_work *), void (*done)(struct digests *))
{
    digests->done = done;
    digests->work = (struct loop_work){ .work = work, .done = work_done };
    loop_work_start(loop, &digests->work);
}

static void nothing_work(struct loop_work *work)
{
    (void)work;
}

void digests_init(struct digests *digests, const struct engine *engine,
        const struct engine_plan *plan)
{
    *digests = (struct digests){
        .directory = engine->digests, .wanted = !plan->forget, .facts.pair = plan->pair
    };
    digests->file = (struct digests_file){ file_medium, -1 };
    if (engine->digests < 0 || !name_of(&plan->pair, digests->name))
        digests->name[0] = '\0';
}

void digests_open(struct digests *digests, struct loop *loop,
        const struct engine_plan *plan, uint64_t source_size, const struct end *target,
        bool able, void (*done)(struct digests *))
{
    check(!digests->opened);
    digests->wanted &= able;
    digests->target = target;
    digests->facts.size = source_size;
    digests->facts.stamp = end_stamp_found(target);
    digests->facts.binding = binding_of(plan, target->found.size);
    digests->start = (struct sidecar_start){ .watermark = plan->watermark,
        .delta = plan->work == ENGINE_DELTA };
    work_start(digests, loop, digests->name[0] ? open_work : nothing_work, done);
}

void digests_doubt(struct digests *digests)
{
    sidecar_forget(digests->table, 0, digests->table->size);
    digests->by_digest = false;
}

void digests_spoil(struct digests *digests)
{
    sidecar_destroy(digests->table);
    digests->table = NULL;
    digests->by_digest = false;
}

/* -- the end --------------------------------------------------------------------------- */

bool digests_pending(const struct digests *digests)
{
    return digests->file.fd >= 0;
}

static void drop_work(struct loop_work *work)
{
    struct digests *digests = container_of(work, struct digests, work);

    file_close(digests);
    /* Should the name stay: the file says itself that it is not to be trusted. */
    (void)name_remove(digests->directory, digests->name);
}

static void seal_work(struct loop_work *work)
{
    struct digests *digests = container_of(work, struct digests, work);
    struct digest128 left;
    int result = end_stamp_left(digests->target, &left);

    digests->facts.stamp = left;
    if (result == 0)
        result = sidecar_seal(&digests->file.medium, &digests->facts, digests->position,
                digests->done_whole, digests->table);
    if (result == 0) {
        file_close(digests);
        return;
    }
    log_event(LOG_WARN, "digests-lost",
            (struct log_about){ .replica = digests->facts.pair.text },
            "the digests of the pair cannot be kept: %s", strerrordesc_np(-result));
    drop_work(work);
}

void digests_seal(struct digests *digests, struct loop *loop, uint64_t position,
        bool whole, void (*done)(struct digests *))
{
    check(digests_pending(digests) && digests->table);
    digests->position = position;
    digests->done_whole = whole;
    work_start(digests, loop, seal_work, done);
}

void digests_drop(
        struct digests *digests, struct loop *loop, void (*done)(struct digests *))
{
    check(digests_pending(digests));
    work_start(digests, loop, drop_work, done);
}

void digests_finish(struct digests *digests)
{
    check(!digests_pending(digests));
    sidecar_destroy(digests->table);
    digests->table = NULL; /* how it went is still to be told */
}

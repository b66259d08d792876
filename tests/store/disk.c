/* tests/store/disk.c */
#include "tests/store/disk.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct disk_plan disk_plans[DISK_CALLS];
bool disk_shadows;

struct disk_file {
    sqlite3_file base;
    sqlite3_file *real;
    const char *name; /* SQLite's, lives as long as the file is open */
};

static sqlite3_vfs disk, *beneath;

static sqlite3_file *real(sqlite3_file *file)
{
    return ((struct disk_file *)file)->real;
}

/* SQLITE_OK: let it happen. */
static int planned(enum disk_call call)
{
    struct disk_plan *plan = &disk_plans[call];

    if (!plan->after || --plan->after)
        return SQLITE_OK;
    plan->failed++;
    if (plan->failed < plan->times)
        plan->after = 1;
    return plan->code;
}

/* Read through the open file: a descriptor of our own would drop its locks when closed. */
static void shadow(struct disk_file *file)
{
    char path[512], page[4096];
    sqlite3_int64 size = 0;
    int fd;

    if (!disk_shadows || !file->name)
        return;
    snprintf(path, sizeof(path), "%s.synced.new", file->name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || file->real->pMethods->xFileSize(file->real, &size) != SQLITE_OK)
        abort();
    for (sqlite3_int64 at = 0; at < size; at += (sqlite3_int64)sizeof(page)) {
        int length = size - at < 4096 ? (int)(size - at) : 4096;
        if (file->real->pMethods->xRead(file->real, page, length, at) != SQLITE_OK ||
                write(fd, page, (size_t)length) != length)
            abort();
    }
    close(fd);
    char whole[512];
    snprintf(whole, sizeof(whole), "%s.synced", file->name);
    if (rename(path, whole) != 0)
        abort();
}

static int disk_close(sqlite3_file *file)
{
    int rc = real(file)->pMethods->xClose(real(file));

    free(real(file));
    return rc;
}

static int disk_read(sqlite3_file *file, void *bytes, int length, sqlite3_int64 at)
{
    int rc = planned(DISK_READ);

    return rc ? rc : real(file)->pMethods->xRead(real(file), bytes, length, at);
}

static int disk_write(
        sqlite3_file *file, const void *bytes, int length, sqlite3_int64 at)
{
    int rc = planned(DISK_WRITE);

    return rc ? rc : real(file)->pMethods->xWrite(real(file), bytes, length, at);
}

static int disk_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    int rc = planned(DISK_TRUNCATE);

    return rc ? rc : real(file)->pMethods->xTruncate(real(file), size);
}

static int disk_sync(sqlite3_file *file, int flags)
{
    int rc = planned(DISK_SYNC);

    if (!rc)
        rc = real(file)->pMethods->xSync(real(file), flags);
    if (!rc)
        shadow((struct disk_file *)file);
    return rc;
}

static int disk_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return real(file)->pMethods->xFileSize(real(file), size);
}

static int disk_lock(sqlite3_file *file, int level)
{
    return real(file)->pMethods->xLock(real(file), level);
}

static int disk_unlock(sqlite3_file *file, int level)
{
    return real(file)->pMethods->xUnlock(real(file), level);
}

static int disk_reserved(sqlite3_file *file, int *held)
{
    return real(file)->pMethods->xCheckReservedLock(real(file), held);
}

static int disk_control(sqlite3_file *file, int op, void *argument)
{
    return real(file)->pMethods->xFileControl(real(file), op, argument);
}

static int disk_sector(sqlite3_file *file)
{
    return real(file)->pMethods->xSectorSize(real(file));
}

/* None: what is not synced is gone, whatever the real disk would promise. */
static int disk_traits(sqlite3_file *file)
{
    (void)file;
    return 0;
}

static int disk_shm_map(
        sqlite3_file *file, int region, int size, int extend, void volatile **place)
{
    return real(file)->pMethods->xShmMap(real(file), region, size, extend, place);
}

static int disk_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
    return real(file)->pMethods->xShmLock(real(file), offset, count, flags);
}

static void disk_shm_barrier(sqlite3_file *file)
{
    real(file)->pMethods->xShmBarrier(real(file));
}

static int disk_shm_unmap(sqlite3_file *file, int remove)
{
    return real(file)->pMethods->xShmUnmap(real(file), remove);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = disk_close,
    .xRead = disk_read,
    .xWrite = disk_write,
    .xTruncate = disk_truncate,
    .xSync = disk_sync,
    .xFileSize = disk_size,
    .xLock = disk_lock,
    .xUnlock = disk_unlock,
    .xCheckReservedLock = disk_reserved,
    .xFileControl = disk_control,
    .xSectorSize = disk_sector,
    .xDeviceCharacteristics = disk_traits,
    .xShmMap = disk_shm_map,
    .xShmLock = disk_shm_lock,
    .xShmBarrier = disk_shm_barrier,
    .xShmUnmap = disk_shm_unmap,
};

static int disk_open(
        sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out)
{
    struct disk_file *file = (struct disk_file *)base;
    int rc;

    (void)vfs;
    file->base.pMethods = NULL;
    file->name = name;
    file->real = calloc(1, (size_t)beneath->szOsFile);
    if (!file->real)
        return SQLITE_NOMEM;
    rc = beneath->xOpen(beneath, name, file->real, flags, out);
    if (rc == SQLITE_OK)
        file->base.pMethods = &methods;
    else
        free(file->real);
    return rc;
}

/* In the place, and under the name, of the one that the store asks for. */
void disk_install(void)
{
    beneath = sqlite3_vfs_find("unix-excl");
    disk = *beneath;
    (void)sqlite3_vfs_unregister(beneath);
    disk.szOsFile = sizeof(struct disk_file);
    disk.xOpen = disk_open;
    if (sqlite3_vfs_register(&disk, 1) != SQLITE_OK)
        abort();
}

static const char *const names[] = { "replicad.db", "replicad.db-wal",
    "replicad.db-journal" };
enum { NAMES = sizeof(names) / sizeof(names[0]) };

static void copy(const char *from, const char *to)
{
    static char bytes[1 << 20];
    int in = open(from, O_RDONLY), out;
    ssize_t length;

    (void)unlink(to);
    if (in < 0)
        return;
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    while ((length = read(in, bytes, sizeof(bytes))) > 0)
        if (write(out, bytes, (size_t)length) != length)
            abort();
    close(in);
    close(out);
}

void disk_settle(const char *directory)
{
    char path[512], synced[512];

    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        snprintf(synced, sizeof(synced), "%s/%s.synced", directory, names[i]);
        copy(path, synced);
    }
}

void disk_cut(const char *directory)
{
    char path[512], synced[512];

    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        snprintf(synced, sizeof(synced), "%s/%s.synced", directory, names[i]);
        /* A file that SQLite had removed stays removed. */
        if (access(path, F_OK) == 0)
            copy(synced, path);
        (void)unlink(synced);
    }
    snprintf(path, sizeof(path), "%s/replicad.db-shm", directory);
    (void)unlink(path);
}

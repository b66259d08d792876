/* A pool is a directory. A file is made without a name (O_TMPFILE), brought to its size,
 * synced, and only then linked: a crash leaves nothing half made. Where the file system
 * has no O_TMPFILE the name is taken first, with O_EXCL, and given back on failure.
 * A name in the directory is durable when the directory has been synced as well. */
#include "replica/block/pool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "replica/block/beneath.h"
#include "replica/block/open.h"

enum { FILE_MODE = 0600, DIRECTORY_MODE = 0700, TRIAL_BYTES = 65536 };

/* A file on its way into a directory. */
struct newborn {
    int parent; /* of its name, open for reading */
    int fd;
    const char *base; /* the name's last part, in the caller's string */
    bool named; /* it has its name already: no O_TMPFILE here */
};

static int words_for(struct fault *fault, int error, const char *what)
{
    return fault_set(fault, error, "%s: %s", what, strerrordesc_np(-error));
}

/* -- the directory -------------------------------------------------------------------- */

static int directory_sync(int directory)
{
    scoped_fd int fd = beneath_open(directory, ".", O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0)
        return fd;
    return fsync(fd) < 0 ? -errno : 0;
}

int pool_open(const char *path, struct fault *fault)
{
    bool made = mkdir(path, DIRECTORY_MODE) == 0;
    int fd;

    if (!made && errno != EEXIST)
        return words_for(fault, -errno, "the pool's directory cannot be made");
    fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return words_for(fault, -errno, "the pool's directory cannot be opened");
    if (made) {
        scoped_fd int above = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (above >= 0)
            (void)fsync(above); /* an empty directory lost is made again */
    }
    return fd;
}

int pool_space(int directory, uint64_t *total, uint64_t *remaining)
{
    struct statvfs space;

    if (fstatvfs(directory, &space) < 0)
        return -errno;
    if (!checked_mul(space.f_blocks, space.f_frsize, total) ||
            !checked_mul(space.f_bavail, space.f_frsize, remaining))
        return -EOVERFLOW;
    return 0;
}

int pool_list(
        int directory, bool (*each)(void *context, const char *name), void *context)
{
    int fd = beneath_open(directory, ".", O_RDONLY | O_DIRECTORY, 0);
    struct dirent *entry;
    DIR *list;
    int error;

    if (fd < 0)
        return fd;
    list = fdopendir(fd); /* takes the descriptor */
    if (!list) {
        error = -errno;
        (void)close(fd);
        return error;
    }
    while ((errno = 0, entry = readdir(list)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                !each(context, entry->d_name))
            break;
    error = entry ? 0 : -errno;
    (void)closedir(list);
    return error;
}

/* -- names ---------------------------------------------------------------------------- */

/* Opens the directory that holds @name's last part. */
static int parent_open(int directory, const char *name, const char **base)
{
    const char *slash = strrchr(name, '/');
    char parent[BLOCK_NAME_MAX] = ".";

    *base = slash ? slash + 1 : name;
    if (strlen(name) >= sizeof parent)
        return -ENAMETOOLONG;
    if (**base == '\0' || strcmp(*base, ".") == 0 || strcmp(*base, "..") == 0)
        return -EINVAL;
    if (slash == name)
        return -EXDEV; /* absolute: as the kernel says it */
    if (slash) {
        memcpy(parent, name, (size_t)(slash - name));
        parent[slash - name] = '\0';
    }
    return beneath_open(directory, parent, O_RDONLY | O_DIRECTORY, 0);
}

/* A file without a name gets one through /proc alone: AT_EMPTY_PATH is for the privileged. */
static bool can_name_later(void)
{
    return access("/proc/self/fd", X_OK) == 0;
}

static bool lacks_tmpfile(int error)
{
    return error == -EOPNOTSUPP || error == -EISDIR || error == -ENOENT;
}

static int newborn_open(struct newborn *newborn, int directory, const char *name)
{
    *newborn = (struct newborn){ .parent = -1, .fd = -1 };
    newborn->parent = parent_open(directory, name, &newborn->base);
    if (newborn->parent < 0)
        return newborn->parent;
    if (faccessat(newborn->parent, newborn->base, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST; /* early, before any block is taken; linking checks again */
    newborn->fd = can_name_later()
            ? beneath_open(newborn->parent, ".", O_TMPFILE | O_RDWR, FILE_MODE)
            : -EOPNOTSUPP;
    if (lacks_tmpfile(newborn->fd)) {
        newborn->fd = beneath_open(
                newborn->parent, newborn->base, O_RDWR | O_CREAT | O_EXCL, FILE_MODE);
        newborn->named = newborn->fd >= 0;
    }
    return newborn->fd < 0 ? newborn->fd : 0;
}

/* Makes the file durable under its name. */
static int newborn_settle(struct newborn *newborn)
{
    char self[40];

    if (fsync(newborn->fd) < 0)
        return -errno;
    if (!newborn->named) {
        (void)snprintf(self, sizeof self, "/proc/self/fd/%d", newborn->fd);
        if (linkat(AT_FDCWD, self, newborn->parent, newborn->base, AT_SYMLINK_FOLLOW) <
                0)
            return -errno;
        newborn->named = true;
    }
    return fsync(newborn->parent) < 0 ? -errno : 0;
}

/* Closes; after a failure nothing of the file is left. Returns @result. */
static int newborn_finish(struct newborn *newborn, int result)
{
    if (result < 0 && newborn->named)
        (void)unlinkat(newborn->parent, newborn->base, 0);
    if (newborn->fd >= 0)
        (void)close(newborn->fd);
    if (newborn->parent >= 0)
        (void)close(newborn->parent);
    return result;
}

static int file_resize(int fd, uint64_t size)
{
    if (size > INT64_MAX)
        return -EFBIG;
    return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

/* What cannot fit is refused before a block is taken: a file system that is filled on the way
   to the refusal takes everybody else down with it. */
static int file_reserve(int fd, uint64_t size)
{
    struct statvfs space;
    int result;

    if (fstatvfs(fd, &space) < 0)
        return -errno;
    if (size / space.f_frsize >= space.f_bavail)
        return -ENOSPC;
    do
        result = size ? fallocate(fd, 0, 0, (off_t)size) : 0;
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

int pool_create(int directory, const char *name, uint64_t size, bool reserve,
        struct fault *fault)
{
    struct newborn newborn;
    int result = newborn_open(&newborn, directory, name);

    if (result == 0)
        result = file_resize(newborn.fd, size);
    if (result == 0 && reserve)
        result = file_reserve(newborn.fd, size);
    if (result == 0)
        result = newborn_settle(&newborn);
    result = newborn_finish(&newborn, result);
    return result < 0 ? words_for(fault, result, "the file cannot be made") : 0;
}

int pool_remove(int directory, const char *name, struct fault *fault)
{
    const char *base;
    scoped_fd int parent = parent_open(directory, name, &base);
    int result = parent < 0 ? parent : 0;

    if (result == 0 && unlinkat(parent, base, 0) < 0)
        result = -errno;
    if (result == 0)
        result = directory_sync(parent);
    return result < 0 ? words_for(fault, result, "the file cannot be removed") : 0;
}

/* -- clones --------------------------------------------------------------------------- */

/* The ways in which file systems say that they cannot share blocks. */
static int clone_error(int error)
{
    switch (error) {
    case ENOTTY:
    case EINVAL:
    case ENOSYS:
    case EOPNOTSUPP:
        return -EOPNOTSUPP;
    default:
        return -error;
    }
}

static int file_clone(int from, int to, uint64_t size)
{
    struct stat status;

    if (fstat(from, &status) < 0)
        return -errno;
    if (size < (uint64_t)status.st_size)
        return -EINVAL;
    if (ioctl(to, FICLONE, from) < 0)
        return clone_error(errno);
    return file_resize(to, size);
}

int pool_clone(int source_directory, const char *source_name, int directory,
        const char *name, uint64_t size, struct fault *fault)
{
    scoped_fd int source = beneath_open_file(source_directory, source_name, O_RDONLY);
    struct newborn newborn;
    int result;

    if (source < 0)
        return words_for(fault, source, "the source cannot be opened");
    result = newborn_open(&newborn, directory, name);
    if (result == 0)
        result = file_clone(source, newborn.fd, size);
    if (result == 0)
        result = newborn_settle(&newborn);
    result = newborn_finish(&newborn, result);
    return result < 0 ? words_for(fault, result, "the file cannot be cloned") : 0;
}

/* A file without a name, or with one that is taken back at once. */
static int trial_open(int directory, const char *name)
{
    int fd = beneath_open(directory, ".", O_TMPFILE | O_RDWR, FILE_MODE);

    if (!lacks_tmpfile(fd))
        return fd;
    fd = beneath_open(directory, name, O_RDWR | O_CREAT | O_EXCL, FILE_MODE);
    if (fd >= 0)
        (void)unlinkat(directory, name, 0);
    return fd;
}

bool pool_can_clone(int directory)
{
    static const char bytes[TRIAL_BYTES];
    scoped_fd int from = trial_open(directory, ".replicad-clone-1");
    scoped_fd int to = trial_open(directory, ".replicad-clone-2");

    if (from < 0 || to < 0 || pwrite(from, bytes, sizeof bytes, 0) != sizeof bytes)
        return false;
    return ioctl(to, FICLONE, from) == 0;
}

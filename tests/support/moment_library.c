/* The part of moment.h that is preloaded into the daemon. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/support/moment.h"

static struct moment *moment; /* NULL: nobody asks */

__attribute__((constructor)) static void moment_find(void)
{
    const char *path = getenv("REPLICAD_MOMENT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *shared = MAP_FAILED;

    if (fd >= 0)
        shared = mmap(NULL, sizeof *moment, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        (void)close(fd);
    moment = shared == MAP_FAILED ? NULL : shared;
}

static bool ends(const char *path, const char *end)
{
    size_t length = strlen(path), tail = strlen(end);

    return length >= tail && strcmp(path + length - tail, end) == 0;
}

static bool counts(const char *path)
{
    if (!strstr(path, moment->only) || ends(path, ".db") || ends(path, "-shm"))
        return false;
    for (unsigned i = 0; i < 2; i++)
        if (moment->below[i][0] && strstr(path, moment->below[i]))
            return true;
    return false;
}

/* True: the call is to fail, and errno says how. */
static bool strikes(const char *call, int fd, const char *name)
{
    char link[40], path[PATH_MAX + 300] = "";
    bool wal, again;
    ssize_t length;
    int error;

    if (!moment || atomic_load(&moment->at) == 0)
        return false;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = fd >= 0 ? readlink(link, path, PATH_MAX) : 0;
    if (length < 0)
        length = 0;
    (void)snprintf(path + length, sizeof path - (size_t)length, "%s%s",
            length && name ? "/" : "", name ? name : "");
    if (!counts(path))
        return false;
    wal = ends(path, "-wal") && strncmp(call, "pwrite", 6) == 0;
    again = atomic_exchange(&moment->after_wal, wal);
    if ((wal && again) ||
            atomic_fetch_add(&moment->met, 1) + 1 != atomic_load(&moment->at))
        return false;
    (void)snprintf(moment->words, sizeof moment->words, "%s %.200s", call, path);
    error = atomic_load(&moment->error);
    atomic_store(&moment->struck, true);
    if (error == 0)
        (void)kill(getpid(), SIGKILL);
    errno = error;
    return true;
}

#define REAL(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

#define WRITES(name, type)                                                             \
    ssize_t name(int fd, const void *bytes, size_t length, type offset)                \
    {                                                                                  \
        if (strikes("pwrite", fd, NULL))                                               \
            return -1;                                                                 \
        return REAL(name)(fd, bytes, length, offset);                                  \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

#define GATHERS(name, type)                                                            \
    ssize_t name(int fd, const struct iovec *iov, int count, type offset)              \
    {                                                                                  \
        if (strikes("pwritev", fd, NULL))                                              \
            return -1;                                                                 \
        return REAL(name)(fd, iov, count, offset);                                     \
    }
GATHERS(pwritev, off_t)
GATHERS(pwritev64, off64_t)

#define GATHERS2(name, type)                                                           \
    ssize_t name(int fd, const struct iovec *iov, int count, type offset, int flags)   \
    {                                                                                  \
        if (strikes("pwritev2", fd, NULL))                                             \
            return -1;                                                                 \
        return REAL(name)(fd, iov, count, offset, flags);                              \
    }
GATHERS2(pwritev2, off_t)
GATHERS2(pwritev64v2, off64_t)

#define TAKES(name, type)                                                              \
    int name(int fd, int mode, type offset, type length)                               \
    {                                                                                  \
        if (strikes("fallocate", fd, NULL))                                            \
            return -1;                                                                 \
        return REAL(name)(fd, mode, offset, length);                                   \
    }
TAKES(fallocate, off_t)
TAKES(fallocate64, off64_t)

#define SYNCS(name)                                                                    \
    int name(int fd)                                                                   \
    {                                                                                  \
        if (strikes(#name, fd, NULL))                                                  \
            return -1;                                                                 \
        return REAL(name)(fd);                                                         \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define RESIZES(name, type)                                                            \
    int name(int fd, type length)                                                      \
    {                                                                                  \
        if (strikes("ftruncate", fd, NULL))                                            \
            return -1;                                                                 \
        return REAL(name)(fd, length);                                                 \
    }
RESIZES(ftruncate, off_t)
RESIZES(ftruncate64, off64_t)

int unlinkat(int directory, const char *name, int flags)
{
    if (strikes("unlinkat", directory, name))
        return -1;
    return REAL(unlinkat)(directory, name, flags);
}

int linkat(int from, const char *source, int to, const char *name, int flags)
{
    if (strikes("linkat", to, name))
        return -1;
    return REAL(linkat)(from, source, to, name, flags);
}

int renameat(int from, const char *source, int to, const char *name)
{
    if (strikes("renameat", to, name))
        return -1;
    return REAL(renameat)(from, source, to, name);
}

/* FICLONE alone has a third word that is no pointer; all have one word. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    void *word;

    va_start(list, request);
    word = va_arg(list, void *);
    va_end(list);
    if (request == FICLONE && strikes("clone", fd, NULL))
        return -1;
    return REAL(ioctl)(fd, request, word);
}

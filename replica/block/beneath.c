#include "replica/block/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int beneath_open(int directory, const char *name, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (unsigned long long)(unsigned)(flags | O_CLOEXEC),
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
                RESOLVE_NO_XDEV,
    };
    long fd;

    /* EAGAIN: a rename on the way; the kernel cannot tell whether it led out. */
    for (unsigned tries = 0; tries < 16; tries++) {
        fd = syscall(SYS_openat2, directory, name, &how, sizeof how);
        if (fd >= 0)
            return (int)fd;
        if (errno != EAGAIN && errno != EINTR)
            break;
    }
    return -errno;
}

int beneath_open_file(int directory, const char *name, int flags)
{
    /* A FIFO would make open() wait for its other end without O_NONBLOCK. */
    int fd = beneath_open(directory, name, flags | O_NONBLOCK | O_NOCTTY, 0);
    struct stat status;
    int error = 0;

    if (fd < 0)
        return fd == -EISDIR || fd == -ENXIO ? -EINVAL : fd;
    if (fstat(fd, &status) < 0)
        error = -errno;
    else if (!S_ISREG(status.st_mode))
        error = -EINVAL;
    if (error == 0)
        return fd;
    (void)close(fd);
    return error;
}

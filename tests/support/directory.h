/* tests/support/directory.h - a directory of a test's own, removed with what is in it. */
#ifndef TESTS_SUPPORT_DIRECTORY_H
#define TESTS_SUPPORT_DIRECTORY_H

#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct directory {
    char path[256];
    int fd; /* O_PATH */
};

/** Below REPLICAD_TEST_DIR, TMPDIR or /tmp. */
static inline bool directory_make(struct directory *directory)
{
    const char *base = getenv("REPLICAD_TEST_DIR");

    if (!base)
        base = getenv("TMPDIR");
    snprintf(directory->path, sizeof directory->path, "%s/replicad-test-XXXXXX",
            base ? base : "/tmp");
    if (!mkdtemp(directory->path))
        return false;
    directory->fd = open(directory->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return directory->fd >= 0;
}

static inline int tree_remove_one(
        const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

/** @path and what is below it. 0, or -1 and errno: some of it is left. */
static inline int tree_remove(const char *path)
{
    return nftw(path, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void directory_remove(struct directory *directory)
{
    (void)close(directory->fd);
    (void)tree_remove(directory->path);
}

#endif

#include "server/directory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/scope.h"

static const char usual[] = "/var/lib/replicad";

int directory_make(const char *path)
{
    scoped_free char *copy = strdup(path);
    struct stat about;

    if (!copy)
        return -ENOMEM;
    for (char *slash = copy + 1; *copy && (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        if (mkdir(copy, 0700) != 0 && errno != EEXIST && errno != EROFS &&
                errno != EACCES)
            return -errno;
        *slash = '/';
    }
    if (mkdir(copy, 0700) != 0 && errno != EEXIST)
        return -errno;
    if (stat(copy, &about) != 0)
        return -errno;
    return S_ISDIR(about.st_mode) ? 0 : -ENOTDIR;
}

static char *home_make(void)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    char *path = NULL;

    if (state && *state == '/') /* the specification: a relative one is ignored */
        return asprintf(&path, "%s/replicad", state) < 0 ? NULL : path;
    if (home && *home == '/')
        return asprintf(&path, "%s/.local/state/replicad", home) < 0 ? NULL : path;
    return NULL;
}

static char *usual_make(void)
{
    const char *state = getenv("STATE_DIRECTORY");

    if (state && *state == '/')
        return strndup(state, strcspn(state, ":"));
    if (directory_make(usual) == 0 && access(usual, R_OK | W_OK | X_OK) == 0)
        return strdup(usual);
    return home_make();
}

char *directory_choose(const char *given, struct fault *fault)
{
    char *path = given ? strdup(given) : usual_make();
    int result;

    if (!path) {
        (void)fault_set(fault, -ENOENT, "no data directory: give --data-dir");
        return NULL;
    }
    result = directory_make(path);
    if (result == 0 && access(path, R_OK | W_OK | X_OK) != 0)
        result = -errno;
    if (result == 0)
        return path;
    (void)fault_set(fault, result, "data directory %.80s: %s", path, strerror(-result));
    free(path);
    return NULL;
}

#include "replica/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "replica/base/scope.h"

enum { FILE_MAX = 1024 };

/* Every byte that was read is wiped when the scope ends. */
struct text {
    char bytes[FILE_MAX];
};

static void wipe(struct text *text)
{
    explicit_bzero(text, sizeof *text);
}

static bool name_is_plain(const char *name)
{
    return name[0] && name[0] != '.' && !strchr(name, '/');
}

/* The next line, its end cut off; NULL when there is none. */
static char *line_take(char **rest)
{
    char *line = strsep(rest, "\n");
    size_t length = line ? strlen(line) : 0;

    if (length && line[length - 1] == '\r')
        line[length - 1] = '\0';
    return line;
}

static bool pair_take(
        char *line, char *user, size_t user_max, char *secret, size_t secret_max)
{
    char *colon = strchr(line, ':');

    if (!colon || colon == line || !colon[1])
        return false;
    if ((size_t)(colon - line) >= user_max || strlen(colon + 1) >= secret_max)
        return false;
    memcpy(user, line, (size_t)(colon - line));
    user[colon - line] = '\0';
    strcpy(secret, colon + 1);
    return true;
}

static bool parse(char *text, struct block_chap *chap)
{
    char *rest = text, *line = line_take(&rest);

    if (!pair_take(
                line, chap->user, sizeof chap->user, chap->secret, sizeof chap->secret))
        return false;
    line = line_take(&rest);
    if (!line || !line[0])
        return true;
    return pair_take(line, chap->mutual_user, sizeof chap->mutual_user,
            chap->mutual_secret, sizeof chap->mutual_secret);
}

static bool read_all(int fd, struct text *text)
{
    ssize_t n = read(fd, text->bytes, sizeof text->bytes);

    if (n <= 0 || (size_t)n == sizeof text->bytes)
        return false;
    text->bytes[n] = '\0';
    return strlen(text->bytes) == (size_t)n;
}

int credentials_read(
        int directory, const char *name, struct block_chap *chap, struct fault *fault)
{
    struct text scoped(wipe) text = { "" };
    struct stat st;

    memset(chap, 0, sizeof *chap);
    if (directory < 0)
        return fault_set(
                fault, -ENOKEY, "there is no directory of credentials (--credentials)");
    if (!name_is_plain(name))
        return fault_set(fault, -ENOKEY, "that is no name of a credentials file");
    scoped_fd int fd =
            openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ELOOP)
        return fault_set(fault, -ENOKEY, "credentials file \"%s\" is a link", name);
    if (fd < 0)
        return fault_set(fault, -ENOKEY, "credentials file \"%s\": %s", name,
                strerrordesc_np(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1)
        return fault_set(fault, -ENOKEY,
                "credentials file \"%s\" must be a regular file with one name", name);
    if ((st.st_mode & 07777) != 0600)
        return fault_set(fault, -ENOKEY,
                "credentials file \"%s\" has mode %04o, must have 0600", name,
                st.st_mode & 07777);
    if (read_all(fd, &text) && parse(text.bytes, chap))
        return 0;
    explicit_bzero(chap, sizeof *chap);
    return fault_set(fault, -ENOKEY,
            "credentials file \"%s\" must hold user:secret, and on a second line the "
            "mutual pair if there is one",
            name);
}

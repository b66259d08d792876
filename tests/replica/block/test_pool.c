#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/block/pool.h"
#include "tests/support/directory.h"
#include "tests/support/expect.h"

static struct directory directory;

/* -- a host without /proc: the two calls are wrapped by the linker, see CMakeLists.txt -- */

static bool no_proc;

int __real_access(const char *path, int mode);
int __wrap_access(const char *path, int mode);
int __real_linkat(int, const char *from, int, const char *to, int flags);
int __wrap_linkat(int, const char *from, int, const char *to, int flags);

static bool is_hidden(const char *path)
{
    if (!no_proc || strncmp(path, "/proc/", 6) != 0)
        return false;
    errno = ENOENT;
    return true;
}

int __wrap_access(const char *path, int mode)
{
    return is_hidden(path) ? -1 : __real_access(path, mode);
}

int __wrap_linkat(int there, const char *from, int here, const char *to, int flags)
{
    return is_hidden(from) ? -1 : __real_linkat(there, from, here, to, flags);
}

static void set(void)
{
    expect(directory_make(&directory));
}

static bool count_one(void *count, const char *name)
{
    (void)name;
    ++*(unsigned *)count;
    return true;
}

static unsigned entries(int fd)
{
    unsigned count = 0;
    expect_eq(pool_list(fd, count_one, &count), 0);
    return count;
}

Test(pool, a_missing_directory_is_made_for_us_alone)
{
    char path[300];
    struct stat status;
    struct fault fault;

    set();
    snprintf(path, sizeof path, "%s/pool", directory.path);
    int fd = pool_open(path, &fault);
    expect(fd >= 0);
    expect_eq(fstat(fd, &status), 0);
    expect(S_ISDIR(status.st_mode));
    expect_eq(status.st_mode & 0777, 0700);
    int again = pool_open(path, &fault);
    expect(again >= 0);
    close(fd);
    close(again);
    snprintf(path, sizeof path, "%s/no/such/pool", directory.path);
    expect_eq(pool_open(path, &fault), -ENOENT);
    expect(fault.why[0] && !strstr(fault.why, directory.path));
    directory_remove(&directory);
}

Test(pool, a_file_is_made_thin_of_its_size_and_ours_alone)
{
    struct stat status;

    set();
    expect_eq(pool_create(directory.fd, "a.raw", (uint64_t)1 << 40, false, NULL), 0);
    expect_eq(fstatat(directory.fd, "a.raw", &status, 0), 0);
    expect_eq(status.st_size, (off_t)1 << 40);
    expect_eq(status.st_mode & 07777, 0600);
    expect(status.st_blocks < 100);
    expect_eq(entries(directory.fd), 1);
    directory_remove(&directory);
}

Test(pool, a_reserved_file_has_its_blocks_or_is_not_there)
{
    struct stat status;
    struct fault fault = { 0 };
    uint64_t total, remaining;

    set();
    expect_eq(pool_create(directory.fd, "a.raw", 1048576, true, NULL), 0);
    expect_eq(fstatat(directory.fd, "a.raw", &status, 0), 0);
    expect(status.st_blocks * 512 >= 1048576);
    expect_eq(pool_space(directory.fd, &total, &remaining), 0);
    expect(total >= remaining && remaining > 0);
    int result = pool_create(directory.fd, "b.raw", total * 2, true, &fault);
    expect(result == -ENOSPC || result == -EFBIG);
    expect_eq(fault.error, result);
    expect_eq(entries(directory.fd), 1);
    directory_remove(&directory);
}

/* A container or a chroot may have none: then nothing gives a file its name afterwards. */
Test(pool, a_file_is_made_where_there_is_no_proc)
{
    struct stat status;
    struct fault fault = { 0 };
    uint64_t total, remaining;

    set();
    no_proc = true;
    expect_eq(pool_create(directory.fd, "a.raw", 1048576, true, &fault), 0);
    expect_eq(fstatat(directory.fd, "a.raw", &status, 0), 0);
    expect_eq(status.st_size, 1048576);
    expect_eq(status.st_mode & 07777, 0600);
    expect_eq(pool_create(directory.fd, "a.raw", 4096, false, &fault), -EEXIST);
    expect_eq(pool_space(directory.fd, &total, &remaining), 0);
    expect(pool_create(directory.fd, "b.raw", total * 2, true, &fault) < 0);
    expect_eq(entries(directory.fd), 1); /* what failed has left no name */
    directory_remove(&directory);
}

Test(pool, a_name_that_is_taken_stays_as_it_is)
{
    struct stat status;
    struct fault fault;

    set();
    expect_eq(pool_create(directory.fd, "a.raw", 4096, false, NULL), 0);
    expect_eq(pool_create(directory.fd, "a.raw", 8192, false, &fault), -EEXIST);
    expect_eq(symlinkat("nowhere", directory.fd, "link"), 0);
    expect_eq(pool_create(directory.fd, "link", 8192, false, &fault), -EEXIST);
    expect_eq(fstatat(directory.fd, "a.raw", &status, 0), 0);
    expect_eq(status.st_size, 4096);
    expect_eq(entries(directory.fd), 2);
    directory_remove(&directory);
}

Test(pool, names_that_lead_out_are_refused_by_every_call)
{
    static const struct {
        const char *name;
        int error;
    } wrong[] = { { "../a", -EXDEV }, { "..", -EINVAL }, { ".", -EINVAL },
        { "", -EINVAL }, { "sub/", -EINVAL }, { "/tmp/replicad-never", -EXDEV },
        { "/replicad-never", -EXDEV }, { "up/a", -ELOOP }, { "sub/../../a", -EXDEV } };
    struct fault fault;

    set();
    expect_eq(mkdirat(directory.fd, "sub", 0700), 0);
    expect_eq(symlinkat("..", directory.fd, "up"), 0);
    expect_eq(pool_create(directory.fd, "good", 4096, false, NULL), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *name = wrong[i].name;
        int made = pool_create(directory.fd, name, 512, false, &fault);
        cr_assert(made == wrong[i].error, "create %s: %d", name, made);
        int removed = pool_remove(directory.fd, name, &fault);
        cr_assert(removed == wrong[i].error, "remove %s: %d", name, removed);
        int cloned = pool_clone(directory.fd, "good", directory.fd, name, 4096, &fault);
        cr_assert(cloned == wrong[i].error, "clone to %s: %d", name, cloned);
        expect(pool_clone(directory.fd, name, directory.fd, "new", 4096, &fault) < 0);
    }
    expect_eq(entries(directory.fd), 3);
    directory_remove(&directory);
}

Test(pool, names_in_directories_below_are_reached)
{
    struct stat status;

    set();
    expect_eq(mkdirat(directory.fd, "sub", 0700), 0);
    expect_eq(pool_create(directory.fd, "sub/a.raw", 4096, false, NULL), 0);
    expect_eq(fstatat(directory.fd, "sub/a.raw", &status, 0), 0);
    expect_eq(pool_remove(directory.fd, "sub/a.raw", NULL), 0);
    expect_eq(pool_remove(directory.fd, "sub/a.raw", NULL), -ENOENT);
    directory_remove(&directory);
}

Test(pool, a_link_is_removed_and_not_what_it_points_at)
{
    set();
    expect_eq(pool_create(directory.fd, "a.raw", 4096, false, NULL), 0);
    expect_eq(symlinkat("a.raw", directory.fd, "link"), 0);
    expect_eq(pool_remove(directory.fd, "link", NULL), 0);
    expect_eq(entries(directory.fd), 1);
    expect(pool_remove(directory.fd, "missing", NULL) == -ENOENT);
    directory_remove(&directory);
}

static bool stop_at_two(void *count, const char *name)
{
    (void)name;
    return ++*(unsigned *)count < 2;
}

Test(pool, a_list_ends_when_it_is_told_to)
{
    unsigned count = 0;

    set();
    for (char name[] = "a"; name[0] < 'f'; name[0]++)
        expect_eq(pool_create(directory.fd, name, 0, false, NULL), 0);
    expect_eq(entries(directory.fd), 5);
    expect_eq(pool_list(directory.fd, stop_at_two, &count), 0);
    expect_eq(count, 2);
    directory_remove(&directory);
}

/* Both answers are right somewhere; they must agree, and leave nothing behind. */
Test(pool, a_clone_is_equal_and_apart_or_refused_whole)
{
    uint8_t there[8192], here[16384];
    struct fault fault = { 0 };

    set();
    expect_eq(pool_create(directory.fd, "a.raw", sizeof there, false, NULL), 0);
    int fd = openat(directory.fd, "a.raw", O_RDWR | O_CLOEXEC);
    memset(there, 0x42, sizeof there);
    expect_eq(pwrite(fd, there, sizeof there, 0), (ssize_t)sizeof there);
    bool can = pool_can_clone(directory.fd);
    int result = pool_clone(
            directory.fd, "a.raw", directory.fd, "b.raw", sizeof here, &fault);
    fprintf(stderr, "this file system %s clone\n", can ? "can" : "cannot");
    if (!can) {
        expect_eq(result, -EOPNOTSUPP);
        expect_eq(fault.error, -EOPNOTSUPP);
        expect_eq(entries(directory.fd), 1);
    } else {
        expect_eq(result, 0);
        int clone = openat(directory.fd, "b.raw", O_RDONLY | O_CLOEXEC);
        memset(there, 0, sizeof there);
        expect_eq(pwrite(fd, there, sizeof there, 0), (ssize_t)sizeof there);
        expect_eq(pread(clone, here, sizeof here, 0), (ssize_t)sizeof here);
        for (unsigned i = 0; i < sizeof here; i++)
            expect_eq(here[i], i < sizeof there ? 0x42 : 0);
        close(clone);
        expect_eq(pool_clone(directory.fd, "a.raw", directory.fd, "c.raw", 512, &fault),
                -EINVAL);
        expect_eq(entries(directory.fd), 2);
    }
    close(fd);
    directory_remove(&directory);
}

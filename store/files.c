/* store/files.c - the files in the data directory that are not SQLite's to make.
 *
 * The database itself is never opened here once SQLite has it open: closing any descriptor of
 * it would drop the locks of the whole process (POSIX). Sizes come from stat().
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "replica/base/log.h"
#include "store/inside.h"

/* What belongs to a database, in the order in which it is moved aside. The database goes first:
   a crash half-way must not leave it behind without its WAL, older than it was and sound. */
static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
enum { SUFFIXES = sizeof(suffixes) / sizeof(suffixes[0]), NAME_SIZE = 128 };

bool files_remote(uint64_t type)
{
    static const uint64_t remote[] = {
        0x6969, /* NFS */
        0x517b, /* SMB */
        0xff534d42, /* CIFS */
        0xfe534d42, /* SMB2 */
        0x65735546, /* FUSE */
        0x01021997, /* 9P */
        0x00c36400, /* Ceph */
        0x5346414f, /* AFS */
        0x6b414653, /* kAFS */
        0x73757245, /* Coda */
        0x0bd00bd0, /* Lustre */
        0x01161970, /* GFS2 */
        0x7461636f, /* OCFS2 */
        0x786f4256, /* VirtualBox shared folder */
        0xbacbacbc, /* VMware shared folder */
    };

    for (size_t i = 0; i < sizeof(remote) / sizeof(remote[0]); i++)
        if ((type & 0xffffffff) == remote[i])
            return true;
    return false;
}

int files_lock(struct store *store, struct fault *fault)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    store->lock = openat(store->directory, STORE_LOCK,
            O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->lock < 0)
        return fault_set(fault, -errno, "the lock file %s cannot be opened: %s",
                STORE_LOCK, strerror(errno));
    /* Of the open file, not of the process: no close() elsewhere in it can drop this lock. */
    if (fcntl(store->lock, F_OFD_SETLK, &lock) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return fault_set(
                fault, -EBUSY, "the data directory is in use by another replicad");
    return fault_set(
            fault, -errno, "the data directory cannot be locked: %s", strerror(errno));
}

int files_make(struct store *store)
{
    /* O_EXCL: a database that is there is not opened, so closing this drops no lock. */
    scoped_fd int fd = openat(store->directory, STORE_FILE,
            O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return errno == EEXIST ? 0 : -errno;
    return fsync(store->directory) == 0 ? 0 : -errno;
}

static int64_t file_size(struct store *store, const char *suffix)
{
    char name[NAME_SIZE];
    struct stat status;

    (void)snprintf(name, sizeof(name), STORE_FILE "%s", suffix);
    if (fstatat(store->directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return -1;
    return status.st_size;
}

bool files_orphaned(struct store *store)
{
    return file_size(store, "") <= 0 && file_size(store, "-wal") > 0;
}

uint64_t files_bytes(struct store *store)
{
    int64_t bytes = 0;

    for (unsigned i = 0; i < 2; i++) {
        int64_t size = file_size(store, suffixes[i]);
        bytes += size > 0 ? size : 0;
    }
    return (uint64_t)bytes;
}

/* "replicad.db.corrupt-20261121T200000.123Z": a name that sorts, without colons. */
static void quarantine_name(char name[NAME_SIZE], const char *suffix, int64_t now)
{
    char stamp[CLOCK_TEXT], plain[CLOCK_TEXT];
    size_t length = 0;

    clock_format(now, stamp);
    for (const char *at = stamp; *at; at++)
        if (*at != '-' && *at != ':')
            plain[length++] = *at;
    plain[length] = 0;
    (void)snprintf(name, NAME_SIZE, STORE_FILE ".corrupt-%s%s", plain, suffix);
}

static bool quarantine_taken(struct store *store, int64_t now)
{
    char name[NAME_SIZE];

    for (unsigned i = 0; i < SUFFIXES; i++) {
        quarantine_name(name, suffixes[i], now);
        if (faccessat(store->directory, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return true;
    }
    return false;
}

int files_quarantine(struct store *store, const char *why)
{
    char from[NAME_SIZE], to[NAME_SIZE];
    int64_t now = clock_wall_ms();

    while (quarantine_taken(store, now))
        now++;
    for (unsigned i = 0; i < SUFFIXES; i++) {
        (void)snprintf(from, sizeof(from), STORE_FILE "%s", suffixes[i]);
        quarantine_name(to, suffixes[i], now);
        if (renameat(store->directory, from, store->directory, to) != 0 &&
                errno != ENOENT)
            return -errno;
    }
    if (fsync(store->directory) != 0)
        return -errno;
    quarantine_name(to, "", now);
    log_plain(LOG_ERROR, "store-quarantine",
            "the database was moved aside to %s and a new, empty one takes its place: "
            "%s",
            to, why);
    return 0;
}

/* -- ballast: space that is ours to give up when there is none left -------------------- */

static bool ballast_there(struct store *store)
{
    struct stat status;

    return fstatat(store->directory, STORE_BALLAST, &status, AT_SYMLINK_NOFOLLOW) ==
            0 &&
            S_ISREG(status.st_mode) && status.st_size == STORE_BALLAST_SIZE &&
            (uint64_t)status.st_blocks * 512 >= STORE_BALLAST_SIZE;
}

/* Twice its size must be free, or making it would be what fills the disk. */
static bool ballast_fits(struct store *store)
{
    struct statvfs space;

    return fstatvfs(store->directory, &space) == 0 &&
            (uint64_t)space.f_bavail * space.f_frsize >= 2ull * STORE_BALLAST_SIZE;
}

/* Bytes that no file system can squeeze or leave out. */
static void ballast_fill(uint64_t *words, size_t count, uint64_t *state)
{
    for (size_t i = 0; i < count; i++) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        words[i] = *state;
    }
}

static int ballast_write(struct store *store)
{
    uint64_t words[4096], state = 0x9e3779b97f4a7c15;
    scoped_fd int fd = openat(store->directory, STORE_BALLAST,
            O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return -errno;
    for (size_t done = 0; done < STORE_BALLAST_SIZE; done += sizeof(words)) {
        ballast_fill(words, sizeof(words) / sizeof(words[0]), &state);
        ssize_t written = write(fd, words, sizeof(words));
        if (written != (ssize_t)sizeof(words))
            return written < 0 ? -errno : -ENOSPC;
    }
    return 0;
}

void ballast_make(struct store *store)
{
    bool was_tight = atomic_load(&store->tight);

    if (!ballast_there(store)) {
        if (!ballast_fits(store) || ballast_write(store) != 0) {
            (void)unlinkat(store->directory, STORE_BALLAST, 0);
            atomic_store(&store->tight, true);
            return;
        }
    }
    atomic_store(&store->tight, false);
    if (was_tight)
        log_plain(LOG_INFO, "store-space", "there is space for the database again");
}

void ballast_release(struct store *store)
{
    if (unlinkat(store->directory, STORE_BALLAST, 0) == 0)
        log_plain(LOG_ERROR, "store-full",
                "no space is left for the database: %u MiB kept for this are given up,"
                " make room",
                STORE_BALLAST_SIZE >> 20);
    atomic_store(&store->tight, true);
}

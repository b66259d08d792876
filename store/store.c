/* store/store.c - opening and closing, and the pool of readers. */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "replica/base/check.h"
#include "replica/base/clock.h"
#include "replica/base/log.h"
#include "store/inside.h"

static int directory_open(
        struct store *store, const char *directory, struct fault *fault)
{
    /* Readers open the database later, wherever the process has gone by then. */
    scoped_free char *real = realpath(directory, NULL);
    struct statfs status;

    if (real)
        store->directory = open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->directory < 0)
        return fault_set(fault, -errno, "the data directory cannot be opened: %s",
                strerror(errno));
    if (asprintf(&store->path, "%s/" STORE_FILE, real) < 0) {
        store->path = NULL;
        return fault_set(fault, -ENOMEM, "no memory");
    }
    if (fstatfs(store->directory, &status) != 0)
        return fault_set(fault, -errno, "the data directory cannot be examined: %s",
                strerror(errno));
    if (files_remote((uint64_t)status.f_type))
        return fault_set(fault, -EMEDIUMTYPE,
                "the data directory is on a network file system, where a database's "
                "locks"
                " and memory cannot be shared");
    return 0;
}

/* SQLite counts its memory under one lock for all connections; nobody asks for the figure. */
static void sqlite_prepare(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static struct store *store_create(void)
{
    struct store *store = calloc(1, sizeof(*store));
    pthread_condattr_t monotonic;

    if (!store)
        return NULL;
    store->directory = store->lock = -1;
    check(pthread_mutex_init(&store->pool_lock, NULL) == 0);
    check(pthread_condattr_init(&monotonic) == 0);
    check(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(&store->given, &monotonic) == 0);
    check(pthread_condattr_destroy(&monotonic) == 0);
    return store;
}

static void store_destroy(struct store *store)
{
    handle_close(&store->writer, false);
    free(store->writer.held);
    for (unsigned i = 0; i < STORE_READERS; i++)
        free(store->readers[i].held);
    (void)pthread_cond_destroy(&store->given);
    (void)pthread_mutex_destroy(&store->pool_lock);
    scope_close(&store->directory);
    scope_close(&store->lock);
    free(store->path);
    free(store);
}

/* One try: a database that is sound, ours, and of our version; or nothing is open. */
static int database_open(struct store *store, struct fault *fault)
{
    int error = files_make(store);

    if (error)
        return fault_set(
                fault, error, "the database cannot be made: %s", strerror(-error));
    error = writer_open(store, fault);
    if (!error)
        error = schema_migrate(&store->writer, schema_steps, schema_version, fault);
    if (!error) {
        error = schema_verify(&store->writer);
        if (error)
            (void)fault_set(fault, error, "the tables are not those of its version");
    }
    if (error)
        handle_close(&store->writer, false);
    return error;
}

static int database_open_or_replace(
        struct store *store, bool *quarantined, struct fault *fault)
{
    struct fault why = { 0 };
    int error;

    *quarantined = false;
    if (files_orphaned(store))
        error = fault_set(&why, -EUCLEAN, "the database is gone, its WAL is not");
    else
        error = database_open(store, &why);
    if (error == -EUCLEAN) {
        *quarantined = true;
        error = files_quarantine(store, why.why);
        if (error)
            return fault_set(fault, -EUCLEAN,
                    "the database is corrupt and cannot be moved aside: %s",
                    strerror(-error));
        error = database_open(store, &why);
    }
    return error ? fault_set(fault, error, "%s", why.why) : 0;
}

int store_open(const char *directory, struct store **store, bool *quarantined,
        struct fault *fault)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct store *made = store_create();
    bool aside = false;
    int error;

    check(pthread_once(&once, sqlite_prepare) == 0);
    *store = NULL;
    if (!made)
        return fault_set(fault, -ENOMEM, "no memory");
    error = directory_open(made, directory, fault);
    if (!error)
        error = files_lock(made, fault);
    if (!error)
        error = database_open_or_replace(made, &aside, fault);
    if (quarantined)
        *quarantined = aside;
    if (error) {
        store_destroy(made);
        return error;
    }
    ballast_make(made);
    if (store_tight(made))
        log_plain(LOG_WARN, "store-full", "there is little space for the database");
    *store = made;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    check(store->state == WRITER_IDLE);
    /* Readers first: the writer is then the last, and the last moves the WAL home. */
    check(!atomic_load(&store->taken));
    for (unsigned i = 0; i < STORE_READERS; i++)
        handle_close(&store->readers[i], false);
    handle_drop(store->parked, false);
    handle_close(&store->writer, !store->writer.sick);
    store_destroy(store);
}

uint64_t store_bytes(struct store *store)
{
    return files_bytes(store);
}

bool store_tight(struct store *store)
{
    return atomic_load(&store->tight);
}

/* -- readers --------------------------------------------------------------------------- */

/* The first that is free, so that those which are open already are used again; NULL: none. */
static struct store_reader *pool_free(struct store *store)
{
    unsigned taken = atomic_load(&store->taken), at;

    do {
        at = (unsigned)__builtin_ctz(~taken);
        if (at >= STORE_READERS)
            return NULL;
    } while (!atomic_compare_exchange_weak(&store->taken, &taken, taken | 1u << at));
    return &store->readers[at];
}

/* Who gives one back looks for waiters after it is free, who waits says so before looking
   again: one of the two sees the other. */
static struct store_reader *pool_wait(struct store *store, unsigned timeout_ms)
{
    struct timespec deadline = deadline_in(timeout_ms);
    struct store_reader *reader;
    int late = 0;

    check(pthread_mutex_lock(&store->pool_lock) == 0);
    (void)atomic_fetch_add(&store->waiting, 1);
    while (!(reader = pool_free(store)) && !late)
        late = pthread_cond_timedwait(&store->given, &store->pool_lock, &deadline);
    (void)atomic_fetch_sub(&store->waiting, 1);
    check(pthread_mutex_unlock(&store->pool_lock) == 0);
    return reader;
}

struct store_reader *store_reader_take(struct store *store, unsigned timeout_ms)
{
    struct store_reader *reader = pool_free(store);
    int error;

    if (!reader && !(reader = pool_wait(store, timeout_ms)))
        return NULL;
    /* A reader that met an I/O error may hold pages that are not the disk's. */
    if (reader->sick)
        handle_close(reader, false);
    if (reader->db)
        return reader;
    error = handle_open(reader, store->path, false);
    if (!error)
        return reader;
    log_plain(LOG_ERROR, "store-reader", "the database cannot be opened to read: %s",
            strerror(-error));
    store_reader_give(store, reader);
    return NULL;
}

void store_reader_give(struct store *store, struct store_reader *reader)
{
    size_t at = (size_t)(reader - store->readers);

    check(at < STORE_READERS);
    check(!reader->db || sqlite3_get_autocommit(reader->db));
    check(atomic_fetch_and(&store->taken, ~(1u << at)) >> at & 1);
    if (!atomic_load(&store->waiting))
        return;
    check(pthread_mutex_lock(&store->pool_lock) == 0);
    check(pthread_cond_signal(&store->given) == 0);
    check(pthread_mutex_unlock(&store->pool_lock) == 0);
}

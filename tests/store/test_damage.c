/* Files cut short and bits turned: the store opens and tells only what was written, or moves
   them aside, or refuses; it never hangs, crashes or makes something up. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/store/rig.h"

enum { ROWS = 24, IMAGE = 4 << 20 };

struct image {
    size_t length;
    unsigned char bytes[IMAGE];
};

static struct rig rig;
static struct image database, wal;

static void setup(void)
{
    rig_make(&rig);
}

static void teardown(void)
{
    rig_remove(&rig);
}

TestSuite(damage, .init = setup, .fini = teardown);

/* Every field follows from the key and the revision. */
static void row_make(
        enum store_table table, uint64_t n, int64_t revision, union store_row *row)
{
    uint64_t seed = n * 31 + (uint64_t)revision * 1009 + table;

    rig_fill(table, RIG_RANDOM, n, &seed, row);
    if (table == STORE_JOB)
        row->job.revision = revision;
    else
        row->element.revision = revision;
}

static void rows_put(int64_t revision)
{
    union store_row row;

    for (uint64_t n = 1; n <= ROWS; n++) {
        row_make(STORE_JOB, n, revision, &row);
        cr_assert_eq(rig_put(&rig, STORE_JOB, &row), 0);
        row_make(STORE_ELEMENT, n, revision, &row);
        cr_assert_eq(rig_put(&rig, STORE_ELEMENT, &row), 0);
    }
}

/* A process that ends without closing: the second revision is in the WAL only. */
static void files_make_dirty(void)
{
    int status;
    pid_t child;

    fflush(NULL);
    child = fork();
    if (child == 0) {
        rig_open(&rig);
        rows_put(1);
        (void)store_checkpoint(rig.store, true);
        rows_put(2);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
}

static void image_read(const char *name, struct image *image)
{
    char path[RIG_PATH];
    int fd = open(rig_path(&rig, name, path), O_RDONLY);
    ssize_t length = read(fd, image->bytes, IMAGE);

    cr_assert(length > 4096 && length < IMAGE, "%s: %zd", name, length);
    image->length = (size_t)length;
    close(fd);
}

static void image_write(const char *name, const struct image *image)
{
    char path[RIG_PATH];
    int fd = open(rig_path(&rig, name, path), O_WRONLY | O_CREAT | O_TRUNC, 0600);

    cr_assert_eq(write(fd, image->bytes, image->length), (ssize_t)image->length);
    close(fd);
}

/* -- what is told must be true ----------------------------------------------------------- */

static bool row_true(void *context, const void *row)
{
    enum store_table table = *(enum store_table *)context;
    const struct store_job *job = row;
    const struct store_element *element = row;
    int64_t revision = table == STORE_JOB ? job->revision : element->revision;
    union store_row expected;

    cr_assert(revision == 1 || revision == 2);
    row_make(table, strtoull(job->id.text + 24, NULL, 16), revision, &expected);
    cr_assert(rig_equal(table, row, &expected));
    return true;
}

static bool error_fits(int error)
{
    return error >= 0 || error == -EUCLEAN || error == -EIO || error == -ENOENT;
}

static void reads_are_true(struct store_reader *reader)
{
    union store_row row;

    for (enum store_table table = STORE_ELEMENT; table <= STORE_JOB; table += 2) {
        struct store_query query = { .table = table, .limit = 1000 };
        cr_assert(error_fits(store_list(reader, &query, row_true, &table)));
        query.filter_count = 1;
        query.filters[0] = (struct store_filter){ .is_number = true,
            .count = 4,
            .column = table == STORE_JOB ? JOB_STATE : ELEMENT_USAGE,
            .numbers = { 0, 255, 0x7fffffff, -1 } };
        cr_assert(error_fits(store_list(reader, &query, row_true, &table)));
        for (uint64_t n = 1; n <= ROWS; n++) {
            int error = store_get(reader, table, rig_id(n).text, &row);
            cr_assert(error_fits(error), "%d", error);
            if (!error)
                (void)row_true(&table, &row);
        }
    }
}

static unsigned opened, aside, refused;

static void open_and_look(void)
{
    struct fault fault = { 0 };
    bool quarantined = false;
    struct store_meta row = { .key = "after" };
    int error = store_open(rig.directory, &rig.store, &quarantined, &fault);

    if (error) {
        /* A version or a mark that a bit has turned into another's. */
        cr_assert(error == -EPROTONOSUPPORT || error == -EROFS, "%d %s", error,
                fault.why);
        refused++;
        return;
    }
    opened += !quarantined;
    aside += quarantined;
    reads_are_true(store_own_reader(rig.store));
    error = rig_put(&rig, STORE_META, &row);
    /* -EROFS: a bit of the file format's write version, which is read with the first page. */
    cr_assert(!error || (!quarantined && (error_fits(error) || error == -EROFS)), "%d",
            error);
    rig_close(&rig);
}

static void files_clear(void)
{
    static const char *const names[] = { "replicad.db", "replicad.db-wal",
        "replicad.db-shm" };
    char path[RIG_PATH];

    for (unsigned i = 0; i < 3; i++)
        (void)unlink(rig_path(&rig, names[i], path));
}

static void files_write(const struct image *db, const struct image *log)
{
    files_clear();
    image_write("replicad.db", db);
    if (log)
        image_write("replicad.db-wal", log);
}

static void prepare(void)
{
    files_make_dirty();
    image_read("replicad.db", &database);
    image_read("replicad.db-wal", &wal);
}

static unsigned rounds_of(unsigned usual)
{
    const char *given = getenv("REPLICAD_ROUNDS");

    return given ? (unsigned)strtoul(given, NULL, 10) : usual;
}

Test(damage, nothing_is_wrong)
{
    prepare();
    files_write(&database, &wal);
    open_and_look();
    files_write(&database, NULL);
    open_and_look();
    cr_assert_eq(opened, 2);
}

Test(damage, cut_short)
{
    uint64_t seed = seed_take("damage");
    static struct image cut;

    prepare();
    for (unsigned i = 0; i < rounds_of(60); i++) {
        bool log = i % 2;
        cut = log ? wal : database;
        cut.length = seed_below(&seed, 3)
                ? seed_below(&seed, cut.length / 512 + 1) * 512
                : seed_below(&seed, cut.length + 1);
        files_write(log ? &database : &cut, log ? &cut : &wal);
        open_and_look();
    }
    cr_log_info("%u opened, %u moved aside, %u refused", opened, aside, refused);
    cr_assert(opened && aside);
}

Test(damage, bits_turned)
{
    uint64_t seed = seed_take("damage");
    static struct image a, b;

    prepare();
    for (unsigned i = 0; i < rounds_of(150); i++) {
        unsigned bits = 1 + (unsigned)seed_below(&seed, 4);
        a = database;
        b = wal;
        while (bits--) {
            struct image *turned = seed_below(&seed, 3) ? &a : &b;
            size_t at = seed_below(&seed, seed_below(&seed, 6) ? turned->length : 200);
            turned->bytes[at] ^= (unsigned char)(1u << seed_below(&seed, 8));
        }
        files_write(&a, i % 3 ? NULL : &b);
        open_and_look();
    }
    cr_log_info("%u opened, %u moved aside, %u refused", opened, aside, refused);
    cr_assert(opened && aside);
}

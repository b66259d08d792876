/* tests/store/rig.c - without Criterion: the stress and crash programs use it too. */
#include "tests/store/rig.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/directory.h"

static void must(bool condition, const char *words)
{
    if (condition)
        return;
    perror(words);
    abort();
}

void rig_make(struct rig *rig)
{
    const char *base = getenv("TMPDIR");

    memset(rig, 0, sizeof(*rig));
    snprintf(rig->directory, sizeof(rig->directory), "%s/store-XXXXXX",
            base && *base ? base : "/tmp");
    must(mkdtemp(rig->directory) != NULL, "mkdtemp");
}

void rig_open(struct rig *rig)
{
    struct fault fault = { 0 };
    bool quarantined = false;
    int error = store_open(rig->directory, &rig->store, &quarantined, &fault);

    if (error || quarantined) {
        fprintf(stderr, "store_open: %d, quarantined %d: %s\n", error, quarantined,
                fault.why);
        abort();
    }
}

void rig_close(struct rig *rig)
{
    store_close(rig->store);
    rig->store = NULL;
}

void rig_remove(struct rig *rig)
{
    rig_close(rig);
    must(tree_remove(rig->directory) == 0, rig->directory);
}

const char *rig_path(const struct rig *rig, const char *name, char path[RIG_PATH])
{
    must(snprintf(path, RIG_PATH, "%s/%s", rig->directory, name) < RIG_PATH, name);
    return path;
}

unsigned rig_names(const struct rig *rig, const char *part)
{
    DIR *directory = opendir(rig->directory);
    struct dirent *entry;
    unsigned count = 0;

    must(directory != NULL, rig->directory);
    while ((entry = readdir(directory)))
        count += strstr(entry->d_name, part) != NULL;
    closedir(directory);
    return count;
}

int rig_put(struct rig *rig, enum store_table table, const void *row)
{
    return store_apply(rig->store, &(struct store_change){ STORE_PUT, table, row }, 1);
}

int rig_delete(struct rig *rig, enum store_table table, const void *row)
{
    return store_apply(
            rig->store, &(struct store_change){ STORE_DELETE, table, row }, 1);
}

struct uuid rig_id(uint64_t n)
{
    struct uuid id;

    snprintf(id.text, sizeof(id.text), "00000000-0000-7000-8000-%012" PRIx64,
            n & 0xffffffffffff);
    return id;
}

/* -- rows from descriptors ------------------------------------------------------------- */

/* Two, three and four bytes of UTF-8, quotes, what SQL and JSON would trip over. */
static const char pieces[][12] = { "a", "Z", "0", "'", "\"", "\\", "%", ";--", "\n",
    "\t", "\x01", "é", "ß", "漢", "字", "🐘", "\xc3", "\xff" };
enum { PIECES = sizeof(pieces) / sizeof(pieces[0]), LONG_MAX_BYTES = 65536 };

static void text_random(char *text, size_t size, uint64_t *seed)
{
    size_t most = seed_below(seed, 4) ? seed_below(seed, size) : size - 1;
    size_t length = 0;

    for (;;) {
        const char *piece = pieces[seed_below(seed, PIECES)];
        if (length + strlen(piece) > most)
            break;
        memcpy(text + length, piece, strlen(piece));
        length += strlen(piece);
    }
    text[length] = 0;
}

static void text_fill(char *text, size_t size, enum rig_values values, uint64_t *seed)
{
    memset(text, 0, size);
    if (values == RIG_LARGEST)
        memset(text, 'x', size - 1);
    else if (values == RIG_SMALLEST)
        text[0] = ' ';
    else if (values == RIG_RANDOM)
        text_random(text, size, seed);
}

static uint64_t number_fill(
        enum field_kind kind, enum rig_values values, uint64_t *seed)
{
    static const uint64_t edges[] = { 0, 1, 255, 256, 0x7fffffff, 0x80000000,
        0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff };

    if (values == RIG_ZERO)
        return 0;
    if (values == RIG_LARGEST)
        return kind == FIELD_NUMBER ? INT64_MAX : UINT64_MAX;
    if (values == RIG_SMALLEST)
        return kind == FIELD_NUMBER ? (uint64_t)INT64_MIN : 1;
    if (seed_below(seed, 2))
        return edges[seed_below(seed, sizeof(edges) / sizeof(edges[0]))];
    return seed_next(seed);
}

static void field_fill(const struct field *field, enum rig_values values,
        uint64_t *seed, union store_row *row)
{
    static char longs[4][LONG_MAX_BYTES + 1];
    static unsigned next;
    char *place = (char *)row + field->offset;
    uint64_t number;

    if (field->kind == FIELD_LONG) {
        char *text = longs[next++ % 4];
        text_fill(text, LONG_MAX_BYTES + 1, values, seed);
        memcpy(place, &text, sizeof(text));
    } else if (field->kind >= FIELD_UUID) {
        text_fill(place, field->size, values, seed);
    } else if (field->kind == FIELD_FLAG) {
        *(bool *)(void *)place = number_fill(field->kind, values, seed) & 1;
    } else {
        number = number_fill(field->kind, values, seed);
        memcpy(place, &number, sizeof(number));
    }
}

void rig_fill(enum store_table word, enum rig_values values, uint64_t id,
        uint64_t *seed, union store_row *row)
{
    const struct table *table = table_of(word);
    struct uuid key = rig_id(id);

    memset(row, 0, sizeof(*row));
    for (unsigned i = 1; i < table->count; i++)
        field_fill(&table->fields[i], values, seed, row);
    if (word == STORE_EVENT)
        row->event.number = (int64_t)id;
    else
        memcpy(row, key.text, sizeof(key.text));
}

static const char *text_at(const struct field *field, const void *row)
{
    const char *text = (const char *)row + field->offset;

    if (field->kind == FIELD_LONG)
        memcpy(&text, (const char *)row + field->offset, sizeof(text));
    return text ? text : "";
}

bool rig_equal(enum store_table word, const void *a, const void *b)
{
    const struct table *table = table_of(word);

    for (unsigned i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        bool same = field->kind >= FIELD_UUID
                ? strcmp(text_at(field, a), text_at(field, b)) == 0
                : memcmp((const char *)a + field->offset,
                          (const char *)b + field->offset, field->size) == 0;
        if (!same) {
            fprintf(stderr, "%s.%s differs\n", table->name, field->name);
            return false;
        }
    }
    return true;
}

const char *rig_key(enum store_table table, const void *row)
{
    static char number[24];
    const struct store_event *event = row;

    if (table != STORE_EVENT)
        return row;
    snprintf(number, sizeof(number), "%" PRId64, event->number);
    return number;
}

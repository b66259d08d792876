/* tests/store/rig.h - a store in a directory of its own, and rows to put into it. */
#ifndef TESTS_STORE_RIG_H
#define TESTS_STORE_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "store/inside.h"
#include "tests/support/seed.h"

enum { RIG_PATH = 256 };

struct rig {
    char directory[RIG_PATH];
    struct store *store;
};

/** An empty directory under TMPDIR. Ends the test when it cannot. */
void rig_make(struct rig *rig);
/** Opens the store in it; must succeed, not quarantined. */
void rig_open(struct rig *rig);
void rig_close(struct rig *rig);
/** Closes, and removes the directory with all in it. */
void rig_remove(struct rig *rig);

/** The path of a file in the directory, in @path. */
const char *rig_path(const struct rig *rig, const char *name, char path[RIG_PATH]);

/** How many names in the directory hold @part. */
unsigned rig_names(const struct rig *rig, const char *part);

/** Put one row, in a transaction of its own or in the open one. */
int rig_put(struct rig *rig, enum store_table table, const void *row);
int rig_delete(struct rig *rig, enum store_table table, const void *row);

/** An id that is the @n-th in the order of ids, "00000000-0000-7000-8000-%012x". */
struct uuid rig_id(uint64_t n);

/** Ways to fill a row: see rig_fill(). */
enum rig_values { RIG_ZERO, RIG_LARGEST, RIG_SMALLEST, RIG_RANDOM, RIG_VALUES };

/**
 * Fill every field of a row by its descriptor: nothing at all, the longest texts and the
 * largest numbers, one character and the smallest numbers, or chance. @id becomes the key
 * (events: the number). Long texts are static.
 */
void rig_fill(enum store_table table, enum rig_values values, uint64_t id,
        uint64_t *seed, union store_row *row);

/** Are they equal, field by field, long texts by what they say? */
bool rig_equal(enum store_table table, const void *a, const void *b);

/** The key of a row, as store_get() takes it; an event's number in text of its own. */
const char *rig_key(enum store_table table, const void *row);

#endif

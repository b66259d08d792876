/* replica/copy/differences.h - where two devices differ, in the order of their bytes.
 *
 * A value: what a comparison has found so far, to be kept with its position and given back
 * to the one that goes on. No state of its own, any thread.
 */
#ifndef REPLICA_COPY_DIFFERENCES_H
#define REPLICA_COPY_DIFFERENCES_H

#include <stdint.h>

enum { DIFFERENCES_KEPT = 16 };

struct differences {
    uint64_t bytes, ranges; /* all that were found */
    uint64_t end; /* bytes: of the last range, which what follows may continue */
    unsigned kept; /* the first ranges, at most DIFFERENCES_KEPT */
    struct {
        uint64_t offset, length; /* bytes, whole blocks but for what reaches the end */
    } first[DIFFERENCES_KEPT];
};

/** A range more, behind all of them or where the last one ends: then it is the same one. */
void differences_add(struct differences *found, uint64_t offset, uint64_t length);

/**
 * Compare @length bytes of @a and @b, whose place in the devices is @offset, in blocks of
 * @grain bytes (the last may be shorter), and add what differs.
 */
void differences_find(struct differences *found, const uint8_t *a, const uint8_t *b,
        uint64_t offset, uint64_t length, uint64_t grain);

#endif

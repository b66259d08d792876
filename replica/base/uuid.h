/* replica/base/uuid.h - UUIDv7 (RFC 9562, 5.7): ids that sort by the time of their
 * making. */
#ifndef REPLICA_BASE_UUID_H
#define REPLICA_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

enum { UUID_TEXT = 37 }; /* 36 characters and NUL, lower case */

/** An id as it is stored and shown. A value: copied by assignment. Empty text = none.
 */
struct uuid {
    char text[UUID_TEXT];
};

/**
 * A new UUIDv7. Ids made by one process grow strictly, also within one millisecond and
 * when the wall clock steps back. Any thread. Randomness from getrandom(), drawn ahead for
 * some ids at once; not from both sides of a fork().
 */
struct uuid uuid_make(void);

/** The smallest id that uuid_make() could give at @wall_ms: a bound for `id >= ?`. */
struct uuid uuid_floor(int64_t wall_ms);

/** Takes 36 characters in either case, any version; writes lower case. False for
 * anything else. */
bool uuid_parse(const char *text, struct uuid *uuid);

bool uuid_is_none(const struct uuid *uuid);
bool uuid_equal(const struct uuid *a, const struct uuid *b);

#endif

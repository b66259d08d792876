/* api/json/writer.h - answers: members in, JSON text out. One thread a writer. */
#ifndef API_JSON_WRITER_H
#define API_JSON_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/cim/cim.h"

/** Starts inside one top-level object. Out of memory is remembered and told by finish. */
struct writer;

/** Owned by the caller: writer_finish() or writer_destroy(). NULL: out of memory. */
struct writer *writer_create(void);
void writer_destroy(struct writer *writer);

/* In an array @name is NULL. Members keep the order of the calls. */
void writer_text(
        struct writer *writer, const char *name, const char *value); /* NULL: null */
void writer_number(struct writer *writer, const char *name,
        uint64_t value); /* above 2^63-1: capped */
void writer_signed(struct writer *writer, const char *name, int64_t value);
void writer_flag(struct writer *writer, const char *name, bool value);
void writer_null(struct writer *writer, const char *name);
/** RFC 3339 UTC; 0: null. */
void writer_time(struct writer *writer, const char *name, int64_t wall_ms);
/** The number under @name and its name under @name"Name". */
void writer_cim(
        struct writer *writer, const char *name, enum cim_map map, int64_t value);
/** "/collection/ID"; null when @id is empty. */
void writer_path(struct writer *writer, const char *name, const char *collection,
        const char *id);
/** JSON text taken as it is; null when empty; not JSON: our own bug. */
void writer_json(struct writer *writer, const char *name, const char *text);
void writer_object(struct writer *writer, const char *name);
void writer_array(struct writer *writer, const char *name);
void writer_end(struct writer *writer); /* closes the innermost object or array */

/** Takes the writer. Owned by the caller, free(); NULL: out of memory, as when *@writer is NULL.
    @length may be NULL. */
char *writer_finish(struct writer **writer, size_t *length);

#endif

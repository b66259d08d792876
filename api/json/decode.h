/* api/json/decode.h - what the decoders share. Private to api/json. No state, any thread. */
#ifndef API_JSON_DECODE_H
#define API_JSON_DECODE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "api/json/body.h"
#include "api/json/goal.h"

/** Before any other use of jansson, which then never sees memory end. */
void memory_start(void);
/** Takes a text of jansson's: what the caller may free(), or NULL: out of memory. */
char *memory_let_go(char *text);

/** What becomes of a number that 64 bits cannot hold. */
enum huge {
    HUGE_AS_REAL, /* a real, which no member takes: refused where it stands */
    HUGE_AS_STRING /* its digits, for people */
};

/**
 * One JSON object out of @bytes: depth, UTF-8, NUL and duplicate keys checked. Owned by the
 * caller. NULL: problem added under @pointer, or out of memory and no problem.
 */
json_t *scan_object(const char *bytes, size_t length, enum huge huge,
        const char *pointer, struct body_problems *problems);

/** @object as text with sorted keys. Owned by the caller, free(). */
char *scan_canonical(const json_t *object);

/** Length of a valid UTF-8 prefix of @bytes (NUL is no valid character here). */
size_t utf8_valid(const char *bytes, size_t length);
/** Has it a control character (C0, DEL, C1)? @text is valid UTF-8. */
bool utf8_has_control(const char *text);
/** Drops an incomplete last character. */
void utf8_trim(char *text);

enum { POINTER_MAX = 128 };
/** @base"/"@name with ~ and / escaped (RFC 6901), cut at a whole character. */
void pointer_join(char out[POINTER_MAX], const char *base, const char *name);
void pointer_index(char out[POINTER_MAX], const char *base, size_t index);

/** Properties of @object into @goal, which has its defaults. */
int goal_from_object(json_t *object, const char *pointer, struct goal *goal,
        struct body_problems *problems);
/** One property; a name that no class knows is a problem. */
void goal_property(struct goal *goal, const char *name, json_t *value,
        const char *pointer, struct body_problems *problems);
/** The spelling of a property in any case; NULL: there is none. */
const char *goal_spelling(const char *name);

/**
 * MOF text into an object of its properties. Owned by the caller. NULL: problem added under
 * @pointer, or out of memory and no problem.
 */
json_t *mof_parse(const char *text, size_t length, const char *pointer,
        struct body_problems *problems);

/** One member's value into its place in @into. -ENOMEM, or 0: problems are in @problems. */
int member_decode(const struct body_member *member, json_t *value, void *into,
        struct body_problems *problems);

#endif

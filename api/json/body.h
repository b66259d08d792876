/* api/json/body.h - request bodies: bytes in, members of a struct out, or problems.
 *
 * Table driven: a method lists its members once. Any thread; no state.
 */
#ifndef API_JSON_BODY_H
#define API_JSON_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/cim/cim.h"
#include "api/json/goal.h"

enum { BODY_TEXT_MAX = 512, BODY_LIST_MAX = 16, BODY_PROBLEMS_MAX = 16 };

enum body_type {
    BODY_TEXT, /* char[@max + 1]; at least @min bytes; valid UTF-8, no control characters */
    BODY_NUMBER, /* uint64_t in @min..@max; JSON integers only (not 4.0, not "4") */
    BODY_FLAG, /* bool */
    BODY_CIM, /* int64_t: a uint16 0..65535 as a number, or a name of @map. Whether the
                       value is legal is the method's to say */
    BODY_REFERENCE, /* char[UUID_TEXT]: "/collection/ID" or a bare id; the id is kept, lower case */
    BODY_NAMED, /* char[@max + 1]: "/collection/NAME" or a bare name (pools) */
    BODY_GOAL, /* struct goal: object, or a string of JSON or MOF text */
    BODY_TEXTS, /* struct body_texts: array of @min..@max strings (0: BODY_LIST_MAX), each
                       1..255 bytes, no control characters */
    BODY_PROPERTIES, /* struct goal: all members that no row names are a Goal's properties
                       (/settings). @name is not used; given: at least one was there */
};

struct body_texts {
    unsigned count;
    char text[BODY_LIST_MAX][256];
};

/** Must a member be there, and what is a null, which of a PATCH removes (RFC 7396)? */
enum body_need {
    BODY_OPTIONAL, /* a null is the same as no member */
    BODY_REQUIRED, /* absent or null: a problem */
    BODY_KEPT, /* optional; null: a problem, it cannot be removed */
    BODY_CLEARED, /* optional; null: given, and the value stays zero */
};

struct body_member {
    const char *name;
    enum body_type type;
    enum body_need need;
    size_t offset; /* of the value in the struct */
    size_t given; /* offset of a bool, set when the member was there (and see need) */
    uint64_t min, max;
    enum cim_map map;
    const char *collection; /* REFERENCE, NAMED: "elements" */
};

struct body_problem {
    bool unsupported; /* known, but this build does not act on it: answers 1, not 5 */
    char pointer[128]; /* JSON pointer, RFC 6901 */
    char detail[200];
};

struct body_problems {
    unsigned count;
    struct body_problem list[BODY_PROBLEMS_MAX];
};

/** Adds one; ignored when full. */
void body_problem_add(struct body_problems *problems, bool unsupported,
        const char *pointer, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

/**
 * Decode one JSON object into @into (which the caller has zeroed). Returns 0; -EBADMSG: no
 * JSON object, a key given twice, nested deeper than 16, invalid UTF-8, a NUL, trailing
 * bytes: the call never reached the method (problems->list[0] says where); -EINVAL: members
 * are wrong, each in @problems; unknown members too; -ENOMEM. An empty body is an empty
 * object when nothing is required. A number too large for 64 bits is a wrong member, not bad
 * JSON. Every BODY_GOAL and BODY_PROPERTIES starts as goal_init() leaves it, given or not.
 */
int body_decode(const char *bytes, size_t length, const struct body_member *members,
        size_t count, void *into, struct body_problems *problems);

/**
 * The same JSON with sorted keys and no white space: for fingerprints and InParameters.
 * Nothing at all is "{}"; a number too large for 64 bits stands as a string. Owned by the
 * caller, free(). NULL when it is no JSON object.
 */
char *body_canonical(const char *bytes, size_t length);

/** Reads "/collection/ID" or a bare UUID; lower case into @id. False for anything else. */
bool body_reference(const char *text, const char *collection, char id[37]);

/**
 * @patch (RFC 7396: null removes) over the JSON object @text, as canonical text. Owned by the
 * caller, free(). NULL when either is no JSON object, or out of memory.
 */
char *body_patch(const char *text, const char *patch, size_t length);

#endif

/* tests/api/rig.h - a whole service in a directory of its own, called in process. */
#ifndef TESTS_API_RIG_H
#define TESTS_API_RIG_H

#include <jansson.h>

#include "api/api.h"
#include "tests/support/directory.h"
#include "tests/support/expect.h"

struct rig {
    struct directory directory;
    char data[300], pool[300], other[300], credentials[300];
    struct api_pool pools[2]; /* "default" and "alpha" */
    struct api_options options;
    struct service *service;
};

/** Fills the options; change them before rig_start(). */
void rig_make(struct rig *rig);
void rig_start(struct rig *rig);
/** Drains and destroys; the directory stays: rig_start() is a restart. */
void rig_stop(struct rig *rig);
void rig_remove(struct rig *rig);

/** What came of a call. answer_release(). */
struct answer {
    struct api_outcome outcome;
    json_t *json; /* body, or the problem document of an error; NULL: none */
};

/** What a call is given beside its body; all may be NULL. */
struct asked {
    const char *id, *key, *if_match, *if_none_match;
    const char *query; /* "name=value&name=value", not encoded */
    int wait_s; /* 0: not asked */
};

/** @body: JSON text or NULL. */
struct answer rig_call(
        struct rig *rig, enum api_call call, struct asked asked, const char *body);
struct answer rig_callf(struct rig *rig, enum api_call call, struct asked asked,
        const char *format, ...) __attribute__((format(printf, 4, 5)));
void answer_release(struct answer *answer);

const char *answer_text(const struct answer *answer, const char *member);
long long answer_number(const struct answer *answer, const char *member);

/** The verdict by its name; and the return value. */
#define expect_answer(given, wanted, value)                                            \
    do {                                                                               \
        struct answer *expect_answer_of = (given);                                     \
        cr_assert(expect_answer_of->outcome.verdict == API_##wanted &&                 \
                        expect_answer_of->outcome.return_value == (value),             \
                "%s: verdict %s, value %d: %s", #given,                                \
                verdict_name(expect_answer_of->outcome.verdict),                       \
                expect_answer_of->outcome.return_value,                                \
                answer_detail(expect_answer_of));                                      \
    } while (0)
const char *verdict_name(enum api_verdict verdict);
const char *answer_detail(const struct answer *answer);

/** The answer's first pointer is @pointer. */
void expect_pointer(const struct answer *answer, const char *pointer);

/** A new element of @size bytes in the pool "default"; its id into @id. */
void rig_element(
        struct rig *rig, const char *type, unsigned long long size, char id[37]);

/** A file of @size bytes of one value in the pool "default", made behind the service's back. */
void rig_file(struct rig *rig, const char *name, size_t size, int value);

#endif

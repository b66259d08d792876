/* tests/support/expect.h - Criterion's assert for values of whatever type, in plain words.
 *
 * Criterion's own eq() takes no const strings without a warning and shows no text of ours.
 */
#ifndef TESTS_SUPPORT_EXPECT_H
#define TESTS_SUPPORT_EXPECT_H

#include <criterion/criterion.h>
#include <string.h>

/** Two numbers of any integer type. */
#define expect_eq(actual, wanted)                                                      \
    do {                                                                               \
        long long expect_a = (long long)(actual), expect_w = (long long)(wanted);      \
        cr_assert(expect_a == expect_w, "%s is %lld, not %lld", #actual, expect_a,     \
                expect_w);                                                             \
    } while (0)

#define expect_str(actual, wanted)                                                     \
    do {                                                                               \
        const char *expect_a = (actual), *expect_w = (wanted);                         \
        cr_assert(strcmp(expect_a, expect_w) == 0, "%s is \"%s\", not \"%s\"",         \
                #actual, expect_a, expect_w);                                          \
    } while (0)

#define expect(condition) cr_assert((condition) ? 1 : 0, "%s", #condition)

#endif

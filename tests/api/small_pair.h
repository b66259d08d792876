/* tests/api/small_pair.h - for suites that need no more than one service with a source of
 * noise and a target twice as large.
 */
#ifndef TESTS_API_SMALL_PAIR_H
#define TESTS_API_SMALL_PAIR_H

#include "tests/api/pairs.h"

enum { SIZE = 256 * 1024 }; /* of the source */

extern struct rig rig;
extern char source[37], target[37];

/** .init and .fini of the suite. */
void small_pair_begin(void);
void small_pair_end(void);

#endif

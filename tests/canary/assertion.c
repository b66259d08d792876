/* A test whose assertion is false: the runner must say so and exit non-zero. */
#include <criterion/criterion.h>

Test(canary, asserts_what_is_false)
{
    volatile int one = 1;
    cr_assert(one == 2, "one is not two");
}

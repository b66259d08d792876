/* A test that overflows an int: under UBSan it must fail, not only print. */
#include <criterion/criterion.h>
#include <limits.h>

Test(canary, overflows_an_int)
{
    volatile int big = INT_MAX;
    volatile int more = big + 1;
    cr_assert(more != 0);
}

/* A test that reads past a heap block: under AddressSanitizer it must fail. */
#include <criterion/criterion.h>
#include <stdlib.h>

Test(canary, reads_past_the_end)
{
    volatile char *block = malloc(16);
    volatile int past = 16;
    char c = block[past];
    free((void *)block);
    cr_assert(c == c);
}

/* A test that leaks: under LeakSanitizer it must fail. Without abort_on_error Criterion
 * reports success over the printed leak. */
#include <criterion/criterion.h>
#include <stdlib.h>

static void *volatile kept;

Test(canary, leaks)
{
    kept = malloc(123);
    kept = NULL;
    cr_assert(kept == NULL);
}

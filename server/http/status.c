#include "server/http/status.h"

#include <string.h>

#include "replica/base/check.h"

/* Designated by verdict, so a verdict without a row is 0 and the check below ends us at the
   first start of a build that forgot one; the tests walk them all. */
static const int statuses[API_VERDICT_COUNT] = {
    [API_DONE] = 200,
    [API_MADE] = 201,
    [API_STARTED] = 202,
    [API_GONE] = 204,
    [API_NOT_MODIFIED] = 304,
    [API_NOT_SUPPORTED] = 501,
    [API_INTERNAL] = 500,
    [API_TIMEOUT] = 504,
    [API_FAR_SIDE] = 502,
    [API_NO_SPACE] = 507,
    [API_STATE] = 409,
    [API_FAILED] = 500,
    [API_INVALID] = 422,
    [API_NO_REFERENCE] = 404,
    [API_IN_USE] = 409,
    [API_NOT_FOUND] = 404,
    [API_MALFORMED] = 400,
    [API_PRECONDITION] = 412,
    [API_KEY_REUSED] = 422,
    [API_KEY_BUSY] = 409,
    [API_OVERLOADED] = 503,
};

int status_of(enum api_verdict verdict)
{
    check(verdict < API_VERDICT_COUNT && statuses[verdict] != 0);
    return statuses[verdict];
}

const struct problem_page problem_pages[] = {
#define PROBLEM(slug, title, status, text) { slug, title, status, text },
#include "server/http/problems.tbl.h"
#undef PROBLEM
};

const size_t problem_page_count = sizeof(problem_pages) / sizeof(problem_pages[0]);

const struct problem_page *problem_page_find(const char *slug)
{
    for (size_t i = 0; i < problem_page_count; i++)
        if (strcmp(problem_pages[i].slug, slug) == 0)
            return &problem_pages[i];
    return NULL;
}

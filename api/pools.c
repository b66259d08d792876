/* api/pools.c - /pools: the directories that elements are allocated in. They come from
 * the options and change only with a restart; what is free in them changes all the
 * time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/resource.h"
#include "replica/base/digest.h"
#include "replica/base/scope.h"

static void pool_render(struct call *call, struct writer *writer,
        const struct api_pool *pool, const struct engine_pool_figures *figures)
{
    char self[STORE_WORD + 8];

    (void)snprintf(self, sizeof(self), "/pools/%s", pool->name);
    writer_text(writer, "Id", pool->name);
    writer_text(writer, "Self", self);
    writer_text(writer, "PoolID", pool->name);
    writer_text(writer, "ElementName", pool->name);
    writer_flag(writer, "Primordial", false);
    writer_flag(writer, "Default", pool == &call->service->options.pools[0]);
    if (figures) {
        writer_number(writer, "TotalManagedSpace", figures->total);
        writer_number(writer, "RemainingManagedSpace", figures->remaining);
        writer_flag(writer, "CanClone", figures->can_clone);
    } else {
        writer_null(writer, "TotalManagedSpace");
        writer_null(writer, "RemainingManagedSpace");
        writer_null(writer, "CanClone");
    }
    writer_cim(writer, "HealthState", CIM_HEALTH_STATE,
            figures ? CIM_HEALTH_OK : CIM_HEALTH_MAJOR_FAILURE);
}

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 500 };

/** A cursor is the number of the page's first pool: pools change only by a restart. */
struct pool_page {
    size_t first, limit;
};

static bool number_parse(const char *text, size_t low, size_t high, size_t *number)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 9 || text[digits])
        return false;
    *number = strtoul(text, NULL, 10);
    return *number >= low && *number <= high;
}

static bool page_parse(struct call *call, struct pool_page *page)
{
    const struct api_request *request = call->request;
    size_t last = call->service->options.pool_count - 1;

    for (size_t i = 0; i < request->query_count; i++) {
        const char *name = request->query[i].name, *value = request->query[i].value;
        bool good;

        if (strcmp(name, "limit") == 0) {
            good = number_parse(value, 1, LIMIT_MAX, &page->limit);
        } else if (strcmp(name, "cursor") == 0) {
            good = number_parse(value, 1, last, &page->first);
        } else {
            call_malformed(call, "There is no parameter %.60s here", name);
            return false;
        }
        if (!good) {
            call_malformed(call, "%s is not one that this list takes", name);
            return false;
        }
    }
    return true;
}

static void pools_render(
        struct call *call, struct writer *writer, size_t first, size_t end)
{
    const struct api_pool *pools = call->service->options.pools;

    writer_array(writer, "Members");
    for (size_t i = first; i < end; i++) {
        struct engine_pool_figures figures;
        bool good = engine_pool_figures(
                            call->service->engine, pools[i].name, &figures) == 0;

        writer_object(writer, NULL);
        pool_render(call, writer, &pools[i], good ? &figures : NULL);
        writer_end(writer);
    }
    writer_end(writer);
}

/** In the order of the configuration: the first is the default. */
void call_POOLS_LIST(struct call *call)
{
    size_t count = call->service->options.pool_count, end = count;
    struct pool_page page = { .limit = LIMIT_DEFAULT };
    char *next = call->outcome->next;
    struct writer *writer;

    if (!page_parse(call, &page))
        return;
    if (!(writer = writer_create())) {
        outcome_fail(call->outcome, API_OVERLOADED, -1, "out of memory");
        return;
    }
    if (page.limit < count - page.first) {
        end = page.first + page.limit;
        (void)snprintf(next, sizeof(call->outcome->next), "/pools?cursor=%zu&limit=%zu",
                end, page.limit);
    }
    pools_render(call, writer, page.first, end);
    writer_text(writer, "Next", *next ? next : NULL);
    call->outcome->verdict = API_DONE;
    outcome_body(call->outcome, &writer);
}

/** What is free changes without a revision: the tag is a digest of the figures. */
static int64_t pool_tag(const struct engine_pool_figures *figures)
{
    uint64_t facts[] = { figures->total, figures->remaining, figures->can_clone };

    return (int64_t)(digest_xxh3(facts, sizeof(facts)).low >> 1);
}

void call_POOL_GET(struct call *call)
{
    const char *name = call->request->id;
    const struct api_pool *pool = name ? pool_find(call->service, name) : NULL;
    struct engine_pool_figures figures;
    struct writer *writer;
    struct fault fault = { 0 };

    if (!call_no_query(call))
        return;
    if (!pool) {
        outcome_fail(call->outcome, API_NOT_FOUND, -1, "There is no pool of that name");
        return;
    }
    fault.error = engine_pool_figures(call->service->engine, pool->name, &figures);
    if (fault.error) {
        outcome_engine(call->outcome, &fault, "the pool", "pool:");
        call->outcome->return_value = -1;
        return;
    }
    if (outcome_if_none_match(call, pool_tag(&figures)))
        return;
    if ((writer = writer_create()))
        pool_render(call, writer, pool, &figures);
    call->outcome->verdict = API_DONE;
    outcome_etag(call->outcome, pool_tag(&figures));
    outcome_body(call->outcome, &writer);
}

/* replica/engine_files.c - the files of the pools, by the names that addresses use. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/block/address.h"
#include "replica/block/pool.h"
#include "replica/engine_inside.h"

int engine_pools_open(struct engine *engine, const struct engine_options *options,
        struct fault *fault)
{
    engine->pools = calloc(options->pool_count + 1, sizeof *engine->pools);
    if (!engine->pools)
        return fault_set(fault, -ENOMEM, "out of memory");
    for (size_t i = 0; i < options->pool_count; i++) {
        struct pool *pool = &engine->pools[engine->pool_count++];
        pool->directory = -1;
        pool->name = strdup(options->pools[i].name);
        if (!pool->name)
            return fault_set(fault, -ENOMEM, "out of memory");
        pool->directory = pool_open(options->pools[i].path, fault);
        if (pool->directory < 0)
            return pool->directory;
        pool->can_clone = pool_can_clone(pool->directory);
    }
    return 0;
}

void engine_pools_close(struct engine *engine)
{
    for (size_t i = 0; i < engine->pool_count; i++) {
        if (engine->pools[i].directory >= 0)
            (void)close(engine->pools[i].directory);
        free(engine->pools[i].name);
    }
    free(engine->pools);
}

const struct pool *engine_pool_find(const struct engine *engine, const char *name)
{
    for (size_t i = 0; i < engine->pool_count; i++)
        if (strcmp(engine->pools[i].name, name) == 0)
            return &engine->pools[i];
    return NULL;
}

static int pool_of(const struct engine *engine, const char *name, struct fault *fault)
{
    const struct pool *pool = engine_pool_find(engine, name);

    if (!pool)
        return fault_set(fault, -ENXIO, "there is no pool named \"%s\"", name);
    return pool->directory;
}

int engine_file_create(struct engine *engine, const char *pool, const char *name,
        uint64_t size, bool reserve, struct fault *fault)
{
    int directory = pool_of(engine, pool, fault);

    return directory < 0 ? directory
                         : pool_create(directory, name, size, reserve, fault);
}

int engine_file_clone(struct engine *engine, const char *source_address,
        const char *pool, const char *name, uint64_t size, struct fault *fault)
{
    int directory = pool_of(engine, pool, fault), from;
    struct address source;

    if (directory < 0)
        return directory;
    if (address_parse(source_address, &source, fault) < 0)
        return -EINVAL;
    if (source.kind != ADDRESS_POOL_FILE)
        return fault_set(fault, -EXDEV, "only a pool's file can be cloned");
    from = pool_of(engine, source.pool, fault);
    return from < 0 ? from
                    : pool_clone(from, source.file, directory, name, size, fault);
}

int engine_file_remove(
        struct engine *engine, const char *pool, const char *name, struct fault *fault)
{
    int directory = pool_of(engine, pool, fault);

    return directory < 0 ? directory : pool_remove(directory, name, fault);
}

int engine_pool_figures(
        struct engine *engine, const char *pool, struct engine_pool_figures *figures)
{
    const struct pool *found = engine_pool_find(engine, pool);

    if (!found)
        return -ENXIO;
    figures->can_clone = found->can_clone;
    return pool_space(found->directory, &figures->total, &figures->remaining);
}

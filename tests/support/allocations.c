#include "tests/support/allocations.h"

#include <stdatomic.h>
#include <stdlib.h>

#ifndef __has_feature /* gcc says it in macros */
#define __has_feature(feature) 0
#endif

static _Thread_local bool watched;
static atomic_bool all_watched;
static atomic_uint_fast64_t allocations;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                   \
        __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
const bool allocations_are_counted = false;
#else
const bool allocations_are_counted = true;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static void count(void)
{
    if (watched || atomic_load_explicit(&all_watched, memory_order_relaxed))
        atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
}

__attribute__((visibility("default"))) void *malloc(size_t size)
{
    count();
    return __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t number, size_t size)
{
    count();
    return __libc_calloc(number, size);
}

__attribute__((visibility("default"))) void *realloc(void *old, size_t size)
{
    count();
    return __libc_realloc(old, size);
}

__attribute__((visibility("default"))) void *aligned_alloc(
        size_t alignment, size_t size)
{
    count();
    return __libc_memalign(alignment, size);
}
#endif

void allocations_watch(bool counts)
{
    watched = counts;
}

void allocations_watch_all(bool counts)
{
    atomic_store(&all_watched, counts);
}

uint64_t allocations_take(void)
{
    return atomic_exchange(&allocations, 0);
}

/* replica/base/scope.h - cleanup at the end of a scope. */
#ifndef REPLICA_BASE_SCOPE_H
#define REPLICA_BASE_SCOPE_H

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

/** Run @function(&variable) when the variable's scope ends. */
#define scoped(function) __attribute__((cleanup(function)))

static inline void scope_free(void *slot)
{
    free(*(void **)slot);
}

static inline void scope_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

#define scoped_free scoped(scope_free) /* free(), NULL is fine */
#define scoped_fd scoped(scope_close) /* close(), a negative one is left alone */

/** The struct that embeds @member, from a pointer to the member. */
#define container_of(pointer, type, member)                                            \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif

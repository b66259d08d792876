/* Memory for jansson, which must not run out: where it does, 2.14 drops the character that it
 * had no room for and goes on (4096 becomes 409), or ends the process by an assertion.
 *
 * So a failed malloc() is answered out of a reserve, which is whole again when all of it has
 * been given back. What is in hand then comes to its end as it should. Only texts that would
 * leave this room inside the reserve are refused: the caller free()s them. */
#include <jansson.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "api/json/decode.h"
#include "replica/base/check.h"

enum {
    RESERVE = 4 << 20
}; /* bytes; not touched, so not there, until they are needed */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Alignas(max_align_t) char reserve[RESERVE]; /* under lock, as those below */
static size_t used, pieces;

static bool is_reserve(const void *memory)
{
    return (const char *)memory >= reserve && (const char *)memory < reserve + RESERVE;
}

static void *reserve_take(size_t size)
{
    size_t whole = (size + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
    void *memory;

    (void)pthread_mutex_lock(&lock);
    check(whole >= size && whole <= RESERVE - used); /* the end, rather than a lie */
    memory = reserve + used;
    used += whole;
    pieces++;
    (void)pthread_mutex_unlock(&lock);
    return memory;
}

static void *memory_take(size_t size)
{
    void *memory = malloc(size);

    if (!memory && size > 0)
        memory = reserve_take(size);
    return memory;
}

static void memory_give(void *memory)
{
    if (!is_reserve(memory)) {
        free(memory);
        return;
    }
    (void)pthread_mutex_lock(&lock);
    if (--pieces == 0)
        used = 0;
    (void)pthread_mutex_unlock(&lock);
}

static void start(void)
{
    json_set_alloc_funcs(memory_take, memory_give);
    json_object_seed(0); /* before threads race for it */
}

void memory_start(void)
{
    static pthread_once_t started = PTHREAD_ONCE_INIT;

    (void)pthread_once(&started, start);
}

char *memory_let_go(char *text)
{
    if (!is_reserve(text))
        return text;
    memory_give(text);
    return NULL;
}

/* A ring a thread, linked once into a list that only grows; a thread that ends leaves
 * its ring (and its last records) to the next new thread. Fields are relaxed atomics:
 * free on the machines we know, and a printer in another thread reads a mixed record at
 * worst. */
#include "replica/base/trace.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "replica/base/clock.h"

enum { RING = 512 };

struct trace_record {
    _Atomic uint64_t ns;
    const char *_Atomic where;
    _Atomic uint64_t a, b;
};

struct trace_ring {
    struct trace_ring *next; /* constant once linked */
    atomic_bool taken;
    _Atomic long thread;
    _Atomic uint64_t count; /* records ever written */
    struct trace_record records[RING];
};

static struct trace_ring *_Atomic rings;
static _Thread_local struct trace_ring *mine;
static pthread_key_t ending;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void ring_leave(void *ring)
{
    mine = NULL;
    atomic_store(&((struct trace_ring *)ring)->taken, false);
}

static void make_key(void)
{
    (void)pthread_key_create(&ending, ring_leave);
}

static struct trace_ring *ring_inherit(void)
{
    for (struct trace_ring *r = atomic_load(&rings); r; r = r->next) {
        bool taken = false;
        if (atomic_compare_exchange_strong(&r->taken, &taken, true))
            return r;
    }
    return NULL;
}

static struct trace_ring *ring_create(void)
{
    struct trace_ring *ring = calloc(1, sizeof *ring);

    if (!ring)
        return NULL;
    atomic_store(&ring->taken, true);
    ring->next = atomic_load(&rings);
    while (!atomic_compare_exchange_weak(&rings, &ring->next, ring))
        ;
    return ring;
}

static struct trace_ring *ring_find(void)
{
    struct trace_ring *ring;

    (void)pthread_once(&once, make_key);
    ring = ring_inherit();
    if (!ring)
        ring = ring_create();
    if (!ring)
        return NULL;
    atomic_store(&ring->thread, syscall(SYS_gettid));
    (void)pthread_setspecific(ending, ring);
    return mine = ring;
}

#define put(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)
#define get(field) atomic_load_explicit(&(field), memory_order_relaxed)

void trace(const char *where, uint64_t a, uint64_t b)
{
    struct trace_ring *ring = mine ? mine : ring_find();

    if (!ring) /* no memory for a ring: the record is lost, the work goes on */
        return;
    uint64_t count = get(ring->count);
    struct trace_record *record = &ring->records[count % RING];
    put(record->ns, clock_monotonic().ns);
    put(record->where, where);
    put(record->a, a);
    put(record->b, b);
    atomic_store_explicit(&ring->count, count + 1, memory_order_release);
}

/* -- printing, with nothing that a signal handler may not do ----------------------- */

struct line {
    char text[256];
    size_t length;
};

static void line_add(struct line *line, const char *text)
{
    while (*text && line->length < sizeof line->text - 1)
        line->text[line->length++] = *text++;
}

static void line_add_number(struct line *line, uint64_t value)
{
    char digits[21];
    size_t at = sizeof digits - 1;

    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    line_add(line, digits + at);
}

static void line_print(struct line *line, int fd)
{
    line->text[line->length++] = '\n';
    ssize_t ignored = write(fd, line->text, line->length);
    (void)ignored;
}

static void record_print(struct trace_record *record, int fd)
{
    struct line line = { .length = 0 };
    const char *where = get(record->where);

    line_add(&line, "  ");
    line_add_number(&line, get(record->ns));
    line_add(&line, " ");
    line_add(&line, where ? where : "?");
    line_add(&line, " ");
    line_add_number(&line, get(record->a));
    line_add(&line, " ");
    line_add_number(&line, get(record->b));
    line_print(&line, fd);
}

static void ring_print(struct trace_ring *ring, int fd)
{
    uint64_t count = atomic_load_explicit(&ring->count, memory_order_acquire);
    struct line line = { .length = 0 };

    if (count == 0)
        return;
    line_add(&line, "trace of thread ");
    line_add_number(&line, (uint64_t)get(ring->thread));
    line_print(&line, fd);
    for (uint64_t i = count > RING ? count - RING : 0; i < count; i++)
        record_print(&ring->records[i % RING], fd);
}

void trace_print(int fd)
{
    for (struct trace_ring *ring = atomic_load(&rings); ring; ring = ring->next)
        ring_print(ring, fd);
}

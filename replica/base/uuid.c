/* One atomic word holds the last id's head: 48 bits of milliseconds above a counter
 * of 12. A new id takes the larger of "now, with a fresh small counter" and "last plus
 * one", so a full counter borrows from the future and a clock that steps back is waited
 * out without waiting. RFC 9562, 6.2, method 1 with the counter in rand_a. */
#include "replica/base/uuid.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#include "replica/base/check.h"
#include "replica/base/clock.h"

enum { COUNTER_BITS = 12, COUNTER_START = 0x7ff };

static _Atomic uint64_t last_head;

/* A thread's own: a system call an id would cost more than all the rest of it. A child of
   fork() would draw the same words as its parent; ids are made in threads only. */
static _Thread_local uint64_t words[32];
static _Thread_local unsigned words_left;

static uint64_t random_word(void)
{
    uint64_t word;
    ssize_t got;

    if (words_left == 0) {
        do
            got = getrandom(words, sizeof words, 0);
        while (got < 0 && errno == EINTR);
        check(got == (ssize_t)sizeof words); /* 256 bytes are never cut short */
        words_left = sizeof words / sizeof words[0];
    }
    word = words[--words_left];
    words[words_left] = 0; /* used once */
    return word;
}

static struct uuid uuid_spell(uint64_t high, uint64_t low)
{
    static const char digits[] = "0123456789abcdef";
    struct uuid uuid;
    unsigned at = 0;

    for (unsigned nibble = 0; nibble < 32; nibble++) {
        uint64_t word = nibble < 16 ? high : low;
        if (nibble == 8 || nibble == 12 || nibble == 16 || nibble == 20)
            uuid.text[at++] = '-';
        uuid.text[at++] = digits[word >> (60 - 4 * (nibble % 16)) & 15];
    }
    uuid.text[at] = '\0';
    return uuid;
}

static struct uuid uuid_build(uint64_t head, uint64_t random)
{
    uint64_t ms = head >> COUNTER_BITS;
    uint64_t counter = head & ((1u << COUNTER_BITS) - 1);
    return uuid_spell(ms << 16 | 7u << 12 | counter, (uint64_t)1 << 63 | random >> 2);
}

struct uuid uuid_make(void)
{
    uint64_t random = random_word(), counter = random_word() & COUNTER_START;
    int64_t wall = clock_wall_ms();
    uint64_t now = (wall > 0 ? (uint64_t)wall : 0) << COUNTER_BITS | counter;
    uint64_t last = atomic_load_explicit(&last_head, memory_order_relaxed), head;

    do
        head = now > last ? now : last + 1;
    while (!atomic_compare_exchange_weak_explicit(
            &last_head, &last, head, memory_order_relaxed, memory_order_relaxed));
    return uuid_build(head, random);
}

struct uuid uuid_floor(int64_t wall_ms)
{
    return uuid_build((wall_ms > 0 ? (uint64_t)wall_ms : 0) << COUNTER_BITS, 0);
}

static bool is_dash(unsigned at)
{
    return at == 8 || at == 13 || at == 18 || at == 23;
}

bool uuid_parse(const char *text, struct uuid *uuid)
{
    struct uuid taken;

    for (unsigned at = 0; at < UUID_TEXT - 1; at++) {
        char c = text[at];
        if (c >= 'A' && c <= 'F')
            c = (char)(c - 'A' + 'a');
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (is_dash(at) ? c != '-' : !hex) /* NUL is neither: the text ends the loop */
            return false;
        taken.text[at] = c;
    }
    if (text[UUID_TEXT - 1] != '\0')
        return false;
    taken.text[UUID_TEXT - 1] = '\0';
    *uuid = taken;
    return true;
}

bool uuid_is_none(const struct uuid *uuid)
{
    return uuid->text[0] == '\0';
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return strcmp(a->text, b->text) == 0;
}

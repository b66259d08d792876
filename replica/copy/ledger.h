/* replica/copy/ledger.h - pieces begun in order, finished in any; how far all is
 * finished. */
#ifndef REPLICA_COPY_LEDGER_H
#define REPLICA_COPY_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

enum { LEDGER_ROOM = 64 };

/** Position and counters move together, so that a resumed copy counts no byte twice. */
struct tally {
    uint64_t position; /* bytes: all below is finished */
    uint64_t skipped, written;
    uint64_t equal; /* of the skipped: found equal; the rest is zeros */
};

struct ledger_entry {
    uint64_t end, skipped, written, equal;
    bool done;
};

struct ledger {
    struct tally low; /* of all the pieces before the first unfinished one */
    unsigned first, count;
    struct ledger_entry entries[LEDGER_ROOM];
};

void ledger_init(struct ledger *ledger, struct tally start);

bool ledger_full(const struct ledger *ledger);

/** A piece that ends at @end begins; returns its name for ledger_finish(). Not when
 * full. */
unsigned ledger_begin(struct ledger *ledger, uint64_t end);

/** It is finished, with so many bytes skipped (@equal of them found equal) and written;
    @ledger->low may move. */
void ledger_finish(struct ledger *ledger, unsigned entry, uint64_t skipped,
        uint64_t equal, uint64_t written);

#endif

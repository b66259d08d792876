#include "replica/copy/ledger.h"

#include "replica/base/check.h"

void ledger_init(struct ledger *ledger, struct tally start)
{
    ledger->low = start;
    ledger->first = ledger->count = 0;
}

bool ledger_full(const struct ledger *ledger)
{
    return ledger->count == LEDGER_ROOM;
}

unsigned ledger_begin(struct ledger *ledger, uint64_t end)
{
    unsigned place = (ledger->first + ledger->count) % LEDGER_ROOM;

    check(!ledger_full(ledger));
    ledger->entries[place] = (struct ledger_entry){ .end = end };
    ledger->count++;
    return place;
}

static void retire(struct ledger *ledger)
{
    const struct ledger_entry *entry = &ledger->entries[ledger->first];

    ledger->low.position = entry->end;
    ledger->low.skipped += entry->skipped;
    ledger->low.written += entry->written;
    ledger->low.equal += entry->equal;
    ledger->first = (ledger->first + 1) % LEDGER_ROOM;
    ledger->count--;
}

void ledger_finish(struct ledger *ledger, unsigned entry, uint64_t skipped,
        uint64_t equal, uint64_t written)
{
    struct ledger_entry *e = &ledger->entries[entry];

    check(entry < LEDGER_ROOM && !e->done);
    *e = (struct ledger_entry){ .end = e->end,
        .skipped = skipped,
        .written = written,
        .equal = equal,
        .done = true };
    while (ledger->count && ledger->entries[ledger->first].done)
        retire(ledger);
}

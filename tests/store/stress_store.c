/* One writer, many readers, for ThreadSanitizer: a plain program, as Criterion cannot run there.
 *
 * The writer moves an amount between rows in transactions, with undone steps, checkpoints and
 * housekeeping; every reader must find the whole amount in every list it reads.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/store/rig.h"
#include "tests/support/must.h"

enum { ACCOUNTS = 24, READERS = 12, TURNS = 300, AMOUNT = 1000 };

static struct rig rig;
static atomic_bool over;
static atomic_uint lists, gets, waits;

static int64_t shares[ACCOUNTS];

static int account_put(unsigned n)
{
    struct store_replica row = {
        .id = rig_id(n), .percent = shares[n], .sync_state = shares[n] % 3
    };

    return rig_put(&rig, STORE_REPLICA, &row);
}

static void transfer(uint64_t *seed)
{
    unsigned from = seed_below(seed, ACCOUNTS), to = seed_below(seed, ACCOUNTS);
    int64_t amount = (int64_t)seed_below(seed, 50);

    shares[from] -= amount;
    shares[to] += amount;
    must(account_put(from) == 0);
    must(account_put(to) == 0);
}

static void transfer_undone(uint64_t *seed)
{
    int64_t before[ACCOUNTS];

    memcpy(before, shares, sizeof(shares));
    must(store_mark(rig.store) == 0);
    shares[0] += 77;
    must(account_put(0) == 0);
    transfer(seed);
    must(store_undo(rig.store) == 0);
    memcpy(shares, before, sizeof(shares));
}

static void turn(unsigned n, uint64_t *seed)
{
    struct store_event event = { .time = n, .changed = "{}" };

    must(store_begin(rig.store) == 0);
    for (unsigned i = 0; i < 4; i++) {
        must(store_mark(rig.store) == 0);
        transfer(seed);
        must(store_keep(rig.store) == 0);
        if (i == 2)
            transfer_undone(seed);
        must(rig_put(&rig, STORE_EVENT, &event) == 0);
    }
    must(store_commit(rig.store) == 0);
    if (n % 16 == 3)
        must(store_checkpoint(rig.store, n % 32 == 3) == 0);
    if (n % 16 == 7)
        must(store_expire(rig.store, n > 50 ? n - 50 : 1, 100, 1, 1, 40) >= 0);
}

static bool sum_each(void *context, const void *row)
{
    *(int64_t *)context += ((const struct store_replica *)row)->percent;
    return true;
}

static bool event_each(void *context, const void *row)
{
    const struct store_event *event = row;
    int64_t *last = context;

    must(!*last || event->number == *last + 1);
    *last = event->number;
    return true;
}

static void look(struct store_reader *reader, uint64_t *seed)
{
    struct store_query query = { .table = STORE_REPLICA, .limit = 1000 };
    struct store_replica row;
    int64_t sum = 0, last = 0;

    if (seed_below(seed, 2)) {
        query.filter_count = 1;
        query.filters[0] = (struct store_filter){ .column = REPLICA_SYNC_STATE,
            .is_number = true,
            .count = 5,
            .numbers = { 0, 1, 2, -1, -2 } };
    }
    must(store_list(reader, &query, sum_each, &sum) == ACCOUNTS);
    must(sum == AMOUNT * ACCOUNTS);
    must(store_get(reader, STORE_REPLICA, rig_id(seed_below(seed, ACCOUNTS)).text,
                 &row) == 0);
    must(store_events(reader, 0, 20, event_each, &last) >= 0);
    must(store_bytes(rig.store) > 0 && !store_tight(rig.store));
    atomic_fetch_add(&lists, 1);
    atomic_fetch_add(&gets, 1);
}

static void *reader_run(void *context)
{
    uint64_t seed = *(uint64_t *)context;

    while (!atomic_load(&over)) {
        struct store_reader *reader = store_reader_take(rig.store, 50);
        if (!reader) {
            atomic_fetch_add(&waits, 1);
            continue;
        }
        for (unsigned i = 0; i < 4; i++)
            look(reader, &seed);
        store_reader_give(rig.store, reader);
    }
    return NULL;
}

int main(void)
{
    uint64_t seed = seed_take("stress_store"), seeds[READERS];
    pthread_t readers[READERS];

    rig_make(&rig);
    rig_open(&rig);
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        shares[i] = AMOUNT;
        must(account_put(i) == 0);
    }
    for (unsigned i = 0; i < READERS; i++) {
        seeds[i] = seed_next(&seed);
        must(pthread_create(&readers[i], NULL, reader_run, &seeds[i]) == 0);
    }
    for (unsigned i = 0; i < TURNS; i++)
        turn(i, &seed);
    atomic_store(&over, true);
    for (unsigned i = 0; i < READERS; i++)
        must(pthread_join(readers[i], NULL) == 0);
    must(atomic_load(&lists) > 0);
    printf("%d transactions, %u lists, %u waits without a reader\n", TURNS,
            atomic_load(&lists), atomic_load(&waits));
    rig_remove(&rig);
    return 0;
}

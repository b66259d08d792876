/* store/store.h - what is remembered: one face, SQLite behind it.
 *
 * The store knows rows and order, never what a state or a number means; no threads of its
 * own. One writer handle, used by one thread at a time, writes and checkpoints; readers are
 * read-only handles, one thread each at a time, taken from a small pool.
 *
 * Rows are values (rows.h). Text pointers in a row that was read are borrowed until the next
 * call with the same handle. Errors are negative errnos: -ENOENT no such row, -EEXIST a
 * unique name is taken (no table has one now but its key, which a put replaces), -ENOSPC disk
 * full (nothing was changed), -EIO, -EUCLEAN the database is corrupt, -ENOMEM, -E2BIG a row
 * above 16 MiB, -EBUSY another program writes to the database, -EROFS.
 *
 * -ENOENT, -EEXIST, -EINVAL and -E2BIG undo their own call only. Any other error inside a
 * transaction dooms it: every later call of it answers that error, undo and commit included,
 * and nothing since store_begin() is kept. After -ENOSPC the next transaction finds the
 * ballast's space (store_tight()); after -EIO the connection has been replaced.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/fault.h"
#include "store/rows.h"

struct store;
struct store_reader;

/**
 * Open (or make) the database in @directory: lock it for this process for life (-EBUSY:
 * another replicad), check it (a corrupt one is moved aside with a time stamp, a new one is
 * open, *@quarantined is set, may be NULL, a line is logged and 0 returned; -EUCLEAN: it
 * could not be moved aside), migrate it (-EPROTONOSUPPORT: written by a newer version, left
 * alone; -EMEDIUMTYPE: a network file system). Owned by the caller, store_close().
 */
int store_open(const char *directory, struct store **store, bool *quarantined,
        struct fault *fault);

/** Checkpoints and closes. Readers must have been given back. NULL is fine. */
void store_close(struct store *store);

/* -- writing: the writer's thread ---------------------------------------------------- */

enum store_verb {
    STORE_PUT, /* insert, or replace the row with that key */
    STORE_DELETE /* no row with that key: -ENOENT */
};

/** One change: a tagged value. @row: the struct of @table; for DELETE only its key is read. */
struct store_change {
    enum store_verb verb;
    enum store_table table;
    const void *row;
};

/**
 * Make all changes or none. Outside a transaction: commits, durable on return
 * (synchronous=FULL). Inside one: durable when store_commit() has returned 0.
 */
int store_apply(struct store *store, const struct store_change *changes, size_t count);

/** BEGIN IMMEDIATE. Not nested. */
int store_begin(struct store *store);

/** A step that can be taken back alone: mark before, then keep or undo. Not nested. */
int store_mark(struct store *store);
int store_keep(struct store *store);
int store_undo(struct store *store);

/** Durable when it returns 0. On an error everything since store_begin() is undone. */
int store_commit(struct store *store);
void store_rollback(struct store *store);

/** The writer's own eyes: sees what the open transaction changed. Borrowed. */
struct store_reader *store_own_reader(struct store *store);

/** The number the next event row will get is larger than this one. 0: none yet. */
int64_t store_last_event(struct store_reader *reader);
/** The oldest event still kept; 0: none. */
int64_t store_first_event(struct store_reader *reader);

/**
 * One bounded step of housekeeping, in a transaction of its own (none may be open): drop
 * ended jobs, results and events older than @before_ms or beyond the newest @keep, oldest
 * first, and idempotency rows older than @keys_before_ms; at most @batch rows in all.
 * @ended_states: bit n set: a job in state n is over. Returns rows dropped, or an errno.
 */
int store_expire(struct store *store, int64_t before_ms, uint64_t keep,
        uint64_t ended_states, int64_t keys_before_ms, unsigned batch);

/** Checkpoint (TRUNCATE when @idle), by the writer alone. */
int store_checkpoint(struct store *store, bool idle);

/** Bytes of the database and its WAL now. For metrics. Any thread. */
uint64_t store_bytes(struct store *store);

/**
 * The disk has been full: the 8 MiB kept for that are given up, and what is asked for anew
 * should be refused (507), so that they serve the changes of what is there. False again
 * when an idle checkpoint or a start has found space. Any thread.
 */
bool store_tight(struct store *store);

/* -- reading: any thread, one at a time per reader ------------------------------------ */

/** Blocks up to @timeout_ms for a free reader; NULL after that. store_reader_give() it. */
struct store_reader *store_reader_take(struct store *store, unsigned timeout_ms);
void store_reader_give(struct store *store, struct store_reader *reader);

/** One row by its key, into the struct of @table. 0 or -ENOENT. */
int store_get(struct store_reader *reader, enum store_table table, const char *key,
        void *row);

/** Event rows have a number for a key. */

/** One row of a list; return false to stop. The row is borrowed for the call. */
typedef bool store_row_f(void *context, const void *row);

struct store_filter {
    enum store_column column; /* of the query's table; indexed */
    bool is_number;
    unsigned count; /* 1..16 values; a row matches any of them */
    int64_t numbers[16];
    const char *texts[16];
};

/** Newest first. Never scans a table and never sorts (tested by EXPLAIN QUERY PLAN). */
struct store_query {
    enum store_table table;
    unsigned filter_count; /* 0..8; all must match */
    struct store_filter filters[8];
    const char *before; /* NULL, or only rows with a smaller id (the cursor) */
    const char *since; /* NULL, or only rows with this id or a larger one */
    unsigned limit; /* 1..1000 */
};

/** Calls @each up to @limit times. Returns rows delivered, or an errno. */
int store_list(struct store_reader *reader, const struct store_query *query,
        store_row_f *each, void *context);

/** Rows that match the filters of @query (before, since, limit ignored); or an errno. */
int64_t store_count(struct store_reader *reader, const struct store_query *query);

/** Events after @number, oldest first, at most @limit. Returns rows delivered, or an errno. */
int store_events(struct store_reader *reader, int64_t after, unsigned limit,
        store_row_f *each, void *context);

#endif

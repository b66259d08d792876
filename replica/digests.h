/* replica/digests.h - the digest sidecar of one plan: opened before the first write, sealed
 * after the last flush. Inside replica/.
 *
 * The file stays open from digests_open() on, and is never made anew by this plan: once
 * its name is removed (engine_pair_forget()), what is sealed is nobody's.
 * Everything on the plan's loop; the file is touched on threads of the pool only.
 */
#ifndef REPLICA_DIGESTS_H
#define REPLICA_DIGESTS_H

#include "replica/copy/sidecar.h"
#include "replica/end.h"

/** A name in the engine's directory of sidecars. */
enum { DIGESTS_NAME = 64 };

struct digests_file {
    struct sidecar_medium medium;
    int fd; /* -1: none */
};

struct digests {
    struct digest_sidecar *table; /* NULL: none is kept, or it is not to be trusted */
    bool by_digest; /* the target need not be read */
    bool opened; /* digests_open() is done; there may be no table nevertheless */
    struct fault fault; /* of the opening: a stale file could not be taken away */

    int directory; /* the engine's; -1: none */
    char name[DIGESTS_NAME]; /* "" when nothing is kept */
    bool wanted; /* else the file is only removed */
    const struct end *target; /* borrowed */
    struct digests_file file;
    struct sidecar_facts facts;
    struct sidecar_start start;
    uint64_t position;
    bool done_whole;
    struct loop_work work;
    void (*done)(struct digests *);
};

void digests_init(struct digests *digests, const struct engine *engine,
        const struct engine_plan *plan);

/**
 * Before the first write on @target, whose device is open, as is the source's of
 * @source_size bytes: what can be trusted is read, and the file says durably that it is
 * not to be trusted now. @done on the loop, never from inside. @able: a table can be kept.
 */
void digests_open(struct digests *digests, struct loop *loop,
        const struct engine_plan *plan, uint64_t source_size, const struct end *target,
        bool able, void (*done)(struct digests *));

/** The target may hold something else: compare, and keep what is found. */
void digests_doubt(struct digests *digests);

/** It is not known any more what the target holds: compare, and keep nothing. */
void digests_spoil(struct digests *digests);

/** The file is still to be closed: one of the two below has to come. */
bool digests_pending(const struct digests *digests);

/** All is flushed, to the end (@whole) or up to @position, and the target is still ours. */
void digests_seal(struct digests *digests, struct loop *loop, uint64_t position,
        bool whole, void (*done)(struct digests *));

/** Nothing to be trusted comes of this run: close and remove. */
void digests_drop(
        struct digests *digests, struct loop *loop, void (*done)(struct digests *));

/** Nothing is pending. */
void digests_finish(struct digests *digests);

/** Remove the sidecar of @pair, durably; 0 when there was none. Blocks; any thread. */
int digests_remove(const struct engine *engine, const struct uuid *pair);

#endif

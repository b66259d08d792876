/* replica/copy/inside.h - what copy.c, window.c, plan.c, slot.c and run.c share;
 * nobody else includes it.
 *
 * A copy runs in passes (the copy or delta itself, then the reading back). A pass cuts
 * [cursor, total) into pieces, in order. A piece that moves bytes takes a slot, which
 * owns its buffer and its requests, so that nothing is allocated and nothing copied on
 * the way:
 *
 *      plan -> read (source, target, both or neither) -> runs (write, zero) -> ledger
 *
 * Slots finish in any order; the ledger knows up to where all is finished, and a flush
 * begun there makes that the watermark.
 */
#ifndef REPLICA_COPY_INSIDE_H
#define REPLICA_COPY_INSIDE_H

#include <assert.h>

#include "replica/copy/copy.h"
#include "replica/copy/flow.h"
#include "replica/copy/ledger.h"
#include "replica/copy/map.h"
#include "replica/copy/throttle.h"
#include "replica/copy/zero_way.h"

enum {
    /* Bytes of one slot's buffer, at most: what a command costs a far side weighs less the
       more it moves, up to here. */
    COPY_CHUNK = 1 << 20,
    /* Bytes of a piece in company: see window.c. */
    COPY_SHORT = 256 << 10,
    COPY_ARENA = 8 << 20, /* bytes under way, unless COPY_WINDOW need more */
    COPY_GRAIN = 64 << 10, /* bytes: what is found zero, or different, by itself */
    COPY_GRAINS = COPY_CHUNK / COPY_GRAIN,
    COPY_WINDOW = 8, /* pieces under way, at least */
    COPY_SLOTS = COPY_WINDOW * (COPY_CHUNK / COPY_SHORT),
    COPY_BLOCK = 512 /* bytes: what differs is told in these, or in larger units */
};

static_assert(COPY_SLOTS <= 32, "a slot has a bit");
static_assert((int)COPY_GRAIN == (int)SIDECAR_CHUNK, "a grain has a digest");

struct piece {
    uint64_t offset, length; /* bytes of the source */
    bool source_zero; /* need not be read: zeros */
    bool target_zero; /* need not be zeroed */
};

/** Whom a slot waits for; where both ends are read, nobody until one has answered. */
enum place { PLACE_NONE, PLACE_SOURCE, PLACE_TARGET, PLACE_COUNT };

struct slot;

/** A range of a piece that is written in one way, in as many requests as that takes. */
struct run {
    struct slot *slot;
    struct run *next; /* in the line before the target */
    bool zero; /* zeros; else bytes of the slot */
    enum zero_way way; /* of zeros that are no sample */
    bool late; /* a sample that is not waited for any more */
    struct instant began; /* of a sample */
    uint64_t offset, end; /* what is left; bytes of the target */
    struct iovec iov;
    struct block_request request;
};

struct slot {
    struct copy *copy;
    struct piece piece;
    unsigned entry; /* in the ledger */
    struct instant began;
    unsigned pending; /* requests, or runs, in flight */
    bool failed; /* one of them failed: the piece is not finished */
    bool differs; /* VERIFY: not equal, and not its turn yet to be looked at */
    uint64_t written, equal; /* bytes sent; bytes found equal */
    enum place place;
    struct digest128 digests[COPY_GRAINS]; /* of the grains that were read */
    uint8_t *source_bytes, *target_bytes;
    struct iovec source_iov, target_iov;
    struct block_request source_read, target_read;
    struct run runs[COPY_GRAINS];
};

enum copy_stop { COPY_GO_ON, COPY_DRAIN, COPY_DROP };

struct copy {
    struct copy_options options;
    struct block_device *source, *target;
    struct loop *loop;
    uint64_t total; /* bytes of the source */
    uint64_t unit; /* bytes: whole blocks of both */
    uint64_t step; /* bytes: pieces are whole ones; units, or a sidecar's chunks */
    uint64_t grain; /* bytes, whole units */
    uint64_t stride; /* bytes of a slot's buffer */
    uint64_t whole_max; /* bytes one request of this pass may move */
    uint64_t piece_max; /* bytes one may move now: shorter in company */
    struct zero_choice zeros;
    struct run *line,
            **line_end; /* runs that wait for a sample, or the first for its turn
                                     to be one */
    struct run *sample; /* in flight, alone */
    unsigned writing; /* requests of runs that are in flight, but for late ones */
    struct instant line_moved; /* the last of them began or ended */
    struct throttle throttle;

    enum copy_kind pass; /* VERIFY also as the second pass of the others */
    struct digest_sidecar *sidecar; /* of this pass */
    bool hands_over; /* this pass: the target fetches what it can by itself */
    bool by_digest; /* this pass: the sidecar stands for the target */
    uint64_t cursor; /* all below has begun */
    struct ledger ledger;
    struct map source_map, target_map;
    uint32_t idle; /* slots: a bit each */
    unsigned busy; /* slots */

    struct tally flushed; /* what may be told */
    struct tally flushing; /* what will be, when the flush that is under way is good */
    uint64_t verified; /* of the second pass */
    struct differences found; /* VERIFY: in the pieces that are finished */
    struct differences told; /* of them what was found below what is told */
    unsigned differing; /* slots that wait for their turn */
    bool comparing; /* in slots_compare() */
    bool flush_active, flush_last, flush_broken;
    bool dirty; /* something may wait for a flush */
    uint64_t unflushed; /* bytes sent since the last one began */
    bool tick_due;
    struct block_request flush;
    unsigned forgetting; /* the two below that are under way: VERIFY begins with them */
    struct block_request source_forget, target_forget;
    struct loop_timer tick, pace;
    struct loop_task kick;
    bool kicked;

    enum copy_stop stop;
    bool ending; /* nothing is in flight any more; @kick will end it */
    int end_result;
    int result; /* of the first failure */
    bool on_target;
    struct fault fault;
    uint64_t read, sent;

    /* where the time goes */
    unsigned at[PLACE_COUNT]; /* slots */
    uint64_t spent_ns[PLACE_COUNT]; /* by all slots together */
    uint64_t paced_ns; /* a slot was free and the limit forbade it */
    bool pacing;
    struct instant spent_until;

    uint8_t *arena; /* the slots' buffers */
    unsigned window; /* how many of them may be busy with whole pieces, at least */
    struct flow flow; /* and now */
    struct slot slots[COPY_SLOTS];
};

/** Something ended: begin what can be begun, end the copy when it is over. In copy.c.
 */
void copy_pump(struct copy *copy);

/** This pass reads the target. In plan.c. */
bool copy_compares(const struct copy *copy);

/** The slot waits for somebody else from now on. In copy.c. */
void slot_move(struct slot *slot, enum place place);

/** Keep the first failure. @verb: "read", "written". In copy.c. */
void copy_fail(struct copy *copy, int result, bool on_target, const char *verb,
        uint64_t offset);

/** The slots and their buffers, and the window that the options ask for. False: no memory.
 * In window.c. */
bool slots_init(struct copy *copy);

/** How many pieces may be under way, as @window of the options. In window.c. */
void window_set(struct copy *copy, unsigned window);

/** A pass begins: how long its pieces are. In window.c. */
void window_pass(struct copy *copy);

/** Whether the copy is in company may have changed. In window.c. */
void window_look(struct copy *copy);

/** The idle slot to use next. There is one. In window.c. */
struct slot *slot_take(struct copy *copy);
void slot_give(struct slot *slot);

/** The piece at the cursor. In plan.c. */
void piece_plan(struct copy *copy, struct piece *piece);

/** Bytes of it that the limit counts. In plan.c. */
uint64_t piece_cost(const struct copy *copy, const struct piece *piece);

/** Begin @piece, which is not zero on both sides, in an idle slot that is taken. In
 * slot.c. */
void slot_start(struct slot *slot, const struct piece *piece, unsigned entry);

/** VERIFY: look at the pieces that differ, as far as all before them are finished. In
 * slot.c. */
void slots_compare(struct copy *copy);

/** Some time has passed: nobody waits for a sample for ever. In run.c. */
void slots_tick(struct copy *copy);

/** No run of it, and no request, is in flight any more. In slot.c. */
void slot_end(struct slot *slot);

/** Run @at of the slot: [from, end) of the target, with zeros, or with the slot's bytes. In
 * run.c. */
void run_init(struct slot *slot, unsigned at, uint64_t from, uint64_t end, bool zero);

/** Begin its first @count runs; the slot ends with the last of them. In run.c. */
void slot_write(struct slot *slot, unsigned count);

/** What the request of the run moved is on the target. In run.c. */
void run_account(struct run *run);

/** The largest zero run that one piece may ask for, bytes in whole units. In run.c. */
uint64_t slot_zero_max(const struct copy *copy);

#endif

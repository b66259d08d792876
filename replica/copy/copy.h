/* replica/copy/copy.h - one copy between two open devices on one loop.
 *
 * A pump: reads ahead, writes out of order as reads land, one watermark of what is
 * flushed. Pure of syscalls and clocks but the loop's, so it runs on the simulated loop
 * unchanged. Everything on the devices' loop.
 */
#ifndef REPLICA_COPY_COPY_H
#define REPLICA_COPY_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/base/fault.h"
#include "replica/block/device.h"
#include "replica/copy/differences.h"
#include "replica/copy/sidecar.h"
#include "replica/copy/throttle.h"

struct copy;

enum copy_kind { COPY_FULL, COPY_DELTA, COPY_VERIFY };

/** Bytes. Those given to @progress and @ended are true of the flushed part: skipped +
    written is the watermark, whatever was begun and lost. */
struct copy_figures {
    uint64_t total; /* of the source */
    uint64_t done; /* dealt with; with @verify a byte is done when it is read back, half
                      done when it is written. What was read back and differs is never
                      done. Only grows; total exactly at success */
    uint64_t skipped; /* not sent: zeros that the target holds or makes itself, equal
                         bytes */
    uint64_t equal; /* of the skipped: found equal to the target's; the rest is zeros */
    uint64_t written; /* sent to the target by write */
    uint64_t watermark; /* all below is flushed on the target. VERIFY: all below is
                           compared */
    uint64_t verified; /* read back and compared, from the start */
    struct differences differences; /* found below that */
    uint64_t read; /* read from either device by this copy, for rates and metrics */
    uint64_t sent; /* written by this copy, the part that is not flushed too */
    /* Nanoseconds of this copy so far: requests' waits for either end, summed over those
       in flight, and the time that a limit held back what could have begun. */
    uint64_t source_ns, target_ns, limit_ns;
    unsigned at_source, at_target; /* pieces that wait for either end now */
    bool zeroing_stuck; /* the target did not answer when it was to make zeros */
};

struct copy_options {
    enum copy_kind kind;
    struct block_device *source, *target; /* borrowed until @ended; same loop */
    uint64_t
            watermark; /* start here: one that a copy of the same pair reported, or 0 */
    uint64_t verified; /* VERIFY is @watermark; else where the reading back goes on */
    struct differences differences; /* found below it by the runs before */
    uint64_t skipped, equal, written; /* as figures of the runs before */
    bool target_zero; /* proven zero from the watermark on */
    bool zeroing_stuck; /* as a copy before told: it is not asked to make zeros */
    bool verify; /* read both back after the last flush */
    unsigned
            window; /* pieces under way; 0: what suits the devices. At most 8; twice as many
                        of short ones, while that costs no time */
    /** Copies that share the loop: each counts itself here from its start to its end. In
        company pieces are short, and more of them are under way. Borrowed until @ended; the
        loop's thread. NULL: alone. */
    unsigned *company;
    uint64_t limit; /* bytes a second, 0 none */
    struct meter *meters[METERS_SHARED]; /* limits shared with others; borrowed; NULL */
    unsigned share; /* 1 to SHARE_WHOLE of what is shared; 0: the whole */
    /** Filled with what the copy leaves on the target; borrowed until @ended, when it is
        true of all that is flushed, and the rest of what was begun is not known. NULL:
        none. Only where copy_can_digest(). */
    struct digest_sidecar *sidecar;
    bool by_digest; /* DELTA: compare with @sidecar, do not read the target */
    /** The watermark (or the verified part) moved. */
    void (*progress)(void *context, const struct copy_figures *figures);
    /** The last call: 0 done and flushed; -ECANCELED stopped; -EILSEQ all was compared
       and not all is equal; else the device's errno, @on_target says whose. The copy is
       freed after. */
    void (*ended)(void *context, int result, bool on_target,
            const struct copy_figures *figures, const struct fault *fault);
    void *context;
};

/**
 * Start. The source is never written; nothing at or past the source's size is written
 * on the target but the zeros that fill its last block. NULL when out of memory. The
 * target must hold the source's size rounded up to its block (checked: our own bug).
 */
struct copy *copy_start(const struct copy_options *options);

/** A sidecar can be kept: @watermark and the requests of both are whole chunks. */
bool copy_can_digest(const struct block_device *source,
        const struct block_device *target, uint64_t watermark);

/** Begin no piece; finish those that were, flush, then @ended(-ECANCELED), or 0 when that
 * was all. */
void copy_drain(struct copy *copy);

/** Wait only for what is in flight, do not flush, then @ended(-ECANCELED). */
void copy_drop(struct copy *copy);

/** How many requests may be in flight, as @window of the options; what is in flight is
    not called back. And how much it takes of shared limits. */
void copy_set_window(struct copy *copy, unsigned window, unsigned share);

/** A shared limit has changed: look at it now. */
void copy_nudge(struct copy *copy);

/** What is in flight is not called back. */
void copy_set_limit(struct copy *copy, uint64_t limit);

/** As of now: done, skipped and written count what is not flushed yet too. */
void copy_figures(struct copy *copy, struct copy_figures *figures);

#endif

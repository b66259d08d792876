/* replica/copy/sample.h - does the target still hold what its digests say? Some chunks of it
 * are read and compared, before a copy goes by digests alone.
 *
 * A file shows by its times that somebody else wrote it. A LUN shows nothing: one that was
 * restored, made anew or written by a host looks like the one that was left. The table is
 * taken in 64 to 1024 equal parts (one for 256 chunks between them), and of each one chunk is
 * drawn, and where that holds zeros one with data, if there is one. So a LUN that was emptied
 * is always found, one of which a twentieth was changed but for one time in 27, and one of
 * which a few blocks were changed mostly not: that takes a comparison (verify). Everything
 * on the target's loop.
 */
#ifndef REPLICA_COPY_SAMPLE_H
#define REPLICA_COPY_SAMPLE_H

#include "replica/block/device.h"
#include "replica/copy/sidecar.h"

enum { SAMPLE_LEAST = 64, SAMPLE_MOST = 1024, SAMPLE_SHARE = 256, SAMPLE_WIDTH = 8 };

struct sample;

/**
 * Reads of @target what @table (both borrowed until done) knows; chunks that it does not
 * know, and a short last one, are passed over. @seed: which ones. NULL when out of memory;
 * otherwise @done comes on the loop, never from inside, once nothing is in flight: 0 when
 * all that was read is as it should be, -EILSEQ when a chunk at *@at is not, or what the
 * device answered. Ends by the device's own deadlines.
 */
struct sample *sample_start(struct block_device *target,
        const struct digest_sidecar *table, uint64_t seed,
        void (*done)(void *context, int result, uint64_t at), void *context);

/** Nothing more is begun: @done comes with -ECANCELED, or what was found before. */
void sample_stop(struct sample *sample);

#endif

/* replica/copy/sidecar.h - what the target was last known to hold, as digests in a file.
 *
 * One XXH3-128 for each chunk of 64 KiB of the source, of bytes that are flushed on the
 * target. In memory during a run; on its medium it is OPEN from before the first write of
 * a run to its clean end, when it is sealed. A table that is not sealed, not whole or not of
 * this pair is worth nothing: the caller compares with the target.
 *
 *      page 0: the header; pages 1..: 254 digests each; every page has its own CRC32C, and
 *      its number and generation in it, so that no page of another life passes
 *
 * Numbers stand as the machine holds them: another byte order has another magic.
 * The table belongs to one thread at a time. The calls with a medium block: not on a loop.
 */
#ifndef REPLICA_COPY_SIDECAR_H
#define REPLICA_COPY_SIDECAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/digest.h"
#include "replica/base/uuid.h"

enum {
    SIDECAR_CHUNK = 64 << 10, /* bytes of the source */
    SIDECAR_PAGE = 4096 /* bytes of the file */
};

/** The digest 0 says "not known", which no chunk equals. */
struct digest_sidecar {
    uint64_t size; /* bytes of the source; the last chunk may be short */
    uint64_t count; /* chunks */
    struct digest128 zero, zero_last; /* of a chunk of zeros; of the last one */
    struct digest128 *digests;
};

/** Nothing above 256 GiB, whose table takes 64 MiB; and nothing empty. */
bool sidecar_fits(uint64_t size);

/** All unknown. Owned by the caller, sidecar_destroy(); NULL when out of memory. */
struct digest_sidecar *sidecar_create(uint64_t size);
void sidecar_destroy(struct digest_sidecar *sidecar);

/* Offsets are those of chunks; ends too, or the size. */

bool sidecar_knows(const struct digest_sidecar *sidecar, uint64_t offset);

/** The chunk at @offset is known, and @digest is its. */
bool sidecar_holds(
        const struct digest_sidecar *sidecar, uint64_t offset, struct digest128 digest);
void sidecar_put(
        struct digest_sidecar *sidecar, uint64_t offset, struct digest128 digest);
void sidecar_put_zeros(struct digest_sidecar *sidecar, uint64_t offset, uint64_t end);

/** Bytes from @offset that are known to be zeros; that are not. At most up to @end. */
uint64_t sidecar_zeros(
        const struct digest_sidecar *sidecar, uint64_t offset, uint64_t end);
uint64_t sidecar_others(
        const struct digest_sidecar *sidecar, uint64_t offset, uint64_t end);

/** Not known any more. */
void sidecar_forget(struct digest_sidecar *sidecar, uint64_t offset, uint64_t end);

/** Every chunk from @offset on is known. */
bool sidecar_whole(const struct digest_sidecar *sidecar, uint64_t offset);

/* -- on its medium ------------------------------------------------------------------- */

/** Where it is kept: a file, or a test's memory. 0 or a negative errno, all or nothing. */
struct sidecar_medium {
    int (*size)(struct sidecar_medium *, uint64_t *size);
    int (*read)(struct sidecar_medium *, uint64_t offset, void *bytes, size_t length);
    int (*write)(
            struct sidecar_medium *, uint64_t offset, const void *bytes, size_t length);
    int (*resize)(struct sidecar_medium *, uint64_t size);
    int (*sync)(
            struct sidecar_medium *); /* all of it, its size too, is stable after it */
};

/** Whose digests these are. All of it must be the same when they are read again. */
struct sidecar_facts {
    struct uuid pair;
    struct digest128 binding; /* of the addresses and windows */
    struct digest128 stamp; /* of what shows that the target is as it was left */
    uint64_t size; /* bytes of the source */
    uint64_t generation; /* of this run; set by sidecar_begin() */
};

struct sidecar_start {
    uint64_t watermark; /* bytes: where the run starts */
    bool delta; /* it would go by digests if it could */
};

/**
 * A run begins: read what is there into @sidecar (fresh, of @facts->size), then mark it
 * OPEN, stable, before anything is written on the target. @by_digest: the run may trust it
 * from its watermark on. What cannot be trusted leaves @sidecar all unknown, and is no
 * error. An error: the mark may not be stable; the caller must get rid of the medium
 * before it writes on the target.
 */
int sidecar_begin(struct sidecar_medium *medium, struct sidecar_facts *facts,
        const struct sidecar_start *start, struct digest_sidecar *sidecar,
        bool *by_digest);

/**
 * The run that sidecar_begin() began has come to a clean end, and the target is flushed:
 * all (@position is the size and @done), or up to @position, where one that resumes it goes
 * on. At an error it is as untrusted as it was.
 */
int sidecar_seal(struct sidecar_medium *medium, const struct sidecar_facts *facts,
        uint64_t position, bool done, const struct digest_sidecar *sidecar);

#endif

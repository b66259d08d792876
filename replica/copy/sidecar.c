#include "replica/copy/sidecar.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"

enum {
    DIGESTS = 254, /* of a page */
    PAGES = 64, /* that are read or written at once */
    VERSION = 1
};

static const uint64_t SIZE_MAX_BYTES = (uint64_t)256 << 30;
static const uint64_t MAGIC = UINT64_C(0x3153474944504552); /* "REPDIGS1" */

/* -- the table ----------------------------------------------------------------------- */

bool sidecar_fits(uint64_t size)
{
    return size > 0 && size <= SIZE_MAX_BYTES;
}

static bool zeros_digest(struct digest_sidecar *sidecar)
{
    uint64_t last = sidecar->size - (sidecar->count - 1) * SIDECAR_CHUNK;
    scoped_free uint8_t *zeros = calloc(1, SIDECAR_CHUNK);

    if (!zeros)
        return false;
    sidecar->zero = digest_xxh3(zeros, SIDECAR_CHUNK);
    sidecar->zero_last = digest_xxh3(zeros, last);
    return true;
}

struct digest_sidecar *sidecar_create(uint64_t size)
{
    struct digest_sidecar *sidecar = calloc(1, sizeof *sidecar);

    check(sidecar_fits(size));
    if (!sidecar)
        return NULL;
    sidecar->size = size;
    sidecar->count = (size - 1) / SIDECAR_CHUNK + 1;
    sidecar->digests = calloc(sidecar->count, sizeof *sidecar->digests);
    if (sidecar->digests && zeros_digest(sidecar))
        return sidecar;
    sidecar_destroy(sidecar);
    return NULL;
}

void sidecar_destroy(struct digest_sidecar *sidecar)
{
    if (!sidecar)
        return;
    free(sidecar->digests);
    free(sidecar);
}

static bool is_known(struct digest128 digest)
{
    return digest.low | digest.high;
}

static uint64_t chunk_at(const struct digest_sidecar *sidecar, uint64_t offset)
{
    check(offset % SIDECAR_CHUNK == 0 && offset < sidecar->size);
    return offset / SIDECAR_CHUNK;
}

static uint64_t chunk_end(const struct digest_sidecar *sidecar, uint64_t end)
{
    check(end <= sidecar->size && (end % SIDECAR_CHUNK == 0 || end == sidecar->size));
    return end == sidecar->size ? sidecar->count : end / SIDECAR_CHUNK;
}

static struct digest128 zero_of(const struct digest_sidecar *sidecar, uint64_t chunk)
{
    return chunk == sidecar->count - 1 ? sidecar->zero_last : sidecar->zero;
}

bool sidecar_knows(const struct digest_sidecar *sidecar, uint64_t offset)
{
    return is_known(sidecar->digests[chunk_at(sidecar, offset)]);
}

bool sidecar_holds(
        const struct digest_sidecar *sidecar, uint64_t offset, struct digest128 digest)
{
    struct digest128 known = sidecar->digests[chunk_at(sidecar, offset)];

    return is_known(known) && digest_equal(known, digest);
}

void sidecar_put(
        struct digest_sidecar *sidecar, uint64_t offset, struct digest128 digest)
{
    sidecar->digests[chunk_at(sidecar, offset)] = digest;
}

void sidecar_put_zeros(struct digest_sidecar *sidecar, uint64_t offset, uint64_t end)
{
    uint64_t to = chunk_end(sidecar, end);

    for (uint64_t i = chunk_at(sidecar, offset); i < to; i++)
        sidecar->digests[i] = zero_of(sidecar, i);
}

/* Bytes from @offset whose chunks are known zeros, or are not. */
static uint64_t run_of(
        const struct digest_sidecar *sidecar, uint64_t offset, uint64_t end, bool zeros)
{
    uint64_t i = chunk_at(sidecar, offset), to = chunk_end(sidecar, end);

    while (i < to && digest_equal(sidecar->digests[i], zero_of(sidecar, i)) == zeros)
        i++;
    return i == to ? end - offset : i * SIDECAR_CHUNK - offset;
}

uint64_t sidecar_zeros(
        const struct digest_sidecar *sidecar, uint64_t offset, uint64_t end)
{
    return run_of(sidecar, offset, end, true);
}

uint64_t sidecar_others(
        const struct digest_sidecar *sidecar, uint64_t offset, uint64_t end)
{
    return run_of(sidecar, offset, end, false);
}

void sidecar_forget(struct digest_sidecar *sidecar, uint64_t offset, uint64_t end)
{
    uint64_t from, to = chunk_end(sidecar, end);

    if (offset >= end)
        return;
    from = chunk_at(sidecar, offset);
    memset(sidecar->digests + from, 0, (to - from) * sizeof *sidecar->digests);
}

bool sidecar_whole(const struct digest_sidecar *sidecar, uint64_t offset)
{
    for (uint64_t i = offset / SIDECAR_CHUNK; i < sidecar->count; i++)
        if (!is_known(sidecar->digests[i]))
            return false;
    return true;
}

/* -- pages --------------------------------------------------------------------------- */

enum state { STATE_OPEN = 1, STATE_STOPPED, STATE_DONE };

/* All that counts lies in its first 512 bytes, which a disk writes as one. */
struct header {
    uint64_t magic;
    uint32_t version, chunk, state, unused;
    uint64_t size, generation, position;
    struct digest128 binding, stamp;
    char pair[UUID_TEXT];
    uint8_t rest[SIDECAR_PAGE - 48 - 32 - UUID_TEXT - 4];
    uint32_t crc;
};

struct page {
    uint64_t generation, number;
    struct digest128 digests[DIGESTS];
    uint8_t rest[SIDECAR_PAGE - 16 - DIGESTS * 16 - 4];
    uint32_t crc;
};

static_assert(sizeof(struct header) == SIDECAR_PAGE, "a header is a page");
static_assert(sizeof(struct page) == SIDECAR_PAGE, "a page is a page");

static uint32_t page_crc(const void *page)
{
    return digest_crc32c(page, SIDECAR_PAGE - sizeof(uint32_t));
}

static uint64_t pages_of(const struct digest_sidecar *sidecar)
{
    return (sidecar->count - 1) / DIGESTS + 1;
}

static uint64_t file_size(const struct digest_sidecar *sidecar)
{
    return (1 + pages_of(sidecar)) * SIDECAR_PAGE;
}

/* How many digests page @number holds. */
static uint64_t page_fill(const struct digest_sidecar *sidecar, uint64_t number)
{
    return min_u64(DIGESTS, sidecar->count - number * DIGESTS);
}

static void page_encode(const struct digest_sidecar *sidecar, uint64_t generation,
        uint64_t number, struct page *page)
{
    memset(page, 0, sizeof *page);
    page->generation = generation;
    page->number = number;
    memcpy(page->digests, sidecar->digests + number * DIGESTS,
            page_fill(sidecar, number) * sizeof *page->digests);
    page->crc = page_crc(page);
}

static bool page_decode(struct digest_sidecar *sidecar, uint64_t generation,
        uint64_t number, const struct page *page)
{
    if (page->crc != page_crc(page) || page->generation != generation ||
            page->number != number)
        return false;
    memcpy(sidecar->digests + number * DIGESTS, page->digests,
            page_fill(sidecar, number) * sizeof *page->digests);
    return true;
}

/* -- reading ------------------------------------------------------------------------- */

/* False: there is none that can be understood. */
static bool header_read(struct sidecar_medium *medium, struct header *header)
{
    uint64_t size;

    return medium->size(medium, &size) == 0 && size >= sizeof *header &&
            medium->read(medium, 0, header, sizeof *header) == 0 &&
            header->crc == page_crc(header) && header->magic == MAGIC &&
            header->version == VERSION;
}

static bool header_fits(const struct header *header, const struct sidecar_facts *facts)
{
    return header->chunk == SIDECAR_CHUNK && header->size == facts->size &&
            digest_equal(header->binding, facts->binding) &&
            digest_equal(header->stamp, facts->stamp) &&
            memcmp(header->pair, facts->pair.text, sizeof header->pair) == 0;
}

/* What a stopped run left is good only for the one that goes on where it stopped. */
static bool header_serves(
        const struct header *header, const struct sidecar_start *start)
{
    if (header->state == STATE_STOPPED)
        return start->watermark > 0 && header->position == start->watermark;
    return header->state == STATE_DONE && header->position == header->size;
}

static bool pages_read(struct sidecar_medium *medium, uint64_t generation,
        struct digest_sidecar *sidecar)
{
    uint64_t count = pages_of(sidecar);
    scoped_free struct page *pages = calloc(PAGES, sizeof *pages);

    if (!pages)
        return false;
    for (uint64_t at = 0; at < count; at += PAGES) {
        uint64_t some = min_u64(PAGES, count - at);
        if (medium->read(medium, (1 + at) * SIDECAR_PAGE, pages, some * sizeof *pages))
            return false;
        for (uint64_t i = 0; i < some; i++)
            if (!page_decode(sidecar, generation, at + i, &pages[i]))
                return false;
    }
    return true;
}

static bool table_read(struct sidecar_medium *medium, const struct header *header,
        struct digest_sidecar *sidecar)
{
    uint64_t size;

    if (medium->size(medium, &size) == 0 && size == file_size(sidecar) &&
            pages_read(medium, header->generation, sidecar))
        return true;
    sidecar_forget(sidecar, 0, sidecar->size); /* the pages before the bad one */
    return false;
}

/* -- writing ------------------------------------------------------------------------- */

static int header_write(struct sidecar_medium *medium,
        const struct sidecar_facts *facts, enum state state, uint64_t position)
{
    struct header header = { .magic = MAGIC,
        .version = VERSION,
        .chunk = SIDECAR_CHUNK,
        .state = state,
        .size = facts->size,
        .generation = facts->generation,
        .position = position,
        .binding = facts->binding,
        .stamp = facts->stamp };
    int result;

    memcpy(header.pair, facts->pair.text, sizeof header.pair);
    header.crc = page_crc(&header);
    result = medium->write(medium, 0, &header, sizeof header);
    return result ? result : medium->sync(medium);
}

static int pages_write(struct sidecar_medium *medium, uint64_t generation,
        const struct digest_sidecar *sidecar)
{
    uint64_t count = pages_of(sidecar);
    scoped_free struct page *pages = calloc(PAGES, sizeof *pages);
    int result = pages ? 0 : -ENOMEM;

    for (uint64_t at = 0; result == 0 && at < count; at += PAGES) {
        uint64_t some = min_u64(PAGES, count - at);
        for (uint64_t i = 0; i < some; i++)
            page_encode(sidecar, generation, at + i, &pages[i]);
        result = medium->write(
                medium, (1 + at) * SIDECAR_PAGE, pages, some * sizeof *pages);
    }
    return result ? result : medium->sync(medium);
}

int sidecar_begin(struct sidecar_medium *medium, struct sidecar_facts *facts,
        const struct sidecar_start *start, struct digest_sidecar *sidecar,
        bool *by_digest)
{
    struct header header;
    bool readable = header_read(medium, &header), trusted;
    int result;

    check(sidecar->size == facts->size && start->watermark <= facts->size);
    trusted = readable && header_fits(&header, facts) &&
            header_serves(&header, start) && table_read(medium, &header, sidecar);
    *by_digest = trusted && start->delta && sidecar_whole(sidecar, start->watermark);
    facts->generation = readable ? header.generation + 1 : 1;
    result = header_write(medium, facts, STATE_OPEN, 0);
    return result ? result : medium->resize(medium, file_size(sidecar));
}

int sidecar_seal(struct sidecar_medium *medium, const struct sidecar_facts *facts,
        uint64_t position, bool done, const struct digest_sidecar *sidecar)
{
    int result;

    check(position <= facts->size && (!done || position == facts->size));
    result = pages_write(medium, facts->generation, sidecar);
    return result
            ? result
            : header_write(medium, facts, done ? STATE_DONE : STATE_STOPPED, position);
}

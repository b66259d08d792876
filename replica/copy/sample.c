/* A chain of reads for each buffer; each takes the next chunk that is to be looked at. */
#include "replica/copy/sample.h"

#include <errno.h>
#include <stdlib.h>

#include "replica/base/checked.h"
#include "replica/base/digest.h"
#include "replica/base/scope.h"

enum { ALIGNMENT = 4096 /* of buffers: direct I/O */ };

struct sample_read {
    struct sample *sample;
    struct block_request request;
    struct iovec iov;
};

struct sample {
    struct block_device *target;
    const struct digest_sidecar *table;
    void (*done)(void *context, int result, uint64_t at);
    void *context;
    struct loop_task task; /* the beginning, then the end */
    uint64_t random;
    uint64_t chunks, parts,
            next; /* whole chunks; parts of them; the part that is next */
    uint64_t drawn[2]; /* of the last part, and not yet read */
    unsigned count;
    unsigned in_flight;
    int result;
    uint64_t at;
    uint8_t *bytes;
    struct sample_read reads[SAMPLE_WIDTH];
};

/* splitmix64 */
static uint64_t draw(struct sample *sample, uint64_t below)
{
    uint64_t z = sample->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % below;
}

static uint64_t part_begin(const struct sample *sample, uint64_t part)
{
    return part * sample->chunks / sample->parts;
}

/* The first chunk of [begin, end) that is not known to be zeros; @end: none. Bytes. */
static uint64_t data_in(const struct sample *sample, uint64_t begin, uint64_t end)
{
    return begin < end ? begin + sidecar_zeros(sample->table, begin, end) : end;
}

/* Of each part a chunk that is drawn; and where that one is zeros, the data next to it: of
   little data among zeros a draw would mostly miss all. */
static void part_draw(struct sample *sample)
{
    uint64_t begin = part_begin(sample, sample->next) * SIDECAR_CHUNK;
    uint64_t end = part_begin(sample, ++sample->next) * SIDECAR_CHUNK;
    uint64_t drawn =
            begin + draw(sample, (end - begin) / SIDECAR_CHUNK) * SIDECAR_CHUNK;
    uint64_t data = data_in(sample, drawn, end);

    if (data == end)
        data = data_in(sample, begin, drawn);
    sample->drawn[sample->count++] = drawn;
    if (data != drawn)
        sample->drawn[sample->count++] = data;
}

/* The offset of the next chunk to look at; false: there is none. */
static bool next_chunk(struct sample *sample, uint64_t *offset)
{
    while (sample->count || sample->next < sample->parts) {
        if (!sample->count)
            part_draw(sample);
        *offset = sample->drawn[--sample->count];
        if (sidecar_knows(sample->table, *offset))
            return true;
    }
    return false;
}

static void found(struct sample *sample, int result, uint64_t at)
{
    if (sample->result)
        return;
    sample->result = result;
    sample->at = at;
}

static bool read_next(struct sample_read *read)
{
    struct sample *sample = read->sample;

    if (sample->result || !next_chunk(sample, &read->request.offset))
        return false;
    sample->in_flight++;
    block_submit(sample->target, &read->request);
    return true;
}

static void end_run(struct loop_task *task)
{
    struct sample *sample = container_of(task, struct sample, task);

    sample->done(sample->context, sample->result, sample->at);
    free(sample->bytes);
    free(sample);
}

/* The caller will close the device: not from inside the completion of its request. */
static void sample_end(struct sample *sample)
{
    sample->task.run = end_run;
    loop_post(sample->target->loop, &sample->task);
}

static void read_done(struct block_request *request, int result)
{
    struct sample_read *read = container_of(request, struct sample_read, request);
    struct sample *sample = read->sample;

    sample->in_flight--;
    if (result)
        found(sample, result, request->offset);
    else if (!sidecar_holds(sample->table, request->offset,
                     digest_xxh3(read->iov.iov_base, SIDECAR_CHUNK)))
        found(sample, -EILSEQ, request->offset);
    if (!read_next(read) && sample->in_flight == 0)
        sample_end(sample);
}

static void begin_run(struct loop_task *task)
{
    struct sample *sample = container_of(task, struct sample, task);

    for (unsigned i = 0; i < SAMPLE_WIDTH; i++)
        (void)read_next(&sample->reads[i]);
    if (sample->in_flight == 0)
        sample_end(sample);
}

void sample_stop(struct sample *sample)
{
    found(sample, -ECANCELED, 0);
}

static uint64_t parts_of(uint64_t chunks)
{
    uint64_t parts = chunks / SAMPLE_SHARE;

    parts = parts < SAMPLE_LEAST ? SAMPLE_LEAST : min_u64(parts, SAMPLE_MOST);
    return min_u64(parts, chunks);
}

struct sample *sample_start(struct block_device *target,
        const struct digest_sidecar *table, uint64_t seed,
        void (*done)(void *context, int result, uint64_t at), void *context)
{
    struct sample *sample = calloc(1, sizeof *sample);

    if (!sample)
        return NULL;
    sample->bytes = aligned_alloc(ALIGNMENT, (size_t)SAMPLE_WIDTH * SIDECAR_CHUNK);
    if (!sample->bytes) {
        free(sample);
        return NULL;
    }
    sample->target = target;
    sample->table = table;
    sample->done = done;
    sample->context = context;
    sample->random = seed;
    sample->chunks = table->size / SIDECAR_CHUNK;
    sample->parts = parts_of(sample->chunks);
    for (unsigned i = 0; i < SAMPLE_WIDTH; i++) {
        struct sample_read *read = &sample->reads[i];
        read->sample = sample;
        read->iov = (struct iovec){ sample->bytes + (size_t)i * SIDECAR_CHUNK,
            SIDECAR_CHUNK };
        read->request = (struct block_request){ .op = BLOCK_READ,
            .length = SIDECAR_CHUNK,
            .iov = &read->iov,
            .iovcnt = 1,
            .done = read_done };
    }
    sample->task.run = begin_run;
    loop_post(target->loop, &sample->task);
    return sample;
}

/* tests/service/world.h - the whole service as its users meet it: the real binary, files in
 * a pool, LUNs of a real tgtd, calls over HTTP. What must work and does not fails the test.
 */
#ifndef TESTS_SERVICE_WORLD_H
#define TESTS_SERVICE_WORLD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/support/daemon.h"
#include "tests/support/http.h"
#include "tests/support/tgt.h"

enum { WORLD_PATH = 160, WORLD_ID = 64 };

struct world {
    struct daemon daemon;
    char pool[WORLD_PATH]; /* the directory of the pool "default" */
    char pool_option[WORLD_PATH + 16];
    const char *arguments[24];
    struct tgt *tgt; /* NULL until world_tgt() */
};

#define WORLD_TARGET "iqn.2026-11.example:far"

/** The daemon with one pool outside its data directory and @extra (NULL or NULL-terminated). */
void world_open(struct world *world, const char *const *extra);
void world_close(struct world *world);

/** A tgtd beside it, with one target (tid 1) WORLD_TARGET. */
void world_tgt(struct world *world);

/**
 * One call; the body is printf's, NULL: none. The answer must have @status (0: any). Returns
 * its JSON (json_null() when there is none), owned by the caller.
 */
json_t *world_call(struct world *world, long status, const char *method,
        const char *path, const char *body, ...) __attribute__((format(printf, 5, 6)));

/** The same with one header line and the status told; never fails by itself. */
json_t *world_try(struct world *world, const char *header, long *status,
        const char *method, const char *path, const char *body);

/** A string or number member; a missing one fails the test. Borrowed. */
const char *text_of(const json_t *object, const char *member);
long long number_of(const json_t *object, const char *member);

/** Makes pool file @name of @size bytes: noise from @seed in some 64 KiB blocks, zero runs and
    holes in others. */
void world_file(struct world *world, const char *name, uint64_t size, uint64_t seed);

/** The same anywhere. @holes: leave some blocks unwritten; else zeros are written. */
void fill_file(const char *path, uint64_t size, uint64_t seed, bool holes);

/** Every byte 0xa5. */
void garbage_file(const char *path, uint64_t size);

/** Registers or allocates; the id. @type: "LogicalFile" ... */
void register_file(struct world *world, const char *name, char id[WORLD_ID]);
void register_lun(struct world *world, int lun, bool remote, char id[WORLD_ID]);
void register_extent(struct world *world, const char *of, uint64_t offset,
        uint64_t size, char id[WORLD_ID]);

/** Makes LUN @lun of the tgtd over a backing file of that name. */
void make_lun(struct world *world, int lun, unsigned block_size, bool thin,
        const char *backing, char path[WORLD_PATH]);

/** Waits (at most @seconds) for the end of a job. The job, owned by the caller. */
json_t *job_end(struct world *world, const char *path, unsigned seconds);

/** job_end() and it must have completed with 0 and 100 %. */
void job_completed(struct world *world, const char *path, unsigned seconds);

/** The file behind a pool element. */
void element_file(struct world *world, const char *id, char path[WORLD_PATH]);

/** cmp(1) over the first @size bytes. */
bool same_bytes(const char *a, const char *b, uint64_t size);

/** Bytes [offset, end of file) are all 0xa5. */
bool still_garbage(const char *path, uint64_t offset, uint64_t length);

/** The program's exit status; -1 when it did not run. */
int run_program(const char *const *arguments);

#endif

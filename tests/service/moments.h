/* tests/service/moments.h - one call after another is struck (tests/support/moment.h) while the
 * real daemon does something, until nothing is left to strike: each time the daemon starts
 * again, or goes on after the error, and what it says then must be true. */
#ifndef TESTS_SERVICE_MOMENTS_H
#define TESTS_SERVICE_MOMENTS_H

#include "replica/base/clock.h"
#include "tests/service/exports.h"
#include "tests/support/moment.h"

/** A house, and what its daemon was asked last. */
struct stage {
    struct house house;
    struct moment *moment;
    uint64_t state; /* of the dice */
    int error; /* the calls that are struck fail with; 0: the daemon is killed */
    unsigned at; /* which call that was */
    bool struck;
    long status; /* of the call; 0: it was not answered */
    char id[WORLD_ID], other[WORLD_ID]; /* the scene's own, or a pair's */
    char source[WORLD_PATH], target[WORLD_PATH]; /* files */
    char job[WORLD_ID * 2];
    char since[CLOCK_TEXT]; /* when the source was changed last */
    char points[4096]; /* all that was struck, a line each */
};

struct scene {
    void (*prepare)(struct stage *stage); /* before each call that is struck */
    void (*act)(struct stage *stage); /* meanwhile; ends when the daemon is dead, too */
    void (*judge)(struct stage *stage); /* the daemon is there again */
    void (*look)(
            struct stage *stage); /* after an error, before that; NULL: nothing more */
};

void stage_open(struct stage *stage, const char *what, const char *const *extra);
/** Stops the daemon; what it has made and not promised must all be forgotten. */
void stage_close(struct stage *stage);

/** Plays @scene until nothing is left to strike: in the WAL, in the pool, among digests. */
void stage_play(struct stage *stage, const struct scene *scene, int error);

/** One play, in which the @at-th call on files whose path contains @only is struck. False: there
    was none. stage->error says how. */
bool stage_strike(
        struct stage *stage, const struct scene *scene, const char *only, unsigned at);

/** How many of the calls that were struck were @call ("fdatasync") on a @file (of its path). */
unsigned stage_points(const struct stage *stage, const char *call, const char *file);

/** kill -9 and start. */
void stage_restart(struct stage *stage);

/** One call; its status goes to stage->status. NULL: no answer, the daemon was killed. */
json_t *stage_ask(
        struct stage *stage, const char *method, const char *path, const char *body);

/** Until stage->job is over. False: the daemon was killed before. */
bool stage_job_over(struct stage *stage);

/** Every element of the pool has its file, every file of ours is an element's; every
    transient state has a job that is not over. */
void stage_is_whole(struct stage *stage);

bool file_there(const char *path);

/** What GET of that member of @collection answers. */
long status_of(struct stage *stage, const char *collection, const char *id);

/** New noise in some chunks of a file. */
void file_change(struct stage *stage, const char *path);

/* -- a pair: stage->other is its source, stage->id its target, stage->job was its last job -- */

/** From the answer that promised it. */
void job_take(struct stage *stage, const json_t *answer);
void pair_take(struct stage *stage, const json_t *answer); /* a target in the pool */

json_t *pair_get(struct stage *stage);

/** Asks for an operation; NULL: no answer came. */
json_t *pair_ask(struct stage *stage, int number);

/** One that starts a job, as pair_answered(). */
void pair_operate(struct stage *stage, int number);

/** A call that met the error was refused as it should be: no space is 4, and 507. */
void pair_refused(const struct stage *stage, const json_t *answer);

/** To a call that starts a job: it ends, unless the daemon is killed, or the call was refused
    as it should be. NULL: no answer came. Takes @answer. */
void pair_answered(struct stage *stage, json_t *answer);

void pair_remove(struct stage *stage);

/** stage->job met the error, and both say so. */
bool pair_failed(struct stage *stage);

/** If a job is under way it goes on to a good end, and nothing stands against another Resync of
    one that failed. The pair is Frozen. */
void pair_settle(struct stage *stage);

#endif

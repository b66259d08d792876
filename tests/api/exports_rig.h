/* tests/api/exports_rig.h - a service with two volumes, and an exporter of the tests' own in
 * the target's place, which remembers what it was asked.
 */
#ifndef TESTS_API_EXPORTS_RIG_H
#define TESTS_API_EXPORTS_RIG_H

#include "tests/api/pairs.h"

enum { SIZE = PAIRS_MIB, SERVED_MAX = 8 };

extern struct rig rig;
extern char volume[37], other[37];

extern struct fake {
    struct uuid served[SERVED_MAX];
    bool opened_to_read[SERVED_MAX];
    unsigned count, publishes, withdraws, changes, settles;
    int refuse; /* a negative errno: publish() and change() answer it */
    const char *why; /* its words then */
    bool stuck; /* withdraw(): commands of hosts do not end */
    const char *late; /* withdraw(): a host has this kept before its session ends */
    char names[256], user[64], secret[64], address[512]; /* in force */
    bool is_ready;
    char ready_names[256], ready_user[64], ready_secret[64];
    bool read_only;
    size_t kept_length;
    uint8_t kept[64];
} fake;

/* One that does not open before it is cancelled. */
extern struct opening {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct uuid of; /* none: all open at once */
    bool begun, cancelled;
} opening;

extern const struct api_exporter exporter;

/** .init and .fini of a suite. */
void exports_begin(void);
void exports_end(void);

/** The service ends and begins anew; the exporter has forgotten all. */
void exports_restart(void);

/** Where @id is among what is served; -1: it is not. */
int fake_find(const struct uuid *id);

/** Until *@what, a member of opening; false: not within a minute. */
bool opening_await(const bool *what);

/** Calls about the export of @id; of exported() 201 is expected, of changed() 200. */
struct answer put(const char *id, const char *body);
struct answer get(enum api_call call, const char *id);
void exported(const char *id, const char *body);
void changed(const char *id, const char *body);

/** The answer names the export of @id as what is in the way, and how to be rid of it. */
void holder_is(const struct answer *answer, const char *id);

/** The target asks to have @bytes kept of the volume; what came of it. keep(): it is kept. */
int keep_try(const char *bytes);
void keep(const char *bytes);

#endif

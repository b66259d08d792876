/* tests/server/iscsi/target_rig.h - a target in this process, on two loops with threads of their
 * own, serving memory; and children that are let on it.
 *
 * Three exports (rig_name(n)): 0 open to all, on the first loop; 1 on the second, with CHAP
 * (alice / alice-has-a-secret, the target's own proof: target / target-has-its-own); 2 for the
 * initiator "iqn.2026-11.org.replicad:only" alone. What an export's device is asked can be held
 * back. Calls block; what should work and does not, aborts. */
#ifndef TESTS_SERVER_ISCSI_TARGET_RIG_H
#define TESTS_SERVER_ISCSI_TARGET_RIG_H

#include <pthread.h>
#include <semaphore.h>

#include "replica/loop/loop.h"
#include "server/iscsi/target.h"

enum { RIG_EXPORTS = 3, RIG_LOOPS = 2, RIG_BYTES = 16 << 20, RIG_DISKS_MS = 60000 };

struct gate;
struct backing;

struct rig {
    struct loop *loops[RIG_LOOPS];
    pthread_t threads[RIG_LOOPS];
    struct rig_stand {
        struct loop_task task;
        sem_t stands, ends;
    } stand; /* rig_stand_still() */
    struct iscsi_target *target;
    struct gate *gates[RIG_EXPORTS];
    struct backing *more; /* of exports beside them, small and open to all */
    unsigned more_count;
    uint16_t port, port6;
};

struct rig_options {
    unsigned ping_ms, stuck_ms;
    size_t buffer_bytes;
    uint32_t max_transfer; /* of the devices; 0: what memory takes */
};

struct rig *rig_start(const struct rig_options *options);
void rig_stop(struct rig *rig); /* everything must come back */

void rig_name(unsigned export, char name[SCSI_NAME_MAX]);
struct iscsi_export rig_export(struct rig *rig, unsigned export);
uint8_t *rig_bytes(struct rig *rig, unsigned export);

/** Publishes @count more, once: rig_name(RIG_EXPORTS) and so on. */
void rig_more(struct rig *rig, unsigned count);

/** Nothing runs on loop @index, which may not be standing, until rig_go_on(). */
void rig_stand_still(struct rig *rig, unsigned index);
void rig_go_on(struct rig *rig);

/** Runs the scene @name of @script ("scenarios"); its exit status. */
int rig_scenario(struct rig *rig, const char *script, const char *name);

/** The same before a target of its own; it must end well. */
void rig_play(const char *script, const char *name, const struct rig_options *options);

enum { RIG_LATE = -2 };

/** Runs @argv (NULL ends them), at most @seconds; its exit status, -1 when a signal ended it,
    RIG_LATE when it took too long: it is looked at then, rig_tell(), and killed. What it says
    goes to @output (NUL-terminated; NULL: standard error). */
int rig_command(const char *const argv[], unsigned seconds, char *output, size_t room);

enum { RIG_LOAD_S = 10 };

/** The same for a load that runs by a clock of its own (iscsi-perf): after RIG_LOAD_S it is
    asked to end (SIGINT). libiscsi 1.19's misses the end of its time when nothing is answered
    in the second after it, on a busy machine, and then never ends. */
int rig_load(const char *const argv[], unsigned seconds, char *output, size_t room);

/** Tells standard error what the target and the kernel have of its connections. */
void rig_tell(struct rig *rig);

#endif

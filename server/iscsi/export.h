/* server/iscsi/export.h - what is served, and its life. */
#ifndef SERVER_ISCSI_EXPORT_H
#define SERVER_ISCSI_EXPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/clock.h"
#include "replica/base/fault.h"
#include "replica/base/uuid.h"
#include "replica/loop/loop.h"
#include "server/iscsi/scsi.h"

struct grant;
struct hall;
struct iscsi_target;

enum export_state { EXPORT_OPENING, EXPORT_SERVING, EXPORT_FAILED, EXPORT_ENDING };

/* Under the target's lock but where said. */
struct export
{
    struct iscsi_target *target;
    struct export *next;
    struct hall *hall; /* constant */
    struct uuid id; /* constant */
    uint64_t serial; /* constant: two of one id are not the same */
    char name[SCSI_NAME_MAX]; /* constant */
    bool read_only; /* constant */
    struct scsi_backing const *backing; /* constant */
    uint8_t *kept; /* constant until it has opened: a copy, its publisher may be gone */
    size_t kept_length; /* constant */
    enum export_state state;
    struct fault fault;
    struct grant *grant; /* in force */
    struct grant *ready; /* in force when it is settled, NULL: none */
    uint64_t credentials; /* the number of those in force, of the target */
    unsigned sessions; /* in the roster */
    /* the loop's */
    struct scsi_unit *unit;
    bool busy; /* the unit is being made or unmade */
    bool ending;
    struct instant patience; /* ending: sessions are closed then */
    uint64_t arrivals;
    struct loop_task opening, end, change;
    bool changing; /* under the lock: @change is posted */
    unsigned grace_ms; /* set under the lock, before @end is posted */
};

struct export *export_find_name(
        struct iscsi_target *target, const char *name); /* locked */
bool export_allows(const struct export *export, const char *initiator); /* locked */
/** Locked. A session of @initiator may go on; @proven: it came by CHAP. */
bool export_keeps(const struct export *export, const char *initiator, bool proven);

struct export *export_find_id(struct iscsi_target *target, const struct uuid *id);
/** The same one, not another of its id. Locked. */
struct export *export_still(
        struct iscsi_target *target, const struct uuid *id, uint64_t serial);
void export_unlink(struct export *export); /* locked */
void export_free(struct export *export);
void export_open(struct export *export); /* posts; it is in the list, OPENING */
/** Has it end on its loop: sessions are asked to go, and have @grace_ms. Locked, SERVING. */
void export_end(struct export *export, unsigned grace_ms);
/** Who may use it has changed. Locked, SERVING. */
void export_recheck(struct export *export);
void export_left(struct export *export); /* a session did; on its loop */
void exports_tick(struct hall *hall, struct instant now);

#endif

/* server/iscsi/scsi.h - the device server: SCSI commands (SPC-4, SBC-3) on a block_device.
 *
 * Between the transport (iSCSI connections) and the bytes. A unit (SAM-5: logical unit) is one
 * exported element, on one loop; a nexus is one session's view of it (I_T_L nexus). The
 * transport owns tasks and feeds them; the unit executes them. Nothing here allocates per
 * command, blocks, or knows a PDU. Everything on the unit's loop.
 *
 * A task's life:
 *   transport fills the first part, scsi_submit()
 *     -> ops->want(task, offset, length)     the unit needs these bytes of data-out: the
 *                                            transport gathers them (immediate, unsolicited,
 *                                            R2T) and answers scsi_data_arrived()
 *     -> ops->data(task, buffer, length)     data-in, in order, but not the last of it: the
 *                                            transport sends and answers scsi_data_sent()
 *     -> ops->done(task)                     status is set, with the last data-in; nothing
 *                                            of the task is in flight; it is the transport's
 * Any of them may come from inside scsi_submit() and scsi_data_*(); done comes exactly once.
 *
 * Abort: a task that is aborted (scsi_abort(), a reset of any session, PREEMPT AND ABORT)
 * does not wait for data-out any more: done comes though ops->want was not answered, and then
 * it must not be answered. scsi_data_arrived() before that done is fine, the buffer is given
 * back. It does wait for scsi_data_sent(): "sent or dropped" is owed after every ops->data.
 * done after an abort never comes from inside scsi_abort() or scsi_reset().
 */
#ifndef SERVER_ISCSI_SCSI_H
#define SERVER_ISCSI_SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "replica/base/fault.h"
#include "replica/base/uuid.h"
#include "replica/block/device.h"
#include "server/iscsi/buffer.h"

struct scsi_unit;
struct scsi_task;

enum {
    SCSI_CDB_MAX = 16, /* longer ones (with an AHS) are refused by the transport */
    SCSI_SENSE_MAX = 64,
    SCSI_NAME_MAX =
            224, /* an initiator's or target's name with its NUL (RFC 7143 4.2.7) */
    SCSI_UA_MAX = 8, /* unit attentions a nexus remembers; more: 29h alone */
    SCSI_KEPT_MAX = 16 << 10, /* bytes of reservations kept over a restart */
};

enum scsi_status { /* SAM-5 5.3.1 */
    SCSI_GOOD = 0x00,
    SCSI_CHECK_CONDITION = 0x02,
    SCSI_CONDITION_MET = 0x04,
    SCSI_BUSY = 0x08,
    SCSI_RESERVATION_CONFLICT = 0x18,
    SCSI_TASK_SET_FULL = 0x28,
    SCSI_TASK_ABORTED = 0x40
};

enum scsi_attribute { /* RFC 7143 11.3.1 */
    SCSI_UNTAGGED,
    SCSI_SIMPLE,
    SCSI_ORDERED,
    SCSI_HEAD_OF_QUEUE,
    SCSI_ACA
};

struct scsi_unit_figures {
    uint64_t read_bytes, written_bytes, commands;
    unsigned queued; /* tasks now */
};

/** One session's view of the unit. Embedded by the session; scsi_nexus_open() .. _close(). */
struct scsi_nexus {
    struct scsi_unit *unit;
    struct scsi_nexus *next;
    char initiator
            [SCSI_NAME_MAX]; /* port name is initiator + ISID (RFC 7143 4.2.7.1) */
    uint8_t isid[6];
    struct buffer_share *share; /* of the unit's buffers, NULL: their common one */
    /* the unit's */
    struct scsi_ua {
        uint8_t asc, ascq;
    } attention[SCSI_UA_MAX];
    uint8_t attentions;
    bool registered, purged; /* for persistent reservations */
    struct scsi_unit_figures figures;
};

struct scsi_task_ops {
    void (*want)(struct scsi_task *, uint32_t offset, uint32_t length);
    void (*data)(struct scsi_task *, struct buffer *, uint32_t length);
    void (*done)(struct scsi_task *);
};

/** Embedded by the transport's task. */
struct scsi_task {
    /* the transport's, before scsi_submit() */
    const struct scsi_task_ops *ops;
    struct scsi_nexus *nexus;
    uint8_t cdb[SCSI_CDB_MAX]; /* zeros behind a shorter one */
    enum scsi_attribute attribute;
    bool reads, writes; /* R and W of the command PDU */
    uint32_t expected; /* Expected Data Transfer Length, bytes */

    /* the unit's answer, at done */
    enum scsi_status status;
    uint8_t sense[SCSI_SENSE_MAX]; /* fixed or descriptor format, as D_SENSE says */
    uint8_t sense_length; /* bytes, 0 none */
    bool aborted; /* scsi_abort() or a reset took it: nothing is to be answered, or as the
                     task management function says */
    struct buffer *data; /* the last data-in, or NULL; the transport's from here on */
    uint32_t data_length; /* bytes of it */
    uint32_t sent; /* bytes of data-in in all, the last ones counted; <= expected */
    uint64_t transfer; /* bytes that the CDB asks to move, either direction: a transport
                          makes the residual of it and @expected (RFC 7143 11.4.5) */

    /* the unit's own, from submit to done */
    TAILQ_ENTRY(scsi_task) in_set;
    unsigned state;
    bool abort_asked, started, purged, scratch;
    uint64_t sequence; /* of its coming */
    unsigned geometry; /* of the unit when it began */
    const struct scsi_opcode *opcode;
    void (*resume)(struct scsi_task *); /* what comes after what it waits for */
    void (*then)(struct scsi_task *); /* the device is done */
    int64_t (*reply)(struct scsi_task *, uint8_t *bytes, size_t room);
    struct scsi_task *line_next;
    struct scsi_line *line; /* it waits in */
    struct instant since; /* when it began to wait for the device */
    uint64_t lba, blocks; /* of what the command is about */
    uint64_t at; /* bytes done so far */
    uint64_t end; /* bytes to do */
    uint32_t piece; /* bytes under way */
    int result; /* of the device */
    struct scsi_lock {
        struct scsi_lock *next;
        uint64_t offset, length; /* bytes of the unit */
        bool asked, held;
    } lock;
    struct buffer *buffer;
    struct buffer_wait wait;
    struct block_request request;
    uint64_t covers; /* of the unit's changes, when @request is a flush */
    uint64_t
            loose; /* the unit's changes when its own last one ended that was not written
                       through; 0: none */
    struct iovec iov;
    struct loop_task later;
    union {
        struct block_extent extents[8];
        uint64_t words[16];
        struct iovec iov[12];
    } room;
};

/** How a unit gets a device, at start and after its device broke. */
struct scsi_opening {
    /** On the unit's loop. @device: the unit's, who closes it; NULL with @fault. */
    void (*opened)(struct scsi_opening *, struct block_device *device,
            const struct fault *fault);
};

/** What a unit needs of the house. Constant and alive as long as the unit. */
struct scsi_backing {
    void *context;
    /** Open the element on the unit's loop; answers through @opening, never from inside.
        @again: an earlier handle may have writes under way (a barrier is due). */
    void (*open)(void *context, struct scsi_opening *opening, bool again);
    /** Keep @length bytes of reservation state (0: nothing is left to keep) durably, then
        call @kept on the unit's loop, never from inside. At most one at a time a unit. */
    void (*keep)(void *context, const uint8_t *bytes, size_t length,
            void (*kept)(void *unit, int result), void *unit);
};

struct scsi_unit_options {
    struct loop *loop;
    struct buffer_pool *buffers; /* of the same loop */
    struct uuid
            id; /* identity in VPD pages and INQUIRY comes from a hash of it, NAA 3 in the
                       first 8 bytes (SPC-4 7.8.6.6) */
    const char *name; /* target name: target port designators of VPD 83h; borrowed */
    bool read_only;
    const struct scsi_backing *backing;
    const uint8_t *kept; /* what backing->keep() got before a restart; NULL: nothing */
    size_t kept_length;
};

/**
 * Makes the unit and opens its device; @made(context, unit or NULL, fault) on the loop, never
 * from inside. Kept state that cannot be read is a fault (-EILSEQ): reservations are not
 * guessed.
 */
void scsi_unit_create(const struct scsi_unit_options *options,
        void (*made)(void *context, struct scsi_unit *unit, const struct fault *fault),
        void *context);

/** Every nexus is closed. Flushes, closes the device, frees; then @gone on the loop. */
void scsi_unit_destroy(
        struct scsi_unit *unit, void (*gone)(void *context), void *context);

/** A session comes (unit attention 29h is due) and goes (its tasks are over). */
void scsi_nexus_open(struct scsi_unit *unit, struct scsi_nexus *nexus);
void scsi_nexus_close(struct scsi_nexus *nexus);

void scsi_submit(struct scsi_task *task);

/** What ops->want asked for; @buffer becomes the unit's. NULL: it will never come (a digest
    error, the connection is lost): the task ends, aborted or with sense 47h/05h. */
void scsi_data_arrived(struct scsi_task *task, struct buffer *buffer);

/** The buffer of ops->data is sent (or dropped) and given back: the next may come. */
void scsi_data_sent(struct scsi_task *task);

/** Have the task end soon: done comes, aborted, once nothing of it is in flight. */
void scsi_abort(struct scsi_task *task);

enum scsi_reset {
    SCSI_ABORT_TASK_SET, /* tasks of this nexus */
    SCSI_CLEAR_TASK_SET, /* tasks of all; others hear 2Fh/00h */
    SCSI_LOGICAL_UNIT_RESET, /* all; RESERVE(6) released; all sessions hear 29h/03h */
    SCSI_TARGET_WARM_RESET, /* the same, 29h/02h */
};

/** Embedded by the transport, alive until @finished: every task concerned is done. */
struct scsi_reset_wait {
    void (*finished)(struct scsi_reset_wait *);
    /* the unit's */
    struct scsi_reset_wait *next;
    struct scsi_unit *unit;
    struct scsi_nexus *of; /* NULL: tasks of all */
    uint64_t before; /* tasks that came before it */
    struct loop_task later;
};
void scsi_reset(
        struct scsi_nexus *nexus, enum scsi_reset what, struct scsi_reset_wait *wait);

/** A LUN that is not there answers INQUIRY (qualifier 3), REPORT LUNS, REQUEST SENSE, and
    25h/00h to the rest (SPC-4 6.6): a unit-less way for @task (its nexus names the session's
    own unit for REPORT LUNS). */
void scsi_submit_wrong_lun(struct scsi_task *task);

/** For the API. Any time on the loop. */
void scsi_unit_figures(const struct scsi_unit *unit, struct scsi_unit_figures *figures);
void scsi_nexus_figures(
        const struct scsi_nexus *nexus, struct scsi_unit_figures *figures);

#endif

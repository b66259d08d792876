/* server/iscsi/scsi_inside.h - what the files of the device server share.
 *
 *   scsi.c          life of a unit, the task set: order, abort, reset, unit attentions
 *   scsi_task.c     what a task can wait for, and how it ends
 *   scsi_device.c   requests to the device, range locks, a device that broke
 *   scsi_opcode.c   the table: from a CDB to its function, the checks before it
 *   scsi_*.c        the commands
 *
 * A command is a chain of functions: each does its part and then calls exactly one of
 * task_good(), task_fail...(), or one of the task_...(resume) calls below, as its last act.
 * After that call the task may be gone.
 */
#ifndef SERVER_ISCSI_SCSI_INSIDE_H
#define SERVER_ISCSI_SCSI_INSIDE_H

#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"
#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi.h"

enum {
    BLOCK_SMALLEST = 512, /* bytes; a device of single bytes is shown with these */
    GRAIN = 4096, /* bytes; what files and caches move at least */
    TRANSFER_MOST = 32 << 20, /* bytes of one command: MAXIMUM TRANSFER LENGTH */
    ZERO_MOST = 128 << 20, /* bytes of one WRITE SAME */
    UNMAP_MOST = 1 << 20, /* blocks of one UNMAP, all descriptors */
    UNMAP_RANGES = 256, /* descriptors of one UNMAP */
    SCRATCH = BUFFER_LARGE, /* bytes */
    REGISTRANTS_MOST = 64
};

/** Where a task is; what scsi_abort() has to undo. */
enum task_state {
    TASK_BLOCKED, /* in the task set, not started: others go first */
    TASK_RUNNING,
    TASK_BUFFER, /* in line for a buffer */
    TASK_WANT, /* for data-out */
    TASK_DEVICE,
    TASK_SENDING, /* the transport has its buffer */
    TASK_IN_LINE, /* task->line */
    TASK_KEEPING, /* reservations are being written down */
    TASK_POSTED, /* task->later runs it on */
    TASK_OVER
};

/** A first-in first-out line of tasks. */
struct scsi_line {
    struct scsi_task *first, **last;
};

enum sense_key {
    KEY_NO_SENSE = 0x0,
    KEY_NOT_READY = 0x2,
    KEY_MEDIUM_ERROR = 0x3,
    KEY_HARDWARE_ERROR = 0x4,
    KEY_ILLEGAL_REQUEST = 0x5,
    KEY_UNIT_ATTENTION = 0x6,
    KEY_DATA_PROTECT = 0x7,
    KEY_ABORTED_COMMAND = 0xb,
    KEY_MISCOMPARE = 0xe
};

/** Additional sense code and qualifier in one number, as SPC-4 prints them. */
enum sense_code {
    SENSE_NONE = 0x0000,
    SENSE_BECOMING_READY = 0x0401,
    SENSE_WRITE_ERROR = 0x0c00,
    SENSE_INVALID_INFORMATION_UNIT = 0x0e03,
    SENSE_READ_ERROR = 0x1100,
    SENSE_PARAMETER_LIST_LENGTH = 0x1a00,
    SENSE_MISCOMPARE = 0x1d00,
    SENSE_INVALID_OPCODE = 0x2000,
    SENSE_LBA_OUT_OF_RANGE = 0x2100,
    SENSE_INVALID_FIELD_IN_CDB = 0x2400,
    SENSE_NO_SUCH_UNIT = 0x2500,
    SENSE_INVALID_PARAMETER = 0x2600,
    SENSE_INVALID_RELEASE = 0x2604,
    SENSE_WRITE_PROTECTED = 0x2700,
    SENSE_SPACE_ALLOCATION_FAILED = 0x2707,
    SENSE_POWER_ON = 0x2900,
    SENSE_TARGET_RESET = 0x2902,
    SENSE_UNIT_RESET = 0x2903,
    SENSE_MODE_CHANGED = 0x2a01,
    SENSE_RESERVATIONS_PREEMPTED = 0x2a03,
    SENSE_RESERVATIONS_RELEASED = 0x2a04,
    SENSE_REGISTRATIONS_PREEMPTED = 0x2a05,
    SENSE_CAPACITY_CHANGED = 0x2a09,
    SENSE_COMMANDS_CLEARED = 0x2f00,
    SENSE_COMMAND_TIMEOUT = 0x2e01,
    SENSE_INTERNAL_FAILURE = 0x4400,
    SENSE_DATA_CRC = 0x4705,
    SENSE_MESSAGE = 0x4900,
    SENSE_REGISTRATION_RESOURCES = 0x5504
};

/** Persistent reservation types (SPC-4 table 204). */
enum reserve_type {
    RESERVE_NO = 0,
    RESERVE_WRITE = 1,
    RESERVE_ACCESS = 3,
    RESERVE_WRITE_REGISTRANTS = 5,
    RESERVE_ACCESS_REGISTRANTS = 6,
    RESERVE_WRITE_ALL = 7,
    RESERVE_ACCESS_ALL = 8
};

struct registrant {
    char initiator[SCSI_NAME_MAX];
    uint8_t isid[6];
    uint64_t key;
};

/** All that persistent reservations are; a value, changed as a whole. */
struct registrations {
    bool keep; /* APTPL of the last registration */
    uint8_t type; /* enum reserve_type */
    uint8_t holder; /* index, unless the type is ..._ALL */
    uint8_t count;
    struct registrant list[REGISTRANTS_MOST];
};

struct scsi_unit {
    struct loop *loop;
    struct buffer_pool *buffers;
    const struct scsi_backing *backing;
    struct uuid id;
    uint8_t hash[32]; /* of id */
    char name[SCSI_NAME_MAX];
    bool read_only;
    uint8_t rows[256]; /* opcode -> first row of the table + 1 */
    struct scsi_unit_figures figures;

    /* The device. */
    struct block_device *device; /* NULL: none now */
    bool lost; /* it broke: closed when nothing is in flight */
    bool flush_failed;
    bool cache_lost; /* the device broke because bytes could not be made stable */
    uint64_t changes, flushed; /* that ended; of these, covered by a flush that ended */
    uint64_t blocks;
    unsigned geometry; /* how often it has changed */
    uint32_t block_size, shift; /* bytes; block_size == 1 << shift */
    uint32_t piece_most; /* bytes of one read or write */
    uint64_t zero_most; /* bytes of one zero or discard */
    unsigned caps;
    struct scsi_opening opening;
    bool opening_now, closing_now;
    unsigned backoff_ms;
    struct loop_timer retry, patience;
    struct scsi_line parked; /* wait for the device, in order */

    /* Range locks and the one scratch buffer. */
    struct scsi_lock *locks; /* in the order of asking, held or not */
    struct scsi_line lock_line; /* requests that overlap a lock */
    uint8_t *scratch;
    bool scratch_taken;
    struct scsi_line scratch_line;

    /* The task set, in the order of coming. */
    TAILQ_HEAD(, scsi_task) set;
    unsigned ordered, heads, blocked; /* ORDERED, HEAD OF QUEUE; not started */
    uint64_t sequence;
    bool pumping;
    struct scsi_reset_wait *resets;

    /* Sessions and what they share. */
    struct scsi_nexus *nexuses;
    struct scsi_nexus *reserver; /* of RESERVE(6) */
    bool descriptor_sense, write_protect, write_through; /* mode pages */
    bool settled; /* what was cached when @write_through began is stable: WCE shows it */

    struct registrations pr, next; /* now; about to be kept */
    uint32_t generation;
    struct scsi_task *registering; /* the PERSISTENT RESERVE OUT that is under way */
    struct scsi_line register_line;
    uint8_t kept[SCSI_KEPT_MAX]; /* what backing->keep() is writing down */
    unsigned purge_left; /* tasks that PREEMPT AND ABORT waits for */

    /* Making and ending. */
    void (*made)(void *context, struct scsi_unit *unit, const struct fault *fault);
    void (*gone)(void *context);
    void *context;
    bool ending;
    struct fault fault; /* why it is refused */
    struct block_request last_flush;
    struct loop_task later;
};

enum scsi_direction { NO_DATA, DATA_IN, DATA_OUT };

enum opcode_flags {
    O_RANGE = 1, /* LBA and length in the usual places: decoded and checked */
    O_MOVES = 2, /* the range is moved over the wire: TRANSFER_MOST holds */
    O_PROTECT = 4, /* RDPROTECT, WRPROTECT ... in bits 7..5 of byte 1 must be 0 */
    O_WRITES = 8, /* changes the medium */
    O_THIN = 16, /* only where the device can discard */
    O_HEARS_NOTHING = 32 /* runs although a unit attention is due */
};

/** Who may, while someone else holds a persistent reservation (SPC-4 table 69, SBC-3 table
    13), and while someone else holds RESERVE(6) (SPC-2 table 10). */
enum opcode_access {
    A_ALL = 1, /* anybody, any type */
    A_READS =
            2, /* anybody under Write Exclusive types, registrants only types' registrants */
    A_WRITES = 3, /* holders and, under the registrants types, registrants */
    A_OWN = 4, /* judges by itself */
    A_SPC2 = 16 /* anybody, under somebody's RESERVE(6) */
};

struct scsi_opcode {
    uint8_t opcode;
    int8_t action; /* service action, -1 none */
    uint8_t length;
    uint8_t direction;
    uint8_t flags, access;
    uint8_t seconds; /* recommended timeout; nominal ones are not told */
    void (*run)(struct scsi_task *);
    uint8_t usage[SCSI_CDB_MAX]; /* bits that are looked at, from byte 1 on */
};

extern const struct scsi_opcode scsi_opcodes[];
extern const unsigned scsi_opcode_count;

static inline struct scsi_unit *task_unit(const struct scsi_task *task)
{
    return task->nexus->unit;
}

/* -- scsi.c -------------------------------------------------------------------------- */

/** Remember a unit attention; @but hears nothing (NULL: all hear). */
void nexus_attention(struct scsi_nexus *nexus, enum sense_code code);
void unit_attention(
        struct scsi_unit *unit, const struct scsi_nexus *but, enum sense_code code);
/** Takes the oldest one. False: none is due. */
bool nexus_attention_take(struct scsi_nexus *nexus, enum sense_code *code);
/** For task_finish(): the task leaves the set; then who waited for that. */
void set_remove(struct scsi_task *task);
void set_pump(struct scsi_unit *unit);
/** The device is gone and nothing is under way: the unit ends. */
void unit_maybe_gone(struct scsi_unit *unit);
/** The first opening: without unit->device it failed, or @device cannot be served. */
void unit_first_opened(
        struct scsi_unit *unit, struct block_device *device, const struct fault *fault);

/* -- scsi_task.c --------------------------------------------------------------------- */

void line_init(struct scsi_line *line);
/** @task waits in @line; whoever serves the line calls line_wake(). */
void line_join(struct scsi_line *line, struct scsi_task *task,
        void (*resume)(struct scsi_task *));
void line_leave(struct scsi_task *task);
/** The first of the line goes on, soon; false: nobody is there. */
bool line_wake(struct scsi_line *line);

/** Run @resume soon, from the loop. */
void task_post(struct scsi_task *task, void (*resume)(struct scsi_task *));
/** What it waited for is here; the callers are those that made it wait. */
void task_resume(struct scsi_task *task);

/** task->buffer becomes one of at least @size bytes. */
void task_take(struct scsi_task *task, size_t size, void (*resume)(struct scsi_task *));
/** task->buffer becomes the data-out [offset, offset+length). */
void task_want(struct scsi_task *task, uint64_t offset, uint32_t length,
        void (*resume)(struct scsi_task *));
/** Sends @length bytes of task->buffer, not the last ones. */
void task_send(
        struct scsi_task *task, uint32_t length, void (*resume)(struct scsi_task *));
void task_drop_buffer(struct scsi_task *task);
/** unit->scratch is the task's until it ends or task_scratch_give(). Only under a lock. */
void task_scratch(struct scsi_task *task, void (*resume)(struct scsi_task *));
void task_scratch_give(struct scsi_task *task);

/** The end. */
void task_good(struct scsi_task *task);
/** GOOD with the first @length bytes of task->buffer as the last data-in. */
void task_good_data(struct scsi_task *task, uint32_t length);
void task_status(struct scsi_task *task, enum scsi_status status);
void task_fail(struct scsi_task *task, enum sense_key key, enum sense_code code);
void task_fail_field(struct scsi_task *task); /* 24h/00h */
void task_fail_parameter(struct scsi_task *task); /* 26h/00h */
void task_fail_information(struct scsi_task *task, enum sense_key key,
        enum sense_code code, uint64_t information);
/** By task->result, after a device request. */
void task_fail_device(struct scsi_task *task);

/**
 * A command that answers with parameter data: @build fills @bytes (zeroed, @room of them,
 * BUFFER_SMALL at least) and returns the length, or -1 when it has ended the task itself.
 * Truncated to @allocation.
 */
typedef int64_t reply_f(struct scsi_task *task, uint8_t *bytes, size_t room);
void task_reply(
        struct scsi_task *task, uint32_t allocation, size_t room, reply_f *build);

/* -- scsi_sense.c -------------------------------------------------------------------- */

/** Writes sense data into @bytes (room SCSI_SENSE_MAX), returns its length. */
uint8_t sense_build(uint8_t *bytes, bool descriptor, enum sense_key key,
        enum sense_code code, const uint64_t *information);

/* -- scsi_device.c ------------------------------------------------------------------- */

/** The range is [offset, offset+length) in bytes; task->result is set before @resume. */
void task_device(struct scsi_task *task, enum block_op op, uint64_t offset, void *bytes,
        uint64_t length, unsigned flags, void (*resume)(struct scsi_task *));
void task_device_iov(struct scsi_task *task, enum block_op op, uint64_t offset,
        const struct iovec *iov, int iovcnt, uint64_t length, unsigned flags,
        void (*resume)(struct scsi_task *));
/** Writes zeros to the range, at most zero_piece() bytes, in whichever way there is. */
uint64_t zero_piece(const struct scsi_unit *unit, uint64_t length);
void task_zero(struct scsi_task *task, uint64_t offset, uint64_t length, unsigned flags,
        void (*resume)(struct scsi_task *));
/** No other command touches the range from @resume on until task_unlock() or the end. */
void task_lock(struct scsi_task *task, uint64_t offset, uint64_t length,
        void (*resume)(struct scsi_task *));
void task_unlock(struct scsi_task *task);
/** Opens the device, the first time or again. */
void unit_open(struct scsi_unit *unit, bool again);
void unit_close(struct scsi_unit *unit);
void unit_device_init(struct scsi_unit *unit);
bool unit_read_only(const struct scsi_unit *unit);
/** Some of what was written may be in a cache alone. */
bool unit_dirty(const struct scsi_unit *unit);
/** FUA of the CDB, or everything is written through. */
unsigned task_write_flags(const struct scsi_task *task);

/* -- scsi_opcode.c ------------------------------------------------------------------- */

void opcode_index(uint8_t rows[256]);
bool opcode_served(const struct scsi_unit *unit, const struct scsi_opcode *row);
/** NULL: not served. Looks at the first two bytes. */
const struct scsi_opcode *opcode_find(const struct scsi_unit *unit, const uint8_t *cdb);
/** Checks what the table says, then runs it. */
void task_start(struct scsi_task *task);
/** Is [task->lba, + task->blocks) on the medium? False: it has ended the task. */
bool task_medium_range(struct scsi_task *task);

/* -- scsi_reserve*.c ----------------------------------------------------------------- */

bool reserve_conflict(const struct scsi_task *task);
void reserve_nexus_open(struct scsi_nexus *nexus);
void reserve_nexus_close(struct scsi_nexus *nexus);
void reserve_reset(struct scsi_unit *unit);
/** False: @bytes are not what reserve_write() wrote. */
bool reserve_read(struct scsi_unit *unit, const uint8_t *bytes, size_t length);
void reserve_task_purged(struct scsi_unit *unit);
/** A PERSISTENT RESERVE OUT ends: the next may begin. */
void reserve_task_over(struct scsi_task *task);

/* -- the commands: scsi_opcodes.tbl.h names them ------------------------------------- */

void scsi_test_unit_ready(struct scsi_task *task);
void scsi_inquiry(struct scsi_task *task);
void scsi_request_sense(struct scsi_task *task);
void scsi_report_luns(struct scsi_task *task);
void scsi_start_stop_unit(struct scsi_task *task);
void scsi_report_supported_opcodes(struct scsi_task *task);
void scsi_report_supported_functions(struct scsi_task *task);
void scsi_read_capacity_10(struct scsi_task *task);
void scsi_read_capacity_16(struct scsi_task *task);
void scsi_get_lba_status(struct scsi_task *task);
void scsi_mode_sense(struct scsi_task *task);
void scsi_mode_select(struct scsi_task *task);
void scsi_read(struct scsi_task *task);
void scsi_write(struct scsi_task *task);
void scsi_write_verify(struct scsi_task *task);
void scsi_verify(struct scsi_task *task);
void scsi_synchronize_cache(struct scsi_task *task);
void scsi_prefetch(struct scsi_task *task);
void scsi_unmap(struct scsi_task *task);
void scsi_write_same(struct scsi_task *task);
void scsi_compare_and_write(struct scsi_task *task);
void scsi_orwrite(struct scsi_task *task);
void scsi_persistent_reserve_in(struct scsi_task *task);
void scsi_persistent_reserve_out(struct scsi_task *task);
void scsi_reserve_6(struct scsi_task *task);
void scsi_release_6(struct scsi_task *task);

void task_wrong_lun(struct scsi_task *task);
/** Blocks of one COMPARE AND WRITE. */
uint32_t compare_most(const struct scsi_unit *unit);
/** INQUIRY's standard data, also for a LUN that is not there. */
int64_t inquiry_standard(const struct scsi_unit *unit, uint8_t *bytes, bool there);

#endif

/* tests/server/iscsi/scsi_rig.h - a unit on a memory disk under the simulated loop, and a
 * transport without PDUs that keeps account of everything it is owed. */
#ifndef TESTS_SERVER_ISCSI_SCSI_RIG_H
#define TESTS_SERVER_ISCSI_SCSI_RIG_H

#include "replica/block/memory.h"
#include "replica/block/wrappers.h"
#include "server/iscsi/scsi.h"

enum { RIG_NEXUSES = 3, RIG_PLANS = 8 };

enum {
    RIG_THICK = BLOCK_VOLATILE,
    RIG_THIN = BLOCK_VOLATILE | BLOCK_THIN | BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD |
            BLOCK_CAN_EXTENTS | BLOCK_DISCARD_ZEROES
};

struct rig_options {
    uint64_t seed;
    uint64_t size; /* bytes; 0: 8 MiB */
    uint32_t block_size; /* 0: 512 */
    unsigned caps; /* 0: RIG_THIN */
    size_t buffers; /* bytes; 0: 4 MiB */
    bool read_only;
    const uint8_t *kept;
    size_t kept_length;
    unsigned opens_fail; /* so many openings fail at first */
    unsigned plan_count;
    struct block_fault_plan plans[RIG_PLANS]; /* of the first device */
    bool keeps_attention; /* else the 29h of the beginning is taken by the rig */
};

struct rig {
    struct loop *loop;
    struct buffer_pool *buffers;
    struct memory_disk *disk;
    struct block_device *device; /* the faulty one; the unit's */
    struct rig_options options;
    struct scsi_unit *unit;
    struct scsi_nexus nexus[RIG_NEXUSES];
    struct scsi_backing backing;
    struct fault fault;
    unsigned opens, keeps, done;
    unsigned opens_fail; /* so many openings to come fail */
    uint64_t reopen_size; /* the disk that is opened again has this size; 0: the same */
    struct memory_disk *other;
    int keep_result;
    bool keep_held; /* answered by rig_keep_answer() */
    uint8_t kept[SCSI_KEPT_MAX];
    size_t kept_length;
    struct scsi_opening *opening;
    struct loop_task open_task, keep_task;
    void (*kept_call)(void *, int);
    void *kept_unit;
    bool made, gone;
};

/** One command. Zeros, then filled by rig_command(). */
struct rig_task {
    struct scsi_task task;
    struct rig *rig;
    const uint8_t *out; /* data-out */
    uint8_t *in; /* room for @expected bytes */
    uint32_t received;
    uint32_t wants, datas;
    bool hold_want, hold_data; /* do not answer by itself */
    bool lose_want; /* answer NULL */
    bool wanting, sending; /* something is held */
    uint32_t want_offset, want_length;
    struct buffer *held;
    struct buffer_wait wait;
    bool done;
    unsigned dones;
    struct loop_task later;
};

void rig_make(struct rig *rig, const struct rig_options *options);
/** A disk of 64 MiB with these @caps. */
void rig_make_large(struct rig *rig, unsigned caps);
/** Also checks that every buffer is back. */
void rig_release(struct rig *rig);

/** A task of @nexus with @length bytes of CDB. */
void rig_command(struct rig *rig, struct rig_task *task, unsigned nexus,
        const uint8_t *cdb, size_t length);
/** What is moved: data-out from @bytes, or data-in to @bytes. */
void rig_out(struct rig_task *task, const void *bytes, uint32_t length);
void rig_in(struct rig_task *task, void *bytes, uint32_t length);

void rig_submit(struct rig_task *task);
/** Turns the loop until it is done; false when nothing is left to turn. */
bool rig_wait(struct rig_task *task);
enum scsi_status rig_run(struct rig_task *task);
/** Runs all that is ready, and no timer that is in the future. */
void rig_settle(struct rig *rig);
void rig_answer_want(struct rig_task *task);
void rig_answer_data(struct rig_task *task);
void rig_keep_answer(struct rig *rig);

/** A task management function, until it is finished. */
void rig_reset(struct rig *rig, unsigned nexus, enum scsi_reset what);

/** Sense: key << 16 | code, 0 when there is none. */
uint32_t rig_sense(const struct rig_task *task);

/** Short forms; each asserts nothing and returns the status. @cdb as a literal. */
#define CDB(...)                                                                       \
    (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })
enum scsi_status rig_simple(struct rig *rig, unsigned nexus, uint32_t *sense,
        const uint8_t *cdb, size_t length);
enum scsi_status rig_get(struct rig *rig, unsigned nexus, uint32_t *sense, void *in,
        uint32_t expected, uint32_t *received, const uint8_t *cdb, size_t length);
enum scsi_status rig_put(struct rig *rig, unsigned nexus, uint32_t *sense,
        const void *out, uint32_t expected, const uint8_t *cdb, size_t length);

/** What TEST UNIT READY brings: the sense of the next unit attention, 0 none. */
uint32_t rig_attention(struct rig *rig, unsigned nexus);

/** READ(16), WRITE(16): the whole, or the task only, not yet submitted. */
void rig_read_task(struct rig *rig, struct rig_task *task, unsigned nexus, uint64_t lba,
        uint32_t blocks, void *bytes);
void rig_write_task(struct rig *rig, struct rig_task *task, unsigned nexus,
        uint64_t lba, uint32_t blocks, const void *bytes);
enum scsi_status rig_read(
        struct rig *rig, unsigned nexus, uint64_t lba, uint32_t blocks, void *bytes);
enum scsi_status rig_write(struct rig *rig, unsigned nexus, uint64_t lba,
        uint32_t blocks, const void *bytes);

/** A CDB of 16 bytes, of 10 (and six zeros). */
void rig_lba16(uint8_t cdb[16], uint8_t opcode, uint64_t lba, uint32_t blocks);
void rig_lba10(uint8_t cdb[16], uint8_t opcode, uint64_t lba, uint32_t blocks);

/** The parameter list of an UNMAP of @count ranges: LBA, blocks. Returns its bytes. */
size_t rig_unmap_list(uint8_t *list, unsigned count, const uint64_t (*ranges)[2]);

/** Noise, the same for the same @seed. */
void rig_fill(uint8_t *bytes, size_t length, uint64_t seed);

/** The bytes of the memory disk from @lba on. */
uint8_t *rig_disk_at(const struct rig *rig, uint64_t lba);

#define SENSE(key, code) ((uint32_t)(key) << 16 | (uint32_t)(code))

#endif

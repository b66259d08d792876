/* replica/block/iscsi_sense.h - SCSI answers judged: bytes in, decision and words out.
 * Pure. */
#ifndef REPLICA_BLOCK_ISCSI_SENSE_H
#define REPLICA_BLOCK_ISCSI_SENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sense_action {
    SENSE_OK,
    SENSE_FAIL, /* answer the error */
    SENSE_BACK_OFF, /* send again after 10-500 ms, until the command's deadline */
    SENSE_RETRY_ONCE, /* send again, once */
    SENSE_RETRY_THRICE, /* send again, three times */
    SENSE_RETRY_RESET, /* as RETRY_ONCE, unless unflushed writes may be lost: GIVE_UP */
    SENSE_GIVE_UP, /* drop the session: only a new one behind the barrier is sure */
    SENSE_LOOK_RETRY, /* freeze, identify the LUN anew; the same one: send again */
    SENSE_LOOK_FAIL /* identify anew; the same one: answer the error */
};

enum { SENSE_KEEP = 64 }; /* bytes of sense data that are kept of an answer */

/** How a command ended. Filled by the initiator. */
struct scsi_answer {
    bool lost; /* the session went away before an answer came */
    uint8_t status; /* SAM status, when not lost */
    int64_t residual; /* bytes; > 0 underflow, < 0 overflow */
    uint8_t sense[SENSE_KEEP];
    unsigned sense_length; /* bytes that came, at most SENSE_KEEP; 0: none or not whole
                            */
};

struct sense {
    bool valid; /* whole, of a known response code */
    uint8_t key, asc, ascq;
};

struct sense_decision {
    enum sense_action action;
    int error; /* positive errno, for when the action ends in failure */
};

/**
 * Fixed (70h, 71h) or descriptor (72h, 73h) format. Fixed needs 18 bytes, descriptor 8;
 * what is shorter is not valid. Never reads past @length.
 */
struct sense sense_parse(const uint8_t *bytes, unsigned length);

/** The decision table, iscsi_sense.tbl.h. @answer must not be lost. */
struct sense_decision sense_decide(const struct scsi_answer *answer, bool write);

/**
 * "MEDIUM ERROR 03/11/00, unrecovered read error" or "BUSY". Writes at most @size bytes
 * with NUL.
 */
void sense_words(const struct scsi_answer *answer, char *text, size_t size);

#endif

/* replica/block/iscsi_wire.h - the full feature phase of one iSCSI connection: SCSI commands
 * and their data, on a socket that the library has logged in.
 *
 * Private to the driver. Ours and not the library's, because here the bytes go by: headers
 * and data of many PDUs leave in one system call, data arrives where it belongs with the
 * next header behind it, and what came is counted, so that data that never came is known.
 * RFC 7143; error recovery level 0: whatever the target does against the rules ends the
 * session. One connection, no digests, DataPDUInOrder and DataSequenceInOrder, one
 * outstanding R2T a command, as the library negotiates.
 *
 * Knows no loop and keeps no time: its owner calls wire_receive() when the socket is
 * readable, wire_send() when something was queued or the socket is writable again. Nothing
 * calls back; what happened stands in the struct. Allocates nothing.
 */
#ifndef REPLICA_BLOCK_ISCSI_WIRE_H
#define REPLICA_BLOCK_ISCSI_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "replica/block/iscsi_sense.h"
#include "replica/block/iscsi_terms.h"

enum {
    WIRE_TASKS = 64, /* commands outstanding, at most */
    WIRE_PIECES = 1024, /* buffers of one command, at most */
    WIRE_HEADERS = 64, /* PDUs in one batch */
    WIRE_CONTROLS = 8, /* PDUs without data that wait to be sent */
    WIRE_STAGE = 512 /* bytes that are read behind the data: headers, mostly */
};

struct initiator;

enum initiator_direction { INITIATOR_NONE, INITIATOR_IN, INITIATOR_OUT };

/** A place in the buffers of a command. */
struct wire_cursor {
    int piece;
    size_t at; /* bytes into it */
};

/**
 * One SCSI command. Owned by the caller until it is done, with @iov and its buffers. No
 * element is empty; their lengths sum to @length, whole words for what is sent.
 */
struct initiator_command {
    uint8_t cdb[16];
    unsigned cdb_size; /* 6, 10, 12 or 16 */
    enum initiator_direction direction;
    uint32_t length; /* bytes to transfer */
    uint32_t
            expected; /* the Expected Data Transfer Length of an IN command, where it is
                          more: what comes beyond @length is left out */
    const struct iovec *iov;
    int iovcnt;
    void (*done)(struct initiator_command *);

    /* Set when done. */
    struct scsi_answer answer;
    uint32_t moved; /* bytes that came, without a gap, or that were sent */

    /* the initiator's */
    struct initiator *initiator;
    struct initiator_command *next; /* in one of the wire's lists */
    uint32_t tag;
    uint64_t order; /* counts the commands as they are queued */
    uint32_t allowed; /* bytes that may be sent by now */
    uint32_t transfer_tag, data_sn;
    struct wire_cursor cursor; /* at @moved */
    bool started, queued, answered;
    unsigned batch; /* the last one that has a PDU of it */
};

struct wire_list {
    struct initiator_command *first, **end;
};

struct wire {
    int fd; /* the library's */
    unsigned lun; /* as it stands in the first two bytes of the field */
    struct login_terms terms;
    uint32_t cmd_sn, max_cmd_sn, exp_stat_sn;

    /* What happened, for the owner. */
    bool lost; /* no more of this session */
    bool blocked; /* wire_send() wants the socket writable */
    bool reset_done, logout_done;
    int reset_result;
    struct wire_list finished; /* the owner takes them off */
    uint64_t heard; /* see wire_heard() */

    /* out */
    struct wire_list starting, sending; /* not sent yet; more data may be sent */
    struct wire_list deferred; /* answered, with bytes in the batch */
    uint8_t controls[WIRE_CONTROLS][TERMS_HEADER];
    unsigned control_count;
    unsigned batch; /* counts them */
    unsigned elements, element; /* of the batch; the first that is not all sent */
    unsigned headers;
    size_t batched; /* bytes */
    uint8_t header_room[WIRE_HEADERS][TERMS_HEADER];
    struct iovec element_room[WIRE_PIECES + 2 * WIRE_HEADERS];

    /* in */
    uint8_t stage[WIRE_STAGE];
    size_t stage_from, stage_to; /* bytes of it that were not looked at yet */
    uint8_t header[TERMS_HEADER]; /* of the PDU that is being read */
    bool in_pdu;
    uint32_t left; /* bytes of its data that have not come */
    unsigned pad; /* likewise behind it */
    struct initiator_command *into; /* whose buffers its data goes to; NULL: @kept */
    uint8_t kept[2 + SENSE_KEEP];
    size_t kept_length;

    struct initiator_command *tasks[WIRE_TASKS];
    unsigned outstanding;
    uint32_t serial; /* of tags */
    uint64_t queued; /* commands, ever */
};

/** Begin on @fd, which stays the caller's, with what the login agreed on. */
void wire_begin(
        struct wire *wire, int fd, unsigned lun, const struct login_terms *terms);

/** Queue a command; fewer than WIRE_TASKS are outstanding (checked). */
void wire_queue(struct wire *wire, struct initiator_command *command);

/** Queue a LOGICAL UNIT RESET, or a logout. */
void wire_queue_reset(struct wire *wire);
void wire_queue_logout(struct wire *wire);

/** Something waits that could be sent now. */
bool wire_wants_send(const struct wire *wire);

/** Send what can be sent without waiting. */
void wire_send(struct wire *wire);

/** Read what is there, about @budget bytes at most: more is left to the next call. */
void wire_receive(struct wire *wire, size_t budget);

/**
 * The least order of the commands whose bytes have moved since the last call: their data
 * came, or was asked for, or they ended well. UINT64_MAX: of none.
 */
uint64_t wire_heard(struct wire *wire);

/** An outstanding command, off the wire; NULL when there is none. When the session ends. */
struct initiator_command *wire_take_lost(struct wire *wire);

/** The first of @list, off it; NULL when empty. */
struct initiator_command *wire_list_take(struct wire_list *list);

#endif

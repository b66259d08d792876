/* server/iscsi/pdu.h - the basic header segment, 48 bytes, read and written by name.
 *
 * RFC 7143 section 11. Big endian on the wire; the functions here are the only place that
 * knows. Pure: no state, any thread.
 */
#ifndef SERVER_ISCSI_PDU_H
#define SERVER_ISCSI_PDU_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { PDU_HEADER = 48, PDU_DIGEST = 4 }; /* bytes */

#define PDU_NO_TAG UINT32_C(0xffffffff)

enum pdu_opcode {
    PDU_NOP_OUT = 0x00,
    PDU_SCSI_COMMAND = 0x01,
    PDU_TASK_MANAGEMENT = 0x02,
    PDU_LOGIN = 0x03,
    PDU_TEXT = 0x04,
    PDU_DATA_OUT = 0x05,
    PDU_LOGOUT = 0x06,
    PDU_SNACK = 0x10,
    PDU_NOP_IN = 0x20,
    PDU_SCSI_RESPONSE = 0x21,
    PDU_TASK_MANAGEMENT_RESPONSE = 0x22,
    PDU_LOGIN_RESPONSE = 0x23,
    PDU_TEXT_RESPONSE = 0x24,
    PDU_DATA_IN = 0x25,
    PDU_LOGOUT_RESPONSE = 0x26,
    PDU_R2T = 0x31,
    PDU_ASYNC_MESSAGE = 0x32,
    PDU_REJECT = 0x3f
};

enum pdu_bits { PDU_IMMEDIATE = 0x40, PDU_FINAL = 0x80, PDU_CONTINUE = 0x40 };

enum pdu_reject { /* RFC 7143 11.17.1 */
    PDU_REJECT_DATA_DIGEST = 0x02,
    PDU_REJECT_SNACK = 0x03,
    PDU_REJECT_PROTOCOL = 0x04,
    PDU_REJECT_NOT_SUPPORTED = 0x05,
    PDU_REJECT_IMMEDIATE = 0x06,
    PDU_REJECT_TASK_IN_PROGRESS = 0x07,
    PDU_REJECT_INVALID_DATA_ACK = 0x08,
    PDU_REJECT_INVALID_FIELD = 0x09,
    PDU_REJECT_LONG_OPERATION = 0x0a,
    PDU_REJECT_WAITING_LOGOUT = 0x0c
};

static inline uint16_t be16_get(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t be24_get(const uint8_t *at)
{
    return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
}

static inline uint32_t be32_get(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | be24_get(at + 1);
}

static inline uint64_t be64_get(const uint8_t *at)
{
    return (uint64_t)be32_get(at) << 32 | be32_get(at + 4);
}

static inline void be16_put(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void be24_put(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 16);
    be16_put(at + 1, (uint16_t)value);
}

static inline void be32_put(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    be24_put(at + 1, value & 0xffffff);
}

static inline void be64_put(uint8_t *at, uint64_t value)
{
    be32_put(at, (uint32_t)(value >> 32));
    be32_put(at + 4, (uint32_t)value);
}

static inline enum pdu_opcode pdu_opcode(const uint8_t *bhs)
{
    return (enum pdu_opcode)(bhs[0] & 0x3f);
}

static inline bool pdu_immediate(const uint8_t *bhs)
{
    return bhs[0] & PDU_IMMEDIATE;
}

static inline bool pdu_final(const uint8_t *bhs)
{
    return bhs[1] & PDU_FINAL;
}

/** TotalAHSLength in bytes. */
static inline uint32_t pdu_ahs_length(const uint8_t *bhs)
{
    return (uint32_t)bhs[4] * 4;
}

/** DataSegmentLength, bytes, without padding. */
static inline uint32_t pdu_data_length(const uint8_t *bhs)
{
    return be24_get(bhs + 5);
}

/** The same with padding to four bytes. */
static inline uint32_t pdu_data_padded(const uint8_t *bhs)
{
    return (pdu_data_length(bhs) + 3) & ~UINT32_C(3);
}

static inline uint32_t pdu_itt(const uint8_t *bhs)
{
    return be32_get(bhs + 16);
}

static inline uint32_t pdu_ttt(const uint8_t *bhs)
{
    return be32_get(bhs + 20);
}

/** CmdSN of an initiator's PDU; StatSN of ours stands in the same place. */
static inline uint32_t pdu_cmdsn(const uint8_t *bhs)
{
    return be32_get(bhs + 24);
}

static inline uint32_t pdu_expstatsn(const uint8_t *bhs)
{
    return be32_get(bhs + 28);
}

/** RFC 1982 serial numbers: -1, 0 or 1 as @a is before, equal to, after @b. */
static inline int serial_compare(uint32_t a, uint32_t b)
{
    return a == b ? 0 : (int32_t)(a - b) < 0 ? -1 : 1;
}

/** Zeros, opcode, and the final bit when asked. */
static inline void pdu_start(uint8_t *bhs, enum pdu_opcode opcode, bool final)
{
    memset(bhs, 0, PDU_HEADER);
    bhs[0] = (uint8_t)opcode;
    bhs[1] = final ? PDU_FINAL : 0;
}

/** What a full-feature session expects of an initiator's PDU. */
struct pdu_limits {
    uint32_t data_max; /* our MaxRecvDataSegmentLength, bytes */
    bool discovery; /* only NOP-Out, Text, Logout */
};

/** What is wrong with a header by itself; one row an opcode in pdu.tbl.h. */
enum pdu_fault {
    PDU_FINE,
    PDU_ANSWER_REJECT, /* Reject with *@reason, then the connection goes on; its data, within
                          the limits and without an AHS, are still to be read and forgotten */
    PDU_DROP /* Reject if it can be sent, then drop: framing or trust is lost */
};

/** Judge the BHS of a PDU in full feature phase, before any of its length is believed by
    who reads on. An AHS is PDU_DROP: no command of ours is longer than 16 bytes or goes both
    ways. Login PDUs are PDU_DROP here: login.h has them. *@reason is set unless PDU_FINE. */
enum pdu_fault pdu_judge(
        const uint8_t *bhs, const struct pdu_limits *limits, enum pdu_reject *reason);

#endif

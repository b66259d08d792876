/* replica/block/iscsi_terms.h - what a login agreed on, read from the target's answers.
 *
 * Private to the driver. Pure. RFC 7143: 11.13 the login response, 13 the keys.
 */
#ifndef REPLICA_BLOCK_ISCSI_TERMS_H
#define REPLICA_BLOCK_ISCSI_TERMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TERMS_SEGMENT =
            262144, /* bytes: what we declare to take in one PDU, and both bursts
                               that we offer; the library's numbers */
    TERMS_HEADER = 48 /* bytes of a PDU's basic header segment */
};

struct login_terms {
    bool told; /* an answer was read */
    uint32_t segment; /* bytes of data in one PDU that the target takes; whole words */
    uint32_t first_burst, max_burst; /* bytes, at least 512 */
    bool immediate; /* data may come with the command */
    bool initial_r2t; /* no other data may come unasked */
    uint32_t cmd_sn; /* of the first command */
    uint32_t max_cmd_sn; /* of the last one that may be sent */
    uint32_t exp_stat_sn;
};

/** What holds when the target says nothing. */
void terms_init(struct login_terms *terms);

/** Bytes of the PDU that begins with @header: with its data and the padding. */
size_t terms_pdu_length(const uint8_t header[TERMS_HEADER]);

/**
 * Take what a login response says; @length is at least terms_pdu_length(). Returns 0, or
 * -EPROTO for values that are out of range, or agreed to but never offered.
 */
int terms_take(struct login_terms *terms, const uint8_t *pdu, size_t length);

#endif

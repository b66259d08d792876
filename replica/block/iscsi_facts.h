/* replica/block/iscsi_facts.h - what a LUN says about itself: parameter data read.
 * Pure.
 *
 * Every function takes bytes as they came, @length of them, and never reads past them.
 * What does not fit is left unknown; nothing asserts on it.
 */
#ifndef REPLICA_BLOCK_ISCSI_FACTS_H
#define REPLICA_BLOCK_ISCSI_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "replica/block/device.h"
#include "replica/block/open.h"

enum { FACTS_SERIAL_MAX = 128 };

struct lun_facts {
    /* INQUIRY */
    uint8_t qualifier, type; /* peripheral qualifier and device type */
    char vendor[9];
    /* VPD 83h, 80h */
    char world[BLOCK_IDENTITY_MAX]; /* the best NAA 2, 5, 6 or EUI-64 of the unit; ""
                                       none */
    char t10[FACTS_SERIAL_MAX]; /* T10 vendor identification, printable; "" none */
    char serial[FACTS_SERIAL_MAX]; /* unit serial number, printable; "" none */
    /* READ CAPACITY(16) */
    uint64_t blocks;
    uint32_t block_size; /* bytes */
    bool thin; /* LBPME */
    bool reads_zeros; /* LBPRZ: unmapped blocks read as zeros */
    /* VPD B0h; 0 = not reported */
    uint32_t max_transfer, max_unmap,
            max_unmap_ranges; /* blocks, blocks, descriptors */
    uint64_t max_write_same; /* blocks */
    /* VPD B2h */
    bool can_unmap; /* LBPU */
    bool can_write_same_unmap; /* LBPWS */
    /* MODE SENSE, caching page */
    bool write_protected;
    bool fua; /* DPOFUA */
    bool volatile_cache; /* WCE; true when unknown */
    /* PERSISTENT RESERVE IN */
    bool reserved;
    /* GET LBA STATUS was answered */
    bool can_extents;
};

void facts_inquiry(struct lun_facts *facts, const uint8_t *bytes, unsigned length);
void facts_vpd83(struct lun_facts *facts, const uint8_t *bytes, unsigned length);
void facts_vpd80(struct lun_facts *facts, const uint8_t *bytes, unsigned length);
void facts_vpdb0(struct lun_facts *facts, const uint8_t *bytes, unsigned length);
void facts_vpdb2(struct lun_facts *facts, const uint8_t *bytes, unsigned length);

/** False when the answer is too short to hold size and block size. */
bool facts_capacity(struct lun_facts *facts, const uint8_t *bytes, unsigned length);

/** MODE SENSE(6) with the caching page and no block descriptors. */
void facts_mode(struct lun_facts *facts, const uint8_t *bytes, unsigned length);

/** PERSISTENT RESERVE IN, READ RESERVATION. */
void facts_reservation(struct lun_facts *facts, const uint8_t *bytes, unsigned length);

/** True when both are the same unit as far as they can tell: identity and block size.
 */
bool facts_same_unit(const struct lun_facts *a, const struct lun_facts *b);

/** The two names of open.h made from the facts; tgt's small numbers do not count as
 * world. */
void facts_identity(const struct lun_facts *facts, struct block_identity *identity);

/**
 * GET LBA STATUS parameter data to extents of [offset, offset+length): in order,
 * without gaps, at least one, at most @max. A deallocated run is zero only with
 * @facts->reads_zeros; what the answer does not say, or says out of order, is data.
 * Returns the count.
 */
unsigned facts_extents(const struct lun_facts *facts, const uint8_t *bytes,
        unsigned size, uint64_t offset, uint64_t length, struct block_extent *extents,
        unsigned max);

#endif

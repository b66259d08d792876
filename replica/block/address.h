/* replica/block/address.h - the words by which an element is addressed, read and
 * written.
 *
 * Pure: no I/O, no name resolution, no library. Any thread. What is read comes from
 * outside, so nothing here asserts on it: -EINVAL and a sentence in the fault.
 */
#ifndef REPLICA_BLOCK_ADDRESS_H
#define REPLICA_BLOCK_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "replica/base/fault.h"
#include "replica/block/open.h"

enum {
    ADDRESS_POOL_MAX = 64, /* a pool's name: 1..63 of [A-Za-z0-9._-], no leading dot */
    ADDRESS_LUN_MAX = 16383, /* flat addressing has 14 bits */
    ADDRESS_PORT_ISCSI = 3260,
    ADDRESS_TEXT = 384 /* the longest canonical address and NUL */
};

enum address_kind { ADDRESS_POOL_FILE, ADDRESS_ISCSI };

/** An address as a value. Only the members of its kind are set, the rest is zero. */
struct address {
    enum address_kind kind;
    char pool[ADDRESS_POOL_MAX];
    char file[BLOCK_NAME_MAX]; /* relative; no empty, "." or ".." component */
    struct sockaddr_storage portal; /* v4-mapped v6 is stored as v4 */
    char target[ISCSI_NAME_MAX]; /* lower case */
    unsigned lun; /* 0..ADDRESS_LUN_MAX */
};

/**
 * Reads "pool:NAME/FILE" or "iscsi://HOST[:PORT]/TARGET/LUN" (HOST a dotted quad or an
 * IPv6 address in brackets). Returns 0 or -EINVAL; @fault may be NULL.
 */
int address_parse(const char *text, struct address *address, struct fault *fault);

/** The canonical spelling; address_parse() of it gives the same address. */
void address_format(const struct address *address, char text[ADDRESS_TEXT]);

/**
 * Reads "ADDR:PORT" or "[ADDR]:PORT"; without ":PORT" @default_port is taken, or
 * -EINVAL when that is 0. Port 0 is taken only when @any_port (a listener that lets the
 * system choose). v4-mapped v6 becomes v4.
 */
int portal_parse(const char *text, uint16_t default_port, bool any_port,
        struct sockaddr_storage *portal, struct fault *fault);

/** "127.0.0.1:3260" or "[::1]:3260". */
void portal_format(const struct sockaddr_storage *portal, char text[BLOCK_PORTAL_TEXT]);

/** Length of the sockaddr in @portal, for bind() and connect(). */
socklen_t portal_length(const struct sockaddr_storage *portal);

/** Host order. */
uint16_t portal_port(const struct sockaddr_storage *portal);

/** True for 127.0.0.0/8 and ::1. */
bool portal_is_loopback(const struct sockaddr_storage *portal);

/** Same family, address and port. */
bool portal_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

/** One row of --allow-portal. */
struct portal_rule {
    sa_family_t family; /* AF_INET or AF_INET6 */
    uint8_t address[16]; /* network order; 4 or 16 bytes count */
    uint8_t bits; /* leading bits that must agree: 0..32 or 0..128 */
    uint16_t port; /* 0: any */
};

/** Reads "ADDR[/BITS][:PORT]", IPv6 in brackets. Returns 0 or -EINVAL. */
int portal_rule_parse(const char *text, struct portal_rule *rule, struct fault *fault);

/** True when @portal may be connected to under this rule. v4-mapped v6 counts as v4. */
bool portal_rule_allows(
        const struct portal_rule *rule, const struct sockaddr_storage *portal);

/**
 * Reads an iSCSI name (iqn., eui. or naa.; 1..223 bytes) of @length bytes and writes it
 * in lower case. Returns 0 or -EINVAL.
 */
int iqn_parse(const char *text, size_t length, char name[ISCSI_NAME_MAX],
        struct fault *fault);

#endif

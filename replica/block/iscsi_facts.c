#include "replica/block/iscsi_facts.h"

#include <stdio.h>
#include <string.h>

#include "replica/base/checked.h"

static uint16_t get_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/** Printable ASCII, blanks at both ends cut; @text holds @size bytes. */
static void text_copy(char *text, unsigned size, const uint8_t *bytes, unsigned length)
{
    unsigned used = 0;

    while (length && (bytes[0] == ' ' || bytes[0] == 0))
        bytes++, length--;
    while (length && (bytes[length - 1] == ' ' || bytes[length - 1] == 0))
        length--;
    for (unsigned i = 0; i < length && used + 1 < size; i++)
        text[used++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    text[used] = '\0';
}

/** Length of a VPD page's payload that really came; 0 when it is not page @code. */
static unsigned vpd_payload(uint8_t code, const uint8_t *bytes, unsigned length)
{
    unsigned said;

    if (length < 4 || bytes[1] != code)
        return 0;
    said = get_be16(bytes + 2);
    return said < length - 4 ? said : length - 4;
}

void facts_inquiry(struct lun_facts *facts, const uint8_t *bytes, unsigned length)
{
    if (length < 1) {
        facts->qualifier = 3;
        return;
    }
    facts->qualifier = bytes[0] >> 5;
    facts->type = bytes[0] & 0x1f;
    if (length >= 16)
        text_copy(facts->vendor, sizeof(facts->vendor), bytes + 8, 8);
}

static void hex_append(char *text, const uint8_t *bytes, unsigned length)
{
    char *end = text + strlen(text);

    for (unsigned i = 0; i < length; i++)
        end += sprintf(end, "%02x", bytes[i]);
}

/** How much a designator is preferred as the name of the unit; 0: it is none. */
static unsigned designator_rank(unsigned type, const uint8_t *bytes, unsigned length)
{
    unsigned naa = length ? bytes[0] >> 4 : 0;

    if (type == 3 && naa == 6 && length == 16)
        return 4;
    if (type == 3 && (naa == 5 || naa == 2) && length == 8)
        return naa == 5 ? 3 : 2;
    if (type == 2 && (length == 8 || length == 12 || length == 16))
        return 1;
    return 0;
}

void facts_vpd83(struct lun_facts *facts, const uint8_t *bytes, unsigned length)
{
    unsigned left = vpd_payload(0x83, bytes, length), best = 0;

    facts->world[0] = facts->t10[0] = '\0';
    for (bytes += 4; left >= 4; left -= 4u + bytes[3], bytes += 4 + bytes[3]) {
        unsigned set = bytes[0] & 0x0f, association = bytes[1] >> 4 & 3;
        unsigned type = bytes[1] & 0x0f, size = bytes[3], rank;
        if (size > left - 4)
            break;
        if (association != 0) /* of the port or the device, not of the unit */
            continue;
        rank = set == 1 ? designator_rank(type, bytes + 4, size) : 0;
        if (rank > best) {
            best = rank;
            strcpy(facts->world, type == 3 ? "naa." : "eui.");
            hex_append(facts->world, bytes + 4, size);
        }
        if (type == 1)
            text_copy(facts->t10, sizeof(facts->t10), bytes + 4, size);
    }
}

void facts_vpd80(struct lun_facts *facts, const uint8_t *bytes, unsigned length)
{
    text_copy(facts->serial, sizeof(facts->serial), bytes + 4,
            vpd_payload(0x80, bytes, length));
}

void facts_vpdb0(struct lun_facts *facts, const uint8_t *bytes, unsigned length)
{
    unsigned payload = vpd_payload(0xb0, bytes, length);

    if (payload >= 8)
        facts->max_transfer = get_be32(bytes + 8);
    if (payload >= 24) {
        facts->max_unmap = get_be32(bytes + 20);
        facts->max_unmap_ranges = get_be32(bytes + 24);
    }
    if (payload >= 40)
        facts->max_write_same = get_be64(bytes + 36);
}

void facts_vpdb2(struct lun_facts *facts, const uint8_t *bytes, unsigned length)
{
    if (vpd_payload(0xb2, bytes, length) < 2)
        return;
    facts->can_unmap = bytes[5] & 0x80;
    facts->can_write_same_unmap = bytes[5] & 0x40;
}

bool facts_capacity(struct lun_facts *facts, const uint8_t *bytes, unsigned length)
{
    if (length < 12)
        return false;
    facts->blocks =
            get_be64(bytes) + 1; /* wraps to 0 for an absurd one: refused as empty */
    facts->block_size = get_be32(bytes + 8);
    facts->thin = length >= 15 && (bytes[14] & 0x80);
    facts->reads_zeros = length >= 15 && (bytes[14] & 0x40);
    return true;
}

void facts_mode(struct lun_facts *facts, const uint8_t *bytes, unsigned length)
{
    unsigned at;

    if (length < 4)
        return;
    facts->write_protected = bytes[2] & 0x80;
    facts->fua = bytes[2] & 0x10;
    at = 4u + bytes[3]; /* past block descriptors, should there be some */
    if (length >= at + 3 && (bytes[at] & 0x3f) == 0x08)
        facts->volatile_cache = bytes[at + 2] & 0x04;
}

void facts_reservation(struct lun_facts *facts, const uint8_t *bytes, unsigned length)
{
    if (length >= 8 && get_be32(bytes + 4) >= 16)
        facts->reserved = true;
}

bool facts_same_unit(const struct lun_facts *a, const struct lun_facts *b)
{
    return a->qualifier == b->qualifier && a->type == b->type &&
            a->block_size == b->block_size && strcmp(a->vendor, b->vendor) == 0 &&
            strcmp(a->world, b->world) == 0 && strcmp(a->t10, b->t10) == 0 &&
            strcmp(a->serial, b->serial) == 0;
}

void facts_identity(const struct lun_facts *facts, struct block_identity *identity)
{
    bool tgt = strcmp(facts->vendor, "IET") == 0 || strncmp(facts->t10, "IET", 3) == 0;

    identity->world[0] = identity->weak[0] = '\0';
    if (!tgt)
        snprintf(identity->world, sizeof(identity->world), "%s", facts->world);
    if (facts->t10[0] || facts->serial[0])
        snprintf(identity->weak, sizeof(identity->weak), "t10.%s,%s", facts->t10,
                facts->serial);
}

/** Append, joining runs of one kind. False when there is no room. */
static bool extent_add(struct block_extent *extents, unsigned max, unsigned *count,
        struct block_extent extent)
{
    struct block_extent *last = *count ? &extents[*count - 1] : NULL;

    if (extent.length == 0)
        return true;
    if (last && last->kind == extent.kind) {
        last->length += extent.length;
        return true;
    }
    if (*count == max)
        return false;
    extents[(*count)++] = extent;
    return true;
}

unsigned facts_extents(const struct lun_facts *facts, const uint8_t *bytes,
        unsigned size, uint64_t offset, uint64_t length, struct block_extent *extents,
        unsigned max)
{
    uint64_t at = offset, end = offset + length;
    unsigned count = 0, said = size >= 8 ? get_be32(bytes) : 0;

    if (said > 4 && size - 4 > said) /* the length field counts what follows it */
        size = 4 + said;
    for (unsigned i = 8; i + 16 <= size && at < end; i += 16) {
        uint64_t from, run, to;
        bool zero = (bytes[i + 12] & 0x0f) == 1 && facts->reads_zeros;
        if (!checked_mul(get_be64(bytes + i), facts->block_size, &from) ||
                !checked_mul(get_be32(bytes + i + 8), facts->block_size, &run) ||
                !checked_add(from, run, &to) || from > at || to <= at)
            break;
        to = min_u64(to, end);
        if (!extent_add(extents, max, &count,
                    (struct block_extent){ at, to - at,
                            zero ? BLOCK_EXTENT_ZERO : BLOCK_EXTENT_DATA }))
            return count;
        at = to;
    }
    if (count ==
            0) /* an answer that says nothing of our start: all of it may be data */
        extent_add(extents, max, &count,
                (struct block_extent){ offset, length, BLOCK_EXTENT_DATA });
    return count;
}

/* Registrations that are kept over a restart (APTPL). */
#include <assert.h>

#include "replica/base/digest.h"
#include "server/iscsi/scsi_reserve.h"

/* "RPR1", type, holder, count, 0; then each: key, ISID, length and name; then CRC32C. */
enum { KEPT_HEADER = 8, KEPT_FIXED = 15, KEPT_CRC = 4 };

static const char kept_magic[4] = "RPR1";

static size_t kept_put(const struct registrant *one, uint8_t *bytes)
{
    size_t length = strlen(one->initiator);

    be64_put(bytes, one->key);
    memcpy(bytes + 8, one->isid, 6);
    bytes[14] = (uint8_t)length;
    memcpy(bytes + KEPT_FIXED, one->initiator, length);
    return KEPT_FIXED + length;
}

size_t reserve_write(const struct registrations *all, uint8_t *bytes)
{
    size_t at = KEPT_HEADER;

    memcpy(bytes, kept_magic, sizeof kept_magic);
    bytes[4] = all->type;
    bytes[5] = all->holder;
    bytes[6] = all->count;
    bytes[7] = 0;
    for (unsigned i = 0; i < all->count; i++)
        at += kept_put(&all->list[i], bytes + at);
    be32_put(bytes + at, digest_crc32c(bytes, at));
    return at + KEPT_CRC;
}

static_assert(
        KEPT_HEADER + REGISTRANTS_MOST * (KEPT_FIXED + SCSI_NAME_MAX) + KEPT_CRC <=
                SCSI_KEPT_MAX,
        "all of it can be kept");

/* Returns the bytes of one registrant, 0 when it is none. */
static size_t kept_get(struct registrant *one, const uint8_t *bytes, size_t room)
{
    size_t length;

    if (room < KEPT_FIXED)
        return 0;
    length = bytes[14];
    if (length >= SCSI_NAME_MAX || room < KEPT_FIXED + length)
        return 0;
    one->key = be64_get(bytes);
    memcpy(one->isid, bytes + 8, 6);
    memcpy(one->initiator, bytes + KEPT_FIXED, length);
    one->initiator[length] = '\0';
    return KEPT_FIXED + length;
}

static bool kept_head(struct registrations *all, const uint8_t *bytes, size_t length)
{
    if (length < KEPT_HEADER + KEPT_CRC ||
            memcmp(bytes, kept_magic, sizeof kept_magic) != 0 ||
            digest_crc32c(bytes, length - KEPT_CRC) !=
                    be32_get(bytes + length - KEPT_CRC))
        return false;
    all->keep = true;
    all->type = bytes[4];
    all->holder = bytes[5];
    all->count = bytes[6];
    if (all->count > REGISTRANTS_MOST)
        return false;
    if (all->type == RESERVE_NO)
        return true;
    return type_known(all->type) && all->count > 0 &&
            (type_is_all(all->type) || all->holder < all->count);
}

bool reserve_read(struct scsi_unit *unit, const uint8_t *bytes, size_t length)
{
    struct registrations *all = &unit->pr;
    size_t at = KEPT_HEADER, one = 0;

    if (!bytes || length == 0)
        return true;
    if (!kept_head(all, bytes, length))
        return false;
    for (unsigned i = 0; i < all->count; i++, at += one)
        if ((one = kept_get(&all->list[i], bytes + at, length - KEPT_CRC - at)) == 0)
            return false;
    return at == length - KEPT_CRC;
}

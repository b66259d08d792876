/* Sense data (SPC-4 4.5): fixed format, or descriptors when D_SENSE of the control mode page
 * says so. */
#include "server/iscsi/scsi_inside.h"

static uint8_t sense_fixed(uint8_t *bytes, enum sense_key key, enum sense_code code,
        const uint64_t *information)
{
    enum { LENGTH = 18 };

    bytes[0] = 0x70;
    if (information && *information <= UINT32_MAX) {
        bytes[0] |= 0x80; /* VALID */
        be32_put(bytes + 3, (uint32_t)*information);
    }
    bytes[2] = (uint8_t)key;
    bytes[7] = LENGTH - 8;
    be16_put(bytes + 12, (uint16_t)code);
    return LENGTH;
}

static uint8_t sense_descriptor(uint8_t *bytes, enum sense_key key,
        enum sense_code code, const uint64_t *information)
{
    bytes[0] = 0x72;
    bytes[1] = (uint8_t)key;
    be16_put(bytes + 2, (uint16_t)code);
    if (!information)
        return 8;
    bytes[7] = 12;
    bytes[8] = 0x00; /* information descriptor */
    bytes[9] = 10;
    bytes[10] = 0x80; /* VALID */
    be64_put(bytes + 12, *information);
    return 20;
}

uint8_t sense_build(uint8_t *bytes, bool descriptor, enum sense_key key,
        enum sense_code code, const uint64_t *information)
{
    memset(bytes, 0, SCSI_SENSE_MAX);
    return descriptor ? sense_descriptor(bytes, key, code, information)
                      : sense_fixed(bytes, key, code, information);
}

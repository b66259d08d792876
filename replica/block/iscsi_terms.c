#include "replica/block/iscsi_terms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/checked.h"

enum {
    NUMBER_MIN = 512,
    NUMBER_MAX = (1 << 24) - 1, /* RFC 7143, 13.12 to 13.14 */
    FIRST_BURST = 65536, /* where the target says nothing: the RFC's defaults */
    MAX_BURST = 262144,
    SEGMENT = 8192
};

void terms_init(struct login_terms *terms)
{
    *terms = (struct login_terms){ .segment = SEGMENT,
        .first_burst = FIRST_BURST,
        .max_burst = MAX_BURST,
        .immediate = true,
        .initial_r2t = true };
}

static size_t data_length(const uint8_t header[TERMS_HEADER])
{
    return get_be32(header + 4) & 0xffffff;
}

static size_t data_begin(const uint8_t header[TERMS_HEADER])
{
    return TERMS_HEADER + 4 * (size_t)header[4];
}

size_t terms_pdu_length(const uint8_t header[TERMS_HEADER])
{
    return data_begin(header) + round_up(data_length(header), 4);
}

static int take_number(uint32_t *number, const char *value)
{
    char *end;
    unsigned long n = strtoul(value, &end, 0);

    if (end == value || *end || n < NUMBER_MIN || n > NUMBER_MAX)
        return -EPROTO;
    *number = (uint32_t)n;
    return 0;
}

static int take_none(const char *value)
{
    return strcmp(value, "None") == 0 ? 0 : -EPROTO; /* the others were not offered */
}

static int take_key(struct login_terms *terms, const char *key, const char *value)
{
    if (strcmp(key, "MaxRecvDataSegmentLength") == 0)
        return take_number(&terms->segment, value);
    if (strcmp(key, "FirstBurstLength") == 0)
        return take_number(&terms->first_burst, value);
    if (strcmp(key, "MaxBurstLength") == 0)
        return take_number(&terms->max_burst, value);
    if (strcmp(key, "HeaderDigest") == 0 || strcmp(key, "DataDigest") == 0)
        return take_none(value);
    if (strcmp(key, "InitialR2T") == 0)
        terms->initial_r2t = strcmp(value, "No") != 0;
    else if (strcmp(key, "ImmediateData") == 0)
        terms->immediate = strcmp(value, "Yes") == 0;
    return 0;
}

/** @text: one "Key=Value" of @length bytes, without the NUL. */
static int take_text(struct login_terms *terms, const char *text, size_t length)
{
    char copy[256], *equals;

    if (length >= sizeof(copy)) /* none of those that count */
        return 0;
    memcpy(copy, text, length);
    copy[length] = '\0';
    equals = strchr(copy, '=');
    if (!equals)
        return 0;
    *equals = '\0';
    return take_key(terms, copy, equals + 1);
}

int terms_take(struct login_terms *terms, const uint8_t *pdu, size_t length)
{
    size_t at = data_begin(pdu), end = at + data_length(pdu);
    int result = 0;

    if ((pdu[0] & 0x3f) != 0x23 || end > length)
        return -EPROTO;
    terms->told = true;
    terms->exp_stat_sn = get_be32(pdu + 24) + 1;
    terms->cmd_sn = get_be32(pdu + 28);
    terms->max_cmd_sn = get_be32(pdu + 32);
    while (at < end && result == 0) {
        const char *text = (const char *)pdu + at;
        size_t n = strnlen(text, end - at);
        result = take_text(terms, text, n);
        at += n + 1;
    }
    terms->segment -= terms->segment % 4; /* PDUs without padding */
    terms->first_burst -= terms->first_burst % 4;
    terms->max_burst = (uint32_t)min_u64(terms->max_burst, TERMS_SEGMENT);
    terms->first_burst = (uint32_t)min_u64(terms->first_burst, terms->max_burst);
    return result;
}

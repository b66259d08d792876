#include "replica/base/digest.h"

#include <gnutls/crypto.h>
#include <isa-l.h>
#include <limits.h>
#include <xxhash.h>

#include "replica/base/check.h"

struct digest128 digest_xxh3(const void *bytes, size_t length)
{
    XXH128_hash_t hash = XXH3_128bits(bytes, length);
    return (struct digest128){ hash.low64, hash.high64 };
}

bool digest_equal(struct digest128 a, struct digest128 b)
{
    return a.low == b.low && a.high == b.high;
}

/* ISA-L's prototypes lack const; neither function writes. */
static void *without_const(const void *bytes)
{
    return (void *)(uintptr_t)bytes;
}

uint32_t digest_crc32c(const void *bytes, size_t length)
{
    unsigned char *at = without_const(bytes);
    uint32_t crc = UINT32_MAX;

    while (length > 0) {
        int n = length < INT_MAX ? (int)length : INT_MAX;
        crc = crc32_iscsi(at, n, crc);
        at += n;
        length -= (size_t)n;
    }
    return ~crc;
}

void digest_sha256(const void *bytes, size_t length, uint8_t digest[32])
{
    check(gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, length, digest) == 0);
}

bool digest_is_zero(const void *bytes, size_t length)
{
    return length == 0 || isal_zero_detect(without_const(bytes), length) == 0;
}

#include "replica/base/digest.h"

#include <gnutls/crypto.h>
#include <isa-l.h>
#include <limits.h>
#include <string.h>
#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h> /* takes the widest vectors of the CPU that it runs on */
#endif

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
    return digest_crc32c_more(0, bytes, length);
}

uint32_t digest_crc32c_more(uint32_t crc, const void *bytes, size_t length)
{
    unsigned char *at = without_const(bytes);

    crc = ~crc;
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

static const struct {
    gnutls_digest_algorithm_t algorithm;
    size_t size;
} kinds[] = {
    [DIGEST_MD5] = { GNUTLS_DIG_MD5, 16 },
    [DIGEST_SHA1] = { GNUTLS_DIG_SHA1, 20 },
    [DIGEST_SHA256] = { GNUTLS_DIG_SHA256, 32 },
    [DIGEST_SHA3_256] = { GNUTLS_DIG_SHA3_256, 32 },
};

size_t digest_size(enum digest_kind kind)
{
    return kinds[kind].size;
}

bool digest_make(enum digest_kind kind, const void *bytes, size_t length,
        uint8_t digest[DIGEST_MAX])
{
    memset(digest, 0, DIGEST_MAX);
    return gnutls_hash_fast(kinds[kind].algorithm, bytes, length, digest) == 0;
}

bool digest_same(const void *a, const void *b, size_t length)
{
    return gnutls_memcmp(a, b, length) == 0;
}

bool digest_is_zero(const void *bytes, size_t length)
{
    return length == 0 || isal_zero_detect(without_const(bytes), length) == 0;
}

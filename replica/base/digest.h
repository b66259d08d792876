/* replica/base/digest.h - digests and zero detection over memory. Any thread, no state.
 */
#ifndef REPLICA_BASE_DIGEST_H
#define REPLICA_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest128 {
    uint64_t low, high;
};

/** XXH3-128. Finds change, not malice. */
struct digest128 digest_xxh3(const void *bytes, size_t length);

bool digest_equal(struct digest128 a, struct digest128 b);

/** CRC32C (Castagnoli), initial ~0, final inversion, as in RFC 7143 and RFC 3720 B.4.
 */
uint32_t digest_crc32c(const void *bytes, size_t length);

/** The same over what comes behind the bytes that @crc is of (0: of none). */
uint32_t digest_crc32c_more(uint32_t crc, const void *bytes, size_t length);

/** SHA-256 (GnuTLS). */
void digest_sha256(const void *bytes, size_t length, uint8_t digest[32]);

/** What CHAP may be computed with (GnuTLS), the weakest first. */
enum digest_kind { DIGEST_MD5, DIGEST_SHA1, DIGEST_SHA256, DIGEST_SHA3_256 };
enum { DIGEST_MAX = 32 }; /* bytes of the longest */

/** Bytes of a digest. */
size_t digest_size(enum digest_kind kind);

/** False: this machine's policy forbids the kind (FIPS mode); @digest is zeroed then. */
bool digest_make(enum digest_kind kind, const void *bytes, size_t length,
        uint8_t digest[DIGEST_MAX]);

/** Compares in a time that tells nothing of what the bytes are. */
bool digest_same(const void *a, const void *b, size_t length);

/** True when every byte is zero (ISA-L). Length 0 is true. */
bool digest_is_zero(const void *bytes, size_t length);

#endif

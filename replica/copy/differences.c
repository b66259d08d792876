#include "replica/copy/differences.h"

#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"

void differences_add(struct differences *found, uint64_t offset, uint64_t length)
{
    bool more = found->ranges && offset == found->end;

    check(length && (!found->ranges || offset >= found->end));
    found->bytes += length;
    found->end = offset + length;
    if (more && found->ranges <= DIFFERENCES_KEPT)
        found->first[found->kept - 1].length += length;
    if (more)
        return;
    found->ranges++;
    if (found->kept == DIFFERENCES_KEPT)
        return;
    found->first[found->kept].offset = offset;
    found->first[found->kept++].length = length;
}

void differences_find(struct differences *found, const uint8_t *a, const uint8_t *b,
        uint64_t offset, uint64_t length, uint64_t grain)
{
    uint64_t n;

    for (uint64_t at = 0; at < length; at += n) {
        n = min_u64(grain, length - at);
        if (memcmp(a + at, b + at, n) != 0)
            differences_add(found, offset + at, n);
    }
}

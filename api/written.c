/* LUNs where writes may be under way that nobody waits for. A command that was given up at a far
 * side that did not answer may still be carried out there, long after who sent it is gone and
 * whatever became of this process: who writes the same bytes next opens with a barrier.
 *
 * What hosts write through an export nobody can tell: remembered is the LUN by its address and
 * a range of it. It outlives the element, and it costs a reset of the LUN at each such opening,
 * so a range that was never exported is spared. A copy tells at its end whether it has left
 * something behind: that is remembered of the LUN until the next one has passed its barrier. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/exports.h"
#include "replica/base/digest.h"

struct range {
    uint64_t from, to; /* bytes of the LUN */
};

static bool is_lun(const char *address)
{
    return strncmp(address, "iscsi:", 6) == 0;
}

static struct store_meta meta_of(const char *what, const char *address)
{
    struct digest128 digest = digest_xxh3(address, strlen(address));
    struct store_meta meta = { .key = "" };

    (void)snprintf(meta.key, sizeof(meta.key), "%s.%016" PRIx64 "%016" PRIx64, what,
            digest.high, digest.low);
    return meta;
}

/* -- by hosts ------------------------------------------------------------------------------ */

/** What cannot be read may be anything: all of it. */
static struct range range_of(const struct store_meta *meta)
{
    struct range range;

    if (sscanf(meta->value, "%" SCNu64 " %" SCNu64, &range.from, &range.to) != 2)
        range = (struct range){ 0, UINT64_MAX };
    return range;
}

void export_written_note(struct clerk_turn *turn, const struct store_element *element)
{
    struct store_meta meta = meta_of("written", element->address);
    struct range range = { element->offset, element->offset + element->size }, before;

    if (!is_lun(element->address))
        return;
    if (turn_get(turn, STORE_META, meta.key, &meta)) {
        before = range_of(&meta);
        range.from = before.from < range.from ? before.from : range.from;
        range.to = before.to > range.to ? before.to : range.to;
    }
    (void)snprintf(meta.value, sizeof(meta.value), "%" PRIu64 " %" PRIu64, range.from,
            range.to);
    turn_put(turn, STORE_META, &meta);
}

static bool hosts_wrote(
        struct store_reader *reader, const struct engine_element *element)
{
    struct store_meta meta = meta_of("written", element->address);
    struct range range;
    int result = store_get(reader, STORE_META, meta.key, &meta);

    if (result)
        return result != -ENOENT;
    range = range_of(&meta);
    return element->offset < range.to &&
            (element->size == 0 || range.from - element->offset < element->size ||
                    range.from < element->offset);
}

/* -- by copies ----------------------------------------------------------------------------- */

void written_loose(struct clerk_turn *turn, const char *address, bool loose)
{
    struct store_meta meta = meta_of("loose", address);
    bool was;

    if (!is_lun(address))
        return;
    was = turn_get(turn, STORE_META, meta.key, &meta);
    if (loose && !was)
        turn_put(turn, STORE_META, &meta);
    else if (was && !loose)
        turn_delete(turn, STORE_META, &meta);
}

bool written_before(struct store_reader *reader, const struct engine_element *element)
{
    struct store_meta meta = meta_of("loose", element->address);

    if (!is_lun(element->address))
        return false;
    return store_get(reader, STORE_META, meta.key, &meta) != -ENOENT ||
            hosts_wrote(reader, element);
}

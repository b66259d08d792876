#include "tests/replica/copy/card.h"

#include <errno.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"

enum { SECTOR = 512 };

static struct card *card_of(struct sidecar_medium *medium)
{
    return container_of(medium, struct card, medium);
}

static bool card_fails(struct card *card)
{
    return ++card->calls >= card->fail_at && card->fail_at;
}

static int card_size(struct sidecar_medium *medium, uint64_t *size)
{
    *size = card_of(medium)->seen_size;
    return 0;
}

static int card_read(
        struct sidecar_medium *medium, uint64_t offset, void *bytes, size_t length)
{
    struct card *card = card_of(medium);

    if (!range_inside(offset, length, card->seen_size))
        return -EIO;
    memcpy(bytes, card->seen + offset, length);
    return 0;
}

static int card_write(struct sidecar_medium *medium, uint64_t offset, const void *bytes,
        size_t length)
{
    struct card *card = card_of(medium);
    bool fails = card_fails(card);

    check(offset + length <= CARD_ROOM);
    if (fails && !card->torn)
        return -EIO;
    if (fails)
        length = length / 2 / SECTOR * SECTOR;
    memcpy(card->seen + offset, bytes, length);
    if (offset + length > card->seen_size)
        card->seen_size = offset + length;
    return fails ? -EIO : 0;
}

static int card_resize(struct sidecar_medium *medium, uint64_t size)
{
    struct card *card = card_of(medium);

    check(size <= CARD_ROOM);
    if (card_fails(card))
        return -EIO;
    if (size > card->seen_size)
        memset(card->seen + card->seen_size, 0, size - card->seen_size);
    card->seen_size = size;
    return 0;
}

static int card_sync(struct sidecar_medium *medium)
{
    struct card *card = card_of(medium);

    if (card_fails(card))
        return -EIO;
    memcpy(card->stable, card->seen, CARD_ROOM);
    card->stable_size = card->seen_size;
    return 0;
}

struct card card_fresh(void)
{
    return (struct card){ .medium = { card_size, card_read, card_write, card_resize,
                                  card_sync } };
}

void card_cut(struct card *card, struct rig *rig)
{
    for (uint64_t at = 0; at < CARD_ROOM; at += SECTOR)
        if (rig_below(rig, 2))
            memcpy(card->stable + at, card->seen + at, SECTOR);
    if (rig_below(rig, 2))
        card->stable_size = card->seen_size;
    memcpy(card->seen, card->stable, CARD_ROOM);
    card->seen_size = card->stable_size;
}

/* tests/replica/copy/card.h - a sidecar's medium in memory whose power can be cut: what was not
 * synced is lost, kept or torn at 512 bytes. */
#ifndef TESTS_REPLICA_COPY_CARD_H
#define TESTS_REPLICA_COPY_CARD_H

#include "replica/copy/sidecar.h"
#include "tests/replica/copy/rig.h"

enum { CARD_ROOM = 16 << 10 };

struct card {
    struct sidecar_medium medium;
    uint8_t seen[CARD_ROOM], stable[CARD_ROOM];
    uint64_t seen_size, stable_size;
    unsigned calls,
            fail_at; /* the n-th writing call fails, and all after it; 0: none */
    bool torn; /* a failing write gets half of its bytes out */
};

struct card card_fresh(void);

/** Every sector that was not synced survives or not. */
void card_cut(struct card *card, struct rig *rig);

#endif

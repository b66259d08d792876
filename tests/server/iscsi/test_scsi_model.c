/* READ, WRITE, WRITE SAME, UNMAP, COMPARE AND WRITE and ORWRITE of many sessions at random,
 * against a model. */
#include <string.h>

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/server/iscsi/scsi_rig.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { BLOCK = 512, MODEL_BLOCKS = 4096, LIVE = 16, STEPS = 6000 };

static struct rig rig;

static uint8_t model[MODEL_BLOCKS * 512];
static bool busy[MODEL_BLOCKS]; /* a writer is there: readers and writers keep away */

struct actor {
    struct rig_task task;
    uint8_t bytes[64 * 512 * 2], wanted[64 * 512];
    uint8_t list[24];
    uint64_t lba;
    uint32_t blocks;
    bool live, reads, writes;
};

static bool actor_claim(struct actor *actor, uint64_t *seed)
{
    actor->blocks = (uint32_t)(1 + seed_below(seed, 64));
    actor->lba = seed_below(seed, MODEL_BLOCKS - actor->blocks + 1);
    for (uint32_t i = 0; i < actor->blocks; i++)
        if (busy[actor->lba + i])
            return false;
    for (uint32_t i = 0; i < actor->blocks; i++)
        busy[actor->lba + i] = true;
    return true;
}

static void actor_start(struct actor *actor, uint64_t *seed)
{
    uint8_t cdb[16], *at = model + actor->lba * BLOCK;
    uint32_t bytes = actor->blocks * BLOCK;
    unsigned what = (unsigned)seed_below(seed, 7), nexus;
    uint32_t out = bytes;

    nexus = (unsigned)seed_below(seed, RIG_NEXUSES);
    actor->live = true;
    actor->reads = what == 0;
    seed_fill(seed, actor->bytes, bytes);
    memcpy(actor->wanted, at, bytes);
    rig_lba16(cdb, 0x88, actor->lba, actor->blocks);
    switch (what) {
    case 0:
        break;
    case 1:
    case 2:
        cdb[0] = 0x8a;
        cdb[1] = seed_below(seed, 2) ? 0x08 : 0;
        memcpy(actor->wanted, actor->bytes, bytes);
        break;
    case 3:
        cdb[0] = 0x93;
        out = BLOCK;
        for (uint32_t i = 0; i < actor->blocks; i++)
            memcpy(actor->wanted + i * BLOCK, actor->bytes, BLOCK);
        break;
    case 4: /* unmap, or zeros where there is no unmap */
        memset(actor->wanted, 0, bytes);
        if (rig.options.caps & BLOCK_CAN_DISCARD) {
            uint64_t range[1][2] = { { actor->lba, actor->blocks } };
            out = (uint32_t)rig_unmap_list(actor->list, 1, (const uint64_t(*)[2])range);
            memset(cdb, 0, sizeof cdb);
            cdb[0] = 0x42;
            cdb[8] = 24;
        } else {
            cdb[0] = 0x93;
            cdb[1] = 0x01;
            out = 0;
        }
        break;
    case 5:
        cdb[0] = 0x8b;
        for (uint32_t i = 0; i < bytes; i++)
            actor->wanted[i] = at[i] | actor->bytes[i];
        break;
    default: /* compare and write, half of them in vain */
        memset(cdb + 10, 0, 6);
        cdb[0] = 0x89;
        cdb[13] = (uint8_t)actor->blocks;
        memcpy(actor->bytes + bytes, actor->bytes, bytes);
        memcpy(actor->bytes, at, bytes);
        if (seed_below(seed, 2))
            memcpy(actor->wanted, actor->bytes + bytes, bytes);
        else
            actor->bytes[seed_below(seed, bytes)] ^= 0x40;
        out = bytes * 2;
    }
    rig_command(&rig, &actor->task, nexus, cdb, 16);
    if (what == 0)
        rig_in(&actor->task, actor->bytes, bytes);
    else
        rig_out(&actor->task, cdb[0] == 0x42 ? actor->list : actor->bytes, out);
    actor->task.task.attribute = seed_below(seed, 20) ? SCSI_SIMPLE : SCSI_ORDERED;
    rig_submit(&actor->task);
}

static void actor_finish(struct actor *actor)
{
    uint32_t bytes = actor->blocks * BLOCK, got = rig_sense(&actor->task);

    expect(got == 0 || got == SENSE(0xe, 0x1d00));
    memcpy(model + actor->lba * BLOCK, actor->wanted, bytes);
    if (actor->reads)
        expect(memcmp(actor->bytes, actor->wanted, bytes) == 0);
    expect(memcmp(rig_disk_at(&rig, actor->lba), actor->wanted, bytes) == 0);
    for (uint32_t i = 0; i < actor->blocks; i++)
        busy[actor->lba + i] = false;
    actor->live = false;
}

static void model_run(unsigned caps)
{
    static struct actor actors[LIVE];
    uint64_t seed = seed_take("scsi model");
    unsigned started = 0, live = 0;

    memset(model, 0, sizeof model);
    rig_make(&rig,
            &(struct rig_options){ .seed = seed,
                    .caps = caps,
                    .size = MODEL_BLOCKS * BLOCK,
                    .buffers = 2 << 20 });
    while (started < STEPS || live > 0) {
        struct actor *actor = &actors[seed_below(&seed, LIVE)];
        if (!actor->live && started < STEPS && actor_claim(actor, &seed)) {
            actor_start(actor, &seed);
            started++;
            live++;
        }
        if (seed_below(&seed, 3))
            (void)loop_turn(rig.loop);
        if (actor->live && actor->task.done) {
            actor_finish(actor);
            live--;
        }
    }
    expect(memcmp(memory_disk_bytes(rig.disk), model, sizeof model) == 0);
    rig_release(&rig);
}

Test(scsi_model, at_random_against_a_model_thin)
{
    model_run(RIG_THIN);
}

Test(scsi_model, at_random_against_a_model_thick)
{
    model_run(RIG_THICK);
}

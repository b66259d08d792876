#include "tests/server/iscsi/reserve_rig.h"

#include <string.h>

#include "tests/support/expect.h"

const uint64_t reserve_keys[RESERVE_SESSIONS] = { 0x1000, 0x2000, 0x3000 };
const uint8_t reserve_types[RESERVE_TYPES] = { 1, 3, 5, 6, 7, 8 };

struct rig reserve_rig;
uint32_t reserve_sense, reserve_received;
unsigned reserve_asker; /* whose PERSISTENT RESERVE IN it is: one without attentions */
uint8_t reserve_answer[BUFFER_LARGE];

void reserve_make(void)
{
    rig_make(&reserve_rig, &(struct rig_options){ .seed = 1 });
}

void reserve_end(void)
{
    rig_release(&reserve_rig);
}

void reserve_out_task(struct rig_task *task, uint8_t list[24], unsigned nexus,
        unsigned action, unsigned type, uint64_t key, uint64_t action_key,
        uint8_t flags)
{
    uint8_t cdb[10] = { 0x5f, (uint8_t)action, (uint8_t)type, 0, 0, 0, 0, 0, 24, 0 };

    memset(list, 0, 24);
    be64_put(list, key);
    be64_put(list + 8, action_key);
    list[20] = flags;
    rig_command(&reserve_rig, task, nexus, cdb, sizeof cdb);
    rig_out(task, list, 24);
}

enum scsi_status reserve_out(unsigned nexus, unsigned action, unsigned type,
        uint64_t key, uint64_t action_key)
{
    struct rig_task task;
    uint8_t list[24];
    enum scsi_status status;

    reserve_out_task(&task, list, nexus, action, type, key, action_key, 0);
    status = rig_run(&task);
    reserve_sense = rig_sense(&task);
    return status;
}

enum scsi_status reserve_join(unsigned nexus)
{
    return reserve_out(nexus, REGISTER, 0, 0, reserve_keys[nexus]);
}

void reserve_in(unsigned nexus, unsigned action)
{
    memset(reserve_answer, 0xee, sizeof reserve_answer);
    expect_eq(rig_get(&reserve_rig, nexus, &reserve_sense, reserve_answer, 0xffff,
                      &reserve_received,
                      CDB(0x5e, (uint8_t)action, 0, 0, 0, 0, 0, 0xff, 0xff, 0)),
            SCSI_GOOD);
}

uint32_t reserve_generation(void)
{
    reserve_in(reserve_asker, 0);
    return be32_get(reserve_answer);
}

unsigned reserve_key_count(void)
{
    reserve_in(reserve_asker, 0);
    expect_eq(reserve_received, 8 + be32_get(reserve_answer + 4));
    return be32_get(reserve_answer + 4) / 8;
}

/* The type that is held, 0 none; @key as it is told. */
unsigned reserve_held(uint64_t *key)
{
    reserve_in(reserve_asker, 1);
    if (be32_get(reserve_answer + 4) == 0)
        return 0;
    expect_eq(be32_get(reserve_answer + 4), 16);
    *key = be64_get(reserve_answer + 8);
    return reserve_answer[21];
}

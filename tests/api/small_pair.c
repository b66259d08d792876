#include "tests/api/small_pair.h"

struct rig rig;
char source[37], target[37];

void small_pair_begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
    rig_element(&rig, "StorageVolume", SIZE, source);
    rig_element(&rig, "StorageVolume", 2 * SIZE, target);
    pair_noise(&rig, source, SIZE, 61);
}

void small_pair_end(void)
{
    rig_remove(&rig);
}

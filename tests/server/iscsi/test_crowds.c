/* What a crowd, or its worst member, leaves behind it in the target: nothing. */
#include <criterion/criterion.h>

#include "tests/server/iscsi/target_rig.h"

#define SCENE(name)                                                                    \
    Test(iscsi_crowds, name)                                                           \
    {                                                                                  \
        rig_play("crowds", #name, NULL);                                               \
    }

SCENE(bad_texts)
SCENE(anything)

Test(iscsi_crowds, texts_without_a_buffer)
{
    rig_play("crowds", "texts_without_a_buffer",
            &(struct rig_options){ .buffer_bytes = 2u << 20 });
}

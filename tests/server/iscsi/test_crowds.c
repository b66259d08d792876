/* What a crowd, or its worst member, leaves behind it in the target: nothing. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/server/iscsi/target_rig.h"

#define SCENE(name)                                                                    \
    Test(iscsi_crowds, name)                                                           \
    {                                                                                  \
        rig_play("crowds", #name, NULL);                                               \
    }

SCENE(bad_texts)
SCENE(anything)
SCENE(strangers_who_discover)
SCENE(many_targets)
SCENE(asking_on)

/* Who refused it is not on the wire: the log says which limit it was. */
Test(iscsi_crowds, many_disks)
{
    static char said[1 << 20];
    int own = dup(STDERR_FILENO), fd = memfd_create("log", MFD_CLOEXEC);

    cr_assert(own >= 0 && fd >= 0 && dup2(fd, STDERR_FILENO) >= 0, "no log");
    rig_play("crowds", "many_disks", NULL);
    (void)dup2(own, STDERR_FILENO);
    cr_assert(pread(fd, said, sizeof said - 1, 0) > 0, "nothing is said");
    cr_assert(strstr(said, "status 0302, 4 sessions of its name on this target"),
            "the limit has no name");
    (void)close(own);
    (void)close(fd);
}

Test(iscsi_crowds, a_discovery_ends)
{
    rig_play("crowds", "a_discovery_ends", &(struct rig_options){ .ping_ms = 300 });
}

Test(iscsi_crowds, texts_without_a_buffer)
{
    rig_play("crowds", "texts_without_a_buffer",
            &(struct rig_options){ .buffer_bytes = 2u << 20 });
}

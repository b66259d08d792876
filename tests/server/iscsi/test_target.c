/* The target as initiators meet it: scenes of scenarios.py, honest and hostile, each before a
 * target of its own; and strangers. */
#include <criterion/criterion.h>

#include "tests/server/iscsi/target_rig.h"

#define SCENE(name)                                                                    \
    Test(iscsi_target, name)                                                           \
    {                                                                                  \
        rig_play("scenarios", #name, NULL);                                            \
    }

SCENE(transfers)
SCENE(unsolicited)
SCENE(unsolicited_of_a_failure)
SCENE(reset_of_a_failure)
SCENE(bursts)
SCENE(windows)
SCENE(full_window)
SCENE(holes)
SCENE(steady)
SCENE(discovery)
SCENE(text_in_pieces)
SCENE(text_twice)
SCENE(chap)
SCENE(discovery_with_chap)
SCENE(abort_in_flight)
SCENE(abort_while_wanting)
SCENE(abort_strangers)
SCENE(wrong_units)
SCENE(residuals)
SCENE(reinstatement)
SCENE(session_limits)
SCENE(logout)
SCENE(withdrawn)
SCENE(changed_names)
SCENE(changed_on_the_way)
SCENE(changed_secrets)
SCENE(digests_broken)
SCENE(lies_about_data)
SCENE(unknown_tags)
SCENE(wrong_data_numbers)
SCENE(storm_of_immediates)
SCENE(full_of_immediates)
SCENE(storm_of_nops)
SCENE(nops_out_of_nowhere)
SCENE(login_flood)
SCENE(login_garbage)
SCENE(half_open)
SCENE(does_not_read)

Test(iscsi_target, pings)
{
    rig_play("scenarios", "pings", &(struct rig_options){ .ping_ms = 300 });
}

Test(iscsi_target, starved)
{
    rig_play("scenarios", "starved", &(struct rig_options){ .buffer_bytes = 2u << 20 });
}

static const struct rig_options small_pieces = { .buffer_bytes = 2u << 20,
    .max_transfer = 64 << 10 };

Test(iscsi_target, starved_between_pieces)
{
    rig_play("scenarios", "starved_between_pieces", &small_pieces);
}

Test(iscsi_target, aborted_without_a_buffer)
{
    rig_play("scenarios", "aborted_without_a_buffer", &small_pieces);
}

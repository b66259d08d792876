/* The target as initiators meet it: scenes of scenarios.py, honest and hostile, each before a
 * target of its own; and strangers. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>

#include "replica/base/digest.h"
#include "server/iscsi/pdu.h"
#include "tests/server/iscsi/backing.h"
#include "tests/server/iscsi/target_rig.h"
#include "tests/support/expect.h"

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
SCENE(window_after_a_reset)
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
SCENE(changed_between_loops)
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
SCENE(no_descriptors)

Test(iscsi_target, pings)
{
    rig_play("scenarios", "pings", &(struct rig_options){ .ping_ms = 300 });
}

/* -- peers whose bytes do not come, or go ----------------------------------------------------- */

static const struct rig_options impatient = { .stuck_ms = 1000 };

Test(iscsi_target, aborted_and_never_fed)
{
    rig_play("scenarios", "aborted_and_never_fed", &impatient);
}

Test(iscsi_target, slow_link)
{
    rig_play("scenarios", "slow_link", &impatient);
}

Test(iscsi_target, owed_in_drops)
{
    rig_play("scenarios", "owed_in_drops", &impatient);
}

Test(iscsi_target, taken_in_drops)
{
    rig_play("scenarios", "taken_in_drops", &impatient);
}

/* -- few buffers ----------------------------------------------------------------------------- */

Test(iscsi_target, slow_readers)
{
    rig_play("scenarios", "slow_readers",
            &(struct rig_options){ .buffer_bytes = 16u << 20 });
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

Test(iscsi_target, starved_by_first_bursts)
{
    rig_play("scenarios", "starved_by_first_bursts", &small_pieces);
}

Test(iscsi_target, aborted_without_a_buffer)
{
    rig_play("scenarios", "aborted_without_a_buffer", &small_pieces);
}

/* -- who publishes does not wait for ever --------------------------------------------------- */

static atomic_uint opened;

static void counting_open(void *context, struct scsi_opening *asked, bool again)
{
    atomic_fetch_add(&opened, 1);
    backing_open(context, asked, again);
}

/* Nobody is registered: the header, and its CRC. */
static void kept_make(uint8_t kept[12])
{
    memcpy(kept, "RPR1\0\xff\0\0", 8);
    be32_put(kept + 8, digest_crc32c(kept, 8));
}

Test(iscsi_target, what_was_kept_is_not_read_when_its_publisher_has_left)
{
    static const char *const all[] = { "*" };
    struct rig *rig = rig_start(NULL);
    struct iscsi_export export = { .initiators = all, .initiator_count = 1 };
    struct backing backing;
    uint8_t *kept = malloc(12);
    int result;

    backing_init(&backing, "memory:8192", true, rig->loops[0]);
    backing.scsi.open = counting_open;
    kept_make(kept);
    cr_assert(uuid_parse("00000000-0000-7000-8000-00000000000f", &export.id));
    export.backing = &backing.scsi;
    export.kept = kept;
    export.kept_length = 12;
    rig_stand_still(rig, 0);
    expect_eq(iscsi_target_publish(rig->target, &export, 50, NULL), -ETIMEDOUT);
    memset(kept, 0xaa, 12);
    free(kept);
    rig_go_on(rig);
    result = iscsi_target_withdraw(rig->target, &export.id, RIG_DISKS_MS);
    expect(result == 0 || result == -ENOENT);
    expect_eq(atomic_load(&opened), 1u); /* what was kept was good when it was given */
    rig_stop(rig);
}

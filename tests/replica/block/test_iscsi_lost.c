/* The iscsi driver against a real tgtd that is killed, frozen, shrunk or reset. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/replica/block/iscsi_world.h"
#include "tests/support/port.h"

/** Fills the wire with reads and writes and returns with none of them answered. */
static void load(struct rig_batch *batch, struct block_device *device, uint8_t *bytes)
{
    for (uint64_t i = 0; i < 40; i++)
        rig_start(batch, device, i % 2 ? BLOCK_READ : BLOCK_WRITE, i * 128 * RIG_KIB,
                bytes + i * 128 * RIG_KIB, 128 * RIG_KIB);
}

Test(iscsi_lost, a_killed_target_answers_every_request_and_can_be_opened_anew)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    static struct rig_batch batch;
    uint8_t *bytes = malloc(SIZE);
    struct tgt_lun lun = { .path = world.path };

    memset(bytes, 3, SIZE);
    tgt_freeze(world.tgt); /* so that they are surely on their way */
    load(&batch, device, bytes);
    tgt_kill(world.tgt);
    rig_finish(&batch, world.loop);
    cr_assert_eq(rig_count(&batch, -ENOTCONN), 40);
    cr_assert(device->broken && block_last_words(device)[0]);
    cr_assert(device_read(device, 0, bytes, 512) < 0);
    cr_assert(device_close(&device));

    tgt_revive(world.tgt);
    tgt_add_target(world.tgt, 1, RIG_TARGET);
    tgt_add_lun(world.tgt, 1, 1, &lun);
    spec.barrier = true;
    device = rig_open(world.loop, &spec);
    cr_assert_eq(device_write(device, 0, bytes, 512), 0);
    cr_assert(device_close(&device));
    free(bytes);
    world_end(&world);
}

Test(iscsi_lost, an_idle_session_that_is_closed_is_noticed)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    struct drive_deadline patience = { .timer.fire = drive_expire };

    tgt_kill(world.tgt);
    loop_timer_start(world.loop, &patience.timer, DRIVE_DEADLINE_MS);
    while (!device->broken && !patience.passed)
        (void)loop_turn(world.loop);
    loop_timer_stop(world.loop, &patience.timer);
    cr_assert(device->broken);
    cr_assert(device_close(&device));
    world_end(&world);
}

Test(iscsi_lost, a_frozen_target_meets_the_deadline_and_the_session_is_given_up)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device;
    static struct rig_batch batch;
    uint8_t *bytes = calloc(1, SIZE);

    spec.io_timeout_ms = 2000;
    device = rig_open_in_time(world.loop, &spec);
    tgt_freeze(world.tgt);
    load(&batch, device, bytes);
    rig_finish(&batch, world.loop);
    cr_assert_eq(rig_count(&batch, -ETIMEDOUT), 1, "the one that was late");
    cr_assert_eq(rig_count(&batch, -ENOTCONN), 39, "the session went with it");
    cr_assert(device->broken);
    cr_assert(device_close(&device));
    spec.connect_timeout_ms = 300;
    cr_assert_eq(rig_refused(world.loop, &spec), -ETIMEDOUT);
    spec.connect_timeout_ms = 30000;
    tgt_thaw(world.tgt);
    spec.barrier = true;
    spec.io_timeout_ms = 60000;
    device = rig_open(world.loop, &spec);
    cr_assert_eq(device_read(device, 0, bytes, RIG_MIB), 0);
    cr_assert(device_close(&device));
    free(bytes);
    world_end(&world);
}

/** Nothing of a session that was given up may change a byte behind the barrier of the next. */
Test(iscsi_lost, late_writes_do_not_pass_the_barrier)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    uint8_t *bytes = malloc(SIZE), *seen = malloc(SIZE);
    static struct rig_batch batch;

    for (int round = 0; round < 3; round++) {
        struct block_device *device;
        spec.io_timeout_ms = 1500;
        device = rig_open_in_time(world.loop, &spec);
        tgt_freeze(world.tgt);
        memset(&batch, 0, sizeof(batch));
        memset(bytes, 'a' + round, SIZE);
        for (uint64_t i = 0; i < 32; i++)
            rig_start(
                    &batch, device, BLOCK_WRITE, i * 64 * RIG_KIB, bytes, 64 * RIG_KIB);
        rig_finish(&batch, world.loop);
        cr_assert_eq(rig_count(&batch, 0), 0);
        cr_assert(device_close(&device));
        tgt_thaw(world.tgt); /* it now finds what the kernel had taken for it */
        spec.barrier = true;
        spec.io_timeout_ms = 60000;
        device = rig_open(world.loop, &spec);
        memset(bytes, 'A' + round, 2 * RIG_MIB);
        cr_assert_eq(device_write(device, 0, bytes, RIG_MIB), 0);
        cr_assert_eq(device_write(device, RIG_MIB, bytes, RIG_MIB), 0);
        cr_assert(device_close(&device));
        cr_assert_eq(pread(world.fd, seen, 2 * RIG_MIB, 0), 2 * RIG_MIB);
        cr_assert(
                memcmp(seen, bytes, 2 * RIG_MIB) == 0, "a late write, round %d", round);
    }
    free(bytes);
    free(seen);
    world_end(&world);
}

Test(iscsi_lost, closing_a_session_with_a_frozen_target_ends)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);

    tgt_freeze(world.tgt);
    cr_assert(device_close(&device));
    tgt_thaw(world.tgt);
    world_end(&world);
}

Test(iscsi_lost, a_lun_that_shrank_is_not_what_was_opened)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    uint8_t *bytes = calloc(1, RIG_MIB);

    cr_assert_eq(device_write(device, SIZE - RIG_MIB, bytes, RIG_MIB), 0);
    cr_assert(ftruncate(world.fd, SIZE / 2) == 0);
    tgt_reload_lun(world.tgt, 1, 1, world.path);
    cr_assert_eq(device_write(device, SIZE - RIG_MIB, bytes, RIG_MIB), -ESTALE, "%s",
            block_last_words(device));
    cr_assert(device->broken);
    cr_assert(device_close(&device));
    spec.expect_size = SIZE;
    cr_assert_eq(rig_refused(world.loop, &spec), -ESTALE);
    free(bytes);
    world_end(&world);
}

Test(iscsi_lost, a_lun_that_was_removed)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    uint8_t bytes[512];
    int result;

    tgt_remove_lun(world.tgt, 1, 1);
    result = device_read(device, 0, bytes, 512);
    cr_assert(result == -ESTALE || result == -ENOTCONN, "%d: %s", result,
            block_last_words(device));
    cr_assert(device_close(&device));
    cr_assert_eq(rig_refused(world.loop, &spec), -ENXIO);
    world_end(&world);
}

Test(iscsi_lost, a_reset_by_another_ends_a_writer_that_had_not_flushed)
{
    struct world world = world_make(NULL);
    struct block_spec one = rig_spec(world.tgt->port, 1), two = one, three = one;
    struct block_device *writer, *flushed, *reader, *barrier;
    uint8_t bytes[512] = { 1 };

    two.isid++;
    three.isid += 2;
    three.writable = false;
    writer = rig_open(world.loop, &one);
    flushed = rig_open(world.loop, &two);
    reader = rig_open(world.loop, &three);
    cr_assert_eq(device_write(writer, 0, bytes, 512), 0);
    cr_assert_eq(device_write(flushed, 512, bytes, 512), 0);
    cr_assert_eq(device_flush(flushed), 0);

    one.isid += 3;
    one.barrier = true;
    barrier = rig_open(world.loop, &one);
    cr_assert_eq(device_read(reader, 0, bytes, 512), 0, "%s", block_last_words(reader));
    cr_assert_eq(device_flush(flushed), 0, "%s", block_last_words(flushed));
    cr_assert_eq(device_flush(writer), -EIO, "its cache may be lost");
    cr_assert(writer->broken && writer->returns && writer->answered);
    cr_assert(!flushed->broken);
    cr_assert(device_close(&writer) && device_close(&flushed));
    cr_assert(device_close(&reader) && device_close(&barrier));
    world_end(&world);
}
